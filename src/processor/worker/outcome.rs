//! Applies the outcome of an attempt: the record is completed, retried, or becomes a dead letter.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::{AttemptHistory, PendingRecord, TaskOutput, Worker, WorkerContext};
use crate::cluster::Backoff;
use crate::consumer::Message;
use crate::error::{Error, ErrorKind};
use crate::metrics::Observation;
use crate::processor::batch::IntoOutcomes;
use crate::processor::dead_letter::HandlerFailure;
use crate::processor::dead_letter::{describe, printable_key};
use crate::processor::handler::{BoxError, Outcome};
use crate::processor::lanes::{Lane, QueuedRecord};
use crate::processor::state::PartitionState;

/// Maximum delay that a handler can request.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(86_400);
/// First and maximum delay between attempts to write a dead letter.
const DEAD_LETTER_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Time between two log lines about the same dead letter that can't be written.
const REPEAT_ERROR_AFTER: Duration = Duration::from_secs(60);

impl Worker {
    /// Handles the output of a finished task.
    pub(super) fn on_task_done(&mut self, output: Result<TaskOutput, JoinError>) {
        match output {
            Ok(TaskOutput::Record(lane, pending, outcome, (took, permit))) => {
                self.permits.on_handler_done(permit);
                self.on_handler_done(&pending);
                self.metrics.on_call(took, !matches!(outcome, Ok(Outcome::Done)));
                self.apply_outcome(lane, pending, outcome);
            }
            Ok(TaskOutput::Batch(batch, outcomes, (took, permit))) => {
                self.permits.on_handler_done(permit);
                batch.iter().for_each(|(_, pending)| self.on_handler_done(pending));
                self.apply_batch_outcomes(batch, outcomes, took);
            }
            Ok(TaskOutput::DeadLetter(lane, offset, bytes, written)) => {
                self.dead_letters_in_flight -= 1;
                self.dead_letter_bytes -= bytes;
                if written {
                    self.dead_lettered = true;
                    self.state.set_paused(offset, None);
                    self.lanes.complete(lane, offset);
                } else {
                    self.unwritten_dead_letters += 1;
                }
            }
            // Panics of handlers are caught where they are polled: this one happened while its
            // future was dropped.
            Err(e) => self.fail_subscription(Error::new(
                ErrorKind::Handler,
                format!("a handler's future could not be dropped: {e}"),
            )),
        }
    }

    fn on_handler_done(&mut self, pending: &PendingRecord) {
        self.in_flight -= 1;
        self.state.handler_finished(pending.message.offset);
    }

    /// Ends the whole subscription with an error.
    fn fail_subscription(&mut self, error: Error) {
        _ = self.context.fatal.try_send(error);
        self.stop.cancel();
    }

    pub(super) fn apply_batch_outcomes(
        &mut self,
        batch: Vec<(Lane, PendingRecord)>,
        outcomes: Result<Vec<Outcome>, BoxError>,
        took: Duration,
    ) {
        let count = batch.len();
        let all_done = |outcomes: &Vec<Outcome>| outcomes.iter().all(|o| matches!(o, Outcome::Done));
        self.metrics.on_call(took, !outcomes.as_ref().is_ok_and(all_done));
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes.into_outcomes(count),
            Err(error) => Outcome::retry(error).into_outcomes(count),
        };
        for ((lane, pending), outcome) in batch.into_iter().zip(outcomes) {
            self.apply_outcome(lane, pending, Ok(outcome));
        }
    }

    /// Applies the outcome of an attempt to a record in flight.
    pub(super) fn apply_outcome(&mut self, lane: Lane, pending: PendingRecord, outcome: Result<Outcome, BoxError>) {
        let (after, error, is_last) = match outcome.unwrap_or_else(Outcome::retry) {
            Outcome::Done => {
                self.lanes.complete(lane, pending.message.offset);
                self.handled += 1;
                return;
            }
            Outcome::Retry { after, error } => {
                (after, error, pending.message.attempt >= self.context.config.max_attempts)
            }
            Outcome::DeadLetter { error } => (None, error, true),
            Outcome::Stop { error } => {
                let what = format!("the handler ended the subscription at {}", position(&pending.message));
                return self.fail_subscription(Error::with_source(ErrorKind::Handler, what, error));
            }
        };
        self.context.shared.failed.fetch_add(1, Ordering::Relaxed);
        self.metrics.on_failure(self.context.shared.group(), !is_last);
        self.on_failure(lane, pending, after, error, is_last);
    }

    fn on_failure(
        &mut self,
        lane: Lane,
        pending: PendingRecord,
        after: Option<Duration>,
        error: BoxError,
        is_last: bool,
    ) {
        let config = &self.context.config;
        let now = Utc::now();
        let PendingRecord { mut message, history } = pending;
        message.detach(); // it outlives the other records of its fetch
        let mut history = history.unwrap_or_else(|| {
            Box::new(AttemptHistory {
                first_failure: now,
                backoff: Backoff::new(config.retry_backoff, config.retry_backoff_max),
            })
        });
        let (record, attempt) = (position(&message), message.attempt);
        if is_last {
            let failure = HandlerFailure { error, attempts: attempt, first: history.first_failure, last: now };
            return self.write_dead_letter(lane, message, failure);
        }
        let delay = after.unwrap_or_else(|| history.backoff.next()).min(MAX_RETRY_DELAY);
        tracing::warn!(%record, attempt, error = %describe(&*error), retry_in = ?delay, "the handler failed");
        self.context.shared.retries.fetch_add(1, Ordering::Relaxed);
        message.attempt += 1;
        let (offset, bytes, due) = (message.offset, message.size(), Some(Instant::now() + delay));
        self.lanes.requeue(
            lane,
            QueuedRecord { offset, bytes, due, record: PendingRecord { message, history: Some(history) } },
        );
    }

    /// Writes the dead letter, retrying until it is acknowledged; the record's lane is blocked
    /// meanwhile.
    fn write_dead_letter(&mut self, lane: Lane, message: Message, failure: HandlerFailure) {
        let bytes = message.size();
        self.dead_letters_in_flight += 1;
        self.dead_letter_bytes += bytes;
        let (context, state, stop) = (Arc::clone(&self.context), Arc::clone(&self.state), Arc::clone(&self.stop));
        self.tasks.spawn(async move {
            let offset = message.offset;
            let written = write_until_acknowledged(&context, &state, &message, &failure, &stop).await;
            TaskOutput::DeadLetter(lane, offset, bytes, written)
        });
    }
}

/// Writes a dead letter until it is acknowledged; returns false if the partition is drained before.
async fn write_until_acknowledged(
    context: &WorkerContext,
    state: &PartitionState,
    message: &Message,
    failure: &HandlerFailure,
    stop: &CancellationToken,
) -> bool {
    let topic = context.dead_letters.topic_of(message);
    let offset = message.offset;
    let (first, max) = DEAD_LETTER_BACKOFF;
    let mut backoff = Backoff::new(first, max);
    state.set_paused(offset, Some(format!("the dead letter of offset {offset} is being written to {topic}")));
    let (mut attempts, mut logged_at) = (0_u32, None::<Instant>);
    let ack = loop {
        let error = match context.dead_letters.write(message, failure).await {
            Ok(ack) => break ack,
            Err(e) => {
                context.metrics.failed("dead_letters", e.kind());
                e.full()
            }
        };
        attempts = attempts.saturating_add(1);
        if logged_at.is_none_or(|at| at.elapsed() >= REPEAT_ERROR_AFTER) {
            logged_at = Some(Instant::now());
            tracing::error!(
                record = %position(message), group = %context.shared.group(), dead_letter_topic = %topic, attempts, %error,
                "a dead letter can't be written and is retried: records in order behind its record are blocked"
            );
        }
        state.set_paused(
            offset,
            Some(format!("the dead letter of offset {offset} can't be written to {topic}: {error}")),
        );
        if stop.run_until_cancelled(tokio::time::sleep(backoff.next())).await.is_none() {
            return false;
        }
    };
    // A broker that has the record from an earlier request may return no offset.
    let dead_letter = match ack.offset {
        Some(offset) => format!("{}/{}@{offset}", ack.topic, ack.partition),
        None => format!("{}/{}", ack.topic, ack.partition),
    };
    tracing::error!(
        record = %position(message), group = %context.shared.group(), key = message.key.as_deref().map(printable_key), attempts = failure.attempts,
        dead_letter, error = %describe(&*failure.error), "the handler failed for the last time: the record is a dead letter"
    );
    context.shared.dead_letters.fetch_add(1, Ordering::Relaxed);
    let Message { topic, partition, .. } = message;
    let (group, partition) = (context.shared.group(), *partition);
    context.metrics.report(|| Observation::DeadLettered { group, topic, partition });
    true
}

fn position(message: &Message) -> String {
    format!("{}/{}@{}", message.topic, message.partition, message.offset)
}
