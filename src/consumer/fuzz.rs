//! Targets of fuzzing in what brokers and members of a group send to a consumer: see `crate::fuzzing`.

use std::collections::HashSet;

use kafka_protocol::messages::fetch_response::AbortedTransaction;

use super::fetch::decode::{AbortedTransactions, DecodeLimits, decode_fetch};
use super::group::subscription::{Subscription, decode_assignment, decode_sticky};
use crate::assignor::{Assignor, GroupMember, TopicLayout, Topics};
use crate::config::AssignorKind;
use crate::record::{self, BufferPool};

const LIMIT: usize = 256 << 10;

/// A partition of a fetch response. Records are at the requested offsets, in the order of their offsets as long as
/// their batches are, and the position never goes back.
pub(crate) fn records(data: &[u8]) {
    let bytes = record::fuzz::batches(data);
    let wire = bytes.len();
    let offset = i64::from(data.last().copied().unwrap_or_default() % 8);
    let aborted = AbortedTransaction::default().with_first_offset(offset);
    let limits =
        DecodeLimits { max_decompressed: LIMIT, max_memory: LIMIT, log_end: i64::MAX, buffers: BufferPool::default() };
    let decoded = decode_fetch(bytes, offset, Some(AbortedTransactions::new(&[aborted])), limits);
    assert!(decoded.next_offset >= offset && decoded.used_bytes <= wire);
    for record in &decoded.records {
        assert!((offset..decoded.next_offset).contains(&record.offset));
        assert_eq!(record.headers.iter().count(), record.headers.len());
    }
}

/// Metadata of group members, piece by piece, each after its length: assignments have existing partitions, and none is
/// given twice.
pub(crate) fn group(data: &[u8]) {
    _ = decode_assignment(data);
    _ = decode_sticky(data);
    let mut members = Vec::new();
    let mut rest = data;
    while let [len, behind @ ..] = rest {
        let (metadata, behind) = behind.split_at(usize::from(*len).min(behind.len()));
        if let Ok(subscription) = Subscription::decode(metadata) {
            members.push(GroupMember::subscribed(format!("m{}", members.len()), None, subscription));
        }
        rest = behind;
    }
    let layout = |(name, partitions): (&str, i32)| (name.to_owned(), TopicLayout::new(partitions));
    let topics: Topics = [("a", 3), ("b", 5), ("c", 0), ("aa", 1)].into_iter().map(layout).collect();
    use AssignorKind::{CooperativeSticky, KafkaJs, Range, RoundRobin, Sticky};
    for assignor in [Range, RoundRobin, KafkaJs, Sticky, CooperativeSticky] {
        let shares = assignor.assign(&topics, &members);
        let mut given = HashSet::new();
        for p in shares.into_values().flatten() {
            let exists = topics.get(&*p.topic).is_some_and(|t| (0..t.partitions).contains(&p.partition));
            assert!(exists, "{} gave {p}, which does not exist", assignor.name());
            assert!(given.insert(p.clone()), "{} gave {p} twice", assignor.name());
        }
    }
}

/// A member's metadata by chance, as [`group`] wants it.
#[cfg(test)]
pub(crate) fn sample(rng: &mut fastrand::Rng) -> Vec<u8> {
    use crate::TopicPartition;

    let mut all = Vec::new();
    for _ in 0..rng.usize(1..5) {
        let names = ["a", "b", "c", "d"];
        let mut partitions = || -> Vec<_> {
            let n = rng.usize(..4);
            (0..n).map(|_| TopicPartition::new(names[rng.usize(..4)], rng.i32(-1..6))).collect()
        };
        let (owned, previous) = (partitions(), partitions());
        let subscription = Subscription {
            topics: names.iter().filter(|_| rng.bool()).map(|name| (*name).to_owned()).collect(),
            user_data: rng.bool().then(|| super::group::subscription::encode_sticky(&previous, rng.i32(-1..4))),
            owned,
            generation: rng.bool().then(|| rng.i32(-1..4)),
            rack: rng.bool().then(|| "r".to_owned()),
        };
        let metadata = subscription.encode().unwrap_or_default();
        all.push(metadata.len() as u8);
        all.extend(metadata);
    }
    all
}
