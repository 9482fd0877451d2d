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
mod dead_letter;
mod drain;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod handler;
mod health;
mod lanes;
mod listener;
mod offset_tracker;
mod router;
mod sealed;
mod source;
mod state;
mod subscription;
mod subscription_task;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::cluster::Client;
use crate::config::{
    AssignorKind, ConsumerConfig, GroupName, GroupProtocol, HandlerOrdering, IsolationLevel, OffsetReset,
    ProcessorConfig, consumer_settings, processor_settings,
};
use crate::consumer::Starting;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
pub use activity::Activity;
use attempt::Tracing;
pub use batch::{BatchHandler, Batching, IntoOutcomes};
use dead_letter::DeadLetterWriter;
pub use dead_letter::{DeadLetter, Origin, Truncation};
pub use drain::{Unfinished, UnfinishedPartition};
pub use handler::{BoxError, ByService, FromMessage, Handler, IntoOutcome, Json, Outcome};
pub use health::{PartitionHealth, SubscriptionHealth};
pub use listener::RebalanceListener;
pub use router::{ByRouter, RouteHandler, Router, State, UnknownType};
pub(crate) use state::SubscriptionState;
pub use subscription::{Stats, Subscription};
use subscription_task::SubscriptionTask;
use worker::{HandlerMode, QueuePool, WorkerContext};

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
}

consumer_settings!(Processor [.consumer] by_field);
processor_settings!(Processor [.processor] by_field);

impl Client {
    /// Configures a processor: by default with [`Config::processor`](crate::Config::processor) and
    /// [`Config::consumer`](crate::Config::consumer). `None` is the group of the settings,
    /// [`Config::group_id`](crate::Config::group_id).
    #[must_use = "a processor does nothing until it subscribes"]
    pub fn processor(&self, group: impl GroupName) -> Processor {
        let config = self.config();
        let (consumer, processor) = (config.consumer.clone(), config.processor.clone());
        let group = group.resolve(config).to_owned();
        Processor { client: self.clone(), group, consumer, processor, listener: None }
    }
}

impl Processor {
    /// Replaces all settings of its consumer.
    #[must_use]
    pub fn consumer(mut self, config: ConsumerConfig) -> Self {
        self.consumer = config;
        self
    }

    /// Replaces all settings of the processor.
    #[must_use]
    pub fn processor(mut self, config: ProcessorConfig) -> Self {
        self.processor = config;
        self
    }

    /// Sets a listener for rebalances.
    #[must_use]
    pub fn listener(mut self, listener: impl RebalanceListener) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Joins the group, reads `topics` and passes each record to `handler`.
    ///
    /// The handler is an async function or a `tower::Service` (see [`Handler`]) and returns an
    /// [`Outcome`] for each record. After a failure or a panic it is called again with a backoff,
    /// up to [`ProcessorConfig::max_attempts`] times; then the record is written to the dead-letter
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
    /// created; [`ErrorKind::Config`] if a dead-letter topic does not exist and may not be created;
    /// [`ErrorKind::Authorization`] if one may not be used; [`ErrorKind::Authentication`] if the
    /// client's first login is refused.
    pub async fn subscribe<A>(
        self,
        topics: impl IntoIterator<Item: Into<String>>,
        handler: impl Handler<A>,
    ) -> Result<Subscription> {
        let mode = HandlerMode::Each(Arc::new(move |message| handler.call(message)));
        self.start(topics.into_iter().map(Into::into).collect(), mode).await
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
        self.start(topics.into_iter().map(Into::into).collect(), HandlerMode::Batches(batching, call)).await
    }

    async fn start(self, topics: Vec<String>, mode: HandlerMode) -> Result<Subscription> {
        self.processor.validate()?;
        let (topics, group): (Vec<&str>, _) = (topics.iter().map(String::as_str).collect(), &*self.group);
        let max_record_bytes = self.consumer.max_decompressed_bytes;
        let (stuck_after, isolation_level) = (self.consumer.max_poll_interval, self.consumer.isolation_level);
        // The workers decide what is committed.
        let config = ConsumerConfig { auto_commit_interval: None, ..self.consumer };
        // Topics first: the consumer creates them if it may, and dead-letter topics get their
        // number of partitions. The group is joined last: while a topic is missing, its partitions
        // are left to members that can handle them.
        let mut starting = Starting::new(&self.client, group, &topics, config)?;
        starting.find_topics().await?;
        let open = || DeadLetterWriter::open(&self.client, &topics, group, &self.processor, max_record_bytes);
        let dead_letters = starting.retry(open).await?;
        let consumer = starting.join();
        let shared = Arc::new(SubscriptionState::new(
            group,
            &topics,
            self.processor.stall_timeout,
            isolation_level,
            consumer.outlook(),
        ));
        self.client.cluster().components().add(&shared);
        let (stop, cancel_handlers, abort) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let (end, ended) = watch::channel(None);
        let (fatal, failed) = mpsc::channel(1);
        let (limits, max_batch) = (&self.processor, mode.max_batch());
        let pool = QueuePool::new(limits.parked_records, limits.parked_bytes, max_batch);
        let context = WorkerContext {
            mode,
            pool: Arc::new(pool),
            dead_letters,
            permits: Arc::new(Semaphore::new(self.processor.concurrency)),
            config: self.processor,
            stuck_after,
            shared: Arc::clone(&shared),
            listener: self.listener,
            metrics: self.client.config().metrics.clone(),
            tracing: Tracing::new(self.client.config()),
            fatal,
        };
        let task = SubscriptionTask::new(consumer, context, (stop.clone(), cancel_handlers.clone()), failed);
        let aborted = abort.clone();
        tokio::spawn(async move {
            let outcome = tokio::select! {
                biased;
                () = aborted.cancelled() => Ok(Unfinished::default()),
                outcome = task.run() => outcome,
            };
            _ = end.send(Some(outcome));
        });
        Ok(Subscription { shared, stop, cancel_handlers, abort, ended })
    }
}
