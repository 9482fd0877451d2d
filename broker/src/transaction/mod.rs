//! The transaction coordinator, as a state machine without clock, socket or task: transactional ids
//! with their producers, and the markers of ended transactions that are not written yet.
//!
//! Rules are those of Kafka's coordinator for both versions of the protocol (KIP-98, KIP-360,
//! KIP-890), or of Redpanda's where it differs. The caller passes the time, writes the markers of
//! [`poll_markers`](TransactionCoordinator::poll_markers), and calls
//! [`tick`](TransactionCoordinator::tick) no later than
//! [`deadline`](TransactionCoordinator::deadline).

mod metadata;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use metadata::{
    Marker, Participant, ProducerIdAndEpoch, TransactionMetadata, TransactionState, TransactionVersion,
};

/// Coordinator whose rules apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionRules {
    /// Rules of Kafka 4.
    Kafka,
    /// Rules of Kafka 3: an owner whose transaction the coordinator aborted stays fenced.
    Kafka3,
    /// Rules of Kafka 3, but a fenced producer fails with INVALID_PRODUCER_EPOCH, an empty
    /// transaction may end, and a request of an id first completes the markers of its last
    /// transaction.
    Redpanda,
}

/// All transactional ids, whichever node coordinates them.
#[derive(Debug)]
pub(crate) struct TransactionCoordinator {
    rules: TransactionRules,
    max_timeout: Duration,
    /// Time after which an idle id is forgotten.
    expiration: Duration,
    transactions: BTreeMap<String, TransactionMetadata>,
    last_producer_id: i64,
    new_markers: Vec<Marker>,
    /// Markers that are delayed, until then, or held.
    waiting: Vec<(Marker, Option<Instant>)>,
    /// Ids that a new coordinator loads, until then.
    loading: BTreeMap<String, Instant>,
    changed: Arc<Notify>,
}

impl TransactionCoordinator {
    pub fn new(rules: TransactionRules, max_timeout: Duration, expiration: Duration) -> Self {
        Self {
            rules,
            max_timeout,
            expiration,
            transactions: BTreeMap::new(),
            last_producer_id: 1000,
            new_markers: Vec::new(),
            waiting: Vec::new(),
            loading: BTreeMap::new(),
            changed: Arc::default(),
        }
    }

    pub fn rules(&self) -> TransactionRules {
        self.rules
    }

    /// Returns what is notified after a change that may have brought a deadline forward.
    pub fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }

    pub fn new_producer_id(&mut self) -> i64 {
        self.last_producer_id += 1;
        self.last_producer_id
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &TransactionMetadata)> {
        self.transactions.iter().map(|(id, t)| (id.as_str(), t))
    }

    pub fn get(&self, id: &str) -> Option<&TransactionMetadata> {
        self.transactions.get(id)
    }

    /// Initializes the producer of an id; see [`TransactionMetadata::init_producer`].
    pub fn init_producer(
        &mut self,
        id: &str,
        timeout: Duration,
        expected: Option<ProducerIdAndEpoch>,
        now: Instant,
    ) -> Result<ProducerIdAndEpoch, ResponseError> {
        self.check_loaded(id, now)?;
        if timeout.is_zero() || timeout > self.max_timeout {
            return Err(ResponseError::InvalidTransactionTimeout);
        }
        if !self.transactions.contains_key(id) {
            let producer_id = self.new_producer_id();
            let forgets = self.rules != TransactionRules::Kafka;
            self.transactions.insert(id.to_owned(), TransactionMetadata::new(producer_id, timeout, now, forgets));
            self.changed.notify_one();
        }
        self.update(id, now, |t, new_id| t.init_producer(expected, timeout, now, new_id))
    }

    /// Adds participants to the transaction of an id.
    pub fn add(
        &mut self,
        id: &str,
        producer: ProducerIdAndEpoch,
        participants: impl IntoIterator<Item = Participant>,
        version: TransactionVersion,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.update(id, now, |t, _| t.add(producer, participants, version, now))
    }

    /// Fails with TRANSACTION_ABORTABLE unless the participant was added to the transaction.
    pub fn verify(
        &self,
        id: &str,
        producer: ProducerIdAndEpoch,
        participant: &Participant,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.check_loaded(id, now)?;
        let found = self.transactions.get(id).ok_or(ResponseError::InvalidProducerIdMapping)?;
        found.verify(producer, participant).map_err(|error| self.by_rules(error))
    }

    /// Ends the transaction of an id; returns producer id and epoch of the next one.
    pub fn end(
        &mut self,
        id: &str,
        producer: ProducerIdAndEpoch,
        commit: bool,
        version: TransactionVersion,
        now: Instant,
    ) -> Result<ProducerIdAndEpoch, ResponseError> {
        let is_redpanda = self.rules == TransactionRules::Redpanda;
        self.update(id, now, |t, new_id| {
            if is_redpanda && t.state == TransactionState::Empty && t.producer == producer {
                return Ok(producer);
            }
            t.end(producer, commit, version, now, new_id)
        })
    }

    /// Applies `step` to an id, and collects the markers if that has ended its transaction.
    fn update<T>(
        &mut self,
        id: &str,
        now: Instant,
        step: impl FnOnce(&mut TransactionMetadata, &mut dyn FnMut() -> i64) -> Result<T, ResponseError>,
    ) -> Result<T, ResponseError> {
        self.check_loaded(id, now)?;
        let found = self.transactions.get_mut(id).ok_or(ResponseError::InvalidProducerIdMapping)?;
        let before = found.state;
        let last_id = &mut self.last_producer_id;
        let mut new_producer_id = || {
            *last_id += 1;
            *last_id
        };
        let result = step(found, &mut new_producer_id);
        if !before.is_prepared() && found.state.is_prepared() {
            self.new_markers.append(&mut found.markers(id));
        }
        if found.state != before {
            self.changed.notify_one();
        }
        result.map_err(|error| self.by_rules(error))
    }

    fn by_rules(&self, error: ResponseError) -> ResponseError {
        match (self.rules, error) {
            (TransactionRules::Redpanda, ResponseError::ProducerFenced) => ResponseError::InvalidProducerEpoch,
            (_, error) => error,
        }
    }

    fn check_loaded(&self, id: &str, now: Instant) -> Result<(), ResponseError> {
        match self.loading.get(id) {
            Some(&until) if now < until => Err(ResponseError::CoordinatorLoadInProgress),
            _ => Ok(()),
        }
    }

    /// Moves an id to another node, which loads it until `loaded_at`. Its state stays: it is in a
    /// log. The last epoch may not be (KAFKA-20357): then the retry of an InitProducerId is fenced.
    pub fn on_coordinator_moved(&mut self, id: &str, loaded_at: Instant, forgets_last_epoch: bool) {
        self.loading.insert(id.to_owned(), loaded_at);
        if let Some(found) = self.transactions.get_mut(id) {
            found.on_coordinator_moved(forgets_last_epoch);
        }
    }

    /// Returns the markers to write now: the new ones, and the delayed ones that are due.
    pub fn poll_markers(&mut self, now: Instant) -> (Vec<Marker>, Vec<Marker>) {
        let is_due = |(_, until): &(Marker, Option<Instant>)| until.is_some_and(|at| at <= now);
        let (due, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting).into_iter().partition(is_due);
        self.waiting = waiting;
        (std::mem::take(&mut self.new_markers), due.into_iter().map(|(marker, _)| marker).collect())
    }

    /// Delays a marker until then, or until it is released.
    pub fn delay_marker(&mut self, marker: Marker, until: Option<Instant>) {
        self.waiting.push((marker, until));
        self.changed.notify_one();
    }

    /// Makes all delayed and held markers due; returns their number.
    pub fn release_markers(&mut self, now: Instant) -> usize {
        self.waiting.iter_mut().for_each(|(_, until)| *until = Some(now));
        self.waiting.len()
    }

    /// Makes the delayed markers of an id due, by Redpanda's rules.
    pub fn complete_last(&mut self, id: &str, now: Instant) {
        if self.rules == TransactionRules::Redpanda {
            let delayed = self.waiting.iter_mut().filter(|(m, until)| m.transactional_id == id && until.is_some());
            delayed.for_each(|(_, until)| *until = Some(now));
        }
    }

    /// Returns the number of markers that are delayed or held.
    pub fn waiting_markers(&self) -> usize {
        self.waiting.len()
    }

    /// Completes a transaction whose last marker was written.
    pub fn on_marker_written(&mut self, marker: &Marker, now: Instant) {
        if let Some(found) = self.transactions.get_mut(&marker.transactional_id) {
            found.on_marker_written(&marker.participant, now);
        }
    }

    /// Aborts transactions that timed out, and forgets expired ids.
    pub fn tick(&mut self, now: Instant) {
        for (id, found) in &mut self.transactions {
            if found.times_out_at().is_some_and(|at| at <= now) {
                found.fence_and_abort(now);
                self.new_markers.append(&mut found.markers(id));
            }
        }
        let expiration = self.expiration;
        self.transactions.retain(|_, t| expires_at(t, expiration).is_none_or(|at| at > now));
        self.loading.retain(|_, until| *until > now);
    }

    /// Returns the time by which [`tick`](Self::tick) and [`poll_markers`](Self::poll_markers) must
    /// be called.
    pub fn deadline(&self) -> Option<Instant> {
        let timeouts = self.transactions.values().filter_map(TransactionMetadata::times_out_at);
        let expirations = self.transactions.values().filter_map(|t| expires_at(t, self.expiration));
        let markers = self.waiting.iter().filter_map(|(_, until)| *until);
        timeouts.chain(expirations).chain(markers).min()
    }
}

/// Returns when an id without a transaction is forgotten.
fn expires_at(transaction: &TransactionMetadata, expiration: Duration) -> Option<Instant> {
    let is_idle = transaction.state != TransactionState::Ongoing && !transaction.state.is_prepared();
    transaction.updated_at.checked_add(expiration).filter(|_| is_idle)
}
