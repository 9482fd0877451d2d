//! A snapshot of a registry, under Prometheus names.

use ailurus::metrics::Histogram;

/// All metrics of a [`Registry`](crate::Registry) at one time, those without samples included.
///
/// See the [crate](crate) for an example.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct MetricsSnapshot {
    /// Metrics, in the order of `docs/metrics.md`.
    pub families: Vec<Family>,
}

/// A metric with its samples.
///
/// ```
/// let snapshot = ailurus_metrics::Registry::new().snapshot();
/// for family in &snapshot.families {
///     println!("{}: {} ({:?})", family.name, family.help, family.kind);
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Family {
    /// Name with the unit, and `_total` if it is a counter.
    pub name: &'static str,
    /// Description.
    pub help: &'static str,
    /// Type.
    pub kind: Kind,
    /// Unit of the values.
    pub unit: Option<Unit>,
    /// One sample per set of labels.
    pub samples: Vec<Sample>,
}

/// Type of a metric.
///
/// ```
/// use ailurus_metrics::{Kind, Registry};
///
/// let snapshot = Registry::new().snapshot();
/// let retries = snapshot.families.iter().find(|f| f.name == "ailurus_producer_retries_total");
/// assert_eq!(retries.map(|f| f.kind), Some(Kind::Counter));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A monotonic counter.
    Counter,
    /// A current value.
    Gauge,
    /// A histogram of durations.
    Histogram,
}

/// Unit of a metric's values.
///
/// ```
/// assert_eq!(ailurus_metrics::Unit::Bytes.as_str(), "bytes");
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
    /// Returns the unit as in the names of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
        }
    }
}

/// A value and its labels.
///
/// See the [crate](crate) for an example.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// Names and values, in the metric's order.
    pub labels: Vec<(&'static str, String)>,
    /// Value.
    pub value: Value,
}

impl Sample {
    /// Returns the value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }
}

/// Value of a sample.
///
/// ```
/// use ailurus_metrics::Value;
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
    /// Returns the number, or the count of a histogram.
    pub fn number(&self) -> f64 {
        match self {
            Self::Count(n) => *n as f64,
            Self::Number(n) => *n,
            Self::Histogram(times) => times.count() as f64,
        }
    }
}

impl MetricsSnapshot {
    /// Returns the samples of a metric; none if there is no such metric.
    pub fn samples(&self, name: &str) -> &[Sample] {
        self.families.iter().find(|f| f.name == name).map_or(&[], |f| &f.samples)
    }

    /// Returns the sum of a metric's [numbers](Value::number) over all labels.
    pub fn total(&self, name: &str) -> f64 {
        self.samples(name).iter().map(|s| s.value.number()).sum()
    }

    /// Returns the [number](Value::number) of the first sample that has these labels, whatever
    /// others it has.
    ///
    /// ```
    /// let snapshot = ailurus_metrics::Registry::new().snapshot();
    /// assert_eq!(snapshot.get("ailurus_consumer_lag_records", &[("topic", "orders"), ("partition", "0")]), None);
    /// ```
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |s: &&Sample| labels.iter().all(|(name, value)| s.label(name) == Some(value));
        self.samples(name).iter().find(has).map(|s| s.value.number())
    }
}
