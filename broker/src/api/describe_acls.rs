//! DescribeAcls: the ACLs that match a filter, by resource.

use kafka_protocol::messages::describe_acls_response::{AclDescription, DescribeAclsResource};
use kafka_protocol::messages::{DescribeAclsRequest, DescribeAclsResponse};

use super::text;
use crate::acls::AclFilter;
use crate::request::Context;
use crate::shared::Shared;

pub(super) fn handle(shared: &Shared, cx: &Context, request: DescribeAclsRequest) -> DescribeAclsResponse {
    if let Err(error) = cx.check_fault() {
        let message = Some(text(error.to_string()));
        return DescribeAclsResponse::default().with_error_code(error.code()).with_error_message(message);
    }
    let mut resources: Vec<DescribeAclsResource> = Vec::new();
    for acl in shared.cluster().acls.find(&AclFilter::from(request)) {
        let one = AclDescription::default()
            .with_principal(text(acl.principal))
            .with_host(text(acl.host))
            .with_operation(acl.operation)
            .with_permission_type(acl.permission);
        // ACLs are sorted by resource.
        let resource = DescribeAclsResource::default()
            .with_resource_type(acl.resource_type)
            .with_resource_name(text(acl.resource_name))
            .with_pattern_type(acl.pattern_type);
        let same = |r: &&mut DescribeAclsResource| {
            r.resource_type == resource.resource_type
                && r.resource_name == resource.resource_name
                && r.pattern_type == resource.pattern_type
        };
        match resources.last_mut().filter(same) {
            Some(last) => last.acls.push(one),
            None => resources.push(resource.with_acls(vec![one])),
        }
    }
    DescribeAclsResponse::default().with_error_message(None).with_resources(resources)
}
