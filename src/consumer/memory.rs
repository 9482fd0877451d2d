//! Memory that fetched records take, over all partitions and brokers of a consumer, without I/O.
//!
//! A fetch reserves what its response may bring; a response charges what it has brought until its
//! records are dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Bytes that records take, of a limit that the consumer sets.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    charged: Arc<AtomicUsize>,
    /// Bytes that responses in flight may bring.
    reserved: usize,
    /// Notified when a charge ends.
    returned: Arc<Notify>,
}

impl Budget {
    pub(crate) fn new(limit: usize, returned: Arc<Notify>) -> Self {
        Self { limit, charged: Arc::default(), reserved: 0, returned }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Returns the bytes left below the limit.
    pub(crate) fn free(&self) -> usize {
        self.limit.saturating_sub(self.used())
    }

    /// Returns whether twice the limit is used up.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.used() >= self.limit.saturating_mul(2)
    }

    fn used(&self) -> usize {
        self.charged.load(Ordering::Acquire).saturating_add(self.reserved)
    }

    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.reserved += bytes;
    }

    pub(crate) fn release(&mut self, bytes: usize) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    /// Charges bytes until the result is dropped.
    pub(crate) fn charge(&self, bytes: usize) -> Charge {
        self.charged.fetch_add(bytes, Ordering::AcqRel);
        Charge { bytes, of: Arc::clone(&self.charged), returned: Some(Arc::clone(&self.returned)) }
    }
}

/// Bytes that count until this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    bytes: usize,
    of: Arc<AtomicUsize>,
    returned: Option<Arc<Notify>>,
}

impl Charge {
    /// Charges a counter of the caller, without a notification at the end.
    fn silent(bytes: usize, of: &Arc<AtomicUsize>) -> Self {
        of.fetch_add(bytes, Ordering::AcqRel);
        Self { bytes, of: Arc::clone(of), returned: None }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::AcqRel);
        if let Some(returned) = &self.returned {
            returned.notify_waiters();
        }
    }
}

/// Memory of the records of one partition in one response; returned on drop.
#[derive(Debug)]
pub(crate) struct RecordMemory {
    // Fields drop in this order: a task notified by the last one sees what the others have returned.
    _partition: Charge,
    /// Charge for the response that the records are slices of, shared by its partitions.
    _response: Option<Arc<Charge>>,
    _own: Charge,
}

impl RecordMemory {
    /// Charges `bytes` to the partition, and those that `response` does not cover to the budget.
    pub(crate) fn new(
        budget: &Budget,
        partition: &Arc<AtomicUsize>,
        bytes: usize,
        response: Option<(Arc<Charge>, usize)>,
    ) -> Self {
        let (response, covered) = response.unzip();
        Self {
            _partition: Charge::silent(bytes, partition),
            _response: response,
            _own: budget.charge(bytes.saturating_sub(covered.unwrap_or(0))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_counts_once_until_its_last_partition_is_dropped() {
        let budget = Budget::new(1000, Arc::default());
        let (a, b) = (Arc::default(), Arc::default());
        let response = Arc::new(budget.charge(400));
        let first = RecordMemory::new(&budget, &a, 130, Some((Arc::clone(&response), 100)));
        let second = RecordMemory::new(&budget, &b, 300, Some((response, 300)));
        assert_eq!((a.load(Ordering::Acquire), b.load(Ordering::Acquire), budget.free()), (130, 300, 570));
        drop(second);
        assert_eq!((b.load(Ordering::Acquire), budget.free()), (0, 570), "the first one keeps the whole response");
        drop(first);
        assert_eq!((a.load(Ordering::Acquire), budget.free()), (0, 1000));
    }

    #[test]
    fn reserved_memory_is_not_free() {
        let mut budget = Budget::new(1000, Arc::default());
        budget.reserve(700);
        let held = RecordMemory::new(&budget, &Arc::default(), 500, None);
        assert_eq!((budget.free(), budget.is_exhausted()), (0, false));
        let more = budget.charge(800);
        assert!(budget.is_exhausted());
        drop((held, more));
        budget.release(700);
        assert_eq!(budget.free(), 1000);
    }
}
