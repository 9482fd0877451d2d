#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use futures_util::FutureExt;

use super::*;
use crate::error::ErrorKind;
use crate::producer::batch::RetryPayload;
use crate::producer::delivery::{Acknowledgement, AppendInfo, Delivery};
use crate::record::{decode_batches, record_size_bound};

pub(super) const ME: ProducerIdAndEpoch = ProducerIdAndEpoch { id: 7, epoch: 0 };
pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const TOPIC: &str = "t";
pub(super) const TIMEOUT: Duration = Duration::from_secs(120);

pub(super) fn config() -> AccumulatorConfig {
    AccumulatorConfig {
        linger: Duration::ZERO,
        idempotence: true,
        transactional: false,
        batch_size: 1000,
        max_request_size: 2500,
        pool_limit: 1 << 20,
        delivery_timeout: TIMEOUT,
        missing_timeout: Duration::from_secs(30),
        adaptive_partitioning: true,
        partition_availability_timeout: Duration::ZERO,
    }
}

/// Returns a record of the topic with this value.
pub(super) fn record<'a>(target: PartitionChoice, value: &'a [u8]) -> NewRecord<'a> {
    NewRecord {
        topic: TOPIC,
        target,
        timestamp: 1,
        key: None,
        value: Some(value),
        headers: None,
        compression: Compression::None,
        size: record_size_bound(None, Some(value), None),
    }
}

/// An accumulator with its clock and the deliveries of its records.
pub(super) struct TestBed {
    pub(super) core: Accumulator,
    pub(super) now: Instant,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) freed_bytes: usize,
    pub(super) buffered_bytes: usize,
}

impl TestBed {
    pub(super) fn new(config: AccumulatorConfig, leaders: &[Option<i32>]) -> Self {
        let mut core = Accumulator::new(config, 7);
        let now = Instant::now();
        core.set_producer_id(ME);
        core.update_topic(now, &TOPIC.into(), None, Some(leaders));
        Self { core, now, deliveries: Vec::new(), freed_bytes: 0, buffered_bytes: 0 }
    }

    pub(super) fn append(&mut self, record: &NewRecord<'_>) -> i32 {
        let (completion, index) = self.core.append(|| self.now, record).unwrap();
        self.buffered_bytes += record.size;
        let partition = completion.partition;
        self.deliveries.push(Delivery::new(completion, index, record.timestamp));
        partition
    }

    pub(super) fn put(&mut self, partition: i32, value: &str) {
        assert_eq!(self.append(&record(PartitionChoice::Partition(partition), value.as_bytes())), partition);
    }

    pub(super) fn drain(&mut self, broker: i32) -> Vec<DrainedBatch> {
        let now = self.now;
        self.core.drain(|| now, broker).0
    }

    pub(super) fn complete(&mut self, id: BatchId, outcome: SendOutcome) {
        let mut finished = Vec::new();
        self.core.complete(self.now, id, outcome, &mut finished);
        self.finish(finished);
    }

    pub(super) fn finish(&mut self, finished: impl IntoIterator<Item = FinishedBatch>) {
        for batch in finished {
            self.freed_bytes += batch.freed_bytes;
            batch.completion.resolve(batch.first_record, batch.records, batch.result);
        }
    }

    pub(super) fn expire(&mut self) -> Instant {
        let (finished, next) = self.core.expire(self.now);
        self.finish(finished);
        next
    }

    fn wakes(&mut self) -> Vec<i32> {
        self.core.take_wakeups().collect()
    }

    /// Returns the result of a record, if there is one.
    pub(super) fn result(&mut self, record: usize) -> Option<crate::Result<Acknowledgement>> {
        (&mut self.deliveries[record]).now_or_never()
    }

    pub(super) fn error(&mut self, record: usize) -> Error {
        self.result(record).expect("it has a result").unwrap_err()
    }
}

pub(in crate::producer) fn values(payload: Payload) -> Vec<String> {
    let bytes = payload.encode(Compression::None, ProducerSequence::NONE).0;
    let batch = decode_batches(bytes, 1 << 20).next().unwrap().unwrap();
    let text = |r: crate::Record| String::from_utf8(r.value.unwrap().to_vec()).unwrap();
    batch.records().unwrap().map(|r| text(r.unwrap())).collect()
}

pub(super) fn written(base_offset: i64) -> SendOutcome {
    SendOutcome::Written(AppendInfo { base_offset: Some(base_offset), append_time: None })
}

fn retry(payload: Payload, maybe_written: bool) -> SendOutcome {
    let error = Error::broker(6, "produce");
    let payload = payload.encode(Compression::None, ProducerSequence::NONE).0;
    SendOutcome::Retry { retry: RetryPayload { error, payload, backoff: 100 * MS }, maybe_written }
}

#[test]
fn without_linger_records_are_batched_while_one_is_in_flight() {
    let mut b = TestBed::new(config(), &[Some(1)]);
    b.put(0, "a");
    assert_eq!(b.wakes(), [1]);
    let mut first = b.drain(1);
    b.put(0, "b");
    b.put(0, "c");
    assert!(b.drain(1).is_empty(), "they make a batch while one is in flight");
    assert!(b.wakes().is_empty(), "and nobody is woken for it");
    b.complete(first[0].id, written(10));
    assert_eq!(b.wakes(), [1]);
    let second = b.drain(1).remove(0);
    let id = second.id;
    assert_eq!(values(first.remove(0).payload), ["a"]);
    assert_eq!(values(second.payload), ["b", "c"]);
    b.complete(id, written(11));
    let offsets: Vec<_> = (0..3).map(|i| b.result(i).unwrap().unwrap().offset.unwrap()).collect();
    assert_eq!(offsets, [10, 11, 12]);
    assert_eq!(b.freed_bytes, b.buffered_bytes);
}

#[test]
fn a_batch_lingers_until_it_is_due_or_full() {
    let mut b = TestBed::new(AccumulatorConfig { linger: 5 * MS, ..config() }, &[Some(1)]);
    b.put(0, "a");
    assert_eq!(b.wakes(), [1], "so that the sender sets its timer");
    let now = b.now;
    let (none, next) = b.core.drain(|| now, 1);
    assert!(none.is_empty());
    assert_eq!(next, Some(b.now + 5 * MS));
    b.now += 5 * MS;
    let first = b.drain(1).remove(0);
    b.complete(first.id, written(0));

    b.wakes();
    b.put(0, &"x".repeat(600));
    assert!(b.drain(1).is_empty());
    b.wakes();
    b.put(0, &"y".repeat(600));
    assert_eq!(b.wakes(), [1], "the first one is full");
    assert_eq!(b.drain(1).len(), 1);
}

#[test]
fn many_small_batches_or_a_full_one_make_a_large_request() {
    let mut b = TestBed::new(AccumulatorConfig { linger: 5 * MS, ..config() }, &[Some(1), Some(1), Some(1), Some(2)]);
    let half = config().max_request_size / 2;
    let at = |b: &mut TestBed| {
        let now = b.now;
        b.core.large_request_at(|| now, 1)
    };
    assert_eq!(at(&mut b), None, "nothing waits");
    b.put(0, "a");
    assert_eq!(at(&mut b), None);
    b.put(3, &"x".repeat(half));
    assert_eq!(at(&mut b), None, "that goes to another broker");
    b.put(1, &"y".repeat(half / 2));
    assert_eq!(at(&mut b), None);
    b.put(2, &"z".repeat(half / 2));
    assert_eq!(at(&mut b), Some(b.now + 5 * MS), "when all have lingered");
    b.now += 5 * MS;
    assert_eq!(at(&mut b), Some(b.now));
    b.drain(1);
    assert_eq!(at(&mut b), None, "all is in flight");
}

#[test]
fn flush_ends_linger_and_returns_unfinished_batches() {
    let mut b = TestBed::new(AccumulatorConfig { linger: 1000 * MS, ..config() }, &[Some(1), Some(1), Some(2)]);
    b.put(0, "a");
    b.now += 1000 * MS;
    assert_eq!(b.drain(1).len(), 1);
    b.put(1, "b");
    b.put(2, "c");
    b.wakes();
    assert_eq!(b.core.flush(b.now).len(), 3);
    let mut wakes = b.wakes();
    wakes.sort_unstable();
    assert_eq!(wakes, [1, 2]);
    assert_eq!((b.drain(1).len(), b.drain(2).len()), (1, 1));
}

#[test]
fn another_codec_closes_the_batch() {
    let mut b = TestBed::new(config(), &[Some(1)]);
    b.put(0, "plain");
    b.append(&NewRecord {
        compression: Compression::Gzip { level: 3 },
        ..record(PartitionChoice::Partition(0), b"packed")
    });
    b.put(0, "plain again");
    for (codec, value) in
        [(Compression::None, "plain"), (Compression::Gzip { level: 3 }, "packed"), (Compression::None, "plain again")]
    {
        let batch = b.drain(1).remove(0);
        assert_eq!(batch.compression, codec);
        assert_eq!(values(batch.payload), [value]);
        b.complete(batch.id, written(0));
    }
}

#[test]
fn requests_are_bounded_and_partitions_take_turns() {
    let mut b = TestBed::new(config(), &[Some(1); 5]);
    for p in 0..5 {
        b.put(p, &"x".repeat(900));
    }
    let sent = |b: &mut TestBed| -> Vec<i32> { b.drain(1).iter().map(|d| d.partition).collect() };
    assert_eq!(sent(&mut b), [0, 1]);
    assert_eq!(sent(&mut b), [2, 3]);
    assert_eq!(sent(&mut b), [4]);
    assert!(sent(&mut b).is_empty());
}

#[test]
fn a_record_larger_than_a_batch_gets_its_own() {
    let mut b = TestBed::new(config(), &[Some(1)]);
    b.put(0, "a");
    b.put(0, &"x".repeat(5000));
    b.put(0, "b");
    for n in [1, 5000, 1] {
        let batch = b.drain(1).remove(0);
        let values = values(batch.payload);
        assert_eq!((values.len(), values[0].len()), (1, n));
        b.complete(batch.id, written(0));
    }
}

#[test]
fn a_retry_backs_off_and_keeps_its_place() {
    let mut b = TestBed::new(config(), &[Some(1)]);
    b.put(0, "a");
    let first = b.drain(1).remove(0);
    b.put(0, "b");
    b.complete(first.id, retry(first.payload, false));
    let now = b.now;
    let (none, next) = b.core.drain(|| now, 1);
    assert!(none.is_empty());
    assert_eq!(next, Some(b.now + 100 * MS));
    b.now += 100 * MS;
    let again = b.drain(1).remove(0);
    assert_eq!(again.attempts, 1);
    assert_eq!(values(again.payload), ["a"]);
    b.complete(again.id, written(0));
    assert_eq!(values(b.drain(1).remove(0).payload), ["b"]);
}

#[test]
fn batches_move_to_a_new_leader_without_backoff() {
    let mut b = TestBed::new(config(), &[Some(1)]);
    b.put(0, "a");
    let first = b.drain(1).remove(0);
    b.complete(first.id, retry(first.payload, false));
    b.wakes();
    b.core.update_topic(b.now, &TOPIC.into(), None, Some(&[Some(2)]));
    assert_eq!(b.wakes(), [2]);
    assert!(b.drain(1).is_empty() && !b.core.has_pending(1));
    assert_eq!(values(b.drain(2).remove(0).payload), ["a"]);

    // While it is with the old leader, the partition waits; then it goes to the new one.
    let mut b = TestBed::new(config(), &[Some(1)]);
    b.put(0, "a");
    let first = b.drain(1).remove(0);
    b.core.update_topic(b.now, &TOPIC.into(), None, Some(&[None]));
    b.complete(first.id, retry(first.payload, false));
    assert!(b.core.has_pending(NO_LEADER) && !b.core.has_pending(1));
    b.core.update_topic(b.now, &TOPIC.into(), None, Some(&[Some(3)]));
    assert_eq!(b.core.leaders_with_pending(), [3]);
    assert_eq!(b.drain(3).len(), 1);
}

#[test]
fn an_error_fails_a_batch_and_not_the_next() {
    let mut b = TestBed::new(config(), &[Some(1)]);
    b.put(0, "a");
    let first = b.drain(1).remove(0);
    b.put(0, "b");
    b.complete(first.id, SendOutcome::Failed(Error::broker(10, "produce")));
    assert_eq!(b.error(0).kind(), ErrorKind::RecordTooLarge);
    let second = b.drain(1).remove(0);
    b.complete(second.id, written(5));
    assert_eq!(b.result(1).unwrap().unwrap().offset, Some(5));
    assert_eq!(b.freed_bytes, b.buffered_bytes);
}

#[test]
fn an_unsent_batch_expires_as_not_written_with_its_cause() {
    let mut b = TestBed::new(config(), &[Some(1)]);
    b.put(0, "a");
    b.core.set_leader_error(1, Some(Error::new(ErrorKind::Connect, "localhost:1: refused")));
    assert_eq!(b.expire(), b.now + TIMEOUT);
    b.now += TIMEOUT - MS;
    b.expire();
    assert!(b.result(0).is_none());
    b.now += MS;
    b.expire();
    let error = b.error(0);
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.full().contains("not written") && error.full().contains("localhost:1: refused"), "{error:?}");
    assert!(!b.core.has_pending(1));
    assert_eq!(b.freed_bytes, b.buffered_bytes);
}

#[test]
fn a_batch_without_leader_expires_with_that_cause() {
    let mut b = TestBed::new(config(), &[Some(1), Some(1)]);
    b.put(1, "a");
    // Its topic is recreated, with fewer partitions.
    b.core.update_topic(b.now, &TOPIC.into(), None, Some(&[Some(1)]));
    b.now += TIMEOUT;
    b.expire();
    let error = b.error(0);
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.full().contains("not written") && error.full().contains("has had no leader"), "{error:?}");
    assert_eq!(b.freed_bytes, b.buffered_bytes);
}

#[test]
fn expiry_in_flight_is_indeterminate_and_frees_on_response() {
    let mut b = TestBed::new(config(), &[Some(1)]);
    b.put(0, "sent");
    let sent = b.drain(1).remove(0);
    b.put(0, "behind it");
    b.now += TIMEOUT;
    b.expire();
    let error = b.error(0);
    assert_eq!(error.kind(), ErrorKind::Indeterminate);
    assert!(b.error(1).to_string().contains("not written"));
    assert!(b.freed_bytes < b.buffered_bytes);
    b.put(0, "later");
    assert!(b.drain(1).is_empty(), "the order holds even now");
    b.complete(sent.id, retry(sent.payload, true));
    assert_eq!(values(b.drain(1).remove(0).payload), ["later"], "an expired batch is not retried");
}

#[test]
fn expiry_and_late_response_have_one_result_in_either_order() {
    let mut b = TestBed::new(config(), &[Some(1)]);
    b.put(0, "a");
    let sent = b.drain(1).remove(0);
    b.now += TIMEOUT;
    let (expired_late, _) = b.core.expire(b.now);
    b.complete(sent.id, retry(sent.payload, true));
    assert_eq!(b.error(0).kind(), ErrorKind::Indeterminate);
    b.finish(expired_late);
}

#[test]
fn an_attempt_without_response_leaves_it_indeterminate() {
    let mut b = TestBed::new(config(), &[Some(1)]);
    b.put(0, "a");
    let first = b.drain(1).remove(0);
    b.complete(first.id, retry(first.payload, true));
    b.now += 100 * MS;
    let second = b.drain(1).remove(0);
    b.complete(second.id, retry(second.payload, false));
    b.now += TIMEOUT;
    b.expire();
    let error = b.error(0);
    assert_eq!(error.kind(), ErrorKind::Indeterminate);
    assert!(error.full().contains("2 failed attempts") && error.full().contains("NotLeader"), "{error:?}");
}

#[test]
fn a_missing_topic_rejects_records_and_fails_pending_ones() {
    let mut b = TestBed::new(config(), &[Some(1)]);
    b.put(0, "a");
    b.core.update_topic(b.now, &TOPIC.into(), None, None);
    assert_eq!(b.core.append(|| b.now, &record(PartitionChoice::Sticky, b"b")).unwrap_err(), AppendError::UnknownTopic);
    assert!(b.drain(1).is_empty());
    assert_eq!(b.expire(), b.now + Duration::from_secs(30));
    b.now += Duration::from_secs(20);
    b.core.update_topic(b.now, &TOPIC.into(), None, None);
    b.now += Duration::from_secs(10);
    b.expire();
    let error = b.error(0);
    assert_eq!(error.kind(), ErrorKind::UnknownTopic);
    assert!(error.to_string().contains("30.0s"), "{error}");

    // Created again in time, it goes on.
    let mut b = TestBed::new(config(), &[Some(1)]);
    b.put(0, "a");
    b.core.update_topic(b.now, &TOPIC.into(), None, None);
    b.core.update_topic(b.now, &TOPIC.into(), None, Some(&[Some(2)]));
    b.put(0, "b");
    assert_eq!(values(b.drain(2).remove(0).payload), ["a", "b"]);
}

#[test]
fn a_growing_topic_uses_its_new_partitions() {
    let mut b = TestBed::new(config(), &[Some(1), Some(1)]);
    let key = PartitionChoice::KeyHash(5);
    assert_eq!(b.append(&record(key, b"a")), 1);
    let refused = b.core.append(|| b.now, &record(PartitionChoice::Partition(2), b"x")).unwrap_err();
    assert_eq!(refused, AppendError::NoSuchPartition { partition: 2, count: 2 });
    assert!(b.core.append(|| b.now, &record(PartitionChoice::Partition(-1), b"x")).is_err());
    b.core.update_topic(b.now, &TOPIC.into(), None, Some(&[Some(1); 3]));
    assert_eq!(b.append(&record(key, b"b")), 2);
    assert_eq!(b.drain(1).len(), 2, "what was there before goes where it was meant to");
}

#[test]
fn abort_fails_every_record_as_written_or_not() {
    let mut b = TestBed::new(config(), &[Some(1)]);
    b.put(0, "sent");
    let sent = b.drain(1).remove(0);
    b.put(0, "waiting");
    let finished = b.core.abort("the producer was closed");
    b.finish(finished);
    assert!(b.error(0).to_string().contains("may be in the log"));
    assert!(b.error(1).to_string().contains("not written"));
    assert_eq!([0, 1].map(|i| b.error(i).kind()), [ErrorKind::Indeterminate, ErrorKind::Closed]);
    b.complete(sent.id, written(0));
    assert_eq!(b.freed_bytes, b.buffered_bytes);
}

#[test]
fn the_slot_of_a_deleted_topic_is_reused() {
    let mut b = TestBed::new(config(), &[Some(1)]);
    let now = b.now;
    b.core.update_topic(now, &TOPIC.into(), None, None);
    assert!(b.core.forget_topic(TOPIC));
    b.core.update_topic(now, &"another".into(), None, Some(&[Some(1)]));
    b.core.update_topic(now, &TOPIC.into(), None, Some(&[Some(1)]));
    assert_eq!(b.core.topics.len(), 2);
    b.put(0, "a");
    assert_eq!(&*b.drain(1).remove(0).topic, TOPIC);
}

#[test]
fn pooled_buffers_go_to_batches_near_their_size() {
    let config = AccumulatorConfig { batch_size: 1 << 20, max_request_size: 2 << 20, ..config() };
    let mut bed = TestBed::new(config, &[Some(1); 3]);
    let pooled = |bed: &TestBed| bed.core.pooled_buffers.len();
    bed.core.recycle_buffer(Vec::with_capacity(MIN_POOLED_BYTES - 1));
    assert_eq!(pooled(&bed), 0, "small ones are freed");
    bed.core.recycle_buffer(Vec::with_capacity(1 << 20));
    bed.put(0, "tiny");
    bed.put(1, &"x".repeat(MIN_POOLED_BYTES));
    assert_eq!(pooled(&bed), 1, "a large one is not for small batches");
    bed.put(2, &"x".repeat(MIN_GROWING_BYTES));
    assert_eq!((pooled(&bed), bed.core.pooled_bytes), (0, 0));
    bed.core.recycle_buffer(Vec::with_capacity(MIN_POOLED_BYTES));
    assert_eq!((pooled(&bed), bed.core.pooled_bytes), (1, MIN_POOLED_BYTES));
}
