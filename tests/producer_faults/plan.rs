//! What a seed decides: the cluster, the producer's settings, the records, the faults.

use std::time::Duration;

use ailurus_broker::Fault;
use fastrand::Rng;

use super::weather::{KINDS, Kind, Place, Weather, mix, ms, pick};

pub const PRODUCE: i16 = 0;
pub const METADATA: i16 = 3;
pub const API_VERSIONS: i16 = 18;
pub const INIT_PRODUCER_ID: i16 = 22;
/// The requests of a producer, and what they are called in the summary.
pub const APIS: [(i16, &str); 4] = [
    (PRODUCE, "produce"),
    (METADATA, "metadata"),
    (API_VERSIONS, "connection start"),
    (INIT_PRODUCER_ID, "init producer id"),
];
pub const NODES: u16 = 3;

/// Error codes that pass, at produce: not leader, not enough replicas and the like. In each the broker has not written.
const PASSING: [i16; 11] = [2, 3, 5, 6, 7, 9, 13, 19, 20, 56, 74];
/// Those that stay: unknown error, invalid topic, too large, not allowed, invalid record, and what concerns sequences.
/// Those of brokers that may have written all the same.
const OPEN: [i16; 4] = [-1, 7, 20, 56];
const STAYING: [i16; 8] = [-1, 17, 10, 29, 87, 45, 47, 59];
/// At InitProducerId: a coordinator that loads, that is away or that is another one, and a broker that says no more.
const NO_IDENTITY: [i16; 4] = [14, 15, 16, -1];

/// What happens to the cluster.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    Move {
        partition: i32,
        node: i32,
    },
    Stop(i32),
    Start(i32),
    /// No broker can be reached any more.
    StopAll,
    StartAll,
}

/// What becomes of a part of a produce request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Some records are refused by name.
    RecordErrors,
    /// One partition is answered with an error, the others are written.
    PartitionError,
    /// What was written is answered with an error that leaves open whether it was.
    ErrorAfterAppend,
}

pub const PARTS: [Part; 3] = [Part::RecordErrors, Part::PartitionError, Part::ErrorAfterAppend];

/// What becomes of parts of produce requests, beside the weather.
#[derive(Clone, Debug)]
struct Parts {
    /// Of 100 requests.
    rate: u32,
    /// How many requests of each node, from its first.
    until: u32,
    kinds: Vec<Part>,
}

/// Where the records of a stream go.
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
    /// The largest value, in bytes.
    pub size: usize,
    /// Of 100 records, how many are compressed.
    pub gzip: u32,
}

/// How the program ends the producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It waits for every handle, then closes.
    Await,
    /// It closes, with time enough.
    Close,
    /// It closes, with hardly any time.
    CloseWithin(Duration),
    Drop,
}

/// All that a seed decides.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// On several threads, or all on one.
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
    /// Records handed in without a pause.
    pub burst: u32,
    pub pause: Duration,
    /// How many handles the program keeps before it waits for the oldest.
    pub window: usize,
    pub ending: Ending,
    weather: Vec<(i16, Weather)>,
    parts: Option<Parts>,
    /// For how long after the first record no producer id is to be had, if for a while.
    pub no_identity: Option<Duration>,
    /// By the time since the first record.
    pub events: Vec<(Duration, Event)>,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        // The seeds are small numbers, one after the other.
        let mut r = Rng::with_seed(mix(seed, 0));
        let partitions = r.i32(1..=6);
        let replicas = r.u16(1..=NODES);
        let request_timeout = ms(r.u64(100..200));
        let linger = if r.bool() { Duration::ZERO } else { ms(r.u64(1..20)) };
        let batch_size = *pick(&mut r, &[1 << 10, 2 << 10, 16 << 10]);
        // Few of one delay each other: what expires takes a second at least.
        let window = *pick(&mut r, &[1, 8, 100, usize::MAX, usize::MAX, usize::MAX]);
        let ending = match r.u32(0..12) {
            0 => Ending::Drop,
            1 | 2 => Ending::CloseWithin(ms(r.u64(0..60))),
            3..6 => Ending::Close,
            _ => Ending::Await,
        };
        let streams = (0..r.u32(1..=8)).map(|_| stream(&mut r, partitions, window)).collect();
        Self {
            seed,
            threads: r.u32(0..4) == 0,
            partitions,
            replicas,
            min_in_sync: if replicas == 3 && r.bool() { 2 } else { 1 },
            request_timeout,
            delivery_timeout: ms(1000 + r.u64(0..200)),
            retry_backoff: ms(r.u64(1..20)),
            linger,
            batch_size,
            buffer_memory: (1 << 20) + if r.bool() { 0 } else { 8 << 20 },
            streams,
            burst: *pick(&mut r, &[1, 5, 20, 100]),
            pause: ms(r.u64(0..5)),
            window,
            ending,
            weather: weather(&mut r),
            events: events(&mut r, partitions),
            parts: parts(&mut r),
            no_identity: (r.u32(0..10) == 0).then(|| ms(r.u64(200..2500))),
        }
    }

    /// What becomes of the `n`-th request of an API to a node, so long after the first record; and what that is called.
    pub fn fault(&self, api: i16, node: i32, n: u32, age: Duration) -> Option<(String, Fault)> {
        if api == INIT_PRODUCER_ID && self.no_identity.is_some_and(|until| age < until) {
            let mut r = Rng::with_seed(mix(self.seed, u64::from(n)));
            let fault = if r.bool() { Fault::Close } else { Fault::Error(*pick(&mut r, &NO_IDENTITY)) };
            return Some(("no identity for a while".into(), fault));
        }
        if let Some((kind, fault)) = self.part(api, node, n) {
            return Some((format!("produce: {kind:?}"), fault));
        }
        let (kind, fault) = self.by_weather(api, node, n)?;
        let name = APIS.iter().find(|(key, _)| *key == api).map_or("other", |(_, name)| *name);
        Some((format!("{name}: {kind:?}"), fault))
    }

    fn part(&self, api: i16, node: i32, n: u32) -> Option<(Part, Fault)> {
        let parts = self.parts.as_ref().filter(|parts| api == PRODUCE && n < parts.until)?;
        let mut r = Rng::with_seed(mix(self.seed, (u64::from(n) << 8) + u64::from(node.unsigned_abs()) + 1));
        if r.u32(0..100) >= parts.rate {
            return None;
        }
        let kind = *pick(&mut r, &parts.kinds);
        let fault = match kind {
            Part::RecordErrors => Fault::RecordErrors { every: r.u32(1..6) },
            Part::PartitionError => {
                // Not 47 (InvalidProducerEpoch): where a broker says so twice and has fenced nobody, the producer takes another id, and
                // nothing shuts out a batch of unknown fate that a connection still holds.
                let code =
                    if r.bool() { *pick(&mut r, &PASSING) } else { *pick(&mut r, &[-1, 17, 10, 29, 87, 45, 59]) };
                Fault::PartitionError { partition: r.i32(0..self.partitions), code }
            }
            Part::ErrorAfterAppend => Fault::ErrorAfterAppend(*pick(&mut r, &OPEN)),
        };
        Some((kind, fault))
    }

    fn by_weather(&self, api: i16, node: i32, n: u32) -> Option<(Kind, Fault)> {
        let (_, weather) = self.weather.iter().find(|(key, _)| *key == api)?;
        let place = Place { seed: self.seed, api, node, n };
        weather.fault(place, self.request_timeout, |kind, r| match (kind, api) {
            (Kind::ErrorThatPasses, INIT_PRODUCER_ID) => *pick(r, &NO_IDENTITY),
            (Kind::ErrorThatPasses, METADATA) => *pick(r, &[3, 5, 7, 9, -1]),
            (Kind::ErrorThatPasses, _) => *pick(r, &PASSING),
            (_, PRODUCE) => *pick(r, &STAYING),
            _ => *pick(r, &[-1, 29, 35]),
        })
    }
}

fn stream(r: &mut Rng, partitions: i32, window: usize) -> Stream {
    let target = match r.u32(0..6) {
        0 => Target::Any,
        1 | 2 => Target::Key,
        _ => Target::Partition(r.i32(0..partitions)),
    };
    let records = if window == 1 { r.u32(2..10) } else { r.u32(10..150) };
    Stream { target, records, size: *pick(r, &[20, 100, 100, 1500]), gzip: *pick(r, &[0, 0, 10, 100]) }
}

fn weather(r: &mut Rng) -> Vec<(i16, Weather)> {
    let mut all = Vec::new();
    for (api, _) in APIS {
        // Produce requests fare badly in nearly every seed, the others in some.
        let chance = if api == PRODUCE { 95 } else { 40 };
        if r.u32(0..100) >= chance {
            continue;
        }
        let mut kinds = KINDS.to_vec();
        r.shuffle(&mut kinds);
        kinds.truncate(r.usize(1..=4));
        if api == INIT_PRODUCER_ID && r.u32(0..10) > 0 {
            // Without an identity there is nothing to see: an error that stays is the end of the producer.
            kinds.retain(|k| *k != Kind::ErrorThatStays);
            kinds.push(Kind::ErrorThatPasses);
        }
        let until = match r.u32(0..10) {
            // No end: records expire.
            0 => u32::MAX,
            // All that are in flight at once.
            1..4 => 5,
            _ => r.u32(3..60),
        };
        let rate = if until == 5 { 90 } else { *pick(r, &[5, 20, 50, 80]) };
        all.push((api, Weather { rate, until, kinds }));
    }
    all
}

fn parts(r: &mut Rng) -> Option<Parts> {
    if r.u32(0..3) > 0 {
        return None;
    }
    let mut kinds = PARTS.to_vec();
    r.shuffle(&mut kinds);
    kinds.truncate(r.usize(1..=3));
    Some(Parts { rate: *pick(r, &[10, 40, 80]), until: r.u32(3..60), kinds })
}

fn events(r: &mut Rng, partitions: i32) -> Vec<(Duration, Event)> {
    let mut events = Vec::new();
    if r.bool() {
        for _ in 0..r.u32(1..6) {
            let to = Event::Move { partition: r.i32(0..partitions), node: r.i32(0..i32::from(NODES)) };
            events.push((ms(r.u64(0..150)), to));
        }
    }
    if r.u32(0..3) == 0 {
        for _ in 0..r.u32(1..3) {
            let (node, at) = (r.i32(0..i32::from(NODES)), r.u64(0..100));
            // Seldom longer than the delivery timeout.
            let down = if r.u32(0..8) == 0 { 1500 } else { r.u64(5..300) };
            events.push((ms(at), Event::Stop(node)));
            events.push((ms(at + down), Event::Start(node)));
        }
    }
    if r.u32(0..12) == 0 {
        let at = r.u64(0..100);
        events.push((ms(at), Event::StopAll));
        events.push((ms(at + r.u64(200..2500)), Event::StartAll));
    }
    events.sort_by_key(|(at, _)| *at);
    events
}
