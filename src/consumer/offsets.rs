//! Committed offsets and the ends of logs: what is asked and what the answers mean; and the queue of commits.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    BrokerId, GroupId, ListOffsetsRequest, ListOffsetsResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;

use super::StartOffset;
use super::lease::Lease;
use super::listing::{EARLIEST, LATEST};
use super::protocol::code;
use super::tracker::Ask;
use crate::cluster::{Backoff, UNKNOWN_TOPIC};
use crate::config::IsolationLevel;
use crate::error::{Error, ErrorKind, Result, is_retriable_code};
use crate::record::TopicPartition;

/// A committed offset, or one to commit, with what goes with it.
///
/// ```
/// use ailurus::OffsetAndMetadata;
///
/// let offset = OffsetAndMetadata::new(42).with_leader_epoch(7).with_metadata("checked");
/// assert_eq!((offset.offset, offset.leader_epoch), (42, Some(7)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct OffsetAndMetadata {
    /// Of the next record to handle.
    pub offset: i64,
    /// The leader epoch of the last record before it, if known.
    pub leader_epoch: Option<i32>,
    /// Any text; brokers take up to 4,096 bytes of it unless they are told otherwise (`offset.metadata.max.bytes`).
    pub metadata: String,
}

impl OffsetAndMetadata {
    /// An offset with neither leader epoch nor metadata.
    pub fn new(offset: i64) -> Self {
        Self { offset, leader_epoch: None, metadata: String::new() }
    }

    /// With the leader epoch of the last record before it.
    #[must_use]
    pub fn with_leader_epoch(mut self, leader_epoch: i32) -> Self {
        self.leader_epoch = Some(leader_epoch).filter(|epoch| *epoch >= 0);
        self
    }

    /// With a text that is given back to whoever asks for the committed offset.
    #[must_use]
    pub fn with_metadata(mut self, metadata: impl Into<String>) -> Self {
        self.metadata = metadata.into();
        self
    }
}

/// An offset of a partition.
pub(crate) type Offset = (TopicPartition, OffsetAndMetadata);
/// What a coordinator answered to a commit.
pub(crate) type Codes = HashMap<TopicPartition, i16>;

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// The level as requests name it.
pub(crate) fn isolation(level: IsolationLevel) -> i8 {
    match level {
        IsolationLevel::ReadUncommitted => 0,
        IsolationLevel::ReadCommitted => 1,
    }
}

/// Partitions by topic, as requests want them.
pub(crate) fn by_topic<T>(
    all: impl IntoIterator<Item = (TopicPartition, T)>,
) -> BTreeMap<std::sync::Arc<str>, Vec<(i32, T)>> {
    let mut topics: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (p, what) in all {
        topics.entry(p.topic).or_default().push((p.partition, what));
    }
    topics
}

/// Asks for committed offsets; with `stable`, not for those that a transaction may still take back.
pub(crate) fn committed_request(group: &str, partitions: &[TopicPartition], stable: bool) -> OffsetFetchRequest {
    let topics = by_topic(partitions.iter().map(|p| (p.clone(), ()))).into_iter().map(|(topic, partitions)| {
        OffsetFetchRequestTopic::default()
            .with_name(topic_name(&topic))
            .with_partition_indexes(partitions.into_iter().map(|(p, ())| p).collect())
    });
    OffsetFetchRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
        .with_topics(Some(topics.collect()))
        .with_require_stable(stable)
}

/// The committed offsets, of those partitions that have one; or an error code.
pub(crate) fn committed_answer(
    answer: &OffsetFetchResponse,
) -> Result<HashMap<TopicPartition, OffsetAndMetadata>, i16> {
    if answer.error_code != 0 {
        return Err(answer.error_code);
    }
    let mut committed = HashMap::new();
    for topic in &answer.topics {
        for p in &topic.partitions {
            match p.error_code {
                0 if p.committed_offset >= 0 => {
                    let metadata = p.metadata.as_ref().map_or("", |m| m.as_str());
                    let offset = OffsetAndMetadata::new(p.committed_offset)
                        .with_leader_epoch(p.committed_leader_epoch)
                        .with_metadata(metadata);
                    committed.insert(TopicPartition::new(topic.name.as_str(), p.partition_index), offset);
                }
                // Nothing can be committed for a topic that is gone.
                0 | UNKNOWN_TOPIC => {}
                code => return Err(code),
            }
        }
    }
    Ok(committed)
}

/// Asks a leader for the offset at an end of the log or at a time.
pub(crate) fn list_request(asks: &[Ask<StartOffset>], level: IsolationLevel) -> ListOffsetsRequest {
    let timestamp = |to: StartOffset| match to {
        StartOffset::Latest => LATEST,
        StartOffset::Timestamp(at) => at,
        StartOffset::Earliest | StartOffset::Offset(_) => EARLIEST, // an offset has nothing to ask for
    };
    let topics = by_topic(asks.iter().map(|a| (a.lease.partition.clone(), a))).into_iter().map(|(topic, asks)| {
        let partition = |(index, ask): (i32, &Ask<StartOffset>)| {
            ListOffsetsPartition::default()
                .with_partition_index(index)
                .with_current_leader_epoch(ask.leader_epoch)
                .with_timestamp(timestamp(ask.what))
        };
        ListOffsetsTopic::default()
            .with_name(topic_name(&topic))
            .with_partitions(asks.into_iter().map(partition).collect())
    });
    ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(isolation(level))
        .with_topics(topics.collect())
}

/// Offset and leader epoch of what was asked for, or an error code.
pub(crate) fn list_answer(answer: &ListOffsetsResponse) -> HashMap<TopicPartition, Result<(i64, Option<i32>), i16>> {
    let topics = answer.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (&t.name, p)));
    topics
        .map(|(name, p)| {
            let epoch = Some(p.leader_epoch).filter(|epoch| *epoch >= 0);
            let outcome = if p.error_code == 0 { Ok((p.offset, epoch)) } else { Err(p.error_code) };
            (TopicPartition::new(name.as_str(), p.partition_index), outcome)
        })
        .collect()
}

/// A commit in the name of a generation.
pub(crate) fn commit_request(group: &str, member_id: &str, generation: i32, offsets: &[Offset]) -> OffsetCommitRequest {
    let topics = by_topic(offsets.iter().cloned()).into_iter().map(|(topic, offsets)| {
        let partition = |(index, offset): (i32, OffsetAndMetadata)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(offset.offset)
                .with_committed_leader_epoch(offset.leader_epoch.unwrap_or(-1))
                .with_committed_metadata(Some(StrBytes::from_string(offset.metadata)))
        };
        OffsetCommitRequestTopic::default()
            .with_name(topic_name(&topic))
            .with_partitions(offsets.into_iter().map(partition).collect())
    });
    OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
        .with_member_id(StrBytes::from_string(member_id.to_owned()))
        .with_generation_id_or_member_epoch(generation)
        .with_topics(topics.collect())
}

pub(crate) fn commit_answer(answer: &OffsetCommitResponse) -> Codes {
    let topics = answer.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (&t.name, p)));
    topics.map(|(name, p)| (TopicPartition::new(name.as_str(), p.partition_index), p.error_code)).collect()
}

/// A commit that someone may wait for.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) offsets: Vec<(Lease, OffsetAndMetadata)>,
    pub(crate) deadline: Instant,
    pub(crate) reply: Option<oneshot::Sender<Result<()>>>,
}

impl Commit {
    fn touches(&self, partitions: &[TopicPartition]) -> bool {
        self.offsets.iter().any(|(lease, _)| partitions.contains(&lease.partition))
    }

    pub(crate) fn end(self, outcome: Result<()>) {
        match (self.reply, outcome) {
            (Some(reply), outcome) => _ = reply.send(outcome), // whoever asked may be gone
            (None, Ok(())) => {}
            (None, Err(e)) => tracing::warn!(error = %e.full(), "a start position could not be committed"),
        }
    }
}

/// Commits under leases in force, in order: one request at a time takes all that wait, so that an older offset of a
/// partition never overtakes a newer one.
#[derive(Debug)]
pub(crate) struct Commits {
    group: String,
    waiting: VecDeque<Commit>,
    under_way: Vec<Commit>,
    retry_at: Option<Instant>,
    /// Whether those that wait for it were refused for the member's epoch alone, which is about to be known.
    stale: bool,
    backoff: Backoff,
}

impl Commits {
    pub(crate) fn new(group: &str, backoff: Backoff) -> Self {
        Self {
            group: group.into(),
            waiting: VecDeque::new(),
            under_way: Vec::new(),
            retry_at: None,
            stale: false,
            backoff,
        }
    }

    pub(crate) fn push(&mut self, commit: Commit) {
        self.waiting.push_back(commit);
    }

    /// When the next one has waited for too long.
    pub(crate) fn expiry(&self) -> Option<Instant> {
        self.waiting.iter().map(|c| c.deadline).min()
    }

    /// When those refused may be sent again.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| !self.waiting.is_empty())
    }

    /// Gives up those whose time has passed.
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.waiting.iter().all(|c| now < c.deadline) {
            return;
        }
        let (late, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|c| now >= c.deadline);
        self.waiting = waiting;
        let late: VecDeque<Commit> = late;
        for c in late {
            let what = format!(
                "offsets of group {:?} could not be committed within the request timeout: its coordinator did not take them",
                self.group
            );
            c.end(Err(Error::new(ErrorKind::Timeout, what)));
        }
    }

    /// The offsets to send now, the newest of each partition.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Vec<Offset>> {
        if !self.under_way.is_empty() || self.waiting.is_empty() || self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.retry_at = None;
        self.stale = false;
        self.under_way.extend(self.waiting.drain(..));
        let all = self.under_way.iter().flat_map(|c| &c.offsets);
        let newest: BTreeMap<_, _> = all.map(|(lease, offset)| (lease.partition.clone(), offset.clone())).collect();
        Some(newest.into_iter().collect())
    }

    /// What came of them. Gives a code that tells something of the membership. `stale`: the group has begun another generation
    /// since they were sent, so a refusal tells nothing; what is still ours is committed in the new one.
    pub(crate) fn answered(&mut self, now: Instant, outcome: Result<Codes>, stale: bool) -> Option<i16> {
        let commits = std::mem::take(&mut self.under_way);
        let mut told = None;
        let mut again = Vec::new();
        self.stale = matches!(&outcome, Ok(codes) if codes.values().any(|code| *code == code::STALE_MEMBER_EPOCH));
        for c in commits {
            let code = match &outcome {
                Err(e) if e.is_retriable() || e.kind() == ErrorKind::Corrupt => {
                    again.push(c);
                    continue;
                }
                Err(e) => {
                    c.end(Err(e.clone()));
                    continue;
                }
                Ok(codes) => {
                    let code = |(l, _): &(Lease, OffsetAndMetadata)| {
                        codes.get(&l.partition).copied().filter(|code| *code != 0)
                    };
                    c.offsets.iter().find_map(code)
                }
            };
            match code {
                None => c.end(Ok(())),
                Some(
                    code::ILLEGAL_GENERATION
                    | code::UNKNOWN_MEMBER_ID
                    | code::REBALANCE_IN_PROGRESS
                    | code::GROUP_ID_NOT_FOUND
                    | code::STALE_MEMBER_EPOCH,
                ) if stale => again.push(c),
                // What is still ours can be committed in the epoch that the next heartbeat brings.
                Some(code::STALE_MEMBER_EPOCH) => {
                    told = told.or(Some(code::STALE_MEMBER_EPOCH));
                    again.push(c);
                }
                Some(code) => {
                    told = told.or(Some(code));
                    if is_retriable_code(code) && !matches!(code, UNKNOWN_TOPIC | code::REBALANCE_IN_PROGRESS) {
                        again.push(c);
                    } else {
                        let what = format!("committing offsets of group {:?}", self.group);
                        c.end(Err(Error::broker(code, what)));
                    }
                }
            }
        }
        if again.is_empty() {
            self.backoff.reset();
        } else {
            self.retry_at = Some(now + self.backoff.next());
            again.into_iter().rev().for_each(|c| self.waiting.push_front(c));
        }
        told
    }

    /// Whether one of these partitions is in a commit that is on its way, or could be.
    pub(crate) fn touch(&self, partitions: &[TopicPartition]) -> bool {
        let soon = self.waiting.iter().filter(|_| self.retry_at.is_none() || self.stale);
        self.under_way.iter().chain(soon).any(|c| c.touches(partitions))
    }

    /// These partitions are not ours any more: nothing is committed for them.
    pub(crate) fn fail(&mut self, partitions: &[TopicPartition], why: &Error) {
        let mut failed = Vec::new();
        let (gone, kept) = std::mem::take(&mut self.under_way).into_iter().partition(|c| c.touches(partitions));
        self.under_way = kept;
        failed.push(gone);
        let waiting: Vec<_> = self.waiting.drain(..).collect();
        let (gone, kept): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|c| c.touches(partitions));
        self.waiting = kept.into();
        failed.push(gone);
        failed.into_iter().flatten().for_each(|c| c.end(Err(why.clone())));
    }
}

#[cfg(test)]
#[path = "offsets_tests.rs"]
mod tests;
