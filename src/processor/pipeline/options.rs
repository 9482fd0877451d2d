//! Settings and start of a pipeline.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::collector::Size;
use super::task::TransactionTask;
use super::transactions::{Limits, Transactions};
use crate::config::{ConsumerConfig, IsolationLevel, ProcessorConfig};
use crate::error::{Error, ErrorKind, Result};
#[cfg(doc)]
use crate::processor::Outputs;
use crate::processor::dead_letter::{DeadLetters, Hook};
use crate::processor::{BatchHandler, Batching, Handler, Processor};
use crate::producer::{TransactionAction, TransactionalProducer};
use crate::{Client, Subscription};

/// Settings of an exactly-once pipeline: see [`Pipeline`].
///
/// ```
/// use std::time::Duration;
/// use ailurus::processor::ExactlyOnce;
///
/// let settings = ExactlyOnce::new().commit_interval(Duration::from_millis(20)).max_records(1000);
/// # let _ = settings;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "settings do nothing by themselves"]
pub struct ExactlyOnce {
    commit_interval: Duration,
    max_records: usize,
    max_bytes: usize,
    transaction_timeout: Option<Duration>,
    stable_id: Option<String>,
}

impl Default for ExactlyOnce {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_millis(100),
            max_records: 10_000,
            max_bytes: 16 << 20,
            transaction_timeout: None,
            stable_id: None,
        }
    }
}

impl ExactlyOnce {
    /// Returns the default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time from one transaction to the next, 1 ms to 10 s; by default 100 ms. Readers of
    /// committed records see outputs later by up to that.
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.commit_interval = interval;
        self
    }

    /// Sets the number of handled records with which a transaction is written before its time, 1 to
    /// 1,000,000; by default 10,000.
    pub fn max_records(mut self, count: usize) -> Self {
        self.max_records = count;
        self
    }

    /// Sets the size of outputs, in bytes, with which a transaction is written before its time, 1 KiB
    /// to 1 GiB; by default 16 MiB. Outputs of one record that are larger are a transaction of their
    /// own. Up to four times as much is held in memory.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets the time after which the coordinator aborts a transaction, 1 s up to the consumer's
    /// [`session_timeout`](ConsumerConfig::session_timeout); by default 40 s, or that if it is less. After
    /// a crash, the next owner of a partition waits for up to that.
    pub fn transaction_timeout(mut self, timeout: Duration) -> Self {
        self.transaction_timeout = Some(timeout);
        self
    }

    /// Sets the transactional id, which no other running process of any group may have: a process that starts with it ends
    /// the transaction of the one before, so that nothing waits for a timeout. By default it is made from the group and
    /// [`group_instance_id`](ConsumerConfig::group_instance_id); without that, each process has an id of its own.
    pub fn stable_id(mut self, id: impl Into<String>) -> Self {
        self.stable_id = Some(id.into());
        self
    }

    fn validate(&self, consumer: &ConsumerConfig) -> Result<Duration> {
        let default = Duration::from_secs(40).min(consumer.session_timeout);
        let timeout = self.transaction_timeout.unwrap_or(default);
        let problem = if !(Duration::from_millis(1)..=Duration::from_secs(10)).contains(&self.commit_interval) {
            format!("commit_interval is {:?}: allowed are 1 ms to 10 s", self.commit_interval)
        } else if !(1..=1_000_000).contains(&self.max_records) {
            format!("max_records is {}: allowed are 1 to 1000000", self.max_records)
        } else if !(1 << 10..=1 << 30).contains(&self.max_bytes) {
            format!("max_bytes is {}: allowed are 1 KiB to 1 GiB", self.max_bytes)
        } else if self.transaction_timeout.is_some()
            && (timeout < Duration::from_secs(1) || timeout > consumer.session_timeout)
        {
            let limit = consumer.session_timeout;
            format!("transaction_timeout is {timeout:?}: allowed are 1 s to ConsumerConfig::session_timeout, {limit:?}")
        } else {
            return Ok(timeout);
        };
        Err(Error::new(ErrorKind::Config, format!("invalid setting: ExactlyOnce::{problem}")))
    }
}

/// Builds a [`Subscription`] whose handlers return records, each written exactly once: for readers of
/// [committed](IsolationLevel::ReadCommitted) records, the outputs of a record are in their topics if and
/// only if the record counts as handled.
///
/// A handler returns [`Outputs`], or a `Result` of them, beside what any handler may return. Outputs
/// of an attempt that fails, times out or is cancelled are dropped. Those of an attempt that succeeds
/// are written in a transaction together with the offset, one transaction for the records of all
/// partitions that were handled within [`commit_interval`](ExactlyOnce::commit_interval). If it is
/// aborted they are written again, in the same order, and the handler is not called again. A dead
/// letter is an output of its record, too; the record of an output that brokers reject becomes one.
///
/// The outputs of records that are handled in order are written in this order. Records are read with
/// [`IsolationLevel::ReadCommitted`], whatever the settings are.
///
/// # What it does not cover
/// Effects of a handler outside of the log: it may be called more than once for a record (a retry, a rebalance, a
/// crash), of which the outputs of one call alone become visible. And an unclean election of a leader, which loses
/// committed records, may lose outputs or have records handled twice.
///
/// ```no_run
/// use ailurus::processor::{ExactlyOnce, Outputs};
/// use ailurus::{Client, Message, ProducerRecord};
///
/// async fn price(order: Message) -> Result<Outputs, std::io::Error> {
///     let mut priced = ProducerRecord::to("orders.priced").value("17.50");
///     priced.key = order.key.clone().map(Into::into);
///     Ok(Outputs::new().send(priced))
/// }
///
/// # async fn example(client: &Client) -> ailurus::Result<()> {
/// let pipeline = client.processor("pricing").exactly_once(ExactlyOnce::new());
/// let subscription = pipeline.subscribe(["orders"], price).await?;
/// subscription.run_until_signal().await.map(drop)
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a pipeline does nothing until it subscribes"]
pub struct Pipeline(Processor);

impl Processor {
    /// Makes it a [`Pipeline`]: outputs of handlers are written exactly once.
    pub fn exactly_once(mut self, settings: ExactlyOnce) -> Pipeline {
        self.exactly_once = Some(settings);
        Pipeline(self)
    }
}

impl Pipeline {
    /// Joins the group like [`Processor::subscribe`], with a handler that may return [`Outputs`].
    ///
    /// # Errors
    /// Those of [`Processor::subscribe`]; [`ErrorKind::Config`] if a setting of [`ExactlyOnce`] is out
    /// of bounds; [`ErrorKind::Authorization`] if the transactional id may not be used.
    pub async fn subscribe<A>(
        self,
        topics: impl IntoIterator<Item: Into<String>>,
        handler: impl Handler<A>,
    ) -> Result<Subscription> {
        self.0.subscribe(topics, handler).await
    }

    /// Joins the group like [`Processor::subscribe_batches`], with a handler that may return
    /// [`Outputs`] for a batch, which are written in one transaction with the offsets of all its
    /// records, or a `Vec` with those of each.
    ///
    /// # Errors
    /// Those of [`subscribe`](Self::subscribe); [`ErrorKind::Config`] if `batching` is out of bounds.
    pub async fn subscribe_batches<A>(
        self,
        topics: impl IntoIterator<Item: Into<String>>,
        batching: Batching,
        handler: impl BatchHandler<A>,
    ) -> Result<Subscription> {
        self.0.subscribe_batches(topics, batching, handler).await
    }
}

/// A pipeline before its group is joined.
pub(in crate::processor) struct Starting {
    producer: TransactionalProducer,
    limits: Limits,
}

impl ExactlyOnce {
    /// Sets what a pipeline needs of its consumer.
    pub(in crate::processor) fn configure(&self, consumer: &mut ConsumerConfig) -> Result<()> {
        consumer.isolation_level = IsolationLevel::ReadCommitted;
        self.validate(consumer).map(drop)
    }

    /// Starts the producer of the transactions.
    pub(in crate::processor) async fn open(
        &self,
        client: &Client,
        group: &str,
        consumer: &ConsumerConfig,
        letters: &DeadLetters,
    ) -> Result<Starting> {
        let timeout = self.validate(consumer)?;
        let mut config = letters.producer_config(consumer.max_decompressed_bytes);
        config.idempotence = true;
        config.transaction_timeout = timeout;
        let instance = consumer.group_instance_id.as_ref().map(|instance| format!("{group}.{instance}"));
        let builder = match self.stable_id.clone().or(instance) {
            Some(id) => client.transactional_producer(id),
            None => client.transactional_producer(group).exclusive(),
        };
        let producer = builder.of_group(group).config(config).start().await.map_err(|e| match e.action() {
            TransactionAction::Stop | TransactionAction::Fenced => {
                e.error().clone().context(format!("the pipeline of group {group:?} can't start"))
            }
            _ => e.error().clone(),
        })?;
        let size = Size { records: self.max_records, bytes: self.max_bytes };
        Ok(Starting { producer, limits: Limits { interval: self.commit_interval, size } })
    }
}

/// Starts the task of a pipeline's transactions.
pub(in crate::processor) fn start(
    starting: Starting,
    letters: DeadLetters,
    client: &Client,
    config: &ProcessorConfig,
    shared: &Arc<crate::processor::SubscriptionState>,
    on_dead_letter: Option<&Hook>,
    fatal: &tokio::sync::mpsc::Sender<Error>,
) -> Arc<Transactions> {
    let transactions = Arc::new(Transactions::new(starting.limits, letters));
    let task = TransactionTask {
        client: client.clone(),
        producer: starting.producer,
        transactions: Arc::clone(&transactions),
        config: config.clone(),
        shared: Arc::clone(shared),
        metrics: client.config().metrics.clone(),
        on_dead_letter: on_dead_letter.cloned(),
        hooks: JoinSet::new(),
        fatal: fatal.clone(),
    };
    transactions.start(|stop| task.run(stop));
    transactions
}
