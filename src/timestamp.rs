//! Points in time, as Kafka has them.

pub(crate) mod millis;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z, as records have them.
///
/// Its text is RFC 3339 in UTC, with milliseconds unless they are zero; `{:.3}` always has them,
/// `{:.0}` never. Serde reads and writes the same text.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use ailurus::{ProducerRecord, StartOffset, Timestamp};
///
/// let new_year: Timestamp = "2026-01-01T00:00:00Z".parse()?;
/// assert_eq!(new_year.as_millis(), 1_767_225_600_000);
/// assert_eq!(new_year.saturating_add(Duration::from_millis(1500)).to_string(), "2026-01-01T00:00:01.500Z");
///
/// let since = StartOffset::Timestamp(new_year);
/// let record = ProducerRecord::to("orders").timestamp(SystemTime::now());
/// assert!(record.timestamp.is_some_and(|at| at > new_year));
/// # assert_ne!(since, StartOffset::Earliest);
/// # Ok::<_, ailurus::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const UNIX_EPOCH: Self = Self(0);
    /// The timestamp of a record without one, which only formats before Kafka 0.11 allow:
    /// `NO_TIMESTAMP` in Kafka, -1.
    pub const NONE: Self = Self(-1);

    /// Creates a timestamp of milliseconds since 1970.
    #[inline]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since 1970.
    #[inline]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Returns the current time by the clock of this machine.
    #[inline]
    pub fn now() -> Self {
        #[cfg(feature = "testing")]
        if IS_TOKIO_CLOCK.load(std::sync::atomic::Ordering::Relaxed) {
            return now_by_tokio().into();
        }
        SystemTime::now().into()
    }

    /// Returns true if it is [`NONE`](Self::NONE) or another negative number: Kafka has no record
    /// from before 1970.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 < 0
    }

    /// Returns the time since then, by the clock of this machine; zero for a time in the future.
    pub fn elapsed(self) -> Duration {
        Self::now().saturating_duration_since(self)
    }

    /// Returns the time from `earlier` to this one; zero if that is later.
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(i128::from(self.0) - i128::from(earlier.0)).unwrap_or_default())
    }

    /// Returns the time this long after, at most the largest there is.
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(whole_millis(span)))
    }

    /// Returns the time this long before, at least the smallest there is.
    #[must_use]
    pub fn saturating_sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(whole_millis(span)))
    }
}

fn whole_millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// True once a test has connections in memory.
#[cfg(feature = "testing")]
static IS_TOKIO_CLOCK: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Makes [`Timestamp::now`] follow tokio's clock from now on: in a test, records are stamped, and
/// due, by the clock that governs timers.
#[cfg(feature = "testing")]
pub(crate) fn follow_tokio_clock() {
    IS_TOKIO_CLOCK.store(true, std::sync::atomic::Ordering::Relaxed);
}

/// Returns the time of this machine, moved on by what tests have advanced tokio's clock.
#[cfg(feature = "testing")]
#[allow(clippy::disallowed_methods, reason = "the real clock is what the paused one is compared with")]
fn now_by_tokio() -> SystemTime {
    let (real, paused) = (std::time::Instant::now(), tokio::time::Instant::now().into_std());
    SystemTime::now() + paused.saturating_duration_since(real) - real.saturating_duration_since(paused)
}

/// Rounds down to milliseconds. A time that needs more than 64 bits of them is the nearest that
/// does not.
impl From<SystemTime> for Timestamp {
    #[inline]
    fn from(time: SystemTime) -> Self {
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Self(whole_millis(after)),
            Err(e) => {
                let before = e.duration();
                let is_between = i64::from(before.subsec_nanos() % 1_000_000 != 0);
                Self((-whole_millis(before)).saturating_sub(is_between))
            }
        }
    }
}

/// # Errors
/// [`ErrorKind::Config`] for a time that the clock of this platform can't have.
impl TryFrom<Timestamp> for SystemTime {
    type Error = Error;

    fn try_from(at: Timestamp) -> Result<Self> {
        let span = Duration::from_millis(at.0.unsigned_abs());
        let time = if at.0 < 0 { Self::UNIX_EPOCH.checked_sub(span) } else { Self::UNIX_EPOCH.checked_add(span) };
        time.ok_or_else(|| Error::new(ErrorKind::Config, format!("{at} is beyond the times of this platform")))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = match f.precision() {
            None => SecondsFormat::AutoSi,
            Some(0) => SecondsFormat::Secs,
            Some(_) => SecondsFormat::Millis,
        };
        match DateTime::from_timestamp_millis(self.0) {
            Some(time) => f.write_str(&time.to_rfc3339_opts(form, true)),
            // 262,000 years from now.
            None => write!(f, "{} ms", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Parses a time as in RFC 3339, with any offset from UTC. Digits after those of the milliseconds
/// are ignored.
///
/// # Errors
/// [`ErrorKind::Config`] if it is none.
impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |e| Error::new(ErrorKind::Config, format!("{text:?} is not an RFC 3339 time: {e}"));
        Ok(Self(DateTime::parse_from_rfc3339(text).map_err(invalid)?.timestamp_millis()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
