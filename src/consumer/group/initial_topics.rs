//! The topics of a consumer as they were when it started.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use crate::cluster::Snapshot;
use crate::record::TopicPartition;

/// Distinguishes new partitions from old ones. Without a committed offset, `offset_reset` = latest
/// means the end of the log at that time: for a partition that did not exist yet, that is its
/// beginning.
#[derive(Debug, Default)]
pub(super) struct InitialTopics(HashMap<String, (Option<Uuid>, usize)>);

impl InitialTopics {
    pub(super) fn new(snapshot: &Snapshot, topics: &BTreeSet<String>) -> Self {
        let initial = topics.iter().filter_map(|name| {
            let topic = snapshot.topics.get(name.as_str())?;
            Some((name.clone(), (topic.id, topic.partitions.len())))
        });
        Self(initial.collect())
    }

    /// Handles a change of the subscription: all partitions of `new_topics` are new.
    pub(super) fn set(&mut self, snapshot: &Snapshot, topics: &BTreeSet<String>, new_topics: &BTreeSet<String>) {
        let added = topics.iter().filter(|name| !self.0.contains_key(*name)).cloned().collect();
        let Self(added) = Self::new(snapshot, &added);
        self.0.retain(|name, _| topics.contains(name));
        self.0.extend(added);
        self.0.extend(new_topics.iter().map(|name| (name.clone(), (None, 0))));
    }

    /// Returns whether a partition was created since; all partitions of a topic that was deleted
    /// and created again are.
    pub(super) fn is_new_partition(&self, p: &TopicPartition, snapshot: &Snapshot) -> bool {
        let Some((id, partitions)) = self.0.get(&*p.topic) else { return false };
        let current = snapshot.topics.get(&p.topic).and_then(|topic| topic.id);
        let recreated = id.is_some() && current.is_some() && *id != current;
        recreated || usize::try_from(p.partition).is_ok_and(|index| index >= *partitions)
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};

    use super::*;
    use crate::cluster::topic_meta;

    fn snapshot(id: u128, partitions: i32) -> Snapshot {
        let partition =
            |index| MetadataResponsePartition::default().with_partition_index(index).with_leader_id(1.into());
        let topic = MetadataResponseTopic::default()
            .with_topic_id(Uuid::from_u128(id))
            .with_partitions((0..partitions).map(partition).collect());
        let mut snapshot = Snapshot::empty();
        snapshot.topics.insert(topic_meta("t".into(), &topic, None));
        snapshot
    }

    #[test]
    fn partitions_created_later_are_new() {
        let topics = BTreeSet::from(["t".to_owned()]);
        let known = InitialTopics::new(&snapshot(1, 2), &topics);
        let is_new = |id, p| known.is_new_partition(&TopicPartition::new("t", p), &snapshot(id, 3));
        assert_eq!([is_new(1, 0), is_new(1, 1), is_new(1, 2)], [false, false, true]);
        assert!(is_new(2, 0), "the topic was created again");
        assert!(!known.is_new_partition(&TopicPartition::new("other", 5), &snapshot(1, 3)));
    }

    #[test]
    fn topics_that_are_created_later_are_new_and_others_that_are_added_are_not() {
        let of = |name: &str| BTreeSet::from([name.to_owned()]);
        let is_new = |new_topics: &BTreeSet<String>| {
            let mut known = InitialTopics::new(&Snapshot::empty(), &of("before"));
            known.set(&snapshot(1, 2), &of("t"), new_topics);
            [0, 1, 2].map(|p| known.is_new_partition(&TopicPartition::new("t", p), &snapshot(1, 3)))
        };
        assert_eq!(is_new(&BTreeSet::new()), [false, false, true]);
        assert_eq!(is_new(&of("t")), [true; 3]);
    }
}
