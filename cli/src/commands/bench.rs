//! `ailurus bench`: measures a producer or a consumer from inside the process.
//!
//! Arguments and output are those of other clients' benchmark programs, which run beside it.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use ailurus::{
    Admin, Client, Config, ConsumerEvent, Delivery, Error, ErrorKind, HandlerOrdering, Message, OffsetReset, Producer,
    ProducerRecord, TopicPartition,
};
use ailurus_metrics::Registry;
use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::exit::{Exit, Usage};
use crate::options::{Codec, Global, MaxRequestSize};
use crate::output::{self, note};
use crate::settings;

mod transactions;

/// Measure producing, consuming, handling, transactions or the latency of single records.
///
/// Record i has the key order-(i mod 10000) and as value line (i mod 20000) of the file that PEERS_VALUES names. One JSON
/// line on stdout has wall-clock time, CPU time of all threads of this process, peak memory and errors; the settings are
/// on stderr. The values are loaded before clocks are read, and every record is acknowledged (or seen) before they are read
/// again.
#[derive(Debug, Args)]
#[command(after_help = "\
produce  sends --records records, one call each, and checks every delivery
consume  joins --group from earliest, reads --records records, commits and leaves
handle   the same by a handler that does nothing, in order by key, 64 at a time, unless settings are
         different; deletes the dead-letter topic if it created it
latency  sends one record at a time, linger 0, and waits for each; the first 20 do not count
transactions  sends them in transactions of --per records or, with --per 0, of --interval-ms, one after the
         other; p50_us and p99_us are times of a commit, from the call to its confirmation. A first transaction
         of one record does not count

Exit codes:
  0    done
  1    no record came for a minute, or a record was not delivered within the delivery timeout
  2    an option or a setting is wrong, or PEERS_VALUES names no file of values (produce, latency, transactions)
  3    the topic does not exist, or was deleted
  5    no broker could be reached
  6    a broker refused the login, the topic, or a record
The first record that can't be sent ends produce, latency and transactions.")]
pub struct Bench {
    /// Job to measure.
    #[arg(value_enum)]
    mode: Mode,
    /// Topic; it must exist.
    #[arg(long)]
    topic: String,
    /// Number of partitions of the topic, for the line of settings on stderr; the client takes it from metadata.
    #[arg(long, default_value_t = 3)]
    partitions: u32,
    /// Number of records.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Compression of batches.
    #[arg(long, value_enum, default_value_t = Codec::None)]
    codec: Codec,
    /// Replicas that must have a record before it is acknowledged: always all in-sync ones.
    #[arg(long, value_parser = ["all"], default_value = "all")]
    acks: String,
    /// Maximum time that a record waits for others in its batch, in milliseconds (produce, transactions).
    #[arg(long, default_value_t = 5)]
    linger_ms: u64,
    #[command(flatten)]
    max_request_size: MaxRequestSize,
    /// Group (consume, handle).
    #[arg(long, default_value = "peers-g")]
    group: String,
    /// Number of records of a transaction; 0 for transactions of --interval-ms (transactions).
    #[arg(long, default_value_t = 1000)]
    per: u64,
    /// Time after which a transaction is committed, in milliseconds, with --per 0 (transactions).
    #[arg(long, default_value_t = 100)]
    interval_ms: u64,
    /// Collect metrics, to compare their cost with a run without this option.
    #[arg(long)]
    metrics: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Produce,
    Consume,
    Handle,
    Latency,
    Transactions,
}

/// Maximum number of records in flight.
const MAX_IN_FLIGHT: usize = 100_000;
/// Number of records that are sent before latency counts.
const WARM_UP_RECORDS: u64 = 20;
/// Maximum time without a record before a consumer stops.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns a runtime of one thread: a client whose CPU time is measured should not pay for wake-ups of other threads.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

pub async fn run(global: &Global, args: Bench) -> anyhow::Result<Exit> {
    let config = args.config(settings::builder(global)?)?;
    // Consumers run without them: they would count as memory of the client.
    let sends = matches!(args.mode, Mode::Produce | Mode::Latency | Mode::Transactions);
    let data = if sends { Data::load()? } else { Data::default() };
    note(format_args!(
        "brokers {} producer {:?} consumer {:?} acks {} partitions {}",
        settings::broker_list(&config),
        config.producer,
        config.consumer,
        args.acks,
        args.partitions
    ));
    let mut meter = Meter::start()?;
    let client = Client::connect(config).await?;
    let done = match args.mode {
        Mode::Produce => produce(&client, &args, &data).await?,
        Mode::Consume => consume(&client, &args).await?,
        Mode::Handle => handle(&client, &args).await?,
        Mode::Latency => latency(&client, &args, &data).await?,
        Mode::Transactions => transactions::transactions(&client, &args, &data, &mut meter).await?,
    };
    client.close().await;
    let (failed, created) = (done.errors > 0, done.created.clone());
    let line = meter.finish(&args, done)?;
    if let Some(topic) = created {
        settings::admin(global, async |admin| Ok(admin.delete_topic(&topic).await?)).await?;
    }
    output::json(&line)?;
    Ok(if failed { Exit::Failure } else { Exit::Success })
}

impl Bench {
    fn config(&self, builder: ailurus::ConfigBuilder) -> anyhow::Result<Config> {
        let linger = if self.mode == Mode::Latency { 0 } else { self.linger_ms };
        let builder = builder
            .allow_auto_topic_creation(self.mode == Mode::Handle) // the dead-letter topic
            .linger(Duration::from_millis(linger))
            .batch_size(1_000_000_usize)
            .compression(self.codec.into())
            .offset_reset(OffsetReset::Earliest);
        let builder = if self.metrics { builder.metrics(Arc::new(Registry::new())) } else { builder };
        let mut config = builder.build()?;
        self.max_request_size.apply(&mut config.producer);
        if std::env::var_os("REDPANDA_HANDLER_ORDERING").is_none() {
            config.processor.ordering = HandlerOrdering::Key;
        }
        Ok(config)
    }

    /// Waits for acknowledgements in the order of sending, and counts them.
    async fn check(&self, deliveries: impl Iterator<Item = Delivery>, acknowledged: &mut u64) -> anyhow::Result<()> {
        for delivery in deliveries {
            delivery.await.map_err(|e| self.failed(*acknowledged, e))?;
            *acknowledged += 1;
        }
        Ok(())
    }

    fn failed(&self, record: u64, error: Error) -> anyhow::Error {
        let is_own = error.kind() == ErrorKind::RecordTooLarge && error.broker_code().is_none();
        let option = if is_own { " (--max-request-size takes larger ones)" } else { "" };
        anyhow::Error::new(error).context(format!("record {record} of {}{option}", self.records))
    }
}

/// Work done between the two readings of the clocks.
#[derive(Default)]
struct Done {
    records: u64,
    bytes: u64,
    errors: u64,
    first: Option<Instant>,
    latencies: Vec<Duration>,
    transactions: u64,
    /// A topic to delete at the end.
    created: Option<String>,
}

impl Done {
    fn error(&mut self, error: &Error) {
        note(format_args!("{error:#}"));
        self.errors += 1;
    }
}

/// Sends all records. The first failure ends it: a run without all of its records measures nothing, and the producer has
/// retried what is transient.
async fn produce(client: &Client, args: &Bench, data: &Data) -> anyhow::Result<Done> {
    let producer = client.producer().start()?;
    let mut done = Done { records: args.records, ..Done::default() };
    match send_all(&producer, args, data, &mut done).await {
        Ok(()) => producer.close(IDLE_TIMEOUT).await?,
        Err(e) => {
            _ = producer.close(Duration::ZERO).await; // later records no longer count
            return Err(e);
        }
    }
    Ok(done)
}

async fn send_all(producer: &Producer, args: &Bench, data: &Data, done: &mut Done) -> anyhow::Result<()> {
    let mut deliveries: VecDeque<Delivery> = VecDeque::with_capacity(MAX_IN_FLIGHT);
    let mut acknowledged = 0;
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    for i in 0..args.records {
        let (key, value) = data.record(i);
        done.bytes += (key.len() + value.len()) as u64;
        let mut sending = pin!(producer.send(ProducerRecord::to(&args.topic).key(key).value(value)));
        let sent = loop {
            tokio::select! {
                biased;
                sent = &mut sending => break sent,
                // The buffer may be full of records that fail one by one: the first of them ends the run. Waiting for the
                // first instead would cost a wake-up for each batch.
                _ = ticks.tick() => while let Some(first) = deliveries.front_mut() {
                    let Poll::Ready(outcome) = poll_once(pin!(first)).await else { break };
                    outcome.map_err(|e| args.failed(acknowledged, e))?;
                    deliveries.pop_front();
                    acknowledged += 1;
                }
            }
        };
        let delivery = sent.map_err(|e| args.failed(i, e))?;
        deliveries.push_back(delivery);
        if deliveries.len() == MAX_IN_FLIGHT {
            args.check(deliveries.drain(..MAX_IN_FLIGHT / 2), &mut acknowledged).await?;
        }
    }
    args.check(deliveries.drain(..), &mut acknowledged).await
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

async fn consume(client: &Client, args: &Bench) -> anyhow::Result<Done> {
    let config = client.config().consumer.clone();
    let mut consumer = client.consumer(&args.group).config(config).subscribe([&args.topic]).await?;
    let mut done = Done::default();
    let mut positions = BTreeMap::new();
    while done.records < args.records {
        let Ok(event) = tokio::time::timeout(IDLE_TIMEOUT, consumer.recv()).await else {
            note(format_args!("no record came for {IDLE_TIMEOUT:?}"));
            done.errors += 1;
            break;
        };
        let ConsumerEvent::Records(batch) = event? else { continue };
        for record in &batch.records {
            done.first.get_or_insert_with(Instant::now);
            done.bytes += [&record.key, &record.value].into_iter().flatten().map(|b| b.len() as u64).sum::<u64>();
        }
        done.records += batch.records.len() as u64;
        positions.insert(TopicPartition::new(batch.topic, batch.partition), batch.next_offset);
    }
    if let Err(e) = consumer.commit(&positions.into_iter().collect::<Vec<_>>()).await {
        done.error(&e);
    }
    consumer.close().await?;
    Ok(done)
}

/// Records that handlers have seen.
#[derive(Default)]
struct Handled {
    records: AtomicU64,
    bytes: AtomicU64,
    first: OnceLock<Instant>,
    all: Notify,
}

async fn handle(client: &Client, args: &Bench) -> anyhow::Result<Done> {
    // Automatic creation is on for the dead-letter topic, and would create a mistyped topic too.
    let admin = Admin::new(client);
    admin.describe_topic(&args.topic).await?;
    let dead_letters = format!("{}{}", args.topic, client.config().processor.dead_letter_suffix);
    let is_new = admin.describe_topic(&dead_letters).await.is_err_and(|e| e.is_unknown_topic());
    let (handled, wanted) = (Arc::new(Handled::default()), args.records);
    let seen = Arc::clone(&handled);
    let handler = move |message: Message| {
        seen.first.get_or_init(Instant::now);
        let bytes = [&message.key, &message.value].into_iter().flatten().map(|b| b.len() as u64).sum();
        seen.bytes.fetch_add(bytes, Ordering::Relaxed);
        if seen.records.fetch_add(1, Ordering::Relaxed) + 1 == wanted {
            seen.all.notify_one();
        }
        std::future::ready(())
    };
    let subscription = client.processor(&args.group).subscribe([&args.topic], handler).await?;
    let mut done = Done { created: is_new.then_some(dead_letters), ..Done::default() };
    let mut before = 0;
    while tokio::time::timeout(IDLE_TIMEOUT, handled.all.notified()).await.is_err() {
        let now = handled.records.load(Ordering::Relaxed);
        if now == before {
            note(format_args!("no record came for {IDLE_TIMEOUT:?}"));
            done.errors += 1;
            break;
        }
        before = now;
    }
    subscription.shutdown().await?;
    done.records = handled.records.load(Ordering::Relaxed);
    done.bytes = handled.bytes.load(Ordering::Relaxed);
    done.first = handled.first.get().copied();
    Ok(done)
}

async fn latency(client: &Client, args: &Bench, data: &Data) -> anyhow::Result<Done> {
    let producer = client.producer().start()?;
    let mut done = Done { records: args.records, ..Done::default() };
    for i in 0..args.records + WARM_UP_RECORDS {
        let (key, value) = data.record(i);
        let begun = Instant::now();
        let sent = producer.send(ProducerRecord::to(&args.topic).key(key).value(value)).await;
        sent.map_err(|e| args.failed(i, e))?.await.map_err(|e| args.failed(i, e))?;
        if i >= WARM_UP_RECORDS {
            done.latencies.push(begun.elapsed());
            done.bytes += (key.len() + value.len()) as u64;
        }
    }
    producer.close(IDLE_TIMEOUT).await?;
    Ok(done)
}

/// Keys and values of records.
#[derive(Default)]
struct Data {
    keys: Vec<String>,
    file: Vec<u8>,
    values: Vec<std::ops::Range<usize>>,
}

impl Data {
    fn load() -> anyhow::Result<Self> {
        const VARIABLE: &str = "PEERS_VALUES";
        let path = std::env::var_os(VARIABLE)
            .ok_or_else(|| Usage(format!("{VARIABLE} is not set: it names the file of values, one a line")))?;
        let shown = std::path::Path::new(&path).display();
        let file = std::fs::read(&path).with_context(|| format!("{VARIABLE}: {shown} can't be read"))?;
        let mut values = Vec::new();
        let mut start = 0;
        for line in file.split(|b| *b == b'\n') {
            if !line.is_empty() {
                values.push(start..start + line.len());
            }
            start += line.len() + 1;
        }
        ensure!(!values.is_empty(), "{VARIABLE}: {shown} has no line");
        Ok(Self { keys: (0..10_000).map(|i| format!("order-{i}")).collect(), file, values })
    }

    fn record(&self, i: u64) -> (&[u8], &[u8]) {
        let at = |len: usize| (i % len as u64) as usize;
        (self.keys[at(self.keys.len())].as_bytes(), &self.file[self.values[at(self.values.len())].clone()])
    }
}

/// Clocks at the start.
struct Meter {
    begun: Instant,
    user: f64,
    system: f64,
}

/// The line on stdout.
#[derive(Debug, Serialize)]
struct Line {
    client: &'static str,
    mode: &'static str,
    codec: &'static str,
    records: u64,
    bytes: u64,
    wall_s: f64,
    cpu_s: f64,
    user_s: f64,
    sys_s: f64,
    maxrss_mb: f64,
    errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    transactions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_s: Option<f64>,
    #[serde(flatten)]
    latency: Option<Percentiles>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Percentiles {
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

impl Percentiles {
    fn of(mut latencies: Vec<Duration>) -> Option<Self> {
        latencies.sort_unstable();
        let us = |d: Duration| round(d.as_secs_f64() * 1e6, 10.0);
        let at = |share: f64| latencies.get(((latencies.len() as f64 * share) as usize).min(latencies.len() - 1));
        let max = us(*latencies.last()?);
        Some(Self { p50_us: us(*at(0.5)?), p99_us: us(*at(0.99)?), max_us: max })
    }
}

fn round(x: f64, steps: f64) -> f64 {
    (x * steps).round() / steps
}

fn seconds(time: TimeVal) -> f64 {
    time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6
}

impl Meter {
    fn start() -> anyhow::Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        Ok(Self { begun: Instant::now(), user: seconds(usage.user_time()), system: seconds(usage.system_time()) })
    }

    fn finish(&self, args: &Bench, done: Done) -> anyhow::Result<Line> {
        let wall = self.begun.elapsed().as_secs_f64();
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let (user, system) = (seconds(usage.user_time()) - self.user, seconds(usage.system_time()) - self.system);
        Ok(Line {
            client: "ailurus",
            mode: match args.mode {
                Mode::Produce => "produce",
                Mode::Consume => "consume",
                Mode::Handle => "handle",
                Mode::Latency => "latency",
                Mode::Transactions => "transactions",
            },
            codec: args.codec.name(),
            records: done.records,
            bytes: done.bytes,
            wall_s: round(wall, 1e4),
            cpu_s: round(user + system, 1e4),
            user_s: round(user, 1e4),
            sys_s: round(system, 1e4),
            maxrss_mb: round(usage.max_rss() as f64 / 1024.0, 10.0), // Linux counts it in KiB
            errors: done.errors,
            transactions: (args.mode == Mode::Transactions).then_some(done.transactions),
            first_s: done.first.map(|at| round((at - self.begun).as_secs_f64(), 1e3)),
            latency: Percentiles::of(done.latencies),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_the_sorted_list() {
        let latencies = (1..=100).rev().map(Duration::from_micros).collect();
        assert_eq!(Percentiles::of(latencies), Some(Percentiles { p50_us: 51.0, p99_us: 100.0, max_us: 100.0 }));
        assert_eq!(Percentiles::of(Vec::new()), None);
    }

    #[test]
    fn records_repeat_keys_and_values() {
        let data = Data {
            keys: vec!["a".into(), "b".into()],
            file: b"one\ntwo\nsix\n".to_vec(),
            values: vec![0..3, 4..7, 8..11],
        };
        assert_eq!(data.record(0), (&b"a"[..], &b"one"[..]));
        assert_eq!(data.record(3), (&b"b"[..], &b"one"[..]));
        assert_eq!(data.record(5), (&b"b"[..], &b"six"[..]));
    }
}
