//! A program with a handler that gets signals: `examples/handle.rs`, in a process of its own.
#![cfg(unix)]

#[allow(dead_code)]
#[path = "../../examples/handle.rs"]
mod handle;

use std::process::Stdio;
use std::time::Duration;

use ailurus::{Client, ProducerRecord};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::{LONG, committed, connect, filled, support};

/// Makes the test below run as the child process: topic and group, separated by a space.
const VARIABLE: &str = "AILURUS_TEST_HANDLE";

/// Only a program when this binary was started by the tests here.
#[tokio::test(flavor = "multi_thread")]
async fn the_program() {
    let Ok(names) = std::env::var(VARIABLE) else { return };
    let (topic, group) = names.split_once(' ').unwrap();
    handle::run(topic, group).await.unwrap();
}

struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Lines that came while another was waited for: handlers of different keys are in no order.
    seen: Vec<String>,
}

impl Program {
    fn start(client: &Client, topic: &str, group: &str) -> Self {
        let dir = tempfile::tempdir().unwrap(); // without a `.env`
        let brokers: Vec<_> = client.config().brokers.iter().map(ToString::to_string).collect();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "signals::the_program", "--nocapture"]).current_dir(dir.path());
        command.env(VARIABLE, format!("{topic} {group}")).env("REDPANDA_BROKERS", brokers.join(","));
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, seen: Vec::new() }
    }

    async fn line(&mut self, wanted: &str) {
        while !self.seen.iter().any(|l| l == wanted) {
            let line = tokio::time::timeout(LONG, self.lines.next_line()).await;
            let Ok(Ok(Some(line))) = line else { panic!("no {wanted:?} after {:?}: {line:?}", self.seen) };
            self.seen.push(line);
        }
    }

    async fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().await.unwrap().success());
    }

    async fn end(mut self) -> i32 {
        let ended = tokio::time::timeout(LONG, self.child.wait()).await;
        ended.unwrap().unwrap().code().unwrap()
    }
}

async fn send(client: &Client, topic: &str, values: &[&str]) {
    let producer = client.producer().start().unwrap();
    for value in values {
        producer.send(ProducerRecord::to(topic).key(value).value(value)).await.unwrap().await.unwrap();
    }
    producer.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_completes_in_flight_records() {
    let broker = support::broker().await;
    let client = connect(broker.config()).await;
    let topic = filled(&broker, &client, "term", 1, 0).await;
    let group = broker.group("term");
    send(&client, &topic, &["one", "slow", "two"]).await;
    let mut program = Program::start(&client, &topic, &group);
    program.line("begun slow").await;
    program.line("done two").await;
    program.signal("TERM").await;
    program.line("done slow").await;
    program.line("left: nothing was left").await;
    assert_eq!(program.end().await, 0);
    assert_eq!(committed(&client, &group).await, 3);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_cancels_and_commits() {
    let broker = support::broker().await;
    let client = connect(broker.config()).await;
    let topic = filled(&broker, &client, "int", 1, 0).await;
    let group = broker.group("int");
    send(&client, &topic, &["one", "hang", "hang", "two"]).await;
    let mut program = Program::start(&client, &topic, &group);
    program.line("begun hang").await;
    program.line("done two").await;
    program.signal("TERM").await;
    program.line("handled hang").await;
    let left = format!("left: {topic}/0: 1 cancelled, 0 awaiting retry, 1 queued");
    // One that comes too early counts as the first one's echo.
    loop {
        program.signal("INT").await;
        if tokio::time::timeout(Duration::from_millis(50), program.line(&left)).await.is_ok() {
            break;
        }
    }
    assert_eq!(program.end().await, 0);
    assert_eq!(committed(&client, &group).await, 1);
    client.close().await;
}
