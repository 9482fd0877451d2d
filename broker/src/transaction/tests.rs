#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use kafka_protocol::ResponseError::{
    ConcurrentTransactions as CT, CoordinatorLoadInProgress, InvalidProducerEpoch, InvalidProducerIdMapping,
    InvalidTransactionTimeout, InvalidTxnState as ITS, ProducerFenced as PF, TransactionAbortable,
};

use super::*;
use TransactionState::{CompleteAbort, CompleteCommit, Empty, Ongoing, PrepareAbort, PrepareCommit};
use TransactionVersion::{V1, V2};

const ID: &str = "payments";
const TIMEOUT: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A coordinator with one id, at a fixed time.
struct Test {
    coordinator: TransactionCoordinator,
    now: Instant,
}

impl Test {
    fn with_rules(rules: TransactionRules) -> Self {
        let coordinator = TransactionCoordinator::new(rules, Duration::from_secs(900), 7 * DAY);
        Self { coordinator, now: Instant::now() }
    }

    fn new() -> Self {
        Self::with_rules(TransactionRules::Kafka)
    }

    /// Returns a coordinator whose id is in this state with epoch 5, as the producer before EndTxn
    /// has it.
    fn in_state(version: TransactionVersion, state: TransactionState) -> (Self, ProducerIdAndEpoch) {
        let mut test = Self::new();
        let mut producer = test.init(None).unwrap();
        while producer.epoch < 5 {
            producer = test.init(Some(producer)).unwrap();
        }
        if state == Empty {
            return (test, producer);
        }
        test.add(producer, version).unwrap();
        if state == Ongoing {
            return (test, producer);
        }
        let is_commit = matches!(state, PrepareCommit | CompleteCommit);
        test.end(producer, is_commit, version).unwrap();
        if !state.is_prepared() {
            test.write_markers();
        }
        assert_eq!(test.state(), state);
        (test, producer)
    }

    fn init(&mut self, expected: Option<ProducerIdAndEpoch>) -> Result<ProducerIdAndEpoch, ResponseError> {
        self.coordinator.init_producer(ID, TIMEOUT, expected, self.now)
    }

    fn add(&mut self, producer: ProducerIdAndEpoch, version: TransactionVersion) -> Result<(), ResponseError> {
        self.coordinator.add(ID, producer, [partition(0)], version, self.now)
    }

    fn end(
        &mut self,
        producer: ProducerIdAndEpoch,
        commit: bool,
        version: TransactionVersion,
    ) -> Result<ProducerIdAndEpoch, ResponseError> {
        self.coordinator.end(ID, producer, commit, version, self.now)
    }

    fn write_markers(&mut self) -> Vec<Marker> {
        let (mut markers, mut due) = self.coordinator.poll_markers(self.now);
        markers.append(&mut due);
        markers.iter().for_each(|m| self.coordinator.on_marker_written(m, self.now));
        markers
    }

    fn state(&self) -> TransactionState {
        self.coordinator.get(ID).unwrap().state
    }

    fn set_epoch(&mut self, epoch: i16) -> ProducerIdAndEpoch {
        let found = self.coordinator.transactions.get_mut(ID).unwrap();
        found.producer.epoch = epoch;
        found.producer
    }
}

fn partition(index: i32) -> Participant {
    Participant::Partition("orders".into(), index)
}

fn with_epoch(producer: ProducerIdAndEpoch, epoch: i16) -> ProducerIdAndEpoch {
    ProducerIdAndEpoch { epoch, ..producer }
}

#[derive(Clone, Copy, Debug)]
enum Verdict {
    Fails(ResponseError),
    /// Ends a transaction.
    Ends,
    /// Ends an empty transaction, with a new epoch.
    Bumps,
    /// Responds as to the first request.
    Repeats,
}
use Verdict::{Bumps, Ends, Fails, Repeats};

fn check(test: &mut Test, producer: ProducerIdAndEpoch, commit: bool, version: TransactionVersion, verdict: Verdict) {
    let stored = test.coordinator.get(ID).unwrap().producer;
    let before = test.state();
    let ended = test.end(producer, commit, version);
    let context = format!("{version:?} {before:?}, commit {commit}, epoch {} of {}", producer.epoch, stored.epoch);
    let next = if version == V2 { with_epoch(stored, stored.epoch + 1) } else { stored };
    match verdict {
        Fails(error) => assert_eq!(ended, Err(error), "{context}"),
        Repeats => assert_eq!(ended, Ok(stored), "{context}"),
        Bumps | Ends => assert_eq!(ended, Ok(next), "{context}"),
    }
    let after = match verdict {
        Fails(_) | Repeats => before,
        Ends if commit => PrepareCommit,
        Ends => PrepareAbort,
        Bumps => CompleteAbort,
    };
    assert_eq!(test.state(), after, "{context}");
}

#[test]
fn end_txn_of_version_2_follows_kafkas_table() {
    // By state: commit by a retry, commit by the stored epoch, abort by a retry, abort by the stored
    // epoch.
    let table = [
        (Empty, [Fails(PF), Fails(ITS), Fails(PF), Bumps]),
        (Ongoing, [Fails(PF), Ends, Fails(PF), Ends]),
        (PrepareCommit, [Fails(CT), Fails(PF), Fails(ITS), Fails(PF)]),
        (PrepareAbort, [Fails(ITS), Fails(PF), Fails(CT), Fails(PF)]),
        (CompleteCommit, [Repeats, Fails(ITS), Fails(ITS), Bumps]),
        (CompleteAbort, [Fails(ITS), Fails(ITS), Repeats, Bumps]),
    ];
    for (state, verdicts) in table {
        for (i, verdict) in verdicts.into_iter().enumerate() {
            let (mut test, _) = Test::in_state(V2, state);
            let stored = test.coordinator.get(ID).unwrap().producer;
            let producer = if i % 2 == 0 { with_epoch(stored, stored.epoch - 1) } else { stored };
            check(&mut test, producer, i < 2, V2, verdict);
        }
    }
}

#[test]
fn end_txn_of_version_1_follows_kafkas_table() {
    let table = [
        (Empty, [Fails(ITS), Fails(ITS)]),
        (Ongoing, [Ends, Ends]),
        (PrepareCommit, [Fails(CT), Fails(ITS)]),
        (PrepareAbort, [Fails(ITS), Fails(CT)]),
        (CompleteCommit, [Repeats, Fails(ITS)]),
        (CompleteAbort, [Fails(ITS), Repeats]),
    ];
    for (state, [commit, abort]) in table {
        for (is_commit, verdict) in [(true, commit), (false, abort)] {
            let (mut test, producer) = Test::in_state(V1, state);
            check(&mut test, producer, is_commit, V1, verdict);
            for other in [producer.epoch - 1, producer.epoch + 1] {
                let (mut test, producer) = Test::in_state(V1, state);
                check(&mut test, with_epoch(producer, other), is_commit, V1, Fails(PF));
            }
        }
    }
}

#[test]
fn unknown_id_and_foreign_producer_have_no_mapping() {
    let (mut test, producer) = Test::in_state(V1, Ongoing);
    let foreign = ProducerIdAndEpoch { id: producer.id + 1, ..producer };
    for version in [V1, V2] {
        assert_eq!(test.end(foreign, true, version), Err(InvalidProducerIdMapping));
        assert_eq!(test.add(foreign, version), Err(InvalidProducerIdMapping));
        let unknown = test.coordinator.end("unknown", producer, true, version, test.now);
        assert_eq!(unknown, Err(InvalidProducerIdMapping));
    }
    assert_eq!(test.coordinator.verify(ID, foreign, &partition(0), test.now), Err(InvalidProducerIdMapping));
}

#[test]
fn version_2_rotates_the_id_after_the_last_epoch() {
    let (mut test, _) = Test::in_state(V2, Empty);
    let producer = test.set_epoch(i16::MAX - 1);
    test.add(producer, V2).unwrap();
    let next = test.end(producer, true, V2).unwrap();
    assert!(next.id != producer.id && next.epoch == 0);
    assert_eq!(test.end(producer, true, V2), Err(CT), "a retry before the markers");
    let markers = test.write_markers();
    assert_eq!(markers[0].producer, with_epoch(producer, i16::MAX), "the marker still has the old id");
    assert_eq!(test.end(producer, true, V2), Ok(next), "a retry after them");
    assert_eq!(test.end(producer, false, V2), Err(ITS));
    assert_eq!(test.add(next, V2), Ok(()));
    assert_eq!(test.end(producer, true, V2), Err(PF), "too late");
}

#[test]
fn init_bumps_the_epoch_of_its_owner_once() {
    let mut test = Test::new();
    let first = test.init(None).unwrap();
    assert_eq!(first.epoch, 0);
    let second = test.init(Some(first)).unwrap();
    assert_eq!(second, with_epoch(first, 1));
    assert_eq!(test.init(Some(first)), Ok(second), "a retry");
    let third = test.init(None).unwrap();
    assert_eq!(third.epoch, 2, "a new owner");
    assert_eq!(test.init(Some(first)), Err(PF));
    assert_eq!(test.init(Some(second)), Err(PF), "a takeover forgets the last epoch");
    let foreign = ProducerIdAndEpoch { id: first.id + 1, epoch: 2 };
    assert_eq!(test.init(Some(foreign)), Err(PF));
}

#[test]
fn init_rotates_an_exhausted_id() {
    for is_owner in [true, false] {
        let (mut test, _) = Test::in_state(V1, Empty);
        let producer = test.set_epoch(i16::MAX - 1);
        let next = test.init(is_owner.then_some(producer)).unwrap();
        assert!(next.id != producer.id && next.epoch == 0);
        let retried = test.init(Some(producer));
        assert_eq!(retried, if is_owner { Ok(next) } else { Err(PF) });
    }
}

#[test]
fn init_over_an_open_transaction_aborts_it_first() {
    use TransactionRules::{Kafka, Kafka3};
    for (rules, is_owner) in [(Kafka, true), (Kafka, false), (Kafka3, true), (Kafka3, false)] {
        let mut test = Test::with_rules(rules);
        let producer = test.init(None).unwrap();
        test.add(producer, V1).unwrap();
        let expected = is_owner.then_some(producer);
        assert_eq!(test.init(expected), Err(CT));
        assert_eq!(test.state(), PrepareAbort);
        assert_eq!(test.init(None), Err(CT), "its markers are not written");
        let markers = test.write_markers();
        assert!(markers.len() == 1 && !markers[0].commit && markers[0].producer.epoch == producer.epoch + 1);
        assert_eq!(test.state(), CompleteAbort);
        let retried = test.init(expected);
        let next = match (rules, is_owner) {
            (_, false) => Ok(with_epoch(producer, producer.epoch + 2)),
            (Kafka, true) => Ok(with_epoch(producer, producer.epoch + 1)),
            _ => Err(PF),
        };
        assert_eq!(retried, next, "{rules:?}, owner {is_owner}");
        assert_eq!(test.end(producer, true, V1), Err(PF));
    }
}

#[test]
fn timeout_of_a_transaction_is_limited() {
    let mut test = Test::new();
    let mut init = |timeout| test.coordinator.init_producer(ID, timeout, None, test.now).map(|p| p.epoch);
    assert_eq!(init(Duration::from_secs(901)), Err(InvalidTransactionTimeout));
    assert_eq!(init(Duration::ZERO), Err(InvalidTransactionTimeout));
    assert_eq!(init(Duration::from_secs(900)), Ok(0));
}

#[test]
fn transaction_is_aborted_at_its_timeout() {
    for version in [V1, V2] {
        let (mut test, producer) = Test::in_state(version, Ongoing);
        let started = test.now;
        assert_eq!(test.coordinator.deadline(), Some(started + TIMEOUT));
        test.now = started + TIMEOUT / 2;
        test.add(producer, version).unwrap();
        assert_eq!(test.coordinator.deadline(), Some(started + TIMEOUT), "the first registration counts");
        test.coordinator.tick(started + TIMEOUT - Duration::from_millis(1));
        assert_eq!(test.state(), Ongoing);
        test.now = started + TIMEOUT;
        test.coordinator.tick(test.now);
        assert_eq!(test.state(), PrepareAbort);
        assert!(!test.write_markers()[0].commit);
        assert_eq!(test.add(producer, version), Err(PF));
        assert_eq!(test.init(Some(producer)), Ok(with_epoch(producer, producer.epoch + 1)), "its owner continues");
        assert_eq!(test.init(None), Ok(with_epoch(producer, producer.epoch + 2)));
        assert_eq!(test.init(Some(producer)), Err(PF), "after another");
    }
}

#[test]
fn idle_id_expires_and_open_transaction_does_not() {
    for (state, expires) in [(Empty, true), (CompleteCommit, true), (CompleteAbort, true), (PrepareCommit, false)] {
        let (mut test, producer) = Test::in_state(V1, state);
        test.now += 7 * DAY;
        test.coordinator.tick(test.now);
        assert_eq!(test.coordinator.get(ID).is_none(), expires, "{state:?}");
        let added = test.add(producer, V1);
        assert_eq!(added, Err(if expires { InvalidProducerIdMapping } else { CT }), "{state:?}");
    }
}

#[test]
fn partitions_are_added_unless_markers_are_missing() {
    for (state, expected) in [
        (Empty, Ok(())),
        (Ongoing, Ok(())),
        (PrepareCommit, Err(CT)),
        (PrepareAbort, Err(CT)),
        (CompleteCommit, Ok(())),
        (CompleteAbort, Ok(())),
    ] {
        let (mut test, producer) = Test::in_state(V1, state);
        assert_eq!(test.add(producer, V1), expected, "{state:?}");
        assert_eq!(test.add(with_epoch(producer, 4), V1), Err(PF), "{state:?}");
        assert_eq!(test.add(with_epoch(producer, 6), V1), Err(PF), "{state:?}");
    }
}

#[test]
fn only_added_partitions_are_verified() {
    let (mut test, producer) = Test::in_state(V1, Ongoing);
    let verify = |test: &Test, p| test.coordinator.verify(ID, producer, &partition(p), test.now);
    assert_eq!(verify(&test, 0), Ok(()));
    assert_eq!(verify(&test, 1), Err(TransactionAbortable));
    test.end(producer, true, V1).unwrap();
    assert_eq!(verify(&test, 0), Err(CT));
    test.write_markers();
    assert_eq!(verify(&test, 0), Err(TransactionAbortable), "the transaction has ended");
}

#[test]
fn markers_of_version_2_have_the_next_epoch() {
    for (version, by) in [(V1, 0), (V2, 1)] {
        let (mut test, producer) = Test::in_state(version, Ongoing);
        test.coordinator.add(ID, producer, [Participant::Group("g".into())], version, test.now).unwrap();
        test.end(producer, true, version).unwrap();
        let (markers, _) = test.coordinator.poll_markers(test.now);
        assert_eq!(markers.len(), 2);
        assert!(markers.iter().all(|m| m.commit && m.producer.epoch == producer.epoch + by));
        test.coordinator.on_marker_written(&markers[0], test.now);
        assert_eq!(test.state(), PrepareCommit, "one marker is missing");
        test.coordinator.on_marker_written(&markers[1], test.now);
        assert_eq!(test.state(), CompleteCommit);
    }
}

#[test]
fn delayed_marker_is_polled_when_it_is_due() {
    let (mut test, _) = Test::in_state(V1, PrepareCommit);
    let (mut markers, _) = test.coordinator.poll_markers(test.now);
    let second = Duration::from_secs(1);
    test.coordinator.delay_marker(markers.remove(0), Some(test.now + second));
    assert_eq!(test.coordinator.poll_markers(test.now), (vec![], vec![]));
    assert_eq!(test.coordinator.deadline(), Some(test.now + second));
    let (_, mut due) = test.coordinator.poll_markers(test.now + second);
    test.coordinator.delay_marker(due.remove(0), None);
    assert_eq!(test.coordinator.poll_markers(test.now + DAY), (vec![], vec![]), "held");
    assert_eq!(test.coordinator.release_markers(test.now), 1);
    assert_eq!(test.write_markers().len(), 1);
    assert_eq!(test.state(), CompleteCommit);
}

#[test]
fn moved_coordinator_loads_and_keeps_the_state() {
    let (mut test, producer) = Test::in_state(V1, Ongoing);
    test.coordinator.on_coordinator_moved(ID, test.now + TIMEOUT / 4, false);
    assert_eq!(test.end(producer, true, V1), Err(CoordinatorLoadInProgress));
    test.now += TIMEOUT / 4;
    assert_eq!(test.end(producer, true, V1), Ok(producer));
    assert_eq!(test.coordinator.poll_markers(test.now).0[0].coordinator_epoch, 1);
}

#[test]
fn moved_coordinator_may_forget_the_last_epoch() {
    for forgets in [false, true] {
        let mut test = Test::new();
        let first = test.init(None).unwrap();
        let second = test.init(Some(first)).unwrap();
        test.coordinator.on_coordinator_moved(ID, test.now, forgets);
        assert_eq!(test.init(Some(first)), if forgets { Err(PF) } else { Ok(second) });
        assert_eq!(test.init(Some(second)), Ok(with_epoch(first, 2)));
    }
}

#[test]
fn redpanda_has_no_fenced_error_and_ends_empty_transactions() {
    let mut test = Test::with_rules(TransactionRules::Redpanda);
    let producer = test.init(None).unwrap();
    assert_eq!(test.end(producer, true, V1), Ok(producer));
    assert_eq!(test.end(producer, false, V1), Ok(producer));
    let newer = test.init(None).unwrap();
    assert_eq!(test.add(producer, V1), Err(InvalidProducerEpoch));
    assert_eq!(test.end(producer, true, V1), Err(InvalidProducerEpoch));
    assert_eq!(test.init(Some(producer)), Err(InvalidProducerEpoch));
    test.add(newer, V1).unwrap();
    test.end(newer, true, V1).unwrap();
    let (mut markers, _) = test.coordinator.poll_markers(test.now);
    test.coordinator.delay_marker(markers.remove(0), Some(test.now + TIMEOUT));
    test.coordinator.complete_last(ID, test.now);
    assert_eq!(test.write_markers().len(), 1, "the next request completes the last transaction");
    assert_eq!(test.end(newer, true, V1), Ok(newer));
}
