//! Who reads what: the assignors `range` and `roundrobin` as in Kafka's Java client, and the bytes in which members of a
//! group tell each other (the messages `ConsumerProtocolSubscription` and `ConsumerProtocolAssignment` of the Kafka protocol,
//! each behind its version). A group may mix members of any client, so both follow the Java code to the letter.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition as AssignedTopic;
use kafka_protocol::messages::consumer_protocol_subscription::TopicPartition as OwnedTopic;
use kafka_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};

use crate::config::AssignorKind;
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;

/// The protocol type of consumers: other kinds of members (Kafka Connect) have groups of their own.
pub(crate) const PROTOCOL_TYPE: &str = "consumer";
/// What we write, as Java does: later versions only add fields, and whoever knows an older one reads no further.
const WRITE_VERSION: i16 = 3;

impl AssignorKind {
    /// The name under which members agree on it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
        }
    }

    pub(crate) fn by_name(name: &str) -> Option<Self> {
        [Self::Range, Self::RoundRobin].into_iter().find(|k| k.name() == name)
    }

    /// Shares out the partitions of `counts` (topic to number of partitions); topics without a count do not exist yet.
    /// Every member gets an entry, some an empty one.
    pub(crate) fn assign(self, members: &[GroupMember], counts: &BTreeMap<String, i32>) -> Assignments {
        let mut sorted: Vec<&GroupMember> = members.iter().collect();
        sorted.sort_by(|a, b| a.order(b));
        match self {
            Self::Range => range(&sorted, counts),
            Self::RoundRobin => round_robin(&sorted, counts),
        }
    }
}

/// A member as the leader of the group sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupMember {
    pub(crate) id: String,
    /// Static members have one; it stays the same over restarts.
    pub(crate) instance_id: Option<String>,
    pub(crate) topics: BTreeSet<String>,
}

impl GroupMember {
    /// Static members first, by instance id; then the others by member id.
    fn order(&self, other: &Self) -> Ordering {
        match (&self.instance_id, &other.instance_id) {
            (Some(a), Some(b)) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.id.cmp(&other.id),
        }
    }
}

/// Member id to partitions, in the order in which they were dealt.
pub(crate) type Assignments = HashMap<String, Vec<TopicPartition>>;

fn range(members: &[&GroupMember], counts: &BTreeMap<String, i32>) -> Assignments {
    let mut out = empty(members);
    for (topic, &count) in counts {
        let takers: Vec<_> = members.iter().filter(|m| m.topics.contains(topic)).collect();
        let Ok(n) = i32::try_from(takers.len()) else { continue };
        if n == 0 {
            continue;
        }
        let (each, extra) = (count / n, count % n);
        let mut next = 0;
        for (member, i) in takers.into_iter().zip(0..) {
            let end = next + each + i32::from(i < extra);
            push(&mut out, member, topic, next..end);
            next = end;
        }
    }
    out
}

fn round_robin(members: &[&GroupMember], counts: &BTreeMap<String, i32>) -> Assignments {
    let mut out = empty(members);
    let mut turn = members.iter().cycle().peekable();
    for (topic, &count) in counts {
        if !members.iter().any(|m| m.topics.contains(topic)) {
            continue;
        }
        for partition in 0..count {
            // Ends because someone subscribes to it.
            while turn.next_if(|m| !m.topics.contains(topic)).is_some() {}
            if let Some(member) = turn.next() {
                push(&mut out, member, topic, partition..partition + 1);
            }
        }
    }
    out
}

fn empty(members: &[&GroupMember]) -> Assignments {
    members.iter().map(|m| (m.id.clone(), Vec::new())).collect()
}

fn push(out: &mut Assignments, member: &GroupMember, topic: &str, partitions: std::ops::Range<i32>) {
    if let Some(list) = out.get_mut(&member.id) {
        let topic: std::sync::Arc<str> = topic.into();
        list.extend(partitions.map(|p| TopicPartition::new(std::sync::Arc::clone(&topic), p)));
    }
}

/// What a member tells the leader when it joins; what it `owned` in `generation` it has kept.
pub(crate) fn encode_subscription(
    topics: &BTreeSet<String>,
    owned: &[TopicPartition],
    generation: i32,
) -> Result<Bytes> {
    let topics = topics.iter().map(|t| StrBytes::from_string(t.clone())).collect();
    let owned =
        by_topic(owned).map(|(topic, partitions)| OwnedTopic::default().with_topic(topic).with_partitions(partitions));
    versioned(
        &ConsumerProtocolSubscription::default()
            .with_topics(topics)
            .with_owned_partitions(owned.collect())
            .with_generation_id(generation),
    )
}

/// What the leader tells a member.
pub(crate) fn encode_assignment(partitions: &[TopicPartition]) -> Result<Bytes> {
    let topics = by_topic(partitions)
        .map(|(topic, partitions)| AssignedTopic::default().with_topic(topic).with_partitions(partitions));
    versioned(&ConsumerProtocolAssignment::default().with_assigned_partitions(topics.collect()))
}

fn by_topic(partitions: &[TopicPartition]) -> impl Iterator<Item = (TopicName, Vec<i32>)> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for p in partitions {
        topics.entry(&p.topic).or_default().push(p.partition);
    }
    let named = |(name, partitions): (&str, _)| (TopicName(StrBytes::from_string(name.to_owned())), partitions);
    topics.into_iter().map(named).collect::<Vec<_>>().into_iter()
}

fn versioned(message: &impl Encodable) -> Result<Bytes> {
    let mut buf = BytesMut::new();
    buf.put_i16(WRITE_VERSION);
    let encoded = message.encode(&mut buf, WRITE_VERSION);
    encoded
        .map_err(|e| Error::with_source(ErrorKind::Unsupported, "a consumer protocol message can't be encoded", e))?;
    Ok(buf.freeze())
}

/// The topics of a member's subscription, of any version: what later ones add stands behind them.
pub(crate) fn decode_subscription(bytes: &[u8]) -> Result<BTreeSet<String>> {
    let mut read = Read::new(bytes, "subscription")?;
    (0..read.count(2)?).map(|_| read.string()).collect()
}

/// The partitions a member was given. No bytes at all are no partitions.
pub(crate) fn decode_assignment(bytes: &[u8]) -> Result<Vec<TopicPartition>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut read = Read::new(bytes, "assignment")?;
    let mut all = Vec::new();
    for _ in 0..read.count(6)? {
        let topic: std::sync::Arc<str> = read.string()?.into();
        for _ in 0..read.count(4)? {
            all.push(TopicPartition::new(std::sync::Arc::clone(&topic), i32::from_be_bytes(read.array()?)));
        }
    }
    Ok(all)
}

/// Reads what other members wrote: every length is held against the bytes that are there.
struct Read<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Read<'a> {
    fn new(bytes: &'a [u8], what: &'static str) -> Result<Self> {
        let mut read = Self { rest: bytes, what };
        let version = i16::from_be_bytes(read.array()?);
        if version < 0 { Err(read.broken("its version is negative")) } else { Ok(read) }
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

    fn string(&mut self) -> Result<String> {
        let n = i16::from_be_bytes(self.array()?);
        let n = usize::try_from(n).map_err(|_| self.broken("a topic has no name"))?;
        let taken = self.take(n)?.to_vec();
        String::from_utf8(taken).map_err(|_| self.broken("a topic's name is not UTF-8"))
    }
}

#[cfg(test)]
#[path = "assignor_tests.rs"]
mod tests;
