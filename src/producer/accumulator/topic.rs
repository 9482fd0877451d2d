//! Topics of the accumulator, as metadata describes them.

use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use super::{Accumulator, AccumulatorConfig, NO_LEADER, PartitionId};
use crate::cluster::Interest;
use crate::producer::batch::{Batch, BatchState, FinishedBatch};
use crate::producer::partition::PartitionQueue;
use crate::producer::partitioner::{BuiltInPartitioner, PartitionLoad};

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    /// The topic's id, which changes when it is recreated.
    id: Option<Uuid>,
    /// Size at which a batch is full: smaller than the setting once a broker has rejected one as
    /// too large.
    pub(super) batch_size: usize,
    /// Number of partitions that the topic has now; `partitions` also has those of when it had
    /// more.
    pub(super) partition_count: usize,
    pub(super) partitions: Vec<PartitionQueue>,
    pub(super) partitioner: BuiltInPartitioner,
    /// Time of the first metadata in which the topic was missing.
    pub(super) missing_since: Option<Instant>,
    /// Notified of each use, so that the topic's metadata is refreshed.
    pub(super) interest: Option<Arc<Interest>>,
}

impl Topic {
    fn new(name: Arc<str>, id: Option<Uuid>, batch_size: usize, random: &mut fastrand::Rng) -> Self {
        let partitioner = BuiltInPartitioner::new(random);
        Self {
            name,
            id,
            batch_size,
            partition_count: 0,
            partitions: Vec::new(),
            partitioner,
            missing_since: None,
            interest: None,
        }
    }

    /// Returns whether a record of this size starts another sticky partition.
    pub(super) fn should_switch_sticky(&self, size: usize, adaptive: bool) -> bool {
        let open =
            self.partitions[self.partitioner.sticky()].queue.back().filter(|b| matches!(b.state, BatchState::Open(_)));
        self.partitioner.should_switch(open.map(|b| b.number), size, self.batch_size, adaptive)
    }

    pub(super) fn switch_sticky(&mut self, now: Instant, config: &AccumulatorConfig, random: &mut fastrand::Rng) {
        if !config.adaptive_partitioning {
            return self.partitioner.switch_random(random);
        }
        let timeout = config.partition_availability_timeout;
        // A batch expires when it has lingered and then waited for all of the delivery timeout.
        let is_late = |b: &Batch| b.expires_at + config.linger + timeout < now + config.delivery_timeout;
        let partitions = &self.partitions;
        self.partitioner.switch_by_load(random, |p| {
            let queue = &partitions[p].queue;
            PartitionLoad {
                queued_batches: queue.len(),
                responds: timeout.is_zero() || !queue.front().is_some_and(is_late),
            }
        });
    }

    fn has_batches(&self) -> bool {
        self.partitions.iter().any(|p| !p.queue.is_empty())
    }
}

impl Accumulator {
    /// Applies a topic's metadata: the leader of each partition, or that the topic does not exist.
    ///
    /// A partition's batches move to its new leader, which is tried at once.
    pub(crate) fn update_topic(
        &mut self,
        now: Instant,
        name: &Arc<str>,
        id: Option<Uuid>,
        leaders: Option<&[Option<i32>]>,
    ) -> Vec<FinishedBatch> {
        let context = self.context();
        let index = match self.by_name.get(name) {
            Some(&index) => index,
            None if leaders.is_none() => return Vec::new(),
            None => self.add_topic(name, id),
        };
        let topic = &mut self.topics[index];
        match leaders {
            Some(leaders) => {
                topic.missing_since = None;
                topic.partition_count = leaders.len();
                while topic.partitions.len() < topic.partition_count {
                    topic.partitions.push(PartitionQueue::new(NO_LEADER, self.config.transactional));
                }
                topic.partitioner.update(leaders, &mut self.random);
            }
            None => topic.missing_since = topic.missing_since.or(Some(now)),
        }
        let recreated = id.is_some() && topic.id.is_some() && id != topic.id;
        topic.id = id.or(topic.id);
        let (mut finished, mut rejected_id) = (Vec::new(), None);
        for (i, partition) in topic.partitions.iter_mut().enumerate() {
            let id = PartitionId { topic: index, partition: i };
            if recreated {
                partition.on_topic_recreated();
                rejected_id = partition.resolve_gap(&mut finished).or(rejected_id);
                self.ready.update(id, partition, context);
            }
            let leader = leaders.and_then(|l| l.get(i).copied().flatten()).unwrap_or(NO_LEADER);
            if leader == partition.leader {
                continue;
            }
            self.ready.remove(id, partition);
            partition.leader = leader;
            partition.on_leader_change();
            if let Some(first) = partition.queue.front_mut().filter(|b| b.attempts > 0) {
                first.ready_at = first.ready_at.min(now);
            }
            self.ready.update(id, partition, context);
        }
        self.discard_producer_id(rejected_id);
        if recreated {
            let partitions = self.topics[index].partitions.len();
            let ids = (0..partitions).map(|partition| PartitionId { topic: index, partition });
            self.on_transaction_results(ids, &mut finished, 0);
        }
        finished
    }

    fn add_topic(&mut self, name: &Arc<str>, id: Option<Uuid>) -> usize {
        let topic = Topic::new(Arc::clone(name), id, self.config.batch_size, &mut self.random);
        let index = self.free_slots.pop().unwrap_or(self.topics.len());
        match self.topics.get_mut(index) {
            Some(slot) => *slot = topic,
            None => self.topics.push(topic),
        }
        self.by_name.insert(Arc::clone(name), index);
        index
    }

    /// Notifies `interest` of each use of a topic from now on.
    pub(crate) fn track_use(&mut self, name: &str, interest: Arc<Interest>) {
        if let Some(topic) = self.by_name.get(name).and_then(|&index| self.topics.get_mut(index)) {
            topic.interest = Some(interest);
        }
    }

    /// Marks the topics as used whose batches are unfinished.
    pub(crate) fn touch_pending_topics(&self) {
        for topic in self.topics.iter().filter(|t| t.has_batches()) {
            topic.interest.iter().for_each(|interest| interest.touch());
        }
    }

    /// Drops the metadata of a topic that was unused for a while: its next record looks it up
    /// again. The sequences of its partitions stay, for its brokers have them too; those of a
    /// deleted topic are dropped. Returns false, and drops nothing, if batches of it are
    /// unfinished.
    pub(crate) fn forget_topic(&mut self, name: &str) -> bool {
        let Some(&index) = self.by_name.get(name) else { return true };
        let topic = &mut self.topics[index];
        if topic.has_batches() {
            return false;
        }
        topic.partition_count = 0;
        topic.interest = None;
        topic.partitions.iter_mut().for_each(|p| p.queue.shrink_to_fit());
        if topic.missing_since.is_some() {
            self.by_name.remove(name);
            self.topics[index] = Topic::new("".into(), None, 0, &mut self.random);
            self.free_slots.push(index);
        }
        true
    }

    /// Returns a topic's number of partitions and those that are available; `None` if its metadata
    /// is needed first.
    pub(crate) fn partitions_of(&self, topic: &str) -> Option<(i32, Arc<[i32]>)> {
        let topic = &self.topics[*self.by_name.get(topic)?];
        let is_known = topic.missing_since.is_none() && topic.partition_count > 0;
        is_known.then(|| (topic.partition_count as i32, Arc::clone(topic.partitioner.available())))
    }

    /// Returns the names of the topics in use.
    pub(crate) fn topic_names(&self) -> Vec<Arc<str>> {
        let topics = self.by_name.iter().map(|(name, &index)| (name, &self.topics[index]));
        let in_use = topics.filter(|(_, t)| t.partition_count > 0 || t.missing_since.is_some());
        in_use.map(|(name, _)| Arc::clone(name)).collect()
    }
}
