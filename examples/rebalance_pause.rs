//! The pause of a partition that moves to a joining member: a group of two `ailurus consume` and one of two
//! kcat (librdkafka, cooperative-sticky), side by side under the same load, which a third member joins again and again.
//!
//! ```text
//! cargo run --example rebalance_pause -- BOOTSTRAP [JOINS [HEARTBEAT_MS,...]]
//! ```
//!
//! Environment: `AILURUS`, the command's binary. The pause of a partition that moves is the time between the last record that
//! its old owner prints and the first one of its new owner; one that stays should see no gap longer than its records come
//! apart. The exit code is 1 if the third member does not get partitions.

#![allow(clippy::print_stdout, reason = "it is a program")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is a measurement")]

use std::collections::BTreeMap;
use std::env;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ailurus::{Admin, Client, Config, Error, ErrorKind, ProducerRecord, Result};
use members::{Kind, Setting, signal, start};
use tokio::process::Child;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, timeout};

mod members;

const PARTITIONS: i32 = 6;
/// Between two records of a partition.
const APART: Duration = Duration::from_millis(10);
const SESSION: Duration = Duration::from_secs(10);
/// Maximum time of a rebalance.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let joins = args.get(1).map_or(Some(5), |text| text.parse().ok());
    let heartbeats: Option<Vec<u64>> =
        args.get(2).map_or("500,3000", String::as_str).split(',').map(|text| text.parse().ok()).collect();
    let (Some(bootstrap), Some(joins), Some(heartbeats)) = (args.first(), joins, heartbeats) else {
        println!("usage: rebalance_pause BOOTSTRAP [JOINS [HEARTBEAT_MS,...]]");
        return ExitCode::from(2);
    };
    for heartbeat in heartbeats {
        if let Err(error) = compare(bootstrap, joins, Duration::from_millis(heartbeat)).await {
            println!("rebalance_pause: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Both clients at once, so that what else the machine does meets both.
async fn compare(bootstrap: &str, joins: u32, heartbeat: Duration) -> Result<()> {
    let client = Client::connect(Config::builder().brokers(bootstrap).build()?).await?;
    let (ailurus, librdkafka) = tokio::try_join!(
        measure(&client, bootstrap, Kind::Ailurus, joins, heartbeat),
        measure(&client, bootstrap, Kind::Librdkafka, joins, heartbeat)
    )?;
    client.close().await;
    let (ailurus, librdkafka) = (ailurus.print(heartbeat, "ailurus"), librdkafka.print(heartbeat, "librdkafka"));
    println!("heartbeat {heartbeat:?}: the pause of ailurus is {:.2} of librdkafka's", ailurus / librdkafka);
    Ok(())
}

#[derive(Default)]
struct Pauses {
    joins: u32,
    /// Pause of each partition that moved.
    moved: Vec<Duration>,
    /// The longest gap of each partition that stayed.
    stayed: Vec<Duration>,
}

impl Pauses {
    fn print(mut self, heartbeat: Duration, name: &str) -> f64 {
        self.moved.sort_unstable();
        self.stayed.sort_unstable();
        let ms = |all: &[Duration], at: usize| all.get(at).map_or(0, Duration::as_millis);
        let median = |all: &[Duration]| ms(all, all.len() / 2);
        let Self { joins, moved, stayed } = &self;
        println!(
            "heartbeat {heartbeat:?}, {name}: {joins} joins; {} partitions moved, pause median {} ms ({} to {}); {} stayed, longest \
             gap between records median {} ms (up to {})",
            moved.len(),
            median(moved),
            ms(moved, 0),
            ms(moved, moved.len().saturating_sub(1)),
            stayed.len(),
            median(stayed),
            ms(stayed, stayed.len().saturating_sub(1)),
        );
        median(moved) as f64
    }
}

async fn measure(client: &Client, bootstrap: &str, kind: Kind, joins: u32, heartbeat: Duration) -> Result<Pauses> {
    let topic = format!("pause-{kind:?}-{:08x}", fastrand::u32(..)).to_lowercase();
    let admin = Admin::new(client);
    admin.create_topic(&topic, PARTITIONS, None).await?;
    let load = tokio::spawn(write(client.clone(), topic.clone()));
    let setting = Setting { bootstrap, topic: &topic, group: &topic, session: SESSION, heartbeat };
    let log = Log::default();
    let _members = [log.member(kind, &setting)?, log.member(kind, &setting)?];
    let mut pauses = Pauses { joins, ..Pauses::default() };
    for _ in 0..joins {
        log.shared_by(2).await?;
        // Not in step with the heartbeats.
        sleep(heartbeat * 2 + heartbeat.mul_f64(fastrand::f64())).await;
        let began = Instant::now();
        let third = log.member(kind, &setting)?;
        log.shared_by(3).await?;
        sleep(heartbeat * 2).await;
        log.add_up(began, third.number, &mut pauses);
        signal(&third.child, "TERM").await;
    }
    load.abort();
    admin.delete_topic(&topic).await?;
    Ok(pauses)
}

/// A steady load on each partition, until it is aborted.
async fn write(client: Client, topic: String) -> Result<()> {
    let producer = client.producer().start()?;
    let mut ticks = interval(APART);
    loop {
        ticks.tick().await;
        for partition in 0..PARTITIONS {
            _ = producer.send(ProducerRecord::to(&topic).partition(partition).value("steady")).await?;
        }
    }
}

struct Member {
    number: usize,
    child: Child,
    _reader: JoinHandle<()>,
}

/// Lines of a group's members, by partition: time and member.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Printed>>);

#[derive(Default)]
struct Printed {
    members: usize,
    lines: BTreeMap<i32, Vec<(Instant, usize)>>,
}

impl Log {
    fn with<T>(&self, look: impl FnOnce(&mut Printed) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn member(&self, kind: Kind, setting: &Setting<'_>) -> Result<Member> {
        let (child, output) = start(kind, setting)?;
        let number = self.with(|printed| {
            printed.members += 1;
            printed.members
        });
        let log = self.clone();
        let seen = move |partition, _| {
            log.with(|printed| printed.lines.entry(partition).or_default().push((Instant::now(), number)));
        };
        Ok(Member { number, child, _reader: tokio::spawn(members::watch(kind, output, seen)) })
    }

    /// Waits until so many members have equal shares of the partitions.
    async fn shared_by(&self, members: usize) -> Result<()> {
        let shares = || {
            self.with(|printed| {
                let mut shares: BTreeMap<usize, usize> = BTreeMap::new();
                let last = printed.lines.values().filter_map(|lines| lines.last());
                last.for_each(|(_, member)| *shares.entry(*member).or_default() += 1);
                shares
            })
        };
        let even = PARTITIONS as usize / members;
        let shared = async {
            while shares().values().filter(|share| **share == even).count() != members {
                sleep(APART).await;
            }
        };
        timeout(PATIENCE, shared).await.map_err(|_| {
            let what = format!("{members} members did not share the partitions evenly: {:?}", shares());
            Error::new(ErrorKind::Timeout, what)
        })
    }

    /// Pauses of the partitions that moved to the new member since `began`.
    fn add_up(&self, began: Instant, new: usize, pauses: &mut Pauses) {
        self.with(|printed| {
            for lines in printed.lines.values() {
                let first_new = lines.iter().position(|(_, member)| *member == new);
                if let Some((before, after)) =
                    first_new.and_then(|i| Some((lines.get(i.checked_sub(1)?)?, lines.get(i)?)))
                {
                    pauses.moved.push(after.0 - before.0);
                } else {
                    let from = lines.partition_point(|(at, _)| *at < began).saturating_sub(1);
                    let gaps = lines[from..].windows(2).map(|pair| pair[1].0 - pair[0].0);
                    pauses.stayed.extend(gaps.max());
                }
            }
        });
    }
}
