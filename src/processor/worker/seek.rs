//! Carries out a seek: handlers of earlier positions end, then the partition is read from the new
//! one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Worker;
use super::permits::Permits;
use crate::processor::lanes::Lanes;
use crate::processor::offset_tracker::CompletedOffsets;

/// Maximum time for cancelled handlers to reach an await point.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

impl Worker {
    /// Returns whether a seek is to be carried out.
    pub(super) fn is_moved(&self) -> bool {
        self.state.seek_number() != self.source.seek()
    }

    /// Carries out a seek unless handlers are still in flight, which must end first: two handlers of
    /// a key would run side by side. Returns whether it did.
    pub(super) async fn end_seek(&mut self) -> bool {
        let now = Instant::now();
        let deadline = *self.seek_deadline.get_or_insert(now + self.context.config.shutdown_timeout);
        if !self.tasks.is_empty() && now >= deadline {
            self.cancel_handlers().await;
        }
        if !self.tasks.is_empty() {
            return false;
        }
        self.seek_deadline = None;
        let Some((seek, offset)) = self.state.sought() else { return false };
        self.source.on_seek(seek);
        self.lanes = Lanes::new(self.context.config.ordering, Some((offset, CompletedOffsets::default())));
        self.drop_held();
        self.permits = Permits::new(Arc::clone(&self.context.shared.concurrency));
        (self.in_flight, self.dead_letters_in_flight, self.dead_letter_bytes) = (0, 0, 0);
        self.unwritten_dead_letters = 0;
        (self.batch_started_at, self.published) = (None, None);
        self.state.clear_records();
        true
    }

    async fn cancel_handlers(&mut self) {
        let mut tasks = std::mem::take(&mut self.tasks);
        let (partition, count) = (self.metrics.partition(), tasks.len());
        tracing::warn!(%partition, count, "handlers did not finish in time for a seek and were cancelled");
        if tokio::time::timeout(CANCEL_TIMEOUT, tasks.shutdown()).await.is_err() {
            tracing::error!(%partition, "a handler blocks its thread and can't be cancelled: it runs beside those of the new position");
        }
    }
}
