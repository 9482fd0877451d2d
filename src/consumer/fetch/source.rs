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
//! - Up to [`FEW`] partitions, all of them are named each time: a session would save nothing.
//!
//! A response may bring a third of the budget, less what records hold and other fetches may bring. One of a broker that is far
//! away may bring all of it, and more of each partition; the next fetch from there waits a moment for the records of the last one
//! to be dropped, since its size makes up for that. A partition whose records exceed its equal share of the budget is left out until they are dropped, so a slow handler
//! takes no room from the others beyond what one response brought. Once the budget is used up, a partition that holds nothing may
//! still fetch its share, up to twice the budget in total: whatever the slow ones hold, the others go on.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::partition::{Asked, Part, Position, Told};
use super::planner::{Ask, FetchFrom, Plan, Tracker};
use super::session::{Session, SessionId};
use crate::cluster::DISTANT_ROUND_TRIP;
use crate::consumer::lease::Lease;
use crate::record::TopicPartition;

/// Number of partitions that are named each time.
const FEW: usize = 16;
/// How long a broker may hold a fetch while partitions that are left out of it wait for their turn.
const SHORT_WAIT: Duration = Duration::from_millis(50);
/// Fetches of partitions that are behind take this many times as long as the polls between them.
const POLL_RATIO: u32 = 8;
/// From a broker that is far away, a response brings this many times `partition_fetch_bytes` of a partition at most.
const FAR_FACTOR: usize = 4;
/// Part of the fastest response's time for which a fetch from a broker far away waits for memory.
const FAR_WAIT: u32 = 4;
/// A partition asks for no less, however little room there is: requests have a price too.
const LEAST: usize = 4 << 10;

/// What a fetch request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchPlan {
    /// Partitions to name.
    pub(crate) asks: Vec<Ask<FetchFrom>>,
    /// Partitions that the session is to forget.
    pub(crate) forgotten: Vec<TopicPartition>,
    pub(crate) session: SessionId,
    /// Maximum time that the broker may wait for records.
    pub(crate) wait: Duration,
    /// Maximum size of the response, except for a single batch that is larger.
    pub(crate) max_bytes: usize,
}

/// A broker that partitions are fetched from.
#[derive(Debug, Default)]
pub(super) struct Source {
    session: Session,
    /// Partitions that the session remembers and that left the tracker or the broker.
    forgotten: Vec<TopicPartition>,
    /// Bytes of the budget that the response to the fetch in flight may take.
    reserved: usize,
    in_flight: Option<InFlight>,
    /// When the session may be polled though some partitions are behind.
    poll_due: Option<Instant>,
    /// Time of the fastest response of any kind, and when the last fetch had its response.
    fastest: Option<Duration>,
    responded_at: Option<Instant>,
}

/// A fetch that was planned and has no response yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct InFlight {
    planned: Instant,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
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
        self.fastest = Some(self.fastest.map_or(time, |fastest| fastest.min(time)));
    }

    /// The time of the fastest response, of any kind, if the broker is far away.
    fn distance(&self) -> Option<Duration> {
        self.fastest.filter(|time| *time >= DISTANT_ROUND_TRIP)
    }

    /// A poll of all partitions whose end was reached, through the session. Returns also those that other brokers' sessions are to
    /// forget.
    fn poll(&mut self, survey: Survey<'_>, broker: i32, bounds: Bounds) -> (FetchPlan, Vec<(i32, TopicPartition)>) {
        let begins = self.session.begins();
        let mut forgotten = std::mem::take(&mut self.forgotten);
        for Candidate { name, part, .. } in survey.behind.into_iter().chain(survey.strays) {
            if part.told.take_if(|told| told.broker == broker).is_some() {
                forgotten.push(name.clone());
            }
        }
        if begins {
            forgotten.clear(); // a new session remembers nothing
        }
        let growth = average(survey.quiet.iter().map(|c| c.part.growth));
        let (mut asks, mut elsewhere) = (Vec::new(), Vec::new());
        for mut quiet in survey.quiet {
            let Position::At(offset) = quiet.part.position else { continue };
            // The same each time, whatever room there is: else all would have to be named again when it changes.
            let what = FetchFrom { offset, max_bytes: bounds.fetch_bytes };
            let told = Told { broker, leader_epoch: quiet.part.leader_epoch, what };
            let before = quiet.part.told.replace(told);
            if before == Some(told) && !begins {
                quiet.part.on_asked(Asked { broker, version: quiet.part.version, what });
                continue;
            }
            let other = before.filter(|before| before.broker != broker);
            elsewhere.extend(other.map(|other| (other.broker, quiet.name.clone())));
            asks.push(quiet.ask(broker, what));
        }
        if !forgotten.is_empty() {
            // A partition that left and came back is only named: a broker forgets after it has added.
            let named: HashSet<_> = asks.iter().map(|ask| &ask.lease.partition).collect();
            forgotten.retain(|p| !named.contains(p));
        }
        let max_bytes = bounds.response(growth).min(bounds.max_bytes);
        (FetchPlan { asks, forgotten, session: self.session.next(), wait: bounds.wait, max_bytes }, elsewhere)
    }

    /// Reserves memory for the response to the next fetch: the more, the likelier it is that records wait.
    fn reserve(&mut self, budget: &mut Budget, brokers: usize, behind: bool) -> usize {
        self.end(budget);
        let limit = budget.limit();
        let most = if self.distance().is_some() { limit } else { limit / 3 };
        // Brokers that have nothing to send may all have something at once.
        let most = if behind { most } else { most.min(limit / (2 * brokers)) };
        let least = limit / (8 * brokers);
        self.reserved = most.min(budget.free().max(least)).max(1);
        budget.reserve(self.reserved);
        self.reserved
    }

    /// The fetch in flight is over, whatever came of it.
    pub(super) fn end(&mut self, budget: &mut Budget) -> Option<InFlight> {
        budget.release(std::mem::take(&mut self.reserved));
        self.in_flight.take()
    }
}

/// How much a partition may hold, as of now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
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
    Truncation(Option<Instant>),
    /// Records wait, or may wait; at most so many bytes of memory.
    Behind(usize),
    /// Its end was reached.
    Quiet,
}

fn readiness(part: &Part, now: Instant, limits: Limits) -> Readiness {
    let room = part.room(limits);
    match part.position {
        Position::At(offset) if part.ready(now) && room > 0 => match !part.answered || part.end > offset {
            true => Readiness::Behind(room),
            false => Readiness::Quiet,
        },
        _ => Readiness::Truncation(part.waits(now)),
    }
}

/// A partition that the next fetch may name.
struct Candidate<'a> {
    name: &'a TopicPartition,
    part: &'a mut Part,
    /// Bytes of memory that it may bring.
    room: usize,
}

impl Candidate<'_> {
    fn ask(&mut self, broker: i32, what: FetchFrom) -> Ask<FetchFrom> {
        self.part.on_asked(Asked { broker, version: self.part.version, what });
        self.part.ask(self.name, what)
    }
}

/// Partitions by what the next fetch of a broker may do with them, each judged once.
#[derive(Default)]
struct Survey<'a> {
    behind: Vec<Candidate<'a>>,
    quiet: Vec<Candidate<'a>>,
    /// Others that the broker's session remembers.
    strays: Vec<Candidate<'a>>,
    left_out: bool,
    /// When the first of those left out may be named.
    until: Option<Instant>,
}

impl<'a> Survey<'a> {
    fn of(parts: &'a mut BTreeMap<TopicPartition, Part>, broker: i32, now: Instant, limits: Limits) -> Self {
        let mut survey = Self::default();
        for (name, part) in parts {
            let state = if part.reads_from(broker) { Some(readiness(part, now, limits)) } else { None };
            let (list, room) = match state {
                Some(Readiness::Behind(room)) => (&mut survey.behind, room),
                Some(Readiness::Quiet) => (&mut survey.quiet, part.room(limits)),
                Some(Readiness::Truncation(until)) => {
                    survey.left_out = true;
                    survey.until = survey.until.into_iter().chain(until).min();
                    (&mut survey.strays, 0)
                }
                None => (&mut survey.strays, 0),
            };
            if matches!(state, Some(Readiness::Behind(_) | Readiness::Quiet)) || part.is_told(broker) {
                list.push(Candidate { name, part, room });
            }
        }
        survey
    }
}

/// Bounds of one fetch.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Of the response, in memory.
    memory: usize,
    /// Of each partition's part of it, on the wire.
    fetch_bytes: usize,
    /// Of the response, on the wire.
    max_bytes: usize,
    wait: Duration,
}

impl Bounds {
    /// Number of bytes to ask for where a fetched byte takes `growth` sixteenths of one in memory.
    fn response(self, growth: usize) -> usize {
        (self.memory * 16 / growth).max(LEAST)
    }
}

impl Tracker {
    /// Plans a fetch of the partitions whose position is known.
    pub(super) fn plan_fetch(&mut self, broker: i32, now: Instant) -> Plan {
        let limits = self.limits();
        let brokers = self.sources.len().max(1);
        let source = self.sources.entry(broker).or_default();
        let survey = Survey::of(&mut self.parts, broker, now, limits);
        let (behind, quiet) = (survey.behind.len(), survey.quiet.len());
        if behind + quiet == 0 {
            return Plan::Wait(survey.until);
        }
        if behind > 0 && limits.free < self.budget.limit() {
            // A small fetch now would cost a round trip, and the records of the last one may be dropped before it is half over.
            let waited = source.responded_at.zip(source.distance()).map(|(at, distance)| at + distance / FAR_WAIT);
            if let Some(until) = waited.filter(|until| *until > now) {
                return Plan::Wait(Some(until));
            }
        }
        let few = behind + quiet <= FEW;
        let kind = match (behind, quiet) {
            _ if few => Kind::Listed,
            (0, _) => Kind::Poll,
            (_, 1..) if source.poll_due.is_none_or(|at| at <= now) => Kind::QuickPoll,
            _ => Kind::Listed,
        };
        let wait = match kind {
            Kind::QuickPoll => Duration::ZERO,
            _ if survey.left_out || !few && kind == Kind::Listed => self.max_wait.min(SHORT_WAIT),
            _ => self.max_wait,
        };
        let memory = source.reserve(&mut self.budget, brokers, behind > 0 && kind == Kind::Listed);
        let bounds = Bounds { memory, fetch_bytes: self.fetch_bytes, max_bytes: self.max_bytes, wait };
        source.in_flight = Some(InFlight { planned: now, kind });
        Plan::Fetch(match kind {
            Kind::Listed => {
                let factor = if source.distance().is_some() { FAR_FACTOR } else { 1 };
                let bounds = Bounds { fetch_bytes: self.fetch_bytes.saturating_mul(factor), ..bounds };
                list(survey, few, broker, self.weight, bounds)
            }
            Kind::Poll | Kind::QuickPoll => {
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
        let Some(InFlight { planned, kind }) = source.end(&mut self.budget) else { return false };
        let took = now.saturating_duration_since(planned);
        if kind == Kind::QuickPoll {
            source.poll_due = Some(now + took * POLL_RATIO);
        }
        source.responded_at = Some(now);
        source.on_round_trip(took);
        let counts = kind == Kind::Listed || source.session.on_response(code, session);
        if code == 0 && kind == Kind::Listed && bytes == 0 {
            // Whatever the broker told of more records, it has none to give: only a poll finds out when it has.
            for part in self.parts.values_mut().filter(|part| part.is_asked_of(broker)) {
                part.end = i64::MIN;
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
            source.end(&mut self.budget);
            source.session.on_failure();
        }
    }

    /// Returns what a broker was asked for a partition, unless another request has taken its place.
    pub(crate) fn asked(&self, broker: i32, partition: &TopicPartition) -> Option<Ask<FetchFrom>> {
        let part = self.parts.get(partition)?;
        let asked = part.asked.filter(|asked| asked.broker == broker && asked.version == part.version)?;
        Some(part.ask(partition, asked.what))
    }

    /// Whatever was asked of a broker and was not answered may be asked again. Returns the partitions.
    pub(crate) fn release(&mut self, broker: i32) -> Vec<Lease> {
        let asked = self.parts.iter_mut().filter(|(_, part)| part.in_flight && part.is_asked_of(broker));
        asked
            .map(|(name, part)| {
                part.in_flight = false;
                Lease { partition: name.clone(), epoch: part.epoch }
            })
            .collect()
    }
}

/// A fetch outside of sessions: of all partitions that may be fetched, or of as many that are behind as fill the response.
fn list(survey: Survey<'_>, all: bool, broker: i32, weight: usize, bounds: Bounds) -> FetchPlan {
    let mut candidates = survey.behind;
    if all {
        candidates.extend(survey.quiet);
    }
    let max_bytes = bounds.response(average(candidates.iter().map(|c| c.part.growth)));
    // The one served longest ago first. Of many that are behind a few are named: those alone are put in order.
    let mut order: BinaryHeap<_> = (0..).zip(&candidates).map(|(i, c)| Reverse((c.part.served, i))).collect();
    let (mut asks, mut expected) = (Vec::new(), 0);
    while let Some(Reverse((_, i))) = order.pop().filter(|_| all || expected < 2 * max_bytes) {
        let Some(candidate) = candidates.get_mut(i) else { break };
        let Position::At(offset) = candidate.part.position else { continue };
        let most = (candidate.room * 16 / candidate.part.growth).max(LEAST).min(bounds.fetch_bytes);
        expected += candidate.part.backlog(offset, weight).min(most);
        asks.push(candidate.ask(broker, FetchFrom { offset, max_bytes: most }));
    }
    let (session, max_bytes) = (SessionId::OUTSIDE, max_bytes.min(bounds.max_bytes));
    FetchPlan { asks, forgotten: Vec::new(), session, wait: bounds.wait, max_bytes }
}

/// At least 16 sixteenths.
fn average(growths: impl ExactSizeIterator<Item = usize>) -> usize {
    let n = growths.len().max(1);
    (growths.sum::<usize>() / n).max(16)
}

#[cfg(test)]
mod tests;
