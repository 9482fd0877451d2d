//! Members of a group, of several clients, each a process that prints the records it handles.

use std::env;
use std::process::Stdio;
use std::time::Duration;

use ailurus::{Error, ErrorKind, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `ailurus consume`; the environment's `AILURUS` names the binary.
    Ailurus,
    /// Kafka's console consumer; `KAFKA_LIBS` names the folder with its jars.
    #[allow(dead_code, reason = "not every program has one")]
    Java,
    /// kcat.
    Librdkafka,
}

/// Settings common to members of all kinds.
pub struct Setting<'a> {
    pub bootstrap: &'a str,
    pub topic: &'a str,
    pub group: &'a str,
    pub session: Duration,
    pub heartbeat: Duration,
}

/// Starts a member. Its process is killed when the child is dropped.
pub fn start(kind: Kind, setting: &Setting<'_>) -> Result<(Child, ChildStdout)> {
    let mut command = command(kind, setting);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| {
        Error::with_source(ErrorKind::Config, format!("{:?} can't be run", command.as_std().get_program()), e)
    })?;
    let output = child.stdout.take().expect("it is piped");
    Ok((child, output))
}

pub async fn signal(child: &Child, name: &str) {
    if let Some(pid) = child.id() {
        _ = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().await;
    }
}

/// Reports each record that a member prints, until it exits.
pub async fn watch(kind: Kind, output: ChildStdout, mut seen: impl FnMut(i32, i64)) {
    let mut output = BufReader::new(output).lines();
    while let Ok(Some(line)) = output.next_line().await {
        if let Some((partition, offset)) = place(kind, &line) {
            seen(partition, offset);
        }
    }
}

fn command(kind: Kind, setting: &Setting<'_>) -> Command {
    let Setting { bootstrap, topic, group, .. } = *setting;
    let (session, heartbeat) = (setting.session.as_millis().to_string(), setting.heartbeat.as_millis().to_string());
    let properties = |assignor: &str| {
        [
            format!("partition.assignment.strategy={assignor}"),
            format!("session.timeout.ms={session}"),
            format!("heartbeat.interval.ms={heartbeat}"),
            "auto.commit.interval.ms=1000".to_owned(),
            "auto.offset.reset=earliest".to_owned(),
        ]
    };
    match kind {
        Kind::Ailurus => {
            let mut command = Command::new(env::var("AILURUS").unwrap_or_else(|_| "target/debug/ailurus".into()));
            command.args(["consume", topic, "--group", group, "--json"]).envs([
                ("REDPANDA_BROKERS", bootstrap),
                ("REDPANDA_SESSION_TIMEOUT", &session),
                ("REDPANDA_HEARTBEAT_INTERVAL", &heartbeat),
                ("REDPANDA_AUTO_OFFSET_RESET", "earliest"),
            ]);
            command
        }
        Kind::Java => {
            let libs = env::var("KAFKA_LIBS").unwrap_or_else(|_| "target/kafka-libs".into());
            let mut java = Command::new("java");
            java.args(["-Xmx96m", "-XX:+UseSerialGC", "-cp", &format!("{libs}/*")])
                .arg("org.apache.kafka.tools.consumer.ConsoleConsumer")
                .args(["--bootstrap-server", bootstrap, "--topic", topic, "--group", group])
                .args(["--formatter-property", "print.partition=true", "--formatter-property", "print.offset=true"]);
            for property in properties("org.apache.kafka.clients.consumer.CooperativeStickyAssignor") {
                java.args(["--command-property", &property]);
            }
            java
        }
        Kind::Librdkafka => {
            let mut kcat = Command::new("kcat");
            kcat.args(["-b", bootstrap, "-u", "-q", "-f", "Partition:%p\\tOffset:%o\\t%s\\n"]);
            for property in properties("cooperative-sticky") {
                kcat.args(["-X", &property]);
            }
            kcat.args(["-G", group, topic]);
            kcat
        }
    }
}

/// The partition and the offset that a line names.
fn place(kind: Kind, line: &str) -> Option<(i32, i64)> {
    if kind == Kind::Ailurus {
        let json: serde_json::Value = serde_json::from_str(line).ok()?;
        return Some((json["partition"].as_i64()?.try_into().ok()?, json["offset"].as_i64()?));
    }
    let mut fields = line.split('\t');
    let mut number = |name: &str| fields.next()?.strip_prefix(name)?.parse::<i64>().ok();
    Some((number("Partition:")?.try_into().ok()?, number("Offset:")?))
}
