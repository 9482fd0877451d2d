//! Offsets that are committed in transactions: pending until a marker ends the transaction.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;

use super::{CommittedOffset, Group, MemberKey, Phase};

/// Offsets of an open transaction.
#[derive(Debug)]
pub(super) struct PendingTransaction {
    epoch: i16,
    /// Number of the commit, and its offset, by partition.
    offsets: BTreeMap<(String, i32), (u64, CommittedOffset)>,
}

impl Group {
    /// Checks whether offsets may be committed in a transaction: by a member in the current
    /// generation, or without any of member, generation and instance. A rebalance does not matter.
    pub fn check_txn_commit(&mut self, key: MemberKey<'_>, generation: i32) -> Result<(), ResponseError> {
        let is_anonymous = generation < 0 && key.id.is_empty() && key.instance.is_none();
        if let Some(consumer) = self.consumer.as_ref().filter(|_| !is_anonymous) {
            return match consumer.check_epoch(key.id, generation) {
                Err(ResponseError::StaleMemberEpoch) => Err(ResponseError::IllegalGeneration),
                checked => checked,
            };
        }
        if is_anonymous || (generation < 0 && self.phase == Phase::Empty) {
            return Ok(());
        }
        self.member_in_generation(key, generation).map(|_| ())
    }

    /// Adds the offset of a partition to a transaction.
    pub fn add_pending_offset(
        &mut self,
        (producer_id, epoch): (i64, i16),
        topic: &str,
        partition: i32,
        committed: CommittedOffset,
    ) {
        self.last_commit += 1;
        let commit = self.last_commit;
        let pending = self.pending_offsets.entry(producer_id);
        let pending = pending.or_insert_with(|| PendingTransaction { epoch, offsets: BTreeMap::new() });
        pending.epoch = epoch;
        pending.offsets.insert((topic.to_owned(), partition), (commit, committed));
    }

    /// Ends a transaction by its marker. Of two commits of a partition the later one stays, even if
    /// its transaction ended first.
    pub fn end_transaction(&mut self, producer_id: i64, is_commit: bool) {
        let ended = self.pending_offsets.remove(&producer_id).filter(|_| is_commit);
        for (key, (commit, committed)) in ended.into_iter().flat_map(|t| t.offsets) {
            if self.commits.get(&key).is_none_or(|&last| last < commit) {
                self.commits.insert(key.clone(), commit);
                self.offsets.insert(key, committed);
            }
        }
    }

    /// Returns whether a transaction of this producer and epoch has offsets here.
    pub fn has_open_transaction(&self, producer_id: i64, epoch: i16) -> bool {
        self.pending_offsets.get(&producer_id).is_some_and(|t| t.epoch == epoch)
    }

    /// Returns whether a transaction of this producer has offsets here.
    pub fn has_offsets_of(&self, producer_id: i64) -> bool {
        self.pending_offsets.contains_key(&producer_id)
    }

    /// Returns whether a transaction is open that commits an offset of the partition.
    pub fn has_pending_offset(&self, topic: &str, partition: i32) -> bool {
        let key = (topic.to_owned(), partition);
        self.pending_offsets.values().any(|t| t.offsets.contains_key(&key))
    }

    /// Iterates over (producer id, topic, partition, offset) of open transactions.
    pub fn pending_offsets(&self) -> impl Iterator<Item = (i64, &str, i32, i64)> {
        self.pending_offsets.iter().flat_map(|(&id, t)| {
            t.offsets.iter().map(move |((topic, p), (_, committed))| (id, topic.as_str(), *p, committed.offset))
        })
    }

    pub(super) fn delete_pending_offsets_of_topic(&mut self, topic: &str) {
        self.pending_offsets.values_mut().for_each(|t| t.offsets.retain(|(of, _), _| of != topic));
    }
}
