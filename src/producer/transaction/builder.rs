//! The start of a transactional producer.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::TransactionalProducer;
use super::core::CoreConfig;
use super::error::{TransactionAction, TransactionError};
use super::task::TransactionShared;
use crate::cluster::Client;
use crate::config::{Acks, Compression, PartitionerKind, ProducerConfig, producer_settings};
use crate::error::{Error, ErrorKind};
use crate::producer::{AbortOnDrop, Producer, supervisor};

/// Maximum length of a transactional id: brokers keep it in a topic.
const MAX_ID_BYTES: usize = 249;

/// Starts a [`TransactionalProducer`] with the client's settings, or others.
///
/// ```no_run
/// # async fn example(client: &ailurus::Client) -> ailurus::Result<()> {
/// use std::time::Duration;
///
/// let producer = client.transactional_producer("payments-0").linger(Duration::from_millis(5)).start().await?;
/// # drop(producer);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TransactionalProducerBuilder {
    client: Client,
    config: ProducerConfig,
    transactional_id: String,
    exclusive: bool,
    /// Group of a pipeline.
    group: Option<String>,
    keeps_epoch: bool,
}

producer_settings!(TransactionalProducerBuilder [.config] by_field, all by config);

impl TransactionalProducerBuilder {
    /// Appends a random part to the transactional id, so that no other producer can have it. A
    /// transaction that takes longer than its timeout then fails with
    /// [`TransactionAction::Abort`] instead of [`Fenced`](TransactionAction::Fenced), and the producer
    /// goes on: with an id that others may have, brokers report both alike.
    ///
    /// The open transaction of a process with such an id that dies is aborted after the transaction
    /// timeout; until then readers of committed records wait.
    #[must_use]
    pub fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Sets the group of the pipeline that it is of, for health.
    pub(crate) fn of_group(mut self, group: &str) -> Self {
        self.group = Some(group.to_owned());
        self
    }

    /// Breaks the producer: the epoch of transaction version 1 stays after a request of unknown effect. A
    /// test of transactions must find torn ones then, or it finds none at all.
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    #[must_use]
    pub fn keep_epoch(mut self) -> Self {
        self.keeps_epoch = true;
        self
    }

    /// Starts the producer: gets a producer id from the coordinator of the transactional id, which
    /// fences a producer that had it, and aborts its transaction.
    ///
    /// # Errors
    /// [`TransactionAction::Stop`] if a setting is out of bounds, or the coordinator rejects the
    /// transactional id or the transaction timeout; [`TransactionAction::Abort`] if the coordinator could
    /// not be reached, or did not end the other producer's transaction, within the transaction timeout.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancellation
    /// The producer is not started; one that had the id may be fenced.
    pub async fn start(self) -> Result<TransactionalProducer, TransactionError> {
        let Self { client, mut config, mut transactional_id, exclusive, group, keeps_epoch } = self;
        let name = transactional_id.clone();
        let stop = |e| TransactionError::new(TransactionAction::Stop, e);
        config.validate(client.config().request_timeout).map_err(stop)?;
        if !config.idempotence || config.acks != Acks::All {
            let what = "a transactional producer needs idempotence, and acks = all";
            return Err(stop(Error::new(ErrorKind::Config, what)));
        }
        if exclusive {
            transactional_id = format!("{transactional_id}.{}", Uuid::now_v7());
        }
        if transactional_id.is_empty() || transactional_id.len() > MAX_ID_BYTES {
            let what =
                format!("the transactional id has {} bytes: allowed are 1 to {MAX_ID_BYTES}", transactional_id.len());
            return Err(stop(Error::new(ErrorKind::Config, what)));
        }
        let timeout = config.transaction_timeout;
        // A batch is of no use after its transaction.
        config.delivery_timeout = config.delivery_timeout.min(timeout);
        let backoff = client.cluster().backoff();
        let core = CoreConfig { transactional_id: transactional_id.into(), exclusive, timeout, backoff, keeps_epoch };
        let transactions = Arc::new(TransactionShared::new(core, name, group));
        client.cluster().components().add(&transactions);
        transactions.core.lock().on_start();
        let shared = supervisor::start(&client, config, true, Some(Arc::clone(&transactions)));
        let producer = Producer(Arc::new(AbortOnDrop(shared)));
        let producer = TransactionalProducer { producer, transactions, timeout };
        let started = producer.wait_for(|p| p.transactions.core.lock().started()).await;
        match started {
            Some(Ok(())) => Ok(producer),
            Some(Err(e)) => Err(e),
            None => Err(producer.transactions.core.lock().wait_error()),
        }
    }
}

impl Client {
    /// Configures a producer of transactions: by default with
    /// [`Config::producer`](crate::Config::producer). The transactional id has 1 to 249 bytes; see
    /// [`TransactionalProducer`] for who may have it.
    #[must_use = "a builder does nothing by itself"]
    pub fn transactional_producer(&self, transactional_id: impl Into<String>) -> TransactionalProducerBuilder {
        TransactionalProducerBuilder {
            client: self.clone(),
            config: self.config().producer.clone(),
            transactional_id: transactional_id.into(),
            exclusive: false,
            group: None,
            keeps_epoch: false,
        }
    }
}
