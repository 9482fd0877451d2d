//! Completions and manual pages, which are generated from the command line's description. No broker is needed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;

use support::{command, run};
use tempfile::TempDir;

/// Those that `ailurus --help` lists.
fn commands(dir: &TempDir) -> Vec<String> {
    let mut help = command(dir.path());
    help.arg("--help");
    let help = run(help, b"").expect(0).stdout;
    let listed = help.lines().skip_while(|l| !l.starts_with("Commands:")).skip(1).take_while(|l| !l.is_empty());
    let commands: Vec<String> =
        listed.filter(|l| !l.starts_with("   ")).map(|l| l.split_whitespace().next().unwrap().to_owned()).collect();
    assert!(commands.iter().any(|c| c == "produce"), "{help}");
    commands
}

#[test]
fn completions_know_each_command_and_go_to_stdout() {
    let dir = TempDir::new().unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let mut completions = command(dir.path());
        completions.args(["completions", shell]);
        let ended = run(completions, b"").expect(0);
        for name in commands(&dir) {
            assert!(ended.stdout.contains(&name), "{shell}: no {name}");
        }
        assert!(ended.stdout.contains("key-field"), "{shell}: options too");
        assert_eq!(ended.stderr, "");
    }
    let mut unknown = command(dir.path());
    unknown.args(["completions", "tcsh"]);
    let ended = run(unknown, b"").expect(2);
    assert!(ended.stderr.contains("tcsh") && ended.stderr.contains("bash"), "{}", ended.stderr);
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let dir = TempDir::new().unwrap();
    let mut man = command(dir.path());
    man.args(["man", "--out", "share/man1"]);
    run(man, b"").expect(0);
    let page = |name: &str| fs::read_to_string(dir.path().join("share/man1").join(name)).expect(name);
    assert!(page("ailurus.1").contains("REDPANDA_BROKERS"));
    assert!(page("ailurus-topic-create.1").contains("partitions"), "commands of commands too");
    for name in commands(&dir) {
        assert!(page(&format!("ailurus-{name}.1")).contains(".SH SYNOPSIS"), "{name}");
    }
}

#[test]
fn a_directory_that_can_not_be_made_is_named() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let mut man = command(dir.path());
    man.args(["man", "--out", "file/man1"]);
    let ended = run(man, b"").expect(1);
    assert!(ended.stderr.contains("file/man1 could not be created"), "{}", ended.stderr);
}
