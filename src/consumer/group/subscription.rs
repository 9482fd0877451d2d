//! The bytes in which members of a group tell each other what they want, have and get: the messages
//! `ConsumerProtocolSubscription` and `ConsumerProtocolAssignment` of the Kafka protocol, each behind its version, and what the
//! sticky assignors put into the former as user data. A group may mix members of any client, so they follow Java to the letter.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition as AssignedTopic;
use kafka_protocol::messages::consumer_protocol_subscription::TopicPartition as OwnedTopic;
use kafka_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};

use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;

/// The protocol type of consumers: other kinds of members (Kafka Connect) have groups of their own.
pub(crate) const PROTOCOL_TYPE: &str = "consumer";
/// What we write, as Java does: later versions only add fields, and whoever knows an older one reads no further.
const WRITE_VERSION: i16 = 3;

/// What a member tells the leader when it joins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) topics: BTreeSet<String>,
    /// For the assignor.
    pub(crate) user_data: Option<Bytes>,
    /// What it has kept; from version 1 on.
    pub(crate) owned: Vec<TopicPartition>,
    /// By whose assignment it has that; from version 2 on.
    pub(crate) generation: Option<i32>,
    /// From version 3 on.
    pub(crate) rack: Option<String>,
}

impl Subscription {
    pub(crate) fn encode(&self) -> Result<Bytes> {
        let owned = by_topic(&self.owned)
            .map(|(topic, partitions)| OwnedTopic::default().with_topic(topic).with_partitions(partitions));
        let text = |s: &String| StrBytes::from_string(s.clone());
        versioned(
            &ConsumerProtocolSubscription::default()
                .with_topics(self.topics.iter().map(text).collect())
                .with_user_data(self.user_data.clone())
                .with_owned_partitions(owned.collect())
                .with_generation_id(self.generation.unwrap_or(-1))
                .with_rack_id(self.rack.as_ref().map(text)),
        )
    }

    /// Of any version: what later ones add stands behind what we know.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let (mut read, version) = Read::versioned(bytes, "subscription")?;
        let topics = (0..read.count(2)?).map(|_| read.string()).collect::<Result<_>>()?;
        let user_data = read.bytes()?.map(Bytes::copy_from_slice);
        Ok(Self {
            topics,
            user_data,
            // An assigner of KafkaJS may say 1 and still write what is in 0.
            owned: if version >= 1 && !read.rest.is_empty() { read.partitions()? } else { Vec::new() },
            generation: if version >= 2 { Some(i32::from_be_bytes(read.array()?)) } else { None },
            rack: if version >= 3 { read.nullable_string()? } else { None },
        })
    }
}

/// What the leader tells a member.
pub(crate) fn encode_assignment(partitions: &[TopicPartition]) -> Result<Bytes> {
    let topics = by_topic(partitions)
        .map(|(topic, partitions)| AssignedTopic::default().with_topic(topic).with_partitions(partitions));
    versioned(&ConsumerProtocolAssignment::default().with_assigned_partitions(topics.collect()))
}

/// The partitions a member was given. No bytes at all are no partitions.
pub(crate) fn decode_assignment(bytes: &[u8]) -> Result<Vec<TopicPartition>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    Read::versioned(bytes, "assignment")?.0.partitions()
}

/// The user data of the assignor `sticky`: what the member had, whether it still has it or not.
pub(in crate::consumer) fn encode_sticky(previous: &[TopicPartition], generation: i32) -> Bytes {
    let mut buf = BytesMut::new();
    let topics: Vec<_> = by_topic(previous).collect();
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

/// The same of any client; one of the first version has no generation.
pub(in crate::consumer) fn decode_sticky(bytes: &[u8]) -> Result<(Vec<TopicPartition>, Option<i32>)> {
    let mut read = Read { rest: bytes, what: "previous assignment" };
    let partitions = read.partitions()?;
    Ok((partitions, read.array().ok().map(i32::from_be_bytes)))
}

fn length(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn by_topic(partitions: &[TopicPartition]) -> impl Iterator<Item = (TopicName, Vec<i32>)> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for p in partitions {
        topics.entry(&p.topic).or_default().push(p.partition);
    }
    topics.into_iter().map(|(name, partitions)| (TopicName(StrBytes::from_string(name.to_owned())), partitions))
}

fn versioned(message: &impl Encodable) -> Result<Bytes> {
    let mut buf = BytesMut::new();
    buf.put_i16(WRITE_VERSION);
    let encoded = message.encode(&mut buf, WRITE_VERSION);
    encoded
        .map_err(|e| Error::with_source(ErrorKind::Unsupported, "a consumer protocol message can't be encoded", e))?;
    Ok(buf.freeze())
}

/// Reads what other members wrote: every length is held against the bytes that are there.
struct Read<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Read<'a> {
    fn versioned(bytes: &'a [u8], what: &'static str) -> Result<(Self, i16)> {
        let mut read = Self { rest: bytes, what };
        let version = i16::from_be_bytes(read.array()?);
        if version < 0 { Err(read.broken("its version is negative")) } else { Ok((read, version)) }
    }

    fn broken(&self, why: &str) -> Error {
        Error::new(ErrorKind::Corrupt, format!("a member's {} can't be decoded: {why}", self.what))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or_else(|| self.broken("it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.broken("it ends too early"))
    }

    /// The length of an array whose elements have `least` bytes at least; null is 0.
    fn count(&mut self, least: usize) -> Result<usize> {
        let n = i32::from_be_bytes(self.array()?);
        let n = usize::try_from(n.max(0)).unwrap_or(0);
        if n > self.rest.len() / least { Err(self.broken("it ends too early")) } else { Ok(n) }
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
        String::from_utf8(taken).map(Some).map_err(|_| self.broken("a name is not UTF-8"))
    }

    fn string(&mut self) -> Result<String> {
        self.nullable_string()?.ok_or_else(|| self.broken("a topic has no name"))
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
