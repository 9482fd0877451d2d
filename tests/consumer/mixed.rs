//! Groups of our members and those of librdkafka (`kcat`), Kafka's own Java client and KafkaJS, on a real broker: each leads once.
//! kcat is looked for in PATH, the Java client's jars in the directory that `KAFKA_LIBS` names, KafkaJS in that of `NODE_PATH`;
//! without one, that one is skipped, unless CI=true requires all.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::*;

/// Returns whether there is a real broker and the other client.
fn takes_part(broker: &TestBroker, client: &str, is_there: bool) -> bool {
    if broker.embedded().is_some() {
        return false;
    }
    let all = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(is_there || !all, "{client} is missing, and CI=true requires it");
    is_there
}

fn directory(variable: &str) -> PathBuf {
    std::env::var_os(variable).map(PathBuf::from).unwrap_or_default()
}

/// Another client as a member; killed on drop.
struct Other(Child);

impl Other {
    fn start(mut command: Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// As an operator would, so that it leaves its group.
    async fn stop(mut self) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        soon(async {
            while self.0.try_wait().unwrap().is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        _ = self.0.kill(); // it may have ended
        _ = self.0.wait();
    }
}

fn kcat(broker: &TestBroker, group: &str, topic: &str, strategy: &str) -> Command {
    let mut command = Command::new("kcat");
    let strategy = format!("partition.assignment.strategy={strategy}");
    let beat = ["-X", "heartbeat.interval.ms=500", "-X", "session.timeout.ms=10000"];
    command.args(["-b", broker.bootstrap(), "-X", &strategy]).args(beat).args(["-G", group, topic]);
    command
}

fn java(libs: &Path, broker: &TestBroker, group: &str, topic: &str, strategy: &str) -> Command {
    let mut command = Command::new("java");
    let strategy = format!("partition.assignment.strategy=org.apache.kafka.clients.consumer.{strategy}");
    let own = ["--command-property", &strategy, "--command-property", "heartbeat.interval.ms=500"];
    command.args([
        "-Xmx128m",
        "-cp",
        &format!("{}/*", libs.display()),
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
    ]);
    command.args(["--bootstrap-server", broker.bootstrap(), "--group", group, "--topic", topic]).args(own);
    command
}

fn kafkajs(broker: &TestBroker, group: &str, topic: &str) -> Command {
    let mut command = Command::new("node");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/consumer/kafkajs/member.js");
    command.args([program, broker.bootstrap(), group, topic]);
    command
}

/// Until the group is at rest with these numbers of partitions.
async fn shares(client: &Client, group: &str, wanted: &[usize]) {
    let admin = Admin::new(client);
    let mut last = None;
    let reached = tokio::time::timeout(LONG, async {
        loop {
            if let Ok(now) = admin.describe_group(group).await {
                let mut all: Vec<i32> =
                    now.members.iter().flat_map(|m| m.assignment.values().flatten().copied()).collect();
                let mut sizes: Vec<usize> =
                    now.members.iter().map(|m| m.assignment.values().map(Vec::len).sum()).collect();
                sizes.sort_unstable();
                all.sort_unstable();
                if now.state.as_str() == "Stable" && sizes == wanted && all == (0..6).collect::<Vec<_>>() {
                    return;
                }
                last = Some(now);
            }
            tokio::time::sleep(Duration::from_millis(50)).await; // not to drown a small machine in questions
        }
    });
    assert!(reached.await.is_ok(), "{wanted:?} wanted: {last:?}");
}

/// Each of the two comes first once, and so leads.
async fn share(
    broker: &TestBroker,
    client: &Client,
    name: &str,
    kind: AssignorKind,
    other: &dyn Fn(&str, &str) -> Command,
) {
    let topic = topic(broker, client, name, 6).await;
    for we_lead in [true, false] {
        let group = broker.group(&format!("{name}-{we_lead}"));
        let mut config = client.config().consumer.clone();
        config.assignors = vec![kind.clone()];
        config.session_timeout = Duration::from_secs(10);
        config.heartbeat_interval = Duration::from_millis(500);
        let mut theirs = None;
        if !we_lead {
            theirs = Some(Other::start(other(&group, &topic)));
            shares(client, &group, &[6]).await;
        }
        let mut consumer = client.consumer(&group).config(config).subscribe([&topic]).await.unwrap();
        let (stop, mut stopped) = oneshot::channel::<()>();
        let member = tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = &mut stopped => return consumer.close().await.unwrap(),
                    event = consumer.recv() => drop(event.unwrap()),
                }
            }
        });
        if we_lead {
            shares(client, &group, &[6]).await;
            theirs = Some(Other::start(other(&group, &topic)));
        }
        shares(client, &group, &[3, 3]).await;
        // Now the one that stays takes all again.
        if we_lead {
            theirs.take().unwrap().stop().await;
        } else {
            stop.send(()).unwrap();
            member.await.unwrap();
            shares(client, &group, &[6]).await;
            theirs.take().unwrap().stop().await;
            continue;
        }
        shares(client, &group, &[6]).await;
        stop.send(()).unwrap();
        member.await.unwrap();
    }
}

#[tokio::test]
async fn librdkafka_members_share_a_group() {
    let broker = support::broker().await;
    if !takes_part(&broker, "kcat", Command::new("kcat").arg("-V").output().is_ok()) {
        return;
    }
    let client = client(&broker).await;
    for kind in [AssignorKind::Range, AssignorKind::RoundRobin, AssignorKind::CooperativeSticky] {
        let strategy = kind.name().to_owned();
        share(&broker, &client, &strategy, kind, &|group, topic| kcat(&broker, group, topic, &strategy)).await;
    }
}

#[tokio::test]
async fn java_members_share_a_group() {
    let broker = support::broker().await;
    let libs = directory("KAFKA_LIBS");
    if !takes_part(&broker, "the Java client", libs.join(".done").exists()) {
        return;
    }
    let client = client(&broker).await;
    for (kind, class) in [
        (AssignorKind::Range, "RangeAssignor"),
        (AssignorKind::RoundRobin, "RoundRobinAssignor"),
        (AssignorKind::Sticky, "StickyAssignor"),
        (AssignorKind::CooperativeSticky, "CooperativeStickyAssignor"),
    ] {
        share(&broker, &client, class, kind, &|group, topic| java(&libs, &broker, group, topic, class)).await;
    }
}

#[tokio::test]
async fn kafkajs_members_share_a_group() {
    let broker = support::broker().await;
    if !takes_part(&broker, "KafkaJS", directory("NODE_PATH").join("kafkajs").exists()) {
        return;
    }
    let client = client(&broker).await;
    share(&broker, &client, "kafkajs", AssignorKind::KafkaJs, &|group, topic| kafkajs(&broker, group, topic)).await;
}
