//! Collects records into batches and passes them to the batch handler.

use std::sync::Arc;
use std::task::{self, Poll};

use tokio::time::Instant;

use super::attempts::{PollResult, handler_usage};
use super::{Blocked, PendingRecord, TaskOutput, Worker};
use crate::processor::attempt::{Attempt, first_failure};
use crate::processor::batch::{BatchHandlerFn, Batching};
use crate::processor::lanes::Lane;

impl Worker {
    /// Queues a record, and starts a batch when it is full or has waited for `max_wait`.
    pub(super) fn process_next_batch(
        &mut self,
        cx: &mut task::Context<'_>,
        batching: Batching,
        call: &Arc<BatchHandlerFn>,
    ) -> Blocked {
        let awaits_commit = self.is_collector_full();
        let is_full = awaits_commit || !self.has_queue_capacity();
        let mut queued = false;
        if !is_full && self.lanes.takeable() < batching.max_records {
            if let Some(message) = self.source.next(&mut self.lanes, &self.state) {
                let lane = self.lanes.lane(message.key.as_deref(), message.offset);
                self.enqueue(lane, message);
                queued = true;
            }
        }
        let takeable = self.lanes.takeable();
        if takeable == 0 {
            self.batch_started_at = None;
            return match queued {
                true => Blocked::Not,
                false if awaits_commit => Blocked::OnTransactions,
                false if is_full => Blocked::OnQueue,
                false => Blocked::OnEvents,
            };
        }
        let now = Instant::now();
        let since = *self.batch_started_at.get_or_insert(now);
        let due = is_full
            || takeable >= batching.max_records
            || self.lanes.is_retry_ready()
            || now.saturating_duration_since(since) >= batching.max_wait;
        if !due {
            return if queued { Blocked::Not } else { Blocked::OnEvents };
        }
        if let Err(blocked) = self.take_permit() {
            return blocked;
        }
        self.batch_started_at = None;
        let taken = self.lanes.take_ready(batching.max_records);
        let batch = taken.into_iter().map(|(lane, queued)| (lane, queued.record)).collect();
        self.start_batch_attempt(cx, call, batch);
        Blocked::Not
    }

    pub(super) fn start_batch_attempt(
        &mut self,
        cx: &mut task::Context<'_>,
        call: &Arc<BatchHandlerFn>,
        mut batch: Vec<(Lane, PendingRecord)>,
    ) {
        let mut limit = None;
        for (_, pending) in &mut batch {
            limit = self.set_deadline(&mut pending.message);
        }
        let messages: Vec<_> = batch.iter().map(|(_, pending)| pending.for_handler()).collect();
        let Some(first) = batch.first().map(|(_, pending)| pending.message.offset) else { return };
        let span = self.context.tracing.batch_span(&messages, self.context.shared.group());
        let mut attempt = Attempt::start(span, first_failure, || call(messages));
        let PollResult { outcome, started_at, took } = self.poll_inline(cx, &mut attempt, first);
        if let Poll::Ready(outcomes) = outcome {
            return self.apply_batch_outcomes(batch, outcomes, took);
        }
        self.in_flight += batch.len();
        for (_, pending) in &batch {
            self.state.handler_started(pending.message.offset, pending.message.key.clone());
        }
        let permit = self.permits.hand_to_task();
        self.tasks.spawn(async move {
            let outcomes = attempt.within(limit).await;
            TaskOutput::Batch(batch, outcomes, handler_usage(started_at, permit))
        });
    }
}
