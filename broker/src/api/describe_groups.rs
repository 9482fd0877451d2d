//! DescribeGroups: state, members and assignment of groups.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};

use super::{check_coordinator, text};
use crate::group::{Group, Member, Phase};
use crate::request::Context;
use crate::shared::Shared;

/// First version that returns an error for a group that is missing or not classic.
const NOT_FOUND_ERROR_VERSION: i16 = 6;

pub(super) fn handle(shared: &Shared, cx: &Context, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let one = |id: GroupId| {
        let out = DescribedGroup::default().with_group_id(id.clone());
        if let Err(error) = check_coordinator(shared, cx, &id) {
            return out.with_error_code(error.code());
        }
        let groups = shared.groups();
        let message = match groups.get(&id) {
            Some(group) if group.consumer().is_none() => return describe(cx, out, group),
            Some(_) => format!("Group {} is not a classic group.", id.as_str()),
            None => format!("Group {} not found.", id.as_str()),
        };
        let out = out.with_group_state(text("Dead"));
        if cx.version < NOT_FOUND_ERROR_VERSION {
            return out;
        }
        out.with_error_code(ResponseError::GroupIdNotFound.code()).with_error_message(Some(text(message)))
    };
    DescribeGroupsResponse::default().with_groups(request.groups.into_iter().map(one).collect())
}

fn describe(cx: &Context, out: DescribedGroup, group: &Group) -> DescribedGroup {
    let stable = group.phase() == Phase::Stable;
    let member = |(id, m): (&str, &Member)| {
        let out = DescribedGroupMember::default()
            .with_member_id(text(id))
            .with_group_instance_id(m.instance_id.clone().filter(|_| cx.version >= 4).map(text))
            .with_client_id(text(m.client_id.clone()))
            .with_client_host(text(m.client_host.clone()));
        // Kafka describes protocol and assignment of stable groups only.
        if !stable {
            return out;
        }
        out.with_member_metadata(m.metadata(group.protocol()).cloned().unwrap_or_default())
            .with_member_assignment(m.assignment.clone())
    };
    out.with_group_state(text(group.phase().name()))
        .with_protocol_type(text(group.protocol_type()))
        .with_protocol_data(text(if stable { group.protocol() } else { "" }))
        .with_members(group.members().map(member).collect())
}
