//! The state of a transactional producer, without I/O: which request goes to a coordinator next,
//! and what its response means.
//!
//! One request is in flight at a time. Inputs: [`on_begin`](Core::on_begin),
//! [`on_partitions_used`](Core::on_partitions_used), [`on_offsets`](Core::on_offsets),
//! [`on_send_failure`](Core::on_send_failure), [`on_end`](Core::on_end),
//! [`on_response`](Core::on_response) and [`on_timeout`](Core::on_timeout). Outputs:
//! [`poll_request`](Core::poll_request), [`poll_effect`](Core::poll_effect), the time of
//! [`next_timeout`](Core::next_timeout), and the outcome of the last transaction.
//!
//! Invariants, whatever happens:
//! - A commit is sent only if every batch and every offset of the transaction was accepted.
//! - Once a commit was sent, the transaction is not aborted unless the coordinator says that it was
//!   not committed: until then the same verdict is sent again.
//! - A request without a response may still arrive. With transaction version 1 brokers can't
//!   distinguish its transaction from the next one, so the next one gets a new epoch, with which they
//!   reject what is late. With version 2 each end brings a new epoch.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::status::Status;
pub(super) use self::status::TransactionEnd;
use super::action::{Action, RequestKind, Version, action_of_produce};
use super::error::{TransactionAction, TransactionError, TransactionOutcome};
use crate::cluster::offset_commit::OffsetAndMetadata;
use crate::cluster::{Backoff, ConsumerGroupMetadata};
use crate::error::{Error, ErrorKind};
use crate::producer::accumulator::SendFailure;
use crate::producer::partition::ProducerIdAndEpoch;
use crate::record::TopicPartition;

mod poll;
mod responses;
mod status;
#[cfg(test)]
mod tests;

/// First wait while the end of the last transaction is being written, which takes a millisecond or
/// a few.
const CONCURRENT_BACKOFF: Duration = Duration::from_millis(2);
/// Longest such wait.
const CONCURRENT_BACKOFF_MAX: Duration = Duration::from_millis(500);
/// Number of UNKNOWN_SERVER_ERROR in a row after which InitProducerId is not retried.
const MAX_SERVER_ERRORS: u32 = 5;

#[derive(Debug, Clone)]
pub(super) struct CoreConfig {
    pub(super) transactional_id: Arc<str>,
    /// True if no other producer can have the id: being fenced then means that a transaction timed
    /// out.
    pub(super) exclusive: bool,
    /// Transaction timeout, which also bounds each wait.
    pub(super) timeout: Duration,
    pub(super) backoff: Backoff,
    /// A mutation for tests: the epoch of version 1 stays after a request of unknown effect.
    pub(super) keeps_epoch: bool,
}

/// A request to a coordinator.
#[derive(Debug, Clone)]
pub(super) enum Request {
    /// The coordinator of a group, or of the transactional id.
    FindCoordinator(Option<Arc<str>>),
    /// The present id and epoch, which the response raises; `None` to take the transactional id over
    /// from any producer that has it.
    InitProducerId(Option<ProducerIdAndEpoch>),
    AddPartitions(ProducerIdAndEpoch, Vec<TopicPartition>),
    AddOffsets(ProducerIdAndEpoch, Arc<str>),
    CommitOffsets(ProducerIdAndEpoch, Version, GroupOffsets),
    EndTxn {
        producer: ProducerIdAndEpoch,
        version: Version,
        commit: bool,
    },
}

impl Request {
    pub(super) fn kind(&self) -> RequestKind {
        match self {
            Self::FindCoordinator(_) => RequestKind::FindCoordinator,
            Self::InitProducerId(_) => RequestKind::InitProducerId,
            Self::AddPartitions(..) => RequestKind::AddPartitions,
            Self::AddOffsets(..) => RequestKind::AddOffsets,
            Self::CommitOffsets(..) => RequestKind::CommitOffsets,
            Self::EndTxn { .. } => RequestKind::EndTxn,
        }
    }
}

/// Offsets of a group that are committed with the transaction.
#[derive(Debug, Clone)]
pub(super) struct GroupOffsets {
    pub(super) group: ConsumerGroupMetadata,
    pub(super) offsets: BTreeMap<TopicPartition, OffsetAndMetadata>,
    /// True once the coordinator has added the group to the transaction.
    added: bool,
}

/// A response without an error.
#[derive(Debug, Clone, Copy)]
pub(super) enum Response {
    Coordinator(i32),
    Producer(ProducerIdAndEpoch),
    Done,
}

/// A request that failed, with the error code of its response, if there was one.
#[derive(Debug)]
pub(super) struct RequestFailure {
    pub(super) code: Option<i16>,
    pub(super) error: Error,
}

/// A change outside of the core.
#[derive(Debug)]
pub(super) enum Effect {
    /// Send batches with this id and epoch, from sequence 0 on.
    SetProducer(ProducerIdAndEpoch),
    /// Batches of these partitions may be sent.
    PartitionsAdded(Vec<TopicPartition>),
    /// The transaction is to be aborted: fail what is pending.
    FailPending(Error),
}

/// The accumulator's part of the transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sends {
    pub(super) any: bool,
    pub(super) unfinished: bool,
}

/// The result of [`Core::on_begin`].
#[derive(Debug)]
pub(super) enum Begin {
    Open(Version),
    /// The last transaction is not over, or there is no producer id yet.
    Wait,
    /// As [`Wait`](Self::Wait), and the task has something new to send.
    Wake,
    Failed(TransactionError),
}

#[derive(Debug)]
enum State {
    /// Not started.
    Unset,
    /// It gets a producer id or a new epoch; `fresh`: without naming the present one.
    Init {
        fresh: bool,
    },
    Ready,
    Open,
    /// It commits.
    Ending,
    /// It aborts; `raise`: the next transaction needs a new epoch; `fresh`: the coordinator has
    /// aborted it, or is to by a new producer id.
    MustAbort {
        raise: bool,
        fresh: bool,
    },
    /// A commit was not confirmed in time, and is sent again until it is.
    Unknown,
    /// Another producer has the id.
    Fenced(Error),
    /// It can't go on.
    Broken(Error),
}

/// The coordinator's knowledge of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registration {
    No,
    /// A request that registers it was sent.
    Maybe,
    Yes,
}

/// The open transaction, or the last one until it is over.
#[derive(Debug)]
struct Transaction {
    version: Version,
    to_add: Vec<TopicPartition>,
    registration: Registration,
    offsets: VecDeque<GroupOffsets>,
    failure: Option<Error>,
    /// True if a failure needs a new epoch.
    raise: bool,
    /// True if the coordinator has aborted it.
    timed_out: bool,
    wants_commit: bool,
    commit_sent: bool,
    /// True if a request got no response, and may still arrive.
    indefinite: bool,
    /// True if it has ended without a request that is part of it.
    is_empty: bool,
    /// Time at which the application gets a result, whatever it is.
    deadline: Option<Instant>,
}

impl Transaction {
    fn new(version: Version) -> Self {
        Self {
            version,
            to_add: Vec::new(),
            registration: Registration::No,
            offsets: VecDeque::new(),
            failure: None,
            raise: false,
            timed_out: false,
            wants_commit: false,
            commit_sent: false,
            indefinite: false,
            is_empty: false,
            deadline: None,
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Core {
    config: CoreConfig,
    state: State,
    transaction: Transaction,
    producer: Option<ProducerIdAndEpoch>,
    /// Version at the time at which the epoch was assigned.
    epoch_version: Version,
    /// Epoch of the finalized features, and their `transaction.version`.
    feature: Option<(i64, i16)>,
    coordinator: Option<i32>,
    group_coordinators: HashMap<Arc<str>, i32>,
    in_flight: Option<Request>,
    retry_at: Option<Instant>,
    backoff: Backoff,
    concurrent_backoff: Backoff,
    server_errors: u32,
    /// The last failure of the request that is being retried.
    last_error: Option<Error>,
    effects: VecDeque<Effect>,
    outcome: Option<Result<TransactionOutcome, TransactionError>>,
    status: Status,
}

impl Core {
    pub(super) fn new(config: CoreConfig) -> Self {
        let backoff = config.backoff.clone();
        Self {
            config,
            state: State::Unset,
            transaction: Transaction::new(Version::V1),
            producer: None,
            epoch_version: Version::V1,
            feature: None,
            coordinator: None,
            group_coordinators: HashMap::new(),
            in_flight: None,
            retry_at: None,
            backoff,
            concurrent_backoff: Backoff::new(CONCURRENT_BACKOFF, CONCURRENT_BACKOFF_MAX),
            server_errors: 0,
            last_error: None,
            effects: VecDeque::new(),
            outcome: None,
            status: Status::default(),
        }
    }

    // State.

    /// Returns the broker that coordinates a group, or the transactional id.
    pub(super) fn coordinator(&self, group: Option<&Arc<str>>) -> Option<i32> {
        match group {
            Some(group) => self.group_coordinators.get(group).copied(),
            None => self.coordinator,
        }
    }

    /// Returns the version in which a transaction would begin now.
    fn version(&self) -> Version {
        if self.feature.is_some_and(|(_, level)| level >= 2) { Version::V2 } else { Version::V1 }
    }

    /// Returns the version of the open transaction.
    #[cfg(test)]
    pub(super) fn open_version(&self) -> Version {
        self.transaction.version
    }

    /// Returns how the last transaction ended; none while that is not known.
    pub(super) fn outcome(&self) -> Option<&Result<TransactionOutcome, TransactionError>> {
        self.outcome.as_ref()
    }

    /// Returns whether the coordinator is still to confirm the last commit.
    pub(super) fn is_unconfirmed(&self) -> bool {
        matches!(self.state, State::Ending | State::Unknown)
    }

    /// Returns whether it has a producer id, or the error because of which it gets none.
    pub(super) fn started(&self) -> Option<Result<(), TransactionError>> {
        match &self.state {
            State::Ready => Some(Ok(())),
            State::Fenced(e) => Some(Err(TransactionError::new(TransactionAction::Fenced, e.clone()))),
            State::Broken(e) => Some(Err(TransactionError::new(TransactionAction::Stop, e.clone()))),
            _ => None,
        }
    }

    /// Returns whether nothing is to be done before the next transaction.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Unset | State::Ready | State::Fenced(_) | State::Broken(_))
    }

    /// Returns the error of a caller that has waited for as long as it may.
    pub(super) fn wait_error(&self) -> TransactionError {
        let what = format!(
            "the coordinator of transactional id {:?} did not let a transaction begin within {:?}",
            self.config.transactional_id, self.config.timeout
        );
        let error = match &self.last_error {
            Some(cause) => Error::with_source(ErrorKind::Timeout, what, cause.clone()),
            None => Error::new(ErrorKind::Timeout, what),
        };
        let is_unknown = matches!(self.state, State::Unknown);
        TransactionError::new(if is_unknown { TransactionAction::Unknown } else { TransactionAction::Abort }, error)
    }

    // Inputs of the application.

    /// Takes the transactional id over: from now on a producer that has it is fenced.
    pub(super) fn on_start(&mut self) {
        self.state = State::Init { fresh: true };
    }

    pub(super) fn on_begin(&mut self, now: Instant) -> Begin {
        let failed = |action, error: &Error| Begin::Failed(TransactionError::new(action, error.clone()));
        match &self.state {
            State::Fenced(e) => failed(TransactionAction::Fenced, e),
            State::Broken(e) => failed(TransactionAction::Stop, e),
            State::Open => {
                self.on_end(now, false); // its guard was forgotten
                Begin::Wake
            }
            // The epoch of version 1 may have been in requests that are late.
            State::Ready if self.epoch_version == Version::V1 && self.version() == Version::V2 => {
                self.state = State::Init { fresh: false };
                Begin::Wake
            }
            State::Ready => {
                let version = self.version();
                self.epoch_version = version;
                self.transaction = Transaction::new(version);
                self.status.on_begin(now);
                self.outcome = None;
                self.state = State::Open;
                Begin::Open(version)
            }
            State::Unset | State::Init { .. } | State::Ending | State::MustAbort { .. } | State::Unknown => Begin::Wait,
        }
    }

    /// Takes partitions that got records. With version 1 they are added before anything is sent to
    /// them.
    pub(super) fn on_partitions_used(&mut self, partitions: Vec<TopicPartition>) {
        self.transaction.to_add.extend(partitions);
    }

    /// Adds offsets; a later one of a partition replaces an earlier one.
    pub(super) fn on_offsets(
        &mut self,
        group: ConsumerGroupMetadata,
        offsets: impl IntoIterator<Item = (TopicPartition, OffsetAndMetadata)>,
    ) {
        let all = &mut self.transaction.offsets;
        match all.iter_mut().find(|known| known.group.group() == group.group()) {
            Some(known) => {
                known.group = group;
                known.offsets.extend(offsets);
            }
            None => all.push_back(GroupOffsets { group, offsets: offsets.into_iter().collect(), added: false }),
        }
    }

    /// Commits or aborts the open transaction.
    pub(super) fn on_end(&mut self, now: Instant, commit: bool) {
        self.status.on_end(now);
        self.transaction.wants_commit = commit;
        self.transaction.deadline = Some(now + self.config.timeout);
        match &self.state {
            State::Fenced(e) => {
                let error = TransactionError::new(TransactionAction::Fenced, e.clone());
                self.finish(now, Err(error));
            }
            State::Broken(e) => {
                let error = TransactionError::new(TransactionAction::Stop, e.clone());
                self.finish(now, Err(error));
            }
            State::Open if commit && self.transaction.failure.is_none() => self.state = State::Ending,
            State::Open => self.start_abort(),
            _ => {}
        }
    }

    fn start_abort(&mut self) {
        let aborted = || Error::new(ErrorKind::TransactionAborted, "the application has aborted the transaction");
        self.effects.push_back(Effect::FailPending(self.transaction.failure.clone().unwrap_or_else(aborted)));
        self.state = State::MustAbort { raise: self.transaction.raise, fresh: self.transaction.timed_out };
        self.retry_at = None;
    }

    // Inputs of brokers.

    /// Takes the finalized `transaction.version` that a broker knows, with the features' epoch.
    pub(super) fn on_feature(&mut self, epoch: i64, level: i16) {
        if self.feature.is_none_or(|(known, _)| epoch >= known) {
            self.feature = Some((epoch, level));
        }
    }

    /// Takes the failure of a batch; may be called again with the same one.
    pub(super) fn on_send_failure(&mut self, now: Instant, failure: &SendFailure) {
        self.transaction.raise |= failure.needs_epoch;
        if let State::MustAbort { raise, .. } = &mut self.state {
            *raise |= failure.needs_epoch;
        }
        if self.transaction.failure.is_none() && matches!(self.state, State::Open | State::Ending) {
            let code = failure.error.broker_code();
            let action = code.map_or(Action::Abort, |code| action_of_produce(self.transaction.version, code));
            self.on_failure(now, action, failure.error.clone());
        }
    }

    /// Ends the transaction because of a failure after which it can't be committed.
    fn on_failure(&mut self, now: Instant, action: Action, error: Error) {
        match action {
            Action::Fenced if !self.config.exclusive => return self.stop(now, TransactionAction::Fenced, error),
            Action::Stop => return self.stop(now, TransactionAction::Stop, error),
            Action::Fenced => self.transaction.timed_out = true,
            Action::AbortAndRaise => self.transaction.raise = true,
            _ => {}
        }
        self.transaction.failure.get_or_insert(error.clone());
        match self.state {
            State::Open => self.effects.push_back(Effect::FailPending(error)),
            State::Ending => self.start_abort(),
            _ => {}
        }
    }

    fn stop(&mut self, now: Instant, action: TransactionAction, error: Error) {
        let id = &self.config.transactional_id;
        tracing::warn!(transactional_id = %id, error = %error.full(), ?action, "a transactional producer can't go on");
        self.effects.push_back(Effect::FailPending(error.clone()));
        self.status.on_error(now, TransactionError::new(action, error.clone()));
        let was_open = matches!(self.state, State::Open);
        self.state = match action {
            TransactionAction::Fenced => State::Fenced(error.clone()),
            _ => State::Broken(error.clone()),
        };
        self.transaction.deadline = None;
        if !was_open {
            // A commit that was sent before without a response may have taken effect.
            let unknown = self.transaction.commit_sent && self.transaction.indefinite;
            let action = if unknown { TransactionAction::Unknown } else { action };
            self.finish(now, Err(TransactionError::new(action, error)));
        }
    }

    /// Sets the outcome, once.
    fn finish(&mut self, now: Instant, outcome: Result<TransactionOutcome, TransactionError>) {
        self.transaction.deadline = None;
        if self.outcome.is_none() {
            if outcome.is_err() || !self.transaction.is_empty {
                self.status.on_outcome(now, &outcome);
            }
            self.outcome = Some(outcome);
        }
    }

    /// Sets the outcome of a transaction that is aborted.
    fn finish_aborted(&mut self, now: Instant) {
        let Transaction { failure, wants_commit, commit_sent, indefinite, .. } = &self.transaction;
        let outcome = match failure {
            Some(error) if *wants_commit => {
                let unknown = *commit_sent && *indefinite;
                let action = if unknown { TransactionAction::Unknown } else { TransactionAction::Abort };
                Err(TransactionError::new(action, error.clone()))
            }
            _ => Ok(TransactionOutcome::Aborted),
        };
        self.finish(now, outcome);
    }

    // Outputs.

    pub(super) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Returns when [`on_timeout`](Self::on_timeout) or [`poll_request`](Self::poll_request) has
    /// something to do.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let retry = self.retry_at.filter(|_| self.in_flight.is_none());
        [retry, self.transaction.deadline].into_iter().flatten().min()
    }

    /// Gives the application a result if it has waited for long enough.
    pub(super) fn on_timeout(&mut self, now: Instant) {
        if self.transaction.deadline.is_none_or(|at| at > now) {
            return;
        }
        self.transaction.deadline = None;
        let timed_out = |core: &Self, what: &str| {
            let id = &core.config.transactional_id;
            let text =
                format!("{what} within the transaction timeout of {:?} (transactional id {id:?})", core.config.timeout);
            match &core.last_error {
                Some(cause) => Error::with_source(ErrorKind::Timeout, text, cause.clone()),
                None => Error::new(ErrorKind::Timeout, text),
            }
        };
        match self.state {
            State::Ending if self.transaction.commit_sent => {
                let error = timed_out(self, "the coordinator has not confirmed the commit");
                let id = &self.config.transactional_id;
                tracing::warn!(transactional_id = %id, error = %error.full(), "a commit is not confirmed; it is retried");
                self.state = State::Unknown;
                self.finish(now, Err(TransactionError::new(TransactionAction::Unknown, error)));
            }
            State::Ending => {
                let error = timed_out(self, "not all records and offsets of a transaction were acknowledged");
                self.transaction.failure.get_or_insert(error);
                self.start_abort();
                self.finish_aborted(now);
            }
            // It goes on, and the next transaction waits for it.
            State::MustAbort { .. } => self.finish_aborted(now),
            _ => {}
        }
    }
}
