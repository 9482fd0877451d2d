//! Decides whether a partition is idle, busy or stalled, without I/O.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// The activity of a partition or a subscription.
///
/// ```
/// use ailurus::health::Activity;
///
/// assert_eq!(serde_json::to_string(&Activity::Stalled).unwrap(), r#""stalled""#);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Activity {
    /// No record is pending.
    #[default]
    Idle,
    /// Records are pending, and one was handled recently.
    Busy,
    /// Records are pending, and none was handled for
    /// [`ProcessorConfig::stall_timeout`](crate::ProcessorConfig::stall_timeout).
    Stalled,
    /// Read from the JSON of a newer version, which has a word that this one does not know.
    #[serde(other)]
    Unknown,
}

/// Tracks position and end offset of one partition, and since when pending records make no
/// progress.
#[derive(Debug, Default)]
pub(super) struct ProgressTracker {
    /// The next offset to handle; `None` before the first fetch if nothing is committed.
    position: Option<i64>,
    /// The last known end offset: the high watermark or last stable offset.
    end: Option<i64>,
    /// Number of fetched records that are not completed.
    pending_records: usize,
    /// Time since which records are pending and none was completed.
    waiting_since: Option<Instant>,
}

impl ProgressTracker {
    /// Sets the position to a committed offset.
    pub(super) fn start_at(&mut self, committed: i64) {
        self.position = Some(committed);
    }

    /// Handles a report of the worker: its position, its pending records, and whether it completed
    /// one since its last report.
    pub(super) fn on_worker_report(
        &mut self,
        position: Option<i64>,
        pending_records: usize,
        completed: bool,
        now: Instant,
    ) {
        let moved = position.is_some() && position != self.position;
        if position.is_some() {
            if position < self.position {
                self.end = None; // the topic was recreated
            }
            self.position = position;
        }
        self.pending_records = pending_records;
        self.update_waiting(moved || completed, now);
    }

    /// Handles the end offset of a fetch. It may be outdated: the fetched records may have been
    /// queued for long.
    pub(super) fn on_fetched_end(&mut self, end: i64, now: Instant) {
        self.end = self.end.max(Some(end));
        self.update_waiting(false, now);
    }

    /// Handles the end offset that the leader has just returned.
    pub(super) fn on_end_offset(&mut self, end: i64, now: Instant) {
        self.end = Some(end);
        self.update_waiting(false, now);
    }

    /// Handles a seek.
    pub(super) fn on_seek(&mut self, offset: i64, now: Instant) {
        self.position = Some(offset);
        self.pending_records = 0;
        self.update_waiting(true, now);
    }

    /// Handles the end of a pause: pending records have waited for no handler until now.
    pub(super) fn on_resumed(&mut self, now: Instant) {
        self.update_waiting(true, now);
    }

    fn update_waiting(&mut self, progress: bool, now: Instant) {
        self.waiting_since = match self.waiting_since {
            _ if !self.has_pending() => None,
            Some(since) if !progress => Some(since),
            _ => Some(now),
        };
    }

    /// Returns whether any record is not completed. Without a position, every record of the log
    /// counts.
    fn has_pending(&self) -> bool {
        self.pending_records > 0 || self.end > Some(self.position.unwrap_or(0))
    }

    /// Returns the next offset to handle.
    pub(super) fn position(&self) -> Option<i64> {
        self.position
    }

    /// Returns the number of offsets between the position and the end.
    pub(super) fn lag(&self) -> Option<i64> {
        self.end.zip(self.position).map(|(end, at)| (end - at).max(0))
    }

    /// Returns for how long records are pending while none was completed.
    pub(super) fn quiet_for(&self, now: Instant) -> Option<Duration> {
        self.waiting_since.map(|since| now.saturating_duration_since(since))
    }

    /// Returns the activity; without progress for `limit`, pending records are stalled.
    pub(super) fn activity(&self, limit: Duration, now: Instant) -> Activity {
        match self.quiet_for(now) {
            None => Activity::Idle,
            Some(quiet) if quiet < limit => Activity::Busy,
            Some(_) => Activity::Stalled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Activity::*;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// A partition, and a clock in seconds.
    struct Bed {
        tracker: ProgressTracker,
        start: Instant,
    }

    impl Bed {
        fn new() -> Self {
            Self { tracker: ProgressTracker::default(), start: Instant::now() }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn on_worker_report(&mut self, seconds: u64, position: i64, pending_records: usize, completed: bool) {
            let now = self.at(seconds);
            self.tracker.on_worker_report(Some(position), pending_records, completed, now);
        }

        fn on_end_offset(&mut self, seconds: u64, end: i64) {
            let now = self.at(seconds);
            self.tracker.on_end_offset(end, now);
        }

        fn is(&self, seconds: u64) -> Activity {
            self.tracker.activity(LIMIT, self.at(seconds))
        }
    }

    #[test]
    fn idle_without_pending_records() {
        let mut bed = Bed::new();
        assert_eq!(bed.is(1000), Idle);
        bed.on_worker_report(0, 7, 0, false);
        bed.on_end_offset(0, 7);
        assert_eq!((bed.is(100_000), bed.tracker.lag()), (Idle, Some(0)));
    }

    #[test]
    fn first_record_after_an_idle_time_is_busy() {
        let mut bed = Bed::new();
        bed.on_worker_report(0, 7, 0, false);
        bed.on_end_offset(1000, 8);
        assert_eq!(bed.is(1000), Busy);
        assert_eq!(bed.is(1059), Busy);
        assert_eq!(bed.is(1060), Stalled);
        assert_eq!(bed.tracker.quiet_for(bed.at(1075)), Some(Duration::from_secs(75)));
    }

    #[test]
    fn each_completed_record_restarts_the_stall_timeout() {
        let mut bed = Bed::new();
        bed.on_worker_report(0, 0, 3, false);
        bed.on_worker_report(50, 1, 2, false);
        assert_eq!(bed.is(109), Busy);
        bed.on_worker_report(100, 1, 2, true); // out of order: the position stays
        assert_eq!(bed.is(159), Busy);
        bed.on_worker_report(110, 1, 2, false); // no news
        assert_eq!(bed.is(160), Stalled);
        bed.on_worker_report(161, 3, 0, true);
        assert_eq!(bed.is(161), Idle);
    }

    #[test]
    fn a_resumed_partition_is_not_stalled_at_once() {
        let mut bed = Bed::new();
        bed.on_worker_report(0, 0, 3, false);
        let now = bed.at(1000);
        bed.tracker.on_resumed(now);
        assert_eq!((bed.is(1059), bed.is(1060)), (Busy, Stalled));
    }

    #[test]
    fn in_flight_records_count_without_a_known_end() {
        let mut bed = Bed::new();
        bed.on_worker_report(0, 7, 1, false);
        assert_eq!((bed.is(0), bed.is(60), bed.tracker.lag()), (Busy, Stalled, None));
    }

    #[test]
    fn records_that_are_not_fetched_are_noticed_by_the_end_offset() {
        let mut bed = Bed::new();
        bed.tracker.start_at(5);
        bed.on_end_offset(10, 9);
        assert_eq!((bed.is(10), bed.tracker.lag()), (Busy, Some(4)));
        bed.on_end_offset(40, 12);
        assert_eq!(bed.is(70), Stalled);
    }

    #[test]
    fn without_a_position_any_record_is_pending() {
        let mut bed = Bed::new();
        bed.on_end_offset(0, 0);
        assert_eq!(bed.is(100), Idle);
        bed.on_end_offset(0, 3);
        assert_eq!((bed.is(0), bed.is(60), bed.tracker.lag()), (Busy, Stalled, None));
        bed.on_worker_report(70, 3, 0, false);
        assert_eq!(bed.is(70), Idle);
    }

    #[test]
    fn an_outdated_fetch_does_not_lower_the_end() {
        let mut bed = Bed::new();
        bed.on_worker_report(0, 1, 1, false);
        bed.on_end_offset(1, 100);
        let now = bed.at(2);
        bed.tracker.on_fetched_end(50, now);
        assert_eq!(bed.tracker.lag(), Some(99));
        bed.on_end_offset(3, 40); // the log was truncated
        assert_eq!(bed.tracker.lag(), Some(39));
    }

    #[test]
    fn a_recreated_log_resets_the_end() {
        let mut bed = Bed::new();
        bed.on_worker_report(0, 90, 0, false);
        bed.on_end_offset(0, 100);
        bed.on_worker_report(1, 2, 0, true);
        assert_eq!((bed.tracker.lag(), bed.is(1)), (None, Idle));
        let now = bed.at(2);
        bed.tracker.on_fetched_end(3, now);
        assert_eq!((bed.tracker.lag(), bed.is(2)), (Some(1), Busy));
    }
}
