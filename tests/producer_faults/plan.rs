//! The plan of a seed: cluster, producer settings, records and faults.

use std::time::Duration;

use ailurus_broker::Fault;
pub use ailurus_test_support::api_keys::{API_VERSIONS, INIT_PRODUCER_ID, METADATA, PRODUCE};
use ailurus_test_support::faults::{FaultKind, FaultProfile, RequestPosition, mix, ms, pick};
use fastrand::Rng;

/// Requests of a producer, with their names in the summary.
pub const APIS: [(i16, &str); 4] = [
    (PRODUCE, "produce"),
    (METADATA, "metadata"),
    (API_VERSIONS, "connection start"),
    (INIT_PRODUCER_ID, "init producer id"),
];
pub const NODES: u16 = 3;

/// Transient error codes of Produce: not leader, not enough replicas and the like. The broker has
/// not written.
const TRANSIENT: [i16; 11] = [2, 3, 5, 6, 7, 9, 13, 19, 20, 56, 74];
/// Permanent error codes: unknown error, invalid topic, too large, not authorized, invalid record,
/// sequence errors.
const PERMANENT: [i16; 8] = [-1, 17, 10, 29, 87, 45, 47, 59];
/// Error codes of brokers that may have written.
const INDETERMINATE: [i16; 4] = [-1, 7, 20, 56];
/// Error codes of InitProducerId: the coordinator is loading, not available or another node, or an
/// unknown error.
const NO_PRODUCER_ID: [i16; 4] = [14, 15, 16, -1];

/// An event in the cluster.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    Move {
        partition: i32,
        node: i32,
    },
    Stop(i32),
    Start(i32),
    /// No broker can be reached from now on.
    StopAll,
    StartAll,
}

/// A fault of a part of a Produce request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartialFault {
    /// Some records are rejected by index.
    RecordErrors,
    /// One partition has an error, the others are written.
    PartitionError,
    /// Appended batches get an error that leaves open whether they were.
    ErrorAfterAppend,
}

impl PartialFault {
    pub const ALL: [Self; 3] =
        [PartialFault::RecordErrors, PartialFault::PartitionError, PartialFault::ErrorAfterAppend];
}

/// Partial faults of Produce requests, in addition to the faults of whole requests.
#[derive(Clone, Debug)]
struct PartialFaults {
    /// Percentage of requests with a fault.
    rate: u32,
    /// Number of requests of each node that may have a fault, from its first.
    max_requests: u32,
    kinds: Vec<PartialFault>,
}

/// Target partition of a stream's records.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    Partition(i32),
    /// By the stream's key.
    Key,
    Any,
}

#[derive(Clone, Debug)]
pub struct Stream {
    pub target: Target,
    pub records: u32,
    /// Maximum size of a value, in bytes.
    pub size: usize,
    /// Percentage of compressed records.
    pub gzip: u32,
}

/// The end of the producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Waits for every delivery, then closes.
    Await,
    /// Closes, with enough time.
    Close,
    /// Closes, with hardly any time.
    CloseWithin(Duration),
    Drop,
}

/// Everything that a seed decides.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Runs on several threads, or on one.
    pub threads: bool,
    pub partitions: i32,
    pub replicas: u16,
    pub min_in_sync: u16,
    pub request_timeout: Duration,
    pub delivery_timeout: Duration,
    pub retry_backoff: Duration,
    pub linger: Duration,
    pub batch_size: usize,
    pub buffer_memory: usize,
    pub streams: Vec<Stream>,
    /// Number of records sent without a pause.
    pub burst: u32,
    pub pause: Duration,
    /// Number of pending deliveries before the application waits for the oldest.
    pub max_pending: usize,
    pub ending: Ending,
    faults: Vec<(i16, FaultProfile)>,
    partial_faults: Option<PartialFaults>,
    /// Time after the first record in which no producer id is available.
    pub no_producer_id_for: Option<Duration>,
    /// Events by the time since the first record.
    pub events: Vec<(Duration, Event)>,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        // Seeds are small consecutive numbers.
        let mut rng = Rng::with_seed(mix(seed, 0));
        let partitions = rng.i32(1..=6);
        let replicas = rng.u16(1..=NODES);
        let request_timeout = ms(rng.u64(100..200));
        let linger = if rng.bool() { Duration::ZERO } else { ms(rng.u64(1..20)) };
        let batch_size = *pick(&mut rng, &[1 << 10, 2 << 10, 16 << 10]);
        // With few pending deliveries each delays the next: an expiry takes a second at least.
        let max_pending = *pick(&mut rng, &[1, 8, 100, usize::MAX, usize::MAX, usize::MAX]);
        let ending = match rng.u32(0..12) {
            0 => Ending::Drop,
            1 | 2 => Ending::CloseWithin(ms(rng.u64(0..60))),
            3..6 => Ending::Close,
            _ => Ending::Await,
        };
        let streams = (0..rng.u32(1..=8)).map(|_| stream(&mut rng, partitions, max_pending)).collect();
        Self {
            seed,
            threads: rng.u32(0..4) == 0,
            partitions,
            replicas,
            min_in_sync: if replicas == 3 && rng.bool() { 2 } else { 1 },
            request_timeout,
            delivery_timeout: ms(1000 + rng.u64(0..200)),
            retry_backoff: ms(rng.u64(1..20)),
            linger,
            batch_size,
            buffer_memory: (1 << 20) + if rng.bool() { 0 } else { 8 << 20 },
            streams,
            burst: *pick(&mut rng, &[1, 5, 20, 100]),
            pause: ms(rng.u64(0..5)),
            max_pending,
            ending,
            faults: faults(&mut rng),
            events: events(&mut rng, partitions),
            partial_faults: partial_faults(&mut rng),
            no_producer_id_for: (rng.u32(0..10) == 0).then(|| ms(rng.u64(200..2500))),
        }
    }

    /// Returns the fault of the `index`-th request of an API to a node at this time, with its name.
    pub fn fault(&self, api: i16, node: i32, index: u32, age: Duration) -> Option<(String, Fault)> {
        if api == INIT_PRODUCER_ID && self.no_producer_id_for.is_some_and(|duration| age < duration) {
            let mut rng = Rng::with_seed(mix(self.seed, u64::from(index)));
            let fault = if rng.bool() { Fault::Close } else { Fault::Error(*pick(&mut rng, &NO_PRODUCER_ID)) };
            return Some(("no producer id for a while".into(), fault));
        }
        if let Some((kind, fault)) = self.partial_fault(api, node, index) {
            return Some((format!("produce: {kind:?}"), fault));
        }
        let (kind, fault) = self.request_fault(api, node, index)?;
        let name = APIS.iter().find(|(key, _)| *key == api).map_or("other", |(_, name)| *name);
        Some((format!("{name}: {kind:?}"), fault))
    }

    fn partial_fault(&self, api: i16, node: i32, index: u32) -> Option<(PartialFault, Fault)> {
        let faults = self.partial_faults.as_ref().filter(|faults| api == PRODUCE && index < faults.max_requests)?;
        let mut rng = Rng::with_seed(mix(self.seed, (u64::from(index) << 8) + u64::from(node.unsigned_abs()) + 1));
        if rng.u32(0..100) >= faults.rate {
            return None;
        }
        let kind = *pick(&mut rng, &faults.kinds);
        let fault = match kind {
            PartialFault::RecordErrors => Fault::RecordErrors { every: rng.u32(1..6) },
            PartialFault::PartitionError => {
                // Not 47, INVALID_PRODUCER_EPOCH: 1. the response to a batch is lost, so it is
                // indeterminate, and its bytes are still in a connection; 2. the broker returns 47
                // twice and has fenced nobody; 3. the producer takes a new id, so nothing rejects
                // the batch when the broker reads it late.
                let code = if rng.bool() {
                    *pick(&mut rng, &TRANSIENT)
                } else {
                    *pick(&mut rng, &[-1, 17, 10, 29, 87, 45, 59])
                };
                Fault::PartitionError { partition: rng.i32(0..self.partitions), code }
            }
            PartialFault::ErrorAfterAppend => Fault::ErrorAfterAppend(*pick(&mut rng, &INDETERMINATE)),
        };
        Some((kind, fault))
    }

    fn request_fault(&self, api: i16, node: i32, index: u32) -> Option<(FaultKind, Fault)> {
        let (_, faults) = self.faults.iter().find(|(key, _)| *key == api)?;
        let position = RequestPosition { seed: self.seed, api, node, index };
        faults.fault(position, self.request_timeout, |kind, rng| match (kind, api) {
            (FaultKind::TransientError, INIT_PRODUCER_ID) => *pick(rng, &NO_PRODUCER_ID),
            (FaultKind::TransientError, METADATA) => *pick(rng, &[3, 5, 7, 9, -1]),
            (FaultKind::TransientError, _) => *pick(rng, &TRANSIENT),
            (_, PRODUCE) => *pick(rng, &PERMANENT),
            _ => *pick(rng, &[-1, 29, 35]),
        })
    }
}

fn stream(rng: &mut Rng, partitions: i32, max_pending: usize) -> Stream {
    let target = match rng.u32(0..6) {
        0 => Target::Any,
        1 | 2 => Target::Key,
        _ => Target::Partition(rng.i32(0..partitions)),
    };
    let records = if max_pending == 1 { rng.u32(2..10) } else { rng.u32(10..150) };
    Stream { target, records, size: *pick(rng, &[20, 100, 100, 1500]), gzip: *pick(rng, &[0, 0, 10, 100]) }
}

fn faults(rng: &mut Rng) -> Vec<(i16, FaultProfile)> {
    let mut all = Vec::new();
    for (api, _) in APIS {
        // Produce requests have faults in nearly every seed, the others in some.
        let chance = if api == PRODUCE { 95 } else { 40 };
        if rng.u32(0..100) >= chance {
            continue;
        }
        let mut kinds = FaultKind::ALL.to_vec();
        rng.shuffle(&mut kinds);
        kinds.truncate(rng.usize(1..=4));
        if api == INIT_PRODUCER_ID && rng.u32(0..10) > 0 {
            // Without a producer id nothing is sent: a permanent error ends the producer.
            kinds.retain(|k| *k != FaultKind::PermanentError);
            kinds.push(FaultKind::TransientError);
        }
        let max_requests = match rng.u32(0..10) {
            // Without an end, records expire.
            0 => u32::MAX,
            // All requests in flight at once.
            1..4 => 5,
            _ => rng.u32(3..60),
        };
        let rate = if max_requests == 5 { 90 } else { *pick(rng, &[5, 20, 50, 80]) };
        all.push((api, FaultProfile { rate, max_requests, kinds }));
    }
    all
}

fn partial_faults(rng: &mut Rng) -> Option<PartialFaults> {
    if rng.u32(0..3) > 0 {
        return None;
    }
    let mut kinds = PartialFault::ALL.to_vec();
    rng.shuffle(&mut kinds);
    kinds.truncate(rng.usize(1..=3));
    Some(PartialFaults { rate: *pick(rng, &[10, 40, 80]), max_requests: rng.u32(3..60), kinds })
}

fn events(rng: &mut Rng, partitions: i32) -> Vec<(Duration, Event)> {
    let mut events = Vec::new();
    if rng.bool() {
        for _ in 0..rng.u32(1..6) {
            let to = Event::Move { partition: rng.i32(0..partitions), node: rng.i32(0..i32::from(NODES)) };
            events.push((ms(rng.u64(0..150)), to));
        }
    }
    if rng.u32(0..3) == 0 {
        for _ in 0..rng.u32(1..3) {
            let (node, at) = (rng.i32(0..i32::from(NODES)), rng.u64(0..100));
            // Rarely longer than the delivery timeout.
            let down = if rng.u32(0..8) == 0 { 1500 } else { rng.u64(5..300) };
            events.push((ms(at), Event::Stop(node)));
            events.push((ms(at + down), Event::Start(node)));
        }
    }
    if rng.u32(0..12) == 0 {
        let at = rng.u64(0..100);
        events.push((ms(at), Event::StopAll));
        events.push((ms(at + rng.u64(200..2500)), Event::StartAll));
    }
    events.sort_by_key(|(at, _)| *at);
    events
}
