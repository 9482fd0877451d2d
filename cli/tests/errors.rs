//! Error texts and exit codes of the command.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::TcpListener;

use support::{Bed, Ended, command, run};
use tempfile::TempDir;

/// An address where nothing listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[track_caller]
fn says(ended: &Ended, texts: &[&str]) {
    for text in texts {
        assert!(ended.stderr.contains(text), "{text:?} is missing in: {}", ended.stderr);
    }
    assert_eq!(ended.stdout, "");
}

/// Runs without any broker configured by the environment.
fn alone(args: &[&str], vars: &[(&str, &str)]) -> Ended {
    let dir = TempDir::new().unwrap();
    let mut command = command(dir.path());
    command.args(args).envs(vars.iter().copied());
    run(command, b"x\n")
}

#[test]
fn a_broker_that_is_not_there_is_named_with_the_reason() {
    let (one, two) = (nobody(), nobody());
    let brokers = format!("{one},{two}");
    for args in [&["topic", "list"][..], &["produce", "t"], &["consume", "t"], &["group", "list"]] {
        let mut args = args.to_vec();
        args.extend(["--brokers", &brokers]);
        let ended = alone(&args, &[("REDPANDA_REQUEST_TIMEOUT", "2000")]).expect(5);
        says(&ended, &["error: ", &one, &two, "refused"]);
    }
}

#[test]
fn health_of_a_cluster_that_is_not_there_has_the_same_shape() {
    let broker = nobody();
    let ended = alone(&["health", "--brokers", &broker], &[]).expect(1);
    assert!(ended.stdout.starts_with("unhealthy  cluster -") && ended.stdout.contains(&broker), "{}", ended.stdout);
    assert!(ended.stderr.contains("refused"), "{}", ended.stderr);
    let ended = alone(&["health", "--json", "--brokers", &broker], &[("REDPANDA_REQUEST_TIMEOUT", "2000")]).expect(1);
    let health = ended.json_lines().remove(0);
    assert_eq!(health["status"], "unhealthy");
    assert!(health["problems"][0].as_str().unwrap().contains(&broker), "{health}");
    let bed = Bed::embedded();
    let mut command = bed.command(&["health", "--json"]);
    command.env("REDPANDA_HEALTH_TIMEOUT", "60000");
    let healthy = support::run(command, b"").expect(0).json_lines().remove(0);
    let keys = |v: &serde_json::Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&health), keys(&healthy));
    assert_eq!(keys(&health["brokers"][0]), keys(&healthy["brokers"][0]));
}

#[test]
fn a_setting_that_is_not_allowed_is_named_with_its_value() {
    let ended = alone(&["topic", "list"], &[("REDPANDA_SESSION_TIMEOUT", "soon")]).expect(2);
    says(&ended, &["REDPANDA_SESSION_TIMEOUT is \"soon\": allowed is a whole number of milliseconds"]);
    let ended = alone(&["topic", "list", "--brokers", "here:there"], &[]).expect(2);
    says(&ended, &["\"here:there\" is not a broker address"]);
    let ended = alone(&["topic", "list", "--log", "ailurus=loud"], &[]).expect(2);
    says(&ended, &["--log", "ailurus=loud"]);
}

#[test]
fn the_file_with_settings_counts_and_has_errors() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join(".env"), "REDPANDA_HEARTBEAT_INTERVAL=-1\n").unwrap();
    let mut list = command(dir.path());
    list.args(["topic", "list"]);
    says(&run(list, b"").expect(2), &["REDPANDA_HEARTBEAT_INTERVAL is \"-1\""]);

    let broker = nobody();
    std::fs::write(dir.path().join(".env"), format!("REDPANDA_BROKERS={broker}\nREDPANDA_REQUEST_TIMEOUT=2000\n"))
        .unwrap();
    let mut demo = command(dir.path());
    demo.args(["demo", "--orders", "1"]);
    says(&run(demo, b"").expect(5), &[&broker]); // and no embedded broker in its place
}

#[test]
fn reading_an_unknown_topic_is_an_error_and_creates_nothing() {
    let bed = Bed::new();
    let topic = bed.name("nobody-made-this");
    for args in [&["consume", &topic][..], &["consume", &topic, "--group", "g"], &["topic", "describe", &topic]] {
        says(&bed.run(args).expect(3), &[&topic, "does not exist"]);
    }
    let listed = bed.run(&["topic", "list"]).expect(0).stdout;
    assert!(!listed.contains(&topic), "{listed}");
}

#[test]
fn an_error_that_ends_producing_comes_before_the_last_line_not_instead_of_it() {
    let bed = Bed::new();
    let topic = bed.name("nobody-made-this");
    let ended = bed.feed(&["produce", &topic], b"one\ntwo\n").expect(3);
    says(&ended, &["error: line 1 (--create lets the broker create the topic): ", &topic, "does not exist"]);
    let last = ended.stderr.lines().last().unwrap();
    assert!(last.starts_with("0 records, 0 bytes") && last.ends_with(", 1 failed"), "{}", ended.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn acknowledgements_that_can_not_be_written_are_an_error_and_records_are_sent_all_the_same() {
    let mut bed = Bed::new();
    let topic = bed.topic("full", 1);
    let script = format!("{} produce {topic} --acks-out > /dev/full", env!("CARGO_BIN_EXE_ailurus"));
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", &script]).env("REDPANDA_BROKERS", &bed.brokers).current_dir(bed.dir.path());
    let ended = run(shell, b"one\ntwo\n").expect(1);
    says(&ended, &["error: the list of acknowledgements is not complete: No space left", "2 records", "0 failed"]);
}

#[test]
fn options_that_do_not_fit_are_usage_errors() {
    for (args, text) in [
        (&["produce", "t", "--header", "novalue"][..], "name=value"),
        (&["produce", "t", "--compression-level", "4"], "--compression gzip"),
        (&["produce", "t", "--key", "a", "--key-field", "b"], "cannot be used with"),
        (&["consume", "t", "--from", "yesterday"], "RFC 3339"),
        (&["consume", "t", "--from", "-1"], "an offset from 0"),
        (&["consume", "--at", "t/0"], "TOPIC/PARTITION@OFFSET"),
        (&["consume", "t", "--group", "g", "--partition", "0"], "cannot be used with"),
        (&["produce", "t", "--key", "a", "--key-separator", ":"], "cannot be used with"),
        (&["produce", "t", "--partition", "-1"], "-1 is not in 0.."),
        (&["consume", "t", "--group", "g", "--from", "12"], "--from is earliest or latest"),
        (&["consume"], "<TOPIC>"),
        (&["topic", "create", "t", "--partitions", "0"], "0 is not in 1.."),
        (&["bench", "produce", "--topic", "t"], "PEERS_VALUES is not set"),
        (&["dlq", "list", "orders"], "did you mean orders.dlq?"),
        (&["dlq", "show", "t.dlq", "--at", "3"], "TOPIC/PARTITION@OFFSET"),
        (&["dlq", "replay", "t.dlq", "--since", "yesterday"], "RFC 3339"),
        (&["dlq", "list", "--suffix", ""], "--suffix is empty"),
        (&["nothing"], "unrecognized subcommand"),
    ] {
        says(&alone(args, &[]).expect(2), &[text]);
    }
}

#[test]
fn help_has_exit_codes_and_examples() {
    let help = alone(&["--help"], &[]).expect(0).stdout;
    for text in ["Exit codes:", "Examples:", "--brokers", "REDPANDA_BROKERS"] {
        assert!(help.contains(text), "{help}");
    }
    for name in [
        "demo", "produce", "consume", "topic", "group", "records", "config", "acl", "cluster", "dlq", "registry",
        "health", "broker", "serve", "bench",
    ] {
        assert!(alone(&[name, "--help"], &[]).expect(0).stdout.contains("Usage: ailurus"), "{name}");
    }
}
