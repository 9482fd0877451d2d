//! The codecs of a batch. Each compresses and decompresses a whole record section.
//!
//! Every broker and client reads the output: gzip; snappy in the framing of Kafka's Java client;
//! lz4 in frames of independent blocks, the only kind that Java reads; zstd in one frame. Checksums
//! of the codecs are left out, because the batch has its CRC-32C.

mod buffer_pool;
mod error;
mod snappy;

use std::io::{self, BufRead, Write};

use flate2::write::GzEncoder;
use flate2::{Decompress, FlushDecompress, Status};
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use zstd_rs::{CompressionConfig, Compressor, Decompressor, FrameHeader};

use super::compression::Compression;
use crate::error::{Error, ErrorKind, Result};
pub(crate) use buffer_pool::BufferPool;
use error::CodecError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Codec {
    pub(crate) fn from_attributes(attributes: i16) -> Result<Self> {
        Ok(match attributes & 7 {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            n => {
                let what = format!("the batch is compressed with codec number {n}, which is not supported");
                return Err(Error::new(ErrorKind::Unsupported, what));
            }
        })
    }

    pub(crate) fn bits(self) -> i16 {
        self as i16
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Decompresses data, up to `limit` bytes.
    ///
    /// Memory grows with the output; a size that the data claims counts only as far as data of that
    /// length can expand.
    pub(crate) fn decompress_using(self, data: &[u8], limit: usize, pool: &BufferPool) -> Result<Vec<u8>> {
        let plain = match self {
            Self::None if data.len() > limit => Err(CodecError::TooLarge),
            Self::None => Ok(data.to_vec()),
            Self::Gzip => gunzip(data, limit, pool),
            Self::Snappy => snappy::decompress(data, limit),
            Self::Lz4 => unlz4(data, limit),
            Self::Zstd => unzstd(data, limit),
        };
        plain.map_err(|e| match e {
            CodecError::TooLarge => {
                let what = format!(
                    "a batch of {} bytes of {} holds more than the {limit} that are allowed: raise the consumer's \
                     max_decompressed_bytes if this is no accident",
                    data.len(),
                    self.name()
                );
                Error::new(ErrorKind::Corrupt, what)
            }
            CodecError::Invalid(e) => {
                Error::with_source(ErrorKind::Corrupt, format!("the batch is not valid {}", self.name()), e)
            }
        })
    }
}

/// Compresses `data` and appends it to `out`; returns `out` and the codec.
pub(crate) fn compress(compression: Compression, data: &[u8], mut out: Vec<u8>) -> io::Result<(Codec, Vec<u8>)> {
    // Order events and other JSON shrink to this, or somewhat less.
    out.reserve(match compression {
        Compression::None => data.len(),
        Compression::Gzip { .. } | Compression::Zstd => data.len() / 4,
        Compression::Snappy | Compression::Lz4 => data.len() / 2,
    });
    Ok(match compression {
        Compression::None => {
            out.extend_from_slice(data);
            (Codec::None, out)
        }
        Compression::Gzip { level: 2..=4 } => {
            ailurus_gzip::compress(data, &mut out);
            out.shrink_to_fit(); // one of these stays in memory for each batch in flight
            (Codec::Gzip, out)
        }
        Compression::Gzip { level } => {
            let mut encoder = GzEncoder::new(out, flate2::Compression::new(level));
            encoder.write_all(data)?;
            (Codec::Gzip, encoder.finish()?)
        }
        Compression::Snappy => (Codec::Snappy, snappy::compress(data, out)?),
        Compression::Lz4 => {
            let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(LZ4_BLOCK_SIZE);
            let mut encoder = FrameEncoder::with_frame_info(info, out);
            encoder.write_all(data)?;
            (Codec::Lz4, encoder.finish()?)
        }
        Compression::Zstd => {
            let mut encoder = Compressor::new(ZSTD_CONFIG).map_err(io::Error::other)?;
            encoder.compress(data, None, &mut out).map_err(io::Error::other)?;
            (Codec::Zstd, out)
        }
    })
}

/// Block size of other clients. Larger blocks save 2% and cost each reader buffers of that size.
const LZ4_BLOCK_SIZE: BlockSize = BlockSize::Max64KB;

/// Level 1: on JSON events higher levels cost more and save nothing.
const ZSTD_CONFIG: CompressionConfig = CompressionConfig::FAST;

/// Decompresses members of gzip, one after another. If the guessed size is right, each takes one
/// call, which needs no window and writes to memory that was not cleared before.
fn gunzip(mut data: &[u8], limit: usize, pool: &BufferPool) -> Result<Vec<u8>, CodecError> {
    const WINDOW_BITS: u8 = 15; // maximum
    let max = limit.saturating_add(1);
    let mut out = pool.take(gzip_size(data).clamp(64, max.max(64)));
    while !data.is_empty() {
        let mut member = Decompress::new_gzip(WINDOW_BITS);
        loop {
            if out.len() == out.capacity() {
                out.reserve_exact(out.len().min(max - out.len()));
            }
            let (read_before, len) = (member.total_in(), out.len());
            let status = member.decompress_vec(data, &mut out, FlushDecompress::Finish).map_err(CodecError::invalid)?;
            let read = (member.total_in() - read_before) as usize;
            data = &data[read..];
            if out.len() > limit {
                return Err(CodecError::TooLarge);
            }
            match status {
                Status::StreamEnd => break,
                _ if read == 0 && out.len() == len => return Err(CodecError::invalid("it is cut off")),
                _ => {}
            }
        }
    }
    Ok(out)
}

/// Returns the size in the trailer of gzip data, up to a ratio that JSON reaches, and one byte
/// more, so that the decoder finds the end without growing the buffer.
fn gzip_size(data: &[u8]) -> usize {
    let claimed = data.last_chunk::<4>().map_or(0, |n| u32::from_le_bytes(*n) as usize);
    claimed.saturating_add(1).min(data.len().saturating_mul(16))
}

/// Decompresses lz4 frames, one after another.
fn unlz4(data: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    let mut decoder = FrameDecoder::new(data);
    let mut out = Vec::with_capacity(data.len().saturating_mul(4).min(limit));
    loop {
        let block = decoder.fill_buf().map_err(CodecError::invalid)?;
        if block.len() > limit - out.len() {
            return Err(CodecError::TooLarge);
        }
        out.extend_from_slice(block);
        let len = block.len();
        decoder.consume(len);
        // A frame ends with an empty block, as the data does.
        if len == 0 && decoder.get_ref().is_empty() {
            return Ok(out);
        }
    }
}

fn unzstd(mut data: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    let mut decoder = Decompressor::new();
    let mut out = Vec::new();
    while !data.is_empty() {
        // The decoder reserves the size in the header. A block holds at most 128 KiB and takes at
        // least four bytes.
        let max = (data.len() as u64 / 4 + 1) << 17;
        if FrameHeader::parse(data).is_ok_and(|header| header.content_size.is_some_and(|size| size > max)) {
            return Err(CodecError::invalid("a frame of zstd says that it is larger than it can be"));
        }
        match decoder.decompress_frame(data, None, limit, &mut out) {
            Ok(used) => data = &data[used..],
            Err(zstd_rs::Error::OutputLimit) => return Err(CodecError::TooLarge),
            Err(e) => return Err(CodecError::invalid(e)),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
