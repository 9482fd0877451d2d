//! `ailurus serve`: a cluster, watched over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ailurus_broker::{Broker, BrokerConfig, RequestInfo, Sasl};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{Bed, Process, address_of, fetch, get, until};

fn start(bed: &Bed, variables: &[(&str, &str)]) -> (Process, String) {
    let mut command = bed.command(&["serve", "--listen", "127.0.0.1:0", "--interval", "1"]);
    command.envs(variables.iter().copied());
    let process = Process::spawn(command);
    let address = address_of(&process);
    (process, address)
}

/// Waits for a report of the cluster.
#[track_caller]
fn report(address: &str, wanted: impl Fn(&Value) -> bool) -> (u16, Value) {
    until(|| get(address, "/health/redpanda").filter(|(_, report)| wanted(report))).expect("the report")
}

fn group<'a>(report: &'a Value, name: &str) -> Option<&'a Value> {
    report["groups"].as_array()?.iter().find(|g| g["group"] == name)
}

#[test]
fn groups_topics_lag_and_dead_letters_are_shown() {
    let mut bed = Bed::new();
    let (topic, name) = (bed.topic("watched", 1), bed.name("readers"));
    let dead = bed.topic("watched.dlq", 1);
    bed.feed(&["produce", &topic], b"1\n2\n3\n").expect(0);
    bed.run(&["consume", &topic, "--group", &name, "--from", "earliest", "--max", "1"]).expect(0);
    bed.feed(&["produce", &dead], b"1\n2\n").expect(0);

    let (process, address) = start(&bed, &[]);
    let (code, seen) = report(&address, |r| group(r, &name).is_some_and(|g| g["lag"] == 2));
    assert!(matches!(code, 200 | 503), "{seen}"); // other groups of the broker may be stalled
    let of_group = group(&seen, &name).unwrap();
    assert_eq!((&of_group["members"], &of_group["state"]), (&json!(0), &json!("Empty")), "{seen}");
    let partition = &of_group["partitions"][0];
    for (field, value) in [("committed", json!(1)), ("end", json!(3)), ("lag", json!(2)), ("activity", json!("idle"))] {
        assert_eq!(partition[field], value, "{field}: {seen}");
    }
    let topics: Vec<_> = seen["topics"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert!(topics.contains(&topic.as_str()) && topics.contains(&dead.as_str()), "{seen}");
    let letters = |r: &Value| r["deadLetters"].as_array().unwrap().iter().find(|d| d["topic"] == *dead).cloned();
    assert_eq!(letters(&seen).unwrap()["records"], 2, "{seen}");

    let (_, _, page) = fetch(&address, "/", "text/html").unwrap();
    for text in [name.as_str(), &topic, "Dead letters", "<dt>Members</dt><dd>0</dd>", "<dt>Lag</dt><dd>2</dd>"] {
        assert!(page.contains(text), "no {text:?} in {page}");
    }
    let (_, _, metrics) = fetch(&address, "/metrics", "text/plain").unwrap();
    let lag = format!("ailurus_consumer_lag_records{{group=\"{name}\",topic=\"{topic}\",partition=\"0\"}} 2");
    let records = format!("ailurus_dead_letter_records{{topic=\"{dead}\"}} 2");
    for line in [lag, records, format!("ailurus_group_members{{group=\"{name}\",state=\"Empty\"}} 0")] {
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
    assert_eq!(get(&address, "/health/ready").unwrap().0, 200);
    process.signal(Signal::SIGTERM);
    process.end().expect(0);
}

#[test]
fn metrics_are_documented() {
    let bed = Bed::embedded();
    let (process, address) = start(&bed, &[]);
    report(&address, |_| true);
    let (_, _, metrics) = fetch(&address, "/metrics", "text/plain").unwrap();
    let docs = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md")).unwrap();
    let shown: BTreeSet<_> = metrics.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in shown.iter().filter(|name| **name != "ailurus_build_info") {
        assert!(docs.contains(&format!("`{name}`")), "docs/metrics.md does not list {name}");
    }
    drop(process);
}

#[test]
fn it_only_reads() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let broker = runtime.block_on(Broker::start(BrokerConfig::default())).unwrap();
    let bed = Bed::of(broker.bootstrap());
    bed.feed(&["produce", "orders", "--create"], b"x\n").expect(0);
    bed.run(&["consume", "orders", "--group", "g", "--from", "earliest", "--max", "1"]).expect(0);
    let topics = bed.run(&["topic", "list"]).expect(0).stdout;
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let requests = Arc::clone(&seen);
    broker.set_hook(move |request: &RequestInfo<'_>| {
        requests.lock().unwrap().insert(request.api_key);
        None
    });
    let (process, address) = start(&bed, &[]);
    report(&address, |r| group(r, "g").is_some());
    process.signal(Signal::SIGTERM);
    process.end().expect(0);
    // ListOffsets, Metadata, OffsetFetch, FindCoordinator, DescribeGroups, ListGroups, ApiVersions, DescribeCluster,
    // DescribeProducers, DescribeTransactions, ListTransactions, ConsumerGroupDescribe: no Produce, Fetch, JoinGroup,
    // CreateTopics or OffsetCommit.
    let reading = [2, 3, 9, 10, 15, 16, 18, 60, 61, 65, 66, 69];
    let seen = seen.lock().unwrap().clone();
    assert!(seen.iter().all(|api| reading.contains(api)), "{seen:?}");
    assert_eq!(bed.run(&["topic", "list"]).expect(0).stdout, topics);
    assert_eq!(std::fs::read_dir(bed.dir.path()).unwrap().count(), 0, "no file is written");
}

#[test]
fn a_partition_whose_member_commits_nothing_is_stalled() {
    let mut bed = Bed::embedded();
    let topic = bed.topic("stalled", 1);
    bed.feed(&["produce", &topic], b"1\n").expect(0);
    // A member that reads and commits, and is then suspended for longer than the stall timeout, but not its session.
    let member = bed.start(&["consume", &topic, "--group", "slow", "--from", "earliest"]);
    member.line(|l| l.ends_with('1'));
    until(|| bed.run(&["group", "describe", "slow"]).stdout.contains(" 0 ").then_some(()));
    let (process, address) = start(&bed, &[("REDPANDA_STALL_TIMEOUT", "500")]);
    report(&address, |r| group(r, "slow").is_some_and(|g| g["partitions"][0]["committed"] == 1));
    member.signal(Signal::SIGSTOP);
    bed.feed(&["produce", &topic], b"2\n").expect(0);
    let (code, seen) = report(&address, |r| r["status"] == "unhealthy");
    assert_eq!(code, 503, "{seen}");
    let problem = seen["problems"][0].as_str().unwrap();
    assert!(problem.starts_with(&format!("{topic}/0 of group \"slow\" is stalled: 1 record waits")), "{problem}");
    assert_eq!(get(&address, "/health/ready").unwrap().0, 200, "the watcher itself works");
    member.signal(Signal::SIGCONT);
    report(&address, |r| r["status"] == "healthy");
    drop(process);
}

#[test]
fn an_outage_is_shown_with_what_was_seen_before() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let broker = runtime.block_on(Broker::start(BrokerConfig::default())).unwrap();
    let bed = Bed::of(broker.bootstrap());
    bed.feed(&["produce", "orders", "--create"], b"x\n").expect(0);
    bed.run(&["consume", "orders", "--group", "g", "--from", "earliest", "--max", "1"]).expect(0);
    let refused = format!("{}: refused the connection", broker.bootstrap());
    runtime.block_on(broker.stop_node(0)).unwrap();
    let (process, address) = start(&bed, &[]);
    assert_eq!(get(&address, "/health/live").unwrap().0, 200);
    let (code, _) = report(&address, |r| r["problems"].to_string().contains(&refused));
    assert_eq!(code, 503);
    let (code, body) = get(&address, "/health/ready").unwrap();
    assert_eq!(code, 503, "{body}");
    assert!(body["reasons"].to_string().contains(&refused), "{body}");
    runtime.block_on(broker.start_node(0)).unwrap();
    report(&address, |r| r["status"] == "healthy" && group(r, "g").is_some());
    assert_eq!(get(&address, "/health/ready").unwrap().0, 200);
    runtime.block_on(broker.stop_node(0)).unwrap();
    let (code, seen) = report(&address, |r| r["status"] == "unhealthy");
    assert_eq!(code, 503);
    assert!(group(&seen, "g").is_some(), "{seen}");
    process.signal(Signal::SIGTERM);
    process.end().expect(0);
}

#[test]
fn a_first_login_that_is_refused_ends_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sasl = Sasl::default().user("watcher", "secret");
    let broker = runtime.block_on(Broker::start(BrokerConfig::default().sasl(sasl))).unwrap();
    let bed = Bed::of(broker.bootstrap());
    let (process, _) = start(
        &bed,
        &[
            ("REDPANDA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
            ("REDPANDA_SASL_ALLOW_CLEARTEXT", "true"),
            ("REDPANDA_SASL_MECHANISM", "PLAIN"),
            ("REDPANDA_SASL_USERNAME", "watcher"),
            ("REDPANDA_SASL_PASSWORD", "wrong"),
        ],
    );
    process.end().expect(6);
}
