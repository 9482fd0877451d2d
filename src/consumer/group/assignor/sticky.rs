//! As even as can be, and then as much as can be where it was before.
//!
//! What members had is the beginning. What is free goes to whoever has least. Then partitions move, along the shortest path of
//! members that each take one and give one away, from a member to one that has at least two less; when no such path is left, no
//! other way to share out is more even. At last, where racks matter, partitions change places with others as long as that brings
//! one to a member on a rack with a replica of it and leaves all as even as it was.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::{Assignments, GroupMember, TopicLayout, Topics, racks_matter};
use crate::record::TopicPartition;

/// What a member had, and in which generation; -1 if that is not known.
type Claim = (Vec<TopicPartition>, i32);

pub(super) fn assign(topics: &Topics, members: &[&GroupMember], claim: impl Fn(&GroupMember) -> Claim) -> Assignments {
    let mut board = Board::new(topics, members);
    board.keep(&owners(members, &claim));
    board.place_the_rest();
    while board.even_out() {}
    if board.racks_matter {
        board.match_racks();
    }
    board.assignments()
}

/// Takes from the shares what another member has and must give up first, unless the newer claim is that of the one that is to
/// have it. It is free in the next round.
pub(super) fn withhold(shares: &mut Assignments, members: &[&GroupMember], claim: impl Fn(&GroupMember) -> Claim) {
    let owners = owners(members, &claim);
    let mut claimants: HashMap<TopicPartition, Vec<&str>> = HashMap::new();
    for m in members {
        for p in claim(m).0 {
            claimants.entry(p).or_default().push(&m.id);
        }
    }
    for (member, share) in shares {
        share.retain(|p| {
            let owner = owners.get(p).and_then(|i| members.get(*i));
            owner.is_some_and(|m| m.id == *member)
                || claimants.get(p).is_none_or(|c| c.iter().all(|claimant| claimant == member))
        });
    }
}

/// The member that has a partition by the newest claim; no one, if two claim it in the same generation.
fn owners(members: &[&GroupMember], claim: impl Fn(&GroupMember) -> Claim) -> HashMap<TopicPartition, usize> {
    let mut newest: HashMap<TopicPartition, (i32, Option<usize>)> = HashMap::new();
    for (i, member) in members.iter().enumerate() {
        let (partitions, generation) = claim(member);
        for p in partitions.into_iter().collect::<BTreeSet<_>>() {
            let held = newest.entry(p).or_insert((generation, Some(i)));
            if held.1 == Some(i) {
                continue;
            }
            match generation.cmp(&held.0) {
                std::cmp::Ordering::Greater => *held = (generation, Some(i)),
                std::cmp::Ordering::Equal => held.1 = None,
                std::cmp::Ordering::Less => {}
            }
        }
    }
    newest.into_iter().filter_map(|(p, (_, owner))| Some((p, owner?))).collect()
}

struct Topic<'a> {
    name: &'a str,
    layout: &'a TopicLayout,
    /// Members that subscribe to it.
    takers: Vec<usize>,
}

/// A partition, by the place of its topic.
type Part = (usize, i32);

/// Who has what so far.
struct Board<'a> {
    members: &'a [&'a GroupMember],
    topics: Vec<Topic<'a>>,
    /// By member: partitions by topic.
    has: Vec<BTreeMap<usize, BTreeSet<i32>>>,
    count: Vec<usize>,
    /// Where partitions were before.
    before: HashMap<Part, usize>,
    racks_matter: bool,
}

impl<'a> Board<'a> {
    fn new(topics: &'a Topics, members: &'a [&'a GroupMember]) -> Self {
        let takers = |name: &String| {
            members.iter().enumerate().filter(|(_, m)| m.topics.contains(name)).map(|(i, _)| i).collect::<Vec<_>>()
        };
        let topics: Vec<_> = topics
            .iter()
            .map(|(name, layout)| Topic { name, layout, takers: takers(name) })
            .filter(|t| !t.takers.is_empty())
            .collect();
        let layouts: Vec<_> = topics.iter().map(|t| t.layout).collect();
        Self {
            racks_matter: racks_matter(members.iter().copied(), &layouts),
            members,
            topics,
            has: vec![BTreeMap::new(); members.len()],
            count: vec![0; members.len()],
            before: HashMap::new(),
        }
    }

    fn give(&mut self, member: usize, (topic, p): Part) {
        if let (Some(has), Some(count)) = (self.has.get_mut(member), self.count.get_mut(member)) {
            has.entry(topic).or_default().insert(p);
            *count += 1;
        }
    }

    fn take(&mut self, member: usize, (topic, p): Part) {
        if let (Some(has), Some(count)) = (self.has.get_mut(member), self.count.get_mut(member)) {
            if has.get_mut(&topic).is_some_and(|partitions| partitions.remove(&p)) {
                *count -= 1;
                has.retain(|_, partitions| !partitions.is_empty());
            }
        }
    }

    fn count(&self, member: usize) -> usize {
        self.count.get(member).copied().unwrap_or(0)
    }

    fn takers(&self, topic: usize) -> &[usize] {
        self.topics.get(topic).map_or(&[], |t| &t.takers)
    }

    fn parts(&self, member: usize) -> impl Iterator<Item = Part> + '_ {
        self.has
            .get(member)
            .into_iter()
            .flatten()
            .flat_map(|(topic, partitions)| partitions.iter().map(|p| (*topic, *p)))
    }

    /// Whether the member is on a rack with a replica, or on none.
    fn is_near(&self, member: usize, (topic, p): Part) -> bool {
        let rack = self.members.get(member).and_then(|m| m.rack.as_deref());
        self.topics.get(topic).is_some_and(|t| t.layout.has_replica_in(p, rack))
    }

    fn keep(&mut self, owners: &HashMap<TopicPartition, usize>) {
        for (i, topic) in self.topics.iter().enumerate() {
            for p in 0..topic.layout.partitions {
                let owner = owners.get(&TopicPartition::new(topic.name, p));
                if let Some(owner) = owner.filter(|owner| topic.takers.contains(owner)) {
                    self.before.insert((i, p), *owner);
                }
            }
        }
        for (part, owner) in self.before.clone() {
            self.give(owner, part);
        }
    }

    /// Those that fewer members want first: the others find room elsewhere.
    fn place_the_rest(&mut self) {
        let mut order: Vec<_> = (0..self.topics.len()).collect();
        order.sort_by_key(|topic| self.takers(*topic).len());
        for topic in order {
            for p in 0..self.topics.get(topic).map_or(0, |t| t.layout.partitions) {
                if self.before.contains_key(&(topic, p)) {
                    continue;
                }
                let far = |m: usize| self.racks_matter && !self.is_near(m, (topic, p));
                let least = self.takers(topic).iter().copied().min_by_key(|m| (self.count(*m), far(*m), *m));
                if let Some(member) = least {
                    self.give(member, (topic, p));
                }
            }
        }
    }

    /// Moves partitions along one path; whether there was one.
    fn even_out(&mut self) -> bool {
        let mut sources: Vec<_> = (0..self.members.len()).collect();
        sources.sort_by_key(|m| std::cmp::Reverse(self.count(*m)));
        // From what a fuller member reaches nothing is left to gain, for it has found nothing there.
        let mut seen = BTreeSet::new();
        let mut seen_topics = BTreeSet::new();
        for source in sources {
            if !seen.insert(source) {
                continue;
            }
            let mut came: HashMap<usize, (usize, usize)> = HashMap::new();
            let mut queue = VecDeque::from([source]);
            let mut best: Option<usize> = None;
            while let Some(at) = queue.pop_front() {
                let topics: Vec<_> = self.has.get(at).into_iter().flat_map(BTreeMap::keys).copied().collect();
                for topic in topics.into_iter().filter(|t| seen_topics.insert(*t)) {
                    for &next in self.takers(topic) {
                        if seen.insert(next) {
                            came.insert(next, (at, topic));
                            queue.push_back(next);
                            if best.is_none_or(|b| self.count(next) < self.count(b)) {
                                best = Some(next);
                            }
                        }
                    }
                }
            }
            if let Some(target) = best.filter(|b| self.count(*b) + 2 <= self.count(source)) {
                self.shift(target, &came);
                return true;
            }
        }
        false
    }

    /// Along the path that ends at `to`, each member gives one partition to the next, from the end on.
    fn shift(&mut self, mut to: usize, came: &HashMap<usize, (usize, usize)>) {
        while let Some(&(from, topic)) = came.get(&to) {
            let parts = self.parts(from).filter(|(t, _)| *t == topic);
            // What has moved anyway first, then what comes nearer.
            let choice = parts.min_by_key(|part| {
                let stays = self.before.get(part) == Some(&from);
                let farther = self.racks_matter && self.is_near(from, *part) && !self.is_near(to, *part);
                (self.before.get(part) != Some(&to), stays, farther, std::cmp::Reverse(*part))
            });
            if let Some(part) = choice {
                self.take(from, part);
                self.give(to, part);
            }
            to = from;
        }
    }

    fn match_racks(&mut self) {
        for member in 0..self.members.len() {
            let far: Vec<_> = self.parts(member).filter(|part| !self.is_near(member, *part)).collect();
            for part in far {
                if let Some((other, back)) = self.nearer(member, part) {
                    self.take(member, part);
                    self.give(other, part);
                    if let Some(back) = back {
                        self.take(other, back);
                        self.give(member, back);
                    }
                }
            }
        }
    }

    /// Who should have it instead, and what to take for it: nothing, if that one has one less anyway.
    fn nearer(&self, member: usize, part: Part) -> Option<(usize, Option<Part>)> {
        let near: Vec<_> =
            self.takers(part.0).iter().copied().filter(|m| *m != member && self.is_near(*m, part)).collect();
        if let Some(fewer) = near.iter().find(|m| self.count(**m) < self.count(member)) {
            return Some((*fewer, None));
        }
        let swap = |other: &usize| {
            let fits = |back: &Part| self.takers(back.0).contains(&member);
            let gains = |back: &Part| self.is_near(member, *back) || !self.is_near(*other, *back);
            let all = self.parts(*other).filter(|back| fits(back) && gains(back));
            let back = all.min_by_key(|back| (!self.is_near(member, *back), self.before.get(back) == Some(other)))?;
            Some((*other, Some(back)))
        };
        near.iter().find_map(swap)
    }

    fn assignments(&self) -> Assignments {
        let list = |member: usize| {
            let name = |(topic, p): Part| self.topics.get(topic).map(|t| TopicPartition::new(t.name, p));
            self.parts(member).filter_map(name).collect()
        };
        self.members.iter().enumerate().map(|(i, m)| (m.id.clone(), list(i))).collect()
    }
}
