//! The offsets of a partition from its assignment on, without I/O: where it was resumed, what has
//! arrived, and what is completed.

use super::offset_tracker::{CompletedOffsets, OffsetTracker};

/// The leader epoch in commit metadata where it is unknown.
pub(super) const NO_EPOCH: i32 = -1;

/// Tracks the offsets of an assigned partition.
#[derive(Debug)]
pub(super) struct PartitionOffsets {
    tracker: Option<OffsetTracker>,
    /// The committed offset and what was completed above it, until the first record arrives.
    committed: Option<(i64, CompletedOffsets)>,
    /// Offset behind the last fetched record.
    next: i64,
    /// Leader epoch of the last fetched records.
    leader_epoch: Option<i32>,
}

impl PartitionOffsets {
    /// Creates the offsets of a partition that resumes at the committed offset, if there is one.
    pub(super) fn new(committed: Option<(i64, CompletedOffsets)>) -> Self {
        Self { tracker: None, committed, next: 0, leader_epoch: None }
    }

    /// Handles the arrival of records whose first offset is `offset`; returns whether they are the
    /// first of a log: the partition's, or another one after a truncation.
    pub(super) fn start_from(&mut self, offset: i64) -> bool {
        let started = self.tracker.is_some();
        if started && offset >= self.next {
            return false;
        }
        // The log was truncated or recreated since the commit or the last fetch: the offsets are
        // those of other records.
        let committed = self.committed.take().filter(|(base, _)| !started && *base <= offset);
        let (base, completed) = committed.unwrap_or_else(|| (offset, CompletedOffsets::default()));
        self.tracker = Some(OffsetTracker::new(base, completed));
        self.next = offset;
        true
    }

    /// Sets the leader epoch of the records that follow.
    pub(super) fn set_leader_epoch(&mut self, leader_epoch: i32) {
        self.leader_epoch = Some(leader_epoch);
        if let Some(tracker) = &mut self.tracker {
            tracker.set_leader_epoch(leader_epoch);
        }
    }

    /// Handles the arrival of a record; returns whether it must be handled.
    pub(super) fn admit(&mut self, offset: i64) -> bool {
        self.next = self.next.max(offset + 1);
        self.tracker.as_mut().is_none_or(|tracker| tracker.admit(offset))
    }

    /// Notes that no record below `next` will arrive.
    pub(super) fn advance_to(&mut self, next: i64) {
        self.next = self.next.max(next);
        if let Some(tracker) = &mut self.tracker {
            tracker.advance_to(next);
        }
    }

    /// Completes a record.
    pub(super) fn complete(&mut self, offset: i64) {
        if let Some(tracker) = &mut self.tracker {
            tracker.complete(offset);
        }
    }

    /// Returns the tracker of the records that have arrived.
    pub(super) fn tracker(&self) -> Option<&OffsetTracker> {
        self.tracker.as_ref()
    }

    /// Returns the leader epoch of the last fetched records, if it is known.
    pub(super) fn leader_epoch(&self) -> Option<i32> {
        self.leader_epoch
    }
}
