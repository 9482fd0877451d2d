//! The measuring programs: their one line of JSON.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::{Bed, run};

fn bench(bed: &Bed, args: &[&str]) -> Value {
    let values = bed.dir.path().join("values.txt");
    std::fs::write(&values, "{\"value\":1}\n{\"value\":22}\n").unwrap();
    let mut command = bed.command(&["bench"]);
    command.args(args).args(["--brokers", &bed.brokers]).env("PEERS_VALUES", &values);
    let ended = run(command, b"").expect(0);
    assert!(ended.stderr.contains("linger"), "the settings are told: {}", ended.stderr);
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
