//! The outages of a client: which failures are logged.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::lock::Lock;

/// Time from the first warning of an outage to the second; it doubles for each further one.
const FIRST_INTERVAL: Duration = Duration::from_secs(30);
/// Maximum time between two warnings of an outage.
const MAX_INTERVAL: Duration = Duration::from_secs(600);
/// Time without failures after which a new failure is a new outage.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Maximum number of kinds of failures of one outage that are reported at once, each when it first
/// occurs.
const MAX_KINDS: usize = 4;

/// The failures of one part of a client that is retried (a broker, a coordinator, a metadata
/// request).
#[derive(Debug, Default)]
pub(crate) struct Outage {
    /// Time of the first failure.
    since: Option<Instant>,
    /// The last error, while the outage lasts.
    error: Option<Error>,
    recovered_at: Option<Instant>,
    log: OutageLog,
}

/// Decides which failures of a client to log: of an outage the first, one of each further kind,
/// then some at growing intervals, and the recovery. Its parts share it, as an unreachable broker
/// is an outage of several of them: it is over when none of them fails.
///
/// It has no clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutageLog(Arc<Lock<LogState>>);

#[derive(Debug, Default)]
struct LogState {
    /// Number of parts that fail.
    failing: usize,
    since: Option<Instant>,
    failures: u64,
    kinds: Vec<ErrorKind>,
    /// Time of the last report, and the interval until the next one.
    reported_at: Option<(Instant, Duration)>,
    /// True if a failure was reported, and its recovery is yet to be.
    recovery_unreported: bool,
    /// Time of the last failure.
    failed_at: Option<Instant>,
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

impl OutageLog {
    /// Returns the outage of one part.
    pub(crate) fn part(&self) -> Outage {
        Outage { since: None, error: None, recovered_at: None, log: self.clone() }
    }
}

/// Returns one kind for all ways in which a broker is unreachable.
fn merged(kind: ErrorKind) -> ErrorKind {
    match kind {
        ErrorKind::Disconnected | ErrorKind::Timeout => ErrorKind::Connect,
        kind => kind,
    }
}

fn is_stable(recovered_at: Option<Instant>, now: Instant) -> bool {
    recovered_at.is_some_and(|at| now.saturating_duration_since(at) >= STABLE_AFTER)
}

impl LogState {
    fn summary(&self, now: Instant) -> OutageSummary {
        let duration = now.saturating_duration_since(self.since.unwrap_or(now));
        OutageSummary { failures: self.failures, duration }
    }

    fn is_report_due(&mut self, now: Instant, kind: ErrorKind) -> bool {
        let is_new = !self.kinds.contains(&kind) && self.kinds.len() < MAX_KINDS;
        if is_new {
            self.kinds.push(kind);
        }
        let interval = match self.reported_at {
            None => FIRST_INTERVAL,
            Some((at, interval)) if now.saturating_duration_since(at) >= interval => (interval * 2).min(MAX_INTERVAL),
            Some((_, interval)) if is_new => interval,
            Some(_) => return false,
        };
        self.reported_at = Some((now, interval));
        self.recovery_unreported = true;
        true
    }
}

impl Outage {
    /// Records a failure. Returns a summary of the client's outage, if it is to be logged now.
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
        let mut log = self.log.0.lock();
        if log.failing == 0 && is_stable(log.recovered_at, now) {
            *log = LogState::default();
        }
        if self.error.is_none() {
            log.failing += 1;
            self.since = self.since.filter(|_| !is_stable(self.recovered_at, now));
        }
        let since = *self.since.get_or_insert(now);
        self.error = Some(error.clone());
        log.since.get_or_insert(since);
        log.failures += 1;
        log.failed_at = Some(now);
        let is_due = now.saturating_duration_since(since) >= grace && log.is_report_due(now, merged(error.kind()));
        is_due.then(|| log.summary(now))
    }

    /// Records a success. Returns a summary of the client's outage, if it is over and was logged.
    #[must_use]
    pub(crate) fn record_recovery(&mut self, now: Instant) -> Option<OutageSummary> {
        self.error.take()?;
        self.recovered_at = Some(now);
        let mut log = self.log.0.lock();
        log.failing = log.failing.saturating_sub(1);
        if log.failing > 0 {
            return None;
        }
        log.recovered_at = Some(now);
        std::mem::take(&mut log.recovery_unreported).then(|| log.summary(now))
    }

    /// Records a success, and logs the end of the client's outage, if this is it.
    pub(crate) fn log_recovery(&mut self, now: Instant) {
        if let Some(lasted) = self.record_recovery(now) {
            tracing::warn!("the client works again, after {lasted}");
        }
    }

    /// Returns the outage, while it lasts.
    pub(crate) fn ongoing(&self) -> Option<OngoingOutage> {
        let error = self.error.clone()?;
        self.since.map(|since| OngoingOutage { since, error })
    }
}

impl Drop for Outage {
    /// A part that ends while it fails does not keep the outage open.
    fn drop(&mut self) {
        if self.error.is_some() {
            let mut log = self.log.0.lock();
            log.failing = log.failing.saturating_sub(1);
            log.recovered_at = log.failed_at.filter(|_| log.failing == 0);
        }
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
        assert_eq!(bed.fails(500, ErrorKind::Corrupt), Some(2));
        for n in 0..40 {
            let kind = if n % 2 == 0 { ErrorKind::Connect } else { ErrorKind::Corrupt };
            assert_eq!(bed.fails(1000 + n * 500, kind), None);
        }
    }

    #[test]
    fn an_outage_that_several_parts_notice_is_one_line() {
        let (log, start) = (OutageLog::default(), Instant::now());
        let mut parts = [log.part(), log.part(), log.part()];
        let at = |ms| start + Duration::from_millis(ms);
        let e = |kind| Error::new(kind, "no");
        let kinds = [ErrorKind::Disconnected, ErrorKind::Connect, ErrorKind::Timeout];
        let mut lines = 0;
        for n in 0..20 {
            for (part, kind) in parts.iter_mut().zip(kinds) {
                lines += usize::from(part.record_failure(at(n * 1000), &e(kind)).is_some());
            }
        }
        assert_eq!(lines, 1);
        for (part, kind) in parts.iter().zip(kinds) {
            assert_eq!(part.ongoing().unwrap().error.kind(), kind, "health has each problem");
        }
        let [fetch, membership, metadata] = &mut parts;
        assert_eq!(metadata.record_recovery(at(20_000)), None, "the others still fail");
        assert_eq!(fetch.record_recovery(at(21_000)), None);
        let summary = membership.record_recovery(at(22_000)).unwrap();
        assert_eq!(summary, OutageSummary { failures: 60, duration: Duration::from_secs(22) });
        assert_eq!(fetch.record_failure(at(40_000), &e(ErrorKind::Connect)).unwrap().failures, 1, "a new one");
        assert_eq!(membership.record_failure(at(40_100), &e(ErrorKind::Connect)), None);
        drop(parts);
        let mut rest = log.part();
        assert_eq!(rest.record_failure(at(40_200), &e(ErrorKind::Connect)), None, "the same outage");
        assert_eq!(rest.record_recovery(at(41_000)).unwrap().failures, 3, "no part keeps it open that has ended");
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
