//! What a consumer has for its program: records, and news of its partitions.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::lease::Lease;
use super::memory::RecordMemory;
use crate::cluster::offset_commit::OffsetAndMetadata;
use crate::config::OffsetReset;
use crate::record::{Headers, Record, TopicPartition};
use crate::trace::TraceContext;

/// Where to start in a partition.
///
/// ```
/// use ailurus::StartOffset;
///
/// let since = StartOffset::Timestamp(1_767_225_600_000); // 2026-01-01
/// assert_ne!(since, StartOffset::Earliest);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOffset {
    /// At the first record there is.
    Earliest,
    /// Behind the last.
    Latest,
    /// At this offset; if it is outside the log, [`ConsumerConfig::offset_reset`](crate::ConsumerConfig::offset_reset) decides.
    Offset(i64),
    /// At the first record with this timestamp (milliseconds since 1970) or a later one; behind the last if there is none.
    Timestamp(i64),
}

/// Where the log of a partition begins and ends, as of the last fetch of it.
///
/// ```
/// fn tell(marks: ailurus::consumer::Watermarks) {
///     println!("replicated up to {}, readable for committed readers up to {:?}", marks.high_watermark, marks.last_stable_offset);
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Watermarks {
    /// The offset of the first record there is; none where the broker does not tell (Fetch before version 5).
    pub log_start_offset: Option<i64>,
    /// The offset behind the last record that all replicas in sync have.
    pub high_watermark: i64,
    /// The offset of the first record of a transaction that is open, or the high watermark; none where the broker does not tell.
    pub last_stable_offset: Option<i64>,
}

/// Records of one partition, in order.
///
/// They count against [`ConsumerConfig::prefetch_bytes`](crate::ConsumerConfig::prefetch_bytes) until this value is dropped: a
/// program that keeps more than an equal share of that is sent no more of this partition, while other partitions go on.
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
    /// Empty where only offsets without a record were passed, and once for a partition that has nothing to read at first.
    pub records: Vec<Record>,
    /// The offset behind these records and behind the offsets without a record (transaction markers, records that compaction
    /// has taken) that follow them: what to commit when all of them are handled.
    pub next_offset: i64,
    /// The epoch of the leader that wrote all of these; none where the log does not tell, or nothing was passed. To commit
    /// `next_offset` with (KIP-320).
    pub leader_epoch: Option<i32>,
    /// The offset behind the last record of the partition that all replicas in sync have, as of this fetch.
    pub high_watermark: i64,
    /// The offset of the first record of a transaction that is open, or the high watermark, as of this fetch; none where the
    /// broker does not tell.
    pub last_stable_offset: Option<i64>,
    /// Whether records behind the last stable offset are left for later.
    pub(crate) read_committed: bool,
    /// Of the lease they came under.
    pub(crate) epoch: u64,
    /// Gives the bytes back on drop.
    pub(crate) _held: Option<RecordMemory>,
}

impl Records {
    /// The offset up to which the partition could be read as of this fetch: its last stable offset for a reader of committed
    /// records, else its high watermark. The end is reached when `next_offset` is.
    pub fn end_offset(&self) -> i64 {
        self.last_stable_offset.filter(|_| self.read_committed).unwrap_or(self.high_watermark)
    }

    /// How many offsets that could be read lay behind these records when they were fetched.
    pub fn lag(&self) -> i64 {
        (self.end_offset() - self.next_offset).max(0)
    }

    /// Their partition.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: Arc::clone(&self.topic), partition: self.partition }
    }

    /// What the program has handled when it has handled all before `next`.
    pub(super) fn handled(&self, next: i64) -> (Lease, OffsetAndMetadata) {
        let lease = Lease { partition: self.topic_partition(), epoch: self.epoch };
        (lease, OffsetAndMetadata { leader_epoch: self.leader_epoch, ..OffsetAndMetadata::new(next) })
    }

    /// One of these on its first attempt.
    pub(crate) fn message(&self, record: Record) -> Message {
        let message = Message::new(Arc::clone(&self.topic), self.partition, record);
        Message { epoch: self.epoch, leader_epoch: self.leader_epoch, ..message }
    }
}

/// What a consumer has to say. See [`Consumer`](super::Consumer) for an example.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConsumerEvent {
    /// The group has shared out, and these partitions have become ours beside those we have already, which are read on: reading
    /// them begins. Perhaps none: nothing has changed for us, or the group has more members than partitions.
    Assigned(Vec<TopicPartition>),
    /// These are about to go to other members: finish or cancel what is in hand of them, commit, then drop the value. No
    /// records of them come meanwhile. With an eager assignor these are all we have; with a cooperative one those that another
    /// member is to get, and the others are read on.
    Revoked(Revocation),
    /// These are gone already (the session expired, or a revocation was not answered in time): cancel what is in hand of them;
    /// nothing can be committed.
    Lost(Vec<TopicPartition>),
    /// Records to handle.
    Records(Records),
}

/// Partitions to give up. They are kept until this is dropped or the deadline has passed; until then heartbeats go on and
/// commits are taken.
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
    /// Which.
    pub partitions: Vec<TopicPartition>,
    /// The latest time at which they are given up: the rebalance timeout after the last heartbeat that was answered without
    /// news of the rebalance, less a tenth of that timeout (5 s at most).
    pub deadline: Instant,
    /// Tells of the drop.
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
    /// Milliseconds since 1970, -1 for none.
    pub timestamp: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; a tombstone has none.
    pub value: Option<Bytes>,
    /// In order.
    pub headers: Headers,
    /// 1 for the first time this record is handed to the handler by this member.
    pub attempt: u32,
    /// When this attempt is cancelled, if it has a limit.
    pub(crate) deadline: Option<Instant>,
    /// Cancelled when the partition is to be given up.
    pub(crate) stopping: Option<Arc<CancellationToken>>,
    /// Read when it is asked for.
    pub(crate) trace: OnceLock<Option<Arc<TraceContext>>>,
    /// Of the lease it came under.
    pub(crate) epoch: u64,
    /// Of the leader that wrote it.
    pub(crate) leader_epoch: Option<i32>,
}

impl Message {
    /// A record on its first attempt, of no lease.
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

    /// Memory of its own, so that it does not keep what it came with.
    pub(crate) fn detach(&mut self) {
        let Self { offset, timestamp, .. } = *self;
        let (key, value, headers) = (self.key.take(), self.value.take(), std::mem::take(&mut self.headers));
        let record = Record { offset, timestamp, key, value, headers }.detach();
        (self.key, self.value, self.headers) = (record.key, record.value, record.headers);
    }

    /// About what it takes of memory when it is detached.
    pub(crate) fn size(&self) -> usize {
        let len = |b: &Option<Bytes>| b.as_ref().map_or(0, Bytes::len);
        size_of::<Self>() + len(&self.key) + len(&self.value) + self.headers.raw.len()
    }

    /// When this attempt is cancelled and counts as failed; none if attempts have no limit.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether its partition is about to be given up, for a shutdown or a rebalance: finish soon, or return an error and leave
    /// the record to the next owner.
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

    /// The span in which this record is handled: a [child](TraceContext::child) of the one it was sent in, with the same id each
    /// time this is called; none if its headers name no trace. What the handler sends, it sends in it.
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

/// Where a partition without a committed offset is read from, if nothing else says it.
pub(super) fn start(reset: OffsetReset) -> Option<StartOffset> {
    match reset {
        OffsetReset::Earliest => Some(StartOffset::Earliest),
        OffsetReset::Latest => Some(StartOffset::Latest),
        OffsetReset::None => None,
    }
}
