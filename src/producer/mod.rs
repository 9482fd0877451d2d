//! Sends records.
//!
//! [`Producer::send`] appends a record to the open batch of its partition and returns a
//! [`Delivery`], which resolves with the broker's response. A task per broker (`sender`) sends the
//! batches over a connection of its own, several requests at a time; another (`supervisor`) passes
//! metadata on and expires batches. Each batch has a sequence, by which the broker recognises a
//! repeated one and one that arrives too early.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::cluster::Client;
use crate::config::ProducerConfig;
use crate::error::{Error, ErrorKind, Result};

mod accumulator;
mod batch;
mod builder;
mod delivery;
mod metrics;
mod partition;
mod partitioner;
mod producer_id;
#[doc(hidden)]
pub mod raw;
mod record;
mod request;
mod send;
mod sender;
mod shared;
mod span;
mod supervisor;
mod transaction;
mod verdict;

pub use crate::partitioner::{PartitionInput, Partitioner};
pub use builder::ProducerBuilder;
pub use delivery::{Acknowledgement, Delivery};
pub use partitioner::murmur2;
pub use record::{CowBytes, ProducerRecord};
use send::{SendFuture, finish_span};
use shared::ProducerShared;
pub(crate) use transaction::task::TransactionShared;
pub use transaction::{
    Transaction, TransactionAction, TransactionError, TransactionErrorHealth, TransactionOutcome,
    TransactionalProducer, TransactionalProducerBuilder, TransactionalProducerHealth, TransactionalProducerState,
};

/// Time that tasks may take to close their connections.
const TASK_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends records: cheap to clone, one buffer and one set of connections shared by all clones.
///
/// ```no_run
/// # async fn example() -> ailurus::Result<()> {
/// use std::time::Duration;
/// use ailurus::{Client, Config, Producer, ProducerRecord};
///
/// let client = Client::connect(Config::from_env()?).await?;
/// let producer = client.producer().start()?;
/// let ack = producer.send(ProducerRecord::to("orders").key("order-17").value("created")).await?.await?;
/// println!("partition {}, offset {:?}", ack.partition, ack.offset);
/// producer.close(Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Order
/// Records of one partition are written in the order of successive `send` calls; a batch that is
/// retried keeps its place. Records with the same key go to the same partition, unless the
/// [`partitioner`](ProducerConfig::partitioner) is round robin or your own. When a topic gets more
/// partitions, most keys map to another one, from the next metadata refresh on
/// ([`Config::metadata_max_age`](crate::Config::metadata_max_age) at the latest), and consumers may
/// read later records of a key before earlier ones. Where the order of a key matters, create the
/// topic with enough partitions, or stop producing and let consumers finish before it grows.
///
/// # Delivery
/// A record is acknowledged when all in-sync replicas have it, unless
/// [`acks`](ProducerConfig::acks) is `Leader`. Transient errors (a leader that moved, a connection
/// that broke, a broker that does not respond) are retried with backoff until
/// [`delivery_timeout`](ProducerConfig::delivery_timeout). A request whose response was lost is
/// sent again, and the broker recognises the batch by its sequence if it has it already (KIP-98): a
/// record is written once. Where that is not possible any more, because the timeout has passed or
/// the sequence was broken, the record is not sent again and fails with
/// [`ErrorKind::Indeterminate`]. With [`idempotence`](ProducerConfig::idempotence) off, a record
/// may be in the log twice.
///
/// A batch that is too large for the broker is split in halves until each is accepted; a single
/// record that is too large fails with [`ErrorKind::RecordTooLarge`]. Where a broker rejects some
/// records of a batch (without a key in a compacted topic, with a timestamp out of bounds), these
/// alone fail, each with its own error, and the others are written.
///
/// A topic that does not exist is created if the settings and the broker allow it. `send` fails
/// with [`ErrorKind::UnknownTopic`] as soon as a broker's settings show that it creates none, else
/// after [`topic_creation_timeout`](crate::Config::topic_creation_timeout); where the settings do
/// not allow it, after a second in which the topic was looked for. Pending records of a topic that
/// is deleted fail with [`ErrorKind::UnknownTopic`] when it has been missing for the request
/// timeout; if it is recreated before, they go to the new topic.
///
/// # End
/// [`close`](Producer::close) sends pending records, resolves every [`Delivery`] and stops the
/// tasks. If the last clone is dropped instead, the tasks stop too, and unacknowledged records fail
/// with [`ErrorKind::Closed`], or [`ErrorKind::Indeterminate`] if they were sent, which is logged.
#[derive(Debug, Clone)]
pub struct Producer(Arc<AbortOnDrop>);

/// Stops the tasks when the last clone of a producer is dropped. The tasks have no reference to it.
#[derive(Debug)]
struct AbortOnDrop(Arc<ProducerShared>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        let abandoned = abort(&self.0, "the producer was dropped without close");
        if abandoned > 0 {
            tracing::warn!(
                records = abandoned,
                "a producer was dropped before all of its records were acknowledged: call close first"
            );
        }
    }
}

/// Stops the tasks and fails all unfinished batches. Returns the number of their records.
fn abort(shared: &ProducerShared, why: &str) -> u64 {
    let mut accumulator = shared.lock();
    accumulator.close();
    let finished = accumulator.abort(why);
    drop(accumulator);
    shared.memory.close();
    shared.cancel.cancel();
    let records = finished.iter().map(|batch| u64::from(batch.records)).sum();
    let now = shared.metrics.now_if_on();
    shared.metrics.report_closed();
    for batch in finished {
        shared.metrics.report_finished(now, &batch);
        batch.completion.resolve(batch.first_record, batch.records, batch.result);
    }
    records
}

impl Producer {
    fn new(client: &Client, config: ProducerConfig) -> Result<Self> {
        Self::start(client, config, true)
    }

    /// Creates a producer that has no topic created: the broker would do that with its own
    /// settings.
    pub(crate) fn to_existing(client: &Client, config: ProducerConfig) -> Result<Self> {
        Self::start(client, config, false)
    }

    fn start(client: &Client, config: ProducerConfig, creates_topics: bool) -> Result<Self> {
        config.validate(client.config().request_timeout)?;
        Ok(Self(Arc::new(AbortOnDrop(supervisor::start(client, config, creates_topics, None)))))
    }

    /// Appends a record to its partition's batch.
    ///
    /// Usually this does not wait. It waits for metadata the first time a topic is used, and, in
    /// the order of the calls, for buffer space while
    /// [`buffer_memory`](ProducerConfig::buffer_memory) is used up.
    ///
    /// # Errors
    /// - [`ErrorKind::UnknownTopic`] if the topic does not exist and could not be created;
    /// - [`ErrorKind::Connect`] if the topic is not known yet and no broker was reachable within
    ///   the delivery timeout;
    /// - [`ErrorKind::InvalidRecord`] for a partition that does not exist, also by choice of the
    ///   partitioner, or a negative timestamp;
    /// - [`ErrorKind::RecordTooLarge`] if it is larger than
    ///   [`max_request_size`](ProducerConfig::max_request_size);
    /// - [`ErrorKind::Timeout`] if there was no buffer space within the delivery timeout; the
    ///   record was not sent;
    /// - [`ErrorKind::Closed`] after [`close`](Self::close).
    ///
    /// # Cancellation
    /// If the future is dropped before it is ready, the record is not sent, and loses its place
    /// among those that wait. Once it is ready, dropping the [`Delivery`] does not take the record
    /// back.
    #[inline(always)]
    pub fn send<'a>(&'a self, record: ProducerRecord<'a>) -> impl Future<Output = Result<Delivery>> + Send + use<'a> {
        SendFuture::new(self, record)
    }

    /// Sends a record as [`send`](Self::send) does, if that needs no waiting; else returns it.
    ///
    /// It does not queue: it may take buffer space before those who wait for it in `send`.
    ///
    /// # Errors
    /// - [`TrySendError::Full`] while the buffer is full;
    /// - [`TrySendError::UnknownTopic`] while the topic is not known: the first call starts to look
    ///   it up;
    /// - [`TrySendError::Refused`] with the error that `send` would return for the record, or if
    ///   the producer is closed.
    ///
    /// ```no_run
    /// # async fn example(producer: &ailurus::Producer) {
    /// use ailurus::{ProducerRecord, producer::TrySendError};
    ///
    /// match producer.try_send(ProducerRecord::to("clicks").value("x")) {
    ///     Ok(delivery) => delivery.on_complete(|result| drop(result)),
    ///     Err(TrySendError::Full(record)) => println!("{:?} is dropped", record.value),
    ///     Err(error) => eprintln!("{error}"),
    /// }
    /// # }
    /// ```
    #[allow(clippy::result_large_err, reason = "the caller gets the record back, without an allocation")]
    pub fn try_send<'a>(&self, record: ProducerRecord<'a>) -> Result<Delivery, TrySendError<'a>> {
        if !self.0.0.traced {
            return self.try_enqueue(record, None);
        }
        let config = self.0.0.client.config();
        let span = span::start(&record, &config.client_id);
        let headers = span::headers_with_trace(&span, &record, config);
        match self.try_enqueue(record, headers.as_ref()) {
            Ok(delivery) => {
                finish_span(span, Ok(&delivery));
                Ok(delivery)
            }
            Err(e) => {
                if let TrySendError::Refused { error, .. } = &e {
                    finish_span(span, Err(error));
                }
                Err(e)
            }
        }
    }

    /// Sends records in their order. Returns the result of [`send`](Self::send) for each, in the
    /// same order.
    ///
    /// A record that can't be sent does not stop those behind it.
    ///
    /// # Cancellation
    /// If the future is dropped, the records that were appended are sent, without a handle, and the
    /// others are not.
    pub async fn send_batch<'a>(&self, records: impl IntoIterator<Item = ProducerRecord<'a>>) -> Vec<Result<Delivery>> {
        let records = records.into_iter();
        let mut deliveries = Vec::with_capacity(records.size_hint().0);
        for record in records {
            deliveries.push(self.send(record).await);
        }
        deliveries
    }

    /// Sends pending records without linger, and waits until all records of earlier calls are
    /// acknowledged or have failed: their [`Delivery`] handles have the results.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if that takes longer than `timeout`; no record is dropped, and it may
    /// be called again.
    ///
    /// # Cancellation
    /// If the future is dropped, only the waiting stops.
    pub async fn flush(&self, timeout: Duration) -> Result<()> {
        let batches = self.0.0.lock().flush(Instant::now());
        let all = join_all(batches.iter().map(|completion| completion.finished()));
        match tokio::time::timeout(timeout, all).await {
            Ok(_) => Ok(()),
            Err(_) => {
                let what = format!("not all records were acknowledged within the timeout of flush, {timeout:?}");
                Err(Error::new(ErrorKind::Timeout, what))
            }
        }
    }

    /// Flushes, then stops the producer's tasks and closes its connections; records that are not
    /// acknowledged by then fail.
    ///
    /// From the call on, `send` fails with [`ErrorKind::Closed`], on all clones. A second call
    /// returns at once.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if records failed for that; so do their handles.
    ///
    /// # Cancellation
    /// If the future is dropped, records may still be in flight; the tasks stop with the last
    /// clone.
    pub async fn close(&self, timeout: Duration) -> Result<()> {
        let shared = &self.0.0;
        if shared.lock().close() {
            return Ok(());
        }
        shared.memory.close();
        _ = self.flush(timeout).await;
        let abandoned = abort(shared, "the producer was closed");
        shared.tasks.close();
        if tokio::time::timeout(TASK_SHUTDOWN_TIMEOUT, shared.tasks.wait()).await.is_err() {
            tracing::warn!("the producer's tasks did not stop within {TASK_SHUTDOWN_TIMEOUT:?}");
        }
        if abandoned == 0 {
            return Ok(());
        }
        let what = format!("{abandoned} records were not acknowledged within the timeout of close, {timeout:?}");
        Err(Error::new(ErrorKind::Timeout, what))
    }

    /// Returns the bytes of the buffer in use, by records that are pending or in flight.
    pub fn buffered_bytes(&self) -> usize {
        let shared = &self.0.0;
        shared.config.buffer_memory.saturating_sub(shared.memory.available_permits())
    }
}

/// The reason why [`Producer::try_send`] did not send a record, with the record.
///
/// ```
/// use ailurus::{ProducerRecord, producer::TrySendError};
///
/// let error = TrySendError::Full(ProducerRecord::to("clicks"));
/// assert_eq!(error.record().topic, "clicks");
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum TrySendError<'a> {
    /// The buffer is full.
    Full(ProducerRecord<'a>),
    /// The topic is not known yet; it is being looked up.
    UnknownTopic(ProducerRecord<'a>),
    /// The record is invalid, or the producer is closed.
    Refused {
        /// The record.
        record: ProducerRecord<'a>,
        /// The reason.
        error: Error,
    },
}

impl<'a> TrySendError<'a> {
    /// Returns the record that was not sent.
    pub fn record(&self) -> &ProducerRecord<'a> {
        match self {
            Self::Full(record) | Self::UnknownTopic(record) | Self::Refused { record, .. } => record,
        }
    }

    /// Takes the record that was not sent, to send it again.
    pub fn into_record(self) -> ProducerRecord<'a> {
        match self {
            Self::Full(record) | Self::UnknownTopic(record) | Self::Refused { record, .. } => record,
        }
    }
}

impl std::fmt::Display for TrySendError<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let topic = &self.record().topic;
        match self {
            Self::Full(_) => write!(f, "a record for topic {topic:?} was not sent: the producer's buffer is full"),
            Self::UnknownTopic(_) => {
                write!(f, "a record for topic {topic:?} was not sent: the topic is still being looked up")
            }
            Self::Refused { error, .. } => error.fmt(f),
        }
    }
}

impl std::error::Error for TrySendError<'_> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused { error, .. } => std::error::Error::source(error),
            _ => None,
        }
    }
}
