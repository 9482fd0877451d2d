//! Options that choose dead letters.

use ailurus::Timestamp;
use ailurus_serve::dead_letters::Filter;
use clap::Args;

use crate::place::time;

/// Options that choose dead letters.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options that choose dead letters (all must match)")]
pub struct FilterArgs {
    /// Text in the error.
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Key of the record.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Topic that the record came from.
    #[arg(long, value_name = "TOPIC")]
    origin: Option<String>,
    /// Group whose handler failed.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Partition of the dead-letter topic.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// First offset in the dead-letter topic.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    from_offset: Option<i64>,
    /// Offset in the dead-letter topic before which they are.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    before_offset: Option<i64>,
    /// Earliest time of the last failure: so long ago (-5m, 2h), a date, or a time such as 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    since: Option<Timestamp>,
    /// Time before which the last failure was.
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    before: Option<Timestamp>,
}

impl From<FilterArgs> for Filter {
    fn from(args: FilterArgs) -> Self {
        let FilterArgs { error, key, origin, group, partition, from_offset, before_offset, since, before } = args;
        let key = key.map(String::into_bytes);
        Self { error, key, origin, group, partition, from_offset, before_offset, since, before }
    }
}
