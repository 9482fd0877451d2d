//! Tracks which offsets of one partition are completed, without I/O: the lowest one that is not,
//! which may be committed, and those completed above it. Records are fetched in order and completed
//! in any order.
//!
//! The offsets completed above the committed one are written into the commit's metadata, so that
//! the next owner of the partition does not handle them again. They must never be believed where
//! they are not true: they hold only for the offset and the leader epoch that they were committed
//! with, under a checksum, and not for records of a later leader.

use std::collections::VecDeque;
use std::iter;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::record::{Reader, put_varlong};

/// First byte of the metadata before base64.
const FORMAT_VERSION: u8 = 1;
/// First byte of the metadata of a transaction, which has its number behind the leader epoch.
const TRANSACTION_VERSION: u8 = 2;
/// Maximum length of the metadata. Brokers allow 4,096 bytes by default
/// (`offset.metadata.max.bytes`).
const MAX_METADATA_BYTES: usize = 2048;
/// Maximum length before base64, which writes four characters for three bytes.
const MAX_RAW_BYTES: usize = MAX_METADATA_BYTES / 4 * 3;
/// Maximum length of metadata that is read: that of the first offsets of a transaction, whose
/// ranges are all needed.
const MAX_READ_BYTES: usize = 4096;
const CRC_BYTES: usize = 4;

/// Tracks the completed offsets of one partition.
#[derive(Debug, Clone)]
pub(super) struct OffsetTracker {
    /// Offset behind the last fetched record.
    next: i64,
    /// Offsets that are not completed, in order. No chunk is empty but in the middle, so that
    /// offsets without a record (compaction, transaction markers) take no memory.
    in_flight: VecDeque<Chunk>,
    /// Offsets above `next` that a previous owner completed.
    completed_before: CompletedOffsets,
}

/// 64 offsets, with a bit for each one in flight, and for each completed record.
#[derive(Debug, Clone)]
struct Chunk {
    /// A multiple of 64.
    start: i64,
    bits: u64,
    completed: u64,
}

impl Chunk {
    /// Returns the start of an offset's chunk, and its bit.
    fn locate(offset: i64) -> (i64, u64) {
        (offset & !63, 1 << (offset & 63))
    }

    /// Returns whether a record in the range is completed.
    fn has_completed(&self, range: &Range<i64>) -> bool {
        let bit_at = |offset: i64| u32::try_from((offset - self.start).clamp(0, 64)).unwrap_or(64);
        let below = |bit: u32| 1_u64.checked_shl(bit).map_or(u64::MAX, |bit| bit - 1);
        self.completed & below(bit_at(range.end)) & !below(bit_at(range.start)) != 0
    }

    /// Returns the runs of offsets in flight.
    fn runs(&self) -> impl Iterator<Item = Range<i64>> {
        let (start, mut bits) = (self.start, self.bits);
        iter::from_fn(move || {
            let from = bits.trailing_zeros();
            let len = bits.checked_shr(from)?.trailing_ones();
            bits &= bits.wrapping_add(1 << from); // the carry clears the run
            let from = start + i64::from(from);
            Some(from..from + i64::from(len))
        })
    }
}

impl OffsetTracker {
    /// Creates a tracker for a partition that is read from `base`.
    pub(super) fn new(base: i64, completed_before: CompletedOffsets) -> Self {
        Self { next: base, in_flight: VecDeque::new(), completed_before }
    }

    /// Handles the arrival of a record; returns whether it must be handled: not if it was completed
    /// before, or is in flight.
    pub(super) fn admit(&mut self, offset: i64) -> bool {
        if offset < self.next {
            return false;
        }
        self.advance_to(offset + 1);
        let is_completed = self.completed_before.take_if_contained(offset);
        if is_completed && self.in_flight.is_empty() {
            return false;
        }
        let (start, bit) = Chunk::locate(offset);
        let (bits, completed) = if is_completed { (0, bit) } else { (bit, 0) };
        match self.in_flight.back_mut().filter(|c| c.start == start) {
            Some(chunk) => (chunk.bits, chunk.completed) = (chunk.bits | bits, chunk.completed | completed),
            None => self.in_flight.push_back(Chunk { start, bits, completed }),
        }
        !is_completed
    }

    /// Notes that no record below `next` will arrive: offsets without a record count as completed.
    pub(super) fn advance_to(&mut self, next: i64) {
        self.next = self.next.max(next);
    }

    /// Sets the leader epoch of the records that follow. If it is later than the one that
    /// `completed_before` was read under, the log may have been truncated, and the offsets may be
    /// those of other records.
    pub(super) fn set_leader_epoch(&mut self, leader_epoch: i32) {
        if leader_epoch > self.completed_before.leader_epoch {
            self.completed_before = CompletedOffsets::default();
        }
    }

    /// Completes a record. Does nothing if it is not in flight.
    pub(super) fn complete(&mut self, offset: i64) {
        let (start, bit) = Chunk::locate(offset);
        let Some(first) = self.in_flight.front() else { return };
        // Exact if no chunk is missing in between, and never too low.
        let guess = usize::try_from((start - first.start) / 64).unwrap_or(0).min(self.in_flight.len() - 1);
        let index = match self.in_flight[guess].start == start {
            true => guess,
            false => self.in_flight.partition_point(|c| c.start < start),
        };
        if let Some(chunk) = self.in_flight.get_mut(index).filter(|c| c.start == start) {
            chunk.completed |= chunk.bits & bit;
            chunk.bits &= !bit;
        }
        // Empty chunks in the middle are removed when they become the first one.
        while self.in_flight.front().is_some_and(|c| c.bits == 0) {
            self.in_flight.pop_front();
        }
    }

    /// Returns the offset to commit: the lowest one that is not completed.
    pub(super) fn lowest_incomplete(&self) -> i64 {
        match self.in_flight.front() {
            Some(chunk) => chunk.start + i64::from(chunk.bits.trailing_zeros()),
            None => self.completed_before.first_gap_from(self.next),
        }
    }

    /// Returns the ranges completed above [`lowest_incomplete`](Self::lowest_incomplete), in order.
    fn completed_above(&self) -> impl Iterator<Item = Range<i64>> {
        let base = self.lowest_incomplete();
        let mut at = base;
        let in_flight = self.in_flight.iter().flat_map(Chunk::runs).chain(iter::once(self.next..self.next));
        let between = in_flight.map(move |run| std::mem::replace(&mut at, run.end)..run.start);
        let from = self.next.max(base);
        let before = self.completed_before.ranges.iter().map(move |r| r.start.max(from)..r.end);
        between.chain(before).filter(|r| !r.is_empty())
    }

    /// Returns those of [`completed_above`](Self::completed_above) with a completed record, and not
    /// only offsets without one: after a compaction there may be such between any two records.
    fn records_completed_above(&self) -> impl Iterator<Item = Range<i64>> {
        self.completed_above().filter(|range| {
            let first = self.in_flight.partition_point(|c| c.start.saturating_add(64) <= range.start);
            let chunks = self.in_flight.range(first..).take_while(|c| c.start < range.end);
            range.start >= self.next || chunks.into_iter().any(|c| c.has_completed(range))
        })
    }

    /// Returns the metadata for a commit of [`lowest_incomplete`](Self::lowest_incomplete) in a
    /// transaction with this number, and whether it may be as long. None of the records completed
    /// above is left out: the outputs of each are committed with it.
    pub(super) fn encode_transaction(&self, leader_epoch: i32, transaction: i64) -> TransactionMetadata {
        let mut at = self.lowest_incomplete();
        let mut out = vec![TRANSACTION_VERSION];
        [at, i64::from(leader_epoch), transaction].into_iter().for_each(|n| put_varlong(&mut out, n));
        for range in self.records_completed_above() {
            put_varlong(&mut out, range.start - at);
            put_varlong(&mut out, range.end - range.start);
            at = range.end;
        }
        out.extend(crc32c::crc32c(&out).to_be_bytes());
        TransactionMetadata { fits: out.len() <= MAX_RAW_BYTES, fits_alone: out.len() <= MAX_READ_BYTES / 4 * 3, out }
    }

    /// Returns the metadata for a commit of [`lowest_incomplete`](Self::lowest_incomplete) with
    /// `leader_epoch`, that of the last fetched record; `None` if nothing is completed above it.
    /// The highest ranges are dropped where it would be too long.
    pub(super) fn encode(&self, leader_epoch: i32) -> Option<String> {
        // A commit with a gap: offsets 100 to 104 are fetched, 101 and 102 are completed, 100 is in
        // flight.
        // 1. 100 is committed, with 101..103 in its metadata; the member dies.
        // 2. The next owner reads from 100. It admits 100, skips 101 and 102, admits 103.
        // 3. It completes 100 before it has fetched 103, and commits 103: `first_gap_from` passes
        //    over what step 1 completed. If the group is reset to 50 in between, the base is not
        //    that of step 1, and the metadata is ignored. If the log is truncated at 101, the
        //    records from there on have a later leader epoch, and `set_leader_epoch` drops the
        //    ranges.
        let mut at = self.lowest_incomplete();
        let mut out = vec![FORMAT_VERSION];
        put_varlong(&mut out, at);
        put_varlong(&mut out, i64::from(leader_epoch));
        let head = out.len();
        for range in self.completed_above() {
            let len = out.len();
            put_varlong(&mut out, range.start - at);
            put_varlong(&mut out, range.end - range.start);
            if out.len() > MAX_RAW_BYTES - CRC_BYTES {
                out.truncate(len);
                break;
            }
            at = range.end;
        }
        if out.len() == head {
            return None;
        }
        out.extend(crc32c::crc32c(&out).to_be_bytes());
        Some(URL_SAFE_NO_PAD.encode(out))
    }
}

/// The metadata of a commit in a transaction.
#[derive(Debug)]
pub(super) struct TransactionMetadata {
    out: Vec<u8>,
    /// True if further records may complete in the same transaction.
    pub(super) fits: bool,
    /// True if it is not too long for the transaction of the lowest record, which must go on.
    pub(super) fits_alone: bool,
}

impl TransactionMetadata {
    pub(super) fn into_text(self) -> String {
        URL_SAFE_NO_PAD.encode(self.out)
    }
}

/// Offsets that were completed above a committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CompletedOffsets {
    /// Sorted; none is empty.
    ranges: VecDeque<Range<i64>>,
    /// No record in the ranges has a later leader epoch.
    leader_epoch: i32,
}

impl Default for CompletedOffsets {
    fn default() -> Self {
        Self { ranges: VecDeque::new(), leader_epoch: i32::MAX }
    }
}

impl CompletedOffsets {
    /// Reads the metadata of an offset committed with `leader_epoch`. Returns `None` unless
    /// [`OffsetTracker`] wrote it for these two: metadata of other clients, damaged, or
    /// left by a tool that moved the offset.
    pub(super) fn decode(metadata: &str, base: i64, leader_epoch: i32) -> Option<Self> {
        if metadata.len() > MAX_READ_BYTES {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(metadata).ok()?;
        let (body, crc) = bytes.split_last_chunk::<CRC_BYTES>()?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return None;
        }
        let mut fields = Reader::new(body, 0);
        let version = fields.byte("version").ok()?;
        let head = (fields.varlong("base").ok()?, fields.varlong("leader epoch").ok()?);
        if head != (base, i64::from(leader_epoch)) {
            return None;
        }
        match version {
            FORMAT_VERSION => {}
            TRANSACTION_VERSION => _ = fields.varlong("transaction").ok()?,
            _ => return None,
        }
        let mut ranges = VecDeque::new();
        let mut at = base;
        while fields.pos() < body.len() {
            let start = checked_advance(at, fields.varlong("gap").ok()?)?;
            at = checked_advance(start, fields.varlong("length").ok()?)?;
            ranges.push_back(start..at);
        }
        Some(Self { ranges, leader_epoch })
    }

    /// Returns whether an offset is contained, and forgets the ranges below it: offsets must not
    /// decrease.
    fn take_if_contained(&mut self, offset: i64) -> bool {
        while self.ranges.front().is_some_and(|r| r.end <= offset) {
            self.ranges.pop_front();
        }
        self.ranges.front().is_some_and(|r| r.contains(&offset))
    }

    /// Returns the lowest offset from `next` on that is not contained.
    fn first_gap_from(&self, next: i64) -> i64 {
        self.ranges.iter().fold(next, |at, r| if r.contains(&at) { r.end } else { at })
    }
}

fn checked_advance(at: i64, len: i64) -> Option<i64> {
    at.checked_add(len).filter(|_| len >= 0)
}

#[cfg(test)]
mod tests;
