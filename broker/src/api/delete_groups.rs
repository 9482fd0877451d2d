//! DeleteGroups: deletes groups without members, and their offsets.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId};

use super::{check_coordinator, code};
use crate::group::Group;
use crate::request::Context;
use crate::shared::Shared;

pub(super) fn handle(shared: &Shared, cx: &Context, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let one = |id: GroupId| {
        let deleted = delete(shared, cx, &id);
        DeletableGroupResult::default().with_group_id(id).with_error_code(code(&deleted))
    };
    DeleteGroupsResponse::default().with_results(request.groups_names.into_iter().map(one).collect())
}

fn delete(shared: &Shared, cx: &Context, id: &str) -> Result<(), ResponseError> {
    check_coordinator(shared, cx, id)?;
    let mut groups = shared.groups();
    match groups.get(id).map(Group::has_members) {
        None => Err(ResponseError::GroupIdNotFound),
        Some(true) => Err(ResponseError::NonEmptyGroup),
        Some(false) => {
            groups.delete(id);
            Ok(())
        }
    }
}
