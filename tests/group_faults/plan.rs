//! The plan of a seed: cluster, members and their settings, events and faults.

use std::time::Duration;

use ailurus::{AssignorKind, GroupProtocol, HandlerOrdering};
use ailurus_broker::Fault;
pub use ailurus_test_support::api_keys::{
    CONSUMER_GROUP_HEARTBEAT, FETCH, FIND_COORDINATOR, HEARTBEAT, JOIN_GROUP, LEAVE_GROUP, LIST_OFFSETS, METADATA,
    OFFSET_COMMIT, OFFSET_FETCH, SYNC_GROUP,
};
use ailurus_test_support::faults::{FaultKind, FaultProfile, RequestPosition, mix, ms, pick};
use fastrand::Rng;

/// Requests of a member, with their names in the summary.
pub const APIS: [(i16, &str); 11] = [
    (FETCH, "fetch"),
    (LIST_OFFSETS, "list offsets"),
    (METADATA, "metadata"),
    (OFFSET_COMMIT, "offset commit"),
    (OFFSET_FETCH, "offset fetch"),
    (FIND_COORDINATOR, "find coordinator"),
    (JOIN_GROUP, "join group"),
    (HEARTBEAT, "heartbeat"),
    (LEAVE_GROUP, "leave group"),
    (SYNC_GROUP, "sync group"),
    (CONSUMER_GROUP_HEARTBEAT, "consumer group heartbeat"),
];
/// APIs of the group coordinator.
pub const COORDINATOR_APIS: [&str; 7] = [
    "offset commit",
    "offset fetch",
    "join group",
    "heartbeat",
    "leave group",
    "sync group",
    "consumer group heartbeat",
];
pub const NODES: u16 = 3;

/// Loading, not available, not coordinator: the broker has done nothing.
const COORDINATOR: [i16; 3] = [14, 15, 16];
/// Not leader, leader not available, replica not available.
const LEADER: [i16; 3] = [6, 5, 9];
/// Errors that make a member lose its membership, or believe so: unknown member, illegal
/// generation.
const MEMBERSHIP: [i16; 2] = [25, 22];

/// An event in the group or its cluster.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A member joins.
    Join,
    /// A member closes its consumer.
    Leave,
    /// A member crashes.
    Crash,
    /// A member's application hangs.
    Hang(Duration),
    MoveCoordinator(i32),
    MoveLeader {
        partition: i32,
        node: i32,
    },
    Stop(i32),
    Start(i32),
    /// The topic gets this many partitions.
    Grow(i32),
}

/// Everything that a seed decides.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// No member crashes, no session expires, no response is lost that the group would wait for:
    /// every record is handled once.
    pub gentle: bool,
    pub partitions: i32,
    /// Assignors of the members, in turn.
    pub assignors: Vec<Vec<AssignorKind>>,
    pub protocol: GroupProtocol,
    /// Members are processors with concurrent handlers, which sometimes fail, in this order; or
    /// else consumers that handle one record at a time.
    pub handler_ordering: Option<HandlerOrdering>,
    /// Each member has an instance id.
    pub static_members: bool,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    pub heartbeat_interval: Duration,
    pub request_timeout: Duration,
    pub members: u32,
    pub records: u32,
    /// Number of keys.
    pub keys: u32,
    /// Pause between two written records.
    pub pause: Duration,
    /// Maximum time to handle a record.
    pub max_handling_time: Duration,
    /// Percentage of record batches that are committed at once.
    pub commit_percent: u32,
    faults: Vec<(i16, FaultProfile)>,
    /// Events by the time since the start.
    pub events: Vec<(Duration, Event)>,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        // Seeds are small consecutive numbers.
        let mut rng = Rng::with_seed(mix(seed, 0));
        let gentle = rng.u32(0..5) < 2;
        let partitions = rng.i32(1..=6);
        let session_timeout = if gentle { Duration::from_secs(10) } else { ms(rng.u64(600..1500)) };
        let heartbeat_interval = ms(rng.u64(20..90));
        Self {
            seed,
            gentle,
            partitions,
            assignors: assignors(&mut rng, gentle),
            protocol: if rng.u32(0..6) == 0 { GroupProtocol::Consumer } else { GroupProtocol::Classic },
            handler_ordering: match rng.u32(0..6) {
                0 => Some(HandlerOrdering::Partition),
                1 | 2 => Some(HandlerOrdering::Key),
                _ => None,
            },
            // A static member that left is waited for until its session expires.
            static_members: !gentle && rng.u32(0..4) == 0,
            session_timeout,
            rebalance_timeout: if gentle { Duration::from_secs(10) } else { ms(rng.u64(700..1500)) },
            heartbeat_interval,
            request_timeout: if gentle { Duration::from_secs(5) } else { ms(rng.u64(150..300)) },
            members: rng.u32(1..=4),
            records: rng.u32(30..300),
            keys: rng.u32(1..20),
            pause: ms(rng.u64(0..5)),
            max_handling_time: ms(*pick(&mut rng, &[0, 0, 1, 3])),
            commit_percent: *pick(&mut rng, &[0, 10, 50, 100]),
            faults: faults(&mut rng, gentle),
            events: events(&mut rng, gentle, partitions),
        }
    }

    /// Returns the fault of the `index`-th request of an API to a node.
    pub fn fault(&self, api: i16, node: i32, index: u32) -> Option<(FaultKind, Fault)> {
        let (_, faults) = self.faults.iter().find(|(key, _)| *key == api)?;
        let position = RequestPosition { seed: self.seed, api, node, index };
        faults.fault(position, self.request_timeout, |kind, rng| match (kind, api) {
            (_, FETCH | LIST_OFFSETS | METADATA) => *pick(rng, &LEADER),
            (FaultKind::PermanentError, HEARTBEAT | SYNC_GROUP | OFFSET_COMMIT) => *pick(rng, &MEMBERSHIP),
            _ => *pick(rng, &COORDINATOR),
        })
    }
}

fn assignors(rng: &mut Rng, gentle: bool) -> Vec<Vec<AssignorKind>> {
    use AssignorKind::{CooperativeSticky, Range, RoundRobin, Sticky};
    match rng.u32(0..8) {
        0 => vec![vec![Range]],
        1 => vec![vec![RoundRobin, Range]],
        2 => vec![vec![Sticky]],
        // In the middle of a migration between protocols. Retained partitions are lost when a
        // member without cooperation joins.
        3 if !gentle => vec![vec![CooperativeSticky, Range], vec![Range]],
        4 => vec![vec![Sticky, RoundRobin], vec![RoundRobin, Sticky]],
        _ => vec![vec![CooperativeSticky, Range]],
    }
}

fn faults(rng: &mut Rng, gentle: bool) -> Vec<(i16, FaultProfile)> {
    let mut all = Vec::new();
    for (api, _) in APIS {
        if rng.u32(0..100) >= 45 {
            continue;
        }
        let mut kinds = vec![FaultKind::TransientError, FaultKind::Close, FaultKind::Delay, FaultKind::DelayResponse];
        // A group waits for a member whose JoinGroup response was lost until its session expires.
        if !gentle || [FETCH, METADATA, OFFSET_COMMIT, OFFSET_FETCH].contains(&api) {
            kinds.push(FaultKind::DropResponse);
        }
        if !gentle {
            kinds.extend([FaultKind::DelayPastTimeout, FaultKind::DelayResponsePastTimeout, FaultKind::PermanentError]);
        }
        rng.shuffle(&mut kinds);
        kinds.truncate(rng.usize(1..=3));
        let rate = *pick(rng, &[5, 20, 50]);
        all.push((api, FaultProfile { rate, max_requests: rng.u32(3..40), kinds }));
    }
    all
}

fn events(rng: &mut Rng, gentle: bool, partitions: i32) -> Vec<(Duration, Event)> {
    let mut events = Vec::new();
    for _ in 0..rng.u32(1..7) {
        let at = ms(rng.u64(0..900));
        let node = rng.i32(0..i32::from(NODES));
        let event = match rng.u32(0..12) {
            0..3 => Event::Join,
            3..5 => Event::Leave,
            5 if !gentle => Event::Crash,
            6 if !gentle => Event::Hang(ms(rng.u64(50..2500))),
            7 => Event::MoveLeader { partition: rng.i32(0..partitions), node },
            8 => Event::Grow(partitions + rng.i32(1..3)),
            9 if !gentle => {
                events.push((at + ms(rng.u64(5..400)), Event::Start(node)));
                Event::Stop(node)
            }
            _ => Event::MoveCoordinator(node),
        };
        events.push((at, event));
    }
    events.sort_by_key(|(at, _)| *at);
    events
}
