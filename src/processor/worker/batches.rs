//! Gathering records into batches, and handing them to the handler.

use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Instant;

use super::{Finished, Item, Polled, Waits, Worker, spent};
use crate::processor::attempt::{Attempt, first_failure};
use crate::processor::batch::{BatchCall, Batching};
use crate::processor::lanes::{Kept, Lane};

impl Worker {
    /// Gathers records, and begins a batch when it is full or has waited long enough.
    pub(super) fn next_batch(
        &mut self,
        cx: &mut task::Context<'_>,
        batching: Batching,
        call: &Arc<BatchCall>,
    ) -> Waits {
        let full = !self.has_room();
        let mut gathered = false;
        if !full && self.lanes.takeable() < batching.max_records {
            if let Some(message) = self.source.next(&mut self.lanes, &self.state) {
                let lane = self.lanes.lane(message.key.as_deref(), message.offset);
                self.keep(lane, message);
                gathered = true;
            }
        }
        let takeable = self.lanes.takeable();
        if takeable == 0 {
            self.gathering = None;
            return match gathered {
                true => Waits::No,
                false if full => Waits::ForRoom,
                false => Waits::ForEvents,
            };
        }
        let now = Instant::now();
        let since = *self.gathering.get_or_insert(now);
        let due = full
            || takeable >= batching.max_records
            || self.lanes.is_retry_ready()
            || now.saturating_duration_since(since) >= batching.max_wait;
        if !due {
            return if gathered { Waits::No } else { Waits::ForEvents };
        }
        if let Err(waits) = self.take_permit() {
            return waits;
        }
        self.gathering = None;
        let taken = self.lanes.take(batching.max_records);
        self.attempt_batch(cx, call, taken);
        Waits::No
    }

    fn attempt_batch(&mut self, cx: &mut task::Context<'_>, call: &Arc<BatchCall>, taken: Vec<(Lane, Kept<Item>)>) {
        let mut items: Vec<_> = taken.into_iter().map(|(lane, kept)| (lane, kept.record)).collect();
        let mut limit = None;
        for (_, item) in &mut items {
            limit = self.arm(&mut item.message);
        }
        let messages: Vec<_> = items.iter().map(|(_, item)| item.message.clone()).collect();
        let Some(first) = messages.first().map(|m| m.offset) else { return };
        let span = self.context.tracing.batch_span(&messages, self.context.shared.group());
        let mut attempt = Attempt::begin(span, first_failure, || call(messages));
        let Polled { outcome, began, took } = self.poll_once(cx, &mut attempt, first);
        if let Poll::Ready(outcomes) = outcome {
            return self.settle_batch(items, outcomes, took);
        }
        self.in_flight += items.len();
        for (_, item) in &items {
            self.state.begun(item.message.offset, item.message.key.clone());
        }
        let permit = self.permits.hand_over();
        self.tasks.spawn(async move {
            let outcomes = attempt.within(limit).await;
            Finished::Batch(items, outcomes, spent(began, permit))
        });
    }
}
