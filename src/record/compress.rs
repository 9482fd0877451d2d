//! The codecs of a batch: whole record sections in, whole record sections out.
//!
//! What is written can be read by every broker and client: gzip; snappy in the framing that Kafka's Java client writes; lz4 in
//! frames of independent blocks, the only kind that Java reads; zstd in one frame. No checksum of a codec's own is written,
//! for the batch has its CRC-32C.

use std::io::{self, Read, Write};

use flate2::write::GzEncoder;
use flate2::{Decompress, FlushDecompress, Status};
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use zstd_rs::{CompressionConfig, Compressor, Decompressor, FrameHeader};

use super::spare::Spare;
use super::{deflate, snappy};
use crate::config::Compression;
use crate::error::{Error, ErrorKind, Result};

/// The codec of a batch, from the lowest three bits of its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Codec {
    /// What a batch's attributes say.
    pub(crate) fn of(attributes: i16) -> Result<Self> {
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

    /// Opens what was compressed with this codec, up to `limit` bytes.
    ///
    /// Memory grows with what really comes out; a size that the data claims is believed only as far as data of that length can
    /// grow at all.
    pub(crate) fn decompress_in(self, data: &[u8], limit: usize, spare: &Spare) -> Result<Vec<u8>> {
        let opened = match self {
            Self::None if data.len() > limit => Err(Damage::TooLarge),
            Self::None => Ok(data.to_vec()),
            Self::Gzip => gunzip(data, limit, spare),
            Self::Snappy => snappy::decompress(data, limit),
            Self::Lz4 => {
                let mut decoder = FrameDecoder::new(data);
                read_all(|buf| read_lz4(&mut decoder, buf), data.len().saturating_mul(4), limit)
            }
            Self::Zstd => unzstd(data, limit),
        };
        opened.map_err(|damage| match damage {
            Damage::TooLarge => {
                let what = format!(
                    "a batch of {} bytes of {} holds more than the {limit} that are allowed: raise the consumer's \
                     max_decompressed_bytes if this is no accident",
                    data.len(),
                    self.name()
                );
                Error::new(ErrorKind::Corrupt, what)
            }
            Damage::Invalid(e) => {
                Error::with_source(ErrorKind::Corrupt, format!("the batch is not valid {}", self.name()), e)
            }
        })
    }
}

/// Why compressed data can't be opened.
#[derive(Debug)]
pub(super) enum Damage {
    TooLarge,
    Invalid(Box<dyn std::error::Error + Send + Sync>),
}

impl Damage {
    pub(super) fn invalid(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Invalid(e.into())
    }
}

/// Appends `data`, compressed, to `out`; tells with which codec that was.
pub(crate) fn compress(compression: Compression, data: &[u8], mut out: Vec<u8>) -> io::Result<(Codec, Vec<u8>)> {
    // What order events and other JSON shrink to, or somewhat more.
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
            deflate::gzip(data, &mut out);
            out.shrink_to_fit(); // as many of these are about as there are requests
            (Codec::Gzip, out)
        }
        Compression::Gzip { level } => {
            let mut encoder = GzEncoder::new(out, flate2::Compression::new(level));
            encoder.write_all(data)?;
            (Codec::Gzip, encoder.finish()?)
        }
        Compression::Snappy => (Codec::Snappy, snappy::compress(data, out)?),
        Compression::Lz4 => {
            let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(LZ4_BLOCK);
            let mut encoder = FrameEncoder::with_frame_info(info, out);
            encoder.write_all(data)?;
            (Codec::Lz4, encoder.finish()?)
        }
        Compression::Zstd => {
            let mut encoder = Compressor::new(ZSTD).map_err(io::Error::other)?;
            encoder.compress(data, None, &mut out).map_err(io::Error::other)?;
            (Codec::Zstd, out)
        }
    })
}

/// The size other clients use. Larger ones save 2% and cost each reader buffers of that size.
const LZ4_BLOCK: BlockSize = BlockSize::Max64KB;

/// Level 1: on JSON events higher ones cost more and save nothing.
const ZSTD: CompressionConfig = CompressionConfig::FAST;

/// Reads to the end or the limit, with a first guess at the size.
fn read_all(
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    guess: usize,
    limit: usize,
) -> Result<Vec<u8>, Damage> {
    // One byte beyond the limit is room enough to see that it is passed.
    let most = limit.saturating_add(1);
    let mut out = vec![0; guess.clamp(64, most.max(64))];
    let mut len = 0;
    loop {
        if len > limit {
            return Err(Damage::TooLarge);
        }
        if len == out.len() {
            out.resize((len * 2).min(most), 0);
        }
        match read(&mut out[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Damage::invalid(e)),
        }
    }
    out.truncate(len);
    Ok(out)
}

/// Opens members of gzip, one after another: each in one call, if the size is guessed, so that nothing has to be kept of what
/// came out, and into memory that was not cleared before.
fn gunzip(mut data: &[u8], limit: usize, spare: &Spare) -> Result<Vec<u8>, Damage> {
    const WINDOW_BITS: u8 = 15; // the most there is
    let most = limit.saturating_add(1);
    let mut out = spare.take(gzip_size(data).clamp(64, most.max(64)));
    while !data.is_empty() {
        let mut member = Decompress::new_gzip(WINDOW_BITS);
        loop {
            if out.len() == out.capacity() {
                out.reserve_exact(out.len().min(most - out.len()));
            }
            let (taken, len) = (member.total_in(), out.len());
            let status = member.decompress_vec(data, &mut out, FlushDecompress::Finish).map_err(Damage::invalid)?;
            let taken = (member.total_in() - taken) as usize;
            data = &data[taken..];
            if out.len() > limit {
                return Err(Damage::TooLarge);
            }
            match status {
                Status::StreamEnd => break,
                _ if taken == 0 && out.len() == len => return Err(Damage::invalid("it is cut off")),
                _ => {}
            }
        }
    }
    Ok(out)
}

/// The size that gzip data says it has, believed up to a ratio that JSON reaches, and one byte more, so that the end is
/// seen without growing.
fn gzip_size(data: &[u8]) -> usize {
    let said = data.last_chunk::<4>().map_or(0, |n| u32::from_le_bytes(*n) as usize);
    said.saturating_add(1).min(data.len().saturating_mul(16))
}

/// Reads lz4 frames, one after another: the decoder tells the end of a frame as it tells the end of the data.
fn read_lz4(decoder: &mut FrameDecoder<&[u8]>, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        let n = decoder.read(buf)?;
        if n > 0 || decoder.get_ref().is_empty() {
            return Ok(n);
        }
    }
}

/// Opens zstd frames, one after another.
fn unzstd(mut data: &[u8], limit: usize) -> Result<Vec<u8>, Damage> {
    let mut decoder = Decompressor::new();
    let mut out = Vec::new();
    while !data.is_empty() {
        // Memory is reserved for the size in the header. A block holds at most 128 KiB and takes at least four bytes.
        let most = (data.len() as u64 / 4 + 1) << 17;
        if FrameHeader::parse(data).is_ok_and(|header| header.content_size.is_some_and(|size| size > most)) {
            return Err(Damage::invalid("a frame of zstd says that it is larger than it can be"));
        }
        match decoder.decompress_frame(data, None, limit, &mut out) {
            Ok(used) => data = &data[used..],
            Err(zstd_rs::Error::OutputLimit) => return Err(Damage::TooLarge),
            Err(e) => return Err(Damage::invalid(e)),
        }
    }
    Ok(out)
}

#[cfg(test)]
#[path = "compress_tests.rs"]
mod tests;
