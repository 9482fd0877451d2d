//! Incremental fetch sessions (KIP-227): responses have only partitions that changed.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{FetchRequest, TopicName};
use uuid::Uuid;

/// Maximum number of sessions, as Kafka's `max.incremental.fetch.session.cache.slots`.
const MAX_SESSIONS: usize = 1000;
/// Epoch of a fetch without a session.
const FINAL_EPOCH: i32 = -1;
/// Epoch of a fetch that creates a session.
const INITIAL_EPOCH: i32 = 0;

/// A partition of a session.
#[derive(Debug)]
struct CachedPartition {
    topic: TopicName,
    topic_id: Uuid,
    request: FetchPartition,
    /// High watermark and log start offset last returned.
    last_reported: Option<(i64, i64)>,
}

impl CachedPartition {
    fn is(&self, topic: &TopicName, topic_id: Uuid, partition: i32) -> bool {
        self.topic == *topic && self.topic_id == topic_id && self.request.partition == partition
    }
}

#[derive(Debug)]
struct FetchSession {
    node: i32,
    /// Expected epoch of the next request.
    epoch: i32,
    /// Partitions in the order in which they are served.
    partitions: Vec<CachedPartition>,
}

/// Sessions of all nodes, by id.
#[derive(Debug, Default)]
pub(crate) struct FetchSessions {
    sessions: BTreeMap<i32, FetchSession>,
    last_id: i32,
}

impl FetchSessions {
    pub fn clear(&mut self) {
        self.sessions.clear();
    }

    /// Applies a request to its session, and makes it name all partitions to read. Returns the
    /// session id, 0 for none.
    pub fn resolve_request(&mut self, node: i32, request: &mut FetchRequest) -> Result<i32, ResponseError> {
        if matches!(request.session_epoch, FINAL_EPOCH | INITIAL_EPOCH) {
            self.sessions.remove(&request.session_id);
            let all = request.topics.iter().all(|t| t.partitions.is_empty());
            return Ok(if request.session_epoch == FINAL_EPOCH || all { 0 } else { self.create(node, request) });
        }
        let id = request.session_id;
        let found = self.sessions.get_mut(&id).filter(|s| s.node == node);
        let session = found.ok_or(ResponseError::FetchSessionIdNotFound)?;
        if session.epoch != request.session_epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        session.epoch = if session.epoch == i32::MAX { 1 } else { session.epoch + 1 };
        session.update(request);
        if session.partitions.is_empty() {
            self.sessions.remove(&id);
            return Ok(0);
        }
        request.topics = session.topics();
        Ok(id)
    }

    fn create(&mut self, node: i32, request: &mut FetchRequest) -> i32 {
        if self.sessions.len() >= MAX_SESSIONS {
            self.sessions.pop_first();
        }
        self.last_id = if self.last_id == i32::MAX { 1 } else { self.last_id + 1 };
        let mut session = FetchSession { node, epoch: INITIAL_EPOCH + 1, partitions: Vec::new() };
        session.update(request);
        self.sessions.insert(self.last_id, session);
        self.last_id
    }

    /// Returns whether the response must have this partition: in an incremental one only if it
    /// changed. A partition with records moves to the end of the session, for fairness.
    pub fn record_response(
        &mut self,
        session_id: i32,
        incremental: bool,
        topic: (&TopicName, Uuid),
        data: &PartitionData,
        bytes: usize,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&session_id) else { return true };
        let found = session.partitions.iter().position(|c| c.is(topic.0, topic.1, data.partition_index));
        let Some(at) = found else { return true };
        let now = Some((data.high_watermark, data.log_start_offset));
        let cached = &mut session.partitions[at];
        let has_changed =
            data.error_code != 0 || data.preferred_read_replica.0 >= 0 || bytes > 0 || cached.last_reported != now;
        // After an error the partition is returned again once it is served.
        cached.last_reported = now.filter(|_| data.error_code == 0);
        if bytes > 0 {
            let served = session.partitions.remove(at);
            session.partitions.push(served);
        }
        has_changed || !incremental
    }
}

impl FetchSession {
    fn update(&mut self, request: &mut FetchRequest) {
        for topic in &request.forgotten_topics_data {
            self.partitions.retain(|c| !topic.partitions.iter().any(|p| c.is(&topic.topic, topic.topic_id, *p)));
        }
        for topic in &request.topics {
            for partition in &topic.partitions {
                match self.partitions.iter_mut().find(|c| c.is(&topic.topic, topic.topic_id, partition.partition)) {
                    Some(known) => known.request = partition.clone(),
                    None => self.partitions.push(CachedPartition {
                        topic: topic.topic.clone(),
                        topic_id: topic.topic_id,
                        request: partition.clone(),
                        last_reported: None,
                    }),
                }
            }
        }
    }

    /// Groups adjacent partitions of a topic; the order stays.
    fn topics(&self) -> Vec<FetchTopic> {
        let mut topics: Vec<FetchTopic> = Vec::new();
        for c in &self.partitions {
            match topics.last_mut().filter(|t| t.topic == c.topic && t.topic_id == c.topic_id) {
                Some(topic) => topic.partitions.push(c.request.clone()),
                None => topics.push(
                    FetchTopic::default()
                        .with_topic(c.topic.clone())
                        .with_topic_id(c.topic_id)
                        .with_partitions(vec![c.request.clone()]),
                ),
            }
        }
        topics
    }
}
