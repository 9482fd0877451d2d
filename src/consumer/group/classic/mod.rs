//! A member of a group by the classic group protocol, as a state machine without I/O.
//!
//! ```text
//!            ┌────────── a rebalance, or the leader's topics have changed ───────────────┐
//!            ▼                                                                           │
//!   Joining ──▶ (leader: Assigning) ──▶ Syncing ──▶ Stable ──▶ (eager: Draining) ────────┘
//!      ▲ ▲                                 │           │               │
//!      │ └── Draining ◀── (some partitions move away)  │               │
//!      └────── the session has expired, or the coordinator removed the member
//! ```
//!
//! The group agrees on an assignor while it joins. With an eager one, all partitions are
//! revoked before a member rejoins. With a cooperative one it keeps them, reports them in its
//! subscription, and revokes those that its new assignment lacks; then it rejoins, so that they can
//! be assigned to others. If a group with a cooperative assignor agrees on an eager one, the owned
//! partitions are lost at once: others may be assigned them by this very rebalance.
//!
//! Partitions are drained before they are revoked: they stay owned, heartbeats and commits go on,
//! until the application has finished (`on_drained`) or the [deadline](Session::drain_deadline) has
//! passed.
//!
//! The phase does not depend on the coordinator, which may move at any time. A member
//! that reaches none keeps its partitions until its session expires.
//!
//! [`Member`](super::member::Member) says how to drive it.

mod join;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use bytes::Bytes;
use tokio::time::Instant;

use super::member::{Action, CoordinatorResponse};
use super::protocol::Protocol;
use super::requests::RequestFailure;
use super::session::{InFlight, MemberConfig, Phase, Session};
use crate::code;
use crate::error::Error;
use crate::record::TopicPartition;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct ClassicMember {
    session: Session,
    /// Assignor that the group has agreed on.
    assignor: String,
    cooperative: bool,
    is_leader: bool,
    owned: BTreeSet<TopicPartition>,
    /// Generation that assigned them; -1 once they were lost.
    owned_generation: i32,
    /// The last assignment, whether it is still owned or not, and its generation.
    last_assignment: Vec<TopicPartition>,
    last_generation: i32,
    /// Generation whose assignment requires to revoke partitions and to rejoin: other members wait
    /// for that.
    must_rejoin_after: Option<i32>,
    /// True if the subscription has changed since the last JoinGroup.
    is_subscription_changed: bool,
    /// Owned partitions that are drained.
    revoking: Vec<TopicPartition>,
    /// The leader's assignment, to be sent with SyncGroup.
    assignment: Vec<(String, Bytes)>,
    /// True if it leaves owned partitions unassigned, until their owner has revoked them and
    /// rejoined.
    has_unassigned_owned: bool,
    /// When the leader starts a rebalance if that owner has not: a static member that restarts
    /// meanwhile gets its old assignment without a rebalance, and what it was to revoke would stay
    /// unassigned.
    rebalance_overdue_at: Option<Instant>,
}

impl ClassicMember {
    /// Creates a member that wants to join.
    pub(crate) fn new(config: MemberConfig, now: Instant) -> Self {
        let mut new = Self {
            session: Session::new(config, -1, now),
            assignor: String::new(),
            cooperative: false,
            is_leader: false,
            owned: BTreeSet::new(),
            owned_generation: -1,
            last_assignment: Vec::new(),
            last_generation: -1,
            must_rejoin_after: None,
            is_subscription_changed: false,
            revoking: Vec::new(),
            assignment: Vec::new(),
            has_unassigned_owned: false,
            rebalance_overdue_at: None,
        };
        new.send_due(now);
        new
    }

    fn on_heartbeat_response(&mut self, now: Instant, outcome: Result<(), RequestFailure>) {
        let s = &mut self.session;
        if !s.take_in_flight(InFlight::Heartbeat) {
            return;
        }
        s.slow_heartbeats(s.config.heartbeat_interval);
        s.schedule_heartbeat(now, s.sent_at);
        match outcome {
            Ok(()) => {
                s.renewed_at = s.sent_at;
                s.rebalance_timer_from = s.sent_at;
                s.backoff.reset();
                s.recovered(now);
            }
            Err(RequestFailure::Code(code::REBALANCE_IN_PROGRESS)) => {
                s.renewed_at = s.sent_at;
                s.recovered(now);
                self.start_rebalance(now);
            }
            Err(failure) => self.on_failure(now, "a heartbeat", failure, ""),
        }
        self.send_due(now);
    }

    fn on_leave_response(&mut self, now: Instant, outcome: Result<(), RequestFailure>) {
        if !self.session.take_in_flight(InFlight::Leave) {
            return;
        }
        match outcome {
            Ok(()) | Err(RequestFailure::Code(code::UNKNOWN_MEMBER_ID | code::GROUP_ID_NOT_FOUND)) => {
                self.finish_leaving(now, Ok(()));
            }
            Err(failure) => self.on_failure(now, "leaving", failure, ""),
        }
        self.send_due(now);
    }

    /// Goes along with a rebalance. While a drain goes on there is nothing to do: the member
    /// rejoins when it is complete, which is in time for this rebalance too.
    fn start_rebalance(&mut self, now: Instant) {
        if self.session.phase != Phase::Stable {
            return;
        }
        if self.owned.is_empty() || self.cooperative {
            self.session.phase = Phase::Joining;
        } else {
            self.revoke(now, self.owned.iter().cloned().collect());
        }
    }

    fn revoke(&mut self, now: Instant, partitions: Vec<TopicPartition>) {
        self.revoking.clone_from(&partitions);
        self.start_revocation(now, partitions);
    }
}

impl Protocol for ClassicMember {
    fn session(&self) -> &Session {
        &self.session
    }

    fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    fn is_leader(&self) -> bool {
        self.is_leader
    }

    fn has_owned(&self) -> bool {
        !self.owned.is_empty()
    }

    fn take_owned(&mut self) -> Vec<TopicPartition> {
        self.revoking.clear();
        std::mem::take(&mut self.owned).into_iter().collect()
    }

    fn take_drained(&mut self) -> Vec<TopicPartition> {
        let drained = std::mem::take(&mut self.revoking);
        drained.iter().for_each(|p| _ = self.owned.remove(p));
        drained
    }

    fn protocol_timeout(&self) -> Option<Instant> {
        self.rebalance_overdue_at.filter(|_| self.session.phase == Phase::Stable)
    }

    fn on_protocol_timeout(&mut self, now: Instant) {
        if self.protocol_timeout().is_some_and(|at| now >= at) {
            let group = &self.session.config.group;
            tracing::info!(%group, "partitions that a member was to revoke are still unassigned: the group rebalances");
            self.rebalance_overdue_at = None;
            self.start_rebalance(now);
        }
    }

    fn on_connected(&mut self, _: Instant, _: Option<i16>) {
        self.session.has_coordinator = true;
    }

    fn on_response(&mut self, now: Instant, response: CoordinatorResponse) {
        match response {
            CoordinatorResponse::JoinGroup(outcome) => self.on_join_response(now, outcome),
            CoordinatorResponse::SyncGroup(outcome) => self.on_sync_response(now, outcome),
            CoordinatorResponse::Heartbeat(outcome) => self.on_heartbeat_response(now, outcome),
            CoordinatorResponse::LeaveGroup(outcome) => self.on_leave_response(now, outcome),
            CoordinatorResponse::ConsumerGroupHeartbeat(_) => {} // sent before the fallback to this protocol
        }
    }

    fn on_assignment_computed(&mut self, now: Instant, assignment: Vec<(String, Bytes)>, withheld: bool) {
        if self.session.phase == Phase::Assigning {
            self.assignment = assignment;
            self.has_unassigned_owned = withheld;
            self.session.phase = Phase::Syncing;
            self.send_due(now);
        }
    }

    fn on_partitions_changed(&mut self, now: Instant) {
        if self.is_leader && self.session.phase == Phase::Stable {
            self.start_rebalance(now);
            self.send_due(now);
        }
    }

    /// Starts a rebalance, at once or after the one in progress:
    /// 1. JoinGroup is sent with the topics of now; the coordinator parks it.
    /// 2. The subscription changes.
    /// 3. The response and SyncGroup assign by the topics of step 1: the member rejoins then.
    fn on_subscription_changed(&mut self, now: Instant) {
        self.is_subscription_changed = true;
        self.start_rebalance(now);
        self.send_due(now);
    }

    fn on_code(&mut self, now: Instant, code: i16, e: &Error, _: &str) -> bool {
        match code {
            code::UNKNOWN_MEMBER_ID | code::GROUP_ID_NOT_FOUND => {
                self.session.removed(now, code, e);
                self.session.member_id.clear();
                self.rejoin(now, false);
            }
            code::ILLEGAL_GENERATION | code::REBALANCE_IN_PROGRESS => {
                let (group, error) = (&self.session.config.group, e.full());
                tracing::debug!(%group, %error, "the group is in another generation");
                self.assignment.clear();
                // A rebalance in progress waits for this member and what it owns; a later
                // generation was formed without it.
                self.rejoin(now, code == code::REBALANCE_IN_PROGRESS);
            }
            _ => return false,
        }
        true
    }

    fn on_commit_code(&mut self, now: Instant, code: i16) -> bool {
        match code {
            code::REBALANCE_IN_PROGRESS => self.start_rebalance(now),
            code::ILLEGAL_GENERATION => {
                self.session.in_flight = InFlight::Nothing;
                self.on_failure(now, "a commit", RequestFailure::Code(code), "");
            }
            _ => return false,
        }
        true
    }

    fn hint(&self, code: i16) -> &'static str {
        match code {
            code::GROUP_MAX_SIZE_REACHED => " (the group has as many members as the broker's group.max.size allows)",
            code::FENCED_INSTANCE_ID => {
                " (another member uses the same instance id: give each member its own ConsumerConfig::group_instance_id)"
            }
            _ => "",
        }
    }

    fn on_revoked(&mut self, _: Instant) {
        self.session.phase = Phase::Joining;
    }

    fn on_lost(&mut self) {
        self.assignment.clear();
        self.owned_generation = -1;
    }

    fn on_left(&mut self) {
        if self.session.config.instance_id.is_none() {
            self.session.member_id.clear();
        }
        self.session.has_coordinator = false; // a request may be parked there
    }

    fn may_replace_heartbeat(&self) -> bool {
        matches!(self.session.phase, Phase::Joining | Phase::Leaving { .. })
    }

    /// Returns false for a static member: the group keeps its place until its session expires.
    fn must_send_leave(&self) -> bool {
        !self.session.member_id.is_empty() && self.session.config.instance_id.is_none()
    }

    fn send_for_phase(&mut self, now: Instant) {
        let (generation, member_id) = (self.session.generation, self.session.member_id.clone());
        match self.session.phase {
            Phase::Joining => self.send_join(now, member_id),
            Phase::Syncing => {
                let (assignor, assignment) = (self.assignor.clone(), self.assignment.clone());
                let sync = Action::SyncGroup { generation, member_id, assignor, assignment };
                self.session.send(now, InFlight::Sync, sync);
            }
            Phase::Stable | Phase::Draining { .. } if now >= self.session.next_heartbeat_at => {
                let timeout = self.session.heartbeat_timeout();
                self.session.send(now, InFlight::Heartbeat, Action::Heartbeat { generation, member_id, timeout });
            }
            Phase::Leaving { deadline } => {
                let timeout = deadline - now;
                self.session.send(now, InFlight::Leave, Action::LeaveGroup { member_id, timeout });
            }
            Phase::Stable | Phase::Draining { .. } | Phase::Assigning | Phase::SteppedOut | Phase::Stopped => {}
        }
    }
}
