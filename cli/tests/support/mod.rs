//! Runs the binary as a user would: clean environment, empty working directory, a broker of its own.
//!
//! The broker is `ailurus broker` on a free port, as the preset that AILURUS_TEST_EMBEDDED names, or what
//! AILURUS_TEST_BROKERS names; there the topics made here are deleted again, and no others.

#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod dead_letters;

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use tempfile::TempDir;

pub use ailurus_test_support::process::{DEADLINE, Ended, Process, address_of, fetch, get, run, until};
use ailurus_test_support::refuse_remote;

/// A broker, a working directory, and names that nobody else uses.
pub struct Bed {
    pub brokers: String,
    broker: Option<Process>,
    pub dir: TempDir,
    prefix: String,
    topics: Vec<String>,
}

impl Bed {
    pub fn new() -> Self {
        match std::env::var("AILURUS_TEST_BROKERS") {
            Ok(brokers) => {
                refuse_remote(&brokers);
                Self::on(brokers, None, TempDir::new().unwrap())
            }
            Err(_) => Self::embedded(),
        }
    }

    /// On the embedded broker, whatever others there are.
    pub fn embedded() -> Self {
        let dir = TempDir::new().unwrap();
        let versions = std::env::var("AILURUS_TEST_EMBEDDED").unwrap_or_else(|_| "redpanda-24.3".into());
        let mut command = command(dir.path());
        command.args(["broker", "--listen", "127.0.0.1:0", "--versions", &versions]);
        let broker = Process::spawn(command);
        let line = broker.line(|_| true);
        Self::on(line.strip_prefix("listening on ").expect(&line).to_owned(), Some(broker), dir)
    }

    /// On a broker of the test's own.
    pub fn of(brokers: String) -> Self {
        Self::on(brokers, None, TempDir::new().unwrap())
    }

    fn on(brokers: String, broker: Option<Process>, dir: TempDir) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("cli-test-{now}-{}-{count}", std::process::id());
        Self { brokers, broker, dir, prefix, topics: Vec::new() }
    }

    /// Lets the embedded broker hang: connections stay open, without responses.
    pub fn stop_broker(&self) {
        let broker = self.broker.as_ref().expect("an embedded broker");
        broker.signal(Signal::SIGSTOP);
        // Now all of its threads are stopped.
        waitpid(broker.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
    }

    /// A name of our own.
    pub fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.prefix)
    }

    /// Creates a topic through the command; with 0 partitions it has as many as the broker gives it.
    pub fn topic(&mut self, what: &str, partitions: u32) -> String {
        self.topic_with(what, partitions, &[])
    }

    /// With more arguments.
    pub fn topic_with(&mut self, what: &str, partitions: u32, more: &[&str]) -> String {
        let (name, count) = (self.name(what), partitions.to_string());
        let count = if partitions > 0 { &["--partitions", &count][..] } else { &[] };
        self.run(&[&["topic", "create", &name], count, more].concat()).expect(0);
        self.topics.push(name.clone());
        name
    }

    /// The command on our broker, with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = command(self.dir.path());
        command.env("REDPANDA_BROKERS", &self.brokers).args(args);
        command
    }

    /// Runs to the end without input.
    pub fn run(&self, args: &[&str]) -> Ended {
        self.feed(args, b"")
    }

    /// Runs to the end with this input.
    pub fn feed(&self, args: &[&str], input: &[u8]) -> Ended {
        run(self.command(args), input)
    }

    /// Starts and leaves it running.
    pub fn start(&self, args: &[&str]) -> Process {
        Process::spawn(self.command(args))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.broker.is_none() {
            for topic in &self.topics {
                let _ = self.command(&["topic", "delete", topic, "--yes"]).output();
            }
        }
    }
}

/// The binary with nothing from outside.
pub fn command(dir: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ailurus"));
    command.env_clear().current_dir(dir);
    command
}
