#![allow(clippy::unwrap_used)]

use super::hanging::{Coordinators, still_open};
use super::producers::open_transactions;
use super::*;
use crate::record::TopicPartition;

fn producer(producer_id: i64, transaction_start_offset: Option<i64>) -> ProducerState {
    ProducerState {
        producer_id,
        producer_epoch: 3,
        last_sequence: 0,
        last_timestamp: Timestamp::from_millis(1000),
        coordinator_epoch: None,
        transaction_start_offset,
    }
}

fn open(producer_id: i64, start_offset: i64) -> OpenTransaction {
    let producers = [producer(producer_id, Some(start_offset))];
    open_transactions(&TopicPartition::new("t", 0), &producers).remove(0)
}

/// Coordinators that know one transactional id, with an open transaction in these partitions.
fn coordinators(producer_id: i64, partitions: &[i32]) -> Coordinators {
    let listed = TransactionListing {
        transactional_id: "billing".into(),
        producer_id,
        state: TransactionState::Ongoing,
        coordinator: 1,
    };
    let described = TransactionDescription {
        transactional_id: "billing".into(),
        coordinator: 1,
        producer_id,
        producer_epoch: 3,
        state: TransactionState::Ongoing,
        timeout: Duration::from_secs(60),
        start_time: Some(Timestamp::from_millis(1000)),
        partitions: BTreeMap::from([("t".to_owned(), partitions.to_vec())]),
    };
    Coordinators {
        by_producer_id: BTreeMap::from([(producer_id, listed)]),
        by_transactional_id: BTreeMap::from([("billing".to_owned(), described)]),
    }
}

#[test]
fn a_transaction_that_its_coordinator_has_does_not_hang() {
    assert_eq!(coordinators(7, &[0, 2]).hanging(open(7, 5)), None);
}

#[test]
fn a_transaction_of_an_unknown_producer_id_hangs() {
    let found = coordinators(7, &[0]).hanging(open(8, 5)).unwrap();
    assert_eq!((found.transaction.producer_id, found.transactional_id.as_deref()), (8, None));
    assert!(found.to_string().contains("producer id 8, which no coordinator knows"), "{found}");
}

#[test]
fn a_transaction_hangs_in_a_partition_its_coordinator_lacks() {
    let found = coordinators(7, &[1, 2]).hanging(open(7, 5)).unwrap();
    assert_eq!(found.transactional_id.as_deref(), Some("billing"));
    assert!(found.to_string().contains("\"billing\", whose transaction does not have"), "{found}");
}

#[test]
fn an_id_that_expired_before_it_was_described_is_unknown() {
    let mut known = coordinators(7, &[0]);
    known.by_transactional_id.clear();
    assert_eq!(known.hanging(open(7, 5)).unwrap().transactional_id, None);
}

#[test]
fn a_transaction_that_ended_meanwhile_does_not_hang() {
    let suspect = coordinators(7, &[]).hanging(open(7, 5)).unwrap();
    let suspects = std::slice::from_ref(&suspect);
    assert_eq!(still_open(suspects, &[]), []);
    assert_eq!(still_open(suspects, &[open(7, 9)]), [], "the producer's next transaction");
    assert_eq!(still_open(suspects, &[open(8, 5)]), [], "another producer's");
    assert_eq!(still_open(suspects, &[open(8, 2), open(7, 5)]), suspects);
}

#[test]
fn the_first_open_transaction_holds_the_last_stable_offset() {
    let at = TopicPartition::new("t", 0);
    let producers = [producer(1, Some(9)), producer(2, None), producer(3, Some(4))];
    let offsets: Vec<_> = open_transactions(&at, &producers).iter().map(|t| t.start_offset).collect();
    assert_eq!(offsets, [4, 9]);
}

#[test]
fn the_age_filter_is_sent_only_to_a_broker_that_has_it() {
    let filter = TransactionFilter::default().older_than(Duration::from_secs(5)).producer_id(7).state("Ongoing");
    let request = |by_age| list_request(&filter, by_age);
    assert_eq!((request(true).duration_filter, request(false).duration_filter), (5000, -1));
    assert_eq!(request(false).producer_id_filters, [ProducerId(7)]);
    assert_eq!(list_request(&TransactionFilter::default(), true).duration_filter, -1, "no filter");
}
