//! What can be asked for on the command line.

use ailurus::{Compression, ProducerConfig};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands;

/// Produce, consume, inspect, serve and measure Redpanda and Apache Kafka.
#[derive(Debug, Parser)]
#[command(name = "ailurus", version, max_term_width = 100, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Settings:
  Every REDPANDA_* variable of the environment, and of the file .env in the working directory,
  counts: REDPANDA_CLIENT_ID, REDPANDA_SECURITY_PROTOCOL, REDPANDA_SASL_MECHANISM and so on.
  --brokers goes before REDPANDA_BROKERS.

Exit codes:
  0    done
  1    the work failed or is not complete: lines not delivered, records lost, a part that did not answer
  2    the command line or a setting is wrong
  3    not found: the topic, partition, group, broker or dead letter does not exist
  4    what was to be created exists already
  5    not reachable: no broker, or not the one needed, could be reached or answered in time
  6    refused: the broker does not allow it as it is, for example for want of rights or because the
       group has members
  130  interrupted before the end

Commands that delete or overwrite something are dry runs, which print what would be done, unless
--yes is given.

Examples:
  ailurus demo                                          # on an embedded broker, nothing to install
  ailurus broker --listen 127.0.0.1:9092                # an in-memory broker to develop against
  ailurus produce orders --key-field orderId < orders.ndjson
  ailurus consume orders --from earliest --exit-at-end --json
  ailurus group describe order-analytics --brokers redpanda:9092
  ailurus group reset order-analytics --to earliest     # dry run; --yes does it
  ailurus dlq show orders.dlq --last 3                  # why records could not be handled";

/// Options of all commands, before or after the command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Brokers to begin with, host:port separated by commas; the rest of the cluster is learned from them.
    /// Without it REDPANDA_BROKERS (environment or .env) counts, else localhost:9092.
    #[arg(long, global = true, value_name = "HOST:PORT,…", help_heading = "Global options")]
    pub brokers: Option<String>,
    /// What to log on stderr: a level (error, warn, info, debug, trace) or a filter such as ailurus=debug,warn.
    /// [default: warn, and topics that were created; for demo error]
    #[arg(long, global = true, env = "RUST_LOG", value_name = "FILTER", help_heading = "Global options")]
    pub log: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Demo(commands::demo::Demo),
    Produce(commands::produce::Produce),
    Consume(commands::consume::Consume),
    Topic(commands::topic::Topic),
    Group(commands::group::Group),
    Records(commands::records::Records),
    Config(commands::config::Config),
    Acl(commands::acl::Acl),
    Cluster(commands::cluster::Cluster),
    Dlq(commands::dlq::Dlq),
    Health(commands::health::Health),
    Broker(commands::broker::Broker),
    Serve(commands::serve::Serve),
    Bench(commands::bench::Bench),
    Completions(commands::completions::Completions),
    Man(commands::man::Man),
}

/// Whether to write for machines.
#[derive(Debug, Clone, Copy, Args)]
pub struct Json {
    /// Write JSON instead of text for people.
    #[arg(long)]
    pub json: bool,
}

/// `NAME=VALUE`, for settings.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    parts.map(|(n, v)| (n.to_owned(), v.to_owned())).ok_or_else(|| "allowed is NAME=VALUE".to_owned())
}

/// A number of bytes, which may have a unit: `5000000`, `5MB` (of 1000 kB), `5MiB` (of 1024 KiB).
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

/// Size of the largest record.
#[derive(Debug, Clone, Copy, Args)]
pub struct MaxRequestSize {
    /// Largest record, and largest request, in bytes before compression; 5MB and 5MiB are understood. The topic's
    /// max.message.bytes must allow it, too [default: REDPANDA_MAX_REQUEST_SIZE, else 1MiB].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    max_request_size: Option<usize>,
}

impl MaxRequestSize {
    /// Sets the limit where it was given; the memory of the producer is at least that.
    pub fn apply(self, config: &mut ProducerConfig) {
        if let Some(bytes) = self.max_request_size {
            config.max_request_size = bytes;
            config.buffer_memory = config.buffer_memory.max(bytes);
        }
    }
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// As it is asked for on the command line.
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

/// gzip at its default level.
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
    #![allow(clippy::unwrap_used)]

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

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

    #[test]
    fn brokers_may_stand_before_or_after_the_command() {
        for line in [["ailurus", "--brokers", "a:1", "health"], ["ailurus", "health", "--brokers", "a:1"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.global.brokers.as_deref(), Some("a:1"));
        }
    }
}
