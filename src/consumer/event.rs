//! Events of a consumer: records, and changes of its assignment.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::lease::{Lease, generation_of};
use super::memory::RecordMemory;
use crate::cluster::offset_commit::OffsetAndMetadata;
use crate::config::{IsolationLevel, OffsetReset};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Headers, Record, TopicPartition};
use crate::timestamp::Timestamp;
use crate::trace::TraceContext;

/// Offset at which to start reading a partition.
///
/// ```
/// use ailurus::StartOffset;
///
/// let since = StartOffset::Timestamp("2026-01-01T00:00:00Z".parse()?);
/// assert_ne!(since, StartOffset::Earliest);
/// # Ok::<_, ailurus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartOffset {
    /// The first record.
    Earliest,
    /// The end: only records written from now on.
    Latest,
    /// This offset; if it is outside the log,
    /// [`ConsumerConfig::offset_reset`](crate::ConsumerConfig::offset_reset) decides.
    Offset(i64),
    /// The first record with this timestamp or a later one; the end if there is none.
    Timestamp(Timestamp),
}

/// Beginning and end of the log of a partition, as of its last fetch.
///
/// ```
/// fn print(marks: ailurus::consumer::Watermarks) {
///     println!("replicated up to {}, readable for committed readers up to {:?}", marks.high_watermark, marks.last_stable_offset);
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Watermarks {
    /// Offset of the first record; none where the broker does not report it (Fetch before version
    /// 5).
    pub log_start_offset: Option<i64>,
    /// Offset after the last record that all in-sync replicas have.
    pub high_watermark: i64,
    /// Offset of the first record of an open transaction, or the high watermark; none where the
    /// broker does not report it.
    pub last_stable_offset: Option<i64>,
}

impl Watermarks {
    /// Returns the number of readable offsets from `position` on.
    pub(super) fn lag(&self, position: i64, level: IsolationLevel) -> i64 {
        let stable = self.last_stable_offset.filter(|_| level == IsolationLevel::ReadCommitted);
        (stable.unwrap_or(self.high_watermark) - position).max(0)
    }
}

/// Records of one partition, in order.
///
/// They count against [`ConsumerConfig::prefetch_bytes`](crate::ConsumerConfig::prefetch_bytes)
/// until this value is dropped: while an application keeps more than an equal share of it, no more
/// of this partition is fetched; other partitions are.
///
/// ```
/// fn handle(records: ailurus::Records) {
///     for record in &records.records {
///         println!("{}/{} @ {}: {:?}", records.topic, records.partition, record.offset, record.value);
///     }
///     if records.lag() == 0 {
///         println!("that was the last one for now");
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Records {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The records. Empty where only offsets without a record were passed, and once for a partition
    /// that has nothing to read at first.
    pub records: Vec<Record>,
    /// Offset after these records and after the offsets without a record (transaction markers,
    /// records removed by compaction) that follow them: the offset to commit when all of them are
    /// handled.
    pub next_offset: i64,
    /// Epoch of the leader that wrote all of these, to commit `next_offset` with (KIP-320); none
    /// where the log has none, or nothing was passed.
    pub leader_epoch: Option<i32>,
    /// Offset after the last record of the partition that all in-sync replicas have, as of this
    /// fetch.
    pub high_watermark: i64,
    /// Offset of the first record of an open transaction, or the high watermark, as of this fetch;
    /// none where the broker does not report it.
    pub last_stable_offset: Option<i64>,
    /// True if the last stable offset is the end of the readable log.
    pub(crate) read_committed: bool,
    /// Epoch of their lease.
    pub(crate) epoch: u64,
    /// Returns their memory to the budget on drop.
    pub(crate) _memory: Option<RecordMemory>,
}

impl Records {
    /// Returns the end of the readable log as of this fetch: the last stable offset for
    /// `ReadCommitted`, else the high watermark. It is reached when `next_offset` is.
    pub fn end_offset(&self) -> i64 {
        self.last_stable_offset.filter(|_| self.read_committed).unwrap_or(self.high_watermark)
    }

    /// Returns the number of readable offsets after these records when they were fetched.
    pub fn lag(&self) -> i64 {
        (self.end_offset() - self.next_offset).max(0)
    }

    /// Returns the topic and partition.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: Arc::clone(&self.topic), partition: self.partition }
    }

    /// Returns the commit for records handled up to `next`.
    pub(super) fn handled(&self, next: i64) -> (Lease, OffsetAndMetadata) {
        let lease = Lease { partition: self.topic_partition(), epoch: self.epoch };
        (lease, OffsetAndMetadata { leader_epoch: self.leader_epoch, ..OffsetAndMetadata::new(next) })
    }

    /// Returns one of these records as a message, on its first attempt.
    pub(crate) fn message(&self, record: Record) -> Message {
        let message = Message::new(Arc::clone(&self.topic), self.partition, record);
        Message { epoch: self.epoch, leader_epoch: self.leader_epoch, ..message }
    }
}

/// An event of a consumer. See [`Consumer`](super::Consumer) for an example.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConsumerEvent {
    /// The rebalance is complete: these partitions are newly assigned, perhaps none; others stay
    /// assigned. Fetching them starts.
    Assigned(Vec<TopicPartition>),
    /// These partitions are being revoked: finish or cancel their in-flight records, commit, then
    /// drop the value. None of their records follow. With an eager assignor these are all
    /// partitions; with a cooperative one only those that another member gets.
    Revoked(Revocation),
    /// These partitions are revoked already (the session expired, or a revocation took too long):
    /// cancel their in-flight records; nothing can be committed.
    Lost(Vec<TopicPartition>),
    /// Records to handle.
    Records(Records),
}

/// Partitions being revoked. They stay assigned until this is dropped or the deadline has passed;
/// until then heartbeats continue and commits are accepted.
///
/// ```
/// use ailurus::{Consumer, Result, Revocation, TopicPartition};
///
/// async fn give_up(consumer: &Consumer, revocation: Revocation, handled: &[(TopicPartition, i64)]) -> Result<()> {
///     let outcome = consumer.commit(handled).await;
///     drop(revocation); // now the group goes on
///     outcome
/// }
/// ```
#[must_use = "dropping a revocation returns its partitions: drop it once their records are handled"]
#[derive(Debug)]
pub struct Revocation {
    /// The partitions.
    pub partitions: Vec<TopicPartition>,
    /// Latest time at which they are revoked: the rebalance timeout after the last heartbeat whose
    /// response did not report the rebalance, less a tenth of that timeout (5 s at most).
    pub deadline: Instant,
    /// Notifies the group's task on drop.
    pub(crate) _drained: DropGuard,
}

/// A record as a handler gets it. Cheap to clone.
///
/// ```
/// use ailurus::Message;
///
/// async fn handle(message: Message) -> Result<(), std::str::Utf8Error> {
///     let Some(value) = &message.value else { return Ok(()) }; // a tombstone
///     println!("{}/{}@{}: {}", message.topic, message.partition, message.offset, std::str::from_utf8(value)?);
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Message {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The timestamp; [`Timestamp::NONE`] if the record has none.
    pub timestamp: Timestamp,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; a tombstone has none.
    pub value: Option<Bytes>,
    /// The headers, in order.
    pub headers: Headers,
    /// Number of this attempt: 1 for the first one by this member, and for the first one of all if it was
    /// [delayed](crate::ProcessorConfig::delayed_retries) since.
    pub attempt: u32,
    /// Time at which this attempt is cancelled, if it has a limit.
    pub(crate) deadline: Option<Instant>,
    /// Cancelled when the partition is being revoked.
    pub(crate) stopping: Option<Arc<CancellationToken>>,
    /// Trace context, parsed on first use.
    pub(crate) trace: OnceLock<Option<Arc<TraceContext>>>,
    /// Epoch of its lease.
    pub(crate) epoch: u64,
    /// Epoch of the leader that wrote it.
    pub(crate) leader_epoch: Option<i32>,
}

impl Message {
    /// Creates a message on its first attempt, without a lease.
    pub(crate) fn new(topic: Arc<str>, partition: i32, record: Record) -> Self {
        let Record { offset, timestamp, key, value, headers, .. } = record;
        Self {
            topic,
            partition,
            offset,
            timestamp,
            key,
            value,
            headers,
            attempt: 1,
            deadline: None,
            stopping: None,
            trace: OnceLock::new(),
            epoch: 0,
            leader_epoch: None,
        }
    }

    /// Copies the record, so that it does not keep the response in memory.
    pub(crate) fn detach(&mut self) {
        let Self { offset, timestamp, .. } = *self;
        let (key, value, headers) = (self.key.take(), self.value.take(), std::mem::take(&mut self.headers));
        let record = Record { offset, timestamp, key, value, headers }.detach();
        (self.key, self.value, self.headers) = (record.key, record.value, record.headers);
    }

    /// Returns its approximate memory when it is detached.
    pub(crate) fn size(&self) -> usize {
        let len = |b: &Option<Bytes>| b.as_ref().map_or(0, Bytes::len);
        size_of::<Self>() + len(&self.key) + len(&self.value) + self.headers.raw.len()
    }

    /// Returns the value as text; a tombstone has none.
    ///
    /// # Errors
    /// [`ErrorKind::Event`] if it is not UTF-8.
    pub fn text(&self) -> Result<Option<&str>> {
        self.value
            .as_deref()
            .map(|value| std::str::from_utf8(value).map_err(|e| self.undecodable("UTF-8", e)))
            .transpose()
    }

    /// Decodes the value from JSON. A tombstone is `null`.
    ///
    /// ```
    /// #[derive(serde::Deserialize)]
    /// struct Order {
    ///     id: String,
    /// }
    ///
    /// async fn handle(message: ailurus::Message) -> ailurus::Result<()> {
    ///     let order: Order = message.json()?;
    ///     println!("{}", order.id);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Event`] if it is not JSON, or not that of a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(self.value.as_deref().unwrap_or(b"null")).map_err(|e| self.undecodable("JSON", e))
    }

    fn undecodable(&self, format: &str, e: impl std::error::Error + Send + Sync + 'static) -> Error {
        let Self { topic, partition, offset, .. } = self;
        let what = format!("{topic}/{partition}@{offset}: the value is not the expected {format}");
        Error::with_source(ErrorKind::Event, what, e)
    }

    /// Returns the generation of the group (with KIP-848: the member epoch) in which the partition
    /// was assigned to this member; none outside a group. A later owner of the partition has a
    /// greater one, so that a store can reject the writes of an earlier owner.
    pub fn generation(&self) -> Option<i32> {
        generation_of(self.epoch)
    }

    /// Returns the time at which this attempt is cancelled and counts as failed; none if attempts
    /// have no limit.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns whether its partition is being revoked, for a shutdown or a rebalance: finish soon,
    /// or return an error and leave the record to the next owner.
    pub fn is_stopping(&self) -> bool {
        self.stopping.as_ref().is_some_and(|s| s.is_cancelled())
    }

    /// Waits until [`is_stopping`](Self::is_stopping). Cancel safe.
    pub async fn stopping(&self) {
        match &self.stopping {
            Some(stopping) => stopping.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Returns the span in which this record is handled: a [child](TraceContext::child) of the one
    /// it was sent in, with the same id at each call; none if its headers have no trace. The
    /// handler sends its own records in it.
    ///
    /// ```
    /// use ailurus::{Message, SendOptions};
    ///
    /// fn options(cause: &Message) -> SendOptions {
    ///     SendOptions::new().trace(cause.trace())
    /// }
    /// ```
    pub fn trace(&self) -> Option<&TraceContext> {
        let child = || Some(Arc::new(TraceContext::from_headers(&self.headers)?.child()));
        self.trace.get_or_init(child).as_deref()
    }
}

/// Returns the start of a partition without a committed offset.
pub(super) fn start(reset: OffsetReset) -> Option<StartOffset> {
    match reset {
        OffsetReset::Earliest => Some(StartOffset::Earliest),
        OffsetReset::Latest => Some(StartOffset::Latest),
        OffsetReset::None => None,
    }
}
