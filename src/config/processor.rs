//! Settings of processors.

use std::time::Duration;

use super::keyword::keywords;
use super::table::{KIB, MEMORY, MIB, days, hours, millis, minutes, secs, settings};

/// Which records a handler gets one after the other; all others it may get side by side.
///
/// ```
/// use ailurus::{Config, HandlerOrdering};
///
/// let config = Config::builder().handler_ordering(HandlerOrdering::Key).handler_concurrency(16_usize).build()?;
/// assert_eq!(config.processor.ordering, HandlerOrdering::Key);
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HandlerOrdering {
    /// All of a partition. A record that fails holds up its partition until it has ended.
    #[default]
    Partition,
    /// Those of a key in a partition. A record that fails holds up its key. Records without a key have no order: each is on its
    /// own.
    Key,
    /// None: each record is on its own.
    Unordered,
}

keywords!(
    HandlerOrdering, "order of handling":
    "partition" => Self::Partition, "key" => Self::Key, "unordered" => Self::Unordered
);

settings! {
    /// Settings of a [`Processor`](crate::Processor): order and number of handlers, what happens to a record whose handler fails, and at shutdown.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ailurus::{Config, ProcessorConfig};
    ///
    /// let mut processor = ProcessorConfig::default();
    /// processor.max_attempts = 10;
    /// processor.retry_backoff = Duration::from_millis(20);
    /// assert_eq!(Config::builder().processor(processor.clone()).build()?.processor, processor);
    /// # Ok::<(), ailurus::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct ProcessorConfig(self) in [config.processor];

    /// Which records are handled one after the other.
    ordering as handler_ordering: HandlerOrdering = HandlerOrdering::Partition, "REDPANDA_HANDLER_ORDERING" keyword;
    /// How many records (or batches) of a subscription may be in hand at a time, over all its partitions, which take turns.
    /// Where there are several, one partition alone has at most eight ninths, so that slow handlers of one do
    /// not hold up the others.
    concurrency as handler_concurrency: usize = 64, "REDPANDA_HANDLER_CONCURRENCY" count, in 1..=100_000;
    /// How many records of a subscription may wait behind others of their key, or for another attempt, in memory of their own.
    /// All partitions use one pool: one alone gets up to eight ninths of it, several in need get
    /// equal parts, and one that keeps nothing may always keep one record. A partition that finds no room is read no further until a
    /// record has ended; none is dropped. Batches of [`max_records`](crate::processor::Batching::max_records) can be gathered in all
    /// partitions at a time, whatever this is.
    parked_records: usize = 10_000, "REDPANDA_PARKED_RECORDS" count, in 1..=10_000_000;
    /// The same in bytes, at most 64 GiB (256 MiB on 32-bit CPUs). A single record may be larger.
    parked_bytes: usize = 8 * MIB, "REDPANDA_PARKED_BYTES" bytes, in KIB..=MEMORY;
    /// How long an attempt may take; it is cancelled then and counts as failed.
    attempt_timeout: Option<Duration> = None, "REDPANDA_ATTEMPT_TIMEOUT" limit, in millis(1)..=days(1);
    /// How often a record is handed to the handler before it becomes a dead letter.
    max_attempts: u32 = 4, "REDPANDA_MAX_ATTEMPTS" count, in 1..=1000;
    /// The wait before the second attempt; it doubles with each further one, with jitter.
    retry_backoff as handler_retry_backoff: Duration = millis(100),
        "REDPANDA_HANDLER_RETRY_BACKOFF" millis, in millis(0)..=hours(1);
    /// The longest wait between two attempts.
    retry_backoff_max as handler_retry_backoff_max: Duration = secs(10),
        "REDPANDA_HANDLER_RETRY_BACKOFF_MAX" millis, in self.retry_backoff..=days(1);
    /// What is put behind a topic's name to name its dead-letter topic.
    dead_letter_suffix by text: String = ".dlq".into(), "REDPANDA_DEAD_LETTER_SUFFIX" text;
    /// Time for which a dead-letter topic that is created keeps its letters; none: for good. A
    /// topic that exists is left as it is; a warning names one that keeps letters for less.
    dead_letter_retention: Option<Duration> = None, "REDPANDA_DEAD_LETTER_RETENTION" retention, in minutes(1)..=days(36_500);
    /// How often handled offsets are committed. They are committed as well before partitions are
    /// given up.
    commit_interval: Duration = millis(200), "REDPANDA_COMMIT_INTERVAL" millis, in millis(1)..=hours(1);
    /// How long a shutdown waits for records in hand; what is not done by then is cancelled and not
    /// committed.
    shutdown_timeout: Duration = secs(30), "REDPANDA_SHUTDOWN_TIMEOUT" millis, in millis(0)..=hours(1);
    /// How long records of a partition may wait while none ends before the partition counts as stalled.
    /// Health says so, and nothing else comes of it. Raise it above what the slowest handler may take.
    stall_timeout: Duration = secs(60), "REDPANDA_STALL_TIMEOUT" millis, in millis(100)..=days(1);
}
