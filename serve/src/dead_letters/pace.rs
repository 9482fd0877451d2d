//! The rate of a replay, without I/O.

use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

/// Maximum number of records in a minute or a second.
const MAX_RECORDS: u32 = 1_000_000;

/// A number of records in a second or a minute: `100`, `100/s`, `30/m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Time from one record to the next.
    interval: Duration,
}

impl Rate {
    /// Returns the number of records of a second, at least one and at most `most`.
    pub fn per_second(self, most: usize) -> usize {
        let count = Duration::from_secs(1).as_nanos() / self.interval.as_nanos().max(1);
        usize::try_from(count).unwrap_or(most).clamp(1, most)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
        let unit = match unit {
            "s" => Some(Duration::from_secs(1)),
            "m" => Some(Duration::from_secs(60)),
            _ => None,
        };
        let count = number.parse().ok().filter(|n| (1..=MAX_RECORDS).contains(n));
        let interval = unit.zip(count).map(|(unit, count)| unit / count);
        let allowed =
            || format!("allowed are 1 to {MAX_RECORDS} records a second, or a minute, such as 100, 100/s or 30/m");
        interval.map(|interval| Self { interval }).ok_or_else(allowed)
    }
}

/// The times at which records may be sent.
#[derive(Debug)]
pub struct Pace {
    rate: Rate,
    next: Option<Instant>,
}

impl Pace {
    /// Begins with the first record.
    pub fn new(rate: Rate) -> Self {
        Self { rate, next: None }
    }

    /// Returns the time of the next record. One that is late does not make those behind it faster.
    pub fn next(&mut self, now: Instant) -> Instant {
        let at = self.next.map_or(now, |next| next.max(now));
        self.next = Some(at + self.rate.interval);
        at
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_rate_is_a_number_a_second_or_a_minute() {
        let interval = |text: &str| text.parse::<Rate>().map(|rate| rate.interval.as_millis()).ok();
        assert_eq!(["1", "100/s", "30/m", "2/m"].map(interval), [Some(1000), Some(10), Some(2000), Some(30_000)]);
        for bad in ["", "0", "-1", "1.5", "10/h", "10/", "/s", "1000001"] {
            assert_eq!(interval(bad), None, "{bad}");
        }
        let per_second = |text: &str| text.parse::<Rate>().unwrap().per_second(100);
        assert_eq!([per_second("5"), per_second("2/m"), per_second("9999")], [5, 1, 100]);
    }

    #[test]
    fn records_are_never_closer_than_the_rate() {
        let mut pace = Pace::new("10/s".parse().unwrap());
        let start = Instant::now();
        let after = |at: Instant| (at - start).as_millis();
        assert_eq!([pace.next(start), pace.next(start), pace.next(start)].map(after), [0, 100, 200]);
        let late = start + Duration::from_secs(5);
        assert_eq!([pace.next(late), pace.next(late)].map(after), [5000, 5100], "no burst after a pause");
    }
}
