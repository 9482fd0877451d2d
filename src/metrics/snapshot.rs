//! The counts of a registry as they were at one time, by the names that Prometheus knows them by.

use super::Histogram;

/// All metrics of a [`Registry`](super::Registry) at one time, also those of which there is no sample yet.
///
/// See the [module](super) for an example.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct MetricsSnapshot {
    /// In the order of `docs/metrics.md`.
    pub families: Vec<Family>,
}

/// A metric with all its samples.
///
/// ```
/// let snapshot = ailurus::metrics::Registry::new().snapshot();
/// for family in &snapshot.families {
///     println!("{}: {} ({:?})", family.name, family.help, family.kind);
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Family {
    /// With its unit, and `_total` if it is a counter.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// How it is to be read.
    pub kind: Kind,
    /// Of its values.
    pub unit: Option<Unit>,
    /// One for each set of labels.
    pub samples: Vec<Sample>,
}

/// How a metric is to be read.
///
/// ```
/// use ailurus::metrics::{Kind, Registry};
///
/// let snapshot = Registry::new().snapshot();
/// let retries = snapshot.families.iter().find(|f| f.name == "ailurus_producer_retries_total");
/// assert_eq!(retries.map(|f| f.kind), Some(Kind::Counter));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// It only grows.
    Counter,
    /// What is so now.
    Gauge,
    /// Times by how long they are.
    Histogram,
}

/// What a value counts, where that is a unit.
///
/// ```
/// assert_eq!(ailurus::metrics::Unit::Bytes.as_str(), "bytes");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

impl Unit {
    /// As names of metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
        }
    }
}

/// A value and what it is of.
///
/// See the [module](super) for an example.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// Names and values, in the order in which the metric has them.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: Value,
}

impl Sample {
    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }
}

/// The value of a sample.
///
/// ```
/// use ailurus::metrics::Value;
///
/// assert_eq!(Value::Count(3).number(), 3.0);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A whole number.
    Count(u64),
    /// Any number.
    Number(f64),
    /// A histogram.
    Histogram(Histogram),
}

impl Value {
    /// The number, or how many times there were.
    pub fn number(&self) -> f64 {
        match self {
            Self::Count(n) => *n as f64,
            Self::Number(n) => *n,
            Self::Histogram(times) => times.count() as f64,
        }
    }
}

impl MetricsSnapshot {
    /// The samples of a metric; none if there is no such metric.
    pub fn samples(&self, name: &str) -> &[Sample] {
        self.families.iter().find(|f| f.name == name).map_or(&[], |f| &f.samples)
    }

    /// The [numbers](Value::number) of a metric over all its labels, added up.
    pub fn total(&self, name: &str) -> f64 {
        self.samples(name).iter().map(|s| s.value.number()).sum()
    }

    /// The [number](Value::number) of the first sample that has these labels, whatever others it has.
    ///
    /// ```
    /// let snapshot = ailurus::metrics::Registry::new().snapshot();
    /// assert_eq!(snapshot.get("ailurus_consumer_lag_records", &[("topic", "orders"), ("partition", "0")]), None);
    /// ```
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |s: &&Sample| labels.iter().all(|(name, value)| s.label(name) == Some(value));
        self.samples(name).iter().find(has).map(|s| s.value.number())
    }
}
