//! Sequences, epochs and producer ids: what is sent after a failure, and with which numbers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use uuid::Uuid;

use super::tests::{ME, MS, TIMEOUT, TOPIC, TestBed, config, record, values, written};
use super::*;
use crate::producer::batch::RetryPayload;
use crate::producer::delivery::AppendInfo;

/// Three batches of one partition in flight, after a first one that was acknowledged; values "1",
/// "2" and "3".
fn three_in_flight() -> (TestBed, Vec<DrainedBatch>) {
    let mut b = TestBed::new(config(), &[Some(1)]);
    b.put(0, "0");
    let first = b.drain(1).remove(0);
    b.put(0, "1"); // waits, so that the partition does not come to rest
    b.core.flush(b.now);
    b.complete(first.id, written(0));
    let mut sent = b.drain(1);
    for value in ["2", "3"] {
        b.put(0, value);
        b.core.flush(b.now);
        sent.extend(b.drain(1));
    }
    assert_eq!(sent.iter().map(|s| s.producer.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    (b, sent)
}

fn retry_payload(code: i16, payload: Payload) -> RetryPayload {
    let payload = payload.encode(Compression::None, ProducerSequence::NONE).0;
    RetryPayload { error: Error::broker(code, "produce"), payload, backoff: 100 * MS }
}

/// Sends and acknowledges all batches; returns value, epoch and sequence of each.
fn acknowledge_all(b: &mut TestBed) -> Vec<(String, i16, i32)> {
    let mut sent = Vec::new();
    loop {
        b.now += 100 * MS;
        let drained = b.drain(1);
        if drained.is_empty() {
            return sent;
        }
        for d in drained {
            let (epoch, sequence) = (d.producer.epoch, d.producer.sequence);
            sent.push((values(d.payload).remove(0), epoch, sequence));
            b.complete(d.id, written(10));
        }
    }
}

#[test]
fn first_batch_is_sent_alone_then_five_at_a_time() {
    let mut b = TestBed::new(config(), &[Some(1)]);
    for value in ["0", "1", "2", "3", "4", "5", "6", "7"] {
        b.put(0, value);
        b.core.flush(b.now);
    }
    let mut first = b.drain(1);
    assert_eq!(first.len(), 1);
    assert!(b.drain(1).is_empty());
    b.complete(first.remove(0).id, written(0));
    let sent: Vec<_> = std::iter::from_fn(|| b.drain(1).pop()).map(|d| d.producer.sequence).collect();
    assert_eq!(sent, [1, 2, 3, 4, 5]);
}

#[test]
fn first_batch_after_a_pause_is_sent_alone() {
    let mut b = TestBed::new(config(), &[Some(1)]);
    b.put(0, "0");
    let first = b.drain(1).remove(0);
    b.complete(first.id, written(0));
    for value in ["1", "2"] {
        b.put(0, value);
        b.core.flush(b.now);
    }
    let sent = b.drain(1).remove(0);
    assert_eq!(sent.producer.sequence, 1);
    assert!(b.drain(1).is_empty());
    b.complete(sent.id, written(1));
    assert_eq!(b.drain(1).remove(0).producer.sequence, 2);
}

#[test]
fn nothing_is_sent_before_a_producer_id_is_assigned() {
    let mut core = Accumulator::new(config(), 7);
    let now = Instant::now();
    core.update_topic(now, &TOPIC.into(), None, Some(&[Some(1)]));
    let (completion, _) = core.append(|| now, &record(PartitionChoice::Sticky, b"a")).unwrap();
    assert!(core.needs_producer_id() && core.drain(|| now, 1).0.is_empty());
    assert!(core.set_producer_id_error(Error::broker(14, "requesting"), false).is_empty());
    let (finished, _) = core.expire(now + TIMEOUT);
    assert!(finished[0].result.as_ref().unwrap_err().full().contains("CoordinatorLoadInProgress"));
    drop(completion);

    core.append(|| now, &record(PartitionChoice::Sticky, b"b")).unwrap();
    let refused = core.set_producer_id_error(Error::broker(31, "requesting"), true);
    assert_eq!(refused[0].result.as_ref().unwrap_err().kind(), ErrorKind::Authorization);

    core.append(|| now, &record(PartitionChoice::Sticky, b"c")).unwrap();
    core.take_wakeups();
    core.set_producer_id(ME);
    assert_eq!(core.take_wakeups().collect::<Vec<_>>(), [1]);
    let sent = core.drain(|| now, 1).0.remove(0);
    assert_eq!(sent.producer, ProducerSequence { id: 7, epoch: 0, sequence: 0, is_transactional: false });
}

#[test]
fn batches_behind_a_failed_one_are_retried_with_their_sequences() {
    let (mut b, sent) = three_in_flight();
    b.put(0, "4");
    b.core.flush(b.now);
    let [one, two, three] = <[DrainedBatch; 3]>::try_from(sent).unwrap();
    b.complete(one.id, SendOutcome::Retry { retry: retry_payload(6, one.payload), maybe_written: true });
    b.now += 200 * MS;
    assert_eq!(b.drain(1).len(), 0, "two are still in flight");
    b.complete(three.id, SendOutcome::OutOfSequence(retry_payload(45, three.payload)));
    b.complete(two.id, SendOutcome::OutOfSequence(retry_payload(45, two.payload)));
    let want = [("1", 1), ("2", 2), ("3", 3), ("4", 4)].map(|(value, sequence)| (value.to_owned(), 0, sequence));
    assert_eq!(acknowledge_all(&mut b), want);
}

#[test]
fn a_gap_raises_the_epoch_and_drops_maybe_written_batches() {
    let (mut b, sent) = three_in_flight();
    let [one, two, three] = <[DrainedBatch; 3]>::try_from(sent).unwrap();
    b.complete(one.id, SendOutcome::Failed(Error::broker(87, "produce")));
    b.complete(two.id, SendOutcome::Retry { retry: retry_payload(7, two.payload), maybe_written: true });
    b.complete(three.id, SendOutcome::OutOfSequence(retry_payload(45, three.payload)));
    assert_eq!(b.error(1).kind(), ErrorKind::InvalidRecord);
    assert_eq!(b.error(2).kind(), ErrorKind::Indeterminate);
    assert_eq!(acknowledge_all(&mut b), [("3".to_owned(), 1, 0)]);
    b.put(0, "4");
    assert_eq!(acknowledge_all(&mut b), [("4".to_owned(), 1, 1)]);
    assert_eq!(b.freed_bytes, b.buffered_bytes);
}

#[test]
fn a_forgotten_producer_retries_in_a_new_epoch() {
    for code in [45, 59] {
        let mut b = TestBed::new(config(), &[Some(1)]);
        b.put(0, "a");
        let sent = b.drain(1).remove(0);
        b.complete(sent.id, SendOutcome::OutOfSequence(retry_payload(code, sent.payload)));
        assert_eq!(acknowledge_all(&mut b), [("a".to_owned(), 1, 0)]);
    }
}

#[test]
fn a_fenced_producer_raises_its_epoch_then_changes_its_id() {
    let (mut b, sent) = three_in_flight();
    for d in sent {
        b.complete(d.id, SendOutcome::Fenced(retry_payload(90, d.payload)));
    }
    b.now += 100 * MS;
    let raised = b.drain(1).remove(0);
    assert_eq!((raised.producer.epoch, raised.producer.sequence), (1, 0));
    b.complete(raised.id, SendOutcome::Fenced(retry_payload(90, raised.payload)));
    assert!(b.core.needs_producer_id() && b.drain(1).is_empty());
    b.core.set_producer_id(ProducerIdAndEpoch { id: 8, epoch: 0 });
    assert!(!b.core.needs_producer_id());
    b.now += 100 * MS;
    assert_eq!(b.drain(1)[0].producer, ProducerSequence { id: 8, epoch: 0, sequence: 0, is_transactional: false });
}

#[test]
fn expiry_in_flight_leaves_a_gap_only_if_unwritten() {
    let (mut b, sent) = three_in_flight();
    let [one, two, three] = <[DrainedBatch; 3]>::try_from(sent).unwrap();
    b.now += TIMEOUT;
    b.expire();
    assert!((1..4).all(|i| b.error(i).kind() == ErrorKind::Indeterminate));
    b.put(0, "4");
    b.complete(one.id, written(1));
    b.complete(two.id, written(2));
    b.complete(three.id, SendOutcome::Retry { retry: retry_payload(7, three.payload), maybe_written: true });
    assert_eq!(acknowledge_all(&mut b), [("4".to_owned(), 1, 0)]);
    assert_eq!(b.freed_bytes, b.buffered_bytes);
}

#[test]
fn a_duplicate_is_acknowledged_only_on_a_retry() {
    let duplicate = || SendOutcome::Duplicate {
        info: AppendInfo { base_offset: None, append_time: None },
        error: Error::broker(46, "x"),
    };
    let mut b = TestBed::new(config(), &[Some(1)]);
    b.put(0, "a");
    let first = b.drain(1).remove(0);
    b.complete(first.id, SendOutcome::Retry { retry: retry_payload(7, first.payload), maybe_written: true });
    b.now += 100 * MS;
    let second = b.drain(1).remove(0);
    assert_eq!(second.producer, first.producer);
    b.complete(second.id, duplicate());
    assert_eq!(b.result(0).unwrap().unwrap().offset, None);

    b.put(0, "b");
    let sent = b.drain(1).remove(0);
    b.complete(sent.id, duplicate());
    assert_eq!(b.error(1).kind(), ErrorKind::Indeterminate, "it was sent once: the broker's batch is another");
}

#[test]
fn a_too_large_batch_is_split_and_later_ones_are_smaller() {
    let mut b = TestBed::new(config(), &[Some(1)]);
    for n in 0..4 {
        b.put(0, &format!("{n:0100}"));
    }
    let whole = b.drain(1).remove(0);
    b.put(0, "behind");
    let error = || Error::broker(10, "produce");
    let cut = |payload: Payload| {
        let bytes = payload.encode(Compression::None, ProducerSequence::NONE).0;
        crate::record::split_in_half(&bytes, Compression::None, 1 << 20)
    };
    b.complete(whole.id, SendOutcome::TooLarge { error: error(), halves: cut(whole.payload) });
    let head = b.drain(1).remove(0);
    assert_eq!((head.producer.sequence, head.records), (0, 2));
    b.complete(head.id, written(50));
    let tail = b.drain(1).remove(0);
    assert_eq!((tail.producer.sequence, tail.records), (2, 2));
    b.complete(tail.id, SendOutcome::TooLarge { error: error(), halves: cut(tail.payload) });
    let third = b.drain(1).remove(0);
    let halves = cut(third.payload);
    assert!(halves.is_none());
    b.complete(third.id, SendOutcome::TooLarge { error: error(), halves });
    assert_eq!((b.result(0).unwrap().unwrap().offset, b.result(1).unwrap().unwrap().offset), (Some(50), Some(51)));
    assert_eq!(b.error(2).kind(), ErrorKind::RecordTooLarge);
    assert!(b.result(3).is_none());
    let sent: Vec<_> =
        acknowledge_all(&mut b).into_iter().map(|(v, ..)| v.trim_start_matches('0').to_owned()).collect();
    assert_eq!(sent, ["3", "behind"]);
    assert_eq!(b.freed_bytes, b.buffered_bytes);
}

#[test]
fn sequences_wrap_to_zero() {
    let last = ProducerSequence { id: 1, epoch: 0, sequence: i32::MAX, is_transactional: false };
    assert_eq!(last.skip(1).sequence, 0);
    assert_eq!(last.skip(5).sequence, 4);
    assert_eq!(ProducerSequence { sequence: i32::MAX - 2, ..last }.skip(2).sequence, i32::MAX);
}

#[test]
fn a_recreated_topic_starts_a_new_epoch() {
    let (mut b, sent) = three_in_flight();
    let ids = [Uuid::from_u128(1), Uuid::from_u128(2)];
    b.core.update_topic(b.now, &TOPIC.into(), Some(ids[0]), Some(&[Some(1)]));
    b.core.update_topic(b.now, &TOPIC.into(), Some(ids[1]), Some(&[Some(1)]));
    b.put(0, "4");
    for d in sent {
        b.complete(d.id, written(0));
    }
    assert_eq!(acknowledge_all(&mut b), [("4".to_owned(), 1, 0)]);
}

#[test]
fn a_forgotten_topic_is_looked_up_again_and_keeps_sequences() {
    let mut b = TestBed::new(config(), &[Some(1)]);
    b.put(0, "a");
    assert!(!b.core.forget_topic(TOPIC), "a record of it waits");
    let sent = b.drain(1).remove(0);
    assert!(!b.core.forget_topic(TOPIC), "it is in flight");
    b.complete(sent.id, written(0));
    assert!(b.core.forget_topic(TOPIC));
    let now = b.now;
    assert_eq!(
        b.core.append(|| now, &record(PartitionChoice::Partition(0), b"b")).err(),
        Some(AppendError::UnknownTopic)
    );
    assert!(b.core.topic_names().is_empty());
    b.core.update_topic(now, &TOPIC.into(), None, Some(&[Some(1)]));
    b.put(0, "b");
    assert_eq!(b.drain(1).remove(0).producer.sequence, 1, "its broker knows the one before");
}
