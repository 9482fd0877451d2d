//! What of one partition may be handled next, without I/O.
//!
//! Records of one lane are handled one after the other, lanes side by side. A lane is the partition, a key or a single record,
//! as [`HandlerOrdering`] says. While a record of a lane is in hand, or waits to be tried again, those behind it are kept here.
//! Only lanes in which something is in hand or kept take memory: a record that is handled at once never comes here.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use super::progress::{Ended, Progress};
use crate::config::HandlerOrdering;

/// The hash of a key: two keys that share one are handled one after the other, which does no harm.
pub(super) type Lane = u64;

/// In metadata, where the leader epoch is not known.
pub(super) const NO_EPOCH: i32 = -1;

/// A record that is kept for later.
#[derive(Debug)]
pub(super) struct Kept<R> {
    pub(super) offset: i64,
    /// What it takes of memory.
    pub(super) bytes: usize,
    /// When it may be tried again; none if it was not tried yet.
    pub(super) due: Option<Instant>,
    pub(super) record: R,
}

#[derive(Debug)]
struct Queue<R> {
    in_flight: usize,
    /// By offset.
    kept: VecDeque<Kept<R>>,
}

impl<R> Default for Queue<R> {
    fn default() -> Self {
        Self { in_flight: 0, kept: VecDeque::new() }
    }
}

/// See the module's text. `R` is what a record is kept as.
#[derive(Debug)]
pub(super) struct Lanes<R> {
    ordering: HandlerOrdering,
    hasher: RandomState,
    queues: HashMap<Lane, Queue<R>>,
    /// Lanes with nothing in hand whose first record may be taken, in the order in which they got there.
    ready: VecDeque<Lane>,
    /// Lanes with nothing in hand whose first record waits to be tried again.
    timers: BTreeSet<(Instant, Lane)>,
    kept: usize,
    bytes: usize,
    /// Those of the kept that have failed before.
    failed: usize,
    /// Kept records of lanes that are ready.
    takeable: usize,
    progress: Option<Progress>,
    /// What was committed before, until the first record is here.
    committed: Option<(i64, Ended)>,
    /// Behind what was fetched.
    next: i64,
    /// Under which the last records were written.
    leader_epoch: Option<i32>,
}

impl<R> Lanes<R> {
    /// `committed` is the offset that was committed last, and what had ended above it.
    pub(super) fn new(ordering: HandlerOrdering, committed: Option<(i64, Ended)>) -> Self {
        Self {
            ordering,
            hasher: RandomState::new(),
            queues: HashMap::new(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            kept: 0,
            bytes: 0,
            failed: 0,
            takeable: 0,
            progress: None,
            committed,
            next: 0,
            leader_epoch: None,
        }
    }

    /// The lane of a record. Records without a key have no order among themselves, except where the whole partition has one.
    pub(super) fn lane(&self, key: Option<&[u8]>, offset: i64) -> Lane {
        match (self.ordering, key) {
            (HandlerOrdering::Partition, _) => 0,
            (HandlerOrdering::Key, Some(key)) => self.hasher.hash_one(key),
            (HandlerOrdering::Key, None) | (HandlerOrdering::Unordered, _) => offset as u64,
        }
    }

    /// Records from this offset on are here.
    pub(super) fn reads_from(&mut self, offset: i64) {
        let begun = self.progress.is_some();
        if begun && offset >= self.next {
            return;
        }
        // The log may begin or end elsewhere than when the offset was committed or the last record read: then the offsets are
        // those of other records.
        let committed = self.committed.take().filter(|(base, _)| !begun && *base <= offset);
        let (base, ended) = committed.unwrap_or_else(|| (offset, Ended::default()));
        self.progress = Some(Progress::new(base, ended));
        self.next = offset;
    }

    /// What comes now was written under this leader epoch.
    pub(super) fn led(&mut self, leader_epoch: i32) {
        self.leader_epoch = Some(leader_epoch);
        if let Some(progress) = &mut self.progress {
            progress.led(leader_epoch);
        }
    }

    /// A record is here. Whether it is to be handled.
    pub(super) fn fetched(&mut self, offset: i64) -> bool {
        self.next = self.next.max(offset + 1);
        self.progress.as_mut().is_none_or(|p| p.fetched(offset))
    }

    /// Nothing below `next` comes any more.
    pub(super) fn through(&mut self, next: i64) {
        self.next = self.next.max(next);
        if let Some(progress) = &mut self.progress {
            progress.through(next);
        }
    }

    /// Whether nothing of a lane is in hand or kept: its next record may be handled at once.
    pub(super) fn is_free(&self, lane: Lane) -> bool {
        self.queues.is_empty() || !self.queues.contains_key(&lane)
    }

    /// Whether nothing is in hand or kept at all.
    pub(super) fn is_idle(&self) -> bool {
        self.queues.is_empty()
    }

    /// A record that was never in a lane has ended.
    pub(super) fn passed(&mut self, offset: i64) {
        if let Some(progress) = &mut self.progress {
            progress.ended(offset);
        }
    }

    /// A record of a free lane is in hand.
    pub(super) fn begin(&mut self, lane: Lane) {
        self.queues.entry(lane).or_default().in_flight += 1;
    }

    /// Keeps a record until those before it in its lane have ended.
    pub(super) fn keep(&mut self, lane: Lane, offset: i64, bytes: usize, record: R) {
        self.kept += 1;
        self.bytes += bytes;
        let queue = self.queues.entry(lane).or_default();
        queue.kept.push_back(Kept { offset, bytes, due: None, record });
        let first = queue.kept.front();
        if queue.in_flight > 0 || first.is_some_and(|k| k.due.is_some_and(|due| self.timers.contains(&(due, lane)))) {
            return;
        }
        self.takeable += 1;
        if queue.kept.len() == 1 {
            self.ready.push_back(lane);
        }
    }

    /// Makes those ready whose time has come.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some(&(due, lane)) = self.timers.first().filter(|(due, _)| *due <= now) {
            self.timers.remove(&(due, lane));
            self.make_ready(lane);
        }
    }

    fn make_ready(&mut self, lane: Lane) {
        self.ready.push_back(lane);
        self.takeable += self.queues.get(&lane).map_or(0, |q| q.kept.len());
    }

    /// When [`wake`](Self::wake) has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Whether [`take`](Self::take) gives something.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether the next to be taken has failed before: it goes alone.
    pub(super) fn is_retry_ready(&self) -> bool {
        self.next_kept().is_some_and(|k| k.due.is_some())
    }

    fn next_kept(&self) -> Option<&Kept<R>> {
        self.queues.get(self.ready.front()?)?.kept.front()
    }

    /// How many of the kept could be taken if there was no limit.
    pub(super) fn takeable(&self) -> usize {
        self.takeable
    }

    /// Takes up to `max` kept records in hand, by offset: of each lane those at its front. One that failed before is taken
    /// alone, so that one bad record can't fail the same others again.
    pub(super) fn take(&mut self, max: usize) -> Vec<(Lane, Kept<R>)> {
        let mut taken = Vec::new();
        while taken.len() < max {
            if self.is_retry_ready() && !taken.is_empty() {
                break;
            }
            let Some(lane) = self.ready.pop_front() else { break };
            let Some(queue) = self.queues.get_mut(&lane) else { continue };
            self.takeable -= queue.kept.len();
            let mut alone = false;
            while taken.len() < max && !alone {
                let fits = |k: &Kept<R>| k.due.is_none() || queue.in_flight == 0;
                if !queue.kept.front().is_some_and(fits) {
                    break;
                }
                let Some(kept) = queue.kept.pop_front() else { break };
                queue.in_flight += 1;
                alone = kept.due.is_some();
                self.kept -= 1;
                self.bytes -= kept.bytes;
                self.failed -= usize::from(alone);
                taken.push((lane, kept));
            }
            if alone {
                break;
            }
        }
        taken.sort_unstable_by_key(|(_, k)| k.offset);
        taken
    }

    /// A record in hand has ended.
    pub(super) fn end(&mut self, lane: Lane, offset: i64) {
        self.passed(offset);
        self.leave(lane);
    }

    /// A record in hand has failed: it goes back to its place, and those behind it in its lane wait.
    pub(super) fn park(&mut self, lane: Lane, failed: Kept<R>) {
        self.kept += 1;
        self.bytes += failed.bytes;
        self.failed += 1;
        if let Some(queue) = self.queues.get_mut(&lane) {
            let place = queue.kept.partition_point(|k| k.offset < failed.offset);
            queue.kept.insert(place, failed);
        }
        self.leave(lane);
    }

    /// One less of a lane is in hand.
    fn leave(&mut self, lane: Lane) {
        let Some(queue) = self.queues.get_mut(&lane) else { return };
        queue.in_flight -= 1;
        if queue.in_flight > 0 {
            return;
        }
        match queue.kept.front() {
            None => drop(self.queues.remove(&lane)),
            Some(Kept { due: Some(due), .. }) => drop(self.timers.insert((*due, lane))),
            Some(Kept { due: None, .. }) => self.make_ready(lane),
        }
    }

    /// What may be committed: the lowest offset that has not ended.
    pub(super) fn committable(&self) -> Option<i64> {
        self.progress.as_ref().map(Progress::base)
    }

    /// Under which the last records were written, if it is known.
    pub(super) fn leader_epoch(&self) -> Option<i32> {
        self.leader_epoch
    }

    /// What has ended above that, for the metadata of a commit with this leader epoch.
    pub(super) fn ended_above(&self) -> Option<String> {
        self.progress.as_ref()?.encode(self.leader_epoch.unwrap_or(NO_EPOCH))
    }

    /// Records that are kept.
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    /// What they take of memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Those of them that have failed before.
    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    /// Lanes that stand still until a record is tried again.
    pub(super) fn parked(&self) -> usize {
        self.timers.len()
    }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
