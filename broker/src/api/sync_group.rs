//! SyncGroup: the leader sends the assignment, every member receives its own.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use tokio::sync::oneshot::Receiver;

use super::{check_coordinator, text};
use crate::group::{GroupResponse, MemberKey};
use crate::request::Context;
use crate::shared::Shared;

pub(super) async fn handle(shared: &Shared, cx: &Context, request: SyncGroupRequest) -> SyncGroupResponse {
    let response = match submit(shared, cx, &request) {
        Ok(receiver) => receiver.await.map_err(|_| ResponseError::UnknownMemberId),
        Err(error) => Err(error),
    };
    let error = match response {
        Ok(GroupResponse::Synced { protocol_type, protocol, assignment }) => {
            return SyncGroupResponse::default()
                .with_protocol_type(Some(text(protocol_type)))
                .with_protocol_name(Some(text(protocol)))
                .with_assignment(assignment);
        }
        Ok(GroupResponse::Failed(error, _)) | Err(error) => error,
        Ok(GroupResponse::Joined(_)) => ResponseError::UnknownServerError,
    };
    SyncGroupResponse::default().with_error_code(error.code())
}

fn submit(shared: &Shared, cx: &Context, request: &SyncGroupRequest) -> Result<Receiver<GroupResponse>, ResponseError> {
    check_coordinator(shared, cx, &request.group_id)?;
    let key = MemberKey { id: &request.member_id, instance: request.group_instance_id.as_deref() };
    let expected = (request.protocol_type.as_deref(), request.protocol_name.as_deref());
    let copied = |a: &kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment| {
        (a.member_id.to_string(), Bytes::copy_from_slice(&a.assignment))
    };
    let assignments = request.assignments.iter().map(copied).collect();
    let now = shared.now();
    let step = |group: &mut crate::group::Group, request_id| {
        group.sync(key, request.generation_id, expected, assignments, request_id, now);
    };
    shared.groups().submit(&request.group_id, false, step).ok_or(ResponseError::UnknownMemberId)
}
