//! A member of a classic group, and its JoinGroup requests and results.

use std::time::Duration;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::ConsumerProtocolSubscription;
use kafka_protocol::protocol::Decodable;
use tokio::time::Instant;

use super::RequestId;

/// A JoinGroup request, with the fields that its connection adds.
#[derive(Clone, Debug)]
pub(crate) struct JoinRequest {
    /// Empty for a new member.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    pub protocol_type: String,
    /// Name and metadata of each protocol, in order of preference.
    pub protocols: Vec<(String, Bytes)>,
    /// Member id if the member is new.
    pub generated_member_id: String,
    /// A new member has to rejoin with its generated id (KIP-394).
    pub requires_known_member_id: bool,
    /// The client supports a leader without an assignment to make (KIP-814).
    pub supports_skipping_assignment: bool,
}

/// Result of a JoinGroup for one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinGroupResult {
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: String,
    pub member_id: String,
    /// Empty except for the leader.
    pub members: Vec<JoinGroupMember>,
    pub skip_assignment: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinGroupMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub metadata: Bytes,
}

/// Identifies a member: by id, and a static one by instance id too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemberKey<'a> {
    pub id: &'a str,
    pub instance: Option<&'a str>,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) session_expires_at: Instant,
    /// Its pending JoinGroup.
    pub(super) pending_join: Option<RequestId>,
    /// Its pending SyncGroup.
    pub(super) pending_sync: Option<RequestId>,
}

impl Member {
    pub(super) fn new(request: JoinRequest, now: Instant) -> Self {
        Self {
            instance_id: request.instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            protocols: request.protocols,
            assignment: Bytes::new(),
            session_timeout: request.session_timeout,
            rebalance_timeout: request.rebalance_timeout,
            session_expires_at: now + request.session_timeout,
            pending_join: None,
            pending_sync: None,
        }
    }

    pub(super) fn update(&mut self, request: JoinRequest, now: Instant) {
        self.client_id = request.client_id;
        self.client_host = request.client_host;
        self.protocols = request.protocols;
        self.session_timeout = request.session_timeout;
        self.rebalance_timeout = request.rebalance_timeout;
        self.renew_session(now);
    }

    pub(super) fn renew_session(&mut self, now: Instant) {
        self.session_expires_at = now + self.session_timeout;
    }

    /// A member with a pending request cannot send heartbeats, so its session does not expire.
    pub(super) fn has_pending_request(&self) -> bool {
        self.pending_join.is_some() || self.pending_sync.is_some()
    }

    /// Returns the member's metadata for a protocol.
    pub fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, metadata)| metadata)
    }
}

/// Returns the topics in a consumer's metadata.
pub(super) fn subscribed_topics(metadata: &Bytes) -> Option<Vec<String>> {
    /// Newest version that is decoded; later fields follow it.
    const NEWEST: i16 = 3;
    let mut rest = metadata.clone();
    let version = rest.try_get_i16().ok()?;
    let subscription = ConsumerProtocolSubscription::decode(&mut rest, version.min(NEWEST)).ok()?;
    Some(subscription.topics.into_iter().map(|t| t.to_string()).collect())
}
