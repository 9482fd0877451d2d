#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use ailurus_test_support::raw_client::batch::{BatchBuilder, write_checksum};
use bytes::BytesMut;

use super::*;

fn append(log: &mut Log, builder: &BatchBuilder) -> Result<i64, ResponseError> {
    log.append(validate(&builder.make(), true)?, 0)
}

/// Batches with offsets 0-2 and 3-4, and timestamps 10, 30, 20 and 40, 50.
fn log() -> Log {
    let mut log = Log::default();
    assert_eq!(append(&mut log, &BatchBuilder::new(&[10, 30, 20])), Ok(0));
    assert_eq!(append(&mut log, &BatchBuilder::new(&[40, 50]).gzip()), Ok(3));
    log
}

fn offsets(log: &Log) -> Vec<i64> {
    log.batches()
        .flat_map(|b| {
            let base = b.header.base_offset;
            b.records().unwrap().unwrap().map(move |r| base + i64::from(r.unwrap().offset_delta))
        })
        .collect()
}

#[test]
fn consecutive_offsets_are_written_into_batches() {
    let log = log();
    assert_eq!((log.start(), log.end()), (0, 5));
    let bases: Vec<i64> = log.batches().map(|b| Header::read(&b.data).unwrap().base_offset).collect();
    assert_eq!(bases, [0, 3]);
    assert!(log.batches().all(|b| b.header.is_intact(&b.data)));
}

#[test]
fn invalid_batches_are_rejected() {
    let good = BatchBuilder::new(&[1, 2]).make();
    let error_of = |batch: &[u8]| validate(&Bytes::copy_from_slice(batch), true).map(|_| ()).unwrap_err();
    assert_eq!(error_of(&[]), ResponseError::InvalidRecord);
    assert_eq!(error_of(&good[..40]), ResponseError::CorruptMessage);
    assert_eq!(error_of(&[&good[..], &good[..]].concat()), ResponseError::InvalidRecord);
    let mut flipped = BytesMut::from(&good[..]);
    flipped[70] ^= 1;
    assert_eq!(error_of(&flipped), ResponseError::CorruptMessage);
    let mut miscounted = BytesMut::from(&good[..]);
    miscounted[60] = 3; // the count
    miscounted[26] = 2; // the last offset delta
    write_checksum(&mut miscounted);
    assert_eq!(error_of(&miscounted), ResponseError::InvalidRecord);
    assert!(validate(&miscounted.clone().freeze(), false).is_ok(), "without looking at the records");
    assert_eq!(error_of(&BatchBuilder::new(&[1]).control().make()), ResponseError::InvalidRecord);
}

#[test]
fn duplicate_batch_is_acknowledged_but_not_appended() {
    let mut log = Log::default();
    let batch = |check_sequence| BatchBuilder::new(&[1, 2]).by(7, 0, check_sequence);
    for n in 0..5 {
        assert_eq!(append(&mut log, &batch(2 * n)), Ok(i64::from(2 * n)));
    }
    for n in 0..5 {
        assert_eq!(append(&mut log, &batch(2 * n)), Ok(i64::from(2 * n)));
    }
    assert_eq!(log.end(), 10);
    assert_eq!(append(&mut log, &batch(10)), Ok(10));
    assert_eq!(append(&mut log, &batch(0)), Err(ResponseError::OutOfOrderSequenceNumber), "too long ago");
}

#[test]
fn sequences_must_be_consecutive() {
    let mut log = Log::default();
    let batch = |epoch, check_sequence| BatchBuilder::new(&[1, 2]).by(7, epoch, check_sequence);
    assert_eq!(append(&mut log, &batch(1, 100)), Ok(0), "an unknown producer may begin anywhere");
    assert_eq!(append(&mut log, &batch(1, 104)), Err(ResponseError::OutOfOrderSequenceNumber));
    assert_eq!(append(&mut log, &batch(0, 102)), Err(ResponseError::InvalidProducerEpoch));
    assert_eq!(append(&mut log, &batch(2, 102)), Err(ResponseError::OutOfOrderSequenceNumber));
    assert_eq!(append(&mut log, &batch(2, 0)), Ok(2));
    assert_eq!(append(&mut log, &batch(1, 102)), Err(ResponseError::InvalidProducerEpoch));
}

#[test]
fn sequences_wrap_around() {
    let mut log = Log::default();
    let batch = |check_sequence| BatchBuilder::new(&[1, 2]).by(7, 0, check_sequence);
    assert_eq!(append(&mut log, &batch(i32::MAX)), Ok(0));
    assert_eq!(append(&mut log, &batch(1)), Ok(2));
}

#[test]
fn read_starts_at_the_batch_with_the_offset() {
    let log = log();
    let sizes: Vec<usize> = log.batches().map(|b| b.data.len()).collect();
    let read = |from, max, first, allow_partial| {
        log.read(from, i64::MAX, max, first, allow_partial).map(|b| b.iter().map(Bytes::len).collect::<Vec<_>>())
    };
    assert_eq!(read(1, 1 << 20, true, false), Ok(sizes.clone()));
    assert_eq!(read(3, 1 << 20, true, false), Ok(vec![sizes[1]]));
    assert_eq!(read(5, 1 << 20, true, false), Ok(vec![]));
    assert_eq!(read(0, 1, true, false), Ok(vec![sizes[0]]), "at least one batch");
    assert_eq!(read(0, 1, false, false), Ok(vec![]));
    assert_eq!(read(0, sizes[0] + 7, true, false), Ok(vec![sizes[0]]));
    assert_eq!(read(0, sizes[0] + 7, true, true), Ok(vec![sizes[0], 7]), "cut as Kafka cuts");
    assert_eq!(read(6, 1, true, false), Err(ResponseError::OffsetOutOfRange));
    assert_eq!(read(-1, 1, true, false), Err(ResponseError::OffsetOutOfRange));
}

#[test]
fn offset_for_timestamp_is_the_first_at_or_after_it() {
    let log = log();
    let cases = [(0, (0, 10)), (10, (0, 10)), (11, (1, 30)), (31, (3, 40)), (41, (4, 50))];
    for (timestamp, found) in cases {
        assert_eq!(log.offset_for(timestamp), Some(found), "time {timestamp}");
    }
    assert_eq!(log.offset_for(51), None);
    assert_eq!(log.offset_of_max_timestamp(), Some((4, 50)));
}

#[test]
fn deleted_records_are_not_found() {
    let mut log = log();
    log.delete_before(2).unwrap();
    assert_eq!((log.start(), log.batches().count()), (2, 2));
    assert_eq!(log.offset_for(0), Some((2, 20)));
    assert_eq!(log.read(1, 9, 1, true, false), Err(ResponseError::OffsetOutOfRange));
    log.delete_before(3).unwrap();
    assert_eq!((log.start(), log.batches().count()), (3, 1));
    assert_eq!(log.delete_before(6), Err(ResponseError::OffsetOutOfRange));
    log.delete_before(1).unwrap();
    assert_eq!(log.start(), 3, "never backwards");
}

#[test]
fn retention_drops_the_oldest_batches_but_never_the_newest() {
    let mut log = log();
    log.retain_bytes(1 << 20);
    assert_eq!(log.start(), 0);
    log.retain_bytes(1);
    assert_eq!((log.start(), offsets(&log)), (3, vec![3, 4]));
}

#[test]
fn compaction_leaves_gaps_and_an_empty_batch_at_the_end() {
    let mut log = log();
    append(&mut log, &BatchBuilder::new(&[60])).unwrap();
    log.compact(|offset| offset == 1).unwrap();
    assert_eq!((log.end(), offsets(&log)), (6, vec![1]));
    let shape: Vec<_> = log.batches().map(|b| (b.header.base_offset, b.last_offset(), b.header.count)).collect();
    assert_eq!(shape, [(0, 2, 1), (5, 5, 0)]);
    assert!(log.batches().all(|b| b.header.is_intact(&b.data)));
}

#[test]
fn waiter_is_registered_and_woken_once() {
    let mut log = Log::default();
    let waiter = Arc::new(Notify::new());
    log.notify_on_change(&waiter);
    log.notify_on_change(&waiter);
    log.notify_on_change(&Arc::new(Notify::new()));
    assert_eq!(log.waiters.len(), 2);
    append(&mut log, &BatchBuilder::new(&[1])).unwrap();
    assert!(log.waiters.is_empty());
}

#[test]
fn transactions_end_at_their_marker() {
    let mut log = Log::default();
    let write = |log: &mut Log, producer| {
        let mut batch = BytesMut::from(&BatchBuilder::new(&[1, 2]).make()[..]);
        batch::make_transactional(&mut batch, producer).unwrap();
        assert!(Header::read(&batch).unwrap().is_intact(&batch));
        log.append_raw(batch, 0).unwrap()
    };
    let end = |log: &mut Log, producer, commit| {
        let marker = EndMarker {
            producer_id: producer,
            producer_epoch: 0,
            coordinator_epoch: 0,
            commit,
            has_new_epoch: false,
            timestamp: 9,
        };
        log.append_raw(batch::control(&marker), 0).unwrap()
    };
    let stable = |log: &Log| log.last_stable_offset();
    assert_eq!((write(&mut log, 7), stable(&log)), (0, 0));
    assert_eq!((write(&mut log, 8), stable(&log)), (2, 0));
    assert_eq!((end(&mut log, 7, false), stable(&log)), (4, 2));
    write(&mut log, 7);
    assert_eq!((end(&mut log, 8, true), end(&mut log, 7, false), stable(&log)), (7, 8, 9));
    end(&mut log, 9, false); // of no transaction
    let listed = |log: &Log, from, to| {
        log.aborted(from, to).iter().map(|a| (a.producer_id, a.first_offset, a.last_offset)).collect::<Vec<_>>()
    };
    assert_eq!(listed(&log, 0, 10), [(7, 0, 4), (7, 5, 8)]);
    assert_eq!(listed(&log, 5, 10), [(7, 5, 8)]);
    assert_eq!(listed(&log, 0, 5), [(7, 0, 4)]);
    log.truncate(8);
    assert_eq!((log.end(), stable(&log)), (8, 5), "its marker is truncated");
    assert_eq!(listed(&log, 0, 10), [(7, 0, 4)]);
}

/// A marker of producer 7, as its coordinator writes it.
fn marker(epoch: i16, coordinator_epoch: i32, has_new_epoch: bool) -> EndMarker {
    EndMarker { producer_id: 7, producer_epoch: epoch, coordinator_epoch, commit: true, has_new_epoch, timestamp: 9 }
}

#[test]
fn sequences_restart_only_after_a_marker_with_a_new_epoch() {
    for (marker_epoch, next) in [(0, 2), (1, 0)] {
        let mut log = Log::default();
        let batch = |epoch, sequence| BatchBuilder::new(&[1, 2]).by(7, epoch, sequence).transactional();
        assert_eq!(append(&mut log, &batch(0, 0)), Ok(0));
        assert!(log.has_open_transaction(7, 0) && !log.has_open_transaction(7, 1));
        let plain = BatchBuilder::new(&[1]).by(7, 0, 2);
        assert_eq!(append(&mut log, &plain), Err(ResponseError::InvalidTxnState), "outside the open transaction");
        assert_eq!(log.append_marker(&marker(marker_epoch, 0, marker_epoch > 0), 0), Ok(2));
        assert!(!log.has_open_transaction(7, marker_epoch));
        assert_eq!(append(&mut log, &batch(marker_epoch, next + 1)), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(append(&mut log, &batch(marker_epoch, next)), Ok(3));
        if marker_epoch > 0 {
            assert_eq!(append(&mut log, &batch(0, 2)), Err(ResponseError::InvalidProducerEpoch), "too late");
        }
    }
}

#[test]
fn markers_of_older_epochs_are_rejected() {
    let mut log = Log::default();
    assert_eq!(append(&mut log, &BatchBuilder::new(&[1]).by(7, 3, 0).transactional()), Ok(0));
    let mut write = |epoch, coordinator, is_new| log.append_marker(&marker(epoch, coordinator, is_new), 0);
    assert_eq!(write(2, 0, false), Err(ResponseError::InvalidProducerEpoch));
    assert_eq!(write(3, 0, true), Err(ResponseError::InvalidProducerEpoch), "of batches of the transaction");
    assert_eq!(write(3, 5, false), Ok(1));
    assert_eq!(write(3, 4, false), Err(ResponseError::TransactionCoordinatorFenced));
    assert_eq!(write(4, 5, true), Ok(2));
}
