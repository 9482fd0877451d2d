//! Applies the outcome of an attempt: the record is completed, retried, or written to a retry topic or
//! as a dead letter.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{AttemptHistory, PendingRecord, Sink, TaskOutput, Worker, WorkerContext};
use crate::cluster::Backoff;
use crate::consumer::Message;
use crate::error::{Error, ErrorKind};
use crate::metrics::{Observation, Reporter};
use crate::processor::batch::IntoOutcomes;
use crate::processor::dead_letter::{
    DeadLetterWriter, FailedRecord, HandlerFailure, Hook, HookCall, WrittenDeadLetter, describe, next_retry,
    printable_key,
};
use crate::processor::handler::{BoxError, Outcome};
use crate::processor::lanes::{Lane, QueuedRecord};
use crate::processor::pipeline::{Outputs, Payload};
use crate::processor::state::{HoldDecision, PartitionState, SubscriptionState};
use crate::producer::Acknowledgement;
use crate::timestamp::Timestamp;

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
                self.metrics.on_call(took, !outcome.as_ref().is_ok_and(Outcome::is_success));
                self.apply_outcome(lane, pending, outcome, false);
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
                    self.is_other_completed = true;
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
        let all_done = |outcomes: &Vec<Outcome>| outcomes.iter().all(Outcome::is_success);
        self.metrics.on_call(took, !outcomes.as_ref().is_ok_and(all_done));
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes.into_outcomes(count),
            Err(error) => Outcome::retry(error).into_outcomes(count),
        };
        let (mut together, mut is_counted) = (Vec::new(), false);
        let of_batch = |outcome: &Outcome| matches!(outcome, Outcome::Send(outputs) if outputs.is_of_batch);
        let has_common_outputs = outcomes.iter().any(of_batch);
        let mut common = Outputs::new();
        for ((lane, pending), outcome) in batch.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Done if has_common_outputs => together.push((lane, pending)),
                Outcome::Send(outputs) if outputs.is_of_batch => {
                    common = outputs;
                    together.push((lane, pending));
                }
                outcome => {
                    let is_retry = matches!(outcome, Outcome::Retry { .. });
                    self.apply_outcome(lane, pending, Ok(outcome), is_counted);
                    is_counted |= is_retry;
                }
            }
        }
        if has_common_outputs {
            self.succeed(together, common);
        }
    }

    /// Completes records in flight that were handled together; in a pipeline they are ended, and
    /// completed once a transaction with their outputs is committed.
    fn succeed(&mut self, mut records: Vec<(Lane, PendingRecord)>, outputs: Outputs) {
        if self.collector.is_none() && !outputs.is_empty() {
            let at = records.first().map(|(_, pending)| position(&pending.message)).unwrap_or_default();
            let what = format!(
                "the handler of {at} returned outputs, which only a pipeline sends: subscribe with Processor::exactly_once"
            );
            return self.fail_subscription(Error::new(ErrorKind::Config, what));
        }
        self.context.shared.on_success();
        records.iter_mut().for_each(|(_, pending)| self.on_success(pending));
        let offsets: Vec<_> = records.iter().map(|(lane, pending)| (*lane, pending.message.offset)).collect();
        self.handled += records.len() as u64;
        if self.collector.is_some() {
            // The records are needed if one of their outputs can't be written.
            let inputs = records.into_iter().filter(|_| !outputs.is_empty()).map(|(_, mut pending)| {
                pending.message.detach();
                pending.into_handler_message()
            });
            let inputs = inputs.collect();
            self.end_records(offsets.clone(), Payload::Outputs(outputs.into_records(), inputs));
        }
        // After `end_records`: the next record of a lane can't end before this one.
        offsets.into_iter().for_each(|(lane, offset)| self.lanes.complete(lane, offset));
    }

    /// Applies the outcome of an attempt to a record in flight. `is_counted` if it failed together with
    /// another record, in one call.
    pub(super) fn apply_outcome(
        &mut self,
        lane: Lane,
        mut pending: PendingRecord,
        outcome: Result<Outcome, BoxError>,
        is_counted: bool,
    ) {
        let mut outcome = self.classify(&pending, outcome.unwrap_or_else(Outcome::retry));
        if !outcome.is_success() {
            outcome = self.end_probe(&mut pending, outcome);
        }
        let (after, error, is_last, may_retry) = match outcome {
            Outcome::Done => return self.succeed(vec![(lane, pending)], Outputs::new()),
            Outcome::Send(outputs) => return self.succeed(vec![(lane, pending)], outputs),
            Outcome::Retry { after, error } => match self.check_outage(&pending, &error, is_counted) {
                HoldDecision::None => (after, error, pending.attempt() >= self.context.config.max_attempts, true),
                HoldDecision::Held(hold) => return self.hold(lane, pending, Some(hold), &error),
                HoldDecision::Revoked => return self.hold(lane, pending, None, &error),
            },
            Outcome::RetryForever { after, error } => (after, error, false, true),
            Outcome::DeadLetter { error } => (None, error, true, false),
            Outcome::Skip { error } => return self.skip(lane, &pending, &error),
            Outcome::Hold { hold, error } => {
                let of = (self.metrics.partition(), &self.state);
                let hold = self.context.shared.hold(of, &hold, &describe(&*error));
                return self.hold(lane, pending, hold, &error);
            }
            Outcome::Stop { error } => {
                let what = format!("the handler ended the subscription at {}", position(&pending.message));
                return self.fail_subscription(Error::with_source(ErrorKind::Handler, what, error));
            }
        };
        self.context.shared.failed.fetch_add(1, Ordering::Relaxed);
        let delays = self.context.config.delayed_retries.len();
        let retry = next_retry(self.retry.map(|retry| retry.place), delays).filter(|_| may_retry);
        self.metrics.on_failure(self.context.shared.group(), !is_last || retry.is_some());
        if !is_last {
            return self.retry(lane, pending, after, &error);
        }
        let (offset, attempts, last) = (pending.message.offset, pending.message.attempt, Timestamp::now());
        let first = pending.history.as_ref().map_or(last, |history| history.first_failure);
        let mut message = pending.into_handler_message();
        message.detach(); // it outlives the other records of its fetch
        self.write_failed(lane, offset, message, HandlerFailure { error, attempts, first, last, retry });
    }

    /// Completes a failed record without a dead letter.
    fn skip(&mut self, lane: Lane, pending: &PendingRecord, error: &BoxError) {
        let (group, message) = (self.context.shared.group(), pending.for_handler());
        tracing::warn!(
            record = %position(&message), %group, key = message.key.as_deref().map(printable_key),
            attempts = message.attempt, error = %describe(&**error), "the handler failed, and the record is skipped"
        );
        self.context.shared.failed.fetch_add(1, Ordering::Relaxed);
        self.context.shared.skipped.fetch_add(1, Ordering::Relaxed);
        self.metrics.on_failure(group, false);
        self.metrics.on_skipped(group);
        self.is_other_completed = true;
        let offset = pending.message.offset;
        self.end_records(vec![(lane, offset)], Payload::Failed(Vec::new()));
        self.lanes.complete(lane, offset);
    }

    /// Queues a failed record for another attempt.
    fn retry(&mut self, lane: Lane, pending: PendingRecord, after: Option<Duration>, error: &BoxError) {
        let config = &self.context.config;
        let record = position(&pending.for_handler());
        let PendingRecord { mut message, history } = pending;
        message.detach(); // it outlives the other records of its fetch
        let mut history = history.unwrap_or_else(|| Box::new(AttemptHistory::new(config)));
        let attempt = message.attempt;
        let delay = after.unwrap_or_else(|| history.backoff.next()).min(MAX_RETRY_DELAY);
        tracing::warn!(%record, attempt, error = %describe(&**error), retry_in = ?delay, "the handler failed");
        self.context.shared.retries.fetch_add(1, Ordering::Relaxed);
        message.attempt += 1;
        let (offset, bytes, due) = (message.offset, message.size(), Some(Instant::now() + delay));
        let record = PendingRecord { message, history: Some(history) };
        self.lanes.requeue(lane, QueuedRecord { offset, bytes, due, hold: None, record });
    }

    /// Writes a failed record to its retry topic or as a dead letter, retrying until it is
    /// acknowledged; its lane is blocked meanwhile. In a pipeline it is an output of its record.
    fn write_failed(&mut self, lane: Lane, offset: i64, message: Message, failure: HandlerFailure) {
        let bytes = message.size();
        if let Sink::Transactions(pipeline) = &self.context.sink {
            let failed = pipeline.dead_letters().failed_record(message, failure);
            self.end_records(vec![(lane, offset)], Payload::Failed(vec![failed]));
            self.lanes.complete(lane, offset);
            return;
        }
        self.dead_letters_in_flight += 1;
        self.dead_letter_bytes += bytes;
        let (context, state, stop) = (Arc::clone(&self.context), Arc::clone(&self.state), Arc::clone(&self.stop));
        self.tasks.spawn(async move {
            let written = match &context.sink {
                Sink::DeadLetters(writer) => {
                    let failed = writer.failed_record(message, failure);
                    write_until_acknowledged(&context, writer, (&state, offset), failed, &stop).await
                }
                Sink::Transactions(_) => false, // above
            };
            TaskOutput::DeadLetter(lane, offset, bytes, written)
        });
    }

    /// Passes records that have ended to the pipeline, with their outputs.
    pub(super) fn end_records(&self, records: Vec<(Lane, i64)>, payload: Payload) {
        if let Some(collector) = &self.collector {
            collector.end(records, payload);
        }
    }
}

/// Writes a failed record until it is acknowledged; returns false if the partition is drained
/// before.
async fn write_until_acknowledged(
    context: &WorkerContext,
    writer: &DeadLetterWriter,
    (state, offset): (&PartitionState, i64),
    mut failed: FailedRecord,
    stop: &CancellationToken,
) -> bool {
    let (first, max) = DEAD_LETTER_BACKOFF;
    let mut backoff = Backoff::new(first, max);
    let what = |failed: &FailedRecord| match failed.due {
        Some(_) => format!("offset {offset}"),
        None => format!("the dead letter of offset {offset}"),
    };
    state.set_paused(offset, Some(format!("{} is being written to {}", what(&failed), failed.topic)));
    let (mut attempts, mut logged_at) = (0_u32, None::<Instant>);
    let ack = loop {
        let error = match writer.write(&mut failed).await {
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
                record = %position(&failed.message), group = %context.shared.group(), key = failed.message.key.as_deref().map(printable_key),
                dead_letter_topic = %failed.topic, attempts, %error,
                "a failed record can't be written to its dead-letter or retry topic and is retried: records in order behind it are blocked"
            );
        }
        state.set_paused(offset, Some(format!("{} can't be written to {}: {error}", what(&failed), failed.topic)));
        if stop.run_until_cancelled(tokio::time::sleep(backoff.next())).await.is_none() {
            return false;
        }
    };
    let (shared, metrics, on_dead_letter) = (&*context.shared, &context.metrics, context.on_dead_letter.as_ref());
    if let Some(call) = (Reporting { shared, metrics, on_dead_letter }).report(&failed, Some(&ack)) {
        call.run().await;
    }
    true
}

/// Reports records that are written.
pub(in crate::processor) struct Reporting<'a> {
    pub(in crate::processor) shared: &'a SubscriptionState,
    pub(in crate::processor) metrics: &'a Reporter,
    pub(in crate::processor) on_dead_letter: Option<&'a Hook>,
}

impl Reporting<'_> {
    /// Logs and counts a failed record that is written. Returns the call of the hook for a dead
    /// letter, if there is one.
    pub(in crate::processor) fn report(
        &self,
        failed: &FailedRecord,
        ack: Option<&Acknowledgement>,
    ) -> Option<HookCall> {
        let FailedRecord { message, failure, topic, .. } = failed;
        // A broker that has the record from an earlier request may return no offset.
        let place = match ack.map(|ack| (ack.partition, ack.offset)) {
            Some((partition, Some(offset))) => format!("{topic}/{partition}@{offset}"),
            Some((partition, None)) => format!("{topic}/{partition}"),
            None => topic.clone(),
        };
        let (group, record, attempts, error) =
            (self.shared.group(), position(message), failure.attempts, failed.error());
        let key = message.key.as_deref().map(printable_key);
        if let Some(due) = failed.due {
            self.shared.retries.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                %record, %group, key, attempts, retry = place, %due, %error,
                "the handler failed: the record waits in a retry topic, and records of its key are handled meanwhile"
            );
            return None;
        }
        tracing::error!(
            %record, %group, key, attempts, dead_letter = place, %error,
            "the handler failed for the last time: the record is a dead letter"
        );
        self.shared.dead_letters.fetch_add(1, Ordering::Relaxed);
        let Message { topic: origin, partition, .. } = message;
        self.metrics.report(|| Observation::DeadLettered { group, topic: origin, partition: *partition });
        let hook = self.on_dead_letter?.clone();
        let written = WrittenDeadLetter {
            message: message.clone(),
            letter: failed.letter().clone(),
            topic: topic.clone(),
            partition: ack.map(|ack| ack.partition),
            offset: ack.and_then(|ack| ack.offset),
        };
        Some(HookCall { hook, written })
    }
}

fn position(message: &Message) -> String {
    format!("{}/{}@{}", message.topic, message.partition, message.offset)
}
