#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

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

#[test]
fn reporters_are_equal_if_they_report_to_the_same() {
    let registry = Arc::new(Registry::new());
    let reporter = Reporter::to(registry.clone());
    assert_eq!(reporter, Reporter::to(registry));
    assert_ne!(reporter, Reporter::to(Arc::new(Registry::new())));
    assert_ne!(reporter, Reporter::default());
    assert_eq!(Reporter::default(), Reporter::default());
}

#[test]
fn gauges_change_and_counters_grow() {
    let registry = Registry::new();
    let broker = "one:9092";
    for observation in [
        Observation::Connected { broker },
        Observation::Connected { broker },
        Observation::Disconnected { broker },
        Observation::RequestSent { broker, api: "Fetch" },
        Observation::RequestSent { broker, api: "Fetch" },
        Observation::RequestEnded { broker, api: "Fetch", took: MS, error: Some(ErrorKind::Timeout) },
        Observation::Reauthenticated { broker, error: None },
        Observation::Reauthenticated { broker, error: Some(ErrorKind::Authorization) },
        Observation::BufferChanged { used: 0, limit: 100 },
        Observation::BufferChanged { used: 70, limit: 0 },
        Observation::BufferChanged { used: -50, limit: 0 },
    ] {
        registry.observe(&observation);
    }
    let seen = registry.snapshot();
    assert_eq!(seen.get("ailurus_connections", &[("broker", broker)]), Some(1.0));
    assert_eq!(seen.get("ailurus_connections_opened_total", &[("broker", broker)]), Some(2.0));
    assert_eq!(seen.get("ailurus_requests_in_flight", &[("api", "Fetch"), ("broker", broker)]), Some(1.0));
    assert_eq!(seen.get("ailurus_request_errors_total", &[("api", "Fetch"), ("error_type", "timeout")]), Some(1.0));
    let poll = [("messaging_operation_name", "poll"), ("error_type", "timeout")];
    assert_eq!(seen.get("messaging_client_operation_duration_seconds", &poll), Some(1.0));
    assert_eq!(seen.total("ailurus_reauthentications_total"), 2.0);
    assert_eq!(seen.get("ailurus_reauthentications_total", &[("error_type", "authorization")]), Some(1.0));
    assert_eq!(seen.total("ailurus_producer_buffer_used_bytes"), 20.0);
    assert_eq!(seen.total("ailurus_producer_buffer_limit_bytes"), 100.0);
}

#[test]
fn lag_is_of_handlers_until_the_last_owner_is_gone() {
    let (registry, group, topic, partition) = (Registry::new(), "g", "t", 3);
    let lag = || registry.snapshot().get("ailurus_consumer_lag_records", &[("partition", "3")]);
    let observe = |observation| registry.observe(&observation);
    let fetched = |end| {
        let (batches, records, bytes, uncompressed) = (1, 10, 50, 200);
        Observation::Fetched { group, topic, partition, batches, records, bytes, uncompressed, end }
    };
    let backlog = |position| {
        let (in_flight, waiting, parked, parked_keys) = (1, 2, 3, 4);
        Observation::Backlog { group, topic, partition, in_flight, waiting, parked, parked_keys, position }
    };
    observe(fetched(100));
    observe(backlog(Some(7)));
    assert_eq!(lag(), None, "unassigned");
    observe(Observation::Assigned { group, topic, partition });
    observe(fetched(100));
    assert_eq!(lag(), None, "no position yet");
    observe(Observation::Consumed { group, topic, partition, records: 10, position: 40 });
    assert_eq!(lag(), Some(60.0));
    observe(backlog(Some(35)));
    assert_eq!(lag(), Some(65.0));
    observe(backlog(Some(101)));
    assert_eq!(lag(), Some(0.0), "handled by now, though the fetch is older");
    // The partition moves to another member of this process, which reports its assignment first.
    observe(Observation::Assigned { group, topic, partition });
    observe(Observation::Unassigned { group, topic, partition, lost: true });
    assert_eq!(lag(), Some(0.0));
    observe(Observation::Unassigned { group, topic, partition, lost: false });
    observe(backlog(Some(101)));
    assert_eq!(lag(), None);
    let seen = registry.snapshot();
    assert_eq!(seen.total("ailurus_consumer_assigned_partitions"), 0.0);
    assert_eq!(seen.total("ailurus_consumer_lost_partitions_total"), 1.0);
    assert_eq!(seen.total("ailurus_consumer_compression_ratio"), 4.0);
}

#[test]
fn names_are_as_prometheus_wants_them() {
    let families = Registry::new().snapshot().families;
    let names: BTreeSet<_> = families.iter().map(|f| f.name).collect();
    assert_eq!(names.len(), families.len(), "each once");
    for family in &families {
        let name = family.name;
        assert!(name.starts_with("ailurus_") || name.starts_with("messaging_"), "{name}");
        assert_eq!(name.ends_with("_total"), family.kind == Kind::Counter, "{name}");
        let unit = family.unit.map_or("", Unit::as_str);
        assert!(name.trim_end_matches("_total").ends_with(unit), "{name} has the unit {unit:?}");
        assert!(family.help.ends_with('.') && !family.help.contains('\n'), "{name}");
        for unit in [Unit::Bytes, Unit::Seconds] {
            let has = name.trim_end_matches("_total").ends_with(unit.as_str());
            assert_eq!(has, family.unit == Some(unit), "{name}");
        }
    }
}
