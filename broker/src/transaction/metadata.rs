//! State of one transactional id, as Kafka's coordinator has it.

use std::collections::BTreeSet;
use std::time::Duration;

use kafka_protocol::ResponseError;
use tokio::time::Instant;

/// Epoch of a producer id that no producer has received yet.
const NO_EPOCH: i16 = -1;
/// Last epoch that a producer receives; the one after it only fences.
const LAST_EPOCH: i16 = i16::MAX - 1;

/// Version of the transaction protocol that a client uses (KIP-890).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TransactionVersion {
    /// `transaction.version` 0 and 1: an epoch lasts until the producer is initialized again.
    V1,
    /// `transaction.version` 2: an epoch lasts for one transaction.
    V2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionState {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

impl TransactionState {
    pub const ALL: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    /// Returns the name of the state, as in ListTransactions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// Returns whether the outcome is decided and markers are missing.
    pub fn is_prepared(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerIdAndEpoch {
    pub id: i64,
    pub epoch: i16,
}

/// A partition, or a group whose offsets are committed in the transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Participant {
    Partition(String, i32),
    Group(String),
}

/// The end of a transaction, to be written to one participant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub transactional_id: String,
    pub producer: ProducerIdAndEpoch,
    pub coordinator_epoch: i32,
    pub commit: bool,
    /// With version 2 the epoch is one that no batch of the transaction has.
    pub version: TransactionVersion,
    pub participant: Participant,
}

#[derive(Debug)]
pub(crate) struct TransactionMetadata {
    pub(super) state: TransactionState,
    pub(super) producer: ProducerIdAndEpoch,
    /// Epoch before the last bump by its owner, whose requests are retries; [`NO_EPOCH`] for none.
    pub(super) last_epoch: i16,
    /// Producer id before its epochs were exhausted.
    previous_id: i64,
    /// Producer id after the transaction that ends, if it uses up the epochs.
    next_id: Option<i64>,
    pub(super) timeout: Duration,
    pub(super) participants: BTreeSet<Participant>,
    /// Time of the first registration of the open transaction.
    pub(super) started_at: Option<Instant>,
    pub(super) updated_at: Instant,
    pub(super) version: TransactionVersion,
    pub(super) coordinator_epoch: i32,
    /// True if the owner that is fenced by the coordinator may not continue from its epoch.
    forgets_fenced_epoch: bool,
}

impl TransactionMetadata {
    pub fn new(producer_id: i64, timeout: Duration, now: Instant, forgets_fenced_epoch: bool) -> Self {
        Self {
            state: TransactionState::Empty,
            producer: ProducerIdAndEpoch { id: producer_id, epoch: NO_EPOCH },
            last_epoch: NO_EPOCH,
            previous_id: -1,
            next_id: None,
            timeout,
            participants: BTreeSet::new(),
            started_at: None,
            updated_at: now,
            version: TransactionVersion::V1,
            coordinator_epoch: 0,
            forgets_fenced_epoch,
        }
    }

    pub fn state(&self) -> TransactionState {
        self.state
    }

    pub fn producer(&self) -> ProducerIdAndEpoch {
        self.producer
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns the time of the first registration of the open transaction.
    pub fn started_at(&self) -> Option<Instant> {
        self.started_at
    }

    /// Iterates over the participants whose markers are not written.
    pub fn participants(&self) -> impl Iterator<Item = &Participant> {
        self.participants.iter()
    }

    /// Initializes a producer: its owner by `expected`, or a new owner without it. Aborts an open
    /// transaction first and fails with CONCURRENT_TRANSACTIONS: the retry succeeds.
    pub fn init_producer(
        &mut self,
        expected: Option<ProducerIdAndEpoch>,
        timeout: Duration,
        now: Instant,
        new_producer_id: impl FnOnce() -> i64,
    ) -> Result<ProducerIdAndEpoch, ResponseError> {
        if expected.is_some_and(|e| !self.is_owner(e)) {
            return Err(ResponseError::ProducerFenced);
        }
        match self.state {
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                return Err(ResponseError::ConcurrentTransactions);
            }
            TransactionState::Ongoing => {
                self.fence_and_abort(now);
                return Err(ResponseError::ConcurrentTransactions);
            }
            TransactionState::Empty | TransactionState::CompleteCommit | TransactionState::CompleteAbort => {}
        }
        self.bump_epoch(expected, new_producer_id)?;
        self.state = TransactionState::Empty;
        self.timeout = timeout;
        self.updated_at = now;
        Ok(self.producer)
    }

    /// Returns whether the id is its own, or the one before its epochs were exhausted. The epoch is
    /// checked when it is bumped.
    fn is_owner(&self, expected: ProducerIdAndEpoch) -> bool {
        self.producer.epoch == NO_EPOCH
            || expected.id == self.producer.id
            || (expected.id == self.previous_id && expected.epoch >= LAST_EPOCH)
    }

    fn bump_epoch(
        &mut self,
        expected: Option<ProducerIdAndEpoch>,
        new_producer_id: impl FnOnce() -> i64,
    ) -> Result<(), ResponseError> {
        let current = self.producer.epoch;
        let is_exhausted = current >= LAST_EPOCH;
        match expected {
            Some(e) if e.epoch == self.last_epoch && e.epoch != current && current != NO_EPOCH => return Ok(()),
            Some(e) if e.epoch != current && current != NO_EPOCH => return Err(ResponseError::ProducerFenced),
            _ => {}
        }
        self.last_epoch = if expected.is_some() { current } else { NO_EPOCH };
        if is_exhausted {
            self.previous_id = self.producer.id;
            self.producer = ProducerIdAndEpoch { id: new_producer_id(), epoch: 0 };
        } else {
            self.producer.epoch = current.saturating_add(1);
        }
        Ok(())
    }

    /// Adds participants to the transaction, which opens with the first.
    pub fn add(
        &mut self,
        producer: ProducerIdAndEpoch,
        participants: impl IntoIterator<Item = Participant>,
        version: TransactionVersion,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.check_not_prepared(producer)?;
        if self.state != TransactionState::Ongoing {
            self.state = TransactionState::Ongoing;
            self.started_at = Some(now);
        }
        self.version = version;
        self.participants.extend(participants);
        self.updated_at = now;
        Ok(())
    }

    /// Fails unless the participant was added to the transaction.
    pub fn verify(&self, producer: ProducerIdAndEpoch, participant: &Participant) -> Result<(), ResponseError> {
        self.check_not_prepared(producer)?;
        if self.participants.contains(participant) { Ok(()) } else { Err(ResponseError::TransactionAbortable) }
    }

    fn check_not_prepared(&self, producer: ProducerIdAndEpoch) -> Result<(), ResponseError> {
        if self.producer.id != producer.id {
            return Err(ResponseError::InvalidProducerIdMapping);
        }
        if self.producer.epoch != producer.epoch {
            return Err(ResponseError::ProducerFenced);
        }
        if self.state.is_prepared() { Err(ResponseError::ConcurrentTransactions) } else { Ok(()) }
    }

    /// Ends the transaction; returns producer id and epoch of the next one.
    pub fn end(
        &mut self,
        producer: ProducerIdAndEpoch,
        commit: bool,
        version: TransactionVersion,
        now: Instant,
        new_producer_id: impl FnOnce() -> i64,
    ) -> Result<ProducerIdAndEpoch, ResponseError> {
        let is_needed = match version {
            TransactionVersion::V1 => self.check_end_v1(producer, commit)?,
            TransactionVersion::V2 => self.check_end_v2(producer, commit)?,
        };
        if !is_needed {
            return Ok(self.producer);
        }
        self.version = version;
        if version == TransactionVersion::V2 {
            self.last_epoch = self.producer.epoch;
            self.next_id = (self.last_epoch >= LAST_EPOCH).then(new_producer_id);
            self.producer.epoch = self.last_epoch.saturating_add(1);
        }
        let next = self.next_id.map_or(self.producer, |id| ProducerIdAndEpoch { id, epoch: 0 });
        self.prepare(commit, now);
        Ok(next)
    }

    /// Returns whether there is a transaction to end; false for a retry.
    fn check_end_v1(&self, producer: ProducerIdAndEpoch, commit: bool) -> Result<bool, ResponseError> {
        if self.producer.id != producer.id {
            return Err(ResponseError::InvalidProducerIdMapping);
        }
        if self.producer.epoch != producer.epoch {
            return Err(ResponseError::ProducerFenced);
        }
        match (self.state, commit) {
            (TransactionState::Ongoing, _) => Ok(true),
            (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false) => Ok(false),
            (TransactionState::PrepareCommit, true) | (TransactionState::PrepareAbort, false) => {
                Err(ResponseError::ConcurrentTransactions)
            }
            _ => Err(ResponseError::InvalidTxnState),
        }
    }

    /// Like [`check_end_v1`](Self::check_end_v1). A retry has the epoch before the stored one,
    /// because the first request bumped it; with the stored one, the next transaction ends.
    fn check_end_v2(&self, producer: ProducerIdAndEpoch, commit: bool) -> Result<bool, ResponseError> {
        let stored = self.producer;
        let has_rotated = self.previous_id == producer.id && producer.epoch == LAST_EPOCH && stored.epoch == 0;
        if stored.id != producer.id && !has_rotated {
            return Err(ResponseError::InvalidProducerIdMapping);
        }
        let is_retry = has_rotated || producer.epoch.checked_add(1) == Some(stored.epoch);
        let is_current = producer == stored;
        match (self.state, commit) {
            (TransactionState::Ongoing, _) if is_current => Ok(true),
            (TransactionState::Empty, false) if is_current => Ok(true),
            (TransactionState::Empty, true) if is_current => Err(ResponseError::InvalidTxnState),
            (TransactionState::PrepareCommit, true) | (TransactionState::PrepareAbort, false) if is_retry => {
                Err(ResponseError::ConcurrentTransactions)
            }
            (TransactionState::PrepareCommit | TransactionState::PrepareAbort, _) if is_retry => {
                Err(ResponseError::InvalidTxnState)
            }
            (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false) if is_retry => {
                Ok(false)
            }
            (TransactionState::CompleteCommit | TransactionState::CompleteAbort, false) if is_current => Ok(true),
            (TransactionState::CompleteCommit | TransactionState::CompleteAbort, _) if is_retry || is_current => {
                Err(ResponseError::InvalidTxnState)
            }
            _ => Err(ResponseError::ProducerFenced),
        }
    }

    /// Aborts the open transaction and fences its owner. Kafka 4 lets the owner continue by an
    /// InitProducerId with its epoch, unless a new one came first; older brokers do not.
    pub fn fence_and_abort(&mut self, now: Instant) {
        self.last_epoch = if self.forgets_fenced_epoch { NO_EPOCH } else { self.producer.epoch };
        self.producer.epoch = self.producer.epoch.saturating_add(1);
        self.prepare(false, now);
    }

    fn prepare(&mut self, commit: bool, now: Instant) {
        self.state = if commit { TransactionState::PrepareCommit } else { TransactionState::PrepareAbort };
        self.updated_at = now;
        self.complete_if_written(now);
    }

    /// Removes a participant whose marker was written.
    pub fn on_marker_written(&mut self, participant: &Participant, now: Instant) {
        if self.state.is_prepared() {
            self.participants.remove(participant);
            self.complete_if_written(now);
        }
    }

    fn complete_if_written(&mut self, now: Instant) {
        if !self.participants.is_empty() {
            return;
        }
        let is_commit = self.state == TransactionState::PrepareCommit;
        self.state = if is_commit { TransactionState::CompleteCommit } else { TransactionState::CompleteAbort };
        self.started_at = None;
        self.updated_at = now;
        if let Some(id) = self.next_id.take() {
            self.previous_id = self.producer.id;
            self.producer = ProducerIdAndEpoch { id, epoch: 0 };
        }
    }

    pub fn on_coordinator_moved(&mut self, forgets_last_epoch: bool) {
        self.coordinator_epoch += 1;
        if forgets_last_epoch {
            self.last_epoch = NO_EPOCH;
        }
    }

    /// Returns the markers of a prepared transaction.
    pub fn markers(&self, transactional_id: &str) -> Vec<Marker> {
        let marker = |participant: &Participant| Marker {
            transactional_id: transactional_id.to_owned(),
            producer: self.producer,
            coordinator_epoch: self.coordinator_epoch,
            commit: self.state == TransactionState::PrepareCommit,
            version: self.version,
            participant: participant.clone(),
        };
        self.participants.iter().map(marker).collect()
    }

    /// Returns when the open transaction is aborted.
    pub fn times_out_at(&self) -> Option<Instant> {
        let started_at = self.started_at.filter(|_| self.state == TransactionState::Ongoing)?;
        started_at.checked_add(self.timeout)
    }
}
