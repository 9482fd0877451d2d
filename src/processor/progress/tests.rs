#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const EPOCH: i32 = 7;

fn from(base: i64) -> Progress {
    Progress::new(base, Ended::default())
}

/// With these in hand, of those below `next`.
fn holding(base: i64, in_flight: impl IntoIterator<Item = i64>, next: i64) -> Progress {
    let mut progress = from(base);
    in_flight.into_iter().for_each(|offset| assert!(progress.fetched(offset)));
    progress.through(next);
    progress
}

fn ended_above(progress: &Progress) -> Vec<i64> {
    progress.ended_above().flatten().collect()
}

fn decode(metadata: &str, base: i64) -> Option<Vec<i64>> {
    Some(Ended::decode(metadata, base, EPOCH)?.ranges.into_iter().flatten().collect())
}

#[test]
fn the_base_is_the_lowest_that_has_not_ended() {
    let mut progress = holding(10, 10..14, 14);
    assert_eq!(progress.base(), 10);
    progress.ended(12);
    progress.ended(11);
    assert_eq!((progress.base(), ended_above(&progress)), (10, vec![11, 12]));
    progress.ended(10);
    assert_eq!((progress.base(), ended_above(&progress)), (13, vec![]));
    progress.ended(13);
    assert_eq!(progress.base(), 14);
    progress.ended(13);
    progress.ended(99);
    assert_eq!(progress.base(), 14, "what is not in hand changes nothing");
}

#[test]
fn offsets_without_a_record_have_ended_whatever_their_number() {
    let far = 1_i64 << 50;
    let mut progress = holding(0, [5, far], far + 10);
    assert_eq!(progress.base(), 5);
    progress.ended(far);
    assert!(progress.in_flight.len() < 3, "a gap takes no room");
    let metadata = progress.encode(EPOCH).unwrap();
    assert_eq!(Ended::decode(&metadata, 5, EPOCH).unwrap().ranges.front(), Some(&(6..far + 10)));
    progress.ended(5);
    assert_eq!(progress.base(), far + 10);
    assert_eq!(progress.encode(EPOCH), None, "there is nothing to tell");
}

#[test]
fn a_record_is_handed_out_once() {
    let mut progress = holding(0, 0..3, 3);
    assert!(!progress.fetched(2), "it is in hand");
    progress.ended(0);
    assert!(!progress.fetched(0), "it has ended");
}

#[test]
fn the_next_owner_handles_what_has_not_ended_and_nothing_else() {
    let mut progress = holding(100, 100..110, 110);
    [101, 102, 105, 109].into_iter().for_each(|offset| progress.ended(offset));
    let metadata = progress.encode(EPOCH).unwrap();
    let earlier = || Ended::decode(&metadata, 100, EPOCH).unwrap();

    let mut next = Progress::new(100, earlier());
    assert_eq!((next.base(), ended_above(&next)), (100, vec![101, 102, 105, 109]));
    // It commits before it has seen all of them again.
    assert_eq!((100..104).filter(|o| next.fetched(*o)).collect::<Vec<_>>(), [100, 103]);
    next.ended(100);
    assert_eq!((next.base(), ended_above(&next)), (103, vec![105, 109]));
    next.ended(103);
    assert_eq!((next.base(), ended_above(&next)), (104, vec![105, 109]));
    assert_eq!((104..112).filter(|o| next.fetched(*o)).collect::<Vec<_>>(), [104, 106, 107, 108, 110, 111]);

    // Those that follow at once need not be seen to be committed.
    let mut next = Progress::new(100, earlier());
    assert!(next.fetched(100));
    next.ended(100);
    assert_eq!((next.base(), ended_above(&next)), (103, vec![105, 109]));
}

#[test]
fn records_of_a_later_leader_are_others() {
    let mut progress = holding(0, 0..10, 10);
    progress.ended(4);
    progress.ended(8);
    let metadata = progress.encode(EPOCH).unwrap();
    let mut next = Progress::new(0, Ended::decode(&metadata, 0, EPOCH).unwrap());
    next.led(EPOCH);
    assert_eq!((0..6).filter(|o| next.fetched(*o)).collect::<Vec<_>>(), [0, 1, 2, 3, 5]);
    next.led(EPOCH + 1);
    assert!((6..10).all(|o| next.fetched(o)));
}

#[test]
fn metadata_counts_only_for_what_it_was_committed_with() {
    let mut progress = holding(100, 100..110, 110);
    progress.ended(105);
    let metadata = progress.encode(EPOCH).unwrap();
    assert_eq!(decode(&metadata, 100), Some(vec![105]));
    assert_eq!(Ended::decode(&metadata, 99, EPOCH), None);
    assert_eq!(Ended::decode(&metadata, 100, EPOCH + 1), None);
    assert_eq!(Ended::decode(&metadata, 100, -1), None);
    let sentence = "what a program of someone else's has to say";
    for foreign in ["", " ", "NO_METADATA", "{\"at\":100}", "AQ", sentence, &"A".repeat(5000)] {
        assert_eq!(Ended::decode(foreign, 100, EPOCH), None, "{foreign}");
    }
}

#[test]
fn lengths_that_cannot_be_are_refused_under_a_right_checksum() {
    for runs in [&[-1, 5][..], &[5, -1], &[5], &[i64::MAX, 1], &[1, i64::MAX]] {
        let mut out = vec![VERSION];
        put_varlong(&mut out, 100);
        put_varlong(&mut out, i64::from(EPOCH));
        runs.iter().for_each(|len| put_varlong(&mut out, *len));
        out.extend(crc32c::crc32c(&out).to_be_bytes());
        assert_eq!(decode(&URL_SAFE_NO_PAD.encode(out), 100), None, "{runs:?}");
    }
}

#[test]
fn metadata_have_a_bound_and_tell_the_lowest() {
    const MANY: i64 = 200_000;
    let mut progress = holding(0, 0..MANY, MANY);
    (1..MANY).step_by(2).for_each(|offset| progress.ended(offset));
    let metadata = progress.encode(EPOCH).unwrap();
    assert!(metadata.len() <= LIMIT && metadata.len() > LIMIT - 16, "{}", metadata.len());
    let told = decode(&metadata, 0).unwrap();
    assert_eq!(told, (0..told.len() as i64).map(|i| 2 * i + 1).collect::<Vec<_>>());
    assert!(told.len() > 500);
}

/// Steps of a partition's handling: a fetch of so many offsets, of which some have a record; or the end of one in hand.
#[derive(Debug, Clone)]
enum Step {
    Fetch(Vec<bool>, u8),
    End(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fetch = (prop::collection::vec(prop::bool::weighted(0.8), 0..90), any::<u8>());
    let step = prop_oneof![1 => fetch.prop_map(|(r, gap)| Step::Fetch(r, gap)), 20 => any::<prop::sample::Index>().prop_map(Step::End)];
    prop::collection::vec(step, 0..300)
}

/// The same, simply: what is in hand, and behind what was fetched.
#[derive(Debug, Default)]
struct Model {
    in_flight: BTreeSet<i64>,
    next: i64,
}

impl Model {
    fn base(&self) -> i64 {
        self.in_flight.first().copied().unwrap_or(self.next)
    }

    fn ended_above(&self) -> Vec<i64> {
        (self.base()..self.next).filter(|o| !self.in_flight.contains(o)).collect()
    }
}

fn both(start: i64, steps: Vec<Step>) -> (Progress, Model) {
    let (mut progress, mut model) = (from(start), Model { next: start, ..Model::default() });
    for step in steps {
        match step {
            Step::Fetch(there, gap) => {
                for (offset, there) in (model.next..).zip(&there) {
                    assert!(!*there || (progress.fetched(offset) && model.in_flight.insert(offset)));
                }
                // Now and then a gap over several chunks.
                model.next += there.len() as i64 + if gap < 200 { 0 } else { i64::from(gap) };
                progress.through(model.next);
            }
            Step::End(which) if !model.in_flight.is_empty() => {
                let all: Vec<_> = model.in_flight.iter().copied().collect();
                let offset = *which.get(&all);
                model.in_flight.remove(&offset);
                progress.ended(offset);
            }
            Step::End(_) => {}
        }
        assert_eq!(progress.base(), model.base());
    }
    (progress, model)
}

proptest! {
    #[test]
    fn it_is_as_the_model_has_it_and_comes_back_from_its_metadata(start in 0_i64..1000, steps in steps()) {
        let (progress, model) = both(start, steps);
        prop_assert_eq!(ended_above(&progress), model.ended_above());
        let Some(metadata) = progress.encode(EPOCH) else {
            prop_assert!(model.ended_above().is_empty());
            return Ok(());
        };
        prop_assert!(metadata.len() <= LIMIT);
        prop_assert_eq!(decode(&metadata, model.base()), Some(model.ended_above()));

        let earlier = Ended::decode(&metadata, model.base(), EPOCH).unwrap();
        let mut next = Progress::new(model.base(), earlier);
        let again: Vec<_> = (model.base()..model.next).filter(|o| next.fetched(*o)).collect();
        prop_assert_eq!(&again, &model.in_flight.iter().copied().collect::<Vec<_>>());
        again.into_iter().rev().for_each(|offset| next.ended(offset));
        prop_assert_eq!(next.base(), model.next);
    }

    #[test]
    fn what_is_cut_or_flipped_is_refused(steps in steps(), at: prop::sample::Index, bit in 0_u8..8) {
        let (progress, model) = both(0, steps);
        let Some(metadata) = progress.encode(EPOCH) else { return Ok(()) };
        let at = at.index(metadata.len());
        prop_assert_eq!(decode(&metadata[..at], model.base()), None);
        let mut flipped = metadata.into_bytes();
        flipped[at] ^= 1 << bit;
        prop_assert_eq!(decode(&String::from_utf8_lossy(&flipped), model.base()), None);
    }

    #[test]
    fn any_text_is_looked_at_without_harm(text in "[A-Za-z0-9_-]{0,200}") {
        prop_assert_eq!(Ended::decode(&text, 0, 0), None);
    }
}
