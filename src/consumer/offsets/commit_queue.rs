//! Offsets to commit, the newest of each partition, and the callers that wait for them; without
//! I/O. When they are sent, and what is retried, is decided by [`Commits`](super::commits::Commits).
//!
//! Adding a commit touches only its own partitions, whatever else is pending: single records of
//! thousands of partitions may be committed each on its own.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::cluster::offset_commit::OffsetAndMetadata;
use crate::error::{Error, Result};

/// Minimum number of waiters from which those that were dropped are removed.
const MANY_WAITERS: usize = 16;

/// Offsets to commit. `K` names a partition.
#[derive(Debug)]
pub(crate) struct Commit<K> {
    offsets: Vec<(K, OffsetAndMetadata)>,
    deadline: Instant,
    reply: Option<oneshot::Sender<Result<()>>>,
}

impl<K> Commit<K> {
    /// Creates one without a waiter: a failure is logged.
    pub(crate) fn new(offsets: Vec<(K, OffsetAndMetadata)>, deadline: Instant) -> Self {
        Self { offsets, deadline, reply: None }
    }

    /// Creates one with a receiver for its outcome.
    pub(crate) fn awaited(
        offsets: Vec<(K, OffsetAndMetadata)>,
        deadline: Instant,
    ) -> (Self, oneshot::Receiver<Result<()>>) {
        let (reply, replied) = oneshot::channel();
        (Self { offsets, deadline, reply: Some(reply) }, replied)
    }
}

#[derive(Debug)]
struct Pending {
    offset: OffsetAndMetadata,
    deadline: Instant,
}

/// A caller that waits for offsets, or for newer ones of the same partitions.
#[derive(Debug)]
struct Waiter<K> {
    /// Partitions without an outcome, and the offsets to commit.
    open: Vec<(K, i64)>,
    deadline: Instant,
    reply: oneshot::Sender<Result<()>>,
}

impl<K> Waiter<K> {
    fn complete(self, outcome: Result<()>) {
        _ = self.reply.send(outcome); // the caller may have dropped it
    }
}

impl<K: Ord> Waiter<K> {
    /// Fails it; its keys are added to those of which a caller was notified.
    fn fail(self, why: Error, notified: &mut BTreeSet<K>) {
        if !self.reply.is_closed() {
            notified.extend(self.open.into_iter().map(|(key, _)| key));
            _ = self.reply.send(Err(why)); // the caller may just have dropped it
        }
    }
}

/// Outcome of an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommitOutcome {
    /// Stays in the queue.
    Pending,
    Committed,
    /// Not committed, and not retried.
    Failed,
}

/// Partitions that are not committed, of which no caller was notified.
#[derive(Debug)]
#[must_use = "the log is to say so"]
pub(crate) struct Unawaited<K> {
    pub(crate) keys: Vec<K>,
    /// Error of the first one.
    pub(crate) why: Error,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct CommitQueue<K> {
    offsets: BTreeMap<K, Pending>,
    waiters: Vec<Waiter<K>>,
    /// Number of waiters at which those that were dropped are removed.
    sweep_at: usize,
    /// No deadline is earlier.
    earliest: Option<Instant>,
}

impl<K> Default for CommitQueue<K> {
    fn default() -> Self {
        Self { offsets: BTreeMap::new(), waiters: Vec::new(), sweep_at: MANY_WAITERS, earliest: None }
    }
}

impl<K: Ord + Clone> CommitQueue<K> {
    /// Adds a commit that is newer than all in the queue.
    pub(crate) fn push(&mut self, commit: Commit<K>) {
        let Commit { offsets, deadline, reply } = commit;
        self.on_deadline(deadline);
        if let Some(reply) = reply {
            let open = offsets.iter().map(|(key, at)| (key.clone(), at.offset)).collect();
            self.add_waiter(Waiter { open, deadline, reply });
        }
        self.offsets.extend(offsets.into_iter().map(|(key, offset)| (key, Pending { offset, deadline })));
    }

    /// Adds all commits of a newer queue.
    pub(crate) fn append(&mut self, newer: Self) {
        newer.earliest.into_iter().for_each(|at| self.on_deadline(at));
        newer.waiters.into_iter().for_each(|w| self.add_waiter(w));
        self.offsets.extend(newer.offsets);
    }

    fn on_deadline(&mut self, at: Instant) {
        self.earliest = Some(self.earliest.map_or(at, |earliest| earliest.min(at)));
    }

    fn add_waiter(&mut self, waiter: Waiter<K>) {
        if self.waiters.len() >= self.sweep_at {
            self.waiters.retain(|w| !w.reply.is_closed());
            self.sweep_at = (2 * self.waiters.len()).max(MANY_WAITERS);
        }
        self.waiters.push(waiter);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    pub(crate) fn offsets(&self) -> impl Iterator<Item = (&K, &OffsetAndMetadata)> {
        self.offsets.iter().map(|(key, pending)| (key, &pending.offset))
    }

    /// Returns whether there is an offset in a range of keys.
    pub(crate) fn has_any(&self, keys: RangeInclusive<K>) -> bool {
        self.offsets.range(keys).next().is_some()
    }

    /// Returns a time before which nothing [expires](Self::expire).
    pub(crate) fn expiry(&self) -> Option<Instant> {
        self.earliest
    }

    /// Fails the commits whose deadline has passed. Offsets are removed, unless they are in flight
    /// and may be committed nevertheless.
    pub(crate) fn expire(&mut self, now: Instant, in_flight: bool, why: &Error) -> Option<Unawaited<K>> {
        if self.earliest.is_none_or(|at| now < at) {
            return None;
        }
        let (late, waiting) = std::mem::take(&mut self.waiters).into_iter().partition(|w| now >= w.deadline);
        self.waiters = waiting;
        let (late, mut notified): (Vec<_>, _) = (late, BTreeSet::new());
        late.into_iter().for_each(|w| w.fail(why.clone(), &mut notified));
        let mut unawaited = Vec::new();
        if !in_flight {
            self.offsets.retain(|key, pending| {
                let stays = now < pending.deadline;
                if !stays && !notified.contains(key) {
                    unawaited.push(key.clone());
                }
                stays
            });
        }
        self.find_earliest(!in_flight);
        (!unawaited.is_empty()).then(|| Unawaited { keys: unawaited, why: why.clone() })
    }

    fn find_earliest(&mut self, of_offsets: bool) {
        let offsets = self.offsets.values().filter(|_| of_offsets).map(|p| p.deadline);
        self.earliest = self.waiters.iter().map(|w| w.deadline).chain(offsets).min();
    }

    /// Removes the offsets with an outcome and notifies their waiters; `why` is the error for a key
    /// and its offset.
    pub(crate) fn settle(
        &mut self,
        outcome_of: impl Fn(&K) -> CommitOutcome,
        why: impl Fn(&K, i64) -> Error,
    ) -> Option<Unawaited<K>> {
        let mut notified = BTreeSet::new();
        for mut waiter in std::mem::take(&mut self.waiters) {
            if let Some((key, offset)) = waiter.open.iter().find(|(key, _)| outcome_of(key) == CommitOutcome::Failed) {
                let why = why(key, *offset);
                waiter.fail(why, &mut notified);
                continue;
            }
            waiter.open.retain(|(key, _)| outcome_of(key) == CommitOutcome::Pending);
            match waiter.open.is_empty() {
                true => waiter.complete(Ok(())),
                false => self.waiters.push(waiter),
            }
        }
        let mut unawaited: Option<Unawaited<K>> = None;
        self.offsets.retain(|key, pending| {
            let outcome_of = outcome_of(key);
            if outcome_of == CommitOutcome::Failed && !notified.contains(key) {
                let first = || Unawaited { keys: Vec::new(), why: why(key, pending.offset.offset) };
                unawaited.get_or_insert_with(first).keys.push(key.clone());
            }
            outcome_of == CommitOutcome::Pending
        });
        self.find_earliest(true);
        unawaited
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::Cell;
    use std::cmp::Ordering;
    use std::time::Duration;

    use super::*;
    use crate::error::ErrorKind;

    thread_local! {
        static COMPARED: Cell<usize> = const { Cell::new(0) };
    }

    /// A key that counts how often one is looked at.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Key(usize);

    impl Ord for Key {
        fn cmp(&self, other: &Self) -> Ordering {
            COMPARED.set(COMPARED.get() + 1);
            self.0.cmp(&other.0)
        }
    }

    impl PartialOrd for Key {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    fn at(offset: i64) -> OffsetAndMetadata {
        OffsetAndMetadata::new(offset)
    }

    fn keys(unawaited: Option<Unawaited<Key>>) -> Vec<usize> {
        unawaited.into_iter().flat_map(|u| u.keys).map(|key| key.0).collect()
    }

    fn gone() -> Error {
        Error::new(ErrorKind::Closed, "gone")
    }

    #[test]
    fn a_commit_touches_only_its_own_partitions() {
        let deadline = Instant::now();
        for partitions in [10, 1_000, 100_000] {
            let mut queue = CommitQueue::default();
            let mut waiting = Vec::new();
            let mut commit = |key, offset| {
                let (commit, replied) = Commit::awaited(vec![(Key(key), at(offset))], deadline);
                COMPARED.set(0);
                queue.push(commit);
                waiting.push(replied);
                (COMPARED.get(), queue.offsets.len())
            };
            for key in 0..partitions {
                commit(key, 0);
            }
            let most = (0..partitions).map(|key| commit(key, 1).0).max().unwrap();
            assert!(most < 100, "{most} comparisons to commit one of {partitions}");
            assert_eq!(queue.offsets.len(), partitions);
        }
    }

    #[test]
    fn dropped_waiters_take_no_memory() {
        let mut queue = CommitQueue::default();
        let (stays, mut replied) = Commit::awaited(vec![(Key(0), at(0))], Instant::now());
        queue.push(stays);
        for i in 0..10_000 {
            queue.push(Commit::awaited(vec![(Key(1), at(i))], Instant::now()).0);
        }
        assert!(queue.waiters.len() <= 2 * MANY_WAITERS && queue.offsets.len() == 2, "{}", queue.waiters.len());
        assert!(keys(queue.settle(|_| CommitOutcome::Committed, |_, _| gone())).is_empty());
        replied.try_recv().unwrap().unwrap();
    }

    #[test]
    fn a_waiter_gets_the_first_failure() {
        let mut queue = CommitQueue::default();
        let (both, mut both_replied) = Commit::awaited(vec![(Key(0), at(5)), (Key(1), at(6))], Instant::now());
        let (one, mut one_replied) = Commit::awaited(vec![(Key(0), at(7))], Instant::now());
        queue.push(both);
        queue.push(one);
        queue.push(Commit::new(vec![(Key(2), at(8))], Instant::now()));
        let outcome_of = |key: &Key| if key.0 == 0 { CommitOutcome::Committed } else { CommitOutcome::Pending };
        assert!(keys(queue.settle(outcome_of, |_, _| gone())).is_empty());
        one_replied.try_recv().unwrap().unwrap();
        assert!(both_replied.try_recv().is_err(), "the other partition waits");
        let why = |key: &Key, offset| Error::new(ErrorKind::Closed, format!("{key:?} {offset}"));
        let unawaited = queue.settle(|_| CommitOutcome::Failed, why).unwrap();
        assert_eq!((unawaited.keys, unawaited.why.to_string()), (vec![Key(2)], "Key(2) 8".to_owned()));
        assert_eq!(both_replied.try_recv().unwrap().unwrap_err().to_string(), "Key(1) 6");
        assert!(queue.is_empty() && queue.waiters.is_empty());
    }

    #[test]
    fn each_commit_has_its_own_deadline() {
        let (second, now) = (Duration::from_secs(1), Instant::now());
        let mut queue = CommitQueue::default();
        let (first, mut first_replied) = Commit::awaited(vec![(Key(0), at(1))], now);
        queue.push(first);
        queue.push(Commit::new(vec![(Key(1), at(1))], now));
        queue.push(Commit::new(vec![(Key(0), at(2))], now + second));
        assert_eq!(queue.expiry(), Some(now));
        assert_eq!(keys(queue.expire(now, false, &gone())), [1]);
        assert!(first_replied.try_recv().unwrap().is_err());
        assert_eq!(queue.offsets().map(|(key, at)| (*key, at.offset)).collect::<Vec<_>>(), [(Key(0), 2)]);
        assert_eq!((queue.expiry(), keys(queue.expire(now, false, &gone()))), (Some(now + second), vec![]));
        assert!(keys(queue.expire(now + second, true, &gone())).is_empty());
        assert!(!queue.is_empty() && queue.expiry().is_none(), "it is in flight, and nobody waits");
    }
}
