//! Ranges of each topic's partitions. Where racks matter, members first take partitions with a replica on their rack, within
//! the same numbers (KIP-881); topics with the same members and as many partitions keep the same numbers together all the same.

use std::collections::{BTreeMap, BTreeSet};

use super::{Assignments, GroupMember, TopicLayout, Topics, empty, racks_matter};
use crate::record::TopicPartition;

pub(super) fn assign(topics: &Topics, members: &[&GroupMember]) -> Assignments {
    let mut all: Vec<Topic> = topics.iter().filter_map(|(name, layout)| Topic::new(name, layout, members)).collect();
    if all.iter().any(|t| t.racks_matter) {
        match_racks(&mut all);
    }
    let mut out = empty(members);
    for mut topic in all {
        topic.fill(|_, _, _| true);
        for (member, taken) in topic.takers.iter().zip(topic.taken) {
            if let Some(list) = out.get_mut(&member.id) {
                list.extend(taken.into_iter().map(|p| TopicPartition::new(topic.name, p)));
            }
        }
    }
    out
}

fn match_racks(all: &mut [Topic<'_>]) {
    let mut alike: BTreeMap<(Vec<&str>, i32), Vec<&mut Topic<'_>>> = BTreeMap::new();
    for topic in all {
        let takers = topic.takers.iter().map(|m| m.id.as_str()).collect();
        alike.entry((takers, topic.layout.partitions)).or_default().push(topic);
    }
    for ((_, partitions), mut topics) in alike {
        match topics.as_mut_slice() {
            [one] if one.racks_matter => one.fill(|layout, member, p| layout.has_replica_in(p, member.rack.as_deref())),
            [_] => {}
            many => together(many, partitions),
        }
    }
}

/// The same number of each topic goes to one member.
fn together(topics: &mut [&mut Topic<'_>], partitions: i32) {
    let takers = topics.first().map_or(0, |t| t.takers.len());
    for p in 0..partitions {
        let fits = |i: &usize| {
            topics.iter().all(|t| {
                t.room(*i) > 0 && t.takers.get(*i).is_some_and(|m| t.layout.has_replica_in(p, m.rack.as_deref()))
            })
        };
        if let Some(i) = (0..takers).find(fits) {
            topics.iter_mut().for_each(|t| t.give(i, vec![p]));
        }
    }
}

struct Topic<'a> {
    name: &'a str,
    layout: &'a TopicLayout,
    /// Who subscribes to it.
    takers: Vec<&'a GroupMember>,
    /// What each of them has.
    taken: Vec<Vec<i32>>,
    free: BTreeSet<i32>,
    each: usize,
    /// How many more get one more.
    extra: usize,
    racks_matter: bool,
}

impl<'a> Topic<'a> {
    /// None if no one wants it.
    fn new(name: &'a str, layout: &'a TopicLayout, members: &[&'a GroupMember]) -> Option<Self> {
        let takers: Vec<_> = members.iter().copied().filter(|m| m.topics.contains(name)).collect();
        let partitions = usize::try_from(layout.partitions).ok()?;
        Some(Self {
            name,
            layout,
            each: partitions.checked_div(takers.len())?,
            extra: partitions.checked_rem(takers.len())?,
            taken: vec![Vec::new(); takers.len()],
            free: (0..layout.partitions).collect(),
            racks_matter: racks_matter(takers.iter().copied(), &[layout]),
            takers,
        })
    }

    /// How many more the taker may get.
    fn room(&self, taker: usize) -> usize {
        let has = self.taken.get(taker).map_or(0, Vec::len);
        (self.each + usize::from(self.extra > 0)).saturating_sub(has)
    }

    fn give(&mut self, taker: usize, partitions: Vec<i32>) {
        let Some(taken) = self.taken.get_mut(taker) else { return };
        partitions.iter().for_each(|p| _ = self.free.remove(p));
        taken.extend(partitions);
        taken.sort_unstable();
        if taken.len() > self.each {
            self.extra = self.extra.saturating_sub(1);
        }
    }

    /// Each taker in turn takes what it may.
    fn fill(&mut self, may: impl Fn(&TopicLayout, &GroupMember, i32) -> bool) {
        for (i, member) in self.takers.clone().into_iter().enumerate() {
            let room = self.room(i);
            let fit = self.free.iter().copied().filter(|p| may(self.layout, member, *p));
            let fit: Vec<_> = fit.take(room).collect();
            if !fit.is_empty() {
                self.give(i, fit);
            }
        }
    }
}
