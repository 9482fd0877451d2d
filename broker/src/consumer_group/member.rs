//! A member of a group of the `consumer` protocol, and its heartbeats.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::{Assignor, JOIN_EPOCH, Partitions};

/// A heartbeat; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeartbeatRequest {
    pub member_id: String,
    pub epoch: i32,
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    pub rebalance_timeout: Option<Duration>,
    pub topics: Option<BTreeSet<String>>,
    pub assignor: Option<Assignor>,
    pub owned: Option<Partitions>,
    pub client_id: String,
    pub client_host: String,
}

impl HeartbeatRequest {
    /// Returns whether the request has all fields, and so requires a full response.
    pub fn is_full(&self) -> bool {
        let is_complete = self.rebalance_timeout.is_some() && self.topics.is_some() && self.owned.is_some();
        self.epoch == JOIN_EPOCH || is_complete
    }
}

/// Reconciliation state of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// Owns its target assignment.
    Stable,
    /// Has partitions to revoke.
    UnrevokedPartitions,
    /// Waits for partitions that others still own.
    UnreleasedPartitions,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub topics: BTreeSet<String>,
    pub assigned: Partitions,
    /// Epoch last sent to the member.
    pub epoch: i32,
    pub(super) previous_epoch: i32,
    pub(super) assignor: Option<Assignor>,
    pub(super) state: MemberState,
    /// Partitions that the member has to revoke.
    pub(super) pending_revocation: Partitions,
    /// Deadline of the revocation.
    pub(super) revocation_deadline: Option<Instant>,
    pub(super) rebalance_timeout: Duration,
    pub(super) session_expires_at: Instant,
}

impl Member {
    pub(super) fn new(session_expires_at: Instant) -> Self {
        Self {
            instance_id: None,
            rack_id: None,
            client_id: String::new(),
            client_host: String::new(),
            topics: BTreeSet::new(),
            assigned: Partitions::new(),
            epoch: JOIN_EPOCH,
            previous_epoch: JOIN_EPOCH,
            assignor: None,
            state: MemberState::Stable,
            pending_revocation: Partitions::new(),
            revocation_deadline: None,
            rebalance_timeout: Duration::ZERO,
            session_expires_at,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.revocation_deadline.map_or(self.session_expires_at, |by| by.min(self.session_expires_at))
    }

    /// Returns whether the member may send this epoch: its current one; 0, to rejoin; or the
    /// previous one, if it owns no more than its assignment: then the response with the new epoch
    /// was lost.
    pub(super) fn accepts_epoch(&self, epoch: i32, owned: Option<&Partitions>) -> bool {
        let missed_one = epoch == self.previous_epoch && owned.is_some_and(|o| o.is_subset(&self.assigned));
        epoch == self.epoch || epoch == JOIN_EPOCH || (epoch < self.epoch && missed_one)
    }

    pub(super) fn set_epoch(&mut self, epoch: i32) {
        if epoch != self.epoch {
            self.previous_epoch = self.epoch;
            self.epoch = epoch;
        }
    }

    /// Applies a heartbeat; returns whether the subscription changed.
    pub(super) fn update(&mut self, request: HeartbeatRequest) -> bool {
        self.client_id = request.client_id;
        self.client_host = request.client_host;
        self.instance_id = request.instance_id.or(self.instance_id.take());
        self.rack_id = request.rack_id.or(self.rack_id.take());
        self.assignor = request.assignor.or(self.assignor);
        self.rebalance_timeout = request.rebalance_timeout.unwrap_or(self.rebalance_timeout);
        match request.topics {
            Some(topics) if topics != self.topics => {
                self.topics = topics;
                true
            }
            _ => false,
        }
    }
}
