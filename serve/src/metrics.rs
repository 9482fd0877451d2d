//! The metrics of an application in the formats that Prometheus reads.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ailurus_metrics::{Family, Kind, Sample, Value};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

const OPEN_METRICS: &str = "application/openmetrics-text";

/// A gauge of the application, which is read for each request, beside the metrics of the library.
///
/// One of a name that the library has too is shown with the library's.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// Name, with its unit if it has one.
    pub name: &'static str,
    /// Meaning, in a sentence.
    pub help: &'static str,
    /// Names and values of labels.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

/// A registry that a client reports to, and its text.
#[derive(Debug)]
pub struct Exposition {
    library: Arc<ailurus_metrics::Registry>,
    registry: Registry,
}

impl Exposition {
    /// Shows what the library reports, and the version of the application.
    pub fn new(version: &'static str) -> Self {
        Self::with_gauges(version, Vec::new)
    }

    /// Shows gauges too, which the function returns each time.
    pub fn with_gauges(version: &'static str, gauges: impl Fn() -> Vec<Gauge> + Send + Sync + 'static) -> Self {
        let library = Arc::new(ailurus_metrics::Registry::new());
        let mut registry = Registry::default();
        registry.register("ailurus_build", "The version of this program", Info::new([("version", version)]));
        registry.register_collector(Box::new(Counts { library: Arc::clone(&library), gauges: Box::new(gauges) }));
        Self { library, registry }
    }

    /// Returns the registry that a client reports to, for [`ConfigBuilder::metrics`](ailurus::ConfigBuilder::metrics).
    pub fn registry(&self) -> Arc<ailurus_metrics::Registry> {
        Arc::clone(&self.library)
    }

    /// Returns the content type and the text, in a format that the `Accept` header of the client names.
    ///
    /// # Errors
    /// If a metric can't be encoded.
    pub fn text(&self, accepted: &str) -> Result<(&'static str, String), fmt::Error> {
        let mut out = String::new();
        if accepted.contains(OPEN_METRICS) {
            text::encode(&mut out, &self.registry)?;
            Ok(("application/openmetrics-text; version=1.0.0; charset=utf-8", out))
        } else {
            prometheus_text::encode(&mut out, &self.registry)?;
            Ok((prometheus_text::CONTENT_TYPE, out))
        }
    }
}

struct Counts {
    library: Arc<ailurus_metrics::Registry>,
    gauges: Box<dyn Fn() -> Vec<Gauge> + Send + Sync>,
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counts").field(&self.library).finish()
    }
}

impl Collector for Counts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauges = BTreeMap::<_, Vec<Gauge>>::new();
        for gauge in (self.gauges)() {
            gauges.entry(gauge.name).or_default().push(gauge);
        }
        for family in &self.library.snapshot().families {
            encode(family, &gauges.remove(family.name).unwrap_or_default(), &mut encoder)?;
        }
        for (name, of_name) in gauges {
            let help = of_name.first().map_or("", |gauge| gauge.help);
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            of_name.iter().try_for_each(|gauge| metric.encode_family(&gauge.labels)?.encode_gauge(&gauge.value))?;
        }
        Ok(())
    }
}

fn encode(family: &Family, gauges: &[Gauge], encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let unit = family.unit.map(|unit| match unit {
        ailurus_metrics::Unit::Bytes => Unit::Bytes,
        ailurus_metrics::Unit::Seconds => Unit::Seconds,
        other => Unit::Other(other.as_str().to_owned()),
    });
    let kind = match family.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
        _ => MetricType::Unknown,
    };
    // The encoder adds these itself.
    let mut name = family.name.strip_suffix("_total").unwrap_or(family.name);
    if let Some(unit) = family.unit {
        name = name.strip_suffix(unit.as_str()).and_then(|name| name.strip_suffix('_')).unwrap_or(name);
    }
    let mut metric = encoder.encode_descriptor(name, family.help, unit.as_ref(), kind)?;
    for Sample { labels, value, .. } in &family.samples {
        if labels.is_empty() {
            sample(&mut metric, family.kind, value)?;
        } else {
            sample(&mut metric.encode_family(labels)?, family.kind, value)?;
        }
    }
    gauges.iter().try_for_each(|gauge| metric.encode_family(&gauge.labels)?.encode_gauge(&gauge.value))
}

fn sample(metric: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> Result<(), fmt::Error> {
    match (kind, value) {
        (_, Value::Histogram(times)) => {
            // The last bucket has no bound and counts all.
            let buckets: Vec<_> =
                times.buckets().map(|(bound, n)| (bound.map_or(f64::INFINITY, |b| b.as_secs_f64()), n)).collect();
            metric.encode_histogram::<NoLabelSet>(times.sum().as_secs_f64(), times.count(), &buckets, None)
        }
        (Kind::Counter, Value::Count(n)) => metric.encode_counter::<NoLabelSet, _, u64>(n, None),
        (Kind::Counter, value) => metric.encode_counter::<NoLabelSet, _, u64>(&value.number(), None),
        (_, value) => metric.encode_gauge(&value.number()),
    }
}
