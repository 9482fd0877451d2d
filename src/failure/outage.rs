//! One outage, as the log tells it.

use std::fmt;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};

/// How long after a warning the next one comes, if the outage still lasts: twice as long each time.
const FIRST: Duration = Duration::from_secs(30);
/// The longest time between two warnings of one outage.
const LONGEST: Duration = Duration::from_secs(600);
/// What fails again sooner than this after it has recovered belongs to the same outage.
const CALM: Duration = Duration::from_secs(10);
/// How many kinds of failures of one outage are told at once, each when it first comes.
const KINDS: usize = 4;

/// Counts the failures of one thing that is tried again and again (a broker, a coordinator, a metadata request), and decides which of them
/// the log is told: the first, one of each further kind, then one now and then; and that it is over.
///
/// It knows no log and no clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outage {
    /// The first failure.
    since: Option<Instant>,
    failures: u64,
    kinds: Vec<ErrorKind>,
    /// The last failure, while the outage lasts.
    error: Option<Error>,
    /// When a failure was last told, and how long until the next one is.
    told: Option<(Instant, Duration)>,
    /// Whether a failure was told whose end was not.
    open: bool,
    ended: Option<Instant>,
}

/// How long an outage has lasted, or lasted, and how often it has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lasted {
    pub(crate) failures: u64,
    pub(crate) long: Duration,
}

impl fmt::Display for Lasted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failures {
            1 if self.long.is_zero() => f.write_str("1 failure"),
            1 => write!(f, "1 failure in {:.1?}", self.long),
            n => write!(f, "{n} failures in {:.1?}", self.long),
        }
    }
}

/// An outage that lasts, for health.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    pub(crate) since: Instant,
    pub(crate) error: Error,
}

impl Trouble {
    /// For how long it has lasted, and why.
    pub(crate) fn describe(&self, now: Instant) -> String {
        let long = Duration::from_secs(now.saturating_duration_since(self.since).as_secs());
        format!("for {long:?}: {}", self.error.full())
    }
}

impl Outage {
    /// It has failed. Gives what to say of it, if it is to be said now.
    #[must_use]
    pub(crate) fn failed(&mut self, now: Instant, error: &Error) -> Option<Lasted> {
        self.failed_for(now, error, Duration::ZERO)
    }

    /// The same for what is part of normal operation unless it lasts for longer than `grace`: a coordinator that moves, for example.
    #[must_use]
    pub(crate) fn failed_for(&mut self, now: Instant, error: &Error, grace: Duration) -> Option<Lasted> {
        let recovered = self.ended.is_some_and(|at| now.saturating_duration_since(at) >= CALM);
        if self.error.is_none() && recovered {
            *self = Self::default();
        }
        let since = *self.since.get_or_insert(now);
        self.failures += 1;
        self.error = Some(error.clone());
        if self.told.is_none() && now.saturating_duration_since(since) < grace {
            return None;
        }
        let is_new = !self.kinds.contains(&error.kind()) && self.kinds.len() < KINDS;
        if is_new {
            self.kinds.push(error.kind());
        }
        let interval = match self.told {
            None => FIRST,
            Some((at, interval)) if now.saturating_duration_since(at) >= interval => (interval * 2).min(LONGEST),
            Some((_, interval)) if is_new => interval,
            Some(_) => return None,
        };
        self.told = Some((now, interval));
        self.open = true;
        Some(Lasted { failures: self.failures, long: now.saturating_duration_since(since) })
    }

    /// It works. Gives what to say of it, if it has failed before and that was said.
    #[must_use]
    pub(crate) fn over(&mut self, now: Instant) -> Option<Lasted> {
        self.error.take()?;
        self.ended = Some(now);
        let since = self.since.unwrap_or(now);
        let lasted = Lasted { failures: self.failures, long: now.saturating_duration_since(since) };
        std::mem::take(&mut self.open).then_some(lasted)
    }

    /// What is the matter, while it lasts.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        let error = self.error.clone()?;
        self.since.map(|since| Trouble { since, error })
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

        /// Number of failures, if it is told.
        fn fails(&mut self, ms: u64, kind: ErrorKind) -> Option<u64> {
            let now = self.start + Duration::from_millis(ms);
            self.outage.failed(now, &Error::new(kind, "no")).map(|l| l.failures)
        }

        fn works(&mut self, ms: u64) -> Option<Lasted> {
            self.outage.over(self.start + Duration::from_millis(ms))
        }
    }

    #[test]
    fn an_outage_of_an_hour_is_a_few_lines_with_a_count() {
        let mut bed = Bed::new();
        let told: Vec<_> =
            (0..36_000).filter_map(|n| bed.fails(n * 100, ErrorKind::Connect).map(|f| (n / 10, f))).collect();
        let seconds: Vec<_> = told.iter().map(|(s, _)| *s).collect();
        assert_eq!(Lasted { failures: 1, long: Duration::ZERO }.to_string(), "1 failure");
        assert_eq!(seconds, [0, 30, 90, 210, 450, 930, 1530, 2130, 2730, 3330]);
        assert_eq!((told[0].1, told[1].1), (1, 301));
        let lasted = bed.works(3_600_000).unwrap();
        assert_eq!((lasted.failures, lasted.long), (36_000, Duration::from_secs(3600)));
        assert_eq!(lasted.to_string(), "36000 failures in 3600.0s");
        assert_eq!(bed.works(3_600_100), None, "told once");
    }

    #[test]
    fn another_reason_is_told_at_once_but_not_by_turns() {
        let mut bed = Bed::new();
        assert_eq!(bed.fails(0, ErrorKind::Connect), Some(1));
        assert_eq!(bed.fails(500, ErrorKind::Timeout), Some(2));
        for n in 0..40 {
            let kind = if n % 2 == 0 { ErrorKind::Connect } else { ErrorKind::Timeout };
            assert_eq!(bed.fails(1000 + n * 500, kind), None);
        }
    }

    #[test]
    fn what_fails_and_works_by_turns_is_one_outage() {
        let mut bed = Bed::new();
        assert_eq!(bed.fails(0, ErrorKind::Connect), Some(1));
        assert!(bed.works(100).is_some());
        for n in 1..100 {
            assert_eq!(bed.fails(n * 200, ErrorKind::Connect), None);
            assert_eq!(bed.works(n * 200 + 100), None);
        }
        assert_eq!(bed.fails(30_000, ErrorKind::Connect), Some(1), "calm for 10 s: a new one");
    }

    #[test]
    fn what_passes_soon_by_itself_is_not_told_unless_it_lasts() {
        let (mut bed, grace) = (Bed::new(), Duration::from_secs(5));
        let e = Error::new(ErrorKind::Broker(16), "no");
        let at = |ms| bed.start + Duration::from_millis(ms);
        let (start, soon, late) = (at(0), at(4900), at(5100));
        assert_eq!(bed.outage.failed_for(start, &e, grace), None);
        assert_eq!(bed.outage.failed_for(soon, &e, grace), None);
        assert_eq!(bed.outage.failed_for(late, &e, grace).unwrap().failures, 3);
        assert!(bed.works(5200).is_some());
        let mut bed = Bed::new();
        assert_eq!(bed.outage.failed_for(start, &e, grace), None);
        assert_eq!(bed.works(200), None, "nobody was told");
    }

    #[test]
    fn it_is_known_what_the_matter_is_while_it_lasts() {
        let mut bed = Bed::new();
        assert!(bed.outage.trouble().is_none());
        _ = bed.fails(0, ErrorKind::Connect);
        _ = bed.fails(900, ErrorKind::Authentication);
        let trouble = bed.outage.trouble().unwrap();
        assert_eq!((trouble.since, trouble.error.kind()), (bed.start, ErrorKind::Authentication));
        _ = bed.works(1000);
        assert!(bed.outage.trouble().is_none());
    }
}
