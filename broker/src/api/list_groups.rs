//! ListGroups: groups that this node coordinates.

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use super::text;
use crate::group::Group;
use crate::request::Context;
use crate::shared::Shared;

pub(super) fn handle(shared: &Shared, cx: &Context, request: ListGroupsRequest) -> ListGroupsResponse {
    if let Err(error) = cx.check_fault() {
        return ListGroupsResponse::default().with_error_code(error.code());
    }
    let wanted =
        |filter: &[StrBytes], value: &str| filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(value));
    let listed = |id: &str, group: &Group| {
        let (state, group_type) = (group.state(), group.group_type());
        if !wanted(&request.states_filter, state) || !wanted(&request.types_filter, group_type) {
            return None;
        }
        let out = ListedGroup::default().with_group_id(text(id).into()).with_protocol_type(text(group.protocol_type()));
        let out = if cx.version >= 4 { out.with_group_state(text(state)) } else { out };
        Some(if cx.version >= 5 { out.with_group_type(text(group_type)) } else { out })
    };
    let all: Vec<_> = shared.groups().iter().filter_map(|(id, group)| listed(id, group)).collect();
    let cluster = shared.cluster();
    let here = |g: &ListedGroup| cluster.coordinator(&g.group_id) == cx.node;
    ListGroupsResponse::default().with_groups(all.into_iter().filter(here).collect())
}
