//! Settings by variables and by `.env`, as a user of the command sets them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;

use nix::sys::signal::Signal;
use support::{Bed, Ended, Process, run};

/// Lists topics on the embedded broker, with this `.env`.
fn list(bed: &Bed, file: &str, vars: &[(&str, &str)]) -> Ended {
    fs::write(bed.dir.path().join(".env"), file).unwrap();
    let mut command = bed.command(&["topic", "list"]);
    command.envs(vars.iter().copied());
    run(command, b"")
}

#[test]
fn the_file_may_have_a_byte_order_mark_and_lines_of_other_tools() {
    let bed = Bed::embedded();
    let file = "\u{feff}REDPANDA_LINGER=5\r\nAPP_NAME=My Shop\r\nMOTD=\"it's\r\nREDPANDA_CLIENT_ID=ab$cd\r\n";
    assert_eq!(list(&bed, file, &[]).expect(0).stderr, "");
    // The client id that is refused shows how the value was read.
    let text = "REDPANDA_CLIENT_ID=\"ab$cd\\tx\"\n";
    let ended = list(&bed, text, &[]).expect(2);
    assert!(ended.stderr.contains(r#"client id (REDPANDA_CLIENT_ID) is "ab$cd"#), "{}", ended.stderr);
}

#[test]
fn a_directory_of_that_name_is_left_alone() {
    let bed = Bed::embedded();
    fs::create_dir(bed.dir.path().join(".env")).unwrap();
    assert_eq!(bed.run(&["topic", "list"]).expect(0).stderr, "");
}

#[test]
fn an_empty_variable_is_as_none() {
    let bed = Bed::embedded();
    let example = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../.env.example")).unwrap();
    let names = example.lines().filter_map(|l| l.split_once('=')).map(|(name, _)| name);
    let names: Vec<_> = names.filter(|n| n.starts_with("REDPANDA_") && *n != "REDPANDA_BROKERS").collect();
    assert!(names.len() > 60, "{names:?}");
    let empty: Vec<_> = names.iter().map(|name| (*name, "")).collect();
    assert_eq!(list(&bed, "", &empty).expect(0).stderr, "");
    let file = names.iter().map(|name| format!("{name}=\n")).collect::<String>();
    assert_eq!(list(&bed, &file, &[]).expect(0).stderr, "");
}

#[test]
fn a_variable_that_is_no_setting_is_named_once_with_the_nearest_one() {
    let bed = Bed::embedded();
    let ended = list(&bed, "REDPANDA_LINGER_MS=5\n", &[("REDPANDA_BROKER", "a:1")]).expect(0);
    for text in [
        "REDPANDA_BROKER (the environment) is no setting and has no effect: did you mean REDPANDA_BROKERS?",
        "REDPANDA_LINGER_MS (.env) is no setting and has no effect: did you mean REDPANDA_LINGER?",
    ] {
        assert_eq!(ended.stderr.matches(text).count(), 1, "{}", ended.stderr);
    }
    assert_eq!(list(&bed, "", &[("REDPANDA_PORT_9092_TCP", "tcp://10.0.0.1:9092")]).expect(0).stderr, "");
}

#[test]
fn the_group_of_the_settings_is_joined_only_where_the_command_line_says_so() {
    let mut bed = Bed::new();
    let topic = bed.topic("of-settings", 1);
    bed.feed(&["produce", &topic], b"one\ntwo\n").expect(0);
    let group = bed.name("g");
    std::fs::write(bed.dir.path().join(".env"), format!("REDPANDA_CONSUMER_GROUP_ID={group}\n")).unwrap();
    let consume = |more: &[&str]| {
        let ended = bed.run(&[&["consume", &topic, "--exit-at-end"], more].concat()).expect(0);
        (ended.stdout.lines().count(), ended.stderr)
    };
    assert_eq!(consume(&[]), (2, String::new()), "without a group");
    bed.run(&["group", "describe", &group]).expect(3);
    assert_eq!(consume(&["--max", "1", "--group"]).0, 1);
    assert_eq!(consume(&["--group"]), (1, String::new()), "it went on where the group had committed");
    assert_eq!(consume(&[]), (2, String::new()));
    assert_eq!(consume(&["--group", &bed.name("other")]), (2, String::new()));
}

/// Runs with the directory and the settings of a service that is running, as a member of its group.
#[test]
fn no_tool_takes_partitions_from_the_service_in_whose_directory_it_runs() {
    let mut bed = Bed::new();
    let (topic, group) = (bed.topic("served", 2), bed.name("g"));
    let letters = bed.topic("served.dlq", 1);
    let file = format!("REDPANDA_CONSUMER_GROUP_ID={group}\nREDPANDA_GROUP_INSTANCE_ID=billing-0\n");
    std::fs::write(bed.dir.path().join(".env"), file).unwrap();
    let service = bed.start(&["consume", &topic, "--group"]);
    let generation = || {
        let described = bed.run(&["group", "describe", &group, "--json"]).json_lines();
        let members = described.first().map(|g| g["members"].clone()).unwrap_or_default();
        members
            .as_array()
            .filter(|m| m.len() == 1 && m[0]["assignment"][&topic].as_array().is_some_and(|p| p.len() == 2))
            .cloned()
    };
    let before = support::until(generation).expect("the service has both partitions");
    bed.feed(&["produce", &topic], b"one\n").expect(0);
    bed.run(&["consume", &topic, "--exit-at-end"]).expect(0);
    bed.run(&["consume", &topic, "--last", "1"]).expect(0);
    bed.run(&["dlq", "list"]).expect(0);
    bed.run(&["dlq", "replay", &letters, "--yes"]).expect(0);
    bed.run(&["dlq", "discard", &letters, "--yes"]).expect(0);
    bed.run(&["health"]).expect(0);
    service.line(|l| l.ends_with("one"));
    assert_eq!(generation(), Some(before), "the same member with the same partitions");
    service.signal(Signal::SIGTERM);
    let ended = service.end().expect(0);
    assert!(!ended.stderr.contains("given"), "{}", ended.stderr);
}

#[test]
fn a_tool_does_not_fence_the_service_whose_settings_it_has() {
    let mut bed = Bed::new();
    let topic = bed.topic("static", 2);
    let group = bed.name("g");
    let start = || {
        let mut command = bed.command(&["consume", &topic, "--group", &group]);
        command.env("REDPANDA_GROUP_INSTANCE_ID", "billing-0");
        Process::spawn(command)
    };
    let members = || {
        let described = bed.run(&["group", "describe", &group, "--json"]);
        let members = described.json_lines().first().map(|g| g["members"].as_array().unwrap().clone());
        members.unwrap_or_default()
    };
    let (first, second) = (start(), start());
    let both = support::until(|| Some(members()).filter(|m| m.len() == 2)).expect("two members at a time");
    assert!(both.iter().all(|m| m["instanceId"].is_null() && m["memberId"].is_string()), "{both:?}");
    for tool in [first, second] {
        tool.signal(Signal::SIGTERM);
        tool.end().expect(0);
    }
    assert_eq!(members().len(), 0, "dynamic members leave at once");
}
