//! Reads batches: checks them, decompresses each as a whole, and cuts it into records that are
//! slices of one buffer.

use std::iter::FusedIterator;

use bytes::Bytes;

use super::codec::{BufferPool, Codec};
use super::format::{
    BATCH_HEADER_BYTES, CONTROL, CRC, LENGTH_END, LOG_APPEND_TIME, ProducerSequence, TRANSACTIONAL, corrupt, i16_at,
    i32_at, i64_at,
};
use super::legacy::{self, LegacyMessage};
use super::varint::{DecodeError, Reader};
use super::{Headers, Record};
use crate::error::{Error, Result};
use crate::timestamp::Timestamp;

/// Minimum size of a record: its length, attributes, two deltas, two lengths and a count.
const MIN_RECORD_BYTES: usize = 7;

/// Size that most records exceed. A decoded record takes four times as much.
const TYPICAL_RECORD_BYTES: usize = 32;

/// The source of a batch's timestamps: its producer or its broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// Returns the batches of a fetched record set, in order.
///
/// Skips an incomplete batch at the end, which brokers send when they cut at a size. One at the
/// beginning is an error: a fetch from the same offset would return it again. Iteration ends at the
/// first error, because bytes behind a damaged batch may be damaged too.
///
/// [`RecordBatch::records`] decompresses a batch, up to `max_decompressed` bytes.
pub(crate) fn decode_batches(records: Bytes, max_decompressed: usize) -> BatchIter {
    BatchIter { rest: records, max_decompressed, first: true }
}

#[derive(Debug)]
pub(crate) struct BatchIter {
    rest: Bytes,
    max_decompressed: usize,
    first: bool,
}

impl BatchIter {
    /// Returns the number of bytes behind the last batch that was returned.
    pub(crate) fn rest(&self) -> usize {
        self.rest.len()
    }
}

impl Iterator for BatchIter {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let result = match complete_batch_len(&self.rest) {
            Ok(Some(len)) => RecordBatch::parse(self.rest.split_to(len), self.max_decompressed),
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

impl FusedIterator for BatchIter {}

/// Returns the length of the batch at the start of `bytes`, if it is complete.
fn complete_batch_len(bytes: &[u8]) -> Result<Option<usize>> {
    // Offset, length, leader epoch or CRC, and magic are in the same place in all formats.
    let Some(start) = bytes.first_chunk::<17>() else { return Ok(None) };
    let (offset, len, magic) = (i64_at(start, 0), i32_at(start, 8), start[16]);
    let min = match magic {
        2 => BATCH_HEADER_BYTES,
        0 | 1 => legacy::min_message_size(magic),
        _ => return Err(corrupt(format!("the batch at offset {offset} has the unknown format {magic}"))),
    };
    let len = usize::try_from(len).ok().map(|len| len + LENGTH_END).filter(|len| *len >= min);
    let len = len.ok_or_else(|| {
        corrupt(format!("the batch at offset {offset} has the impossible length {}", i32_at(start, 8)))
    })?;
    Ok((len <= bytes.len()).then_some(len))
}

pub(crate) fn is_compressed(bytes: &[u8]) -> bool {
    let attributes = if bytes.get(16).is_some_and(|magic| *magic < 2) { 17 } else { 22 };
    bytes.get(attributes).is_some_and(|attributes| attributes & 7 != 0)
}

/// Returns whether `bytes` start with a complete batch, or a damaged one: false if only a part of a
/// batch is left.
pub(crate) fn begins_with_batch(bytes: &[u8]) -> bool {
    !matches!(complete_batch_len(bytes), Ok(None))
}

/// The producer of a batch, and the leader that appended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchOrigin {
    pub(crate) producer: ProducerSequence,
    /// True for a batch of a transaction, which may have been aborted.
    /// Epoch of the leader that appended it, -1 if not known.
    pub(crate) leader_epoch: i32,
}

/// A batch with a valid header and checksum.
#[derive(Debug, Clone)]
pub(crate) struct RecordBatch {
    /// Offset of its first record when it was written.
    pub(crate) base_offset: i64,
    /// Offset of its last record when it was written: a position moves past it even if compaction
    /// removed the record.
    pub(crate) last_offset: i64,
    /// True for transaction markers, which are no records of an application.
    pub(crate) is_control: bool,
    pub(crate) timestamp_type: TimestampType,
    pub(crate) origin: BatchOrigin,
    /// Number of records, by its header.
    pub(crate) record_count: u32,
    codec: Codec,
    base_timestamp: i64,
    max_timestamp: i64,
    last_offset_delta: i32,
    max_decompressed: usize,
    /// The record section, still compressed.
    section: Bytes,
    /// The message of an older format, in place of the section.
    message: Option<LegacyMessage>,
}

impl RecordBatch {
    fn parse(mut bytes: Bytes, max_decompressed: usize) -> Result<Self> {
        if bytes[16] < 2 {
            return Ok(Self::from_message(LegacyMessage::parse(&bytes)?, max_decompressed));
        }
        let b = &bytes[..];
        let base_offset = i64_at(b, 0);
        let expected = i32_at(b, CRC.start) as u32;
        let actual = crc32c::crc32c(&b[CRC.end..]);
        if expected != actual {
            let what = format!(
                "the batch at offset {base_offset} ({} bytes) is damaged: its CRC-32C is {actual:08x} but should be {expected:08x}",
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
        let codec =
            Codec::from_attributes(attributes).map_err(|e| e.context(format!("the batch at offset {base_offset}")))?;
        Ok(Self {
            base_offset,
            last_offset,
            is_control: attributes & CONTROL != 0,
            timestamp_type: if attributes & LOG_APPEND_TIME == 0 {
                TimestampType::CreateTime
            } else {
                TimestampType::LogAppendTime
            },
            origin: BatchOrigin {
                producer: ProducerSequence {
                    id: i64_at(b, 43),
                    epoch: i16_at(b, 51),
                    sequence: i32_at(b, 53),
                    is_transactional: attributes & TRANSACTIONAL != 0,
                },
                leader_epoch: i32_at(b, 12),
            },
            record_count,
            codec,
            base_timestamp: i64_at(b, 27),
            max_timestamp: i64_at(b, 35),
            last_offset_delta,
            max_decompressed,
            section: bytes.split_off(BATCH_HEADER_BYTES),
            message: None,
        })
    }

    /// Makes a batch of one message of an older format. Its first offset is not known before it is
    /// decompressed.
    fn from_message(message: LegacyMessage, max_decompressed: usize) -> Self {
        Self {
            base_offset: message.offset,
            last_offset: message.offset,
            is_control: false,
            timestamp_type: match message.is_append_time {
                true => TimestampType::LogAppendTime,
                false => TimestampType::CreateTime,
            },
            origin: BatchOrigin { producer: ProducerSequence::NONE, leader_epoch: -1 },
            record_count: 1,
            codec: message.codec,
            base_timestamp: 0,
            max_timestamp: message.timestamp,
            last_offset_delta: 0,
            max_decompressed,
            section: Bytes::new(),
            message: Some(message),
        }
    }

    pub(crate) fn is_abort_marker(&self) -> Result<bool> {
        const ABORT: i16 = 0;
        if !self.is_control {
            return Ok(false);
        }
        let Some(marker) = self.records()?.next().transpose()? else { return Ok(false) }; // removed by compaction
        let key = marker.key.as_deref().and_then(|key| key.get(2..4)); // behind its version
        let Some(kind) = key.map(|t| i16_at(t, 0)) else {
            let what = format!("the control batch at offset {} has no marker that can be read", self.base_offset);
            return Err(corrupt(what));
        };
        Ok(kind == ABORT)
    }

    /// Returns its records, as [`records_using`](Self::records_using) does, in a new buffer.
    pub(crate) fn records(&self) -> Result<RecordIter> {
        self.records_using(&BufferPool::default())
    }

    /// Returns its records, decompressed into a buffer of the pool if need be.
    ///
    /// The iterator returns the records before a damaged one, then an error with the offset of the
    /// damage, then ends.
    pub(crate) fn records_using(&self, pool: &BufferPool) -> Result<RecordIter> {
        if let Some(message) = &self.message {
            let section = message.section(self.max_decompressed, pool)?;
            let last_offset_delta = i32::try_from(self.last_offset - section.base_offset).unwrap_or(-1); // no offset delta is valid then
            return Ok(RecordIter {
                left: section.count,
                base_offset: section.base_offset,
                last_offset_delta,
                next_offset: section.base_offset,
                ..self.iter(pool.share(section.data))
            });
        }
        let data = match self.codec {
            Codec::None => self.section.clone(),
            codec => {
                let plain = codec.decompress_using(&self.section, self.max_decompressed, pool).map_err(|e| {
                    let (from, to) = (self.base_offset, self.last_offset);
                    e.context(format!("opening the batch with offsets {from} to {to}"))
                })?;
                pool.share(plain)
            }
        };
        Ok(self.iter(data))
    }

    /// A record count that is too large is noticed at the end of the bytes; no allocation depends
    /// on it before.
    fn iter(&self, data: Bytes) -> RecordIter {
        RecordIter {
            data,
            pos: 0,
            left: self.record_count,
            base_offset: self.base_offset,
            last_offset_delta: self.last_offset_delta,
            next_offset: self.base_offset,
            base_timestamp: self.base_timestamp,
            append_time: (self.timestamp_type == TimestampType::LogAppendTime).then_some(self.max_timestamp),
        }
    }
}

/// An iterator over the records of a batch: see [`RecordBatch::records_using`].
#[derive(Debug)]
pub(crate) struct RecordIter {
    data: Bytes,
    pos: usize,
    left: u32,
    base_offset: i64,
    last_offset_delta: i32,
    /// Offset behind the last valid record.
    next_offset: i64,
    base_timestamp: i64,
    append_time: Option<i64>,
}

impl RecordIter {
    /// Returns the number of bytes that the records keep in memory.
    pub(crate) fn memory(&self) -> usize {
        self.data.len()
    }

    /// Appends the records from `offset` on. At an error, those before the damage are in `out`.
    pub(crate) fn read_from_offset(mut self, offset: i64, out: &mut Vec<Record>) -> Result<()> {
        // The count may be a lie: reserve for records of typical size; smaller ones make the vector
        // grow.
        out.reserve(self.size_hint().1.unwrap_or(0).min(self.data.len() / TYPICAL_RECORD_BYTES + 64));
        while self.left > 0 {
            let record = self.read()?;
            if record.offset >= offset {
                out.push(record);
            }
        }
        self.next().map_or(Ok(()), |unread| unread.map(|_| ()))
    }

    #[inline(always)]
    fn read(&mut self) -> Result<Record> {
        match self.parse() {
            Ok(record) => {
                self.left -= 1;
                self.next_offset = record.offset + 1;
                Ok(record)
            }
            Err(e) => Err(self.damaged(format_args!("the record is not valid, {e}"))),
        }
    }

    #[inline(always)]
    fn parse(&mut self) -> Result<Record, DecodeError> {
        let mut r = Reader::new(&self.data, self.pos);
        let body = r.nullable("length")?.ok_or(DecodeError::Length("length", -1))?;
        let end = body.end;
        let mut r = Reader::new(&self.data[..end], body.start);
        r.byte("attributes")?;
        let timestamp_delta = r.varlong("timestamp delta")?;
        let offset_delta = r.varint("offset delta")?;
        if !(0..=self.last_offset_delta).contains(&offset_delta) {
            return Err(DecodeError::OffsetDelta(offset_delta));
        }
        let key = r.nullable("key length")?;
        let value = r.nullable("value length")?;
        let count = r.varint("header count")?;
        let count = u32::try_from(count).map_err(|_| DecodeError::Length("header count", count))?;
        let headers_start = r.pos();
        Headers::skip(&mut r, count)?;
        if r.pos() != end {
            return Err(DecodeError::RecordLength { expected: end - body.start, actual: r.pos() - body.start });
        }
        let headers = if count == 0 { Bytes::new() } else { self.data.slice(headers_start..end) };
        self.pos = end;
        Ok(Record {
            offset: self.base_offset + i64::from(offset_delta),
            timestamp: Timestamp::from_millis(
                self.append_time.unwrap_or_else(|| self.base_timestamp.wrapping_add(timestamp_delta)),
            ),
            key: key.map(|range| self.data.slice(range)),
            value: value.map(|range| self.data.slice(range)),
            headers: Headers { raw: headers, count },
        })
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
            let unread = self.data.len() - self.pos;
            return (unread > 0)
                .then(|| Err(self.damaged(format_args!("{unread} bytes are left behind its last record"))));
        }
        Some(self.read())
    }

    /// The upper bound is limited by the bytes, so that callers can allocate by it.
    fn size_hint(&self) -> (usize, Option<usize>) {
        let fit = (self.data.len() - self.pos) / MIN_RECORD_BYTES;
        (0, Some(fit.min(self.left as usize) + 1))
    }
}

impl FusedIterator for RecordIter {}

fn incomplete(bytes: &[u8]) -> Error {
    let need = bytes.first_chunk::<17>().map(|start| i64::from(i32_at(start, 8)) + LENGTH_END as i64);
    let of = need.map(|n| format!(" of a batch of {n} bytes")).unwrap_or_default();
    corrupt(format!(
        "the broker sent the first {} bytes{of} and no whole batch: raise fetch_max_bytes and partition_fetch_bytes above it",
        bytes.len()
    ))
}
