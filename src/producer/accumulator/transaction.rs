//! The part of the open transaction that the accumulator has: which partitions are in it, and
//! whether any of its batches failed.
//!
//! With transaction version 1 a partition's first batch waits until the coordinator has added the
//! partition. The first failure ends the transaction: what was not sent fails with it, and what is
//! in flight is not retried.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Accumulator, PartitionId};
use crate::error::{Error, ErrorKind};
use crate::producer::batch::FinishedBatch;
use crate::producer::partition::{PartitionQueue, TransactionPart};
use crate::record::TopicPartition;

/// The reason why the open transaction can only be aborted.
#[derive(Debug, Clone)]
pub(crate) struct SendFailure {
    /// The first error.
    pub(crate) error: Error,
    /// True if batches may arrive late, or leave a gap in the sequences: the next transaction needs
    /// a new epoch.
    pub(crate) needs_epoch: bool,
}

/// The open transaction, or what is left of the last one.
#[derive(Debug, Default)]
pub(super) struct OpenTransaction {
    /// True if leaders add their partitions by themselves (transaction version 2).
    leaders_add: bool,
    /// The partitions in it.
    used: Vec<PartitionId>,
    /// Those of `used` that no request to the coordinator has named yet.
    to_add: Vec<PartitionId>,
    failure: Option<SendFailure>,
    /// True once it is to be committed: the task waits for the last batch.
    ending: bool,
    /// True if the task of transactions has something to look at.
    changed: bool,
}

impl OpenTransaction {
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Adds a partition that gets a batch.
    pub(super) fn on_use(&mut self, id: PartitionId, partition: &mut PartitionQueue) {
        if partition.transaction != TransactionPart::None {
            return;
        }
        self.used.push(id);
        if self.leaders_add {
            partition.transaction = TransactionPart::Added;
        } else {
            partition.transaction = TransactionPart::Adding;
            self.to_add.push(id);
            self.changed = true;
        }
    }

    fn fail(&mut self, error: Error, needs_epoch: bool) {
        self.changed = true;
        match &mut self.failure {
            Some(failure) => failure.needs_epoch |= needs_epoch,
            None => self.failure = Some(SendFailure { error, needs_epoch }),
        }
    }
}

impl Accumulator {
    /// Begins a transaction. `leaders_add` is true if leaders add their partitions by themselves.
    pub(crate) fn begin_transaction(&mut self, leaders_add: bool) {
        for id in std::mem::take(&mut self.transaction.used) {
            // The slot of a topic that was deleted may have another topic now.
            if let Some(partition) = self.topics.get_mut(id.topic).and_then(|t| t.partitions.get_mut(id.partition)) {
                partition.transaction = TransactionPart::None;
            }
        }
        self.transaction = OpenTransaction { leaders_add, ..OpenTransaction::default() };
    }

    /// Returns whether leaders add their partitions to the open transaction by themselves.
    pub(crate) fn leaders_add(&self) -> bool {
        self.transaction.leaders_add
    }

    /// Returns whether something has changed for the task of transactions since the last call.
    pub(crate) fn take_transaction_change(&mut self) -> bool {
        std::mem::take(&mut self.transaction.changed)
    }

    /// Takes the partitions that the coordinator is to add.
    pub(crate) fn take_partitions_to_add(&mut self) -> Vec<TopicPartition> {
        let name = |id: PartitionId| TopicPartition {
            topic: Arc::clone(&self.topics[id.topic].name),
            partition: id.partition as i32,
        };
        std::mem::take(&mut self.transaction.to_add).into_iter().map(name).collect()
    }

    /// Lets the batches of partitions be sent that the coordinator has added.
    pub(crate) fn on_partitions_added(&mut self, partitions: &[TopicPartition]) {
        let context = self.context();
        for p in partitions {
            let Some(&topic) = self.by_name.get(&p.topic) else { continue };
            let id = PartitionId { topic, partition: p.partition as usize };
            if let Some(partition) = self.topics[topic].partitions.get_mut(id.partition) {
                partition.transaction = TransactionPart::Added;
                self.ready.update(id, partition, context);
            }
        }
    }

    /// Returns whether any partition is in the transaction.
    pub(crate) fn has_used_partitions(&self) -> bool {
        !self.transaction.used.is_empty()
    }

    /// Returns whether batches of the transaction are pending or in flight.
    pub(crate) fn has_unfinished_batches(&self) -> bool {
        let partition = |id: &PartitionId| self.topics.get(id.topic)?.partitions.get(id.partition);
        self.transaction.used.iter().filter_map(partition).any(|p| !p.queue.is_empty())
    }

    /// Returns why the transaction can only be aborted.
    pub(crate) fn transaction_failure(&self) -> Option<&SendFailure> {
        self.transaction.failure.as_ref()
    }

    /// Fails what is pending, because the transaction is to be aborted. What is in flight is not
    /// retried.
    pub(crate) fn fail_transaction(&mut self, error: Error) -> Vec<FinishedBatch> {
        let mut finished = Vec::new();
        if self.transaction.failure.is_none() {
            self.transaction.fail(error, false);
        }
        self.fail_pending(&mut finished);
        finished
    }

    /// Looks at what the partitions' batches ended with, in `finished` from `before` on: the first
    /// failure ends the transaction, and what came back to be retried fails with it.
    pub(super) fn on_transaction_results(
        &mut self,
        partitions: impl IntoIterator<Item = PartitionId>,
        finished: &mut Vec<FinishedBatch>,
        before: usize,
    ) {
        if !self.config.transactional {
            return;
        }
        let mut gap = false;
        for id in partitions {
            gap |= self.topics[id.topic].partitions[id.partition].take_gap();
        }
        let error = finished[before..].iter().find_map(|batch| batch.result.as_ref().err()).cloned();
        let needs_epoch = gap || error.as_ref().is_some_and(Error::is_indeterminate);
        match error {
            Some(error) => self.transaction.fail(error, needs_epoch),
            None if gap => {
                let what = "the sequences of a partition are broken: its topic was created again";
                self.transaction.fail(Error::new(ErrorKind::TransactionAborted, what), true);
            }
            None => {}
        }
        if self.transaction.has_failed() {
            self.fail_pending(finished);
        }
        // While records are sent the task has nothing to do for each batch.
        self.transaction.changed |= self.transaction.ending || self.transaction.has_failed();
    }

    fn fail_pending(&mut self, finished: &mut Vec<FinishedBatch>) {
        let context = self.context();
        let Some(failure) = &self.transaction.failure else { return };
        let cause = failure.error.clone();
        let mut gap = false;
        for id in self.transaction.used.clone() {
            let Some(topic) = self.topics.get_mut(id.topic) else { continue };
            let Some(partition) = topic.partitions.get_mut(id.partition) else { continue };
            partition.fail_where(finished, |batch| (!batch.is_sent()).then(|| batch.transaction_aborted(&cause)));
            partition.resolve_gap(finished);
            gap |= partition.take_gap();
            self.ready.update(id, partition, context);
        }
        if let Some(failure) = &mut self.transaction.failure {
            failure.needs_epoch |= gap;
        }
    }

    /// Closes the open batches of the transaction, so that they are sent without linger: it is to be
    /// committed.
    pub(crate) fn close_transaction_batches(&mut self, now: Instant) {
        self.transaction.ending = true;
        self.transaction.changed = true;
        drop(self.flush(now));
    }
}
