//! Topics, groups, and members that come and go.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{Bed, Process, until};

#[test]
fn topics_are_created_listed_described_and_deleted() {
    let mut bed = Bed::new();
    let topic = bed.topic("t", 4);
    let listed = bed.run(&["topic", "list"]).expect(0).stdout;
    let row = listed.lines().find(|l| l.starts_with(&format!("{topic} "))).expect(&listed);
    assert_eq!(row.split_whitespace().skip(1).collect::<Vec<_>>(), ["4", "1"]);
    let listed = bed.run(&["topic", "list", "--json"]).expect(0).json_lines();
    assert!(listed[0].as_array().unwrap().iter().any(|t| t["name"] == json!(topic)));

    bed.feed(&["produce", &topic, "--partition", "2"], b"a\nb\n").expect(0);
    let described = bed.run(&["topic", "describe", &topic, "--json"]).expect(0).json_lines().remove(0);
    let partitions = described["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 4);
    assert_eq!((&partitions[2]["firstOffset"], &partitions[2]["endOffset"]), (&json!(0), &json!(2)));
    let text = bed.run(&["topic", "describe", &topic]).expect(0).stdout;
    assert!(text.starts_with("PARTITION  LEADER  REPLICAS  IN-SYNC  FIRST  END  BYTES\n"), "{text}");
    assert_eq!(text.lines().count(), 5);

    let again = bed.run(&["topic", "create", &topic, "--partitions", "1"]).expect(4);
    assert!(again.stderr.contains(&topic) && again.stderr.contains("TopicAlreadyExists"), "{}", again.stderr);
    let again = bed.run(&["topic", "create", &topic, "--partitions", "7", "--if-not-exists"]).expect(0);
    assert_eq!(again.stdout, format!("{topic} exists already, with 4 partitions\n"));
    assert!(again.stderr.contains("without the 7 partitions requested"), "{}", again.stderr);
    bed.run(&["topic", "create", &topic, "--if-not-exists", "--validate-only"]).expect(0);

    let dry_run = bed.run(&["topic", "delete", &topic]).expect(0);
    assert_eq!(dry_run.stdout, format!("would delete {topic} with 4 partitions and up to 2 records\n"));
    assert!(dry_run.stderr.contains("--yes does it"), "{}", dry_run.stderr);
    bed.run(&["topic", "describe", &topic]).expect(0);
    bed.run(&["topic", "delete", &topic, "--yes"]).expect(0);
    bed.run(&["topic", "delete", &topic]).expect(3);
    let gone = bed.run(&["topic", "delete", &topic, "--yes"]).expect(3);
    assert!(gone.stderr.contains(&topic), "{}", gone.stderr);
}

#[test]
fn a_topic_has_the_number_of_partitions_that_the_brokers_give_it() {
    let mut bed = Bed::new();
    let topic = bed.topic_with("t", 0, &[]);
    let described = bed.run(&["topic", "describe", &topic, "--json"]).expect(0).json_lines().remove(0);
    assert!(!described["partitions"].as_array().unwrap().is_empty(), "{described}");
}

#[test]
fn a_group_commits_what_it_printed_and_goes_on_there() {
    let mut bed = Bed::new();
    let topic = bed.topic("t", 1);
    let group = bed.name("g");
    let input: String = (0..100).map(|i| format!("{i}\n")).collect();
    bed.feed(&["produce", &topic], input.as_bytes()).expect(0);

    let first = bed.run(&["consume", &topic, "--group", &group, "--max", "30"]).expect(0);
    assert_eq!(first.stdout.lines().count(), 30);
    let described = bed.run(&["group", "describe", &group, "--json"]).expect(0).json_lines().remove(0);
    let offsets = described["offsets"].as_array().unwrap();
    assert_eq!(offsets.len(), 1);
    assert_eq!(
        [&offsets[0]["committed"], &offsets[0]["end"], &offsets[0]["lag"]],
        [30, 100, 70].map(Value::from).each_ref()
    );
    assert_eq!(described["members"], json!([]), "it has left");

    let rest = bed.run(&["consume", &topic, "--group", &group, "--exit-at-end"]).expect(0);
    assert_eq!(rest.stdout.lines().count(), 70);
    assert!(rest.stdout.starts_with(&format!("{topic}/0@30\t")), "{}", rest.stdout);
    let none = bed.run(&["consume", &topic, "--group", &group, "--exit-at-end"]).expect(0);
    assert_eq!(none.stdout, "");

    let listed = bed.run(&["group", "list"]).expect(0).stdout;
    assert!(listed.lines().any(|l| l.starts_with(&group)), "{listed}");
    let text = bed.run(&["group", "describe", &group]).expect(0).stdout;
    assert!(text.contains("lag 0") && text.contains("COMMITTED"), "{text}");
    let unknown = bed.run(&["group", "describe", &bed.name("other")]).expect(3);
    assert!(unknown.stderr.contains("does not exist"), "{}", unknown.stderr);
}

#[test]
fn a_member_that_is_given_no_partition_is_at_the_end() {
    let mut bed = Bed::new();
    let topic = bed.topic("t", 1);
    let group = bed.name("g");
    bed.feed(&["produce", &topic], b"one\n").expect(0);
    let owner = bed.start(&["consume", &topic, "--group", &group]);
    owner.line(|l| l.ends_with("one"));
    bed.run(&["consume", &topic, "--group", &group, "--exit-at-end"]).expect(0);
    owner.signal(Signal::SIGINT);
    owner.end().expect(0);
}

/// Members with a short session, so that a dead one is missed soon.
fn member(bed: &Bed, topic: &str, group: &str) -> Command {
    let mut command = bed.command(&["consume", topic, "--group", group, "--json"]);
    command.env("REDPANDA_SESSION_TIMEOUT", "6000").env("REDPANDA_HEARTBEAT_INTERVAL", "500");
    command.env("REDPANDA_REBALANCE_TIMEOUT", "10000");
    command
}

fn assignment(bed: &Bed, group: &str) -> Vec<Vec<i64>> {
    let described = bed.run(&["group", "describe", group, "--json"]).json_lines().remove(0);
    let partitions = |m: &Value| m["assignment"].as_object().unwrap().values().flat_map(numbers).collect();
    described["members"].as_array().unwrap().iter().map(partitions).collect()
}

fn numbers(list: &Value) -> Vec<i64> {
    list.as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect()
}

/// Waits until `n` members share all six partitions, each partition with one owner.
fn shared_by(bed: &Bed, group: &str, n: usize) {
    let shared = until(|| {
        let owned = assignment(bed, group);
        let all: Vec<_> = owned.iter().flatten().copied().collect();
        let each_once = all.len() == 6 && all.iter().collect::<BTreeSet<_>>().len() == 6;
        (owned.len() == n && each_once && owned.iter().all(|p| !p.is_empty())).then_some(())
    });
    assert!(shared.is_some(), "{n} members: {:?}", assignment(bed, group));
}

#[test]
fn nothing_is_missing_when_a_member_is_killed() {
    let mut bed = Bed::new();
    let topic = bed.topic("t", 6);
    let group = bed.name("g");
    let mut producer = bed.start(&["produce", &topic, "--key-field", "k"]);
    let mut sent = BTreeSet::new();
    let mut send = |producer: &mut Process, n: usize| {
        for _ in 0..n {
            let line = format!("{{\"k\":{}}}", sent.len());
            producer.write(&format!("{line}\n"));
            sent.insert(line);
        }
        sent.clone()
    };
    let mut seen = BTreeSet::new();
    let mut take = |lines: Vec<String>| {
        for line in lines {
            let record: Value = serde_json::from_str(&line).unwrap();
            seen.insert(record["value"].as_str().unwrap().to_owned());
        }
        seen.len()
    };

    let stay = [Process::spawn(member(&bed, &topic, &group)), Process::spawn(member(&bed, &topic, &group))];
    shared_by(&bed, &group, 2);
    send(&mut producer, 600);
    stay.iter().for_each(|m| _ = take(m.some_lines()));
    let killed = Process::spawn(member(&bed, &topic, &group));
    shared_by(&bed, &group, 3);
    send(&mut producer, 600);
    take(killed.some_lines());
    killed.signal(Signal::SIGKILL);
    let sent = send(&mut producer, 600);
    producer.close_stdin();
    producer.end().expect(0);
    for line in killed.end().stdout.lines() {
        if line.ends_with('}') {
            take(vec![line.to_owned()]); // the last line may be cut
        }
    }
    let complete = until(|| {
        let count = stay.iter().map(|m| take(m.lines())).max();
        (count == Some(sent.len())).then_some(())
    });
    assert!(complete.is_some(), "missing after the kill");
    shared_by(&bed, &group, 2);
    for member in stay {
        member.signal(Signal::SIGTERM);
        member.end().expect(0);
    }
    let described = bed.run(&["group", "describe", &group, "--json"]).expect(0).json_lines().remove(0);
    let lag: Vec<_> = described["offsets"].as_array().unwrap().iter().map(|o| o["lag"].as_i64()).collect();
    assert_eq!(lag, [Some(0); 6], "everything printed is committed");
}

#[test]
fn a_place_is_understood_by_every_command_that_takes_one() {
    let mut bed = Bed::new();
    let topic = bed.topic("places", 2);
    bed.feed(&["produce", &topic, "--partition", "0"], b"one\ntwo\n").expect(0);
    let group = bed.name("g");
    let reset = |to: &str| {
        let ended = bed.run(&["group", "reset", &group, "--topic", &topic, "--json", "--to", to]).expect(0);
        ended.json_lines()[0]["offsets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["to"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    let delete = |before: &str| {
        let ended = bed.run(&["records", "delete", &topic, "--json", "--before", before]).expect(0);
        let partitions = ended.json_lines()[0]["partitions"].as_array().unwrap().clone();
        (partitions.iter().map(|p| p["before"].as_i64().unwrap()).collect::<Vec<_>>(), ended.stderr)
    };
    // Before anything was written: a time that is taken for an offset would skip, and delete, everything.
    for place in ["-1h", "2h", "2026-01-31", "2026-01-31T12:00", "1700000000000", "earliest", "0"] {
        assert_eq!(reset(place), [0, 0], "{place}");
        assert_eq!(delete(place).0, Vec::<i64>::new(), "{place}");
        let read = bed.run(&["consume", &topic, "--exit-at-end", "--from", place]).expect(0).stdout;
        assert_eq!(read.lines().count(), 2, "{place}");
    }
    assert!(delete("1700000000000").1.contains("taken as milliseconds since 1970, 2023-11-14T22:13:20"));
    let hint = "for seconds since 1970 write 1700000000000 (milliseconds) or 2023-11-14T22:13:20Z";
    let read = bed.run(&["consume", &topic, "--exit-at-end", "--from", "1700000000"]).expect(0);
    assert!(read.stderr.contains(hint), "{}", read.stderr);
    assert_eq!((reset("99"), delete("99").0), (vec![2, 0], vec![2]));
    assert!(delete("99").1.contains("offset 99 is beyond the end of"));
}

#[test]
fn a_missing_topic_has_another_exit_code_than_a_wrong_option() {
    let mut bed = Bed::new();
    let (topic, group) = (bed.topic("there", 1), bed.name("g"));
    let beyond = format!("{topic}:7");
    for args in [
        &["records", "delete", &topic, "--before", "latest", "--partition", "7"][..],
        &["group", "reset", &group, "--to", "earliest", "--topic", &beyond],
        &["group", "delete-offsets", &group, "--topic", &beyond],
        &["cluster", "api-versions", "--broker", "7777"],
        &["consume", &topic, "--partition", "7", "--exit-at-end"],
    ] {
        let ended = bed.run(args).expect(3);
        assert!(ended.stderr.starts_with("error: ") && ended.stderr.lines().count() == 1, "{args:?}: {}", ended.stderr);
    }
}
