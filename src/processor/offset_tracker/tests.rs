#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const EPOCH: i32 = 7;

fn tracker(base: i64) -> OffsetTracker {
    OffsetTracker::new(base, CompletedOffsets::default())
}

/// Returns a tracker with these offsets in flight, of those below `next`.
fn with_in_flight(base: i64, in_flight: impl IntoIterator<Item = i64>, next: i64) -> OffsetTracker {
    let mut progress = tracker(base);
    in_flight.into_iter().for_each(|offset| assert!(progress.admit(offset)));
    progress.advance_to(next);
    progress
}

fn completed_above(progress: &OffsetTracker) -> Vec<i64> {
    progress.completed_above().flatten().collect()
}

fn decode(metadata: &str, base: i64) -> Option<Vec<i64>> {
    Some(CompletedOffsets::decode(metadata, base, EPOCH)?.ranges.into_iter().flatten().collect())
}

#[test]
fn the_lowest_incomplete_offset_may_be_committed() {
    let mut progress = with_in_flight(10, 10..14, 14);
    assert_eq!(progress.lowest_incomplete(), 10);
    progress.complete(12);
    progress.complete(11);
    assert_eq!((progress.lowest_incomplete(), completed_above(&progress)), (10, vec![11, 12]));
    progress.complete(10);
    assert_eq!((progress.lowest_incomplete(), completed_above(&progress)), (13, vec![]));
    progress.complete(13);
    assert_eq!(progress.lowest_incomplete(), 14);
    progress.complete(13);
    progress.complete(99);
    assert_eq!(progress.lowest_incomplete(), 14, "offsets not in flight change nothing");
}

#[test]
fn gaps_count_as_completed_and_take_no_memory() {
    let far = 1_i64 << 50;
    let mut progress = with_in_flight(0, [5, far], far + 10);
    assert_eq!(progress.lowest_incomplete(), 5);
    progress.complete(far);
    assert!(progress.in_flight.len() < 3, "a gap takes no memory");
    let metadata = progress.encode(EPOCH).unwrap();
    assert_eq!(CompletedOffsets::decode(&metadata, 5, EPOCH).unwrap().ranges.front(), Some(&(6..far + 10)));
    progress.complete(5);
    assert_eq!(progress.lowest_incomplete(), far + 10);
    assert_eq!(progress.encode(EPOCH), None, "nothing is completed above");
}

#[test]
fn records_are_admitted_once() {
    let mut progress = with_in_flight(0, 0..3, 3);
    assert!(!progress.admit(2), "in flight");
    progress.complete(0);
    assert!(!progress.admit(0), "completed");
}

#[test]
fn the_next_owner_handles_only_incomplete_records() {
    let mut progress = with_in_flight(100, 100..110, 110);
    [101, 102, 105, 109].into_iter().for_each(|offset| progress.complete(offset));
    let metadata = progress.encode(EPOCH).unwrap();
    let earlier = || CompletedOffsets::decode(&metadata, 100, EPOCH).unwrap();

    let mut next = OffsetTracker::new(100, earlier());
    assert_eq!((next.lowest_incomplete(), completed_above(&next)), (100, vec![101, 102, 105, 109]));
    // It commits before it has fetched all of them.
    assert_eq!((100..104).filter(|o| next.admit(*o)).collect::<Vec<_>>(), [100, 103]);
    next.complete(100);
    assert_eq!((next.lowest_incomplete(), completed_above(&next)), (103, vec![105, 109]));
    next.complete(103);
    assert_eq!((next.lowest_incomplete(), completed_above(&next)), (104, vec![105, 109]));
    assert_eq!((104..112).filter(|o| next.admit(*o)).collect::<Vec<_>>(), [104, 106, 107, 108, 110, 111]);

    // Offsets completed right behind the position are committed before they are fetched.
    let mut next = OffsetTracker::new(100, earlier());
    assert!(next.admit(100));
    next.complete(100);
    assert_eq!((next.lowest_incomplete(), completed_above(&next)), (103, vec![105, 109]));
}

#[test]
fn records_of_a_later_leader_are_others() {
    let mut progress = with_in_flight(0, 0..10, 10);
    progress.complete(4);
    progress.complete(8);
    let metadata = progress.encode(EPOCH).unwrap();
    let mut next = OffsetTracker::new(0, CompletedOffsets::decode(&metadata, 0, EPOCH).unwrap());
    next.set_leader_epoch(EPOCH);
    assert_eq!((0..6).filter(|o| next.admit(*o)).collect::<Vec<_>>(), [0, 1, 2, 3, 5]);
    next.set_leader_epoch(EPOCH + 1);
    assert!((6..10).all(|o| next.admit(o)));
}

#[test]
fn metadata_is_valid_only_for_its_offset_and_epoch() {
    let mut progress = with_in_flight(100, 100..110, 110);
    progress.complete(105);
    let metadata = progress.encode(EPOCH).unwrap();
    assert_eq!(decode(&metadata, 100), Some(vec![105]));
    assert_eq!(CompletedOffsets::decode(&metadata, 99, EPOCH), None);
    assert_eq!(CompletedOffsets::decode(&metadata, 100, EPOCH + 1), None);
    assert_eq!(CompletedOffsets::decode(&metadata, 100, -1), None);
    let sentence = "metadata of another application";
    for foreign in ["", " ", "NO_METADATA", "{\"at\":100}", "AQ", sentence, &"A".repeat(5000)] {
        assert_eq!(CompletedOffsets::decode(foreign, 100, EPOCH), None, "{foreign}");
    }
}

#[test]
fn impossible_lengths_are_rejected() {
    for runs in [&[-1, 5][..], &[5, -1], &[5], &[i64::MAX, 1], &[1, i64::MAX]] {
        let mut out = vec![FORMAT_VERSION];
        put_varlong(&mut out, 100);
        put_varlong(&mut out, i64::from(EPOCH));
        runs.iter().for_each(|len| put_varlong(&mut out, *len));
        out.extend(crc32c::crc32c(&out).to_be_bytes());
        assert_eq!(decode(&URL_SAFE_NO_PAD.encode(out), 100), None, "{runs:?}");
    }
}

#[test]
fn metadata_is_bounded_and_has_the_lowest_ranges() {
    const MANY: i64 = 200_000;
    let mut progress = with_in_flight(0, 0..MANY, MANY);
    (1..MANY).step_by(2).for_each(|offset| progress.complete(offset));
    let metadata = progress.encode(EPOCH).unwrap();
    assert!(metadata.len() <= MAX_METADATA_BYTES && metadata.len() > MAX_METADATA_BYTES - 16, "{}", metadata.len());
    let ranges = decode(&metadata, 0).unwrap();
    assert_eq!(ranges, (0..ranges.len() as i64).map(|i| 2 * i + 1).collect::<Vec<_>>());
    assert!(ranges.len() > 500);
}

/// A fetch of offsets, some with a record, and a gap; or the completion of a record in flight.
#[derive(Debug, Clone)]
enum Step {
    Fetch(Vec<bool>, u8),
    Complete(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fetch = (prop::collection::vec(prop::bool::weighted(0.8), 0..90), any::<u8>());
    let step = prop_oneof![1 => fetch.prop_map(|(r, gap)| Step::Fetch(r, gap)), 20 => any::<prop::sample::Index>().prop_map(Step::Complete)];
    prop::collection::vec(step, 0..300)
}

/// A simple model: the offsets in flight, and the end of what was fetched.
#[derive(Debug, Default)]
struct Model {
    in_flight: BTreeSet<i64>,
    next: i64,
}

impl Model {
    fn lowest_incomplete(&self) -> i64 {
        self.in_flight.first().copied().unwrap_or(self.next)
    }

    fn completed_above(&self) -> Vec<i64> {
        (self.lowest_incomplete()..self.next).filter(|o| !self.in_flight.contains(o)).collect()
    }
}

fn both(start: i64, steps: Vec<Step>) -> (OffsetTracker, Model) {
    let (mut progress, mut model) = (tracker(start), Model { next: start, ..Model::default() });
    for step in steps {
        match step {
            Step::Fetch(there, gap) => {
                for (offset, there) in (model.next..).zip(&there) {
                    assert!(!*there || (progress.admit(offset) && model.in_flight.insert(offset)));
                }
                // Sometimes a gap over several chunks.
                model.next += there.len() as i64 + if gap < 200 { 0 } else { i64::from(gap) };
                progress.advance_to(model.next);
            }
            Step::Complete(which) if !model.in_flight.is_empty() => {
                let all: Vec<_> = model.in_flight.iter().copied().collect();
                let offset = *which.get(&all);
                model.in_flight.remove(&offset);
                progress.complete(offset);
            }
            Step::Complete(_) => {}
        }
        assert_eq!(progress.lowest_incomplete(), model.lowest_incomplete());
    }
    (progress, model)
}

proptest! {
    #[test]
    fn tracker_follows_the_model_and_metadata_round_trips(start in 0_i64..1000, steps in steps()) {
        let (progress, model) = both(start, steps);
        prop_assert_eq!(completed_above(&progress), model.completed_above());
        let Some(metadata) = progress.encode(EPOCH) else {
            prop_assert!(model.completed_above().is_empty());
            return Ok(());
        };
        prop_assert!(metadata.len() <= MAX_METADATA_BYTES);
        prop_assert_eq!(decode(&metadata, model.lowest_incomplete()), Some(model.completed_above()));

        let earlier = CompletedOffsets::decode(&metadata, model.lowest_incomplete(), EPOCH).unwrap();
        let mut next = OffsetTracker::new(model.lowest_incomplete(), earlier);
        let again: Vec<_> = (model.lowest_incomplete()..model.next).filter(|o| next.admit(*o)).collect();
        prop_assert_eq!(&again, &model.in_flight.iter().copied().collect::<Vec<_>>());
        again.into_iter().rev().for_each(|offset| next.complete(offset));
        prop_assert_eq!(next.lowest_incomplete(), model.next);
    }

    #[test]
    fn truncated_or_corrupt_metadata_is_rejected(steps in steps(), at: prop::sample::Index, bit in 0_u8..8) {
        let (progress, model) = both(0, steps);
        let Some(metadata) = progress.encode(EPOCH) else { return Ok(()) };
        let at = at.index(metadata.len());
        prop_assert_eq!(decode(&metadata[..at], model.lowest_incomplete()), None);
        let mut flipped = metadata.into_bytes();
        flipped[at] ^= 1 << bit;
        prop_assert_eq!(decode(&String::from_utf8_lossy(&flipped), model.lowest_incomplete()), None);
    }

    #[test]
    fn any_text_is_rejected(text in "[A-Za-z0-9_-]{0,200}") {
        prop_assert_eq!(CompletedOffsets::decode(&text, 0, 0), None);
    }
}

#[test]
fn metadata_of_a_transaction_has_its_number_and_all_completed_records() {
    let mut progress = with_in_flight(100, (100..110).filter(|o| *o != 104), 110);
    [101, 105].into_iter().for_each(|offset| progress.complete(offset));
    let text = |number| progress.encode_transaction(EPOCH, number).into_text();
    assert_ne!(text(1), text(2));
    assert_eq!(decode(&text(1), 100), Some(vec![101, 104, 105]));
    assert_eq!(decode(&text(1), 101), None, "of another offset");
    let none = with_in_flight(100, [100, 102], 103);
    assert_eq!(decode(&none.encode_transaction(EPOCH, 1).into_text(), 100), Some(vec![]), "no record is at 101");
}

#[test]
fn what_a_previous_owner_completed_stays_in_the_metadata_of_transactions() {
    let mut first = with_in_flight(0, 0..10, 10);
    [2, 3, 5, 8].into_iter().for_each(|offset| first.complete(offset));
    let metadata = first.encode_transaction(EPOCH, 1).into_text();
    let mut next = OffsetTracker::new(0, CompletedOffsets::decode(&metadata, 0, EPOCH).unwrap());
    for offset in 0..10 {
        assert_eq!(next.admit(offset), ![2, 3, 5, 8].contains(&offset));
        let again = next.encode_transaction(EPOCH, 2).into_text();
        assert_eq!(decode(&again, 0), Some(vec![2, 3, 5, 8]), "when {offset} has arrived");
    }
}
