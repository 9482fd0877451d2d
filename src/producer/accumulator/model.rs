//! The accumulator against a model of Kafka's brokers. Whatever happens in between, every record
//! gets a result, acknowledged ones are in the log once and in order, and failed ones are not there
//! unless the error is indeterminate.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use futures_util::FutureExt;
use proptest::collection::vec;
use proptest::prelude::*;

use super::tests::{ME, MS, TOPIC, TestBed, config, record, values};
use super::*;
use crate::error::{Error, ErrorKind};
use crate::producer::batch::RetryPayload;
use crate::producer::delivery::AppendInfo;

const PARTITIONS: usize = 3;
/// A batch of more bytes than this is too large for the brokers.
const MAX_BATCH: usize = 700;

#[derive(Debug, Clone)]
enum Op {
    Append {
        partition: Option<i32>,
        size: usize,
        gzip: bool,
    },
    Drain(i32),
    /// A broker serves the next request of its connection.
    Serve(i32, Service),
    /// One of the pending responses arrives; not always the oldest.
    Respond(prop::sample::Index),
    /// The connection to a broker breaks. Requests that it has not served yet it may serve later.
    Cut(i32),
    /// A broker serves a request of a closed connection.
    ServeLate(i32),
    Advance(u64),
    Expire,
    Flush,
    Leader(usize, Option<i32>),
    /// The brokers forget the producers of a partition, as they do when all of its records were
    /// deleted.
    Forget(usize),
}

#[derive(Debug, Clone, Copy)]
enum Service {
    Good,
    /// Rejected with this error.
    Rejected(i16),
    /// Written, but the response has this error.
    WrittenBut(i16),
}

fn op() -> impl Strategy<Value = Op> {
    let service = prop_oneof![
        8 => Just(Service::Good),
        3 => prop::sample::select(vec![2, 3, 5, 6, 7, 19, 29, 45, 47, 59, 87, 90]).prop_map(Service::Rejected),
        2 => prop::sample::select(vec![6, 7, 20]).prop_map(Service::WrittenBut),
    ];
    prop_oneof![
        8 => (prop::option::of(0..PARTITIONS as i32), 8..700usize, prop::bool::weighted(0.2))
            .prop_map(|(partition, size, gzip)| Op::Append { partition, size, gzip }),
        6 => (1..3i32).prop_map(Op::Drain),
        8 => (1..3i32, service).prop_map(|(b, s)| Op::Serve(b, s)),
        8 => any::<prop::sample::Index>().prop_map(Op::Respond),
        1 => (1..3i32).prop_map(Op::Cut),
        2 => (1..3i32).prop_map(Op::ServeLate),
        2 => (1..20_000u64).prop_map(Op::Advance),
        1 => Just(Op::Expire),
        2 => Just(Op::Flush),
        1 => (0..PARTITIONS, prop::option::of(1..3i32)).prop_map(|(p, l)| Op::Leader(p, l)),
        1 => (0..PARTITIONS).prop_map(Op::Forget),
    ]
}

/// A batch as a broker receives it.
#[derive(Debug, Clone)]
struct Sent {
    id: BatchId,
    partition: usize,
    compression: Compression,
    producer: ProducerSequence,
    records: u32,
    bytes: Bytes,
}

/// State of a producer in one partition: epoch; first sequence, last sequence and offset of its
/// latest batches.
#[derive(Debug, Default)]
struct Known {
    epoch: i16,
    recent: VecDeque<(i32, i32, i64)>,
}

#[derive(Debug, Default)]
struct Log {
    values: Vec<String>,
    producers: HashMap<i64, Known>,
}

impl Log {
    /// Appends a batch as Kafka's `ProducerAppendInfo` and `ProducerStateManager` do.
    fn append(&mut self, sent: &Sent) -> Result<i64, i16> {
        let offset = self.values.len() as i64;
        let ProducerSequence { id, epoch, sequence: first, .. } = sent.producer;
        if id >= 0 {
            let last = sent.producer.skip(sent.records - 1).sequence;
            let fresh = Known { epoch, recent: VecDeque::new() };
            match self.producers.get_mut(&id) {
                Some(known) if epoch < known.epoch => return Err(47),
                Some(known) if epoch > known.epoch && first != 0 => return Err(45),
                Some(known) if epoch > known.epoch => *known = fresh,
                Some(known) => {
                    if let Some((.., offset)) = known.recent.iter().find(|r| (r.0, r.1) == (first, last)) {
                        return Ok(*offset);
                    }
                    let next = |last| ProducerSequence { sequence: last, ..sent.producer }.skip(1).sequence;
                    if known.recent.back().map_or(0, |(_, last, _)| next(*last)) != first {
                        return Err(45);
                    }
                }
                None => drop(self.producers.insert(id, fresh)),
            }
            let recent = &mut self.producers.get_mut(&id).expect("it is known").recent;
            if recent.len() == 5 {
                recent.pop_front();
            }
            recent.push_back((first, last, offset));
        }
        self.values.extend(values(Payload::Encoded(sent.bytes.clone())));
        Ok(offset)
    }
}

struct World {
    bed: TestBed,
    /// Requests by broker: on its connection, and left from closed ones. Responses that have not
    /// arrived.
    wire: HashMap<i32, VecDeque<Sent>>,
    late: HashMap<i32, VecDeque<Sent>>,
    responses: Vec<(i32, Sent, SendOutcome)>,
    leaders: Vec<Option<i32>>,
    logs: Vec<Log>,
    fenced: HashSet<i64>,
    /// Indexes of the deliveries by partition, in the order of append.
    appended: HashMap<i32, Vec<usize>>,
    producer_ids: i64,
}

impl World {
    fn new(linger: u64, idempotence: bool) -> Self {
        let leaders = vec![Some(1), Some(1), Some(2)];
        let config = AccumulatorConfig { linger: Duration::from_millis(linger), idempotence, ..config() };
        Self {
            bed: TestBed::new(config, &leaders),
            wire: HashMap::new(),
            late: HashMap::new(),
            responses: Vec::new(),
            leaders,
            logs: (0..PARTITIONS).map(|_| Log::default()).collect(),
            fenced: HashSet::new(),
            appended: HashMap::new(),
            producer_ids: ME.id,
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Append { partition, size, gzip } => {
                let n = self.bed.deliveries.len();
                let value = format!("{n:0size$}");
                let target = partition.map_or(PartitionChoice::Sticky, PartitionChoice::Partition);
                let compression = if gzip { Compression::Gzip { level: 1 } } else { Compression::None };
                let p = self.bed.append(&NewRecord { compression, ..record(target, value.as_bytes()) });
                self.appended.entry(p).or_default().push(n);
            }
            Op::Drain(broker) => self.drain(broker),
            Op::Serve(broker, service) => {
                if let Some(sent) = self.wire.entry(broker).or_default().pop_front() {
                    let outcome = self.serve(broker, &sent, service);
                    self.responses.push((broker, sent, outcome));
                }
            }
            Op::Respond(_) if self.responses.is_empty() => {}
            Op::Respond(which) => {
                let (_, sent, outcome) = self.responses.remove(which.index(self.responses.len()));
                self.bed.complete(sent.id, outcome);
            }
            Op::Cut(broker) => self.cut(broker),
            Op::ServeLate(broker) => {
                if let Some(sent) = self.late.entry(broker).or_default().pop_front() {
                    self.serve(broker, &sent, Service::Good);
                }
            }
            Op::Advance(ms) => self.bed.now += Duration::from_millis(ms),
            Op::Expire => assert!(self.bed.expire() > self.bed.now),
            Op::Flush => drop(self.bed.core.flush(self.bed.now)),
            Op::Leader(partition, leader) => {
                self.leaders[partition] = leader;
                let ended = self.bed.core.update_topic(self.bed.now, &TOPIC.into(), None, Some(&self.leaders));
                self.bed.finish(ended);
            }
            Op::Forget(partition) => {
                // Only if no batch will be repeated: brokers remember a producer for a day.
                let late = self.late.values().flatten().any(|s| s.partition == partition);
                let deliveries = self.appended.get(&(partition as i32)).cloned().unwrap_or_default();
                if !late && deliveries.iter().all(|n| (&mut self.bed.deliveries[*n]).now_or_never().is_some()) {
                    self.logs[partition].producers.clear();
                }
            }
        }
        if self.bed.core.needs_producer_id() {
            self.producer_ids += 1;
            self.bed.core.set_producer_id(ProducerIdAndEpoch { id: self.producer_ids, epoch: 0 });
        }
    }

    fn drain(&mut self, broker: i32) {
        for d in self.bed.drain(broker) {
            assert_eq!(self.leaders[d.partition as usize], Some(broker));
            let DrainedBatch { id, compression, producer, records, .. } = d;
            let bytes = d.payload.encode(compression, producer).0;
            let sent = Sent { id, partition: d.partition as usize, compression, producer, records, bytes };
            self.wire.entry(broker).or_default().push_back(sent);
        }
    }

    fn serve(&mut self, broker: i32, sent: &Sent, service: Service) -> SendOutcome {
        let response = match service {
            Service::Rejected(code) => {
                match code {
                    90 => drop(self.fenced.insert(sent.producer.id)),
                    // Another producer has this id, in a higher epoch.
                    47 => {
                        let known = self.logs[sent.partition].producers.entry(sent.producer.id).or_default();
                        *known = Known { epoch: known.epoch.max(sent.producer.epoch + 2), recent: VecDeque::new() };
                    }
                    _ => {}
                }
                Err(code)
            }
            _ if self.leaders[sent.partition] != Some(broker) => Err(6),
            _ if self.fenced.contains(&sent.producer.id) => Err(90),
            _ if sent.bytes.len() > MAX_BATCH => Err(10),
            Service::Good => self.logs[sent.partition].append(sent),
            Service::WrittenBut(code) => self.logs[sent.partition].append(sent).and(Err(code)),
        };
        let code = match response {
            Ok(offset) => return SendOutcome::Written(AppendInfo { base_offset: Some(offset), append_time: None }),
            Err(code) => code,
        };
        let error = Error::broker(code, "produce");
        let retry = RetryPayload { error: error.clone(), payload: sent.bytes.clone(), backoff: 100 * MS };
        match code {
            10 => SendOutcome::TooLarge {
                error,
                halves: crate::record::split_in_half(&sent.bytes, sent.compression, 1 << 20),
            },
            45 | 59 => SendOutcome::OutOfSequence(retry),
            47 | 90 => SendOutcome::Fenced(retry),
            29 | 87 => SendOutcome::Failed(error),
            2 | 3 | 5 | 19 => SendOutcome::Retry { retry, maybe_written: false },
            _ => SendOutcome::Retry { retry, maybe_written: true },
        }
    }

    fn cut(&mut self, broker: i32) {
        let unserved = std::mem::take(self.wire.entry(broker).or_default());
        let (mut lost, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.responses).into_iter().partition(|a| a.0 == broker);
        self.responses = kept;
        let mut all: Vec<Sent> = lost.drain(..).map(|(_, sent, _)| sent).collect();
        all.extend(unserved.iter().cloned());
        self.late.entry(broker).or_default().extend(unserved);
        for sent in all {
            let error = Error::new(ErrorKind::Disconnected, "gone");
            let retry = RetryPayload { error, payload: sent.bytes, backoff: 100 * MS };
            self.bed.complete(sent.id, SendOutcome::Retry { retry, maybe_written: true });
        }
    }

    /// The brokers work again: what is pending is sent.
    fn finish(&mut self) {
        for p in 0..PARTITIONS {
            self.apply(Op::Leader(p, Some(1)));
        }
        for _ in 0..1000 {
            while let Some(response) = (!self.responses.is_empty()).then(|| self.responses.remove(0)) {
                self.bed.complete(response.1.id, response.2);
            }
            self.bed.now += 100 * MS;
            self.apply(Op::Flush);
            self.drain(1);
            for broker in [1, 2] {
                while self.wire.get(&broker).is_some_and(|w| !w.is_empty()) {
                    self.apply(Op::Serve(broker, Service::Good));
                }
                self.apply(Op::ServeLate(broker));
            }
            if self.responses.is_empty() && self.bed.freed_bytes == self.bed.buffered_bytes {
                return;
            }
        }
        panic!("something hangs: {:?}", self.bed.core.topics);
    }

    fn check(mut self, idempotence: bool) {
        for broker in [1, 2] {
            while !self.late.entry(broker).or_default().is_empty() {
                self.apply(Op::ServeLate(broker));
            }
        }
        for (partition, numbers) in &self.appended {
            let log: Vec<usize> =
                self.logs[*partition as usize].values.iter().map(|v| v.parse().expect("a number")).collect();
            if idempotence {
                assert!(log.is_sorted_by(|a, b| a < b), "partition {partition}: twice, or out of order: {log:?}");
            }
            for &n in numbers {
                let result = (&mut self.bed.deliveries[n]).now_or_never().expect("every record has a result");
                let there = log.contains(&n);
                match result {
                    Ok(ack) => assert_eq!(log[usize::try_from(ack.offset.unwrap()).unwrap()], n),
                    Err(e) if e.kind() == ErrorKind::Indeterminate => {}
                    Err(e) => assert!(!there, "record {n} is in the log: {e:?}"),
                }
            }
        }
    }
}

fn run(ops: Vec<Op>, linger: u64, idempotence: bool) {
    let mut world = World::new(linger, idempotence);
    for op in ops {
        world.apply(op);
    }
    world.finish();
    world.check(idempotence);
}

proptest! {
    #[test]
    fn no_record_is_lost_repeated_or_reordered(ops in vec(op(), 0..250), linger in 0..30u64) {
        run(ops, linger, true);
    }

    #[test]
    fn without_idempotence_results_are_true(ops in vec(op(), 0..200), linger in 0..30u64) {
        run(ops, linger, false);
    }
}
