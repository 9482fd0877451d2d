//! LeaveGroup: removes members and starts a rebalance.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::{check_coordinator, code};
use crate::group::MemberKey;
use crate::request::Context;
use crate::shared::Shared;

/// First version with several members.
const BATCH_VERSION: i16 = 3;

pub(super) fn handle(shared: &Shared, cx: &Context, request: LeaveGroupRequest) -> LeaveGroupResponse {
    if let Err(error) = check_coordinator(shared, cx, &request.group_id) {
        return LeaveGroupResponse::default().with_error_code(error.code());
    }
    let leave = |id: &str, instance: Option<&str>| {
        let now = shared.now();
        let key = MemberKey { id, instance };
        let left = shared.groups().update(&request.group_id, false, |group| group.leave(key, now));
        left.unwrap_or(Err(ResponseError::UnknownMemberId))
    };
    if cx.version < BATCH_VERSION {
        return LeaveGroupResponse::default().with_error_code(code(&leave(&request.member_id, None)));
    }
    let one = |m: MemberIdentity| {
        let left = leave(&m.member_id, m.group_instance_id.as_deref());
        let out = MemberResponse::default().with_error_code(code(&left));
        out.with_member_id(m.member_id).with_group_instance_id(m.group_instance_id)
    };
    LeaveGroupResponse::default().with_members(request.members.into_iter().map(one).collect())
}
