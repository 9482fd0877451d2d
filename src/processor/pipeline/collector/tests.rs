#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const EPOCH: i32 = 3;
const ALL: Size = Size { records: usize::MAX, bytes: usize::MAX };

fn outputs(value: impl Into<String>) -> Payload {
    Payload::Outputs(vec![ProducerRecord::to("out").value(value.into())], Vec::new())
}

/// A collector to which these offsets have arrived, and those without a record between them.
fn collector(offsets: impl IntoIterator<Item = i64>) -> Collector {
    let mut collector = Collector::new(None);
    collector.start_from(0);
    collector.set_leader_epoch(EPOCH);
    offsets.into_iter().for_each(|offset| collector.admit(offset));
    collector
}

fn end(collector: &mut Collector, offset: i64) {
    collector.end(vec![(offset as Lane, offset)], outputs(offset.to_string()));
}

fn values(cut: &Cut) -> Vec<String> {
    let records = cut.ended.iter().flat_map(|e| e.payload.records());
    records.map(|r| String::from_utf8(r.value.unwrap().to_vec()).unwrap()).collect()
}

fn take(collector: &mut Collector) -> Option<Cut> {
    collector.take(ALL, true, 1, Instant::now())
}

/// Returns which of these records the next owner would not handle.
fn completed(offset: &OffsetAndMetadata, of: impl IntoIterator<Item = i64>) -> BTreeSet<i64> {
    let before = CompletedOffsets::decode(&offset.metadata, offset.offset, offset.leader_epoch.unwrap()).unwrap();
    let mut next = OffsetTracker::new(offset.offset, before);
    of.into_iter().filter(|o| !next.admit(*o)).collect()
}

#[test]
fn a_cut_commits_exactly_the_records_whose_outputs_it_has() {
    let mut collector = collector(0..6);
    assert!(take(&mut collector).is_none());
    [3, 1].into_iter().for_each(|offset| end(&mut collector, offset));
    let cut = take(&mut collector).unwrap();
    end(&mut collector, 4); // while it commits
    assert_eq!(values(&cut), ["3", "1"]);
    assert_eq!(completed(&cut.offset, 0..6), BTreeSet::from([1, 3]));
    collector.on_committed(&cut);
    let cut = take(&mut collector).unwrap();
    assert_eq!(completed(&cut.offset, 0..6), BTreeSet::from([1, 3, 4]));
    assert_eq!(values(&cut), ["4"]);
}

#[test]
fn aborted_outputs_are_taken_again_in_their_order() {
    let mut collector = collector(0..6);
    [3, 1].into_iter().for_each(|offset| end(&mut collector, offset));
    let cut = take(&mut collector).unwrap();
    end(&mut collector, 0);
    collector.on_aborted(cut);
    let again = take(&mut collector).unwrap();
    assert_eq!(values(&again), ["3", "1", "0"]);
    assert_eq!(completed(&again.offset, 0..6), BTreeSet::from([0, 1, 3]));
}

#[test]
fn outputs_that_were_rejected_are_taken_alone_and_later() {
    let mut collector = collector(0..6);
    (0..4).for_each(|offset| end(&mut collector, offset));
    let mut cut = take(&mut collector).unwrap();
    cut.ended[1].failures = 1;
    collector.on_aborted(cut);
    let now = Instant::now();
    let wait = std::time::Duration::from_secs(1);
    collector.hold_until(now + wait);
    assert!(collector.take(ALL, true, 2, now).is_none() && collector.is_flushed(now));
    let mut next = || {
        let cut = collector.take(ALL, true, 3, now + wait).unwrap();
        collector.on_committed(&cut);
        values(&cut)
    };
    assert_eq!((next(), next(), next()), (vec!["0".into()], vec!["1".into()], vec!["2".into(), "3".into()]));
}

#[test]
fn outputs_larger_than_a_transaction_are_one_of_their_own() {
    let mut collector = collector(0..3);
    (0..3).for_each(|offset| end(&mut collector, offset));
    let room = Size { records: 10, bytes: 1 };
    let cut = collector.take(room, true, 1, Instant::now()).unwrap();
    assert_eq!(values(&cut), ["0"]);
    assert!(collector.take(room, false, 1, Instant::now()).is_none(), "beside another one it does not fit");
}

#[test]
fn records_without_room_in_the_metadata_wait_until_there_is() {
    const RECORDS: i64 = 3000; // the odd ones are more ranges than there is room for
    let all: Vec<i64> = (0..RECORDS).collect();
    let mut collector = collector(all.iter().copied());
    let odd: BTreeSet<i64> = all.iter().copied().filter(|o| o % 2 == 1).collect();
    odd.iter().rev().for_each(|offset| end(&mut collector, *offset));
    let cut = take(&mut collector).unwrap();
    let taken = completed(&cut.offset, all.iter().copied());
    assert_eq!(taken.len(), cut.ended.len());
    assert!(!taken.is_empty() && taken.len() < 1000, "{}", taken.len());
    collector.on_committed(&cut);
    assert!(take(&mut collector).is_none() && collector.is_flushed(Instant::now()));
    // The lowest ones make room, whatever has ended before.
    let mut committed = taken;
    for offset in (0..RECORDS).step_by(2) {
        end(&mut collector, offset);
        while let Some(cut) = take(&mut collector) {
            let now = completed(&cut.offset, all.iter().copied());
            committed.extend(cut.ended.iter().map(EndedRecords::offset));
            assert_eq!(now, committed);
            collector.on_committed(&cut);
        }
    }
    assert_eq!(committed.len() as i64, RECORDS);
}

#[test]
fn offsets_without_records_take_no_room_in_the_metadata() {
    let mut collector = collector((0..100_000).map(|n| n * 10));
    end(&mut collector, 500_000);
    assert!(take(&mut collector).unwrap().offset.metadata.len() < 60);
}

#[test]
fn another_log_drops_what_ended_of_the_one_before() {
    let mut collector = collector(0..10);
    (0..5).for_each(|offset| end(&mut collector, offset));
    let cut = take(&mut collector).unwrap();
    end(&mut collector, 7);
    collector.start_from(2);
    (2..4).for_each(|offset| collector.admit(offset));
    collector.on_committed(&cut);
    assert!(take(&mut collector).is_none());
    end(&mut collector, 3);
    assert_eq!(completed(&take(&mut collector).unwrap().offset, 2..4), BTreeSet::from([3]));
}

#[test]
fn a_revoked_partition_is_not_committed_any_more() {
    let mut collector = collector(0..10);
    end(&mut collector, 0);
    let cut = take(&mut collector).unwrap();
    end(&mut collector, 1);
    assert_eq!(collector.close(), 2);
    collector.on_aborted(cut);
    end(&mut collector, 2);
    assert!(take(&mut collector).is_none());
    assert_eq!(collector.held(), Size::default());
}

#[derive(Debug, Clone)]
enum Step {
    Arrive(u8),
    /// The records that could end now: which of them.
    End(u8),
    /// Several that could end, as one batch.
    EndBatch(u8, u8),
    Take(u8),
    Commit,
    Abort,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        any::<u8>().prop_map(Step::Arrive),
        any::<u8>().prop_map(Step::End),
        (any::<u8>(), 1..5_u8).prop_map(|(at, count)| Step::EndBatch(at, count)),
        (1..9_u8).prop_map(Step::Take),
        Just(Step::Commit),
        Just(Step::Abort),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    /// At each commit, the offset and its metadata are exactly the records whose outputs are committed;
    /// outputs of a lane are in its order, each once.
    #[test]
    fn any_history_commits_each_record_with_its_outputs(steps in steps(), lanes in 1..8_u64) {
        let mut collector = collector([]);
        let (mut next, mut lane_queues) = (0_i64, BTreeMap::<u64, Vec<i64>>::new());
        let (mut open, mut written, mut transaction) = (None::<Cut>, Vec::<i64>::new(), 0);
        for step in steps {
            match step {
                Step::Arrive(gap) => {
                    next += i64::from(gap % 3);
                    collector.admit(next);
                    lane_queues.entry(next as u64 % lanes).or_default().push(next);
                    next += 1;
                }
                Step::End(at) | Step::EndBatch(at, _) => {
                    let count = if let Step::EndBatch(_, count) = step { usize::from(count) } else { 1 };
                    let ready: Vec<_> = lane_queues.iter().filter(|(_, q)| !q.is_empty()).map(|(l, _)| *l).collect();
                    let chosen: BTreeSet<_> = ready.iter().cycle().skip(usize::from(at)).take(count.min(ready.len())).copied().collect();
                    let records: Vec<_> = chosen.iter().map(|l| (*l, lane_queues.get_mut(l).unwrap().remove(0))).collect();
                    let payload = Payload::Outputs(
                        records.iter().map(|(_, o)| ProducerRecord::to("out").value(o.to_string())).collect(),
                        Vec::new(),
                    );
                    collector.end(records, payload);
                }
                Step::Take(records) if open.is_none() => {
                    transaction += 1;
                    let room = Size { records: usize::from(records), bytes: usize::MAX };
                    open = collector.take(room, true, transaction, Instant::now());
                }
                Step::Take(_) => {}
                Step::Commit => {
                    let Some(cut) = open.take() else { continue };
                    collector.on_committed(&cut);
                    written.extend(values(&cut).iter().map(|v| v.parse::<i64>().unwrap()));
                    let all = collector.offsets.tracker().unwrap().clone();
                    let expected: BTreeSet<i64> = written.iter().copied().collect();
                    prop_assert_eq!(expected.len(), written.len(), "each once");
                    let arrived: BTreeSet<i64> =
                        lane_queues.values().flatten().copied().chain(collector.ended.values().flat_map(|e| e.records.iter().map(|(_, o)| *o))).chain(expected.iter().copied()).collect();
                    prop_assert_eq!(completed(&cut.offset, arrived), expected);
                    prop_assert!(all.lowest_incomplete() >= cut.offset.offset);
                }
                Step::Abort => open.take().into_iter().for_each(|cut| collector.on_aborted(cut)),
            }
        }
        for lane in 0..lanes {
            let of_lane: Vec<_> = written.iter().filter(|o| **o as u64 % lanes == lane).collect();
            prop_assert!(of_lane.is_sorted(), "{:?}", of_lane);
        }
    }
}
