//! Reads batches: checked, decompressed whole, and cut into records that are slices of one buffer.

use std::iter::FusedIterator;

use bytes::Bytes;

use super::compress::Codec;
use super::encode::{BATCH_HEADER, CRC_START, ProducerSequence};
use super::legacy::{self, Message};
use super::spare::Spare;
use super::varint::{Damage, Reader};
use super::{Headers, Record};
use crate::error::{Error, ErrorKind, Result};

/// A record is at least its length, attributes, two deltas, two lengths and a count.
const SMALLEST_RECORD: usize = 7;

/// Most records are larger; a record that was read takes four times as much.
const USUAL_RECORD: usize = 32;

/// Who set the timestamps of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// The batches of a fetched record set, in order.
///
/// An incomplete batch at the end, which brokers send when they cut at a size, is left out; one at the beginning is an
/// error, for a fetch from the same place would bring it again. Nothing comes after an error, because what follows damage
/// can't be told from damage.
///
/// A compressed batch is opened by [`Batch::records`], up to `max_decompressed` bytes.
pub(crate) fn decode_batches(records: Bytes, max_decompressed: usize) -> Batches {
    Batches { rest: records, max_decompressed, first: true }
}

/// See [`decode_batches`].
#[derive(Debug)]
pub(crate) struct Batches {
    rest: Bytes,
    max_decompressed: usize,
    first: bool,
}

impl Batches {
    /// Bytes of which nothing has come yet.
    pub(crate) fn rest(&self) -> usize {
        self.rest.len()
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let result = match whole_batch(&self.rest) {
            Ok(Some(len)) => Batch::parse(self.rest.split_to(len), self.max_decompressed),
            Ok(None) if self.first => Err(incomplete(&self.rest)),
            Ok(None) => {
                self.rest.clear();
                return None;
            }
            Err(e) => Err(e),
        };
        self.first = false;
        if result.is_err() {
            self.rest.clear();
        }
        Some(result)
    }
}

impl FusedIterator for Batches {}

/// The length of the batch that `bytes` begin with, if it is there as a whole.
fn whole_batch(bytes: &[u8]) -> Result<Option<usize>> {
    // Offset, length, leader epoch or CRC, and the format's number are in the same place in all formats.
    let Some(start) = bytes.first_chunk::<17>() else { return Ok(None) };
    let (offset, len, magic) = (i64_at(start, 0), i32_at(start, 8), start[16]);
    let smallest = match magic {
        2 => BATCH_HEADER,
        0 | 1 => legacy::smallest(magic),
        _ => return Err(corrupt(format!("the batch at offset {offset} has the unknown format {magic}"))),
    };
    let len = usize::try_from(len).ok().map(|len| len + 12).filter(|len| *len >= smallest);
    let len = len.ok_or_else(|| {
        corrupt(format!("the batch at offset {offset} has the impossible length {}", i32_at(start, 8)))
    })?;
    Ok((len <= bytes.len()).then_some(len))
}

/// Whether the batch that `bytes` begin with is compressed.
pub(crate) fn is_compressed(bytes: &[u8]) -> bool {
    let attributes = if bytes.get(16).is_some_and(|magic| *magic < 2) { 17 } else { 22 };
    bytes.get(attributes).is_some_and(|attributes| attributes & 7 != 0)
}

/// Whether there is something to decode: not if only the first part of a batch is left.
pub(crate) fn begins_with_batch(bytes: &[u8]) -> bool {
    !matches!(whole_batch(bytes), Ok(None))
}

/// Who wrote a batch: its producer, and its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) producer: ProducerSequence,
    /// Whether it is part of a transaction, which may have been aborted.
    pub(crate) is_transactional: bool,
    /// The epoch of the leader that wrote it, -1 if not known.
    pub(crate) leader_epoch: i32,
}

/// A batch whose header and checksum are good.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    /// The offset its first record had when it was written.
    pub(crate) base_offset: i64,
    /// The offset its last record had: compaction may have taken it, but a position moves past it all the same.
    pub(crate) last_offset: i64,
    /// Whether it holds markers of transactions, not records of a program.
    pub(crate) is_control: bool,
    pub(crate) timestamp_type: TimestampType,
    /// Who wrote it.
    pub(crate) origin: Origin,
    /// How many records its header says it holds.
    pub(crate) record_count: u32,
    codec: Codec,
    first_timestamp: i64,
    max_timestamp: i64,
    last_offset_delta: i32,
    max_decompressed: usize,
    /// The record section, as it came.
    section: Bytes,
    /// In place of the section, of a batch of an older format.
    message: Option<Message>,
}

impl Batch {
    fn parse(mut bytes: Bytes, max_decompressed: usize) -> Result<Self> {
        if bytes[16] < 2 {
            return Ok(Self::of_message(Message::parse(&bytes)?, max_decompressed));
        }
        let b = &bytes[..];
        let base_offset = i64_at(b, 0);
        let said = i32_at(b, 17) as u32;
        let is = crc32c::crc32c(&b[CRC_START..]);
        if said != is {
            let what = format!(
                "the batch at offset {base_offset} ({} bytes) is damaged: its CRC-32C is {is:08x} but should be {said:08x}",
                b.len()
            );
            return Err(corrupt(what));
        }
        let attributes = i16_at(b, 21);
        let last_offset_delta = i32_at(b, 23);
        let count = i32_at(b, 57);
        let last_offset = (base_offset >= 0 && last_offset_delta >= 0)
            .then(|| base_offset.checked_add(i64::from(last_offset_delta)))
            .flatten()
            .filter(|last| *last < i64::MAX);
        let (Some(last_offset), Ok(record_count)) = (last_offset, u32::try_from(count)) else {
            let what = format!(
                "the batch at offset {base_offset} has the impossible last offset delta {last_offset_delta} or record \
                 count {count}"
            );
            return Err(corrupt(what));
        };
        let codec = Codec::of(attributes).map_err(|e| e.context(format!("the batch at offset {base_offset}")))?;
        Ok(Self {
            base_offset,
            last_offset,
            is_control: attributes & 1 << 5 != 0,
            timestamp_type: if attributes & 1 << 3 == 0 {
                TimestampType::CreateTime
            } else {
                TimestampType::LogAppendTime
            },
            origin: Origin {
                producer: ProducerSequence { id: i64_at(b, 43), epoch: i16_at(b, 51), sequence: i32_at(b, 53) },
                is_transactional: attributes & 1 << 4 != 0,
                leader_epoch: i32_at(b, 12),
            },
            record_count,
            codec,
            first_timestamp: i64_at(b, 27),
            max_timestamp: i64_at(b, 35),
            last_offset_delta,
            max_decompressed,
            section: bytes.split_off(BATCH_HEADER),
            message: None,
        })
    }

    /// One message of an older format as a batch. Where its records begin is not known before it is opened.
    fn of_message(message: Message, max_decompressed: usize) -> Self {
        Self {
            base_offset: message.offset,
            last_offset: message.offset,
            is_control: false,
            timestamp_type: match message.is_append_time {
                true => TimestampType::LogAppendTime,
                false => TimestampType::CreateTime,
            },
            origin: Origin { producer: ProducerSequence::NONE, is_transactional: false, leader_epoch: -1 },
            record_count: 1,
            codec: message.codec,
            first_timestamp: 0,
            max_timestamp: message.timestamp,
            last_offset_delta: 0,
            max_decompressed,
            section: Bytes::new(),
            message: Some(message),
        }
    }

    /// Whether it is the marker of a transaction that was aborted.
    pub(crate) fn is_abort_marker(&self) -> Result<bool> {
        const ABORT: i16 = 0;
        if !self.is_control {
            return Ok(false);
        }
        let Some(marker) = self.records()?.next().transpose()? else { return Ok(false) }; // compaction has taken it
        let key = marker.key.as_deref().and_then(|key| key.get(2..4)); // behind its version
        let Some(kind) = key.map(|t| i16_at(t, 0)) else {
            let what = format!("the control batch at offset {} has no marker that can be read", self.base_offset);
            return Err(corrupt(what));
        };
        Ok(kind == ABORT)
    }

    /// As [`records_in`](Self::records_in), in a buffer of their own.
    pub(crate) fn records(&self) -> Result<RecordIter> {
        self.records_in(&Spare::default())
    }

    /// Its records, decompressed if need be.
    ///
    /// Those in front of a damaged record come first, then an error that says at which offset the log is damaged, then
    /// nothing.
    pub(crate) fn records_in(&self, spare: &Spare) -> Result<RecordIter> {
        if let Some(message) = &self.message {
            let section = message.section(self.max_decompressed, spare)?;
            let last_offset_delta = i32::try_from(self.last_offset - section.base_offset).unwrap_or(-1); // then none fits
            return Ok(RecordIter {
                left: section.count,
                base_offset: section.base_offset,
                last_offset_delta,
                next_offset: section.base_offset,
                ..self.iter(spare.lend(section.data))
            });
        }
        let data = match self.codec {
            Codec::None => self.section.clone(),
            codec => {
                let opened = codec.decompress_in(&self.section, self.max_decompressed, spare).map_err(|e| {
                    let (from, to) = (self.base_offset, self.last_offset);
                    e.context(format!("opening the batch with offsets {from} to {to}"))
                })?;
                spare.lend(opened)
            }
        };
        Ok(self.iter(data))
    }

    /// A count that the bytes can't hold is found when they end; until then nothing is sized by it.
    fn iter(&self, data: Bytes) -> RecordIter {
        RecordIter {
            data,
            pos: 0,
            left: self.record_count,
            base_offset: self.base_offset,
            last_offset_delta: self.last_offset_delta,
            next_offset: self.base_offset,
            first_timestamp: self.first_timestamp,
            append_time: (self.timestamp_type == TimestampType::LogAppendTime).then_some(self.max_timestamp),
        }
    }
}

/// The records of a batch: see [`Batch::records`].
#[derive(Debug)]
pub(crate) struct RecordIter {
    data: Bytes,
    pos: usize,
    left: u32,
    base_offset: i64,
    last_offset_delta: i32,
    /// The offset behind the last good record.
    next_offset: i64,
    first_timestamp: i64,
    append_time: Option<i64>,
}

impl RecordIter {
    /// Bytes that the records keep in memory.
    pub(crate) fn memory(&self) -> usize {
        self.data.len()
    }

    /// Appends the records from `offset` on, those in front of damage too.
    pub(crate) fn read_from(mut self, offset: i64, out: &mut Vec<Record>) -> Result<()> {
        // A count is believed as far as records of usual size go: small ones have it grow.
        out.reserve(self.size_hint().1.unwrap_or(0).min(self.data.len() / USUAL_RECORD + 64));
        while self.left > 0 {
            match self.read() {
                Ok(record) => {
                    self.left -= 1;
                    self.next_offset = record.offset + 1;
                    if record.offset >= offset {
                        out.push(record);
                    }
                }
                Err(damage) => return Err(self.invalid(damage)),
            }
        }
        self.next().map_or(Ok(()), |spare| spare.map(|_| ()))
    }

    #[inline(always)]
    fn read(&mut self) -> Result<Record, Damage> {
        let mut r = Reader::new(&self.data, self.pos);
        let body = r.nullable("length")?.ok_or(Damage::Length("length", -1))?;
        let end = body.end;
        let mut r = Reader::new(&self.data[..end], body.start);
        r.byte("attributes")?;
        let timestamp_delta = r.varlong("timestamp delta")?;
        let offset_delta = r.varint("offset delta")?;
        if !(0..=self.last_offset_delta).contains(&offset_delta) {
            return Err(Damage::OffsetDelta(offset_delta));
        }
        let key = r.nullable("key length")?;
        let value = r.nullable("value length")?;
        let count = r.varint("header count")?;
        let count = u32::try_from(count).map_err(|_| Damage::Length("header count", count))?;
        let headers_start = r.pos();
        Headers::skip(&mut r, count)?;
        if r.pos() != end {
            return Err(Damage::RecordLength { said: end - body.start, used: r.pos() - body.start });
        }
        let headers = if count == 0 { Bytes::new() } else { self.data.slice(headers_start..end) };
        self.pos = end;
        Ok(Record {
            offset: self.base_offset + i64::from(offset_delta),
            timestamp: self.append_time.unwrap_or_else(|| self.first_timestamp.wrapping_add(timestamp_delta)),
            key: key.map(|range| self.data.slice(range)),
            value: value.map(|range| self.data.slice(range)),
            headers: Headers { raw: headers, count },
        })
    }

    #[cold]
    fn invalid(&mut self, damage: Damage) -> Error {
        self.damaged(format_args!("the record is not valid, {damage}"))
    }

    #[cold]
    fn damaged(&mut self, what: impl std::fmt::Display) -> Error {
        self.left = 0;
        self.pos = self.data.len();
        let at = self.next_offset;
        corrupt(format!("the log is damaged at offset {at}, in the batch at offset {}: {what}", self.base_offset))
    }
}

impl Iterator for RecordIter {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let spare = self.data.len() - self.pos;
            return (spare > 0)
                .then(|| Err(self.damaged(format_args!("{spare} bytes are left behind its last record"))));
        }
        match self.read() {
            Ok(record) => {
                self.left -= 1;
                self.next_offset = record.offset + 1;
                Some(Ok(record))
            }
            Err(damage) => Some(Err(self.invalid(damage))),
        }
    }

    /// The upper end is bounded by the bytes there, so that it can be trusted for an allocation.
    fn size_hint(&self) -> (usize, Option<usize>) {
        let fit = (self.data.len() - self.pos) / SMALLEST_RECORD;
        (0, Some(fit.min(self.left as usize) + 1))
    }
}

impl FusedIterator for RecordIter {}

pub(super) fn corrupt(what: String) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

fn incomplete(bytes: &[u8]) -> Error {
    let need = bytes.first_chunk::<17>().map(|start| i64::from(i32_at(start, 8)) + 12);
    let of = need.map(|n| format!(" of a batch of {n} bytes")).unwrap_or_default();
    corrupt(format!(
        "the broker sent the first {} bytes{of} and no whole batch: raise fetch_max_bytes and partition_fetch_bytes above it",
        bytes.len()
    ))
}

pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(array_at(bytes, at))
}

pub(super) fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(array_at(bytes, at))
}

pub(super) fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(array_at(bytes, at))
}
