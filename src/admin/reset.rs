//! Committed offsets of groups, set and deleted from outside the group.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetDeleteRequest};
use serde::Serialize;
use tokio::try_join;

use super::describe::DescribedGroup;
use super::{Admin, GroupDescription, MemberDescription};
use crate::cluster::fields::{encode_topics, group_id};
use crate::cluster::leaders::all_or_error;
use crate::cluster::offset_commit::{OffsetAndMetadata, decode_commit_response, encode_commit};
use crate::code;
use crate::consumer::StartOffset;
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;
use crate::text;
use crate::wire::Api;

/// Error codes of a coordinator that is unavailable, loading, or has moved: retried at the new one.
const COORDINATOR_CODES: [i16; 3] =
    [code::COORDINATOR_LOAD_IN_PROGRESS, code::COORDINATOR_NOT_AVAILABLE, code::NOT_COORDINATOR];
/// Error codes of a commit to a group that has members.
const MEMBERSHIP_CODES: [i16; 4] =
    [code::ILLEGAL_GENERATION, code::UNKNOWN_MEMBER_ID, code::REBALANCE_IN_PROGRESS, code::STALE_MEMBER_EPOCH];
/// Generation of a commit without a member.
const NO_GENERATION: i32 = -1;

/// Target of an offset reset.
///
/// ```
/// use ailurus::StartOffset;
/// use ailurus::admin::ResetTo;
///
/// let again_from_noon = ResetTo::At(StartOffset::Timestamp("2026-01-31T12:00:00Z".parse()?));
/// let ten_more = ResetTo::Shift(-10);
/// # let _ = (again_from_noon, ten_more);
/// # Ok::<_, ailurus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetTo {
    /// The same position for each partition: an end, a time, an offset.
    At(StartOffset),
    /// The committed offset, moved by a number of records, back if negative.
    Shift(i64),
}

/// Planned reset of a partition.
///
/// ```
/// use ailurus::admin::PlannedOffset;
///
/// fn handled_again(plan: &[PlannedOffset]) -> i64 {
///     plan.iter().filter_map(|p| Some((p.from? - p.to).max(0))).sum()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlannedOffset {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Committed offset, if there is one.
    pub from: Option<i64>,
    /// Offset to commit.
    pub to: i64,
    /// True if the requested offset is outside the log, and was clamped to the nearest end of it.
    pub cut: bool,
    /// Start offset of the log.
    pub first: i64,
    /// End offset of the log.
    pub end: i64,
}

impl Admin {
    /// Plans a reset of a group's offsets in some partitions. Nothing is changed:
    /// [`reset_offsets`](Self::reset_offsets) applies the plan.
    ///
    /// An offset outside the log is clamped to it. A partition without a leader is an error at once
    /// that names it: the others can be reset without it.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`] if a partition does not exist; errors of the leaders;
    /// [`ErrorKind::Config`] for a shift of a partition without a committed offset.
    pub async fn plan_reset(
        &self,
        group: &GroupDescription,
        partitions: &[TopicPartition],
        to: ResetTo,
    ) -> Result<Vec<PlannedOffset>> {
        let committed = committed(group);
        let wanted = match to {
            ResetTo::At(at) => all_or_error(self.list_offsets_each(partitions, at).await?)?,
            ResetTo::Shift(by) => {
                let shift = |p: &TopicPartition| match committed.get(p) {
                    Some(from) => Ok((p.clone(), from.saturating_add(by))),
                    None => {
                        let what = format!(
                            "the offset of {}/{} can't be shifted: group {:?} has committed none there",
                            p.topic, p.partition, group.group
                        );
                        Err(Error::new(ErrorKind::Config, what))
                    }
                };
                partitions.iter().map(shift).collect::<Result<_>>()?
            }
        };
        self.plan_offsets(group, &wanted).await
    }

    /// Plans a reset like [`plan_reset`](Self::plan_reset), to an offset for each partition.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`] if a partition does not exist.
    pub async fn plan_offsets(
        &self,
        group: &GroupDescription,
        wanted: &BTreeMap<TopicPartition, i64>,
    ) -> Result<Vec<PlannedOffset>> {
        let partitions: Vec<_> = wanted.keys().cloned().collect();
        let (first, end) = try_join!(
            self.list_offsets_each(&partitions, StartOffset::Earliest),
            self.list_offsets_each(&partitions, StartOffset::Latest),
        )?;
        let (first, end) = (all_or_error(first)?, all_or_error(end)?);
        let committed = committed(group);
        let one = |(p, wanted): (&TopicPartition, &i64)| {
            let (first, end) = (first.get(p).copied()?, end.get(p).copied()?);
            let to = (*wanted).min(end).max(first);
            let from = committed.get(p).copied();
            let (topic, partition) = (p.topic.to_string(), p.partition);
            Some(PlannedOffset { topic, partition, from, to, cut: to != *wanted, first, end })
        };
        Ok(wanted.iter().filter_map(one).collect())
    }

    /// Commits a plan; see [`set_offsets`](Self::set_offsets).
    ///
    /// # Errors
    /// Those of [`set_offsets`](Self::set_offsets).
    pub async fn reset_offsets(&self, group: &str, plan: &[PlannedOffset]) -> Result<()> {
        let to = plan.iter().map(|p| (TopicPartition::new(p.topic.as_str(), p.partition), p.to));
        self.set_offsets(group, &to.collect()).await
    }

    /// Commits offsets for a group without members, which is created if it does not exist. Metadata
    /// of its members' commits is dropped: they resume at these offsets, whatever they had handled
    /// after them.
    ///
    /// # Errors
    /// [`ErrorKind::GroupMembership`] if the group has members, which would continue and overwrite
    /// the commit; [`ErrorKind::UnknownTopic`]; offsets of other partitions may be committed then.
    pub async fn set_offsets(&self, group: &str, offsets: &BTreeMap<TopicPartition, i64>) -> Result<()> {
        let what = format!("setting the offsets of group {group:?}");
        require_no_members(&self.describe_without_offsets(group, &what).await?, &what)?;
        let offsets: Vec<_> = offsets.iter().map(|(p, o)| (p.clone(), OffsetAndMetadata::new(*o))).collect();
        let request = encode_commit(group, "", NO_GENERATION, &offsets);
        let code = |r: &<OffsetCommitRequest as Api>::Response| {
            decode_commit_response(r).into_values().find(|code| COORDINATOR_CODES.contains(code)).unwrap_or(0)
        };
        let (_, response) = self.request_coordinator(group, request, &what, code).await?;
        let refused: BTreeMap<_, _> =
            decode_commit_response(&response).into_iter().filter(|(_, code)| *code != 0).collect();
        match refused.into_iter().next() {
            None => Ok(()),
            Some((_, code)) if MEMBERSHIP_CODES.contains(&code) => {
                let what = format!("{what}: a member has joined: stop it first");
                Err(Error::new(ErrorKind::GroupMembership, what).with_broker_code(code))
            }
            Some((p, code)) => Err(Error::broker(code, format_args!("{what} in {}/{}", p.topic, p.partition))),
        }
    }

    /// Deletes the committed offsets of a group in some partitions.
    ///
    /// # Errors
    /// If the group does not exist, or its members subscribe to one of the topics;
    /// [`ErrorKind::UnknownTopic`]; offsets of other partitions may be deleted then.
    pub async fn delete_offsets(&self, group: &str, partitions: &[TopicPartition]) -> Result<()> {
        let partition = |index, ()| OffsetDeleteRequestPartition::default().with_partition_index(index);
        let topics = encode_topics(partitions.iter().map(|p| (p.clone(), ())), partition)
            .map(|(name, partitions)| OffsetDeleteRequestTopic::default().with_name(name).with_partitions(partitions));
        let request = OffsetDeleteRequest::default().with_group_id(group_id(group)).with_topics(topics.collect());
        let what = format!("deleting offsets of group {group:?}");
        let code = |r: &<OffsetDeleteRequest as Api>::Response| r.error_code;
        let (_, response) = self.request_coordinator(group, request, &what, code).await?;
        let all = response.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (t.name.as_str(), p)));
        let refused = all.into_iter().find(|(_, p)| p.error_code != 0);
        refused.map_or(Ok(()), |(topic, p)| {
            Err(Error::broker(p.error_code, format_args!("{what} in {topic}/{}", p.partition_index)))
        })
    }
}

fn committed(group: &GroupDescription) -> BTreeMap<TopicPartition, i64> {
    let offsets = group.offsets.iter();
    offsets.filter_map(|o| Some((TopicPartition::new(o.topic.as_str(), o.partition), o.committed?))).collect()
}

/// Fails if the group has members, which would overwrite changed offsets.
fn require_no_members(group: &DescribedGroup, what: &str) -> Result<()> {
    if group.members.is_empty() {
        return Ok(());
    }
    let name = |m: &MemberDescription| if m.client_id.is_empty() { m.member_id.clone() } else { m.client_id.clone() };
    let who: BTreeSet<_> = group.members.iter().map(|m| format!("{} at {}", name(m), m.host)).collect();
    let who = text::list(who);
    let count = group.members.len();
    let what = format!(
        "{what}: it has {count} {} ({who}) and is {}; stop {} first",
        if count == 1 { "member" } else { "members" },
        group.state,
        if count == 1 { "it" } else { "them" },
    );
    Err(Error::new(ErrorKind::GroupMembership, what))
}
