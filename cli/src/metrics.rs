//! What `GET /metrics` answers: what the library has counted, in the formats that Prometheus reads.

use std::fmt;
use std::sync::Arc;

use ailurus::metrics::{self, Family, Kind, Sample, Value};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

const OPEN_METRICS: &str = "application/openmetrics-text";

/// Counts, and shows what was counted.
#[derive(Debug)]
pub struct Exposition {
    counts: Arc<metrics::Registry>,
    registry: Registry,
}

impl Exposition {
    pub fn new() -> Self {
        let counts = Arc::new(metrics::Registry::new());
        let mut registry = Registry::default();
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("ailurus_build", "The version of this program", version);
        registry.register_collector(Box::new(Counts(Arc::clone(&counts))));
        Self { counts, registry }
    }

    /// To count with.
    pub fn counts(&self) -> Arc<metrics::Registry> {
        Arc::clone(&self.counts)
    }

    /// All of it, in a format that the client accepts, and that format's content type.
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

#[derive(Debug)]
struct Counts(Arc<metrics::Registry>);

impl Collector for Counts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.snapshot().families.iter().try_for_each(|family| encode(family, &mut encoder))
    }
}

fn encode(family: &Family, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let unit = family.unit.map(|unit| match unit {
        metrics::Unit::Bytes => Unit::Bytes,
        metrics::Unit::Seconds => Unit::Seconds,
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
    Ok(())
}

fn sample(metric: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> Result<(), fmt::Error> {
    match (kind, value) {
        (_, Value::Histogram(times)) => {
            // Its last bound, which is none, stands for all.
            let buckets: Vec<_> =
                times.buckets().map(|(bound, n)| (bound.map_or(f64::INFINITY, |b| b.as_secs_f64()), n)).collect();
            metric.encode_histogram::<NoLabelSet>(times.sum().as_secs_f64(), times.count(), &buckets, None)
        }
        (Kind::Counter, Value::Count(n)) => metric.encode_counter::<NoLabelSet, _, u64>(n, None),
        (Kind::Counter, value) => metric.encode_counter::<NoLabelSet, _, u64>(&value.number(), None),
        (_, value) => metric.encode_gauge(&value.number()),
    }
}
