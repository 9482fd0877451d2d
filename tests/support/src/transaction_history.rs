//! Compares what transactional producers reported, and the offsets that they committed, with what
//! readers of committed records see.
//!
//! Records that become visible together are a *set*: those of a transaction, or the outputs of an
//! input of a pipeline. A test gives each record an [`OutputId`] and sends [`OutputId::value`] with
//! it. It adds each set with its status, what fresh readers of committed records see at the end,
//! what others saw before, and the committed offsets; then it checks the [`TransactionHistory`].
//!
//! Transactions: a stream is a producer, a sequence the number of its transaction.
//!
//! ```text
//! let set = SetId { stream: 0, sequence: 7 };
//! for index in 0..2 {
//!     let id = OutputId { set, lane: 0, attempt: 0, index, count: 2 };
//!     _ = transaction.send(ProducerRecord::to("t").partition(index).value(id.value(50))).await;
//! }
//! let result = transaction.commit().await;
//! history.set(set, SetStatus::of(&result), 2);
//! history.log.read(&partition, offset, value);         // a reader at the end of each partition
//! history.log.set_position(&partition, next_offset);
//! history.check().assert_clean();
//! ```
//!
//! Pipelines: a stream is an input partition, a sequence the offset of an input, a lane what keeps
//! its order (the input's key), an attempt the call of the handler that returned the outputs. Every
//! set is [`SetStatus::Unknown`]; [`TransactionHistory::committed_inputs`] decides, for it says which
//! inputs the group has committed.
//!
//! ```text
//! history.set(SetId { stream: input_partition, sequence: input_offset }, SetStatus::Unknown, outputs);
//! history.committed_inputs(input_partition, committed_offset, ended_above);
//! ```

mod check;

use std::collections::{BTreeMap, BTreeSet};

use ailurus::producer::{TransactionAction, TransactionError};
use ailurus::{Records, TopicPartition};

pub use self::check::{Report, TransactionProblem};

/// Identifies records that become visible together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId {
    /// Producer, or partition of the input.
    pub stream: u32,
    /// Number of the transaction, or offset of the input.
    pub sequence: u64,
}

/// Identifies a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutputId {
    pub set: SetId,
    /// Sets of a lane keep their order in each partition.
    pub lane: u32,
    /// Number of the attempt; a set has records of one attempt only.
    pub attempt: u32,
    pub index: u32,
    /// Number of records of the set.
    pub count: u32,
}

impl OutputId {
    /// Returns a value that only this record has: about `size` bytes, all checked by
    /// [`OutputId::of`].
    pub fn value(self, size: usize) -> Vec<u8> {
        let Self { set, lane, attempt, index, count } = self;
        let mut value = format!("{}:{}:{lane}:{attempt}:{index}:{count}:", set.stream, set.sequence).into_bytes();
        let seed = u64::from(set.stream) << 48 ^ set.sequence << 16 ^ u64::from(attempt) << 8 ^ u64::from(index);
        let mut random = fastrand::Rng::with_seed(seed);
        while value.len() < size {
            value.push(random.alphanumeric() as u8);
        }
        value
    }

    /// Returns the record of a value; `None` if the value is not exactly the one that was sent.
    pub fn of(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.splitn(7, ':');
        let mut next = || parts.next();
        let set = SetId { stream: next()?.parse().ok()?, sequence: next()?.parse().ok()? };
        let mut number = || next()?.parse::<u32>().ok();
        let id = Self { set, lane: number()?, attempt: number()?, index: number()?, count: number()? };
        (id.value(value.len()) == value).then_some(id)
    }
}

/// Status of a set as its producer reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetStatus {
    /// Its commit was confirmed.
    Committed,
    /// Aborted, or its producer was fenced or stopped: nothing of it may be visible.
    Aborted,
    /// Not known to be either, or decided by committed offsets.
    Unknown,
}

impl SetStatus {
    /// Returns the status after a call of `commit`.
    pub fn of(result: &Result<(), TransactionError>) -> Self {
        match result {
            Ok(()) => Self::Committed,
            Err(e) if e.action() == TransactionAction::Unknown => Self::Unknown,
            Err(_) => Self::Aborted,
        }
    }
}

/// A set as its producer reported it.
#[derive(Debug)]
pub struct OutputSet {
    status: SetStatus,
    count: u32,
    commit_called: Option<u64>,
    offset: Option<(TopicPartition, i64)>,
    error: String,
}

impl OutputSet {
    /// Adds the time of the call of `commit`, by the clock of
    /// [`owner`](TransactionHistory::owner).
    pub fn commit_called(&mut self, at: u64) -> &mut Self {
        self.commit_called = Some(at);
        self
    }

    /// Adds an offset that is committed with the set; those of a partition rise from set to set.
    pub fn offset(&mut self, partition: &TopicPartition, offset: i64) -> &mut Self {
        self.offset = Some((partition.clone(), offset));
        self
    }

    /// Adds an error, for the report.
    pub fn error(&mut self, error: impl std::fmt::Display) -> &mut Self {
        self.error = format!("{error:#}");
        self
    }
}

/// The producer of a stream, one of several with its transactional id.
#[derive(Debug)]
struct Owner {
    transactional_id: String,
    started: u64,
}

/// Records that a reader of committed records saw, from the beginning of each partition.
#[derive(Debug, Default)]
pub struct ReaderHistory {
    records: BTreeMap<(TopicPartition, i64), Option<OutputId>>,
    positions: BTreeMap<TopicPartition, i64>,
}

impl ReaderHistory {
    /// Adds a record that it saw.
    pub fn read(&mut self, partition: &TopicPartition, offset: i64, value: Option<&[u8]>) -> Option<OutputId> {
        let id = value.and_then(OutputId::of);
        self.records.insert((partition.clone(), offset), id);
        id
    }

    /// Adds a batch that it saw; returns the last record of it.
    pub fn read_batch(&mut self, batch: &Records) -> Option<OutputId> {
        let partition = batch.topic_partition();
        let mut last = None;
        for record in &batch.records {
            last = self.read(&partition, record.offset, record.value.as_deref()).or(last);
        }
        self.set_position(&partition, batch.next_offset);
        last
    }

    /// Sets the offset that it would read next: it has seen all that is visible before it.
    pub fn set_position(&mut self, partition: &TopicPartition, next_offset: i64) {
        self.positions.insert(partition.clone(), next_offset);
    }
}

/// Offsets of inputs that a group has committed.
#[derive(Debug)]
struct CommittedInputs {
    next: u64,
    above: BTreeSet<u64>,
}

/// Sets, and what became of them.
#[derive(Debug, Default)]
pub struct TransactionHistory {
    sets: BTreeMap<SetId, OutputSet>,
    owners: BTreeMap<u32, Owner>,
    inputs: BTreeMap<u32, CommittedInputs>,
    committed_offsets: BTreeMap<TopicPartition, Option<i64>>,
    reads: BTreeSet<(SetId, SetId)>,
    unstable: Vec<String>,
    /// A reader that began after everything had ended, and read everything.
    pub log: ReaderHistory,
    /// Readers beside the producers, and other later ones. What they saw must agree with
    /// [`log`](Self::log) up to their positions.
    pub readers: Vec<ReaderHistory>,
}

impl TransactionHistory {
    /// Adds a set of `count` records, once; the returned value takes more about it.
    pub fn set(&mut self, id: SetId, status: SetStatus, count: u32) -> &mut OutputSet {
        let set = OutputSet { status, count, commit_called: None, offset: None, error: String::new() };
        assert!(!self.sets.contains_key(&id), "{id:?} was added twice: the test is wrong");
        self.sets.entry(id).or_insert(set)
    }

    /// Adds the producer of a stream. `started` is the time at which its start had returned, by any
    /// clock that rises: from then on nothing that an earlier owner of the id does may be visible.
    pub fn owner(&mut self, stream: u32, transactional_id: &str, started: u64) {
        let owner = Owner { transactional_id: transactional_id.to_owned(), started };
        assert!(self.owners.insert(stream, owner).is_none(), "stream {stream} has two producers: the test is wrong");
    }

    /// Adds the inputs of a stream that were committed at the end: those before `next`, and those in
    /// `above`. The outputs of these and of no others must be visible.
    pub fn committed_inputs(&mut self, stream: u32, next: u64, above: impl IntoIterator<Item = u64>) {
        self.inputs.insert(stream, CommittedInputs { next, above: above.into_iter().collect() });
    }

    /// Adds the committed offset of a partition at the end: that of the last visible set with one.
    pub fn committed_offset(&mut self, partition: &TopicPartition, offset: Option<i64>) {
        self.committed_offsets.insert(partition.clone(), offset);
    }

    /// Adds that a record of `read` was read, by a reader of committed records, before `set` was
    /// committed.
    pub fn read_before(&mut self, set: SetId, read: SetId) {
        self.reads.insert((set, read));
    }

    /// Adds the last stable offset and the end of a partition after everything has ended.
    pub fn end_of(&mut self, partition: &TopicPartition, last_stable: i64, end: i64) {
        if last_stable != end {
            self.unstable.push(format!("{partition}: last stable offset {last_stable}, end {end}"));
        }
    }

    /// Adds a transaction that is open after everything has ended.
    pub fn open_transaction(&mut self, what: impl Into<String>) {
        self.unstable.push(what.into());
    }

    /// Compares everything.
    pub fn check(&self) -> Report {
        check::check(self)
    }
}
