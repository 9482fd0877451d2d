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

/// Leases in force. Cheap to clone; a clone does not see later changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leases(Arc<BTreeMap<TopicPartition, u64>>);

impl Leases {
    pub(crate) fn insert(&mut self, lease: Lease) {
        Arc::make_mut(&mut self.0).insert(lease.partition, lease.epoch);
    }

    pub(crate) fn remove<'a>(&mut self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        let map = Arc::make_mut(&mut self.0);
        for p in partitions {
            map.remove(p);
        }
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
