//! The demonstration, on its own broker and on a given one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::{Bed, Process, command, run};
use tempfile::TempDir;

fn clean(report: &Value, orders: u64) {
    assert_eq!(report["published"], json!(orders * 5), "{report}");
    assert_eq!(report["handled"], json!(orders * 5), "{report}");
    for none in ["lost", "out_of_order", "not_acknowledged", "dead_letters"] {
        assert_eq!(report[none], json!(0), "{none}: {report}");
    }
    for number in ["duplicates", "rebalances", "throughput_per_s", "publish_per_s", "p50_ms", "p99_ms"] {
        assert!(report[number].is_number(), "{number}: {report}");
    }
    assert!(report["rebalances"].as_u64().unwrap() >= 4, "two groups, each with a rebalance after the kill: {report}");
}

#[test]
fn without_a_broker_it_brings_its_own() {
    let dir = TempDir::new().unwrap();
    let mut demo = command(dir.path());
    demo.args(["demo", "--orders", "300", "--json"]);
    let ended = run(demo, b"").expect(0);
    let report: Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
    clean(&report, 300);
    assert_eq!(report["embedded"], true);
}

#[test]
fn on_a_given_broker_it_cleans_up() {
    let bed = Bed::new();
    let ended = bed.run(&["demo", "--orders", "300", "--json"]).expect(0);
    let report: Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
    clean(&report, 300);
    assert_eq!(report["brokers"], json!(bed.brokers));
    let topics = bed.run(&["topic", "list"]).expect(0).stdout;
    let topic = ended.stderr.split_whitespace().find(|w| w.starts_with("ailurus-demo-")).unwrap();
    assert!(!topics.contains(topic), "{topics}");
}

#[test]
fn it_ends_by_itself_when_the_broker_hangs() {
    let bed = Bed::embedded();
    let mut command = bed.command(&["demo", "--orders", "2000", "--timeout", "20"]);
    command.env("REDPANDA_REQUEST_TIMEOUT", "1000");
    let demo = Process::spawn(command);
    demo.line(|l| l.starts_with("Kill")); // three fifths are not sent yet, and the new members not in
    bed.stop_broker();
    let ended = demo.end().expect(1);
    for text in ["lost", "cut short: "] {
        assert!(ended.stdout.lines().any(|l| l.starts_with(text)), "{text}: {}", ended.stdout);
    }
    assert!(ended.stdout.contains("not published"), "{}", ended.stdout);
}

#[test]
fn phases_are_printed_for_people() {
    let dir = TempDir::new().unwrap();
    let mut demo = command(dir.path());
    demo.args(["demo", "--orders", "20"]);
    let text = run(demo, b"").expect(0).stdout;
    for phase in ["Brokers", "Topic", "Members", "Kill", "Join", "Publish", "Handled", "lost", "out of order"] {
        assert!(text.lines().any(|l| l.starts_with(phase)), "{phase}: {text}");
    }
}
