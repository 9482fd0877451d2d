//! A consumer group with members of three clients (two of `ailurus`, Kafka's console consumer, kcat):
//! members are stopped, killed and started again, the group's coordinator is killed and restarted;
//! then what the members printed is compared with what was written.

use std::time::{Duration, Instant};

use ailurus_test_support::process::until;
use serde_json::{Value, json};

use crate::ailurus::Ailurus;
use crate::cluster::Kafka;
use crate::load::Load;
use crate::tools::{has_kafka_and, report, setting};

const GROUP: &str = "mixed-group";
const MEMBERS: usize = 4;
/// Maximum time to wait for all members before the first fault.
const JOIN: Duration = Duration::from_secs(12);
/// Time from one fault to the next.
const BETWEEN: Duration = Duration::from_secs(5);

/// Returns the group, if its coordinator can be reached.
fn described(ailurus: &Ailurus, group: &str) -> Option<Value> {
    serde_json::from_str(&ailurus.run(&["group", "describe", group, "--json"]).stdout).ok()
}

/// Returns the node that coordinates a group.
#[track_caller]
pub fn coordinator(ailurus: &Ailurus, group: &str, wanted: impl Fn(i64) -> bool) -> i64 {
    let coordinator = || described(ailurus, group)?["coordinator"].as_i64().filter(|node| wanted(*node));
    until(coordinator).expect("the group has such a coordinator")
}

#[test]
fn members_of_three_clients_lose_nothing_and_share_nothing() {
    if !has_kafka_and(module_path!(), &["kcat"]) {
        return;
    }
    let kafka = Kafka::start(3, "");
    let ailurus = kafka.ailurus().set("REDPANDA_REQUEST_TIMEOUT", "3000");
    let (seconds, rate) = (setting("AILURUS_KAFKA_SECONDS", 20_u32), setting("AILURUS_KAFKA_RATE", 500_u32));
    let args = [kafka.bootstrap(), seconds.to_string(), rate.to_string()];
    let time = Duration::from_secs(seconds.into());
    let mut load = Load::start("mixed_group", &args.each_ref().map(String::as_str), time, &ailurus);

    let begun = Instant::now();
    let say = |text: String| report(module_path!(), format_args!("{:5.1} s: {text}", begun.elapsed().as_secs_f64()));
    let is_complete = |group: Value| {
        group["state"] == json!("Stable") && group["members"].as_array().is_some_and(|all| all.len() == MEMBERS)
    };
    while begun.elapsed() < JOIN && !described(&ailurus, GROUP).is_some_and(is_complete) {
        load.run_for(Duration::from_millis(100));
    }
    let mut kills = 0;
    while load.goes_on_for(Duration::from_secs(3)) || kills == 0 {
        let node = coordinator(&ailurus, GROUP, |_| true);
        say(format!("kill node {node}, the group's coordinator"));
        kafka.kill(node);
        kills += 1;
        coordinator(&ailurus, GROUP, |other| other != node);
        kafka.restart(node);
        say(format!("node {node} is back"));
        load.run_for(BETWEEN);
    }
    let result = load.end();
    say(format!("{kills} coordinators killed and restarted; {result}"));
}
