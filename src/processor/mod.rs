//! The handler loop on top of a consumer: a worker per partition, retry, dead letters, commits, draining.
//!
//! Records are handled in the order that [`HandlerOrdering`](crate::HandlerOrdering) asks for, and side by side beyond it. One
//! that fails is tried again later; only what must come after it waits meanwhile. An offset is committed when its record and
//! all before it have ended: the handler succeeded, or the record is acknowledged in the dead-letter topic. What has ended above
//! it is told in the commit's metadata, so that the next owner does not do it again. A record may be handled again after a
//! crash, or when a handler had to be cancelled; none is skipped.

mod activity;
mod attempt;
mod batch;
mod dead_letter;
mod drain;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod handler;
mod lanes;
mod letter;
#[cfg(test)]
mod letter_tests;
mod letter_topics;
mod listener;
mod progress;
mod router;
mod run;
mod source;
mod state;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::cluster::Client;
use crate::config::{ConsumerConfig, GroupName, ProcessorConfig};
use crate::consumer::{ConsumerState, RunningConsumer, RunningPartition, Starting};
use crate::error::{Error, ErrorKind, Result};
use crate::signal::ShutdownSignals;
use crate::text;
pub use activity::Activity;
use attempt::Tracing;
pub use batch::{BatchHandler, Batching, IntoOutcomes};
use dead_letter::DeadLetters;
pub use drain::{PartitionLeftOver, Unfinished};
pub use handler::{BoxError, ByService, FromMessage, Handler, IntoOutcome, Outcome};
pub use letter::{DeadLetter, Origin, Truncation};
pub use listener::RebalanceListener;
pub use router::{ByRouter, Router, UnknownType};
pub(crate) use state::SubscriptionState;
use worker::{Context, Pool, Routine};

/// Counts of a subscription since it began.
///
/// ```
/// assert_eq!(ailurus::processor::Stats::default().handled, 0);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Records whose handler succeeded.
    pub handled: u64,
    /// Attempts that failed.
    pub failed_attempts: u64,
    /// Attempts that failed and were not the last of their record.
    pub retries: u64,
    /// Records written to a dead-letter topic.
    pub dead_letters: u64,
    /// Times partitions were assigned to this member.
    pub rebalances: u64,
    /// Records that are in a handler now.
    pub in_flight: usize,
    /// Keys, or whatever is handled in order, that stand still now because a record of theirs has failed.
    pub parked_keys: usize,
}

/// Builds a [`Subscription`]: topics, a group, a handler.
///
/// ```no_run
/// # async fn example() -> ailurus::Result<()> {
/// use ailurus::{Client, Config, Message, Processor};
///
/// let client = Client::connect(Config::from_env()?).await?;
/// let handle = |message: Message| async move {
///     println!("{}/{} at {}", message.topic, message.partition, message.offset);
///     Ok::<(), std::io::Error>(())
/// };
/// let subscription = Processor::new(&client).subscribe(&["orders"], "billing", handle).await?;
/// subscription.shutdown().await.map(drop)
/// # }
/// ```
#[derive(Debug)]
pub struct Processor {
    client: Client,
    consumer: ConsumerConfig,
    processor: ProcessorConfig,
    listener: Option<Arc<dyn RebalanceListener>>,
}

impl Processor {
    /// With the client's settings.
    pub fn new(client: &Client) -> Self {
        let config = client.config();
        let (consumer, processor) = (config.consumer.clone(), config.processor.clone());
        Self { client: client.clone(), consumer, processor, listener: None }
    }

    /// Other consumer settings than the client's.
    #[must_use]
    pub fn consumer(mut self, config: ConsumerConfig) -> Self {
        self.consumer = config;
        self
    }

    /// Other processor settings than the client's.
    #[must_use]
    pub fn processor(mut self, config: ProcessorConfig) -> Self {
        self.processor = config;
        self
    }

    /// Who is told which partitions come and go.
    #[must_use]
    pub fn listener(mut self, listener: impl RebalanceListener) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Joins `group` (`None` is [`Config::group_id`](crate::Config::group_id)), reads `topics` and hands each record to `handler`.
    ///
    /// The handler is any async function, or a `tower::Service`: see [`Handler`]; what it can say of a record is an [`Outcome`].
    /// One that fails, or panics, is called again after a backoff, up to [`ProcessorConfig::max_attempts`] times; then the record goes to the dead-letter topic, which is the topic's name with [`ProcessorConfig::dead_letter_suffix`].
    /// While that can't be written, what is in order behind it waits, and [`Subscription::health`] says why. A handler may be cancelled at
    /// an await point when its partition is lost or a deadline passes; its record is then handled again by the next owner.
    ///
    /// While no broker can be reached it waits, without a limit; a warning in the log says why, and the client's health shows the group
    /// as `joining`. A caller with a deadline sets it around the call.
    ///
    /// # Errors
    /// Settings out of bounds; [`ErrorKind::UnknownTopic`] if a topic does not exist and may not be created;
    /// [`ErrorKind::Config`] if a dead-letter topic does not exist and may not be created; [`ErrorKind::Authorization`] if one may not be
    /// used; [`ErrorKind::Authentication`] if the client's first login is refused.
    pub async fn subscribe<A>(
        self,
        topics: &[&str],
        group: impl GroupName,
        handler: impl Handler<A>,
    ) -> Result<Subscription> {
        let group = group.resolve(self.client.config()).to_owned();
        self.start(topics, &group, Routine::Each(Arc::new(move |message| handler.call(message)))).await
    }

    /// As [`subscribe`](Self::subscribe), with a handler of several records at a time.
    ///
    /// # Errors
    /// Those of [`subscribe`](Self::subscribe); [`ErrorKind::Config`] for batches out of bounds.
    pub async fn subscribe_batches<A>(
        self,
        topics: &[&str],
        group: impl GroupName,
        batching: Batching,
        handler: impl BatchHandler<A>,
    ) -> Result<Subscription> {
        batching.validate()?;
        let group = group.resolve(self.client.config()).to_owned();
        let call = Arc::new(move |messages| handler.call(messages));
        self.start(topics, &group, Routine::Batches(batching, call)).await
    }

    async fn start(self, topics: &[&str], group: &str, routine: Routine) -> Result<Subscription> {
        self.processor.validate()?;
        let readable = self.consumer.max_decompressed_bytes;
        let (hangs_after, isolation_level) = (self.consumer.max_poll_interval, self.consumer.isolation_level);
        // What has ended is for the workers to say.
        let config = ConsumerConfig { auto_commit_interval: None, ..self.consumer };
        // The topics first: the consumer asks for those to be created that may be, and the dead letters' follow their size. The group is
        // joined last: while something is missing, its partitions are for members that can handle them.
        let mut starting = Starting::new(&self.client, group, topics, config)?;
        starting.find_topics().await?;
        let open = || DeadLetters::open(&self.client, topics, group, &self.processor, readable);
        let dead_letters = starting.retry(open).await?;
        let consumer = starting.join();
        let shared = Arc::new(SubscriptionState::new(
            group,
            topics,
            self.processor.stall_timeout,
            isolation_level,
            consumer.outlook(),
        ));
        self.client.cluster().components().add(&shared);
        let (stop, cut, kill) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let (end, ended) = watch::channel(None);
        let (fatal, failed) = mpsc::channel(1);
        let (parked, least) = (&self.processor, routine.gathers());
        let pool = Pool::new(parked.parked_records, parked.parked_bytes, least);
        let context = Context {
            routine,
            pool: Arc::new(pool),
            dead_letters,
            permits: Arc::new(Semaphore::new(self.processor.concurrency)),
            config: self.processor,
            hangs_after,
            shared: Arc::clone(&shared),
            listener: self.listener,
            metrics: self.client.config().metrics.clone(),
            tracing: Tracing::new(self.client.config()),
            fatal,
        };
        let run = run::Run::new(consumer, context, (stop.clone(), cut.clone()), failed);
        let killed = kill.clone();
        tokio::spawn(async move {
            let outcome = tokio::select! {
                biased;
                () = killed.cancelled() => Ok(Unfinished::default()),
                outcome = run.finish() => outcome,
            };
            _ = end.send(Some(outcome));
        });
        Ok(Subscription { shared, stop, cut, kill, ended })
    }
}

/// A running subscription. Dropping it is a [`shutdown`](Subscription::shutdown) that nobody waits for; a warning in the log names it.
///
/// See [`Processor`] for an example. This does not compile where warnings are errors:
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// # async fn example(service: ailurus::RedpandaService) -> ailurus::Result<()> {
/// service.subscribe(&["orders"], "billing", |message: ailurus::Message| async move { drop(message) }).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping a subscription shuts it down: keep it, and end it with `run_until_signal` or `shutdown`"]
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<SubscriptionState>,
    stop: CancellationToken,
    cut: CancellationToken,
    kill: CancellationToken,
    ended: watch::Receiver<Option<Result<Unfinished>>>,
}

impl Subscription {
    /// Its place in the group and how far it is in each of its partitions.
    pub fn health(&self) -> SubscriptionHealth {
        self.shared.health()
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Stops fetching, finishes the records in hand within [`ProcessorConfig::shutdown_timeout`], commits, leaves the group.
    /// What is not finished by then is cancelled and not committed. Tells what was left of what had been fetched.
    ///
    /// # Errors
    /// What ended it before, if it had ended; what kept it from committing or leaving.
    ///
    /// # Cancellation
    /// Dropping the future does not stop the shutdown.
    pub async fn shutdown(self) -> Result<Unfinished> {
        self.stop.cancel();
        self.outcome().await
    }

    /// Runs until SIGTERM or SIGINT (Ctrl-C) after this call, then does as [`shutdown`](Self::shutdown). A second signal cuts it short, as in
    /// [`run_until`](Self::run_until); one that arrives twice within 100 ms counts once. Returns earlier if the subscription ends by
    /// itself.
    ///
    /// ```no_run
    /// # async fn example(subscription: ailurus::Subscription) -> ailurus::Result<()> {
    /// let left = subscription.run_until_signal().await?;
    /// println!("{left}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`shutdown`](Self::shutdown); [`ErrorKind::Io`] if the system refuses to report signals: the subscription is shut
    /// down then.
    ///
    /// # Cancellation
    /// Dropping the future is a [`shutdown`](Self::shutdown) that nobody waits for.
    pub fn run_until_signal(self) -> impl Future<Output = Result<Unfinished>> + Send + use<> {
        // Here and not when the future is first polled: a signal in between would end the process.
        let signals = ShutdownSignals::install();
        async move {
            let mut signals = match signals {
                Ok(signals) => signals,
                Err(e) => {
                    _ = self.shutdown().await;
                    return Err(Error::with_source(ErrorKind::Io, "SIGTERM and SIGINT can't be taken over", e));
                }
            };
            tokio::select! {
                () = signals.recv() => {
                    tracing::info!("a signal asks for the end: finishing what is in flight; a second one cuts it short");
                    self.stop.cancel();
                }
                outcome = self.outcome() => return outcome,
            }
            tokio::select! {
                () = signals.recv() => self.cut.cancel(),
                outcome = self.outcome() => return outcome,
            }
            self.outcome().await
        }
    }

    /// Runs until `stop` resolves, then does as [`shutdown`](Self::shutdown). If `cut` resolves during that, what is in hand is
    /// cancelled at once; what ended is committed and the group left all the same. Returns earlier if the subscription ends by
    /// itself.
    ///
    /// ```no_run
    /// # async fn example(subscription: ailurus::Subscription, stop: tokio::sync::oneshot::Receiver<()>) -> ailurus::Result<()> {
    /// use std::time::Duration;
    ///
    /// let cut = tokio::time::sleep(Duration::from_secs(3600));
    /// let left = subscription.run_until(stop, cut).await?;
    /// println!("{left}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`shutdown`](Self::shutdown).
    ///
    /// # Cancellation
    /// Dropping the future is a [`shutdown`](Self::shutdown) that nobody waits for.
    pub async fn run_until(self, stop: impl Future, cut: impl Future) -> Result<Unfinished> {
        tokio::select! {
            _ = stop => self.stop.cancel(),
            outcome = self.outcome() => return outcome,
        }
        tokio::select! {
            _ = cut => self.cut.cancel(),
            outcome = self.outcome() => return outcome,
        }
        self.outcome().await
    }

    /// Ends at once, as a crash would: what is in hand is cancelled, nothing is committed, the group is not left and waits for
    /// the session to expire.
    pub async fn abort(self) {
        self.kill.cancel();
        _ = self.ended().await;
    }

    /// Waits until it has ended, for a shutdown or by itself.
    ///
    /// # Errors
    /// What ended it: the group does not take this member any more, or its settings.
    pub async fn ended(&self) -> Result<()> {
        self.outcome().await.map(drop)
    }

    async fn outcome(&self) -> Result<Unfinished> {
        let mut ended = self.ended.clone();
        let gone = || Error::new(ErrorKind::Closed, "the subscription's task has ended without a word");
        let outcome = ended.wait_for(Option::is_some).await.map_err(|_| gone())?;
        outcome.clone().unwrap_or_else(|| Err(gone()))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let asked = self.stop.is_cancelled() || self.kill.is_cancelled() || self.ended.borrow().is_some();
        if !asked {
            let (group, topics) = self.shared.names();
            tracing::warn!(
                group,
                topics = %text::list(topics),
                "a subscription was dropped and shuts down: keep it, and end it with run_until_signal or shutdown"
            );
        }
        self.stop.cancel();
    }
}

/// One subscription, as [`Health`](crate::Health) shows it.
///
/// ```
/// # fn show(health: &ailurus::processor::SubscriptionHealth) {
/// println!("{} is {} and {} records behind", health.group, health.state, health.lag);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SubscriptionHealth {
    /// Its group.
    pub group: String,
    /// Its topics.
    pub topics: Vec<String>,
    /// Its place in the group: `joining`, `member` or `closed`.
    pub state: String,
    /// Milliseconds since that is so.
    pub state_ms: u64,
    /// Its id, while it is a member.
    pub member_id: Option<String>,
    /// The generation of the group (in KIP-848's protocol the member's epoch) in which partitions were last assigned.
    pub generation: Option<i32>,
    /// What it is about: the worst of its partitions. One that joins is busy, and stalled when that takes too long.
    pub activity: Activity,
    /// What keeps it from its group, while that is so, and for how long: an outage that passes by itself, or that somebody has to end.
    #[serde(default)]
    pub problem: Option<String>,
    /// Records of its partitions that have not been handled, as far as is known.
    pub lag: i64,
    /// Its partitions.
    pub partitions: Vec<PartitionHealth>,
}

impl SubscriptionHealth {
    /// A consumer that the application asks for records itself: how it handles them is not known here.
    pub(crate) fn of_consumer(consumer: &RunningConsumer, stalled_after: Duration) -> Self {
        let (state, in_state) = consumer.state();
        let (now, troubles) = (Instant::now(), consumer.outlook.of_partitions());
        let troubles: BTreeMap<_, _> = troubles.into_iter().collect();
        let partition = |p: RunningPartition| {
            let trouble = troubles.get(&p.partition);
            let waits = p.lag.unwrap_or_default() > 0 || trouble.is_some();
            PartitionHealth {
                topic: p.partition.topic.to_string(),
                partition: p.partition.partition,
                activity: if waits { Activity::Busy } else { Activity::Idle },
                quiet_ms: None,
                position: p.position.unwrap_or(-1),
                committed: p.committed,
                lag: p.lag.filter(|_| trouble.is_none()),
                in_flight: 0,
                parked_keys: 0,
                paused: None,
                problem: trouble.map(|trouble| trouble.describe(now)),
            }
        };
        let partitions: Vec<_> = consumer.partitions().into_iter().map(partition).collect();
        let activity = match state {
            ConsumerState::Joining if in_state >= stalled_after => Activity::Stalled,
            ConsumerState::Joining => Activity::Busy,
            _ => partitions.iter().map(|p| p.activity).max().unwrap_or_default(),
        };
        let (member_id, generation) = if state == ConsumerState::Member { consumer.member() } else { (None, None) };
        Self {
            group: consumer.group.clone(),
            topics: consumer.topics.clone(),
            state: state.as_str().to_owned(),
            state_ms: u64::try_from(in_state.as_millis()).unwrap_or(u64::MAX),
            member_id,
            generation,
            activity,
            problem: consumer.outlook.of_group().map(|trouble| trouble.describe(now)),
            lag: partitions.iter().filter_map(|p| p.lag).sum(),
            partitions,
        }
    }
}

/// One partition of a subscription.
///
/// ```
/// # fn show(partition: &ailurus::processor::PartitionHealth) {
/// if let Some(why) = &partition.paused {
///     println!("{}/{} stands at {}: {why}", partition.topic, partition.partition, partition.position);
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PartitionHealth {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Idle, busy or stalled.
    pub activity: Activity,
    /// Milliseconds for which records have waited and none has ended; none while it is idle.
    pub quiet_ms: Option<u64>,
    /// The next offset to handle; -1 before the first fetch, if nothing was committed.
    pub position: i64,
    /// The offset last committed by this member.
    pub committed: Option<i64>,
    /// Offsets between the position and the end of the partition, as of the last fetch, or of the last time its leader was asked.
    pub lag: Option<i64>,
    /// Records that are in a handler.
    pub in_flight: usize,
    /// Keys, or whatever is handled in order, that stand still because a record of theirs has failed.
    pub parked_keys: usize,
    /// Why something of it stands still that does not go on by itself: for example a dead letter that can't be written.
    pub paused: Option<String>,
    /// Why it can't be read now, and for how long: its leader can't be reached, or it has none. Where it ends is not known then.
    #[serde(default)]
    pub problem: Option<String>,
}
