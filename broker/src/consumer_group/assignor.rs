//! The assignors that Kafka has at the broker: `uniform` and `range`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Member, Partitions, Topics};

/// Who shares the partitions out among the members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Assignor {
    /// As few as possible of each topic next to each other: the same numbers of every topic go to one member.
    Range,
    /// As evenly as possible, and moving as few as possible.
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

    /// The partitions of each member; `before` is what the last target was.
    pub(super) fn assign(
        self,
        members: &BTreeMap<String, Member>,
        before: &BTreeMap<String, Partitions>,
        topics: &Topics,
    ) -> BTreeMap<String, Partitions> {
        match self {
            Self::Range => range(members, topics),
            Self::Uniform => uniform(members, before, topics),
        }
    }
}

/// Static members first, by instance, for their order outlives a restart; then the others, by id.
fn range(members: &BTreeMap<String, Member>, topics: &Topics) -> BTreeMap<String, Partitions> {
    let mut order: Vec<(&String, &Member)> = members.iter().collect();
    order.sort_by_key(|(id, m)| (m.instance_id.is_none(), m.instance_id.clone(), (*id).clone()));
    let mut shares: BTreeMap<String, Partitions> = members.keys().map(|id| (id.clone(), Partitions::new())).collect();
    for (name, &(topic, count)) in topics {
        let takers: Vec<&String> = order.iter().filter(|(_, m)| m.topics.contains(name)).map(|(id, _)| *id).collect();
        let n = i32::try_from(takers.len()).unwrap_or(i32::MAX).max(1);
        let (each, more) = (count / n, count % n);
        let mut next = 0;
        for (i, id) in (0..).zip(takers) {
            let end = next + each + i32::from(i < more);
            if let Some(share) = shares.get_mut(id) {
                share.extend((next..end).map(|p| (topic, p)));
            }
            next = end;
        }
    }
    shares
}

fn uniform(
    members: &BTreeMap<String, Member>,
    before: &BTreeMap<String, Partitions>,
    topics: &Topics,
) -> BTreeMap<String, Partitions> {
    let ids = |m: &Member| m.topics.iter().filter_map(|t| Some(topics.get(t)?.0)).collect::<BTreeSet<_>>();
    let wants: BTreeMap<&String, BTreeSet<_>> = members.iter().map(|(id, m)| (id, ids(m))).collect();
    let mut free: Partitions =
        topics.values().flat_map(|&(topic, count)| (0..count).map(move |p| (topic, p))).collect();
    let mut shares: BTreeMap<String, Partitions> = BTreeMap::new();
    for (id, wanted) in &wants {
        let had = before.get(*id).into_iter().flatten();
        let keeps: Partitions = had.filter(|p| wanted.contains(&p.0) && free.contains(p)).copied().collect();
        free.retain(|p| !keeps.contains(p));
        shares.insert((*id).clone(), keeps);
    }
    let takers = |topic| wants.iter().filter(move |(_, w)| w.contains(&topic)).map(|(id, _)| (*id).clone());
    for p in free {
        let least = takers(p.0).min_by_key(|id| shares.get(id).map_or(0, BTreeSet::len));
        if let Some(share) = least.and_then(|id| shares.get_mut(&id)) {
            share.insert(p);
        }
    }
    // One partition at a time goes from a member to one that has two fewer, until there is none: each move makes the sum of
    // squares smaller, so it ends.
    while let Some((from, to, p)) = next_move(&shares, takers) {
        shares.entry(from).or_default().remove(&p);
        shares.entry(to).or_default().insert(p);
    }
    shares
}

fn next_move<I: Iterator<Item = String>>(
    shares: &BTreeMap<String, Partitions>,
    takers: impl Fn(uuid::Uuid) -> I,
) -> Option<(String, String, (uuid::Uuid, i32))> {
    let size = |id: &String| shares.get(id).map_or(0, BTreeSet::len);
    let mut fullest: Vec<&String> = shares.keys().collect();
    fullest.sort_by_key(|id| std::cmp::Reverse(size(id)));
    fullest.into_iter().find_map(|from| {
        shares.get(from)?.iter().rev().find_map(|p| {
            let to = takers(p.0).min_by_key(&size)?;
            (size(&to) + 2 <= size(from)).then(|| (from.clone(), to, *p))
        })
    })
}
