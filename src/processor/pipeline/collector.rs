//! Collects the handled records of one partition with their outputs, without I/O, and cuts from
//! them what a transaction takes.
//!
//! A record is handled in two steps. When its handler has succeeded it is *ended*: its lane goes on,
//! and its outputs are collected here. It is *completed*, for [`OffsetTracker`], when a transaction
//! with its outputs is committed. So the offset and metadata of a [`Cut`] say, for each record, that
//! it is handled if and only if its outputs are in the same transaction, or in an earlier one.

use std::collections::{BTreeMap, HashSet};

use tokio::time::Instant;

use crate::cluster::offset_commit::OffsetAndMetadata;
use crate::consumer::Message;
use crate::processor::dead_letter::FailedRecord;
use crate::processor::lanes::Lane;
use crate::processor::offset_tracker::{CompletedOffsets, OffsetTracker, TransactionMetadata};
use crate::processor::partition_offsets::{NO_EPOCH, PartitionOffsets};
use crate::producer::ProducerRecord;

/// The outputs of ended records.
#[derive(Debug)]
pub(in crate::processor) enum Payload {
    /// The outputs of a handler, with the records that become dead letters if one can't be written.
    Outputs(Vec<ProducerRecord<'static>>, Vec<Message>),
    /// Dead letters and delayed retries.
    Failed(Vec<FailedRecord>),
}

impl Payload {
    /// Returns the records to write.
    pub(super) fn records(&self) -> impl Iterator<Item = ProducerRecord<'_>> {
        let (outputs, failed) = match self {
            Self::Outputs(outputs, _) => (&outputs[..], &[][..]),
            Self::Failed(failed) => (&[][..], &failed[..]),
        };
        outputs.iter().map(ProducerRecord::as_borrowed).chain(failed.iter().map(FailedRecord::record))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Outputs(outputs, inputs) => {
                outputs.iter().map(size_of_record).sum::<usize>() + inputs.iter().map(Message::size).sum::<usize>()
            }
            Self::Failed(failed) => failed.iter().map(FailedRecord::size).sum(),
        }
    }
}

fn size_of_record(record: &ProducerRecord<'_>) -> usize {
    let headers = record.headers.as_ref().map_or(0, |h| h.raw.len());
    let bytes = record.key.as_ref().map_or(0, |k| k.len()) + record.value.as_ref().map_or(0, |v| v.len());
    size_of::<ProducerRecord<'_>>() + record.topic.len() + bytes + headers
}

/// Records that ended together, with their outputs, which are written in one transaction or in none.
#[derive(Debug)]
pub(super) struct EndedRecords {
    /// Their place in the order of ending.
    sequence: u64,
    /// Lane and offset of each, by offset.
    records: Vec<(Lane, i64)>,
    pub(super) payload: Payload,
    bytes: usize,
    /// Number of transactions that were aborted because of their outputs.
    pub(super) failures: u32,
}

impl EndedRecords {
    fn first_offset(&self) -> i64 {
        self.records.first().map_or(0, |(_, offset)| *offset)
    }

    /// Returns the offset of the first record, which names them in logs.
    pub(super) fn offset(&self) -> i64 {
        self.first_offset()
    }

    fn size(&self) -> Size {
        Size { records: self.records.len(), bytes: self.bytes }
    }
}

/// Number and bytes of records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl Size {
    pub(super) fn add(&mut self, other: Self) {
        (self.records, self.bytes) = (self.records + other.records, self.bytes.saturating_add(other.bytes));
    }

    fn sub(&mut self, other: Self) {
        (self.records, self.bytes) =
            (self.records.saturating_sub(other.records), self.bytes.saturating_sub(other.bytes));
    }

    /// Returns whether both numbers are at most those of `limit`.
    pub(super) fn fits(self, limit: Self) -> bool {
        self.records <= limit.records && self.bytes <= limit.bytes
    }
}

/// Records of one partition that a transaction takes.
#[derive(Debug)]
pub(super) struct Cut {
    /// Number of the log that the records are of.
    log: u64,
    /// In the order of ending, which is that of each lane.
    pub(super) ended: Vec<EndedRecords>,
    /// The offset to commit: the records below it, and those of its metadata, are the completed ones
    /// and those of this cut.
    pub(super) offset: OffsetAndMetadata,
    pub(super) size: Size,
}

/// See the [module](self).
#[derive(Debug)]
pub(in crate::processor) struct Collector {
    offsets: PartitionOffsets,
    /// Number of the log, which changes when offsets begin again.
    log: u64,
    /// Ended records that no open transaction has, by their first offset.
    ended: BTreeMap<i64, EndedRecords>,
    next_sequence: u64,
    /// Size of `ended`.
    waiting: Size,
    /// Size of what the open transaction has.
    taken: Size,
    /// Time before which nothing is taken, because outputs of a record could not be written.
    held_until: Option<Instant>,
    /// True if the last cut took nothing of what is ended.
    is_blocked: bool,
    /// True once the partition is revoked or lost: nothing more is collected or committed.
    is_closed: bool,
}

impl Collector {
    pub(super) fn new(committed: Option<(i64, CompletedOffsets)>) -> Self {
        Self {
            offsets: PartitionOffsets::new(committed),
            log: 0,
            ended: BTreeMap::new(),
            next_sequence: 0,
            waiting: Size::default(),
            taken: Size::default(),
            held_until: None,
            is_blocked: false,
            is_closed: false,
        }
    }

    // Arrivals, as in `Lanes`.

    pub(in crate::processor) fn start_from(&mut self, offset: i64) {
        if self.offsets.start_from(offset) {
            // Offsets of another log: their records are not those that ended.
            self.log += 1;
            self.ended.clear();
            self.waiting = Size::default();
        }
    }

    pub(in crate::processor) fn set_leader_epoch(&mut self, leader_epoch: i32) {
        self.offsets.set_leader_epoch(leader_epoch);
    }

    pub(in crate::processor) fn admit(&mut self, offset: i64) {
        self.offsets.admit(offset);
    }

    pub(in crate::processor) fn advance_to(&mut self, next: i64) {
        self.offsets.advance_to(next);
    }

    /// Adds records that have ended together.
    pub(super) fn end(&mut self, mut records: Vec<(Lane, i64)>, payload: Payload) {
        if self.is_closed || records.is_empty() {
            return;
        }
        records.sort_unstable_by_key(|(_, offset)| *offset);
        let (bytes, sequence) = (payload.bytes(), self.next_sequence);
        self.next_sequence += 1;
        self.insert(EndedRecords { sequence, records, payload, bytes, failures: 0 });
    }

    fn insert(&mut self, ended: EndedRecords) {
        self.waiting.add(ended.size());
        if let Some(before) = self.ended.insert(ended.first_offset(), ended) {
            self.waiting.sub(before.size());
        }
        self.is_blocked = false;
    }

    // Transactions.

    /// Takes what a transaction with `room` left gets; its first cut may be larger, so that any
    /// record fits. `transaction` is a number that no other transaction has.
    pub(super) fn take(&mut self, room: Size, is_first: bool, transaction: i64, now: Instant) -> Option<Cut> {
        if self.ended.is_empty() || self.is_closed || self.held_until.is_some_and(|at| at > now) {
            return None;
        }
        let cut = self.find_cut(self.count_fitting(room, is_first), transaction);
        self.is_blocked = cut.is_none() && is_first;
        let (keys, offset) = cut?;
        let mut ended: Vec<_> = keys.iter().filter_map(|first| self.ended.remove(first)).collect();
        ended.sort_unstable_by_key(|e| e.sequence);
        let mut size = Size::default();
        ended.iter().for_each(|e| size.add(e.size()));
        self.waiting.sub(size);
        self.taken.add(size);
        Some(Cut { log: self.log, ended, offset, size })
    }

    /// Returns how many of the ended records fit, by offset. One whose outputs could not be written is
    /// tried in a transaction of its own, so that it does not abort others again.
    fn count_fitting(&self, room: Size, is_first: bool) -> usize {
        let mut size = Size::default();
        let mut count = 0;
        for ended in self.ended.values() {
            size.add(ended.size());
            let is_alone = count == 0 && is_first;
            if (ended.failures > 0 || !size.fits(room)) && !is_alone {
                break;
            }
            count += 1;
            if ended.failures > 0 {
                break;
            }
        }
        count
    }

    /// Returns the largest cut of the first `count` ended records or fewer whose offsets can be
    /// committed.
    fn find_cut(&self, count: usize, transaction: i64) -> Option<(Vec<i64>, OffsetAndMetadata)> {
        // By offset, and not in the order of ending: the lowest records are those that make room in
        // the metadata, so that it goes on:
        // 1. 100 is in a handler. 102, 104, … end and are committed until the metadata is full.
        // 2. 900 ends: its range does not fit, and it stays here.
        // 3. 100 ends. Behind 900 in the order of ending it would wait for it, and 900 for the room.
        if let Some(cut) = self.try_cut(count, transaction) {
            return Some(cut);
        }
        let (mut fits, mut too_many, mut found) = (0, count, None);
        while too_many - fits > 1 {
            let middle = usize::midpoint(fits, too_many);
            match self.try_cut(middle, transaction) {
                Some(cut) => (fits, found) = (middle, Some(cut)),
                None => too_many = middle,
            }
        }
        found
    }

    fn try_cut(&self, count: usize, transaction: i64) -> Option<(Vec<i64>, OffsetAndMetadata)> {
        let mut chosen: Vec<_> = self.ended.values().take(count).collect();
        if count < self.ended.len() {
            self.remove_overtaking(&mut chosen, count);
        }
        if chosen.is_empty() {
            return None;
        }
        let before = self.offsets.tracker()?;
        let mut after = before.clone();
        chosen.iter().flat_map(|e| &e.records).for_each(|(_, offset)| after.complete(*offset));
        let leader_epoch = self.offsets.leader_epoch();
        let metadata = after.encode_transaction(leader_epoch.unwrap_or(NO_EPOCH), transaction);
        let makes_room = chosen.len() == 1 && after.lowest_incomplete() > before.lowest_incomplete();
        let fits = metadata.fits || (makes_room && metadata.fits_alone);
        let offset = || offset_of(&after, leader_epoch, metadata);
        fits.then(|| (chosen.iter().map(|e| e.first_offset()).collect(), offset()))
    }

    /// Removes records that would overtake one of their lane: one batch may have records of several
    /// lanes, so that the order by offset is not always that of each lane.
    fn remove_overtaking(&self, chosen: &mut Vec<&EndedRecords>, count: usize) {
        if self.ended.values().all(|e| e.records.len() == 1) {
            return;
        }
        let mut all: Vec<_> = self.ended.values().enumerate().map(|(i, e)| (e, i < count)).collect();
        all.sort_unstable_by_key(|(e, _)| e.sequence);
        let (mut blocked, mut kept) = (HashSet::new(), HashSet::new());
        for (ended, is_chosen) in all {
            if is_chosen && ended.records.iter().all(|(lane, _)| !blocked.contains(lane)) {
                kept.insert(ended.sequence);
            } else {
                blocked.extend(ended.records.iter().map(|(lane, _)| *lane));
            }
        }
        chosen.retain(|e| kept.contains(&e.sequence));
    }

    /// Completes the records of a committed cut.
    pub(super) fn on_committed(&mut self, cut: &Cut) {
        self.taken.sub(cut.size);
        if cut.log == self.log {
            let records = cut.ended.iter().flat_map(|e| &e.records);
            records.for_each(|(_, offset)| self.offsets.complete(*offset));
        }
        self.is_blocked = false;
    }

    /// Takes back the records of an aborted cut, which the next one takes again: their handlers are
    /// not called again.
    pub(super) fn on_aborted(&mut self, cut: Cut) {
        self.taken.sub(cut.size);
        if cut.log == self.log && !self.is_closed {
            for mut ended in cut.ended {
                ended.bytes = ended.payload.bytes();
                self.insert(ended);
            }
        }
    }

    /// Takes nothing before this time.
    pub(super) fn hold_until(&mut self, at: Instant) {
        self.held_until = Some(at);
    }

    /// Drops everything: the partition is not this member's any more. Returns the number of ended
    /// records that are not committed.
    pub(super) fn close(&mut self) -> usize {
        self.is_closed = true;
        self.ended.clear();
        std::mem::take(&mut self.waiting).records + self.taken.records
    }

    // State.

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Returns the size of what no transaction has yet.
    pub(super) fn waiting(&self) -> Size {
        self.waiting
    }

    /// Returns the size of what is not committed.
    pub(super) fn held(&self) -> Size {
        let mut held = self.waiting;
        held.add(self.taken);
        held
    }

    /// Returns whether no further transaction can take any of it.
    pub(super) fn is_flushed(&self, now: Instant) -> bool {
        let waits = self.is_blocked || self.held_until.is_some_and(|at| at > now);
        self.taken == Size::default() && (self.ended.is_empty() || waits)
    }
}

fn offset_of(after: &OffsetTracker, leader_epoch: Option<i32>, metadata: TransactionMetadata) -> OffsetAndMetadata {
    let offset = OffsetAndMetadata::new(after.lowest_incomplete()).with_metadata(metadata.into_text());
    leader_epoch.map_or(offset.clone(), |epoch| offset.with_leader_epoch(epoch))
}

#[cfg(test)]
mod tests;
