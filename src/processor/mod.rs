//! The handler loop on top of a consumer.

use std::future::Future;

use crate::cluster::Client;
use crate::config::{ConsumerConfig, ProcessorConfig};
use crate::consumer::Message;
use crate::error::Result;
use serde::Serialize;

/// What a handler's error can be.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Counts of a subscription since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Records whose handler succeeded.
    pub handled: u64,
    /// Attempts that failed.
    pub failed_attempts: u64,
    /// Records written to a dead-letter topic.
    pub dead_letters: u64,
    /// Times partitions were assigned.
    pub rebalances: u64,
}

/// Builds a subscription.
#[derive(Debug)]
pub struct Processor {
    client: Client,
    consumer: ConsumerConfig,
    processor: ProcessorConfig,
}

impl Processor {
    /// With the client's settings.
    pub fn new(client: &Client) -> Self {
        let config = client.config();
        Self { client: client.clone(), consumer: config.consumer.clone(), processor: config.processor.clone() }
    }
    /// Other consumer settings.
    #[must_use]
    pub fn consumer(mut self, config: ConsumerConfig) -> Self {
        self.consumer = config;
        self
    }
    /// Other processor settings.
    #[must_use]
    pub fn processor(mut self, config: ProcessorConfig) -> Self {
        self.processor = config;
        self
    }
    /// Joins `group`, reads `topics` and hands each record to `handler`.
    pub async fn subscribe<H, F, E>(self, _topics: &[&str], _group: &str, _handler: H) -> Result<Subscription>
    where
        H: Fn(Message) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        todo!()
    }
}

/// A running subscription.
#[derive(Debug)]
pub struct Subscription(());

impl Subscription {
    /// How it is.
    pub fn health(&self) -> SubscriptionHealth {
        todo!()
    }
    /// Its counts.
    pub fn stats(&self) -> Stats {
        todo!()
    }
    /// Stops fetching, finishes what is in hand within the shutdown timeout, commits, leaves the group.
    pub async fn shutdown(self) -> Result<()> {
        todo!()
    }
    /// Ends at once, as a crash would: what is in hand is cancelled, nothing is committed, the group is not left.
    pub async fn abort(self) {
        todo!()
    }
    /// Waits until it has ended by itself, with the error that ended it.
    pub async fn ended(&self) -> Result<()> {
        todo!()
    }
}

/// One subscription.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SubscriptionHealth {
    /// Its group.
    pub group: String,
    /// Its topics.
    pub topics: Vec<String>,
    /// Its place in the group: `joining`, `member`, `closed`.
    pub state: String,
    /// Its partitions.
    pub partitions: Vec<PartitionHealth>,
}

/// One partition of a subscription.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PartitionHealth {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset to handle.
    pub position: i64,
    /// The last committed offset.
    pub committed: Option<i64>,
    /// Records not yet handled.
    pub lag: Option<i64>,
    /// Why it stands still: for example a dead letter that can't be written.
    pub paused: Option<String>,
}
