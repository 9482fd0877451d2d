//! A member of a group: the interface of both protocols' cores, which have no I/O.
//!
//! [`CoordinatorTask`](super::coordinator_task::CoordinatorTask) drives one in a loop:
//!
//! 1. It carries out each [`Action`] of [`poll_action`](Member::poll_action), in order, until there
//!    is none. A request takes the place of the one in flight, whose response no longer counts.
//! 2. It waits for a response, an event, or the time of [`poll_timeout`](Member::poll_timeout).
//! 3. It calls the `on_*` method of what happened, or [`handle_timeout`](Member::handle_timeout).
//!
//! Methods come in four groups: state, outputs (`poll_*`), inputs (`on_*`, and what the application
//! wants: `leave`, `leave_temporarily`, `resume`), and the timeout. None of them waits, sends or
//! locks.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use uuid::Uuid;

use super::classic::ClassicMember;
use super::kip848::{self, Kip848Member};
use super::protocol::Protocol;
use super::requests::{JoinedGroup, PreviousAssignment, RequestFailure};
use super::session::{InFlight, LEAVE_TIMEOUT, MemberConfig, Phase};
use crate::assignor::GroupMember;
use crate::code;
use crate::config::GroupProtocol;
use crate::error::{Error, ErrorKind};
use crate::failure::OngoingOutage;
use crate::record::TopicPartition;

/// A response of the coordinator, or the failure to get one.
pub(crate) enum CoordinatorResponse {
    /// With an error comes the member id.
    JoinGroup(Result<JoinedGroup, (RequestFailure, String)>),
    SyncGroup(Result<Vec<TopicPartition>, RequestFailure>),
    Heartbeat(Result<(), RequestFailure>),
    LeaveGroup(Result<(), RequestFailure>),
    /// With an error comes the coordinator's message.
    ConsumerGroupHeartbeat(Result<kip848::HeartbeatResponse, (RequestFailure, String)>),
}

/// A step for the task.
#[derive(Debug)]
pub(crate) enum Action {
    /// Close the connection to the coordinator, find it and connect; then `on_coordinator_found`.
    FindCoordinator,
    JoinGroup {
        member_id: String,
        previous: PreviousAssignment,
        timeout: Duration,
    },
    /// Compute the assignment of all members; then `on_assignment_computed`.
    ComputeAssignment {
        members: Vec<GroupMember>,
        assignor: String,
    },
    SyncGroup {
        generation: i32,
        member_id: String,
        assignor: String,
        assignment: Vec<(String, Bytes)>,
    },
    Heartbeat {
        generation: i32,
        member_id: String,
        timeout: Duration,
    },
    LeaveGroup {
        member_id: String,
        timeout: Duration,
    },
    ConsumerGroupHeartbeat {
        heartbeat: kip848::HeartbeatRequest,
        timeout: Duration,
    },
    /// Refresh the metadata: an assignment has topic ids without known names; then
    /// `on_topic_names`.
    RefreshTopicNames,
    /// Replace this member by one of the classic protocol.
    FallBackToClassic,
    /// The member has joined this generation; `added` are assigned beside those it owns already.
    Assigned {
        generation: i32,
        added: Vec<TopicPartition>,
    },
    /// Finish the in-flight records of these partitions; then `on_drained`.
    Revoke {
        partitions: Vec<TopicPartition>,
        deadline: Instant,
    },
    /// These are no longer owned: their drain is complete, or the member leaves.
    Revoked(Vec<TopicPartition>),
    /// All owned partitions are lost, without a drain.
    Lost(Vec<TopicPartition>),
    Stop(Result<(), Error>),
}

impl Action {
    /// Returns whether it starts a rebalance, or belongs to one.
    pub(crate) fn is_of_rebalance(&self) -> bool {
        match self {
            Self::JoinGroup { .. } | Self::Revoke { .. } | Self::Lost(_) => true,
            Self::ConsumerGroupHeartbeat { heartbeat, .. } => heartbeat.epoch == kip848::JOIN_EPOCH,
            _ => false,
        }
    }
}

/// Creates a member that wants to join.
pub(crate) fn new(protocol: GroupProtocol, config: MemberConfig, now: Instant) -> Box<dyn Protocol> {
    match protocol {
        GroupProtocol::Classic => Box::new(ClassicMember::new(config, now)),
        GroupProtocol::Consumer | GroupProtocol::Auto => {
            Box::new(Kip848Member::new(config, Uuid::now_v7().to_string(), now))
        }
    }
}

/// See the [module](self).
pub(crate) trait Member: Protocol {
    // State.

    fn member_id(&self) -> &str {
        &self.session().member_id
    }

    /// Generation of a classic group, or the member epoch.
    fn generation(&self) -> i32 {
        self.session().generation
    }

    /// The outage that keeps it from its group, while there is one.
    fn outage(&self) -> Option<OngoingOutage> {
        self.session().outage.ongoing()
    }

    fn has_coordinator(&self) -> bool {
        self.session().has_coordinator
    }

    /// Returns whether this is a member of the current generation.
    fn is_member(&self) -> bool {
        matches!(self.session().phase, Phase::Stable | Phase::Draining { .. })
    }

    /// Returns whether commits may be sent: also while it rejoins with partitions that it keeps,
    /// for the group is still in the old generation then.
    fn can_commit(&self) -> bool {
        self.is_member() || (self.session().phase == Phase::Joining && self.has_owned())
    }

    // Outputs.

    fn poll_action(&mut self) -> Option<Action> {
        self.session_mut().actions.pop_front()
    }

    /// Time at which [`handle_timeout`](Self::handle_timeout) is due.
    fn poll_timeout(&self) -> Option<Instant> {
        let all = [self.session().phase_timeout(), self.session_expires_at(), self.protocol_timeout()];
        all.into_iter().flatten().min()
    }

    // Inputs.

    /// Handles the result of [`Action::FindCoordinator`]: the newest version of
    /// ConsumerGroupHeartbeat that the coordinator supports, if requested.
    fn on_coordinator_found(&mut self, now: Instant, outcome: Result<Option<i16>, Error>) {
        if !self.session_mut().take_in_flight(InFlight::FindCoordinator) {
            return;
        }
        match outcome {
            Ok(heartbeat_version) => self.on_connected(now, heartbeat_version),
            Err(e) => self.on_failure(now, "finding the coordinator", RequestFailure::Connection(e), ""),
        }
        self.send_due(now);
    }

    /// Handles the error code of a commit of the current generation.
    fn on_commit_refused(&mut self, now: Instant, code: i16) {
        if !self.is_member() {
            return;
        }
        let moved = matches!(code, code::COORDINATOR_NOT_AVAILABLE | code::NOT_COORDINATOR);
        if moved && !self.has_coordinator() {
            // The search is on already: it must not start over with each commit that was sent
            // before it.
        } else if !self.on_commit_code(now, code)
            && (moved || matches!(code, code::UNKNOWN_MEMBER_ID | code::GROUP_ID_NOT_FOUND | code::FENCED_INSTANCE_ID))
        {
            self.session_mut().in_flight = InFlight::Nothing;
            self.on_failure(now, "a commit", RequestFailure::Code(code), "");
        }
        self.send_due(now);
    }

    fn on_disconnected(&mut self, now: Instant) {
        let s = self.session_mut();
        // The request in flight fails by itself.
        if s.has_coordinator && s.in_flight == InFlight::Nothing {
            s.has_coordinator = false;
            self.send_due(now);
        }
    }

    /// Revokes the partitions of [`Action::Revoke`]: the application has finished with them.
    fn on_drained(&mut self, now: Instant) {
        // A drain may have ended at its deadline, or the partitions may be lost.
        if matches!(self.session().phase, Phase::Draining { .. }) {
            self.finish_revocation(now);
            self.send_due(now);
        }
    }

    /// Stops the member: something outside of the protocol has failed for good.
    fn on_fatal_error(&mut self, e: Error) {
        self.stop(Err(e));
    }

    /// Leaves the group for good.
    fn leave(&mut self, now: Instant) {
        let s = self.session_mut();
        if s.closing || s.phase == Phase::Stopped {
            return;
        }
        s.closing = true;
        let owned = self.take_owned();
        if !owned.is_empty() {
            self.session_mut().actions.push_back(Action::Revoked(owned));
        }
        self.start_leaving(now);
    }

    /// Leaves the group until the application [resumes](Self::resume), so that other members get
    /// its partitions.
    fn leave_temporarily(&mut self, now: Instant) {
        let s = self.session_mut();
        if matches!(s.phase, Phase::Leaving { .. } | Phase::SteppedOut | Phase::Stopped) {
            return;
        }
        s.stepping_out = true;
        let generation = s.generation;
        self.lose_partitions();
        self.session_mut().generation = generation; // still that of a member, until it has left
        self.start_leaving(now);
    }

    fn resume(&mut self, now: Instant) {
        let s = self.session_mut();
        s.stepping_out = false;
        if s.phase == Phase::SteppedOut {
            s.phase = Phase::Joining;
            self.send_due(now);
        }
    }

    // Timeout.

    fn handle_timeout(&mut self, now: Instant) {
        if self.session_expires_at().is_some_and(|at| now >= at) {
            let s = self.session_mut();
            tracing::warn!(
                group = %s.config.group,
                member = %s.member_id,
                "the session has expired: the coordinator has not responded within the session timeout, and the partitions are lost"
            );
            s.has_coordinator = false;
            s.in_flight = InFlight::Nothing;
            self.lose_partitions();
        }
        match self.session().phase {
            Phase::Draining { deadline } if now >= deadline => self.finish_revocation(now),
            Phase::Leaving { deadline } if now >= deadline => {
                let what = format!(
                    "the coordinator has not confirmed within {LEAVE_TIMEOUT:?} that this member left group {:?}: the group rebalances after the session timeout",
                    self.session().config.group
                );
                self.finish_leaving(now, Err(Error::new(ErrorKind::Timeout, what)));
            }
            _ => {}
        }
        self.on_protocol_timeout(now);
        self.send_due(now);
    }

    /// Time at which other members may own the partitions, unless a response renews the session
    /// before. A JoinGroup or SyncGroup that the coordinator parks does so.
    fn session_expires_at(&self) -> Option<Instant> {
        let s = self.session();
        let expires = match s.phase {
            Phase::Stable | Phase::Draining { .. } => true,
            Phase::Joining | Phase::Syncing => {
                self.has_owned() && !matches!(s.in_flight, InFlight::Join | InFlight::Sync)
            }
            Phase::Assigning | Phase::Leaving { .. } | Phase::SteppedOut | Phase::Stopped => false,
        };
        expires.then(|| s.renewed_at + s.config.session_timeout)
    }
}

impl<P: Protocol + ?Sized> Member for P {}
