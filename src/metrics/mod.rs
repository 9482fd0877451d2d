//! Metrics: a small trait that all layers report to, and a ready [`Registry`] behind it.
//!
//! Without [`Config::metrics`](crate::Config::metrics) nothing is counted, and no clock is read for
//! it. With it, one [`Observation`] is made per batch, request, or turn of handlers, not per
//! record.
//!
//! ```no_run
//! # async fn example() -> ailurus::Result<()> {
//! use std::sync::Arc;
//! use ailurus::{Client, Config, metrics::Registry};
//!
//! let registry = Arc::new(Registry::new());
//! let client = Client::connect(Config::builder().metrics(registry.clone()).build()?).await?;
//! // Produce, consume; then, or now and then:
//! let snapshot = registry.snapshot();
//! println!("{} records sent", snapshot.total("messaging_client_sent_messages_total"));
//! for lag in snapshot.samples("ailurus_consumer_lag_records") {
//!     println!("{:?}: {}", lag.labels, lag.value.number());
//! }
//! # Ok(())
//! # }
//! ```

mod histogram;
mod registry;
mod snapshot;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use histogram::Histogram;
pub use registry::Registry;
pub use snapshot::{Family, Kind, MetricsSnapshot, Sample, Unit, Value};

use crate::error::ErrorKind;

/// Receives metric events: see [`Registry`] for one that counts them.
///
/// It is called by the tasks that carry records, between batches: it must not block, nor panic.
///
/// ```
/// use std::sync::Arc;
/// use ailurus::Config;
/// use ailurus::metrics::{Metrics, Observation};
///
/// #[derive(Debug)]
/// struct SlowRequests;
///
/// impl Metrics for SlowRequests {
///     fn observe(&self, observation: &Observation<'_>) {
///         if let Observation::RequestEnded { broker, api, took, .. } = observation {
///             if took.as_secs() >= 1 {
///                 eprintln!("{api} to {broker} took {took:?}");
///             }
///         }
///     }
/// }
///
/// let config = Config::builder().metrics(Arc::new(SlowRequests)).build()?;
/// assert!(config.metrics.is_on());
/// # Ok::<(), ailurus::Error>(())
/// ```
pub trait Metrics: fmt::Debug + Send + Sync + 'static {
    /// Records an event.
    fn observe(&self, observation: &Observation<'_>);
}

/// Metric event.
///
/// A `group` is empty for a consumer without one. Changes of a gauge, such as connections or buffer
/// space, are differences, so that those of several producers or members add up.
///
/// See [`Metrics`] for an example.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Observation<'a> {
    /// A connection is ready for requests.
    Connected {
        /// `host:port`.
        broker: &'a str,
    },
    /// A connection that was [`Connected`](Self::Connected) closed, from either side.
    Disconnected {
        /// `host:port`.
        broker: &'a str,
    },
    /// A connection attempt failed.
    ConnectFailed {
        /// `host:port`.
        broker: &'a str,
        /// Reason of the failure.
        error: ErrorKind,
    },
    /// A connection renewed its login, before the broker would have closed it.
    Reauthenticated {
        /// `host:port`.
        broker: &'a str,
        /// Reason of the failure.
        error: Option<ErrorKind>,
    },
    /// A request was sent.
    RequestSent {
        /// `host:port`.
        broker: &'a str,
        /// Name of the API, such as `Produce`.
        api: &'static str,
    },
    /// A request that was [sent](Self::RequestSent) got its response, or failed.
    RequestEnded {
        /// `host:port`.
        broker: &'a str,
        /// Name of the API, such as `Produce`.
        api: &'static str,
        /// Time since it was passed to the connection.
        took: Duration,
        /// Reason why there is no response. Error codes in a response do not count.
        error: Option<ErrorKind>,
    },
    /// A broker throttled the client, because a quota was exceeded.
    Throttled {
        /// `host:port`.
        broker: &'a str,
        /// API of the throttled request.
        api: &'static str,
        /// Throttle time.
        pause: Duration,
    },
    /// A batch was encoded for its first attempt.
    BatchEncoded {
        /// Topic.
        topic: &'a str,
        /// Number of records.
        records: u32,
        /// Size before compression, in bytes.
        uncompressed: usize,
        /// Size on the wire, in bytes.
        bytes: usize,
    },
    /// A batch will be retried.
    BatchRetried {
        /// Topic.
        topic: &'a str,
        /// Reason of the retry.
        error: ErrorKind,
    },
    /// A batch was acknowledged, or failed.
    BatchEnded {
        /// Topic.
        topic: &'a str,
        /// Number of records.
        records: u32,
        /// Time since its first record was sent.
        took: Duration,
        /// Reason of the failure.
        error: Option<ErrorKind>,
    },
    /// The buffer use of a producer changed, or a producer was created or dropped.
    BufferChanged {
        /// Difference of bytes in use.
        used: i64,
        /// Difference of the limit, in bytes.
        limit: i64,
    },
    /// A record waited for buffer space.
    BufferWaited {
        /// Duration of the wait.
        took: Duration,
    },
    /// The state of a consumer in its group changed. See
    /// [`ConsumerState`](crate::consumer::ConsumerState).
    Member {
        /// Group.
        group: &'a str,
        /// Previous state; none at first.
        was: Option<&'static str>,
        /// New state; none at the end.
        is: Option<&'static str>,
    },
    /// A consumer was assigned a partition.
    Assigned {
        /// Group.
        group: &'a str,
        /// Topic.
        topic: &'a str,
        /// Partition.
        partition: i32,
    },
    /// A partition was revoked or lost.
    Unassigned {
        /// Group.
        group: &'a str,
        /// Topic.
        topic: &'a str,
        /// Partition.
        partition: i32,
        /// True if it was lost without a revocation.
        lost: bool,
    },
    /// A rebalance is complete, and a member has its assignment.
    Rebalanced {
        /// Group.
        group: &'a str,
        /// Time since this member learned of it; zero where partitions were assigned without a
        /// rebalance.
        took: Duration,
    },
    /// A fetch response had something of a partition, perhaps only its end offset.
    Fetched {
        /// Group.
        group: &'a str,
        /// Topic.
        topic: &'a str,
        /// Partition.
        partition: i32,
        /// Number of decoded batches.
        batches: u32,
        /// Records to deliver.
        records: usize,
        /// Size of the batches on the wire, in bytes.
        bytes: usize,
        /// Size of the batches after decompression, in bytes.
        uncompressed: usize,
        /// End offset for this consumer: high watermark, or last stable offset.
        end: i64,
    },
    /// Records were returned to the application.
    Consumed {
        /// Group.
        group: &'a str,
        /// Topic.
        topic: &'a str,
        /// Partition.
        partition: i32,
        /// Number of records.
        records: usize,
        /// Position: offset of the next record.
        position: i64,
    },
    /// A commit succeeded or failed.
    Committed {
        /// Group.
        group: &'a str,
        /// Number of partitions.
        partitions: usize,
        /// Reason of the failure.
        error: Option<ErrorKind>,
    },
    /// The committed offset of an assigned partition changed.
    CommittedOffset {
        /// Group.
        group: &'a str,
        /// Topic.
        topic: &'a str,
        /// Partition.
        partition: i32,
        /// Committed offset.
        offset: i64,
    },
    /// A worker called handlers.
    Handled {
        /// Group.
        group: &'a str,
        /// Topic.
        topic: &'a str,
        /// Partition.
        partition: i32,
        /// Durations of the calls that succeeded.
        done: &'a Histogram,
        /// Durations of the calls that failed.
        failed: &'a Histogram,
    },
    /// A handler attempt failed.
    AttemptFailed {
        /// Group.
        group: &'a str,
        /// Topic.
        topic: &'a str,
        /// Partition.
        partition: i32,
        /// True if the record will be retried.
        retried: bool,
    },
    /// A record was written to the dead-letter topic.
    DeadLettered {
        /// Group.
        group: &'a str,
        /// Topic of the record.
        topic: &'a str,
        /// Partition of the record.
        partition: i32,
    },
    /// Records of a partition by their state in the processor.
    Backlog {
        /// Group.
        group: &'a str,
        /// Topic.
        topic: &'a str,
        /// Partition.
        partition: i32,
        /// Records in a handler.
        in_flight: usize,
        /// Records queued for a handler.
        waiting: usize,
        /// Records that failed and wait for a retry.
        parked: usize,
        /// Keys (ordering scopes) blocked by a failed record.
        parked_keys: usize,
        /// Lowest offset that is not done.
        position: Option<i64>,
    },
    /// An error occurred that a layer handles itself, or reports to the application.
    Failed {
        /// Part of the client: `metadata`, `producer`, `consumer`, `group`, `handler` or
        /// `dead_letters`.
        part: &'static str,
        /// Kind of the error.
        error: ErrorKind,
    },
}

/// Handle by which the layers report to a [`Metrics`], or to none.
///
/// ```
/// use std::sync::Arc;
/// use ailurus::metrics::{Registry, Reporter};
///
/// assert!(!Reporter::default().is_on());
/// assert!(Reporter::to(Arc::new(Registry::new())).is_on());
/// ```
#[derive(Clone, Default)]
pub struct Reporter(Option<Arc<dyn Metrics>>);

impl Reporter {
    /// Creates a reporter to a sink.
    pub fn to(metrics: Arc<dyn Metrics>) -> Self {
        Self(Some(metrics))
    }

    /// Returns whether there is a sink.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Reports an observation, which is made only if there is a sink.
    #[inline]
    pub(crate) fn report<'a>(&self, observation: impl FnOnce() -> Observation<'a>) {
        if let Some(metrics) = &self.0 {
            metrics.observe(&observation());
        }
    }

    /// Counts an error that a layer handles.
    pub(crate) fn failed(&self, part: &'static str, error: ErrorKind) {
        self.report(|| Observation::Failed { part, error });
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Reporter(on)" } else { "Reporter(off)" })
    }
}

/// Reporters are equal if they have the same sink.
impl PartialEq for Reporter {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Eq for Reporter {}

#[cfg(test)]
mod tests;
