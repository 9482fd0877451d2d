#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Limit of queued records.
const MAX_QUEUED: usize = 6;
const BYTES: usize = 100;
const ORDERINGS: [HandlerOrdering; 3] = [HandlerOrdering::Partition, HandlerOrdering::Key, HandlerOrdering::Unordered];

/// Returns lanes before the first record.
fn started<R>(ordering: HandlerOrdering) -> Lanes<R> {
    let mut lanes = Lanes::new(ordering, None);
    lanes.start_from(0);
    lanes
}

/// A step of the worker.
#[derive(Debug, Clone)]
enum Step {
    /// The next record arrives after a gap of offsets; `inline` if its handler completes at the
    /// first poll.
    Fetch { gap: i64, key: Option<u8>, inline: bool },
    /// Up to this number of queued records are started.
    Take(usize),
    /// A record in flight completes, or is retried after this delay in milliseconds.
    Finish { which: usize, retry_ms: Option<u64> },
    /// A record in flight waits for a hold.
    Hold { which: usize, hold: HoldId },
    /// One that waits for a hold is started as a probe.
    Probe(HoldId),
    /// A hold ends.
    Release(HoldId),
    /// Milliseconds pass.
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = prop_oneof![1 => Just(None), 4 => (0..3_u8).prop_map(Some)];
    let step = prop_oneof![
        4 => (0..3_i64, key, any::<bool>()).prop_map(|(gap, key, inline)| Step::Fetch { gap, key, inline }),
        3 => (1..4_usize).prop_map(Step::Take),
        4 => (any::<usize>(), prop::option::of(0..50_u64)).prop_map(|(which, retry_ms)| Step::Finish { which, retry_ms }),
        2 => (any::<usize>(), 0..2_u64).prop_map(|(which, hold)| Step::Hold { which, hold }),
        1 => (0..2_u64).prop_map(Step::Probe),
        1 => (0..2_u64).prop_map(Step::Release),
        1 => (0..100_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..200)
}

/// The lanes, and a model of their contract.
struct Model {
    lanes: Lanes<Option<u8>>,
    ordering: HandlerOrdering,
    now: Instant,
    next: i64,
    open: BTreeMap<i64, Option<u8>>,
    completed: BTreeSet<i64>,
    in_flight: BTreeMap<i64, (Lane, Option<u8>)>,
    max_in_flight: usize,
}

impl Model {
    fn new(ordering: HandlerOrdering) -> Self {
        Self {
            lanes: started(ordering),
            ordering,
            now: Instant::now(),
            next: 0,
            open: BTreeMap::new(),
            completed: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            max_in_flight: 0,
        }
    }

    /// Returns whether two records must be handled one after the other.
    fn same_lane(&self, a: Option<u8>, b: Option<u8>) -> bool {
        match self.ordering {
            HandlerOrdering::Partition => true,
            HandlerOrdering::Key => a.is_some() && a == b,
            HandlerOrdering::Unordered => false,
        }
    }

    /// Checks records that are started together: none of them overtakes a record of its lane that
    /// is not among them.
    fn start(&mut self, together: &[(i64, Lane, Option<u8>)]) {
        let offsets: BTreeSet<_> = together.iter().map(|(o, ..)| *o).collect();
        assert_eq!(offsets.len(), together.len());
        for &(offset, _, key) in together {
            for (other, their) in self.open.range(..offset).filter(|(o, _)| !offsets.contains(o)) {
                assert!(!self.same_lane(key, *their), "{offset} overtakes {other}");
            }
            for (other, (_, their)) in &self.in_flight {
                assert!(!self.same_lane(key, *their), "{offset} is in flight beside {other}");
            }
            assert!(!self.in_flight.contains_key(&offset), "{offset} is in flight twice");
            assert!(self.open.contains_key(&offset), "{offset} is completed");
        }
        self.in_flight.extend(together.iter().map(|&(offset, lane, key)| (offset, (lane, key))));
        self.max_in_flight = self.max_in_flight.max(self.in_flight.len());
    }

    fn complete(&mut self, offset: i64) {
        assert!(self.open.remove(&offset).is_some() && self.completed.insert(offset), "{offset} completes twice");
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Fetch { gap, key, inline } => {
                let offset = self.next + gap;
                let bytes = key.map(|k| [k]);
                let lane = self.lanes.lane(bytes.as_ref().map(|b| &b[..]), offset);
                let is_free = self.lanes.is_free(lane);
                if self.lanes.queued() >= MAX_QUEUED {
                    return; // nothing more is read
                }
                assert!(self.lanes.admit(offset));
                self.next = offset + 1;
                self.open.insert(offset, key);
                match (is_free, inline) {
                    (true, true) => {
                        self.start(&[(offset, lane, key)]);
                        self.in_flight.remove(&offset);
                        self.lanes.complete_unqueued(offset);
                        self.complete(offset);
                    }
                    (true, false) => {
                        self.lanes.occupy(lane);
                        self.start(&[(offset, lane, key)]);
                    }
                    (false, _) => self.lanes.enqueue(lane, offset, BYTES, key),
                }
            }
            Step::Take(max) => drop(self.take_ready(max)),
            Step::Finish { which, retry_ms } => {
                let Some((&offset, &(lane, key))) = self.in_flight.iter().nth(which % self.in_flight.len().max(1))
                else {
                    return;
                };
                self.in_flight.remove(&offset);
                match retry_ms {
                    Some(ms) => {
                        let due = Some(self.now + Duration::from_millis(ms));
                        self.lanes.requeue(lane, QueuedRecord { offset, bytes: BYTES, due, hold: None, record: key });
                    }
                    None => {
                        self.lanes.complete(lane, offset);
                        self.complete(offset);
                    }
                }
            }
            Step::Hold { which, hold } => {
                let Some((&offset, &(lane, key))) = self.in_flight.iter().nth(which % self.in_flight.len().max(1))
                else {
                    return;
                };
                self.in_flight.remove(&offset);
                let held = QueuedRecord { offset, bytes: BYTES, due: None, hold: Some(hold), record: key };
                self.lanes.requeue(lane, held);
            }
            Step::Probe(hold) => {
                let had_one = self.lanes.has_held(hold);
                let probe = self.lanes.take_held(hold);
                assert_eq!(probe.is_some(), had_one);
                if let Some((lane, probe)) = probe {
                    assert_eq!(probe.hold, Some(hold));
                    self.start(&[(probe.offset, lane, probe.record)]);
                }
            }
            Step::Release(hold) => {
                self.lanes.release_held(|id| id != hold);
                assert!(!self.lanes.has_held(hold));
            }
            Step::Pass(ms) => self.now += Duration::from_millis(ms),
        }
    }

    fn take_ready(&mut self, max: usize) -> usize {
        self.lanes.expire_timers(self.now);
        let taken = self.lanes.take_ready(max);
        assert!(taken.len() <= max);
        assert!(taken.iter().all(|(_, k)| k.hold.is_none()), "what waits for a hold is a probe or stays");
        assert!(taken.iter().all(|(_, k)| k.due.is_none_or(|due| due <= self.now && taken.len() == 1)));
        assert!(taken.is_sorted_by_key(|(_, k)| k.offset));
        let taken: Vec<_> = taken.into_iter().map(|(lane, k)| (k.offset, lane, k.record)).collect();
        self.start(&taken);
        taken.len()
    }

    fn check(&self) {
        let lowest = self.open.keys().next().copied().unwrap_or(self.next);
        assert!(
            self.lanes.committable_offset().is_none_or(|c| c <= lowest),
            "{:?} > {lowest}",
            self.lanes.committable_offset()
        );
        assert_eq!(self.lanes.queued() + self.in_flight.len(), self.open.len());
        assert!(self.lanes.queued() <= MAX_QUEUED + self.max_in_flight, "{} are queued", self.lanes.queued());
        assert_eq!(self.lanes.is_ready(), self.lanes.takeable() > 0);
        assert!(
            self.lanes.awaiting_retry() <= self.lanes.queued() && self.lanes.blocked_lanes() <= self.lanes.queued()
        );
        assert_eq!(self.lanes.is_idle(), self.open.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn lanes_keep_order_and_complete_each_record_once(which in 0..3_usize, steps in steps()) {
        let mut model = Model::new(ORDERINGS[which]);
        for step in &steps {
            model.step(step);
            model.check();
        }
        // Nothing starves: each remaining record completes when it is due and those before it have
        // completed.
        let left = model.open.len();
        for _ in 0..=left {
            model.lanes.release_held(|_| false); // what is held ends by itself, too
            while !model.in_flight.is_empty() {
                model.step(&Step::Finish { which: 0, retry_ms: None });
                model.check();
            }
            model.now += Duration::from_millis(50);
            model.take_ready(1);
        }
        prop_assert!(model.open.is_empty(), "{:?} never completed", model.open);
        prop_assert!(model.lanes.queues.is_empty() && model.lanes.retry_timers.is_empty() && model.lanes.ready.is_empty());
        prop_assert_eq!(model.lanes.held_lanes(), 0);
        prop_assert_eq!((model.lanes.queued, model.lanes.bytes, model.lanes.takeable, model.lanes.awaiting_retry), (0, 0, 0, 0));
        model.lanes.advance_to(model.next);
        prop_assert!(model.lanes.committable_offset().is_none_or(|c| c == model.next));
    }
}

#[test]
fn a_failed_record_blocks_its_key_only() {
    let mut lanes: Lanes<&str> = started(HandlerOrdering::Key);
    let start = Instant::now();
    let due = start + Duration::from_secs(1);
    let (a, b) = (lanes.lane(Some(b"a"), 0), lanes.lane(Some(b"b"), 1));
    (0..4).for_each(|offset| assert!(lanes.admit(offset)));
    lanes.occupy(a);
    lanes.requeue(a, QueuedRecord { offset: 0, bytes: 1, due: Some(due), hold: None, record: "a0" });
    assert!(lanes.is_free(b) && !lanes.is_free(a));
    lanes.complete_unqueued(1);
    lanes.enqueue(a, 2, 1, "a2");
    lanes.complete_unqueued(3);
    assert!(!lanes.is_ready());
    assert_eq!((lanes.blocked_lanes(), lanes.committable_offset(), lanes.next_due()), (1, Some(0), Some(due)));
    lanes.expire_timers(due);
    let records =
        |taken: Vec<(Lane, QueuedRecord<&'static str>)>| taken.iter().map(|(_, k)| k.record).collect::<Vec<_>>();
    assert_eq!(records(lanes.take_ready(9)), ["a0"], "alone");
    assert_eq!(records(lanes.take_ready(9)), [""; 0]);
    lanes.complete(a, 0);
    assert_eq!(lanes.committable_offset(), Some(2));
    assert_eq!(records(lanes.take_ready(9)), ["a2"]);
    lanes.complete(a, 2);
    assert_eq!(lanes.committable_offset(), Some(4));
}

#[test]
fn lanes_take_turns() {
    let mut lanes: Lanes<i64> = started(HandlerOrdering::Key);
    for offset in 0..6 {
        lanes.admit(offset);
        let key = if offset < 4 { b"hot" } else { b"odd" };
        lanes.enqueue(lanes.lane(Some(key), 0), offset, 1, offset);
    }
    let mut order = Vec::new();
    while let Some((lane, queued)) = lanes.take_ready(1).pop() {
        order.push(queued.record);
        lanes.complete(lane, queued.offset);
    }
    assert_eq!(order, [0, 4, 1, 5, 2, 3]);
}

#[test]
fn batches_take_consecutive_records_and_retries_alone() {
    let mut lanes: Lanes<i64> = started(HandlerOrdering::Partition);
    for offset in 0..5 {
        lanes.admit(offset);
        lanes.enqueue(0, offset, 1, offset);
    }
    let offsets = |taken: &[(Lane, QueuedRecord<i64>)]| taken.iter().map(|(_, k)| k.offset).collect::<Vec<_>>();
    let first = lanes.take_ready(3);
    assert_eq!(offsets(&first), [0, 1, 2]);
    assert_eq!((lanes.takeable(), lanes.take_ready(3).len()), (0, 0), "the lane is occupied");
    let now = Instant::now();
    lanes.requeue(0, QueuedRecord { offset: 1, bytes: 1, due: Some(now), hold: None, record: 1 });
    lanes.complete(0, 0);
    lanes.complete(0, 2);
    assert_eq!(lanes.committable_offset(), Some(1));
    lanes.expire_timers(now);
    assert_eq!(offsets(&lanes.take_ready(3)), [1], "a retry is alone");
    lanes.complete(0, 1);
    assert_eq!(offsets(&lanes.take_ready(3)), [3, 4]);
}

#[test]
fn completed_offsets_are_skipped_unless_the_log_changed() {
    let mut before: Lanes<()> = started(HandlerOrdering::Unordered);
    (0..5).for_each(|offset| assert!(before.admit(offset)));
    [0, 2, 3].into_iter().for_each(|offset| before.complete_unqueued(offset));
    let (base, metadata) = (before.committable_offset().unwrap(), before.completed_above().unwrap());
    assert_eq!(base, 1);
    let completed = || CompletedOffsets::decode(&metadata, base, NO_EPOCH).unwrap();
    let again = |first: i64| {
        let mut lanes: Lanes<()> = Lanes::new(HandlerOrdering::Unordered, Some((base, completed())));
        lanes.start_from(first);
        (first..6).filter(|offset| lanes.admit(*offset)).collect::<Vec<_>>()
    };
    assert_eq!(again(1), [1, 4, 5]);
    assert_eq!(again(0), [0, 1, 2, 3, 4, 5], "the log starts below the commit");

    before.start_from(2);
    assert_eq!(before.committable_offset(), Some(2), "the log was truncated");
    assert!(before.admit(2));
}
