//! Runs the shop as a user would: clean environment, empty working directory, an embedded broker of its own.

#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;
use std::time::Duration;

use ailurus::{Admin, Client, Config, ErrorKind, Producer, ProducerRecord, StartOffset, TopicPartition};
use ailurus_broker::{Broker, BrokerConfig};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub use ailurus_test_support::process::{DEADLINE, Process, address_of, fetch, get, until};

/// A broker, a client of it, and a working directory.
pub struct Bed {
    pub dir: TempDir,
    client: Client,
    pub broker: Broker,
    runtime: Runtime,
}

impl Bed {
    pub fn new() -> Self {
        Self::with(BrokerConfig::default())
    }

    pub fn with(config: BrokerConfig) -> Self {
        let versions = ailurus_test_support::embedded_versions();
        let runtime = Runtime::new().unwrap();
        let broker = runtime.block_on(Broker::start(config.versions(versions))).unwrap();
        let in_runtime = runtime.enter();
        let client = Client::new(Config::builder().brokers(broker.bootstrap()).build().unwrap());
        drop(in_runtime);
        Self { dir: TempDir::new().unwrap(), client, broker, runtime }
    }

    /// The shop's program, with nothing from outside.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ailurus-shop"));
        command.env_clear().current_dir(self.dir.path());
        command.env("REDPANDA_HEALTH_TIMEOUT", "60000"); // a busy machine may take long
        command.args(["--listen", "127.0.0.1:0", "--brokers", &self.broker.bootstrap()]);
        command
    }

    /// Starts the shop; returns its HTTP address too.
    pub fn start(&self, variables: &[(&str, &str)]) -> (Process, String) {
        let mut command = self.command();
        command.envs(variables.iter().copied());
        let process = Process::spawn(command);
        let address = address_of(&process);
        (process, address)
    }

    pub fn stop_broker(&self) {
        self.runtime.block_on(self.broker.stop_node(0)).unwrap();
    }

    pub fn start_broker(&self) {
        self.runtime.block_on(self.broker.start_node(0)).unwrap();
    }

    /// Writes a record to partition 0 of a topic.
    pub fn produce(&self, record: ProducerRecord<'_>) {
        self.runtime.block_on(async {
            let producer = self.client.producer().start().unwrap();
            producer.send(record.partition(0)).await.unwrap().await.unwrap();
            producer.close(Duration::from_secs(10)).await.unwrap();
        });
    }

    /// Returns the number of records in partition 0 of a topic.
    pub fn records(&self, topic: &str) -> i64 {
        let partition = TopicPartition::new(topic, 0);
        let ends = self
            .runtime
            .block_on(Admin::new(&self.client).list_offsets(std::slice::from_ref(&partition), StartOffset::Latest));
        match ends {
            Ok(ends) => ends[&partition],
            Err(e) if e.kind() == ErrorKind::UnknownTopic => 0,
            Err(e) => panic!("{e:#}"),
        }
    }

    /// Returns the number of members of a group.
    pub fn members(&self, group: &str) -> usize {
        self.runtime.block_on(Admin::new(&self.client).describe_group(group)).unwrap().members.len()
    }
}

/// Waits until the shop is ready.
#[track_caller]
pub fn until_ready(address: &str) {
    until(|| (get(address, "/health/ready")?.0 == 200).then_some(())).expect("ready");
}
