//! A duration histogram.

use std::time::Duration;

/// Upper bounds of the buckets in microseconds: those of OpenTelemetry's conventions for messaging
/// from 5 ms to 10 s, and more to either side.
const BOUNDS: [u64; 21] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000, 1_000_000,
    2_500_000, 5_000_000, 7_500_000, 10_000_000, 30_000_000, 60_000_000,
];

/// A duration histogram from 0.1 ms to 60 s.
///
/// ```
/// use std::time::Duration;
/// use ailurus::metrics::Histogram;
///
/// let mut histogram = Histogram::default();
/// histogram.add(Duration::from_millis(3));
/// histogram.add(Duration::from_secs(90));
/// assert_eq!(histogram.count(), 2);
/// assert_eq!(histogram.buckets().find(|(bound, _)| *bound == Some(Duration::from_millis(5))), Some((Some(Duration::from_millis(5)), 1)));
/// assert_eq!(histogram.buckets().last(), Some((None, 1)));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BOUNDS.len() + 1],
    count: u64,
    sum: Duration,
}

impl Histogram {
    /// Adds a duration.
    #[inline]
    pub fn add(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(took);
    }

    /// Adds all durations of another histogram.
    pub fn merge(&mut self, others: &Self) {
        self.buckets.iter_mut().zip(others.buckets).for_each(|(mine, more)| *mine += more);
        self.count += others.count;
        self.sum = self.sum.saturating_add(others.sum);
    }

    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the sum of the durations.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Returns the buckets: the number of durations up to each bound and above the previous one,
    /// last those above all bounds.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        let bounds = BOUNDS.iter().map(|micros| Some(Duration::from_micros(*micros))).chain([None]);
        bounds.zip(self.buckets)
    }
}
