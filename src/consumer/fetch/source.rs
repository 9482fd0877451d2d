//! Which partitions the next fetch of a broker names, and how much its response may bring, without I/O.
//!
//! Neither wall time nor CPU may grow with the number of partitions, and the memory has one bound for all of them. So:
//!
//! - A partition that is *behind* (its last response told of more records, or there was none yet) is fetched by a request that
//!   names as many of them as fill the response, the one served longest ago first. Each may fill `partition_fetch_bytes`:
//!   small equal shares would bring one batch at a time, since a broker sends a batch beyond the limit of its partition only for
//!   the first partition of a response.
//! - The others are polled through a fetch session, where the broker remembers them: the request names those that changed.
//!   While some are behind, such polls do not wait and take a ninth of the time at most.
//! - Up to [`SESSIONLESS_PARTITIONS`] partitions, all of them are named each time: a session would save nothing.
//!
//! A response may bring a third of the budget, less what records hold and other fetches may bring. One of a broker that is far
//! away may bring all of it, and more of each partition; the next fetch from there waits a moment for the records of the last one
//! to be dropped, since its size makes up for that. A partition whose records exceed its equal share of the budget is left out until they are dropped, so a slow handler
//! takes no room from the others beyond what one response brought. Once the budget is used up, a partition that holds nothing may
//! still fetch its share, up to twice the budget in total: whatever the slow ones hold, the others go on.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::time::{Duration, Instant};

use super::partition::{PartitionState, Position, SentFetch, SessionEntry};
use super::planner::{FetchFrom, FetchPlanner, PartitionRequest, Plan};
use super::session::{FetchMetadata, Session};
use crate::cluster::DISTANT_ROUND_TRIP;
use crate::consumer::lease::Lease;
use crate::consumer::memory::Budget;
use crate::record::TopicPartition;

/// Number of partitions that are named each time.
const SESSIONLESS_PARTITIONS: usize = 16;
/// How long a broker may hold a fetch while partitions that are left out of it wait for their turn.
const SHORT_WAIT: Duration = Duration::from_millis(50);
/// Fetches of partitions that are behind take this many times as long as the polls between them.
const POLL_RATIO: u32 = 8;
/// From a broker that is far away, a response brings this many times `partition_fetch_bytes` of a partition at most.
const FAR_BYTES_FACTOR: usize = 4;
/// Part of the fastest response's time for which a fetch from a broker far away waits for memory.
const FAR_WAIT_DIVISOR: u32 = 4;
/// A partition asks for no less, however little room there is: requests have a price too.
const MIN_PARTITION_BYTES: usize = 4 << 10;

/// What a fetch request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchPlan {
    /// Partitions to name.
    pub(crate) requests: Vec<PartitionRequest<FetchFrom>>,
    /// Partitions that the session is to forget.
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
    /// Partitions that the session remembers and that left the planner or the broker.
    forgotten: Vec<TopicPartition>,
    /// Bytes of the budget that the response to the fetch in flight may take.
    reserved: usize,
    in_flight: Option<InFlightFetch>,
    /// When the session may be polled though some partitions are behind.
    poll_due: Option<Instant>,
    /// Time of the fastest response of any kind, and when the last fetch had its response.
    min_round_trip: Option<Duration>,
    responded_at: Option<Instant>,
}

/// A fetch that was planned and has no response yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct InFlightFetch {
    planned: Instant,
    kind: FetchKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FetchKind {
    /// Names its partitions, outside of sessions.
    Listed,
    /// Polls the session, and waits for records.
    Poll,
    /// Polls the session between fetches of partitions that are behind.
    QuickPoll,
}

impl Source {
    /// A partition that the session remembers is not to be polled any more.
    pub(super) fn forget(&mut self, partition: TopicPartition) {
        self.forgotten.push(partition);
    }

    fn on_round_trip(&mut self, time: Duration) {
        self.min_round_trip = Some(self.min_round_trip.map_or(time, |fastest| fastest.min(time)));
    }

    /// The time of the fastest response, of any kind, if the broker is far away.
    fn far_round_trip(&self) -> Option<Duration> {
        self.min_round_trip.filter(|time| *time >= DISTANT_ROUND_TRIP)
    }

    /// A poll of all partitions whose end was reached, through the session. Returns also those that other brokers' sessions are to
    /// forget.
    fn poll(
        &mut self,
        survey: Survey<'_>,
        broker: i32,
        bounds: FetchBounds,
    ) -> (FetchPlan, Vec<(i32, TopicPartition)>) {
        let begins = self.session.is_new();
        let mut forgotten = std::mem::take(&mut self.forgotten);
        for Candidate { name, state, .. } in survey.behind.into_iter().chain(survey.stale) {
            if state.session_entry.take_if(|told| told.broker == broker).is_some() {
                forgotten.push(name.clone());
            }
        }
        if begins {
            forgotten.clear(); // a new session remembers nothing
        }
        let ratio = average(survey.caught_up.iter().map(|c| c.state.decode_ratio_16ths));
        let (mut requests, mut elsewhere) = (Vec::new(), Vec::new());
        for mut caught_up in survey.caught_up {
            let Position::At(offset) = caught_up.state.position else { continue };
            // The same each time, whatever room there is: else all would have to be named again when it changes.
            let what = FetchFrom { offset, max_bytes: bounds.fetch_bytes };
            let told = SessionEntry { broker, leader_epoch: caught_up.state.leader_epoch, what };
            let before = caught_up.state.session_entry.replace(told);
            if before == Some(told) && !begins {
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
            // A partition that left and came back is only named: a broker forgets after it has added.
            let named: HashSet<_> = requests.iter().map(|request| &request.lease.partition).collect();
            forgotten.retain(|p| !named.contains(p));
        }
        let max_bytes = bounds.response(ratio).min(bounds.max_bytes);
        (FetchPlan { requests, forgotten, session: self.session.next(), wait: bounds.wait, max_bytes }, elsewhere)
    }

    /// Reserves memory for the response to the next fetch: the more, the likelier it is that records wait.
    fn reserve(&mut self, budget: &mut Budget, brokers: usize, behind: bool) -> usize {
        self.on_fetch_done(budget);
        let limit = budget.limit();
        let most = if self.far_round_trip().is_some() { limit } else { limit / 3 };
        // Brokers that have nothing to send may all have something at once.
        let most = if behind { most } else { most.min(limit / (2 * brokers)) };
        let least = limit / (8 * brokers);
        self.reserved = most.min(budget.free().max(least)).max(1);
        budget.reserve(self.reserved);
        self.reserved
    }

    /// The fetch in flight is over, whatever came of it.
    pub(super) fn on_fetch_done(&mut self, budget: &mut Budget) -> Option<InFlightFetch> {
        budget.release(std::mem::take(&mut self.reserved));
        self.in_flight.take()
    }
}

/// How much a partition may hold, as of now.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemoryLimits {
    /// Equal share of the budget.
    pub(super) share: usize,
    /// Bytes left of the budget.
    pub(super) free: usize,
    /// Whether even twice the budget is used up.
    pub(super) exhausted: bool,
}

/// What the next fetch may do with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    /// Not named before this time or a change.
    NotReady(Option<Instant>),
    /// Records wait, or may wait; at most so many bytes of memory.
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

/// Partitions by what the next fetch of a broker may do with them, each judged once.
#[derive(Default)]
struct Survey<'a> {
    behind: Vec<Candidate<'a>>,
    caught_up: Vec<Candidate<'a>>,
    /// Others that the broker's session remembers.
    stale: Vec<Candidate<'a>>,
    left_out: bool,
    /// When the first of those left out may be named.
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
    /// Of the response, in memory.
    memory: usize,
    /// Of each partition's part of it, on the wire.
    fetch_bytes: usize,
    /// Of the response, on the wire.
    max_bytes: usize,
    wait: Duration,
}

impl FetchBounds {
    /// Number of bytes to ask for where a fetched byte takes `ratio` sixteenths of one in memory.
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
            // A small fetch now would cost a round trip, and the records of the last one may be dropped before it is half over.
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

    /// A response to a broker's fetch has come, with the response's error code and session id and `bytes` of records. Returns
    /// whether it counts: if not, the same is asked for once more, at once.
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
            // Whatever the broker told of more records, it has none to give: only a poll finds out when it has.
            for state in self.partitions.values_mut().filter(|state| state.was_last_fetched_from(broker)) {
                state.end = i64::MIN;
            }
        }
        counts
    }

    /// A round trip to a broker took this long. Those of small responses tell how far away it is: a large one takes its time from a
    /// broker next door, too.
    pub(crate) fn on_round_trip(&mut self, broker: i32, time: Duration) {
        if let Some(source) = self.sources.get_mut(&broker) {
            source.on_round_trip(time);
        }
    }

    /// No response comes to a broker's fetch: what its session remembers is not known any more.
    pub(crate) fn on_failure(&mut self, broker: i32) {
        if let Some(source) = self.sources.get_mut(&broker) {
            source.on_fetch_done(&mut self.budget);
            source.session.on_failure();
        }
    }

    /// Returns what a broker was asked for a partition, unless another request has taken its place.
    pub(crate) fn current_request(
        &self,
        broker: i32,
        partition: &TopicPartition,
    ) -> Option<PartitionRequest<FetchFrom>> {
        let state = self.partitions.get(partition)?;
        let asked = state
            .last_fetch
            .filter(|asked| asked.broker == broker && asked.position_version == state.position_version)?;
        Some(state.request(partition, asked.what))
    }

    /// Whatever was asked of a broker and was not answered may be asked again. Returns the partitions.
    pub(crate) fn clear_in_flight_of(&mut self, broker: i32) -> Vec<Lease> {
        let asked =
            self.partitions.iter_mut().filter(|(_, state)| state.in_flight && state.was_last_fetched_from(broker));
        asked
            .map(|(name, state)| {
                state.in_flight = false;
                Lease { partition: name.clone(), epoch: state.epoch }
            })
            .collect()
    }
}

/// A fetch outside of sessions: of all partitions that may be fetched, or of as many that are behind as fill the response.
fn list(survey: Survey<'_>, all: bool, broker: i32, bytes_per_offset: usize, bounds: FetchBounds) -> FetchPlan {
    let mut candidates = survey.behind;
    if all {
        candidates.extend(survey.caught_up);
    }
    let max_bytes = bounds.response(average(candidates.iter().map(|c| c.state.decode_ratio_16ths)));
    // The one served longest ago first. Of many that are behind a few are named: those alone are put in order.
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

/// At least 16 sixteenths.
fn average(ratios: impl ExactSizeIterator<Item = usize>) -> usize {
    let n = ratios.len().max(1);
    (ratios.sum::<usize>() / n).max(16)
}

#[cfg(test)]
mod tests;
