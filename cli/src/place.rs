//! Positions in logs and points in time on the command line.

use std::str::FromStr;
use std::time::Duration;

use ailurus::{StartOffset, Timestamp};

use crate::output::note;

/// Least number that is taken for milliseconds since 1970 (a time since 2001), where no partition has such an offset.
const LEAST_EPOCH_MS: i64 = 1_000_000_000_000;
/// Least number that may be meant as seconds since 1970.
const LEAST_EPOCH_SECONDS: i64 = LEAST_EPOCH_MS / 1000;

/// Text of the forms of a time, for errors.
macro_rules! times {
    () => {
        "a time ago such as -5m, 2h or 1h30m (ms, s, m, h, d, w), a date such as 2026-01-31 (UTC), or a time as in RFC 3339, such as \
         2026-01-31T12:00:00Z"
    };
}

/// A position in each partition: an offset, a time, or an end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(pub StartOffset);

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let offset = || text.parse().ok().filter(|offset: &i64| *offset >= 0).map(StartOffset::Offset);
        let place = match text {
            "earliest" => Some(StartOffset::Earliest),
            "latest" => Some(StartOffset::Latest),
            _ => offset().or_else(|| point(text).map(StartOffset::Timestamp)),
        };
        let allowed = concat!("allowed are earliest, latest, an offset from 0, ", times!());
        place.map(Self).ok_or_else(|| allowed.to_owned())
    }
}

impl Place {
    /// Returns the place among partitions with these ends. A number beyond all of them that is as large as milliseconds
    /// since 1970 is that time, which is noted on stderr; for one as large as seconds there is a hint.
    pub fn resolve(self, mut ends: impl Iterator<Item = i64>) -> StartOffset {
        let Self(StartOffset::Offset(number)) = self else { return self.0 };
        if number < LEAST_EPOCH_SECONDS || ends.any(|end| end >= number) {
            return self.0;
        }
        if number < LEAST_EPOCH_MS {
            let ms = number * 1000;
            let time = Timestamp::from_millis(ms);
            note(format_args!(
                "no partition has an offset {number}; for seconds since 1970 write {ms} (milliseconds) or {time:.0}"
            ));
            return self.0;
        }
        let time = Timestamp::from_millis(number);
        note(format_args!("no partition has an offset {number}: taken as milliseconds since 1970, {time}"));
        StartOffset::Timestamp(time)
    }

    /// Returns whether [`resolve`](Self::resolve) depends on the ends.
    pub fn is_ambiguous(self) -> bool {
        matches!(self.0, StartOffset::Offset(number) if number >= LEAST_EPOCH_SECONDS)
    }
}

/// Returns a time on the command line.
pub fn time(text: &str) -> Result<Timestamp, String> {
    point(text).ok_or_else(|| concat!("allowed is ", times!()).to_owned())
}

/// Returns the length of a time on the command line, such as `15m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    span(text).ok_or_else(|| "allowed is such as 90s, 15m or 1h30m (ms, s, m, h, d, w)".to_owned())
}

fn point(text: &str) -> Option<Timestamp> {
    date(text).or_else(|| ago(text))
}

fn date(text: &str) -> Option<Timestamp> {
    // Whole, without its zone, without its seconds, or without its time of day.
    let zoned = ["", "Z", ":00Z", "T00:00:00Z"].map(|rest| format!("{text}{rest}"));
    zoned.iter().find_map(|time| time.parse().ok())
}

/// Returns the time of so long ago.
fn ago(text: &str) -> Option<Timestamp> {
    let ago = span(text.strip_prefix('-').unwrap_or(text))?;
    Some(Timestamp::now().saturating_sub(ago).max(Timestamp::UNIX_EPOCH))
}

/// Returns the sum of numbers with units, such as `1h30m`.
fn span(mut text: &str) -> Option<Duration> {
    if text.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !text.is_empty() {
        let (number, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let (unit, rest) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        let ms: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(ms)?)?;
        text = rest;
    }
    Some(Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_place_is_a_word_an_offset_or_a_time() {
        let place = |text: &str| text.parse::<Place>().map(|p| p.0);
        assert_eq!(place("earliest"), Ok(StartOffset::Earliest));
        assert_eq!(place("latest"), Ok(StartOffset::Latest));
        assert_eq!(place("0"), Ok(StartOffset::Offset(0)));
        assert_eq!(place("5000000000"), Ok(StartOffset::Offset(5_000_000_000)));
        assert_eq!(place("1970-01-01T00:00:01.5Z"), Ok(StartOffset::Timestamp(at(1500))));
        assert_eq!(place("1970-01-01T01:00:00+01:00"), Ok(StartOffset::Timestamp(at(0))));
        assert_eq!(place("1970-01-02"), Ok(StartOffset::Timestamp(at(86_400_000))));
        assert_eq!(place("1970-01-01T00:00:02"), Ok(StartOffset::Timestamp(at(2000))));
        assert_eq!(place("1970-01-01T00:02"), Ok(StartOffset::Timestamp(at(120_000))));
        for bad in ["-1", "", "-", "yesterday", "2026-13-31", "m", "5y", "1h30", "--5m", "99999999999999w", "12:00"] {
            assert!(place(bad).is_err_and(|e| e.contains("RFC 3339")), "{bad}");
            assert!(time(bad).is_err_and(|e| e.contains("RFC 3339")), "{bad}");
        }
        assert!(time("5").is_err(), "an offset is not a time");
        assert_eq!(time("1970-01-02"), Ok(at(86_400_000)));
    }

    #[test]
    fn a_number_beyond_all_ends_that_is_large_enough_is_a_time() {
        let of = |number, ends: &[i64]| Place(StartOffset::Offset(number)).resolve(ends.iter().copied());
        assert_eq!(of(1_700_000_000_000, &[5, 0]), StartOffset::Timestamp(at(1_700_000_000_000)));
        assert_eq!(of(1_700_000_000_000, &[5, 1_700_000_000_000]), StartOffset::Offset(1_700_000_000_000));
        assert_eq!(of(1_700_000_000, &[5]), StartOffset::Offset(1_700_000_000), "seconds may be an offset");
        assert_eq!(of(i64::MAX, &[5]), StartOffset::Timestamp(at(i64::MAX)));
        assert_eq!(Place(StartOffset::Latest).resolve([5].into_iter()), StartOffset::Latest);
    }

    #[test]
    fn a_time_ago_is_numbers_with_units() {
        for (text, ms) in
            [("5m", 300_000), ("2h", 7_200_000), ("1h30m", 5_400_000), ("250ms", 250), ("1w1d", 691_200_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert!(duration("-5m").is_err_and(|e| e.contains("15m")));
        let now = Timestamp::now();
        let five_minutes_ago = now.saturating_sub(Duration::from_secs(300));
        for text in ["-5m", "5m"] {
            let at = time(text).unwrap();
            assert!((five_minutes_ago..now).contains(&at), "{at} is not five minutes before {now}");
        }
    }
}
