#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Records that may be kept.
const ROOM: usize = 6;
const BYTES: usize = 100;
const ORDERINGS: [HandlerOrdering; 3] = [HandlerOrdering::Partition, HandlerOrdering::Key, HandlerOrdering::Unordered];

/// Before the first record.
fn begun<R>(ordering: HandlerOrdering) -> Lanes<R> {
    let mut lanes = Lanes::new(ordering, None);
    lanes.reads_from(0);
    lanes
}

/// What a driver of the core does.
#[derive(Debug, Clone)]
enum Step {
    /// The next record comes, after some offsets without one; `at_once` if its handler is done at once where it may begin.
    Fetch {
        gap: i64,
        key: Option<u8>,
        at_once: bool,
    },
    /// Up to so many are taken in hand.
    Take(usize),
    /// One in hand ends, or is to be tried again after a while.
    Settle {
        which: usize,
        again: Option<u64>,
    },
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = prop_oneof![1 => Just(None), 4 => (0..3_u8).prop_map(Some)];
    let step = prop_oneof![
        4 => (0..3_i64, key, any::<bool>()).prop_map(|(gap, key, at_once)| Step::Fetch { gap, key, at_once }),
        3 => (1..4_usize).prop_map(Step::Take),
        4 => (any::<usize>(), prop::option::of(0..50_u64)).prop_map(|(which, again)| Step::Settle { which, again }),
        1 => (0..100_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..200)
}

/// The core with what must be true of it.
struct Model {
    lanes: Lanes<Option<u8>>,
    ordering: HandlerOrdering,
    now: Instant,
    next: i64,
    open: BTreeMap<i64, Option<u8>>,
    ended: BTreeSet<i64>,
    in_flight: BTreeMap<i64, (Lane, Option<u8>)>,
    most: usize,
}

impl Model {
    fn new(ordering: HandlerOrdering) -> Self {
        Self {
            lanes: begun(ordering),
            ordering,
            now: Instant::now(),
            next: 0,
            open: BTreeMap::new(),
            ended: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            most: 0,
        }
    }

    /// Whether two records must be handled one after the other.
    fn related(&self, a: Option<u8>, b: Option<u8>) -> bool {
        match self.ordering {
            HandlerOrdering::Partition => true,
            HandlerOrdering::Key => a.is_some() && a == b,
            HandlerOrdering::Unordered => false,
        }
    }

    /// These are taken together: nothing before them that they must wait for is open, but what they have among themselves.
    fn begun(&mut self, together: &[(i64, Lane, Option<u8>)]) {
        let offsets: BTreeSet<_> = together.iter().map(|(o, ..)| *o).collect();
        assert_eq!(offsets.len(), together.len());
        for &(offset, _, key) in together {
            for (other, their) in self.open.range(..offset).filter(|(o, _)| !offsets.contains(o)) {
                assert!(!self.related(key, *their), "{offset} overtakes {other}");
            }
            for (other, (_, their)) in &self.in_flight {
                assert!(!self.related(key, *their), "{offset} is in hand beside {other}");
            }
            assert!(!self.in_flight.contains_key(&offset), "{offset} is in hand twice");
            assert!(self.open.contains_key(&offset), "{offset} had ended");
        }
        self.in_flight.extend(together.iter().map(|&(offset, lane, key)| (offset, (lane, key))));
        self.most = self.most.max(self.in_flight.len());
    }

    fn end(&mut self, offset: i64) {
        assert!(self.open.remove(&offset).is_some() && self.ended.insert(offset), "{offset} ends once");
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Fetch { gap, key, at_once } => {
                let offset = self.next + gap;
                let bytes = key.map(|k| [k]);
                let lane = self.lanes.lane(bytes.as_ref().map(|b| &b[..]), offset);
                let free = self.lanes.is_free(lane);
                if self.lanes.kept() >= ROOM {
                    return; // read no further
                }
                assert!(self.lanes.fetched(offset));
                self.next = offset + 1;
                self.open.insert(offset, key);
                match (free, at_once) {
                    (true, true) => {
                        self.begun(&[(offset, lane, key)]);
                        self.in_flight.remove(&offset);
                        self.lanes.passed(offset);
                        self.end(offset);
                    }
                    (true, false) => {
                        self.lanes.begin(lane);
                        self.begun(&[(offset, lane, key)]);
                    }
                    (false, _) => self.lanes.keep(lane, offset, BYTES, key),
                }
            }
            Step::Take(max) => drop(self.take(max)),
            Step::Settle { which, again } => {
                let Some((&offset, &(lane, key))) = self.in_flight.iter().nth(which % self.in_flight.len().max(1))
                else {
                    return;
                };
                self.in_flight.remove(&offset);
                match again {
                    Some(ms) => {
                        let due = Some(self.now + Duration::from_millis(ms));
                        self.lanes.park(lane, Kept { offset, bytes: BYTES, due, record: key });
                    }
                    None => {
                        self.lanes.end(lane, offset);
                        self.end(offset);
                    }
                }
            }
            Step::Pass(ms) => self.now += Duration::from_millis(ms),
        }
    }

    fn take(&mut self, max: usize) -> usize {
        self.lanes.wake(self.now);
        let taken = self.lanes.take(max);
        assert!(taken.len() <= max);
        assert!(taken.iter().all(|(_, k)| k.due.is_none_or(|due| due <= self.now && taken.len() == 1)));
        assert!(taken.is_sorted_by_key(|(_, k)| k.offset));
        let taken: Vec<_> = taken.into_iter().map(|(lane, k)| (k.offset, lane, k.record)).collect();
        self.begun(&taken);
        taken.len()
    }

    fn check(&self) {
        let lowest = self.open.keys().next().copied().unwrap_or(self.next);
        assert!(self.lanes.committable().is_none_or(|c| c <= lowest), "{:?} > {lowest}", self.lanes.committable());
        assert_eq!(self.lanes.kept() + self.in_flight.len(), self.open.len());
        assert!(self.lanes.kept() <= ROOM + self.most, "{} are kept", self.lanes.kept());
        assert_eq!(self.lanes.is_ready(), self.lanes.takeable() > 0);
        assert!(self.lanes.failed() <= self.lanes.kept() && self.lanes.parked() <= self.lanes.kept());
        assert_eq!(self.lanes.is_idle(), self.open.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn order_is_kept_nothing_overlaps_and_every_record_ends_once(which in 0..3_usize, steps in steps()) {
        let mut model = Model::new(ORDERINGS[which]);
        for step in &steps {
            model.step(step);
            model.check();
        }
        // Nothing starves: whatever is left ends when its time has come and what is before it ends.
        let left = model.open.len();
        for _ in 0..=left {
            while !model.in_flight.is_empty() {
                model.step(&Step::Settle { which: 0, again: None });
                model.check();
            }
            model.now += Duration::from_millis(50);
            model.take(1);
        }
        prop_assert!(model.open.is_empty(), "{:?} never ended", model.open);
        prop_assert!(model.lanes.queues.is_empty() && model.lanes.timers.is_empty() && model.lanes.ready.is_empty());
        prop_assert_eq!((model.lanes.kept, model.lanes.bytes, model.lanes.takeable, model.lanes.failed), (0, 0, 0, 0));
        model.lanes.through(model.next);
        prop_assert!(model.lanes.committable().is_none_or(|c| c == model.next));
    }
}

#[test]
fn a_key_that_failed_waits_and_the_others_go_on() {
    let mut lanes: Lanes<&str> = begun(HandlerOrdering::Key);
    let start = Instant::now();
    let due = start + Duration::from_secs(1);
    let (a, b) = (lanes.lane(Some(b"a"), 0), lanes.lane(Some(b"b"), 1));
    (0..4).for_each(|offset| assert!(lanes.fetched(offset)));
    lanes.begin(a);
    lanes.park(a, Kept { offset: 0, bytes: 1, due: Some(due), record: "a0" });
    assert!(lanes.is_free(b) && !lanes.is_free(a));
    lanes.passed(1);
    lanes.keep(a, 2, 1, "a2");
    lanes.passed(3);
    assert!(!lanes.is_ready());
    assert_eq!((lanes.parked(), lanes.committable(), lanes.due()), (1, Some(0), Some(due)));
    lanes.wake(due);
    let records = |taken: Vec<(Lane, Kept<&'static str>)>| taken.iter().map(|(_, k)| k.record).collect::<Vec<_>>();
    assert_eq!(records(lanes.take(9)), ["a0"], "alone");
    assert_eq!(records(lanes.take(9)), [""; 0]);
    lanes.end(a, 0);
    assert_eq!(lanes.committable(), Some(2));
    assert_eq!(records(lanes.take(9)), ["a2"]);
    lanes.end(a, 2);
    assert_eq!(lanes.committable(), Some(4));
}

#[test]
fn lanes_take_turns() {
    let mut lanes: Lanes<i64> = begun(HandlerOrdering::Key);
    for offset in 0..6 {
        lanes.fetched(offset);
        let key = if offset < 4 { b"hot" } else { b"odd" };
        lanes.keep(lanes.lane(Some(key), 0), offset, 1, offset);
    }
    let mut order = Vec::new();
    while let Some((lane, kept)) = lanes.take(1).pop() {
        order.push(kept.record);
        lanes.end(lane, kept.offset);
    }
    assert_eq!(order, [0, 4, 1, 5, 2, 3]);
}

#[test]
fn a_batch_takes_what_stands_behind_each_other_and_is_as_large_as_asked() {
    let mut lanes: Lanes<i64> = begun(HandlerOrdering::Partition);
    for offset in 0..5 {
        lanes.fetched(offset);
        lanes.keep(0, offset, 1, offset);
    }
    let offsets = |taken: &[(Lane, Kept<i64>)]| taken.iter().map(|(_, k)| k.offset).collect::<Vec<_>>();
    let first = lanes.take(3);
    assert_eq!(offsets(&first), [0, 1, 2]);
    assert_eq!((lanes.takeable(), lanes.take(3).len()), (0, 0), "the rest waits for them");
    let now = Instant::now();
    lanes.park(0, Kept { offset: 1, bytes: 1, due: Some(now), record: 1 });
    lanes.end(0, 0);
    lanes.end(0, 2);
    assert_eq!(lanes.committable(), Some(1));
    lanes.wake(now);
    assert_eq!(offsets(&lanes.take(3)), [1], "what failed goes alone");
    lanes.end(0, 1);
    assert_eq!(offsets(&lanes.take(3)), [3, 4]);
}

#[test]
fn what_had_ended_before_is_not_handled_again_unless_the_log_is_another() {
    let mut before: Lanes<()> = begun(HandlerOrdering::Unordered);
    (0..5).for_each(|offset| assert!(before.fetched(offset)));
    [0, 2, 3].into_iter().for_each(|offset| before.passed(offset));
    let (base, metadata) = (before.committable().unwrap(), before.ended_above().unwrap());
    assert_eq!(base, 1);
    let ended = || Ended::decode(&metadata, base, NO_EPOCH).unwrap();
    let again = |first: i64| {
        let mut lanes: Lanes<()> = Lanes::new(HandlerOrdering::Unordered, Some((base, ended())));
        lanes.reads_from(first);
        (first..6).filter(|offset| lanes.fetched(*offset)).collect::<Vec<_>>()
    };
    assert_eq!(again(1), [1, 4, 5]);
    assert_eq!(again(0), [0, 1, 2, 3, 4, 5], "the log begins before what was committed");

    before.reads_from(2);
    assert_eq!(before.committable(), Some(2), "the log was cut");
    assert!(before.fetched(2));
}
