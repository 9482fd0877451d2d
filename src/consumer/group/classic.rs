//! Membership in a group by the classic group protocol, as a state machine without I/O.
//!
//! ```text
//!            ┌─────────────── the group rebalances, or its topics changed ───────────────┐
//!            ▼                                                                           │
//!   Joining ──▶ (the leader: Assigning) ──▶ Syncing ──▶ Stable ──▶ (eager:) Draining ────┘
//!      ▲ ▲                                     │          │                │
//!      │ └── Draining ◀── (something to give up)          │                │
//!      └────────── the session expired, or we are unknown ┴────────────────┘
//! ```
//!
//! By which assignor the group shares out is known when it has joined. With an eager one all partitions are given up before a
//! member joins again. With a cooperative one it keeps them, tells the group of them, and gives up what its new assignment
//! lacks; then it joins once more, so that others can have it. Should a group with a cooperative assignor agree on an eager
//! one, what was kept is lost as soon as that is known: others may be given it in this very round.
//!
//! Before partitions are given up comes the drain: they stay ours, heartbeats go on and commits are taken, until the program
//! has finished (`drained`) or the deadline has passed. The deadline is the rebalance timeout less a margin, counted from the
//! last heartbeat that was answered without news of a rebalance, for the broker's own clock may have started right behind it.
//!
//! Whether the coordinator is known is apart from all this: it may move at any time. A member that reaches none keeps its
//! partitions until `session_timeout` after the last request of it that was answered, when the broker gives them to others.
//!
//! Whoever drives it carries out each [`Action`] in order, tells what came of it, and calls `tick` at `deadline`. One request is
//! under way at a time; a new one takes the place of the old one, whose answer no longer counts.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::requests::{Action, JoinedGroup, MemberConfig, PreviousAssignment, RequestFailure};
use crate::cluster::Backoff;
use crate::code;
use crate::error::{Error, ErrorKind, is_retriable_code};
use crate::failure::{OngoingOutage, Outage, is_final, is_final_code};
use crate::record::TopicPartition;

/// How long a JoinGroup may be parked beyond the rebalance timeout before its connection counts as dead.
const JOIN_TIMEOUT_SLACK: Duration = Duration::from_secs(10);
/// The longest that leaving may take, finding the coordinator included.
pub(super) const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a coordinator may load or move without a word of it in the log.
pub(super) const COORDINATOR_MOVE_GRACE: Duration = Duration::from_secs(5);

/// What a drain leaves of the rebalance timeout for the JoinGroup to arrive: a tenth, 5 s at most.
pub(super) fn drain_margin(rebalance_timeout: Duration) -> Duration {
    (rebalance_timeout / 10).min(Duration::from_secs(5))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not a member of the group's next generation.
    Joining,
    /// The leader waits for the assignment to be computed.
    Assigning,
    Syncing,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InFlight {
    Nothing,
    Find,
    Join,
    Sync,
    Heartbeat,
    Leave,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct ClassicMember {
    settings: MemberConfig,
    phase: Phase,
    /// Empty until the coordinator has given us one.
    member_id: String,
    generation: i32,
    /// The assignor on which the group has agreed.
    protocol: String,
    cooperative: bool,
    leads: bool,
    owned: BTreeSet<TopicPartition>,
    /// The generation that gave us those; -1 when they were lost.
    kept_since: i32,
    /// What was assigned last, whatever has become of it.
    last: Vec<TopicPartition>,
    /// In which generation.
    assigned_in: i32,
    /// The generation in which we were told to give something up for others, who wait for us to join once more.
    owes: Option<i32>,
    /// Those of them that are drained.
    revoking: Vec<TopicPartition>,
    shares: Vec<(String, Bytes)>,
    /// Whether something of it is withheld from all until its owner has given it up.
    withheld: bool,
    /// When the leader has the group rebalance, should that owner not have done so: a static one that was started anew on the way has
    /// its place again without a word, and nobody would ever get what it had given up.
    overdue: Option<Instant>,
    /// Whether there is a connection to the coordinator.
    coordinator: bool,
    in_flight: InFlight,
    /// When the request under way was sent.
    sent: Instant,
    /// When the last request that proves us alive, and that said nothing of a rebalance, was sent.
    calm: Instant,
    /// When the last request that proves us alive was sent.
    alive: Instant,
    next_heartbeat: Instant,
    /// Grows to the heartbeat interval: members of a group tend to come one right after the other.
    heartbeat_interval: Duration,
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
    /// Times we had to join again since we were last stable.
    rejoins: u32,
    actions: VecDeque<Action>,
}

impl ClassicMember {
    /// A member that wants to join.
    pub(crate) fn new(settings: MemberConfig, now: Instant) -> Self {
        let mut new = Self {
            phase: Phase::Joining,
            member_id: String::new(),
            generation: -1,
            protocol: String::new(),
            cooperative: false,
            leads: false,
            owned: BTreeSet::new(),
            kept_since: -1,
            last: Vec::new(),
            assigned_in: -1,
            owes: None,
            revoking: Vec::new(),
            shares: Vec::new(),
            withheld: false,
            overdue: None,
            coordinator: false,
            in_flight: InFlight::Nothing,
            sent: now,
            calm: now,
            alive: now,
            next_heartbeat: now,
            heartbeat_interval: settings.heartbeat_interval,
            retry_at: now,
            backoff: settings.backoff.clone(),
            outage: Outage::default(),
            expelled: false,
            closing: false,
            rejoins: 0,
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

    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    /// What keeps it from its group, while that is so.
    pub(crate) fn trouble(&self) -> Option<OngoingOutage> {
        self.outage.ongoing()
    }

    /// Whether this member shares out the partitions of the current generation.
    pub(crate) fn leads(&self) -> bool {
        self.leads
    }

    /// Whether there is a coordinator to send anything to.
    pub(crate) fn has_coordinator(&self) -> bool {
        self.coordinator
    }

    /// Whether this is a member of the current generation.
    pub(crate) fn is_member(&self) -> bool {
        matches!(self.phase, Phase::Stable | Phase::Draining { .. })
    }

    /// Whether commits are taken: also while we join again with what we keep, for the group is still in the old generation.
    pub(crate) fn may_commit(&self) -> bool {
        self.is_member() || (self.phase == Phase::Joining && !self.owned.is_empty())
    }

    /// When others may have what is ours, unless a request that proves us alive is answered before. One that is parked does.
    fn expires(&self) -> Option<Instant> {
        let keeps = match self.phase {
            Phase::Stable | Phase::Draining { .. } => true,
            Phase::Joining | Phase::Syncing => {
                !self.owned.is_empty() && !matches!(self.in_flight, InFlight::Join | InFlight::Sync)
            }
            Phase::Assigning | Phase::Leaving { .. } | Phase::Away | Phase::Ended => false,
        };
        keeps.then(|| self.alive + self.settings.session_timeout)
    }

    /// When to call [`tick`](Self::tick), at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let idle = self.in_flight == InFlight::Nothing;
        let retry = idle.then_some(self.retry_at);
        let beat = if self.coordinator { self.next_heartbeat.max(self.retry_at) } else { self.retry_at };
        let own = match self.phase {
            Phase::Joining | Phase::Syncing => retry,
            Phase::Stable => idle.then_some(beat).into_iter().chain(self.overdue).min(),
            Phase::Draining { deadline } => Some(if idle { beat.min(deadline) } else { deadline }),
            Phase::Leaving { deadline } => Some(retry.map_or(deadline, |r| r.min(deadline))),
            Phase::Assigning | Phase::Away | Phase::Ended => None,
        };
        own.into_iter().chain(self.expires()).min()
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.expires().is_some_and(|at| now >= at) {
            tracing::warn!(
                group = %self.settings.group,
                member = %self.member_id,
                "nothing was answered within the session timeout: the partitions belong to others by now"
            );
            self.coordinator = false;
            self.in_flight = InFlight::Nothing;
            self.lose();
        }
        match self.phase {
            Phase::Draining { deadline } if now >= deadline => self.give_up(),
            Phase::Stable if self.overdue.is_some_and(|at| now >= at) => {
                tracing::info!(group = %self.settings.group, "what a member was to give up has no new owner yet: the group rebalances");
                self.overdue = None;
                self.rebalance(now);
            }
            Phase::Leaving { deadline } if now >= deadline => {
                let what = format!(
                    "leaving group {:?} was not answered within {LEAVE_TIMEOUT:?}: its other members go on after the session timeout",
                    self.settings.group
                );
                self.gone(now, Err(Error::new(ErrorKind::Timeout, what)));
            }
            _ => {}
        }
        self.drive(now);
    }

    /// What came of [`Action::FindCoordinator`].
    pub(crate) fn found(&mut self, now: Instant, outcome: Result<(), Error>) {
        if !self.arrived(InFlight::Find) {
            return;
        }
        match outcome {
            Ok(()) => self.coordinator = true,
            Err(e) => self.failed(now, "finding the coordinator", RequestFailure::Connection(e)),
        }
        self.drive(now);
    }

    /// What came of [`Action::JoinGroup`]. With `MEMBER_ID_REQUIRED` comes the id to use.
    pub(crate) fn joined(&mut self, now: Instant, outcome: Result<JoinedGroup, (RequestFailure, String)>) {
        if !self.arrived(InFlight::Join) {
            return;
        }
        let leaving = matches!(self.phase, Phase::Leaving { .. });
        match outcome {
            Err((RequestFailure::Code(code::MEMBER_ID_REQUIRED), id)) => self.member_id = id,
            Err((failure, _)) => self.failed(now, "joining", failure),
            Ok(joined) if leaving => self.member_id = joined.member_id,
            Ok(joined) => self.accept(now, joined),
        }
        self.drive(now);
    }

    fn accept(&mut self, now: Instant, joined: JoinedGroup) {
        let Some(assignor) = self.settings.assignors.iter().find(|a| a.name == joined.protocol).cloned() else {
            let what = format!(
                "group {:?} has agreed on the assignor {:?}, which this member did not offer",
                self.settings.group, joined.protocol
            );
            return self.end(Err(Error::new(ErrorKind::Unsupported, what)));
        };
        if !assignor.cooperative && !self.owned.is_empty() {
            tracing::warn!(
                group = %self.settings.group,
                assignor = assignor.name,
                "the group has gone over to an assignor that minds no owners: what was kept is lost"
            );
            self.lose();
        }
        self.alive = now;
        self.cooperative = assignor.cooperative;
        self.protocol = assignor.name;
        self.member_id = joined.member_id;
        self.generation = joined.generation;
        self.leads = joined.leads;
        self.shares.clear();
        (self.withheld, self.overdue) = (false, None);
        self.phase = match joined.members {
            Some(members) => {
                self.actions.push_back(Action::ComputeAssignment { members, assignor: self.protocol.clone() });
                Phase::Assigning
            }
            None => Phase::Syncing,
        };
    }

    /// What came of [`Action::ComputeAssignment`].
    pub(crate) fn shared(&mut self, now: Instant, shares: Vec<(String, Bytes)>, withheld: bool) {
        if self.phase == Phase::Assigning {
            self.shares = shares;
            self.withheld = withheld;
            self.phase = Phase::Syncing;
            self.drive(now);
        }
    }

    /// What came of [`Action::SyncGroup`].
    pub(crate) fn synced(&mut self, now: Instant, outcome: Result<Vec<TopicPartition>, RequestFailure>) {
        if !self.arrived(InFlight::Sync) {
            return;
        }
        match outcome {
            Ok(partitions) => {
                self.shares.clear();
                self.backoff.reset();
                self.recovered(now);
                self.rejoins = 0;
                // Not since it was sent: it is parked until the leader has shared out, and counts for the broker from there.
                self.alive = now;
                self.calm = now;
                self.heartbeat_interval = self.settings.heartbeat_interval / 8;
                self.next_heartbeat = now + self.heartbeat_interval;
                self.overdue = self.withheld.then(|| now + self.settings.rebalance_timeout);
                self.accept_share(now, partitions.into_iter().collect());
            }
            Err(failure) => self.failed(now, "synchronising", failure),
        }
        self.drive(now);
    }

    /// Ours are now those of the share, and those that are not in it until they are given up.
    fn accept_share(&mut self, now: Instant, share: BTreeSet<TopicPartition>) {
        let added: Vec<_> = share.difference(&self.owned).cloned().collect();
        let revoked: Vec<_> = self.owned.difference(&share).cloned().collect();
        self.last = share.iter().cloned().collect();
        self.owned.extend(share);
        (self.assigned_in, self.kept_since) = (self.generation, self.generation);
        self.phase = Phase::Stable;
        // A static member that was lost on the way has its old place again, and the group does not know that anything is owed.
        let still_owes = self.owes == Some(self.generation);
        self.owes = (still_owes || !revoked.is_empty()).then_some(self.generation);
        if !revoked.is_empty() {
            self.revoke(now, revoked);
        } else if still_owes {
            self.phase = Phase::Joining;
            self.wait(now);
        }
        self.actions.push_back(Action::Assigned { generation: self.generation, added });
    }

    /// What came of [`Action::Heartbeat`].
    pub(crate) fn beat(&mut self, now: Instant, outcome: Result<(), RequestFailure>) {
        if !self.arrived(InFlight::Heartbeat) {
            return;
        }
        self.heartbeat_interval = (self.heartbeat_interval * 2).min(self.settings.heartbeat_interval);
        self.next_heartbeat = (self.sent + self.heartbeat_interval).max(now);
        match outcome {
            Ok(()) => {
                self.alive = self.sent;
                self.calm = self.sent;
                self.backoff.reset();
                self.recovered(now);
            }
            Err(RequestFailure::Code(code::REBALANCE_IN_PROGRESS)) => {
                self.alive = self.sent;
                self.recovered(now);
                self.rebalance(now);
            }
            Err(failure) => self.failed(now, "a heartbeat", failure),
        }
        self.drive(now);
    }

    /// A commit of the current generation was refused with this code.
    pub(crate) fn commit_refused(&mut self, now: Instant, code: i16) {
        if self.is_member() {
            match code {
                code::REBALANCE_IN_PROGRESS => self.rebalance(now),
                // News only once: the search must not begin again with each commit that was sent before it.
                code::COORDINATOR_NOT_AVAILABLE | code::NOT_COORDINATOR if !self.coordinator => {}
                code::COORDINATOR_NOT_AVAILABLE
                | code::NOT_COORDINATOR
                | code::ILLEGAL_GENERATION
                | code::UNKNOWN_MEMBER_ID
                | code::GROUP_ID_NOT_FOUND
                | code::FENCED_INSTANCE_ID => {
                    self.in_flight = InFlight::Nothing;
                    self.failed(now, "a commit", RequestFailure::Code(code));
                }
                _ => {}
            }
            self.drive(now);
        }
    }

    /// The connection to the coordinator is gone.
    pub(crate) fn disconnected(&mut self, now: Instant) {
        if self.coordinator && matches!(self.in_flight, InFlight::Nothing) {
            self.coordinator = false;
            self.drive(now);
        }
    }

    /// The program has finished with what was revoked.
    pub(crate) fn drained(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Draining { .. }) {
            self.give_up();
            self.drive(now);
        }
    }

    /// The partitions to share out are others than those shared out: the leader has the group rebalance.
    pub(crate) fn topics_changed(&mut self, now: Instant) {
        if self.leads && self.phase == Phase::Stable {
            self.rebalance(now);
            self.drive(now);
        }
    }

    /// Something else than the protocol has failed for good.
    pub(crate) fn fail(&mut self, e: Error) {
        self.end(Err(e));
    }

    /// The program wants to go. A static member does not tell the group, which keeps its place until the session expires.
    pub(crate) fn leave(&mut self, now: Instant) {
        if self.closing || self.phase == Phase::Ended {
            return;
        }
        self.closing = true;
        self.revoking = std::mem::take(&mut self.owned).into_iter().collect();
        if !self.revoking.is_empty() {
            self.give_up();
        }
        self.go(now);
    }

    /// The program hangs: others are to have what it has, until it [comes back](Self::come_back).
    pub(crate) fn expel(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Leaving { .. } | Phase::Away | Phase::Ended) {
            return;
        }
        self.expelled = true;
        self.lose();
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
        match self.in_flight {
            // Its answer may carry the id under which we are known by then.
            InFlight::Join if self.member_id.is_empty() && self.settings.instance_id.is_none() => return,
            // The connection is blocked for as long as the group takes to rebalance.
            InFlight::Join | InFlight::Sync => {
                self.coordinator = false;
                self.in_flight = InFlight::Nothing;
            }
            _ => {}
        }
        self.drive(now);
    }

    /// Out of the group, as far as it depends on us.
    fn gone(&mut self, now: Instant, outcome: Result<(), Error>) {
        if self.closing {
            return self.end(outcome);
        }
        if let Err(e) = outcome {
            tracing::warn!(group = %self.settings.group, error = %e.full(), "the group could not be told that this member has left");
        }
        if self.settings.instance_id.is_none() {
            self.member_id.clear();
        }
        self.in_flight = InFlight::Nothing;
        self.coordinator = false; // whatever is still parked there is not waited for
        self.retry_at = now;
        self.phase = if self.expelled { Phase::Away } else { Phase::Joining };
    }

    /// What came of [`Action::LeaveGroup`].
    pub(crate) fn left(&mut self, now: Instant, outcome: Result<(), RequestFailure>) {
        if !self.arrived(InFlight::Leave) {
            return;
        }
        match outcome {
            Ok(()) | Err(RequestFailure::Code(code::UNKNOWN_MEMBER_ID | code::GROUP_ID_NOT_FOUND)) => {
                self.gone(now, Ok(()))
            }
            Err(failure) => self.failed(now, "leaving", failure),
        }
        self.drive(now);
    }

    /// Whether the answer is to the request under way.
    fn arrived(&mut self, what: InFlight) -> bool {
        let it_is = self.in_flight == what && self.phase != Phase::Ended;
        if it_is {
            self.in_flight = InFlight::Nothing;
        }
        it_is
    }

    /// The group shares out anew. A drain that goes on is in time for this too: it joins when it is over.
    fn rebalance(&mut self, now: Instant) {
        if self.phase != Phase::Stable {
            return;
        }
        if self.owned.is_empty() || self.cooperative {
            self.phase = Phase::Joining;
        } else {
            self.revoke(now, self.owned.iter().cloned().collect());
        }
    }

    fn revoke(&mut self, now: Instant, partitions: Vec<TopicPartition>) {
        let time = self.settings.rebalance_timeout - drain_margin(self.settings.rebalance_timeout);
        let deadline = (self.calm + time).max(now);
        self.phase = Phase::Draining { deadline };
        self.revoking.clone_from(&partitions);
        self.actions.push_back(Action::Revoke { partitions, deadline });
    }

    fn give_up(&mut self) {
        let gone = std::mem::take(&mut self.revoking);
        gone.iter().for_each(|p| _ = self.owned.remove(p));
        self.phase = Phase::Joining;
        self.actions.push_back(Action::Revoked(gone));
    }

    /// Back to the beginning, with nothing owned.
    fn lose(&mut self) {
        self.shares.clear();
        self.revoking.clear();
        self.kept_since = -1;
        if !self.owned.is_empty() {
            let owned = std::mem::take(&mut self.owned);
            self.actions.push_back(Action::Lost(owned.into_iter().collect()));
        }
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

    /// At once the first time, for that is how a rebalance that overtakes another one looks; then with backoff.
    fn rejoin(&mut self, now: Instant, keep: bool) {
        if let Phase::Leaving { .. } = self.phase {
            return self.wait(now);
        }
        if !keep {
            self.lose();
        }
        self.shares.clear();
        self.phase = Phase::Joining;
        self.rejoins += 1;
        if self.rejoins > 1 {
            self.wait(now);
        }
    }

    /// The group answers as it should.
    fn recovered(&mut self, now: Instant) {
        if let Some(lasted) = self.outage.record_recovery(now) {
            tracing::warn!(group = %self.settings.group, member = %self.member_id, "the membership works again, after {lasted}");
        }
    }

    fn failed(&mut self, now: Instant, doing: &str, failure: RequestFailure) {
        let group = &self.settings.group;
        let (e, code) = match failure {
            RequestFailure::Connection(e) => (e.context(format!("{doing} in group {group:?}")), None),
            RequestFailure::Code(code) => {
                (Error::broker(code, format_args!("{doing} in group {group:?}{}", hint(code))), Some(code))
            }
        };
        match code {
            Some(code::COORDINATOR_LOAD_IN_PROGRESS | code::COORDINATOR_NOT_AVAILABLE | code::NOT_COORDINATOR) => {
                if code != Some(code::COORDINATOR_LOAD_IN_PROGRESS) {
                    self.coordinator = false;
                }
                if let Some(lasted) = self.outage.record_failure_with_grace(now, &e, COORDINATOR_MOVE_GRACE) {
                    tracing::warn!(%group, error = %e.full(), "the group has no coordinator that is ready, {lasted}; it is looked up again");
                }
                self.wait(now);
            }
            Some(code::UNKNOWN_MEMBER_ID | code::GROUP_ID_NOT_FOUND) => {
                if self.outage.record_failure(now, &e).is_some() {
                    tracing::warn!(%group, member = %self.member_id, "the group no longer knows this member; it joins anew");
                }
                self.member_id.clear();
                self.rejoin(now, false);
            }
            Some(code @ (code::ILLEGAL_GENERATION | code::REBALANCE_IN_PROGRESS)) => {
                tracing::debug!(%group, code, "{doing}: the group has gone on to another generation");
                // One that overtakes this one waits for us with what we have; a later generation is without us.
                self.rejoin(now, code == code::REBALANCE_IN_PROGRESS);
            }
            _ => {
                // Who leaves for good waits for an answer, and a refusal is one.
                let is_answer = self.closing && code.is_some_and(|code| !is_retriable_code(code));
                if is_answer || is_final(&e) || code.is_some_and(is_final_code) {
                    return self.end(Err(e));
                }
                if let Some(lasted) = self.outage.record_failure(now, &e) {
                    tracing::warn!(%group, error = %e.full(), "the membership has met with trouble, {lasted}; it is tried again");
                }
                self.coordinator &= code.is_some();
                self.wait(now);
            }
        }
    }

    /// Sends what the phase asks for, if the time has come and the way is free.
    fn drive(&mut self, now: Instant) {
        let moves_on = matches!(self.phase, Phase::Joining | Phase::Leaving { .. });
        match self.in_flight {
            InFlight::Nothing => {}
            // Its answer no longer matters.
            InFlight::Heartbeat if moves_on => {}
            _ => return,
        }
        if now < self.retry_at || matches!(self.phase, Phase::Assigning | Phase::Away | Phase::Ended) {
            return;
        }
        let nothing_to_tell = self.member_id.is_empty() || self.settings.instance_id.is_some();
        if nothing_to_tell && matches!(self.phase, Phase::Leaving { .. }) {
            self.gone(now, Ok(()));
            if self.phase != Phase::Joining {
                return;
            }
        }
        if !self.coordinator {
            return self.send(now, InFlight::Find, Action::FindCoordinator);
        }
        let (generation, member_id) = (self.generation, self.member_id.clone());
        match self.phase {
            Phase::Joining => {
                let timeout = self.settings.rebalance_timeout + JOIN_TIMEOUT_SLACK;
                let had = PreviousAssignment {
                    owned: self.owned.iter().cloned().collect(),
                    since: self.kept_since,
                    last: self.last.clone(),
                    generation: self.assigned_in,
                };
                self.send(now, InFlight::Join, Action::JoinGroup { member_id, had, timeout });
            }
            Phase::Syncing => {
                let (protocol, shares) = (self.protocol.clone(), self.shares.clone());
                self.send(now, InFlight::Sync, Action::SyncGroup { generation, member_id, protocol, shares });
            }
            Phase::Stable | Phase::Draining { .. } if now >= self.next_heartbeat => {
                // A coordinator that says nothing leaves time to find another one within the session.
                let timeout = self.settings.request_timeout.min(self.settings.session_timeout / 3);
                self.send(now, InFlight::Heartbeat, Action::Heartbeat { generation, member_id, timeout });
            }
            Phase::Leaving { deadline } => {
                self.send(now, InFlight::Leave, Action::LeaveGroup { member_id, timeout: deadline - now });
            }
            Phase::Stable | Phase::Draining { .. } | Phase::Assigning | Phase::Away | Phase::Ended => {}
        }
    }

    fn send(&mut self, now: Instant, what: InFlight, action: Action) {
        self.in_flight = what;
        self.sent = now;
        self.actions.push_back(action);
    }
}

fn hint(code: i16) -> &'static str {
    match code {
        code::GROUP_MAX_SIZE_REACHED => " (it has as many members as the broker's group.max.size allows)",
        code::FENCED_INSTANCE_ID => {
            " (another member has taken over this one's instance id: give each one its own REDPANDA_GROUP_INSTANCE_ID)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests;
