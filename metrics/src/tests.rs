use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ailurus::ErrorKind;
use ailurus::metrics::{Metrics, Observation};

use super::*;

const MS: Duration = Duration::from_millis(1);

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
#[allow(clippy::disallowed_methods)] // the registry has no runtime, and compares with the clock of the process
fn the_age_of_transactions_is_that_of_the_oldest_open_one() {
    let (registry, transactional_id) = (Registry::new(), "bookings");
    let age = || registry.snapshot().get("ailurus_transaction_open_seconds", &[("transactional_id", "bookings")]);
    let open = |was, is| registry.observe(&Observation::TransactionOpen { transactional_id, was, is });
    let now = Instant::now();
    let (old, older) = (now.checked_sub(60 * 1000 * MS), now.checked_sub(3600 * 1000 * MS));
    assert_eq!(age(), None);
    open(None, old);
    open(None, old); // of two producers with ids of their own
    open(None, older);
    assert!(age() >= Some(3600.0));
    open(older, None);
    open(old, None);
    assert!(age().is_some_and(|age| (60.0..3600.0).contains(&age)));
    open(old, None);
    assert_eq!(age(), Some(0.0));
}

#[test]
fn transactions_are_counted_by_outcome() {
    let (registry, transactional_id) = (Registry::new(), "bookings");
    let ended = |outcome, error| {
        registry.observe(&Observation::TransactionEnded { transactional_id, outcome, took: MS, error });
    };
    ended("committed", None);
    ended("committed", None);
    ended("aborted", None);
    ended("aborted", Some(ErrorKind::Timeout));
    for (was, is) in [(None, Some("starting")), (None, Some("starting")), (Some("starting"), Some("ready"))] {
        registry.observe(&Observation::TransactionalProducer { transactional_id, was, is });
    }
    let seen = registry.snapshot();
    let count = |labels: &[(&str, &str)]| seen.get("ailurus_transactions_total", labels);
    assert_eq!(count(&[("outcome", "committed")]), Some(2.0));
    assert_eq!(count(&[("outcome", "aborted"), ("error_type", "timeout")]), Some(1.0));
    assert_eq!(seen.total("ailurus_transactions_total"), 4.0);
    assert_eq!(seen.get("ailurus_transaction_commit_duration_seconds", &[]), Some(2.0), "aborts don't count");
    assert_eq!(seen.get("ailurus_transactional_producers", &[("state", "ready")]), Some(1.0));
    assert_eq!(seen.total("ailurus_transactional_producers"), 2.0);
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

#[test]
fn paused_partitions_are_counted_by_reason() {
    let (registry, group, topic) = (Registry::new(), "g", "t");
    let change = |partition, reason, paused| {
        registry.observe(&Observation::PauseChanged { group, topic, partition, reason, paused });
    };
    change(0, "control", true);
    change(1, "control", true);
    change(1, "breaker", true);
    change(0, "control", false);
    let paused = |reason| registry.snapshot().get("ailurus_processor_paused_partitions", &[("reason", reason)]);
    assert_eq!((paused("control"), paused("breaker"), paused("delay")), (Some(1.0), Some(1.0), None));
}

#[test]
fn waits_for_dependencies_are_counted_and_timed() {
    let (registry, group) = (Registry::new(), "g");
    let start = |dependency| registry.observe(&Observation::HoldStarted { group, dependency });
    start("postgres");
    start("prices");
    registry.observe(&Observation::HoldEnded { group, dependency: "postgres", held_for: Duration::from_secs(90) });
    start("postgres");
    registry.observe(&Observation::Skipped { group, topic: "t", partition: 0 });
    let seen = registry.snapshot();
    let of = |name, dependency| seen.get(name, &[("group", "g"), ("dependency", dependency)]);
    assert_eq!(of("ailurus_processor_open_holds", "postgres"), Some(1.0));
    assert_eq!(of("ailurus_processor_open_holds", "prices"), Some(1.0));
    assert_eq!(of("ailurus_processor_holds_total", "postgres"), Some(2.0));
    assert_eq!(of("ailurus_processor_held_seconds_total", "postgres"), Some(90.0));
    assert_eq!(seen.total("ailurus_processor_skipped_total"), 1.0);
}

#[test]
fn concurrency_is_the_sum_of_the_subscriptions_that_run() {
    let registry = Registry::new();
    let change = |from, to| registry.observe(&Observation::ConcurrencyChanged { group: "g", from, to });
    let limit = || registry.snapshot().get("ailurus_processor_concurrency_limit", &[("group", "g")]);
    change(0, 64);
    change(0, 8);
    change(64, 16);
    assert_eq!(limit(), Some(24.0));
    change(8, 0);
    change(16, 0);
    assert_eq!(limit(), None, "all have ended");
}
