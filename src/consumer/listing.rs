//! Offsets of places in partitions, asked of their leaders: the beginning, the end, the first record at or after a time.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, ListOffsetsResponse};
use tokio::time::Instant;

use super::offsets::{by_topic, isolation, topic_name};
use crate::cluster::Cluster;
use crate::config::IsolationLevel;
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;
use crate::text;
use crate::wire::Api;

/// What ListOffsets calls the end of a partition.
pub(crate) const LATEST: i64 = -1;
/// What it calls the beginning.
pub(crate) const EARLIEST: i64 = -2;

/// A record's place, as [`Consumer::offsets_for_times`](super::Consumer::offsets_for_times) finds it.
///
/// ```
/// fn tell(found: ailurus::consumer::OffsetAndTimestamp) {
///     println!("at {} ms: offset {}", found.timestamp, found.offset);
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffsetAndTimestamp {
    /// The offset.
    pub offset: i64,
    /// The record's timestamp, milliseconds since 1970; none for the beginning and the end of a log.
    pub timestamp: i64,
    /// The epoch of the leader that wrote it, -1 where the broker does not tell (KIP-320).
    pub leader_epoch: i32,
}

/// Asks for one place in each partition: a timestamp, [`LATEST`] or [`EARLIEST`]. An offset of -1 is the answer for a time
/// behind the last record. A leader that has moved is asked again, for the request timeout.
pub(crate) async fn list_offsets(
    cluster: &Cluster,
    asks: &BTreeMap<TopicPartition, i64>,
    level: IsolationLevel,
) -> Result<BTreeMap<TopicPartition, OffsetAndTimestamp>> {
    let request = |of_leader: &[TopicPartition]| {
        request(of_leader.iter().filter_map(|p| asks.get(p).map(|at| (p.clone(), *at))), level)
    };
    ask_leaders(cluster, "listing offsets", asks.keys().cloned(), request, answers).await
}

/// Asks for one place in each of some partitions of one leader.
pub(crate) fn request(
    asks: impl IntoIterator<Item = (TopicPartition, i64)>,
    level: IsolationLevel,
) -> ListOffsetsRequest {
    let topics = by_topic(asks).into_iter().map(|(name, asks)| {
        let ask = |(partition, timestamp)| {
            ListOffsetsPartition::default()
                .with_partition_index(partition)
                .with_current_leader_epoch(-1)
                .with_timestamp(timestamp)
        };
        let partitions = asks.into_iter().map(ask).collect();
        ListOffsetsTopic::default().with_name(topic_name(&name)).with_partitions(partitions)
    });
    ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(isolation(level))
        .with_topics(topics.collect())
}

/// Of each partition the error code and what was found.
pub(crate) fn answers(answer: ListOffsetsResponse) -> Vec<(TopicPartition, i16, OffsetAndTimestamp)> {
    let of_topic = |t: ListOffsetsTopicResponse| {
        let place = |p: &ListOffsetsPartitionResponse| OffsetAndTimestamp {
            offset: p.offset,
            timestamp: p.timestamp,
            leader_epoch: p.leader_epoch,
        };
        let name = t.name;
        let one = move |p: ListOffsetsPartitionResponse| {
            (TopicPartition::new(name.as_str(), p.partition_index), p.error_code, place(&p))
        };
        t.partitions.into_iter().map(one)
    };
    answer.topics.into_iter().flat_map(of_topic).collect()
}

/// Asks the leader of each partition, again if it has moved, for the request timeout. Of an answer, `answers` gives partition,
/// error code and what was asked for.
async fn ask_leaders<A: Api, T>(
    cluster: &Cluster,
    what: &str,
    partitions: impl IntoIterator<Item = TopicPartition>,
    request: impl Fn(&[TopicPartition]) -> A,
    answers: impl Fn(A::Response) -> Vec<(TopicPartition, i16, T)>,
) -> Result<BTreeMap<TopicPartition, T>> {
    let timeout = cluster.config().request_timeout;
    let deadline = Instant::now() + timeout;
    let mut backoff = cluster.backoff();
    let mut found = BTreeMap::new();
    let mut missing: BTreeSet<_> = partitions.into_iter().collect();
    loop {
        let mut last = None;
        for (leader, of_leader) in by_leader(cluster, &missing).await? {
            let answer = match cluster.request_to(leader, request(&of_leader), timeout).await {
                Ok(answer) => answer,
                Err(e) if e.is_retriable() => {
                    last = Some(e);
                    continue;
                }
                Err(e) => return Err(e),
            };
            for (p, code, offset) in answers(answer) {
                if code == 0 {
                    missing.remove(&p);
                    found.insert(p, offset);
                    continue;
                }
                let e = Error::broker(code, format_args!("{what} of {p} at broker {leader}"));
                if !e.is_retriable() && !e.is_unknown_topic() {
                    return Err(e);
                }
                last = Some(e);
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let wait = backoff.next();
        if Instant::now() + wait > deadline {
            let what = format!("{what} of {}: no leader of theirs answers", text::list(&missing));
            return Err(last.map_or_else(|| Error::new(ErrorKind::Timeout, what.clone()), |e| e.context(&what)));
        }
        tokio::time::sleep(wait).await;
        cluster.refresh().await?;
    }
}

/// The partitions by the broker that leads them; those without a leader are left out.
async fn by_leader(
    cluster: &Cluster,
    partitions: &BTreeSet<TopicPartition>,
) -> Result<BTreeMap<i32, Vec<TopicPartition>>> {
    let mut by_leader = BTreeMap::<i32, Vec<_>>::new();
    for p in partitions {
        let topic = cluster.topic(&p.topic, false).await?;
        let known = topic.partition(p.partition).ok_or_else(|| {
            let what = format!("partition {p} does not exist: {} has {} partitions", p.topic, topic.partitions.len());
            Error::new(ErrorKind::UnknownTopic, what)
        })?;
        if let Some(leader) = known.leader {
            by_leader.entry(leader).or_default().push(p.clone());
        }
    }
    Ok(by_leader)
}
