//! Sends the records of dead letters again, and marks them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ailurus::processor::Truncation;
use ailurus::{
    Acknowledgement, Acks, Admin, Client, Compression, ConsumerEvent, Delivery, Error, ErrorKind, Producer,
    ProducerRecord, Record, Result, StartOffset, TopicPartition,
};

use super::edit::{Change, Edit};
use super::lock::Lock;
use super::log::{DeadLetterRecord, Log};
use super::marks::{Offsets, State, mark};

/// Number of replays after which a dead letter is refused, by default.
pub const DEFAULT_MAX_REPLAYS: u32 = 3;
/// Maximum size of a dead letter in bytes before compression: the greatest that a producer allows.
const MAX_BYTES: usize = 100 << 20;
/// Compression of a record that its topic refuses as too large: the smallest that every broker reads.
const SMALLEST: Compression = Compression::Gzip { level: 7 };
/// Error code INVALID_TIMESTAMP.
const INVALID_TIMESTAMP: i16 = 32;
/// Maximum time for closing the producer, all of whose records have been acknowledged.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of ranges of offsets in a mark, which has to fit into a record.
const MAX_RANGES: usize = 1000;

/// Limits on replays.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Dead letters that were replayed so often already are refused.
    pub max_replays: u32,
    /// Suffix of dead-letter topics, which are no origins.
    pub suffix: String,
}

/// Reason why a dead letter is not replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It was too large to be written whole, and its record does not exist any more.
    Truncation(Truncation),
    /// It was replayed too often.
    Replays {
        /// Number of its replays; [`u32::MAX`] if its header can't be read.
        count: u32,
        /// The limit.
        max: u32,
    },
    /// Its origin is a dead-letter topic.
    DeadLetterTopic,
    /// Its origin topic does not exist.
    NoTopic,
    /// The broker does not take the record.
    NotTaken(String),
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

/// A dead letter that may be replayed.
#[derive(Debug)]
pub struct Ready {
    /// The dead letter, after the edit.
    pub dead_letter: DeadLetterRecord,
    /// Change by the edit.
    pub change: Option<Change>,
    /// Number of partitions of its origin topic.
    partitions: usize,
}

/// Outcome of a dead letter that was sent.
#[derive(Debug)]
pub enum Sent {
    /// Acknowledged by all in-sync replicas.
    Acknowledged(Acknowledgement),
    /// Not taken: the dead letter stays open.
    Refused(Refusal),
}

/// Replays dead letters of a topic: [`prepare`](Self::prepare), [`send`](Self::send), [`complete`](Self::complete).
#[derive(Debug)]
pub struct Replay {
    client: Client,
    producer: Producer,
    /// `None` in a dry run.
    lock: Option<Lock>,
    limits: Limits,
    /// Number of partitions of the origin topics so far; `None` if a topic does not exist.
    partitions: BTreeMap<String, Option<usize>>,
}

impl Replay {
    /// Begins; without a lock it is a dry run, in which nothing is sent.
    ///
    /// # Errors
    /// If the settings of the producer are wrong.
    pub fn new(client: &Client, lock: Option<Lock>, limits: Limits) -> Result<Self> {
        let mut settings = client.config().producer.clone();
        // A topic may take larger records than the producer's settings allow.
        settings.max_request_size = MAX_BYTES;
        settings.buffer_memory = settings.buffer_memory.max(MAX_BYTES);
        // What is written here replaces a dead letter: all in-sync replicas must have it.
        settings.acks = Acks::All;
        let producer = client.producer().config(settings).start()?;
        Ok(Self { client: client.clone(), producer, lock, limits, partitions: BTreeMap::new() })
    }

    /// Returns whether nothing is sent.
    pub fn is_dry(&self) -> bool {
        self.lock.is_none()
    }

    /// Adds what a dead letter lacks, where its record still exists, and applies the edit.
    ///
    /// # Errors
    /// Those of the brokers; the inner one says why it is not replayed.
    pub async fn prepare(
        &mut self,
        topic: &str,
        mut dead_letter: DeadLetterRecord,
        edit: &Edit,
    ) -> Result<Result<Ready, (DeadLetterRecord, Refusal)>> {
        let partitions = self.partitions_of(&dead_letter.info.origin.topic).await?;
        if dead_letter.info.truncation > Truncation::Nothing && partitions.is_some() {
            complete(&self.client, &mut dead_letter).await?;
        }
        let change = edit.apply(&mut dead_letter);
        Ok(match (self.limits.refusal(&dead_letter, topic), partitions) {
            (Some(why), _) => Err((dead_letter, why)),
            (None, None) => Err((dead_letter, Refusal::NoTopic)),
            (None, Some(partitions)) => Ok(Ready { dead_letter, change, partitions }),
        })
    }

    /// Checks the lock, before a [`send`](Self::send).
    ///
    /// # Errors
    /// [`ErrorKind::GroupMembership`] if another command works on the topic, too.
    pub async fn check(&mut self) -> Result<()> {
        match &mut self.lock {
            Some(lock) => lock.check().await,
            None => Ok(()),
        }
    }

    /// Sends the record to its partition, as of now; if that no longer exists, to the one of its key.
    ///
    /// # Errors
    /// Those of [`Producer::send`].
    pub async fn send(&self, ready: &Ready) -> Result<Delivery> {
        send(&self.producer, ready, None).await
    }

    /// Waits for the outcomes of dead letters of a partition that were sent, and marks those that were acknowledged.
    ///
    /// # Errors
    /// The first error that is not of one record alone, or that of the marks; `on_sent` has the outcomes before.
    pub async fn complete<E: From<Error>>(
        &self,
        log: &Log,
        partition: i32,
        sent: impl IntoIterator<Item = (Ready, Result<Delivery>)>,
        mut on_sent: impl FnMut(&Ready, Sent) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut done, mut failed) = (Offsets::default(), None);
        for (ready, delivery) in sent {
            let mut outcome = ended(delivery).await;
            if outcome.as_ref().is_err_and(|e| e.kind() == ErrorKind::RecordTooLarge) {
                outcome = ended(send(&self.producer, &ready, Some(SMALLEST)).await).await;
            }
            let offset = ready.dead_letter.record.offset;
            match outcome {
                Ok(ack) => {
                    done.insert(offset);
                    on_sent(&ready, Sent::Acknowledged(ack))?;
                }
                Err(e) if is_refusal(&e) => {
                    on_sent(&ready, Sent::Refused(Refusal::NotTaken(format!("{e:#}"))))?;
                }
                Err(e) => failed = failed.or(Some((offset, e))),
            }
        }
        let topic = log.topic();
        if !done.is_empty() {
            write_mark(&self.producer, topic, partition, State::Replayed, &done).await.map_err(|e| {
                let what = format!("the dead letters {done} of {topic}/{partition} were replayed and are not marked");
                e.context(format!("{what}: they would be replayed again"))
            })?;
        }
        match failed {
            Some((offset, e)) => Err(e.context(format!("replaying {topic}/{partition}@{offset}")).into()),
            None => Ok(()),
        }
    }

    /// Closes the producer and releases the lock.
    ///
    /// # Errors
    /// The first of the two.
    pub async fn close(self) -> Result<()> {
        let closed = self.producer.close(CLOSE_TIMEOUT).await;
        let released = match self.lock {
            Some(lock) => lock.release().await,
            None => Ok(()),
        };
        closed.and(released)
    }

    /// Returns the number of partitions of a topic, if it exists.
    async fn partitions_of(&mut self, topic: &str) -> Result<Option<usize>> {
        if let Some(known) = self.partitions.get(topic) {
            return Ok(*known);
        }
        let found = match Admin::new(&self.client).describe_topic(topic).await {
            Ok(topic) => Some(topic.partitions.len()),
            Err(e) if e.is_unknown_topic() => None,
            Err(e) => return Err(e),
        };
        self.partitions.insert(topic.to_owned(), found);
        Ok(found)
    }
}

impl Limits {
    fn refusal(&self, dead_letter: &DeadLetterRecord, topic: &str) -> Option<Refusal> {
        let (origin, count, max) = (&dead_letter.info.origin, dead_letter.info.replays(), self.max_replays);
        if dead_letter.info.truncation > Truncation::Nothing {
            return Some(Refusal::Truncation(dead_letter.info.truncation));
        }
        if count >= max {
            return Some(Refusal::Replays { count, max });
        }
        let is_dead_letter_topic = origin.topic == topic || origin.topic.ends_with(&self.suffix);
        is_dead_letter_topic.then_some(Refusal::DeadLetterTopic)
    }
}

/// Marks dead letters of a partition as discarded: they are not replayed any more.
///
/// # Errors
/// Those of the producer; a part may be marked.
pub async fn discard(producer: &Producer, topic: &str, partition: i32, offsets: &Offsets) -> Result<()> {
    for some in offsets.chunks(MAX_RANGES) {
        write_mark(producer, topic, partition, State::Discarded, &some).await?;
    }
    Ok(())
}

/// Marks dead letters of a partition, and waits for the acknowledgement.
async fn write_mark(producer: &Producer, topic: &str, partition: i32, how: State, offsets: &Offsets) -> Result<()> {
    let record = ProducerRecord::to(topic).partition(partition).headers(mark(how, offsets));
    producer.send(record).await?.await.map(drop)
}

/// Returns whether the error is of this record alone.
fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::RecordTooLarge | ErrorKind::InvalidRecord)
        || error.broker_code() == Some(INVALID_TIMESTAMP)
}

async fn ended(delivery: Result<Delivery>) -> Result<Acknowledgement> {
    delivery?.await
}

async fn send(producer: &Producer, ready: &Ready, compression: Option<Compression>) -> Result<Delivery> {
    let DeadLetterRecord { record, info, .. } = &ready.dead_letter;
    let mut again = ProducerRecord::to(&info.origin.topic).headers(info.replay_headers());
    again.key = record.key.as_ref().map(Into::into);
    again.value = record.value.as_ref().map(Into::into);
    again.compression = compression;
    let partition = usize::try_from(info.origin.partition).ok().filter(|p| *p < ready.partitions);
    again.partition = partition.map(|_| info.origin.partition);
    producer.send(again).await
}

/// Adds what was left out of a dead letter, if its record still exists.
///
/// # Errors
/// Those of the brokers.
pub async fn complete(client: &Client, dead_letter: &mut DeadLetterRecord) -> Result<()> {
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
async fn record_at(client: &Client, at: &TopicPartition, offset: i64) -> Result<Option<Record>> {
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
    let found: Result<_> = tokio::time::timeout(client.config().request_timeout, reading).await.unwrap_or(Ok(None));
    consumer.close().await?;
    found
}
