//! The measuring programs: their one line of JSON.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::{Bed, Ended, Process, run};

/// The command, with these lines as values.
fn command(bed: &Bed, args: &[&str], values: &str) -> std::process::Command {
    let file = bed.dir.path().join("values.txt");
    std::fs::write(&file, values).unwrap();
    let mut command = bed.command(&["bench"]);
    command.args(args).args(["--brokers", &bed.brokers]).env("PEERS_VALUES", &file);
    command
}

const VALUES: &str = "{\"value\":1}\n{\"value\":22}\n";

fn bench(bed: &Bed, args: &[&str]) -> Value {
    let ended = run(command(bed, args, VALUES), b"").expect(0);
    assert!(ended.stderr.contains("linger"), "the settings are printed: {}", ended.stderr);
    let mut lines = ended.json_lines();
    assert_eq!(lines.len(), 1);
    lines.remove(0)
}

#[test]
fn each_mode_prints_one_line() {
    let mut bed = Bed::new();
    for codec in ["none", "gzip", "zstd"] {
        let topic = bed.topic(codec, 3);
        let group = bed.name("g");
        let args = ["--topic", &topic, "--records", "25000", "--codec", codec];
        let produced =
            bench(&bed, &[&["produce", "--partitions", "3", "--acks", "all", "--linger-ms", "5"], &args[..]].concat());
        let consumed = bench(&bed, &[&["consume", "--group", &group], &args[..]].concat());
        let handled = bench(&bed, &[&["handle", "--metrics", "--group", &bed.name("h")], &args[..]].concat());
        for (line, mode) in [(&produced, "produce"), (&consumed, "consume"), (&handled, "handle")] {
            for (field, value) in [
                ("client", json!("ailurus")),
                ("mode", json!(mode)),
                ("codec", json!(codec)),
                ("records", json!(25000)),
                ("errors", json!(0)),
            ] {
                assert_eq!(line[field], value, "{line}");
            }
            for field in ["wall_s", "cpu_s", "user_s", "sys_s", "maxrss_mb"] {
                assert!(line[field].is_number(), "{field}: {line}");
            }
        }
        assert_eq!((&produced["bytes"], &produced["bytes"]), (&consumed["bytes"], &handled["bytes"]));
        let topics = bed.run(&["topic", "list"]).expect(0).stdout;
        assert!(!topics.contains(&format!("{topic}.dlq")), "what handle creates it deletes: {topics}");
        let described = bed.run(&["group", "describe", &group, "--json"]).expect(0).json_lines().remove(0);
        let lag: i64 = described["offsets"].as_array().unwrap().iter().map(|o| o["lag"].as_i64().unwrap()).sum();
        assert_eq!(lag, 0, "committed");
    }
}

#[test]
fn latency_has_percentiles() {
    let mut bed = Bed::new();
    let topic = bed.topic("t", 1);
    let line = bench(&bed, &["latency", "--topic", &topic, "--records", "50"]);
    assert_eq!(line["records"], json!(50));
    for field in ["p50_us", "p99_us", "max_us"] {
        assert!(line[field].as_f64().unwrap() > 0.0, "{line}");
    }
}

#[test]
fn transactions_are_counted_and_committed() {
    let mut bed = Bed::new();
    let topic = bed.topic("t", 3);
    let args = ["transactions", "--topic", &topic, "--records", "2500"];
    let line = bench(&bed, &[&args[..], &["--per", "1000"]].concat());
    assert_eq!(
        (&line["records"], &line["transactions"], &line["errors"]),
        (&json!(2500), &json!(3), &json!(0)),
        "{line}"
    );
    for field in ["p50_us", "p99_us"] {
        assert!(line[field].as_f64().unwrap() > 0.0, "{line}");
    }
    let line = bench(&bed, &[&args[..], &["--per", "0", "--interval-ms", "60000"]].concat());
    assert_eq!(line["transactions"], json!(1), "{line}");
    let read =
        bed.run(&["consume", &topic, "--from", "earliest", "--exit-at-end", "--isolation", "read_committed"]).expect(0);
    assert_eq!(read.stdout.lines().count(), 5002, "with the first transactions' records");
}

/// The lines behind the one of settings: what went wrong, once.
#[track_caller]
fn failed(ended: Ended, code: i32, says: &[&str]) {
    let ended = ended.expect(code);
    let lines: Vec<_> = ended.stderr.lines().skip(1).filter(|l| !l.contains("the topic is missing")).collect();
    let [line] = lines.as_slice() else { panic!("one line, not {lines:#?}") };
    assert!(line.starts_with("error: "), "{line}");
    for text in says {
        assert!(line.contains(text), "{text:?} is missing in {line}");
    }
    assert_eq!(ended.stdout, "", "no figures of a run that failed");
}

#[test]
fn a_topic_that_does_not_exist_is_one_error_and_is_not_created() {
    let bed = Bed::new();
    let topic = bed.name("nobody-made-this");
    for mode in ["produce", "latency", "transactions", "consume", "handle"] {
        let ended = run(command(&bed, &[mode, "--topic", &topic, "--records", "1000000"], VALUES), b"");
        failed(ended, 3, &[&topic, "does not exist"]);
    }
    assert!(!bed.run(&["topic", "list"]).expect(0).stdout.contains(&topic));
}

#[test]
fn a_topic_that_is_deleted_meanwhile_ends_producing_with_one_error() {
    let mut bed = Bed::new();
    let topic = bed.topic("deleted", 1);
    let args = ["produce", "--topic", &topic, "--records", "100000000"];
    let mut producing = command(&bed, &args, VALUES);
    producing.envs([("REDPANDA_DELIVERY_TIMEOUT", "3000"), ("REDPANDA_REQUEST_TIMEOUT", "2000")]);
    let producing = Process::spawn(producing);
    let written = || {
        let described = bed.run(&["topic", "describe", &topic, "--json"]).expect(0).json_lines().remove(0);
        described["partitions"][0]["endOffset"].as_i64().filter(|end| *end > 0)
    };
    support::until(written).expect("records are written");
    bed.run(&["topic", "delete", &topic, "--yes"]).expect(0);
    failed(producing.end(), 3, &[&topic, "record "]);
}

#[test]
fn a_broker_that_refuses_the_records_ends_producing_with_one_error() {
    let mut bed = Bed::new();
    let topic = bed.topic_with("refused", 1, &["--config", "max.message.bytes=100"]);
    let value = format!("{}\n", "x".repeat(200));
    for mode in ["produce", "latency", "transactions"] {
        let ended = run(command(&bed, &[mode, "--topic", &topic, "--records", "1000000"], &value), b"");
        failed(ended, 6, &["record 0 of 1000000", "max.message.bytes"]);
    }
}

#[test]
fn records_over_the_size_limit_need_an_option_that_the_error_names() {
    let mut bed = Bed::new();
    let topic = bed.topic_with("large", 1, &["--config", "max.message.bytes=5000000"]);
    let value = format!("{}\n", "x".repeat(2_000_000));
    let args = ["produce", "--topic", &topic, "--records", "2"];
    failed(run(command(&bed, &args, &value), b""), 6, &["--max-request-size", "REDPANDA_MAX_REQUEST_SIZE"]);
    let ended = run(command(&bed, &[&args[..], &["--max-request-size", "5MB"]].concat(), &value), b"").expect(0);
    assert_eq!(ended.json_lines()[0]["records"], json!(2));
}
