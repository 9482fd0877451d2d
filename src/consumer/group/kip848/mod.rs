//! A member of a group by the `consumer` group protocol (KIP-848), as a state machine without I/O.
//!
//! ```text
//!   Joining ──▶ Stable ──▶ Draining ─┐
//!      ▲          ▲  │         │     │ (the drained partitions are revoked)
//!      │          └──┼─────────┼─────┘
//!      └─────────────┴─────────┘ fenced, unknown to the coordinator, or the session has expired
//! ```
//!
//! From each of them the member may go to Leaving, for good or, if the application is stuck, to
//! SteppedOut, from where it rejoins when the application resumes.
//!
//! The coordinator computes a target assignment for each member and leads it there by responses to
//! its heartbeats; partitions that stay are never interrupted. [`reconcile`] takes one step at a
//! time towards it.
//!
//! Assignments name topics by id. A partition of a topic whose name is not known waits until a
//! metadata refresh has found it.
//!
//! A heartbeat reports what has changed, and everything after any failure: then the coordinator,
//! which may be another one, responds with everything too. One is sent at once when there is
//! something to report; after a change some follow each other quickly, for their responses assign
//! what other members revoke.
//!
//! Commits carry the member epoch. One that arrives too late for it is refused as stale, and sent
//! again with the epoch of the next response.
//!
//! [`Member`](super::member::Member) says how to drive it.

mod heartbeat;
mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

pub(crate) use heartbeat::{HeartbeatRequest, HeartbeatResponse, check_heartbeat, encode_heartbeat};

use super::member::{Action, CoordinatorResponse, Member};
use super::protocol::Protocol;
use super::requests::RequestFailure;
use super::session::{InFlight, MemberConfig, Phase, Session};
use crate::cluster::Backoff;
use crate::code;
use crate::error::{Error, ErrorKind};
use crate::record::TopicPartition;
use heartbeat::IdPartition;
use tokio::time::Instant;

/// Epoch of a member that joins.
pub(super) const JOIN_EPOCH: i32 = 0;
/// Epoch of a member that leaves.
const LEAVE_EPOCH: i32 = -1;
/// Epoch of a static member that leaves and keeps its place until its session expires.
const STATIC_LEAVE_EPOCH: i32 = -2;
/// First version of ConsumerGroupHeartbeat in which clients generate the member id (KIP-1082).
const CLIENT_MEMBER_ID_VERSION: i16 = 1;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Kip848Member {
    /// Its generation is the member epoch.
    session: Session,
    /// Member id to use where the coordinator assigns none.
    generated_member_id: String,
    /// True if the coordinator may know this member: a heartbeat was sent.
    known_to_coordinator: bool,
    /// True if the next heartbeat must report everything.
    full: bool,
    /// True if the subscription has changed since the last heartbeat was sent.
    is_subscription_changed: bool,
    /// The assignment that the coordinator wants this member to reach.
    target: BTreeSet<IdPartition>,
    owned: BTreeMap<IdPartition, TopicPartition>,
    /// Owned partitions that are drained.
    revoking: Vec<IdPartition>,
    /// Owned partitions as the coordinator has last acknowledged them.
    reported: BTreeSet<IdPartition>,
    /// Owned partitions as the heartbeat in flight reports them, if it does.
    reporting: Option<BTreeSet<IdPartition>>,
    topic_names: HashMap<Uuid, Arc<str>>,
    refresh_names_at: Instant,
    names_backoff: Backoff,
    /// Time since when another member has the instance id.
    instance_taken_since: Option<Instant>,
}

impl Kip848Member {
    /// Creates a member that wants to join.
    pub(crate) fn new(config: MemberConfig, generated_member_id: String, now: Instant) -> Self {
        let mut new = Self {
            generated_member_id,
            known_to_coordinator: false,
            full: true,
            is_subscription_changed: false,
            target: BTreeSet::new(),
            owned: BTreeMap::new(),
            revoking: Vec::new(),
            reported: BTreeSet::new(),
            reporting: None,
            topic_names: HashMap::new(),
            refresh_names_at: now,
            names_backoff: config.backoff.clone(),
            instance_taken_since: None,
            session: Session::new(config, JOIN_EPOCH, now),
        };
        new.send_due(now);
        new
    }

    /// Handles the response to a heartbeat, or to the one that leaves. With an error code comes the
    /// coordinator's message.
    fn on_heartbeat_response(&mut self, now: Instant, outcome: Result<HeartbeatResponse, (RequestFailure, String)>) {
        let reporting = self.reporting.take();
        if self.session.take_in_flight(InFlight::Leave) {
            match outcome {
                Ok(_) => self.finish_leaving(now, Ok(())),
                Err((failure, message)) => self.on_failure(now, "leaving", failure, &message),
            }
        } else if self.session.take_in_flight(InFlight::Heartbeat) {
            match outcome {
                Ok(response) => self.accept_heartbeat(now, reporting, response),
                Err((failure, message)) => {
                    let doing = if self.session.phase == Phase::Joining { "joining" } else { "a heartbeat" };
                    self.on_failure(now, doing, failure, &message);
                }
            }
        }
        self.send_due(now);
    }

    fn accept_heartbeat(&mut self, now: Instant, reported: Option<BTreeSet<IdPartition>>, response: HeartbeatResponse) {
        let s = &mut self.session;
        let joining = s.phase == Phase::Joining;
        if joining || s.member_id.is_empty() {
            s.member_id = response.member_id.unwrap_or(std::mem::take(&mut s.member_id));
        }
        if s.is_leaving() {
            return;
        }
        if response.epoch <= JOIN_EPOCH {
            let what = format!("the response to a heartbeat has epoch {}", response.epoch);
            let corrupt = RequestFailure::Connection(Error::new(ErrorKind::Corrupt, what));
            return self.on_failure(now, "a heartbeat", corrupt, "");
        }
        s.renewed_at = s.sent_at;
        s.backoff.reset();
        s.recovered(now);
        s.rejoins = 0;
        self.instance_taken_since = None;
        self.full = false;
        self.reported = reported.unwrap_or(std::mem::take(&mut self.reported));
        let interval = if response.interval.is_zero() { s.config.heartbeat_interval } else { response.interval };
        let interval = interval.min(s.config.session_timeout / 3); // this side counts its session too
        let new_epoch = response.epoch != s.generation;
        if joining || new_epoch || response.assignment.is_some() {
            s.restart_heartbeats(interval);
        } else {
            s.slow_heartbeats(interval);
        }
        s.schedule_heartbeat(now, s.sent_at);
        if self.is_subscription_changed {
            s.next_heartbeat_at = now; // it changed after this heartbeat was sent
        }
        if let Some(target) = response.assignment {
            self.target = target;
            s.rebalance_timer_from = s.sent_at;
        }
        s.generation = response.epoch;
        if joining {
            s.phase = Phase::Stable;
        }
        self.reconcile(now, new_epoch);
    }

    /// Falls back to the classic protocol, if allowed: the cluster does not support this one.
    fn on_unsupported(&mut self, now: Instant, why: &str) {
        if self.session.is_leaving() {
            return self.finish_leaving(now, Ok(()));
        }
        let group = &self.session.config.group;
        if self.session.config.may_be_classic {
            tracing::info!(%group, why, "no consumer group protocol: falling back to the classic one");
            self.lose_partitions();
            self.session.phase = Phase::Stopped;
            self.session.actions.push_back(Action::FallBackToClassic);
            return;
        }
        let what = format!(
            "group {group:?} can't be joined by the consumer group protocol: {why}; set ConsumerConfig::group_protocol to classic or auto"
        );
        self.stop(Err(Error::new(ErrorKind::Unsupported, what)));
    }

    /// Returns whether the instance id may become free: that of a member that died is, once its
    /// session has expired.
    fn may_wait_for_instance(&mut self, now: Instant) -> bool {
        let since = *self.instance_taken_since.get_or_insert(now);
        now < since + self.session.config.session_timeout
    }

    fn send_heartbeat(&mut self, now: Instant) {
        let is_subscription_changed = std::mem::take(&mut self.is_subscription_changed);
        self.full |= is_subscription_changed; // until a response confirms it
        let full = self.full || self.session.phase == Phase::Joining;
        let changed = full || !self.owned.keys().eq(&self.reported);
        // Partitions that are drained are still owned: nobody else may have them.
        let owned = changed.then(|| self.owned.keys().copied().collect::<BTreeSet<_>>());
        self.known_to_coordinator = true;
        self.reporting.clone_from(&owned);
        let (epoch, timeout) = (self.session.generation, self.session.heartbeat_timeout());
        self.send(now, InFlight::Heartbeat, HeartbeatRequest { member_id: String::new(), epoch, full, owned }, timeout);
    }

    fn send(&mut self, now: Instant, in_flight: InFlight, heartbeat: HeartbeatRequest, timeout: Duration) {
        let heartbeat = HeartbeatRequest { member_id: self.session.member_id.clone(), ..heartbeat };
        self.session.send(now, in_flight, Action::ConsumerGroupHeartbeat { heartbeat, timeout });
    }
}

impl Protocol for Kip848Member {
    fn session(&self) -> &Session {
        &self.session
    }

    fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    fn uses_topic_ids(&self) -> bool {
        true
    }

    fn has_owned(&self) -> bool {
        !self.owned.is_empty()
    }

    fn take_owned(&mut self) -> Vec<TopicPartition> {
        self.revoking.clear();
        std::mem::take(&mut self.owned).into_values().collect()
    }

    fn take_drained(&mut self) -> Vec<TopicPartition> {
        let drained = std::mem::take(&mut self.revoking);
        drained.iter().filter_map(|p| self.owned.remove(p)).collect()
    }

    fn protocol_timeout(&self) -> Option<Instant> {
        self.needs_topic_names().then_some(self.refresh_names_at)
    }

    fn on_protocol_timeout(&mut self, now: Instant) {
        self.request_topic_names(now);
    }

    fn on_connected(&mut self, now: Instant, heartbeat_version: Option<i16>) {
        let Some(version) = heartbeat_version else {
            return self.on_unsupported(now, "its coordinator does not serve ConsumerGroupHeartbeat");
        };
        self.session.has_coordinator = true;
        self.full = true;
        if self.session.member_id.is_empty() && version >= CLIENT_MEMBER_ID_VERSION {
            self.session.member_id.clone_from(&self.generated_member_id);
        }
    }

    fn on_response(&mut self, now: Instant, response: CoordinatorResponse) {
        if let CoordinatorResponse::ConsumerGroupHeartbeat(outcome) = response {
            self.on_heartbeat_response(now, outcome);
        }
    }

    fn on_topic_names(&mut self, now: Instant, names: Vec<(Uuid, Arc<str>)>) {
        self.topic_names.extend(names);
        self.reconcile(now, false);
        self.send_due(now);
    }

    fn on_subscription_changed(&mut self, now: Instant) {
        self.is_subscription_changed = true;
        self.session.next_heartbeat_at = now;
        self.send_due(now);
    }

    fn on_code(&mut self, now: Instant, code: i16, e: &Error, message: &str) -> bool {
        self.full = true; // another coordinator may know less
        match code {
            code::UNKNOWN_MEMBER_ID
            | code::FENCED_MEMBER_EPOCH
            | code::GROUP_ID_NOT_FOUND
            | code::FENCED_INSTANCE_ID
                if self.session.is_leaving() =>
            {
                self.finish_leaving(now, Ok(())); // no longer a member
            }
            code::UNSUPPORTED_VERSION | code::GROUP_ID_NOT_FOUND if self.session.generation == JOIN_EPOCH => {
                let why = if message.is_empty() { "the coordinator refuses it" } else { message };
                self.on_unsupported(now, &format!("{why} (error code {code})"));
            }
            code::UNKNOWN_MEMBER_ID | code::FENCED_MEMBER_EPOCH | code::GROUP_ID_NOT_FOUND => {
                self.session.removed(now, code, e);
                self.rejoin(now, false);
            }
            code::UNRELEASED_INSTANCE_ID if self.may_wait_for_instance(now) => {
                let s = &mut self.session;
                if let Some(lasted) = s.outage.record_failure(now, e) {
                    let group = &s.config.group;
                    tracing::warn!(
                        %group,
                        message,
                        "another member has the instance id, {lasted}; retrying until its session would have expired"
                    );
                }
                s.back_off(now);
            }
            _ => return false,
        }
        true
    }

    fn on_commit_code(&mut self, now: Instant, code: i16) -> bool {
        match code {
            // The response brings the epoch for the retry.
            code::STALE_MEMBER_EPOCH => self.session.next_heartbeat_at = now,
            // 1. A heartbeat is in flight on the other connection; its response assigns partitions
            //    and a new epoch.
            // 2. A commit is refused with NOT_COORDINATOR.
            // Dropping the heartbeat would drop that epoch: the next one, with the old epoch, would
            // be fenced. So its own outcome decides.
            code::COORDINATOR_NOT_AVAILABLE | code::NOT_COORDINATOR if self.session.in_flight != InFlight::Nothing => {}
            _ => return false,
        }
        true
    }

    fn hint(&self, code: i16) -> &'static str {
        match code {
            code::GROUP_MAX_SIZE_REACHED => {
                " (the group has as many members as the broker's group.consumer.max.size allows)"
            }
            code::FENCED_INSTANCE_ID => {
                " (another member uses the same instance id: give each member its own ConsumerConfig::group_instance_id)"
            }
            code::UNRELEASED_INSTANCE_ID => " (another member has this one's instance id)",
            code::UNSUPPORTED_ASSIGNOR => {
                " (the broker's group.consumer.assignors does not have ConsumerConfig::group_remote_assignor)"
            }
            _ => "",
        }
    }

    fn on_revoked(&mut self, now: Instant) {
        self.session.phase = Phase::Stable;
        self.reconcile(now, false);
    }

    fn on_lost(&mut self) {
        self.target.clear();
        self.reported.clear();
        self.session.generation = JOIN_EPOCH;
    }

    fn on_left(&mut self) {
        self.on_lost();
        self.known_to_coordinator = false;
        self.full = true;
    }

    /// Returns true while it leaves, unless the response brings the member id to leave with.
    fn may_replace_heartbeat(&self) -> bool {
        self.session.is_leaving() && !self.session.member_id.is_empty()
    }

    fn must_send_leave(&self) -> bool {
        self.known_to_coordinator && !self.session.member_id.is_empty()
    }

    fn send_for_phase(&mut self, now: Instant) {
        match self.session.phase {
            Phase::Joining => self.send_heartbeat(now),
            Phase::Stable | Phase::Draining { .. } if now >= self.session.next_heartbeat_at => self.send_heartbeat(now),
            Phase::Leaving { deadline } => {
                // A static member that steps out leaves for good: others are to get its partitions
                // now.
                let keeps_place = self.session.config.instance_id.is_some() && self.session.closing;
                let epoch = if keeps_place { STATIC_LEAVE_EPOCH } else { LEAVE_EPOCH };
                let leave = HeartbeatRequest { member_id: String::new(), epoch, full: false, owned: None };
                self.send(now, InFlight::Leave, leave, deadline - now);
            }
            _ => {}
        }
    }
}
