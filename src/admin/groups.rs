//! Groups: list, describe with offsets and lag, delete.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::consumer_group_describe_response::Member;
use kafka_protocol::messages::describe_groups_response::DescribedGroupMember;
use kafka_protocol::messages::{
    ApiKey, ConsumerGroupDescribeRequest, DeleteGroupsRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest,
    OffsetFetchRequest,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::{Admin, GroupDescription, GroupFilter, GroupListing, GroupMember, GroupOffset};
use crate::consumer::{StartOffset, assigned_partitions};
use crate::error::{Error, ErrorKind, Result, is_retriable_code};
use crate::record::TopicPartition;
use crate::wire::Api;

/// Error codes of a group that is not there, or is of another protocol; and of an API that is switched off.
const GROUP_ID_NOT_FOUND: i16 = 69;
const UNSUPPORTED_VERSION: i16 = 35;
/// The types of groups, as brokers name them.
const CLASSIC: &str = "classic";
const CONSUMER: &str = "consumer";

impl Admin {
    /// All groups, of all brokers, by name.
    ///
    /// # Errors
    /// If a broker of the cluster can't be asked: a list without its groups would be wrong.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>> {
        self.list_groups_where(&GroupFilter::default()).await
    }

    /// The groups that a filter lets through, of all brokers, by name.
    ///
    /// # Errors
    /// As [`list_groups`](Self::list_groups); [`ErrorKind::Unsupported`] if a broker can't filter so: by state Kafka before 2.6,
    /// by type Kafka before 3.8 and Redpanda.
    pub async fn list_groups_where(&self, filter: &GroupFilter) -> Result<Vec<GroupListing>> {
        let cluster = self.cluster();
        let brokers: BTreeSet<_> = cluster.refresh().await?.brokers.keys().copied().collect();
        let text = |all: &[String]| all.iter().map(|s| StrBytes::from_string(s.clone())).collect();
        let request = ListGroupsRequest::default()
            .with_states_filter(text(&filter.states))
            .with_types_filter(text(&filter.types));
        let mut groups = BTreeMap::new();
        for broker in brokers {
            if let Some((version, what)) = filter.needs() {
                self.require(broker, version, what).await?;
            }
            let timeout = cluster.config().request_timeout;
            let answer = cluster.request_to(broker, request.clone(), timeout).await?;
            if answer.error_code != 0 {
                return Err(Error::broker(answer.error_code, format_args!("listing the groups of broker {broker}")));
            }
            for g in answer.groups {
                let told = |s: StrBytes| Some(s.to_string()).filter(|s| !s.is_empty());
                let listing = GroupListing {
                    group: g.group_id.to_string(),
                    protocol_type: g.protocol_type.to_string(),
                    state: told(g.group_state),
                    group_type: told(g.group_type),
                };
                groups.insert(listing.group.clone(), listing);
            }
        }
        Ok(groups.into_values().collect())
    }

    /// Fails unless a broker serves ListGroups in a version that can do what is asked for.
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

    /// One group: its members, what they own, how far they are.
    ///
    /// A group that its coordinator does not know has the state `Dead` and no offsets.
    ///
    /// # Errors
    /// If its coordinator can't be asked.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription> {
        let id = GroupId(StrBytes::from_string(group.to_owned()));
        let what = format!("describing group {group:?}");
        let request = DescribeGroupsRequest::default().with_groups(vec![id.clone()]);
        let code = |r: &<DescribeGroupsRequest as Api>::Response| r.groups.first().map_or(-1, |g| g.error_code);
        let (coordinator, answer) = self.ask_coordinator(group, request, &what, code).await?;
        let found = answer.groups.into_iter().next().unwrap_or_default();
        // A group of the `consumer` protocol is not one that DescribeGroups knows.
        let modern =
            if found.group_state.as_str() == "Dead" { self.describe_modern(group, &what).await? } else { None };
        let group_type = if modern.is_some() { CONSUMER } else { CLASSIC }.to_owned();
        let (state, assignor, mut members) = modern.unwrap_or_else(|| {
            let (state, assignor) = (found.group_state.to_string(), found.protocol_data.to_string());
            (state, assignor, found.members.iter().map(classic_member).collect())
        });

        // No topics means all; that no commit is pending matters only to transactions.
        let request = OffsetFetchRequest::default().with_group_id(id).with_topics(None);
        let code = |r: &<OffsetFetchRequest as Api>::Response| r.error_code;
        let (_, committed) = self.ask_coordinator(group, request, &what, code).await?;
        let mut offsets = BTreeMap::new();
        for t in committed.topics {
            for p in t.partitions {
                let tp = TopicPartition::new(t.name.0.as_str(), p.partition_index);
                offsets.insert(tp, Some(p.committed_offset).filter(|o| *o >= 0 && p.error_code == 0));
            }
        }
        for (topic, partitions) in members.iter().flat_map(|m| &m.assignment) {
            for p in partitions {
                offsets.entry(TopicPartition::new(topic.as_str(), *p)).or_insert(None);
            }
        }
        members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
        Ok(GroupDescription {
            group: group.to_owned(),
            group_type,
            state,
            assignor,
            coordinator,
            members,
            offsets: self.with_lag(offsets).await?,
        })
    }

    /// State, assignor and members of a group of the `consumer` protocol (KIP-848); none if it is no such group.
    async fn describe_modern(&self, group: &str, what: &str) -> Result<Option<(String, String, Vec<GroupMember>)>> {
        let id = GroupId(StrBytes::from_string(group.to_owned()));
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![id]);
        let code = |r: &<ConsumerGroupDescribeRequest as Api>::Response| {
            let code = r.groups.first().map_or(GROUP_ID_NOT_FOUND, |g| g.error_code);
            // Neither that nor a broker that has it switched off is trouble.
            if matches!(code, GROUP_ID_NOT_FOUND | UNSUPPORTED_VERSION) { 0 } else { code }
        };
        let answer = match self.ask_coordinator(group, request, what, code).await {
            Ok((_, answer)) => answer,
            Err(e) if e.kind() == ErrorKind::Unsupported => return Ok(None),
            Err(e) => return Err(e),
        };
        let Some(found) = answer.groups.into_iter().next().filter(|g| g.error_code == 0) else { return Ok(None) };
        let members = found.members.iter().map(modern_member).collect();
        Ok(Some((found.group_state.to_string(), found.assignor_name.to_string(), members)))
    }

    async fn with_lag(&self, committed: BTreeMap<TopicPartition, Option<i64>>) -> Result<Vec<GroupOffset>> {
        let mut out = Vec::new();
        let mut topics = BTreeMap::<_, Vec<TopicPartition>>::new();
        for tp in committed.keys() {
            topics.entry(tp.topic.clone()).or_default().push(tp.clone());
        }
        for partitions in topics.into_values() {
            // A group may have offsets of a topic that was deleted since: they are shown without an end.
            let ends = match self.list_offsets(&partitions, StartOffset::Latest).await {
                Ok(ends) => ends,
                Err(e) if e.is_unknown_topic() => BTreeMap::new(),
                Err(e) => return Err(e),
            };
            let starts = match self.list_offsets(&partitions, StartOffset::Earliest).await {
                Ok(starts) => starts,
                Err(e) if e.is_unknown_topic() => BTreeMap::new(),
                Err(e) => return Err(e),
            };
            for tp in partitions {
                let committed = committed.get(&tp).copied().flatten();
                let end = ends.get(&tp).copied();
                let from = committed.or_else(|| starts.get(&tp).copied());
                let lag = end.zip(from).map(|(end, from)| (end - from).max(0));
                out.push(GroupOffset { topic: tp.topic.to_string(), partition: tp.partition, committed, end, lag });
            }
        }
        Ok(out)
    }

    /// Deletes a group that has no members, and its offsets.
    ///
    /// # Errors
    /// If it has members, or if it does not exist.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        let id = GroupId(StrBytes::from_string(group.to_owned()));
        let request = DeleteGroupsRequest::default().with_groups_names(vec![id]);
        let code = |r: &<DeleteGroupsRequest as Api>::Response| r.results.first().map_or(-1, |g| g.error_code);
        self.ask_coordinator(group, request, &format!("deleting group {group:?}"), code).await.map(drop)
    }

    /// Sends a request to a group's coordinator, to the next one if it has moved; for the request timeout.
    pub(super) async fn ask_coordinator<A: Api>(
        &self,
        group: &str,
        request: A,
        what: &str,
        code: impl Fn(&A::Response) -> i16,
    ) -> Result<(i32, A::Response)> {
        let cluster = self.cluster();
        let timeout = cluster.config().request_timeout;
        let deadline = Instant::now() + timeout;
        let mut backoff = cluster.backoff();
        loop {
            let coordinator = cluster.coordinator(group).await.map_err(|e| e.context(what))?;
            let error = match cluster.request_to(coordinator, request.clone(), timeout).await {
                Ok(answer) => match code(&answer) {
                    0 => return Ok((coordinator, answer)),
                    code if is_retriable_code(code) => Error::broker(code, what),
                    code => return Err(Error::broker(code, what)),
                },
                Err(e) if matches!(e.kind(), ErrorKind::Disconnected | ErrorKind::Connect) => e.context(what),
                Err(e) => return Err(e.context(what)),
            };
            let wait = backoff.next();
            if Instant::now() + wait > deadline {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
        }
    }
}

fn classic_member(m: &DescribedGroupMember) -> GroupMember {
    let mut assignment = BTreeMap::<String, Vec<i32>>::new();
    for tp in assigned_partitions(&m.member_assignment).unwrap_or_default() {
        assignment.entry(tp.topic.to_string()).or_default().push(tp.partition);
    }
    let instance = m.group_instance_id.as_ref();
    group_member(&m.member_id, instance, (&m.client_id, &m.client_host), assignment)
}

fn modern_member(m: &Member) -> GroupMember {
    let topics = m.assignment.topic_partitions.iter();
    let assignment = topics.map(|t| (t.topic_name.to_string(), t.partitions.clone())).collect();
    group_member(&m.member_id, m.instance_id.as_ref(), (&m.client_id, &m.client_host), assignment)
}

fn group_member(
    id: &str,
    instance: Option<&StrBytes>,
    (client_id, host): (&str, &str),
    assignment: BTreeMap<String, Vec<i32>>,
) -> GroupMember {
    let (host, instance_id) = (host.trim_start_matches('/').to_owned(), instance.map(|i| i.to_string()));
    GroupMember { member_id: id.to_owned(), instance_id, client_id: client_id.to_owned(), host, assignment }
}
