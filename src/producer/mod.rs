//! Sends records.
//!
//! [`Producer::send`] puts a record into the open batch of its partition and returns a [`Delivery`] that resolves when the
//! broker has answered. One task per broker sends the batches over a connection of its own, several requests at a time. Each
//! batch has a sequence number, by which the broker knows a repeated one and one that came too early.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::cluster::Client;
use crate::config::{Compression, ProducerConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::record::Headers;

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
mod request;
mod send;
mod sender;
mod span;
mod verdict;

pub use crate::partitioner::{PartitionInput, Partitioner};
pub use builder::ProducerBuilder;
pub use delivery::{Acknowledgement, Delivery};
pub use partitioner::murmur2;
use send::{SendFuture, finish_span};
use sender::ProducerShared;

/// How long ending tasks may take to close their connections.
const TASK_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// A record to send; it borrows what it is made of.
///
/// ```
/// use ailurus::{Headers, ProducerRecord};
///
/// let headers = Headers::new().with("ce_type", "order.created");
/// let record = ProducerRecord::to("orders").key("order-17").value(r#"{"total": 12.5}"#).headers(&headers);
/// assert_eq!(record.key, Some(&b"order-17"[..]));
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ProducerRecord<'a> {
    /// Where to.
    pub topic: &'a str,
    /// The partition, if the producer's [`partitioner`](ProducerConfig::partitioner) is not to choose it.
    pub partition: Option<i32>,
    /// Hashed to choose the partition, by default with murmur2 as by Kafka's Java client and KafkaJS: the same key goes to the
    /// same partition for as long as the topic has as many partitions. A record without key goes to any partition.
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone: it deletes the key in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// In order.
    pub headers: Option<&'a Headers>,
    /// Milliseconds since 1970; now if `None`. Not negative.
    pub timestamp: Option<i64>,
    /// Another codec than the producer's for this topic; the batch that the partition has open is closed for it.
    pub compression: Option<Compression>,
}

impl<'a> ProducerRecord<'a> {
    /// A record with neither key nor value.
    pub fn to(topic: &'a str) -> Self {
        Self { topic, partition: None, key: None, value: None, headers: None, timestamp: None, compression: None }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// Sets the value.
    #[must_use]
    pub fn value(mut self, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.value = Some(value.as_ref());
        self
    }

    /// Sets the headers.
    #[must_use]
    pub fn headers(mut self, headers: &'a Headers) -> Self {
        self.headers = Some(headers);
        self
    }

    /// Sets the partition.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the timestamp, in milliseconds since 1970.
    #[must_use]
    pub fn timestamp(mut self, timestamp: i64) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// Sets the codec.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }
}

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
/// Records of one partition are written in the order of the `send` calls that a program makes one after the other; a
/// batch that must be sent again keeps its place. Records with the same key go to the same partition, unless the
/// [`partitioner`](ProducerConfig::partitioner) is round robin or one's own. When a topic is given more partitions, this
/// changes: from the metadata refresh on that shows them
/// ([`Config::metadata_max_age`](crate::Config::metadata_max_age) at the latest), most keys go to another partition, and
/// what was sent before may still be read after what is sent then. Where the order of a key matters, give a topic enough
/// partitions from the start, or stop producing and let consumers finish before it grows.
///
/// # Delivery
/// A record is acknowledged when all in-sync replicas have it, unless [`acks`](ProducerConfig::acks) says otherwise. Errors
/// that may pass (a leader that moved, a connection that broke, a broker that does not answer) are retried with backoff until
/// [`delivery_timeout`](ProducerConfig::delivery_timeout). A request whose answer was lost is sent again, and the broker sees
/// by its sequence number whether it has it already (KIP-98): a record is written once. Where that can't be told any more,
/// because the time is over or the sequence was broken, the record is not sent again and fails with
/// [`ErrorKind::Indeterminate`]. With [`idempotence`](ProducerConfig::idempotence) off, a record may be in the log twice.
///
/// A batch that the broker finds too large is cut in halves until each is taken; a single record that is too large fails with
/// [`ErrorKind::RecordTooLarge`]. Where a broker refuses some records of a batch (without a key in a compacted topic, with a
/// timestamp out of bounds), these alone fail, each with its own error, and the others are written.
///
/// A topic that does not exist is created if the settings and the broker allow it. `send` fails with
/// [`ErrorKind::UnknownTopic`] as soon as a broker says that it creates none, and after
/// [`topic_creation_timeout`](crate::Config::topic_creation_timeout) where none says so; where the settings do not allow it, after
/// it has looked for the topic for a second. The
/// records of a topic that is deleted while they wait fail with [`ErrorKind::UnknownTopic`] when it has been missing for the
/// request timeout; if it is created again before, they go to the new one.
///
/// # End
/// [`close`](Producer::close) sends what waits, resolves every [`Delivery`] and ends the tasks. If the last clone is
/// dropped instead, the tasks end too, and what was not acknowledged fails with [`ErrorKind::Closed`] and is logged.
#[derive(Debug, Clone)]
pub struct Producer(Arc<AbortOnDrop>);

/// Held by the clones of a producer and by nobody else: with the last one the tasks end.
#[derive(Debug)]
struct AbortOnDrop(Arc<ProducerShared>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        let abandoned = abort(&self.0, "the producer was dropped without close");
        if abandoned > 0 {
            tracing::warn!(
                records = abandoned,
                "a producer was dropped while records waited for their acknowledgement"
            );
        }
    }
}

/// Ends everything; tells how many records had not finished.
fn abort(shared: &ProducerShared, why: &str) -> u64 {
    let mut locked = shared.lock();
    locked.close();
    let finished = locked.abort(why);
    drop(locked);
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

    /// Starts a producer that writes to topics that exist: none is created by the broker, with settings of the broker's.
    pub(crate) fn to_existing(client: &Client, config: ProducerConfig) -> Result<Self> {
        Self::start(client, config, false)
    }

    fn start(client: &Client, config: ProducerConfig, creates_topics: bool) -> Result<Self> {
        config.validate(client.config().request_timeout)?;
        Ok(Self(Arc::new(AbortOnDrop(ProducerShared::start(client, config, creates_topics)))))
    }

    /// Puts a record into its partition's batch.
    ///
    /// Usually this does not wait at all. It waits for metadata the first time a topic is used, and, in the order of the
    /// calls, for buffer space while [`buffer_memory`](ProducerConfig::buffer_memory) is used up.
    ///
    /// # Errors
    /// - [`ErrorKind::UnknownTopic`] if the topic does not exist and could not be created;
    /// - [`ErrorKind::Connect`] if the topic is not known yet and no broker could be reached within the delivery timeout;
    /// - [`ErrorKind::InvalidRecord`] for a partition that does not exist, whoever chose it, or a negative timestamp;
    /// - [`ErrorKind::RecordTooLarge`] if it is larger than [`max_request_size`](ProducerConfig::max_request_size);
    /// - [`ErrorKind::Timeout`] if there was no buffer space within the delivery timeout; the record was not sent;
    /// - [`ErrorKind::Closed`] after [`close`](Self::close).
    ///
    /// # Cancellation
    /// Dropping the future before it is ready means that the record is not sent; it loses its place among those who wait.
    /// Once it is ready, dropping the [`Delivery`] does not take the record back.
    pub fn send<'a>(&'a self, record: ProducerRecord<'a>) -> impl Future<Output = Result<Delivery>> + Send + use<'a> {
        SendFuture::new(self, record)
    }

    /// [`send`](Self::send) without waiting: what would have to wait is handed back.
    ///
    /// It does not wait in line: when there is space again it may take it before those who wait in `send`.
    ///
    /// # Errors
    /// - [`TrySendError::Full`] while the buffer is full;
    /// - [`TrySendError::UnknownTopic`] while nothing is known of the topic: the first call has it looked up;
    /// - [`TrySendError::Refused`] with what `send` would say of the record, or that the producer is closed.
    ///
    /// ```no_run
    /// # async fn example(producer: &ailurus::Producer) {
    /// use ailurus::{ProducerRecord, producer::TrySendError};
    ///
    /// match producer.try_send(ProducerRecord::to("clicks").value("x")) {
    ///     Ok(delivery) => delivery.on_complete(|end| drop(end)),
    ///     Err(TrySendError::Full(record)) => println!("{:?} is left out", record.value),
    ///     Err(error) => eprintln!("{error}"),
    /// }
    /// # }
    /// ```
    pub fn try_send<'a>(&self, record: ProducerRecord<'a>) -> Result<Delivery, TrySendError<'a>> {
        if !self.0.0.traced {
            return self.try_enqueue(record, record.headers);
        }
        let config = self.0.0.client.config();
        let span = span::start(&record, &config.client_id);
        let headers = span::headers_with_trace(&span, &record, config);
        match self.try_enqueue(record, headers.as_ref().or(record.headers)) {
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

    /// [`send`](Self::send) for each of the records, in their order; one answer for each, in the same order.
    ///
    /// A record that is refused does not stop those behind it.
    ///
    /// # Cancellation
    /// Dropping the future leaves records unsent from where it stands; those before are on their way, and nobody is told of
    /// their end.
    pub async fn send_batch<'a>(&self, records: impl IntoIterator<Item = ProducerRecord<'a>>) -> Vec<Result<Delivery>> {
        let records = records.into_iter();
        let mut deliveries = Vec::with_capacity(records.size_hint().0);
        for record in records {
            deliveries.push(self.send(record).await);
        }
        deliveries
    }

    /// Sends what is waiting, without regard to linger, and waits until all that was sent before this call has ended, well
    /// or not: the [`Delivery`] handles say which.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if that takes longer than `timeout`; nothing is given up, and it may be called again.
    ///
    /// # Cancellation
    /// Dropping the future only ends the waiting.
    pub async fn flush(&self, timeout: Duration) -> Result<()> {
        let batches = self.0.0.lock().flush(Instant::now());
        let all = join_all(batches.iter().map(|completion| completion.finished()));
        match tokio::time::timeout(timeout, all).await {
            Ok(_) => Ok(()),
            Err(_) => {
                let what = format!("not all records were acknowledged within the {timeout:?} that flush was given");
                Err(Error::new(ErrorKind::Timeout, what))
            }
        }
    }

    /// [`flush`](Self::flush), then ends the producer's tasks and connections; what is not acknowledged by then fails.
    ///
    /// From the call on, `send` fails with [`ErrorKind::Closed`], on all clones. A second call returns at once.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if records had to be given up; their handles say so too.
    ///
    /// # Cancellation
    /// If the future is dropped, records may still be on their way; the tasks end with the last clone.
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
            tracing::warn!("the producer's tasks did not end within {TASK_SHUTDOWN_TIMEOUT:?}");
        }
        if abandoned == 0 {
            return Ok(());
        }
        let what = format!("{abandoned} records were not acknowledged within the {timeout:?} that close was given");
        Err(Error::new(ErrorKind::Timeout, what))
    }

    /// Bytes of the buffer that are in use: of records that wait or are on their way.
    pub fn buffered_bytes(&self) -> usize {
        let shared = &self.0.0;
        shared.config.buffer_memory.saturating_sub(shared.memory.available_permits())
    }
}

/// Why [`Producer::try_send`] did not take a record, which it hands back.
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
    /// Nothing is known of the topic yet; it is being looked up.
    UnknownTopic(ProducerRecord<'a>),
    /// The record can't be sent as it is, or the producer is closed.
    Refused {
        /// The record.
        record: ProducerRecord<'a>,
        /// Why.
        error: Error,
    },
}

impl<'a> TrySendError<'a> {
    /// The record that was not sent.
    pub fn record(&self) -> ProducerRecord<'a> {
        match self {
            Self::Full(record) | Self::UnknownTopic(record) | Self::Refused { record, .. } => *record,
        }
    }
}

impl std::fmt::Display for TrySendError<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let topic = self.record().topic;
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
