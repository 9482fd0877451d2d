//! What a producer tells of itself: batches, their ends, its buffer. Nothing is looked at while nobody listens.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::batch::{Ended, Outcome};
use crate::config::ProducerConfig;
use crate::error::{Error, ErrorKind};
use crate::metrics::{Observation, Reporter};

#[derive(Debug)]
pub(super) struct Meter {
    pub(super) metrics: Reporter,
    delivery_timeout: Duration,
    limit: usize,
    /// Bytes of the buffer in use, as last told; none when the producer has ended.
    used: Mutex<Option<usize>>,
}

impl Meter {
    pub(super) fn new(metrics: &Reporter, config: &ProducerConfig) -> Self {
        let limit = config.buffer_memory;
        metrics.report(|| Observation::BufferChanged { used: 0, limit: limit as i64 });
        Self { metrics: metrics.clone(), delivery_timeout: config.delivery_timeout, limit, used: Mutex::new(Some(0)) }
    }

    fn used(&self) -> MutexGuard<'_, Option<usize>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells how much of the buffer is in use.
    pub(super) fn buffer(&self, memory: &Semaphore) {
        if !self.metrics.is_on() {
            return;
        }
        let mut told = self.used();
        if let Some(before) = *told {
            let used = self.limit.saturating_sub(memory.available_permits());
            *told = Some(used);
            if used != before {
                let used = used as i64 - before as i64;
                self.metrics.report(|| Observation::BufferChanged { used, limit: 0 });
            }
        }
    }

    /// The producer has ended: its buffer is no more.
    pub(super) fn end(&self) {
        if let Some(used) = self.used().take() {
            let (used, limit) = (-(used as i64), -(self.limit as i64));
            self.metrics.report(|| Observation::BufferChanged { used, limit });
        }
    }

    /// A record has waited for buffer space since then.
    pub(super) fn waited(&self, since: Option<Instant>) {
        if let Some(since) = since {
            self.metrics.report(|| Observation::BufferWaited { took: since.elapsed() });
        }
    }

    /// The time, if anyone wants it.
    pub(super) fn now(&self) -> Option<Instant> {
        self.metrics.is_on().then(Instant::now)
    }

    pub(super) fn ended(&self, now: Option<Instant>, batch: &Ended) {
        let Some(now) = now else { return };
        // Its delivery timeout, and its linger time, are counted from its first record on.
        let began = batch.expires.checked_sub(self.delivery_timeout).unwrap_or(now);
        let (topic, took) = (&batch.completion.topic, now.saturating_duration_since(began));
        let error = batch.result.as_ref().err().map(Error::kind);
        self.metrics.report(|| Observation::BatchEnded { topic, records: batch.records, took, error });
        if let Some(error) = error {
            self.metrics.failed("producer", error);
        }
    }

    pub(super) fn judged(&self, topic: &str, outcome: &Outcome) {
        let error: ErrorKind = match outcome {
            Outcome::Retry { again, .. } | Outcome::OutOfSequence(again) | Outcome::Fenced(again) => again.error.kind(),
            Outcome::TooLarge { error, halves: Some(_) } => error.kind(),
            Outcome::BadRecords { error, pieces } if pieces.iter().any(|piece| piece.outcome.is_ok()) => error.kind(),
            _ => return,
        };
        self.metrics.report(|| Observation::BatchRetried { topic, error });
    }
}
