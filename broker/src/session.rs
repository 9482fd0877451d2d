//! Incremental fetch sessions (KIP-227): what a connection fetches is remembered, and only what has changed is answered.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{FetchRequest, TopicName};
use uuid::Uuid;

/// The most sessions that are kept, as Kafka's `max.incremental.fetch.session.cache.slots`.
const SLOTS: usize = 1000;
/// The epoch of a fetch without a session.
const FINAL: i32 = -1;
/// The epoch of a fetch that begins one.
const INITIAL: i32 = 0;

/// A partition of a session.
#[derive(Debug)]
struct Cached {
    topic: TopicName,
    id: Uuid,
    asked: FetchPartition,
    /// High watermark and log start as they were told last.
    told: Option<(i64, i64)>,
}

impl Cached {
    fn is(&self, topic: &TopicName, id: Uuid, partition: i32) -> bool {
        self.topic == *topic && self.id == id && self.asked.partition == partition
    }
}

#[derive(Debug)]
struct Session {
    node: i32,
    /// Of the next request.
    epoch: i32,
    /// In the order in which they are served.
    parts: Vec<Cached>,
}

/// The sessions of all nodes, by id.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    sessions: BTreeMap<i32, Session>,
    last: i32,
}

impl Sessions {
    pub fn clear(&mut self) {
        self.sessions.clear();
    }

    /// Takes a request into its session: afterwards it names all partitions to look at. Gives the session's id, 0 for none.
    pub fn enter(&mut self, node: i32, request: &mut FetchRequest) -> Result<i32, ResponseError> {
        if matches!(request.session_epoch, FINAL | INITIAL) {
            self.sessions.remove(&request.session_id);
            let all = request.topics.iter().all(|t| t.partitions.is_empty());
            return Ok(if request.session_epoch == FINAL || all { 0 } else { self.begin(node, request) });
        }
        let id = request.session_id;
        let found = self.sessions.get_mut(&id).filter(|s| s.node == node);
        let session = found.ok_or(ResponseError::FetchSessionIdNotFound)?;
        if session.epoch != request.session_epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        session.epoch = if session.epoch == i32::MAX { 1 } else { session.epoch + 1 };
        session.update(request);
        if session.parts.is_empty() {
            self.sessions.remove(&id);
            return Ok(0);
        }
        request.topics = session.topics();
        Ok(id)
    }

    fn begin(&mut self, node: i32, request: &mut FetchRequest) -> i32 {
        if self.sessions.len() >= SLOTS {
            self.sessions.pop_first();
        }
        self.last = if self.last == i32::MAX { 1 } else { self.last + 1 };
        let mut session = Session { node, epoch: INITIAL + 1, parts: Vec::new() };
        session.update(request);
        self.sessions.insert(self.last, session);
        self.last
    }

    /// Which partitions must be told of: in an incremental answer those with news. Those that brought records go to the end
    /// of the session, so that each has its turn.
    pub fn leave(
        &mut self,
        id: i32,
        incremental: bool,
        topic: (&TopicName, Uuid),
        data: &PartitionData,
        bytes: usize,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return true };
        let found = session.parts.iter().position(|c| c.is(topic.0, topic.1, data.partition_index));
        let Some(at) = found else { return true };
        let now = Some((data.high_watermark, data.log_start_offset));
        let cached = &mut session.parts[at];
        let news = data.error_code != 0 || data.preferred_read_replica.0 >= 0 || bytes > 0 || cached.told != now;
        // A partition in error is told of again when it is well.
        cached.told = now.filter(|_| data.error_code == 0);
        if bytes > 0 {
            let served = session.parts.remove(at);
            session.parts.push(served);
        }
        news || !incremental
    }
}

impl Session {
    fn update(&mut self, request: &mut FetchRequest) {
        for topic in &request.forgotten_topics_data {
            self.parts.retain(|c| !topic.partitions.iter().any(|p| c.is(&topic.topic, topic.topic_id, *p)));
        }
        for topic in &request.topics {
            for asked in &topic.partitions {
                match self.parts.iter_mut().find(|c| c.is(&topic.topic, topic.topic_id, asked.partition)) {
                    Some(known) => known.asked = asked.clone(),
                    None => self.parts.push(Cached {
                        topic: topic.topic.clone(),
                        id: topic.topic_id,
                        asked: asked.clone(),
                        told: None,
                    }),
                }
            }
        }
    }

    /// Neighbours of one topic are put together; the order stays.
    fn topics(&self) -> Vec<FetchTopic> {
        let mut topics: Vec<FetchTopic> = Vec::new();
        for c in &self.parts {
            match topics.last_mut().filter(|t| t.topic == c.topic && t.topic_id == c.id) {
                Some(topic) => topic.partitions.push(c.asked.clone()),
                None => topics.push(
                    FetchTopic::default()
                        .with_topic(c.topic.clone())
                        .with_topic_id(c.id)
                        .with_partitions(vec![c.asked.clone()]),
                ),
            }
        }
        topics
    }
}
