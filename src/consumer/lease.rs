//! An assigned partition, for as long as it stays assigned without a break.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::record::TopicPartition;

/// A partition that is revoked and assigned again gets another epoch: records, commits and errors
/// of the old one are ignored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Lease {
    pub(crate) partition: TopicPartition,
    pub(crate) epoch: u64,
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.partition.fmt(f)
    }
}

/// Returns the epoch of leases assigned in a generation of the group (KIP-848: a member epoch), after
/// `count` earlier rebalances of this member. The count makes it unique; a generation does not, as
/// it begins again with a group that was deleted.
pub(crate) fn lease_epoch(generation: i32, count: u32) -> u64 {
    u64::from(generation.max(0).unsigned_abs()) << 32 | u64::from(count)
}

/// Returns the generation in a lease's epoch; none outside a group.
pub(crate) fn generation_of(epoch: u64) -> Option<i32> {
    i32::try_from(epoch >> 32).ok().filter(|generation| *generation > 0)
}

/// Leases in force. Cheap to clone; a clone does not see later changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leases(Arc<BTreeMap<TopicPartition, u64>>);

impl Leases {
    /// Returns whether the partition is new.
    pub(crate) fn insert(&mut self, lease: Lease) -> bool {
        Arc::make_mut(&mut self.0).insert(lease.partition, lease.epoch).is_none()
    }

    /// Returns whether the partition was assigned.
    pub(crate) fn remove(&mut self, partition: &TopicPartition) -> bool {
        self.contains(partition) && Arc::make_mut(&mut self.0).remove(partition).is_some()
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.0.keys()
    }

    pub(crate) fn contains(&self, partition: &TopicPartition) -> bool {
        self.0.contains_key(partition)
    }

    pub(crate) fn holds(&self, lease: &Lease) -> bool {
        self.0.get(&lease.partition) == Some(&lease.epoch)
    }

    /// Returns the lease of a partition, if it is assigned.
    pub(crate) fn of(&self, partition: &TopicPartition) -> Option<Lease> {
        self.0.get(partition).map(|epoch| Lease { partition: partition.clone(), epoch: *epoch })
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Lease> + '_ {
        self.0.iter().map(|(p, epoch)| Lease { partition: p.clone(), epoch: *epoch })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_unique_and_has_its_generation() {
        let epochs = [(7, 1), (7, 2), (1, 3), (i32::MAX, u32::MAX)].map(|(g, n)| (g, lease_epoch(g, n)));
        for (i, (generation, epoch)) in epochs.iter().enumerate() {
            assert_eq!(generation_of(*epoch), Some(*generation));
            assert!(epochs[..i].iter().all(|(_, other)| other != epoch));
        }
        assert_eq!([generation_of(1), generation_of(lease_epoch(-1, 1))], [None, None]);
    }
}
