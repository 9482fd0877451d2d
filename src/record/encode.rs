//! Builds batches: records are appended in wire format behind room for the header.

use bytes::Bytes;

use super::Headers;
use super::compress::{Codec, compress};
use super::decode::decode_batches;
use super::varint::{put_varint, put_varlong, varint_len, varlong_len};
use crate::config::Compression;

/// The size of a batch's header.
pub(crate) const BATCH_HEADER: usize = 61;

/// Where the CRC begins to count: behind the CRC itself.
pub(super) const CRC_START: usize = 21;
/// Where producer id, epoch and first sequence are.
const PRODUCER: std::ops::Range<usize> = 43..57;

/// Who sent a batch, and the number of its first record among those it sent to the partition: what a broker needs to see
/// a repeated batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerSequence {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
}

impl ProducerSequence {
    /// Of a producer that is not idempotent.
    pub(crate) const NONE: Self = Self { id: -1, epoch: -1, sequence: -1 };

    /// What stands `records` behind it: sequence numbers run from 0 to `i32::MAX` and begin again.
    pub(crate) fn skip(self, records: u32) -> Self {
        Self { sequence: self.sequence.wrapping_add(records as i32) & i32::MAX, ..self }
    }

    fn to_bytes(self) -> [u8; 14] {
        let mut bytes = [0; 14];
        bytes[..8].copy_from_slice(&self.id.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[10..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }
}

/// A batch with another producer or sequence; the same bytes if that is what it has.
pub(crate) fn restamp(batch: Bytes, producer: ProducerSequence) -> Bytes {
    let stamp = producer.to_bytes();
    if batch.get(PRODUCER) == Some(&stamp) || batch.len() < BATCH_HEADER {
        return batch;
    }
    let mut batch = Vec::from(batch);
    batch[PRODUCER].copy_from_slice(&stamp);
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}

/// The two halves of a batch, each with its number of records; none if it can't be cut. `max` bounds what it may
/// decompress to.
pub(crate) fn split(batch: &Bytes, compression: Compression, max: usize) -> Option<Vec<(Bytes, u32)>> {
    let count = decode_batches(batch.clone(), max).next()?.ok()?.record_count;
    let head = count / 2;
    if head == 0 {
        return None;
    }
    cut(batch, compression, max, &[(head, true), (count - head, true)])
}

/// A batch cut into runs of records, each given by its number of records and whether it is kept: batches of their own, empty for
/// those that are not. None if the batch can't be read or has another number of records.
pub(crate) fn cut(
    batch: &Bytes,
    compression: Compression,
    max: usize,
    runs: &[(u32, bool)],
) -> Option<Vec<(Bytes, u32)>> {
    let batch = decode_batches(batch.clone(), max).next()?.ok()?;
    if runs.iter().map(|(count, _)| count).sum::<u32>() != batch.record_count {
        return None;
    }
    let mut records = batch.records().ok()?;
    let mut pieces = Vec::with_capacity(runs.len());
    for &(count, kept) in runs {
        let mut builder = BatchBuilder::new(BATCH_HEADER);
        for _ in 0..count {
            let r = records.next()?.ok()?;
            if kept {
                builder.append(r.timestamp, r.key.as_deref(), r.value.as_deref(), Some(&r.headers));
            }
        }
        let bytes = if kept { builder.finish(compression, ProducerSequence::NONE) } else { Bytes::new() };
        pieces.push((bytes, count));
    }
    Some(pieces)
}

/// The most bytes a record can take in a batch, whatever its place there.
#[inline]
pub(crate) fn record_size_bound(key: Option<&[u8]>, value: Option<&[u8]>, headers: Option<&Headers>) -> usize {
    // Length, attributes, timestamp delta and offset delta at their largest.
    5 + 1 + 10 + 5 + bytes_len(key) + bytes_len(value) + headers_len(headers)
}

#[inline]
fn bytes_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |b| varint_len(b.len() as i32) + b.len())
}

#[inline]
fn headers_len(headers: Option<&Headers>) -> usize {
    headers.map_or(1, |h| varint_len(h.count as i32) + h.raw.len())
}

#[inline]
fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varint(out, bytes.len() as i32);
            // musl's memcpy is `rep movs`, whose start alone takes longer than this takes for most records.
            if cfg!(all(target_env = "musl", target_arch = "x86_64")) && bytes.len() <= SHORT {
                extend_in_pieces(out, bytes);
            } else {
                out.extend_from_slice(bytes);
            }
        }
        None => put_varint(out, -1),
    }
}

/// Up to here pieces are faster than a call of musl's memcpy.
const SHORT: usize = 1024;

/// Copies pieces whose size is known when this is compiled: by vector registers, without a call.
#[inline]
fn extend_in_pieces(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len());
    let mut wide = bytes.chunks_exact(32);
    for piece in wide.by_ref().filter_map(<[u8]>::first_chunk::<32>) {
        out.extend_from_slice(piece);
    }
    let mut words = wide.remainder().chunks_exact(8);
    for piece in words.by_ref().filter_map(<[u8]>::first_chunk::<8>) {
        out.extend_from_slice(piece);
    }
    for byte in words.remainder() {
        out.push(*byte);
    }
}

/// A batch that records are appended to.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    /// Room for the header, then the records.
    buf: Vec<u8>,
    count: i32,
    first_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// An empty batch with room for `capacity` bytes, its header among them; it grows if need be.
    pub(crate) fn new(capacity: usize) -> Self {
        Self::reuse(Vec::new(), capacity)
    }

    /// The same, in a buffer that was used before.
    pub(crate) fn reuse(mut buf: Vec<u8>, capacity: usize) -> Self {
        buf.clear();
        buf.reserve_exact(capacity.max(BATCH_HEADER));
        buf.resize(BATCH_HEADER, 0);
        Self { buf, count: 0, first_timestamp: -1, max_timestamp: -1 }
    }

    /// The size of the batch in bytes if it were sent as it is.
    pub(crate) fn size(&self) -> usize {
        self.buf.len()
    }

    /// Appends a record. The caller bounds record and batch so that both stay far below 2 GiB.
    pub(crate) fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Option<&Headers>,
    ) {
        if self.count == 0 {
            self.first_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let delta = timestamp.wrapping_sub(self.first_timestamp);
        let len =
            1 + varlong_len(delta) + varint_len(self.count) + bytes_len(key) + bytes_len(value) + headers_len(headers);
        let out = &mut self.buf;
        out.reserve(varint_len(len as i32) + len);
        put_varint(out, len as i32);
        out.push(0); // attributes: none are defined
        put_varlong(out, delta);
        put_varint(out, self.count);
        put_bytes(out, key);
        put_bytes(out, value);
        match headers {
            Some(headers) => {
                put_varint(out, headers.count as i32);
                out.extend_from_slice(&headers.raw);
            }
            None => put_varint(out, 0),
        }
        self.count += 1;
    }

    /// [`seal`](Self::seal), where the records' buffer is of no more use.
    pub(crate) fn finish(self, compression: Compression, producer: ProducerSequence) -> Bytes {
        self.seal(compression, producer).0
    }

    /// Compresses if that is wanted and makes it smaller, and writes the header: the batch as it goes to the broker, and the
    /// buffer that the records were in, if it was compressed.
    pub(crate) fn seal(mut self, compression: Compression, producer: ProducerSequence) -> (Bytes, Option<Vec<u8>>) {
        let (codec, plain) = match compression {
            Compression::None => (Codec::None, None),
            _ => self.compress(compression),
        };
        let len = (self.buf.len() - 12) as i32;
        let mut header = [0; BATCH_HEADER];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            header[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&0i64.to_be_bytes()); // base offset: the broker's to set
        put(&len.to_be_bytes());
        put(&(-1i32).to_be_bytes()); // leader epoch: the broker's to set
        put(&[2]); // magic
        put(&[0; 4]); // CRC, below
        put(&codec.bits().to_be_bytes());
        put(&(self.count - 1).to_be_bytes()); // last offset delta
        put(&self.first_timestamp.to_be_bytes());
        put(&self.max_timestamp.to_be_bytes());
        put(&producer.to_bytes());
        put(&self.count.to_be_bytes());
        self.buf[..BATCH_HEADER].copy_from_slice(&header);
        let crc = crc32c::crc32c(&self.buf[CRC_START..]);
        self.buf[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
        (self.buf.into(), plain)
    }

    fn compress(&mut self, compression: Compression) -> (Codec, Option<Vec<u8>>) {
        match compress(compression, &self.buf[BATCH_HEADER..], vec![0; BATCH_HEADER]) {
            Ok((codec, out)) if out.len() < self.buf.len() => (codec, Some(std::mem::replace(&mut self.buf, out))),
            // It did not shrink: the broker would only have to store and open more.
            _ => (Codec::None, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_whole() {
        let bytes: Vec<u8> = (0..SHORT).map(|i| i as u8 ^ (i >> 8) as u8).collect();
        let mut out = vec![7];
        for length in 0..=SHORT {
            out.truncate(1);
            extend_in_pieces(&mut out, &bytes[..length]);
            assert!(out[0] == 7 && out[1..] == bytes[..length], "{length}");
        }
    }
}
