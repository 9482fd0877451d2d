//! The bytes that members of a group exchange through the coordinator: the Kafka messages
//! `ConsumerProtocolSubscription` and `ConsumerProtocolAssignment`, each after its version, and the
//! user data of the sticky assignors in the former. A group may mix members of any client, so they
//! follow Java to the letter.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition as AssignedTopic;
use kafka_protocol::messages::consumer_protocol_subscription::TopicPartition as OwnedTopic;
use kafka_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use kafka_protocol::protocol::Encodable;

use crate::cluster::fields::{partitions_by_topic, text};
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;

/// Protocol type of consumers: other kinds of members, as of Kafka Connect, have groups of their
/// own.
pub(crate) const PROTOCOL_TYPE: &str = "consumer";
/// Version to write, as Java does: later versions only add fields, and a reader of an older one
/// stops before them.
const WRITE_VERSION: i16 = 3;

/// The message of a member to the leader when it joins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) topics: BTreeSet<String>,
    /// Data for the assignor.
    pub(crate) user_data: Option<Bytes>,
    /// Owned partitions; from version 1 on.
    pub(crate) owned: Vec<TopicPartition>,
    /// Generation that assigned them; from version 2 on.
    pub(crate) generation: Option<i32>,
    /// Rack of the member; from version 3 on.
    pub(crate) rack: Option<String>,
}

impl Subscription {
    pub(crate) fn encode(&self) -> Result<Bytes> {
        let owned = partitions_by_topic(&self.owned)
            .map(|(topic, partitions)| OwnedTopic::default().with_topic(topic).with_partitions(partitions));
        versioned(
            &ConsumerProtocolSubscription::default()
                .with_topics(self.topics.iter().map(|topic| text(topic)).collect())
                .with_user_data(self.user_data.clone())
                .with_owned_partitions(owned.collect())
                .with_generation_id(self.generation.unwrap_or(-1))
                .with_rack_id(self.rack.as_deref().map(text)),
        )
    }

    /// Decodes any version: later ones add fields at the end.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let (mut read, version) = Read::versioned(bytes, "subscription")?;
        let topics = (0..read.count(2)?).map(|_| read.string()).collect::<Result<_>>()?;
        let user_data = read.bytes()?.map(Bytes::copy_from_slice);
        Ok(Self {
            topics,
            user_data,
            // An assigner of KafkaJS may write version 1 with the fields of 0.
            owned: if version >= 1 && !read.rest.is_empty() { read.partitions()? } else { Vec::new() },
            generation: if version >= 2 { Some(i32::from_be_bytes(read.array()?)) } else { None },
            rack: if version >= 3 { read.nullable_string()? } else { None },
        })
    }
}

/// Encodes the message of the leader to a member.
pub(crate) fn encode_assignment(partitions: &[TopicPartition]) -> Result<Bytes> {
    let topics = partitions_by_topic(partitions)
        .map(|(topic, partitions)| AssignedTopic::default().with_topic(topic).with_partitions(partitions));
    versioned(&ConsumerProtocolAssignment::default().with_assigned_partitions(topics.collect()))
}

/// Decodes the partitions assigned to a member. No bytes are no partitions.
pub(crate) fn decode_assignment(bytes: &[u8]) -> Result<Vec<TopicPartition>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    Read::versioned(bytes, "assignment")?.0.partitions()
}

/// Encodes the user data of the assignor `sticky`: the member's last assignment, whether it is
/// still owned or not.
pub(in crate::consumer) fn encode_sticky(previous: &[TopicPartition], generation: i32) -> Bytes {
    let mut buf = BytesMut::new();
    let topics: Vec<_> = partitions_by_topic(previous).collect();
    buf.put_i32(length(topics.len()));
    for (topic, partitions) in topics {
        buf.put_i16(i16::try_from(topic.len()).unwrap_or(i16::MAX)); // brokers allow 249 bytes
        buf.put_slice(topic.as_bytes());
        buf.put_i32(length(partitions.len()));
        partitions.into_iter().for_each(|p| buf.put_i32(p));
    }
    buf.put_i32(generation);
    buf.freeze()
}

/// Decodes the user data of the assignor `sticky`; its first version has no generation.
pub(in crate::consumer) fn decode_sticky(bytes: &[u8]) -> Result<(Vec<TopicPartition>, Option<i32>)> {
    let mut read = Read { rest: bytes, what: "previous assignment" };
    let partitions = read.partitions()?;
    Ok((partitions, read.array().ok().map(i32::from_be_bytes)))
}

fn length(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn versioned(message: &impl Encodable) -> Result<Bytes> {
    let mut buf = BytesMut::new();
    buf.put_i16(WRITE_VERSION);
    let encoded = message.encode(&mut buf, WRITE_VERSION);
    encoded
        .map_err(|e| Error::with_source(ErrorKind::Unsupported, "a consumer protocol message can't be encoded", e))?;
    Ok(buf.freeze())
}

/// Reads messages of other members: every length is checked against the remaining bytes.
struct Read<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Read<'a> {
    fn versioned(bytes: &'a [u8], what: &'static str) -> Result<(Self, i16)> {
        let mut read = Self { rest: bytes, what };
        let version = i16::from_be_bytes(read.array()?);
        if version < 0 { Err(read.corrupt("its version is negative")) } else { Ok((read, version)) }
    }

    fn corrupt(&self, why: &str) -> Error {
        Error::new(ErrorKind::Corrupt, format!("a member's {} can't be decoded: {why}", self.what))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or_else(|| self.corrupt("it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.corrupt("it ends too early"))
    }

    /// Reads the length of an array whose elements have at least `min_size` bytes; null is 0.
    fn count(&mut self, min_size: usize) -> Result<usize> {
        let n = i32::from_be_bytes(self.array()?);
        let n = usize::try_from(n.max(0)).unwrap_or(0);
        if n > self.rest.len() / min_size { Err(self.corrupt("it ends too early")) } else { Ok(n) }
    }

    fn bytes(&mut self) -> Result<Option<&'a [u8]>> {
        match usize::try_from(i32::from_be_bytes(self.array()?)) {
            Ok(n) => self.take(n).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn nullable_string(&mut self) -> Result<Option<String>> {
        let Ok(n) = usize::try_from(i16::from_be_bytes(self.array()?)) else { return Ok(None) };
        let taken = self.take(n)?.to_vec();
        String::from_utf8(taken).map(Some).map_err(|_| self.corrupt("a name is not UTF-8"))
    }

    fn string(&mut self) -> Result<String> {
        self.nullable_string()?.ok_or_else(|| self.corrupt("a topic has no name"))
    }

    fn partitions(&mut self) -> Result<Vec<TopicPartition>> {
        let mut all = Vec::new();
        for _ in 0..self.count(6)? {
            let topic: std::sync::Arc<str> = self.string()?.into();
            for _ in 0..self.count(4)? {
                all.push(TopicPartition::new(std::sync::Arc::clone(&topic), i32::from_be_bytes(self.array()?)));
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests;
