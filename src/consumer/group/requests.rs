//! The group protocol as a member speaks it: what its state machine asks for and is told, the requests that carry it and what
//! the answers mean.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::kip848;
use super::subscription::{PROTOCOL_TYPE, Subscription, decode_assignment};
use crate::assignor::{Assignor, GroupMember, RebalanceProtocol};
use crate::cluster::Backoff;
use crate::config::{AssignorKind, Config, ConsumerConfig, GroupProtocol};
use crate::error::{Error, Result};
use crate::record::TopicPartition;

/// An assignor by which a member offers to share out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AssignorOffer {
    pub(crate) name: String,
    /// Whether members keep their partitions when they join again; a partition that is to move is given up first, and goes to
    /// its new owner in a second round.
    pub(crate) cooperative: bool,
}

impl AssignorOffer {
    fn new(kind: &AssignorKind) -> Self {
        let cooperative = kind.protocol() == RebalanceProtocol::Cooperative;
        Self { name: kind.name().into(), cooperative }
    }
}

/// How a member behaves.
#[derive(Debug, Clone)]
pub(crate) struct MemberConfig {
    pub(crate) group: String,
    pub(crate) assignors: Vec<AssignorOffer>,
    pub(crate) instance_id: Option<String>,
    /// Whether the classic protocol will do where the `consumer` protocol is not offered.
    pub(crate) may_be_classic: bool,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) backoff: Backoff,
}

impl MemberConfig {
    pub(crate) fn new(group: &str, consumer: &ConsumerConfig, client: &Config) -> Self {
        Self {
            group: group.into(),
            assignors: consumer.assignors.iter().map(AssignorOffer::new).collect(),
            instance_id: consumer.group_instance_id.clone(),
            may_be_classic: consumer.group_protocol == GroupProtocol::Auto,
            session_timeout: consumer.session_timeout,
            rebalance_timeout: consumer.rebalance_timeout,
            heartbeat_interval: consumer.heartbeat_interval,
            request_timeout: client.request_timeout,
            backoff: Backoff::new(client.retry_backoff, client.retry_backoff_max),
        }
    }
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Action {
    /// Drop the connection to the coordinator, look the coordinator up and connect; then `found`.
    FindCoordinator,
    /// Then `joined`. All that is under way for the group before it no longer counts.
    JoinGroup { member_id: String, had: PreviousAssignment, timeout: Duration },
    /// We lead: share out the partitions; then `shared`.
    ComputeAssignment { members: Vec<GroupMember>, assignor: String },
    /// Then `synced`.
    SyncGroup { generation: i32, member_id: String, protocol: String, shares: Vec<(String, Bytes)> },
    /// Then `beat`.
    Heartbeat { generation: i32, member_id: String, timeout: Duration },
    /// Then `left`.
    LeaveGroup { member_id: String, timeout: Duration },
    /// ConsumerGroupHeartbeat; then `beaten`.
    ConsumerGroupHeartbeat { heartbeat: kip848::HeartbeatRequest, timeout: Duration },
    /// Ask for metadata: an assignment names topics by ids that are not known; then `learn`.
    RefreshTopicNames,
    /// This protocol is not offered: go on with the classic one.
    FallBackToClassic,
    /// A member of this generation: these have become ours, beside what was ours before.
    Assigned { generation: i32, added: Vec<TopicPartition> },
    /// Finish what is in hand of these; then `drained`.
    Revoke { partitions: Vec<TopicPartition>, deadline: Instant },
    /// These are not ours any more: their drain is over, or we leave.
    Revoked(Vec<TopicPartition>),
    /// These, all there were, are not ours any more, without a drain.
    Lost(Vec<TopicPartition>),
    /// It is over.
    Stop(Result<(), Error>),
}

impl Action {
    /// Whether it begins a rebalance, or belongs to one.
    pub(crate) fn is_of_rebalance(&self) -> bool {
        match self {
            Self::JoinGroup { .. } | Self::Revoke { .. } | Self::Lost(_) => true,
            Self::ConsumerGroupHeartbeat { heartbeat, .. } => heartbeat.epoch == 0,
            _ => false,
        }
    }
}

/// Why a request came to nothing.
#[derive(Debug)]
pub(crate) enum RequestFailure {
    /// The coordinator answered with an error code.
    Code(i16),
    /// No answer.
    Connection(Error),
}

/// A JoinGroup that succeeded.
#[derive(Debug)]
pub(crate) struct JoinedGroup {
    pub(crate) member_id: String,
    pub(crate) generation: i32,
    pub(crate) protocol: String,
    pub(crate) leads: bool,
    /// All members, if we are to share out.
    pub(crate) members: Option<Vec<GroupMember>>,
}

pub(super) fn group_id(group: &str) -> GroupId {
    GroupId(StrBytes::from_string(group.to_owned()))
}

/// Of a static member.
pub(crate) fn instance_id(config: &ConsumerConfig) -> Option<StrBytes> {
    config.group_instance_id.clone().map(StrBytes::from_string)
}

/// What a member had before it joins.
#[derive(Debug, Default)]
pub(crate) struct PreviousAssignment {
    /// What it keeps.
    pub(crate) owned: Vec<TopicPartition>,
    /// Since which generation; -1 when it was lost. A broker gives a static member its old place, and others no word of it,
    /// for as long as what it says is the same.
    pub(crate) since: i32,
    /// What it was assigned last, kept or not.
    pub(crate) last: Vec<TopicPartition>,
    /// In which generation.
    pub(crate) generation: i32,
}

pub(crate) fn join_request(
    group: &str,
    member_id: String,
    topics: &BTreeSet<String>,
    had: PreviousAssignment,
    config: &ConsumerConfig,
) -> Result<JoinGroupRequest> {
    let mut subscription = Subscription {
        topics: topics.clone(),
        user_data: None,
        owned: had.owned,
        generation: Some(had.since),
        rack: config.client_rack.clone(),
    };
    let mut protocols = Vec::new();
    for kind in &config.assignors {
        subscription.user_data = kind.user_data(topics, &had.last, had.generation);
        let name = StrBytes::from_string(kind.name().to_owned());
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

/// An error comes with the id that the coordinator has given us, if any.
pub(crate) fn joined(r: JoinGroupResponse) -> Result<JoinedGroup, (RequestFailure, String)> {
    let member_id = r.member_id.to_string();
    if r.error_code != 0 {
        return Err((RequestFailure::Code(r.error_code), member_id));
    }
    let member = |m: &JoinGroupResponseMember| {
        let subscription = Subscription::decode(&m.metadata).unwrap_or_else(|e| {
            tracing::warn!(member = %m.member_id, error = %e.full(), "a member's subscription can't be read: it gets nothing");
            Subscription::default()
        });
        let instance_id = m.group_instance_id.as_ref().map(ToString::to_string);
        GroupMember::subscribed(m.member_id.to_string(), instance_id, subscription)
    };
    let leads = r.leader == r.member_id;
    Ok(JoinedGroup {
        generation: r.generation_id,
        protocol: r.protocol_name.as_ref().map(ToString::to_string).unwrap_or_default(),
        // A static member that leads has come back, and the group goes on with what it had (KIP-814).
        members: (leads && !r.skip_assignment).then(|| r.members.iter().map(member).collect()),
        leads,
        member_id,
    })
}

pub(crate) fn sync_request(
    group: &str,
    generation: i32,
    member_id: String,
    protocol: String,
    shares: Vec<(String, Bytes)>,
) -> SyncGroupRequest {
    let share = |(member, assignment): (String, Bytes)| {
        SyncGroupRequestAssignment::default().with_member_id(member.into()).with_assignment(assignment)
    };
    SyncGroupRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(generation)
        .with_member_id(member_id.into())
        .with_protocol_type(Some(StrBytes::from_static_str(PROTOCOL_TYPE)))
        .with_protocol_name(Some(StrBytes::from_string(protocol)))
        .with_assignments(shares.into_iter().map(share).collect())
}

pub(crate) fn synced(r: &SyncGroupResponse) -> Result<Vec<TopicPartition>, RequestFailure> {
    ok(r.error_code)?;
    decode_assignment(&r.assignment).map_err(RequestFailure::Connection)
}

pub(crate) fn heartbeat_request(group: &str, generation: i32, member_id: String) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(generation)
        .with_member_id(member_id.into())
}

pub(crate) fn beat(r: &HeartbeatResponse) -> Result<(), RequestFailure> {
    ok(r.error_code)
}

pub(crate) fn leave_request(group: &str, member_id: String) -> LeaveGroupRequest {
    let member = MemberIdentity::default().with_member_id(member_id.into());
    LeaveGroupRequest::default().with_group_id(group_id(group)).with_members(vec![member])
}

pub(crate) fn left(r: &LeaveGroupResponse) -> Result<(), RequestFailure> {
    ok(r.error_code)?;
    ok(r.members.first().map_or(0, |m| m.error_code))
}

fn ok(code: i16) -> Result<(), RequestFailure> {
    if code == 0 { Ok(()) } else { Err(RequestFailure::Code(code)) }
}

pub(super) fn millis(d: Duration) -> i32 {
    i32::try_from(d.as_millis()).unwrap_or(i32::MAX)
}
