//! The observations that a producer reports: batches, their results, its buffer. Without a listener
//! they cost nothing.

use std::sync::MutexGuard;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::batch::{FinishedBatch, SendOutcome};
use crate::config::ProducerConfig;
use crate::error::{Error, ErrorKind};
use crate::lock::Lock;
use crate::metrics::{Observation, Reporter};

#[derive(Debug)]
pub(super) struct ProducerMetrics {
    pub(super) reporter: Reporter,
    delivery_timeout: Duration,
    limit: usize,
    /// Bytes of the buffer in use, as last reported; none once the producer is closed.
    used: Lock<Option<usize>>,
}

impl ProducerMetrics {
    pub(super) fn new(reporter: &Reporter, config: &ProducerConfig) -> Self {
        let limit = config.buffer_memory;
        reporter.report(|| Observation::BufferChanged { used: 0, limit: limit as i64 });
        Self { reporter: reporter.clone(), delivery_timeout: config.delivery_timeout, limit, used: Lock::new(Some(0)) }
    }

    fn lock_used(&self) -> MutexGuard<'_, Option<usize>> {
        self.used.lock()
    }

    /// Reports the change in the use of the buffer.
    pub(super) fn report_buffer(&self, memory: &Semaphore) {
        if !self.reporter.is_on() {
            return;
        }
        let mut reported = self.lock_used();
        if let Some(before) = *reported {
            let used = self.limit.saturating_sub(memory.available_permits());
            *reported = Some(used);
            if used != before {
                let used = used as i64 - before as i64;
                self.reporter.report(|| Observation::BufferChanged { used, limit: 0 });
            }
        }
    }

    /// Reports that the buffer is gone, with what was in it.
    pub(super) fn report_closed(&self) {
        if let Some(used) = self.lock_used().take() {
            let (used, limit) = (-(used as i64), -(self.limit as i64));
            self.reporter.report(|| Observation::BufferChanged { used, limit });
        }
    }

    /// Reports that a record has waited for buffer space since then.
    pub(super) fn report_buffer_wait(&self, since: Option<Instant>) {
        if let Some(since) = since {
            self.reporter.report(|| Observation::BufferWaited { took: since.elapsed() });
        }
    }

    /// Returns the time, if metrics are on.
    pub(super) fn now_if_on(&self) -> Option<Instant> {
        self.reporter.is_on().then(Instant::now)
    }

    pub(super) fn report_finished(&self, now: Option<Instant>, batch: &FinishedBatch) {
        let Some(now) = now else { return };
        // The delivery timeout starts with the first record.
        let started_at = batch.expires_at.checked_sub(self.delivery_timeout).unwrap_or(now);
        let (topic, took) = (&batch.completion.topic, now.saturating_duration_since(started_at));
        let error = batch.result.as_ref().err().map(Error::kind);
        self.reporter.report(|| Observation::BatchEnded { topic, records: batch.records, took, error });
        if let Some(error) = error {
            self.reporter.failed("producer", error);
        }
    }

    /// Reports a retry, if the outcome leads to one.
    pub(super) fn report_outcome(&self, topic: &str, outcome: &SendOutcome) {
        let error: ErrorKind = match outcome {
            SendOutcome::Retry { retry, .. } | SendOutcome::OutOfSequence(retry) | SendOutcome::Fenced(retry) => {
                retry.error.kind()
            }
            SendOutcome::TooLarge { error, halves: Some(_) } => error.kind(),
            SendOutcome::BadRecords { error, pieces } if pieces.iter().any(|piece| piece.outcome.is_ok()) => {
                error.kind()
            }
            _ => return,
        };
        self.reporter.report(|| Observation::BatchRetried { topic, error });
    }
}
