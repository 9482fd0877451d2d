//! What a client does, counted: a small trait that the layers report to, and a ready [`Registry`] behind it.
//!
//! Without [`Config::metrics`](crate::Config::metrics) nothing is counted, and nothing is read of the clock for it. With it, one
//! [`Observation`] is made for a batch, a request, or a turn of handlers, not for a record.
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

/// Is told what a client does: see [`Registry`] for one that counts it.
///
/// It is called by the tasks that carry records, between one batch and the next: it must not block, nor panic.
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
    /// Something has happened.
    fn observe(&self, observation: &Observation<'_>);
}

/// What has happened. More may come: a match needs a `_` arm.
///
/// A `group` is empty for a consumer without one. Changes of what is held now, such as connections or buffer space, come as
/// differences, so that those of several producers or members add up.
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
    /// One that was [`Connected`](Self::Connected) is closed, by whichever side.
    Disconnected {
        /// `host:port`.
        broker: &'a str,
    },
    /// A connection could not be made.
    ConnectFailed {
        /// `host:port`.
        broker: &'a str,
        /// Why.
        error: ErrorKind,
    },
    /// A connection has proven again who we are, before the broker would have closed it.
    Reauthenticated {
        /// `host:port`.
        broker: &'a str,
        /// Why it could not.
        error: Option<ErrorKind>,
    },
    /// A request is on its way.
    RequestSent {
        /// `host:port`.
        broker: &'a str,
        /// Such as `Produce`.
        api: &'static str,
    },
    /// A request that was [sent](Self::RequestSent) has been answered, or will not be.
    RequestEnded {
        /// `host:port`.
        broker: &'a str,
        /// Such as `Produce`.
        api: &'static str,
        /// Since it was handed to the connection.
        took: Duration,
        /// Why there is no answer. What a broker answers may be an error too, which is not known here.
        error: Option<ErrorKind>,
    },
    /// A broker has asked for a pause, because a quota is used up.
    Throttled {
        /// `host:port`.
        broker: &'a str,
        /// Of the request it answered so.
        api: &'static str,
        /// How long.
        pause: Duration,
    },
    /// A batch was made ready for the wire, for its first try.
    BatchEncoded {
        /// Its topic.
        topic: &'a str,
        /// In it.
        records: u32,
        /// Its size before compression.
        uncompressed: usize,
        /// Its size as it is sent.
        bytes: usize,
    },
    /// A batch will be tried again.
    BatchRetried {
        /// Its topic.
        topic: &'a str,
        /// Why.
        error: ErrorKind,
    },
    /// A batch has ended: acknowledged, or failed.
    BatchEnded {
        /// Its topic.
        topic: &'a str,
        /// In it.
        records: u32,
        /// Since its first record was handed in.
        took: Duration,
        /// Why it failed.
        error: Option<ErrorKind>,
    },
    /// A producer uses more of its buffer than it did, or less; or has begun, or ended.
    BufferChanged {
        /// Bytes more in use.
        used: i64,
        /// Bytes more that may be in use.
        limit: i64,
    },
    /// A record has waited for buffer space.
    BufferWaited {
        /// How long.
        took: Duration,
    },
    /// A consumer has another place in its group. See [`ConsumerState`](crate::consumer::ConsumerState).
    Member {
        /// Its group.
        group: &'a str,
        /// The state it leaves; none at first.
        was: Option<&'static str>,
        /// The state it enters; none at the end.
        is: Option<&'static str>,
    },
    /// A consumer has got a partition.
    Assigned {
        /// Its group.
        group: &'a str,
        /// The partition's topic.
        topic: &'a str,
        /// The partition.
        partition: i32,
    },
    /// A partition has gone.
    Unassigned {
        /// The consumer's group.
        group: &'a str,
        /// The partition's topic.
        topic: &'a str,
        /// The partition.
        partition: i32,
        /// Whether it was taken before it could be given up.
        lost: bool,
    },
    /// The group has shared out, and a member has its partitions.
    Rebalanced {
        /// The group.
        group: &'a str,
        /// From the first this member knew of it; zero where partitions came without a rebalance.
        took: Duration,
    },
    /// A fetch has brought something of a partition, perhaps nothing but the news of where it ends.
    Fetched {
        /// The consumer's group.
        group: &'a str,
        /// The partition's topic.
        topic: &'a str,
        /// The partition.
        partition: i32,
        /// That were opened.
        batches: u32,
        /// That are to be handed out.
        records: usize,
        /// Of the batches as they came.
        bytes: usize,
        /// Of the batches without compression.
        uncompressed: usize,
        /// Where the partition ends for this consumer: behind the last record it may read.
        end: i64,
    },
    /// A program was handed records.
    Consumed {
        /// The consumer's group.
        group: &'a str,
        /// The partition's topic.
        topic: &'a str,
        /// The partition.
        partition: i32,
        /// How many.
        records: usize,
        /// The offset of the next one.
        position: i64,
    },
    /// Offsets were committed, or could not be.
    Committed {
        /// The group.
        group: &'a str,
        /// Of how many partitions.
        partitions: usize,
        /// Why not.
        error: Option<ErrorKind>,
    },
    /// The group has this offset of a partition that is ours.
    CommittedOffset {
        /// The group.
        group: &'a str,
        /// The partition's topic.
        topic: &'a str,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
    },
    /// A worker has called handlers.
    Handled {
        /// The group.
        group: &'a str,
        /// The partition's topic.
        topic: &'a str,
        /// The partition.
        partition: i32,
        /// The time that each call took that succeeded.
        done: &'a Histogram,
        /// The same of those that failed.
        failed: &'a Histogram,
    },
    /// A handler has failed.
    AttemptFailed {
        /// The group.
        group: &'a str,
        /// The record's topic.
        topic: &'a str,
        /// The record's partition.
        partition: i32,
        /// Whether its record will be handed in again.
        retried: bool,
    },
    /// A record was written to the dead letters.
    DeadLettered {
        /// The group.
        group: &'a str,
        /// The record's topic.
        topic: &'a str,
        /// The record's partition.
        partition: i32,
    },
    /// Where the records of a partition are.
    Backlog {
        /// The group.
        group: &'a str,
        /// The partition's topic.
        topic: &'a str,
        /// The partition.
        partition: i32,
        /// Records in a handler.
        in_flight: usize,
        /// Records that are here and not begun.
        waiting: usize,
        /// Records that have failed and wait.
        parked: usize,
        /// Keys, or whatever is handled in order, that stand still because a record has failed.
        parked_keys: usize,
        /// The lowest offset that has not ended.
        position: Option<i64>,
    },
    /// Something has failed that a layer deals with by itself, or tells the program.
    Failed {
        /// Of the client: `metadata`, `producer`, `consumer`, `group`, `handler` or `dead_letters`.
        part: &'static str,
        /// What.
        error: ErrorKind,
    },
}

/// Where the layers report: to a [`Metrics`], or to nobody.
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
    /// Reports to this.
    pub fn to(metrics: Arc<dyn Metrics>) -> Self {
        Self(Some(metrics))
    }

    /// Whether anyone listens.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Tells it, if anyone listens.
    #[inline]
    pub(crate) fn report<'a>(&self, observation: impl FnOnce() -> Observation<'a>) {
        if let Some(metrics) = &self.0 {
            metrics.observe(&observation());
        }
    }

    /// Counts an error that a layer deals with.
    pub(crate) fn failed(&self, part: &'static str, error: ErrorKind) {
        self.report(|| Observation::Failed { part, error });
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Reporter(on)" } else { "Reporter(off)" })
    }
}

/// Whether they report to the same.
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
