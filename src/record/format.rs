//! The layout of a record batch, version 2: fields at fixed places, and the integers in them.

use std::ops::Range;

use crate::error::{Error, ErrorKind};

pub(crate) const BATCH_HEADER_BYTES: usize = 61;
/// Bytes of a batch that its length field does not count: the base offset, and the field itself.
pub(super) const LENGTH_END: usize = 12;
pub(super) const CRC: Range<usize> = 17..21;
/// Place of the attributes.
pub(super) const ATTRIBUTES: Range<usize> = 21..23;
/// Place of producer id, producer epoch and base sequence.
pub(super) const PRODUCER: Range<usize> = 43..57;

/// Bits of a batch's attributes, above the three of the codec.
pub(super) const LOG_APPEND_TIME: i16 = 1 << 3;
pub(super) const TRANSACTIONAL: i16 = 1 << 4;
pub(super) const CONTROL: i16 = 1 << 5;

/// The producer of a batch, and the sequence of its first record: a broker recognizes a repeated
/// batch by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerSequence {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
    /// True if the batch belongs to the producer's open transaction.
    pub(crate) is_transactional: bool,
}

impl ProducerSequence {
    /// The fields of a producer that is not idempotent.
    pub(crate) const NONE: Self = Self { id: -1, epoch: -1, sequence: -1, is_transactional: false };

    /// Returns the sequence `records` later: sequences run from 0 to `i32::MAX` and wrap to 0.
    pub(crate) fn skip(self, records: u32) -> Self {
        Self { sequence: self.sequence.wrapping_add(records as i32) & i32::MAX, ..self }
    }

    /// Returns its bit of a batch's attributes.
    pub(super) fn attributes(self) -> i16 {
        if self.is_transactional { TRANSACTIONAL } else { 0 }
    }

    pub(super) fn to_bytes(self) -> [u8; 14] {
        let mut bytes = [0; 14];
        bytes[..8].copy_from_slice(&self.id.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[10..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }
}

pub(super) fn set_crc(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC.end..]);
    batch[CRC].copy_from_slice(&crc.to_be_bytes());
}

pub(super) fn corrupt(what: String) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

pub(super) fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(array_at(bytes, at))
}

pub(super) fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(array_at(bytes, at))
}

pub(super) fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(array_at(bytes, at))
}
