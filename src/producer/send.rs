//! Sends one record: at once if possible, else after waiting for its topic or for buffer space.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::TryAcquireError;
use tokio::time::Instant;

use super::accumulator::{AppendError, NewRecord, SendFailure};
use super::delivery::Delivery;
use super::partitioner::{self, PartitionChoice};
use super::shared::ProducerShared;
use super::{Producer, ProducerRecord, TrySendError, span};
use crate::cluster::Backoff;
use crate::config::{PartitionerKind, ProducerConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::failure::fails_fast;
use crate::partitioner::PartitionInput;
use crate::record::{BATCH_HEADER_BYTES, Headers, record_size_bound};
use crate::timestamp::Timestamp;

/// Time for which a topic that may not be created is looked for: brokers learn of a new topic one
/// after the other.
pub(super) const METADATA_PROPAGATION: Duration = Duration::from_secs(1);

/// The future of [`Producer::send`]. An `async fn` would be compiled with each crate that awaits
/// it, at that crate's level of optimisation; this one is compiled here, for it is on the path of
/// every record.
pub(super) struct SendFuture<'a> {
    producer: &'a Producer,
    record: ProducerRecord<'a>,
    stage: Stage<'a>,
}

type PendingSend<'a> = Pin<Box<dyn Future<Output = Result<Delivery>> + Send + 'a>>;

enum Stage<'a> {
    /// Not polled yet; the record gets a span.
    InitTraced,
    Init,
    Waiting(PendingSend<'a>),
    Done,
}

impl<'a> SendFuture<'a> {
    #[inline(always)]
    pub(super) fn new(producer: &'a Producer, record: ProducerRecord<'a>) -> Self {
        let stage = if producer.0.0.traced { Stage::InitTraced } else { Stage::Init };
        Self { producer, record, stage }
    }

    /// Sends the record, or returns the future that waits until that is possible.
    fn start(&mut self) -> Result<Result<Delivery>, PendingSend<'a>> {
        let Self { producer, record, .. } = self;
        let mut new = match new_record(record, None, &producer.0.0.config) {
            Ok(new) => new,
            Err(e) => return Ok(Err(e)),
        };
        let why = match producer.try_append(record, &mut new) {
            Ok(delivery) => return Ok(Ok(delivery)),
            Err(AppendFailure::Failed(e)) => return Ok(Err(e)),
            Err(why) => why,
        };
        let (target, timestamp) = (new.target, new.timestamp);
        let record = ProducerRecord { timestamp: Some(Timestamp::from_millis(timestamp)), ..self.take_record() };
        Err(Box::pin(self.producer.append_when_ready(record, target, why)))
    }

    /// Moves the record into a future that outlives this poll.
    fn take_record(&mut self) -> ProducerRecord<'a> {
        std::mem::replace(&mut self.record, ProducerRecord::to(""))
    }
}

impl Future for SendFuture<'_> {
    type Output = Result<Delivery>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut pending = match std::mem::replace(&mut this.stage, Stage::Done) {
            Stage::Init => match this.start() {
                Ok(result) => return Poll::Ready(result),
                Err(pending) => pending,
            },
            Stage::InitTraced => Box::pin(this.producer.send_in_span(this.take_record())),
            Stage::Waiting(pending) => pending,
            Stage::Done => return Poll::Pending, // polled after it was ready
        };
        let result = pending.as_mut().poll(cx);
        if result.is_pending() {
            this.stage = Stage::Waiting(pending);
        }
        result
    }
}

impl Producer {
    /// Sends a record in a span, which ends with its acknowledgement.
    async fn send_in_span(&self, mut record: ProducerRecord<'_>) -> Result<Delivery> {
        let config = self.0.0.client.config();
        let span = span::start(&record, &config.client_id);
        if let Some(headers) = span::headers_with_trace(&span, &record, config) {
            record = record.headers(headers);
        }
        let outcome = SendFuture { producer: self, record, stage: Stage::Init }.await;
        finish_span(span, outcome.as_ref());
        outcome
    }

    /// Appends a record, if that needs no waiting.
    #[inline]
    fn try_append(&self, record: &ProducerRecord<'_>, new: &mut NewRecord<'_>) -> Result<Delivery, AppendFailure> {
        let memory = &self.0.0.memory;
        self.choose_partition(record, new)?; // first: if the partitioner panics, no space is reserved
        match memory.try_acquire_many(new.size as u32) {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::Closed) => return Err(AppendFailure::Failed(closed())),
            Err(TryAcquireError::NoPermits) => return Err(AppendFailure::BufferFull),
        }
        self.append(new).inspect_err(|_| memory.add_permits(new.size)) // released at once: others may wait for it
    }

    /// Waits for what is missing and appends the record then.
    async fn append_when_ready(
        &self,
        record: ProducerRecord<'_>,
        target: PartitionChoice,
        mut missing: AppendFailure,
    ) -> Result<Delivery> {
        let shared = &self.0.0;
        let mut new = NewRecord { target, ..new_record(&record, None, &shared.config)? };
        let mut refreshed = false;
        let mut lookup = None;
        loop {
            let outcome = match missing {
                AppendFailure::Failed(error) => return Err(error),
                AppendFailure::BufferFull => {
                    self.reserve_buffer(new.size, &record.topic).await?;
                    self.append(&new).inspect_err(|_| shared.memory.add_permits(new.size))
                }
                AppendFailure::Rejected(AppendError::UnknownTopic) => {
                    lookup.get_or_insert_with(|| TopicLookup::new(shared, &record.topic)).retry().await?;
                    self.try_append(&record, &mut new)
                }
                AppendFailure::Rejected(AppendError::NoSuchPartition { .. }) if !refreshed => {
                    refreshed = true; // it may be new
                    shared.cluster().refresh().await?;
                    lookup.get_or_insert_with(|| TopicLookup::new(shared, &record.topic)).retry().await?;
                    self.try_append(&record, &mut new)
                }
                AppendFailure::Rejected(AppendError::TransactionFailed) => {
                    return Err(transaction_failed(&record.topic, None));
                }
                AppendFailure::Rejected(AppendError::NoSuchPartition { partition, count }) => {
                    return Err(no_partition(&record.topic, partition, count));
                }
            };
            match outcome {
                Ok(delivery) => return Ok(delivery),
                Err(why) => missing = why,
            }
        }
    }

    /// Appends a record, with other headers than its own if it has a span; returns it if that would
    /// need waiting.
    #[allow(clippy::result_large_err, reason = "the caller gets the record back, without an allocation")]
    pub(super) fn try_enqueue<'a>(
        &self,
        record: ProducerRecord<'a>,
        traced: Option<&Headers>,
    ) -> Result<Delivery, TrySendError<'a>> {
        let shared = &self.0.0;
        let outcome = match new_record(&record, traced, &shared.config) {
            Ok(mut new) => self.try_append(&record, &mut new),
            Err(error) => Err(AppendFailure::Failed(error)),
        };
        outcome.map_err(|why| match why {
            AppendFailure::Failed(error) => TrySendError::Refused { record, error },
            AppendFailure::BufferFull => TrySendError::Full(record),
            AppendFailure::Rejected(AppendError::UnknownTopic) => {
                look_up_in_background(shared, &record.topic);
                TrySendError::UnknownTopic(record)
            }
            AppendFailure::Rejected(AppendError::TransactionFailed) => {
                let error = transaction_failed(&record.topic, None);
                TrySendError::Refused { record, error }
            }
            AppendFailure::Rejected(AppendError::NoSuchPartition { partition, count }) => {
                let error = no_partition(&record.topic, partition, count);
                TrySendError::Refused { record, error }
            }
        })
    }

    /// Calls the application's own partitioner, if there is one; not under the lock, for it may do
    /// anything.
    #[inline]
    fn choose_partition(&self, record: &ProducerRecord<'_>, new: &mut NewRecord<'_>) -> Result<(), AppendFailure> {
        let shared = &self.0.0;
        let PartitionerKind::Custom(partitioner) = &shared.config.partitioner else { return Ok(()) };
        if record.partition.is_some() {
            return Ok(());
        }
        let known = {
            let locked = shared.lock();
            if locked.is_closed() {
                return Err(AppendFailure::Failed(closed()));
            }
            locked.partitions_of(&record.topic)
        };
        let (partitions, available) = known.ok_or(AppendFailure::Rejected(AppendError::UnknownTopic))?;
        let input = PartitionInput {
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: record.headers.as_deref(),
            ..PartitionInput::new(&record.topic, partitions, &available)
        };
        new.target = partitioner::custom_partition(&**partitioner, &input).map_err(AppendFailure::Failed)?;
        Ok(())
    }

    /// Waits for buffer space, which `append` passes to the record's batch.
    async fn reserve_buffer(&self, size: usize, topic: &str) -> Result<()> {
        let shared = &self.0.0;
        let permits = size as u32; // never more than max_request_size, which has its bound
        let timeout = shared.config.delivery_timeout;
        let since = shared.metrics.now_if_on();
        let waited = tokio::time::timeout(timeout, shared.memory.acquire_many(permits)).await;
        shared.metrics.report_buffer_wait(since);
        match waited {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(())
            }
            Ok(Err(_)) => Err(closed()),
            Err(_) => {
                let what = format!(
                    "a record for topic {topic:?} was not sent: the producer's buffer of {} bytes has been full for \
                     {timeout:?}; see whether the brokers keep up, or raise ProducerConfig::buffer_memory",
                    shared.config.buffer_memory
                );
                Err(Error::new(ErrorKind::Timeout, what))
            }
        }
    }

    #[inline]
    fn append(&self, record: &NewRecord<'_>) -> Result<Delivery, AppendFailure> {
        let mut locked = self.0.0.lock();
        if locked.is_closed() {
            return Err(AppendFailure::Failed(closed()));
        }
        let (completion, index) = match locked.append(Instant::now, record) {
            Ok(appended) => appended,
            Err(AppendError::TransactionFailed) => {
                return Err(AppendFailure::Failed(transaction_failed(record.topic, locked.transaction_failure())));
            }
            Err(e) => return Err(AppendFailure::Rejected(e)),
        };
        Ok(Delivery::new(completion, index, record.timestamp))
    }
}

/// Finishes a record's span with its result.
pub(super) fn finish_span(span: tracing::Span, outcome: Result<&Delivery, &Error>) {
    match outcome {
        Ok(delivery) if !span.is_disabled() => {
            delivery.clone_handle().on_complete(move |end| span::finish(&span, &end))
        }
        Ok(_) => {}
        Err(e) => span::record_error(&span, e),
    }
}

/// Looks a topic up for callers who do not wait, one lookup of a topic at a time.
fn look_up_in_background(shared: &Arc<ProducerShared>, topic: &str) {
    if !shared.lock().try_start_lookup(topic) {
        return;
    }
    let (shared, topic) = (Arc::clone(shared), topic.to_owned());
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        let cancel = shared.cancel.clone();
        let mut lookup = TopicLookup::new(&shared, &topic);
        if let Some(Err(error)) = cancel.run_until_cancelled(lookup.retry()).await {
            tracing::warn!(topic, error = %error.full(), "a topic was not found");
        }
        shared.lock().finish_lookup(&topic);
    });
}

/// The lookup of a topic by one `send`.
struct TopicLookup<'a> {
    shared: &'a ProducerShared,
    topic: &'a str,
    started: Instant,
    backoff: Backoff,
    attempts: u32,
}

impl<'a> TopicLookup<'a> {
    fn new(shared: &'a ProducerShared, topic: &'a str) -> Self {
        Self { shared, topic, started: Instant::now(), backoff: shared.cluster().backoff(), attempts: 0 }
    }

    /// Looks the topic up, again if it was before, and adds it to the accumulator. While no broker
    /// is reachable it retries, until the record's delivery timeout.
    async fn retry(&mut self) -> Result<()> {
        let shared = self.shared;
        let closed = || Error::new(ErrorKind::Closed, "the producer is closed");
        shared.cancel.run_until_cancelled(self.run()).await.unwrap_or_else(|| Err(closed()))
    }

    async fn run(&mut self) -> Result<()> {
        let creates = self.shared.creates_topics && self.shared.client.config().allow_auto_topic_creation;
        let limit = self.shared.config.delivery_timeout;
        let deadline = self.started + limit;
        loop {
            if self.attempts > 0 {
                tokio::time::sleep_until(deadline.min(Instant::now() + self.backoff.next())).await;
            }
            self.attempts += 1;
            match self.shared.cluster().topic(self.topic, creates).await {
                Ok(_) if Instant::now() > deadline => {
                    let what =
                        format!("topic {:?} was found and was missing by turns, or has no partitions", self.topic);
                    return Err(Error::new(ErrorKind::UnknownTopic, what));
                }
                Ok(found) => {
                    self.shared.track_topic(&found);
                    return Ok(());
                }
                Err(e) if e.is_unknown_topic() && !creates && self.started.elapsed() < METADATA_PROPAGATION => {}
                Err(e) if !fails_fast(&e) && Instant::now() >= deadline => {
                    let what = format!(
                        "a record for topic {:?} was not sent: the topic could not be looked up within the delivery timeout \
                         of {limit:?}, in {} attempts",
                        self.topic, self.attempts
                    );
                    return Err(e.context(what));
                }
                Err(e) if !fails_fast(&e) => {
                    if self.attempts == 1 {
                        tracing::warn!(topic = self.topic, error = %e.full(), "a topic can't be looked up; it is retried until the delivery timeout");
                    }
                }
                Err(e) => return Err(e),
            }
        }
    }
}

enum AppendFailure {
    Failed(Error),
    /// The buffer has no space.
    BufferFull,
    Rejected(AppendError),
}

/// Checks a record. It gets the headers `traced` in place of its own.
#[inline]
fn new_record<'a>(
    record: &'a ProducerRecord<'_>,
    traced: Option<&'a Headers>,
    config: &ProducerConfig,
) -> Result<NewRecord<'a>> {
    let (key, value) = (record.key.as_deref(), record.value.as_deref());
    let headers = traced.or(record.headers.as_deref());
    let size = record_size_bound(key, value, headers);
    let max = config.max_record_size.unwrap_or(config.max_request_size);
    if size + BATCH_HEADER_BYTES > max {
        let what = format!(
            "a record for topic {:?} has {size} bytes (key {}, value {}), more than the {max} that are allowed: \
             raise ProducerConfig::max_request_size together with the topic's max.message.bytes, or send smaller records",
            record.topic,
            key.map_or(0, <[u8]>::len),
            value.map_or(0, <[u8]>::len),
        );
        return Err(Error::new(ErrorKind::RecordTooLarge, what));
    }
    let timestamp = match record.timestamp {
        Some(t) if t.is_none() => {
            let (topic, ms) = (&record.topic, t.as_millis());
            let what = format!("a record for topic {topic:?} has the timestamp {ms}: allowed is 0 or later");
            return Err(Error::new(ErrorKind::InvalidRecord, what));
        }
        Some(t) => t.as_millis(),
        None => Timestamp::now().as_millis().max(0),
    };
    let of_topic = || config.topic_compression.get(&*record.topic).copied();
    let compression = record.compression.or_else(of_topic).unwrap_or(config.compression).check()?;
    Ok(NewRecord {
        topic: &record.topic,
        target: PartitionChoice::of(&config.partitioner, record.partition, key),
        timestamp,
        key,
        value,
        headers,
        compression,
        size,
    })
}

fn no_partition(topic: &str, partition: i32, count: usize) -> Error {
    let last = count.saturating_sub(1);
    let what = format!("topic {topic:?} has no partition {partition}: it has {count}, from 0 to {last}");
    Error::new(ErrorKind::InvalidRecord, what)
}

fn transaction_failed(topic: &str, failure: Option<&SendFailure>) -> Error {
    let what = format!("a record for topic {topic:?} was not sent: its transaction can only be aborted");
    match failure {
        Some(failure) => Error::with_source(ErrorKind::TransactionAborted, what, failure.error.clone()),
        None => Error::new(ErrorKind::TransactionAborted, what),
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the producer is closed")
}
