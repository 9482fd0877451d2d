//! The start of a consumer: what it needs of the cluster is asked for until it is there.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::Consumer;
use super::running::RunningConsumer;
use super::status::Status;
use crate::cluster::{Backoff, Client, Pin};
use crate::config::ConsumerConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::failure::{Outage, fails_fast};

/// Makes a request of a start again until it works or is answered. An outage stands in the log once, and in the status while it lasts.
pub(super) struct Retry {
    /// The consumer, for the log.
    name: String,
    client: Client,
    status: Arc<Status>,
    outage: Outage,
    backoff: Backoff,
}

impl Retry {
    pub(super) fn new(client: &Client, name: String, status: &Arc<Status>) -> Self {
        let (client, status, backoff) = (client.clone(), Arc::clone(status), client.cluster().backoff());
        Self { name, client, status, outage: Outage::default(), backoff }
    }

    /// Returns what `attempt` gives in the end.
    ///
    /// # Errors
    /// Those of an attempt that are [answers](fails_fast).
    pub(super) async fn run<T, F>(&mut self, mut attempt: impl FnMut() -> F) -> Result<T>
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
        if let Some(lasted) = self.outage.record_failure(Instant::now().into_std(), error) {
            let name = &self.name;
            tracing::warn!(error = %error.full(), "{name} can't start, {lasted}; it is tried again");
        }
        self.client.config().metrics.failed("consumer", error.kind());
        self.status.trouble(self.outage.ongoing());
    }

    fn worked(&mut self) {
        self.backoff.reset();
        if let Some(lasted) = self.outage.record_recovery(Instant::now().into_std()) {
            tracing::warn!("{} can start, after {lasted}", self.name);
        }
        self.status.trouble(None);
    }
}

/// A member of a group that has yet to join it. The client's health shows it as `joining`, with what it waits for.
pub(crate) struct Starting {
    retry: Retry,
    config: ConsumerConfig,
    /// Without tasks.
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
        let running = Arc::new(RunningConsumer::new(group, topics, &consumer));
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

    /// Waits for something else that it needs: see [`Retry::run`].
    pub(crate) async fn retry<T, F>(&mut self, attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.retry.run(attempt).await
    }

    /// Joins the group. The client's health no longer shows it.
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
