//! Growth of cost with the size of a cluster: one job per process, measured from inside. `scripts/scale` runs them all.
//!
//! ```text
//! cargo run --release --example scale -- BOOTSTRAP produce PARTITIONS RECORDS
//! cargo run --release --example scale -- BOOTSTRAP consume PARTITIONS RECORDS   # what `produce` wrote
//! cargo run --release --example scale -- BOOTSTRAP topics TOPICS                # one record to each
//! cargo run --release --example scale -- BOOTSTRAP members MEMBERS              # of one group; then ten vanish
//! cargo run --release --example scale -- BOOTSTRAP keys KEYS RECORDS            # handlers in key order
//! cargo run --release --example scale -- BOOTSTRAP concurrency N RECORDS        # handlers that wait 2 ms
//! ```
//!
//! It prints `SECONDS CPU_SECONDS PEAK_MIB`, for members a line each for the start and for the ten; topics are created first,
//! before the clock starts. CPU time and memory are read from /proc: Linux only.

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::collections::HashMap;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ailurus::admin::NewTopic;
use ailurus::{
    Admin, Client, Config, ConsumerEvent, Error, ErrorKind, HandlerOrdering, Message, ProducerRecord, Result,
};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Bytes of a record's value.
const VALUE: usize = 340;
/// Partitions of the jobs that vary something else.
const PARTITIONS: i32 = 12;
/// Partitions of the group whose members come and vanish.
const GROUP_PARTITIONS: i32 = 128;
/// Members that vanish, where there are more.
const VANISH: usize = 10;
/// Number of partitions that one request may create: the log of Kafka's controllers takes no more than 10,000 records at once.
const PARTITIONS_AT_ONCE: i32 = 5_000;
const LINGER: Duration = Duration::from_millis(5);
const HANDLER_WAIT: Duration = Duration::from_millis(2);
/// Maximum time of a job.
const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: u64| args.get(i).map_or(Some(default), |text| text.parse().ok());
    let (Some(brokers), Some(job), Some(n), Some(records)) =
        (args.first(), args.get(1), number(2, 1), number(3, 1_000_000))
    else {
        println!("usage: scale BOOTSTRAP produce|consume|topics|members|keys|concurrency N [RECORDS]");
        return ExitCode::from(2);
    };
    let job = run(brokers, job, n, records);
    let outcome = tokio::time::timeout(PATIENCE, job).await;
    match outcome.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, format!("not done within {PATIENCE:?}")))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(brokers: &str, job: &str, n: u64, records: u64) -> Result<()> {
    let config = Config::builder().brokers(brokers).linger(LINGER).build()?;
    let client = Client::connect(config).await?;
    match job {
        "produce" => {
            let topic = topic("produce", n, to_i32(n)?, &client).await?;
            let meter = Meter::start()?;
            produce(&client, &topic, to_i32(n)?, records, 10_000).await?;
            meter.print()?;
        }
        "consume" => consume(&client, &format!("scale-produce-{n}"), records).await?,
        "topics" => topics(&client, n).await?,
        "members" => members(brokers, &client, usize::try_from(n).unwrap_or(usize::MAX)).await?,
        "keys" => {
            let topic = topic("keys", n, PARTITIONS, &client).await?;
            produce(&client, &topic, PARTITIONS, records, n).await?;
            handle(&client, &topic, records, 64, Duration::ZERO).await?;
        }
        "concurrency" => {
            let topic = topic("concurrency", n, PARTITIONS, &client).await?;
            produce(&client, &topic, PARTITIONS, records, 10_000).await?;
            handle(&client, &topic, records, usize::try_from(n).unwrap_or(usize::MAX), HANDLER_WAIT).await?;
        }
        other => return Err(Error::new(ErrorKind::Config, format!("there is no job {other:?}"))),
    }
    client.close().await;
    Ok(())
}

fn to_i32(n: u64) -> Result<i32> {
    i32::try_from(n).map_err(|e| Error::with_source(ErrorKind::Config, format!("{n} partitions are too many"), e))
}

/// A new topic of a job, once all its partitions have leaders.
async fn topic(job: &str, n: u64, partitions: i32, client: &Client) -> Result<String> {
    let name = format!("scale-{job}-{n}");
    let admin = Admin::new(client);
    let at_once = partitions.min(PARTITIONS_AT_ONCE);
    agreed(admin.create_topic_with(&NewTopic::new(&name).partitions(at_once).replication(1)).await)?;
    if partitions > at_once {
        agreed(admin.create_partitions(&name, partitions).await)?;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        match admin.describe_topic(&name).await {
            Ok(topic) if topic.partitions.iter().filter(|p| p.leader.is_some()).count() == to_usize(partitions) => {
                return Ok(name);
            }
            Err(e) if !e.is_unknown_topic() => return Err(e),
            _ if Instant::now() > deadline => {
                return Err(Error::new(ErrorKind::Timeout, format!("{name} has no leaders")));
            }
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// A broker that has agreed may need longer than a request's timeout until thousands of partitions are there.
fn agreed(outcome: Result<()>) -> Result<()> {
    outcome.or_else(|e| if e.kind() == ErrorKind::Timeout { Ok(()) } else { Err(e) })
}

fn to_usize(n: i32) -> usize {
    usize::try_from(n).unwrap_or(0)
}

/// Writes records with keys to all partitions in turn, as evenly as a hash would not.
async fn produce(client: &Client, topic: &str, partitions: i32, records: u64, keys: u64) -> Result<()> {
    let producer = client.producer().start()?;
    let (value, failed) = (vec![b'x'; VALUE], Arc::new(AtomicU64::new(0)));
    for i in 0..records {
        let key = format!("key-{}", i % keys);
        let partition = i32::try_from(i % keys % partitions.unsigned_abs() as u64).unwrap_or(0);
        let record = ProducerRecord::to(topic).key(&key).value(&value).partition(partition);
        let failed = Arc::clone(&failed);
        producer.send(record).await?.on_complete(move |outcome| {
            if outcome.is_err() {
                failed.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    producer.close(PATIENCE).await?;
    match failed.load(Ordering::Relaxed) {
        0 => Ok(()),
        n => Err(Error::new(ErrorKind::Timeout, format!("{n} of {records} records were not acknowledged"))),
    }
}

/// Reads a topic as the only member of a new group.
async fn consume(client: &Client, topic: &str, records: u64) -> Result<()> {
    let meter = Meter::start()?;
    let group = format!("scale-{}", std::process::id());
    let mut consumer = client.consumer(&group).subscribe([topic]).await?;
    let (mut seen, mut offsets) = (0, HashMap::new());
    while seen < records {
        if let ConsumerEvent::Records(batch) = consumer.recv().await? {
            seen += batch.records.len() as u64;
            offsets.insert(batch.topic_partition(), batch.next_offset);
        }
    }
    consumer.commit(&offsets.into_iter().collect::<Vec<_>>()).await?;
    consumer.close().await?;
    meter.print()
}

/// Sends the first record to each of many topics.
async fn topics(client: &Client, n: u64) -> Result<()> {
    let admin = Admin::new(client);
    let names: Vec<_> = (0..n).map(|i| format!("scale-topics-{n}-{i}")).collect();
    for name in &names {
        admin.create_topic_with(&NewTopic::new(name).partitions(1).replication(1)).await?;
    }
    let meter = Meter::start()?;
    let producer = client.producer().start()?;
    let mut deliveries = Vec::new();
    for name in &names {
        deliveries.push(producer.send(ProducerRecord::to(name).value("first")).await?);
    }
    for delivery in deliveries {
        delivery.await?;
    }
    producer.close(PATIENCE).await?;
    meter.print()
}

/// Report of a member: itself, and its number of partitions.
type Report = (usize, usize);

/// Starts the members of a group at once, and ends some of them without a word, as a crash would.
async fn members(brokers: &str, client: &Client, n: usize) -> Result<()> {
    let topic = topic("members", n as u64, GROUP_PARTITIONS, client).await?;
    let (sender, mut reports) = mpsc::channel(1024);
    let meter = Meter::start()?;
    let start = |i| tokio::spawn(member(brokers.to_owned(), topic.clone(), i, sender.clone()));
    let mut tasks: Vec<JoinHandle<Result<()>>> = (0..n).map(start).collect();
    let mut owned = HashMap::new();
    until_all_owned(&mut reports, &mut owned, n).await?;
    meter.print()?;
    if n > VANISH {
        let meter = Meter::start()?;
        tasks.drain(..VANISH).for_each(|task| task.abort());
        owned.retain(|member, _| *member >= VANISH);
        until_all_owned(&mut reports, &mut owned, n - VANISH).await?;
        meter.print()?;
    }
    tasks.iter().for_each(JoinHandle::abort);
    Ok(())
}

/// Waits until so many members have all partitions, evenly.
async fn until_all_owned(
    reports: &mut mpsc::Receiver<Report>,
    owned: &mut HashMap<usize, usize>,
    members: usize,
) -> Result<()> {
    let total = to_usize(GROUP_PARTITIONS);
    let most = total.div_ceil(members);
    while owned.values().sum::<usize>() != total || owned.len() != members || owned.values().any(|n| *n > most) {
        match reports.recv().await {
            // One that has vanished may have reported before.
            Some((member, n)) if owned.len() < members || owned.contains_key(&member) => _ = owned.insert(member, n),
            Some(_) => {}
            None => return Err(Error::new(ErrorKind::Closed, "all members have ended")),
        }
    }
    Ok(())
}

async fn member(brokers: String, topic: String, i: usize, reports: mpsc::Sender<Report>) -> Result<()> {
    let config = Config::builder().brokers(&brokers).session_timeout(Duration::from_secs(6));
    let client = Client::connect(config.heartbeat_interval(Duration::from_secs(1)).build()?).await?;
    let group = format!("{topic}-group");
    let mut consumer = client.consumer(&group).subscribe([&topic]).await?;
    loop {
        match consumer.recv().await? {
            ConsumerEvent::Records(_) => {}
            ConsumerEvent::Revoked(revocation) => drop(revocation),
            _ => {}
        }
        if reports.send((i, consumer.assignment().len())).await.is_err() {
            return Ok(());
        }
    }
}

/// Handles all records in the order of their keys.
async fn handle(client: &Client, topic: &str, records: u64, concurrency: usize, wait: Duration) -> Result<()> {
    let meter = Meter::start()?;
    let (handled, done) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let mut config = client.config().processor.clone();
    (config.ordering, config.concurrency) = (HandlerOrdering::Key, concurrency);
    let handler = {
        let (handled, done) = (Arc::clone(&handled), Arc::clone(&done));
        move |_: Message| {
            let (handled, done) = (Arc::clone(&handled), Arc::clone(&done));
            async move {
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                if handled.fetch_add(1, Ordering::Relaxed) + 1 == records {
                    done.notify_one();
                }
                Ok::<_, Error>(())
            }
        }
    };
    let processor = client.processor(format!("{topic}-group")).config(config);
    let subscription = processor.subscribe([topic], handler).await?;
    done.notified().await;
    subscription.shutdown().await?;
    meter.print()
}

/// Wall-clock and CPU time since it was started.
struct Meter {
    started: Instant,
    cpu: f64,
}

impl Meter {
    fn start() -> Result<Self> {
        Ok(Self { cpu: cpu_seconds().map_err(unreadable)?, started: Instant::now() })
    }

    fn print(self) -> Result<()> {
        let (wall, cpu) = (self.started.elapsed().as_secs_f64(), cpu_seconds().map_err(unreadable)? - self.cpu);
        let status = std::fs::read_to_string("/proc/self/status").map_err(unreadable)?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
        println!("{wall:.2} {cpu:.2} {}", kib / 1024);
        Ok(())
    }
}

fn unreadable(e: io::Error) -> Error {
    Error::with_source(ErrorKind::Io, "reading the process's own figures from /proc", e)
}

/// CPU time of all threads of the process, in ticks of a hundredth of a second.
fn cpu_seconds() -> io::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The process name, in parentheses, may have spaces.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11).take(2);
    Ok(fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0)
}
