//! An exactly-once pipeline under load while its members are killed and stopped, and the coordinator of its group is killed
//! and paused, in both versions of the protocol; then the outputs are compared with the inputs, and with what Kafka's own
//! consumer sees.

use std::time::{Duration, Instant};

use crate::cluster::Kafka;
use crate::group_faults::coordinator;
use crate::interop::Topic;
use crate::load::{Faults, Load};
use crate::tools::{has_kafka_and, report, setting};
use crate::transaction_faults::{ABORT_AT_TIMEOUT, use_version_1};

const PARTITIONS: &str = "6";
/// The pause is longer than the requests' timeouts and the brokers' session timeout, which are 3 s.
const FAULTS: Faults =
    Faults { pause: Duration::from_secs(4), down: Duration::from_secs(1), between: Duration::from_secs(4) };

/// Runs the load on a topic of its own; kills and pauses one node at a time.
fn run(kafka: &Kafka, version: &str) {
    let (ailurus, bootstrap) = (kafka.ailurus(), kafka.bootstrap());
    let topic = Topic::new(&format!("pipeline-{version}"), &bootstrap, PARTITIONS);
    let group = format!("{}-pipeline", topic.name());
    let seconds = setting("AILURUS_KAFKA_SECONDS", 20_u32);
    let args = [bootstrap.as_str(), topic.name(), &seconds.to_string()];
    let mut load = Load::start("steady_pipeline", &args, Duration::from_secs(seconds.into()), &ailurus);
    let begun = Instant::now();
    let say = |text: String| {
        report(module_path!(), format_args!("version {version}, {:5.1} s: {text}", begun.elapsed().as_secs_f64()));
    };
    let group_coordinator = |_| (coordinator(&ailurus, &group, |_| true), "the group's coordinator".to_owned());
    let done = load.kill_and_pause(kafka, FAULTS, group_coordinator, say);
    let result = load.end();
    say(format!("{done}; {result}"));

    let outputs = Topic::existing(&format!("{}.out", topic.name()), &bootstrap);
    let committed = outputs.committed();
    assert!(!committed.is_empty(), "nothing was committed");
    outputs.is_read_by_kafka(&committed);
    say(format!("Kafka's consumer reads the same {} outputs", committed.len()));
}

#[test]
fn outputs_and_offsets_are_committed_together_in_both_versions() {
    if !has_kafka_and(module_path!(), &[]) {
        return;
    }
    let kafka = Kafka::start(3, ABORT_AT_TIMEOUT);
    run(&kafka, "2");
    use_version_1(&kafka);
    run(&kafka, "1");
}
