//! The next request to a coordinator.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Core, Registration, Request, Sends, State, Transaction};
use crate::producer::transaction::action::Version;
use crate::producer::transaction::error::TransactionOutcome;

impl Core {
    /// Returns the next request, which is in flight until [`on_response`](Self::on_response).
    pub(in crate::producer::transaction) fn poll_request(&mut self, now: Instant, sends: Sends) -> Option<Request> {
        if self.in_flight.is_some() || self.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        let request = self.next_request(now, sends)?;
        let is_known = match &request {
            Request::FindCoordinator(_) => true,
            Request::CommitOffsets(_, _, offsets) => self.group_coordinators.contains_key(offsets.group.group()),
            _ => self.coordinator.is_some(),
        };
        let request = match request {
            request if is_known => request,
            Request::CommitOffsets(_, _, offsets) => Request::FindCoordinator(Some(Arc::clone(offsets.group.group()))),
            _ => Request::FindCoordinator(None),
        };
        match &request {
            Request::AddPartitions(..) | Request::AddOffsets(..) | Request::CommitOffsets(..)
                if self.transaction.registration == Registration::No =>
            {
                self.transaction.registration = Registration::Maybe;
            }
            Request::EndTxn { commit: true, .. } => self.transaction.commit_sent = true,
            _ => {}
        }
        self.in_flight = Some(request.clone());
        Some(request)
    }

    fn next_request(&mut self, now: Instant, sends: Sends) -> Option<Request> {
        let producer = self.producer;
        match self.state {
            State::Init { fresh } => Some(Request::InitProducerId(producer.filter(|_| !fresh))),
            State::Open if self.transaction.failure.is_none() => self.next_addition(),
            State::Ending => {
                let next = self.next_addition().or_else(|| self.next_offsets());
                if next.is_some() || sends.unfinished {
                    return next;
                }
                if !self.is_registered(sends) {
                    self.state = State::Ready;
                    self.transaction.is_empty = true;
                    self.finish(now, Ok(TransactionOutcome::Committed));
                    return None;
                }
                Some(Request::EndTxn { producer: producer?, version: self.transaction.version, commit: true })
            }
            State::Unknown => {
                Some(Request::EndTxn { producer: producer?, version: self.transaction.version, commit: true })
            }
            State::MustAbort { .. } if sends.unfinished => None,
            State::MustAbort { raise, fresh } => {
                let version = self.transaction.version;
                // Late batches of an aborted transaction would begin another one, which nobody ends.
                // Markers of a raised epoch have leaders reject them: InitProducerId without the
                // present epoch writes such ones, but it also fences a producer that has the id meanwhile.
                let takes_over = self.config.exclusive && raise && version == Version::V1;
                if fresh || takes_over {
                    return Some(Request::InitProducerId(None));
                }
                if self.is_registered(sends) {
                    return Some(Request::EndTxn { producer: producer?, version, commit: false });
                }
                self.transaction.is_empty = true;
                self.finish_aborted(now);
                self.state = if raise { State::Init { fresh: false } } else { State::Ready };
                if raise { Some(Request::InitProducerId(producer)) } else { None }
            }
            State::Unset | State::Ready | State::Open | State::Fenced(_) | State::Broken(_) => None,
        }
    }

    fn is_registered(&self, sends: Sends) -> bool {
        let by_leaders = self.transaction.version == Version::V2 && sends.any;
        self.transaction.registration != Registration::No || by_leaders
    }

    fn next_addition(&self) -> Option<Request> {
        let Transaction { version, to_add, .. } = &self.transaction;
        if to_add.is_empty() || *version == Version::V2 {
            return None;
        }
        Some(Request::AddPartitions(self.producer?, to_add.clone()))
    }

    fn next_offsets(&self) -> Option<Request> {
        let (offsets, producer) = (self.transaction.offsets.front()?, self.producer?);
        Some(if self.transaction.version == Version::V1 && !offsets.added {
            Request::AddOffsets(producer, Arc::clone(offsets.group.group()))
        } else {
            Request::CommitOffsets(producer, self.transaction.version, offsets.clone())
        })
    }
}
