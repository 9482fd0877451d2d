//! Which transactions of a log are open and which were aborted: what a reader of committed records needs to know.

use std::collections::HashMap;

/// A transaction that was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AbortedTxn {
    pub producer_id: i64,
    pub first_offset: i64,
    /// Of its marker.
    pub last_offset: i64,
}

/// The transactions of one log.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// By producer, where its transaction begins.
    open: HashMap<i64, i64>,
    /// In the order of their markers.
    aborted: Vec<AbortedTxn>,
}

impl Transactions {
    /// A batch with records of a transaction.
    pub fn on_batch(&mut self, producer_id: i64, base_offset: i64) {
        self.open.entry(producer_id).or_insert(base_offset);
    }

    /// A marker; one without a transaction before it ends nothing.
    pub fn on_marker(&mut self, producer_id: i64, offset: i64, commit: bool) {
        let first = self.open.remove(&producer_id);
        if let Some(first_offset) = first.filter(|_| !commit) {
            self.aborted.push(AbortedTxn { producer_id, first_offset, last_offset: offset });
        }
    }

    /// Where the first open transaction begins: nothing from there on is known to be committed.
    pub fn first_open(&self) -> Option<i64> {
        self.open.values().copied().min()
    }

    /// The aborted ones that touch `from` up to but not including `to`.
    pub fn aborted(&self, from: i64, to: i64) -> Vec<AbortedTxn> {
        let touches = |a: &&AbortedTxn| a.last_offset >= from && a.first_offset < to;
        self.aborted.iter().filter(touches).copied().collect()
    }
}
