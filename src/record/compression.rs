//! The setting that chooses a codec, and what each codec costs.

use crate::error::{Error, ErrorKind, Result};

/// Compression of a producer's batches. Consumers read batches of every codec, whatever is set
/// here.
///
/// One million order events of 340 bytes, in batches of up to 1,000,000 bytes; CPU seconds of one
/// core, the best of several runs (`cargo run --release --example codecs` measures it on your own
/// data):
///
/// | codec | MB | ratio | to compress | to decompress |
/// |---|---|---|---|---|
/// | none | 349 | 1 | | |
/// | gzip 1 | 109.4 | 3.19 | 0.9 s | 0.3 s |
/// | gzip 2 to 4 | 74.8 | 4.67 | 1.8 s | 0.45 s |
/// | gzip 5 | 73.6 | 4.75 | 2.8 s | 0.45 s |
/// | gzip 6 | 73.0 | 4.78 | 4.0 s | 0.4 s |
/// | gzip 7 | 69.5 | 5.02 | 5.4 s | 0.35 s |
/// | gzip 9 | 72.8 | 4.80 | 5.7 s | 0.35 s |
/// | snappy | 122.1 | 2.86 | 0.3 s | 0.15 s |
/// | lz4 | 123.3 | 2.83 | 0.65 s | 0.15 s |
/// | zstd | 71.7 | 4.87 | 1.6 s | 0.5 s |
///
/// gzip levels 2 to 4 are the same: the encoder of the crate `ailurus-gzip`, made for batches of
/// similar records.
///
/// From text, such as `REDPANDA_COMPRESSION`: `none`, `gzip` (at its default level), `snappy`,
/// `lz4`, `zstd`.
///
/// ```
/// use ailurus::Compression;
///
/// assert_eq!(Compression::gzip(9)?, Compression::Gzip { level: 9 });
/// assert!(Compression::gzip(10).is_err());
/// assert_eq!("zstd".parse::<Compression>()?, Compression::Zstd);
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Compression {
    /// No compression.
    #[default]
    None,
    /// gzip at a level from 1 (fast) to 9 (small).
    Gzip {
        /// Level, from 1 to 9.
        level: u32,
    },
    /// snappy, in the framing of Kafka's Java client.
    Snappy,
    /// lz4, in frames of blocks of 64 KiB.
    Lz4,
    /// zstd at level 1; higher levels cost more and hardly save anything on JSON. Brokers read it
    /// from Kafka 2.1 on.
    Zstd,
}

impl Compression {
    /// Default gzip level: on order events the cheapest one whose batches are within 3% of
    /// franz-go's, the smallest that other clients write by default (74.8 MB and 73.0 MB for a
    /// million).
    pub const DEFAULT_GZIP_LEVEL: u32 = 4;

    /// Returns gzip at `level`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if `level` is not from 1 to 9.
    pub fn gzip(level: u32) -> Result<Self> {
        Self::Gzip { level }.check()
    }

    pub(crate) fn check(self) -> Result<Self> {
        match self {
            Self::Gzip { level } if !(1..=9).contains(&level) => {
                Err(Error::new(ErrorKind::Config, format!("gzip level {level} is not allowed: 1 (fast) to 9 (small)")))
            }
            _ => Ok(self),
        }
    }
}
