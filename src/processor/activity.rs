//! Whether a partition is idle, busy or stalled, without I/O.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What a partition, or a subscription, is about.
///
/// ```
/// use ailurus::health::Activity;
///
/// assert_eq!(serde_json::to_string(&Activity::Stalled).unwrap(), r#""stalled""#);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activity {
    /// No record waits.
    #[default]
    Idle,
    /// Records wait or are in a handler, and one has ended lately.
    Busy,
    /// Records wait, and none has ended for [`ProcessorConfig::stall_timeout`](crate::ProcessorConfig::stall_timeout).
    Stalled,
}

/// Follows one partition: how far it is, where it ends, and since when it stands.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// The next offset to handle; none before the first fetch, if nothing is committed.
    position: Option<i64>,
    /// The offset behind the last record that can be read, as far as is known.
    end: Option<i64>,
    /// Records that are here and have not ended.
    here: usize,
    /// Since when records wait and none has ended.
    since: Option<Instant>,
}

impl Pulse {
    /// The group has committed this offset.
    pub(super) fn begins_at(&mut self, committed: i64) {
        self.position = Some(committed);
    }

    /// The worker has told how far it is, how many records it has, and whether one has ended since it told the last time.
    pub(super) fn told(&mut self, position: Option<i64>, here: usize, ended: bool, now: Instant) {
        let moved = position.is_some() && position != self.position;
        if position.is_some() {
            if position < self.position {
                self.end = None; // another log under the same name
            }
            self.position = position;
        }
        self.here = here;
        self.look(moved || ended, now);
    }

    /// A fetch has told the end. It may be an old one: its records may have waited here for long.
    pub(super) fn fetched(&mut self, end: i64, now: Instant) {
        self.end = self.end.max(Some(end));
        self.look(false, now);
    }

    /// The leader was asked for the end just now.
    pub(super) fn asked(&mut self, end: i64, now: Instant) {
        self.end = Some(end);
        self.look(false, now);
    }

    fn look(&mut self, progress: bool, now: Instant) {
        self.since = match self.since {
            _ if !self.waits() => None,
            Some(since) if !progress => Some(since),
            _ => Some(now),
        };
    }

    /// Whether there are records that have not ended. Where it is not known from where on: if there are any.
    fn waits(&self) -> bool {
        self.here > 0 || self.end > Some(self.position.unwrap_or(0))
    }

    /// The next offset to handle.
    pub(super) fn position(&self) -> Option<i64> {
        self.position
    }

    /// How many offsets lie between the position and the end.
    pub(super) fn lag(&self) -> Option<i64> {
        self.end.zip(self.position).map(|(end, at)| (end - at).max(0))
    }

    /// For how long records have waited while none has ended.
    pub(super) fn quiet(&self, now: Instant) -> Option<Duration> {
        self.since.map(|since| now.saturating_duration_since(since))
    }

    /// In one word; `limit` is how long records may wait.
    pub(super) fn activity(&self, limit: Duration, now: Instant) -> Activity {
        match self.quiet(now) {
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
        pulse: Pulse,
        start: Instant,
    }

    impl Bed {
        fn new() -> Self {
            Self { pulse: Pulse::default(), start: Instant::now() }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn told(&mut self, seconds: u64, position: i64, here: usize, ended: bool) {
            let now = self.at(seconds);
            self.pulse.told(Some(position), here, ended, now);
        }

        fn asked(&mut self, seconds: u64, end: i64) {
            let now = self.at(seconds);
            self.pulse.asked(end, now);
        }

        fn is(&self, seconds: u64) -> Activity {
            self.pulse.activity(LIMIT, self.at(seconds))
        }
    }

    #[test]
    fn what_has_nothing_to_do_is_idle_for_however_long() {
        let mut bed = Bed::new();
        assert_eq!(bed.is(1000), Idle);
        bed.told(0, 7, 0, false);
        bed.asked(0, 7);
        assert_eq!((bed.is(100_000), bed.pulse.lag()), (Idle, Some(0)));
    }

    #[test]
    fn what_was_idle_for_long_is_busy_with_its_first_record_and_not_stalled() {
        let mut bed = Bed::new();
        bed.told(0, 7, 0, false);
        bed.asked(1000, 8);
        assert_eq!(bed.is(1000), Busy);
        assert_eq!(bed.is(1059), Busy);
        assert_eq!(bed.is(1060), Stalled);
        assert_eq!(bed.pulse.quiet(bed.at(1075)), Some(Duration::from_secs(75)));
    }

    #[test]
    fn each_record_that_ends_begins_the_time_anew() {
        let mut bed = Bed::new();
        bed.told(0, 0, 3, false);
        bed.told(50, 1, 2, false);
        assert_eq!(bed.is(109), Busy);
        bed.told(100, 1, 2, true); // out of order: the position stays
        assert_eq!(bed.is(159), Busy);
        bed.told(110, 1, 2, false); // only told again
        assert_eq!(bed.is(160), Stalled);
        bed.told(161, 3, 0, true);
        assert_eq!(bed.is(161), Idle);
    }

    #[test]
    fn a_record_in_hand_is_something_to_do_though_no_end_is_known() {
        let mut bed = Bed::new();
        bed.told(0, 7, 1, false);
        assert_eq!((bed.is(0), bed.is(60), bed.pulse.lag()), (Busy, Stalled, None));
    }

    #[test]
    fn records_that_nobody_fetches_are_noticed_by_asking() {
        let mut bed = Bed::new();
        bed.pulse.begins_at(5);
        bed.asked(10, 9);
        assert_eq!((bed.is(10), bed.pulse.lag()), (Busy, Some(4)));
        bed.asked(40, 12);
        assert_eq!(bed.is(70), Stalled);
    }

    #[test]
    fn where_nothing_is_committed_or_fetched_records_wait_if_there_are_any() {
        let mut bed = Bed::new();
        bed.asked(0, 0);
        assert_eq!(bed.is(100), Idle);
        bed.asked(0, 3);
        assert_eq!((bed.is(0), bed.is(60), bed.pulse.lag()), (Busy, Stalled, None));
        bed.told(70, 3, 0, false);
        assert_eq!(bed.is(70), Idle);
    }

    #[test]
    fn an_old_fetch_does_not_take_the_end_back() {
        let mut bed = Bed::new();
        bed.told(0, 1, 1, false);
        bed.asked(1, 100);
        let now = bed.at(2);
        bed.pulse.fetched(50, now);
        assert_eq!(bed.pulse.lag(), Some(99));
        bed.asked(3, 40); // the log was cut
        assert_eq!(bed.pulse.lag(), Some(39));
    }

    #[test]
    fn a_log_that_begins_anew_has_an_end_of_its_own() {
        let mut bed = Bed::new();
        bed.told(0, 90, 0, false);
        bed.asked(0, 100);
        bed.told(1, 2, 0, true);
        assert_eq!((bed.pulse.lag(), bed.is(1)), (None, Idle));
        let now = bed.at(2);
        bed.pulse.fetched(3, now);
        assert_eq!((bed.pulse.lag(), bed.is(2)), (Some(1), Busy));
    }
}
