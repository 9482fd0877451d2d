//! Options that several commands have.

use ailurus::{Compression, ProducerConfig};
pub use ailurus_serve::options::{Address, Global};
use clap::{Args, ValueEnum};

/// Option for the output format.
#[derive(Debug, Clone, Copy, Args)]
pub struct Json {
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Parses `NAME=VALUE`, of a setting.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    parts.map(|(n, v)| (n.to_owned(), v.to_owned())).ok_or_else(|| "allowed is NAME=VALUE".to_owned())
}

/// Parses a number of bytes, which may have a unit: `5000000`, `5MB` (of 1000 kB), `5MiB` (of 1024 KiB).
pub fn bytes(text: &str) -> Result<usize, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit: usize = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        _ => 0,
    };
    let bytes = number.parse().ok().and_then(|n: usize| n.checked_mul(unit)).filter(|n| *n > 0);
    bytes.ok_or_else(|| {
        "allowed is a number of bytes, or such as 500kB, 5MB (1,000,000 bytes) or 5MiB (1,048,576 bytes)".to_owned()
    })
}

/// Option for the size of the largest record.
#[derive(Debug, Clone, Copy, Args)]
pub struct MaxRequestSize {
    /// Maximum size of a record, and of a request, in bytes before compression, also as 5MB or 5MiB. The topic's
    /// max.message.bytes must allow it, too [default: REDPANDA_MAX_REQUEST_SIZE, else 1MiB].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    max_request_size: Option<usize>,
}

impl MaxRequestSize {
    /// Sets the limit if it was given; the producer's memory is at least that.
    pub fn apply(self, config: &mut ProducerConfig) {
        if let Some(bytes) = self.max_request_size {
            config.max_request_size = bytes;
            config.buffer_memory = config.buffer_memory.max(bytes);
        }
    }
}

/// Compression of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Takes gzip at its default level.
impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::None => Self::None,
            Codec::Gzip => Self::Gzip { level: Self::DEFAULT_GZIP_LEVEL },
            Codec::Snappy => Self::Snappy,
            Codec::Lz4 => Self::Lz4,
            Codec::Zstd => Self::Zstd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_bytes_may_have_a_unit() {
        for (text, n) in
            [("5000000", 5_000_000), ("5MB", 5_000_000), ("5MiB", 5 << 20), ("5m", 5 << 20), ("64 kB", 64_000)]
        {
            assert_eq!(bytes(text), Ok(n), "{text}");
        }
        for bad in ["", "MB", "5GB", "-5", "0", "5.5MB", "5MBit", "99999999999999999999", "18446744073709551615k"] {
            assert!(bytes(bad).is_err_and(|e| e.contains("5MiB")), "{bad}");
        }
    }
}
