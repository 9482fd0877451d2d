//! DeleteAcls: deletes the ACLs that match filters.

use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl};
use kafka_protocol::messages::{DeleteAclsRequest, DeleteAclsResponse};

use super::text;
use crate::acls::{Acl, AclFilter};
use crate::request::Context;
use crate::shared::Shared;

pub(super) fn handle(shared: &Shared, cx: &Context, request: DeleteAclsRequest) -> DeleteAclsResponse {
    let one = |filter: DeleteAclsFilter| {
        let out = DeleteAclsFilterResult::default().with_error_message(None);
        match cx.check_fault() {
            Ok(()) => {
                let deleted = shared.cluster().acls.remove(&AclFilter::from(filter));
                out.with_matching_acls(deleted.into_iter().map(matching).collect())
            }
            Err(error) => out.with_error_code(error.code()).with_error_message(Some(text(error.to_string()))),
        }
    };
    DeleteAclsResponse::default().with_filter_results(request.filters.into_iter().map(one).collect())
}

fn matching(acl: Acl) -> DeleteAclsMatchingAcl {
    DeleteAclsMatchingAcl::default()
        .with_error_message(None)
        .with_resource_type(acl.resource_type)
        .with_resource_name(text(acl.resource_name))
        .with_pattern_type(acl.pattern_type)
        .with_principal(text(acl.principal))
        .with_host(text(acl.host))
        .with_operation(acl.operation)
        .with_permission_type(acl.permission)
}
