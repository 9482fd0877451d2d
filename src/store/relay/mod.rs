//! The relay: sends the rows of an outbox, and removes those that are acknowledged.

mod task;
mod window;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::OutboxStore;
use crate::cluster::Client;
use crate::config::{Acks, ProducerConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::lock::Lock;
use crate::timestamp::Timestamp;
use task::RelayTask;

/// Sends the rows of an outbox until it is shut down.
///
/// Rows of a key in a topic are sent in the order of their ids, each after the one before it is
/// acknowledged by all in-sync replicas; different keys, and rows without a key, are in flight at
/// the same time. So a key has one record per round trip, and a row that is sent again never comes
/// behind one of its key that was sent once.
///
/// A row whose record is not acknowledged stays in the outbox, and is sent again under the same
/// event id (the header `ce_id`): soon after an outage, and with a delay of up to 5 minutes where
/// the broker rejects the record. Rows of its key behind it wait, others do not. Nothing is dropped:
/// a record that no broker will accept stays until somebody removes or corrects its row.
///
/// ```no_run
/// use ailurus::Client;
/// use ailurus::store::{OutboxStore, Relay};
///
/// # async fn example(client: &Client, outbox: impl OutboxStore) -> ailurus::Result<()> {
/// let relay = Relay::new(client, outbox).start()?;
/// // … until the process ends:
/// relay.shutdown(std::time::Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a relay does nothing until it is started"]
pub struct Relay<S> {
    client: Client,
    store: S,
    producer: ProducerConfig,
    settings: Settings,
}

#[derive(Debug, Clone, Copy)]
struct Settings {
    max_rows: usize,
    max_bytes: usize,
    poll_interval: Duration,
}

impl<S: OutboxStore> Relay<S> {
    /// Configures a relay with the client's settings for producers.
    pub fn new(client: &Client, store: S) -> Self {
        let settings = Settings { max_rows: 1000, max_bytes: 16 << 20, poll_interval: Duration::from_millis(250) };
        Self { client: client.clone(), store, producer: client.config().producer.clone(), settings }
    }

    /// Replaces the settings of its producer. `acks` is all and idempotence is on, whatever they
    /// say.
    pub fn producer(mut self, config: ProducerConfig) -> Self {
        self.producer = config;
        self
    }

    /// Sets the maximum number of rows in memory, 1 to 100,000. Default 1000.
    pub fn max_rows(mut self, rows: usize) -> Self {
        self.settings.max_rows = rows;
        self
    }

    /// Sets the maximum size of rows in memory, in bytes, at least 1; a row may exceed it. Default
    /// 16 MiB.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_bytes = bytes;
        self
    }

    /// Sets the time after which the outbox is looked at without a notification, 1 ms to 1 hour; also
    /// that in which a relay in standby notices that the active one has ended. Default 250 ms.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.settings.poll_interval = interval;
        self
    }

    /// Starts the relay, which connects on first use, and retries without limit.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a setting is out of bounds.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(self) -> Result<RelayHandle> {
        let Settings { max_rows, max_bytes, poll_interval } = self.settings;
        let interval = Duration::from_millis(1)..=Duration::from_secs(3600);
        if !(1..=100_000).contains(&max_rows) || max_bytes == 0 || !interval.contains(&poll_interval) {
            let what = format!(
                "invalid settings of a relay: {max_rows} rows, {max_bytes} bytes, poll interval {poll_interval:?}; \
                 allowed are 1 to 100000 rows, at least 1 byte, 1 ms to 1 hour"
            );
            return Err(Error::new(ErrorKind::Config, what));
        }
        let config = ProducerConfig { acks: Acks::All, idempotence: true, ..self.producer };
        let producer = self.client.producer().config(config).start()?;
        let (health, stop) = (Arc::new(RelayShared::default()), CancellationToken::new());
        self.client.cluster().components().add(&health);
        let task = RelayTask::new(self.store, producer, self.settings, Arc::clone(&health), stop.clone());
        Ok(RelayHandle { task: Some(tokio::spawn(task.run())), health, stop: stop.drop_guard() })
    }
}

/// A running [`Relay`]. Dropping it stops the relay as [`shutdown`](Self::shutdown) does, without
/// waiting.
#[derive(Debug)]
pub struct RelayHandle {
    task: Option<JoinHandle<()>>,
    health: Arc<RelayShared>,
    stop: DropGuard,
}

/// State of a relay, shared by its task, its handle and the health of its client.
#[derive(Debug, Default)]
pub(crate) struct RelayShared(Lock<RelayHealth>);

impl RelayShared {
    fn lock(&self) -> std::sync::MutexGuard<'_, RelayHealth> {
        self.0.lock()
    }

    pub(crate) fn health(&self) -> RelayHealth {
        self.lock().clone()
    }
}

impl RelayHandle {
    /// Returns its state and what it has done; [`Client::health`] has it, too, while the relay runs.
    pub fn health(&self) -> RelayHealth {
        self.health.health()
    }

    /// Stops sending, waits for the acknowledgement of what was sent, removes those rows, and ends.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if that takes longer than `timeout`: the next relay sends those rows
    /// again. [`ErrorKind::Handler`] if the store panicked.
    ///
    /// # Cancellation
    /// If the future is dropped, the relay ends as on drop.
    pub async fn shutdown(mut self, timeout: Duration) -> Result<()> {
        let Some(mut task) = self.task.take() else { return Ok(()) };
        drop(self.stop);
        match tokio::time::timeout(timeout, &mut task).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(Error::with_source(ErrorKind::Handler, "the relay of the outbox has ended", e)),
            Err(_) => {
                task.abort();
                let in_flight = self.health.lock().in_flight;
                let what = format!(
                    "the relay of the outbox did not end within {timeout:?}: {in_flight} records in flight are sent again"
                );
                Err(Error::new(ErrorKind::Timeout, what))
            }
        }
    }
}

/// The state of a [`Relay`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RelayState {
    /// It has yet to reach the outbox.
    #[default]
    Starting,
    /// Another relay is active.
    Standby,
    /// It sends rows.
    Active,
    /// It has ended.
    Closed,
}

/// State of a [`Relay`], and what it has done since its start.
///
/// ```
/// # fn show(health: &ailurus::store::RelayHealth) {
/// if let Some(problem) = &health.problem {
///     println!("{} records in flight: {problem}", health.in_flight);
/// }
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RelayHealth {
    /// State.
    pub state: RelayState,
    /// Number of records in flight.
    pub in_flight: usize,
    /// Number of records that were acknowledged.
    pub acknowledged: u64,
    /// Number of attempts to send a record that failed.
    pub failed: u64,
    /// The outage of the database or of the brokers, or the last row that could not be sent, until one is
    /// acknowledged.
    pub problem: Option<String>,
    /// Time at which the outbox was last read without an error.
    #[serde(skip)]
    pub last_read: Option<Timestamp>,
}
