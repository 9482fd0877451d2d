//! What a seed decides: the cluster, the members and their settings, who comes and goes, the faults.

use std::time::Duration;

use ailurus::{AssignorKind, GroupProtocol, HandlerOrdering};
use ailurus_broker::Fault;
use fastrand::Rng;

use super::weather::{Kind, Place, Weather, mix, ms, pick};

pub const FETCH: i16 = 1;
pub const LIST_OFFSETS: i16 = 2;
pub const METADATA: i16 = 3;
pub const OFFSET_COMMIT: i16 = 8;
pub const OFFSET_FETCH: i16 = 9;
pub const FIND_COORDINATOR: i16 = 10;
pub const JOIN_GROUP: i16 = 11;
pub const HEARTBEAT: i16 = 12;
pub const LEAVE_GROUP: i16 = 13;
pub const SYNC_GROUP: i16 = 14;
pub const CONSUMER_GROUP_HEARTBEAT: i16 = 68;
/// The requests of a member, and what they are called in the summary.
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
/// Those that a group's coordinator serves.
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
/// Errors that make a member lose its membership, or think so: unknown member, illegal generation.
const MEMBERSHIP: [i16; 2] = [25, 22];

/// What happens to the group and its cluster.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// One more member.
    Join,
    /// A member closes its consumer.
    Leave,
    /// A member ends as in a crash.
    Die,
    /// A member's program stands still.
    Hang(Duration),
    MoveCoordinator(i32),
    MoveLeader {
        partition: i32,
        node: i32,
    },
    Stop(i32),
    Start(i32),
    /// More partitions.
    Grow(i32),
}

/// All that a seed decides.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Nobody dies, no session expires, no answer is lost that the group would wait for: every record is handled once.
    pub gentle: bool,
    pub partitions: i32,
    /// Of the members in turn.
    pub assignors: Vec<Vec<AssignorKind>>,
    pub protocol: GroupProtocol,
    /// Members are processors with handlers that run side by side and sometimes fail, in order of this; or else they are
    /// consumers that handle one record after the other.
    pub handlers: Option<HandlerOrdering>,
    /// Static members, each with an instance id of its own.
    pub fixed: bool,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    pub heartbeat_interval: Duration,
    pub request_timeout: Duration,
    pub members: u32,
    pub records: u32,
    /// Different keys.
    pub keys: u32,
    /// Between two records that are written.
    pub pause: Duration,
    /// The longest that a record takes.
    pub pace: Duration,
    /// Of 100 times that records came, how often they are committed at once.
    pub commits: u32,
    weather: Vec<(i16, Weather)>,
    /// By the time since the start.
    pub events: Vec<(Duration, Event)>,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        // The seeds are small numbers, one after the other.
        let mut r = Rng::with_seed(mix(seed, 0));
        let gentle = r.u32(0..5) < 2;
        let partitions = r.i32(1..=6);
        let session_timeout = if gentle { Duration::from_secs(10) } else { ms(r.u64(600..1500)) };
        let heartbeat_interval = ms(r.u64(20..90));
        Self {
            seed,
            gentle,
            partitions,
            assignors: assignors(&mut r, gentle),
            protocol: if r.u32(0..6) == 0 { GroupProtocol::Consumer } else { GroupProtocol::Classic },
            handlers: match r.u32(0..6) {
                0 => Some(HandlerOrdering::Partition),
                1 | 2 => Some(HandlerOrdering::Key),
                _ => None,
            },
            // One that is gone is waited for until its session ends.
            fixed: !gentle && r.u32(0..4) == 0,
            session_timeout,
            rebalance_timeout: if gentle { Duration::from_secs(10) } else { ms(r.u64(700..1500)) },
            heartbeat_interval,
            request_timeout: if gentle { Duration::from_secs(5) } else { ms(r.u64(150..300)) },
            members: r.u32(1..=4),
            records: r.u32(30..300),
            keys: r.u32(1..20),
            pause: ms(r.u64(0..5)),
            pace: ms(*pick(&mut r, &[0, 0, 1, 3])),
            commits: *pick(&mut r, &[0, 10, 50, 100]),
            weather: weather(&mut r, gentle),
            events: events(&mut r, gentle, partitions),
        }
    }

    /// What becomes of the `n`-th request of an API to a node.
    pub fn fault(&self, api: i16, node: i32, n: u32) -> Option<(Kind, Fault)> {
        let (_, weather) = self.weather.iter().find(|(key, _)| *key == api)?;
        let place = Place { seed: self.seed, api, node, n };
        weather.fault(place, self.request_timeout, |kind, r| match (kind, api) {
            (_, FETCH | LIST_OFFSETS | METADATA) => *pick(r, &LEADER),
            (Kind::ErrorThatStays, HEARTBEAT | SYNC_GROUP | OFFSET_COMMIT) => *pick(r, &MEMBERSHIP),
            _ => *pick(r, &COORDINATOR),
        })
    }
}

fn assignors(r: &mut Rng, gentle: bool) -> Vec<Vec<AssignorKind>> {
    use AssignorKind::{CooperativeSticky, Range, RoundRobin, Sticky};
    match r.u32(0..8) {
        0 => vec![vec![Range]],
        1 => vec![vec![RoundRobin, Range]],
        2 => vec![vec![Sticky]],
        // In the middle of going over from one to the other. Partitions that were kept are lost when a member comes that
        // knows no cooperation.
        3 if !gentle => vec![vec![CooperativeSticky, Range], vec![Range]],
        4 => vec![vec![Sticky, RoundRobin], vec![RoundRobin, Sticky]],
        _ => vec![vec![CooperativeSticky, Range]],
    }
}

fn weather(r: &mut Rng, gentle: bool) -> Vec<(i16, Weather)> {
    let mut all = Vec::new();
    for (api, _) in APIS {
        if r.u32(0..100) >= 45 {
            continue;
        }
        let mut kinds = vec![Kind::ErrorThatPasses, Kind::Close, Kind::Delay, Kind::DelayResponse];
        // A group waits for a member whose answer to JoinGroup was lost, as long as a session lasts.
        if !gentle || [FETCH, METADATA, OFFSET_COMMIT, OFFSET_FETCH].contains(&api) {
            kinds.push(Kind::DropResponse);
        }
        if !gentle {
            kinds.extend([Kind::DelayPastTimeout, Kind::DelayResponsePastTimeout, Kind::ErrorThatStays]);
        }
        r.shuffle(&mut kinds);
        kinds.truncate(r.usize(1..=3));
        let rate = *pick(r, &[5, 20, 50]);
        all.push((api, Weather { rate, until: r.u32(3..40), kinds }));
    }
    all
}

fn events(r: &mut Rng, gentle: bool, partitions: i32) -> Vec<(Duration, Event)> {
    let mut events = Vec::new();
    for _ in 0..r.u32(1..7) {
        let at = ms(r.u64(0..900));
        let node = r.i32(0..i32::from(NODES));
        let event = match r.u32(0..12) {
            0..3 => Event::Join,
            3..5 => Event::Leave,
            5 if !gentle => Event::Die,
            6 if !gentle => Event::Hang(ms(r.u64(50..2500))),
            7 => Event::MoveLeader { partition: r.i32(0..partitions), node },
            8 => Event::Grow(partitions + r.i32(1..3)),
            9 if !gentle => {
                events.push((at + ms(r.u64(5..400)), Event::Start(node)));
                Event::Stop(node)
            }
            _ => Event::MoveCoordinator(node),
        };
        events.push((at, event));
    }
    events.sort_by_key(|(at, _)| *at);
    events
}
