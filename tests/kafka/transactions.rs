//! Transactions as an operator sees and ends them: beside Kafka's own tool.

use std::sync::OnceLock;
use std::time::Duration;

use ailurus_test_support::process::until;
use serde_json::json;

use crate::ailurus::Ailurus;
use crate::cluster::Kafka;
use crate::tools::{has_kafka_and, report};
use crate::wire::{Connection, Producer};

const TRANSACTIONS: &str = "org.apache.kafka.tools.TransactionsCommand";
/// Age of a record for which its transaction counts as idle.
const OLD: Duration = Duration::from_secs(3600);

/// Returns a node that appends transactional records although the coordinator does not have their
/// partition, as Kafka before 3.6 did; all tests of this module share it.
fn cluster() -> Option<&'static Kafka> {
    static CLUSTER: OnceLock<Option<Kafka>> = OnceLock::new();
    let unverified = "transaction.partition.verification.enable=false";
    CLUSTER.get_or_init(|| has_kafka_and(module_path!(), &[]).then(|| Kafka::start(1, unverified))).as_ref()
}

/// Creates a topic with one partition and one record.
fn topic(ailurus: &Ailurus, name: &str) {
    ailurus.ok(&["topic", "create", name, "--partitions", "1"]);
    ailurus.feed(&["produce", name], b"before\n").expect(0);
}

/// Returns the values that a reader of committed records gets.
fn committed(ailurus: &Ailurus, topic: &str) -> Vec<String> {
    let reader = ailurus.set("REDPANDA_ISOLATION_LEVEL", "read_committed");
    let read = reader.ok(&["consume", topic, "--from", "earliest", "--exit-at-end"]);
    read.lines().filter_map(|line| line.split('\t').next_back()).map(str::to_owned).collect()
}

/// Returns the rows of Kafka's tool, without its heads.
fn rows(kafka: &Kafka, args: &[&str]) -> Vec<Vec<String>> {
    let printed = kafka.tool(TRANSACTIONS, args);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    printed.lines().skip(1).map(words).collect()
}

/// Appends to a partition that the coordinator does not have in a transaction; then another record
/// without a transaction.
fn append_hanging(kafka: &Kafka, topic: &str, transactional_id: &str, producer: Producer) {
    let mut connection = Connection::open(&kafka.bootstrap());
    assert_eq!(connection.append((transactional_id, producer, 0), topic, 0, OLD), (0, 1));
    kafka.ailurus().feed(&["produce", topic], b"after\n").expect(0);
}

/// Finds the transaction that hangs in the topic from offset 1 on, and ends it.
fn is_found_and_ended(kafka: &Kafka, topic: &str, producer: Producer, transactional_id: Option<&str>) {
    let ailurus = kafka.ailurus();
    assert_eq!(committed(&ailurus, topic), ["before"], "readers of committed records are held");
    let find = ["txn", "find-hanging", "--topic", topic];
    let found = ailurus.json(&find);
    let hanging = &found[0];
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    assert_eq!(
        (&hanging["topic"], &hanging["partition"], &hanging["startOffset"]),
        (&json!(topic), &json!(0), &json!(1))
    );
    assert_eq!(hanging["producerId"], json!(producer.id));
    assert_eq!(hanging["transactionalId"], json!(transactional_id));
    let theirs = || rows(kafka, &["find-hanging", "--topic", topic]);
    assert_eq!(theirs()[0][..3], [topic.to_owned(), "0".to_owned(), producer.id.to_string()], "Kafka's tool");
    report(module_path!(), ailurus.ok(&find));
    let recent = ailurus.json(&["txn", "find-hanging", "--topic", topic, "--idle", "2h"]);
    assert_eq!(recent, json!([]), "its last record is an hour old");

    let abort = ["txn", "abort", "--partition", &format!("{topic}:0"), "--start-offset", "1"];
    let dry = ailurus.run(&abort).expect(0);
    assert!(dry.stderr.contains("nothing was aborted"), "{}", dry.stderr);
    assert_eq!(ailurus.json(&find), found, "a dry run changes nothing");
    let done = ailurus.ok(&[&abort[..], &["--yes"]].concat());
    report(module_path!(), done);
    let rest = until(|| Some(committed(&ailurus, topic)).filter(|values| values.len() > 1));
    assert_eq!(rest.expect("the readers go on"), ["before", "after"], "the aborted record is left out");
    assert_eq!(ailurus.json(&find), json!([]));
    assert_eq!(theirs(), [] as [Vec<String>; 0], "Kafka's tool");
    let again = ailurus.run(&[&abort[..], &["--yes"]].concat()).expect(3);
    assert!(again.stderr.contains("begins at offset 1; none is open"), "{}", again.stderr);
}

#[test]
fn a_hanging_transaction_is_found_and_aborted() {
    let Some(kafka) = cluster() else { return };
    topic(&kafka.ailurus(), "hangs");
    let producer = Connection::open(&kafka.bootstrap()).init_producer(Some("late"));
    append_hanging(kafka, "hangs", "late", producer);
    is_found_and_ended(kafka, "hangs", producer, Some("late"));
}

#[test]
fn one_without_a_transactional_id_is_found_and_aborted() {
    let Some(kafka) = cluster() else { return };
    topic(&kafka.ailurus(), "unowned");
    let mut connection = Connection::open(&kafka.bootstrap());
    connection.init_producer(Some("other")); // a coordinator that knows some ids
    let producer = connection.init_producer(None);
    append_hanging(kafka, "unowned", "nobody", producer);
    is_found_and_ended(kafka, "unowned", producer, None);
}

#[test]
fn an_open_transaction_is_described_and_fenced() {
    let Some(kafka) = cluster() else { return };
    let ailurus = kafka.ailurus();
    topic(&ailurus, "open");
    let mut connection = Connection::open(&kafka.bootstrap());
    let producer = connection.init_producer(Some("billing"));
    assert_eq!(connection.add_partition("billing", producer, "open", 0), 0);
    assert_eq!(connection.append(("billing", producer, 0), "open", 0, OLD), (0, 1));

    let list =
        |args: &[&str]| ailurus.json(&[&["txn", "list", "--producer-id", &producer.id.to_string()], args].concat());
    let expected =
        json!([{"transactionalId": "billing", "producerId": producer.id, "state": "Ongoing", "coordinator": 1}]);
    assert_eq!(list(&[]), expected);
    assert_eq!(list(&["--state", "ongoing"]), expected);
    assert_eq!(list(&["--state", "Empty,CompleteCommit"]), json!([]));
    assert_eq!(list(&["--older-than", "10m"]), json!([]), "it is new, although its record is old");
    assert_eq!(until(|| Some(list(&["--older-than", "1ms"])).filter(|l| *l == expected)), Some(expected));
    let theirs = rows(kafka, &["list"]);
    let row = ["billing", "1", &producer.id.to_string(), "Ongoing"].map(str::to_owned);
    assert!(theirs.contains(&row.to_vec()), "Kafka's tool: {theirs:?}");

    let described = ailurus.json(&["txn", "describe", "billing"]);
    assert_eq!((&described["state"], &described["timeoutMs"]), (&json!("Ongoing"), &json!(600_000)), "{described}");
    assert_eq!(described["partitions"], json!({"open": [0]}), "{described}");
    let theirs = &rows(kafka, &["describe", "--transactional-id", "billing"])[0];
    let start = described["startTimeMs"].to_string();
    assert!(theirs.contains(&start) && theirs.contains(&"open-0".to_owned()), "Kafka's tool: {theirs:?}");
    report(module_path!(), ailurus.ok(&["txn", "describe", "billing"]));
    assert!(ailurus.run(&["txn", "describe", "unknown"]).expect(3).stderr.contains("TransactionalIdNotFound"));

    let producers = ailurus.json(&["txn", "producers", "open"]);
    let of_it = producers[0]["producers"].as_array().unwrap().iter().find(|p| p["producerId"] == json!(producer.id));
    assert_eq!(of_it.unwrap()["transactionStartOffset"], json!(1), "{producers}");
    let theirs = rows(kafka, &["describe-producers", "--topic", "open", "--partition", "0"]);
    assert!(theirs.iter().any(|row| row[0] == producer.id.to_string() && row[5] == "1"), "Kafka's tool: {theirs:?}");
    report(module_path!(), ailurus.ok(&["txn", "producers", "open"]));
    let hanging = ailurus.json(&["txn", "find-hanging", "--broker", "1", "--topic", "open"]);
    assert_eq!(hanging, json!([]), "its coordinator has it");

    let dry = ailurus.ok(&["txn", "fence", "billing"]);
    assert!(dry.contains("is Ongoing") && dry.contains("abort its transaction in open/0"), "{dry}");
    assert_eq!(ailurus.json(&["txn", "describe", "billing"])["state"], json!("Ongoing"));
    report(module_path!(), ailurus.ok(&["txn", "fence", "billing", "--yes"]));
    assert_ne!(ailurus.json(&["txn", "describe", "billing"])["state"], json!("Ongoing"));
    let (code, _) = connection.append(("billing", producer, 1), "open", 0, OLD);
    assert_eq!(code, 47, "INVALID_PRODUCER_EPOCH: it is fenced");
    ailurus.feed(&["produce", "open"], b"after\n").expect(0);
    let read = until(|| Some(committed(&ailurus, "open")).filter(|values| values.len() > 1));
    assert_eq!(read.expect("the readers go on"), ["before", "after"]);
    ailurus.run(&["txn", "fence", "unknown", "--yes"]).expect(3);
    let unknown = ailurus.run(&["txn", "describe", "unknown"]);
    assert_eq!(unknown.code, 3, "fencing creates no id: {}", unknown.stdout);
}
