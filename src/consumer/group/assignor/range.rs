//! Ranges of consecutive partitions of every topic. Rack-aware, members first get partitions with a
//! replica in their rack, as many as without racks (KIP-881); topics with the same subscribers and
//! as many partitions stay co-partitioned.

use std::collections::{BTreeMap, BTreeSet};

use super::{Assignments, GroupMember, TopicLayout, Topics, empty, is_rack_aware};
use crate::record::TopicPartition;

pub(super) fn assign(topics: &Topics, members: &[&GroupMember]) -> Assignments {
    let mut all: Vec<Topic> = topics.iter().filter_map(|(name, layout)| Topic::new(name, layout, members)).collect();
    if all.iter().any(|t| t.is_rack_aware) {
        match_racks(&mut all);
    }
    let mut out = empty(members);
    for mut topic in all {
        topic.assign_in_turn(|_, _, _| true);
        for (member, assigned) in topic.subscribers.iter().zip(topic.assigned) {
            if let Some(list) = out.get_mut(&member.id) {
                list.extend(assigned.into_iter().map(|p| TopicPartition::new(topic.name, p)));
            }
        }
    }
    out
}

fn match_racks(all: &mut [Topic<'_>]) {
    let mut co_partitioned: BTreeMap<(Vec<&str>, i32), Vec<&mut Topic<'_>>> = BTreeMap::new();
    for topic in all {
        let subscribers = topic.subscribers.iter().map(|m| m.id.as_str()).collect();
        co_partitioned.entry((subscribers, topic.layout.partitions)).or_default().push(topic);
    }
    for ((_, partitions), mut topics) in co_partitioned {
        match topics.as_mut_slice() {
            [one] if one.is_rack_aware => {
                one.assign_in_turn(|layout, member, p| layout.has_replica_in(p, member.rack.as_deref()))
            }
            [_] => {}
            many => assign_co_partitioned(many, partitions),
        }
    }
}

/// Assigns the same partition of all topics to one member.
fn assign_co_partitioned(topics: &mut [&mut Topic<'_>], partitions: i32) {
    let subscribers = topics.first().map_or(0, |t| t.subscribers.len());
    for p in 0..partitions {
        let fits = |i: &usize| {
            topics.iter().all(|t| {
                t.capacity(*i) > 0
                    && t.subscribers.get(*i).is_some_and(|m| t.layout.has_replica_in(p, m.rack.as_deref()))
            })
        };
        if let Some(i) = (0..subscribers).find(fits) {
            topics.iter_mut().for_each(|t| t.assign(i, vec![p]));
        }
    }
}

struct Topic<'a> {
    name: &'a str,
    layout: &'a TopicLayout,
    subscribers: Vec<&'a GroupMember>,
    /// Partitions assigned so far, by subscriber.
    assigned: Vec<Vec<i32>>,
    unassigned: BTreeSet<i32>,
    /// Number of partitions that every subscriber gets.
    quota: usize,
    /// Number of subscribers that may still get one partition above the quota.
    over_quota: usize,
    is_rack_aware: bool,
}

impl<'a> Topic<'a> {
    /// Returns none if nobody subscribes to the topic.
    fn new(name: &'a str, layout: &'a TopicLayout, members: &[&'a GroupMember]) -> Option<Self> {
        let subscribers: Vec<_> = members.iter().copied().filter(|m| m.topics.contains(name)).collect();
        let partitions = usize::try_from(layout.partitions).ok()?;
        Some(Self {
            name,
            layout,
            quota: partitions.checked_div(subscribers.len())?,
            over_quota: partitions.checked_rem(subscribers.len())?,
            assigned: vec![Vec::new(); subscribers.len()],
            unassigned: (0..layout.partitions).collect(),
            is_rack_aware: is_rack_aware(subscribers.iter().copied(), &[layout]),
            subscribers,
        })
    }

    /// Number of partitions that a subscriber may still get.
    fn capacity(&self, subscriber: usize) -> usize {
        let has = self.assigned.get(subscriber).map_or(0, Vec::len);
        (self.quota + usize::from(self.over_quota > 0)).saturating_sub(has)
    }

    fn assign(&mut self, subscriber: usize, partitions: Vec<i32>) {
        let Some(assigned) = self.assigned.get_mut(subscriber) else { return };
        partitions.iter().for_each(|p| _ = self.unassigned.remove(p));
        assigned.extend(partitions);
        assigned.sort_unstable();
        if assigned.len() > self.quota {
            self.over_quota = self.over_quota.saturating_sub(1);
        }
    }

    /// Assigns partitions to one subscriber after the other, as many as it may get.
    fn assign_in_turn(&mut self, may: impl Fn(&TopicLayout, &GroupMember, i32) -> bool) {
        for (i, member) in self.subscribers.clone().into_iter().enumerate() {
            let capacity = self.capacity(i);
            let fit = self.unassigned.iter().copied().filter(|p| may(self.layout, member, *p));
            let fit: Vec<_> = fit.take(capacity).collect();
            if !fit.is_empty() {
                self.assign(i, fit);
            }
        }
    }
}
