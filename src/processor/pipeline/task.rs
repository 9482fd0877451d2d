//! The task that writes a pipeline's transactions: outputs, then offsets, then the commit.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::collector::{EndedRecords, Payload};
use super::transactions::{TransactionCut, Transactions};
use crate::admin::Admin;
use crate::cluster::{Backoff, Client};
use crate::config::ProcessorConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Observation, Reporter};
use crate::processor::dead_letter::{HandlerFailure, Hook};
use crate::processor::positions::CommitPosition;
use crate::processor::state::SubscriptionState;
use crate::processor::worker::Reporting;
use crate::producer::{
    Acknowledgement, Delivery, TransactionAction, TransactionError, TransactionOutcome, TransactionalProducer,
};
use crate::timestamp::Timestamp;

/// First and maximum wait after an aborted transaction.
const ABORT_BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Maximum time to close the producer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of hooks that run beside transactions.
const MAX_HOOKS: usize = 64;

/// The task of a pipeline's transactions.
pub(super) struct TransactionTask {
    pub(super) client: Client,
    pub(super) producer: TransactionalProducer,
    pub(super) transactions: Arc<Transactions>,
    pub(super) config: ProcessorConfig,
    pub(super) shared: Arc<SubscriptionState>,
    pub(super) metrics: Reporter,
    /// Runs after a dead letter is committed.
    pub(super) on_dead_letter: Option<Hook>,
    /// Hooks that run.
    pub(super) hooks: JoinSet<()>,
    /// Receives the error that ends the subscription.
    pub(super) fatal: mpsc::Sender<Error>,
}

/// Acknowledgements of failed records, by partition and place of their records in the cut.
type Acknowledgements = HashMap<(usize, usize), Vec<Acknowledgement>>;

/// The end of a transaction that is not committed.
struct Aborted {
    action: TransactionAction,
    error: Error,
    /// Outputs that the brokers reject: partition and place of their records in the cut.
    rejected: HashMap<(usize, usize), Error>,
}

impl From<TransactionError> for Aborted {
    fn from(e: TransactionError) -> Self {
        Self { action: e.action(), error: e.error().clone(), rejected: HashMap::new() }
    }
}

impl TransactionTask {
    /// Runs until `stop` is cancelled or no transaction can be committed any more, then closes the
    /// producer.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        // A number that no transaction of another process has, so that its offsets are recognised.
        let mut number = Uuid::now_v7().as_u128() as i64;
        let (first, max) = ABORT_BACKOFF;
        let mut backoff = Backoff::new(first, max);
        let (mut last, mut took_nothing, mut not_before) = (Instant::now(), false, None);
        loop {
            let work = self.transactions.wait_for_work(last, took_nothing, not_before);
            if stop.run_until_cancelled(work).await.is_none() {
                break;
            }
            last = Instant::now();
            number = number.wrapping_add(1);
            let cut = self.transactions.take(number, last);
            took_nothing = cut.is_none();
            let Some(cut) = cut else {
                self.transactions.on_ended(); // a drain need not wait for what can't be committed
                continue;
            };
            match self.run_transaction(cut).await {
                Ok(true) => {
                    backoff.reset();
                    not_before = None;
                }
                Ok(false) => not_before = Some(Instant::now() + backoff.next()),
                Err(e) => {
                    _ = self.fatal.try_send(e);
                    self.transactions.fail();
                    break;
                }
            }
            self.transactions.on_ended();
        }
        while self.hooks.join_next().await.is_some() {} // each has a timeout
        if let Err(e) = self.producer.close(CLOSE_TIMEOUT).await {
            tracing::warn!(group = %self.shared.group(), error = %e.full(), "the producer of a pipeline could not be closed");
        }
    }

    /// Writes one transaction; returns whether it is committed. If not, its records are collected
    /// again.
    ///
    /// # Errors
    /// The error because of which none can be committed any more.
    async fn run_transaction(&mut self, cut: TransactionCut) -> Result<bool> {
        let started_at = Instant::now();
        let mut acks = Acknowledgements::new();
        let outcome = self.send_and_commit(&cut).await.map(|acknowledged| acks = acknowledged);
        let shared = Arc::clone(&self.shared);
        let group = shared.group();
        let aborted = match outcome {
            Ok(()) => None,
            Err(aborted) if aborted.action == TransactionAction::Abort => Some(aborted),
            Err(aborted) if aborted.action == TransactionAction::Unknown => {
                tracing::warn!(group, error = %aborted.error.full(), "it is not known whether a transaction was committed: the committed offsets are fetched");
                if self.was_committed(&cut).await? { None } else { Some(aborted) }
            }
            Err(aborted) => {
                let what = format!("the pipeline of group {group:?} can't commit any more");
                let what = match aborted.action {
                    TransactionAction::Fenced => format!(
                        "{what}: another process has its transactional id {:?}, or a transaction took longer than its timeout",
                        self.producer.transactional_id()
                    ),
                    _ => what,
                };
                return Err(aborted.error.context(what));
            }
        };
        let took = started_at.elapsed();
        let (records, bytes) = (cut.size.records, cut.size.bytes);
        let error = aborted.as_ref().map(|a| a.error.kind());
        self.metrics.report(|| Observation::PipelineTransactionEnded { group, records, bytes, took, error });
        match aborted {
            None => self.on_committed(cut, &acks).await,
            Some(aborted) => {
                tracing::warn!(
                    group, records, error = %aborted.error.full(),
                    "a transaction was aborted: its outputs are written again, handlers are not called again"
                );
                self.on_aborted(cut, aborted.rejected).await;
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn send_and_commit(&mut self, cut: &TransactionCut) -> Result<Acknowledgements, Aborted> {
        let mut transaction = self.producer.begin().await?;
        let mut deliveries = Vec::new();
        for (p, (_, _, cut)) in cut.partitions.iter().enumerate() {
            for (i, ended) in cut.ended.iter().enumerate() {
                for record in ended.payload.records() {
                    match transaction.send(record).await {
                        Ok(delivery) => deliveries.push(((p, i), delivery)),
                        Err(error) => {
                            let rejected = rejected(deliveries, Some(((p, i), error.clone())));
                            transaction.abort().await?;
                            return Err(Aborted { action: TransactionAction::Abort, error, rejected });
                        }
                    }
                }
            }
        }
        let offsets = cut.partitions.iter().map(|(tp, _, cut)| (tp.clone(), cut.offset.clone()));
        let outcome = match transaction.send_offsets(&cut.group, offsets) {
            Ok(()) => transaction.commit().await,
            Err(error) => {
                return Err(Aborted { action: TransactionAction::Stop, error, rejected: HashMap::new() });
            }
        };
        match outcome {
            Ok(()) => Ok(acknowledgements(cut, deliveries)),
            Err(e) => Err(Aborted { rejected: rejected(deliveries, None), ..Aborted::from(e) }),
        }
    }

    /// Returns whether a transaction of unknown outcome was committed.
    async fn was_committed(&mut self, cut: &TransactionCut) -> Result<bool> {
        let (first, max) = ABORT_BACKOFF;
        let mut backoff = Backoff::new(first, max);
        loop {
            match self.producer.outcome().await {
                Some(Ok(outcome)) => return Ok(outcome == TransactionOutcome::Committed),
                Some(Err(e)) if e.action() == TransactionAction::Abort => return Ok(false),
                _ => {}
            }
            // A new epoch: the coordinator has ended the transaction before it returns one.
            match self.producer.begin().await {
                Ok(transaction) => {
                    drop(transaction); // empty: nothing is sent
                    break;
                }
                Err(e) if matches!(e.action(), TransactionAction::Fenced | TransactionAction::Stop) => {
                    return Err(e.into());
                }
                Err(_) => tokio::time::sleep(backoff.next()).await,
            }
        }
        // From here on the producer's outcome is that of the empty transaction, and means nothing here:
        // 1. The offsets can't be fetched now: the coordinator of the group moves.
        // 2. The outcome is "aborted", though the transaction of the cut was committed.
        // 3. Its outputs would be written twice.
        loop {
            let owned = cut.partitions.iter().filter(|(_, collector, _)| !collector.lock().is_closed());
            let partitions: Vec<_> = owned.clone().map(|(tp, ..)| tp.clone()).collect();
            if partitions.is_empty() {
                return Ok(false); // others own them, and read what was committed
            }
            let committed = Admin::new(&self.client).stable_offsets(self.shared.group(), &partitions).await;
            match committed {
                // The metadata has the number of the transaction, so no other can have committed it.
                Ok(committed) => {
                    return Ok(owned.into_iter().any(|(tp, _, cut)| committed.get(tp) == Some(&cut.offset)));
                }
                Err(e) => {
                    tracing::warn!(group = %self.shared.group(), error = %e.full(), "committed offsets can't be fetched; retrying");
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }

    async fn on_committed(&mut self, cut: TransactionCut, acks: &Acknowledgements) {
        let partitions = cut.partitions.len();
        let mut calls = Vec::new();
        for (p, (tp, collector, cut)) in cut.partitions.into_iter().enumerate() {
            let mut core = collector.lock();
            core.on_committed(&cut);
            collector.state.set_awaiting_commit(core.held().records);
            drop(core);
            for (i, ended) in cut.ended.iter().enumerate() {
                collector.state.set_paused(ended.offset(), None);
                if let Payload::Failed(failed) = &ended.payload {
                    let acks = acks.get(&(p, i)).map_or(&[][..], Vec::as_slice);
                    let (shared, metrics, on_dead_letter) =
                        (&*self.shared, &self.metrics, self.on_dead_letter.as_ref());
                    let reporting = Reporting { shared, metrics, on_dead_letter };
                    calls.extend(failed.iter().enumerate().filter_map(|(n, f)| reporting.report(f, acks.get(n))));
                }
            }
            let (offset, leader_epoch) = (cut.offset.offset, cut.offset.leader_epoch);
            let (group, topic, partition) = (self.shared.group(), &*tp.topic, tp.partition);
            self.metrics.report(|| Observation::CommittedOffset { group, topic, partition, offset });
            collector.state.set_committed(CommitPosition {
                offset,
                leader_epoch,
                metadata: cut.offset.metadata,
                seek: 0,
            });
        }
        let group = self.shared.group();
        self.metrics.report(|| Observation::Committed { group, partitions, error: None });
        self.shared.notify_progress();
        for call in calls {
            while self.hooks.len() >= MAX_HOOKS {
                self.hooks.join_next().await;
            }
            self.hooks.spawn(call.run());
        }
        while self.hooks.try_join_next().is_some() {}
    }

    async fn on_aborted(&self, cut: TransactionCut, mut rejected: HashMap<(usize, usize), Error>) {
        let now = Instant::now();
        for (p, (_, collector, mut cut)) in cut.partitions.into_iter().enumerate() {
            let mut delay = None::<Duration>;
            for (i, ended) in cut.ended.iter_mut().enumerate() {
                if let Some(error) = rejected.remove(&(p, i)) {
                    delay = delay.max(self.on_rejected(ended, &error).await);
                    let what = format!("outputs of offset {} can't be written: {error}", ended.offset());
                    collector.state.set_paused(ended.offset(), Some(what));
                }
            }
            let mut core = collector.lock();
            core.on_aborted(cut);
            if let Some(delay) = delay {
                core.hold_until(now + delay);
            }
        }
    }

    /// Handles outputs that the brokers reject: they are tried again as often as the record, then its
    /// dead letter is written in their place. Returns the time until then.
    async fn on_rejected(&self, ended: &mut EndedRecords, error: &Error) -> Option<Duration> {
        let backoff = Backoff::new(self.config.retry_backoff, self.config.retry_backoff_max);
        let delay = Some(backoff.after(ended.failures));
        ended.failures = ended.failures.saturating_add(1);
        let is_final = matches!(error.kind(), ErrorKind::RecordTooLarge | ErrorKind::InvalidRecord);
        let letters = match &mut ended.payload {
            Payload::Outputs(_, inputs) => {
                if !is_final && ended.failures < self.config.max_attempts {
                    return delay;
                }
                let now = Timestamp::now();
                let inputs = std::mem::take(inputs).into_iter().map(|message| {
                    let what = format!("an output can't be written: {}", error.full());
                    let attempts = message.attempt;
                    let failure = HandlerFailure { error: what.into(), attempts, first: now, last: now, retry: None };
                    self.transactions.dead_letters().failed_record(message, failure)
                });
                inputs.collect()
            }
            Payload::Failed(failed) => {
                let mut has_shrunk = false;
                for failed in failed.iter_mut() {
                    if error.kind() == ErrorKind::RecordTooLarge {
                        has_shrunk |= failed.shrink(error);
                    } else if error.is_unknown_topic() {
                        if let Err(e) = self.transactions.dead_letters().reopen(failed).await {
                            tracing::error!(topic = %failed.topic, error = %e.full(), "a dead-letter or retry topic can't be created");
                        }
                    }
                }
                return if has_shrunk { None } else { delay };
            }
        };
        ended.failures = 0;
        ended.payload = Payload::Failed(letters);
        None
    }
}

/// Returns the acknowledgements of the failed records of a committed cut.
fn acknowledgements(cut: &TransactionCut, deliveries: Vec<((usize, usize), Delivery)>) -> Acknowledgements {
    let mut acks = Acknowledgements::new();
    for ((p, i), delivery) in deliveries {
        let ended = cut.partitions.get(p).and_then(|(_, _, cut)| cut.ended.get(i));
        if ended.is_some_and(|ended| matches!(ended.payload, Payload::Failed(_))) {
            acks.entry((p, i)).or_default().extend(delivery.now_or_never().and_then(Result::ok));
        }
    }
    acks
}

/// Returns the records of a cut whose outputs the brokers reject.
fn rejected(
    deliveries: Vec<((usize, usize), Delivery)>,
    unsent: Option<((usize, usize), Error)>,
) -> HashMap<(usize, usize), Error> {
    let failed = deliveries.into_iter().filter_map(|(place, delivery)| Some((place, delivery.now_or_never()?.err()?)));
    let is_rejected = |e: &Error| {
        let kinds = [ErrorKind::RecordTooLarge, ErrorKind::InvalidRecord, ErrorKind::UnknownTopic];
        kinds.contains(&e.kind()) || matches!(e.kind(), ErrorKind::Authorization | ErrorKind::Config)
    };
    failed.chain(unsent).filter(|(_, e)| is_rejected(e)).collect()
}
