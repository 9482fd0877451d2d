#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const FIRST: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_secs(30);

fn p(partition: i32) -> TopicPartition {
    TopicPartition::new("orders", partition)
}

/// Breakers, and a clock.
struct Bed {
    breakers: Breakers,
    now: Instant,
}

impl Bed {
    fn new() -> Self {
        Self { breakers: Breakers::new(FIRST, MAX), now: Instant::now() }
    }

    fn hold(&mut self, hold: impl Into<Hold>, partition: i32) -> HoldId {
        self.breakers.on_held(&hold.into(), &p(partition), "refused", self.now)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Waits until a partition may probe.
    fn probe(&mut self, id: HoldId, partition: i32) -> ProbeId {
        self.now = self.now.max(self.breakers.probe_at(id, &p(partition)).unwrap());
        self.breakers.try_probe(id, &p(partition), self.now).unwrap().0
    }

    fn fail(&mut self, id: HoldId, probe: ProbeId) {
        self.breakers.on_probe_failed(id, probe, "still refused", self.now);
    }

    fn events(&mut self) -> Vec<HoldEvent> {
        std::iter::from_fn(|| self.breakers.poll_event()).collect()
    }

    fn are_held(&self) -> [bool; 3] {
        [0, 1, 2].map(|partition| self.breakers.is_held(&p(partition)))
    }
}

#[test]
fn a_scope_is_held_until_a_probe_succeeds() {
    for (scope, held) in [
        (HoldScope::Subscription, [true; 3]),
        (HoldScope::Partition, [false, true, false]),
        (HoldScope::Lane, [false; 3]),
    ] {
        let mut bed = Bed::new();
        assert_eq!(bed.are_held(), [false; 3]);
        let id = bed.hold(Hold::on("postgres").scope(scope), 1);
        assert_eq!(bed.are_held(), held, "{scope}");
        assert!(bed.breakers.try_probe(id, &p(1), bed.now).is_none(), "not before its backoff");
        let probe = bed.probe(id, 1);
        bed.fail(id, probe);
        assert_eq!(bed.are_held(), held);
        bed.probe(id, 1);
        bed.pass(FIRST);
        bed.breakers.on_probe_succeeded(id, bed.now);
        assert_eq!((bed.are_held(), bed.breakers.is_open(id)), ([false; 3], false));
        let [HoldEvent::Opened { dependency, scope: of, error }, closed] = &bed.events()[..] else {
            unreachable!("one start and one end")
        };
        assert_eq!((&**dependency, *of, &**error), ("postgres", scope, "refused"));
        assert!(
            matches!(closed, HoldEvent::Closed { failed_probes: 1, is_back: true, held_for, .. } if *held_for > FIRST)
        );
    }
}

#[test]
fn probes_are_single_and_their_backoff_grows() {
    let mut bed = Bed::new();
    let id = bed.hold("postgres", 0);
    assert_eq!(bed.hold("postgres", 1), id);
    let (mut last, mut waits) = (bed.now, Vec::new());
    for round in 0..8 {
        let probe = bed.probe(id, round % 2);
        waits.push(bed.now - last);
        last = bed.now;
        for partition in [0, 1] {
            assert!(bed.breakers.try_probe(id, &p(partition), bed.now).is_none(), "another one is in flight");
        }
        bed.fail(id, probe);
    }
    for (round, wait) in waits.iter().enumerate() {
        let middle = FIRST.saturating_mul(1 << round).min(MAX);
        assert!(*wait >= middle.mul_f64(0.8) && *wait <= middle.mul_f64(1.2), "{waits:?}");
    }
    assert_eq!(bed.breakers.status().first().map(|hold| hold.failed_probes), Some(8));
}

#[test]
fn another_partition_has_the_next_probe() {
    let mut bed = Bed::new();
    let id = bed.hold("postgres", 0);
    bed.hold("postgres", 1);
    let probe = bed.probe(id, 0);
    bed.fail(id, probe);
    let [own, other] = [0, 1].map(|partition| bed.breakers.probe_at(id, &p(partition)).unwrap());
    assert_eq!(own, other + TURN, "it comes last, but does not wait for one that can't probe");
}

#[test]
fn a_probe_of_a_revoked_partition_is_made_by_another() {
    let mut bed = Bed::new();
    let id = bed.hold("postgres", 0);
    bed.hold("postgres", 1);
    let lost = bed.probe(id, 0);
    assert_eq!(bed.breakers.on_partition_ended(&p(0), bed.now), [id]);
    assert_eq!(bed.breakers.probe_at(id, &p(1)), Some(bed.now), "at once");
    let next = bed.probe(id, 1);
    bed.fail(id, lost);
    assert!(bed.breakers.probe_at(id, &p(1)) == Some(bed.now + MAX), "the late failure does not end the other probe");
    bed.fail(id, next);
    assert!(bed.breakers.probe_at(id, &p(1)) < Some(bed.now + MAX));
}

#[test]
fn a_probe_that_hangs_is_followed_by_another() {
    let mut bed = Bed::new();
    let id = bed.hold("postgres", 0);
    let hangs = bed.probe(id, 0);
    bed.pass(MAX);
    let next = bed.probe(id, 0);
    assert_ne!(hangs, next);
    bed.breakers.on_probe_succeeded(id, bed.now);
    bed.fail(id, hangs);
    assert!(!bed.breakers.is_open(id));
}

#[test]
fn a_hold_that_nothing_waits_for_ends_and_is_remembered() {
    let mut bed = Bed::new();
    let since = bed.now;
    let id = bed.hold("postgres", 0);
    for _ in 0..3 {
        let probe = bed.probe(id, 0);
        bed.fail(id, probe);
    }
    bed.breakers.on_partition_ended(&p(0), bed.now);
    assert_eq!(bed.are_held(), [false; 3]);
    assert!(matches!(bed.events()[..], [_, HoldEvent::Closed { is_back: false, .. }]));
    // Its next owner is this member again.
    bed.pass(FIRST);
    let id = bed.hold("postgres", 1);
    assert_eq!(bed.breakers.status()[0].since, since, "it is down since then");
    assert!(bed.breakers.probe_at(id, &p(1)) > Some(bed.now + 4 * FIRST), "and is not probed more often");
    // After a long time it is another outage.
    bed.breakers.on_partition_ended(&p(1), bed.now);
    bed.pass(2 * MAX);
    let id = bed.hold("postgres", 1);
    assert_eq!(bed.breakers.status()[0].since, bed.now);
    assert!(bed.breakers.probe_at(id, &p(1)) <= Some(bed.now + 2 * FIRST));
}

#[test]
fn a_dependency_that_comes_and_goes_is_probed_less_often() {
    let mut bed = Bed::new();
    let mut waits = Vec::new();
    for _ in 0..4 {
        let id = bed.hold("postgres", 0);
        let held_at = bed.now;
        bed.probe(id, 0);
        waits.push(bed.now - held_at);
        bed.breakers.on_probe_succeeded(id, bed.now);
    }
    assert!(waits.is_sorted() && waits[3] > 4 * FIRST, "{waits:?}");
}

#[test]
fn dependencies_are_held_side_by_side() {
    let mut bed = Bed::new();
    let (database, service) = (bed.hold("postgres", 0), bed.hold("prices", 1));
    assert_ne!(database, service);
    bed.probe(database, 0);
    bed.breakers.on_probe_succeeded(database, bed.now);
    assert_eq!(bed.are_held(), [true; 3], "for the other one");
    bed.probe(service, 1);
    bed.breakers.on_probe_succeeded(service, bed.now);
    assert_eq!(bed.are_held(), [false; 3]);
}

#[test]
fn names_are_bounded() {
    let mut bed = Bed::new();
    let ids: BTreeSet<_> = (0..300).map(|n| bed.hold(format!("database-{n}"), 0)).collect();
    assert_eq!((ids.len(), bed.breakers.status().len()), (MAX_NAMES + 1, MAX_NAMES + 1));
    assert!(bed.breakers.status().iter().any(|hold| hold.dependency == OTHER));
}

#[test]
fn only_many_failures_of_several_keys_in_a_row_are_an_outage() {
    let fails = |limit, failures: &[(u64, u64)]| {
        let mut detector = OutageDetector::new(limit);
        failures.iter().map(|(record, key)| detector.on_failed(*record, *key)).collect::<Vec<_>>()
    };
    assert_eq!(fails(3, &[(1, 1), (2, 2), (3, 3), (4, 4)]), [false, false, true, true]);
    assert_eq!(fails(3, &[(1, 1), (1, 1), (1, 1), (2, 2)]), [false; 4], "attempts of one record count once");
    assert_eq!(fails(3, &[(1, 7), (2, 7), (3, 7), (4, 7), (5, 8)]), [false, false, false, false, true], "one bad key");
    assert_eq!(fails(0, &[(1, 1), (2, 2), (3, 3)]), [false; 3], "off");
    let mut detector = OutageDetector::new(2);
    assert!(!detector.on_failed(1, 1));
    detector.on_success();
    assert!(!detector.on_failed(2, 2) && detector.on_failed(3, 3));
}

#[derive(Debug, Clone)]
enum Step {
    Hold { name: usize, scope: HoldScope, partition: i32 },
    Probe { which: usize, partition: i32 },
    EndProbe { which: usize, succeeds: bool },
    Revoke { partition: i32 },
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let scope = prop_oneof![Just(HoldScope::Lane), Just(HoldScope::Partition), Just(HoldScope::Subscription)];
    prop_oneof![
        4 => (0..3_usize, scope, 0..3).prop_map(|(name, scope, partition)| Step::Hold { name, scope, partition }),
        6 => (0..9_usize, 0..3).prop_map(|(which, partition)| Step::Probe { which, partition }),
        4 => (0..9_usize, any::<bool>()).prop_map(|(which, succeeds)| Step::EndProbe { which, succeeds }),
        1 => (0..3).prop_map(|partition| Step::Revoke { partition }),
        4 => (0..40_000_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever happens, each open hold has a partition that will probe within a bounded time, at most
    /// one probe is in flight within that time, and each start has one end.
    #[test]
    fn holds_never_stand_still(steps in prop::collection::vec(step(), 1..200)) {
        let mut bed = Bed::new();
        let mut probes = Vec::<(HoldId, ProbeId, Instant)>::new();
        let mut open = 0_i32;
        for step in steps {
            let ids: Vec<_> = bed.breakers.open.keys().copied().collect();
            match step {
                Step::Hold { name, scope, partition } => {
                    let hold = Hold::on(["postgres", "prices", "mail"][name]).scope(scope);
                    let id = bed.hold(hold, partition);
                    prop_assert!(bed.breakers.waiting(id).any(|tp| *tp == p(partition)));
                }
                Step::Probe { which, partition } => {
                    let Some(id) = ids.get(which % ids.len().max(1)) else { continue };
                    if let Some((probe, _)) = bed.breakers.try_probe(*id, &p(partition), bed.now) {
                        let since = bed.now;
                        prop_assert!(!probes.iter().any(|(of, _, at)| of == id && since < *at + MAX), "one at a time");
                        probes.push((*id, probe, since));
                    }
                }
                Step::EndProbe { which, succeeds } => {
                    if probes.is_empty() {
                        continue;
                    }
                    let (id, probe, _) = probes.swap_remove(which % probes.len());
                    match succeeds {
                        true => bed.breakers.on_probe_succeeded(id, bed.now),
                        false => bed.fail(id, probe),
                    }
                    prop_assert!(!succeeds || !bed.breakers.is_open(id));
                }
                Step::Revoke { partition } => {
                    bed.breakers.on_partition_ended(&p(partition), bed.now);
                    probes.clear();
                    prop_assert!(bed.breakers.open.keys().all(|id| bed.breakers.waiting(*id).all(|tp| *tp != p(partition))));
                    // Probes of the others go on, but this test does not know which those are.
                    bed.pass(MAX);
                }
                Step::Pass(ms) => bed.pass(Duration::from_millis(ms)),
            }
            for event in bed.events() {
                open += if matches!(event, HoldEvent::Opened { .. }) { 1 } else { -1 };
            }
            prop_assert_eq!(open as usize, bed.breakers.open.len());
            for id in bed.breakers.open.keys() {
                let next = bed.breakers.waiting(*id).filter_map(|tp| bed.breakers.probe_at(*id, tp)).min();
                prop_assert!(next.is_some_and(|at| at <= bed.now + MAX.mul_f64(1.2) + TURN), "{:?}", bed.breakers);
            }
        }
    }
}
