//! Settings of processors.

use std::time::Duration;

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
pub struct ProcessorConfig {
    /// Which records are handled one after the other; default [`HandlerOrdering::Partition`].
    pub ordering: HandlerOrdering,
    /// How many records (or batches) of a subscription may be in hand at a time, over all its partitions, which take turns;
    /// default 64. 1 to 100,000. Where there are several, one partition alone has at most eight ninths, so that slow handlers of one do
    /// not hold up the others.
    pub concurrency: usize,
    /// How many records of a subscription may wait behind others of their key, or for another attempt, in memory of their own;
    /// default 10,000. 1 to 10,000,000. All partitions use one pool: one alone gets up to eight ninths of it, several in need get
    /// equal parts, and one that keeps nothing may always keep one record. A partition that finds no room is read no further until a
    /// record has ended; none is dropped. Batches of [`max_records`](crate::processor::Batching::max_records) can be gathered in all
    /// partitions at a time, whatever this is.
    pub parked_records: usize,
    /// The same in bytes, default 8 MiB. 1 KiB to 64 GiB (256 MiB on 32-bit CPUs). A single record may be larger.
    pub parked_bytes: usize,
    /// How long an attempt may take; it is cancelled then and counts as failed. Default none. 1 ms to 24 hours.
    pub attempt_timeout: Option<Duration>,
    /// How often a record is handed to the handler before it becomes a dead letter; default 4. 1 to 1,000.
    pub max_attempts: u32,
    /// The wait before the second attempt, default 100 ms; it doubles with each further one, with jitter.
    pub retry_backoff: Duration,
    /// The longest wait between two attempts, default 10 s.
    pub retry_backoff_max: Duration,
    /// What is put behind a topic's name to name its dead-letter topic; default `.dlq`.
    pub dead_letter_suffix: String,
    /// Time for which a dead-letter topic that is created keeps its letters, default none: for good. 1 minute to 100 years. A
    /// topic that exists is left as it is; a warning names one that keeps letters for less.
    pub dead_letter_retention: Option<Duration>,
    /// How often handled offsets are committed, default 200 ms. 1 ms to 1 hour. They are committed as well before partitions are
    /// given up.
    pub commit_interval: Duration,
    /// How long a shutdown waits for records in hand, default 30 s; what is not done by then is cancelled and not
    /// committed.
    pub shutdown_timeout: Duration,
    /// How long records of a partition may wait while none ends before the partition counts as stalled, default 60 s. 100 ms to
    /// 24 hours. Health says so, and nothing else comes of it. Raise it above what the slowest handler may take.
    pub stall_timeout: Duration,
}

impl Default for ProcessorConfig {
    fn default() -> Self {
        Self {
            ordering: HandlerOrdering::Partition,
            concurrency: 64,
            parked_records: 10_000,
            parked_bytes: 8 << 20,
            attempt_timeout: None,
            max_attempts: 4,
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(10),
            dead_letter_suffix: ".dlq".into(),
            dead_letter_retention: None,
            commit_interval: Duration::from_millis(200),
            shutdown_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
        }
    }
}
