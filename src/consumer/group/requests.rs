//! The requests of the classic group protocol, and what their responses mean.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::subscription::{PROTOCOL_TYPE, Subscription, decode_assignment};
use crate::assignor::{Assignor, GroupMember};
use crate::cluster::fields::{group_id, millis, text};
use crate::config::ConsumerConfig;
use crate::error::{Error, Result};
use crate::record::TopicPartition;

/// Reason why a request failed.
#[derive(Debug)]
pub(crate) enum RequestFailure {
    /// Error code of the response.
    Code(i16),
    /// There was no response.
    Connection(Error),
}

/// A failure without a text of the coordinator.
impl From<RequestFailure> for (RequestFailure, String) {
    fn from(failure: RequestFailure) -> Self {
        (failure, String::new())
    }
}

/// Membership in a new generation, as a JoinGroup response grants it.
#[derive(Debug)]
pub(crate) struct JoinedGroup {
    pub(crate) member_id: String,
    pub(crate) generation: i32,
    pub(crate) assignor: String,
    pub(crate) is_leader: bool,
    /// All members, if this one has to assign the partitions.
    pub(crate) members: Option<Vec<GroupMember>>,
}

/// Returns the instance id of a static member.
pub(crate) fn instance_id(config: &ConsumerConfig) -> Option<StrBytes> {
    config.group_instance_id.clone().map(StrBytes::from_string)
}

/// Owned and assigned partitions of a member before it joins.
#[derive(Debug, Default)]
pub(crate) struct PreviousAssignment {
    /// Partitions that it keeps while it joins.
    pub(crate) owned: Vec<TopicPartition>,
    /// Generation that assigned them; -1 once they were lost. While the subscription of a static
    /// member stays the same, the coordinator returns its old assignment without a rebalance: this
    /// number makes a difference.
    pub(crate) owned_generation: i32,
    /// The last assignment, whether it is still owned or not, and its generation.
    pub(crate) last_assignment: Vec<TopicPartition>,
    pub(crate) last_generation: i32,
}

pub(crate) fn join_request(
    group: &str,
    member_id: String,
    topics: &BTreeSet<String>,
    previous: PreviousAssignment,
    config: &ConsumerConfig,
) -> Result<JoinGroupRequest> {
    let mut subscription = Subscription {
        topics: topics.clone(),
        user_data: None,
        owned: previous.owned,
        generation: Some(previous.owned_generation),
        rack: config.client_rack.clone(),
    };
    let mut protocols = Vec::new();
    for kind in &config.assignors {
        subscription.user_data = kind.user_data(topics, &previous.last_assignment, previous.last_generation);
        let name = text(kind.name());
        protocols.push(JoinGroupRequestProtocol::default().with_name(name).with_metadata(subscription.encode()?));
    }
    Ok(JoinGroupRequest::default()
        .with_group_id(group_id(group))
        .with_session_timeout_ms(millis(config.session_timeout))
        .with_rebalance_timeout_ms(millis(config.rebalance_timeout))
        .with_member_id(member_id.into())
        .with_group_instance_id(instance_id(config))
        .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
        .with_protocols(protocols))
}

/// Returns the generation that was joined. With an error comes the member id that the coordinator
/// assigned, if it did.
pub(crate) fn check_join(r: JoinGroupResponse) -> Result<JoinedGroup, (RequestFailure, String)> {
    let member_id = r.member_id.to_string();
    if r.error_code != 0 {
        return Err((RequestFailure::Code(r.error_code), member_id));
    }
    let member = |m: &JoinGroupResponseMember| {
        let subscription = Subscription::decode(&m.metadata).unwrap_or_else(|e| {
            let (member, error) = (&m.member_id, e.full());
            tracing::warn!(%member, %error, "a member's subscription can't be decoded: it is assigned nothing");
            Subscription::default()
        });
        let instance_id = m.group_instance_id.as_ref().map(ToString::to_string);
        GroupMember::subscribed(m.member_id.to_string(), instance_id, subscription)
    };
    let is_leader = r.leader == r.member_id;
    Ok(JoinedGroup {
        generation: r.generation_id,
        assignor: r.protocol_name.as_ref().map(ToString::to_string).unwrap_or_default(),
        // Without an assignment, this is a static leader that has restarted: the group keeps the
        // old one (KIP-814).
        members: (is_leader && !r.skip_assignment).then(|| r.members.iter().map(member).collect()),
        is_leader,
        member_id,
    })
}

pub(crate) fn sync_request(
    group: &str,
    generation: i32,
    member_id: String,
    assignor: String,
    assignment: Vec<(String, Bytes)>,
) -> SyncGroupRequest {
    let of_member = |(member, assignment): (String, Bytes)| {
        SyncGroupRequestAssignment::default().with_member_id(member.into()).with_assignment(assignment)
    };
    SyncGroupRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(generation)
        .with_member_id(member_id.into())
        .with_protocol_type(Some(StrBytes::from_static_str(PROTOCOL_TYPE)))
        .with_protocol_name(Some(StrBytes::from_string(assignor)))
        .with_assignments(assignment.into_iter().map(of_member).collect())
}

pub(crate) fn check_sync(r: SyncGroupResponse) -> Result<Vec<TopicPartition>, RequestFailure> {
    check_code(r.error_code)?;
    decode_assignment(&r.assignment).map_err(RequestFailure::Connection)
}

pub(crate) fn heartbeat_request(group: &str, generation: i32, member_id: String) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(generation)
        .with_member_id(member_id.into())
}

pub(crate) fn check_heartbeat(r: HeartbeatResponse) -> Result<(), RequestFailure> {
    check_code(r.error_code)
}

pub(crate) fn leave_request(group: &str, member_id: String) -> LeaveGroupRequest {
    let member = MemberIdentity::default().with_member_id(member_id.into());
    LeaveGroupRequest::default().with_group_id(group_id(group)).with_members(vec![member])
}

pub(crate) fn check_leave(r: LeaveGroupResponse) -> Result<(), RequestFailure> {
    check_code(r.error_code)?;
    check_code(r.members.first().map_or(0, |m| m.error_code))
}

fn check_code(code: i16) -> Result<(), RequestFailure> {
    if code == 0 { Ok(()) } else { Err(RequestFailure::Code(code)) }
}
