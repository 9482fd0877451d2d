//! An application with a handler that gets signals: this binary again, in a process of its own.
#![cfg(unix)]
#![allow(clippy::print_stdout, reason = "the tests read it")]

use std::process::Stdio;
use std::time::Duration;

use ailurus::{Client, Config, HandlerOrdering, Message, ProducerRecord};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::{LONG, committed, connect, filled, support};

/// Makes the test below run as the child process: topic and group, separated by a space.
const VARIABLE: &str = "AILURUS_TEST_HANDLE";

/// Does nothing unless this binary was started by the tests below.
#[tokio::test(flavor = "multi_thread")]
async fn the_application() {
    let Ok(names) = std::env::var(VARIABLE) else { return };
    let (topic, group) = names.split_once(' ').unwrap();
    let client = Client::connect(Config::from_env().unwrap()).await.unwrap();
    let processor = client.processor(group).ordering(HandlerOrdering::Key);
    let left = processor.subscribe([topic], handle).await.unwrap().run_until_signal().await.unwrap();
    println!("left: {left}");
    client.close().await;
}

/// Prints what it does. A record with the value `slow` is in flight until the shutdown, one with the
/// value `hang` until it is cancelled.
async fn handle(message: Message) {
    let value = String::from_utf8_lossy(message.value.as_deref().unwrap_or_default()).into_owned();
    println!("begun {value}");
    if matches!(&*value, "slow" | "hang") {
        message.stopping().await;
        println!("handled {value}");
    }
    if value == "hang" {
        std::future::pending().await
    }
    println!("done {value}");
}

struct Application {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Lines that came while another was waited for: handlers of different keys are in no order.
    seen: Vec<String>,
}

impl Application {
    fn start(client: &Client, topic: &str, group: &str) -> Self {
        let dir = tempfile::tempdir().unwrap(); // without a `.env`
        let brokers: Vec<_> = client.config().brokers.iter().map(ToString::to_string).collect();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "signals::the_application", "--nocapture"]).current_dir(dir.path());
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
    let mut application = Application::start(&client, &topic, &group);
    application.line("begun slow").await;
    application.line("done two").await;
    application.signal("TERM").await;
    application.line("done slow").await;
    application.line("left: nothing was left").await;
    assert_eq!(application.end().await, 0);
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
    let mut application = Application::start(&client, &topic, &group);
    application.line("begun hang").await;
    application.line("done two").await;
    application.signal("TERM").await;
    application.line("handled hang").await;
    let left = format!("left: {topic}/0: 1 cancelled, 0 awaiting retry, 1 queued");
    // One that comes too early counts as the first one's echo.
    loop {
        application.signal("INT").await;
        if tokio::time::timeout(Duration::from_millis(50), application.line(&left)).await.is_ok() {
            break;
        }
    }
    assert_eq!(application.end().await, 0);
    assert_eq!(committed(&client, &group).await, 1);
    client.close().await;
}
