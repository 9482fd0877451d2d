//! Transactions: records and offsets that become visible together, or not at all.
//!
//! [`core`] decides what is sent to the coordinators, [`action`] what their error codes mean; `task`
//! sends it. The batches of a transaction go the way of all batches; the accumulator knows which
//! partitions are in the transaction, and whether any batch failed.

mod action;
mod builder;
mod core;
mod error;
mod health;
mod requests;
pub(super) mod task;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryFutureExt;
use tokio::time::Instant;

pub use self::builder::TransactionalProducerBuilder;
use self::core::Begin;
pub use self::error::{TransactionAction, TransactionError, TransactionOutcome};
pub use self::health::{TransactionErrorHealth, TransactionalProducerHealth, TransactionalProducerState};
use self::task::TransactionShared;
use super::delivery::Delivery;
use super::send::SendFuture;
use super::{Producer, ProducerRecord};
use crate::cluster::ConsumerGroupMetadata;
use crate::cluster::offset_commit::OffsetAndMetadata;
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;

/// Sends records in transactions (KIP-98): readers with
/// [`ReadCommitted`](crate::IsolationLevel::ReadCommitted) see all records of a transaction, and the
/// offsets committed with it, or none.
///
/// ```no_run
/// # async fn example(client: ailurus::Client) -> ailurus::Result<()> {
/// use std::time::Duration;
/// use ailurus::ProducerRecord;
///
/// let mut producer = client.transactional_producer("payments-0").start().await?;
/// let transaction = producer.begin().await?;
/// for account in ["alice", "bob"] {
///     _ = transaction.send(ProducerRecord::to("bookings").key(account).value("17.50")).await?;
/// }
/// transaction.commit().await?;
/// producer.close(Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
///
/// # The transactional id
/// At most one producer has a transactional id: starting one with the same id fences the other, which
/// then fails with [`TransactionAction::Fenced`], and aborts its open transaction. That is how a process
/// takes over from one that hangs. Where no process takes over,
/// [`exclusive`](TransactionalProducerBuilder::exclusive) makes an id that no other has.
///
/// # What it does not cover
/// Effects outside of the log (a row in a database, a mail) are not part of the transaction. Readers with
/// `ReadUncommitted` see aborted records. Records become visible when the transaction commits, so the
/// time between commits is added to their latency.
///
/// # End
/// A transaction that is neither committed nor aborted for
/// [`transaction_timeout`](crate::ProducerConfig::transaction_timeout) is aborted by its coordinator, and
/// its producer is fenced. Readers of committed records wait for open transactions: end them soon, and
/// [`close`](Self::close) the producer.
#[derive(Debug)]
pub struct TransactionalProducer {
    producer: Producer,
    transactions: Arc<TransactionShared>,
    timeout: Duration,
}

impl TransactionalProducer {
    /// Returns the transactional id.
    pub fn transactional_id(&self) -> &str {
        &self.transactions.transactional_id
    }

    /// Begins a transaction. That needs no request, but waits until the last one has ended: one that
    /// was dropped is aborted here at the latest.
    ///
    /// # Errors
    /// [`TransactionAction::Abort`] if the coordinator did not allow it within the transaction timeout;
    /// [`Unknown`](TransactionAction::Unknown) if the last transaction is still not known to be
    /// committed; [`Fenced`](TransactionAction::Fenced) and [`Stop`](TransactionAction::Stop) once the
    /// producer can't go on.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn begin(&mut self) -> Result<Transaction<'_>, TransactionError> {
        let begun = self.wait_for(|producer| {
            // Without a reason the task is not woken: each of its steps comes back here, and would follow
            // the one before without a pause, for as long as the coordinator is away.
            match producer.transactions.begin(&producer.producer.0.0) {
                Begin::Open(_) => {
                    producer.wake();
                    Some(Ok(()))
                }
                Begin::Failed(e) => Some(Err(e)),
                Begin::Wait => None,
                Begin::Wake => {
                    producer.wake();
                    None
                }
            }
        });
        match begun.await {
            Some(Ok(())) => Ok(Transaction { producer: self, ended: false }),
            Some(Err(e)) => Err(e),
            None => Err(self.transactions.core.lock().wait_error()),
        }
    }

    /// Returns how the last transaction ended, also if the future of its commit was dropped; waits
    /// until it has ended, for the transaction timeout at most. `None` before the first one has.
    ///
    /// After [`TransactionAction::Unknown`] it waits for the coordinator's response, and returns what that says.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn outcome(&mut self) -> Option<Result<TransactionOutcome, TransactionError>> {
        self.wait_for(|producer| {
            let core = producer.transactions.core.lock();
            (core.is_idle() || (core.outcome().is_some() && !core.is_unconfirmed())).then_some(())
        })
        .await;
        self.transactions.core.lock().outcome().cloned()
    }

    /// Ends the last transaction, sends what is pending, stops the producer's tasks and closes its
    /// connections.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the last transaction has not ended within `timeout`: the coordinator
    /// aborts it after the transaction timeout, unless its commit has arrived.
    ///
    /// # Cancellation
    /// As if it was dropped.
    pub async fn close(self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let is_idle = self.wait_until(deadline, |producer| producer.transactions.core.lock().is_idle().then_some(()));
        let ended = is_idle.await.is_some();
        self.producer.close(deadline.saturating_duration_since(Instant::now())).await?;
        if ended {
            return Ok(());
        }
        let id = self.transactional_id();
        let what = format!("the last transaction of {id:?} had not ended within the timeout of close, {timeout:?}");
        Err(Error::new(ErrorKind::Timeout, what))
    }

    fn wake(&self) {
        self.producer.0.0.transaction.notify_one();
    }

    /// Waits until `check` returns something, for the transaction timeout at most.
    async fn wait_for<T>(&self, check: impl FnMut(&Self) -> Option<T>) -> Option<T> {
        self.wait_until(Instant::now() + self.timeout, check).await
    }

    async fn wait_until<T>(&self, deadline: Instant, mut check: impl FnMut(&Self) -> Option<T>) -> Option<T> {
        let wait = async {
            loop {
                let changed = self.transactions.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable(); // before the check, so that no change is missed
                if let Some(found) = check(self) {
                    return found;
                }
                changed.await;
            }
        };
        tokio::time::timeout_at(deadline, wait).await.ok()
    }
}

/// An open transaction of a [`TransactionalProducer`]. Dropping it aborts it.
///
/// ```no_run
/// # async fn example(producer: &mut ailurus::TransactionalProducer) -> ailurus::Result<()> {
/// use ailurus::ProducerRecord;
///
/// let transaction = producer.begin().await?;
/// _ = transaction.send(ProducerRecord::to("bookings").key("alice").value("-17.50")).await?;
/// _ = transaction.send(ProducerRecord::to("bookings").key("bob").value("17.50")).await?;
/// transaction.commit().await?; // fails if either was not written
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping a transaction aborts it"]
pub struct Transaction<'a> {
    producer: &'a mut TransactionalProducer,
    ended: bool,
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("transactional_id", &self.producer.transactional_id()).finish()
    }
}

impl<'a> Transaction<'a> {
    /// Sends a record as [`Producer::send`] does. The [`Delivery`] may be dropped: if the record is not
    /// written, [`commit`](Self::commit) fails.
    ///
    /// An acknowledged record is in the log, and visible once the transaction is committed.
    ///
    /// # Errors
    /// Those of [`Producer::send`]; the transaction can only be aborted then.
    /// [`ErrorKind::TransactionAborted`] once another record has failed.
    ///
    /// # Cancellation
    /// If the future is dropped before it is ready, the record is not sent, and the transaction goes on
    /// without it.
    pub fn send<'t>(
        &'t self,
        record: ProducerRecord<'t>,
    ) -> impl Future<Output = Result<Delivery>> + Send + use<'a, 't> {
        let producer = &self.producer.producer;
        SendFuture::new(producer, record).inspect_err(|e| {
            let shared = &producer.0.0;
            let finished = shared.lock().fail_transaction(e.clone());
            shared.resolve_batches(finished);
        })
    }

    /// Adds offsets of a consumer group, which are committed if the transaction is: of each partition
    /// the offset of the next record to handle. A later call replaces the offsets of an earlier one.
    /// They are sent when the transaction commits, with the member id and generation of that time.
    ///
    /// The consumer's own commits must be off: don't commit these partitions in another way.
    ///
    /// # Errors
    /// [`ErrorKind::OffsetOutOfRange`] for a negative offset; nothing is added then.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     consumer: ailurus::Consumer, producer: &mut ailurus::TransactionalProducer, batch: ailurus::Records,
    /// # ) -> ailurus::Result<()> {
    /// let mut transaction = producer.begin().await?;
    /// transaction.send_offsets(&consumer.group_metadata()?, [(batch.topic_partition(), batch.next_offset)])?;
    /// transaction.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_offsets<O: Into<OffsetAndMetadata>>(
        &mut self,
        group: &ConsumerGroupMetadata,
        offsets: impl IntoIterator<Item = (TopicPartition, O)>,
    ) -> Result<()> {
        let offsets: Vec<_> = offsets.into_iter().map(|(p, at)| (p, at.into())).collect();
        if let Some((p, at)) = offsets.iter().find(|(_, at)| at.offset < 0) {
            let what = format!("offset {} of {p} can't be committed: offsets are not negative", at.offset);
            return Err(Error::new(ErrorKind::OffsetOutOfRange, what));
        }
        if !offsets.is_empty() {
            self.producer.transactions.core.lock().on_offsets(group.clone(), offsets);
        }
        Ok(())
    }

    /// Commits: waits until all records are acknowledged and the offsets accepted, then has the
    /// coordinator commit. An empty transaction needs no request.
    ///
    /// # Errors
    /// - [`TransactionAction::Abort`] if a record or an offset was not accepted, or not within the
    ///   transaction timeout: the transaction is aborted;
    /// - [`TransactionAction::Unknown`] if the coordinator has not confirmed the commit within that
    ///   time;
    /// - [`TransactionAction::Fenced`] and [`TransactionAction::Stop`]: the transaction is aborted, and the
    ///   producer can't go on.
    ///
    /// # Cancellation
    /// The commit begins with this call and goes on if the future is dropped:
    /// [`outcome`](TransactionalProducer::outcome) has its result.
    pub fn commit(self) -> impl Future<Output = Result<(), TransactionError>> + Send + use<'a> {
        self.end(true)
    }

    /// Aborts: no reader of committed records sees any of it. Records that were not sent yet fail with
    /// [`ErrorKind::TransactionAborted`].
    ///
    /// # Errors
    /// [`TransactionAction::Fenced`] and [`TransactionAction::Stop`] if the producer can't go on; nothing of
    /// the transaction is visible then either.
    ///
    /// # Cancellation
    /// The abort begins with this call and goes on if the future is dropped.
    pub fn abort(self) -> impl Future<Output = Result<(), TransactionError>> + Send + use<'a> {
        self.end(false)
    }

    fn end(mut self, commit: bool) -> impl Future<Output = Result<(), TransactionError>> + Send + use<'a> {
        self.start_end(commit);
        async move {
            let producer = &*self.producer;
            // The core has an outcome at the transaction timeout at the latest.
            let outcome = loop {
                let outcome = producer.wait_for(|p| p.transactions.core.lock().outcome().cloned()).await;
                if let Some(outcome) = outcome {
                    break outcome;
                }
            };
            outcome.map(drop)
        }
    }

    fn start_end(&mut self, commit: bool) {
        self.ended = true;
        let (producer, now) = (&*self.producer, Instant::now());
        producer.transactions.core.lock().on_end(now, commit);
        if commit {
            producer.producer.0.0.lock().close_transaction_batches(now);
        }
        producer.wake();
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.start_end(false);
        }
    }
}
