//! The plan of a seed: cluster, producers and their transactions, events and faults.

use std::time::Duration;

use ailurus::GroupProtocol;
use ailurus_broker::Fault;
pub use ailurus_test_support::api_keys::{
    ADD_OFFSETS, ADD_PARTITIONS, API_VERSIONS, END_TXN, FIND_COORDINATOR, INIT_PRODUCER_ID, METADATA, PRODUCE,
    TXN_OFFSET_COMMIT, WRITE_TXN_MARKERS,
};
use ailurus_test_support::faults::{FaultKind, FaultProfile, RequestPosition, marker_fault, mix, ms, pick};
pub use ailurus_test_support::transaction_cluster::Release;
use fastrand::Rng;

/// Requests of a transactional producer, with their names in the summary.
pub const APIS: [(i16, &str); 9] = [
    (PRODUCE, "produce"),
    (METADATA, "metadata"),
    (FIND_COORDINATOR, "find coordinator"),
    (API_VERSIONS, "connection start"),
    (INIT_PRODUCER_ID, "init producer id"),
    (ADD_PARTITIONS, "add partitions"),
    (ADD_OFFSETS, "add offsets"),
    (END_TXN, "end txn"),
    (TXN_OFFSET_COMMIT, "txn offset commit"),
];
pub const NODES: u16 = 3;

/// Transient error codes of Produce: the broker has not written.
const TRANSIENT_PRODUCE: [i16; 9] = [3, 5, 6, 7, 9, 13, 19, 20, 56];
/// Loading, not available, not coordinator, the last transaction's end is being written, timeout.
const TRANSIENT_COORDINATOR: [i16; 5] = [14, 15, 16, 51, 7];

/// Returns codes after which a request is not retried, except those that only a bug explains.
fn permanent(api: i16) -> &'static [i16] {
    match api {
        PRODUCE => &[-1, 10, 29, 45, 47, 48, 59, 87, 90, 120],
        // Topics and groups without permission, what was not attempted, an abort by the coordinator.
        ADD_PARTITIONS => &[-1, 29, 55, 120],
        ADD_OFFSETS => &[-1, 30, 120],
        // Generation, member, rebalance, metadata that is too large.
        TXN_OFFSET_COMMIT => &[-1, 12, 22, 25, 27, 30, 120],
        END_TXN => &[-1, 47, 90, 120],
        INIT_PRODUCER_ID => &[47, 90],
        _ => &[-1],
    }
}

/// Kind of faults of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// Faults of all kinds.
    Mixed,
    /// Requests that arrive after the next transaction has begun, and nothing else.
    Late,
}

/// An event in the cluster.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    MoveLeader { partition: i32, node: i32 },
    MoveCoordinator { id: usize, node: i32 },
    MoveGroupCoordinator { id: usize, node: i32 },
    SetVersion(i16),
}

/// A request or marker that is served later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LateFault {
    /// Until the test releases what is held.
    Hold,
    HoldFor,
}

/// Requests that arrive late.
#[derive(Clone, Debug)]
struct LateFaults {
    /// Percentage of requests.
    rate: u32,
    /// Number of requests of each API and node that may be late, from its first.
    max_requests: u32,
    apis: Vec<i16>,
    /// Some are served after a time.
    timed: bool,
}

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Commit,
    /// The future of the commit is dropped after this time.
    CancelledCommit(Duration),
    Abort,
    Drop,
}

#[derive(Clone, Debug)]
pub struct TransactionPlan {
    /// Partition of each record.
    pub records: Vec<i32>,
    /// Size of each value, in bytes.
    pub size: usize,
    /// Each record is acknowledged before the next is sent.
    pub one_by_one: bool,
    /// Held requests and markers are released after the first acknowledged record.
    pub releases: bool,
    /// It commits an offset of the id's group.
    pub offset: bool,
    pub pause: Duration,
    pub end: End,
}

/// A producer.
#[derive(Clone, Debug)]
pub struct OwnerPlan {
    /// Time from the start of the owner before it.
    pub start_after: Duration,
    pub transactions: Vec<TransactionPlan>,
}

/// Producers that share a transactional id, one after the other, unless it is exclusive.
#[derive(Clone, Debug)]
pub struct IdPlan {
    pub exclusive: bool,
    /// Protocol of its group, whose offsets are committed with its transactions.
    pub group: Option<GroupProtocol>,
    pub owners: Vec<OwnerPlan>,
}

/// Everything that a seed decides.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub workload: Workload,
    pub release: Release,
    /// Runs on several threads, or on one.
    pub threads: bool,
    /// The mutation: no new epoch after a request of unknown effect.
    pub keeps_epoch: bool,
    pub partitions: i32,
    pub replicas: u16,
    pub request_timeout: Duration,
    pub retry_backoff: Duration,
    pub transaction_timeout: Duration,
    pub linger: Duration,
    pub batch_size: usize,
    pub load_time: Duration,
    /// See [`persist_last_epoch`](ailurus_broker::BrokerConfig::persist_last_epoch).
    pub persists_last_epoch: bool,
    pub ids: Vec<IdPlan>,
    faults: Vec<(i16, FaultProfile)>,
    late: Option<LateFaults>,
    /// Percentage of delayed and of held markers.
    markers: (u32, u32),
    /// Percentage of appended batches with an error that leaves open whether they were.
    error_after_append: u32,
    /// Interval at which what is held is released.
    pub release_every: Duration,
    /// Events by the time since the first transaction.
    pub events: Vec<(Duration, Event)>,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(mix(seed, 0));
        let workload = if seed % 4 == 3 { Workload::Late } else { Workload::Mixed };
        let release = Release::ALL[(seed / 4) as usize % Release::ALL.len()];
        let partitions = rng.i32(1..=5);
        let request_timeout = ms(rng.u64(100..180));
        let ids: Vec<_> = (0..rng.usize(1..=3)).map(|_| id(&mut rng, workload, partitions)).collect();
        let is_mixed = workload == Workload::Mixed;
        Self {
            seed,
            workload,
            release,
            threads: rng.u32(0..4) == 0,
            keeps_epoch: false,
            partitions,
            replicas: rng.u16(1..=NODES),
            request_timeout,
            retry_backoff: ms(rng.u64(1..15)),
            transaction_timeout: ms(rng.u64(1000..1300)),
            linger: if rng.bool() { Duration::ZERO } else { ms(rng.u64(1..8)) },
            batch_size: *pick(&mut rng, &[1 << 10, 16 << 10]),
            load_time: if is_mixed && rng.bool() { ms(rng.u64(1..20)) } else { Duration::ZERO },
            persists_last_epoch: !is_mixed || rng.u32(0..4) > 0,
            faults: if is_mixed { faults(&mut rng) } else { Vec::new() },
            late: (!is_mixed || rng.u32(0..3) == 0).then(|| late(&mut rng, workload)),
            markers: *pick(&mut rng, &[(0, 0), (30, 0), (30, 10), (80, 10)]),
            error_after_append: if is_mixed { *pick(&mut rng, &[0, 0, 0, 20]) } else { 0 },
            release_every: ms(rng.u64(20..200)),
            events: if is_mixed { events(&mut rng, partitions, ids.len(), release) } else { Vec::new() },
            ids,
        }
    }

    /// Returns the plan of a seed of the mutation test: every end of a transaction is late, and the
    /// next transaction has several partitions.
    pub fn of_mutation(seed: u64, release: Release, keeps_epoch: bool) -> Self {
        let mut rng = Rng::with_seed(mix(seed, 1));
        let transaction = |n: usize| TransactionPlan {
            records: vec![0, 1, 2, 0],
            size: 50,
            one_by_one: true,
            releases: true,
            offset: false,
            pause: Duration::ZERO,
            end: if n % 2 == 0 { End::Commit } else { End::Abort },
        };
        let owner = OwnerPlan { start_after: Duration::ZERO, transactions: (0..6).map(transaction).collect() };
        Self {
            workload: Workload::Late,
            release,
            keeps_epoch,
            partitions: 3,
            ids: vec![IdPlan { exclusive: rng.bool(), group: None, owners: vec![owner] }],
            faults: Vec::new(),
            late: Some(LateFaults { rate: 50, max_requests: u32::MAX, apis: vec![END_TXN], timed: false }),
            markers: (0, 0),
            // Only in the next transaction, after its first record.
            release_every: Duration::from_secs(3600),
            events: Vec::new(),
            ..Self::of(seed * 4 + 3)
        }
    }

    /// Returns the fault of the `index`-th request of an API to a node, with its name.
    pub fn fault(&self, api: i16, node: i32, index: u32) -> Option<(String, Fault)> {
        if api == WRITE_TXN_MARKERS {
            return marker_fault(&mut self.rng(1, WRITE_TXN_MARKERS, 0, index), self.markers);
        }
        let name = APIS.iter().find(|(key, _)| *key == api).map(|(_, name)| *name)?;
        if let Some((kind, fault)) = self.late_fault(api, node, index) {
            return Some((format!("{name}: {kind:?}"), fault));
        }
        if api == PRODUCE && self.error_after_append > 0 {
            let mut rng = self.rng(3, api, node, index);
            if rng.u32(0..100) < self.error_after_append && index < 30 {
                return Some(("produce: ErrorAfterAppend".into(), Fault::ErrorAfterAppend(*pick(&mut rng, &[7, 20]))));
            }
        }
        let (kind, fault) = self.request_fault(api, node, index)?;
        Some((format!("{name}: {kind:?}"), fault))
    }

    fn rng(&self, what: u64, api: i16, node: i32, index: u32) -> Rng {
        let hash = what << 48 | (api as u64) << 40 | (node as u64 & 0xff) << 32 | u64::from(index);
        Rng::with_seed(mix(self.seed, hash))
    }

    fn late_fault(&self, api: i16, node: i32, index: u32) -> Option<(LateFault, Fault)> {
        let late = self.late.as_ref().filter(|late| late.apis.contains(&api) && index < late.max_requests)?;
        let mut rng = self.rng(2, api, node, index);
        if rng.u32(0..100) >= late.rate {
            return None;
        }
        Some(match rng.u32(0..3) {
            0 if late.timed => (LateFault::HoldFor, Fault::HoldFor(ms(rng.u64(1..100)))),
            _ => (LateFault::Hold, Fault::Hold),
        })
    }

    fn request_fault(&self, api: i16, node: i32, index: u32) -> Option<(FaultKind, Fault)> {
        let profile = &self.faults.iter().find(|(key, _)| *key == api)?.1;
        let position = RequestPosition { seed: self.seed, api, node, index };
        profile.fault(position, self.request_timeout, |kind, rng| match (kind, api) {
            (FaultKind::PermanentError, _) => *pick(rng, permanent(api)),
            (_, PRODUCE) => *pick(rng, &TRANSIENT_PRODUCE),
            (_, METADATA | API_VERSIONS) => *pick(rng, &[-1, 7]),
            _ => *pick(rng, &TRANSIENT_COORDINATOR),
        })
    }
}

fn id(rng: &mut Rng, workload: Workload, partitions: i32) -> IdPlan {
    let exclusive = rng.u32(0..3) == 0;
    // Owners after the first fence the one before.
    let owners = if workload == Workload::Mixed { rng.usize(1..=3) } else { 1 };
    let owner = |rng: &mut Rng| OwnerPlan {
        start_after: ms(rng.u64(0..150)),
        transactions: (0..rng.u32(3..9)).map(|_| transaction(rng, workload, partitions)).collect(),
    };
    let group = match rng.u32(0..4) {
        0 => Some(GroupProtocol::Classic),
        1 => Some(GroupProtocol::Auto),
        _ => None,
    };
    IdPlan { exclusive, group, owners: (0..owners).map(|_| owner(rng)).collect() }
}

fn transaction(rng: &mut Rng, workload: Workload, partitions: i32) -> TransactionPlan {
    let end = match rng.u32(0..20) {
        0..5 => End::Abort,
        5 => End::Drop,
        6..8 => End::CancelledCommit(ms(rng.u64(0..5))),
        _ => End::Commit,
    };
    TransactionPlan {
        records: (0..rng.u32(1..=8)).map(|_| rng.i32(0..partitions)).collect(),
        size: *pick(rng, &[40, 40, 200, 1200]),
        one_by_one: rng.bool(),
        releases: workload == Workload::Late && rng.u32(0..4) > 0,
        offset: rng.bool(),
        // Rarely longer than the transaction timeout.
        pause: if rng.u32(0..100) == 0 { ms(1400) } else { ms(*pick(rng, &[0, 0, 0, 3, 20])) },
        end,
    }
}

fn faults(rng: &mut Rng) -> Vec<(i16, FaultProfile)> {
    let mut all = Vec::new();
    for (api, _) in APIS {
        if rng.u32(0..100) >= 40 {
            continue;
        }
        let mut kinds = FaultKind::ALL.to_vec();
        rng.shuffle(&mut kinds);
        kinds.truncate(rng.usize(1..=3));
        if matches!(api, INIT_PRODUCER_ID | FIND_COORDINATOR) && rng.u32(0..5) > 0 {
            // A permanent error ends the producer.
            kinds.retain(|k| *k != FaultKind::PermanentError);
            kinds.push(FaultKind::TransientError);
        }
        all.push((api, FaultProfile { rate: *pick(rng, &[5, 20, 50]), max_requests: rng.u32(3..40), kinds }));
    }
    all
}

fn late(rng: &mut Rng, workload: Workload) -> LateFaults {
    let mut apis = vec![PRODUCE, END_TXN, ADD_PARTITIONS, ADD_OFFSETS, TXN_OFFSET_COMMIT, INIT_PRODUCER_ID];
    match workload {
        Workload::Late => apis.truncate(rng.usize(2..=6)),
        Workload::Mixed => {
            rng.shuffle(&mut apis);
            apis.truncate(rng.usize(1..=3));
        }
    }
    LateFaults { rate: *pick(rng, &[10, 30, 50]), max_requests: rng.u32(10..60), apis, timed: true }
}

fn events(rng: &mut Rng, partitions: i32, ids: usize, release: Release) -> Vec<(Duration, Event)> {
    let mut events = Vec::new();
    let node = |rng: &mut Rng| rng.i32(0..i32::from(NODES));
    if rng.bool() {
        for _ in 0..rng.u32(1..6) {
            let moved = Event::MoveLeader { partition: rng.i32(0..partitions), node: node(rng) };
            events.push((ms(rng.u64(0..200)), moved));
        }
    }
    if rng.bool() {
        for _ in 0..rng.u32(1..6) {
            let id = rng.usize(0..ids);
            let moved = match rng.u32(0..4) {
                0 => Event::MoveGroupCoordinator { id, node: node(rng) },
                _ => Event::MoveCoordinator { id, node: node(rng) },
            };
            events.push((ms(rng.u64(0..200)), moved));
        }
    }
    if release.has_versions() && rng.bool() {
        for _ in 0..rng.u32(1..5) {
            events.push((ms(rng.u64(0..200)), Event::SetVersion(rng.i16(0..=2))));
        }
    }
    events.sort_by_key(|(at, _)| *at);
    events
}
