//! The handler runtime on top of a consumer: a worker per partition, retries, dead letters,
//! commits, draining.
//!
//! Records are handled in the order of [`HandlerOrdering`], and
//! concurrently beyond it. A failed record is retried after a backoff; only records that must
//! follow it are blocked meanwhile. An offset is committed when all records up to it are completed:
//! the handler succeeded, or the dead letter is acknowledged. Offsets completed above it are
//! written into the commit's metadata, so that the next owner does not handle them again. A record
//! may be handled again after a crash, or when its handler was cancelled; none is skipped.

mod activity;
mod attempt;
mod batch;
mod breaker;
mod catch_up;
mod concurrency;
mod control;
mod dead_letter;
mod discovery;
mod drain;
mod failure_policy;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod handler;
mod health;
mod lanes;
mod listener;
mod offset_tracker;
mod partition_offsets;
mod partition_state;
mod pauses;
mod pipeline;
mod positions;
mod router;
mod sealed;
mod source;
mod state;
mod subscription;
mod subscription_task;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::Client;
use crate::config::{
    AssignorKind, ConsumerConfig, GroupName, GroupProtocol, HandlerOrdering, IsolationLevel, OffsetReset,
    ProcessorConfig, consumer_settings, processor_settings,
};
use crate::consumer::{Message, Starting};
use crate::error::{Error, ErrorKind, Result};
use crate::failure::fails_fast;
pub use activity::Activity;
use attempt::Tracing;
pub use batch::{BatchHandler, Batching, IntoOutcomes};
pub use control::SubscriptionControl;
use dead_letter::{ChooseTopic, DeadLetterWriter, DeadLetters, Hook, RetryTopics, has_failed_records};
pub use dead_letter::{DeadLetter, Origin, Truncation, WrittenDeadLetter};
use discovery::{Discovery, TopicPattern};
pub use drain::{Unfinished, UnfinishedPartition};
use failure_policy::Classifier;
pub use failure_policy::{AttemptTimeout, FailurePolicy, Hold, HoldScope, Unavailable, find_cause};
pub use handler::{BoxError, ByService, FromMessage, Handler, IntoOutcome, Json, Outcome};
pub use health::{PartitionHealth, SubscriptionHealth, WaitingFor};
pub use listener::RebalanceListener;
pub use pauses::{PauseReason, Scope};
pub use pipeline::{ExactlyOnce, Outputs, Pipeline};
pub use router::{ByRouter, RouteHandler, Router, State, UnknownType};
pub(crate) use state::SubscriptionState;
pub use subscription::{Stats, Subscription};
use subscription_task::{SubscriptionTask, list_topics};
use worker::{HandlerMode, QueuePool, Sink, WorkerContext};

/// Number of commands of a control that may wait for the subscription's task.
const CONTROL_QUEUE: usize = 64;

/// Builds a [`Subscription`]: topics, a group, a handler.
///
/// ```no_run
/// # async fn example() -> ailurus::Result<()> {
/// use ailurus::{Client, Config, Message};
///
/// let client = Client::connect(Config::from_env()?).await?;
/// let handle = |message: Message| async move {
///     println!("{}/{} at {}", message.topic, message.partition, message.offset);
///     Ok::<(), std::io::Error>(())
/// };
/// let subscription = client.processor("billing").concurrency(16).subscribe(["orders"], handle).await?;
/// subscription.shutdown().await.map(drop)
/// # }
/// ```
#[derive(Debug)]
pub struct Processor {
    client: Client,
    group: String,
    consumer: ConsumerConfig,
    processor: ProcessorConfig,
    listener: Option<Arc<dyn RebalanceListener>>,
    exactly_once: Option<ExactlyOnce>,
    on_failure: Option<Classifier>,
    choose_topic: Option<ChooseTopic>,
    on_dead_letter: Option<Hook>,
}

consumer_settings!(Processor [.consumer] by_field, all by consumer_config);
processor_settings!(Processor [.processor] by_field, all by config);

impl Client {
    /// Configures a processor: by default with [`Config::processor`](crate::Config::processor) and
    /// [`Config::consumer`](crate::Config::consumer). `None` is the group of the settings,
    /// [`Config::group_id`](crate::Config::group_id).
    #[must_use = "a processor does nothing until it subscribes"]
    pub fn processor(&self, group: impl GroupName) -> Processor {
        let config = self.config();
        let (consumer, processor) = (config.consumer.clone(), config.processor.clone());
        let group = group.resolve(config).to_owned();
        let client = self.clone();
        let (listener, exactly_once, on_failure, choose_topic, on_dead_letter) = (None, None, None, None, None);
        Processor {
            client,
            group,
            consumer,
            processor,
            listener,
            exactly_once,
            on_failure,
            choose_topic,
            on_dead_letter,
        }
    }
}

impl Processor {
    /// Sets a listener for rebalances.
    #[must_use]
    pub fn listener(mut self, listener: impl RebalanceListener) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Sets a function that chooses what happens to a record whose attempt failed, by the record, as the handler got it, and its error:
    /// that of the handler, or of a panic or an [`AttemptTimeout`]. The outcomes of a handler other than [`Outcome::Retry`], and what can't
    /// be decoded, are not passed to it.
    ///
    /// The function is called in the task of the partition, and must not block. If it panics, an error is logged and the record is retried.
    ///
    /// ```
    /// use ailurus::processor::{FailurePolicy, find_cause};
    /// # #[derive(Debug)] struct PoolTimedOut;
    /// # impl std::fmt::Display for PoolTimedOut { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("no connection") } }
    /// # impl std::error::Error for PoolTimedOut {}
    ///
    /// # fn example(client: &ailurus::Client) -> ailurus::Processor {
    /// client.processor("billing").on_failure(|record, error| {
    ///     if find_cause::<PoolTimedOut>(error).is_some() {
    ///         FailurePolicy::hold("postgres")
    ///     } else if record.topic.starts_with("metrics.") {
    ///         FailurePolicy::Skip
    ///     } else {
    ///         FailurePolicy::Retry
    ///     }
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn on_failure(
        mut self,
        classify: impl Fn(&Message, &(dyn std::error::Error + 'static)) -> FailurePolicy + Send + Sync + 'static,
    ) -> Self {
        self.on_failure = Some(Classifier(Arc::new(classify)));
        self
    }

    /// Sets a function that chooses the topic of a dead letter by its record, as the handler got it, and its last error. `None` is the
    /// topic's own, [`dead_letter_suffix`](ProcessorConfig::dead_letter_suffix).
    ///
    /// A chosen topic is created when the first dead letter is written to it, like the default one. A name that no topic can have, a topic
    /// that this subscription reads (it would handle the dead letter again), and more than 100 different topics are logged as errors, and the
    /// dead letter goes to the default topic; so it does if the function panics. `ailurus dlq` finds topics by their suffix.
    ///
    /// ```
    /// # fn example(client: &ailurus::Client) -> ailurus::Processor {
    /// client.processor("billing").dead_letter_topic(|record, error| {
    ///     // What can't be decoded is of the team that publishes it.
    ///     let is_handler_fault = error.downcast_ref::<ailurus::Error>().is_none_or(|e| e.kind() != ailurus::ErrorKind::Event);
    ///     (!is_handler_fault).then(|| format!("{}.undecodable.dlq", record.topic))
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn dead_letter_topic<T: Into<Option<String>>>(
        mut self,
        choose: impl Fn(&Message, &(dyn std::error::Error + 'static)) -> T + Send + Sync + 'static,
    ) -> Self {
        self.choose_topic = Some(ChooseTopic(Arc::new(move |record, error| choose(record, error).into())));
        self
    }

    /// Sets a hook that runs after a dead letter is acknowledged, or committed in a pipeline.
    ///
    /// The record's lane is blocked until the hook has ended; it is cancelled after 10 seconds, and when its partition is lost, with an
    /// error in the log. A pipeline runs up to 64 hooks beside its transactions. A panic is logged. The hook may run more than once for a
    /// record, as there may be two [dead letters](DeadLetter) of it, and not at all after a crash: the topic has what counts.
    ///
    /// ```
    /// # async fn alert(text: String) {}
    /// # fn example(client: &ailurus::Client) -> ailurus::Processor {
    /// client.processor("billing").on_dead_letter(|written| async move {
    ///     alert(format!("{} in {}: {}", written.letter.origin.topic, written.topic, written.letter.error)).await;
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn on_dead_letter<F>(mut self, hook: impl Fn(WrittenDeadLetter) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.on_dead_letter = Some(Hook(Arc::new(move |written| Box::pin(hook(written)))));
        self
    }

    /// Joins the group, reads `topics` and passes each record to `handler`.
    ///
    /// The handler is an async function or a `tower::Service` (see [`Handler`]) and returns an
    /// [`Outcome`] for each record. After a failure or a panic it is called again with a backoff,
    /// up to [`ProcessorConfig::max_attempts`] times; then the record is written to its next retry
    /// topic ([`ProcessorConfig::delayed_retries`]), or after the last one to the dead-letter
    /// topic, whose name is the topic's with [`ProcessorConfig::dead_letter_suffix`]. While that
    /// fails, records in order behind it are blocked, and [`Subscription::health`] has the reason.
    /// A handler may be cancelled at an await point when its partition is lost or a deadline
    /// expires; the next owner then handles its record again.
    ///
    /// Waits without a limit while no broker can be reached; a warning in the log has the reason,
    /// and the client's health shows the group as `joining`. Callers with a deadline wrap the call.
    ///
    /// # Errors
    /// Settings out of bounds; [`ErrorKind::UnknownTopic`] if a topic does not exist and may not be
    /// created; [`ErrorKind::Config`] if a dead-letter or retry topic does not exist and may not be created, or is one
    /// of `topics`;
    /// [`ErrorKind::Authorization`] if one may not be used; [`ErrorKind::Authentication`] if the
    /// client's first login is refused.
    pub async fn subscribe<A>(
        self,
        topics: impl IntoIterator<Item: Into<String>>,
        handler: impl Handler<A>,
    ) -> Result<Subscription> {
        let mode = HandlerMode::Each(Arc::new(move |message| handler.call(message)));
        self.start(topics.into_iter().map(Into::into).collect(), mode, None).await
    }

    /// Joins the group like [`subscribe`](Self::subscribe), and passes records to a
    /// [`BatchHandler`] in batches.
    ///
    /// # Errors
    /// The errors of [`subscribe`](Self::subscribe); [`ErrorKind::Config`] if `batching` is out of
    /// bounds.
    pub async fn subscribe_batches<A>(
        self,
        topics: impl IntoIterator<Item: Into<String>>,
        batching: Batching,
        handler: impl BatchHandler<A>,
    ) -> Result<Subscription> {
        batching.validate()?;
        let call = Arc::new(move |messages| handler.call(messages));
        self.start(topics.into_iter().map(Into::into).collect(), HandlerMode::Batches(batching, call), None).await
    }

    /// Joins the group like [`subscribe`](Self::subscribe), and reads all topics whose name `matches`.
    ///
    /// The cluster's topics are listed now, and again each
    /// [`metadata_max_age`](crate::Config::metadata_max_age). New ones join by themselves, with a
    /// rebalance, and are read from their beginning; those that were deleted leave. Not matched are
    /// topics whose name begins with `__`, and those with the suffix of dead-letter topics or the
    /// name of a retry topic, whose records would be handled again and again; name them with
    /// [`SubscriptionControl::subscribe`].
    ///
    /// ```no_run
    /// # async fn example(client: ailurus::Client) -> ailurus::Result<()> {
    /// # async fn handle(message: ailurus::Message) -> Result<(), std::io::Error> { Ok(()) }
    /// let subscription = client.processor("billing").subscribe_matching(|topic| topic.starts_with("orders."), handle).await?;
    /// # subscription.shutdown().await.map(drop)
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`subscribe`](Self::subscribe); [`ErrorKind::UnknownTopic`] if no topic matches.
    pub async fn subscribe_matching<A>(
        self,
        matches: impl Fn(&str) -> bool + Send + Sync + 'static,
        handler: impl Handler<A>,
    ) -> Result<Subscription> {
        self.start_matching(matches, HandlerMode::Each(Arc::new(move |message| handler.call(message)))).await
    }

    /// Joins the group like [`subscribe_matching`](Self::subscribe_matching), and passes records to a
    /// [`BatchHandler`] in batches, as [`subscribe_batches`](Self::subscribe_batches) does. A batch has
    /// records of one partition.
    ///
    /// ```no_run
    /// # async fn example(client: ailurus::Client) -> ailurus::Result<()> {
    /// use std::time::Duration;
    ///
    /// use ailurus::Message;
    /// use ailurus::processor::Batching;
    ///
    /// let batching = Batching::new(100, Duration::from_millis(50));
    /// let store = |batch: Vec<Message>| async move { println!("{} records", batch.len()) };
    /// let subscription =
    ///     client.processor("billing").subscribe_batches_matching(|topic| topic.starts_with("orders."), batching, store).await?;
    /// # subscription.shutdown().await.map(drop)
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`subscribe_batches`](Self::subscribe_batches); [`ErrorKind::UnknownTopic`] if no topic matches.
    pub async fn subscribe_batches_matching<A>(
        self,
        matches: impl Fn(&str) -> bool + Send + Sync + 'static,
        batching: Batching,
        handler: impl BatchHandler<A>,
    ) -> Result<Subscription> {
        batching.validate()?;
        let call = Arc::new(move |messages| handler.call(messages));
        self.start_matching(matches, HandlerMode::Batches(batching, call)).await
    }

    async fn start_matching(
        self,
        matches: impl Fn(&str) -> bool + Send + Sync + 'static,
        mode: HandlerMode,
    ) -> Result<Subscription> {
        let pattern = TopicPattern(Arc::new(matches));
        let topics = self.match_topics(&pattern).await?;
        self.start(topics, mode, Some(Discovery::new(pattern))).await
    }

    /// Lists the topics that match, until a broker responds.
    async fn match_topics(&self, pattern: &TopicPattern) -> Result<Vec<String>> {
        let cluster = self.client.cluster();
        let (mut backoff, mut outage) = (cluster.backoff(), cluster.outages().part());
        let listed = loop {
            match list_topics(&self.client).await {
                Ok(listed) => break listed,
                Err(e) if fails_fast(&e) => return Err(e),
                Err(e) => {
                    if let Some(lasted) = outage.record_failure(Instant::now(), &e) {
                        tracing::warn!(group = %self.group, error = %e.full(), "topics can't be listed, {lasted}; retrying");
                    }
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        };
        outage.log_recovery(Instant::now());
        let topics: Vec<_> = listed
            .into_iter()
            .filter(|topic| pattern.matches(topic) && !has_failed_records(topic, &self.processor))
            .collect();
        if topics.is_empty() {
            let what = format!("group {:?} can't subscribe: no topic of the cluster matches its pattern", self.group);
            return Err(Error::new(ErrorKind::UnknownTopic, what));
        }
        Ok(topics)
    }

    async fn start(
        mut self,
        topics: Vec<String>,
        mode: HandlerMode,
        discovery: Option<Discovery>,
    ) -> Result<Subscription> {
        self.processor.validate()?;
        if let Some(exactly_once) = &self.exactly_once {
            exactly_once.configure(&mut self.consumer)?;
        }
        let (topics, group): (Vec<&str>, _) = (topics.iter().map(String::as_str).collect(), &*self.group);
        let max_record_bytes = self.consumer.max_decompressed_bytes;
        let (stuck_after, isolation_level) = (self.consumer.max_poll_interval, self.consumer.isolation_level);
        // The workers decide what is committed.
        let mut consumer_config = ConsumerConfig { auto_commit_interval: None, ..self.consumer };
        let retry_topics = RetryTopics::new(group, &self.processor.delayed_retries)?;
        consumer_config.earliest_topics = (!retry_topics.is_empty()).then(|| retry_topics.infix().to_owned());
        // Topics first: the consumer creates them if it may, and dead-letter topics get their
        // number of partitions. The group is joined last: while a topic is missing, its partitions
        // are left to members that can handle them.
        let mut starting = Starting::new(&self.client, group, &topics, consumer_config.clone())?;
        starting.find_topics().await?;
        let choose = self.choose_topic.as_ref();
        let letters =
            starting.retry(|| DeadLetters::open(&self.client, &topics, group, &self.processor, choose)).await?;
        let read: Vec<_> = topics.iter().flat_map(|topic| retry_topics.names(topic)).collect();
        starting.add_topics(&read).await?;
        let topics: Vec<&str> = topics.into_iter().chain(read.iter().map(String::as_str)).collect();
        let pipeline = match &self.exactly_once {
            Some(exactly_once) => {
                Some(starting.retry(|| exactly_once.open(&self.client, group, &consumer_config, &letters)).await?)
            }
            None => None,
        };
        let consumer = starting.join();
        let shared = Arc::new(SubscriptionState::new(
            group,
            &topics,
            retry_topics,
            &self.processor,
            (isolation_level, consumer.status()),
            self.client.config().metrics.clone(),
        ));
        self.client.cluster().components().add(&shared);
        let (stop, cancel_handlers, abort) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let (end, ended) = watch::channel(None);
        let (fatal, failed) = mpsc::channel(1);
        let (limits, max_batch) = (&self.processor, mode.max_batch());
        let pool = QueuePool::new(limits.parked_records, limits.parked_bytes, max_batch);
        let sink = match pipeline {
            Some(starting) => {
                let (client, config) = (&self.client, &self.processor);
                Sink::Transactions(pipeline::start(
                    starting,
                    letters,
                    client,
                    config,
                    &shared,
                    self.on_dead_letter.as_ref(),
                    &fatal,
                ))
            }
            None => Sink::DeadLetters(DeadLetterWriter::new(&self.client, letters, max_record_bytes)?.into()),
        };
        let context = WorkerContext {
            mode,
            pool: Arc::new(pool),
            sink,
            config: self.processor,
            stuck_after,
            shared: Arc::clone(&shared),
            listener: self.listener,
            on_failure: self.on_failure,
            on_dead_letter: self.on_dead_letter,
            metrics: self.client.config().metrics.clone(),
            tracing: Tracing::new(self.client.config()),
            fatal,
        };
        let (commands, received) = mpsc::channel(CONTROL_QUEUE);
        let channels = (failed, received);
        let task = SubscriptionTask::new(
            consumer,
            context,
            (stop.clone(), cancel_handlers.clone()),
            channels,
            (self.client.clone(), discovery),
        );
        let (limit, metrics) = (Arc::clone(&shared.concurrency), self.client.config().metrics.clone());
        limit.start_reporting(metrics, group);
        let control = SubscriptionControl { shared, client: self.client.clone(), commands, ended };
        let aborted = abort.clone();
        tokio::spawn(async move {
            let outcome = tokio::select! {
                biased;
                () = aborted.cancelled() => Ok(Unfinished::default()),
                outcome = task.run() => outcome,
            };
            limit.stop_reporting();
            _ = end.send(Some(outcome));
        });
        Ok(Subscription { control, stop, cancel_handlers, abort })
    }
}
