//! Reads partitions, alone or as a member of a group.

mod assignor;
mod membership;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::cluster::Client;
use crate::config::ConsumerConfig;
use crate::error::Result;
use crate::record::{Headers, Record, TopicPartition};

/// Where to start in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOffset {
    /// At the first record there is.
    Earliest,
    /// Behind the last.
    Latest,
    /// At this offset.
    Offset(i64),
    /// At the first record with this timestamp (milliseconds since 1970) or a later one.
    Timestamp(i64),
}

/// Records of one partition, in order.
#[derive(Debug)]
#[non_exhaustive]
pub struct Records {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// May be empty, where offsets without a record were passed.
    pub records: Vec<Record>,
    /// The offset behind these records and behind the offsets without a record that follow them: what to commit when all of
    /// them are handled.
    pub next_offset: i64,
    /// The offset behind the last record of the partition that can be read, as of this fetch.
    pub high_watermark: i64,
}

/// What a consumer has to say.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConsumerEvent {
    /// These partitions are now ours; reading them begins.
    Assigned(Vec<TopicPartition>),
    /// These are about to go to another member: finish or cancel what is in hand, commit, then drop the value.
    Revoked(Revocation),
    /// These are gone already (the session expired): cancel what is in hand; nothing can be committed.
    Lost(Vec<TopicPartition>),
    /// Records to handle.
    Records(Records),
}

/// Partitions to give up. They are kept until this is dropped or the deadline has passed.
#[derive(Debug)]
pub struct Revocation {
    /// Which.
    pub partitions: Vec<TopicPartition>,
    /// The latest time at which they are given up.
    pub deadline: Instant,
}

/// Reads partitions, alone or as a member of a group.
#[derive(Debug)]
pub struct Consumer(());

impl Consumer {
    /// Joins a group and reads what it is assigned.
    pub async fn subscribe(_client: &Client, _group: &str, _topics: &[&str], _config: ConsumerConfig) -> Result<Self> {
        todo!()
    }
    /// Reads given partitions without a group.
    pub async fn assign(
        _client: &Client,
        _partitions: Vec<(TopicPartition, StartOffset)>,
        _config: ConsumerConfig,
    ) -> Result<Self> {
        todo!()
    }
    /// The next event. Cancel safe.
    pub async fn recv(&mut self) -> Result<ConsumerEvent> {
        todo!()
    }
    /// A handle that commits, for use beside [`recv`](Self::recv).
    pub fn committer(&self) -> Committer {
        todo!()
    }
    /// Commits, for each partition, the offset of the next record to handle.
    pub async fn commit(&self, _offsets: &[(TopicPartition, i64)]) -> Result<()> {
        todo!()
    }
    /// Leaves the group, so that its partitions go to others at once, and ends all tasks.
    pub async fn close(self) -> Result<()> {
        todo!()
    }
}

/// Commits offsets of a consumer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Committer(());

impl Committer {
    /// [`Consumer::commit`].
    pub async fn commit(&self, _offsets: &[(TopicPartition, i64)]) -> Result<()> {
        todo!()
    }
}

/// A record as a handler gets it. Cheap to clone.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Message {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; a tombstone has none.
    pub value: Option<Bytes>,
    /// In order.
    pub headers: Headers,
    /// 1 for the first time this record is handed to the handler by this member.
    pub attempt: u32,
}

impl Message {
    /// A record on its first attempt.
    pub(crate) fn new(topic: Arc<str>, partition: i32, r: Record) -> Self {
        let Record { offset, timestamp, key, value, headers, .. } = r;
        Self { topic, partition, offset, timestamp, key, value, headers, attempt: 1 }
    }
}

/// The partitions in an assignment of the consumer protocol.
pub(crate) fn assigned_partitions(_assignment: &Bytes) -> Result<Vec<TopicPartition>> {
    todo!()
}
