//! The message formats 0 and 1, from before Kafka 0.11, which brokers still serve unconverted.
//!
//! A message is a record with its own offset and checksum. A compressed one is a wrapper: its value
//! holds further messages, and its offset is that of the last. Messages are converted to the record
//! section of a batch of format 2, so that there is one reader of records.

use bytes::Bytes;
use flate2::Crc;

use super::codec::{BufferPool, Codec};
use super::encode::put_record;
use super::format::{LENGTH_END, array_at, corrupt, i32_at, i64_at};
use crate::error::Result;

/// Minimum size of a message of format 0: offset, size, CRC, magic, attributes, and the lengths of
/// key and value.
const MIN_MESSAGE_BYTES: usize = 26;
/// Start of the bytes that the checksum covers.
const CRC_END: usize = 16;
/// Timestamp of messages of format 0, which have none.
const NO_TIMESTAMP: i64 = -1;

pub(super) fn min_message_size(magic: u8) -> usize {
    if magic == 0 { MIN_MESSAGE_BYTES } else { MIN_MESSAGE_BYTES + 8 }
}

/// A message with a valid checksum.
#[derive(Debug, Clone)]
pub(super) struct LegacyMessage {
    pub(super) offset: i64,
    pub(super) magic: u8,
    pub(super) codec: Codec,
    pub(super) is_append_time: bool,
    pub(super) timestamp: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
}

/// Records in the record section of a batch of format 2.
#[derive(Debug)]
pub(super) struct RecordSection {
    pub(super) data: Vec<u8>,
    pub(super) count: u32,
    pub(super) base_offset: i64,
}

impl LegacyMessage {
    /// Reads the one message in `bytes`, which has at least [`min_message_size`] bytes.
    pub(super) fn parse(bytes: &Bytes) -> Result<Self> {
        let offset = i64_at(bytes, 0);
        let damaged = |what: String| corrupt(format!("the message at offset {offset} is damaged: {what}"));
        let mut crc = Crc::new();
        crc.update(&bytes[CRC_END..]);
        let (expected, actual) = (u32::from_be_bytes(array_at(bytes, LENGTH_END)), crc.sum());
        if expected != actual {
            return Err(damaged(format!("its CRC-32 is {actual:08x} but should be {expected:08x}")));
        }
        let (magic, attributes) = (bytes[16], bytes[17]);
        if !(0..i64::MAX).contains(&offset) {
            return Err(damaged("its offset is not possible".to_owned()));
        }
        let (timestamp, at) = if magic == 0 { (NO_TIMESTAMP, 18) } else { (i64_at(bytes, 18), 26) };
        let truncated = || damaged("its bytes end within its key or value".to_owned());
        let (key, at) = nullable(bytes, at).ok_or_else(truncated)?;
        let (value, at) = nullable(bytes, at).ok_or_else(truncated)?;
        if at < bytes.len() {
            return Err(damaged(format!("{} bytes are left behind its value", bytes.len() - at)));
        }
        Ok(Self {
            offset,
            magic,
            codec: Codec::from_attributes(i16::from(attributes))?,
            is_append_time: magic > 0 && attributes & 1 << 3 != 0,
            timestamp,
            key,
            value,
        })
    }

    /// Returns its record, or the records in it up to `limit` bytes.
    pub(super) fn section(&self, limit: usize, pool: &BufferPool) -> Result<RecordSection> {
        if self.codec == Codec::None {
            return to_section(std::slice::from_ref(self), 0);
        }
        let damaged = |what: String| corrupt(format!("the compressed message at offset {} {what}", self.offset));
        let value = self.value.as_ref().ok_or_else(|| damaged("has no value".to_owned()))?;
        let plain = match (self.codec, self.magic) {
            (Codec::Lz4, 0) => self.codec.decompress_using(&fix_lz4_checksum(value), limit, pool),
            (codec, _) => codec.decompress_using(value, limit, pool),
        }?;
        let inner = messages(&pool.share(plain), self.magic)
            .and_then(|inner| match inner.iter().any(|message| message.codec != Codec::None) {
                true => Err(corrupt("it is compressed twice".to_owned())),
                false => Ok(inner),
            })
            .map_err(|e| e.context(format!("opening the compressed message at offset {}", self.offset)))?;
        let last = inner.last().ok_or_else(|| damaged("holds nothing".to_owned()))?;
        // Offsets in format 1 are relative: the wrapper has the absolute offset of the last.
        let base = if self.magic == 0 { 0 } else { self.offset - last.offset };
        if base < 0 {
            return Err(damaged(format!("holds the offset {}, which is beyond its own", last.offset)));
        }
        to_section(&inner, base)
    }
}

/// Returns the messages of a wrapper; all must be complete and of its format.
fn messages(bytes: &Bytes, magic: u8) -> Result<Vec<LegacyMessage>> {
    let (mut all, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let size = rest.first_chunk::<17>().map(|start| (i32_at(start, 8), start[16]));
        let size = size.filter(|(_, of)| *of == magic).and_then(|(size, _)| usize::try_from(size).ok());
        let len = size.map(|size| size.saturating_add(LENGTH_END));
        let Some(len) = len.filter(|len| (min_message_size(magic)..=rest.len()).contains(len)) else {
            return Err(corrupt(format!("it holds no whole message of format {magic} at its byte {at}")));
        };
        all.push(LegacyMessage::parse(&bytes.slice(at..at + len))?);
        at += len;
    }
    Ok(all)
}

/// Converts messages to records of format 2; adds `base` to their offsets.
fn to_section(messages: &[LegacyMessage], base: i64) -> Result<RecordSection> {
    let first = messages.first().map_or(0, |message| message.offset);
    let base_offset = base.checked_add(first);
    let base_offset = base_offset.ok_or_else(|| corrupt(format!("offset {first} can't follow {base}")))?;
    let mut data = Vec::with_capacity(messages.iter().map(|m| size_of(&m.key) + size_of(&m.value) + 24).sum());
    for message in messages {
        let delta = message.offset.checked_sub(first).and_then(|delta| i32::try_from(delta).ok());
        let delta = delta.ok_or_else(|| corrupt(format!("offset {} can't follow {first}", message.offset)))?;
        put_record(&mut data, message.timestamp, delta, message.key.as_deref(), message.value.as_deref(), None);
    }
    Ok(RecordSection { data, count: messages.len() as u32, base_offset })
}

fn size_of(field: &Option<Bytes>) -> usize {
    field.as_ref().map_or(0, Bytes::len)
}

/// Reads a length of four bytes and as many bytes; -1 is null. None if the bytes end before.
fn nullable(bytes: &Bytes, at: usize) -> Option<(Option<Bytes>, usize)> {
    let len = i32::from_be_bytes(*bytes.get(at..)?.first_chunk()?);
    let start = at + 4;
    if len == -1 {
        return Some((None, start));
    }
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    (end <= bytes.len()).then(|| (Some(bytes.slice(start..end)), end))
}

/// Corrects the header checksum of an lz4 frame: writers of format 0 included the magic number in
/// it.
fn fix_lz4_checksum(frame: &[u8]) -> Vec<u8> {
    const MAGIC_BYTES: usize = 4;
    const HAS_CONTENT_SIZE: u8 = 1 << 3;
    let mut frame = frame.to_vec();
    let len = frame.get(MAGIC_BYTES).map_or(0, |flags| if flags & HAS_CONTENT_SIZE == 0 { 2 } else { 10 });
    if let Some(checksum) = frame.get(MAGIC_BYTES..MAGIC_BYTES + len).map(xxh32_short) {
        if let Some(byte) = frame.get_mut(MAGIC_BYTES + len) {
            *byte = (checksum >> 8) as u8;
        }
    }
    frame
}

fn xxh32_short(bytes: &[u8]) -> u32 {
    const PRIMES: [u32; 5] = [0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d, 0x27d4_eb2f, 0x1656_67b1];
    let mut hash = PRIMES[4].wrapping_add(bytes.len() as u32);
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        hash = hash.wrapping_add(u32::from_le_bytes(array_at(word, 0)).wrapping_mul(PRIMES[2]));
        hash = hash.rotate_left(17).wrapping_mul(PRIMES[3]);
    }
    for byte in words.remainder() {
        hash = hash.wrapping_add(u32::from(*byte).wrapping_mul(PRIMES[4])).rotate_left(11).wrapping_mul(PRIMES[0]);
    }
    hash = (hash ^ hash >> 15).wrapping_mul(PRIMES[1]);
    hash = (hash ^ hash >> 13).wrapping_mul(PRIMES[2]);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests;
