//! One outage: which of its failures are logged.

use std::fmt;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};

/// Time from the first warning of an outage to the second; it doubles for each further one.
const FIRST_INTERVAL: Duration = Duration::from_secs(30);
/// Maximum time between two warnings of an outage.
const MAX_INTERVAL: Duration = Duration::from_secs(600);
/// Time without failures after which a new failure is a new outage.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Maximum number of kinds of failures of one outage that are reported at once, each when it first
/// occurs.
const MAX_KINDS: usize = 4;

/// Counts the failures of one thing that is retried (a broker, a coordinator, a metadata request),
/// and decides which of them to log: the first, one of each further kind, then some at growing
/// intervals, and the recovery.
///
/// It has neither log nor clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outage {
    /// Time of the first failure.
    since: Option<Instant>,
    failures: u64,
    kinds: Vec<ErrorKind>,
    /// The last error, while the outage lasts.
    error: Option<Error>,
    /// Time of the last report, and the interval until the next one.
    reported_at: Option<(Instant, Duration)>,
    /// True if a failure was reported, and its recovery is yet to be.
    recovery_unreported: bool,
    recovered_at: Option<Instant>,
}

/// The number of failures of an outage and its duration, to be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutageSummary {
    pub(crate) failures: u64,
    pub(crate) duration: Duration,
}

impl fmt::Display for OutageSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failures {
            1 if self.duration.is_zero() => f.write_str("1 failure"),
            1 => write!(f, "1 failure in {:.1?}", self.duration),
            n => write!(f, "{n} failures in {:.1?}", self.duration),
        }
    }
}

/// An outage that is not over, for health.
#[derive(Debug, Clone)]
pub(crate) struct OngoingOutage {
    pub(crate) since: Instant,
    pub(crate) error: Error,
}

impl OngoingOutage {
    /// Describes how long it has lasted, and why.
    pub(crate) fn describe(&self, now: Instant) -> String {
        let duration = Duration::from_secs(now.saturating_duration_since(self.since).as_secs());
        format!("for {duration:?}: {}", self.error.full())
    }
}

impl Outage {
    /// Records a failure. Returns a summary, if it is to be logged now.
    #[must_use]
    pub(crate) fn record_failure(&mut self, now: Instant, error: &Error) -> Option<OutageSummary> {
        self.record_failure_with_grace(now, error, Duration::ZERO)
    }

    /// Records a failure that is not logged before the outage has lasted for `grace`: one of normal
    /// operation, such as a coordinator that moves.
    #[must_use]
    pub(crate) fn record_failure_with_grace(
        &mut self,
        now: Instant,
        error: &Error,
        grace: Duration,
    ) -> Option<OutageSummary> {
        let recovered = self.recovered_at.is_some_and(|at| now.saturating_duration_since(at) >= STABLE_AFTER);
        if self.error.is_none() && recovered {
            *self = Self::default();
        }
        let since = *self.since.get_or_insert(now);
        self.failures += 1;
        self.error = Some(error.clone());
        if self.reported_at.is_none() && now.saturating_duration_since(since) < grace {
            return None;
        }
        let is_new = !self.kinds.contains(&error.kind()) && self.kinds.len() < MAX_KINDS;
        if is_new {
            self.kinds.push(error.kind());
        }
        let interval = match self.reported_at {
            None => FIRST_INTERVAL,
            Some((at, interval)) if now.saturating_duration_since(at) >= interval => (interval * 2).min(MAX_INTERVAL),
            Some((_, interval)) if is_new => interval,
            Some(_) => return None,
        };
        self.reported_at = Some((now, interval));
        self.recovery_unreported = true;
        Some(OutageSummary { failures: self.failures, duration: now.saturating_duration_since(since) })
    }

    /// Records a success. Returns a summary of the outage before it, if that was logged.
    #[must_use]
    pub(crate) fn record_recovery(&mut self, now: Instant) -> Option<OutageSummary> {
        self.error.take()?;
        self.recovered_at = Some(now);
        let since = self.since.unwrap_or(now);
        let summary = OutageSummary { failures: self.failures, duration: now.saturating_duration_since(since) };
        std::mem::take(&mut self.recovery_unreported).then_some(summary)
    }

    /// Returns the outage, while it lasts.
    pub(crate) fn ongoing(&self) -> Option<OngoingOutage> {
        let error = self.error.clone()?;
        self.since.map(|since| OngoingOutage { since, error })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    struct Bed {
        outage: Outage,
        start: Instant,
    }

    impl Bed {
        fn new() -> Self {
            Self { outage: Outage::default(), start: Instant::now() }
        }

        /// Returns the number of failures, if it is to be logged.
        fn fails(&mut self, ms: u64, kind: ErrorKind) -> Option<u64> {
            let now = self.start + Duration::from_millis(ms);
            self.outage.record_failure(now, &Error::new(kind, "no")).map(|l| l.failures)
        }

        fn works(&mut self, ms: u64) -> Option<OutageSummary> {
            self.outage.record_recovery(self.start + Duration::from_millis(ms))
        }
    }

    #[test]
    fn an_outage_of_an_hour_is_a_few_lines() {
        let mut bed = Bed::new();
        let reports: Vec<_> =
            (0..36_000).filter_map(|n| bed.fails(n * 100, ErrorKind::Connect).map(|f| (n / 10, f))).collect();
        let seconds: Vec<_> = reports.iter().map(|(s, _)| *s).collect();
        assert_eq!(OutageSummary { failures: 1, duration: Duration::ZERO }.to_string(), "1 failure");
        assert_eq!(seconds, [0, 30, 90, 210, 450, 930, 1530, 2130, 2730, 3330]);
        assert_eq!((reports[0].1, reports[1].1), (1, 301));
        let summary = bed.works(3_600_000).unwrap();
        assert_eq!((summary.failures, summary.duration), (36_000, Duration::from_secs(3600)));
        assert_eq!(summary.to_string(), "36000 failures in 3600.0s");
        assert_eq!(bed.works(3_600_100), None, "reported once");
    }

    #[test]
    fn another_kind_is_logged_at_once_but_not_alternately() {
        let mut bed = Bed::new();
        assert_eq!(bed.fails(0, ErrorKind::Connect), Some(1));
        assert_eq!(bed.fails(500, ErrorKind::Timeout), Some(2));
        for n in 0..40 {
            let kind = if n % 2 == 0 { ErrorKind::Connect } else { ErrorKind::Timeout };
            assert_eq!(bed.fails(1000 + n * 500, kind), None);
        }
    }

    #[test]
    fn alternating_failure_and_success_is_one_outage() {
        let mut bed = Bed::new();
        assert_eq!(bed.fails(0, ErrorKind::Connect), Some(1));
        assert!(bed.works(100).is_some());
        for n in 1..100 {
            assert_eq!(bed.fails(n * 200, ErrorKind::Connect), None);
            assert_eq!(bed.works(n * 200 + 100), None);
        }
        assert_eq!(bed.fails(30_000, ErrorKind::Connect), Some(1), "stable for 10 s: a new one");
    }

    #[test]
    fn a_failure_with_grace_is_logged_only_if_it_lasts() {
        let (mut bed, grace) = (Bed::new(), Duration::from_secs(5));
        let e = Error::new(ErrorKind::Broker(16), "no");
        let at = |ms| bed.start + Duration::from_millis(ms);
        let (start, soon, late) = (at(0), at(4900), at(5100));
        assert_eq!(bed.outage.record_failure_with_grace(start, &e, grace), None);
        assert_eq!(bed.outage.record_failure_with_grace(soon, &e, grace), None);
        assert_eq!(bed.outage.record_failure_with_grace(late, &e, grace).unwrap().failures, 3);
        assert!(bed.works(5200).is_some());
        let mut bed = Bed::new();
        assert_eq!(bed.outage.record_failure_with_grace(start, &e, grace), None);
        assert_eq!(bed.works(200), None, "nothing was reported");
    }

    #[test]
    fn an_outage_is_ongoing_until_it_recovers() {
        let mut bed = Bed::new();
        assert!(bed.outage.ongoing().is_none());
        _ = bed.fails(0, ErrorKind::Connect);
        _ = bed.fails(900, ErrorKind::Authentication);
        let ongoing = bed.outage.ongoing().unwrap();
        assert_eq!((ongoing.since, ongoing.error.kind()), (bed.start, ErrorKind::Authentication));
        _ = bed.works(1000);
        assert!(bed.outage.ongoing().is_none());
    }
}
