//! A steady load of numbered records, then a comparison of the log with the producer's results.
//!
//! ```text
//! cargo run --example steady_load -- BOOTSTRAP TOPIC SECONDS [RECORDS_PER_SECOND [at-least-once]]
//! ```
//!
//! The topic must exist and be empty. `tests/kafka/producer_faults.rs` runs this while it kills and
//! pauses the brokers. The last line is the result; the exit code is 1 if a record was lost, repeated,
//! reordered, or if the producer's result for it was wrong. With `at-least-once` a record may be there
//! again.

#![allow(clippy::print_stdout, reason = "it is a program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "so does the checker, which is made for tests"
)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use ailurus::{
    Admin, Client, Compression, Config, ConsumerEvent, Delivery, Error, ErrorKind, Producer, ProducerRecord, Result,
    StartOffset, TopicPartition,
};
use ailurus_test_support::history::{Guarantee, History, RecordId, RecordStatus};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Maximum time until the cluster is healthy after the load.
const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(10);
const SIZE: usize = 200;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: u64| args.get(i).map_or(Some(default), |text| text.parse().ok());
    let (Some(bootstrap), Some(topic), Some(seconds), Some(rate)) =
        (args.first(), args.get(1), number(2, 60), number(3, 1000))
    else {
        println!("usage: steady_load BOOTSTRAP TOPIC SECONDS [RECORDS_PER_SECOND [at-least-once]]");
        return ExitCode::from(2);
    };
    let guarantee = match args.get(4).map(String::as_str) {
        Some("at-least-once") => Guarantee::AtLeastOnce,
        _ => Guarantee::ExactlyOncePerPartition,
    };
    match run(bootstrap, topic, Duration::from_secs(seconds), rate, guarantee).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("steady_load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether the history has no error.
async fn run(bootstrap: &str, topic: &str, time: Duration, rate: u64, guarantee: Guarantee) -> Result<bool> {
    // An unresponsive broker is disconnected after 3 s; records have a minute.
    let config = Config::builder()
        .brokers(bootstrap)
        .request_timeout(Duration::from_secs(3))
        .connect_timeout(Duration::from_secs(3))
        .build()?;
    let client = Client::connect(config).await?;
    let partitions = Admin::new(&client).describe_topic(topic).await?.partitions.len() as i32;
    let mut settings = client.config().producer.clone();
    settings.linger = Duration::from_millis(5);
    settings.delivery_timeout = PATIENCE;
    let producer = client.producer().config(settings).start()?;

    let ended = load(&producer, topic, partitions, time, rate).await?;
    producer.close(PATIENCE).await?;
    let mut history = History::default();
    for one in &ended {
        history.sent(one.id, one.fate);
    }
    read(&client, topic, partitions, &ended, &mut history).await?;
    client.close().await;

    let report = history.check(guarantee);
    let (anywhere, in_a_partition) = longest_gaps(&ended);
    print!("{}", report.details());
    println!("{report}; longest gap between acknowledgements: {anywhere:.2?}, within a partition {in_a_partition:.2?}");
    Ok(report.is_clean())
}

/// A record that has ended.
struct Ended {
    id: RecordId,
    fate: RecordStatus,
    partition: i32,
    at: Instant,
}

/// Sends to all partitions in turn, as evenly as the producer's buffer allows, a quarter of it compressed. A stream is a
/// partition's.
async fn load(producer: &Producer, topic: &str, partitions: i32, time: Duration, rate: u64) -> Result<Vec<Ended>> {
    let mut waiting = JoinSet::new();
    let streams: Vec<_> = (0..partitions)
        .map(|_| {
            let (handles, resolved) = mpsc::unbounded_channel();
            waiting.spawn(wait_for(resolved));
            handles
        })
        .collect();
    let began = Instant::now();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = 0;
    while began.elapsed() < time {
        ticks.tick().await;
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        while sent < due {
            let (stream, sequence) = (sent % streams.len() as u64, sent / streams.len() as u64);
            let id = RecordId { stream: stream as u32, sequence: sequence as u32 };
            let value = id.value(SIZE);
            let mut record = ProducerRecord::to(topic).partition(stream as i32).value(&value);
            if sequence % 400 < 100 {
                record = record.compression(Compression::gzip(3)?);
            }
            let delivery = producer.send(record).await?;
            _ = streams[stream as usize].send((id, delivery)); // it is received until the end
            sent += 1;
        }
    }
    drop(streams);
    Ok(waiting.join_all().await.into_iter().flatten().collect())
}

/// Waits for the records of a stream, one after the other.
async fn wait_for(mut handles: mpsc::UnboundedReceiver<(RecordId, Delivery)>) -> Vec<Ended> {
    let mut all = Vec::new();
    while let Some((id, delivery)) = handles.recv().await {
        let partition = delivery.partition();
        let fate = match timeout(PATIENCE * 2, delivery).await {
            Ok(ended) => RecordStatus::of(&ended),
            Err(_) => RecordStatus::Unresolved,
        };
        all.push(Ended { id, fate, partition, at: Instant::now() });
    }
    all
}

/// Between any two acknowledgements, and between two of one partition.
fn longest_gaps(ended: &[Ended]) -> (Duration, Duration) {
    let longest = |mut times: Vec<Instant>| {
        times.sort();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    };
    let acknowledged = || ended.iter().filter(|one| matches!(one.fate, RecordStatus::Acknowledged { .. }));
    let mut partitions: BTreeMap<i32, Vec<Instant>> = BTreeMap::new();
    acknowledged().for_each(|one| partitions.entry(one.partition).or_default().push(one.at));
    let in_a_partition = partitions.into_values().map(longest).max().unwrap_or_default();
    (longest(acknowledged().map(|one| one.at).collect()), in_a_partition)
}

/// Reads the log to its end, which is not before the last acknowledged record.
async fn read(client: &Client, topic: &str, partitions: i32, ended: &[Ended], history: &mut History) -> Result<()> {
    let partitions: Vec<_> = (0..partitions).map(|p| TopicPartition::new(topic, p)).collect();
    let ends = Admin::new(client).list_offsets(&partitions, StartOffset::Latest).await?;
    let mut open: BTreeMap<i32, i64> = ends.into_iter().map(|(p, end)| (p.partition, end)).collect();
    for one in ended {
        if let RecordStatus::Acknowledged { partition, offset: Some(offset) } = one.fate {
            let end = open.entry(partition).or_default();
            *end = (*end).max(offset + 1);
        }
    }
    open.retain(|_, end| *end > 0);
    let assignment = partitions.into_iter().map(|p| (p, StartOffset::Earliest));
    let mut consumer = client.reader().assign(assignment).await?;
    while !open.is_empty() {
        let Ok(event) = timeout(PATIENCE, consumer.recv()).await else {
            let what = format!("the log can't be read to its end: partitions and ends {open:?} were not reached");
            return Err(Error::new(ErrorKind::Timeout, what));
        };
        if let ConsumerEvent::Records(batch) = event? {
            if open.get(&batch.partition).is_some_and(|end| batch.next_offset >= *end) {
                open.remove(&batch.partition);
            }
            for record in &batch.records {
                history.read(batch.partition, record.offset, record.value.as_deref());
            }
        }
    }
    consumer.close().await
}
