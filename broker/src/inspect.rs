//! Inspection of logs and groups, and writes to logs that no producer would send.

mod transactions;

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition;
use kafka_protocol::messages::{ConsumerProtocolAssignment, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use uuid::Uuid;

use crate::batch::{self, EndMarker};
use crate::broker::Broker;
use crate::consumer_group::{self, Partitions};
use crate::error::BrokerError;
use crate::group::Member;
use crate::log::{Batch, Log};
use crate::shared::now_ms;

pub use transactions::{PendingOffset, ProducerInfo, TransactionInfo, TransactionOutcome, TransactionalRecord};

/// Newest known version of an assignment's encoding.
const MAX_ASSIGNMENT_VERSION: i16 = 3;

/// A record in the log of a partition; see [`Broker::log_records`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogRecord {
    /// Offset.
    pub offset: i64,
    /// Timestamp of the producer, in milliseconds since 1970.
    pub timestamp: i64,
    /// Key.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// Producer id, -1 if not idempotent.
    pub producer_id: i64,
}

/// A member of a group; see [`Broker::group_members`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMember {
    /// Member id.
    pub member_id: String,
    /// Instance id of a static member.
    pub instance_id: Option<String>,
    /// Client id.
    pub client_id: String,
    /// Assigned partitions, encoded as `ConsumerProtocolAssignment` in both protocols.
    pub assignment: Bytes,
}

impl GroupMember {
    /// Returns the assigned partitions, by topic; empty if the assignment can't be decoded.
    pub fn partitions(&self) -> Vec<(String, i32)> {
        let mut encoded = self.assignment.clone();
        let Ok(version) = encoded.try_get_i16() else { return Vec::new() };
        let version = version.min(MAX_ASSIGNMENT_VERSION);
        let Ok(assignment) = ConsumerProtocolAssignment::decode(&mut encoded, version) else { return Vec::new() };
        let of_topic = |t: TopicPartition| t.partitions.into_iter().map(move |p| (t.topic.to_string(), p));
        assignment.assigned_partitions.into_iter().flat_map(of_topic).collect()
    }
}

impl Broker {
    /// Returns the records of a partition that a consumer could read, in order.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownPartition`]; [`BrokerError::InvalidBatch`] if a batch is compressed
    /// with a codec other than gzip.
    pub fn log_records(&self, topic: &str, partition: i32) -> Result<Vec<LogRecord>, BrokerError> {
        self.with_log(topic, partition, |log| {
            let mut out = Vec::new();
            for batch in log.batches().filter(|b| !b.header.is_control()) {
                records(batch, log.start(), &mut out)?;
            }
            Ok(out)
        })?
    }

    /// Returns the batches in the log of a partition.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownPartition`].
    pub fn log_batches(&self, topic: &str, partition: i32) -> Result<Vec<Bytes>, BrokerError> {
        self.with_log(topic, partition, |log| log.batches().map(|b| b.data.clone()).collect())
    }

    /// Returns log start offset and log end offset of a partition.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownPartition`].
    pub fn log_range(&self, topic: &str, partition: i32) -> Result<(i64, i64), BrokerError> {
        self.with_log(topic, partition, |log| (log.start(), log.end()))
    }

    /// Returns the topics with their partition counts.
    pub fn topics(&self) -> Vec<(String, usize)> {
        self.shared.cluster().topics.iter().map(|(name, t)| (name.clone(), t.partitions.len())).collect()
    }

    /// Appends a record batch unchanged except for base offset and leader epoch. Checksum and
    /// records are not validated, so it may be corrupt. Returns its base offset.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownPartition`]; [`BrokerError::InvalidBatch`] if its length differs from
    /// its header's.
    pub fn append_raw_batch(&self, topic: &str, partition: i32, batch: &[u8]) -> Result<i64, BrokerError> {
        self.append(topic, partition, BytesMut::from(batch))
    }

    /// Appends a transaction marker of a producer: one offset, no record for consumers. Returns its
    /// offset.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownPartition`].
    pub fn append_control_batch(
        &self,
        topic: &str,
        partition: i32,
        producer_id: i64,
        commit: bool,
    ) -> Result<i64, BrokerError> {
        let marker = EndMarker {
            producer_id,
            producer_epoch: 0,
            coordinator_epoch: 0,
            commit,
            has_new_epoch: false,
            timestamp: now_ms(),
        };
        self.append(topic, partition, batch::control(&marker))
    }

    /// Appends a record batch, such as one of [`log_batches`](Self::log_batches), as part of a
    /// transaction of a producer, open until [`append_control_batch`](Self::append_control_batch)
    /// ends it. Returns its base offset.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownPartition`]; [`BrokerError::InvalidBatch`] if its length differs from
    /// its header's.
    pub fn append_transactional_batch(
        &self,
        topic: &str,
        partition: i32,
        producer_id: i64,
        batch: &[u8],
    ) -> Result<i64, BrokerError> {
        let mut batch = BytesMut::from(batch);
        let changed = batch::make_transactional(&mut batch, producer_id);
        changed.ok_or_else(|| BrokerError::InvalidBatch("it is shorter than its header says".into()))?;
        self.append(topic, partition, batch)
    }

    /// Truncates the log of a partition: drops every batch that reaches `end`, and starts a new
    /// leader epoch, as after the election of a replica that lagged.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownPartition`].
    pub fn truncate(&self, topic: &str, partition: i32, end: i64) -> Result<(), BrokerError> {
        let mut cluster = self.shared.cluster();
        let unknown = || BrokerError::UnknownPartition { topic: topic.into(), partition };
        cluster.partition(topic, partition).ok_or_else(unknown)?.truncate(end);
        Ok(())
    }

    /// Drops all fetch sessions, as a broker does whose session cache is full.
    pub fn drop_fetch_sessions(&self) {
        self.shared.sessions().clear();
    }

    /// Appends a batch of `offsets` offsets (at least 1) without records, as compaction leaves one.
    /// Returns its base offset.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownPartition`].
    pub fn append_empty_batch(&self, topic: &str, partition: i32, offsets: u16) -> Result<i64, BrokerError> {
        self.append(topic, partition, batch::empty(i32::from(offsets.max(1)), now_ms()))
    }

    /// Compacts a partition to the records whose offsets `keep` accepts. Offsets stay, and batches
    /// without records are dropped, except for the newest.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownPartition`]; [`BrokerError::InvalidBatch`] if a batch is compressed
    /// with a codec other than gzip: then nothing is changed.
    pub fn compact(&self, topic: &str, partition: i32, keep: impl Fn(i64) -> bool) -> Result<(), BrokerError> {
        self.with_log(topic, partition, |log| log.compact(keep))?
    }

    /// Deletes the records before `offset`, the new log start offset.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownPartition`]; [`BrokerError::Topic`] with code 1 if the offset is
    /// beyond the log end.
    pub fn delete_records(&self, topic: &str, partition: i32, offset: i64) -> Result<(), BrokerError> {
        let deleted = self.with_log(topic, partition, |log| log.delete_before(offset))?;
        deleted.map_err(|error| BrokerError::Topic {
            topic: topic.into(),
            code: error.code(),
            message: format!("offset {offset} is outside the log of partition {partition}"),
        })
    }

    /// Returns the committed offset of a group for a partition.
    pub fn committed_offset(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let groups = self.shared.groups();
        groups.get(group)?.offsets().get(&(topic.to_owned(), partition)).map(|c| c.offset)
    }

    /// Returns the ids of all groups that have had members or commits, in order.
    pub fn groups(&self) -> Vec<String> {
        self.shared.groups().iter().map(|(id, _)| id.to_owned()).collect()
    }

    /// Returns the members of a group; empty if there is no such group.
    pub fn group_members(&self, group: &str) -> Vec<GroupMember> {
        let one = |(id, m): (&str, &Member)| GroupMember {
            member_id: id.to_owned(),
            instance_id: m.instance_id.clone(),
            client_id: m.client_id.clone(),
            assignment: m.assignment.clone(),
        };
        let names = self.shared.cluster().topics.iter().map(|(name, t)| (t.id, name.clone())).collect();
        let consumer_member = |(id, m): (&str, &consumer_group::Member)| GroupMember {
            member_id: id.to_owned(),
            instance_id: m.instance_id.clone(),
            client_id: m.client_id.clone(),
            assignment: encode_assignment(&m.assigned, &names),
        };
        let groups = self.shared.groups();
        let Some(group) = groups.get(group) else { return Vec::new() };
        match group.consumer() {
            Some(consumer) => consumer.members().map(consumer_member).collect(),
            None => group.members().map(one).collect(),
        }
    }

    /// Returns state and generation of a group. A classic group is `Empty`, `PreparingRebalance`,
    /// `CompletingRebalance` or `Stable`; one of the `consumer` protocol `Empty`, `Assigning`,
    /// `Reconciling` or `Stable`, and its generation is the group epoch.
    pub fn group_state(&self, group: &str) -> Option<(&'static str, i32)> {
        let groups = self.shared.groups();
        let group = groups.get(group)?;
        Some((group.state(), group.consumer().map_or(group.generation(), consumer_group::ConsumerGroup::epoch)))
    }

    /// Returns the number of requests with this API key that were received.
    pub fn request_count(&self, api_key: i16) -> u64 {
        self.shared.requests().get(&api_key).copied().unwrap_or(0)
    }

    /// Returns the number of open client connections.
    pub fn connection_count(&self) -> usize {
        self.shared.open_connections()
    }

    fn append(&self, topic: &str, partition: i32, batch: BytesMut) -> Result<i64, BrokerError> {
        let mut cluster = self.shared.cluster();
        let unknown = || BrokerError::UnknownPartition { topic: topic.into(), partition };
        let found = cluster.partition(topic, partition).ok_or_else(unknown)?;
        found.log.append_raw(batch, found.leader_epoch)
    }

    fn with_log<T>(&self, topic: &str, partition: i32, f: impl FnOnce(&mut Log) -> T) -> Result<T, BrokerError> {
        let mut cluster = self.shared.cluster();
        let unknown = || BrokerError::UnknownPartition { topic: topic.into(), partition };
        Ok(f(&mut cluster.partition(topic, partition).ok_or_else(unknown)?.log))
    }
}

fn records(batch: &Batch, start: i64, out: &mut Vec<LogRecord>) -> Result<(), BrokerError> {
    let header = &batch.header;
    let unknown = || BrokerError::InvalidBatch(format!("batch {} has an unsupported codec", header.base_offset));
    for record in batch.records()?.ok_or_else(unknown)? {
        let record = record?;
        let offset = header.base_offset + i64::from(record.offset_delta);
        if offset < start {
            continue;
        }
        let name = |name: Bytes| String::from_utf8_lossy(&name).into_owned();
        out.push(LogRecord {
            offset,
            timestamp: header.base_timestamp.saturating_add(record.timestamp_delta),
            key: record.key,
            value: record.value,
            headers: record.headers.into_iter().map(|(n, value)| (name(n), value)).collect(),
            producer_id: header.producer_id,
        });
    }
    Ok(())
}

/// Encodes an assignment as the leader of a classic group would.
fn encode_assignment(partitions: &Partitions, names: &BTreeMap<Uuid, String>) -> Bytes {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        topics.entry(names.get(topic).map_or("", String::as_str)).or_default().push(*partition);
    }
    let topic = |(name, partitions): (&str, Vec<i32>)| {
        let name = TopicName(StrBytes::from_string(name.to_owned()));
        TopicPartition::default().with_topic(name).with_partitions(partitions)
    };
    let assignment = ConsumerProtocolAssignment::default()
        .with_assigned_partitions(topics.into_iter().map(topic).collect())
        .with_user_data(None);
    let mut out = BytesMut::new();
    out.put_i16(0);
    // No field is long enough to fail.
    let written = assignment.encode(&mut out, 0);
    if written.is_ok() { out.freeze() } else { Bytes::new() }
}
