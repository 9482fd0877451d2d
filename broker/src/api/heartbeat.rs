//! Heartbeat of the classic protocol.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::{check_coordinator, code};
use crate::group::MemberKey;
use crate::request::Context;
use crate::shared::Shared;

pub(super) fn handle(shared: &Shared, cx: &Context, request: HeartbeatRequest) -> HeartbeatResponse {
    let result = check_coordinator(shared, cx, &request.group_id).and_then(|()| {
        let key = MemberKey { id: &request.member_id, instance: request.group_instance_id.as_deref() };
        let now = shared.now();
        let step = |group: &mut crate::group::Group| group.heartbeat(key, request.generation_id, now);
        shared.groups().update(&request.group_id, false, step).unwrap_or(Err(ResponseError::UnknownMemberId))
    });
    HeartbeatResponse::default().with_error_code(code(&result))
}
