//! Differences between the group protocols, and the transitions of a member that they share.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use uuid::Uuid;

use super::member::{Action, CoordinatorResponse};
use super::requests::RequestFailure;
use super::session::{InFlight, LEAVE_TIMEOUT, Phase, Session};
use crate::code;
use crate::error::{Error, is_retriable_code};
use crate::failure::{is_fatal, is_fatal_code};
use crate::record::TopicPartition;

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

    /// Handles a change of the subscribed topics, which the next JoinGroup or full heartbeat reports.
    fn on_subscription_changed(&mut self, now: Instant);

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
        if is_response || is_fatal(&e) || code.is_some_and(is_fatal_code) {
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
