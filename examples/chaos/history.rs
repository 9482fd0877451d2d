//! Lines of the processes, and the errors in them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::Role;

/// Two processes are heard by two ways: what is heard so much earlier was really earlier.
pub(crate) const SLACK: Duration = Duration::from_secs(1);

/// A record's topic, partition and offset.
pub(crate) type Place = (String, i32, i64);

/// A line that a process says.
#[derive(Debug)]
pub(crate) enum Line {
    Acknowledged(Place, String, u64),
    Failed,
    /// By a member of the group; as a dead letter, or not.
    Ended(Role, Place, bool),
    Lost(String, i32),
    /// It ends, and may not have committed all that it has handled.
    Uncommitted,
}

impl Line {
    pub(crate) fn parse(role: Role, line: &str) -> Option<Self> {
        let fields: Vec<_> = line.split(' ').collect();
        let place = |f: &[&str]| Some((f[0].to_owned(), f[1].parse().ok()?, f[2].parse().ok()?));
        match fields[..] {
            ["a", _, _, _, key, number] => {
                Some(Self::Acknowledged(place(&fields[1..4])?, key.to_owned(), number.parse().ok()?))
            }
            ["e", _, _] => Some(Self::Failed),
            [word @ ("h" | "d"), _, _, _, _, _] => Some(Self::Ended(role, place(&fields[1..4])?, word == "d")),
            ["u"] => Some(Self::Uncommitted),
            ["l", topic, partition] => Some(Self::Lost(topic.to_owned(), partition.parse().ok()?)),
            _ => None,
        }
    }
}

/// First completion of a record in a group.
struct First {
    process: u32,
    at: Instant,
}

#[derive(Default)]
struct Group {
    first: HashMap<Place, First>,
    /// Records handled again: the first process and when, and the process that repeated it.
    again: Vec<(Place, u32, Instant, u32)>,
    dead: BTreeSet<Place>,
    committed: BTreeMap<(String, i32), i64>,
    /// Committed offsets, not yet compared with completions, whose lines may be delayed.
    commits: VecDeque<(Instant, String, i32, i64)>,
}

#[derive(Default)]
pub(crate) struct History {
    acknowledged: BTreeMap<Place, (String, u64)>,
    failed: u64,
    groups: BTreeMap<Role, Group>,
    died: HashSet<u32>,
    uncommitted: HashSet<u32>,
    /// Processes that slept for longer than their session: the group gave their partitions away without their knowledge, and what they
    /// had fetched was handled by them too when they woke.
    slept: HashSet<u32>,
    lost: HashMap<(u32, String, i32), Instant>,
    letters: BTreeSet<Place>,
    problems: Vec<String>,
}

impl History {
    pub(crate) fn note(&mut self, process: u32, line: Line) {
        let now = Instant::now();
        match line {
            Line::Acknowledged(place, key, number) => {
                if self.acknowledged.insert(place.clone(), (key, number)).is_some() {
                    self.problems.push(format!("two records are acknowledged at {place:?}"));
                }
            }
            Line::Failed => self.failed += 1,
            Line::Uncommitted => _ = self.uncommitted.insert(process),
            Line::Lost(topic, partition) => _ = self.lost.insert((process, topic, partition), now),
            Line::Ended(role, place, dead) => {
                let group = self.groups.entry(role).or_default();
                if dead {
                    group.dead.insert(place.clone());
                }
                match group.first.get(&place) {
                    Some(first) => group.again.push((place, first.process, first.at, process)),
                    None => _ = group.first.insert(place, First { process, at: now }),
                }
            }
        }
    }

    pub(crate) fn died(&mut self, process: u32) {
        self.died.insert(process);
    }

    pub(crate) fn slept(&mut self, process: u32) {
        self.slept.insert(process);
    }

    pub(crate) fn committed(&mut self, role: Role, offsets: impl Iterator<Item = (String, i32, i64)>) {
        let offsets = offsets.map(|(topic, partition, offset)| (Instant::now(), topic, partition, offset));
        self.groups.entry(role).or_default().commits.extend(offsets);
    }

    pub(crate) fn letter(&mut self, origin: Place) {
        self.letters.insert(origin);
    }

    /// All below a committed offset has ended, as far as the offset was seen so long ago: what a process says takes its time.
    pub(crate) fn check_commits(&mut self, age: Duration) {
        for (role, group) in &mut self.groups {
            while group.commits.front().is_some_and(|(at, ..)| at.elapsed() >= age) {
                let Some((_, topic, partition, offset)) = group.commits.pop_front() else { break };
                let before = group.committed.entry((topic.clone(), partition)).or_default();
                for open in *before..offset {
                    if !group.first.contains_key(&(topic.clone(), partition, open)) {
                        self.problems.push(format!(
                            "{role:?} committed {offset} of {topic}/{partition}, and {open} has not ended"
                        ));
                        break;
                    }
                }
                *before = offset.max(*before);
            }
        }
    }

    /// Returns whether both groups have committed all acknowledged records.
    pub(crate) fn is_settled(&self) -> bool {
        Role::GROUPS.iter().all(|role| {
            let Some(group) = self.groups.get(role) else { return false };
            let below = |((topic, partition, offset), _): (&Place, _)| {
                group.committed.get(&(topic.clone(), *partition)).is_some_and(|committed| *committed > *offset)
            };
            self.acknowledged.iter().all(below)
        })
    }

    /// Returns whether the history has no error, and a summary.
    pub(crate) fn report(mut self) -> (bool, String) {
        let mut text = format!(
            "{} acknowledged; {} members reported a failed commit at shutdown",
            self.acknowledged.len(),
            self.uncommitted.len()
        );
        if self.failed > 0 {
            self.problems.push(format!("{} records failed", self.failed));
        }
        let mut keys: BTreeMap<&str, Vec<(u64, &Place)>> = BTreeMap::new();
        for (place, (key, number)) in &self.acknowledged {
            keys.entry(key).or_default().push((*number, place));
        }
        for (key, records) in &mut keys {
            records.sort();
            if records.windows(2).any(|pair| pair[0].1.1 != pair[1].1.1 || pair[0].1.2 >= pair[1].1.2) {
                self.problems.push(format!("the records of {key} are not in order in the log"));
            }
        }
        for (role, group) in &self.groups {
            let lost: Vec<_> = self.acknowledged.keys().filter(|place| !group.first.contains_key(*place)).collect();
            if !lost.is_empty() {
                self.problems.push(format!(
                    "{role:?}: {} lost, the first ones {:?}",
                    lost.len(),
                    &lost[..lost.len().min(5)]
                ));
            }
            let mut twice = 0;
            for ((topic, partition, offset), process, at, repeated_by) in &group.again {
                let lost =
                    self.lost.get(&(*process, topic.clone(), *partition)).is_some_and(|lost| *lost + SLACK > *at);
                let ended = self.died.contains(process) || self.uncommitted.contains(process);
                let slept = [process, repeated_by].iter().any(|id| self.slept.contains(id));
                if !lost && !slept && !ended {
                    twice += 1;
                    if twice <= 5 {
                        self.problems.push(format!("{role:?}: {topic}/{partition}@{offset} was handled twice, first by process {process}, which lives"));
                    }
                }
            }
            let mut early = 0;
            for pair in keys.values().flat_map(|records| records.windows(2)) {
                let [before, behind] =
                    [pair[0], pair[1]].map(|(_, place)| group.first.get(place).map(|first| first.at));
                if before.zip(behind).is_some_and(|(before, behind)| before > behind + SLACK) {
                    early += 1;
                    if early <= 5 {
                        self.problems
                            .push(format!("{role:?}: {:?} was handled before {:?} of its key", pair[1].1, pair[0].1));
                    }
                }
            }
            text += &format!(
                "; {role:?}: {} handled, {} again, {twice} of them though nobody died, {} lost, {early} out of order, {} dead letters",
                group.first.len(),
                group.again.len(),
                lost.len(),
                group.dead.len()
            );
        }
        let dead: BTreeSet<_> = self.groups.values().flat_map(|group| group.dead.iter().cloned()).collect();
        if dead != self.letters {
            let (missing, extra) = (dead.difference(&self.letters).count(), self.letters.difference(&dead).count());
            self.problems.push(format!("{missing} dead letters are missing, {extra} are of nothing that failed"));
        }
        self.problems.iter().take(30).for_each(|problem| println!("problem: {problem}"));
        (self.problems.is_empty(), format!("{text}; {} problems", self.problems.len()))
    }
}
