//! Partitions of records without key or partition.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::tests::{MS, TOPIC, TestBed, config, record, written};
use super::*;

fn plain() -> AccumulatorConfig {
    AccumulatorConfig { adaptive_partitioning: false, ..config() }
}

impl TestBed {
    fn any(&mut self, size: usize) -> i32 {
        self.append(&record(PartitionChoice::Sticky, &vec![b'x'; size]))
    }

    /// Sends and acknowledges all that is pending for a broker.
    fn write(&mut self, broker: i32) {
        for batch in self.drain(broker) {
            self.complete(batch.id, written(0));
        }
    }
}

#[test]
fn plain_sticky_switches_with_each_batch() {
    let mut b = TestBed::new(plain(), &[Some(1); 8]);
    let mut used = Vec::new();
    for _ in 0..20 {
        let first = b.any(1);
        assert_eq!(b.any(1), first, "they stick while a batch is open");
        b.write(1);
        assert_ne!(used.last(), Some(&first));
        used.push(first);
    }
    used.sort_unstable();
    used.dedup();
    assert!(used.len() > 3, "{used:?}");

    // A batch that is full is complete, too.
    let first = b.any(500);
    assert_ne!(b.any(500), first);

    // A partition without a leader is avoided, one alone is not left.
    let mut b = TestBed::new(plain(), &[Some(1), None, Some(1)]);
    let mut b1 = TestBed::new(plain(), &[Some(1)]);
    for _ in 0..20 {
        assert_ne!(b.any(1), 1);
        b.write(1);
        assert_eq!(b1.any(1), 0);
        b1.write(1);
    }
}

#[test]
fn plain_sticky_switches_though_keyed_records_open_a_batch() {
    let mut b = TestBed::new(plain(), &[Some(1); 3]);
    let before = b.any(1);
    b.write(1);
    b.append(&record(PartitionChoice::Partition(before), b"x"));
    assert_ne!(b.any(1), before);
}

#[test]
fn adaptive_sticky_stays_for_the_size_of_a_batch() {
    let mut b = TestBed::new(config(), &[Some(1); 3]);
    let mut runs: Vec<(i32, usize)> = Vec::new();
    for _ in 0..1000 {
        let partition = b.any(50);
        b.write(1);
        match runs.last_mut() {
            Some((last, n)) if *last == partition => *n += 1,
            _ => runs.push((partition, 1)),
        }
    }
    runs.pop();
    let each = record(PartitionChoice::Sticky, &[0; 50]).size;
    let stay = (config().batch_size - BATCH_HEADER_BYTES) / each;
    assert!(runs.len() > 10 && stay > 10, "{stay}: {runs:?}");
    // The same partition may be chosen again.
    assert!(runs.iter().all(|(_, n)| n % stay == 0), "not all stayed for {stay}: {runs:?}");
}

#[test]
fn adaptive_sticky_leaves_full_batches_behind() {
    let mut b = TestBed::new(AccumulatorConfig { linger: 60_000 * MS, ..config() }, &[Some(1); 3]);
    for _ in 0..1000 {
        b.any(50);
    }
    let mut ready = Vec::new();
    loop {
        let drained = b.drain(1);
        if drained.is_empty() {
            break;
        }
        for batch in drained {
            ready.push(batch.records);
            b.complete(batch.id, written(0));
        }
    }
    let most = ready.iter().max().unwrap();
    assert!(ready.len() > 10 && ready.iter().all(|n| n == most), "{ready:?}");
    let last = 1000 - ready.iter().sum::<u32>();
    assert!(last <= *most, "one batch is open: {last} of {most}");
}

#[test]
fn sticky_leaves_a_partition_that_loses_its_leader() {
    let mut b = TestBed::new(config(), &[Some(1); 3]);
    let before = b.any(1);
    let leaders: Vec<_> = (0..3).map(|p| (p != before).then_some(1)).collect();
    b.core.update_topic(b.now, &TOPIC.into(), None, Some(&leaders));
    assert!((0..100).all(|_| b.any(1) != before));
}

#[test]
fn sticky_avoids_a_partition_that_does_not_respond() {
    let patience = 500 * MS;
    let config = AccumulatorConfig { partition_availability_timeout: patience, linger: 5 * MS, ..config() };
    let mut b = TestBed::new(config, &[Some(1), Some(2)]);
    b.append(&record(PartitionChoice::Partition(1), b"x"));
    b.now += 5 * MS;
    let silent = b.drain(2).remove(0).id;
    let share = |b: &mut TestBed| {
        let chosen: Vec<_> = (0..200).map(|_| b.any(900)).collect();
        b.now += 5 * MS;
        while b.core.has_pending(1) {
            b.write(1);
        }
        chosen.into_iter().filter(|p| *p == 1).count()
    };
    assert!(share(&mut b) > 0, "it has some time");
    b.now += patience;
    share(&mut b); // the partition that the last record stuck to gets one more
    assert_eq!(share(&mut b), 0);
    b.complete(silent, written(0));
    while b.core.has_pending(2) {
        b.write(2);
    }
    assert!(share(&mut b) > 0, "it responds again");
}

#[test]
fn round_robin_serves_all_partitions_alike() {
    let mut b = TestBed::new(config(), &[Some(1), Some(1), None, Some(1)]);
    let mut counts = HashMap::new();
    for _ in 0..300 {
        *counts.entry(b.append(&record(PartitionChoice::RoundRobin, b"x"))).or_insert(0) += 1;
    }
    assert_eq!(counts, HashMap::from([(0, 100), (1, 100), (3, 100)]));
    b.core.update_topic(b.now, &TOPIC.into(), None, Some(&[Some(1); 6]));
    for _ in 0..600 {
        *counts.entry(b.append(&record(PartitionChoice::RoundRobin, b"x"))).or_insert(0) += 1;
    }
    assert_eq!(counts, HashMap::from([(0, 200), (1, 200), (2, 100), (3, 200), (4, 100), (5, 100)]));
}

/// Ten seconds of 40 records a millisecond, for a partition on each of three brokers. Two respond
/// after 2 ms, the third takes
/// 40. Returns the number of records of each.
fn with_a_slow_broker(adaptive: bool) -> [usize; 3] {
    let config = AccumulatorConfig {
        adaptive_partitioning: adaptive,
        batch_size: 10_000,
        max_request_size: 10_000,
        linger: MS,
        ..config()
    };
    let mut b = TestBed::new(config, &[Some(1), Some(2), Some(3)]);
    let mut counts = [0; 3];
    let mut in_flight: Vec<(Instant, BatchId)> = Vec::new();
    for _ in 0..10_000 {
        for _ in 0..40 {
            counts[b.any(100) as usize] += 1;
        }
        b.now += MS;
        let now = b.now;
        let (due, rest): (Vec<_>, Vec<_>) = in_flight.into_iter().partition(|(at, _)| *at <= now);
        in_flight = rest;
        for (_, id) in due {
            b.complete(id, written(0));
        }
        for (broker, takes) in [(1, 2), (2, 2), (3, 40)] {
            in_flight.extend(b.drain(broker).into_iter().map(|batch| (now + takes * MS, batch.id)));
        }
    }
    counts
}

#[test]
fn adaptive_partitioning_sends_less_to_a_slow_broker() {
    let [a, b, slow] = with_a_slow_broker(true);
    assert!(slow * 2 < a.min(b), "{slow} of {a} and {b}");
    assert!(a.abs_diff(b) < a / 5, "{a} and {b}");
    let [a, b, slow] = with_a_slow_broker(false);
    assert!(slow > a.max(b), "{slow} of {a} and {b}");
}

#[derive(Debug, Clone)]
enum Op {
    Append(PartitionChoice, usize),
    Leaders(Vec<Option<i32>>),
    Write(i32),
    Flush,
}

fn op() -> impl Strategy<Value = Op> {
    let target = prop_oneof![
        Just(PartitionChoice::Sticky),
        Just(PartitionChoice::RoundRobin),
        any::<u32>().prop_map(PartitionChoice::KeyHash)
    ];
    prop_oneof![
        10 => (target, 0..1500usize).prop_map(|(target, size)| Op::Append(target, size)),
        1 => vec(prop::option::of(1..3i32), 1..9).prop_map(Op::Leaders),
        3 => (1..3i32).prop_map(Op::Write),
        1 => Just(Op::Flush),
    ]
}

proptest! {
    #[test]
    fn every_record_goes_to_an_existing_partition(ops in vec(op(), 0..200), adaptive: bool, linger in 0..2u32) {
        let config = AccumulatorConfig { adaptive_partitioning: adaptive, linger: linger * MS, ..config() };
        let mut leaders = vec![Some(1), None, Some(2)];
        let mut b = TestBed::new(config, &leaders);
        for op in ops {
            match op {
                Op::Append(target, size) => {
                    let p = b.append(&record(target, &vec![b'x'; size])) as usize;
                    prop_assert!(p < leaders.len());
                    let led = leaders[p].is_some() || leaders.iter().all(Option::is_none);
                    prop_assert!(led || matches!(target, PartitionChoice::KeyHash(_)), "{target:?} went to {p} of {leaders:?}");
                }
                Op::Leaders(next) => {
                    leaders = next;
                    let ended = b.core.update_topic(b.now, &TOPIC.into(), None, Some(&leaders));
                    b.finish(ended);
                }
                Op::Write(broker) => b.write(broker),
                Op::Flush => drop(b.core.flush(b.now)),
            }
        }
    }
}
