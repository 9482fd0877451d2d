//! JoinGroup: responds when the rebalance that the member joins is complete.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{check_coordinator, owned, text};
use crate::group::{GroupResponse, JoinGroupMember, JoinGroupResult, JoinRequest};
use crate::request::Context;
use crate::shared::Shared;

pub(super) async fn handle(shared: &Shared, cx: &Context, request: JoinGroupRequest) -> JoinGroupResponse {
    let id = request.member_id.clone();
    let response = match submit(shared, cx, &request) {
        Ok(receiver) => receiver.await.unwrap_or(GroupResponse::Failed(ResponseError::UnknownMemberId, id.to_string())),
        Err(error) => GroupResponse::Failed(error, id.to_string()),
    };
    match response {
        GroupResponse::Joined(joined) => joined_response(cx, joined),
        GroupResponse::Failed(error, id) => error_response(cx, error, id),
        GroupResponse::Synced { .. } => error_response(cx, ResponseError::UnknownServerError, id.to_string()),
    }
}

fn submit(
    shared: &Shared,
    cx: &Context,
    request: &JoinGroupRequest,
) -> Result<tokio::sync::oneshot::Receiver<GroupResponse>, ResponseError> {
    check_coordinator(shared, cx, &request.group_id)?;
    let join = join_request(cx, request);
    let config = &shared.config;
    if !(config.session_timeout_min..=config.session_timeout_max).contains(&join.session_timeout) {
        return Err(ResponseError::InvalidSessionTimeout);
    }
    let now = shared.now();
    let is_new = join.member_id.is_empty();
    let submitted =
        shared.groups().submit(&request.group_id, is_new, |group, request_id| group.join(join, request_id, now));
    submitted.ok_or(ResponseError::UnknownMemberId)
}

fn join_request(cx: &Context, request: &JoinGroupRequest) -> JoinRequest {
    let millis = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    let instance_id = owned(request.group_instance_id.as_ref());
    let rebalance_ms = if cx.version >= 1 { request.rebalance_timeout_ms } else { request.session_timeout_ms };
    JoinRequest {
        member_id: request.member_id.to_string(),
        client_id: cx.client_id.clone(),
        client_host: cx.client_host.clone(),
        session_timeout: millis(request.session_timeout_ms),
        rebalance_timeout: millis(rebalance_ms),
        protocol_type: request.protocol_type.to_string(),
        protocols: request
            .protocols
            .iter()
            .map(|p| (p.name.to_string(), bytes::Bytes::copy_from_slice(&p.metadata)))
            .collect(),
        generated_member_id: format!("{}-{}", instance_id.as_deref().unwrap_or(&cx.client_id), Uuid::now_v7()),
        requires_known_member_id: cx.version >= 4,
        supports_skipping_assignment: cx.version >= 9,
        instance_id,
    }
}

fn joined_response(cx: &Context, joined: JoinGroupResult) -> JoinGroupResponse {
    let member = |m: JoinGroupMember| {
        JoinGroupResponseMember::default()
            .with_member_id(text(m.member_id))
            .with_group_instance_id(m.instance_id.filter(|_| cx.version >= 5).map(text))
            .with_metadata(m.metadata)
    };
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(Some(text(joined.protocol_type)))
        .with_protocol_name(Some(text(joined.protocol)))
        .with_leader(text(joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(text(joined.member_id))
        .with_members(joined.members.into_iter().map(member).collect())
}

fn error_response(cx: &Context, error: ResponseError, member_id: String) -> JoinGroupResponse {
    // Before version 7 the name is not nullable.
    let protocol_name = (cx.version < 7).then(StrBytes::new);
    JoinGroupResponse::default()
        .with_error_code(error.code())
        .with_generation_id(-1)
        .with_protocol_name(protocol_name)
        .with_member_id(text(member_id))
}
