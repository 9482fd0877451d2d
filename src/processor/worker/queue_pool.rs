//! Memory for queued records: one pool for all partitions of a subscription, without I/O.
//!
//! A partition may queue another record while it uses less than [`MAX_RATIO_TO_FREE`] times what is
//! free in the pool. So a single busy partition gets nearly all, whatever the number of partitions;
//! several busy ones get equal shares, and some stays free for a partition that uses nothing yet. A
//! partition that uses nothing may always queue one record of any size, so that it goes on.
//!
//! A partition without capacity may wait for it. When some is freed, those that use the least are
//! woken, at most one per freed record, and each of them wakes another one if there is more: the
//! cost of freeing does not grow with the number of waiters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::lock::Lock;

/// Capacity that a partition may use for each free unit.
const MAX_RATIO_TO_FREE: u64 = 8;
/// Fixed-point scale of fractions.
const FRACTION_ONE: u64 = 1 << 20;

/// Number and bytes of queued records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct QueueSize {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// Memory that the partitions of a subscription share for queued records.
#[derive(Debug)]
pub(in crate::processor) struct QueuePool {
    records: usize,
    bytes: usize,
    /// Number of records that each partition must be able to collect for a batch.
    min_records_per_partition: usize,
    used_records: AtomicUsize,
    used_bytes: AtomicUsize,
    waiting: Lock<Waiting>,
    /// Number of waiting partitions.
    waiters: AtomicUsize,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Waiting partitions by the fraction of the pool that they use, and their id.
    by_fraction: BTreeMap<(u64, u64), Arc<Notify>>,
    next_id: u64,
}

impl QueuePool {
    pub(in crate::processor) fn new(records: usize, bytes: usize, min_records_per_partition: usize) -> Self {
        Self {
            records,
            bytes,
            min_records_per_partition,
            used_records: AtomicUsize::new(0),
            used_bytes: AtomicUsize::new(0),
            waiting: Lock::default(),
            waiters: AtomicUsize::new(0),
        }
    }

    fn limit(&self, partitions: usize) -> QueueSize {
        // When all collect a batch, the capacity of one more is free: MAX_RATIO_TO_FREE allows each
        // of them its own.
        let batches = self.min_records_per_partition.saturating_mul(partitions.saturating_add(1));
        QueueSize { records: self.records.max(batches), bytes: self.bytes }
    }

    fn free(&self, limit: QueueSize) -> QueueSize {
        let (records, bytes) = (self.used_records.load(Ordering::SeqCst), self.used_bytes.load(Ordering::SeqCst));
        QueueSize { records: limit.records.saturating_sub(records), bytes: limit.bytes.saturating_sub(bytes) }
    }

    /// Returns whether one of `partitions`, which uses `used`, may queue another record.
    fn may_queue(&self, used: QueueSize, partitions: usize) -> bool {
        let limit = self.limit(partitions);
        let free = self.free(limit);
        let fits = free.records > 0 && free.bytes > 0;
        let is_fair =
            || partitions < 2 || largest_fraction(used, limit) < MAX_RATIO_TO_FREE * smallest_fraction(free, limit);
        used.records == 0 || fits && is_fair()
    }

    /// Wakes up to `most` waiting partitions that may queue a record now, those that use the least
    /// first.
    fn wake_waiters(&self, most: usize, partitions: usize) {
        if self.waiters.load(Ordering::SeqCst) == 0 {
            return;
        }
        let limit = self.limit(partitions);
        let free = self.free(limit);
        let fair = MAX_RATIO_TO_FREE * smallest_fraction(free, limit);
        let mut waiting = self.waiting.lock();
        for _ in 0..most.min(free.records).min(free.bytes) {
            let may = |fraction| partitions < 2 || fraction < fair;
            let Some(first) = waiting.by_fraction.first_entry().filter(|e| may(e.key().0)) else { break };
            first.remove().notify_one();
        }
        self.waiters.store(waiting.by_fraction.len(), Ordering::SeqCst);
    }
}

fn fraction(n: usize, whole: usize) -> u64 {
    (n as u64).saturating_mul(FRACTION_ONE) / (whole as u64).max(1)
}

fn largest_fraction(used: QueueSize, limit: QueueSize) -> u64 {
    fraction(used.records, limit.records).max(fraction(used.bytes, limit.bytes))
}

fn smallest_fraction(free: QueueSize, limit: QueueSize) -> u64 {
    fraction(free.records, limit.records).min(fraction(free.bytes, limit.bytes))
}

/// The share of one partition; dropping it frees its memory.
#[derive(Debug)]
pub(super) struct QueueShare {
    pool: Arc<QueuePool>,
    used: QueueSize,
    id: u64,
    /// Key in [`Waiting::by_fraction`] while it waits.
    waiting_at: Option<(u64, u64)>,
    woken: Arc<Notify>,
    /// Number of partitions to wake for what was freed since the last `wake_others`.
    freed_records: usize,
}

impl QueueShare {
    pub(super) fn new(pool: Arc<QueuePool>) -> Self {
        let id = {
            let mut waiting = pool.waiting.lock();
            waiting.next_id += 1;
            waiting.next_id
        };
        Self { pool, used: QueueSize::default(), id, waiting_at: None, woken: Arc::default(), freed_records: 0 }
    }

    /// Sets the size of the partition's queue.
    pub(super) fn set_used(&mut self, now: QueueSize) {
        let QueueSize { records, bytes } = std::mem::replace(&mut self.used, now);
        if now.records < records || now.bytes < bytes {
            self.freed_records += records.saturating_sub(now.records).max(1);
        }
        for (used, before, now) in
            [(&self.pool.used_records, records, now.records), (&self.pool.used_bytes, bytes, now.bytes)]
        {
            match now.checked_sub(before) {
                Some(0) => {}
                Some(more) => _ = used.fetch_add(more, Ordering::SeqCst),
                None => _ = used.fetch_sub(before - now, Ordering::SeqCst),
            }
        }
    }

    /// Returns whether another record may be queued.
    pub(super) fn has_capacity(&self, partitions: usize) -> bool {
        self.pool.may_queue(self.used, partitions)
    }

    /// Wakes other partitions if capacity was freed. Must be called before waiting for anything.
    pub(super) fn wake_others(&mut self, partitions: usize) {
        match std::mem::take(&mut self.freed_records) {
            0 => {}
            most => self.pool.wake_waiters(most, partitions),
        }
    }

    /// Starts to wait for [`capacity_freed`](Self::capacity_freed); returns false if there is
    /// capacity already.
    pub(super) fn start_waiting(&mut self, partitions: usize) -> bool {
        let place = (largest_fraction(self.used, self.pool.limit(partitions)), self.id);
        let mut waiting = self.pool.waiting.lock();
        waiting.by_fraction.insert(place, Arc::clone(&self.woken));
        self.pool.waiters.store(waiting.by_fraction.len(), Ordering::SeqCst);
        drop(waiting);
        self.waiting_at = Some(place);
        // No wake-up is lost between the check and the wait, for both sides write before they read
        // (`SeqCst`):
        // 1. this partition counts itself in `waiters`, then looks at the capacity.
        // 2. another one frees capacity, then looks at `waiters`.
        // If 2 reads before 1 has counted itself, 1 finds what was freed.
        let must_wait = !self.has_capacity(partitions);
        if !must_wait {
            self.stop_waiting();
        }
        must_wait
    }

    /// Resolves when capacity was freed; another partition may have taken it since.
    pub(super) async fn capacity_freed(&self) {
        self.woken.notified().await;
    }

    /// Stops waiting.
    pub(super) fn stop_waiting(&mut self) {
        let Some(place) = self.waiting_at.take() else { return };
        let mut waiting = self.pool.waiting.lock();
        let was_woken = waiting.by_fraction.remove(&place).is_none();
        self.pool.waiters.store(waiting.by_fraction.len(), Ordering::SeqCst);
        drop(waiting);
        if was_woken {
            self.woken = Arc::default(); // drops a notification that nobody received
            self.freed_records += 1; // passes the wake-up on: there may be more capacity than this one takes
        }
    }
}

impl Drop for QueueShare {
    fn drop(&mut self) {
        self.stop_waiting();
        self.set_used(QueueSize::default());
        // Too high a number of partitions could wake too few; too low a number wakes some without
        // need.
        self.wake_others(1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn shares(count: usize, records: usize, bytes: usize) -> (Arc<QueuePool>, Vec<QueueShare>) {
        let pool = Arc::new(QueuePool::new(records, bytes, 1));
        let shares = (0..count).map(|_| QueueShare::new(Arc::clone(&pool))).collect();
        (pool, shares)
    }

    impl QueueShare {
        fn add(&mut self, bytes: usize) {
            self.set_used(QueueSize { records: self.used.records + 1, bytes: self.used.bytes + bytes });
        }

        fn fill(&mut self, partitions: usize, bytes: usize) -> usize {
            while self.has_capacity(partitions) {
                self.add(bytes);
            }
            self.used.records
        }
    }

    #[test]
    fn one_busy_partition_gets_nearly_all() {
        for partitions in [2, 12, 1000, 5000] {
            let (_, mut shares) = shares(partitions, 10_000, 1 << 30);
            assert_eq!(shares[0].fill(partitions, 100), 8889, "of {partitions}");
            let (_, mut shares) = self::shares(partitions, 100_000, 9_000);
            assert_eq!(shares[0].fill(partitions, 100), 80, "in bytes, of {partitions}");
        }
        let (_, mut shares) = shares(1, 10_000, 1 << 30);
        assert_eq!(shares[0].fill(1, 100), 10_000);
    }

    #[test]
    fn a_full_partition_yields_to_others() {
        let (_, mut shares) = shares(20, 10_000, 1 << 30);
        shares[0].fill(20, 100);
        assert!(shares[1].fill(20, 100) > 900, "some was free");
        // The first one's records complete one by one; a partition that may use the capacity uses
        // it.
        while shares[0].used.records > shares[1].used.records + 8 {
            let used = shares[0].used.records - 1;
            shares[0].set_used(QueueSize { records: used, bytes: 100 * used });
            assert!(!shares[0].has_capacity(20), "it is for the other one");
            shares[1].fill(20, 100);
        }
        assert!(shares[1].used.records > 4_000, "equal parts in the end: {:?}", shares[1].used);
        for share in &mut shares[2..] {
            assert!(share.fill(20, 100) >= 1, "one record is always allowed");
        }
    }

    #[test]
    fn all_partitions_can_collect_a_full_batch() {
        let pool = Arc::new(QueuePool::new(100, 1 << 30, 500));
        let mut shares: Vec<_> = (0..12).map(|_| QueueShare::new(Arc::clone(&pool))).collect();
        for _ in 0..500 {
            for share in &mut shares {
                assert!(share.has_capacity(12), "{:?}", share.used);
                share.add(10);
            }
        }
    }

    #[test]
    fn partitions_that_use_least_are_woken_as_capacity_allows() {
        let (pool, mut shares) = shares(100, 1000, 1 << 30);
        for share in &mut shares {
            share.fill(100, 1);
            assert!(share.start_waiting(100), "the pool is full");
        }
        // The largest one frees what is beyond the limit, and five more.
        let beyond = pool.used_records.load(Ordering::SeqCst) - 1000;
        shares[0].stop_waiting();
        let left = shares[0].used.records - beyond - 5;
        shares[0].set_used(QueueSize { records: left, bytes: left });
        shares[0].wake_others(100);
        let woken: Vec<_> = (0..100).filter(|i| shares[*i].capacity_freed().now_or_never().is_some()).collect();
        assert!(woken.len() == 5 && woken.iter().all(|i| shares[*i].used.records == 1), "{woken:?}");
        // One that does not use it wakes another.
        for i in &woken {
            shares[*i].stop_waiting();
            shares[*i].wake_others(100);
        }
        let others: Vec<_> = (0..100).filter(|i| shares[*i].capacity_freed().now_or_never().is_some()).collect();
        assert!(others.len() == 5 && others.iter().all(|i| !woken.contains(i)), "{others:?}");
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// A partition queues a record of this size, if it may.
        Enqueue(usize, usize),
        /// A partition completes a record.
        Return(usize),
        /// A partition waits for capacity.
        Wait(usize),
        /// A waiting partition has other work.
        StopWaiting(usize),
        /// A partition is revoked.
        Drop(usize),
    }

    const PARTITIONS: usize = 8;

    fn step() -> impl Strategy<Value = Step> {
        let partition = 0..PARTITIONS;
        prop_oneof![
            8 => (partition.clone(), 1..300_usize).prop_map(|(p, bytes)| Step::Enqueue(p, bytes)),
            5 => partition.clone().prop_map(Step::Return),
            4 => partition.clone().prop_map(Step::Wait),
            1 => partition.clone().prop_map(Step::StopWaiting),
            1 => partition.prop_map(Step::Drop),
        ]
    }

    proptest! {
        #[test]
        fn the_total_is_bounded_and_no_wake_up_is_lost(steps in prop::collection::vec(step(), 1..400)) {
            const RECORDS: usize = 40;
            const BYTES: usize = 3000;
            let (pool, mut shares) = shares(PARTITIONS, RECORDS, BYTES);
            let mut sizes = vec![Vec::<usize>::new(); PARTITIONS];
            let used = |sizes: &[usize]| QueueSize { records: sizes.len(), bytes: sizes.iter().sum() };
            for step in steps {
                match step {
                    Step::Enqueue(p, bytes) if shares[p].has_capacity(PARTITIONS) => {
                        shares[p].stop_waiting();
                        sizes[p].push(bytes);
                        shares[p].set_used(used(&sizes[p]));
                        shares[p].wake_others(PARTITIONS);
                    }
                    Step::Return(p) => {
                        shares[p].stop_waiting();
                        sizes[p].pop();
                        shares[p].set_used(used(&sizes[p]));
                        shares[p].wake_others(PARTITIONS);
                    }
                    Step::Wait(p) => {
                        shares[p].stop_waiting();
                        shares[p].wake_others(PARTITIONS);
                        let may = shares[p].has_capacity(PARTITIONS);
                        prop_assert_eq!(shares[p].start_waiting(PARTITIONS), !may);
                    }
                    Step::StopWaiting(p) => {
                        shares[p].stop_waiting();
                        shares[p].wake_others(PARTITIONS);
                    }
                    Step::Drop(p) => {
                        shares[p] = QueueShare::new(Arc::clone(&pool));
                        sizes[p].clear();
                    }
                    Step::Enqueue(..) => {}
                }
                let all = used(&sizes.concat());
                let used = (pool.used_records.load(Ordering::SeqCst), pool.used_bytes.load(Ordering::SeqCst));
                prop_assert_eq!(used, (all.records, all.bytes));
                // Beyond the limits: one record of each partition, and the last one that was
                // admitted.
                prop_assert!(all.records <= RECORDS + PARTITIONS && all.bytes <= BYTES + 300 * (PARTITIONS + 1));
                let woken = |share: &QueueShare| share.waiting_at.is_some_and(|place| !pool.waiting.lock().by_fraction.contains_key(&place));
                let asleep = |share: &QueueShare| share.waiting_at.is_some_and(|place| pool.waiting.lock().by_fraction.contains_key(&place));
                // Until a woken one has looked, there may be capacity for others.
                if !shares.iter().any(woken) {
                    prop_assert!(!shares.iter().any(|r| asleep(r) && r.has_capacity(PARTITIONS)), "asleep while there is capacity");
                }
                if shares.iter().enumerate().any(|(p, share)| sizes[p].is_empty() && !share.has_capacity(PARTITIONS)) {
                    prop_assert!(false, "one record is always allowed");
                }
            }
        }
    }
}
