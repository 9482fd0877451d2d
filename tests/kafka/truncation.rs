//! A log that is truncated under a consumer (KIP-320): the only replica in sync dies, one that has
//! fallen behind is elected, and what is written to it replaces what the consumer has read.

use ailurus_test_support::process::{Process, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cluster::Kafka;
use crate::tools::{has_kafka_and, report};

/// Waits for `n` records whose value begins with `prefix`; returns their offsets and values.
#[track_caller]
fn read(consumer: &Process, prefix: &str, n: usize) -> Vec<(i64, String)> {
    let value = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let record = |_| {
        let record = value(&consumer.line(|line| value(line)["value"].as_str().unwrap().starts_with(prefix)));
        (record["offset"].as_i64().unwrap(), record["value"].as_str().unwrap().to_owned())
    };
    (0..n).map(record).collect()
}

/// Waits until the first partition's field has this value.
#[track_caller]
fn await_partition(kafka: &Kafka, field: &str, wanted: &Value) {
    let ailurus = kafka.ailurus();
    let mut last = String::new();
    let reached = until(|| {
        // It fails while there is no leader.
        let described = ailurus.run(&["topic", "describe", "cut", "--json"]);
        last = described.stdout + &described.stderr;
        let described: Value = serde_json::from_str(&last).ok()?;
        (described["partitions"][0][field] == *wanted).then_some(())
    });
    assert!(reached.is_some(), "{field} did not become {wanted}: {last}");
}

#[test]
fn consumer_returns_to_where_the_logs_diverge() {
    if !has_kafka_and(module_path!(), &[]) {
        return;
    }
    let kafka = Kafka::start(3, "");
    let ailurus = kafka.ailurus();
    let unclean = ["--config", "unclean.leader.election.enable=true", "--config", "min.insync.replicas=1"];
    ailurus.ok(&[&["topic", "create", "cut", "--replica-assignment", "1:2"][..], &unclean].concat());
    let write = |prefix, n| ailurus.produce_numbers(prefix, n, &["cut", "--partition", "0"]);

    write("both-", 10);
    let consumer = ailurus.start(&["consume", "cut", "--json"]);
    read(&consumer, "both-", 10);
    kafka.kill(2);
    await_partition(&kafka, "inSyncReplicas", &json!([1]));
    write("old-", 5);
    let old = read(&consumer, "old-", 5);
    assert_eq!(old[0], (10, "old-1".to_owned()), "only node 1 has them");

    kafka.kill(1);
    kafka.restart(2);
    await_partition(&kafka, "leader", &json!(2));
    write("new-", 3);
    let new = read(&consumer, "new-", 3);
    let expected: Vec<_> = (1..=3).map(|i| (9 + i, format!("new-{i}"))).collect();
    assert_eq!(new, expected, "each once, from where the logs diverge");
    consumer.signal(Signal::SIGTERM);
    let ended = consumer.end();
    assert!(!ended.stdout.contains("new-"), "read again: {}", ended.stdout);
    let truncated = ended.stderr.lines().find(|line| line.contains("the log was truncated"));
    let truncated = truncated.unwrap_or_else(|| panic!("the truncation is not reported: {}", ended.stderr));
    report(module_path!(), format_args!("15 records read, 5 of them truncated, 3 read in their place: {truncated}"));
}
