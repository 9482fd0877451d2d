//! As balanced as possible first, then with as few moves as possible.
//!
//! 1. Members start with what they owned.
//! 2. Unowned partitions go to the member with the fewest.
//! 3. Partitions move from a member to one that owns at least two less, along the shortest path of
//!    members that each get one and lose one. Without such a path left, no assignment is more
//!    balanced.
//! 4. Rack-aware, partitions swap places while that brings one into a rack with a replica of it and
//!    keeps the balance.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::{Assignments, GroupMember, TopicLayout, Topics, is_rack_aware};
use crate::record::TopicPartition;

/// Partitions that a member says it owned, and their generation; -1 if it is not known.
type Claim = (Vec<TopicPartition>, i32);

pub(super) fn assign(topics: &Topics, members: &[&GroupMember], claim: impl Fn(&GroupMember) -> Claim) -> Assignments {
    let mut balancer = Balancer::new(topics, members);
    balancer.keep_previous(&owners(members, &claim));
    balancer.assign_unowned();
    while balancer.move_towards_balance() {}
    if balancer.is_rack_aware {
        balancer.match_racks();
    }
    balancer.assignments()
}

/// Removes partitions that another member still owns and must revoke first, unless their new owner
/// has the newer claim. The next rebalance assigns them.
pub(super) fn withhold(assignments: &mut Assignments, members: &[&GroupMember], claim: impl Fn(&GroupMember) -> Claim) {
    let owners = owners(members, &claim);
    let mut claimants: HashMap<TopicPartition, Vec<&str>> = HashMap::new();
    for m in members {
        for p in claim(m).0 {
            claimants.entry(p).or_default().push(&m.id);
        }
    }
    for (member, assignment) in assignments {
        assignment.retain(|p| {
            let owner = owners.get(p).and_then(|i| members.get(*i));
            owner.is_some_and(|m| m.id == *member)
                || claimants.get(p).is_none_or(|c| c.iter().all(|claimant| claimant == member))
        });
    }
}

/// Returns the owner of each partition by the newest claim; it has none if two members claim it in
/// the same generation.
fn owners(members: &[&GroupMember], claim: impl Fn(&GroupMember) -> Claim) -> HashMap<TopicPartition, usize> {
    let mut newest: HashMap<TopicPartition, (i32, Option<usize>)> = HashMap::new();
    for (i, member) in members.iter().enumerate() {
        let (partitions, generation) = claim(member);
        for p in partitions.into_iter().collect::<BTreeSet<_>>() {
            let newest_claim = newest.entry(p).or_insert((generation, Some(i)));
            if newest_claim.1 == Some(i) {
                continue;
            }
            match generation.cmp(&newest_claim.0) {
                std::cmp::Ordering::Greater => *newest_claim = (generation, Some(i)),
                std::cmp::Ordering::Equal => newest_claim.1 = None,
                std::cmp::Ordering::Less => {}
            }
        }
    }
    newest.into_iter().filter_map(|(p, (_, owner))| Some((p, owner?))).collect()
}

struct Topic<'a> {
    name: &'a str,
    layout: &'a TopicLayout,
    subscribers: Vec<usize>,
}

/// A partition, by the index of its topic.
type PartitionKey = (usize, i32);

/// The assignment so far.
struct Balancer<'a> {
    members: &'a [&'a GroupMember],
    topics: Vec<Topic<'a>>,
    /// Partitions by topic, by member.
    assigned: Vec<BTreeMap<usize, BTreeSet<i32>>>,
    /// Number of partitions, by member.
    count: Vec<usize>,
    previous_owner: HashMap<PartitionKey, usize>,
    is_rack_aware: bool,
}

impl<'a> Balancer<'a> {
    fn new(topics: &'a Topics, members: &'a [&'a GroupMember]) -> Self {
        let subscribers = |name: &String| {
            members.iter().enumerate().filter(|(_, m)| m.topics.contains(name)).map(|(i, _)| i).collect::<Vec<_>>()
        };
        let topics: Vec<_> = topics
            .iter()
            .map(|(name, layout)| Topic { name, layout, subscribers: subscribers(name) })
            .filter(|t| !t.subscribers.is_empty())
            .collect();
        let layouts: Vec<_> = topics.iter().map(|t| t.layout).collect();
        Self {
            is_rack_aware: is_rack_aware(members.iter().copied(), &layouts),
            members,
            topics,
            assigned: vec![BTreeMap::new(); members.len()],
            count: vec![0; members.len()],
            previous_owner: HashMap::new(),
        }
    }

    fn assign(&mut self, member: usize, (topic, p): PartitionKey) {
        if let (Some(assigned), Some(count)) = (self.assigned.get_mut(member), self.count.get_mut(member)) {
            assigned.entry(topic).or_default().insert(p);
            *count += 1;
        }
    }

    fn unassign(&mut self, member: usize, (topic, p): PartitionKey) {
        if let (Some(assigned), Some(count)) = (self.assigned.get_mut(member), self.count.get_mut(member)) {
            if assigned.get_mut(&topic).is_some_and(|partitions| partitions.remove(&p)) {
                *count -= 1;
                assigned.retain(|_, partitions| !partitions.is_empty());
            }
        }
    }

    fn count(&self, member: usize) -> usize {
        self.count.get(member).copied().unwrap_or(0)
    }

    fn subscribers(&self, topic: usize) -> &[usize] {
        self.topics.get(topic).map_or(&[], |t| &t.subscribers)
    }

    fn keys_of(&self, member: usize) -> impl Iterator<Item = PartitionKey> + '_ {
        self.assigned
            .get(member)
            .into_iter()
            .flatten()
            .flat_map(|(topic, partitions)| partitions.iter().map(|p| (*topic, *p)))
    }

    /// Returns whether the member is in a rack with a replica, or in none.
    fn is_near(&self, member: usize, (topic, p): PartitionKey) -> bool {
        let rack = self.members.get(member).and_then(|m| m.rack.as_deref());
        self.topics.get(topic).is_some_and(|t| t.layout.has_replica_in(p, rack))
    }

    fn keep_previous(&mut self, owners: &HashMap<TopicPartition, usize>) {
        for (i, topic) in self.topics.iter().enumerate() {
            for p in 0..topic.layout.partitions {
                let owner = owners.get(&TopicPartition::new(topic.name, p));
                if let Some(owner) = owner.filter(|owner| topic.subscribers.contains(owner)) {
                    self.previous_owner.insert((i, p), *owner);
                }
            }
        }
        for (key, owner) in self.previous_owner.clone() {
            self.assign(owner, key);
        }
    }

    /// Starts with topics of few subscribers: partitions of the others fit elsewhere.
    fn assign_unowned(&mut self) {
        let mut order: Vec<_> = (0..self.topics.len()).collect();
        order.sort_by_key(|topic| self.subscribers(*topic).len());
        for topic in order {
            for p in 0..self.topics.get(topic).map_or(0, |t| t.layout.partitions) {
                if self.previous_owner.contains_key(&(topic, p)) {
                    continue;
                }
                let far = |m: usize| self.is_rack_aware && !self.is_near(m, (topic, p));
                let least = self.subscribers(topic).iter().copied().min_by_key(|m| (self.count(*m), far(*m), *m));
                if let Some(member) = least {
                    self.assign(member, (topic, p));
                }
            }
        }
    }

    /// Moves partitions along one path; returns whether there was one.
    fn move_towards_balance(&mut self) -> bool {
        let mut sources: Vec<_> = (0..self.members.len()).collect();
        sources.sort_by_key(|m| std::cmp::Reverse(self.count(*m)));
        // A member that a fuller one has reached needs no search of its own: that one found no path
        // there.
        let mut seen = BTreeSet::new();
        let mut seen_topics = BTreeSet::new();
        for source in sources {
            if !seen.insert(source) {
                continue;
            }
            let mut came_from: HashMap<usize, (usize, usize)> = HashMap::new();
            let mut queue = VecDeque::from([source]);
            let mut best: Option<usize> = None;
            while let Some(at) = queue.pop_front() {
                let topics: Vec<_> = self.assigned.get(at).into_iter().flat_map(BTreeMap::keys).copied().collect();
                for topic in topics.into_iter().filter(|t| seen_topics.insert(*t)) {
                    for &next in self.subscribers(topic) {
                        if seen.insert(next) {
                            came_from.insert(next, (at, topic));
                            queue.push_back(next);
                            if best.is_none_or(|b| self.count(next) < self.count(b)) {
                                best = Some(next);
                            }
                        }
                    }
                }
            }
            if let Some(target) = best.filter(|b| self.count(*b) + 2 <= self.count(source)) {
                self.move_along_path(target, &came_from);
                return true;
            }
        }
        false
    }

    /// Moves one partition from each member to the next on the path that ends at `to`, from its end
    /// on.
    fn move_along_path(&mut self, mut to: usize, came_from: &HashMap<usize, (usize, usize)>) {
        while let Some(&(from, topic)) = came_from.get(&to) {
            let keys = self.keys_of(from).filter(|(t, _)| *t == topic);
            // Prefers partitions that have moved anyway, then those that get into a rack with a
            // replica.
            let choice = keys.min_by_key(|key| {
                let stays = self.previous_owner.get(key) == Some(&from);
                let farther = self.is_rack_aware && self.is_near(from, *key) && !self.is_near(to, *key);
                (self.previous_owner.get(key) != Some(&to), stays, farther, std::cmp::Reverse(*key))
            });
            if let Some(key) = choice {
                self.unassign(from, key);
                self.assign(to, key);
            }
            to = from;
        }
    }

    fn match_racks(&mut self) {
        for member in 0..self.members.len() {
            let far: Vec<_> = self.keys_of(member).filter(|key| !self.is_near(member, *key)).collect();
            for key in far {
                if let Some((other, back)) = self.find_closer_member(member, key) {
                    self.unassign(member, key);
                    self.assign(other, key);
                    if let Some(back) = back {
                        self.unassign(other, back);
                        self.assign(member, back);
                    }
                }
            }
        }
    }

    /// Finds a member closer to a replica, and a partition to swap: none if that member has fewer
    /// anyway.
    fn find_closer_member(&self, member: usize, key: PartitionKey) -> Option<(usize, Option<PartitionKey>)> {
        let near: Vec<_> =
            self.subscribers(key.0).iter().copied().filter(|m| *m != member && self.is_near(*m, key)).collect();
        if let Some(fewer) = near.iter().find(|m| self.count(**m) < self.count(member)) {
            return Some((*fewer, None));
        }
        let swap = |other: &usize| {
            let fits = |back: &PartitionKey| self.subscribers(back.0).contains(&member);
            let gains = |back: &PartitionKey| self.is_near(member, *back) || !self.is_near(*other, *back);
            let all = self.keys_of(*other).filter(|back| fits(back) && gains(back));
            let back =
                all.min_by_key(|back| (!self.is_near(member, *back), self.previous_owner.get(back) == Some(other)))?;
            Some((*other, Some(back)))
        };
        near.iter().find_map(swap)
    }

    fn assignments(&self) -> Assignments {
        let list = |member: usize| {
            let name = |(topic, p): PartitionKey| self.topics.get(topic).map(|t| TopicPartition::new(t.name, p));
            self.keys_of(member).filter_map(name).collect()
        };
        self.members.iter().enumerate().map(|(i, m)| (m.id.clone(), list(i))).collect()
    }
}
