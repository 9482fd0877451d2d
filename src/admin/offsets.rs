//! Offsets of places in partitions.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::Admin;
use crate::consumer::StartOffset;
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;

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
        let deadline = Instant::now() + self.cluster().config().request_timeout;
        let mut backoff = self.cluster().backoff();
        let mut found = BTreeMap::new();
        let mut missing: BTreeSet<_> = partitions.iter().cloned().collect();
        loop {
            let mut last = None;
            for (leader, of_leader) in self.by_leader(&missing).await? {
                match self.ask_leader(leader, &of_leader, timestamp).await {
                    Ok(answers) => {
                        for (p, answer) in answers {
                            match answer {
                                Ok(offset) => {
                                    missing.remove(&p);
                                    found.insert(p, offset);
                                }
                                Err(e) if e.is_retriable() || e.is_unknown_topic() => last = Some(e),
                                Err(e) => return Err(e),
                            }
                        }
                    }
                    Err(e) if e.is_retriable() => last = Some(e),
                    Err(e) => return Err(e),
                }
            }
            if missing.is_empty() {
                break;
            }
            let wait = backoff.next();
            if Instant::now() + wait > deadline {
                let names: Vec<_> = missing.iter().map(ToString::to_string).collect();
                let what = format!("offsets of {} can't be listed: they have no leader that answers", names.join(", "));
                return Err(last.map_or_else(|| Error::new(ErrorKind::Timeout, what.clone()), |e| e.context(&what)));
            }
            tokio::time::sleep(wait).await;
            self.cluster().refresh().await?;
        }
        // A timestamp behind the last record has no offset: what comes next has.
        let none: Vec<_> = found.iter().filter(|(_, o)| **o < 0).map(|(p, _)| p.clone()).collect();
        if timestamp >= 0 && !none.is_empty() {
            found.extend(Box::pin(self.list_offsets(&none, StartOffset::Latest)).await?);
        }
        Ok(found)
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

    async fn ask_leader(
        &self,
        leader: i32,
        partitions: &[TopicPartition],
        timestamp: i64,
    ) -> Result<Vec<(TopicPartition, Result<i64>)>> {
        let mut topics = BTreeMap::<&str, Vec<_>>::new();
        for p in partitions {
            let ask = ListOffsetsPartition::default()
                .with_partition_index(p.partition)
                .with_current_leader_epoch(-1)
                .with_timestamp(timestamp);
            topics.entry(&*p.topic).or_default().push(ask);
        }
        let name = |n: &str| TopicName(StrBytes::from_string(n.to_owned()));
        let topics = topics.into_iter().map(|(n, p)| ListOffsetsTopic::default().with_name(name(n)).with_partitions(p));
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics.collect());
        let cluster = self.cluster();
        let answer = cluster.request_to(leader, request, cluster.config().request_timeout).await?;
        let mut out = Vec::new();
        for t in answer.topics {
            for p in t.partitions {
                let tp = TopicPartition::new(t.name.0.as_str(), p.partition_index);
                let outcome = match p.error_code {
                    0 => Ok(p.offset),
                    code => Err(Error::broker(code, format_args!("listing offsets of {tp} at broker {leader}"))),
                };
                out.push((tp, outcome));
            }
        }
        Ok(out)
    }
}
