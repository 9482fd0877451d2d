//! Access control lists: stored and described, never enforced.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::describe_acls_request::DescribeAclsRequest;
use kafka_protocol::protocol::StrBytes;

use crate::error::ApiError;

/// Filter value that matches any type, pattern or operation.
const ANY: i8 = 1;
/// Filter pattern that matches every ACL which applies to the name.
const MATCH: i8 = 2;
const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
const CLUSTER: i8 = 4;
/// DENY and ALLOW.
const PERMISSIONS: std::ops::RangeInclusive<i8> = 2..=3;
const RESOURCE_TYPES: std::ops::RangeInclusive<i8> = 2..=7;
const OPERATIONS: std::ops::RangeInclusive<i8> = 2..=14;

/// An access control list entry, with the protocol's codes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Acl {
    pub resource_type: i8,
    pub resource_name: String,
    pub pattern_type: i8,
    pub principal: String,
    pub host: String,
    pub operation: i8,
    pub permission: i8,
}

impl Acl {
    /// Validates an ACL to create.
    pub fn new(a: &AclCreation) -> Result<Self, ApiError> {
        let reject_if = |invalid: bool, message: &str| {
            if invalid { Err(ApiError::new(ResponseError::InvalidRequest, message)) } else { Ok(()) }
        };
        let in_range = |range: std::ops::RangeInclusive<i8>, n: i8| range.contains(&n);
        reject_if(!in_range(RESOURCE_TYPES, a.resource_type), "Invalid resource type")?;
        reject_if(!matches!(a.resource_pattern_type, LITERAL | PREFIXED), "Invalid pattern type")?;
        reject_if(!in_range(OPERATIONS, a.operation), "Invalid operation type")?;
        reject_if(!in_range(PERMISSIONS, a.permission_type), "Invalid permission type")?;
        reject_if(a.resource_name.is_empty(), "Invalid empty resource name")?;
        let other = a.resource_type == CLUSTER && a.resource_name.as_str() != "kafka-cluster";
        reject_if(other, "The only valid name for the CLUSTER resource is kafka-cluster")?;
        reject_if(!a.principal.contains(':'), "Could not parse principal: no colon separates its type from its name")?;
        Ok(Self {
            resource_type: a.resource_type,
            resource_name: a.resource_name.to_string(),
            pattern_type: a.resource_pattern_type,
            principal: a.principal.to_string(),
            host: a.host.to_string(),
            operation: a.operation,
            permission: a.permission_type,
        })
    }
}

/// A filter of DescribeAcls or DeleteAcls.
#[derive(Clone, Debug)]
pub(crate) struct AclFilter {
    resource_type: i8,
    resource_name: Option<StrBytes>,
    pattern_type: i8,
    principal: Option<StrBytes>,
    host: Option<StrBytes>,
    operation: i8,
    permission: i8,
}

impl From<DescribeAclsRequest> for AclFilter {
    fn from(r: DescribeAclsRequest) -> Self {
        Self {
            resource_type: r.resource_type_filter,
            resource_name: r.resource_name_filter,
            pattern_type: r.pattern_type_filter,
            principal: r.principal_filter,
            host: r.host_filter,
            operation: r.operation,
            permission: r.permission_type,
        }
    }
}

impl From<DeleteAclsFilter> for AclFilter {
    fn from(f: DeleteAclsFilter) -> Self {
        Self {
            resource_type: f.resource_type_filter,
            resource_name: f.resource_name_filter,
            pattern_type: f.pattern_type_filter,
            principal: f.principal_filter,
            host: f.host_filter,
            operation: f.operation,
            permission: f.permission_type,
        }
    }
}

impl AclFilter {
    fn matches(&self, acl: &Acl) -> bool {
        let code = |wanted: i8, found: i8| wanted == ANY || wanted == found;
        let same = |wanted: &Option<StrBytes>, found: &str| wanted.as_ref().is_none_or(|w| w.as_str() == found);
        code(self.resource_type, acl.resource_type)
            && self.matches_pattern(acl)
            && same(&self.principal, &acl.principal)
            && same(&self.host, &acl.host)
            && code(self.operation, acl.operation)
            && code(self.permission, acl.permission)
    }

    fn matches_pattern(&self, acl: &Acl) -> bool {
        if !matches!(self.pattern_type, ANY | MATCH) && self.pattern_type != acl.pattern_type {
            return false;
        }
        let Some(name) = &self.resource_name else { return true };
        match (self.pattern_type, acl.pattern_type) {
            (MATCH, PREFIXED) => name.starts_with(&acl.resource_name),
            (MATCH, _) => name.as_str() == acl.resource_name || acl.resource_name == "*",
            _ => name.as_str() == acl.resource_name,
        }
    }
}

/// ACLs of the cluster, in order.
#[derive(Debug, Default)]
pub(crate) struct Acls {
    all: std::collections::BTreeSet<Acl>,
}

impl Acls {
    pub fn add(&mut self, acl: Acl) {
        self.all.insert(acl);
    }

    pub fn find(&self, filter: &AclFilter) -> Vec<Acl> {
        self.all.iter().filter(|a| filter.matches(a)).cloned().collect()
    }

    /// Removes and returns the ACLs that match.
    pub fn remove(&mut self, filter: &AclFilter) -> Vec<Acl> {
        let found = self.find(filter);
        self.all.retain(|a| !filter.matches(a));
        found
    }
}
