//! The keywords of [`Compression`] in settings.

use super::keyword::keywords;
pub use crate::record::compression::Compression;

keywords!(
    Compression, "compression":
    "none" => Self::None,
    "gzip" => Self::Gzip { level: Self::DEFAULT_GZIP_LEVEL },
    "snappy" => Self::Snappy,
    "lz4" => Self::Lz4,
    "zstd" => Self::Zstd
);
