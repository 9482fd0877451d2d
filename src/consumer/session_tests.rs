#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::consumer::lease::Lease;

fn ask(partition: i32, offset: i64) -> Ask<FetchFrom> {
    let lease = Lease { partition: TopicPartition::new("t", partition), epoch: 1 };
    Ask { lease, version: 0, leader_epoch: 3, what: FetchFrom { offset, max_bytes: 1000 } }
}

fn some(offset: i64) -> Vec<Ask<FetchFrom>> {
    (0..20).map(|p| ask(p, offset)).collect()
}

fn shape(s: &Shape<'_>) -> (i32, i32, Vec<i32>, Vec<i32>) {
    let mut forgotten: Vec<_> = s.forgotten.iter().map(|p| p.partition).collect();
    forgotten.sort_unstable();
    (s.id, s.epoch, s.named.iter().map(|a| a.lease.partition.partition).collect(), forgotten)
}

#[test]
fn only_what_has_changed_is_named() {
    let mut s = Session::default();
    let mut asks = some(5);
    assert_eq!(shape(&s.request(&asks)), (0, 0, (0..20).collect(), vec![]));
    assert!(s.answered(0, 77));
    assert_eq!(shape(&s.request(&asks)), (77, 1, vec![], vec![]));
    assert!(s.answered(0, 77));
    asks[3].what.offset = 9;
    asks[4].leader_epoch = 4;
    asks.remove(7);
    asks.push(ask(30, 0));
    assert_eq!(shape(&s.request(&asks)), (77, 2, vec![3, 4, 30], vec![7]));
    assert!(s.answered(0, 77));
    asks[0].version = 1; // sought: the broker is to tell its end again
    assert_eq!(shape(&s.request(&asks)).1, BEGIN);
    assert!(s.answered(0, 78));
    assert_eq!(shape(&s.request(&asks[..5])), (78, NONE, vec![0, 1, 2, 3, 4], vec![]), "too few to be worth it");
    assert!(s.answered(0, 0));
    assert_eq!(shape(&s.request(&asks)).0, 0);
}

#[test]
fn a_session_that_is_lost_begins_anew() {
    let asks = some(5);
    for (code, id) in [(FETCH_SESSION_ID_NOT_FOUND, 0), (INVALID_FETCH_SESSION_EPOCH, 77)] {
        let mut s = Session::default();
        s.request(&asks);
        s.answered(0, 77);
        s.request(&asks);
        assert!(!s.answered(code, 0));
        assert_eq!(shape(&s.request(&asks)), (id, BEGIN, (0..20).collect(), vec![]));
    }
    let mut s = Session::default();
    s.request(&asks);
    assert!(s.answered(0, 0), "the broker has no room for a session");
    assert_eq!(shape(&s.request(&asks)), (0, BEGIN, (0..20).collect(), vec![]));
    s.answered(0, 77);
    s.request(&asks);
    s.failed(); // no answer came: the broker may have served it
    assert_eq!(shape(&s.request(&asks)), (77, BEGIN, (0..20).collect(), vec![]));
}

proptest! {
    /// A broker that goes by the protocol fetches exactly what was meant, whatever is asked and whatever gets lost.
    #[test]
    fn the_broker_fetches_what_is_asked_for(
        rounds in proptest::collection::vec((proptest::collection::vec((0..40, 0..3_i64, 0..20_u64), 0..40), 0..6), 1..20),
    ) {
        let mut session = Session::default();
        let (mut id, mut epoch, mut remembered) = (0, 0, BTreeMap::new());
        for (asks, fate) in rounds {
            let asks: BTreeMap<i32, _> = asks.into_iter().map(|(p, offset, version)| {
                (p, Ask { version: u64::from(version == 0), ..ask(p, offset) })
            }).collect();
            let wanted: BTreeMap<_, _> = asks.iter().map(|(p, a)| (*p, a.what.offset)).collect();
            let asks: Vec<_> = asks.into_values().collect();
            let shape = session.request(&asks);
            let named = shape.named.iter().map(|a| (a.lease.partition.partition, a.what.offset));
            if shape.epoch <= BEGIN {
                remembered = named.collect();
                (id, epoch) = if shape.epoch == BEGIN { (id + 1, 0) } else { (id, NONE) };
            } else if (shape.id, shape.epoch) != (id, epoch) {
                prop_assert!(!session.answered(INVALID_FETCH_SESSION_EPOCH, 0));
                continue;
            } else {
                remembered.extend(named);
                shape.forgotten.iter().for_each(|p| _ = remembered.remove(&p.partition));
            }
            prop_assert_eq!(&remembered, &wanted);
            let told = if epoch == NONE { 0 } else { id };
            epoch = if epoch == NONE { NONE } else { epoch + 1 };
            match fate {
                0 => session.failed(), // its answer is lost
                1 => {
                    epoch = NONE; // and the session is evicted
                    session.answered(0, told);
                }
                _ => prop_assert!(session.answered(0, told)),
            }
        }
    }
}
