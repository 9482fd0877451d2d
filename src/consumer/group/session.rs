//! The state that members of both group protocols keep of their session with the coordinator, and
//! the transitions they share. A protocol fills in the rest as a [`Protocol`].

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use super::member::{Action, CoordinatorResponse};
use super::requests::RequestFailure;
use crate::assignor::{Assignor, RebalanceProtocol};
use crate::cluster::Backoff;
use crate::code;
use crate::config::{AssignorKind, Config, ConsumerConfig, GroupProtocol};
use crate::error::{Error, is_retriable_code};
use crate::failure::{Outage, is_final, is_final_code};
use crate::record::TopicPartition;

/// Maximum time leaving may take, including the search for the coordinator.
pub(super) const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time a coordinator may load or move before the log mentions it.
pub(super) const COORDINATOR_MOVE_GRACE: Duration = Duration::from_secs(5);
/// The first heartbeat after a change follows after this fraction of the interval, which then
/// doubles.
const FIRST_HEARTBEAT_DIVISOR: u32 = 8;

/// Part of the rebalance timeout that a drain leaves for the next request to arrive: a tenth, at
/// most 5 s.
pub(super) fn drain_margin(rebalance_timeout: Duration) -> Duration {
    (rebalance_timeout / 10).min(Duration::from_secs(5))
}

/// An assignor that a member offers to the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AssignorOffer {
    pub(crate) name: String,
    /// True if members keep their partitions while they rejoin; a partition that is to move is
    /// revoked first, and assigned to its new owner by a second rebalance.
    pub(crate) cooperative: bool,
}

impl AssignorOffer {
    fn new(kind: &AssignorKind) -> Self {
        let cooperative = kind.protocol() == RebalanceProtocol::Cooperative;
        Self { name: kind.name().into(), cooperative }
    }
}

/// Settings of a member.
#[derive(Debug, Clone)]
pub(crate) struct MemberConfig {
    pub(crate) group: String,
    pub(crate) assignors: Vec<AssignorOffer>,
    pub(crate) instance_id: Option<String>,
    /// True if the member may fall back to the classic protocol.
    pub(crate) may_be_classic: bool,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) backoff: Backoff,
}

impl MemberConfig {
    pub(crate) fn new(group: &str, consumer: &ConsumerConfig, client: &Config) -> Self {
        Self {
            group: group.into(),
            assignors: consumer.assignors.iter().map(AssignorOffer::new).collect(),
            instance_id: consumer.group_instance_id.clone(),
            may_be_classic: consumer.group_protocol == GroupProtocol::Auto,
            session_timeout: consumer.session_timeout,
            rebalance_timeout: consumer.rebalance_timeout,
            heartbeat_interval: consumer.heartbeat_interval,
            request_timeout: client.request_timeout,
            backoff: Backoff::new(client.retry_backoff, client.retry_backoff_max),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not yet a member of the next generation.
    Joining,
    /// Classic leader: its assignment is being computed.
    Assigning,
    /// Classic: SyncGroup.
    Syncing,
    Stable,
    /// Some partitions are being revoked; the application finishes their records.
    Draining {
        deadline: Instant,
    },
    Leaving {
        deadline: Instant,
    },
    /// Left the group until the application resumes.
    SteppedOut,
    Stopped,
}

/// The one request that may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InFlight {
    Nothing,
    FindCoordinator,
    Join,
    Sync,
    Heartbeat,
    Leave,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(super) config: MemberConfig,
    pub(super) phase: Phase,
    /// Empty until it is known.
    pub(super) member_id: String,
    /// Generation of a classic group, or the member epoch.
    pub(super) generation: i32,
    /// True while there is a connection to the coordinator.
    pub(super) has_coordinator: bool,
    pub(super) in_flight: InFlight,
    /// Send time of the request in flight.
    pub(super) sent_at: Instant,
    /// Send time of the last request whose response renewed the session.
    pub(super) renewed_at: Instant,
    /// Earliest time at which the coordinator's rebalance timer may have started; see
    /// [`drain_deadline`](Self::drain_deadline).
    pub(super) rebalance_timer_from: Instant,
    pub(super) next_heartbeat_at: Instant,
    /// Doubles up to the configured interval: after one member, others tend to join.
    pub(super) heartbeat_interval: Duration,
    /// No request is sent earlier.
    pub(super) retry_at: Instant,
    pub(super) backoff: Backoff,
    pub(super) outage: Outage,
    /// True if the member leaves until the application resumes.
    pub(super) stepping_out: bool,
    /// True if the member leaves for good.
    pub(super) closing: bool,
    /// Number of rejoins since the session last worked.
    pub(super) rejoins: u32,
    pub(super) actions: VecDeque<Action>,
}

impl Session {
    pub(super) fn new(config: MemberConfig, generation: i32, now: Instant) -> Self {
        Self {
            phase: Phase::Joining,
            member_id: String::new(),
            generation,
            has_coordinator: false,
            in_flight: InFlight::Nothing,
            sent_at: now,
            renewed_at: now,
            rebalance_timer_from: now,
            next_heartbeat_at: now,
            heartbeat_interval: config.heartbeat_interval,
            retry_at: now,
            backoff: config.backoff.clone(),
            outage: Outage::default(),
            stepping_out: false,
            closing: false,
            rejoins: 0,
            actions: VecDeque::new(),
            config,
        }
    }

    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving { .. })
    }

    /// Sends a request, in place of the one in flight.
    pub(super) fn send(&mut self, now: Instant, in_flight: InFlight, action: Action) {
        self.in_flight = in_flight;
        self.sent_at = now;
        self.actions.push_back(action);
    }

    /// Returns whether a response belongs to the request in flight, which then no longer is.
    ///
    /// An old response may cross a rejoin:
    /// 1. A heartbeat of generation 5 is in flight when the drain ends.
    /// 2. JoinGroup takes its place; the coordinator parks it under the present member id.
    /// 3. The heartbeat's response arrives, say UNKNOWN_MEMBER_ID. Acting on it would drop that id,
    ///    and with it the JoinGroup.
    ///
    /// Hence a response counts only while its request is the one in flight.
    pub(super) fn take_in_flight(&mut self, request: InFlight) -> bool {
        let matches = self.in_flight == request && self.phase != Phase::Stopped;
        if matches {
            self.in_flight = InFlight::Nothing;
        }
        matches
    }

    pub(super) fn back_off(&mut self, now: Instant) {
        self.retry_at = now + self.backoff.next();
    }

    /// Maximum time to wait for a heartbeat: one without response leaves time to find another
    /// coordinator within the session.
    pub(super) fn heartbeat_timeout(&self) -> Duration {
        self.config.request_timeout.min(self.config.session_timeout / 3)
    }

    /// Starts over with frequent heartbeats, which bring changes soon.
    pub(super) fn restart_heartbeats(&mut self, longest: Duration) {
        self.heartbeat_interval = longest / FIRST_HEARTBEAT_DIVISOR;
    }

    pub(super) fn slow_heartbeats(&mut self, longest: Duration) {
        self.heartbeat_interval = (self.heartbeat_interval * 2).min(longest);
    }

    /// Schedules the next heartbeat one interval after the last one was sent.
    pub(super) fn schedule_heartbeat(&mut self, now: Instant, last: Instant) {
        self.next_heartbeat_at = (last + self.heartbeat_interval).max(now);
    }

    /// Time by which the partitions being revoked must be given back, with a margin for the request
    /// that says so.
    ///
    /// The coordinator's rebalance timer starts before the member hears of the rebalance:
    /// 1. Heartbeat A is sent at 0 s; its response has no error.
    /// 2. Right after A, another member joins: the coordinator starts its timer, at 0 s too.
    /// 3. Heartbeat B is sent at 3 s; its response is REBALANCE_IN_PROGRESS.
    ///
    /// Counted from B, the drain could outlast the timer by the heartbeat interval, and the
    /// coordinator would remove the member and assign partitions whose records are still being
    /// handled. So it counts from A.
    pub(super) fn drain_deadline(&self, now: Instant) -> Instant {
        let timeout = self.config.rebalance_timeout;
        (self.rebalance_timer_from + timeout - drain_margin(timeout)).max(now)
    }

    /// Records that the group responds again.
    pub(super) fn recovered(&mut self, now: Instant) {
        if let Some(lasted) = self.outage.record_recovery(now) {
            tracing::warn!(group = %self.config.group, member = %self.member_id, "the group membership works again after {lasted}");
        }
    }

    /// Records that the coordinator does not know the member.
    pub(super) fn removed(&mut self, now: Instant, code: i16, e: &Error) {
        if self.outage.record_failure(now, e).is_some() {
            let (group, member) = (&self.config.group, &self.member_id);
            tracing::warn!(%group, %member, code, error = %e.full(), "the group has removed this member, which rejoins");
        }
    }

    fn coordinator_not_ready(&mut self, now: Instant, code: i16, e: &Error) {
        self.has_coordinator &= code == code::COORDINATOR_LOAD_IN_PROGRESS;
        if let Some(lasted) = self.outage.record_failure_with_grace(now, e, COORDINATOR_MOVE_GRACE) {
            let group = &self.config.group;
            tracing::warn!(%group, error = %e.full(), "the group's coordinator is not ready, {lasted}; retrying");
        }
        self.back_off(now);
    }

    /// Time at which the phase has something to do.
    pub(super) fn phase_timeout(&self) -> Option<Instant> {
        let idle = self.in_flight == InFlight::Nothing;
        let retry = idle.then_some(self.retry_at);
        let heartbeat = match self.has_coordinator {
            true => self.next_heartbeat_at.max(self.retry_at),
            false => self.retry_at,
        };
        let heartbeat = idle.then_some(heartbeat);
        match self.phase {
            Phase::Joining | Phase::Syncing => retry,
            Phase::Stable => heartbeat,
            Phase::Draining { deadline } => Some(heartbeat.map_or(deadline, |at| at.min(deadline))),
            Phase::Leaving { deadline } => Some(retry.map_or(deadline, |at| at.min(deadline))),
            Phase::Assigning | Phase::SteppedOut | Phase::Stopped => None,
        }
    }
}

/// A group protocol: the parts in which a classic member and one of KIP-848 differ, and the
/// transitions that both go through. The coordinator task uses it as a
/// [`Member`](super::member::Member).
pub(crate) trait Protocol: Debug + Send {
    fn session(&self) -> &Session;
    fn session_mut(&mut self) -> &mut Session;

    /// Returns whether this is the leader of the current generation, which assigns the partitions.
    fn is_leader(&self) -> bool {
        false
    }

    /// Returns whether assignments name topics by id. Such a member needs to know which version of
    /// ConsumerGroupHeartbeat the coordinator supports, and the names of topics.
    fn uses_topic_ids(&self) -> bool {
        false
    }

    fn has_owned(&self) -> bool;

    /// Takes all owned partitions out.
    fn take_owned(&mut self) -> Vec<TopicPartition>;

    /// Takes the partitions out whose drain is complete.
    fn take_drained(&mut self) -> Vec<TopicPartition>;

    /// Time at which [`on_protocol_timeout`](Self::on_protocol_timeout) has something to do.
    fn protocol_timeout(&self) -> Option<Instant>;
    fn on_protocol_timeout(&mut self, now: Instant);

    /// Handles a new connection to the coordinator, which supports this version of
    /// ConsumerGroupHeartbeat.
    fn on_connected(&mut self, now: Instant, heartbeat_version: Option<i16>);

    fn on_response(&mut self, now: Instant, response: CoordinatorResponse);

    /// Handles the assignment of [`Action::ComputeAssignment`]: bytes per member.
    /// `withheld`: some partitions go to nobody until their owner has revoked them.
    fn on_assignment_computed(&mut self, _now: Instant, _assignment: Vec<(String, Bytes)>, _withheld: bool) {}

    fn on_topic_names(&mut self, _now: Instant, _names: Vec<(Uuid, Arc<str>)>) {}

    /// Makes the leader start a rebalance, since topics have other numbers of partitions than those
    /// it assigned.
    fn on_partitions_changed(&mut self, _now: Instant) {}

    /// Handles an error code in the protocol's own way, if it has one.
    fn on_code(&mut self, now: Instant, code: i16, e: &Error, message: &str) -> bool;

    /// Handles the error code of a commit in the protocol's own way, if it has one.
    fn on_commit_code(&mut self, now: Instant, code: i16) -> bool;

    /// Returns what a user can do about an error code.
    fn hint(&self, code: i16) -> &'static str;

    /// Goes on when drained partitions are revoked.
    fn on_revoked(&mut self, now: Instant);

    /// Resets the assignment when all partitions are lost.
    fn on_lost(&mut self);

    fn on_left(&mut self);

    /// Returns whether another request may be sent in place of a heartbeat in flight, whose
    /// response no longer matters.
    fn may_replace_heartbeat(&self) -> bool;

    /// Returns whether the coordinator has to be informed that the member leaves.
    fn must_send_leave(&self) -> bool;

    /// Sends the request of the phase, if it is due.
    fn send_for_phase(&mut self, now: Instant);

    /// Sends what the phase needs, unless a request is in flight or the backoff has not elapsed.
    fn send_due(&mut self, now: Instant) {
        let s = self.session();
        let blocked = match s.in_flight {
            InFlight::Nothing => false,
            InFlight::Heartbeat => !self.may_replace_heartbeat(),
            _ => true,
        };
        let waits = now < s.retry_at || matches!(s.phase, Phase::Assigning | Phase::SteppedOut | Phase::Stopped);
        if blocked || waits {
            return;
        }
        if s.is_leaving() && !self.must_send_leave() {
            self.finish_leaving(now, Ok(()));
            if self.session().phase != Phase::Joining {
                return;
            }
        }
        if self.session().has_coordinator {
            self.send_for_phase(now);
        } else {
            self.session_mut().send(now, InFlight::FindCoordinator, Action::FindCoordinator);
        }
    }

    /// Starts the drain of owned partitions.
    fn start_revocation(&mut self, now: Instant, partitions: Vec<TopicPartition>) {
        let s = self.session_mut();
        let deadline = s.drain_deadline(now);
        s.phase = Phase::Draining { deadline };
        s.actions.push_back(Action::Revoke { partitions, deadline });
    }

    fn finish_revocation(&mut self, now: Instant) {
        let revoked = self.take_drained();
        self.session_mut().actions.push_back(Action::Revoked(revoked));
        self.on_revoked(now);
    }

    /// Starts over without partitions.
    fn lose_partitions(&mut self) {
        let lost = self.take_owned();
        self.on_lost();
        let s = self.session_mut();
        s.phase = Phase::Joining;
        if !lost.is_empty() {
            s.actions.push_back(Action::Lost(lost));
        }
    }

    /// Rejoins: at once the first time, as when one rebalance follows another, then with backoff.
    fn rejoin(&mut self, now: Instant, keep_partitions: bool) {
        if self.session().is_leaving() {
            return self.session_mut().back_off(now);
        }
        if !keep_partitions {
            self.lose_partitions();
        }
        let s = self.session_mut();
        s.phase = Phase::Joining;
        s.rejoins += 1;
        if s.rejoins > 1 {
            s.back_off(now);
        }
    }

    fn start_leaving(&mut self, now: Instant) {
        let s = self.session_mut();
        if s.is_leaving() {
            return; // temporarily so far
        }
        s.phase = Phase::Leaving { deadline: now + LEAVE_TIMEOUT.min(s.config.request_timeout) };
        s.retry_at = now;
        match s.in_flight {
            // Its response may carry the member id to leave with.
            InFlight::Join if s.member_id.is_empty() && s.config.instance_id.is_none() => return,
            // The coordinator parks it for as long as the rebalance takes, and the connection
            // serves nothing else.
            InFlight::Join | InFlight::Sync => {
                s.has_coordinator = false;
                s.in_flight = InFlight::Nothing;
            }
            _ => {}
        }
        self.send_due(now);
    }

    fn finish_leaving(&mut self, now: Instant, outcome: Result<(), Error>) {
        if self.session().closing {
            return self.stop(outcome);
        }
        let s = self.session_mut();
        if let Err(e) = outcome {
            let group = &s.config.group;
            tracing::warn!(%group, error = %e.full(), "the group could not be informed that this member has left");
            s.has_coordinator = false; // a request may be parked there
        }
        s.in_flight = InFlight::Nothing;
        s.retry_at = now;
        s.phase = if s.stepping_out { Phase::SteppedOut } else { Phase::Joining };
        self.on_left();
    }

    fn stop(&mut self, outcome: Result<(), Error>) {
        self.lose_partitions();
        let s = self.session_mut();
        s.phase = Phase::Stopped;
        s.actions.push_back(Action::Stop(outcome));
    }

    /// Decides what a failed request means: find the coordinator, rejoin, retry or stop. `message`
    /// is the coordinator's.
    fn on_failure(&mut self, now: Instant, doing: &str, failure: RequestFailure, message: &str) {
        let group = &self.session().config.group;
        let (e, code) = match failure {
            RequestFailure::Connection(e) => (e.context(format!("{doing} in group {group:?}")), None),
            RequestFailure::Code(code) => {
                let detail = if message.is_empty() { self.hint(code).to_owned() } else { format!(": {message}") };
                (Error::broker(code, format_args!("{doing} in group {group:?}{detail}")), Some(code))
            }
        };
        if code.is_some_and(|code| self.on_code(now, code, &e, message)) {
            return;
        }
        let s = self.session_mut();
        if let Some(
            code @ (code::COORDINATOR_LOAD_IN_PROGRESS | code::COORDINATOR_NOT_AVAILABLE | code::NOT_COORDINATOR),
        ) = code
        {
            return s.coordinator_not_ready(now, code, &e);
        }
        // A member that leaves for good takes a refusal as the response.
        let is_response = s.closing && code.is_some_and(|code| !is_retriable_code(code));
        if is_response || is_final(&e) || code.is_some_and(is_final_code) {
            return self.stop(Err(e));
        }
        if let Some(lasted) = s.outage.record_failure(now, &e) {
            let group = &s.config.group;
            tracing::warn!(%group, error = %e.full(), "the group membership is interrupted, {lasted}; retrying");
        }
        s.has_coordinator &= code.is_some();
        s.back_off(now);
    }
}
