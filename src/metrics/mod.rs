//! Metrics: the trait that all layers report to.
//!
//! Without [`Config::metrics`](crate::Config::metrics) nothing is counted, and no clock is read for
//! it. With it, one [`Observation`] is made per batch, request, or turn of handlers, not per
//! record.
//!
//! The crate [`ailurus-metrics`](https://docs.rs/ailurus-metrics) has a registry that counts them, under the
//! names of Prometheus.
//!
//! See [`Metrics`] for an example.

mod histogram;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use histogram::Histogram;

use crate::error::ErrorKind;

/// Receives metric events.
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
    /// A failed record was skipped.
    Skipped {
        /// Group.
        group: &'a str,
        /// Topic.
        topic: &'a str,
        /// Partition.
        partition: i32,
    },
    /// A processor waits for a dependency of its handler that is down.
    HoldStarted {
        /// Group.
        group: &'a str,
        /// Name of the dependency: at most 101 of a subscription.
        dependency: &'a str,
    },
    /// A processor does not wait for a dependency any more.
    HoldEnded {
        /// Group.
        group: &'a str,
        /// Name of the dependency.
        dependency: &'a str,
        /// Time for which it waited.
        held_for: Duration,
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
    /// A partition of a processor was paused or resumed for one reason; it may have others.
    PauseChanged {
        /// Group.
        group: &'a str,
        /// Topic.
        topic: &'a str,
        /// Partition.
        partition: i32,
        /// The reason: `control`, `breaker` or `delay`.
        reason: &'static str,
        /// True if it was paused. It is resumed when its assignment ends, too.
        paused: bool,
    },
    /// The maximum number of records (or batches) that a subscription has in handlers at a time was changed. It is 0 before the
    /// subscription runs and after its end.
    ConcurrencyChanged {
        /// Group.
        group: &'a str,
        /// Limit before.
        from: usize,
        /// Limit now.
        to: usize,
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
    /// A transaction of an exactly-once pipeline was committed or aborted.
    PipelineTransactionEnded {
        /// Group.
        group: &'a str,
        /// Number of handled records.
        records: usize,
        /// Size of their outputs in memory, in bytes.
        bytes: usize,
        /// Time since it began.
        took: Duration,
        /// Reason why it was aborted.
        error: Option<ErrorKind>,
    },
    /// The state of a transactional producer changed.
    TransactionalProducer {
        /// Transactional id, without the random part of an exclusive one.
        transactional_id: &'a str,
        /// Previous state; none at first. See
        /// [`TransactionalProducerState`](crate::producer::TransactionalProducerState).
        was: Option<&'static str>,
        /// New state; none at the end.
        is: Option<&'static str>,
    },
    /// A transaction of a producer began, or its coordinator has ended it.
    TransactionOpen {
        /// Transactional id, without the random part of an exclusive one.
        transactional_id: &'a str,
        /// Time at which the transaction before began, which is not open any more.
        was: Option<Instant>,
        /// Time at which the open one began.
        is: Option<Instant>,
    },
    /// A transaction of a producer, of an application or a pipeline, was committed or aborted, or its
    /// outcome is not known. Empty ones, for which nothing is sent, are not reported.
    TransactionEnded {
        /// Transactional id, without the random part of an exclusive one.
        transactional_id: &'a str,
        /// `committed`; `aborted`, by the application or because of an error; `unknown`, and later
        /// `committed` or `aborted` once that is known; `fenced` or `stopped`.
        outcome: &'static str,
        /// Time since commit or abort was called.
        took: Duration,
        /// Reason why it was not committed; none if the application has aborted it.
        error: Option<ErrorKind>,
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
/// See [`Metrics`] for an example.
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
        let address = |of: &Self| of.0.as_ref().map(|sink| Arc::as_ptr(sink).cast::<()>());
        address(self) == address(other)
    }
}

impl Eq for Reporter {}

#[cfg(test)]
mod tests;
