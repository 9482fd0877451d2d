//! Starts attempts: polls a handler once, and spawns it if it is pending.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::{PendingRecord, TaskOutput, Worker};
use crate::config::HandlerOrdering;
use crate::consumer::Message;
use crate::processor::attempt::Attempt;
use crate::processor::concurrency::Permit;
use crate::processor::handler::{BoxError, HandlerFn, Outcome};
use crate::processor::lanes::Lane;

/// A handler whose first poll takes longer is spawned as a task for the next records, so that
/// others run beside it.
const SLOW_HANDLER: Duration = Duration::from_millis(1);
/// Number of records for which a handler that was pending, or slow several times in a row, is
/// assumed to be so again.
const SLOW_MEMORY_RECORDS: usize = 256;
/// Number of records after the first slow poll: on a busy machine any handler may be slow once.
pub(super) const FIRST_SLOW_MEMORY_RECORDS: usize = 4;

/// Time that a handler took, and its permit unless the handler was [slow](SLOW_HANDLER).
pub(super) type HandlerUsage = (Duration, Option<Permit>);

pub(super) fn handler_usage(started_at: Instant, permit: Option<Permit>) -> HandlerUsage {
    let took = started_at.elapsed();
    (took, permit.filter(|_| took <= SLOW_HANDLER))
}

/// Outcome of a handler's first poll, with its start and duration.
pub(super) struct PollResult<T> {
    pub(super) outcome: Poll<T>,
    pub(super) started_at: Instant,
    pub(super) took: Duration,
}

impl Worker {
    /// Calls the handler; `was_queued` if the record occupies its lane already.
    pub(super) fn start_attempt(
        &mut self,
        cx: &mut task::Context<'_>,
        call: &Arc<HandlerFn>,
        lane: Lane,
        mut pending: PendingRecord,
        was_queued: bool,
    ) {
        let offset = pending.message.offset;
        let limit = self.set_deadline(&mut pending.message);
        if !was_queued && self.assume_pending > 0 {
            pending.message.detach(); // it may be in flight for long
        }
        let span = self.context.tracing.span(&mut pending.message, self.context.shared.group());
        let message = pending.for_handler();
        let mut attempt = Attempt::start(span, Outcome::failure, || call(message));
        let PollResult { outcome, started_at, took } = self.poll_inline(cx, &mut attempt, offset);
        if let Poll::Ready(outcome) = outcome {
            self.metrics.on_call(took, !outcome.as_ref().is_ok_and(Outcome::is_success));
            if was_queued || self.collector.is_some() || !matches!(outcome, Ok(Outcome::Done)) {
                if !was_queued {
                    self.lanes.occupy(lane);
                }
                self.apply_outcome(lane, pending, outcome, false);
            } else {
                self.lanes.complete_unqueued(offset);
                self.handled += 1;
                self.context.shared.on_success();
            }
            return;
        }
        if !was_queued {
            self.lanes.occupy(lane);
            pending.message.detach();
        }
        self.in_flight += 1;
        self.state.handler_started(offset, pending.message.key.clone());
        let permit = self.permits.hand_to_task();
        self.tasks.spawn(async move {
            let outcome = attempt.within(limit).await;
            TaskOutput::Record(lane, pending, outcome, handler_usage(started_at, permit))
        });
    }

    /// Sets the deadline and the stop token of an attempt; returns the deadline and the limit.
    pub(super) fn set_deadline(&self, message: &mut Message) -> Option<(tokio::time::Instant, Duration)> {
        message.stopping = Some(Arc::clone(&self.stop));
        let limit = self.context.config.attempt_timeout?;
        let deadline = Instant::now() + limit;
        message.deadline = Some(deadline);
        Some((deadline, limit))
    }

    /// Polls a handler for the first time, unless handlers were slow recently.
    pub(super) fn poll_inline<T>(
        &mut self,
        cx: &mut task::Context<'_>,
        attempt: &mut Attempt<T>,
        offset: i64,
    ) -> PollResult<Result<T, BoxError>> {
        let started_at = Instant::now();
        if self.assume_slow > 0 && self.context.config.ordering != HandlerOrdering::Partition {
            self.assume_slow -= 1;
            return PollResult { outcome: Poll::Pending, started_at, took: Duration::ZERO };
        }
        self.state.set_inline_handler(Some(offset));
        let outcome = Pin::new(attempt).poll(cx);
        let took = started_at.elapsed();
        self.turn_elapsed += took;
        if took > SLOW_HANDLER {
            self.assume_slow = self.next_assume_slow;
            self.next_assume_slow = (2 * self.next_assume_slow).min(SLOW_MEMORY_RECORDS);
        } else {
            self.next_assume_slow = FIRST_SLOW_MEMORY_RECORDS;
        }
        self.state.set_inline_handler(None);
        self.assume_pending =
            if outcome.is_ready() { self.assume_pending.saturating_sub(1) } else { SLOW_MEMORY_RECORDS };
        PollResult { outcome, started_at, took }
    }
}
