//! The plan of a seed: cluster, members, inputs, events and faults.

use std::time::Duration;

use ailurus::GroupProtocol;
use ailurus_broker::Fault;
pub use ailurus_test_support::api_keys::{
    ADD_OFFSETS, ADD_PARTITIONS, CONSUMER_GROUP_HEARTBEAT, END_TXN, FETCH, FIND_COORDINATOR, HEARTBEAT,
    INIT_PRODUCER_ID, JOIN_GROUP, LEAVE_GROUP, METADATA, OFFSET_FETCH, PRODUCE, SYNC_GROUP, TXN_OFFSET_COMMIT,
    WRITE_TXN_MARKERS,
};
use ailurus_test_support::faults::{FaultKind, FaultProfile, RequestPosition, marker_fault, mix, ms, pick};
pub use ailurus_test_support::transaction_cluster::Release;
use fastrand::Rng;

/// Requests with faults, with their names in the summary.
pub const APIS: [(i16, &str); 15] = [
    (PRODUCE, "produce"),
    (FETCH, "fetch"),
    (METADATA, "metadata"),
    (OFFSET_FETCH, "offset fetch"),
    (FIND_COORDINATOR, "find coordinator"),
    (JOIN_GROUP, "join group"),
    (HEARTBEAT, "heartbeat"),
    (CONSUMER_GROUP_HEARTBEAT, "consumer group heartbeat"),
    (LEAVE_GROUP, "leave group"),
    (SYNC_GROUP, "sync group"),
    (INIT_PRODUCER_ID, "init producer id"),
    (ADD_PARTITIONS, "add partitions"),
    (ADD_OFFSETS, "add offsets"),
    (END_TXN, "end txn"),
    (TXN_OFFSET_COMMIT, "txn offset commit"),
];
/// Requests that may arrive after the next transaction has begun.
const LATE_APIS: [i16; 5] = [PRODUCE, ADD_PARTITIONS, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT];
pub const NODES: u16 = 3;

/// Transient error codes of Produce: the broker has not written.
const TRANSIENT_PRODUCE: [i16; 5] = [5, 6, 7, 9, 19];
/// Loading, not available, not coordinator.
const TRANSIENT_COORDINATOR: [i16; 3] = [14, 15, 16];

/// Returns codes after which a request is not retried, except those that make a dead letter of an
/// output.
fn permanent(api: i16) -> &'static [i16] {
    match api {
        // Out of order, fenced, unknown producer.
        PRODUCE => &[-1, 45, 47, 59, 90],
        // Generation, member.
        HEARTBEAT | SYNC_GROUP => &[22, 25],
        // Member, member epoch.
        CONSUMER_GROUP_HEARTBEAT => &[25, 110],
        // Generation, member, rebalance.
        TXN_OFFSET_COMMIT => &[22, 25, 27, 120],
        ADD_PARTITIONS | ADD_OFFSETS => &[-1, 120],
        END_TXN => &[-1, 47, 90],
        _ => &[],
    }
}

/// An event in the group or its cluster.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A member joins, if there are fewer than three.
    Join,
    /// A member shuts down, if there are others.
    Leave,
    /// A member ends like a crash.
    Crash,
    MoveGroupCoordinator(i32),
    /// The coordinator of one of the transactional ids moves.
    MoveCoordinator(i32),
    MoveInputLeader {
        partition: i32,
        node: i32,
    },
    MoveOutputLeader {
        partition: i32,
        node: i32,
    },
    StopNode(i32),
    StartNode(i32),
    /// The topic of the inputs gets a partition.
    Grow,
}

/// Behaviour of the handler for an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handling {
    /// Number of attempts that fail first.
    pub failures: u32,
    /// Number of outputs.
    pub outputs: u32,
    /// An output that can't be written: the input becomes a dead letter instead.
    pub poison: Option<Poison>,
    pub time: Duration,
}

/// The reason why an output can't be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// It is larger than a request may be.
    TooLarge,
    /// Its topic has no such partition.
    NoPartition,
    /// It has no key, and its topic is compacted: the broker rejects it.
    NoKey,
}

impl Handling {
    pub fn becomes_dead_letter(self) -> bool {
        self.failures >= MAX_ATTEMPTS || self.poison.is_some()
    }
}

/// Number of attempts after which an input becomes a dead letter.
pub const MAX_ATTEMPTS: u32 = 3;

/// Everything that a seed decides.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub release: Release,
    pub partitions: i32,
    pub outputs: i32,
    pub records: u32,
    pub keys: u32,
    /// Pause between two written records.
    pub pause: Duration,
    pub members: usize,
    pub protocol: GroupProtocol,
    /// Each member has an instance id, and a transactional id by it.
    pub static_members: bool,
    /// Handlers get batches of up to so many records.
    pub batches: Option<usize>,
    /// Some inputs have an output that can't be written.
    has_poison: bool,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    pub heartbeat_interval: Duration,
    pub request_timeout: Duration,
    pub commit_interval: Duration,
    /// Number of records of a transaction.
    pub max_records: usize,
    max_handling_time: Duration,
    faults: Vec<(i16, FaultProfile)>,
    /// Percentage of requests of transactions that are late.
    late: u32,
    /// Percentage of delayed and of held markers.
    markers: (u32, u32),
    /// Events by the time since the start.
    pub events: Vec<(Duration, Event)>,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(mix(seed, 0));
        let partitions = rng.i32(2..=4);
        let outputs = rng.i32(1..=3);
        let release = Release::ALL[seed as usize % Release::ALL.len()];
        let is_kip_848 = release.has_versions() && rng.bool();
        Self {
            seed,
            release,
            protocol: if is_kip_848 { GroupProtocol::Consumer } else { GroupProtocol::Classic },
            // A static member that left is waited for until its session expires.
            static_members: !is_kip_848 && rng.u32(0..4) == 0,
            batches: (rng.u32(0..3) == 0).then(|| rng.usize(2..=6)),
            has_poison: rng.u32(0..3) == 0,
            partitions,
            outputs,
            records: rng.u32(60..=200),
            keys: rng.u32(2..=8),
            pause: ms(rng.u64(0..4)),
            members: rng.usize(1..=3),
            session_timeout: ms(rng.u64(1000..1300)),
            rebalance_timeout: ms(rng.u64(700..1300)),
            heartbeat_interval: ms(rng.u64(20..90)),
            request_timeout: ms(rng.u64(150..300)),
            commit_interval: ms(rng.u64(5..=20)),
            max_records: *pick(&mut rng, &[3, 10, 1000]),
            max_handling_time: ms(*pick(&mut rng, &[0, 2, 5, 20])),
            faults: faults(&mut rng),
            late: *pick(&mut rng, &[0, 0, 10, 30]),
            markers: *pick(&mut rng, &[(0, 0), (30, 0), (30, 10), (80, 10)]),
            events: events(&mut rng, partitions, outputs),
        }
    }

    /// Returns what the handler does with the input at an offset.
    pub fn handling(&self, partition: i32, offset: i64) -> Handling {
        let mut rng = Rng::with_seed(mix(self.seed ^ 0x0b5e, (partition as u64) << 32 | offset as u64));
        let failures = match rng.u32(0..20) {
            0 => MAX_ATTEMPTS,
            // A batch may have several records of a key: those behind one that is tried again overtake it.
            1 | 2 if self.batches.is_none() => rng.u32(1..MAX_ATTEMPTS),
            _ => 0,
        };
        let time = Duration::from_micros(rng.u64(0..=self.max_handling_time.as_micros() as u64));
        let outputs = rng.u32(0..=3);
        let has_poison = self.has_poison && failures < MAX_ATTEMPTS && rng.u32(0..25) == 0;
        let poison = has_poison.then(|| *pick(&mut rng, &[Poison::TooLarge, Poison::NoPartition, Poison::NoKey]));
        Handling { failures, outputs, poison, time }
    }

    /// Returns the fault of the `index`-th request of an API to a node, with its name.
    pub fn fault(&self, api: i16, node: i32, index: u32) -> Option<(String, Fault)> {
        if api == WRITE_TXN_MARKERS {
            let mut rng = Rng::with_seed(mix(self.seed ^ 0x3a1c, u64::from(index)));
            return marker_fault(&mut rng, self.markers);
        }
        let name = APIS.iter().find(|(key, _)| *key == api).map(|(_, name)| *name)?;
        if let Some(late) = self.late_fault(api, node, index) {
            return Some((format!("{name}: Hold"), late));
        }
        let profile = &self.faults.iter().find(|(key, _)| *key == api)?.1;
        let position = RequestPosition { seed: self.seed, api, node, index };
        let (kind, fault) = profile.fault(position, self.request_timeout, |kind, rng| match api {
            _ if kind == FaultKind::PermanentError => *pick(rng, permanent(api)),
            PRODUCE => *pick(rng, &TRANSIENT_PRODUCE),
            FETCH | METADATA => *pick(rng, &[5, 6, 9]),
            INIT_PRODUCER_ID | ADD_PARTITIONS | ADD_OFFSETS => *pick(rng, &[14, 15, 16, 51]),
            _ => *pick(rng, &TRANSIENT_COORDINATOR),
        })?;
        Some((format!("{name}: {kind:?}"), fault))
    }

    /// Returns the fault of a request that is served later, after its connection was lost.
    fn late_fault(&self, api: i16, node: i32, index: u32) -> Option<Fault> {
        let hash = (api as u64) << 40 | (node as u64) << 32 | u64::from(index);
        let mut rng = Rng::with_seed(mix(self.seed ^ 0x1a7e, hash));
        if !LATE_APIS.contains(&api) || index >= 30 || rng.u32(0..100) >= self.late {
            return None;
        }
        Some(if rng.bool() { Fault::Hold } else { Fault::HoldFor(ms(rng.u64(1..100))) })
    }
}

fn faults(rng: &mut Rng) -> Vec<(i16, FaultProfile)> {
    let mut all = Vec::new();
    for (api, _) in APIS {
        if rng.u32(0..100) >= 40 {
            continue;
        }
        let mut kinds = FaultKind::ALL.to_vec();
        kinds.retain(|kind| *kind != FaultKind::PermanentError || !permanent(api).is_empty());
        rng.shuffle(&mut kinds);
        kinds.truncate(rng.usize(1..=3));
        all.push((api, FaultProfile { rate: *pick(rng, &[5, 20, 50]), max_requests: rng.u32(3..40), kinds }));
    }
    all
}

fn events(rng: &mut Rng, partitions: i32, outputs: i32) -> Vec<(Duration, Event)> {
    let mut events = Vec::new();
    for _ in 0..rng.u32(1..7) {
        let node = rng.i32(0..i32::from(NODES));
        let event = match rng.u32(0..12) {
            0..3 => Event::Join,
            3 => Event::Leave,
            4 | 5 => Event::Crash,
            6 => Event::MoveGroupCoordinator(node),
            7 => Event::MoveCoordinator(node),
            8 => Event::MoveInputLeader { partition: rng.i32(0..partitions), node },
            9 => Event::Grow,
            10 => {
                let at = rng.u64(0..600);
                events.push((ms(at), Event::StopNode(node)));
                events.push((ms(at + rng.u64(30..300)), Event::StartNode(node)));
                continue;
            }
            _ => Event::MoveOutputLeader { partition: rng.i32(0..outputs), node },
        };
        events.push((ms(rng.u64(0..800)), event));
    }
    events.sort_by_key(|(at, _)| *at);
    events
}
