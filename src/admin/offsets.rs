//! Offsets of places in partitions, and what is deleted before one.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_records_response::DeleteRecordsTopicResult;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsTopicResponse;
use kafka_protocol::messages::{
    BrokerId, DeleteRecordsRequest, DeleteRecordsResponse, ListOffsetsRequest, ListOffsetsResponse, TopicName,
};
use tokio::time::Instant;

use super::Admin;
use super::topics::{millis, topic_name};
use crate::consumer::StartOffset;
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;
use crate::wire::Api;

/// What ListOffsets calls the end and the beginning of a partition.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

impl Admin {
    /// The offset of a place in each of some partitions; of a timestamp behind the last record: the end.
    ///
    /// A leader that has moved is asked again, for the request timeout.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`] if one of them does not exist; nothing is created.
    pub async fn list_offsets(
        &self,
        partitions: &[TopicPartition],
        at: StartOffset,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        let timestamp = match at {
            StartOffset::Latest => LATEST,
            StartOffset::Earliest => EARLIEST,
            StartOffset::Timestamp(t) => t,
            StartOffset::Offset(o) => return Ok(partitions.iter().map(|p| (p.clone(), o)).collect()),
        };
        let request = |of_leader: &[TopicPartition]| {
            let ask = |p: &TopicPartition| {
                ListOffsetsPartition::default()
                    .with_partition_index(p.partition)
                    .with_current_leader_epoch(-1)
                    .with_timestamp(timestamp)
            };
            let topics = by_topic(of_leader, ask).into_iter();
            let topics = topics.map(|(n, p)| ListOffsetsTopic::default().with_name(n).with_partitions(p));
            ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics.collect())
        };
        let answers = |response: ListOffsetsResponse| {
            let of_topic = |t: ListOffsetsTopicResponse| {
                let place = move |p: i32| TopicPartition::new(t.name.as_str(), p);
                t.partitions.into_iter().map(move |p| (place(p.partition_index), p.error_code, p.offset))
            };
            response.topics.into_iter().flat_map(of_topic).collect()
        };
        let mut found = self.ask_leaders("listing offsets", partitions, request, answers).await?;
        // A timestamp behind the last record has no offset: what comes next has.
        let none: Vec<_> = found.iter().filter(|(_, o)| **o < 0).map(|(p, _)| p.clone()).collect();
        if timestamp >= 0 && !none.is_empty() {
            found.extend(Box::pin(self.list_offsets(&none, StartOffset::Latest)).await?);
        }
        Ok(found)
    }

    /// Deletes the records before an offset in each of some partitions, for good; -1 means all that are replicated. Gives
    /// the offset at which each begins now.
    ///
    /// A leader that has moved is asked again, for the request timeout.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`] if one of them does not exist; [`ErrorKind::OffsetOutOfRange`] for an offset behind the
    /// end; what else a broker refuses. Records of other partitions may be deleted by then.
    pub async fn delete_records(
        &self,
        before: &BTreeMap<TopicPartition, i64>,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        let timeout = self.cluster().config().request_timeout;
        let partitions: Vec<_> = before.keys().cloned().collect();
        let request = |of_leader: &[TopicPartition]| {
            let ask = |p: &TopicPartition| {
                let offset = before.get(p).copied().unwrap_or_default(); // 0 deletes nothing
                DeleteRecordsPartition::default().with_partition_index(p.partition).with_offset(offset)
            };
            let topics = by_topic(of_leader, ask).into_iter();
            let topics = topics.map(|(n, p)| DeleteRecordsTopic::default().with_name(n).with_partitions(p));
            DeleteRecordsRequest::default().with_topics(topics.collect()).with_timeout_ms(millis(timeout))
        };
        let answers = |response: DeleteRecordsResponse| {
            let of_topic = |t: DeleteRecordsTopicResult| {
                let place = move |p: i32| TopicPartition::new(t.name.as_str(), p);
                t.partitions.into_iter().map(move |p| (place(p.partition_index), p.error_code, p.low_watermark))
            };
            response.topics.into_iter().flat_map(of_topic).collect()
        };
        self.ask_leaders("deleting records", &partitions, request, answers).await
    }

    /// Asks the leader of each partition, again if it has moved, for the request timeout.
    async fn ask_leaders<A: Api>(
        &self,
        what: &str,
        partitions: &[TopicPartition],
        request: impl Fn(&[TopicPartition]) -> A,
        answers: impl Fn(A::Response) -> Vec<(TopicPartition, i16, i64)>,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        let timeout = self.cluster().config().request_timeout;
        let deadline = Instant::now() + timeout;
        let mut backoff = self.cluster().backoff();
        let mut found = BTreeMap::new();
        let mut missing: BTreeSet<_> = partitions.iter().cloned().collect();
        loop {
            let mut last = None;
            for (leader, of_leader) in self.by_leader(&missing).await? {
                let answer = match self.cluster().request_to(leader, request(&of_leader), timeout).await {
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
                let names: Vec<_> = missing.iter().map(ToString::to_string).collect();
                let what = format!("{what} of {}: they have no leader that answers", names.join(", "));
                return Err(last.map_or_else(|| Error::new(ErrorKind::Timeout, what.clone()), |e| e.context(&what)));
            }
            tokio::time::sleep(wait).await;
            self.cluster().refresh().await?;
        }
    }

    /// The partitions by the broker that leads them; those without a leader are left out.
    async fn by_leader(&self, partitions: &BTreeSet<TopicPartition>) -> Result<BTreeMap<i32, Vec<TopicPartition>>> {
        let mut by_leader = BTreeMap::<i32, Vec<_>>::new();
        for p in partitions {
            let topic = self.cluster().topic(&p.topic, false).await?;
            let known = topic.partition(p.partition).ok_or_else(|| {
                let what =
                    format!("partition {p} does not exist: {} has {} partitions", p.topic, topic.partitions.len());
                Error::new(ErrorKind::UnknownTopic, what)
            })?;
            if let Some(leader) = known.leader {
                by_leader.entry(leader).or_default().push(p.clone());
            }
        }
        Ok(by_leader)
    }
}

/// What is asked of each partition, by topic.
fn by_topic<P>(partitions: &[TopicPartition], ask: impl Fn(&TopicPartition) -> P) -> BTreeMap<TopicName, Vec<P>> {
    let mut topics = BTreeMap::<_, Vec<_>>::new();
    for p in partitions {
        topics.entry(topic_name(&p.topic)).or_default().push(ask(p));
    }
    topics
}
