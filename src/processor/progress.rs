//! How far the handling of one partition is, without I/O: the lowest offset that has not ended, which is what may be
//! committed, and what has ended above it. Records are fetched in order and end in any order.
//!
//! What has ended above the committed offset goes into the commit's metadata, so that the next owner of the partition does not
//! do it again. It must not be taken for true where it is not: it counts only for the offset and the leader epoch that it was
//! committed with, under a checksum, and not for records that a later leader has written.

use std::collections::VecDeque;
use std::iter;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::record::{Reader, put_varlong};

/// The first byte of what [`Progress::encode`] writes, before it becomes text.
const VERSION: u8 = 1;
/// The most bytes of text. Brokers allow 4,096 unless they are told otherwise (`offset.metadata.max.bytes`).
const LIMIT: usize = 2048;
/// As bytes: base64 takes four characters for three.
const RAW_LIMIT: usize = LIMIT / 4 * 3;
const CRC: usize = 4;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Behind what has been fetched.
    next: i64,
    /// What is in hand, in order; none is empty. So what compaction and markers of transactions leave out takes no room.
    in_flight: VecDeque<Chunk>,
    /// What had ended before, above `next`.
    earlier: Ended,
}

/// 64 offsets, of which some are in hand.
#[derive(Debug)]
struct Chunk {
    /// A multiple of 64.
    start: i64,
    bits: u64,
}

impl Chunk {
    fn place(offset: i64) -> (i64, u64) {
        (offset & !63, 1 << (offset & 63))
    }

    /// The runs of its offsets in hand.
    fn runs(&self) -> impl Iterator<Item = Range<i64>> {
        let (start, mut bits) = (self.start, self.bits);
        iter::from_fn(move || {
            let from = bits.trailing_zeros();
            let len = bits.checked_shr(from)?.trailing_ones();
            bits &= bits.wrapping_add(1 << from); // the carry takes the run out
            let from = start + i64::from(from);
            Some(from..from + i64::from(len))
        })
    }
}

impl Progress {
    /// Reading begins at `base`; `earlier` has ended above it.
    pub(crate) fn new(base: i64, earlier: Ended) -> Self {
        Self { next: base, in_flight: VecDeque::new(), earlier }
    }

    /// A record is here. Whether it is to be handled: it is not if it had ended before, or is in hand already.
    pub(crate) fn fetched(&mut self, offset: i64) -> bool {
        if offset < self.next {
            return false;
        }
        self.through(offset + 1);
        if self.earlier.takes(offset) {
            return false;
        }
        let (start, bit) = Chunk::place(offset);
        match self.in_flight.back_mut().filter(|c| c.start == start) {
            Some(chunk) => chunk.bits |= bit,
            None => self.in_flight.push_back(Chunk { start, bits: bit }),
        }
        true
    }

    /// Nothing below `next` comes any more: offsets that brought no record count as ended.
    pub(crate) fn through(&mut self, next: i64) {
        self.next = self.next.max(next);
    }

    /// What comes from now on was written under this leader epoch or a later one. If that is later than what ended before was
    /// read under, the log may have been cut and written anew there, so that other records have those offsets.
    pub(crate) fn led(&mut self, leader_epoch: i32) {
        if leader_epoch > self.earlier.leader_epoch {
            self.earlier = Ended::default();
        }
    }

    /// A record that was fetched has ended. One that is not in hand is none of ours.
    pub(crate) fn ended(&mut self, offset: i64) {
        let (start, bit) = Chunk::place(offset);
        let Some(first) = self.in_flight.front() else { return };
        // Exact where no chunk is left out, and never too low.
        let guess = usize::try_from((start - first.start) / 64).unwrap_or(0).min(self.in_flight.len() - 1);
        let index = match self.in_flight[guess].start == start {
            true => guess,
            false => self.in_flight.partition_point(|c| c.start < start),
        };
        if let Some(chunk) = self.in_flight.get_mut(index).filter(|c| c.start == start) {
            chunk.bits &= !bit;
        }
        // Those in the middle go when they come to the front.
        while self.in_flight.front().is_some_and(|c| c.bits == 0) {
            self.in_flight.pop_front();
        }
    }

    /// The lowest offset that has not ended: what may be committed.
    pub(crate) fn base(&self) -> i64 {
        match self.in_flight.front() {
            Some(chunk) => chunk.start + i64::from(chunk.bits.trailing_zeros()),
            None => self.earlier.behind(self.next),
        }
    }

    /// What has ended above the base, in order.
    fn ended_above(&self) -> impl Iterator<Item = Range<i64>> {
        let base = self.base();
        let mut at = base;
        let in_flight = self.in_flight.iter().flat_map(Chunk::runs).chain(iter::once(self.next..self.next));
        let between = in_flight.map(move |run| std::mem::replace(&mut at, run.end)..run.start);
        let from = self.next.max(base);
        let earlier = self.earlier.ranges.iter().map(move |r| r.start.max(from)..r.end);
        between.chain(earlier).filter(|r| !r.is_empty())
    }

    /// What has ended above the base as text for a commit of the base, made under `leader_epoch`: of the last record that was
    /// fetched. None if there is nothing to tell. What would make it too long is left out, the highest first.
    pub(crate) fn encode(&self, leader_epoch: i32) -> Option<String> {
        let mut at = self.base();
        let mut out = vec![VERSION];
        put_varlong(&mut out, at);
        put_varlong(&mut out, i64::from(leader_epoch));
        let head = out.len();
        for ended in self.ended_above() {
            let len = out.len();
            put_varlong(&mut out, ended.start - at);
            put_varlong(&mut out, ended.end - ended.start);
            if out.len() > RAW_LIMIT - CRC {
                out.truncate(len);
                break;
            }
            at = ended.end;
        }
        if out.len() == head {
            return None;
        }
        out.extend(crc32c::crc32c(&out).to_be_bytes());
        Some(URL_SAFE_NO_PAD.encode(out))
    }
}

/// What had ended above a committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// In order; none is empty.
    ranges: VecDeque<Range<i64>>,
    /// No record in them is of a later one.
    leader_epoch: i32,
}

impl Default for Ended {
    fn default() -> Self {
        Self { ranges: VecDeque::new(), leader_epoch: i32::MAX }
    }
}

impl Ended {
    /// From the metadata of an offset that was committed with `leader_epoch`. Nothing if it is not what
    /// [`Progress::encode`] wrote for these two: metadata of other programs, damaged, or left behind by a tool that moved the offset.
    pub(crate) fn decode(metadata: &str, base: i64, leader_epoch: i32) -> Option<Self> {
        if metadata.len() > LIMIT {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(metadata).ok()?;
        let (body, crc) = bytes.split_last_chunk::<CRC>()?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return None;
        }
        let mut fields = Reader::new(body, 0);
        let head = (fields.byte("version").ok()?, fields.varlong("base").ok()?, fields.varlong("leader epoch").ok()?);
        if head != (VERSION, base, i64::from(leader_epoch)) {
            return None;
        }
        let mut ranges = VecDeque::new();
        let mut at = base;
        while fields.pos() < body.len() {
            let start = add(at, fields.varlong("gap").ok()?)?;
            at = add(start, fields.varlong("length").ok()?)?;
            ranges.push_back(start..at);
        }
        Some(Self { ranges, leader_epoch })
    }

    /// Whether it holds an offset that is not below those asked for before.
    fn takes(&mut self, offset: i64) -> bool {
        while self.ranges.front().is_some_and(|r| r.end <= offset) {
            self.ranges.pop_front();
        }
        self.ranges.front().is_some_and(|r| r.contains(&offset))
    }

    /// The lowest offset from `next` on that it does not hold.
    fn behind(&self, next: i64) -> i64 {
        self.ranges.iter().fold(next, |at, r| if r.contains(&at) { r.end } else { at })
    }
}

fn add(at: i64, len: i64) -> Option<i64> {
    at.checked_add(len).filter(|_| len >= 0)
}

#[cfg(test)]
mod tests;
