//! Builds batches: records are appended in wire format behind room for the header.

use bytes::Bytes;

use super::Headers;
use super::codec::{Codec, compress};
use super::compression::Compression;
use super::format::{
    ATTRIBUTES, BATCH_HEADER_BYTES, LENGTH_END, PRODUCER, ProducerSequence, TRANSACTIONAL, i16_at, set_crc,
};
use super::varint::{nullable_len, put_nullable, put_varint, put_varlong, varint_len, varlong_len};

/// Returns a batch with this producer and sequence: the same bytes if it has them already.
pub(crate) fn replace_producer(batch: Bytes, producer: ProducerSequence) -> Bytes {
    if batch.len() < BATCH_HEADER_BYTES {
        return batch;
    }
    let attributes = i16_at(&batch, ATTRIBUTES.start);
    let (new, bytes) = (attributes & !TRANSACTIONAL | producer.attributes(), producer.to_bytes());
    if batch[PRODUCER] == bytes && attributes == new {
        return batch;
    }
    let mut batch = Vec::from(batch);
    batch[ATTRIBUTES].copy_from_slice(&new.to_be_bytes());
    batch[PRODUCER].copy_from_slice(&bytes);
    set_crc(&mut batch);
    batch.into()
}

/// Returns the maximum size of a record in a batch, at any place there.
#[inline]
pub(crate) fn record_size_bound(key: Option<&[u8]>, value: Option<&[u8]>, headers: Option<&Headers>) -> usize {
    // Length, attributes, timestamp delta and offset delta at their largest.
    5 + 1 + 10 + 5 + nullable_len(key) + nullable_len(value) + headers_len(headers)
}

#[inline]
fn headers_len(headers: Option<&Headers>) -> usize {
    headers.map_or(1, |h| varint_len(h.count as i32) + h.raw.len())
}

/// Appends a record. Its timestamp and its offset are differences to those of the batch.
#[inline]
pub(super) fn put_record(
    out: &mut Vec<u8>,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: Option<&Headers>,
) {
    let len = 1
        + varlong_len(timestamp_delta)
        + varint_len(offset_delta)
        + nullable_len(key)
        + nullable_len(value)
        + headers_len(headers);
    out.reserve(varint_len(len as i32) + len);
    put_varint(out, len as i32);
    out.push(0); // attributes: none are defined
    put_varlong(out, timestamp_delta);
    put_varint(out, offset_delta);
    put_nullable(out, key);
    put_nullable(out, value);
    match headers {
        Some(headers) => {
            put_varint(out, headers.count as i32);
            out.extend_from_slice(&headers.raw);
        }
        None => put_varint(out, 0),
    }
}

#[derive(Debug)]
pub(crate) struct BatchBuilder {
    /// Room for the header, then the records.
    buf: Vec<u8>,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// Creates an empty batch with room for `capacity` bytes, header included; it grows if need be.
    pub(crate) fn new(capacity: usize) -> Self {
        Self::reuse(Vec::new(), capacity)
    }

    pub(crate) fn reuse(mut buf: Vec<u8>, capacity: usize) -> Self {
        buf.clear();
        buf.reserve_exact(capacity.max(BATCH_HEADER_BYTES));
        buf.resize(BATCH_HEADER_BYTES, 0);
        Self { buf, count: 0, base_timestamp: -1, max_timestamp: -1 }
    }

    /// Returns the size of the batch, uncompressed.
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
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let delta = timestamp.wrapping_sub(self.base_timestamp);
        put_record(&mut self.buf, delta, self.count, key, value, headers);
        self.count += 1;
    }

    /// Finishes the batch as [`seal`](Self::seal) does, and drops the uncompressed buffer.
    pub(crate) fn finish(self, compression: Compression, producer: ProducerSequence) -> Bytes {
        self.seal(compression, producer).0
    }

    /// Compresses the records if that makes them smaller, and writes the header. Returns the batch
    /// as it is sent, and the buffer of the uncompressed records, for reuse, if another one holds
    /// the batch.
    pub(crate) fn seal(mut self, compression: Compression, producer: ProducerSequence) -> (Bytes, Option<Vec<u8>>) {
        let (codec, plain) = match compression {
            Compression::None => (Codec::None, None),
            _ => self.compress(compression),
        };
        let len = (self.buf.len() - LENGTH_END) as i32;
        let mut header = [0; BATCH_HEADER_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            header[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&0i64.to_be_bytes()); // base offset: set by the broker
        put(&len.to_be_bytes());
        put(&(-1i32).to_be_bytes()); // leader epoch: set by the broker
        put(&[2]); // magic
        put(&[0; 4]); // CRC, below
        put(&(codec.bits() | producer.attributes()).to_be_bytes());
        put(&(self.count - 1).to_be_bytes()); // last offset delta
        put(&self.base_timestamp.to_be_bytes());
        put(&self.max_timestamp.to_be_bytes());
        put(&producer.to_bytes());
        put(&self.count.to_be_bytes());
        self.buf[..BATCH_HEADER_BYTES].copy_from_slice(&header);
        set_crc(&mut self.buf);
        (self.buf.into(), plain)
    }

    fn compress(&mut self, compression: Compression) -> (Codec, Option<Vec<u8>>) {
        match compress(compression, &self.buf[BATCH_HEADER_BYTES..], vec![0; BATCH_HEADER_BYTES]) {
            Ok((codec, out)) if out.len() < self.buf.len() => (codec, Some(std::mem::replace(&mut self.buf, out))),
            // It did not shrink: compression would only cost readers time.
            _ => (Codec::None, None),
        }
    }
}
