//! Offsets of groups, set and deleted by whoever is no member.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetDeleteRequest};
use kafka_protocol::protocol::StrBytes;
use serde::Serialize;
use tokio::try_join;

use super::describe::DescribedGroup;
use super::leaders::all_or_error;
use super::{Admin, GroupDescription, MemberDescription};
use crate::cluster::fields::{by_topic, topic_name};
use crate::cluster::offset_commit::{OffsetAndMetadata, decode_commit_response, encode_commit};
use crate::code;
use crate::consumer::StartOffset;
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;
use crate::text;
use crate::wire::Api;

/// Error codes of a coordinator that is not there, loads, or has moved: another one is asked.
const COORDINATOR_CODES: [i16; 3] =
    [code::COORDINATOR_LOAD_IN_PROGRESS, code::COORDINATOR_NOT_AVAILABLE, code::NOT_COORDINATOR];
/// Error codes of a commit into a group that has members: unknown member, generation, rebalance, epoch.
const MEMBERSHIP_CODES: [i16; 4] =
    [code::ILLEGAL_GENERATION, code::UNKNOWN_MEMBER_ID, code::REBALANCE_IN_PROGRESS, code::STALE_MEMBER_EPOCH];
/// Of a commit without a member: there is no generation.
const NO_GENERATION: i32 = -1;

/// Where a group is to go on.
///
/// ```
/// use ailurus::StartOffset;
/// use ailurus::admin::ResetTo;
///
/// let again_from_noon = ResetTo::At(StartOffset::Timestamp(1_769_860_800_000));
/// let ten_more = ResetTo::Shift(-10);
/// # let _ = (again_from_noon, ten_more);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetTo {
    /// At a place that is the same for each partition: an end, a time, an offset.
    At(StartOffset),
    /// So many records after what is committed, or before it if negative.
    Shift(i64),
}

/// What a reset means for a partition. Numbers are offsets.
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
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// What is committed now, if anything is.
    pub from: Option<i64>,
    /// What is to be committed.
    pub to: i64,
    /// Whether another offset was asked for, which is outside the log: this is the end of the log that is next to it.
    pub cut: bool,
    /// Where the log begins.
    pub first: i64,
    /// Where it ends.
    pub end: i64,
}

impl Admin {
    /// What resetting a group's offsets in some partitions would mean. Nothing is changed:
    /// [`reset_offsets`](Self::reset_offsets) does it.
    ///
    /// An offset outside the log becomes the end of the log that is next to it. A partition without a leader fails it at once,
    /// and is named: the others can be reset without it.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`] if a partition does not exist; a broker's error if one can't be asked for its log;
    /// [`ErrorKind::Config`] for a shift of a partition of which
    /// nothing is committed.
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

    /// As [`plan_reset`](Self::plan_reset), with an offset for each partition.
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

    /// Commits what a plan says; see [`set_offsets`](Self::set_offsets).
    ///
    /// # Errors
    /// Those of [`set_offsets`](Self::set_offsets).
    pub async fn reset_offsets(&self, group: &str, plan: &[PlannedOffset]) -> Result<()> {
        let to = plan.iter().map(|p| (TopicPartition::new(p.topic.as_str(), p.partition), p.to));
        self.set_offsets(group, &to.collect()).await
    }

    /// Commits offsets for a group that has no members; a group that does not exist comes to be. What its members wrote into
    /// the metadata of their commits is gone: they begin at these offsets, whatever they had handled behind them.
    ///
    /// # Errors
    /// [`ErrorKind::GroupMembership`] if the group has members, which would go on as if nothing had happened and commit over
    /// it; [`ErrorKind::UnknownTopic`]; offsets of other partitions may have been committed then.
    pub async fn set_offsets(&self, group: &str, offsets: &BTreeMap<TopicPartition, i64>) -> Result<()> {
        let what = format!("setting the offsets of group {group:?}");
        require_no_members(&self.describe_without_offsets(group, &what).await?, &what)?;
        let offsets: Vec<_> = offsets.iter().map(|(p, o)| (p.clone(), OffsetAndMetadata::new(*o))).collect();
        let request = encode_commit(group, "", NO_GENERATION, &offsets);
        let code = |r: &<OffsetCommitRequest as Api>::Response| {
            decode_commit_response(r).into_values().find(|code| COORDINATOR_CODES.contains(code)).unwrap_or(0)
        };
        let (_, answer) = self.request_coordinator(group, request, &what, code).await?;
        let refused: BTreeMap<_, _> =
            decode_commit_response(&answer).into_iter().filter(|(_, code)| *code != 0).collect();
        match refused.into_iter().next() {
            None => Ok(()),
            Some((_, code)) if MEMBERSHIP_CODES.contains(&code) => {
                Err(Error::new(ErrorKind::GroupMembership, format!("{what}: a member has come: stop it first")))
            }
            Some((p, code)) => Err(Error::broker(code, format_args!("{what} in {}/{}", p.topic, p.partition))),
        }
    }

    /// Forgets what a group has committed for some partitions.
    ///
    /// # Errors
    /// If the group does not exist, or its members subscribe to one of the topics; [`ErrorKind::UnknownTopic`]; offsets of
    /// other partitions may be gone then.
    pub async fn delete_offsets(&self, group: &str, partitions: &[TopicPartition]) -> Result<()> {
        let ask = |(partition, ())| OffsetDeleteRequestPartition::default().with_partition_index(partition);
        let topics = by_topic(partitions.iter().map(|p| (p.clone(), ()))).into_iter().map(|(topic, partitions)| {
            let partitions = partitions.into_iter().map(ask).collect();
            OffsetDeleteRequestTopic::default().with_name(topic_name(&topic)).with_partitions(partitions)
        });
        let request = OffsetDeleteRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
            .with_topics(topics.collect());
        let what = format!("deleting offsets of group {group:?}");
        let code = |r: &<OffsetDeleteRequest as Api>::Response| r.error_code;
        let (_, answer) = self.request_coordinator(group, request, &what, code).await?;
        let all = answer.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (t.name.as_str(), p)));
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

/// Refuses to change offsets under a group's members.
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
