//! Groups: list, delete, requests to coordinators.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{ApiKey, DeleteGroupsRequest, ListGroupsRequest};

use super::{Admin, GroupFilter, GroupListing, GroupState, GroupType};
use crate::cluster::CoordinatorKey;
use crate::cluster::fields::{group_id, text};
use crate::cluster::leaders::RetryPolicy;
use crate::code;
use crate::error::{Error, ErrorKind, Result, is_retriable_code};
use crate::wire::Api;

impl Admin {
    /// Lists all groups, of all brokers, by name.
    ///
    /// # Errors
    /// If a broker of the cluster fails: a list without its groups would be wrong.
    /// [`list_groups_by_broker`](Self::list_groups_by_broker) returns those of the others.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>> {
        self.list_groups_where(&GroupFilter::default()).await
    }

    /// Lists the groups that a filter selects, of all brokers, by name.
    ///
    /// # Errors
    /// As [`list_groups`](Self::list_groups); [`ErrorKind::Unsupported`] if a broker can't filter:
    /// by state Kafka before 2.6, by type Kafka before 3.8 and Redpanda.
    pub async fn list_groups_where(&self, filter: &GroupFilter) -> Result<Vec<GroupListing>> {
        let limit = self.cluster().request_timeout();
        let lists = self.groups_by_broker(filter, limit).await?.into_values().collect::<Result<Vec<_>>>()?;
        // A group whose coordinator changes meanwhile may be listed twice.
        let by_name: BTreeMap<_, _> = lists.into_iter().flatten().map(|g| (g.group.clone(), g)).collect();
        Ok(by_name.into_values().collect())
    }

    /// Lists the groups that each broker coordinates, by name, or the broker's error. Waits at most
    /// 5 seconds for a broker that does not respond.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] if no broker can be reached.
    pub async fn list_groups_by_broker(
        &self,
        filter: &GroupFilter,
    ) -> Result<BTreeMap<i32, Result<Vec<GroupListing>>>> {
        self.groups_by_broker(filter, RetryPolicy::best_effort(self.cluster()).response).await
    }

    pub(crate) async fn groups_by_broker(
        &self,
        filter: &GroupFilter,
        limit: Duration,
    ) -> Result<BTreeMap<i32, Result<Vec<GroupListing>>>> {
        let request = ListGroupsRequest::default()
            .with_states_filter(filter.states.iter().map(|s| text(s.as_str())).collect())
            .with_types_filter(filter.types.iter().map(|t| text(t.as_str())).collect());
        let needs = filter.needs();
        // A closure that returns a future, and no `AsyncFn`: the future of that is not `Send` for all lifetimes.
        let list = |broker, at| {
            let request = request.clone();
            async move {
                if let Some((version, what)) = needs {
                    self.require(broker, version, what).await?;
                }
                let what = || format!("listing the groups of broker {broker}");
                let response =
                    self.cluster().request_within(limit, &at, request).await.map_err(|e| e.context(what()))?;
                if response.error_code != 0 {
                    return Err(Error::broker(response.error_code, what()));
                }
                let mut groups: Vec<_> = response.groups.into_iter().map(listing).collect();
                groups.sort_by(|a, b| a.group.cmp(&b.group));
                Ok(groups)
            }
        };
        self.cluster().for_each_broker(list).await
    }

    /// Fails unless a broker serves ListGroups in at least `version`.
    async fn require(&self, broker: i32, version: i16, what: &str) -> Result<()> {
        let served = self.cluster().api_versions(broker).await?.api_keys;
        let found = served.iter().find(|api| api.api_key == ApiKey::ListGroups as i16);
        if found.is_some_and(|api| api.max_version >= version) {
            return Ok(());
        }
        let serves = found.map_or_else(
            || "does not serve ListGroups".to_owned(),
            |api| format!("serves ListGroups (API 16) in versions {} to {}", api.min_version, api.max_version),
        );
        let what = format!("listing groups by {what} needs ListGroups in version {version}: broker {broker} {serves}");
        Err(Error::new(ErrorKind::Unsupported, what))
    }

    /// Deletes a group without members, and its offsets.
    ///
    /// # Errors
    /// If it has members, or if it does not exist.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(group)]);
        let code = |r: &<DeleteGroupsRequest as Api>::Response| r.results.first().map_or(-1, |g| g.error_code);
        self.request_coordinator(group, request, &format!("deleting group {group:?}"), code).await.map(drop)
    }

    /// Sends a request to a group's coordinator, and retries it, at the new one if it has moved,
    /// for the request timeout.
    pub(super) async fn request_coordinator<A: Api>(
        &self,
        group: &str,
        request: A,
        what: &str,
        code: impl Fn(&A::Response) -> i16,
    ) -> Result<(i32, A::Response)> {
        self.request_coordinator_of(CoordinatorKey::Group(group), request, what, code).await
    }

    /// Sends a request to the coordinator of a group or a transactional id, as
    /// [`request_coordinator`](Self::request_coordinator) does.
    pub(super) async fn request_coordinator_of<A: Api>(
        &self,
        key: CoordinatorKey<'_>,
        request: A,
        what: &str,
        code: impl Fn(&A::Response) -> i16,
    ) -> Result<(i32, A::Response)> {
        let cluster = self.cluster();
        let mut attempts = cluster.attempts();
        loop {
            let coordinator = cluster.find_coordinator(key).await.map_err(|e| e.context(what))?;
            let error = match cluster.request_to(coordinator, request.clone(), cluster.request_timeout()).await {
                Ok(response) => match code(&response) {
                    0 => return Ok((coordinator, response)),
                    code if is_retriable_code(code) || code == code::CONCURRENT_TRANSACTIONS => {
                        Error::broker(code, what)
                    }
                    code => return Err(Error::broker(code, what)),
                },
                Err(e) if matches!(e.kind(), ErrorKind::Disconnected | ErrorKind::Connect) => e.context(what),
                Err(e) => return Err(e.context(what)),
            };
            if !attempts.wait().await {
                return Err(error);
            }
        }
    }
}

fn listing(g: ListedGroup) -> GroupListing {
    GroupListing {
        group: g.group_id.to_string(),
        protocol_type: g.protocol_type.to_string(),
        state: Some(&*g.group_state).filter(|s| !s.is_empty()).map(GroupState::from),
        group_type: Some(&*g.group_type).filter(|t| !t.is_empty()).map(GroupType::from),
    }
}
