//! Roles of the processes, and the reader of dead letters.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ailurus::processor::{DeadLetter, RebalanceListener};
use ailurus::{
    Admin, Client, Config, ConsumerEvent, Delivery, Message, ProducerRecord, Result, StartOffset, TopicPartition,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout};

use super::history::History;
use super::{PATIENCE, TOPICS};

/// One write per line, so that no line is lost when the process dies.
fn say(line: std::fmt::Arguments<'_>) {
    _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}

pub(crate) async fn terminated() {
    match signal(SignalKind::terminate()) {
        Ok(mut signal) => _ = signal.recv().await,
        Err(_) => std::future::pending().await,
    }
}

/// Writes numbered records, one key in five to the topic without replicas, until it is stopped. Prints `a TOPIC PARTITION OFFSET KEY
/// NUMBER` of each that is acknowledged, `e KEY NUMBER` of others.
pub(crate) async fn produce(rate: u64) -> Result<()> {
    let client = Client::new(Config::from_env()?);
    let producer = client.producer().start()?;
    let (handles, mut waiting) = mpsc::channel::<(String, u64, Delivery)>(100_000);
    let noted = tokio::spawn(async move {
        while let Some((key, number, delivery)) = waiting.recv().await {
            match delivery.await {
                Ok(ack) => {
                    let offset = ack.offset.unwrap_or(-1);
                    say(format_args!("a {} {} {offset} {key} {number}", ack.topic, ack.partition));
                }
                Err(e) => {
                    say(format_args!("e {key} {number}"));
                    say(format_args!("{key} {number}: {e:#}"));
                }
            }
        }
    });
    let (began, mut ticks, mut sent) = (Instant::now(), interval(Duration::from_millis(10)), 0);
    let end = terminated();
    tokio::pin!(end);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut end => break,
        }
        while sent < (began.elapsed().as_secs_f64() * rate as f64) as u64 {
            let (topic, key) = if sent % 5 == 0 {
                (TOPICS[1], format!("s{}", sent / 5 % 9))
            } else {
                (TOPICS[0], format!("k{}", sent % 50))
            };
            let delivery = producer.send(ProducerRecord::to(topic).key(&key).value(format!("{key} {sent}"))).await?;
            _ = handles.send((key, sent, delivery)).await; // it is received until the end
            sent += 1;
        }
    }
    drop(handles);
    producer.close(PATIENCE).await?;
    _ = noted.await;
    client.close().await;
    Ok(())
}

/// Says `l TOPIC PARTITION` of what was lost.
#[derive(Debug)]
struct Lost;

impl RebalanceListener for Lost {
    fn lost(&self, partitions: &[TopicPartition]) {
        partitions.iter().for_each(|p| say(format_args!("l {} {}", p.topic, p.partition)));
    }
}

/// Returns whether the records of a number fail at first, and whether they fail always.
fn fails(number: u64) -> (bool, bool) {
    (number % 97 == 7, number % 401 == 13)
}

/// Handles records until it is stopped. Prints `u` at its end if it may not have committed all, and `h TOPIC PARTITION OFFSET KEY NUMBER` of each that is done, `d` in place of `h` if it is to be a dead
/// letter.
pub(crate) async fn handle(group: &str) -> Result<()> {
    let client = Client::new(Config::from_env()?);
    let last = client.config().processor.max_attempts;
    let failing = group.ends_with("classic");
    let handler = move |message: Message| async move {
        let value = String::from_utf8_lossy(message.value.as_deref().unwrap_or_default()).into_owned();
        let number = value.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(u64::MAX);
        let (first, always) = fails(number);
        let fails = failing && (always || (first && message.attempt == 1));
        let word = if !fails {
            'h'
        } else if message.attempt >= last {
            'd'
        } else {
            return Err("not now");
        };
        say(format_args!("{word} {} {} {} {value}", message.topic, message.partition, message.offset));
        if fails { Err("never") } else { Ok(()) }
    };
    let subscription = client.processor(group).listener(Lost).subscribe(TOPICS, handler).await?;
    let stopping = AtomicBool::new(false);
    let stop = async {
        terminated().await;
        stopping.store(true, Ordering::Relaxed);
    };
    let outcome = subscription.run_until(stop, std::future::pending::<()>()).await;
    client.close().await;
    match outcome {
        // The coordinator was away when it had to end: it says so, and others handle what was not committed.
        Err(e) if stopping.load(Ordering::Relaxed) => {
            say(format_args!("u"));
            say(format_args!("{e:#}"));
            Ok(())
        }
        outcome => outcome.map(drop),
    }
}

/// Notes where each dead letter came from.
pub(crate) async fn read_letters(client: &Client, history: &mut History) -> Result<()> {
    let admin = Admin::new(client);
    let mut partitions = Vec::new();
    for topic in TOPICS.map(|topic| format!("{topic}.dlq")) {
        let count = admin.describe_topic(&topic).await?.partitions.len() as i32;
        partitions.extend((0..count).map(|p| TopicPartition::new(&*topic, p)));
    }
    let mut open = admin.list_offsets(&partitions, StartOffset::Latest).await?;
    open.retain(|_, end| *end > 0);
    let assignment = partitions.into_iter().map(|p| (p, StartOffset::Earliest));
    let mut consumer = client.reader().assign(assignment).await?;
    while !open.is_empty() {
        let Ok(event) = timeout(PATIENCE, consumer.recv()).await else { break };
        if let ConsumerEvent::Records(batch) = event? {
            let p = TopicPartition::new(&*batch.topic, batch.partition);
            if open.get(&p).is_some_and(|end| batch.next_offset >= *end) {
                open.remove(&p);
            }
            for letter in batch.records.iter().filter_map(|record| DeadLetter::parse(&record.headers)) {
                history.letter((letter.origin.topic, letter.origin.partition, letter.origin.offset));
            }
        }
    }
    consumer.close().await
}
