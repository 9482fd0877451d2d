//! Open and aborted transactions of a log, for readers of committed records.

use std::collections::HashMap;

/// An aborted transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AbortedTxn {
    pub producer_id: i64,
    pub first_offset: i64,
    /// Offset of its marker.
    pub last_offset: i64,
}

#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// Start offset of the open transaction of each producer.
    open: HashMap<i64, i64>,
    /// Aborted transactions in the order of their markers.
    aborted: Vec<AbortedTxn>,
}

impl Transactions {
    /// Adds a batch with records of a transaction.
    pub fn on_batch(&mut self, producer_id: i64, base_offset: i64) {
        self.open.entry(producer_id).or_insert(base_offset);
    }

    /// Ends a transaction by its marker; a marker without a transaction has no effect.
    pub fn on_marker(&mut self, producer_id: i64, offset: i64, commit: bool) {
        let first = self.open.remove(&producer_id);
        if let Some(first_offset) = first.filter(|_| !commit) {
            self.aborted.push(AbortedTxn { producer_id, first_offset, last_offset: offset });
        }
    }

    /// Returns the start of the first open transaction.
    pub fn first_open(&self) -> Option<i64> {
        self.open.values().copied().min()
    }

    /// Returns the start of a producer's open transaction.
    pub fn open_at(&self, producer_id: i64) -> Option<i64> {
        self.open.get(&producer_id).copied()
    }

    /// Returns the aborted transactions that overlap the offsets `from..to`.
    pub fn aborted(&self, from: i64, to: i64) -> Vec<AbortedTxn> {
        let touches = |a: &&AbortedTxn| a.last_offset >= from && a.first_offset < to;
        self.aborted.iter().filter(touches).copied().collect()
    }
}
