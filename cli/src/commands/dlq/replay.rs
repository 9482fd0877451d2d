//! `ailurus dlq replay`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ailurus::processor::LeftOut;
use ailurus::{Admin, Client, Error, Producer, ProducerRecord, Record};
use serde_json::json;

use super::lock::Lock;
use super::log::{Entry, Filter, Letter, Log};
use super::marks::{Offsets, State, mark};
use super::show::line;
use super::{letters, read};
use crate::exit::Exit;
use crate::output::{self, note};
use crate::signals::Shutdown;

/// Letters sent before they are marked.
const CHUNK: usize = 100;
/// How long closing the producer may take: all it was given has been acknowledged by then.
const CLOSE: Duration = Duration::from_secs(10);

pub struct Options {
    pub filter: Filter,
    pub max_replays: u32,
    pub suffix: String,
    pub yes: bool,
    pub json: bool,
}

pub async fn run(client: &Client, topic: &str, options: Options, shutdown: &Shutdown) -> anyhow::Result<Exit> {
    let lock = if options.yes { Some(Lock::take(client, topic).await?) } else { None };
    let producer = Producer::new(client, client.config().producer.clone())?;
    let mut replay =
        Replay { admin: Admin::new(client), producer, lock, options, partitions: BTreeMap::new(), done: 0, refused: 0 };
    let result = replay.work(client, topic, shutdown).await;
    let closed = replay.producer.close(CLOSE).await;
    if let Some(lock) = replay.lock.take() {
        lock.release().await?;
    }
    // Whatever ended it: what was done is told.
    replay.sum_up(topic);
    let complete = result?;
    closed?;
    Ok(match (complete, replay.refused) {
        (false, _) => Exit::Interrupted,
        (true, 0) => Exit::Success,
        (true, _) => Exit::Failure,
    })
}

struct Replay {
    admin: Admin,
    producer: Producer,
    /// Held only when it is done, not when it is told.
    lock: Option<Lock>,
    options: Options,
    /// Of the origin topics met so far; none for one that does not exist.
    partitions: BTreeMap<String, Option<usize>>,
    done: u64,
    refused: u64,
}

/// Why a letter is not replayed.
#[derive(Debug, PartialEq)]
enum Refusal {
    LeftOut(LeftOut),
    Replays { count: u32, max: u32 },
    DeadLetterTopic,
    NoTopic,
}

impl Replay {
    /// Whether the end was reached: a signal may come before.
    async fn work(&mut self, client: &Client, topic: &str, shutdown: &Shutdown) -> anyhow::Result<bool> {
        let Some(log) = read(shutdown, Log::open(client, topic)).await? else { return Ok(false) };
        let mut reader = log.records(None).await?;
        let mut complete = false;
        while let Some(next) = read(shutdown, reader.next()).await? {
            let Some((partition, records)) = next else {
                complete = true;
                break;
            };
            for chunk in records.chunks(CHUNK) {
                if !shutdown.is_requested() {
                    self.chunk(&log, partition, chunk).await?;
                }
            }
        }
        reader.close().await?;
        Ok(complete)
    }

    async fn chunk(&mut self, log: &Log, partition: i32, records: &[Record]) -> anyhow::Result<()> {
        let mut letters = Vec::new();
        for record in records {
            let Some(Entry::Letter(letter)) = log.entry(partition, record.clone()) else { continue };
            if letter.state != State::Open || !self.options.filter.fits(&letter) {
                continue;
            }
            let to = self.partitions_of(&letter.said.origin.topic).await?;
            match refusal(&letter, log.topic(), to, &self.options) {
                Some(why) => {
                    self.refused += 1;
                    self.tell(log.topic(), &letter, "refused", Some(&why))?;
                }
                None => letters.push((letter, to)),
            }
        }
        if letters.is_empty() {
            return Ok(());
        }
        let Some(lock) = &mut self.lock else {
            self.done += letters.len() as u64;
            return letters.iter().try_for_each(|(l, _)| self.tell(log.topic(), l, "would be replayed", None));
        };
        lock.check().await?;
        let mut failed = None;
        let mut deliveries = Vec::with_capacity(letters.len());
        for (letter, to) in &letters {
            deliveries.push(send(&self.producer, letter, *to).await);
        }
        let mut sent = Offsets::default();
        for ((letter, _), delivery) in letters.iter().zip(deliveries) {
            let outcome = match delivery {
                Ok(delivery) => delivery.await.map(drop),
                Err(e) => Err(e),
            };
            match outcome {
                Ok(()) => {
                    sent.insert(letter.record.offset);
                    self.done += 1;
                    self.tell(log.topic(), letter, "replayed", None)?;
                }
                Err(e) => failed = failed.or(Some((letter.record.offset, e))),
            }
        }
        if !sent.is_empty() {
            let marked = write_mark(&self.producer, log.topic(), partition, State::Replayed, &sent).await;
            marked.map_err(|e| {
                let what =
                    format!("the letters {sent} of {}/{partition} were replayed and are not marked", log.topic());
                e.context(format!("{what}: they would be replayed again"))
            })?;
        }
        match failed {
            Some((offset, e)) => Err(e.context(format!("replaying {}/{partition}@{offset}", log.topic())).into()),
            None => Ok(()),
        }
    }

    /// How many partitions a topic has.
    async fn partitions_of(&mut self, topic: &str) -> ailurus::Result<Option<usize>> {
        if let Some(known) = self.partitions.get(topic) {
            return Ok(*known);
        }
        let found = match self.admin.describe_topic(topic).await {
            Ok(topic) => Some(topic.partitions.len()),
            Err(e) if e.is_unknown_topic() => None,
            Err(e) => return Err(e),
        };
        self.partitions.insert(topic.to_owned(), found);
        Ok(found)
    }

    fn tell(&self, topic: &str, letter: &Letter, outcome: &str, why: Option<&Refusal>) -> anyhow::Result<()> {
        let Letter { partition, record, said, .. } = letter;
        let origin = &said.origin;
        if self.options.json {
            output::json(&json!({
                "topic": topic,
                "partition": partition,
                "offset": record.offset,
                "to": origin.topic,
                "outcome": outcome,
                "why": why.map(ToString::to_string),
                "error": said.error,
            }))?;
            return Ok(());
        }
        let place = format!("{topic}/{partition}@{}", record.offset);
        match why {
            Some(why) => output::print(format_args!("{place} {outcome}: {why}\n"))?,
            None => {
                output::print(format_args!("{place} {outcome} to {}: {}\n", origin.topic, line(said.error.as_bytes())))?
            }
        }
        Ok(())
    }

    fn sum_up(&self, topic: &str) {
        let refused = if self.refused > 0 { format!(", {} refused", self.refused) } else { String::new() };
        if self.options.yes {
            note(format_args!("{} of {topic} replayed{refused}", letters(self.done)));
        } else {
            note(format_args!("{} of {topic} would be replayed{refused}; --yes does it", letters(self.done)));
        }
    }
}

fn refusal(letter: &Letter, topic: &str, partitions: Option<usize>, options: &Options) -> Option<Refusal> {
    let (origin, count, max) = (&letter.said.origin, letter.said.replays(), options.max_replays);
    if letter.said.left_out > LeftOut::Nothing {
        return Some(Refusal::LeftOut(letter.said.left_out));
    }
    if count >= max {
        return Some(Refusal::Replays { count, max });
    }
    if origin.topic == topic || origin.topic.ends_with(&options.suffix) {
        return Some(Refusal::DeadLetterTopic);
    }
    partitions.is_none().then_some(Refusal::NoTopic)
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeftOut(_) => {
                f.write_str("it was too large to be kept whole: read the record where it was, if it is there")
            }
            Self::Replays { count: u32::MAX, .. } => f.write_str("its header dlq-replays can't be read"),
            Self::Replays { count, max } => {
                write!(f, "it was replayed {count} times, and --max-replays is {max}: it would go round")
            }
            Self::DeadLetterTopic => f.write_str("its origin is a dead-letter topic: it would go round"),
            Self::NoTopic => f.write_str("its origin topic does not exist"),
        }
    }
}

/// Sends the record to where it was; if there is no such partition any more, to where its key goes.
async fn send(producer: &Producer, letter: &Letter, partitions: Option<usize>) -> Result<ailurus::Delivery, Error> {
    let Letter { record, said, .. } = letter;
    let headers = said.replay_headers();
    let mut again = ProducerRecord::to(&said.origin.topic).headers(&headers);
    again.key = record.key.as_deref();
    again.value = record.value.as_deref();
    again.timestamp = said.origin.timestamp.filter(|t| *t >= 0);
    let partition = usize::try_from(said.origin.partition).ok().filter(|p| partitions.is_some_and(|n| *p < n));
    again.partition = partition.map(|_| said.origin.partition);
    producer.send(again).await
}

/// Marks letters of a partition, and waits until that is acknowledged.
pub async fn write_mark(
    producer: &Producer,
    topic: &str,
    partition: i32,
    how: State,
    offsets: &Offsets,
) -> ailurus::Result<()> {
    let headers = mark(how, offsets);
    producer.send(ProducerRecord::to(topic).partition(partition).headers(&headers)).await?.await.map(drop)
}
