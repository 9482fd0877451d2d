//! The start of a consumer: what it needs of the cluster is requested until it is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::consumer::Consumer;
use super::event::StartOffset;
use super::event_queue::EventQueue;
use super::fetch::partition::StartPosition;
use super::fetch::tasks::Fetcher;
use super::group::coordinator_task::{CoordinatorTask, GroupContext};
use super::lease::Lease;
use super::metrics::Meter;
use super::offsets::commit_queue::Commits;
use super::offsets::committer::Commands;
use super::running::RunningConsumer;
use super::seek::check_start;
use super::status::Status;
use crate::cluster::{Backoff, Client, Pin};
use crate::config::ConsumerConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::failure::{Outage, fails_fast};
use crate::record::TopicPartition;

/// Commands that may wait for the task of the group.
const COMMAND_QUEUE: usize = 64;

impl Consumer {
    /// Joins a group: see [`ConsumerBuilder`](super::ConsumerBuilder).
    pub(super) async fn subscribe(
        client: &Client,
        group: &str,
        topics: &[String],
        config: ConsumerConfig,
    ) -> Result<Self> {
        let mut starting = Starting::new(client, group, topics, config)?;
        starting.find_topics().await?;
        let running = Arc::clone(&starting.running);
        let mut consumer = starting.join();
        consumer.running = Some(running);
        Ok(consumer)
    }

    /// Starts the membership, without an entry in the client's health.
    fn join(mut self, group: &str, topics: &[String], config: ConsumerConfig, pins: Vec<Pin>) -> Self {
        self.delivered = config.auto_commit_interval.map(|_| Vec::new());
        self._topics_in_use = pins;
        let commits = Commits::new(group, self.client.cluster().backoff(), Arc::clone(&self.status));
        let commits = Arc::new(commits);
        let (sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let instance_id = config.group_instance_id.clone();
        let context = GroupContext {
            client: self.client.clone(),
            config,
            group: group.into(),
            topics: topics.iter().cloned().collect(),
            events: Arc::clone(&self.events),
            commits: Arc::clone(&commits),
            status: Arc::clone(&self.status),
            tasks: self.tasks.clone(),
        };
        let group_task = CoordinatorTask::new(context, commands);
        let fetch_state = group_task.fetch_state();
        self.status.set_fetch_state(&fetch_state);
        self.fetch_state = Some(fetch_state);
        let task = self.cancel.clone().run_until_cancelled_owned(group_task.run());
        self.tasks.spawn(task);
        let timeout = self.client.config().request_timeout;
        self.group = Some(Commands { group: group.into(), sender, commits, timeout, instance_id });
        self
    }

    /// Reads given partitions without a group: see [`ReaderBuilder`](super::ReaderBuilder).
    pub(super) async fn assign(
        client: &Client,
        partitions: Vec<(TopicPartition, StartOffset)>,
        config: ConsumerConfig,
    ) -> Result<Self> {
        config.validate()?;
        if partitions.is_empty() {
            return Err(Error::new(ErrorKind::Config, "no partition was given to read"));
        }
        let mut consumer = Self::idle(client, &config, "");
        let mut retry = Retry::new(client, "a consumer without a group".to_owned(), &consumer.status);
        let mut pins = Vec::new();
        for (p, start) in &partitions {
            let topic = retry.run(|| client.cluster().topic(&p.topic, false)).await?;
            pins.push(client.cluster().pin(&topic.name));
            if topic.partition(p.partition).is_none() {
                let what = format!("{p} does not exist: the topic has {} partitions, from 0", topic.partitions.len());
                return Err(Error::new(ErrorKind::UnknownTopic, what));
            }
            check_start(p, *start)?;
        }
        consumer._topics_in_use = pins;
        let partitions: BTreeMap<_, _> = partitions.into_iter().collect();
        let leased = |(partition, start)| (Lease { partition, epoch: 1 }, StartPosition::At(start));
        let partitions: Vec<_> = partitions.into_iter().map(leased).collect();
        let leases: Vec<_> = partitions.iter().map(|(lease, _)| lease.clone()).collect();
        consumer.status.alone(&leases);
        consumer.events.on_assigned(leases);
        let fetcher = Fetcher::start(client, &config, &consumer.events, &consumer.tasks, None);
        fetcher.add(partitions);
        consumer.status.set_fetch_state(&fetcher.state());
        consumer.fetch_state = Some(fetcher.state());
        consumer.fetcher = Some(fetcher);
        Ok(consumer)
    }

    fn idle(client: &Client, config: &ConsumerConfig, group: &str) -> Self {
        let meter = Meter::new(&client.config().metrics, group);
        Self {
            client: client.clone(),
            isolation_level: config.isolation_level,
            group: None,
            events: Arc::new(EventQueue::new(meter.clone())),
            status: Arc::new(Status::new(meter)),
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
            fetcher: None,
            fetch_state: None,
            delivered: None,
            running: None,
            _topics_in_use: Vec::new(),
        }
    }
}

/// Retries a request of a start until it works or its error is final. An outage is logged once, and
/// in the status while it lasts.
struct Retry {
    /// The consumer, for the log.
    name: String,
    client: Client,
    status: Arc<Status>,
    outage: Outage,
    backoff: Backoff,
}

impl Retry {
    fn new(client: &Client, name: String, status: &Arc<Status>) -> Self {
        let (outage, backoff) = (client.cluster().outages().part(), client.cluster().backoff());
        Self { name, client: client.clone(), status: Arc::clone(status), outage, backoff }
    }

    /// Returns the first success of `attempt`.
    ///
    /// # Errors
    /// Those of an attempt that [fail fast](fails_fast).
    async fn run<T, F>(&mut self, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        loop {
            let error = match attempt().await {
                Ok(done) => {
                    self.worked();
                    return Ok(done);
                }
                Err(e) if fails_fast(&e) => return Err(e),
                Err(e) => e,
            };
            self.failed(&error);
            sleep(self.backoff.next()).await;
        }
    }

    fn failed(&mut self, error: &Error) {
        if let Some(lasted) = self.outage.record_failure(Instant::now(), error) {
            let name = &self.name;
            tracing::warn!(error = %error.full(), "{name} can't start, {lasted}; it is retried");
        }
        self.client.config().metrics.failed("consumer", error.kind());
        self.status.set_outage(self.outage.ongoing());
    }

    fn worked(&mut self) {
        self.backoff.reset();
        self.outage.log_recovery(Instant::now());
        self.status.set_outage(None);
    }
}

/// A member that has yet to join its group. The client's health shows it as `joining`, with what it
/// waits for.
pub(crate) struct Starting {
    retry: Retry,
    config: ConsumerConfig,
    /// Has no tasks yet.
    consumer: Consumer,
    running: Arc<RunningConsumer>,
    pins: Vec<Pin>,
}

impl Starting {
    pub(crate) fn new(
        client: &Client,
        group: &str,
        topics: &[impl AsRef<str>],
        config: ConsumerConfig,
    ) -> Result<Self> {
        config.validate()?;
        if group.is_empty() {
            return Err(Error::new(ErrorKind::Config, "the group's name is empty: name a consumer group"));
        }
        if topics.is_empty() {
            return Err(Error::new(ErrorKind::Config, format!("group {group:?} was given no topic to subscribe to")));
        }
        let consumer = Consumer::idle(client, &config, group);
        let running = Arc::new(RunningConsumer {
            group: group.to_owned(),
            topics: topics.iter().map(|t| t.as_ref().to_owned()).collect(),
            isolation_level: config.isolation_level,
            events: Arc::clone(&consumer.events),
            status: Arc::clone(&consumer.status),
        });
        client.cluster().components().add(&running);
        let retry = Retry::new(client, format!("group {group:?}"), &consumer.status);
        Ok(Self { retry, config, consumer, running, pins: Vec::new() })
    }

    /// Waits until its topics are known.
    pub(crate) async fn find_topics(&mut self) -> Result<()> {
        let Self { retry, running, pins, .. } = self;
        let cluster = Arc::clone(retry.client.cluster());
        for topic in &running.topics {
            let found = retry.run(|| cluster.topic(topic, true)).await;
            let found = found.map_err(|e| subscribing(&running.group, topic, e))?;
            pins.push(cluster.pin(&found.name));
        }
        Ok(())
    }

    /// Adds topics, which are created, and waits until they are known.
    pub(crate) async fn add_topics(&mut self, topics: &[String]) -> Result<()> {
        if topics.is_empty() {
            return Ok(());
        }
        self.running = Arc::new(RunningConsumer {
            group: self.running.group.clone(),
            topics: self.running.topics.iter().chain(topics).cloned().collect(),
            isolation_level: self.running.isolation_level,
            events: Arc::clone(&self.running.events),
            status: Arc::clone(&self.running.status),
        });
        self.retry.client.cluster().components().add(&self.running);
        self.find_topics().await
    }

    /// Waits for something else that it needs: see [`Retry::run`].
    pub(crate) async fn retry<T, F>(&mut self, attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.retry.run(attempt).await
    }

    /// Joins the group. The client's health shows it no longer, unless `running` is kept.
    pub(crate) fn join(self) -> Consumer {
        let Self { config, consumer, running, pins, .. } = self;
        consumer.join(&running.group, &running.topics, config, pins)
    }
}

fn subscribing(group: &str, topic: &str, e: Error) -> Error {
    match e.kind() {
        ErrorKind::UnknownTopic => Error::new(ErrorKind::UnknownTopic, format!("group {group:?} can't subscribe: {e}")),
        _ => e.context(format!("group {group:?} could not subscribe to topic {topic:?}")),
    }
}
