//! Access control lists.

use std::fmt;

use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::delete_acls_response::DeleteAclsMatchingAcl;
use kafka_protocol::messages::describe_acls_response::DescribeAclsResource;
use kafka_protocol::messages::{CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest};
use kafka_protocol::protocol::StrBytes;
use serde::Serialize;

use super::Admin;
use super::acl_words::{AclOperation, AclPermission, PatternKind, ResourceKind};
use super::topics::broker_error;
use crate::cluster::fields::text;
use crate::code;
use crate::error::Result;
use crate::wire::Api;

/// Filter: any value.
const ANY: i8 = 1;
/// Filter: every pattern that matches the name.
const MATCH: i8 = 2;

/// An access control list entry: allows or denies a principal an operation on a resource, or on all
/// with a prefix.
///
/// ```
/// use ailurus::admin::{Acl, AclOperation, ResourceKind};
///
/// let acl = Acl::allow("User:alice", AclOperation::Read, ResourceKind::Topic, "orders.").prefixed();
/// assert_eq!(acl.to_string(), "allow User:alice from * to read topic orders. (prefixed)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Acl {
    /// Resource type.
    pub resource: ResourceKind,
    /// Resource name or prefix.
    pub name: String,
    /// Pattern type of the name.
    pub pattern: PatternKind,
    /// Principal: `User:alice`; `User:*` means all.
    pub principal: String,
    /// Client host; `*` means all.
    pub host: String,
    /// Operation.
    pub operation: AclOperation,
    /// Allow or deny.
    pub permission: AclPermission,
}

impl Acl {
    fn new(
        permission: AclPermission,
        principal: impl Into<String>,
        operation: AclOperation,
        resource: ResourceKind,
        name: impl Into<String>,
    ) -> Self {
        let (name, principal, host) = (name.into(), principal.into(), "*".to_owned());
        Self { resource, name, pattern: PatternKind::Literal, principal, host, operation, permission }
    }

    /// Creates an entry that allows a principal an operation, from any host.
    pub fn allow(
        principal: impl Into<String>,
        operation: AclOperation,
        resource: ResourceKind,
        name: impl Into<String>,
    ) -> Self {
        Self::new(AclPermission::Allow, principal, operation, resource, name)
    }

    /// Creates an entry that denies a principal an operation, from any host.
    pub fn deny(
        principal: impl Into<String>,
        operation: AclOperation,
        resource: ResourceKind,
        name: impl Into<String>,
    ) -> Self {
        Self::new(AclPermission::Deny, principal, operation, resource, name)
    }

    /// Extends the entry to all resources whose names begin with its name.
    #[must_use]
    pub fn prefixed(mut self) -> Self {
        self.pattern = PatternKind::Prefixed;
        self
    }

    /// Restricts the entry to a client host.
    #[must_use]
    pub fn from_host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    fn request(&self) -> AclCreation {
        AclCreation::default()
            .with_resource_type(self.resource.code())
            .with_resource_name(text(&self.name))
            .with_resource_pattern_type(self.pattern.code())
            .with_principal(text(&self.principal))
            .with_host(text(&self.host))
            .with_operation(self.operation.code())
            .with_permission_type(self.permission.code())
    }
}

impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, name, pattern, principal, host, operation, permission } = self;
        write!(f, "{permission} {principal} from {host} to {operation} {resource} {name}")?;
        if *pattern == PatternKind::Literal { Ok(()) } else { write!(f, " ({pattern})") }
    }
}

/// Selects access control lists: those that match everything set here. [`Default`] selects all.
///
/// ```
/// use ailurus::admin::{AclFilter, ResourceKind};
///
/// let rules_for_orders = AclFilter::default().resource(ResourceKind::Topic).covering("orders");
/// let of_alice = AclFilter::default().principal("User:alice");
/// # let _ = (rules_for_orders, of_alice);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AclFilter {
    resource: Option<ResourceKind>,
    name: Option<String>,
    covering: bool,
    pattern: Option<PatternKind>,
    principal: Option<String>,
    host: Option<String>,
    operation: Option<AclOperation>,
    permission: Option<AclPermission>,
}

impl AclFilter {
    /// Selects a resource type.
    #[must_use]
    pub fn resource(mut self, resource: ResourceKind) -> Self {
        self.resource = Some(resource);
        self
    }

    /// Selects a name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        (self.name, self.covering) = (Some(name.into()), false);
        self
    }

    /// Selects those that apply to the resource of this name: with the name, with a prefix of it,
    /// and with `*`.
    #[must_use]
    pub fn covering(mut self, name: impl Into<String>) -> Self {
        (self.name, self.covering) = (Some(name.into()), true);
        self
    }

    /// Selects a pattern type; overridden by [`covering`](Self::covering), which matches both.
    #[must_use]
    pub fn pattern(mut self, pattern: PatternKind) -> Self {
        self.pattern = Some(pattern);
        self
    }

    /// Selects a principal.
    #[must_use]
    pub fn principal(mut self, principal: impl Into<String>) -> Self {
        self.principal = Some(principal.into());
        self
    }

    /// Selects a client host.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Selects an operation.
    #[must_use]
    pub fn operation(mut self, operation: AclOperation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Selects those that allow, or those that deny.
    #[must_use]
    pub fn permission(mut self, permission: AclPermission) -> Self {
        self.permission = Some(permission);
        self
    }

    fn request(&self) -> DeleteAclsFilter {
        let pattern = if self.covering { MATCH } else { self.pattern.map_or(ANY, PatternKind::code) };
        DeleteAclsFilter::default()
            .with_resource_type_filter(self.resource.map_or(ANY, ResourceKind::code))
            .with_resource_name_filter(self.name.as_deref().map(text))
            .with_pattern_type_filter(pattern)
            .with_principal_filter(self.principal.as_deref().map(text))
            .with_host_filter(self.host.as_deref().map(text))
            .with_operation(self.operation.map_or(ANY, AclOperation::code))
            .with_permission_type(self.permission.map_or(ANY, AclPermission::code))
    }
}

impl Admin {
    /// Lists the access control lists that a filter selects, sorted.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the brokers keep none: Kafka
    /// without an authorizer; [`ErrorKind::Authorization`](crate::ErrorKind::Authorization).
    pub async fn list_acls(&self, filter: &AclFilter) -> Result<Vec<Acl>> {
        let f = filter.request();
        let request = DescribeAclsRequest::default()
            .with_resource_type_filter(f.resource_type_filter)
            .with_resource_name_filter(f.resource_name_filter)
            .with_pattern_type_filter(f.pattern_type_filter)
            .with_principal_filter(f.principal_filter)
            .with_host_filter(f.host_filter)
            .with_operation(f.operation)
            .with_permission_type(f.permission_type);
        let what = "listing access control lists";
        let cluster = self.cluster();
        let response = cluster.request_any(request, cluster.request_timeout()).await;
        let response = response.map_err(|e| e.context(what))?;
        if response.error_code != 0 {
            return Err(broker_error(response.error_code, response.error_message, what));
        }
        let mut acls: Vec<_> = response.resources.into_iter().flat_map(acls_of_resource).collect();
        acls.sort();
        Ok(acls)
    }

    /// Creates access control lists. One that exists already is no error.
    ///
    /// # Errors
    /// As [`list_acls`](Self::list_acls); the broker's error, in its words, for the first entry
    /// that failed: others may have been created.
    pub async fn create_acls(&self, acls: &[Acl]) -> Result<()> {
        let request = CreateAclsRequest::default().with_creations(acls.iter().map(Acl::request).collect());
        let moved = |r: &<CreateAclsRequest as Api>::Response| {
            let moved = r.results.iter().any(|r| r.error_code == code::NOT_CONTROLLER);
            Some((if moved { code::NOT_CONTROLLER } else { 0 }, None))
        };
        let response = self.request_controller(request, "creating access control lists", moved).await?;
        for (acl, result) in acls.iter().zip(response.results) {
            if result.error_code != 0 {
                let what = format!("creating the access control list \"{acl}\"");
                return Err(broker_error(result.error_code, result.error_message, &what));
            }
        }
        Ok(())
    }

    /// Deletes the access control lists that a filter selects, and returns them.
    ///
    /// # Errors
    /// As [`list_acls`](Self::list_acls).
    pub async fn delete_acls(&self, filter: &AclFilter) -> Result<Vec<Acl>> {
        let request = DeleteAclsRequest::default().with_filters(vec![filter.request()]);
        let what = "deleting access control lists";
        let code = |r: &<DeleteAclsRequest as Api>::Response| {
            Some(r.filter_results.iter().find_map(first_error).unwrap_or((0, None)))
        };
        let response = self.request_controller(request, what, code).await?;
        let mut acls: Vec<_> = response.filter_results.into_iter().flat_map(|r| r.matching_acls).map(deleted).collect();
        acls.sort();
        Ok(acls)
    }
}

type DeleteResult = kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;

fn first_error(r: &DeleteResult) -> Option<(i16, Option<StrBytes>)> {
    let each = r.matching_acls.iter().map(|a| (a.error_code, &a.error_message));
    let refused = std::iter::once((r.error_code, &r.error_message)).chain(each).find(|(code, _)| *code != 0);
    refused.map(|(code, message)| (code, message.clone()))
}

fn acls_of_resource(r: DescribeAclsResource) -> impl Iterator<Item = Acl> {
    let (resource, pattern) = (ResourceKind::from_code(r.resource_type), PatternKind::from_code(r.pattern_type));
    r.acls.into_iter().map(move |a| Acl {
        resource,
        name: r.resource_name.to_string(),
        pattern,
        principal: a.principal.to_string(),
        host: a.host.to_string(),
        operation: AclOperation::from_code(a.operation),
        permission: AclPermission::from_code(a.permission_type),
    })
}

fn deleted(a: DeleteAclsMatchingAcl) -> Acl {
    Acl {
        resource: ResourceKind::from_code(a.resource_type),
        name: a.resource_name.to_string(),
        pattern: PatternKind::from_code(a.pattern_type),
        principal: a.principal.to_string(),
        host: a.host.to_string(),
        operation: AclOperation::from_code(a.operation),
        permission: AclPermission::from_code(a.permission_type),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_filter_field_matches_all() {
        let all = AclFilter::default().request();
        assert_eq!((all.resource_type_filter, all.pattern_type_filter, all.operation), (ANY, ANY, ANY));
        assert_eq!((all.resource_name_filter, all.principal_filter), (None, None));
        let covering = AclFilter::default().resource(ResourceKind::Group).covering("g").request();
        assert_eq!((covering.resource_type_filter, covering.pattern_type_filter), (3, MATCH));
    }
}
