//! Status of a core, for health and metrics.

use std::time::Duration;

use tokio::time::Instant;

use super::{Core, State};
use crate::error::ErrorKind;
use crate::failure::OngoingOutage;
use crate::metrics::Observation;
use crate::producer::transaction::error::{TransactionError, TransactionOutcome};
use crate::producer::transaction::health::{
    TransactionErrorHealth, TransactionalProducerHealth, TransactionalProducerState,
};

/// Times and numbers of transactions.
#[derive(Debug, Default)]
pub(super) struct Status {
    began_at: Option<Instant>,
    /// Time of the call of commit or abort.
    end_requested_at: Option<Instant>,
    committed: u64,
    aborted: u64,
    commit_latency: Option<Duration>,
    last_error: Option<(TransactionError, Instant)>,
    /// Time of the first failure of the request that is being retried.
    failing_since: Option<Instant>,
    /// The result that is not yet reported.
    ended: Option<TransactionEnd>,
}

/// The result of a transaction, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::producer::transaction) struct TransactionEnd {
    pub(in crate::producer::transaction) outcome: &'static str,
    pub(in crate::producer::transaction) took: Duration,
    pub(in crate::producer::transaction) error: Option<ErrorKind>,
}

impl TransactionEnd {
    pub(in crate::producer::transaction) fn observation(self, transactional_id: &str) -> Observation<'_> {
        let Self { outcome, took, error } = self;
        Observation::TransactionEnded { transactional_id, outcome, took, error }
    }
}

impl Status {
    pub(super) fn on_begin(&mut self, now: Instant) {
        (self.began_at, self.end_requested_at) = (Some(now), None);
    }

    pub(super) fn on_end(&mut self, now: Instant) {
        self.end_requested_at = Some(now);
    }

    /// Takes the result of a request: whether it is to be retried.
    pub(super) fn on_request(&mut self, now: Instant, fails: bool) {
        self.failing_since = if fails { self.failing_since.or(Some(now)) } else { None };
    }

    pub(super) fn on_error(&mut self, now: Instant, error: TransactionError) {
        self.last_error = Some((error, now));
    }

    /// Takes the result of a transaction that is not empty.
    pub(super) fn on_outcome(&mut self, now: Instant, outcome: &Result<TransactionOutcome, TransactionError>) {
        let took = now.saturating_duration_since(self.end_requested_at.unwrap_or(now));
        let (outcome, error) = match outcome {
            Ok(TransactionOutcome::Committed) => {
                self.committed += 1;
                self.commit_latency = Some(took);
                ("committed", None)
            }
            Ok(TransactionOutcome::Aborted) => {
                self.aborted += 1;
                ("aborted", None)
            }
            Err(e) => {
                self.on_error(now, e.clone());
                let name = e.action().outcome();
                self.aborted += u64::from(name == "aborted");
                (name, Some(e.error().kind()))
            }
        };
        self.ended = Some(TransactionEnd { outcome, took, error });
    }
}

/// Time for which a request is retried before health reports it: some are for a few milliseconds
/// while the last transaction's end is being written.
const REPORTED_AFTER: Duration = Duration::from_secs(1);

impl Core {
    /// Returns its state, and since when a transaction is open at the coordinator.
    pub(in crate::producer::transaction) fn status(&self) -> (TransactionalProducerState, Option<Instant>) {
        use TransactionalProducerState as Shown;
        let began_at = self.status.began_at;
        match &self.state {
            State::Unset | State::Init { .. } => (Shown::Starting, None),
            State::Ready => (Shown::Ready, None),
            State::Open => (Shown::Open, began_at),
            State::Ending => (Shown::Committing, began_at),
            State::MustAbort { .. } => (Shown::Aborting, began_at),
            State::Unknown => (Shown::Unconfirmed, began_at),
            State::Fenced(_) => (Shown::Fenced, None),
            State::Broken(_) => (Shown::Stopped, None),
        }
    }

    /// Returns the result of a transaction, once.
    pub(in crate::producer::transaction) fn poll_ended(&mut self) -> Option<TransactionEnd> {
        self.status.ended.take()
    }

    pub(in crate::producer::transaction) fn health(
        &self,
        now: Instant,
        group: Option<String>,
    ) -> TransactionalProducerHealth {
        let (state, open_since) = self.status();
        let describe = |(e, at): &(TransactionError, Instant)| TransactionErrorHealth {
            error: e.error().full(),
            action: e.action().as_str().to_owned(),
            age: now.saturating_duration_since(*at),
        };
        let last_error = self.status.last_error.as_ref().map(describe);
        TransactionalProducerHealth {
            transactional_id: self.config.transactional_id.to_string(),
            group,
            state,
            open_for: open_since.map(|at| now.saturating_duration_since(at)),
            timeout: self.config.timeout,
            committed: self.status.committed,
            aborted: self.status.aborted,
            commit_latency: self.status.commit_latency,
            last_error,
            problem: self.problem(now),
        }
    }

    /// Returns the failure of the request that is being retried, and for how long.
    fn problem(&self, now: Instant) -> Option<String> {
        let since = self.status.failing_since?;
        if self.is_idle() || now.saturating_duration_since(since) < REPORTED_AFTER {
            return None;
        }
        let error = self.last_error.clone()?;
        Some(OngoingOutage { since, error }.describe(now))
    }
}
