//! Partitions with a batch to send, by leader, and what a leader's next request takes of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::{Accumulator, BatchId, DrainedBatch, NewRecord, PartitionId};
use crate::error::Error;
use crate::producer::accumulator::NO_LEADER;
use crate::producer::batch::BatchState;
use crate::producer::partition::{PartitionQueue, SendContext};
use crate::record::ProducerSequence;

/// Maximum bytes that a produce request adds to a batch beside its topic's name: integers, lengths,
/// tags.
const BATCH_OVERHEAD_BYTES: usize = 32;

/// Partitions with a batch to send, by leader, and the leaders whose senders to wake.
#[derive(Debug, Default)]
pub(super) struct ReadyQueues {
    by_leader: BTreeMap<i32, LeaderQueue>,
    pub(super) wakeups: Vec<i32>,
}

#[derive(Debug, Default)]
struct LeaderQueue {
    /// The partitions in the order in which they are served.
    partitions: VecDeque<PartitionId>,
    /// The last error of connecting to the leader, if it is unreachable.
    error: Option<Error>,
    /// Value of [`Accumulator::appended_bytes`] from which the pending batches may make a large
    /// request.
    recheck_at_bytes: u64,
}

impl ReadyQueues {
    /// Queues a partition that has a batch to send, once, and removes one that has none.
    pub(super) fn update(&mut self, id: PartitionId, partition: &mut PartitionQueue, context: SendContext) {
        if partition.next_to_send(context).is_none() {
            self.remove(id, partition);
        } else if !partition.is_queued {
            partition.is_queued = true;
            self.by_leader.entry(partition.leader).or_default().partitions.push_back(id);
            self.wakeups.push(partition.leader);
        }
    }

    pub(super) fn remove(&mut self, id: PartitionId, partition: &mut PartitionQueue) {
        if std::mem::take(&mut partition.is_queued) {
            if let Some(leader) = self.by_leader.get_mut(&partition.leader) {
                leader.partitions.retain(|other| *other != id);
            }
        }
    }

    /// Closes a partition's open batch if the record does not fit. Returns whether it was closed.
    #[inline]
    pub(super) fn close_if_full(
        &mut self,
        partition: &mut PartitionQueue,
        now: impl Fn() -> Instant,
        record: &NewRecord<'_>,
        limit: usize,
    ) -> bool {
        let is_next = partition.is_queued && partition.queue.len() == partition.in_flight() + 1;
        let Some(batch) = partition.queue.back_mut() else { return false };
        let BatchState::Open(builder) = &batch.state else { return false };
        if batch.compression == record.compression && builder.size() + record.size <= limit {
            return false;
        }
        let now = now();
        if is_next {
            self.wakeups.push(partition.leader); // it need not linger any more, and may make a large request
        }
        partition.last_batch_bytes = batch.size();
        batch.close(now);
        true
    }

    /// Returns why a leader is unreachable.
    pub(super) fn error(&self, leader: i32) -> Option<&Error> {
        self.by_leader.get(&leader)?.error.as_ref()
    }

    pub(super) fn clear(&mut self) {
        self.by_leader.clear();
    }
}

impl Accumulator {
    /// Takes the brokers (or [`NO_LEADER`]) that got a batch to send, or to wait for, since the
    /// last call.
    pub(crate) fn take_wakeups(&mut self) -> std::vec::Drain<'_, i32> {
        self.ready.wakeups.drain(..)
    }

    /// Sets why a broker is unreachable; `None` when it is connected.
    pub(crate) fn set_leader_error(&mut self, leader: i32, error: Option<Error>) {
        self.ready.by_leader.entry(leader).or_default().error = error;
    }

    /// Returns whether batches are pending for a broker (or [`NO_LEADER`]).
    pub(crate) fn has_pending(&self, leader: i32) -> bool {
        self.ready.by_leader.get(&leader).is_some_and(|l| !l.partitions.is_empty())
    }

    /// Returns the brokers for which batches are pending.
    pub(crate) fn leaders_with_pending(&self) -> Vec<i32> {
        let pending = self.ready.by_leader.iter().filter(|(_, l)| !l.partitions.is_empty());
        pending.map(|(id, _)| *id).filter(|id| *id != NO_LEADER).collect()
    }

    /// Returns when the batches pending for a broker make a request of half of `max_request_size`,
    /// if they do: `now` if they do already. `now` is called only if enough bytes were appended
    /// since the last call to change the result.
    pub(crate) fn large_request_at(&mut self, now: impl Fn() -> Instant, broker: i32) -> Option<Instant> {
        let context = self.context();
        let leader = self.ready.by_leader.get_mut(&broker)?;
        if leader.partitions.is_empty() || self.appended_bytes < leader.recheck_at_bytes {
            return None;
        }
        let now = now();
        let enough = self.config.max_request_size / 2;
        let (mut ready, mut total, mut last) = (0, 0, now);
        for id in &leader.partitions {
            let partition = &self.topics[id.topic].partitions[id.partition];
            let Some(batch) = partition.next_to_send(context).and_then(|at| partition.queue.get(at)) else { continue };
            total += batch.size();
            if batch.ready_at > now {
                last = last.max(batch.ready_at);
                continue;
            }
            ready += batch.size();
            if ready >= enough {
                return Some(now);
            }
        }
        if total >= enough {
            return Some(last);
        }
        leader.recheck_at_bytes = self.appended_bytes + (enough - total) as u64;
        None
    }

    /// Takes the batches of a broker's next request: at most one of each partition that it leads,
    /// together at most `max_request_size`. If none is ready, also returns when one will be. `now`
    /// is called only if batches are pending.
    pub(crate) fn drain(&mut self, now: impl Fn() -> Instant, broker: i32) -> (Vec<DrainedBatch>, Option<Instant>) {
        let (mut drained, mut next_ready) = (Vec::new(), None::<Instant>);
        let mut room = self.config.max_request_size;
        let context = self.context();
        let Some(leader) = self.ready.by_leader.get_mut(&broker).filter(|l| !l.partitions.is_empty()) else {
            return (drained, next_ready);
        };
        let now = now();
        for _ in 0..leader.partitions.len() {
            let Some(id) = leader.partitions.pop_front() else { break };
            let topic = &mut self.topics[id.topic];
            let partition = &mut topic.partitions[id.partition];
            let Some(batch) = partition.next_to_send(context).and_then(|at| partition.queue.get(at)) else {
                partition.is_queued = false;
                continue;
            };
            if batch.ready_at > now {
                next_ready = Some(next_ready.map_or(batch.ready_at, |n| n.min(batch.ready_at)));
                leader.partitions.push_back(id);
                continue;
            }
            let size = batch.size() + BATCH_OVERHEAD_BYTES + topic.name.len();
            if size > room && !drained.is_empty() {
                leader.partitions.push_front(id);
                break;
            }
            room = room.saturating_sub(size);
            partition.last_batch_bytes = batch.size();
            if let Some((batch, payload)) = partition.send(context) {
                drained.push(DrainedBatch {
                    id: BatchId { partition: id, number: batch.number },
                    topic: Arc::clone(&topic.name),
                    partition: id.partition as i32,
                    payload,
                    compression: batch.compression,
                    producer: batch.producer.unwrap_or(ProducerSequence::NONE),
                    records: batch.records,
                    attempts: batch.attempts,
                });
            }
            // Its next batch may go with the next request.
            partition.is_queued = partition.next_to_send(context).is_some();
            if partition.is_queued {
                leader.partitions.push_back(id);
            }
        }
        (drained, next_ready)
    }
}
