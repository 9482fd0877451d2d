//! Decides which records of one partition may be handled next, without I/O.
//!
//! Records of one lane are handled one after the other, lanes side by side. A lane is the
//! partition, a key or a single record, as [`HandlerOrdering`] says. While a record of a lane is in
//! flight or awaits a retry, later records of the lane are queued here. Only lanes with a record in
//! flight or queued take memory: a record that is handled at once never gets a lane.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use tokio::time::Instant;

use super::breaker::HoldId;
use super::offset_tracker::{CompletedOffsets, OffsetTracker};
use super::partition_offsets::{NO_EPOCH, PartitionOffsets};
use crate::config::HandlerOrdering;

/// The hash of a key. Two keys with the same hash are handled one after the other, which does no
/// harm.
pub(super) type Lane = u64;

/// A record in the queue of its lane.
#[derive(Debug)]
pub(super) struct QueuedRecord<R> {
    pub(super) offset: i64,
    /// Memory that it takes.
    pub(super) bytes: usize,
    /// Time of the next attempt; `None` before the first one, and after a hold.
    pub(super) due: Option<Instant>,
    /// The hold that it waits for.
    pub(super) hold: Option<HoldId>,
    pub(super) record: R,
}

#[derive(Debug)]
struct LaneQueue<R> {
    in_flight: usize,
    /// Sorted by offset.
    queued: VecDeque<QueuedRecord<R>>,
}

impl<R> Default for LaneQueue<R> {
    fn default() -> Self {
        Self { in_flight: 0, queued: VecDeque::new() }
    }
}

/// The lanes of one partition; `R` is the form in which a record is queued.
#[derive(Debug)]
pub(super) struct Lanes<R> {
    ordering: HandlerOrdering,
    hasher: RandomState,
    queues: HashMap<Lane, LaneQueue<R>>,
    /// Lanes with nothing in flight whose first record may be taken, in the order in which they
    /// became ready.
    ready: VecDeque<Lane>,
    /// Lanes with nothing in flight whose first record awaits its retry.
    retry_timers: BTreeSet<(Instant, Lane)>,
    /// Lanes with nothing in flight whose first record waits for a hold.
    held: BTreeSet<(HoldId, Lane)>,
    /// The lane of the last record taken as a probe.
    last_probed: Lane,
    queued: usize,
    bytes: usize,
    /// Number of queued records that have failed before.
    awaiting_retry: usize,
    /// Number of queued records in ready lanes.
    takeable: usize,
    offsets: PartitionOffsets,
}

impl<R> Lanes<R> {
    /// Creates lanes that resume at the committed offset, if there is one.
    pub(super) fn new(ordering: HandlerOrdering, committed: Option<(i64, CompletedOffsets)>) -> Self {
        Self {
            ordering,
            hasher: RandomState::new(),
            queues: HashMap::new(),
            ready: VecDeque::new(),
            retry_timers: BTreeSet::new(),
            held: BTreeSet::new(),
            last_probed: 0,
            queued: 0,
            bytes: 0,
            awaiting_retry: 0,
            takeable: 0,
            offsets: PartitionOffsets::new(committed),
        }
    }

    /// Returns the lane of a record. Records without a key are in no order, unless the whole
    /// partition is.
    pub(super) fn lane(&self, key: Option<&[u8]>, offset: i64) -> Lane {
        match (self.ordering, key) {
            (HandlerOrdering::Partition, _) => 0,
            (HandlerOrdering::Key, Some(key)) => self.hasher.hash_one(key),
            (HandlerOrdering::Key, None) | (HandlerOrdering::Unordered, _) => offset as u64,
        }
    }

    /// Handles the arrival of records whose first offset is `offset`.
    pub(super) fn start_from(&mut self, offset: i64) {
        self.offsets.start_from(offset);
    }

    /// Sets the leader epoch of the records that follow.
    pub(super) fn set_leader_epoch(&mut self, leader_epoch: i32) {
        self.offsets.set_leader_epoch(leader_epoch);
    }

    /// Handles the arrival of a record; returns whether it must be handled.
    pub(super) fn admit(&mut self, offset: i64) -> bool {
        self.offsets.admit(offset)
    }

    /// Notes that no record below `next` will arrive.
    pub(super) fn advance_to(&mut self, next: i64) {
        self.offsets.advance_to(next);
    }

    /// Returns whether a lane has nothing in flight or queued, so that its next record may be
    /// handled at once.
    pub(super) fn is_free(&self, lane: Lane) -> bool {
        self.queues.is_empty() || !self.queues.contains_key(&lane)
    }

    /// Returns whether all lanes are free.
    pub(super) fn is_idle(&self) -> bool {
        self.queues.is_empty()
    }

    /// Completes a record that never occupied its lane.
    pub(super) fn complete_unqueued(&mut self, offset: i64) {
        self.offsets.complete(offset);
    }

    /// Puts a record of a free lane in flight.
    pub(super) fn occupy(&mut self, lane: Lane) {
        self.queues.entry(lane).or_default().in_flight += 1;
    }

    /// Queues a record until those before it in its lane are completed.
    pub(super) fn enqueue(&mut self, lane: Lane, offset: i64, bytes: usize, record: R) {
        self.queued += 1;
        self.bytes += bytes;
        let queue = self.queues.entry(lane).or_default();
        queue.queued.push_back(QueuedRecord { offset, bytes, due: None, hold: None, record });
        // A retry that is not due blocks the new record of its lane, in each of these
        // interleavings:
        // 1. record 5 of a key is in flight, record 9 arrives: `in_flight` > 0, and 9 is queued. 5
        //    fails: `requeue` puts it before 9 by offset, and `release` starts its timer; 9 is not
        //    takeable, for the timer is that of the lane.
        // 2. record 5 has failed and its timer runs, record 9 arrives: the first of the queue is 5,
        //    its timer is in `retry_timers`, and 9 is not counted as takeable until `expire_timers`
        //    makes the whole lane ready.
        // 3. the timer of record 5 has expired and the lane is in `ready`, 5 is not taken yet,
        //    record 9 arrives: no timer, so 9 is takeable, but the lane is in `ready` already and
        //    must not be listed twice. `take_ready` takes 5 alone.
        let first = queue.queued.front();
        let is_retry_pending =
            |q: &QueuedRecord<R>| q.hold.is_some() || q.due.is_some_and(|due| self.retry_timers.contains(&(due, lane)));
        if queue.in_flight > 0 || first.is_some_and(is_retry_pending) {
            return;
        }
        self.takeable += 1;
        if queue.queued.len() == 1 {
            self.ready.push_back(lane);
        }
    }

    /// Makes lanes ready whose retry is due.
    pub(super) fn expire_timers(&mut self, now: Instant) {
        while let Some(&(due, lane)) = self.retry_timers.first().filter(|(due, _)| *due <= now) {
            self.retry_timers.remove(&(due, lane));
            self.make_ready(lane);
        }
    }

    fn make_ready(&mut self, lane: Lane) {
        self.ready.push_back(lane);
        self.takeable += self.queues.get(&lane).map_or(0, |q| q.queued.len());
    }

    /// Returns the time at which [`expire_timers`](Self::expire_timers) makes the next lane ready.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.retry_timers.first().map(|(due, _)| *due)
    }

    /// Returns whether [`take_ready`](Self::take_ready) returns a record.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Returns whether the next record to take is a retry, which is taken alone.
    pub(super) fn is_retry_ready(&self) -> bool {
        self.next_ready().is_some_and(|q| q.due.is_some())
    }

    fn next_ready(&self) -> Option<&QueuedRecord<R>> {
        self.queues.get(self.ready.front()?)?.queued.front()
    }

    /// Returns the number of queued records that could be taken without a limit.
    pub(super) fn takeable(&self) -> usize {
        self.takeable
    }

    /// Puts up to `max` queued records in flight, the first ones of each lane, and returns them by
    /// offset. A retry is taken alone, so that one bad record can't fail the same others again.
    pub(super) fn take_ready(&mut self, max: usize) -> Vec<(Lane, QueuedRecord<R>)> {
        let mut taken = Vec::new();
        while taken.len() < max {
            if self.is_retry_ready() && !taken.is_empty() {
                break;
            }
            let Some(lane) = self.ready.pop_front() else { break };
            let Some(queue) = self.queues.get_mut(&lane) else { continue };
            self.takeable -= queue.queued.len();
            let mut alone = false;
            while taken.len() < max && !alone {
                let fits = |q: &QueuedRecord<R>| q.hold.is_none() && (q.due.is_none() || queue.in_flight == 0);
                if !queue.queued.front().is_some_and(fits) {
                    break;
                }
                let Some(next) = queue.queued.pop_front() else { break };
                queue.in_flight += 1;
                alone = next.due.is_some();
                self.queued -= 1;
                self.bytes -= next.bytes;
                self.awaiting_retry -= usize::from(alone);
                taken.push((lane, next));
            }
            if alone {
                break;
            }
        }
        taken.sort_unstable_by_key(|(_, q)| q.offset);
        taken
    }

    /// Completes a record in flight.
    pub(super) fn complete(&mut self, lane: Lane, offset: i64) {
        self.complete_unqueued(offset);
        self.release(lane);
    }

    /// Puts a record in flight that failed back into its lane, by offset; later records of the lane
    /// are blocked until its retry.
    pub(super) fn requeue(&mut self, lane: Lane, failed: QueuedRecord<R>) {
        self.queued += 1;
        self.bytes += failed.bytes;
        self.awaiting_retry += 1;
        if let Some(queue) = self.queues.get_mut(&lane) {
            let at = queue.queued.partition_point(|q| q.offset < failed.offset);
            queue.queued.insert(at, failed);
        }
        self.release(lane);
    }

    /// Takes one record of a lane out of flight; after the last one, the lane becomes free, ready
    /// or waits for its retry.
    fn release(&mut self, lane: Lane) {
        let Some(queue) = self.queues.get_mut(&lane) else { return };
        queue.in_flight -= 1;
        if queue.in_flight > 0 {
            return;
        }
        match queue.queued.front() {
            None => drop(self.queues.remove(&lane)),
            Some(QueuedRecord { hold: Some(hold), .. }) => drop(self.held.insert((*hold, lane))),
            Some(QueuedRecord { due: Some(due), .. }) => drop(self.retry_timers.insert((*due, lane))),
            Some(QueuedRecord { due: None, .. }) => self.make_ready(lane),
        }
    }

    /// Returns whether the first record of a lane waits for this hold.
    pub(super) fn has_held(&self, hold: HoldId) -> bool {
        self.held.range((hold, 0)..=(hold, Lane::MAX)).next().is_some()
    }

    /// Returns the number of lanes that wait for holds.
    pub(super) fn held_lanes(&self) -> usize {
        self.held.len()
    }

    /// Puts a record that waits for this hold in flight, as a probe: the first of the next lane.
    pub(super) fn take_held(&mut self, hold: HoldId) -> Option<(Lane, QueuedRecord<R>)> {
        let after = (hold, self.last_probed.saturating_add(1))..=(hold, Lane::MAX);
        let next = self.held.range(after).next().or_else(|| self.held.range((hold, 0)..=(hold, Lane::MAX)).next());
        let (_, lane) = next.copied()?;
        self.held.remove(&(hold, lane));
        self.last_probed = lane;
        let queue = self.queues.get_mut(&lane)?;
        let probe = queue.queued.pop_front()?;
        queue.in_flight += 1;
        self.queued -= 1;
        self.bytes -= probe.bytes;
        self.awaiting_retry -= 1;
        Some((lane, probe))
    }

    /// Makes what waits for holds that have ended ready: it is handled as if it had never failed.
    pub(super) fn release_held(&mut self, is_open: impl Fn(HoldId) -> bool) {
        for queued in self.queues.values_mut().flat_map(|queue| &mut queue.queued) {
            if queued.hold.is_some_and(|hold| !is_open(hold)) {
                (queued.hold, queued.due) = (None, None);
                self.awaiting_retry -= 1;
            }
        }
        let ended: Vec<_> = self.held.iter().filter(|(hold, _)| !is_open(*hold)).copied().collect();
        for (hold, lane) in ended {
            self.held.remove(&(hold, lane));
            self.make_ready(lane);
        }
    }

    /// Returns the offset to commit: the lowest one that is not completed.
    pub(super) fn committable_offset(&self) -> Option<i64> {
        self.offsets.tracker().map(OffsetTracker::lowest_incomplete)
    }

    /// Returns the leader epoch of the last fetched records, if it is known.
    pub(super) fn leader_epoch(&self) -> Option<i32> {
        self.offsets.leader_epoch()
    }

    /// Returns the metadata for a commit of [`committable_offset`](Self::committable_offset): the
    /// offsets completed above it.
    pub(super) fn completed_above(&self) -> Option<String> {
        self.offsets.tracker()?.encode(self.leader_epoch().unwrap_or(NO_EPOCH))
    }

    /// Returns the number of queued records.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Returns the memory that queued records take.
    pub(super) fn queued_bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of queued records that have failed before.
    pub(super) fn awaiting_retry(&self) -> usize {
        self.awaiting_retry
    }

    /// Returns the number of lanes that are blocked until a retry, or by a hold.
    pub(super) fn blocked_lanes(&self) -> usize {
        self.retry_timers.len() + self.held.len()
    }
}

#[cfg(test)]
mod tests;
