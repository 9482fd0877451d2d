//! Apache Kafka's servers, on free ports.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use ailurus_test_support::process::{Ended, run};

use crate::ailurus::Ailurus;
use crate::tools::{kafka_local, report, target};

/// A cluster of its own. Its servers and their data are removed when it is dropped, and when this
/// process ends in any other way.
pub struct Kafka {
    directory: PathBuf,
    port: u16,
    nodes: u16,
    settings: Vec<(&'static str, String)>,
    /// Waits until its stdin ends, which happens when this process does; then removes everything.
    keeper: Child,
}

impl Kafka {
    /// Starts a cluster whose topics need two replicas in sync if it has three nodes, with more
    /// properties of its servers.
    #[track_caller]
    pub fn start(nodes: u16, properties: &str) -> Self {
        Self::prepare(nodes).run(|_| properties.to_owned())
    }

    /// Prepares a cluster that is not running.
    #[track_caller]
    pub fn prepare(nodes: u16) -> Self {
        let directory = tempfile::Builder::new().prefix("kafka-").tempdir_in(target()).unwrap().keep();
        let mut keep = kafka_local(&directory, &["keep"]);
        // In a group of its own: an interrupt of this one does not reach it.
        let keeper = keep.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0).spawn().unwrap();
        Self { directory, port: 0, nodes, settings: Vec::new(), keeper }
    }

    /// Sets a variable of `scripts/kafka-local.sh`.
    pub fn set(mut self, name: &'static str, value: &str) -> Self {
        self.settings.push((name, value.to_owned()));
        self
    }

    /// Starts the servers with the properties that `properties` returns for the first node's port.
    #[track_caller]
    pub fn run(mut self, properties: impl FnOnce(&Self) -> String) -> Self {
        // One at a time: free ports stay free until the servers listen there.
        static STARTING: Mutex<()> = Mutex::new(());
        let _starting = STARTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.port = self.script(&["ports", &self.nodes.to_string()]).expect(0).stdout.trim().parse().unwrap();
        let safe = if self.nodes < 3 { "" } else { "min.insync.replicas=2\nauto.leader.rebalance.enable=false\n" };
        let properties = safe.to_owned() + &properties(&self) + "\n";
        fs::write(self.directory.join("props"), properties).unwrap();
        self.script(&["start", &self.nodes.to_string()]).expect(0);
        self
    }

    /// Returns the directory of its data, keys and logs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the address of a listener of the first node.
    pub fn address(&self, listener: u16) -> String {
        format!("127.0.0.1:{}", self.port + listener)
    }

    pub fn bootstrap(&self) -> String {
        let address = |node| format!("127.0.0.1:{}", self.port + 10 * node);
        (0..self.nodes).map(address).collect::<Vec<_>>().join(",")
    }

    /// Returns the command with this cluster as its brokers.
    pub fn ailurus(&self) -> Ailurus {
        Ailurus::new(&self.bootstrap())
    }

    /// Kills a node as a power failure would.
    #[track_caller]
    pub fn kill(&self, node: i64) {
        self.script(&["kill", &node.to_string()]).expect(0);
    }

    /// Starts a killed node with its data; returns when it serves.
    #[track_caller]
    pub fn restart(&self, node: i64) {
        self.script(&["restart", &node.to_string()]).expect(0);
    }

    /// Stops a node's process until [`resume`](Self::resume).
    #[track_caller]
    pub fn pause(&self, node: i64) {
        self.script(&["pause", &node.to_string()]).expect(0);
    }

    #[track_caller]
    pub fn resume(&self, node: i64) {
        self.script(&["resume", &node.to_string()]).expect(0);
    }

    /// Runs one of Kafka's tools on this cluster; returns its output, with the errors in it.
    #[track_caller]
    pub fn tool(&self, class: &str, args: &[&str]) -> String {
        tool_on(&self.bootstrap(), class, args)
    }

    fn script(&self, args: &[&str]) -> Ended {
        let mut command = kafka_local(&self.directory, args);
        command.env("KAFKA_PORT", self.port.to_string()).env("KAFKA_PROPS", self.directory.join("props"));
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        run(command, b"")
    }

    /// Runs a step of [`prepare`](Self::prepare)d cluster, such as `keys`.
    #[track_caller]
    pub fn step(self, step: &str) -> Self {
        self.script(&[step]).expect(0);
        self
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        _ = self.keeper.wait();
        if self.directory.exists() {
            report(module_path!(), format_args!("logs are in {}", self.directory.display()));
        }
    }
}

/// Runs one of Kafka's tools; returns its output, with the errors in it.
#[track_caller]
pub fn tool_on(bootstrap: &str, class: &str, args: &[&str]) -> String {
    let ended = run(java(class, &[&["--bootstrap-server", bootstrap], args].concat()), b"");
    assert_eq!(ended.code, 0, "{class} {}: {}{}", args.join(" "), ended.stdout, ended.stderr);
    ended.stdout + &ended.stderr
}

/// Returns one of Kafka's tools, or a program in Java that uses its client.
pub fn java(class: &str, args: &[&str]) -> Command {
    kafka_local(&target().join("kafka-tools"), &[&["tool", class], args].concat())
}
