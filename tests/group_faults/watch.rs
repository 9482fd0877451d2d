//! What the members of a group do, watched while they do it.
//!
//! The program in the test says what it was assigned, what it handles and what it gave up; the broker's hook says what is
//! committed and what the group's leaders share out. Held against each other:
//!
//! - every record is handled, and where no member died or lost its session only once;
//! - none is handled before all in front of it in its partition have been: order per partition, and so per key;
//! - a partition has one owner in a generation, and nobody commits for a partition that is another's in that generation;
//! - an offset that is committed is never past a record that has not been handled, and never goes back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;

use super::problems::Problems;

/// A member of the test, by its number.
pub type Number = usize;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// Never handled.
    Lost,
    /// Handled again, though nobody died or lost its session.
    Again,
    /// Handled before one in front of it.
    Skipped,
    /// Handled by a member that does not own the partition.
    Stranger,
    /// Assigned to a member while another, that has not lost its session, still had it.
    TwoOwners,
    /// Given to two members in one generation.
    SharedTwice,
    /// Committed by a member for a partition that is another's in that generation.
    ForeignCommit,
    /// Committed past a record that has not been handled.
    CommitAhead,
    /// A committed offset has gone back.
    CommitBack,
    /// Something did not come to its end.
    Stuck,
}

impl Problem {
    pub const ALL: [(Self, &str); 10] = [
        (Self::Lost, "lost"),
        (Self::Again, "handled again"),
        (Self::Skipped, "out of order"),
        (Self::Stranger, "handled by a stranger"),
        (Self::TwoOwners, "with two owners"),
        (Self::SharedTwice, "shared out twice"),
        (Self::ForeignCommit, "foreign commits"),
        (Self::CommitAhead, "commits ahead"),
        (Self::CommitBack, "commits back"),
        (Self::Stuck, "stuck"),
    ];
}

/// What one partition has seen.
#[derive(Debug, Default)]
struct Partition {
    /// Whoever was told that it is theirs, and has not been told or said otherwise.
    owners: BTreeSet<Number>,
    /// How often each offset was handled.
    handled: BTreeMap<i64, u32>,
    /// All before it has been handled.
    ended: i64,
    committed: i64,
    /// Owners that a new one found there.
    overlaps: Vec<(Number, Number)>,
}

/// See the module. Partitions are those of the one topic.
#[derive(Debug, Default)]
pub struct Watch {
    partitions: HashMap<i32, Partition>,
    /// By generation: what its leader shared out, each time it did.
    shares: HashMap<i32, Vec<HashMap<i32, String>>>,
    /// No session can have ended: who gives partitions up was still their owner.
    strict: bool,
    /// A session was lost, a member died, a last commit failed: records may be handled again.
    pub again_is_allowed: bool,
    pub problems: Problems<Problem>,
    /// The first time of each record, in order.
    order: Vec<(i32, i64)>,
    pub handled: u64,
    pub repeated: u64,
    pub rebalances: u64,
    pub lost: u64,
}

impl Watch {
    pub fn new(strict: bool) -> Self {
        Self { strict, ..Self::default() }
    }

    pub fn problem(&mut self, problem: Problem, text: impl Into<String>) {
        self.problems.add(problem, text);
    }

    fn partition(&mut self, partition: i32) -> &mut Partition {
        self.partitions.entry(partition).or_default()
    }

    /// A member was told that partitions are its own from now on.
    pub fn assigned(&mut self, member: Number, partitions: &[i32]) {
        self.rebalances += 1;
        for &p in partitions {
            let partition = self.partition(p);
            let others: Vec<_> = partition.owners.iter().map(|other| (*other, member)).collect();
            partition.overlaps.extend(others);
            partition.owners.insert(member);
        }
    }

    /// A member has drained partitions and gives them up of its own will, still a member.
    pub fn gave_up(&mut self, member: Number, partitions: &[i32]) {
        let strict = self.strict;
        for &p in partitions {
            let partition = self.partition(p);
            partition.owners.remove(&member);
            let (found, rest): (Vec<_>, _) =
                std::mem::take(&mut partition.overlaps).into_iter().partition(|(old, _)| *old == member);
            partition.overlaps = rest;
            // Its session may have ended while it drained, and the new owner may be right.
            for (old, new) in found.into_iter().filter(|_| strict) {
                self.problem(Problem::TwoOwners, format!("partition {p}: member {new} got it, member {old} had it"));
            }
        }
    }

    /// Partitions were taken from a member, or it has died.
    pub fn lost(&mut self, member: Number, partitions: Option<&[i32]>) {
        self.lost += 1;
        self.again_is_allowed = true;
        for (p, partition) in &mut self.partitions {
            if partitions.is_none_or(|all| all.contains(p)) {
                partition.owners.remove(&member);
                partition.overlaps.retain(|(old, _)| *old != member);
            }
        }
    }

    /// A member has handled a record of a partition that it handles in order.
    pub fn handled(&mut self, member: Number, p: i32, offset: i64) {
        let partition = self.partition(p);
        let (owns, ended) = (partition.owners.contains(&member), partition.ended);
        if offset > ended {
            self.problem(Problem::Skipped, format!("{p}@{offset} by member {member}, all before {ended} were handled"));
        }
        if !owns {
            self.problem(Problem::Stranger, format!("{p}@{offset} by member {member}"));
        }
        self.handled_by_key(p, offset);
    }

    /// A handler has handled a record; those of other keys may be handled before it.
    pub fn handled_by_key(&mut self, p: i32, offset: i64) {
        self.handled += 1;
        let partition = self.partition(p);
        let times = partition.handled.entry(offset).or_default();
        *times += 1;
        let again = *times > 1;
        while partition.handled.contains_key(&partition.ended) {
            partition.ended += 1;
        }
        match again {
            true => self.repeated += 1,
            false => self.order.push((p, offset)),
        }
    }

    /// A leader asks to share out partitions among members, by their ids.
    pub fn shared(&mut self, generation: i32, shares: Vec<(String, Vec<i32>)>) {
        let mut owners: HashMap<i32, String> = HashMap::new();
        for (id, partitions) in shares {
            for p in partitions {
                if let Some(other) = owners.insert(p, id.clone()) {
                    self.problem(Problem::SharedTwice, format!("partition {p} to {other} and {id} in {generation}"));
                }
            }
        }
        self.shares.entry(generation).or_default().push(owners);
    }

    /// A member, by its id, asks to commit.
    pub fn commits(&mut self, id: &str, generation: i32, p: i32, offset: i64) {
        let ended = self.partition(p).ended;
        if offset > ended {
            self.problem(Problem::CommitAhead, format!("{p}@{offset}, all before {ended} were handled"));
        }
        let shares = self.shares.get(&generation).map_or(&[][..], Vec::as_slice);
        let foreign = |owners: &HashMap<i32, String>| owners.get(&p).is_some_and(|owner| owner != id);
        if !shares.is_empty() && shares.iter().all(foreign) {
            self.problem(Problem::ForeignCommit, format!("{p}@{offset} by {id} in generation {generation}"));
        }
    }

    /// What the coordinator has for a partition.
    pub fn committed(&mut self, p: i32, offset: i64) {
        let before = std::mem::replace(&mut self.partition(p).committed, offset);
        if offset < before {
            self.problem(Problem::CommitBack, format!("partition {p} from {before} to {offset}"));
        }
    }

    /// The end of a partition's log: whether all has been handled.
    pub fn has_handled(&self, p: i32, end: i64) -> bool {
        end == 0 || self.partitions.get(&p).is_some_and(|partition| partition.ended >= end)
    }

    /// A broker that is slow may carry out a commit when its connection is long gone and a later one has been made on
    /// another: then offsets go back, and what is handled again is all that comes of it. How often that was.
    pub fn excuse_late_commits(&mut self) -> usize {
        self.problems.excuse(Problem::CommitBack)
    }

    /// The records of a key, the first time they were handled, by the key of each place in the log.
    pub fn check_keys<K: Eq + Hash>(&mut self, key: impl Fn(i32, i64) -> K) {
        let mut latest: HashMap<(i32, K), i64> = HashMap::new();
        for (p, offset) in std::mem::take(&mut self.order) {
            let before = latest.insert((p, key(p, offset)), offset);
            if let Some(before) = before.filter(|before| *before > offset) {
                self.problem(Problem::Skipped, format!("{p}@{offset} behind {before} of the same key"));
            }
        }
    }

    /// No more comes; `ends` are the ends of the logs.
    pub fn finish(&mut self, ends: &[(i32, i64)]) {
        for &(p, end) in ends {
            let missing: Vec<_> = (0..end).filter(|o| !self.partition(p).handled.contains_key(o)).collect();
            if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
                let text = format!("partition {p}: {} of {end}, from {first} to {last}", missing.len());
                self.problem(Problem::Lost, text);
            }
            let again: Vec<_> = self.partition(p).handled.iter().filter(|(_, n)| **n > 1).map(|(o, _)| *o).collect();
            if let (false, Some(first)) = (self.again_is_allowed, again.first()) {
                self.problem(Problem::Again, format!("partition {p}: {} records, the first at {first}", again.len()));
            }
        }
    }

    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} handled ({} of them again), {} assignments, {} losses: {}",
            self.handled,
            self.repeated,
            self.rebalances,
            self.lost,
            self.problems.counts(&Problem::ALL)
        )
    }
}
