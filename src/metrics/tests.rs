#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

const MS: Duration = Duration::from_millis(1);

#[test]
fn durations_are_counted_by_bucket() {
    let mut times = Histogram::default();
    for took in [Duration::ZERO, MS / 10, MS / 10 + Duration::from_nanos(1), 60_000 * MS, 60_001 * MS, Duration::MAX] {
        times.add(took);
    }
    let of = |bound: Option<Duration>| times.buckets().find(|(b, _)| *b == bound).map(|(_, n)| n);
    assert_eq!(of(Some(MS / 10)), Some(2), "a bound is in its bucket");
    assert_eq!(of(Some(MS / 4)), Some(1));
    assert_eq!(of(Some(60_000 * MS)), Some(1));
    assert_eq!(of(None), Some(2));
    assert_eq!((times.count(), times.sum()), (6, Duration::MAX));
    let bounds: Vec<_> = times.buckets().map_while(|(bound, _)| bound).collect();
    assert!(bounds.is_sorted() && bounds.len() + 1 == times.buckets().count());
    let mut twice = times.clone();
    twice.merge(&times);
    assert_eq!(twice.count(), 12);
    assert_eq!(twice.buckets().last(), Some((None, 4)));
}

#[derive(Debug)]
struct Sink;

impl Metrics for Sink {
    fn observe(&self, _: &Observation<'_>) {}
}

#[test]
fn reporters_are_equal_if_they_report_to_the_same() {
    let sink = Arc::new(Sink);
    let reporter = Reporter::to(sink.clone());
    assert_eq!(reporter, Reporter::to(sink));
    assert_ne!(reporter, Reporter::to(Arc::new(Sink)));
    assert_ne!(reporter, Reporter::default());
    assert_eq!(Reporter::default(), Reporter::default());
}
