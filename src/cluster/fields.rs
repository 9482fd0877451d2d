//! Fields that several requests have.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::{GroupId, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::config::IsolationLevel;
use crate::record::TopicPartition;

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub(crate) fn group_id(group: &str) -> GroupId {
    GroupId(text(group))
}

/// Encodes a duration in milliseconds; one that is too long as the maximum.
pub(crate) fn millis(d: Duration) -> i32 {
    i32::try_from(d.as_millis()).unwrap_or(i32::MAX)
}

/// Encodes an isolation level.
pub(crate) fn isolation(level: IsolationLevel) -> i8 {
    match level {
        IsolationLevel::ReadUncommitted => 0,
        IsolationLevel::ReadCommitted => 1,
    }
}

/// Groups partitions by topic, and encodes each topic with its partitions.
pub(crate) fn encode_topics<T, E>(
    all: impl IntoIterator<Item = (TopicPartition, T)>,
    partition: impl Fn(i32, T) -> E,
) -> impl Iterator<Item = (TopicName, Vec<E>)> {
    let mut topics: BTreeMap<Arc<str>, Vec<E>> = BTreeMap::new();
    for (p, item) in all {
        topics.entry(p.topic).or_default().push(partition(p.partition, item));
    }
    topics.into_iter().map(|(topic, partitions)| (topic_name(&topic), partitions))
}

/// Groups partitions by topic, as requests have them.
pub(crate) fn partitions_by_topic<'a>(
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
) -> impl Iterator<Item = (TopicName, Vec<i32>)> {
    encode_topics(partitions.into_iter().map(|p| (p.clone(), ())), |index, ()| index)
}
