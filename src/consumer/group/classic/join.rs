//! JoinGroup, the leader's assignment, SyncGroup: from one generation to the next.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::ClassicMember;
use crate::assignor::{Assignor, RebalanceProtocol};
use crate::code;
use crate::consumer::group::member::Action;
use crate::consumer::group::protocol::Protocol;
use crate::consumer::group::requests::{JoinedGroup, PreviousAssignment, RequestFailure};
use crate::consumer::group::session::{InFlight, Phase};
use crate::error::{Error, ErrorKind};
use crate::record::TopicPartition;

/// Time that a JoinGroup may stay parked beyond the rebalance timeout before its connection counts
/// as dead.
const JOIN_TIMEOUT_SLACK: Duration = Duration::from_secs(10);

impl ClassicMember {
    pub(super) fn send_join(&mut self, now: Instant, member_id: String) {
        self.is_subscription_changed = false;
        let timeout = self.session.config.rebalance_timeout + JOIN_TIMEOUT_SLACK;
        let previous = PreviousAssignment {
            owned: self.owned.iter().cloned().collect(),
            owned_generation: self.owned_generation,
            last_assignment: self.last_assignment.clone(),
            last_generation: self.last_generation,
        };
        self.session.send(now, InFlight::Join, Action::JoinGroup { member_id, previous, timeout });
    }

    /// Handles the response to JoinGroup. With `MEMBER_ID_REQUIRED` comes the member id to join
    /// with.
    pub(super) fn on_join_response(&mut self, now: Instant, outcome: Result<JoinedGroup, (RequestFailure, String)>) {
        if !self.session.take_in_flight(InFlight::Join) {
            return;
        }
        match outcome {
            Err((RequestFailure::Code(code::MEMBER_ID_REQUIRED), id)) => self.session.member_id = id,
            Err((failure, _)) => self.on_failure(now, "joining", failure, ""),
            Ok(joined) if self.session.is_leaving() => self.session.member_id = joined.member_id,
            Ok(joined) => self.accept_generation(now, joined),
        }
        self.send_due(now);
    }

    fn accept_generation(&mut self, now: Instant, joined: JoinedGroup) {
        let config = &self.session.config;
        let Some(assignor) = config.assignors.iter().find(|a| a.name() == joined.assignor) else {
            let what = format!(
                "group {:?} uses the assignor {:?}, which this member does not offer",
                config.group, joined.assignor
            );
            return self.stop(Err(Error::new(ErrorKind::Unsupported, what)));
        };
        let cooperative = assignor.protocol() == RebalanceProtocol::Cooperative;
        if !cooperative && !self.owned.is_empty() {
            tracing::warn!(
                group = %config.group,
                assignor = joined.assignor,
                "the group has changed to an eager assignor: the owned partitions are lost"
            );
            self.lose_partitions();
        }
        self.session.renewed_at = now;
        self.session.member_id = joined.member_id;
        self.session.generation = joined.generation;
        self.cooperative = cooperative;
        self.assignor = joined.assignor;
        self.is_leader = joined.is_leader;
        self.assignment.clear();
        (self.has_unassigned_owned, self.rebalance_overdue_at) = (false, None);
        self.session.phase = match joined.members {
            Some(members) => {
                let assignor = self.assignor.clone();
                self.session.actions.push_back(Action::ComputeAssignment { members, assignor });
                Phase::Assigning
            }
            None => Phase::Syncing,
        };
    }

    pub(super) fn on_sync_response(&mut self, now: Instant, outcome: Result<Vec<TopicPartition>, RequestFailure>) {
        if !self.session.take_in_flight(InFlight::Sync) {
            return;
        }
        match outcome {
            Ok(assignment) => {
                let s = &mut self.session;
                s.backoff.reset();
                s.recovered(now);
                s.rejoins = 0;
                // Not since it was sent: the coordinator parks it until the leader's assignment,
                // and counts from there.
                s.renewed_at = now;
                s.rebalance_timer_from = now;
                s.restart_heartbeats(s.config.heartbeat_interval);
                s.schedule_heartbeat(now, now);
                let overdue_at = now + s.config.rebalance_timeout;
                self.rebalance_overdue_at = self.has_unassigned_owned.then_some(overdue_at);
                self.assignment.clear();
                self.accept_assignment(now, assignment.into_iter().collect());
            }
            Err(failure) => self.on_failure(now, "synchronising", failure, ""),
        }
        self.send_due(now);
    }

    /// Owns the assigned partitions, and those that are not assigned any more until they are
    /// revoked.
    fn accept_assignment(&mut self, now: Instant, assignment: BTreeSet<TopicPartition>) {
        let added: Vec<_> = assignment.difference(&self.owned).cloned().collect();
        let removed: Vec<_> = self.owned.difference(&assignment).cloned().collect();
        self.last_assignment = assignment.iter().cloned().collect();
        self.owned.extend(assignment);
        let generation = self.session.generation;
        (self.last_generation, self.owned_generation) = (generation, generation);
        self.session.phase = Phase::Stable;
        // A static member may get the same generation twice:
        // 1. Generation 5 assigns it less than it owns: it drains, revokes, and is to rejoin, so
        //    that others get the rest.
        // 2. Its session expires, or the coordinator forgets it, before its JoinGroup arrives.
        // 3. It joins with its instance id: the coordinator returns the assignment of generation 5
        //    without a rebalance.
        // Nothing is left to revoke, and the others still wait: so it rejoins again.
        let still_must_rejoin = self.must_rejoin_after == Some(generation);
        self.must_rejoin_after = (still_must_rejoin || !removed.is_empty()).then_some(generation);
        if !removed.is_empty() {
            self.revoke(now, removed);
        } else if still_must_rejoin {
            self.session.phase = Phase::Joining;
            self.session.back_off(now);
        }
        self.session.actions.push_back(Action::Assigned { generation, added });
        if self.is_subscription_changed {
            self.start_rebalance(now);
        }
    }
}
