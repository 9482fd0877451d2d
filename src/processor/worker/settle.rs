//! What becomes of a record after an attempt.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::{Context, Finished, History, Item, Worker};
use crate::cluster::Backoff;
use crate::consumer::Message;
use crate::error::{Error, ErrorKind};
use crate::metrics::Observation;
use crate::processor::batch::IntoOutcomes;
use crate::processor::dead_letter::Failure;
use crate::processor::handler::{BoxError, Outcome};
use crate::processor::lanes::{Kept, Lane};
use crate::processor::letter::{describe, shown};
use crate::processor::state::PartitionState;

/// The longest wait that a handler can ask for.
const LONGEST: Duration = Duration::from_secs(86_400);
/// The waits between two tries of a dead letter.
const DEAD_LETTER_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Time between two errors in the log about the same dead letter that can't be written.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

impl Worker {
    /// A task has ended.
    pub(super) fn joined(&mut self, joined: Result<Finished, JoinError>) {
        match joined {
            Ok(Finished::Each(lane, item, outcome, (took, permit))) => {
                self.permits.returned(permit);
                self.over(&item);
                self.meter.called(took, !matches!(outcome, Ok(Outcome::Done)));
                self.settle(lane, item, outcome);
            }
            Ok(Finished::Batch(items, outcomes, (took, permit))) => {
                self.permits.returned(permit);
                items.iter().for_each(|(_, item)| self.over(item));
                self.settle_batch(items, outcomes, took);
            }
            Ok(Finished::Letter(lane, offset, bytes, written)) => {
                self.letters -= 1;
                self.letter_bytes -= bytes;
                if written {
                    self.buried = true;
                    self.state.note(offset, None);
                    self.lanes.end(lane, offset);
                } else {
                    self.unwritten += 1;
                }
            }
            // Panics of handlers are caught where they are polled; this one came when its future was dropped.
            Err(e) => {
                self.end_all(Error::new(ErrorKind::Handler, format!("a handler's future could not be dropped: {e}")))
            }
        }
    }

    fn over(&mut self, item: &Item) {
        self.in_flight -= 1;
        self.state.over(item.message.offset);
    }

    /// The whole subscription ends with this error.
    fn end_all(&mut self, error: Error) {
        _ = self.context.fatal.try_send(error);
        self.stop.cancel();
    }

    pub(super) fn settle_batch(
        &mut self,
        items: Vec<(Lane, Item)>,
        outcomes: Result<Vec<Outcome>, BoxError>,
        took: Duration,
    ) {
        let count = items.len();
        let done = |outcomes: &Vec<Outcome>| outcomes.iter().all(|o| matches!(o, Outcome::Done));
        self.meter.called(took, !outcomes.as_ref().is_ok_and(done));
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes.into_outcomes(count),
            Err(error) => Outcome::retry(error).into_outcomes(count),
        };
        for ((lane, item), outcome) in items.into_iter().zip(outcomes) {
            self.settle(lane, item, Ok(outcome));
        }
    }

    /// An attempt at a record in hand is over.
    pub(super) fn settle(&mut self, lane: Lane, item: Item, outcome: Result<Outcome, BoxError>) {
        let (after, error, last) = match outcome.unwrap_or_else(Outcome::retry) {
            Outcome::Done => {
                self.lanes.end(lane, item.message.offset);
                self.handled += 1;
                return;
            }
            Outcome::Retry { after, error } => (after, error, item.message.attempt >= self.context.config.max_attempts),
            Outcome::DeadLetter { error } => (None, error, true),
            Outcome::Stop { error } => {
                let what = format!("the handler ended the subscription at {}", place(&item.message));
                return self.end_all(Error::with_source(ErrorKind::Handler, what, error));
            }
        };
        self.context.shared.failed.fetch_add(1, Ordering::Relaxed);
        self.meter.failed(self.context.shared.group(), !last);
        self.failed(lane, item, after, error, last);
    }

    fn failed(&mut self, lane: Lane, item: Item, after: Option<Duration>, error: BoxError, last: bool) {
        let config = &self.context.config;
        let now = Utc::now();
        let Item { mut message, history } = item;
        message.detach(); // it is kept for longer than what it came with
        let mut history = history.unwrap_or_else(|| {
            Box::new(History { first: now, backoff: Backoff::new(config.retry_backoff, config.retry_backoff_max) })
        });
        let (record, attempt) = (place(&message), message.attempt);
        if last {
            let failure = Failure { error, attempts: attempt, first: history.first, last: now };
            return self.bury(lane, message, failure);
        }
        let wait = after.unwrap_or_else(|| history.backoff.next()).min(LONGEST);
        tracing::warn!(%record, attempt, error = %describe(&*error), retry_in = ?wait, "the handler failed");
        self.context.shared.retries.fetch_add(1, Ordering::Relaxed);
        message.attempt += 1;
        let (offset, bytes, due) = (message.offset, message.size(), Some(Instant::now() + wait));
        self.lanes.park(lane, Kept { offset, bytes, due, record: Item { message, history: Some(history) } });
    }

    /// Writes the dead letter, however long that takes; the record's lane waits meanwhile.
    fn bury(&mut self, lane: Lane, message: Message, failure: Failure) {
        let bytes = message.size();
        self.letters += 1;
        self.letter_bytes += bytes;
        let (context, state, stop) = (Arc::clone(&self.context), Arc::clone(&self.state), Arc::clone(&self.stop));
        self.tasks.spawn(async move {
            let offset = message.offset;
            let written = write(&context, &state, &message, &failure, &stop).await;
            Finished::Letter(lane, offset, bytes, written)
        });
    }
}

/// Whether it was written; if not, the partition is to be given up.
async fn write(
    context: &Context,
    state: &PartitionState,
    message: &Message,
    failure: &Failure,
    stop: &CancellationToken,
) -> bool {
    let topic = context.dead_letters.topic_of(message);
    let offset = message.offset;
    let (first, max) = DEAD_LETTER_BACKOFF;
    let mut backoff = Backoff::new(first, max);
    state.note(offset, Some(format!("the dead letter of offset {offset} is being written to {topic}")));
    let (mut tries, mut told) = (0_u32, None::<Instant>);
    let letter = loop {
        let error = match context.dead_letters.write(message, failure).await {
            Ok(ack) => break ack,
            Err(e) => {
                context.metrics.failed("dead_letters", e.kind());
                e.full()
            }
        };
        tries = tries.saturating_add(1);
        if told.is_none_or(|at| at.elapsed() >= TOLD_AGAIN) {
            told = Some(Instant::now());
            tracing::error!(
                record = %place(message), group = %context.shared.group(), dead_letter_topic = %topic, tries, %error,
                "a dead letter can't be written: what is in order behind its record waits, and it is tried on"
            );
        }
        state.note(offset, Some(format!("the dead letter of offset {offset} can't be written to {topic}: {error}")));
        if stop.run_until_cancelled(tokio::time::sleep(backoff.next())).await.is_none() {
            return false;
        }
    };
    // Brokers may know the record by an earlier request, and then say no offset.
    let dead_letter = match letter.offset {
        Some(offset) => format!("{}/{}@{offset}", letter.topic, letter.partition),
        None => format!("{}/{}", letter.topic, letter.partition),
    };
    tracing::error!(
        record = %place(message), group = %context.shared.group(), key = message.key.as_deref().map(shown), attempts = failure.attempts,
        dead_letter, error = %describe(&*failure.error), "the handler failed for the last time: the record is a dead letter"
    );
    context.shared.dead.fetch_add(1, Ordering::Relaxed);
    let Message { topic, partition, .. } = message;
    let (group, partition) = (context.shared.group(), *partition);
    context.metrics.report(|| Observation::DeadLettered { group, topic, partition });
    true
}

fn place(message: &Message) -> String {
    format!("{}/{}@{}", message.topic, message.partition, message.offset)
}
