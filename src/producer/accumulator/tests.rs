#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;

use futures_util::FutureExt;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;
use crate::producer::delivery::{Acknowledgement, Delivery, Written};
use crate::record::{decode_batches, record_size_bound};

const MS: Duration = Duration::from_millis(1);
const TOPIC: &str = "t";
const TIMEOUT: Duration = Duration::from_secs(120);

fn settings() -> Settings {
    Settings {
        linger: Duration::ZERO,
        batch_size: 1000,
        max_request_size: 2500,
        delivery_timeout: TIMEOUT,
        missing_timeout: Duration::from_secs(30),
    }
}

/// A record of one partition of the topic, with some text as its value.
fn record<'a>(target: Target, value: &'a [u8]) -> NewRecord<'a> {
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
struct Bench {
    core: Accumulator,
    now: Instant,
    handles: Vec<Delivery>,
    freed: usize,
    charged: usize,
}

impl Bench {
    fn new(settings: Settings, leaders: &[Option<i32>]) -> Self {
        let mut core = Accumulator::new(settings, 7);
        let now = Instant::now();
        core.update_topic(now, &TOPIC.into(), Some(leaders));
        Self { core, now, handles: Vec::new(), freed: 0, charged: 0 }
    }

    fn append(&mut self, record: &NewRecord<'_>) -> i32 {
        let (completion, index) = self.core.append(self.now, record).unwrap();
        self.charged += record.size;
        let partition = completion.partition;
        self.handles.push(Delivery::new(completion, index, record.timestamp));
        partition
    }

    fn put(&mut self, partition: i32, value: &str) {
        assert_eq!(self.append(&record(Target::Partition(partition), value.as_bytes())), partition);
    }

    fn drain(&mut self, broker: i32) -> Vec<Drained> {
        self.core.drain(self.now, broker).0
    }

    fn complete(&mut self, id: PartitionId, outcome: Outcome) {
        let ended = self.core.complete(self.now, id, outcome);
        self.finish(ended);
    }

    fn finish(&mut self, ended: impl IntoIterator<Item = Ended>) {
        for batch in ended {
            self.freed += batch.freed;
            batch.completion.resolve(batch.result);
        }
    }

    fn expire(&mut self) -> Instant {
        let (ended, next) = self.core.expire(self.now);
        self.finish(ended);
        next
    }

    fn wakes(&mut self) -> Vec<i32> {
        self.core.take_wakes().collect()
    }

    /// How a record ended, if it has.
    fn end(&mut self, record: usize) -> Option<crate::Result<Acknowledgement>> {
        (&mut self.handles[record]).now_or_never()
    }

    fn error(&mut self, record: usize) -> Error {
        self.end(record).expect("it has ended").unwrap_err()
    }
}

fn values(payload: Payload) -> Vec<String> {
    let bytes = payload.encode(Compression::None);
    let batch = decode_batches(bytes, 1 << 20).next().unwrap().unwrap();
    let text = |r: crate::Record| String::from_utf8(r.value.unwrap().to_vec()).unwrap();
    batch.records().unwrap().map(|r| text(r.unwrap())).collect()
}

fn written(base_offset: i64) -> Outcome {
    Outcome::Written(Written { base_offset, append_time: None })
}

fn retry(payload: Payload, maybe_written: bool) -> Outcome {
    let error = Error::broker(6, "produce");
    Outcome::Retry { error, maybe_written, payload: payload.encode(Compression::None), after: 100 * MS }
}

#[test]
fn without_linger_the_first_record_goes_at_once_and_the_next_wait_for_its_answer() {
    let mut b = Bench::new(settings(), &[Some(1)]);
    b.put(0, "a");
    assert_eq!(b.wakes(), [1]);
    let mut first = b.drain(1);
    b.put(0, "b");
    b.put(0, "c");
    assert!(b.drain(1).is_empty(), "one batch of a partition at a time");
    assert!(b.wakes().is_empty(), "and nobody is woken for it");
    b.complete(first[0].id, written(10));
    assert_eq!(b.wakes(), [1]);
    let second = b.drain(1).remove(0);
    let id = second.id;
    assert_eq!(values(first.remove(0).payload), ["a"]);
    assert_eq!(values(second.payload), ["b", "c"]);
    b.complete(id, written(11));
    let offsets: Vec<_> = (0..3).map(|i| b.end(i).unwrap().unwrap().offset).collect();
    assert_eq!(offsets, [10, 11, 12]);
    assert_eq!(b.freed, b.charged);
}

#[test]
fn a_batch_lingers_until_its_time_or_until_it_is_full() {
    let mut b = Bench::new(Settings { linger: 5 * MS, ..settings() }, &[Some(1)]);
    b.put(0, "a");
    assert_eq!(b.wakes(), [1], "so that the sender sets its timer");
    let (none, next) = b.core.drain(b.now, 1);
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
fn flush_ends_lingering_and_names_what_is_under_way() {
    let mut b = Bench::new(Settings { linger: 1000 * MS, ..settings() }, &[Some(1), Some(1), Some(2)]);
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
    let mut b = Bench::new(settings(), &[Some(1)]);
    b.put(0, "plain");
    b.append(&NewRecord { compression: Compression::Gzip { level: 3 }, ..record(Target::Partition(0), b"packed") });
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
    let mut b = Bench::new(settings(), &[Some(1); 5]);
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
    let mut b = Bench::new(settings(), &[Some(1)]);
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
    let mut b = Bench::new(settings(), &[Some(1)]);
    b.put(0, "a");
    let first = b.drain(1).remove(0);
    b.put(0, "b");
    b.complete(first.id, retry(first.payload, false));
    let (none, next) = b.core.drain(b.now, 1);
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
    let mut b = Bench::new(settings(), &[Some(1)]);
    b.put(0, "a");
    let first = b.drain(1).remove(0);
    b.complete(first.id, retry(first.payload, false));
    b.wakes();
    b.core.update_topic(b.now, &TOPIC.into(), Some(&[Some(2)]));
    assert_eq!(b.wakes(), [2]);
    assert!(b.drain(1).is_empty() && !b.core.has_waiting(1));
    assert_eq!(values(b.drain(2).remove(0).payload), ["a"]);

    // While it is with the old leader, the partition waits; then it goes to the new one.
    let mut b = Bench::new(settings(), &[Some(1)]);
    b.put(0, "a");
    let first = b.drain(1).remove(0);
    b.core.update_topic(b.now, &TOPIC.into(), Some(&[None]));
    b.complete(first.id, retry(first.payload, false));
    assert!(b.core.has_waiting(NO_LEADER) && !b.core.has_waiting(1));
    b.core.update_topic(b.now, &TOPIC.into(), Some(&[Some(3)]));
    assert_eq!(b.core.waiting_leaders(), [3]);
    assert_eq!(b.drain(3).len(), 1);
}

#[test]
fn an_error_ends_a_batch_and_not_the_next() {
    let mut b = Bench::new(settings(), &[Some(1)]);
    b.put(0, "a");
    let first = b.drain(1).remove(0);
    b.put(0, "b");
    b.complete(first.id, Outcome::Failed(Error::broker(10, "produce")));
    assert_eq!(b.error(0).kind(), ErrorKind::RecordTooLarge);
    let second = b.drain(1).remove(0);
    b.complete(second.id, written(5));
    assert_eq!(b.end(1).unwrap().unwrap().offset, 5);
    assert_eq!(b.freed, b.charged);
}

#[test]
fn what_expires_unsent_was_surely_not_written_and_says_why() {
    let mut b = Bench::new(settings(), &[Some(1)]);
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
    assert!(!b.core.has_waiting(1));
    assert_eq!(b.freed, b.charged);
}

#[test]
fn what_expires_without_a_leader_says_so() {
    let mut b = Bench::new(settings(), &[Some(1), Some(1)]);
    b.put(1, "a");
    // Its topic is created anew, with fewer partitions.
    b.core.update_topic(b.now, &TOPIC.into(), Some(&[Some(1)]));
    b.now += TIMEOUT;
    b.expire();
    let error = b.error(0);
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.full().contains("not written") && error.full().contains("has had no leader"), "{error:?}");
    assert_eq!(b.freed, b.charged);
}

#[test]
fn what_expires_unanswered_has_an_unknown_fate_and_keeps_its_buffer_until_the_answer() {
    let mut b = Bench::new(settings(), &[Some(1)]);
    b.put(0, "sent");
    let sent = b.drain(1).remove(0);
    b.put(0, "behind it");
    b.now += TIMEOUT;
    b.expire();
    let error = b.error(0);
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("fate"), "{error}");
    assert!(b.error(1).to_string().contains("not written"));
    assert!(b.freed < b.charged);
    b.put(0, "later");
    assert!(b.drain(1).is_empty(), "the order holds even now");
    b.complete(sent.id, retry(sent.payload, true));
    assert_eq!(values(b.drain(1).remove(0).payload), ["later"], "what was given up is not sent again");
}

#[test]
fn what_was_given_up_has_one_fate_whoever_tells_it_first() {
    let mut b = Bench::new(settings(), &[Some(1)]);
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
    let mut b = Bench::new(settings(), &[Some(1)]);
    b.put(0, "a");
    let first = b.drain(1).remove(0);
    b.complete(first.id, retry(first.payload, true));
    b.now += 100 * MS;
    let second = b.drain(1).remove(0);
    b.complete(second.id, retry(second.payload, false));
    b.now += TIMEOUT;
    b.expire();
    let error = b.error(0);
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.full().contains("2 tries failed") && error.full().contains("NotLeader"), "{error:?}");
}

#[test]
fn a_missing_topic_takes_no_records_and_fails_those_it_has() {
    let mut b = Bench::new(settings(), &[Some(1)]);
    b.put(0, "a");
    b.core.update_topic(b.now, &TOPIC.into(), None);
    assert_eq!(b.core.append(b.now, &record(Target::Any, b"b")).unwrap_err(), Refused::UnknownTopic);
    assert!(b.drain(1).is_empty());
    assert_eq!(b.expire(), b.now + Duration::from_secs(30));
    b.now += Duration::from_secs(20);
    b.core.update_topic(b.now, &TOPIC.into(), None);
    b.now += Duration::from_secs(10);
    b.expire();
    let error = b.error(0);
    assert_eq!(error.kind(), ErrorKind::UnknownTopic);
    assert!(error.to_string().contains("30.0s"), "{error}");

    // Created again in time, it goes on.
    let mut b = Bench::new(settings(), &[Some(1)]);
    b.put(0, "a");
    b.core.update_topic(b.now, &TOPIC.into(), None);
    b.core.update_topic(b.now, &TOPIC.into(), Some(&[Some(2)]));
    b.put(0, "b");
    assert_eq!(values(b.drain(2).remove(0).payload), ["a", "b"]);
}

#[test]
fn a_growing_topic_uses_its_new_partitions() {
    let mut b = Bench::new(settings(), &[Some(1), Some(1)]);
    let key = Target::Hash(5);
    assert_eq!(b.append(&record(key, b"a")), 1);
    let refused = b.core.append(b.now, &record(Target::Partition(2), b"x")).unwrap_err();
    assert_eq!(refused, Refused::NoSuchPartition { count: 2 });
    assert!(b.core.append(b.now, &record(Target::Partition(-1), b"x")).is_err());
    b.core.update_topic(b.now, &TOPIC.into(), Some(&[Some(1); 3]));
    assert_eq!(b.append(&record(key, b"b")), 2);
    assert_eq!(b.drain(1).len(), 2, "what was there before goes where it was meant to");
}

#[test]
fn records_without_a_key_move_on_with_each_batch() {
    let mut b = Bench::new(settings(), &[Some(1); 8]);
    let mut used = Vec::new();
    for _ in 0..20 {
        let first = b.append(&record(Target::Any, b"a"));
        assert_eq!(b.append(&record(Target::Any, b"b")), first, "they stick while a batch is open");
        for batch in b.drain(1) {
            b.complete(batch.id, written(0));
        }
        assert_ne!(used.last(), Some(&first));
        used.push(first);
    }
    used.sort_unstable();
    used.dedup();
    assert!(used.len() > 3, "{used:?}");

    // A batch that is full is complete, too.
    let value = "x".repeat(500);
    let first = b.append(&record(Target::Any, value.as_bytes()));
    assert_ne!(b.append(&record(Target::Any, value.as_bytes())), first);

    // A partition without a leader is avoided, one alone is not left.
    let mut b = Bench::new(settings(), &[Some(1), None, Some(1)]);
    let mut b1 = Bench::new(settings(), &[Some(1)]);
    b.append(&record(Target::Any, b"a"));
    for _ in 0..20 {
        for batch in b.drain(1) {
            b.complete(batch.id, written(0));
        }
        assert_ne!(b.append(&record(Target::Any, b"a")), 1);
        assert_eq!(b1.append(&record(Target::Any, b"a")), 0);
        let batch = b1.drain(1).remove(0);
        b1.complete(batch.id, written(0));
    }
}

#[test]
fn abort_tells_every_record_its_fate() {
    let mut b = Bench::new(settings(), &[Some(1)]);
    b.put(0, "sent");
    let sent = b.drain(1).remove(0);
    b.put(0, "waiting");
    let ended = b.core.abort("the producer was closed");
    b.finish(ended);
    assert!(b.error(0).to_string().contains("may be in the log"));
    assert!(b.error(1).to_string().contains("not written"));
    assert!((0..2).all(|i| b.error(i).kind() == ErrorKind::Closed));
    b.complete(sent.id, written(0));
    assert_eq!(b.freed, b.charged);
}

#[derive(Debug, Clone)]
enum Op {
    Append {
        partition: Option<i32>,
        size: usize,
        gzip: bool,
    },
    Drain(i32),
    /// One of the batches under way ends: written; failed; to retry with or without having been written.
    Answer(prop::sample::Index, Answer),
    Advance(u64),
    Expire,
    Flush,
    Leader(usize, Option<i32>),
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Written,
    Failed,
    Retry { written: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let answer = prop_oneof![
        4 => Just(Answer::Written),
        1 => Just(Answer::Failed),
        3 => any::<bool>().prop_map(|written| Answer::Retry { written }),
    ];
    prop_oneof![
        8 => (prop::option::of(0..4i32), 8..700usize, prop::bool::weighted(0.2))
            .prop_map(|(partition, size, gzip)| Op::Append { partition, size, gzip }),
        6 => (1..3i32).prop_map(Op::Drain),
        6 => (any::<prop::sample::Index>(), answer).prop_map(|(i, a)| Op::Answer(i, a)),
        2 => (1..20_000u64).prop_map(Op::Advance),
        1 => Just(Op::Expire),
        1 => Just(Op::Flush),
        2 => (0..4usize, prop::option::of(1..3i32)).prop_map(|(p, l)| Op::Leader(p, l)),
    ]
}

/// The brokers, as far as an accumulator can tell.
struct World {
    bench: Bench,
    under_way: Vec<Drained>,
    leaders: Vec<Option<i32>>,
    /// By partition: the values in the order they were written.
    logs: HashMap<i32, Vec<String>>,
    /// By partition: the handles' places in the order of append.
    appended: HashMap<i32, Vec<usize>>,
}

impl World {
    fn apply(&mut self, op: Op) {
        match op {
            Op::Append { partition, size, gzip } => {
                let n = self.bench.handles.len();
                let value = format!("{n:0size$}");
                let target = partition.map_or(Target::Any, Target::Partition);
                let compression = if gzip { Compression::Gzip { level: 1 } } else { Compression::None };
                let p = self.bench.append(&NewRecord { compression, ..record(target, value.as_bytes()) });
                self.appended.entry(p).or_default().push(n);
            }
            Op::Drain(broker) => {
                for batch in self.bench.drain(broker) {
                    assert!(self.under_way.iter().all(|b| b.id != batch.id), "two of a partition");
                    assert_eq!(self.leaders[batch.partition as usize], Some(broker));
                    self.under_way.push(batch);
                }
            }
            Op::Answer(..) if self.under_way.is_empty() => {}
            Op::Answer(which, answer) => {
                let batch = self.under_way.swap_remove(which.index(self.under_way.len()));
                self.answer(batch, answer);
            }
            Op::Advance(ms) => self.bench.now += Duration::from_millis(ms),
            Op::Expire => {
                let next = self.bench.expire();
                assert!(next > self.bench.now);
            }
            Op::Flush => drop(self.bench.core.flush(self.bench.now)),
            Op::Leader(partition, leader) => {
                self.leaders[partition] = leader;
                self.bench.core.update_topic(self.bench.now, &TOPIC.into(), Some(&self.leaders));
            }
        }
    }

    fn answer(&mut self, batch: Drained, answer: Answer) {
        let bytes = batch.payload.encode(batch.compression);
        let log = self.logs.entry(batch.partition).or_default();
        let base_offset = log.len() as i64;
        if matches!(answer, Answer::Written | Answer::Retry { written: true }) {
            log.extend(values(Payload::Encoded(bytes.clone())));
        }
        let outcome = match answer {
            Answer::Written => written(base_offset),
            Answer::Failed => Outcome::Failed(Error::broker(87, "produce")),
            Answer::Retry { written } => retry(Payload::Encoded(bytes), written),
        };
        self.bench.complete(batch.id, outcome);
    }

    /// All brokers work again: what is left is sent.
    fn settle(&mut self) {
        for p in 0..4 {
            self.apply(Op::Leader(p, Some(1)));
        }
        for batch in std::mem::take(&mut self.under_way) {
            self.answer(batch, Answer::Written);
        }
        loop {
            self.bench.now += 100 * MS;
            let batches = self.bench.drain(1);
            if batches.is_empty() {
                break;
            }
            for batch in batches {
                self.answer(batch, Answer::Written);
            }
        }
    }

    fn check(&mut self) {
        assert_eq!(self.bench.freed, self.bench.charged, "all buffer space is free again");
        for (partition, numbers) in &self.appended {
            let log = self.logs.remove(partition).unwrap_or_default();
            let mut last_first = None;
            for &n in numbers {
                let first = log.iter().position(|v| v.trim_start_matches('0').parse().unwrap_or(0) == n);
                if first.is_some() {
                    assert!(first > last_first, "record {n} of partition {partition} is out of order: {log:?}");
                    last_first = first;
                }
                let end = (&mut self.bench.handles[n]).now_or_never().expect("every record ends");
                match end {
                    Ok(ack) => {
                        let at = &log[usize::try_from(ack.offset).unwrap()];
                        assert_eq!(at.trim_start_matches('0').parse().unwrap_or(0), n);
                    }
                    Err(e) => assert!(first.is_none() || !e.full().contains("not written"), "{e:?}"),
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_order_holds_and_every_record_ends(ops in vec(op(), 0..200), linger in 0..30u64) {
        let leaders = vec![Some(1), Some(1), Some(2), None];
        let settings = Settings { linger: Duration::from_millis(linger), ..settings() };
        let bench = Bench::new(settings, &leaders);
        let mut world =
            World { bench, under_way: Vec::new(), leaders, logs: HashMap::new(), appended: HashMap::new() };
        for op in ops {
            world.apply(op);
        }
        world.settle();
        world.check();
    }
}
