//! `ailurus dlq replay`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ailurus::processor::Truncation;
use ailurus::{
    Acknowledgement, Admin, Client, Compression, ConsumerEvent, Delivery, Error, ErrorKind, Producer, ProducerRecord,
    Record, StartOffset, TopicPartition,
};
use serde_json::json;
use tokio::time::Instant;

use super::edit::{Change, Edit, in_editor};
use super::lock::Lock;
use super::log::{DeadLetterRecord, Entry, Filter, Log};
use super::marks::{Offsets, State, mark};
use super::pace::{Pace, Rate};
use super::show::{self, line};
use super::{dead_letters, read};
use crate::exit::{self, Exit};
use crate::output::{self, note};
use crate::signals::Shutdown;

/// Maximum number of dead letters sent before they are marked.
const CHUNK_RECORDS: usize = 100;
/// Maximum size of those, which may all be in one request; a single one may be larger.
const CHUNK_BYTES: usize = 1 << 20;
/// Maximum size of a dead letter in bytes before compression: the greatest that a producer allows.
const MAX_BYTES: usize = 100 << 20;
/// Compression of a record that its topic refuses as too large: the smallest that every broker reads.
const SMALLEST: Compression = Compression::Gzip { level: 7 };
/// Error code INVALID_TIMESTAMP.
const INVALID_TIMESTAMP: i16 = 32;
/// Maximum time for closing the producer, all of whose records have been acknowledged.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

pub struct Options {
    pub filter: Filter,
    /// Position of the only dead letter to replay.
    pub at: Option<(i32, i64)>,
    pub edit: Edit,
    pub rate: Option<Rate>,
    pub max_replays: u32,
    pub suffix: String,
    pub yes: bool,
    pub json: bool,
}

pub async fn run(client: &Client, topic: &str, mut options: Options, shutdown: &Shutdown) -> anyhow::Result<Exit> {
    options.edit.read_value()?;
    if let Some(at) = options.at {
        let found = async { show::find(client, topic, at).await };
        let Some(found) = read(shutdown, found).await? else { return Ok(Exit::Interrupted) };
        let mut dead_letter = match found {
            Ok(dead_letter) => dead_letter,
            Err(exit) => return Ok(exit),
        };
        // Before the lock is taken: it may take long.
        if options.edit.edit && !edit_value(client, &mut dead_letter, &mut options).await? {
            note(format_args!("the value was not changed: nothing is replayed"));
            return Ok(Exit::Success);
        }
    }
    let lock = if options.yes { Some(Lock::take(client, topic).await?) } else { None };
    let mut settings = client.config().producer.clone();
    // A topic may take larger records than the producer's settings allow.
    settings.max_request_size = MAX_BYTES;
    settings.buffer_memory = settings.buffer_memory.max(MAX_BYTES);
    let producer = client.producer().config(settings).start()?;
    let partitions = BTreeMap::new();
    let pace = options.rate.map(Pace::new);
    let mut replay =
        Replay { client, producer, lock, options, pace, partitions, done: 0, refused: 0, has_begun: false };
    let result = replay.work(topic, shutdown).await;
    let closed = replay.producer.close(CLOSE_TIMEOUT).await;
    let released = match replay.lock.take() {
        Some(lock) => lock.release().await,
        None => Ok(()),
    };
    // Also after an error.
    if replay.has_begun {
        replay.sum_up(topic);
    }
    // The first error is the one to report: in an outage the others follow from it.
    let exit = match result {
        Err(e) if is_indeterminate(&e) => {
            note(format_args!("error: {}", exit::text(&e)));
            return Ok(Exit::Unreachable);
        }
        result => result?,
    };
    closed?;
    released?;
    Ok(if exit == Exit::Success && replay.refused > 0 { Exit::Failure } else { exit })
}

/// Opens the value of a dead letter in the editor; returns whether it was changed.
async fn edit_value(
    client: &Client,
    dead_letter: &mut DeadLetterRecord,
    options: &mut Options,
) -> anyhow::Result<bool> {
    if dead_letter.info.truncation > Truncation::Nothing {
        complete(client, dead_letter).await?;
    }
    let Some((value, file)) = in_editor(dead_letter.record.value.as_deref()).await? else { return Ok(false) };
    options.edit.value = Some(value);
    if options.yes {
        std::fs::remove_file(&file)?;
    } else {
        note(format_args!("the edited value is in {0}: --set-value-file {0} --yes replays it", file.display()));
    }
    Ok(true)
}

/// Returns whether the brokers did not respond in time, so that a record may or may not be written.
fn is_indeterminate(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Error>().is_some_and(|e| e.kind() == ErrorKind::Indeterminate)
}

struct Replay<'a> {
    client: &'a Client,
    producer: Producer,
    /// `None` in a dry run.
    lock: Option<Lock>,
    options: Options,
    pace: Option<Pace>,
    /// Number of partitions of the origin topics so far; `None` if a topic does not exist.
    partitions: BTreeMap<String, Option<usize>>,
    done: u64,
    refused: u64,
    /// True if the dead letters could be read.
    has_begun: bool,
}

/// Reason why a dead letter is not replayed.
#[derive(Debug, PartialEq)]
enum Refusal {
    Truncation(Truncation),
    Replays { count: u32, max: u32 },
    DeadLetterTopic,
    NoTopic,
    NotTaken(String),
}

impl Replay<'_> {
    /// Replays until the end or a signal.
    async fn work(&mut self, topic: &str, shutdown: &Shutdown) -> anyhow::Result<Exit> {
        let opening = Log::open(self.client, topic, self.options.filter.partition);
        let Some(log) = read(shutdown, opening).await? else { return Ok(Exit::Interrupted) };
        self.has_begun = true;
        let mut reader = log.records(None).await?;
        let mut exit = Exit::Interrupted;
        while let Some(next) = read(shutdown, reader.next()).await? {
            let Some((partition, records)) = next else {
                exit = log.exit();
                break;
            };
            // What is replayed is marked once a second, also at a low rate.
            let most = self.options.rate.map_or(CHUNK_RECORDS, |rate| rate.per_second(CHUNK_RECORDS));
            for chunk in chunks(&records, most) {
                if !shutdown.is_requested() {
                    self.chunk(&log, partition, chunk, shutdown).await?;
                }
            }
        }
        reader.close().await?;
        Ok(exit)
    }

    async fn chunk(
        &mut self,
        log: &Log,
        partition: i32,
        records: &[Record],
        shutdown: &Shutdown,
    ) -> anyhow::Result<()> {
        let mut dead_letters = Vec::new();
        for record in records {
            let Some(Entry::DeadLetter(mut dead_letter)) = log.entry(partition, record.clone()) else { continue };
            if dead_letter.state != State::Open || !self.options.filter.matches(&dead_letter) {
                continue;
            }
            let to = self.partitions_of(&dead_letter.info.origin.topic).await?;
            if dead_letter.info.truncation > Truncation::Nothing && to.is_some() {
                complete(self.client, &mut dead_letter).await?;
            }
            let change = self.options.edit.apply(&mut dead_letter);
            match refusal(&dead_letter, log.topic(), to, &self.options) {
                Some(why) => {
                    self.refused += 1;
                    self.report(log.topic(), &dead_letter, None, "refused", Err(&why))?;
                }
                None => dead_letters.push((dead_letter, to, change)),
            }
        }
        if dead_letters.is_empty() {
            return Ok(());
        }
        let Some(lock) = &mut self.lock else {
            self.done += dead_letters.len() as u64;
            return dead_letters.iter().try_for_each(|(l, _, change)| {
                self.report(log.topic(), l, change.as_ref(), "would be replayed", Ok(None))
            });
        };
        lock.check().await?;
        let mut failed = None;
        let mut deliveries = Vec::with_capacity(dead_letters.len());
        for (dead_letter, to, _) in &dead_letters {
            if let Some(at) = self.pace.as_mut().map(|pace| pace.next(Instant::now())) {
                let waiting = async {
                    tokio::time::sleep_until(at).await;
                    anyhow::Ok(())
                };
                if read(shutdown, waiting).await?.is_none() {
                    break; // what is sent is marked below
                }
            }
            deliveries.push(send(&self.producer, dead_letter, *to, None).await);
        }
        let mut sent = Offsets::default();
        for ((dead_letter, to, change), delivery) in dead_letters.iter().zip(deliveries) {
            let mut outcome = ended(delivery).await;
            if outcome.as_ref().is_err_and(|e| e.kind() == ErrorKind::RecordTooLarge) {
                outcome = ended(send(&self.producer, dead_letter, *to, Some(SMALLEST)).await).await;
            }
            match outcome {
                Ok(ack) => {
                    sent.insert(dead_letter.record.offset);
                    self.done += 1;
                    self.report(log.topic(), dead_letter, change.as_ref(), "replayed", Ok(Some(&ack)))?;
                }
                Err(e) if is_refusal(&e) => {
                    self.refused += 1;
                    let why = Refusal::NotTaken(format!("{e:#}"));
                    self.report(log.topic(), dead_letter, None, "refused", Err(&why))?;
                }
                Err(e) => failed = failed.or(Some((dead_letter.record.offset, e))),
            }
        }
        if !sent.is_empty() {
            let marked = write_mark(&self.producer, log.topic(), partition, State::Replayed, &sent).await;
            marked.map_err(|e| {
                let what =
                    format!("the dead letters {sent} of {}/{partition} were replayed and are not marked", log.topic());
                e.context(format!("{what}: they would be replayed again"))
            })?;
        }
        match failed {
            Some((offset, e)) => Err(e.context(format!("replaying {}/{partition}@{offset}", log.topic())).into()),
            None => Ok(()),
        }
    }

    /// Returns the number of partitions of a topic, if it exists.
    async fn partitions_of(&mut self, topic: &str) -> ailurus::Result<Option<usize>> {
        if let Some(known) = self.partitions.get(topic) {
            return Ok(*known);
        }
        let found = match Admin::new(self.client).describe_topic(topic).await {
            Ok(topic) => Some(topic.partitions.len()),
            Err(e) if e.is_unknown_topic() => None,
            Err(e) => return Err(e),
        };
        self.partitions.insert(topic.to_owned(), found);
        Ok(found)
    }

    /// Prints the outcome of a dead letter: the record's new position, or why it is not replayed.
    fn report(
        &self,
        topic: &str,
        dead_letter: &DeadLetterRecord,
        change: Option<&Change>,
        outcome: &str,
        place: Result<Option<&Acknowledgement>, &Refusal>,
    ) -> anyhow::Result<()> {
        let DeadLetterRecord { partition, record, info, .. } = dead_letter;
        let origin = &info.origin;
        let now = place.ok().flatten();
        if self.options.json {
            let mut object = json!({
                "topic": topic,
                "partition": partition,
                "offset": record.offset,
                "to": origin.topic,
                "toPartition": now.map(|ack| ack.partition),
                "toOffset": now.and_then(|ack| ack.offset),
                "outcome": outcome,
                "why": place.err().map(ToString::to_string),
                "error": info.error,
            });
            if let Some(change) = change {
                object["edit"] = change.json();
            }
            output::json(&object)?;
            return Ok(());
        }
        let position = format!("{topic}/{partition}@{}", record.offset);
        let to = match now.map(|ack| (ack.partition, ack.offset)) {
            Some((partition, Some(offset))) => format!("{}/{partition}@{offset}", origin.topic),
            _ => origin.topic.clone(),
        };
        match place {
            Err(why) => output::print(format_args!("{position} {outcome}: {why}\n"))?,
            Ok(_) => output::print(format_args!("{position} {outcome} to {to}: {}\n", line(info.error.as_bytes())))?,
        }
        for text in change.into_iter().flat_map(Change::lines) {
            output::print(format_args!("{text}\n"))?;
        }
        Ok(())
    }

    fn sum_up(&self, topic: &str) {
        let refused = if self.refused > 0 { format!(", {} refused", self.refused) } else { String::new() };
        if self.options.yes {
            note(format_args!("{} of {topic} replayed{refused}", dead_letters(self.done)));
        } else {
            note(format_args!("{} of {topic} would be replayed{refused}; --yes does it", dead_letters(self.done)));
        }
    }
}

fn refusal(
    dead_letter: &DeadLetterRecord,
    topic: &str,
    partitions: Option<usize>,
    options: &Options,
) -> Option<Refusal> {
    let (origin, count, max) = (&dead_letter.info.origin, dead_letter.info.replays(), options.max_replays);
    if dead_letter.info.truncation > Truncation::Nothing {
        return Some(Refusal::Truncation(dead_letter.info.truncation));
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
            Self::Truncation(_) => f.write_str("it was too large to be written whole, and its record no longer exists"),
            Self::Replays { count: u32::MAX, .. } => f.write_str("its header dlq-replays can't be read"),
            Self::Replays { count, max } => {
                write!(f, "it was replayed {count} times, and --max-replays is {max}")
            }
            Self::DeadLetterTopic => f.write_str("its origin is a dead-letter topic"),
            Self::NoTopic => f.write_str("its origin topic does not exist"),
            Self::NotTaken(why) => f.write_str(why),
        }
    }
}

/// Returns whether the error is of this record alone.
fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::RecordTooLarge | ErrorKind::InvalidRecord)
        || error.broker_code() == Some(INVALID_TIMESTAMP)
}

/// Splits records into runs of at most `most` and, but for single ones, [`CHUNK_BYTES`].
fn chunks(records: &[Record], most: usize) -> Vec<&[Record]> {
    let size = |r: &Record| r.key.as_ref().map_or(0, |k| k.len()) + r.value.as_ref().map_or(0, |v| v.len());
    let (mut chunks, mut rest) = (Vec::new(), records);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fit = rest.iter().take(most).take_while(|r| {
            bytes += size(r);
            bytes <= CHUNK_BYTES
        });
        let (chunk, behind) = rest.split_at(fit.count().max(1));
        chunks.push(chunk);
        rest = behind;
    }
    chunks
}

/// Adds what was left out of a dead letter, if its record still exists.
async fn complete(client: &Client, dead_letter: &mut DeadLetterRecord) -> anyhow::Result<()> {
    let origin = &dead_letter.info.origin;
    let found = record_at(client, &TopicPartition::new(origin.topic.as_str(), origin.partition), origin.offset).await?;
    // In a topic that was deleted and created again, the position may have another record.
    let Some(record) = found.filter(|r| Some(r.timestamp).filter(|t| !t.is_none()) == origin.timestamp) else {
        return Ok(());
    };
    if dead_letter.info.truncation >= Truncation::ValueAndHeaders {
        dead_letter.info.headers = record.headers;
    }
    if dead_letter.info.truncation >= Truncation::ValueHeadersAndKey {
        dead_letter.record.key = record.key;
    }
    dead_letter.record.value = record.value;
    dead_letter.info.truncation = Truncation::Nothing;
    Ok(())
}

/// Reads one record, if it exists.
async fn record_at(client: &Client, at: &TopicPartition, offset: i64) -> anyhow::Result<Option<Record>> {
    let admin = Admin::new(client);
    let place = std::slice::from_ref(at);
    let bound = async |end| Ok::<_, Error>(admin.list_offsets(place, end).await?.get(at).copied());
    let (Some(start), Some(end)) = (bound(StartOffset::Earliest).await?, bound(StartOffset::Latest).await?) else {
        return Ok(None);
    };
    if !(start..end).contains(&offset) {
        return Ok(None);
    }
    let from = [(at.clone(), StartOffset::Offset(offset))];
    let mut consumer = client.reader().assign(from).await?;
    let reading = async {
        loop {
            if let ConsumerEvent::Records(mut records) = consumer.recv().await? {
                if let Some(found) = records.records.drain(..).find(|r| r.offset >= offset) {
                    return Ok(Some(found).filter(|r| r.offset == offset));
                }
                if records.next_offset > offset {
                    return Ok(None); // compacted away
                }
            }
        }
    };
    let found: ailurus::Result<_> =
        tokio::time::timeout(client.config().request_timeout, reading).await.unwrap_or(Ok(None));
    consumer.close().await?;
    Ok(found?)
}

async fn ended(delivery: Result<Delivery, Error>) -> Result<Acknowledgement, Error> {
    delivery?.await
}

/// Sends the record to its partition, as of now; if that no longer exists, to the one of its key.
async fn send(
    producer: &Producer,
    dead_letter: &DeadLetterRecord,
    partitions: Option<usize>,
    compression: Option<Compression>,
) -> Result<Delivery, Error> {
    let DeadLetterRecord { record, info, .. } = dead_letter;
    let mut again = ProducerRecord::to(&info.origin.topic).headers(info.replay_headers());
    again.key = record.key.as_ref().map(Into::into);
    again.value = record.value.as_ref().map(Into::into);
    again.compression = compression;
    let partition = usize::try_from(info.origin.partition).ok().filter(|p| partitions.is_some_and(|n| *p < n));
    again.partition = partition.map(|_| info.origin.partition);
    producer.send(again).await
}

/// Marks dead letters of a partition, and waits for the acknowledgement.
pub async fn write_mark(
    producer: &Producer,
    topic: &str,
    partition: i32,
    how: State,
    offsets: &Offsets,
) -> ailurus::Result<()> {
    let record = ProducerRecord::to(topic).partition(partition).headers(mark(how, offsets));
    producer.send(record).await?.await.map(drop)
}
