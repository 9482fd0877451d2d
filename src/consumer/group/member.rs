//! Membership by whichever group protocol is spoken, behind one face.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use uuid::Uuid;

use super::classic::ClassicMember;
use super::kip848::{HeartbeatResponse, Kip848Member};
use super::requests::{Action, JoinedGroup, MemberConfig, RequestFailure};
use crate::config::GroupProtocol;
use crate::error::Error;
use crate::failure::OngoingOutage;
use crate::record::TopicPartition;

/// What came of a request to the coordinator, as far as the protocols don't share it.
pub(crate) enum CoordinatorResponse {
    /// JoinGroup; an error comes with the member id.
    JoinGroup(Result<JoinedGroup, (RequestFailure, String)>),
    /// And whether something is withheld until its owner has given it up.
    Assignment(Vec<(String, Bytes)>, bool),
    SyncGroup(Result<Vec<TopicPartition>, RequestFailure>),
    Heartbeat(Result<(), RequestFailure>),
    LeaveGroup(Result<(), RequestFailure>),
    /// ConsumerGroupHeartbeat; an error comes with what the coordinator says of it.
    ConsumerGroupHeartbeat(Result<HeartbeatResponse, (RequestFailure, String)>),
}

/// See the two.
#[derive(Debug)]
pub(crate) enum Member {
    Classic(ClassicMember),
    Modern(Kip848Member),
}

macro_rules! both {
    ($self:ident, $m:ident => $what:expr) => {
        match $self {
            Self::Classic($m) => $what,
            Self::Modern($m) => $what,
        }
    };
}

impl Member {
    pub(crate) fn new(protocol: GroupProtocol, settings: MemberConfig, now: Instant) -> Self {
        match protocol {
            GroupProtocol::Classic => Self::Classic(ClassicMember::new(settings, now)),
            GroupProtocol::Consumer | GroupProtocol::Auto => {
                Self::Modern(Kip848Member::new(settings, Uuid::now_v7().to_string(), now))
            }
        }
    }

    /// Whether it is the `consumer` protocol: `found` wants to know if ConsumerGroupHeartbeat is served, and `learn` topics' names.
    pub(crate) fn is_modern(&self) -> bool {
        matches!(self, Self::Modern(_))
    }

    pub(crate) fn next_action(&mut self) -> Option<Action> {
        both!(self, m => m.next_action())
    }

    pub(crate) fn member_id(&self) -> &str {
        both!(self, m => m.member_id())
    }

    /// The generation, or the member's epoch.
    pub(crate) fn generation(&self) -> i32 {
        both!(self, m => m.generation())
    }

    /// Whether this member shares out the partitions of the current generation.
    pub(crate) fn leads(&self) -> bool {
        matches!(self, Self::Classic(m) if m.leads())
    }

    pub(crate) fn has_coordinator(&self) -> bool {
        both!(self, m => m.has_coordinator())
    }

    pub(crate) fn is_member(&self) -> bool {
        both!(self, m => m.is_member())
    }

    /// Whether commits are taken.
    pub(crate) fn may_commit(&self) -> bool {
        match self {
            Self::Classic(m) => m.may_commit(),
            Self::Modern(m) => m.is_member(),
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        both!(self, m => m.deadline())
    }

    pub(crate) fn tick(&mut self, now: Instant) {
        both!(self, m => m.tick(now));
    }

    /// With the newest version of ConsumerGroupHeartbeat that the coordinator serves, if it was asked and does.
    pub(crate) fn found(&mut self, now: Instant, outcome: Result<Option<i16>, Error>) {
        match self {
            Self::Classic(m) => m.found(now, outcome.map(|_| ())),
            Self::Modern(m) => m.found(now, outcome),
        }
    }

    pub(crate) fn said(&mut self, now: Instant, said: CoordinatorResponse) {
        match (self, said) {
            (Self::Classic(m), CoordinatorResponse::JoinGroup(outcome)) => m.joined(now, outcome),
            (Self::Classic(m), CoordinatorResponse::Assignment(shares, withheld)) => m.shared(now, shares, withheld),
            (Self::Classic(m), CoordinatorResponse::SyncGroup(outcome)) => m.synced(now, outcome),
            (Self::Classic(m), CoordinatorResponse::Heartbeat(outcome)) => m.beat(now, outcome),
            (Self::Classic(m), CoordinatorResponse::LeaveGroup(outcome)) => m.left(now, outcome),
            (Self::Modern(m), CoordinatorResponse::ConsumerGroupHeartbeat(outcome)) => m.beaten(now, outcome),
            // The other protocol was spoken when it was asked for.
            _ => {}
        }
    }

    /// What topics are called.
    pub(crate) fn learn(&mut self, now: Instant, names: impl IntoIterator<Item = (Uuid, Arc<str>)>) {
        if let Self::Modern(m) = self {
            m.learn(now, names);
        }
    }

    pub(crate) fn commit_refused(&mut self, now: Instant, code: i16) {
        both!(self, m => m.commit_refused(now, code));
    }

    pub(crate) fn disconnected(&mut self, now: Instant) {
        both!(self, m => m.disconnected(now));
    }

    pub(crate) fn drained(&mut self, now: Instant) {
        both!(self, m => m.drained(now));
    }

    pub(crate) fn topics_changed(&mut self, now: Instant) {
        if let Self::Classic(m) = self {
            m.topics_changed(now);
        }
    }

    pub(crate) fn fail(&mut self, e: Error) {
        both!(self, m => m.fail(e));
    }

    /// What keeps it from its group, while that is so.
    pub(crate) fn trouble(&self) -> Option<OngoingOutage> {
        both!(self, m => m.trouble())
    }

    /// Whether there is a place in the group that could be left for now.
    pub(crate) fn may_expel(&self) -> bool {
        self.is_member()
    }

    /// See [`ClassicMember::expel`].
    pub(crate) fn expel(&mut self, now: Instant) {
        both!(self, m => m.expel(now));
    }

    pub(crate) fn come_back(&mut self, now: Instant) {
        both!(self, m => m.come_back(now));
    }

    pub(crate) fn leave(&mut self, now: Instant) {
        both!(self, m => m.leave(now));
    }
}
