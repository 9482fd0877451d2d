//! The state that members of both group protocols keep of their session with the coordinator, and
//! what follows from it alone; [`Protocol`](super::protocol::Protocol) has the transitions.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::member::Action;
use crate::cluster::{Backoff, Cluster};
use crate::code;
use crate::config::{AssignorKind, ConsumerConfig, GroupProtocol};
use crate::error::Error;
use crate::failure::{Outage, OutageLog};

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

/// Settings of a member.
#[derive(Debug, Clone)]
pub(crate) struct MemberConfig {
    pub(crate) group: String,
    pub(crate) assignors: Vec<AssignorKind>,
    pub(crate) instance_id: Option<String>,
    /// True if the member may fall back to the classic protocol.
    pub(crate) may_be_classic: bool,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) backoff: Backoff,
    pub(crate) outages: OutageLog,
}

impl MemberConfig {
    pub(crate) fn new(group: &str, consumer: &ConsumerConfig, cluster: &Cluster) -> Self {
        Self {
            group: group.into(),
            assignors: consumer.assignors.clone(),
            instance_id: consumer.group_instance_id.clone(),
            may_be_classic: consumer.group_protocol == GroupProtocol::Auto,
            session_timeout: consumer.session_timeout,
            rebalance_timeout: consumer.rebalance_timeout,
            heartbeat_interval: consumer.heartbeat_interval,
            request_timeout: cluster.request_timeout(),
            backoff: cluster.backoff(),
            outages: cluster.outages().clone(),
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
            outage: config.outages.part(),
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
        self.outage.log_recovery(now);
    }

    /// Records that the coordinator does not know the member.
    pub(super) fn removed(&mut self, now: Instant, code: i16, e: &Error) {
        if self.outage.record_failure(now, e).is_some() {
            let (group, member) = (&self.config.group, &self.member_id);
            let error = e.full();
            tracing::warn!(%group, %member, code, %error, "the group has removed this member, which rejoins");
        }
    }

    /// Records that the coordinator loads or moves, and looks it up again.
    pub(super) fn coordinator_not_ready(&mut self, now: Instant, code: i16, e: &Error) {
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
