//! Membership in a group by the `consumer` group protocol (KIP-848), as a state machine without I/O.
//!
//! ```text
//!   Joining ──▶ Stable ──▶ Draining ─┐
//!      ▲          ▲  │         │      │ (what was to go has gone)
//!      │          └──┼─────────┼──────┘
//!      └─────────────┴─────────┘ fenced, unknown, or the session expired
//! ```
//!
//! Any of them can go over to Leaving, for good or, where the program hangs, to Away, from where it joins again when the program comes back.
//!
//! The coordinator decides what is to be a member's, and leads it there by the answers to its heartbeats. Each member goes its
//! own way: what it keeps is never touched. It goes one step at a time: what is not in its assignment is drained and given up;
//! that is told to the coordinator; only when that has been answered, what the assignment has more is taken. So nothing is
//! taken in the name of a membership that is over.
//!
//! Assignments name topics by ids. What is assigned of a topic whose name is not known waits, and metadata is asked for.
//!
//! A heartbeat says what is news, and everything after anything went wrong: then the coordinator, which may be another, answers
//! with everything too. One is sent at once when there is something to tell; after a change some follow each other soon, for
//! what others give up for us comes with them.
//!
//! Commits are made in the member's epoch. One that comes too late for it is refused as stale, and made again in the epoch that
//! the next answer brings.
//!
//! Whoever drives it does so as with [`ClassicMember`](super::classic::ClassicMember).

mod failure;
mod heartbeat;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

pub(crate) use heartbeat::{HeartbeatRequest, HeartbeatResponse, beaten, encode_heartbeat};

use super::classic::{LEAVE_TIMEOUT, drain_margin};
use super::requests::{Action, MemberConfig, RequestFailure};
use crate::cluster::Backoff;
use crate::code;
use crate::error::{Error, ErrorKind};
use crate::failure::{OngoingOutage, Outage};
use crate::record::TopicPartition;
use heartbeat::IdPartition;

/// The epoch of a member that joins.
const JOIN_EPOCH: i32 = 0;
/// That of one that leaves.
const LEAVE_EPOCH: i32 = -1;
/// That of a static one that leaves and keeps its place for as long as a session.
const STATIC_LEAVE_EPOCH: i32 = -2;
/// From this version of ConsumerGroupHeartbeat on members name themselves (KIP-1082).
const CLIENT_MEMBER_ID_VERSION: i16 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Joining,
    Stable,
    Draining {
        deadline: Instant,
    },
    Leaving {
        deadline: Instant,
    },
    /// Out of the group until the program comes back.
    Away,
    Ended,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum InFlight {
    Nothing,
    Find,
    /// With what it says is ours.
    Heartbeat(Option<BTreeSet<IdPartition>>),
    Leave,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Kip848Member {
    settings: MemberConfig,
    phase: Phase,
    /// Ours, unless the coordinator gives ids.
    fresh_id: String,
    /// Empty until we have one.
    member_id: String,
    epoch: i32,
    /// Whether the coordinator may know us.
    asked: bool,
    /// What the coordinator wants to be ours.
    target: BTreeSet<IdPartition>,
    owned: BTreeMap<IdPartition, TopicPartition>,
    /// Those of them that are drained.
    revoking: Vec<IdPartition>,
    /// What the coordinator has been told is ours.
    reported: BTreeSet<IdPartition>,
    names: HashMap<Uuid, Arc<str>>,
    /// When names are asked for again.
    names_at: Instant,
    names_backoff: Backoff,
    /// Whether there is a connection to the coordinator.
    coordinator: bool,
    /// Whether it must be told everything.
    full: bool,
    in_flight: InFlight,
    /// When the request under way was sent.
    sent: Instant,
    /// When the heartbeat was sent that brought the target: the time for what it revokes began behind it.
    targeted: Instant,
    /// When the last heartbeat that was answered was sent.
    alive: Instant,
    next_heartbeat: Instant,
    /// Grows to the interval that the coordinator wants.
    interval: Duration,
    /// Nothing is sent before.
    retry_at: Instant,
    /// Failed tries since the last success.
    backoff: Backoff,
    /// Why there is no success.
    outage: Outage,
    /// Whether the program is hung, so that we leave only until it comes back.
    expelled: bool,
    /// Whether leaving is for good.
    closing: bool,
    /// Times we had to join again since a heartbeat was last answered.
    rejoins: u32,
    /// Since when another member has our instance id.
    taken_since: Option<Instant>,
    actions: VecDeque<Action>,
}

impl Kip848Member {
    /// A member that wants to join, and goes by `fresh_id` where members name themselves.
    pub(crate) fn new(settings: MemberConfig, fresh_id: String, now: Instant) -> Self {
        let mut new = Self {
            phase: Phase::Joining,
            fresh_id,
            member_id: String::new(),
            epoch: JOIN_EPOCH,
            asked: false,
            target: BTreeSet::new(),
            owned: BTreeMap::new(),
            revoking: Vec::new(),
            reported: BTreeSet::new(),
            names: HashMap::new(),
            names_at: now,
            names_backoff: settings.backoff.clone(),
            coordinator: false,
            full: true,
            in_flight: InFlight::Nothing,
            sent: now,
            targeted: now,
            alive: now,
            next_heartbeat: now,
            interval: settings.heartbeat_interval,
            retry_at: now,
            backoff: settings.backoff.clone(),
            outage: Outage::default(),
            expelled: false,
            closing: false,
            rejoins: 0,
            taken_since: None,
            actions: VecDeque::new(),
            settings,
        };
        new.drive(now);
        new
    }

    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn member_id(&self) -> &str {
        &self.member_id
    }

    /// The member's epoch.
    pub(crate) fn generation(&self) -> i32 {
        self.epoch
    }

    /// What keeps it from its group, while that is so.
    pub(crate) fn trouble(&self) -> Option<OngoingOutage> {
        self.outage.ongoing()
    }

    /// Whether there is a coordinator to send anything to.
    pub(crate) fn has_coordinator(&self) -> bool {
        self.coordinator
    }

    /// Whether partitions may be ours, being drained or not, and commits are taken.
    pub(crate) fn is_member(&self) -> bool {
        matches!(self.phase, Phase::Stable | Phase::Draining { .. })
    }

    /// When to call [`tick`](Self::tick), at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let idle = self.in_flight == InFlight::Nothing;
        let retry = idle.then_some(self.retry_at);
        let beat = if self.coordinator { self.next_heartbeat.max(self.retry_at) } else { self.retry_at };
        match self.phase {
            Phase::Joining => retry,
            Phase::Stable | Phase::Draining { .. } => {
                let drain = if let Phase::Draining { deadline } = self.phase { Some(deadline) } else { None };
                let names = self.wants_names().then_some(self.names_at);
                let session = self.alive + self.settings.session_timeout;
                [idle.then_some(beat), drain, names, Some(session)].into_iter().flatten().min()
            }
            Phase::Leaving { deadline } => Some(retry.map_or(deadline, |r| r.min(deadline))),
            Phase::Away | Phase::Ended => None,
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.is_member() && now >= self.alive + self.settings.session_timeout {
            tracing::warn!(
                group = %self.settings.group,
                member = %self.member_id,
                "no heartbeat was answered within the session timeout: the partitions belong to others by now"
            );
            self.coordinator = false;
            self.in_flight = InFlight::Nothing;
            self.lose();
        }
        match self.phase {
            Phase::Draining { deadline } if now >= deadline => self.give_up(now),
            Phase::Leaving { deadline } if now >= deadline => {
                let what = format!(
                    "leaving group {:?} was not answered within {LEAVE_TIMEOUT:?}: its other members go on after the session timeout",
                    self.settings.group
                );
                self.gone(now, Err(Error::new(ErrorKind::Timeout, what)));
            }
            _ => {}
        }
        self.ask_for_names(now);
        self.drive(now);
    }

    /// What came of [`Action::FindCoordinator`]: the newest version of ConsumerGroupHeartbeat that the coordinator serves, if it does.
    pub(crate) fn found(&mut self, now: Instant, outcome: Result<Option<i16>, Error>) {
        if self.in_flight != InFlight::Find || self.phase == Phase::Ended {
            return;
        }
        self.in_flight = InFlight::Nothing;
        match outcome {
            Ok(Some(version)) => {
                self.coordinator = true;
                self.full = true;
                if self.member_id.is_empty() && version >= CLIENT_MEMBER_ID_VERSION {
                    self.member_id.clone_from(&self.fresh_id);
                }
            }
            Ok(None) => self.not_offered(now, "its coordinator does not serve ConsumerGroupHeartbeat"),
            Err(e) => self.failed(now, "finding the coordinator", RequestFailure::Connection(e), ""),
        }
        self.drive(now);
    }

    /// What came of [`Action::ConsumerGroupHeartbeat`]. With an error code comes what the coordinator says of it.
    pub(crate) fn beaten(&mut self, now: Instant, outcome: Result<HeartbeatResponse, (RequestFailure, String)>) {
        match (std::mem::replace(&mut self.in_flight, InFlight::Nothing), outcome) {
            (_, _) if self.phase == Phase::Ended => {}
            (InFlight::Heartbeat(owned), Ok(beaten)) => self.accept(now, owned, beaten),
            (InFlight::Heartbeat(_), Err((failure, why))) => {
                let doing = if self.phase == Phase::Joining { "joining" } else { "a heartbeat" };
                self.failed(now, doing, failure, &why);
            }
            (InFlight::Leave, Ok(_)) => self.gone(now, Ok(())),
            (InFlight::Leave, Err((failure, why))) => self.failed(now, "leaving", failure, &why),
            (other, _) => self.in_flight = other,
        }
        self.drive(now);
    }

    fn accept(&mut self, now: Instant, told: Option<BTreeSet<IdPartition>>, beaten: HeartbeatResponse) {
        if self.phase == Phase::Joining || self.member_id.is_empty() {
            self.member_id = beaten.member_id.unwrap_or(std::mem::take(&mut self.member_id));
        }
        if matches!(self.phase, Phase::Leaving { .. }) {
            return;
        }
        if beaten.epoch <= JOIN_EPOCH {
            let what = format!("the coordinator answered a heartbeat with epoch {}", beaten.epoch);
            return self.failed(
                now,
                "a heartbeat",
                RequestFailure::Connection(Error::new(ErrorKind::Corrupt, what)),
                "",
            );
        }
        self.alive = self.sent;
        self.backoff.reset();
        self.recovered(now);
        self.rejoins = 0;
        self.taken_since = None;
        self.full = false;
        if let Some(owned) = told {
            self.reported = owned;
        }
        let wanted = if beaten.interval.is_zero() { self.settings.heartbeat_interval } else { beaten.interval };
        let wanted = wanted.min(self.settings.session_timeout / 3); // our own patience counts too
        let news = self.phase == Phase::Joining || beaten.epoch != self.epoch || beaten.assignment.is_some();
        self.interval = if news { wanted / 8 } else { (self.interval * 2).min(wanted) };
        self.next_heartbeat = (self.sent + self.interval).max(now);
        if let Some(target) = beaten.assignment {
            self.target = target;
            self.targeted = self.sent;
        }
        let began = beaten.epoch != self.epoch;
        self.epoch = beaten.epoch;
        if self.phase == Phase::Joining {
            self.phase = Phase::Stable;
        }
        self.reconcile(now, began);
    }

    /// Takes the next step towards the target; `began`: an epoch has.
    fn reconcile(&mut self, now: Instant, began: bool) {
        let mut added = Vec::new();
        if self.phase == Phase::Stable {
            let gone: Vec<_> = self.owned.keys().filter(|p| !self.target.contains(p)).copied().collect();
            if !gone.is_empty() {
                self.revoke(now, gone);
            } else if self.owned.keys().eq(&self.reported) {
                added = self.take();
            }
            if self.phase == Phase::Stable && !self.owned.keys().eq(&self.reported) {
                self.next_heartbeat = now;
            }
        }
        if began || !added.is_empty() {
            self.actions.push_back(Action::Assigned { generation: self.epoch, added });
        }
        self.ask_for_names(now);
    }

    fn revoke(&mut self, now: Instant, partitions: Vec<IdPartition>) {
        let time = self.settings.rebalance_timeout - drain_margin(self.settings.rebalance_timeout);
        let deadline = (self.targeted + time).max(now);
        let named = partitions.iter().filter_map(|p| self.owned.get(p).cloned()).collect();
        self.phase = Phase::Draining { deadline };
        self.revoking = partitions;
        self.actions.push_back(Action::Revoke { partitions: named, deadline });
    }

    /// Takes what the target has more, as far as topics' names are known. A topic may have been deleted and created again:
    /// what is of the old one goes first.
    fn take(&mut self) -> Vec<TopicPartition> {
        let mut added = Vec::new();
        for p in &self.target {
            let Some(name) = self.names.get(&p.0).filter(|_| !self.owned.contains_key(p)) else { continue };
            let partition = TopicPartition::new(Arc::clone(name), p.1);
            if !self.owned.values().any(|owned| *owned == partition) {
                self.owned.insert(*p, partition.clone());
                added.push(partition);
            }
        }
        added
    }

    /// Whether something of the target waits for a topic's name.
    fn wants_names(&self) -> bool {
        self.is_member() && self.target.iter().any(|(topic, _)| !self.names.contains_key(topic))
    }

    fn ask_for_names(&mut self, now: Instant) {
        if !self.wants_names() {
            self.names_backoff.reset();
            self.names_at = now;
        } else if now >= self.names_at {
            self.names_at = now + self.names_backoff.next();
            self.actions.push_back(Action::RefreshTopicNames);
        }
    }

    /// What topics are called.
    pub(crate) fn learn(&mut self, now: Instant, names: impl IntoIterator<Item = (Uuid, Arc<str>)>) {
        self.names.extend(names);
        self.reconcile(now, false);
        self.drive(now);
    }

    /// A commit was refused with this code.
    pub(crate) fn commit_refused(&mut self, now: Instant, code: i16) {
        if !self.is_member() {
            return;
        }
        match code {
            // The answer brings the epoch in which it can be made.
            code::STALE_MEMBER_EPOCH => self.next_heartbeat = now,
            // News only once: the search must not begin again with each commit that was sent before it.
            code::COORDINATOR_NOT_AVAILABLE | code::NOT_COORDINATOR if !self.coordinator => {}
            // A heartbeat under way tells for itself; giving up its answer could be giving up the membership.
            code::COORDINATOR_NOT_AVAILABLE | code::NOT_COORDINATOR if self.in_flight != InFlight::Nothing => {}
            code::COORDINATOR_NOT_AVAILABLE
            | code::NOT_COORDINATOR
            | code::UNKNOWN_MEMBER_ID
            | code::GROUP_ID_NOT_FOUND
            | code::FENCED_INSTANCE_ID => {
                self.in_flight = InFlight::Nothing;
                self.failed(now, "a commit", RequestFailure::Code(code), "");
            }
            _ => {}
        }
        self.drive(now);
    }

    /// The connection to the coordinator is gone.
    pub(crate) fn disconnected(&mut self, now: Instant) {
        if self.coordinator && self.in_flight == InFlight::Nothing {
            self.coordinator = false;
            self.drive(now);
        }
    }

    /// The program has finished with what was revoked.
    pub(crate) fn drained(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Draining { .. }) {
            self.give_up(now);
            self.drive(now);
        }
    }

    /// Something else than the protocol has failed for good.
    pub(crate) fn fail(&mut self, e: Error) {
        self.end(Err(e));
    }

    /// The program wants to go.
    pub(crate) fn leave(&mut self, now: Instant) {
        if self.closing || self.phase == Phase::Ended {
            return;
        }
        self.closing = true;
        let gone: Vec<_> = std::mem::take(&mut self.owned).into_values().collect();
        self.revoking.clear();
        if !gone.is_empty() {
            self.actions.push_back(Action::Revoked(gone));
        }
        self.go(now);
    }

    /// The program hangs: others are to have what it has, until it [comes back](Self::come_back).
    pub(crate) fn expel(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Leaving { .. } | Phase::Away | Phase::Ended) {
            return;
        }
        self.expelled = true;
        let epoch = self.epoch;
        self.lose();
        self.epoch = epoch; // of a member, until it has left
        self.go(now);
    }

    /// The program goes on.
    pub(crate) fn come_back(&mut self, now: Instant) {
        self.expelled = false;
        if self.phase == Phase::Away {
            self.phase = Phase::Joining;
            self.drive(now);
        }
    }

    fn go(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Leaving { .. }) {
            return; // it was expelled, and is on its way
        }
        self.phase = Phase::Leaving { deadline: now + LEAVE_TIMEOUT.min(self.settings.request_timeout) };
        self.retry_at = now;
        self.drive(now);
    }

    /// Out of the group, as far as it depends on us.
    pub(super) fn gone(&mut self, now: Instant, outcome: Result<(), Error>) {
        if self.closing {
            return self.end(outcome);
        }
        if let Err(e) = outcome {
            tracing::warn!(group = %self.settings.group, error = %e.full(), "the group could not be told that this member has left");
            self.coordinator = false; // whatever is still parked there is not waited for
        }
        self.lose();
        self.in_flight = InFlight::Nothing;
        self.asked = false;
        self.full = true;
        self.retry_at = now;
        if self.expelled {
            self.phase = Phase::Away;
        }
    }

    fn give_up(&mut self, now: Instant) {
        let gone = std::mem::take(&mut self.revoking).iter().filter_map(|p| self.owned.remove(p)).collect();
        self.phase = Phase::Stable;
        self.actions.push_back(Action::Revoked(gone));
        self.reconcile(now, false);
    }

    /// Back to the beginning, with nothing owned.
    fn lose(&mut self) {
        let lost: Vec<_> = std::mem::take(&mut self.owned).into_values().collect();
        if !lost.is_empty() {
            self.actions.push_back(Action::Lost(lost));
        }
        self.revoking.clear();
        self.target.clear();
        self.reported.clear();
        self.epoch = JOIN_EPOCH;
        self.phase = Phase::Joining;
    }

    fn end(&mut self, outcome: Result<(), Error>) {
        self.lose();
        self.phase = Phase::Ended;
        self.actions.push_back(Action::Stop(outcome));
    }

    fn wait(&mut self, now: Instant) {
        self.retry_at = now + self.backoff.next();
    }

    /// Sends what the phase asks for, if the time has come and the way is free.
    fn drive(&mut self, now: Instant) {
        let leaving = matches!(self.phase, Phase::Leaving { .. });
        match &self.in_flight {
            InFlight::Nothing => {}
            // Its answer no longer matters, unless it brings the id to leave under.
            InFlight::Heartbeat(_) if leaving && !self.member_id.is_empty() => {}
            _ => return,
        }
        if now < self.retry_at || matches!(self.phase, Phase::Away | Phase::Ended) {
            return;
        }
        if leaving && (!self.asked || self.member_id.is_empty()) {
            self.gone(now, Ok(())); // never a member
            if self.phase != Phase::Joining {
                return;
            }
        }
        if !self.coordinator {
            self.in_flight = InFlight::Find;
            self.sent = now;
            return self.actions.push_back(Action::FindCoordinator);
        }
        match self.phase {
            Phase::Joining => self.beat(now),
            Phase::Stable | Phase::Draining { .. } if now >= self.next_heartbeat => self.beat(now),
            Phase::Leaving { deadline } => {
                // A static one that hangs goes for good: what it has is wanted by others now.
                let stays = self.settings.instance_id.is_some() && self.closing;
                let epoch = if stays { STATIC_LEAVE_EPOCH } else { LEAVE_EPOCH };
                let beat = HeartbeatRequest { member_id: self.member_id.clone(), epoch, full: false, owned: None };
                self.send(now, InFlight::Leave, beat, deadline - now);
            }
            Phase::Stable | Phase::Draining { .. } | Phase::Away | Phase::Ended => {}
        }
    }

    fn beat(&mut self, now: Instant) {
        let full = self.full || self.phase == Phase::Joining;
        let news = full || !self.owned.keys().eq(&self.reported);
        // While they are drained they are ours, and no one else may have them.
        let owned = news.then(|| self.owned.keys().copied().collect::<BTreeSet<_>>());
        let beat =
            HeartbeatRequest { member_id: self.member_id.clone(), epoch: self.epoch, full, owned: owned.clone() };
        // A coordinator that says nothing leaves time to find another one within the session.
        let timeout = self.settings.request_timeout.min(self.settings.session_timeout / 3);
        self.asked = true;
        self.send(now, InFlight::Heartbeat(owned), beat, timeout);
    }

    fn send(&mut self, now: Instant, what: InFlight, beat: HeartbeatRequest, timeout: Duration) {
        self.in_flight = what;
        self.sent = now;
        self.actions.push_back(Action::ConsumerGroupHeartbeat { heartbeat: beat, timeout });
    }
}
