//! Lines in, records out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{Bed, Process};

/// Key and value of a record, without its position.
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
    assert_eq!(values, [json!("plain"), json!("d2l0aCD/IGJ5dGU="), json!("  spaces "), json!("last")]);
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
fn a_byte_order_mark_and_carriage_returns_are_no_part_of_a_line_unless_it_is_raw() {
    let mut bed = Bed::new();
    let topic = bed.topic("windows", 1);
    let input = "\u{feff}{\"id\":1}\r\n{\"id\":2}\r\n".as_bytes();
    bed.feed(&["produce", &topic, "--key-field", "id"], input).expect(0);
    bed.feed(&["produce", &topic, "--raw-lines"], "\u{feff}raw\r\n".as_bytes()).expect(0);
    let records = bed.run(&["consume", &topic, "--exit-at-end", "--json"]).expect(0).json_lines();
    let values: Vec<_> = records.iter().map(|r| r["value"].clone()).collect();
    assert_eq!(values, [json!("{\"id\":1}"), json!("{\"id\":2}"), json!("\u{feff}raw\r")]);
}

#[test]
fn empty_lines_are_counted_or_sent_and_tombstones_can_be_written() {
    let mut bed = Bed::new();
    let topic = bed.topic("empty-lines", 1);
    let produce = |more: &[&str], input: &str| {
        let ended = bed.feed(&[&["produce", &topic], more].concat(), input.as_bytes());
        ended.stderr.lines().last().unwrap().to_owned()
    };
    let text = produce(&[], "a\n\n\r\nb\n");
    assert!(text.starts_with("2 records") && text.ends_with("2 empty lines skipped, 0 failed"), "{text}");
    let text = produce(&["--empty", "send", "--key", "k"], "\n");
    assert!(text.starts_with("1 records") && text.ends_with("records/s, 0 failed"), "{text}");
    produce(&["--empty", "tombstone", "--key-separator", "::"], "k1::\nk2::v::w\n");
    produce(&["--key-separator", ":"], "k3:\n");
    let text = produce(&["--key-separator", ":"], "none\n");
    assert!(text.ends_with("1 failed"), "{text}");
    let text = bed.run(&["consume", &topic, "--exit-at-end"]).expect(0).stdout;
    let lines = ["(null)\ta", "(null)\tb", "k\t", "k1\t(null)", "k2\tv::w", "k3\t"];
    let lines: String = lines.iter().enumerate().map(|(i, line)| format!("{topic}/0@{i}\t{line}\n")).collect();
    assert_eq!(text, lines);
}

#[test]
fn a_topic_is_created_only_with_the_option() {
    let bed = Bed::embedded();
    let ended = bed.feed(&["produce", "mistyped"], b"x\n").expect(3);
    assert!(ended.stderr.contains("--create lets the broker create the topic"), "{}", ended.stderr);
    assert!(!bed.run(&["topic", "list"]).expect(0).stdout.contains("mistyped"));
    let ended = bed.feed(&["produce", "meant", "--create"], b"x\n").expect(0);
    let text = "the topic did not exist and was created with the broker's defaults topic=meant partitions=";
    assert_eq!(ended.stderr.matches(text).count(), 1, "{}", ended.stderr);
    let ended = bed.feed(&["produce", "meant", "--create"], b"x\n").expect(0);
    assert!(!ended.stderr.contains("created"), "{}", ended.stderr);
    let mut command = bed.command(&["produce", "by-setting"]);
    command.env("REDPANDA_ALLOW_AUTO_TOPIC_CREATION", "true");
    support::run(command, b"x\n").expect(0);
}

#[test]
fn single_partitions_the_last_records_and_one_record_can_be_looked_at() {
    let mut bed = Bed::new();
    let topic = bed.topic("look", 2);
    for partition in ["0", "1"] {
        let input: String = (0..10).map(|i| format!("{i} of {partition}\n")).collect();
        bed.feed(&["produce", &topic, "--partition", partition], input.as_bytes()).expect(0);
    }
    let out = |args: &[&str]| {
        let ended = bed.run(&[&["consume"], args].concat()).expect(0);
        let mut lines: Vec<_> = ended.stdout.lines().map(|l| l.rsplit('\t').next().unwrap().to_owned()).collect();
        lines.sort();
        lines
    };
    assert_eq!(out(&[&topic, "--partition", "1", "--from", "8", "--exit-at-end"]), ["8 of 1", "9 of 1"]);
    assert_eq!(out(&[&topic, "--last", "1"]), ["9 of 0", "9 of 1"]);
    assert_eq!(out(&[&topic, "--partition", "0", "--last", "2"]), ["8 of 0", "9 of 0"]);
    assert_eq!(out(&[&topic, "--partition", "0", "--last", "100"]).len(), 10);
    assert_eq!(out(&["--at", &format!("{topic}/1@3")]), ["3 of 1"]);
    let ended = bed.run(&["consume", "--at", &format!("{topic}/1@10")]).expect(3);
    assert!(
        ended.stderr.contains(&format!("{topic}/1 has no offset 10: its log goes from 0 to 10")),
        "{}",
        ended.stderr
    );
    for args in [&[&topic, "--partition", "2", "--exit-at-end"][..], &["--at", &format!("{topic}/2@0")]] {
        let ended = bed.run(&[&["consume"], args].concat()).expect(3);
        assert!(ended.stderr.contains("has no partition 2"), "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_first_assignment_is_empty_reads_what_it_gets_later() {
    let mut bed = Bed::new();
    let topic = bed.topic("beside", 2);
    for partition in ["0", "1"] {
        bed.feed(&["produce", &topic, "--partition", partition], b"one\ntwo\n").expect(0);
    }
    let group = bed.name("g");
    // A member that has both partitions and commits nothing.
    let config = ailurus::Config::builder().brokers(&bed.brokers).build().unwrap();
    let client = ailurus::Client::connect(config).await.unwrap();
    let config = client.config().consumer.clone();
    let mut first = client.consumer(&group).config(config).subscribe([&topic]).await.unwrap();
    while first.assignment().len() < 2 {
        first.recv().await.unwrap();
    }
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let reading = tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = &mut stopped => return first.close().await.unwrap(),
                event = first.recv() => drop(event.unwrap()),
            }
        }
    });
    let args = ["consume", &topic, "--group", &group, "--exit-at-end"];
    let second = tokio::task::block_in_place(|| bed.run(&args).expect(0));
    assert_eq!(second.stdout.lines().count(), 2, "one of the two partitions: {}", second.stdout);
    stop.send(()).unwrap();
    reading.await.unwrap();
    client.close().await;
    // One that stands by ends when its group has nothing left to read.
    let rest = bed.run(&args).expect(0);
    assert_eq!(rest.stdout.lines().count(), 2);
    let first = bed.start(&["consume", &topic, "--group", &group]);
    let stands_by = bed.run(&args).expect(0);
    assert_eq!(stands_by.stdout, "");
    first.signal(Signal::SIGTERM);
    first.end().expect(0);
}

#[test]
fn an_end_that_waits_for_a_broker_that_hangs_says_so_and_a_second_signal_ends_it() {
    for member in [false, true] {
        let bed = Bed::embedded();
        bed.run(&["topic", "create", "t", "--partitions", "1"]).expect(0);
        bed.feed(&["produce", "t"], b"one\n").expect(0);
        let mut process = if member {
            bed.start(&["consume", "t", "--group", "g"])
        } else {
            bed.start(&["produce", "t", "--acks-out"])
        };
        if !member {
            process.write("two\n");
        }
        process.line(|_| true);
        bed.stop_broker();
        if !member {
            // More than pipe and buffers take: some of it was sent.
            process.write(&format!("{}\n", "x".repeat(999)).repeat(8000));
        }
        process.signal(Signal::SIGINT);
        let text = process.error_line(|line| line.starts_with("waiting for "));
        assert!(text.ends_with("; a second signal ends it at once"), "{text}");
        process.signal(Signal::SIGINT);
        let ended = process.end().expect(130);
        assert!(ended.stderr.ends_with("ended at once by signal number 2\n"), "{}", ended.stderr);
    }
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
    let ended = bed.run(&["consume", &topic, "--from", "100", "--exit-at-end"]).expect(0);
    let text = format!("offset 100 is beyond the end, where reading begins, of {topic}/0 (ends at 10)\n");
    assert_eq!(ended.stderr, text);
    assert_eq!(values("-1h").len(), 10);
    assert_eq!(values("2020-01-01").len(), 10);
    assert_eq!(values("1577836800000").len(), 10, "milliseconds since 1970");
    assert_eq!(values("4733510400000"), [] as [&str; 0]);
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
    assert_eq!(
        ended.stderr.matches("raise --max-request-size (REDPANDA_MAX_REQUEST_SIZE)").count(),
        2,
        "{}",
        ended.stderr
    );
    let text = bed.run(&["consume", &topic, "--exit-at-end"]).expect(0).stdout;
    assert_eq!(text, format!("{topic}/0@0\t(null)\tsmall\n{topic}/0@1\t(null)\tlast\n"));
}

#[test]
fn large_records_are_written_where_an_option_and_their_topic_allow_it() {
    let mut bed = Bed::new();
    let large = bed.topic_with("large", 1, &["--config", "max.message.bytes=5000000"]);
    let input = format!("{}\n", "x".repeat(3_000_000));
    for (size, code) in [("5MB", 0), ("4MiB", 0), ("3000000", 1), ("2MiB", 1), ("1GB", 2)] {
        let ended = bed.feed(&["produce", &large, "--max-request-size", size], input.as_bytes()).expect(code);
        assert_eq!(ended.stderr.contains("raise --max-request-size"), code == 1, "{size}: {}", ended.stderr);
    }
    let lines = bed.run(&["consume", &large, "--exit-at-end"]).expect(0).stdout;
    assert_eq!(lines.lines().map(|l| l.rsplit('\t').next().unwrap().len()).collect::<Vec<_>>(), [3_000_000; 2]);
    // An error of a broker is printed once, with what to do.
    let small = bed.topic_with("small", 1, &["--config", "max.message.bytes=1000000"]);
    let ended = bed.feed(&["produce", &small, "--max-request-size", "5MB"], input.as_bytes()).expect(1);
    assert_eq!(ended.stderr.lines().count(), 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("raise the topic's max.message.bytes"), "{}", ended.stderr);
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
fn a_signal_before_the_end_is_an_interruption() {
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
