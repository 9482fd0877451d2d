//! Batches of transactions: what waits for the coordinator, and what a failure ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::tests::{ME, MS, TIMEOUT, TestBed, config, values, written};
use super::*;
use crate::producer::batch::RetryPayload;
use crate::record::TopicPartition;

fn bed(leaders_add: bool) -> TestBed {
    let mut bed = TestBed::new(AccumulatorConfig { transactional: true, ..config() }, &[Some(1); 3]);
    bed.core.begin_transaction(leaders_add);
    bed
}

fn partition(n: i32) -> TopicPartition {
    TopicPartition::new("t", n)
}

fn retry(code: i16, batch: DrainedBatch) -> RetryPayload {
    let payload = batch.payload.encode(Compression::None, batch.producer).0;
    RetryPayload { error: Error::broker(code, "produce"), payload, backoff: 100 * MS }
}

#[test]
fn a_partition_waits_until_the_coordinator_has_added_it() {
    let mut b = bed(false);
    b.put(0, "a");
    b.put(2, "b");
    b.put(2, "c");
    assert!(b.core.take_transaction_change());
    assert_eq!(b.core.take_partitions_to_add(), [partition(0), partition(2)]);
    assert!(b.core.take_partitions_to_add().is_empty(), "once");
    assert!(b.drain(1).is_empty());
    b.core.on_partitions_added(&[partition(2)]);
    let sent = b.drain(1).remove(0);
    assert_eq!((sent.partition, sent.producer.is_transactional, sent.producer.sequence), (2, true, 0));
    assert!(b.drain(1).is_empty());
    b.core.on_partitions_added(&[partition(0)]);
    assert_eq!(b.drain(1).remove(0).partition, 0);
}

#[test]
fn leaders_that_add_their_partitions_get_batches_at_once() {
    let mut b = bed(true);
    b.put(0, "a");
    let sent = b.drain(1).remove(0);
    assert!(b.core.take_partitions_to_add().is_empty() && b.core.has_used_partitions());
    assert!(b.core.has_unfinished_batches());
    b.complete(sent.id, written(0));
    assert!(!b.core.has_unfinished_batches() && b.core.transaction_failure().is_none());
}

#[test]
fn sequences_go_on_in_the_next_transaction_and_start_over_with_a_new_epoch() {
    let mut b = bed(true);
    let send = |b: &mut TestBed| {
        b.put(0, "a");
        let sent = b.drain(1).remove(0);
        b.complete(sent.id, written(0));
        (sent.producer.epoch, sent.producer.sequence)
    };
    assert_eq!(send(&mut b), (0, 0));
    b.core.begin_transaction(true);
    assert_eq!(send(&mut b), (0, 1));
    b.core.set_producer_id(ProducerIdAndEpoch { epoch: 1, ..ME });
    b.core.begin_transaction(true);
    assert_eq!(send(&mut b), (1, 0));
}

#[test]
fn a_partition_must_be_added_to_each_transaction() {
    let mut b = bed(false);
    for _ in 0..2 {
        b.put(0, "a");
        assert!(b.drain(1).is_empty());
        assert_eq!(b.core.take_partitions_to_add(), [partition(0)]);
        b.core.on_partitions_added(&[partition(0)]);
        let sent = b.drain(1).remove(0);
        b.complete(sent.id, written(0));
        b.core.begin_transaction(false);
    }
}

#[test]
fn the_first_failure_fails_what_is_pending_and_refuses_more() {
    let mut b = bed(true);
    b.put(0, "a");
    let first = b.drain(1).remove(0);
    b.put(1, "b");
    let second = b.drain(1).remove(0);
    b.put(2, "pending");
    b.complete(first.id, SendOutcome::Failed(Error::broker(87, "produce")));
    let failure = b.core.transaction_failure().unwrap();
    assert!(failure.needs_epoch && failure.error.broker_code() == Some(87));
    assert_eq!(b.error(2).kind(), ErrorKind::TransactionAborted);
    let record = super::tests::record(PartitionChoice::Partition(0), b"more");
    assert_eq!(b.core.append(|| b.now, &record).unwrap_err(), AppendError::TransactionFailed);
    assert!(b.core.has_unfinished_batches(), "one is in flight");
    let id = second.id;
    b.complete(id, SendOutcome::Retry { retry: retry(7, second), maybe_written: true });
    assert_eq!(b.error(1).kind(), ErrorKind::TransactionAborted, "it is not retried");
    assert!(!b.core.has_unfinished_batches() && b.drain(1).is_empty());
}

#[test]
fn no_epoch_is_raised_by_a_partition_on_its_own() {
    for (code, fenced) in [(45, false), (59, false), (47, true), (90, true)] {
        let mut b = bed(true);
        b.put(0, "a");
        let sent = b.drain(1).remove(0);
        let id = sent.id;
        let outcome =
            if fenced { SendOutcome::Fenced(retry(code, sent)) } else { SendOutcome::OutOfSequence(retry(code, sent)) };
        b.complete(id, outcome);
        assert_eq!(b.error(0).broker_code(), Some(code));
        let failure = b.core.transaction_failure().unwrap();
        assert!(failure.needs_epoch && failure.error.broker_code() == Some(code));
        b.now += 1000 * MS;
        assert!(b.drain(1).is_empty(), "{code}");
        b.core.set_producer_id(ProducerIdAndEpoch { epoch: 1, ..ME });
        b.core.begin_transaction(true);
        b.put(0, "b");
        let sent = b.drain(1).remove(0);
        assert_eq!((sent.producer.epoch, sent.producer.sequence), (1, 0));
        assert_eq!(values(sent.payload), ["b"]);
    }
}

#[test]
fn a_batch_that_expires_in_flight_needs_a_new_epoch_and_one_that_was_not_sent_does_not() {
    let mut b = bed(true);
    b.put(0, "sent");
    let sent = b.drain(1).remove(0);
    b.now += TIMEOUT;
    b.expire();
    assert!(b.core.transaction_failure().unwrap().needs_epoch);
    assert!(b.core.has_unfinished_batches(), "its request is in flight");
    let id = sent.id;
    b.complete(id, SendOutcome::Retry { retry: retry(7, sent), maybe_written: true });
    assert!(!b.core.has_unfinished_batches());

    let mut b = bed(false);
    b.put(0, "waits for the coordinator");
    b.now += TIMEOUT;
    b.expire();
    assert!(!b.core.transaction_failure().unwrap().needs_epoch);
}

#[test]
fn an_abort_keeps_what_is_in_flight_until_its_response() {
    let mut b = bed(true);
    b.put(0, "sent");
    let sent = b.drain(1).remove(0);
    b.put(0, "pending");
    let failed = b.core.fail_transaction(Error::new(ErrorKind::TransactionAborted, "aborted"));
    b.finish(failed);
    assert_eq!(b.error(1).kind(), ErrorKind::TransactionAborted);
    assert!(b.core.has_unfinished_batches());
    b.complete(sent.id, written(3));
    assert!(!b.core.has_unfinished_batches() && b.result(0).unwrap().is_ok());
    assert!(!b.core.transaction_failure().unwrap().needs_epoch);
}
