//! Lines in, records out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{Bed, Process};

/// What stands in a record, beside where it stands.
fn contents(records: &[Value]) -> Vec<(Value, Value)> {
    let mut all: Vec<_> = records.iter().map(|r| (r["key"].clone(), r["value"].clone())).collect();
    all.sort_by_key(|(k, v)| (k.to_string(), v.to_string()));
    all
}

#[test]
fn what_goes_in_comes_out() {
    let mut bed = Bed::new();
    let topic = bed.topic("orders", 3);
    let lines: Vec<String> = (0..5000).map(|i| format!(r#"{{"orderId":"order-{}","n":{i}}}"#, i % 97)).collect();
    let input = lines.join("\n");
    let args = ["produce", &topic, "--key-field", "orderId", "--compression", "gzip", "--acks-out"];
    let produced = bed.feed(&args, input.as_bytes()).expect(0);
    assert!(produced.stderr.trim_end().ends_with("0 failed"), "{}", produced.stderr);
    assert!(produced.stderr.contains("5,000 records"), "{}", produced.stderr);

    let acks = produced.json_lines();
    let keys: Vec<_> = acks.iter().map(|a| a["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(keys, (0..5000).map(|i| format!("order-{}", i % 97)).collect::<Vec<_>>(), "in input order");

    let records = bed.run(&["consume", &topic, "--exit-at-end", "--json"]).expect(0).json_lines();
    assert_eq!(records.len(), 5000);
    let mut by_place = BTreeMap::new();
    for r in &records {
        by_place.insert((r["partition"].as_i64(), r["offset"].as_i64()), (r["key"].clone(), r["value"].clone()));
    }
    for (ack, line) in acks.iter().zip(&lines) {
        assert_eq!(ack["topic"], json!(topic));
        let at = &by_place[&(ack["partition"].as_i64(), ack["offset"].as_i64())];
        assert_eq!(at, &(ack["key"].clone(), json!(line)));
    }
}

#[test]
fn lines_are_sent_as_they_are() {
    let mut bed = Bed::new();
    let topic = bed.topic("lines", 1);
    let args =
        ["produce", &topic, "--key", "k=1", "--partition", "0", "--header", "a=1", "--header", "b=", "--header", "a=2"];
    bed.feed(&args, b"plain\n\nwith \xff byte\r\n\r\n  spaces \nlast").expect(0);
    let records = bed.run(&["consume", &topic, "--exit-at-end", "--json"]).expect(0).json_lines();
    let values: Vec<_> = records.iter().map(|r| r["value"].clone()).collect();
    assert_eq!(values, [json!("plain"), json!("d2l0aCD/IGJ5dGUN"), json!("  spaces "), json!("last")]);
    assert_eq!(records[0].get("valueEncoding"), None);
    assert_eq!(records[1]["valueEncoding"], "base64");
    assert_eq!(records[0]["key"], "k=1");
    let headers = json!([{"key": "a", "value": "1"}, {"key": "b", "value": ""}, {"key": "a", "value": "2"}]);
    assert_eq!(records[0]["headers"], headers);
    assert!(records[0]["timestamp"].as_i64().unwrap() > 1_600_000_000_000);

    let text = bed.run(&["consume", &topic, "--exit-at-end", "--max", "1"]).expect(0).stdout;
    assert_eq!(text, format!("{topic}/0@0\tk=1\tplain\n"));
}

#[test]
fn from_says_where_to_begin() {
    let mut bed = Bed::new();
    let topic = bed.topic("from", 1);
    let input: String = (0..10).map(|i| format!("{i}\n")).collect();
    bed.feed(&["produce", &topic], input.as_bytes()).expect(0);
    let values = |from: &str| -> Vec<String> {
        let ended = bed.run(&["consume", &topic, "--from", from, "--exit-at-end", "--json"]).expect(0);
        ended.json_lines().iter().map(|r| r["value"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(values("7"), ["7", "8", "9"]);
    assert_eq!(values("100"), [] as [&str; 0]);
    assert_eq!(values("latest"), [] as [&str; 0]);
    assert_eq!(values("earliest").len(), 10);
    assert_eq!(values("2020-01-01T00:00:00Z").len(), 10);
    assert_eq!(values("2120-01-01T00:00:00Z"), [] as [&str; 0]);
}

#[test]
fn an_empty_topic_is_at_its_end() {
    let mut bed = Bed::new();
    let topic = bed.topic("empty", 3);
    assert_eq!(bed.run(&["consume", &topic, "--exit-at-end"]).expect(0).stdout, "");
    let group = bed.name("g");
    assert_eq!(bed.run(&["consume", &topic, "--exit-at-end", "--group", &group]).expect(0).stdout, "");
}

#[test]
fn a_bad_line_stops_reading_and_what_came_before_is_delivered() {
    let mut bed = Bed::new();
    let topic = bed.topic("stop", 2);
    let input = b"{\"id\":1}\n{\"id\":\"two\"}\n{\"id\":\n{\"id\":4}\n";
    let ended = bed.feed(&["produce", &topic, "--key-field", "id"], input).expect(1);
    assert!(ended.stderr.contains("line 3: not valid JSON: EOF while parsing"), "{}", ended.stderr);
    assert!(ended.stderr.contains("2 records") && ended.stderr.trim_end().ends_with("1 failed"), "{}", ended.stderr);
    let records = bed.run(&["consume", &topic, "--exit-at-end", "--json"]).expect(0).json_lines();
    assert_eq!(contents(&records), [(json!("1"), json!("{\"id\":1}")), (json!("two"), json!("{\"id\":\"two\"}"))]);
}

#[test]
fn bad_lines_can_be_skipped_and_are_counted() {
    let mut bed = Bed::new();
    let topic = bed.topic("skip", 2);
    let input = b"{\"id\":1}\nnot json\n[2]\n{\"id\":null}\n{\"no\":3}\n\n{\"id\":7}\n";
    let args = ["produce", &topic, "--key-field", "id", "--on-error", "skip", "--acks-out"];
    let ended = bed.feed(&args, input).expect(1);
    for text in [
        "line 2: not valid JSON",
        "line 3: not a JSON object",
        "line 4: the field \"id\" is null: a key must be a string or a number",
        "line 5: there is no field \"id\"",
    ] {
        assert!(ended.stderr.contains(text), "{text}: {}", ended.stderr);
    }
    assert!(ended.stderr.contains("2 records") && ended.stderr.trim_end().ends_with("4 failed"), "{}", ended.stderr);
    assert_eq!(ended.json_lines().len(), 2);
    let records = bed.run(&["consume", &topic, "--exit-at-end", "--json"]).expect(0).json_lines();
    let keys: Vec<_> = contents(&records).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [json!("1"), json!("7")]);
}

#[test]
fn a_record_over_the_size_limit_is_named_by_its_line() {
    let mut bed = Bed::new();
    let topic = bed.topic("size", 1);
    let mut input = b"small\n".to_vec();
    input.extend(std::iter::repeat_n(b'x', 1_048_576)); // the line fits, the record around it does not
    input.push(b'\n');
    input.extend(std::iter::repeat_n(b'y', 3_000_000));
    input.extend(b"\nlast\n");
    let ended = bed.feed(&["produce", &topic, "--on-error", "skip"], &input).expect(1);
    assert!(ended.stderr.contains("line 2: "), "{}", ended.stderr);
    assert!(ended.stderr.contains("1048576") || ended.stderr.contains("1,048,576"), "{}", ended.stderr);
    assert!(ended.stderr.contains("line 3: 3,000,000 bytes"), "{}", ended.stderr);
    let text = bed.run(&["consume", &topic, "--exit-at-end"]).expect(0).stdout;
    assert_eq!(text, format!("{topic}/0@0\t(null)\tsmall\n{topic}/0@1\t(null)\tlast\n"));
}

#[test]
fn a_line_is_sent_when_it_comes_not_when_input_ends() {
    let mut bed = Bed::new();
    let topic = bed.topic("live", 1);
    let consumer = bed.start(&["consume", &topic]);
    let mut producer = bed.start(&["produce", &topic, "--acks-out"]);
    for i in 0..3 {
        producer.write(&format!("tick {i}\n"));
        assert_eq!(consumer.line(|_| true), format!("{topic}/0@{i}\t(null)\ttick {i}"));
        producer.line(|l| l.contains(&format!("\"offset\":{i}")));
    }
    producer.signal(Signal::SIGINT);
    producer.end().expect(130);
    consumer.signal(Signal::SIGTERM);
    consumer.end().expect(0);
}

#[test]
fn a_signal_before_the_end_that_was_asked_for_is_an_interruption() {
    let mut bed = Bed::new();
    let topic = bed.topic("interrupted", 1);
    bed.feed(&["produce", &topic], b"one\n").expect(0);
    let group = bed.name("g");
    for args in [&["consume", &topic, "--max", "2"][..], &["consume", &topic, "--max", "2", "--group", &group]] {
        let consumer = bed.start(args);
        consumer.line(|l| l.ends_with("one"));
        consumer.signal(Signal::SIGINT);
        consumer.end().expect(130);
    }
}

#[test]
fn a_member_says_at_its_end_what_is_left() {
    let mut bed = Bed::new();
    let topic = bed.topic("left", 1);
    bed.feed(&["produce", &topic], b"one\ntwo\nthree\nfour\nfive\n").expect(0);
    let group = bed.name("g");
    let ended = bed.run(&["consume", &topic, "--max", "2", "--group", &group]).expect(0);
    assert_eq!(ended.stderr, format!("left for group {group}: {topic}/0: 3 from offset 2 on\n"));
    let ended = bed.run(&["consume", &topic, "--exit-at-end", "--group", &group]).expect(0);
    assert_eq!((ended.stdout.lines().count(), ended.stderr.as_str()), (3, ""), "nothing is left");
}

#[test]
fn a_reader_that_leaves_ends_consume_quietly() {
    let mut bed = Bed::new();
    let topic = bed.topic("pipe", 1);
    let input: String = (0..50_000).map(|i| format!("value number {i}\n")).collect();
    bed.feed(&["produce", &topic], input.as_bytes()).expect(0);
    let mut command = bed.command(&["consume", &topic]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let ended = Process::of(child).end().expect(0);
    assert_eq!(ended.stderr, "");
}
