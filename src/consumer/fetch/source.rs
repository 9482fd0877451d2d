//! The partitions that the next fetch of a broker names, and the size of its response, without
//! I/O.
//!
//! Neither wall time nor CPU may grow with the number of partitions, and one bound on memory holds
//! for all of them:
//!
//! - A partition that is *behind* (its last response reported more records, or there was none
//!   yet) is fetched by a request that names as many of them as fill the response, the one
//!   served longest ago first. Each may fill `partition_fetch_bytes`: small equal shares would
//!   bring one batch at a time, since a broker exceeds the limit of a partition by one batch
//!   only for the first partition of a response.
//! - The others have *caught up* and are polled through a fetch session: the request names only
//!   those that changed. While some are behind, such polls do not wait and take a ninth of the
//!   time at most.
//! - Up to [`SESSIONLESS_PARTITIONS`] partitions, all of them are named in each request: a
//!   session would save nothing.
//!
//! A response may bring a third of the budget, less what records and other fetches take. One of a
//! distant broker may bring all of it, and more of each partition; the next fetch from there waits
//! a moment for the records of the last one to be dropped, since its size makes up for the wait. A
//! partition whose records exceed its equal share of the budget is left out until they are dropped,
//! so a slow handler takes no memory from the others beyond what one response brought. Once the
//! budget is used up, a partition without records in memory may still fetch its share, up to twice
//! the budget in total: the others go on whatever the slow ones take.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::partition::{PartitionState, Position, SentFetch, SessionEntry};
use super::planner::{FetchFrom, FetchPlanner, PartitionRequest, Plan};
use super::session::{FetchMetadata, Session};
use crate::cluster::DISTANT_ROUND_TRIP;
use crate::consumer::lease::Lease;
use crate::consumer::memory::Budget;
use crate::record::TopicPartition;

/// Maximum number of partitions that are all named in each request.
const SESSIONLESS_PARTITIONS: usize = 16;
/// Maximum wait of a fetch at the broker while partitions that it leaves out may become ready.
const SHORT_WAIT: Duration = Duration::from_millis(50);
/// Ratio of the time that fetches of partitions behind take to that of the polls between them.
const POLL_RATIO: u32 = 8;
/// Factor on `partition_fetch_bytes` for a distant broker.
const FAR_BYTES_FACTOR: usize = 4;
/// Divisor of the fastest round trip: the time that a fetch from a distant broker waits for memory.
const FAR_WAIT_DIVISOR: u32 = 4;
/// Minimum size to fetch of a partition, however little memory is left: requests have a cost too.
const MIN_PARTITION_BYTES: usize = 4 << 10;

/// A fetch request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchPlan {
    /// Partitions to name, in this order.
    pub(crate) requests: Vec<PartitionRequest<FetchFrom>>,
    /// Partitions to remove from the session.
    pub(crate) forgotten: Vec<TopicPartition>,
    pub(crate) session: FetchMetadata,
    /// Maximum time that the broker may wait for records.
    pub(crate) wait: Duration,
    /// Maximum size of the response, except for a single batch that is larger.
    pub(crate) max_bytes: usize,
}

/// A broker that partitions are fetched from.
#[derive(Debug, Default)]
pub(super) struct Source {
    session: Session,
    /// Partitions in the session that are no longer fetched from this broker.
    forgotten: Vec<TopicPartition>,
    /// Bytes of the budget reserved for the response in flight.
    reserved: usize,
    in_flight: Option<InFlightFetch>,
    /// Time of the next session poll while some partitions are behind.
    poll_due: Option<Instant>,
    /// Fastest round trip of any request.
    min_round_trip: Option<Duration>,
    /// Time of the last fetch response.
    responded_at: Option<Instant>,
}

/// A fetch in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct InFlightFetch {
    planned: Instant,
    kind: FetchKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FetchKind {
    /// Names its partitions, without a session.
    Listed,
    /// Polls the session, and waits for records.
    Poll,
    /// Polls the session between fetches of partitions that are behind, without waiting.
    QuickPoll,
}

impl Source {
    /// Removes a partition from the session with the next poll.
    pub(super) fn forget(&mut self, partition: TopicPartition) {
        self.forgotten.push(partition);
    }

    fn on_round_trip(&mut self, time: Duration) {
        self.min_round_trip = Some(self.min_round_trip.map_or(time, |fastest| fastest.min(time)));
    }

    /// Returns the fastest round trip if the broker is distant.
    fn far_round_trip(&self) -> Option<Duration> {
        self.min_round_trip.filter(|time| *time >= DISTANT_ROUND_TRIP)
    }

    /// Plans a poll of all partitions that have caught up, through the session. Returns also those
    /// to remove from other brokers' sessions.
    fn poll(
        &mut self,
        survey: Survey<'_>,
        broker: i32,
        bounds: FetchBounds,
    ) -> (FetchPlan, Vec<(i32, TopicPartition)>) {
        let is_new = self.session.is_new();
        let mut forgotten = std::mem::take(&mut self.forgotten);
        for Candidate { name, state, .. } in survey.behind.into_iter().chain(survey.stale) {
            if state.session_entry.take_if(|entry| entry.broker == broker).is_some() {
                forgotten.push(name.clone());
            }
        }
        if is_new {
            forgotten.clear(); // a new session is empty
        }
        let ratio = average(survey.caught_up.iter().map(|c| c.state.decode_ratio_16ths));
        let (mut requests, mut elsewhere) = (Vec::new(), Vec::new());
        for mut caught_up in survey.caught_up {
            let Position::At(offset) = caught_up.state.position else { continue };
            // Independent of the free memory: otherwise each change of it would name all partitions again.
            let what = FetchFrom { offset, max_bytes: bounds.fetch_bytes };
            let entry = SessionEntry { broker, leader_epoch: caught_up.state.leader_epoch, what };
            let before = caught_up.state.session_entry.replace(entry);
            if before == Some(entry) && !is_new {
                caught_up.state.on_fetch_sent(SentFetch {
                    broker,
                    position_version: caught_up.state.position_version,
                    what,
                });
                continue;
            }
            let other = before.filter(|before| before.broker != broker);
            elsewhere.extend(other.map(|other| (other.broker, caught_up.name.clone())));
            requests.push(caught_up.request(broker, what));
        }
        if !forgotten.is_empty() {
            // A partition that was removed and added again is only named: a broker removes after it has added.
            let named: HashSet<_> = requests.iter().map(|request| &request.lease.partition).collect();
            forgotten.retain(|p| !named.contains(p));
        }
        let max_bytes = bounds.response(ratio).min(bounds.max_bytes);
        (FetchPlan { requests, forgotten, session: self.session.next(), wait: bounds.wait, max_bytes }, elsewhere)
    }

    /// Reserves memory for the next response: more where records are known to wait.
    fn reserve(&mut self, budget: &mut Budget, brokers: usize, behind: bool) -> usize {
        self.on_fetch_done(budget);
        let limit = budget.limit();
        let most = if self.far_round_trip().is_some() { limit } else { limit / 3 };
        // Brokers without records may all get some at once.
        let most = if behind { most } else { most.min(limit / (2 * brokers)) };
        let least = limit / (8 * brokers);
        self.reserved = most.min(budget.free().max(least)).max(1);
        budget.reserve(self.reserved);
        self.reserved
    }

    /// Ends the fetch in flight, whatever its outcome.
    pub(super) fn on_fetch_done(&mut self, budget: &mut Budget) -> Option<InFlightFetch> {
        budget.release(std::mem::take(&mut self.reserved));
        self.in_flight.take()
    }
}

/// Memory limits as of now.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemoryLimits {
    /// Equal share of the budget for each partition.
    pub(super) share: usize,
    /// Bytes left of the budget.
    pub(super) free: usize,
    /// True if twice the budget is used up.
    pub(super) exhausted: bool,
}

/// Role of a partition in the next fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    /// Left out before this time or a change.
    NotReady(Option<Instant>),
    /// Has or may have more records; up to this many bytes of memory.
    Behind(usize),
    /// Its end was reached.
    CaughtUp,
}

fn readiness_of(state: &PartitionState, now: Instant, limits: MemoryLimits) -> Readiness {
    let room = state.available_bytes(limits);
    match state.position {
        Position::At(offset) if state.is_ready(now) && room > 0 => match !state.has_response || state.end > offset {
            true => Readiness::Behind(room),
            false => Readiness::CaughtUp,
        },
        _ => Readiness::NotReady(state.backoff_until(now)),
    }
}

/// A partition that the next fetch may name.
struct Candidate<'a> {
    name: &'a TopicPartition,
    state: &'a mut PartitionState,
    /// Bytes of memory that it may bring.
    room: usize,
}

impl Candidate<'_> {
    fn request(&mut self, broker: i32, what: FetchFrom) -> PartitionRequest<FetchFrom> {
        self.state.on_fetch_sent(SentFetch { broker, position_version: self.state.position_version, what });
        self.state.request(self.name, what)
    }
}

/// Partitions by their role in the next fetch of a broker.
#[derive(Default)]
struct Survey<'a> {
    behind: Vec<Candidate<'a>>,
    caught_up: Vec<Candidate<'a>>,
    /// Others in the broker's session.
    stale: Vec<Candidate<'a>>,
    left_out: bool,
    /// Time at which the first of those left out may be ready.
    until: Option<Instant>,
}

impl<'a> Survey<'a> {
    fn of(
        partitions: &'a mut BTreeMap<TopicPartition, PartitionState>,
        broker: i32,
        now: Instant,
        limits: MemoryLimits,
    ) -> Self {
        let mut survey = Self::default();
        for (name, state) in partitions {
            let readiness = if state.is_fetched_from(broker) { Some(readiness_of(state, now, limits)) } else { None };
            let (list, room) = match readiness {
                Some(Readiness::Behind(room)) => (&mut survey.behind, room),
                Some(Readiness::CaughtUp) => (&mut survey.caught_up, state.available_bytes(limits)),
                Some(Readiness::NotReady(until)) => {
                    survey.left_out = true;
                    survey.until = survey.until.into_iter().chain(until).min();
                    (&mut survey.stale, 0)
                }
                None => (&mut survey.stale, 0),
            };
            if matches!(readiness, Some(Readiness::Behind(_) | Readiness::CaughtUp)) || state.is_in_session(broker) {
                list.push(Candidate { name, state, room });
            }
        }
        survey
    }
}

/// Bounds of one fetch.
#[derive(Debug, Clone, Copy)]
struct FetchBounds {
    /// Memory of the response.
    memory: usize,
    /// Bytes on the wire of each partition's part.
    fetch_bytes: usize,
    /// Bytes on the wire of the response.
    max_bytes: usize,
    wait: Duration,
}

impl FetchBounds {
    /// Returns the bytes to request where a byte on the wire takes `ratio` sixteenths of one in
    /// memory.
    fn response(self, ratio: usize) -> usize {
        (self.memory * 16 / ratio).max(MIN_PARTITION_BYTES)
    }
}

impl FetchPlanner {
    /// Plans a fetch of the partitions whose position is known.
    pub(super) fn plan_fetch(&mut self, broker: i32, now: Instant) -> Plan {
        let limits = self.limits();
        let brokers = self.sources.len().max(1);
        let source = self.sources.entry(broker).or_default();
        let survey = Survey::of(&mut self.partitions, broker, now, limits);
        let (behind, caught_up) = (survey.behind.len(), survey.caught_up.len());
        if behind + caught_up == 0 {
            return Plan::Wait(survey.until);
        }
        if behind > 0 && limits.free < self.budget.limit() {
            // A small fetch now costs a whole round trip; the records of the last one may be dropped before half of it.
            let waited =
                source.responded_at.zip(source.far_round_trip()).map(|(at, distance)| at + distance / FAR_WAIT_DIVISOR);
            if let Some(until) = waited.filter(|until| *until > now) {
                return Plan::Wait(Some(until));
            }
        }
        let few = behind + caught_up <= SESSIONLESS_PARTITIONS;
        let kind = match (behind, caught_up) {
            _ if few => FetchKind::Listed,
            (0, _) => FetchKind::Poll,
            (_, 1..) if source.poll_due.is_none_or(|at| at <= now) => FetchKind::QuickPoll,
            _ => FetchKind::Listed,
        };
        let wait = match kind {
            FetchKind::QuickPoll => Duration::ZERO,
            _ if survey.left_out || !few && kind == FetchKind::Listed => self.max_wait.min(SHORT_WAIT),
            _ => self.max_wait,
        };
        let memory = source.reserve(&mut self.budget, brokers, behind > 0 && kind == FetchKind::Listed);
        let bounds = FetchBounds { memory, fetch_bytes: self.fetch_bytes, max_bytes: self.max_bytes, wait };
        source.in_flight = Some(InFlightFetch { planned: now, kind });
        Plan::Fetch(match kind {
            FetchKind::Listed => {
                let factor = if source.far_round_trip().is_some() { FAR_BYTES_FACTOR } else { 1 };
                let bounds = FetchBounds { fetch_bytes: self.fetch_bytes.saturating_mul(factor), ..bounds };
                list(survey, few, broker, self.bytes_per_offset, bounds)
            }
            FetchKind::Poll | FetchKind::QuickPoll => {
                let (plan, elsewhere) = source.poll(survey, broker, bounds);
                for (other, partition) in elsewhere {
                    if let Some(source) = self.sources.get_mut(&other) {
                        source.forget(partition);
                    }
                }
                plan
            }
        })
    }

    /// Handles a fetch response with its error code, its session id and `bytes` of records. Returns
    /// false if it is to be ignored and the same requested again at once.
    pub(crate) fn on_response(&mut self, broker: i32, now: Instant, code: i16, session: i32, bytes: usize) -> bool {
        let Some(source) = self.sources.get_mut(&broker) else { return false };
        let Some(InFlightFetch { planned, kind }) = source.on_fetch_done(&mut self.budget) else { return false };
        let took = now.saturating_duration_since(planned);
        if kind == FetchKind::QuickPoll {
            source.poll_due = Some(now + took * POLL_RATIO);
        }
        source.responded_at = Some(now);
        source.on_round_trip(took);
        let counts = kind == FetchKind::Listed || source.session.on_response(code, session);
        if code == 0 && kind == FetchKind::Listed && bytes == 0 {
            // The broker reported more records and sent none: only a poll finds out when it has some.
            for state in self.partitions.values_mut().filter(|state| state.was_last_fetched_from(broker)) {
                state.end = i64::MIN;
            }
        }
        counts
    }

    /// Records the round trip of a small response, which shows how distant a broker is; a large one
    /// takes its time from a near broker, too.
    pub(crate) fn on_round_trip(&mut self, broker: i32, time: Duration) {
        if let Some(source) = self.sources.get_mut(&broker) {
            source.on_round_trip(time);
        }
    }

    /// Ends a fetch without a response: the content of its session is unknown from now on.
    pub(crate) fn on_failure(&mut self, broker: i32) {
        if let Some(source) = self.sources.get_mut(&broker) {
            source.on_fetch_done(&mut self.budget);
            source.session.on_failure();
        }
    }

    /// Returns what the broker was last requested to fetch of a partition, unless the position was
    /// moved or another request replaced it.
    pub(crate) fn current_request(
        &self,
        broker: i32,
        partition: &TopicPartition,
    ) -> Option<PartitionRequest<FetchFrom>> {
        let state = self.partitions.get(partition)?;
        let sent =
            state.last_fetch.filter(|sent| sent.broker == broker && sent.position_version == state.position_version)?;
        Some(state.request(partition, sent.what))
    }

    /// Allows all partitions in flight at a broker to be fetched again. Returns them.
    pub(crate) fn clear_in_flight_of(&mut self, broker: i32) -> Vec<Lease> {
        let sent =
            self.partitions.iter_mut().filter(|(_, state)| state.in_flight && state.was_last_fetched_from(broker));
        sent.map(|(name, state)| {
            state.in_flight = false;
            Lease { partition: name.clone(), epoch: state.epoch }
        })
        .collect()
    }
}

/// Plans a fetch without a session: of all partitions, or of as many that are behind as fill the
/// response.
fn list(survey: Survey<'_>, all: bool, broker: i32, bytes_per_offset: usize, bounds: FetchBounds) -> FetchPlan {
    let mut candidates = survey.behind;
    if all {
        candidates.extend(survey.caught_up);
    }
    let max_bytes = bounds.response(average(candidates.iter().map(|c| c.state.decode_ratio_16ths)));
    // Served longest ago first. A heap orders only the few that are named of many.
    let mut order: BinaryHeap<_> = (0..).zip(&candidates).map(|(i, c)| Reverse((c.state.last_served, i))).collect();
    let (mut requests, mut expected) = (Vec::new(), 0);
    while let Some(Reverse((_, i))) = order.pop().filter(|_| all || expected < 2 * max_bytes) {
        let Some(candidate) = candidates.get_mut(i) else { break };
        let Position::At(offset) = candidate.state.position else { continue };
        let most =
            (candidate.room * 16 / candidate.state.decode_ratio_16ths).max(MIN_PARTITION_BYTES).min(bounds.fetch_bytes);
        expected += candidate.state.backlog_bytes(offset, bytes_per_offset).min(most);
        requests.push(candidate.request(broker, FetchFrom { offset, max_bytes: most }));
    }
    let (session, max_bytes) = (FetchMetadata::SESSIONLESS, max_bytes.min(bounds.max_bytes));
    FetchPlan { requests, forgotten: Vec::new(), session, wait: bounds.wait, max_bytes }
}

/// Returns the average, at least 16.
fn average(ratios: impl ExactSizeIterator<Item = usize>) -> usize {
    let n = ratios.len().max(1);
    (ratios.sum::<usize>() / n).max(16)
}

#[cfg(test)]
mod tests;
