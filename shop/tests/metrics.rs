//! `GET /metrics` of the shop, and the documents, dashboard and alerts in `docs/` that name metrics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{Bed, until};

/// Returns the head and the body of the response.
fn get(address: &str, accept: &str) -> (String, String) {
    let (_, head, body) = support::fetch(address, "/metrics", accept).unwrap();
    (head.to_lowercase(), body)
}

/// Returns the types of the metrics in the text, by name.
fn types(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

fn doc(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)).unwrap()
}

/// Returns the names of metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let is_metric = |word: &&str| {
        let rest = word.strip_prefix("ailurus_").or_else(|| word.strip_prefix("messaging_"));
        rest.is_some() && !LABELS.contains(word)
    };
    words.filter(is_metric).map(str::to_owned).collect()
}

const LABELS: [&str; 4] =
    ["messaging_system", "messaging_operation_name", "messaging_destination_name", "messaging_consumer_group_name"];

#[test]
fn documents_and_response_name_the_same_metrics() {
    let bed = Bed::new();
    let (process, address) = bed.start(&[]);
    let member = "ailurus_consumer_members{group=\"stock-consumer-group\",state=\"member\"} 1";
    until(|| get(&address, "").1.contains(member).then_some(())).expect("it is a member of its group");

    let (head, text) = get(&address, "text/plain");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(text.contains(&format!("ailurus_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))), "{text}");
    let shown = types(&text);
    let exposes = |name: &str| {
        let of = |suffix| name.strip_suffix(suffix).is_some_and(|name| shown.get(name) == Some(&"histogram"));
        shown.get(name).is_some_and(|kind| *kind != "histogram") || ["_bucket", "_sum", "_count"].into_iter().any(of)
    };
    for file in ["grafana-dashboard.json", "alerts.yml", "alerts-test.yml"] {
        let names = named(&doc(file));
        assert!(!names.is_empty());
        let missing: Vec<_> = names.iter().filter(|name| !exposes(name)).collect();
        assert!(missing.is_empty(), "{file} names {missing:?}");
    }
    let on_the_dashboard = named(&doc("grafana-dashboard.json"));
    let documented = doc("metrics.md");
    let (documented, _) = documented.split_once("## A cluster, watched").unwrap();
    let listed = named(&documented.lines().filter(|l| l.starts_with("| `")).collect::<String>());
    for name in shown.keys().filter(|name| **name != "ailurus_build_info") {
        assert!(listed.contains(*name), "docs/metrics.md does not list {name}");
        let panel = |n: &String| n.strip_prefix(name).is_some_and(|rest| ["", "_bucket", "_count"].contains(&rest));
        assert!(on_the_dashboard.iter().any(panel), "{name} is on no panel");
    }
    assert!(listed.iter().all(|name| shown.contains_key(&**name)), "docs/metrics.md lists what is not there");

    let (head, open) = get(&address, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(open.ends_with("# EOF\n"), "{open}");
    assert!(open.contains("# UNIT ailurus_request_duration_seconds seconds\n"), "{open}");
    assert_eq!(types(&open).len(), shown.len());
    process.signal(Signal::SIGTERM);
    process.end().expect(0);
}

#[test]
fn the_dashboard_is_one_that_grafana_loads() {
    let board: Value = serde_json::from_str(&doc("grafana-dashboard.json")).unwrap();
    assert!(board["schemaVersion"].as_u64().unwrap() >= 36 && board["title"].is_string() && board["uid"].is_string());
    assert!(board["id"].is_null(), "it gets one when it is loaded");
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    let variables: BTreeSet<_> =
        board["templating"]["list"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
    for panel in board["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24 && at("w") > 0 && at("h") > 0, "{title}");
        let place = (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)));
        place.for_each(|cell| assert!(cells.insert(cell), "{title} lies over another panel at {cell:?}"));
        if panel["type"] == "row" {
            continue;
        }
        assert!(["timeseries", "stat"].contains(&panel["type"].as_str().unwrap()), "{title}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let targets = panel["targets"].as_array().unwrap();
        let letters: BTreeSet<_> = targets.iter().map(|t| t["refId"].as_str().unwrap()).collect();
        assert!(!targets.is_empty() && letters.len() == targets.len(), "{title}");
        for target in targets {
            let expr = target["expr"].as_str().unwrap();
            let (open, close) = (expr.matches(['(', '{', '[']).count(), expr.matches([')', '}', ']']).count());
            assert!(open == close && !named(expr).is_empty(), "{title}: {expr}");
            for used in expr.split('$').skip(1) {
                let name: String = used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                assert!(variables.contains(&*name) || name == "__rate_interval", "{title}: ${name}");
            }
        }
    }
}
