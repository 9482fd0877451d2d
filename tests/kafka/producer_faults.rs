//! A steady load while the leaders of its partitions are killed and restarted, and one is paused for
//! longer than the request timeout; then the log is compared with the producer's results.

use std::fs;
use std::time::{Duration, Instant};

use ailurus_test_support::process::{run, until};
use serde_json::Value;

use crate::cluster::{Kafka, java};
use crate::load::Load;
use crate::tools::{has_kafka_and, report, setting};

const TOPIC: &str = "steady-load";
const PARTITIONS: usize = 6;
/// Longer than the load's request timeout and the brokers' session timeout, which are 3 s.
const PAUSE: Duration = Duration::from_secs(5);
/// Time from one fault to the next.
const BETWEEN: Duration = Duration::from_secs(1);

/// Returns a field of each partition, if the topic can be described.
fn described(kafka: &Kafka, field: &str) -> Option<Vec<Value>> {
    let ended = kafka.ailurus().run(&["topic", "describe", TOPIC, "--json"]);
    let topic: Value = serde_json::from_str(&ended.stdout).ok()?;
    Some(topic["partitions"].as_array()?.iter().map(|partition| partition[field].clone()).collect())
}

/// Returns the partition's leader; there is none for a moment while it changes.
#[track_caller]
fn leader(kafka: &Kafka, partition: usize, wanted: impl Fn(i64) -> bool) -> i64 {
    let leader = || described(kafka, "leader")?.get(partition)?.as_i64().filter(|node| wanted(*node));
    until(leader).unwrap_or_else(|| panic!("partition {partition} has no such leader"))
}

#[test]
fn nothing_is_lost_repeated_or_reordered() {
    if !has_kafka_and(module_path!(), &[]) {
        return;
    }
    let kafka = Kafka::start(3, "");
    let ailurus = kafka.ailurus();
    ailurus.ok(&["topic", "create", TOPIC, "--partitions", &PARTITIONS.to_string(), "--replication", "3"]);
    let (seconds, rate) = (setting("AILURUS_KAFKA_SECONDS", 15_u32), setting("AILURUS_KAFKA_RATE", 1000_u32));
    let at_least_once = setting("AILURUS_KAFKA_AT_LEAST_ONCE", 0_u32) == 1;
    let (bootstrap, time) = (kafka.bootstrap(), Duration::from_secs(seconds.into()));
    let (seconds, rate) = (seconds.to_string(), rate.to_string());
    let mut args = vec![bootstrap.as_str(), TOPIC, &seconds, &rate];
    args.extend(at_least_once.then_some("at-least-once"));
    let mut load = Load::start("steady_load", &args, time, &ailurus);
    let written = || described(&kafka, "endOffset")?.iter().all(|end| *end != 0).then_some(());
    until(written).expect("the load has begun in every partition");

    let begun = Instant::now();
    let say = |text: String| report(module_path!(), format_args!("{:5.1} s: {text}", begun.elapsed().as_secs_f64()));
    let (mut kills, mut pauses, mut partition) = (0, 0, 0);
    while load.goes_on_for(PAUSE) || kills == 0 || pauses == 0 {
        partition = (partition + 1) % PARTITIONS;
        let node = leader(&kafka, partition, |_| true);
        // A pause, three kills, a pause, and so on.
        if kills >= pauses * 3 {
            say(format!("pause node {node}, leader of partition {partition}, for {PAUSE:?}"));
            kafka.pause(node);
            load.run_for(PAUSE);
            kafka.resume(node);
            pauses += 1;
        } else {
            say(format!("kill node {node}, leader of partition {partition}"));
            kafka.kill(node);
            leader(&kafka, partition, |other| other != node);
            kafka.restart(node);
            say(format!("node {node} is back"));
            kills += 1;
        }
        load.run_for(BETWEEN);
    }
    let result = load.end();
    say(format!("{kills} leaders killed and restarted, {pauses} paused for {PAUSE:?}; {result}"));
    assert!(at_least_once || has_sequences(&kafka), "batches without a producer id");
}

/// Returns whether the last batch of the first partition, as Kafka's own tool reads the file, has a producer id.
#[track_caller]
fn has_sequences(kafka: &Kafka) -> bool {
    let directory = kafka.directory().join(format!("run/node1/data/{TOPIC}-0"));
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let last = files.filter(|path| path.extension().is_some_and(|e| e == "log")).max().expect("a log");
    let ended = run(java("org.apache.kafka.tools.DumpLogSegments", &["--files", last.to_str().unwrap()]), b"");
    let last = ended.stdout.lines().rfind(|line| line.contains("producerId: ")).unwrap_or_default();
    let batch = last.find("baseSequence").map_or(last, |at| &last[at..]);
    report(module_path!(), format_args!("the last batch of partition 0 on node 1: {batch}"));
    last.split("producerId: ").nth(1).is_some_and(|id| !id.starts_with('-'))
}
