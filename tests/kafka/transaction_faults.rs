//! A load of transactions while their coordinators are killed and restarted, in both versions of the protocol; then what
//! readers of committed records see is compared with what the producers reported, and with what Kafka's own consumer sees.

use std::time::{Duration, Instant};

use ailurus_test_support::process::until;

use crate::ailurus::Ailurus;
use crate::cluster::Kafka;
use crate::interop::Topic;
use crate::load::{Faults, Load};
use crate::tools::{has_kafka_and, report, setting};

const FEATURES: &str = "org.apache.kafka.tools.FeatureCommand";
const PARTITIONS: &str = "6";
/// The pause is longer than the load's request timeout and the brokers' session timeout, which are 3 s.
const FAULTS: Faults =
    Faults { pause: Duration::from_secs(4), down: Duration::from_secs(1), between: Duration::from_secs(1) };
/// A transaction that timed out is aborted within a second, and not within ten.
pub const ABORT_AT_TIMEOUT: &str = "transaction.abort.timed.out.transaction.cleanup.interval.ms=1000";

/// Returns the node that coordinates a transactional id.
#[track_caller]
fn coordinator(ailurus: &Ailurus, id: &str) -> i64 {
    let described = || {
        let ended = ailurus.run(&["txn", "describe", id, "--json"]);
        serde_json::from_str::<serde_json::Value>(&ended.stdout).ok()?["coordinator"].as_i64()
    };
    until(described).unwrap_or_else(|| panic!("{id} has no coordinator"))
}

/// Runs the load on a topic of its own; kills and pauses one node at a time.
fn run(kafka: &Kafka, version: &str) {
    let (ailurus, bootstrap) = (kafka.ailurus(), kafka.bootstrap());
    let topic = Topic::new(&format!("transactions-{version}"), &bootstrap, PARTITIONS);
    let seconds = setting("AILURUS_KAFKA_SECONDS", 10_u32);
    let args = [bootstrap.as_str(), topic.name(), &seconds.to_string()];
    let mut load = Load::start("steady_transactions", &args, Duration::from_secs(seconds.into()), &ailurus);
    let begun = Instant::now();
    let say = |text: String| {
        report(module_path!(), format_args!("version {version}, {:5.1} s: {text}", begun.elapsed().as_secs_f64()));
    };
    let next_coordinator = |number: usize| {
        let id = format!("{}-{}", topic.name(), ["0", "1", "2", "shared"][number % 4]);
        (coordinator(&ailurus, &id), format!("coordinator of {id}"))
    };
    let done = load.kill_and_pause(kafka, FAULTS, next_coordinator, say);
    let result = load.end();
    say(format!("{done}; {result}"));

    let committed = topic.committed();
    assert!(!committed.is_empty(), "nothing was committed");
    topic.is_read_by_kafka(&committed);
    let java = Topic::new(&format!("java-{version}"), &bootstrap, PARTITIONS);
    let by_java = java.fill_by_java(PARTITIONS);
    assert_eq!(java.committed(), by_java, "what Java's producer has committed");
    let (count, by_java) = (committed.len(), by_java.len());
    say(format!("Kafka's consumer reads the same {count} records, and the command {by_java} of Java's producer"));
}

/// Downgrades the brokers to the first version of the protocol.
#[track_caller]
pub fn use_version_1(kafka: &Kafka) {
    kafka.tool(FEATURES, &["downgrade", "--feature", "transaction.version=1"]);
    let described = kafka.tool(FEATURES, &["describe"]);
    let line = described.lines().find(|line| line.contains("transaction.version")).unwrap_or_default();
    assert!(line.contains("FinalizedVersionLevel: 1"), "{described}");
}

#[test]
fn transactions_are_whole_in_both_versions() {
    if !has_kafka_and(module_path!(), &[]) {
        return;
    }
    let kafka = Kafka::start(3, ABORT_AT_TIMEOUT);
    run(&kafka, "2");
    use_version_1(&kafka);
    run(&kafka, "1");
}
