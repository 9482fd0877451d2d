//! Checks what the members of a group do while they do it.
//!
//! Members report assignments, handled records and revocations; the broker's hook reports commits
//! and the assignments of the group's leaders. The rules:
//!
//! - every record is handled, and only once if no member crashed or lost its session;
//! - records are handled in order within a partition, or within a key;
//! - a partition has one owner in a generation, and no other member commits for it;
//! - a committed offset is never past an unhandled record, and never goes back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;

use ailurus_test_support::problems::Problems;

/// A member of the test.
pub type MemberNumber = usize;

/// A violation of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// Never handled.
    Lost,
    /// Handled again, though no member crashed or lost its session.
    HandledAgain,
    /// Handled before an earlier record.
    OutOfOrder,
    /// Handled by a member that does not own the partition.
    NotOwner,
    /// Assigned to a member while another still owned it and had not lost its session.
    TwoOwners,
    /// Assigned to two members in one generation.
    AssignedTwice,
    /// Committed by a member for a partition of another member in that generation.
    ForeignCommit,
    /// Committed past an unhandled record.
    CommitAhead,
    /// A committed offset went back.
    CommitWentBack,
    /// Something did not finish.
    Stuck,
}

impl Problem {
    pub const ALL: [(Self, &str); 10] = [
        (Self::Lost, "lost"),
        (Self::HandledAgain, "handled again"),
        (Self::OutOfOrder, "out of order"),
        (Self::NotOwner, "handled by a non-owner"),
        (Self::TwoOwners, "with two owners"),
        (Self::AssignedTwice, "assigned twice"),
        (Self::ForeignCommit, "foreign commits"),
        (Self::CommitAhead, "commits ahead"),
        (Self::CommitWentBack, "commits that went back"),
        (Self::Stuck, "stuck"),
    ];
}

/// State of a partition.
#[derive(Debug, Default)]
struct Partition {
    /// Members that it is assigned to and that have neither revoked nor lost it.
    owners: BTreeSet<MemberNumber>,
    /// Number of times that each offset was handled.
    handled: BTreeMap<i64, u32>,
    /// Offset before which all records are handled.
    handled_before: i64,
    committed: i64,
    /// (Owner, new owner) pairs of assignments that overlap.
    overlaps: Vec<(MemberNumber, MemberNumber)>,
}

/// The checker. Partitions are those of the one topic.
#[derive(Debug, Default)]
pub struct GroupChecker {
    partitions: HashMap<i32, Partition>,
    /// Assignments of the leaders, by generation.
    leader_assignments: HashMap<i32, Vec<HashMap<i32, String>>>,
    /// No session can expire: a member that revokes partitions still owned them.
    strict: bool,
    /// A session was lost, a member crashed or a last commit failed: records may be handled again.
    pub repeats_allowed: bool,
    pub problems: Problems<Problem>,
    /// Records in the order in which they were first handled.
    first_handled: Vec<(i32, i64)>,
    pub handled: u64,
    pub repeated: u64,
    pub assignments: u64,
    pub losses: u64,
}

impl GroupChecker {
    pub fn new(strict: bool) -> Self {
        Self { strict, ..Self::default() }
    }

    pub fn problem(&mut self, problem: Problem, text: impl Into<String>) {
        self.problems.add(problem, text);
    }

    fn partition(&mut self, partition: i32) -> &mut Partition {
        self.partitions.entry(partition).or_default()
    }

    /// Partitions were assigned to a member.
    pub fn assigned(&mut self, member: MemberNumber, partitions: &[i32]) {
        self.assignments += 1;
        for &p in partitions {
            let partition = self.partition(p);
            let others: Vec<_> = partition.owners.iter().map(|other| (*other, member)).collect();
            partition.overlaps.extend(others);
            partition.owners.insert(member);
        }
    }

    /// A member revoked partitions.
    pub fn revoked(&mut self, member: MemberNumber, partitions: &[i32]) {
        let strict = self.strict;
        for &p in partitions {
            let partition = self.partition(p);
            partition.owners.remove(&member);
            let (found, rest): (Vec<_>, _) =
                std::mem::take(&mut partition.overlaps).into_iter().partition(|(old, _)| *old == member);
            partition.overlaps = rest;
            // Its session may have expired before the revocation: then the new owner is right.
            for (old, new) in found.into_iter().filter(|_| strict) {
                self.problem(
                    Problem::TwoOwners,
                    format!("partition {p}: assigned to member {new}, still owned by member {old}"),
                );
            }
        }
    }

    /// A member lost partitions, or crashed.
    pub fn lost(&mut self, member: MemberNumber, partitions: Option<&[i32]>) {
        self.losses += 1;
        self.repeats_allowed = true;
        for (p, partition) in &mut self.partitions {
            if partitions.is_none_or(|all| all.contains(p)) {
                partition.owners.remove(&member);
                partition.overlaps.retain(|(old, _)| *old != member);
            }
        }
    }

    /// A member handled a record of a partition that it handles in order.
    pub fn handled(&mut self, member: MemberNumber, p: i32, offset: i64) {
        let partition = self.partition(p);
        let (is_owner, handled_before) = (partition.owners.contains(&member), partition.handled_before);
        if offset > handled_before {
            self.problem(
                Problem::OutOfOrder,
                format!("{p}@{offset} by member {member}, all before {handled_before} were handled"),
            );
        }
        if !is_owner {
            self.problem(Problem::NotOwner, format!("{p}@{offset} by member {member}"));
        }
        self.handled_by_key(p, offset);
    }

    /// A handler handled a record; records of other keys may be handled before it.
    pub fn handled_by_key(&mut self, p: i32, offset: i64) {
        self.handled += 1;
        let partition = self.partition(p);
        let times = partition.handled.entry(offset).or_default();
        *times += 1;
        let is_repeat = *times > 1;
        while partition.handled.contains_key(&partition.handled_before) {
            partition.handled_before += 1;
        }
        match is_repeat {
            true => self.repeated += 1,
            false => self.first_handled.push((p, offset)),
        }
    }

    /// A leader assigned partitions to members, by member id.
    pub fn leader_assigned(&mut self, generation: i32, assignments: Vec<(String, Vec<i32>)>) {
        let mut owners: HashMap<i32, String> = HashMap::new();
        for (id, partitions) in assignments {
            for p in partitions {
                if let Some(other) = owners.insert(p, id.clone()) {
                    self.problem(Problem::AssignedTwice, format!("partition {p} to {other} and {id} in {generation}"));
                }
            }
        }
        self.leader_assignments.entry(generation).or_default().push(owners);
    }

    /// A member, by its id, requested a commit.
    pub fn commit_requested(&mut self, id: &str, generation: i32, p: i32, offset: i64) {
        let handled_before = self.partition(p).handled_before;
        if offset > handled_before {
            self.problem(Problem::CommitAhead, format!("{p}@{offset}, all before {handled_before} were handled"));
        }
        let assignments = self.leader_assignments.get(&generation).map_or(&[][..], Vec::as_slice);
        let foreign = |owners: &HashMap<i32, String>| owners.get(&p).is_some_and(|owner| owner != id);
        if !assignments.is_empty() && assignments.iter().all(foreign) {
            self.problem(Problem::ForeignCommit, format!("{p}@{offset} by {id} in generation {generation}"));
        }
    }

    /// The coordinator's committed offset of a partition.
    pub fn committed(&mut self, p: i32, offset: i64) {
        let previous = std::mem::replace(&mut self.partition(p).committed, offset);
        if offset < previous {
            self.problem(Problem::CommitWentBack, format!("partition {p} from {previous} to {offset}"));
        }
    }

    /// Returns whether all records before `end` are handled.
    pub fn has_handled(&self, p: i32, end: i64) -> bool {
        end == 0 || self.partitions.get(&p).is_some_and(|partition| partition.handled_before >= end)
    }

    /// Allows commits to go back; returns how often they did. A slow broker may apply a commit long
    /// after its connection was closed, and after a later commit on another: then records are only
    /// handled again.
    pub fn allow_late_commits(&mut self) -> usize {
        self.problems.remove(Problem::CommitWentBack)
    }

    /// Checks the order of the records of each key.
    pub fn check_keys<K: Eq + Hash>(&mut self, key: impl Fn(i32, i64) -> K) {
        let mut latest: HashMap<(i32, K), i64> = HashMap::new();
        for (p, offset) in std::mem::take(&mut self.first_handled) {
            let previous = latest.insert((p, key(p, offset)), offset);
            if let Some(previous) = previous.filter(|previous| *previous > offset) {
                self.problem(Problem::OutOfOrder, format!("{p}@{offset} behind {previous} of the same key"));
            }
        }
    }

    /// Checks that all records before the log end offsets were handled, and how often.
    pub fn finish(&mut self, ends: &[(i32, i64)]) {
        for &(p, end) in ends {
            let missing: Vec<_> = (0..end).filter(|o| !self.partition(p).handled.contains_key(o)).collect();
            if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
                let text = format!("partition {p}: {} of {end}, from {first} to {last}", missing.len());
                self.problem(Problem::Lost, text);
            }
            let repeated: Vec<_> = self.partition(p).handled.iter().filter(|(_, n)| **n > 1).map(|(o, _)| *o).collect();
            if let (false, Some(first)) = (self.repeats_allowed, repeated.first()) {
                self.problem(
                    Problem::HandledAgain,
                    format!("partition {p}: {} records, the first at {first}", repeated.len()),
                );
            }
        }
    }

    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for GroupChecker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} handled ({} of them again), {} assignments, {} losses: {}",
            self.handled,
            self.repeated,
            self.assignments,
            self.losses,
            self.problems.counts(&Problem::ALL)
        )
    }
}
