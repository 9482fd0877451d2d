//! Description of a group: members, assignment, progress.

#[cfg(feature = "processor")]
use std::collections::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka_protocol::messages::consumer_group_describe_response::Member;
use kafka_protocol::messages::describe_groups_response::DescribedGroupMember;
use kafka_protocol::messages::{ConsumerGroupDescribeRequest, DescribeGroupsRequest, OffsetFetchRequest};
use kafka_protocol::protocol::StrBytes;
use tokio::try_join;

use super::{Admin, GroupDescription, GroupOffset, GroupState, GroupType, MemberDescription};
use crate::cluster::fields::group_id;
use crate::cluster::leaders::topics_by_name;
use crate::code;
use crate::config::{IsolationLevel, OffsetReset};
use crate::consumer::{MemberSubscription, StartOffset, assigned_partitions};
#[cfg(feature = "processor")]
use crate::consumer::{OffsetAndMetadata, committed_request, decode_committed};
#[cfg(feature = "processor")]
use crate::error::Error;
use crate::error::{ErrorKind, Result};
use crate::record::TopicPartition;
use crate::wire::Api;

type Committed = BTreeMap<TopicPartition, Option<i64>>;

/// A group without its offsets.
pub(super) struct DescribedGroup {
    pub(super) group_type: GroupType,
    pub(super) state: GroupState,
    pub(super) assignor: String,
    pub(super) coordinator: i32,
    pub(super) members: Vec<MemberDescription>,
}

impl Admin {
    /// Describes a group: its members, their assignment, its progress.
    ///
    /// The offsets cover every partition of the topics that the group has committed in, subscribes
    /// to or is assigned, so that no partition is missing from its lag. Where the end offset is not
    /// available at once, because the partition has no leader or the leader does not respond, end
    /// and lag are missing and [`GroupOffset::error`] gives the reason.
    ///
    /// A group that its coordinator does not know has the state `Dead` and no offsets.
    ///
    /// # Errors
    /// If its coordinator can't be reached, or responds with an error.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription> {
        let what = format!("describing group {group:?}");
        let DescribedGroup { group_type, state, assignor, coordinator, members } =
            self.describe_without_offsets(group, &what).await?;
        let mut offsets = self.committed(group, &what).await?;
        for m in &members {
            for (topic, partitions) in &m.assignment {
                for p in partitions {
                    offsets.entry(TopicPartition::new(topic.as_str(), *p)).or_insert(None);
                }
            }
        }
        self.add_uncommitted(&mut offsets, &members).await?;
        let offsets = self.with_lag(offsets).await?;
        let group = group.to_owned();
        Ok(GroupDescription { group, group_type, state, assignor, coordinator, members, offsets })
    }

    /// Returns the topics that a group has committed in, subscribes to or is assigned.
    pub(crate) async fn topics_read_by(&self, group: &str) -> Result<BTreeSet<Arc<str>>> {
        let what = format!("describing group {group:?}");
        let (members, committed) =
            try_join!(self.describe_without_offsets(group, &what), self.committed(group, &what))?;
        let of_member = |m: MemberDescription| m.topics.into_iter().chain(m.assignment.into_keys()).map(Arc::from);
        let mut topics: BTreeSet<Arc<str>> = members.members.into_iter().flat_map(of_member).collect();
        topics.extend(committed.into_iter().filter(|(_, at)| at.is_some()).map(|(p, _)| p.topic));
        Ok(topics)
    }

    /// Describes a group without its offsets; members by id.
    pub(super) async fn describe_without_offsets(&self, group: &str, what: &str) -> Result<DescribedGroup> {
        let request = DescribeGroupsRequest::default().with_groups(vec![group_id(group)]);
        let code = |r: &<DescribeGroupsRequest as Api>::Response| r.groups.first().map_or(-1, |g| g.error_code);
        let (coordinator, response) = self.request_coordinator(group, request, what, code).await?;
        let found = response.groups.into_iter().next().unwrap_or_default();
        // A group of the `consumer` protocol is not one that DescribeGroups knows.
        let consumer_group =
            if found.group_state.as_str() == "Dead" { self.describe_consumer_group(group, what).await? } else { None };
        let group_type = if consumer_group.is_some() { GroupType::Consumer } else { GroupType::Classic };
        let (state, assignor, mut members) = consumer_group.unwrap_or_else(|| {
            let (state, assignor) = (GroupState::from(&*found.group_state), found.protocol_data.to_string());
            (state, assignor, found.members.iter().map(classic_member).collect())
        });
        members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
        Ok(DescribedGroup { group_type, state, assignor, coordinator, members })
    }

    /// Returns state, assignor and members of a group of the `consumer` protocol (KIP-848); none if
    /// it is no such group.
    async fn describe_consumer_group(
        &self,
        group: &str,
        what: &str,
    ) -> Result<Option<(GroupState, String, Vec<MemberDescription>)>> {
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id(group)]);
        let code = |r: &<ConsumerGroupDescribeRequest as Api>::Response| {
            let code = r.groups.first().map_or(code::GROUP_ID_NOT_FOUND, |g| g.error_code);
            // Neither an unknown group nor a broker with the protocol disabled is an error.
            if matches!(code, code::GROUP_ID_NOT_FOUND | code::UNSUPPORTED_VERSION) { 0 } else { code }
        };
        let response = match self.request_coordinator(group, request, what, code).await {
            Ok((_, response)) => response,
            Err(e) if e.kind() == ErrorKind::Unsupported => return Ok(None),
            Err(e) => return Err(e),
        };
        let Some(found) = response.groups.into_iter().next().filter(|g| g.error_code == 0) else { return Ok(None) };
        let members = found.members.iter().map(consumer_protocol_member).collect();
        Ok(Some((GroupState::from(&*found.group_state), found.assignor_name.to_string(), members)))
    }

    /// Returns all committed offsets of a group.
    async fn committed(&self, group: &str, what: &str) -> Result<Committed> {
        // No topics means all; that no commit is pending matters only to transactions.
        let request = OffsetFetchRequest::default().with_group_id(group_id(group)).with_topics(None);
        let code = |r: &<OffsetFetchRequest as Api>::Response| r.error_code;
        let (_, response) = self.request_coordinator(group, request, what, code).await?;
        let of_topic = |t: kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseTopic| {
            let topic: Arc<str> = Arc::from(t.name.0.as_str());
            t.partitions.into_iter().map(move |p| {
                let committed = Some(p.committed_offset).filter(|o| *o >= 0 && p.error_code == 0);
                (TopicPartition::new(Arc::clone(&topic), p.partition_index), committed)
            })
        };
        Ok(response.topics.into_iter().flat_map(of_topic).collect())
    }

    /// Returns the committed offsets of these partitions, with their metadata, once no open
    /// transaction has others.
    #[cfg(feature = "processor")]
    pub(crate) async fn stable_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, OffsetAndMetadata>> {
        let request = committed_request(group, partitions, true);
        let code = |r: &<OffsetFetchRequest as Api>::Response| decode_committed(r).err().unwrap_or_default();
        let what = format!("fetching the committed offsets of group {group:?}");
        let (_, response) = self.request_coordinator(group, request, &what, code).await?;
        decode_committed(&response).map_err(|code| Error::broker(code, what))
    }

    /// Adds the partitions of the group's topics without a committed offset: their records are part
    /// of the lag, too.
    async fn add_uncommitted(&self, offsets: &mut Committed, members: &[MemberDescription]) -> Result<()> {
        let subscribed = members.iter().flat_map(|m| m.topics.iter().map(|t| Arc::from(t.as_str())));
        let topics: BTreeSet<Arc<str>> = offsets.keys().map(|p| Arc::clone(&p.topic)).chain(subscribed).collect();
        if topics.is_empty() {
            return Ok(());
        }
        let topics: Vec<_> = topics.into_iter().collect();
        let found = topics_by_name(&self.cluster().metadata(Some(&topics), false).await?);
        for (name, topic) in found {
            let count = topic.map_or(0, |t| t.partitions.len());
            for p in (0..).take(count) {
                offsets.entry(TopicPartition::new(Arc::clone(&name), p)).or_insert(None);
            }
        }
        Ok(())
    }

    async fn with_lag(&self, committed: Committed) -> Result<Vec<GroupOffset>> {
        let all: Vec<_> = committed.keys().cloned().collect();
        let uncommitted: Vec<_> = committed.iter().filter(|(_, o)| o.is_none()).map(|(p, _)| p.clone()).collect();
        let (mut ends, stable, mut starts) = try_join!(
            self.ends_for(&all, IsolationLevel::ReadUncommitted),
            self.ends_for(&all, IsolationLevel::ReadCommitted),
            self.list_offsets_each(&uncommitted, StartOffset::Earliest),
        )?;
        let reads_committed = self.cluster().config().consumer.isolation_level == IsolationLevel::ReadCommitted;
        let from_start = self.cluster().config().consumer.offset_reset == OffsetReset::Earliest;
        let one = |(tp, committed): (TopicPartition, Option<i64>)| {
            let mut error = None;
            let mut found = |listed: Option<Result<i64>>| listed?.map_err(|e| _ = error.get_or_insert(e)).ok();
            let end = found(ends.remove(&tp));
            let start = found(starts.remove(&tp)).filter(|_| from_start);
            let last_stable = stable.get(&tp).and_then(|o| o.as_ref().ok()).copied();
            let readable = if reads_committed { last_stable } else { end };
            let lag = readable.zip(committed.or(start)).map(|(end, from)| (end - from).max(0));
            let exists = !error.as_ref().is_some_and(crate::Error::is_unknown_topic);
            let (topic, partition, error) = (tp.topic.to_string(), tp.partition, error.map(|e| e.full()));
            GroupOffset { topic, partition, committed, end, last_stable, lag, exists, error }
        };
        Ok(committed.into_iter().map(one).collect())
    }
}

fn classic_member(m: &DescribedGroupMember) -> MemberDescription {
    let mut assignment = BTreeMap::<String, Vec<i32>>::new();
    for tp in assigned_partitions(&m.member_assignment).unwrap_or_default() {
        assignment.entry(tp.topic.to_string()).or_default().push(tp.partition);
    }
    // Members of another protocol type, such as Kafka Connect's workers, subscribe to no topics.
    let topics = MemberSubscription::decode(&m.member_metadata).map(|s| s.topics).unwrap_or_default();
    let instance = m.group_instance_id.as_ref();
    member_description(&m.member_id, instance, (&m.client_id, &m.client_host), topics.into_iter().collect(), assignment)
}

fn consumer_protocol_member(m: &Member) -> MemberDescription {
    let topics = m.assignment.topic_partitions.iter();
    let assignment = topics.map(|t| (t.topic_name.to_string(), t.partitions.clone())).collect();
    let mut topics: Vec<_> = m.subscribed_topic_names.iter().map(|t| t.0.to_string()).collect();
    topics.sort();
    member_description(&m.member_id, m.instance_id.as_ref(), (&m.client_id, &m.client_host), topics, assignment)
}

fn member_description(
    id: &str,
    instance: Option<&StrBytes>,
    (client_id, host): (&str, &str),
    topics: Vec<String>,
    assignment: BTreeMap<String, Vec<i32>>,
) -> MemberDescription {
    let (host, instance_id) = (host.trim_start_matches('/').to_owned(), instance.map(|i| i.to_string()));
    MemberDescription {
        member_id: id.to_owned(),
        instance_id,
        client_id: client_id.to_owned(),
        host,
        topics,
        assignment,
    }
}
