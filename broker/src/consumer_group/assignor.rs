//! Kafka's server-side assignors: `uniform` and `range`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Member, Partitions, Topics};

/// Server-side assignor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Assignor {
    /// Assigns consecutive partitions of each topic, the same of every topic to one member.
    Range,
    /// Assigns evenly, with as few moves as possible.
    #[default]
    Uniform,
}

impl Assignor {
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Uniform, Self::Range].into_iter().find(|a| a.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// Returns the partitions of each member; `previous` is the last target assignment.
    pub(super) fn assign(
        self,
        members: &BTreeMap<String, Member>,
        previous: &BTreeMap<String, Partitions>,
        topics: &Topics,
    ) -> BTreeMap<String, Partitions> {
        match self {
            Self::Range => range(members, topics),
            Self::Uniform => uniform(members, previous, topics),
        }
    }
}

/// Static members come first, by instance id, which survives a restart; then the others, by member
/// id.
fn range(members: &BTreeMap<String, Member>, topics: &Topics) -> BTreeMap<String, Partitions> {
    let mut order: Vec<(&String, &Member)> = members.iter().collect();
    order.sort_by_key(|(id, m)| (m.instance_id.is_none(), m.instance_id.clone(), (*id).clone()));
    let mut assignment: BTreeMap<String, Partitions> =
        members.keys().map(|id| (id.clone(), Partitions::new())).collect();
    for (name, &(topic, count)) in topics {
        let subscribers: Vec<&String> =
            order.iter().filter(|(_, m)| m.topics.contains(name)).map(|(id, _)| *id).collect();
        let n = i32::try_from(subscribers.len()).unwrap_or(i32::MAX).max(1);
        let (each, more) = (count / n, count % n);
        let mut next = 0;
        for (i, id) in (0..).zip(subscribers) {
            let end = next + each + i32::from(i < more);
            if let Some(assigned) = assignment.get_mut(id) {
                assigned.extend((next..end).map(|p| (topic, p)));
            }
            next = end;
        }
    }
    assignment
}

fn uniform(
    members: &BTreeMap<String, Member>,
    previous: &BTreeMap<String, Partitions>,
    topics: &Topics,
) -> BTreeMap<String, Partitions> {
    let ids = |m: &Member| m.topics.iter().filter_map(|t| Some(topics.get(t)?.0)).collect::<BTreeSet<_>>();
    let subscriptions: BTreeMap<&String, BTreeSet<_>> = members.iter().map(|(id, m)| (id, ids(m))).collect();
    let mut unassigned: Partitions =
        topics.values().flat_map(|&(topic, count)| (0..count).map(move |p| (topic, p))).collect();
    let mut assignment: BTreeMap<String, Partitions> = BTreeMap::new();
    for (id, wanted) in &subscriptions {
        let owned = previous.get(*id).into_iter().flatten();
        let kept: Partitions = owned.filter(|p| wanted.contains(&p.0) && unassigned.contains(p)).copied().collect();
        unassigned.retain(|p| !kept.contains(p));
        assignment.insert((*id).clone(), kept);
    }
    let subscribers =
        |topic| subscriptions.iter().filter(move |(_, w)| w.contains(&topic)).map(|(id, _)| (*id).clone());
    for p in unassigned {
        let smallest = subscribers(p.0).min_by_key(|id| assignment.get(id).map_or(0, BTreeSet::len));
        if let Some(assigned) = smallest.and_then(|id| assignment.get_mut(&id)) {
            assigned.insert(p);
        }
    }
    // Moves one partition at a time from a member to one that has two fewer. Each move makes the
    // sum of squares smaller, so the loop ends.
    while let Some((from, to, p)) = next_move(&assignment, subscribers) {
        assignment.entry(from).or_default().remove(&p);
        assignment.entry(to).or_default().insert(p);
    }
    assignment
}

fn next_move<I: Iterator<Item = String>>(
    assignment: &BTreeMap<String, Partitions>,
    subscribers: impl Fn(uuid::Uuid) -> I,
) -> Option<(String, String, (uuid::Uuid, i32))> {
    let size = |id: &String| assignment.get(id).map_or(0, BTreeSet::len);
    let mut fullest: Vec<&String> = assignment.keys().collect();
    fullest.sort_by_key(|id| std::cmp::Reverse(size(id)));
    fullest.into_iter().find_map(|from| {
        assignment.get(from)?.iter().rev().find_map(|p| {
            let to = subscribers(p.0).min_by_key(&size)?;
            (size(&to) + 2 <= size(from)).then(|| (from.clone(), to, *p))
        })
    })
}
