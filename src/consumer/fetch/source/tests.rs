#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::cluster::Backoff;
use crate::config::ConsumerConfig;
use crate::consumer::StartOffset;
use crate::consumer::fetch::partition::FetchedPartition;
use crate::consumer::fetch::planner::Plan;
use crate::consumer::fetch::planner::tests::snapshot;
use crate::consumer::memory::RecordMemory;

const BUDGET: usize = 16 << 20;
const ROUND: Duration = Duration::from_millis(1);

/// A broker that leads all partitions of a topic, and a consumer that reads them.
struct Sim {
    planner: FetchPlanner,
    now: Instant,
    /// Sizes of the batches of each partition, and the records in each of them.
    logs: Vec<Vec<usize>>,
    records: i64,
    /// The broker's session: its id, its next epoch, and what it remembers, in the order in which it serves.
    session: (i32, i32),
    remembered: VecDeque<PartitionRequest<FetchFrom>>,
    /// Delivered records of each partition that are not handled.
    held: Vec<VecDeque<RecordMemory>>,
    fetches: usize,
    named: usize,
    most: usize,
}

impl Sim {
    fn new(logs: Vec<Vec<usize>>, records: i64) -> Self {
        let config = ConsumerConfig { prefetch_bytes: BUDGET, ..Default::default() };
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut planner = FetchPlanner::new(&config, backoff, Arc::default());
        planner.add((0..logs.len()).map(|i| (lease(i), StartOffset::Offset(0))));
        planner.apply_metadata(&snapshot(&vec![1; logs.len()], 1));
        let held = logs.iter().map(|_| VecDeque::new()).collect();
        let (session, remembered) = ((0, 0), VecDeque::new());
        let now = Instant::now();
        Self { planner, now, logs, records, session, remembered, held, fetches: 0, named: 0, most: 0 }
    }

    fn end(&self, partition: usize) -> i64 {
        self.logs[partition].len() as i64 * self.records
    }

    /// Reads a partition as Kafka's broker does: whole batches within both limits, or one beyond them if it is the first.
    fn read(&self, request: &PartitionRequest<FetchFrom>, left: usize, first: bool) -> (usize, i64) {
        let (mut bytes, mut offset) = (0, request.what.offset);
        let log = &self.logs[request.lease.partition.partition as usize];
        for batch in log.iter().skip((offset / self.records) as usize) {
            let fits = bytes + batch <= left.min(request.what.max_bytes);
            if !(fits || first && bytes == 0) {
                break;
            }
            (bytes, offset) = (bytes + batch, offset + self.records);
        }
        (bytes, offset)
    }

    /// One fetch and its response. Returns the partitions that brought something, none if there is nothing to request for.
    fn round(&mut self) -> Option<Vec<usize>> {
        let Plan::Fetch(plan) = self.planner.plan(1, self.now) else { return None };
        self.fetches += 1;
        self.named += plan.requests.len();
        self.now += ROUND;
        let FetchMetadata { id, epoch } = plan.session;
        let listed = epoch == FetchMetadata::SESSIONLESS.epoch;
        match epoch {
            0 => {
                self.session = (self.session.0 + 1, 1);
                self.remembered = plan.requests.iter().cloned().collect();
            }
            1.. => {
                assert_eq!((id, epoch), self.session);
                self.session.1 += 1;
                for request in &plan.requests {
                    match self.remembered.iter_mut().find(|a| a.lease.partition == request.lease.partition) {
                        Some(known) => *known = request.clone(),
                        None => self.remembered.push_back(request.clone()),
                    }
                }
                self.remembered.retain(|request| !plan.forgotten.contains(&request.lease.partition));
            }
            _ => {}
        }
        let requests: Vec<_> = if listed { plan.requests.clone() } else { self.remembered.iter().cloned().collect() };
        let (mut left, mut response) = (plan.max_bytes, Vec::new());
        for request in requests {
            let (bytes, next) = self.read(&request, left, left == plan.max_bytes);
            left = left.saturating_sub(bytes);
            if listed || bytes > 0 {
                response.push((request.lease.partition.partition as usize, request.what.offset, bytes, next));
            }
        }
        if !listed {
            let changes = |request: &PartitionRequest<FetchFrom>| {
                response.iter().any(|r| r.0 == request.lease.partition.partition as usize)
            };
            self.remembered.make_contiguous().sort_by_key(changes); // as Kafka does: those that were served move to the end
        }
        let session = if listed { 0 } else { self.session.0 };
        let total = response.iter().map(|r| r.2).sum();
        assert!(self.planner.on_response(1, self.now, 0, session, total));
        let mut served = Vec::new();
        for (i, offset, bytes, next) in response {
            let request = self.planner.current_request(1, &lease(i).partition).expect("it was requested");
            if bytes > 0 && self.planner.available_bytes(&request.lease) == 0 {
                continue;
            }
            let fetched =
                FetchedPartition { next, end: self.end(i), wire: bytes, memory: bytes, ..FetchedPartition::default() };
            let (held, _) = self.planner.on_fetched(&request.lease, self.now, offset, fetched).expect("it is current");
            if bytes > 0 {
                self.held[i].push_back(held);
                served.push(i);
            }
        }
        self.planner.clear_in_flight_of(1);
        self.most =
            self.most.max(BUDGET - self.planner.budget().free() + usize::from(self.planner.budget().is_exhausted()));
        Some(served)
    }

    fn position(&self, i: usize) -> i64 {
        match self.planner.partitions[&lease(i).partition].position {
            Position::At(offset) => offset,
            other => panic!("no position: {other:?}"),
        }
    }

    fn has_read_all(&self) -> bool {
        (0..self.logs.len()).all(|i| self.position(i) == self.end(i))
    }

    /// Reads all records and handles them at once, except for some partitions, whose records stay.
    fn read_all(&mut self, slow: &[usize]) {
        while !(0..self.logs.len()).all(|i| slow.contains(&i) || self.position(i) == self.end(i)) {
            self.round().expect("more to fetch");
            let fast = (0..self.held.len()).filter(|i| !slow.contains(i));
            fast.for_each(|i| self.held[i].clear());
        }
    }
}

fn lease(i: usize) -> Lease {
    Lease { partition: TopicPartition::new("t", i32::try_from(i).unwrap()), epoch: 1 }
}

/// The same bytes, spread over so many partitions.
fn spread(partitions: usize, batch: usize) -> Sim {
    let batches = (48 << 20) / batch;
    let logs = (0..partitions).map(|i| vec![batch; batches / partitions + usize::from(i < batches % partitions)]);
    Sim::new(logs.collect(), 10)
}

#[test]
fn the_number_of_fetches_does_not_grow_with_the_partitions() {
    for batch in [1 << 10, 27 << 10, 900 << 10] {
        let mut few = spread(12, batch);
        few.read_all(&[]);
        for partitions in [300, 1000] {
            let mut many = spread(partitions, batch);
            many.read_all(&[]);
            assert!(many.has_read_all());
            assert!(
                many.fetches <= 2 * few.fetches + 2,
                "{partitions} partitions, batches of {batch}: {} fetches, {} with 12",
                many.fetches,
                few.fetches
            );
            assert!(many.most <= BUDGET, "{} held", many.most);
        }
    }
}

#[test]
fn a_slow_partition_takes_one_response() {
    let mut sim = spread(1000, 20 << 10);
    sim.read_all(&[0]);
    assert!(sim.position(0) < sim.end(0) || sim.held[0].len() == 1, "it is left out while it holds its share");
    let fetches = sim.fetches;
    let mut alone = spread(1000, 20 << 10);
    alone.read_all(&[]);
    assert!(fetches <= 2 * alone.fetches, "{fetches} fetches, {} without a slow one", alone.fetches);

    // When its records are handled, it goes on.
    while sim.position(0) < sim.end(0) {
        sim.held[0].clear();
        sim.round().expect("it has room");
    }
}

#[test]
fn slow_partitions_do_not_stop_the_others() {
    // They alone could hold several times the budget.
    let slow: Vec<_> = (0..500).collect();
    for batch in [1 << 10, 5 << 10, BUDGET / 1000] {
        let mut sim = spread(1000, batch);
        sim.read_all(&slow);
        assert!(!sim.planner.budget().is_exhausted());
    }
}

#[test]
fn requests_name_a_hot_partition_alone() {
    let mut logs = vec![Vec::new(); 1000];
    logs[700] = vec![10 << 10; 4000];
    let mut sim = Sim::new(logs, 10);
    sim.round().expect("the first fetch names all");
    let (fetches, named) = (sim.fetches, sim.named);
    sim.read_all(&[]);
    let (fetches, named) = (sim.fetches - fetches, sim.named - named);
    assert!(named <= 999 + fetches, "{named} partitions named in {fetches} fetches: the others once, for the session");

    // A quiet one gets records meanwhile, and the hot one stays behind for long.
    sim.logs[700].extend(vec![10 << 10; 40_000]);
    while sim.round().is_some_and(|served| served.is_empty()) {}
    sim.logs[3].push(500);
    let mut waited = 0;
    while sim.position(3) == 0 {
        sim.round().expect("there is more");
        sim.held.iter_mut().for_each(VecDeque::clear);
        waited += 1;
    }
    assert!(waited <= POLL_RATIO as usize + 2, "{waited} fetches until the quiet one had its turn");
    assert!(sim.position(700) < sim.end(700));
}

#[test]
fn batches_above_their_share_are_bounded() {
    let (partitions, batch) = (1000, 900 << 10);
    let mut sim = Sim::new(vec![vec![batch; 3]; partitions], 10);
    while sim.round().is_some() {
        let charged = sim.held.iter().map(|held| held.len() * batch).sum::<usize>();
        assert!(charged <= 2 * BUDGET + batch, "{charged} bytes are held");
    }
    assert!(sim.planner.budget().is_exhausted(), "nothing is handled: it stops");
    sim.held.iter_mut().for_each(VecDeque::clear);
    assert!(sim.round().is_some(), "it goes on when they are handled");
}

#[test]
fn brokers_share_the_budget() {
    let config = ConsumerConfig { prefetch_bytes: BUDGET, ..Default::default() };
    let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let mut t = FetchPlanner::new(&config, backoff, Arc::default());
    let brokers = 100;
    t.add((0..brokers).map(|i| (lease(i), StartOffset::Offset(0))));
    t.apply_metadata(&snapshot(&(0..brokers as i32).collect::<Vec<_>>(), 1));
    let now = Instant::now();
    let sizes: Vec<_> = (0..brokers as i32)
        .map(|broker| match t.plan(broker, now) {
            Plan::Fetch(plan) => plan.max_bytes,
            other => panic!("no fetch: {other:?}"),
        })
        .collect();
    assert!(sizes.iter().sum::<usize>() <= BUDGET + BUDGET / 8, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size >= 4 << 10), "each gets something: {sizes:?}");
    t.on_failure(5);
    assert!(t.budget().free() > 0 || sizes[5] < BUDGET / 8);
}

#[test]
fn a_distant_broker_sends_larger_responses() {
    let mut sim = spread(3, 20 << 10);
    let Plan::Fetch(near) = sim.planner.plan(1, sim.now) else { panic!("there is much to read") };
    sim.now += Duration::from_millis(48);
    assert!(sim.planner.on_response(1, sim.now, 0, 0, 1));
    let fetched =
        FetchedPartition { next: 10, end: 1000, wire: 20 << 10, memory: 20 << 10, ..FetchedPartition::default() };
    let (held, _) = sim.planner.on_fetched(&lease(0), sim.now, 0, fetched).expect("it was requested");
    sim.planner.clear_in_flight_of(1);
    let Plan::Wait(Some(until)) = sim.planner.plan(1, sim.now) else { panic!("records are about to be dropped") };
    assert_eq!(until, sim.now + Duration::from_millis(12));
    assert!(matches!(sim.planner.plan(1, until), Plan::Fetch(_)), "they are not");
    let until = until + Duration::from_millis(48);
    assert!(sim.planner.on_response(1, until, 0, 0, 0));
    sim.planner.clear_in_flight_of(1);
    drop(held);
    let Plan::Fetch(far) = sim.planner.plan(1, until) else { panic!("all memory is free") };
    assert!(far.max_bytes > 2 * near.max_bytes && far.max_bytes <= BUDGET, "{} and {}", near.max_bytes, far.max_bytes);
    assert!(far.requests[0].what.max_bytes > near.requests[0].what.max_bytes);

    // A large response had taken its time: a small one shows that the broker is near.
    sim.planner.on_round_trip(1, Duration::from_millis(1));
    assert!(sim.planner.on_response(1, until, 0, 0, 0));
    sim.planner.clear_in_flight_of(1);
    let Plan::Fetch(plan) = sim.planner.plan(1, until) else { panic!("there is much to read") };
    assert_eq!(plan.max_bytes, near.max_bytes);
}

proptest! {
    /// Partitions are added, removed, paused, moved and written to: the session never contains one
    /// that must not be polled through it, and in the end all records are read.
    #[test]
    fn the_session_follows_the_partitions(steps in proptest::collection::vec((0..6_u8, 0..40_usize), 1..100)) {
        let mut sim = Sim::new(vec![vec![100; 2]; 40], 1);
        let mut epochs = vec![1; 40];
        for (step, i) in steps {
            let lease = Lease { partition: lease(i).partition, epoch: epochs[i] };
            match step {
                0 => sim.logs[i].push(100),
                1 => sim.planner.pause(&[lease], true),
                2 => sim.planner.pause(&[lease], false),
                3 => sim.planner.seek(&lease, StartOffset::Offset(0)),
                4 => {
                    sim.planner.remove(std::slice::from_ref(&lease.partition));
                    epochs[i] += 1;
                    sim.planner.add([(Lease { epoch: epochs[i], ..lease }, StartOffset::Offset(0))]);
                    sim.planner.apply_metadata(&snapshot(&[1; 40], 1));
                }
                _ => {
                    sim.round();
                    sim.held.iter_mut().for_each(VecDeque::clear);
                }
            }
        }
        for (i, epoch) in epochs.iter().enumerate() {
            sim.planner.pause(&[Lease { partition: lease(i).partition, epoch: *epoch }], false);
        }
        for _ in 0..60 {
            sim.round();
            sim.held.iter_mut().for_each(VecDeque::clear);
        }
        prop_assert!(sim.has_read_all());
        let polled: BTreeMap<_, _> = sim.remembered.iter().map(|a| (a.lease.partition.partition, a.what.offset)).collect();
        let known: BTreeMap<_, _> = (0..40).map(|i| (i as i32, sim.end(i))).collect();
        prop_assert_eq!(polled, known);
    }
}
