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
const TIMEOUT: Duration = Duration::from_secs(120);

pub(super) fn config() -> AccumulatorConfig {
    AccumulatorConfig {
        linger: Duration::ZERO,
        idempotence: true,
        batch_size: 1000,
        max_request_size: 2500,
        spare_memory: 1 << 20,
        delivery_timeout: TIMEOUT,
        missing_timeout: Duration::from_secs(30),
        adaptive_partitioning: true,
        partition_availability_timeout: Duration::ZERO,
    }
}

/// A record of one partition of the topic, with some text as its value.
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

/// An accumulator with its clock and the handles it gave.
pub(super) struct Bench {
    pub(super) core: Accumulator,
    pub(super) now: Instant,
    pub(super) handles: Vec<Delivery>,
    pub(super) freed_bytes: usize,
    pub(super) buffered_bytes: usize,
}

impl Bench {
    pub(super) fn new(config: AccumulatorConfig, leaders: &[Option<i32>]) -> Self {
        let mut core = Accumulator::new(config, 7);
        let now = Instant::now();
        core.set_producer_id(ME);
        core.update_topic(now, &TOPIC.into(), None, Some(leaders));
        Self { core, now, handles: Vec::new(), freed_bytes: 0, buffered_bytes: 0 }
    }

    pub(super) fn append(&mut self, record: &NewRecord<'_>) -> i32 {
        let (completion, index) = self.core.append(|| self.now, record).unwrap();
        self.buffered_bytes += record.size;
        let partition = completion.partition;
        self.handles.push(Delivery::new(completion, index, record.timestamp));
        partition
    }

    fn put(&mut self, partition: i32, value: &str) {
        assert_eq!(self.append(&record(PartitionChoice::Partition(partition), value.as_bytes())), partition);
    }

    pub(super) fn drain(&mut self, broker: i32) -> Vec<DrainedBatch> {
        let now = self.now;
        self.core.drain(|| now, broker).0
    }

    pub(super) fn complete(&mut self, id: BatchId, outcome: SendOutcome) {
        let mut ended = Vec::new();
        self.core.complete(self.now, id, outcome, &mut ended);
        self.finish(ended);
    }

    pub(super) fn finish(&mut self, ended: impl IntoIterator<Item = FinishedBatch>) {
        for batch in ended {
            self.freed_bytes += batch.freed_bytes;
            batch.completion.resolve(batch.first_record, batch.records, batch.result);
        }
    }

    pub(super) fn expire(&mut self) -> Instant {
        let (ended, next) = self.core.expire(self.now);
        self.finish(ended);
        next
    }

    fn wakes(&mut self) -> Vec<i32> {
        self.core.take_wakeups().collect()
    }

    /// How a record ended, if it has.
    fn end(&mut self, record: usize) -> Option<crate::Result<Acknowledgement>> {
        (&mut self.handles[record]).now_or_never()
    }

    fn error(&mut self, record: usize) -> Error {
        self.end(record).expect("it has ended").unwrap_err()
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
fn without_linger_the_first_record_goes_at_once_and_the_next_wait_for_its_answer() {
    let mut b = Bench::new(config(), &[Some(1)]);
    b.put(0, "a");
    assert_eq!(b.wakes(), [1]);
    let mut first = b.drain(1);
    b.put(0, "b");
    b.put(0, "c");
    assert!(b.drain(1).is_empty(), "they make a batch while one is under way");
    assert!(b.wakes().is_empty(), "and nobody is woken for it");
    b.complete(first[0].id, written(10));
    assert_eq!(b.wakes(), [1]);
    let second = b.drain(1).remove(0);
    let id = second.id;
    assert_eq!(values(first.remove(0).payload), ["a"]);
    assert_eq!(values(second.payload), ["b", "c"]);
    b.complete(id, written(11));
    let offsets: Vec<_> = (0..3).map(|i| b.end(i).unwrap().unwrap().offset.unwrap()).collect();
    assert_eq!(offsets, [10, 11, 12]);
    assert_eq!(b.freed_bytes, b.buffered_bytes);
}

#[test]
fn a_batch_lingers_until_its_time_or_until_it_is_full() {
    let mut b = Bench::new(AccumulatorConfig { linger: 5 * MS, ..config() }, &[Some(1)]);
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
    let mut b = Bench::new(AccumulatorConfig { linger: 5 * MS, ..config() }, &[Some(1), Some(1), Some(1), Some(2)]);
    let half = config().max_request_size / 2;
    let at = |b: &mut Bench| {
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
    assert_eq!(at(&mut b), None, "all is under way");
}

#[test]
fn flush_ends_lingering_and_names_what_is_under_way() {
    let mut b = Bench::new(AccumulatorConfig { linger: 1000 * MS, ..config() }, &[Some(1), Some(1), Some(2)]);
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
    let mut b = Bench::new(config(), &[Some(1)]);
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
fn a_request_is_bounded_and_the_rest_comes_in_turn() {
    let mut b = Bench::new(config(), &[Some(1); 5]);
    for p in 0..5 {
        b.put(p, &"x".repeat(900));
    }
    let sent = |b: &mut Bench| -> Vec<i32> { b.drain(1).iter().map(|d| d.partition).collect() };
    assert_eq!(sent(&mut b), [0, 1]);
    assert_eq!(sent(&mut b), [2, 3]);
    assert_eq!(sent(&mut b), [4]);
    assert!(sent(&mut b).is_empty());
}

#[test]
fn a_record_larger_than_a_batch_gets_its_own() {
    let mut b = Bench::new(config(), &[Some(1)]);
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
fn a_retry_waits_and_keeps_its_place() {
    let mut b = Bench::new(config(), &[Some(1)]);
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
fn batches_follow_a_new_leader_without_waiting() {
    let mut b = Bench::new(config(), &[Some(1)]);
    b.put(0, "a");
    let first = b.drain(1).remove(0);
    b.complete(first.id, retry(first.payload, false));
    b.wakes();
    b.core.update_topic(b.now, &TOPIC.into(), None, Some(&[Some(2)]));
    assert_eq!(b.wakes(), [2]);
    assert!(b.drain(1).is_empty() && !b.core.has_pending(1));
    assert_eq!(values(b.drain(2).remove(0).payload), ["a"]);

    // While it is with the old leader, the partition waits; then it goes to the new one.
    let mut b = Bench::new(config(), &[Some(1)]);
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
fn an_error_ends_a_batch_and_not_the_next() {
    let mut b = Bench::new(config(), &[Some(1)]);
    b.put(0, "a");
    let first = b.drain(1).remove(0);
    b.put(0, "b");
    b.complete(first.id, SendOutcome::Failed(Error::broker(10, "produce")));
    assert_eq!(b.error(0).kind(), ErrorKind::RecordTooLarge);
    let second = b.drain(1).remove(0);
    b.complete(second.id, written(5));
    assert_eq!(b.end(1).unwrap().unwrap().offset, Some(5));
    assert_eq!(b.freed_bytes, b.buffered_bytes);
}

#[test]
fn what_expires_unsent_was_surely_not_written_and_says_why() {
    let mut b = Bench::new(config(), &[Some(1)]);
    b.put(0, "a");
    b.core.set_leader_error(1, Some(Error::new(ErrorKind::Connect, "localhost:1: refused")));
    assert_eq!(b.expire(), b.now + TIMEOUT);
    b.now += TIMEOUT - MS;
    b.expire();
    assert!(b.end(0).is_none());
    b.now += MS;
    b.expire();
    let error = b.error(0);
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.full().contains("not written") && error.full().contains("localhost:1: refused"), "{error:?}");
    assert!(!b.core.has_pending(1));
    assert_eq!(b.freed_bytes, b.buffered_bytes);
}

#[test]
fn what_expires_without_a_leader_says_so() {
    let mut b = Bench::new(config(), &[Some(1), Some(1)]);
    b.put(1, "a");
    // Its topic is created anew, with fewer partitions.
    b.core.update_topic(b.now, &TOPIC.into(), None, Some(&[Some(1)]));
    b.now += TIMEOUT;
    b.expire();
    let error = b.error(0);
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.full().contains("not written") && error.full().contains("has had no leader"), "{error:?}");
    assert_eq!(b.freed_bytes, b.buffered_bytes);
}

#[test]
fn what_expires_unanswered_has_an_unknown_fate_and_keeps_its_buffer_until_the_answer() {
    let mut b = Bench::new(config(), &[Some(1)]);
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
    assert_eq!(values(b.drain(1).remove(0).payload), ["later"], "what was given up is not sent again");
}

#[test]
fn what_was_given_up_has_one_fate_whoever_tells_it_first() {
    let mut b = Bench::new(config(), &[Some(1)]);
    b.put(0, "a");
    let sent = b.drain(1).remove(0);
    b.now += TIMEOUT;
    let (told_late, _) = b.core.expire(b.now);
    b.complete(sent.id, retry(sent.payload, true));
    assert!(b.error(0).to_string().contains("fate"));
    b.finish(told_late);
}

#[test]
fn an_unanswered_try_leaves_the_fate_unknown_whatever_comes_later() {
    let mut b = Bench::new(config(), &[Some(1)]);
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
    assert!(error.full().contains("2 failed tries") && error.full().contains("NotLeader"), "{error:?}");
}

#[test]
fn a_missing_topic_takes_no_records_and_fails_those_it_has() {
    let mut b = Bench::new(config(), &[Some(1)]);
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
    let mut b = Bench::new(config(), &[Some(1)]);
    b.put(0, "a");
    b.core.update_topic(b.now, &TOPIC.into(), None, None);
    b.core.update_topic(b.now, &TOPIC.into(), None, Some(&[Some(2)]));
    b.put(0, "b");
    assert_eq!(values(b.drain(2).remove(0).payload), ["a", "b"]);
}

#[test]
fn a_growing_topic_uses_its_new_partitions() {
    let mut b = Bench::new(config(), &[Some(1), Some(1)]);
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
fn abort_tells_every_record_its_fate() {
    let mut b = Bench::new(config(), &[Some(1)]);
    b.put(0, "sent");
    let sent = b.drain(1).remove(0);
    b.put(0, "waiting");
    let ended = b.core.abort("the producer was closed");
    b.finish(ended);
    assert!(b.error(0).to_string().contains("may be in the log"));
    assert!(b.error(1).to_string().contains("not written"));
    assert!((0..2).all(|i| b.error(i).kind() == ErrorKind::Closed));
    b.complete(sent.id, written(0));
    assert_eq!(b.freed_bytes, b.buffered_bytes);
}

/// Three batches of one partition under way, after a first one that was acknowledged; values "1", "2" and "3".
fn three_under_way() -> (Bench, Vec<DrainedBatch>) {
    let mut b = Bench::new(config(), &[Some(1)]);
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

/// What is sent next, one after the other and each acknowledged: value, epoch and sequence.
fn acknowledge_all(b: &mut Bench) -> Vec<(String, i16, i32)> {
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
fn the_first_batch_goes_alone_and_then_five_at_a_time() {
    let mut b = Bench::new(config(), &[Some(1)]);
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
fn the_first_batch_after_a_rest_goes_alone_for_the_broker_may_have_forgotten_the_producer() {
    let mut b = Bench::new(config(), &[Some(1)]);
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
fn nothing_is_sent_before_the_broker_has_given_an_identity() {
    let mut core = Accumulator::new(config(), 7);
    let now = Instant::now();
    core.update_topic(now, &TOPIC.into(), None, Some(&[Some(1)]));
    let (completion, _) = core.append(|| now, &record(PartitionChoice::Sticky, b"a")).unwrap();
    assert!(core.needs_producer_id() && core.drain(|| now, 1).0.is_empty());
    assert!(core.set_producer_id_error(Error::broker(14, "asking"), false).is_empty());
    let (ended, _) = core.expire(now + TIMEOUT);
    assert!(ended[0].result.as_ref().unwrap_err().full().contains("CoordinatorLoadInProgress"));
    drop(completion);

    core.append(|| now, &record(PartitionChoice::Sticky, b"b")).unwrap();
    let refused = core.set_producer_id_error(Error::broker(31, "asking"), true);
    assert_eq!(refused[0].result.as_ref().unwrap_err().kind(), ErrorKind::Authorization);

    core.append(|| now, &record(PartitionChoice::Sticky, b"c")).unwrap();
    core.take_wakeups();
    core.set_producer_id(ME);
    assert_eq!(core.take_wakeups().collect::<Vec<_>>(), [1]);
    let sent = core.drain(|| now, 1).0.remove(0);
    assert_eq!(sent.producer, ProducerSequence { id: 7, epoch: 0, sequence: 0 });
}

#[test]
fn what_was_sent_behind_a_failed_batch_follows_it_with_the_same_numbers() {
    let (mut b, sent) = three_under_way();
    b.put(0, "4");
    b.core.flush(b.now);
    let [one, two, three] = <[DrainedBatch; 3]>::try_from(sent).unwrap();
    b.complete(one.id, SendOutcome::Retry { retry: retry_payload(6, one.payload), maybe_written: true });
    b.now += 200 * MS;
    assert_eq!(b.drain(1).len(), 0, "two are still under way");
    b.complete(three.id, SendOutcome::OutOfSequence(retry_payload(45, three.payload)));
    b.complete(two.id, SendOutcome::OutOfSequence(retry_payload(45, two.payload)));
    let want = [("1", 1), ("2", 2), ("3", 3), ("4", 4)].map(|(value, sequence)| (value.to_owned(), 0, sequence));
    assert_eq!(acknowledge_all(&mut b), want);
}

#[test]
fn a_gap_raises_the_epoch_and_what_may_be_written_is_not_sent_again() {
    let (mut b, sent) = three_under_way();
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
fn a_broker_that_forgot_the_producer_gets_the_batch_under_a_new_epoch() {
    for code in [45, 59] {
        let mut b = Bench::new(config(), &[Some(1)]);
        b.put(0, "a");
        let sent = b.drain(1).remove(0);
        b.complete(sent.id, SendOutcome::OutOfSequence(retry_payload(code, sent.payload)));
        assert_eq!(acknowledge_all(&mut b), [("a".to_owned(), 1, 0)]);
    }
}

#[test]
fn a_fenced_producer_gets_another_epoch_and_then_another_identity() {
    let (mut b, sent) = three_under_way();
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
    assert_eq!(b.drain(1)[0].producer, ProducerSequence { id: 8, epoch: 0, sequence: 0 });
}

#[test]
fn a_time_that_is_over_with_the_fate_unknown_leaves_no_gap() {
    let (mut b, sent) = three_under_way();
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
fn a_repeated_batch_is_acknowledged_if_it_can_be_this_one() {
    let duplicate = || SendOutcome::Duplicate {
        written: AppendInfo { base_offset: None, append_time: None },
        error: Error::broker(46, "x"),
    };
    let mut b = Bench::new(config(), &[Some(1)]);
    b.put(0, "a");
    let first = b.drain(1).remove(0);
    b.complete(first.id, SendOutcome::Retry { retry: retry_payload(7, first.payload), maybe_written: true });
    b.now += 100 * MS;
    let second = b.drain(1).remove(0);
    assert_eq!(second.producer, first.producer);
    b.complete(second.id, duplicate());
    assert_eq!(b.end(0).unwrap().unwrap().offset, None);

    b.put(0, "b");
    let sent = b.drain(1).remove(0);
    b.complete(sent.id, duplicate());
    assert_eq!(b.error(1).kind(), ErrorKind::Indeterminate, "it was sent once: the broker's batch is another");
}

#[test]
fn a_batch_that_is_too_large_goes_on_in_halves_and_later_ones_are_smaller() {
    let mut b = Bench::new(config(), &[Some(1)]);
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
    assert_eq!((b.end(0).unwrap().unwrap().offset, b.end(1).unwrap().unwrap().offset), (Some(50), Some(51)));
    assert_eq!(b.error(2).kind(), ErrorKind::RecordTooLarge);
    assert!(b.end(3).is_none());
    let sent: Vec<_> =
        acknowledge_all(&mut b).into_iter().map(|(v, ..)| v.trim_start_matches('0').to_owned()).collect();
    assert_eq!(sent, ["3", "behind"]);
    assert_eq!(b.freed_bytes, b.buffered_bytes);
}

#[test]
fn sequence_numbers_begin_again_after_the_largest() {
    let last = ProducerSequence { id: 1, epoch: 0, sequence: i32::MAX };
    assert_eq!(last.skip(1).sequence, 0);
    assert_eq!(last.skip(5).sequence, 4);
    assert_eq!(ProducerSequence { sequence: i32::MAX - 2, ..last }.skip(2).sequence, i32::MAX);
}

#[test]
fn a_topic_that_was_made_anew_starts_a_new_epoch() {
    let (mut b, sent) = three_under_way();
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
fn a_topic_that_is_forgotten_is_looked_up_again_and_keeps_its_numbers() {
    let mut b = Bench::new(config(), &[Some(1)]);
    b.put(0, "a");
    assert!(!b.core.forget_topic(TOPIC), "a record of it waits");
    let sent = b.drain(1).remove(0);
    assert!(!b.core.forget_topic(TOPIC), "it is under way");
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

#[test]
fn the_place_of_a_topic_that_was_deleted_is_used_again() {
    let mut b = Bench::new(config(), &[Some(1)]);
    let now = b.now;
    b.core.update_topic(now, &TOPIC.into(), None, None);
    assert!(b.core.forget_topic(TOPIC));
    b.core.update_topic(now, &"another".into(), None, Some(&[Some(1)]));
    b.core.update_topic(now, &TOPIC.into(), None, Some(&[Some(1)]));
    assert_eq!(b.core.topics.len(), 2);
    b.put(0, "a");
    assert_eq!(&*b.drain(1).remove(0).topic, TOPIC);
}
