//! Settings of processors.

use std::time::Duration;

use super::keyword::keywords;
use super::table::{KIB, MEMORY, MIB, days, hours, millis, minutes, secs, settings};

/// Ordering scope of handlers: records within it are handled one after the other, all others
/// concurrently.
///
/// ```
/// use ailurus::{Config, HandlerOrdering};
///
/// let config = Config::builder().handler_ordering(HandlerOrdering::Key).handler_concurrency(16_usize).build()?;
/// assert_eq!(config.processor.ordering, HandlerOrdering::Key);
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum HandlerOrdering {
    /// A partition. A failing record blocks its partition until it is handled or dead-lettered.
    #[default]
    Partition,
    /// A key within a partition. A failing record blocks its key. Records without a key are
    /// unordered.
    Key,
    /// No order.
    Unordered,
}

keywords!(
    HandlerOrdering, "order of handling":
    "partition" => Self::Partition, "key" => Self::Key, "unordered" => Self::Unordered
);

settings! {
    /// Settings of a [`Processor`](crate::Processor): order and concurrency of handlers, retries,
    /// dead letters, commits, shutdown.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ailurus::{Config, ProcessorConfig};
    ///
    /// let processor = ProcessorConfig::default().max_attempts(10).retry_backoff(Duration::from_millis(20));
    /// assert_eq!(Config::builder().processor(|_| processor.clone()).build()?.processor, processor);
    /// # Ok::<(), ailurus::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct ProcessorConfig(self) {
        /// Ordering scope of handlers.
        ordering as handler_ordering: HandlerOrdering = HandlerOrdering::Partition, "REDPANDA_HANDLER_ORDERING" keyword;
        /// Maximum number of records (or batches) of a subscription in handlers at a time, over all
        /// its partitions, which take turns. With several, one partition gets at most eight ninths,
        /// so that its slow handlers do not block the others.
        concurrency as handler_concurrency: usize = 64, "REDPANDA_HANDLER_CONCURRENCY" count, in 1..=100_000;
        /// Maximum number of records of a subscription that wait behind others of their key, or for
        /// a retry, copied to memory of their own. All partitions share one pool: one alone gets up
        /// to eight ninths of it, several get equal parts, and each may always hold one record. A
        /// partition without room is not read further until one of its records is done; none is
        /// dropped. Batches of [`max_records`](crate::processor::Batching::max_records) can be
        /// gathered in all partitions at a time, whatever this is.
        parked_records: usize = 10_000, "REDPANDA_PARKED_RECORDS" count, in 1..=10_000_000;
        /// Maximum size of the records that `parked_records` counts, in bytes, at most 64 GiB
        /// (256 MiB on 32-bit CPUs). A single record may be larger.
        parked_bytes: usize = 8 * MIB, "REDPANDA_PARKED_BYTES" bytes, in KIB..=MEMORY;
        /// Time limit of one handler attempt; it is cancelled then and counts as failed.
        attempt_timeout: Option<Duration> = None, "REDPANDA_ATTEMPT_TIMEOUT" limit, in millis(1)..=days(1);
        /// Number of attempts to handle a record before it is written to a retry topic
        /// ([`delayed_retries`](Self::delayed_retries)) or the dead-letter topic, and again of each retry topic.
        max_attempts: u32 = 4, "REDPANDA_MAX_ATTEMPTS" count, in 1..=1000;
        /// Wait before the second attempt; doubles with each further one, with jitter.
        retry_backoff as handler_retry_backoff: Duration = millis(100),
            "REDPANDA_HANDLER_RETRY_BACKOFF" millis, in millis(0)..=hours(1);
        /// Maximum wait between two attempts.
        retry_backoff_max as handler_retry_backoff_max: Duration = secs(10),
            "REDPANDA_HANDLER_RETRY_BACKOFF_MAX" millis, in self.retry_backoff..=days(1);
        /// Number of records that fail in a row, of several keys and with no success between, after which the failures
        /// are taken for an outage; 0: never.
        ///
        /// It counts failures without another [policy](crate::processor::FailurePolicy). In place of a dead letter or a delayed
        /// retry the subscription then [waits](crate::processor::Hold) for a dependency `unknown`, and handles single
        /// records as probes until one succeeds. So it stands still, and says so in health, log and metrics, while its
        /// handler fails for everything. What a batch handler fails together counts once.
        outage_records: usize = 20, "REDPANDA_OUTAGE_RECORDS" count, in 0..=1_000_000;
        /// Wait before the first probe of a dependency that a subscription [waits](crate::processor::Hold) for; doubles with
        /// each probe that fails, with jitter.
        hold_backoff: Duration = secs(1), "REDPANDA_HOLD_BACKOFF" millis, in millis(1)..=hours(1);
        /// Maximum wait between two probes.
        hold_backoff_max: Duration = secs(30),
            "REDPANDA_HOLD_BACKOFF_MAX" millis, in self.hold_backoff..=days(1);
        /// Delays of further attempts from retry topics, by which a record waits without blocking others and survives a restart; none: off.
        ///
        /// A record that has failed [`max_attempts`](Self::max_attempts) times is written to `<topic>.retry.<group>.<delay>`, such as
        /// `orders.retry.billing.10m`, for the first delay, and handled again from there once that has passed; it fails to the topic of
        /// the next delay, and after the last one to the dead-letter topic. The subscription reads these topics with its own, and creates
        /// them if it may. Such a record is handled after later ones of its key: the order of all others is kept. A record with the
        /// outcome [`DeadLetter`](crate::Outcome::DeadLetter) is never retried. Up to 10, ascending, 1 ms to 30 days. A delay that is taken away leaves its topic unread.
        delayed_retries: Vec<Duration> = Vec::new(), "REDPANDA_DELAYED_RETRIES" delays;
        /// Suffix that makes the name of a topic's dead-letter topic.
        dead_letter_suffix: String = ".dlq".into(), "REDPANDA_DEAD_LETTER_SUFFIX" text;
        /// Retention of a dead-letter topic that is created; none: unlimited. An existing topic is
        /// not changed; a warning names one with a shorter retention.
        dead_letter_retention: Option<Duration> = None, "REDPANDA_DEAD_LETTER_RETENTION" retention, in minutes(1)..=days(36_500);
        /// Interval between commits of handled offsets. They are committed before partitions are
        /// revoked, too.
        commit_interval: Duration = millis(200), "REDPANDA_COMMIT_INTERVAL" millis, in millis(1)..=hours(1);
        /// Maximum time that a shutdown waits for in-flight records; the rest is cancelled and not
        /// committed.
        shutdown_timeout: Duration = secs(30), "REDPANDA_SHUTDOWN_TIMEOUT" millis, in millis(0)..=hours(1);
        /// Time without a handled record after which a partition with pending records counts as
        /// stalled. Affects reported health only. Raise it above the longest time a handler may
        /// take.
        stall_timeout: Duration = secs(60), "REDPANDA_STALL_TIMEOUT" millis, in millis(100)..=days(1);
    }
    setters: processor_settings;
}

processor_settings!(ProcessorConfig [] by_field);
