//! Fields that several requests have.

use std::collections::BTreeMap;

use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;

use crate::config::IsolationLevel;
use crate::record::TopicPartition;

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// Encodes an isolation level.
pub(crate) fn isolation(level: IsolationLevel) -> i8 {
    match level {
        IsolationLevel::ReadUncommitted => 0,
        IsolationLevel::ReadCommitted => 1,
    }
}

/// Groups partitions by topic, as requests have them.
pub(crate) fn by_topic<T>(
    all: impl IntoIterator<Item = (TopicPartition, T)>,
) -> BTreeMap<std::sync::Arc<str>, Vec<(i32, T)>> {
    let mut topics: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (p, item) in all {
        topics.entry(p.topic).or_default().push((p.partition, item));
    }
    topics
}
