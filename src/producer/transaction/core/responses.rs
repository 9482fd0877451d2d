//! The responses of coordinators.

use tokio::time::Instant;

use super::{Core, Effect, MAX_SERVER_ERRORS, Registration, Request, RequestFailure, Response, State};
use crate::code;
use crate::error::{Error, ErrorKind};
use crate::failure::is_fatal;
use crate::producer::partition::ProducerIdAndEpoch;
use crate::producer::transaction::action::{Action, RequestKind, Version, action_of};
use crate::producer::transaction::error::{TransactionAction, TransactionOutcome};

impl Core {
    pub(in crate::producer::transaction) fn on_response(
        &mut self,
        now: Instant,
        response: Result<Response, RequestFailure>,
    ) {
        let Some(request) = self.in_flight.take() else { return };
        match response {
            Ok(response) => {
                self.backoff.reset();
                self.concurrent_backoff.reset();
                (self.retry_at, self.last_error, self.server_errors) = (None, None, 0);
                self.status.on_request(now, false);
                self.on_success(now, request, response);
            }
            Err(failure) => self.on_request_failure(now, &request, failure),
        }
    }

    fn on_success(&mut self, now: Instant, request: Request, response: Response) {
        match (request, response) {
            (Request::FindCoordinator(None), Response::Coordinator(broker)) => self.coordinator = Some(broker),
            (Request::FindCoordinator(Some(group)), Response::Coordinator(broker)) => {
                self.group_coordinators.insert(group, broker);
            }
            (Request::InitProducerId(_), Response::Producer(producer)) => {
                self.set_producer(producer);
                self.epoch_version = self.version();
                if matches!(self.state, State::MustAbort { .. }) {
                    self.finish_aborted(now);
                }
                self.state = State::Ready;
            }
            (Request::AddPartitions(_, added), _) => {
                self.transaction.registration = Registration::Yes;
                self.transaction.to_add.retain(|p| !added.contains(p));
                self.effects.push_back(Effect::PartitionsAdded(added));
            }
            (Request::AddOffsets(_, group), _) => {
                self.transaction.registration = Registration::Yes;
                let mut all = self.transaction.offsets.iter_mut();
                all.by_ref().filter(|o| o.group.group() == &group).for_each(|o| o.added = true);
            }
            (Request::CommitOffsets(..), _) => {
                self.transaction.registration = Registration::Yes;
                self.transaction.offsets.pop_front();
            }
            (Request::EndTxn { version, commit, .. }, response) => self.on_ended(now, version, commit, response),
            (Request::FindCoordinator(_) | Request::InitProducerId(_), _) => {}
        }
    }

    fn set_producer(&mut self, producer: ProducerIdAndEpoch) {
        self.producer = Some(producer);
        self.effects.push_back(Effect::SetProducer(producer));
    }

    fn on_ended(&mut self, now: Instant, version: Version, commit: bool, response: Response) {
        let raise = match (version, response, &self.state) {
            (Version::V2, Response::Producer(producer), _) => {
                self.set_producer(producer);
                false
            }
            (_, _, State::MustAbort { raise: true, .. }) => true,
            _ => (self.transaction.indefinite && !self.config.keeps_epoch) || version == Version::V2,
        };
        if commit {
            self.outcome = None; // "unknown" until now, perhaps
            self.finish(now, Ok(TransactionOutcome::Committed));
        } else {
            self.finish_aborted(now);
        }
        self.state = if raise { State::Init { fresh: false } } else { State::Ready };
    }

    fn on_request_failure(&mut self, now: Instant, request: &Request, failure: RequestFailure) {
        let RequestFailure { code, error } = failure;
        let kind = request.kind();
        self.last_error = Some(error.clone());
        let action = match code {
            Some(code) => action_of(kind, code),
            None if is_fatal(&error) => Action::Stop,
            None => Action::Unknown,
        };
        let action = match action {
            Action::Retry if kind == RequestKind::InitProducerId && code == Some(code::UNKNOWN_SERVER_ERROR) => {
                self.server_errors += 1;
                if self.server_errors >= MAX_SERVER_ERRORS { Action::Stop } else { action }
            }
            _ => action,
        };
        let was_sent = code.is_some() || !matches!(error.kind(), ErrorKind::Connect);
        if action == Action::Unknown && was_sent {
            self.transaction.indefinite |= kind != RequestKind::FindCoordinator;
        }
        match action {
            Action::Retry => self.retry_at = Some(now + self.backoff.next()),
            Action::RetrySoon => self.retry_at = Some(now + self.concurrent_backoff.next()),
            Action::FindCoordinator | Action::Unknown => {
                match request {
                    Request::CommitOffsets(_, _, offsets) => _ = self.group_coordinators.remove(offsets.group.group()),
                    _ => self.coordinator = None,
                }
                self.retry_at = Some(now + self.backoff.next());
            }
            Action::Abort | Action::AbortAndRaise | Action::Stop | Action::Fenced => {
                self.retry_at = None;
                self.on_refusal(now, request, code, action, error);
            }
        }
        self.status.on_request(now, self.retry_at.is_some());
    }

    /// Takes a response after which the request is not sent again.
    fn on_refusal(&mut self, now: Instant, request: &Request, code: Option<i16>, action: Action, error: Error) {
        match request {
            Request::InitProducerId(present) => match action {
                Action::Fenced if self.config.exclusive => {
                    self.state = match self.state {
                        State::MustAbort { .. } => State::MustAbort { raise: true, fresh: true },
                        _ => State::Init { fresh: true },
                    };
                    // Not at once: the request that takes over may be refused, too.
                    self.retry_at = present.is_none().then(|| now + self.backoff.next());
                }
                Action::Fenced => self.stop(now, TransactionAction::Fenced, error),
                Action::Stop => self.stop(now, TransactionAction::Stop, error),
                _ => self.retry_at = Some(now + self.backoff.next()),
            },
            // The coordinator has aborted it at its timeout: Kafka from 4.0 to 4.2 says so with
            // INVALID_TXN_STATE in version 2 (KAFKA-20785), with the codes of a fenced producer else.
            Request::EndTxn { commit: true, .. } if code == Some(code::INVALID_TXN_STATE) && action == Action::Stop => {
                self.on_refusal(now, request, None, Action::Fenced, error);
            }
            Request::EndTxn { commit: true, .. } => match action {
                Action::Fenced if self.config.exclusive => {
                    self.transaction.timed_out = true;
                    self.transaction.failure = Some(error);
                    self.start_abort();
                }
                Action::Fenced => self.stop(now, TransactionAction::Fenced, error),
                Action::Stop => self.stop(now, TransactionAction::Stop, error),
                _ => {
                    self.transaction.failure = Some(error);
                    self.transaction.raise |= action == Action::AbortAndRaise;
                    self.start_abort();
                }
            },
            Request::EndTxn { .. } => match action {
                Action::Fenced if self.config.exclusive => self.state = State::MustAbort { raise: true, fresh: true },
                Action::Fenced => self.stop(now, TransactionAction::Fenced, error),
                // There is nothing to abort: no request that would have registered the transaction
                // has arrived, or has yet. A new epoch rejects what is late.
                Action::Stop if code == Some(code::INVALID_TXN_STATE) => {
                    self.finish_aborted(now);
                    self.state = State::Init { fresh: false };
                }
                Action::Stop => self.stop(now, TransactionAction::Stop, error),
                _ => {
                    self.finish_aborted(now);
                    self.state = State::Init { fresh: false };
                }
            },
            // Such as an ACL of the group.
            _ => self.on_failure(now, action, error),
        }
    }
}
