//! Record batches of format v2, as in requests and logs.
//!
//! The layout is that of the Kafka documentation, "Record Batch". Batches come from clients, so
//! every length is checked before use.

use std::io::Read;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::BrokerError;

/// Bytes of a batch before its first record.
pub(crate) const HEADER_BYTES: usize = 61;
/// Bytes of a batch before its length ends: not counted by the length.
const LOG_OVERHEAD_BYTES: usize = 12;
/// Offset of the attributes, the first field that the checksum covers.
const ATTRIBUTES_OFFSET: usize = 21;
/// Offset of the producer id; its epoch follows.
const PRODUCER_ID_OFFSET: usize = 43;
/// Maximum size of a decompressed batch.
const MAX_DECOMPRESSED_BYTES: u64 = 256 << 20;

const COMPRESSION: i16 = 0b111;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// The fixed fields of a record batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub base_offset: i64,
    /// Bytes of the whole batch.
    pub size: usize,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub count: i32,
}

impl Header {
    /// Reads the header of the batch at the start of `data`; `None` if the batch is longer than
    /// `data`.
    pub fn read(data: &[u8]) -> Option<Self> {
        let mut at = data.get(..HEADER_BYTES)?;
        let base_offset = at.get_i64();
        let size = usize::try_from(at.get_i32()).ok()? + LOG_OVERHEAD_BYTES;
        if size < HEADER_BYTES || size > data.len() {
            return None;
        }
        let _leader_epoch = at.get_i32();
        Some(Self {
            base_offset,
            size,
            magic: at.get_i8(),
            crc: at.get_u32(),
            attributes: at.get_i16(),
            last_offset_delta: at.get_i32(),
            base_timestamp: at.get_i64(),
            max_timestamp: at.get_i64(),
            producer_id: at.get_i64(),
            producer_epoch: at.get_i16(),
            base_sequence: at.get_i32(),
            count: at.get_i32(),
        })
    }

    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Returns whether the checksum is right.
    pub fn is_intact(&self, batch: &[u8]) -> bool {
        batch.get(ATTRIBUTES_OFFSET..self.size).is_some_and(|checked| crc32c::crc32c(checked) == self.crc)
    }
}

/// Writes base offset and leader epoch, which the checksum does not cover.
pub(crate) fn set_position(batch: &mut BytesMut, base_offset: i64, leader_epoch: i32) {
    (&mut batch[..8]).put_i64(base_offset);
    (&mut batch[LOG_OVERHEAD_BYTES..LOG_OVERHEAD_BYTES + 4]).put_i32(leader_epoch);
}

/// Returns the leader epoch that [`set_position`] has written.
pub(crate) fn leader_epoch(batch: &[u8]) -> i32 {
    batch.get(LOG_OVERHEAD_BYTES..LOG_OVERHEAD_BYTES + 4).map_or(-1, |mut at| at.get_i32())
}

/// Makes a batch part of a transaction of a producer.
pub(crate) fn make_transactional(batch: &mut BytesMut, producer_id: i64) -> Option<()> {
    let attributes = Header::read(batch)?.attributes | TRANSACTIONAL;
    (&mut batch[ATTRIBUTES_OFFSET..]).put_i16(attributes);
    (&mut batch[PRODUCER_ID_OFFSET..]).put_i64(producer_id);
    (&mut batch[PRODUCER_ID_OFFSET + 8..]).put_i16(0);
    write_checksum(batch);
    Some(())
}

/// Returns whether the transaction was committed, if the batch is a transaction marker.
pub(crate) fn transaction_marker(header: &Header, batch: &Bytes) -> Option<bool> {
    if !header.is_control() {
        return None;
    }
    let record = Records::new(decompress(header, batch).ok()??).next()?.ok()?;
    let mut key = record.key?;
    (key.len() >= 4 && key.get_i16() >= 0).then(|| key.get_i16() == 1)
}

/// One record of a batch; its fields are slices of the decompressed batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub offset_delta: i32,
    pub timestamp_delta: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Encoded record, with its length.
    pub raw: Bytes,
}

/// Returns the encoded records of a batch, decompressed if its codec is gzip; `None` for other
/// codecs.
pub(crate) fn decompress(header: &Header, batch: &Bytes) -> Result<Option<Bytes>, BrokerError> {
    let compressed = batch.slice(HEADER_BYTES..header.size);
    match header.attributes & COMPRESSION {
        0 => Ok(Some(compressed)),
        1 => {
            let mut decompressed = Vec::new();
            let mut reader = flate2::read::MultiGzDecoder::new(compressed.reader()).take(MAX_DECOMPRESSED_BYTES);
            reader
                .read_to_end(&mut decompressed)
                .map_err(|error| BrokerError::InvalidBatch(format!("its gzip data is corrupt: {error}")))?;
            Ok(Some(decompressed.into()))
        }
        2..=4 => Ok(None),
        codec => Err(BrokerError::InvalidBatch(format!("unknown codec {codec}"))),
    }
}

/// Iterates over the records of a batch; stops after the first invalid one.
#[derive(Debug)]
pub(crate) struct Records {
    rest: Bytes,
}

impl Records {
    pub fn new(decompressed: Bytes) -> Self {
        Self { rest: decompressed }
    }

    fn record(&mut self) -> Option<Record> {
        let whole = self.rest.clone();
        let length = usize::try_from(varint(&mut self.rest)?).ok()?;
        let mut body = take(&mut self.rest, length)?;
        let raw = whole.slice(..whole.len() - self.rest.len());
        take(&mut body, 1)?; // attributes: unused in v2
        let timestamp_delta = varint(&mut body)?;
        let offset_delta = i32::try_from(varint(&mut body)?).ok()?;
        let key = nullable(&mut body)?;
        let value = nullable(&mut body)?;
        let mut headers = Vec::new();
        for _ in 0..u32::try_from(varint(&mut body)?).ok()? {
            headers.push((nullable(&mut body)??, nullable(&mut body)?));
        }
        body.is_empty().then_some(Record { offset_delta, timestamp_delta, key, value, headers, raw })
    }
}

impl Iterator for Records {
    type Item = Result<Record, BrokerError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.record();
        if record.is_none() {
            self.rest.clear();
        }
        Some(record.ok_or_else(|| {
            BrokerError::InvalidBatch("a record is longer or shorter than its length field says".into())
        }))
    }
}

fn take(from: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= from.len()).then(|| from.split_to(length))
}

/// Reads a length-prefixed field, -1 for null. The outer `None` means that it is longer than the
/// input.
fn nullable(from: &mut Bytes) -> Option<Option<Bytes>> {
    match varint(from)? {
        -1 => Some(None),
        length => take(from, usize::try_from(length).ok()?).map(Some),
    }
}

/// Reads a zig-zag encoded integer of up to 64 bits.
fn varint(from: &mut Bytes) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        if from.is_empty() {
            return None;
        }
        let byte = from.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn put_varint(to: &mut BytesMut, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        to.put_u8(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    to.put_u8(zigzag as u8);
}

/// Builds an uncompressed batch from these fields and records; computes size, checksum and codec
/// itself.
pub(crate) fn build(header: &Header, records: impl IntoIterator<Item = Bytes>) -> BytesMut {
    let mut out = BytesMut::zeroed(HEADER_BYTES);
    let mut count = 0;
    for record in records {
        out.extend_from_slice(&record);
        count += 1;
    }
    let length = (out.len() - LOG_OVERHEAD_BYTES) as i32;
    let mut at = &mut out[..HEADER_BYTES];
    at.put_i64(header.base_offset);
    at.put_i32(length);
    at.put_i32(0); // leader epoch
    at.put_i8(2); // magic
    at.put_u32(0); // checksum
    at.put_i16(header.attributes & !COMPRESSION);
    at.put_i32(header.last_offset_delta);
    at.put_i64(header.base_timestamp);
    at.put_i64(header.max_timestamp);
    at.put_i64(header.producer_id);
    at.put_i16(header.producer_epoch);
    at.put_i32(header.base_sequence);
    at.put_i32(count);
    write_checksum(&mut out);
    out
}

fn write_checksum(batch: &mut BytesMut) {
    let crc = crc32c::crc32c(&batch[ATTRIBUTES_OFFSET..]);
    (&mut batch[LOG_OVERHEAD_BYTES + 5..ATTRIBUTES_OFFSET]).put_u32(crc);
}

/// Builds a batch of `offsets` offsets without records, as compaction leaves one.
pub(crate) fn empty(offsets: i32, timestamp: i64) -> BytesMut {
    build(&empty_header(offsets - 1, timestamp, 0), [])
}

/// The end of a producer's transaction in a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndMarker {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub coordinator_epoch: i32,
    pub commit: bool,
    /// True if no batch of the transaction may have the marker's epoch (KIP-890).
    pub has_new_epoch: bool,
    /// Milliseconds since 1970.
    pub timestamp: i64,
}

/// Builds a transaction marker: a control batch with one record.
pub(crate) fn control(marker: &EndMarker) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_u8(0); // attributes
    put_varint(&mut body, 0); // timestamp delta
    put_varint(&mut body, 0); // offset delta
    put_varint(&mut body, 4);
    body.put_i16(0); // key: version
    body.put_i16(i16::from(marker.commit)); // key: 0 abort, 1 commit
    put_varint(&mut body, 6);
    body.put_i16(0); // value: version
    body.put_i32(marker.coordinator_epoch);
    put_varint(&mut body, 0); // headers
    let mut record = BytesMut::new();
    put_varint(&mut record, body.len() as i64);
    record.extend_from_slice(&body);
    let header = Header {
        producer_id: marker.producer_id,
        producer_epoch: marker.producer_epoch,
        ..empty_header(0, marker.timestamp, CONTROL | TRANSACTIONAL)
    };
    build(&header, [record.freeze()])
}

fn empty_header(last_offset_delta: i32, timestamp: i64, attributes: i16) -> Header {
    Header {
        base_offset: 0,
        size: 0,
        magic: 2,
        crc: 0,
        attributes,
        last_offset_delta,
        base_timestamp: timestamp,
        max_timestamp: timestamp,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        count: 0,
    }
}

#[cfg(test)]
mod tests;
