//! Dead letters by key, and their replay: of some, at a rate, changed before.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use nix::sys::signal::Signal;
use serde_json::json;
use support::dead_letters::DeadLetters;
use support::{Process, until};

#[test]
fn letters_of_a_key_are_listed_and_shown_together() {
    let dead_letters = DeadLetters::new(1);
    for (key, error) in [("a", "one"), ("b", "two"), ("a", "three"), ("b", "four"), ("a", "five")] {
        dead_letters.dead_letter(key, error, error, &[]);
    }
    let listed = dead_letters.run("list", &["--by-key", "--json"]).expect(0).json_lines().remove(0);
    let keys: Vec<_> =
        listed[0]["keys"].as_array().unwrap().iter().map(|c| (c["key"].clone(), c["open"].clone())).collect();
    assert_eq!(keys, [(json!("a"), json!(3)), (json!("b"), json!(2))]);
    assert_eq!(listed[0]["keys"][0]["error"], "five", "the last one");
    let text = dead_letters.run("list", &["--by-key"]).expect(0).stdout;
    assert!(text.lines().any(|l| l.split_whitespace().take(4).eq([&*dead_letters.dlq, "a", "3", "3"])), "{text}");

    let shown = dead_letters.run("show", &["--by-key", "--last", "4", "--json"]).expect(0).json_lines();
    let offsets: Vec<_> = shown.iter().map(|l| l["offset"].as_i64().unwrap()).collect();
    assert_eq!(offsets, [1, 3, 2, 4], "the last four, those of a key together");
    let text = dead_letters.run("show", &["--by-key"]).expect(0).stdout;
    let heads: Vec<_> = text.lines().filter(|l| l.starts_with("key ")).collect();
    assert_eq!(heads, ["key a: 3 dead letters", "key b: 2 dead letters"]);
}

#[test]
fn letters_of_one_group_or_origin_are_replayed_alone() {
    let dead_letters = DeadLetters::new(1);
    dead_letters.dead_letter("a", "1", "boom", &[]);
    dead_letters.dead_letter("b", "2", "boom", &["dlq-group=audit"]);
    let dry = dead_letters.run("replay", &["--group", "audit", "--json"]).expect(0).json_lines();
    assert_eq!(dry.iter().map(|l| l["offset"].as_i64().unwrap()).collect::<Vec<_>>(), [1]);
    assert_eq!(dead_letters.run("replay", &["--origin", "nobody-made-this", "--json"]).expect(0).json_lines().len(), 0);
    dead_letters.run("replay", &["--origin", &dead_letters.topic, "--group", "billing", "--yes"]).expect(0);
    assert_eq!(dead_letters.counts(), [2, 1, 1, 0]);
}

#[test]
fn a_replay_with_a_rate_replays_all() {
    let dead_letters = DeadLetters::new(1);
    for i in 0..5 {
        dead_letters.dead_letter(&format!("k{i}"), "v", "boom", &[]);
    }
    for bad in ["0", "10/h", "fast"] {
        let refused = dead_letters.run("replay", &["--rate", bad]).expect(2);
        assert!(refused.stderr.contains("such as 100, 100/s or 30/m"), "{}", refused.stderr);
    }
    dead_letters.run("replay", &["--rate", "50/s", "--yes"]).expect(0);
    assert_eq!(dead_letters.counts(), [5, 0, 5, 0]);
    let keys: Vec<_> = dead_letters.replayed().iter().map(|r| r["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(keys, ["k0", "k1", "k2", "k3", "k4"]);
}

#[test]
fn a_signal_ends_a_slow_replay_and_what_was_sent_is_marked() {
    let dead_letters = DeadLetters::new(1);
    for i in 0..10 {
        dead_letters.dead_letter(&format!("k{i}"), "v", "boom", &[]);
    }
    // It would take nine minutes.
    let replay =
        Process::spawn(dead_letters.bed.command(&["dlq", "replay", &dead_letters.dlq, "--rate", "1/m", "--yes"]));
    assert!(until(|| (dead_letters.counts()[2] > 0).then_some(())).is_some());
    replay.signal(Signal::SIGINT);
    replay.end().expect(130);
    let [all, open, replayed, _] = dead_letters.counts();
    assert_eq!((all, open + replayed), (10, 10));
    assert!(open > 0, "{replayed} were replayed");
    assert_eq!(dead_letters.replayed().len() as i64, replayed);
}

#[test]
fn a_record_is_changed_before_its_replay() {
    let dead_letters = DeadLetters::new(1);
    dead_letters.dead_letter("o-1", r#"{"total":-1}"#, "boom", &[]);
    dead_letters.dead_letter("o-2", "other", "boom", &[]);
    let edit = [
        "--at",
        "0/0",
        "--set-value",
        r#"{"total":1}"#,
        "--set-header",
        "tenant=rome",
        "--remove-header",
        "traceparent",
    ];
    let dry = dead_letters.run("replay", &edit).expect(0).stdout;
    let traceparent = "traceparent = 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let expected = format!(
        "{}/0@0 would be replayed to {}: boom\n  value   - {{\"total\":-1}}\n  value   + {{\"total\":1}}\n\
         \x20 header  - tenant = berlin\n  header  - tenant = paris\n  header  - {traceparent}\n  header  + tenant = rome\n",
        dead_letters.dlq, dead_letters.topic
    );
    assert_eq!(dry, expected);
    assert_eq!(dead_letters.counts(), [2, 2, 0, 0], "a dry run");
    let done = dead_letters.run("replay", &[&edit[..], &["--yes", "--json"]].concat()).expect(0).json_lines().remove(0);
    assert_eq!(
        (&done["edit"]["before"]["value"], &done["edit"]["after"]["value"]),
        (&json!(r#"{"total":-1}"#), &json!(r#"{"total":1}"#))
    );
    let record = dead_letters.replayed().remove(0);
    assert_eq!((&record["key"], &record["value"]), (&json!("o-1"), &json!(r#"{"total":1}"#)));
    let headers: Vec<_> = record["headers"].as_array().unwrap().iter().map(|h| h["key"].as_str().unwrap()).collect();
    assert_eq!(headers, ["tenant", "ce_id", "ce_time", "dlq-original-timestamp", "dlq-replays"]);
    assert_eq!(dead_letters.counts(), [2, 1, 1, 0], "the other one is as it was");
    // One value for many records would be a mistake.
    let refused = dead_letters.run("replay", &["--set-value", "x"]).expect(2);
    assert!(refused.stderr.contains("--at"), "{}", refused.stderr);
    dead_letters.run("replay", &["--at", "0/7", "--yes"]).expect(3);
}

#[test]
fn a_value_is_edited_in_the_editor() {
    let dead_letters = DeadLetters::new(1);
    dead_letters.dead_letter("o-1", "wrong", "boom", &[]);
    let run = |editor: &str, more: &[&str]| {
        let mut command = dead_letters.bed.command(&["dlq", "replay", &dead_letters.dlq, "--at", "0/0", "--edit"]);
        command.args(more).env("TMPDIR", dead_letters.bed.dir.path()).env_remove("VISUAL").env("EDITOR", editor);
        support::run(command, b"")
    };
    let none = run("true", &["--yes"]).expect(0);
    assert!(none.stderr.contains("was not changed: nothing is replayed"), "{}", none.stderr);
    let failed = run("false", &["--yes"]).expect(1);
    assert!(failed.stderr.contains("the editor \"false\" failed"), "{}", failed.stderr);
    assert!(run("", &["--yes"]).expect(2).stderr.contains("VISUAL or EDITOR"));
    assert_eq!(dead_letters.counts(), [1, 1, 0, 0]);

    // An editor that ends its last line.
    let dry = run("sh -c 'echo right >$0'", &[]).expect(0);
    assert!(dry.stdout.contains("  value   - wrong\n  value   + right\n"), "{}", dry.stdout);
    let file = dry.stderr.split_once("--set-value-file ").unwrap().1.split_whitespace().next().unwrap().to_owned();
    dead_letters.run("replay", &["--at", "0/0", "--set-value-file", &file, "--yes"]).expect(0);
    assert_eq!(dead_letters.replayed()[0]["value"], "right");
}
