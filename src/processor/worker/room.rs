//! Memory for records that wait in the workers of a subscription: one pool for all its partitions, without I/O.
//!
//! A partition may keep another record while it has less than [`FACTOR`] times what is free of the pool. So one that is alone in
//! need gets nearly all, whatever the number of partitions; of several in need, each gets as much as the others, and some is left
//! for one that had none so far. One that keeps nothing may always keep one record: however large it is, and whatever others hold,
//! its partition goes on.
//!
//! Who finds no room may wait for it. When some is returned, those with the least are woken, no more of them than records were
//! returned, and each of them wakes another if there is more: what a return costs does not grow with the number of those that wait.

use crate::lock::Lock;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard};

use tokio::sync::Notify;

/// What a partition may have for each unit that is free.
const FACTOR: u64 = 8;
/// Parts are of this whole.
const WHOLE: u64 = 1 << 20;

/// What is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// See the module's text.
#[derive(Debug)]
pub(in crate::processor) struct Pool {
    records: usize,
    bytes: usize,
    /// Number of records that a partition must be able to gather where all do.
    least: usize,
    used_records: AtomicUsize,
    used_bytes: AtomicUsize,
    /// By the part of the pool that they have.
    waiting: Lock<Waiting>,
    /// Number of those.
    waiters: AtomicUsize,
}

#[derive(Debug, Default)]
struct Waiting {
    by_part: BTreeMap<(u64, u64), Arc<Notify>>,
    next_id: u64,
}

impl Pool {
    pub(in crate::processor) fn new(records: usize, bytes: usize, least: usize) -> Self {
        Self {
            records,
            bytes,
            least,
            used_records: AtomicUsize::new(0),
            used_bytes: AtomicUsize::new(0),
            waiting: Lock::default(),
            waiters: AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }

    fn limit(&self, partitions: usize) -> Kept {
        // Where all gather, each has eight parts and one is free.
        let gathered = self.least.saturating_mul(partitions.saturating_add(1));
        Kept { records: self.records.max(gathered), bytes: self.bytes }
    }

    fn free(&self, limit: Kept) -> Kept {
        let (records, bytes) = (self.used_records.load(Ordering::SeqCst), self.used_bytes.load(Ordering::SeqCst));
        Kept { records: limit.records.saturating_sub(records), bytes: limit.bytes.saturating_sub(bytes) }
    }

    /// Whether a partition that keeps so much may keep another record, of so many partitions.
    fn may_keep(&self, held: Kept, partitions: usize) -> bool {
        let limit = self.limit(partitions);
        let free = self.free(limit);
        let fits = free.records > 0 && free.bytes > 0;
        let is_fair = || partitions < 2 || largest_part(held, limit) < FACTOR * smallest_part(free, limit);
        held.records == 0 || fits && is_fair()
    }

    /// Wakes up to `most` of those with the least, as far as they may keep something now.
    fn wake(&self, most: usize, partitions: usize) {
        if self.waiters.load(Ordering::SeqCst) == 0 {
            return;
        }
        let limit = self.limit(partitions);
        let free = self.free(limit);
        let fair = FACTOR * smallest_part(free, limit);
        let mut waiting = self.lock();
        for _ in 0..most.min(free.records).min(free.bytes) {
            let may = |part| partitions < 2 || part < fair;
            let Some(first) = waiting.by_part.first_entry().filter(|e| may(e.key().0)) else { break };
            first.remove().notify_one();
        }
        self.waiters.store(waiting.by_part.len(), Ordering::SeqCst);
    }
}

fn part(n: usize, whole: usize) -> u64 {
    (n as u64).saturating_mul(WHOLE) / (whole as u64).max(1)
}

fn largest_part(held: Kept, limit: Kept) -> u64 {
    part(held.records, limit.records).max(part(held.bytes, limit.bytes))
}

fn smallest_part(free: Kept, limit: Kept) -> u64 {
    part(free.records, limit.records).min(part(free.bytes, limit.bytes))
}

/// What one partition has of the pool; returned when this is dropped.
#[derive(Debug)]
pub(super) struct Room {
    pool: Arc<Pool>,
    held: Kept,
    id: u64,
    /// The place among those that wait.
    place: Option<(u64, u64)>,
    woken: Arc<Notify>,
    /// How many others may have room since some were last woken.
    returned: usize,
}

impl Room {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        let id = {
            let mut waiting = pool.lock();
            waiting.next_id += 1;
            waiting.next_id
        };
        Self { pool, held: Kept::default(), id, place: None, woken: Arc::default(), returned: 0 }
    }

    /// So much is kept now.
    pub(super) fn hold(&mut self, now: Kept) {
        let Kept { records, bytes } = std::mem::replace(&mut self.held, now);
        if now.records < records || now.bytes < bytes {
            self.returned += records.saturating_sub(now.records).max(1);
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

    /// Whether another record may be kept.
    pub(super) fn is_there(&self, partitions: usize) -> bool {
        self.pool.may_keep(self.held, partitions)
    }

    /// Wakes others if there may be room for them: to be called before waiting for anything.
    pub(super) fn pass_on(&mut self, partitions: usize) {
        match std::mem::take(&mut self.returned) {
            0 => {}
            most => self.pool.wake(most, partitions),
        }
    }

    /// Waits among the others until [`freed`](Self::freed). Whether that is necessary.
    pub(super) fn queue(&mut self, partitions: usize) -> bool {
        let place = (largest_part(self.held, self.pool.limit(partitions)), self.id);
        let mut waiting = self.pool.lock();
        waiting.by_part.insert(place, Arc::clone(&self.woken));
        self.pool.waiters.store(waiting.by_part.len(), Ordering::SeqCst);
        drop(waiting);
        self.place = Some(place);
        // What was returned before this is seen here; who returns something later sees that somebody waits.
        let waits = !self.is_there(partitions);
        if !waits {
            self.leave();
        }
        waits
    }

    /// Resolves when another record may be kept, or might a moment ago.
    pub(super) async fn freed(&self) {
        self.woken.notified().await;
    }

    /// Waits no longer, whatever came.
    pub(super) fn leave(&mut self) {
        let Some(place) = self.place.take() else { return };
        let mut waiting = self.pool.lock();
        let was_woken = waiting.by_part.remove(&place).is_none();
        self.pool.waiters.store(waiting.by_part.len(), Ordering::SeqCst);
        drop(waiting);
        if was_woken {
            self.woken = Arc::default(); // a notification that was not waited for is void
            self.returned += 1; // there may be more room than this one takes
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.leave();
        self.hold(Kept::default());
        // A number of partitions that is too large may leave someone asleep; one that is too small wakes some in vain.
        self.pass_on(1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn rooms(count: usize, records: usize, bytes: usize) -> (Arc<Pool>, Vec<Room>) {
        let pool = Arc::new(Pool::new(records, bytes, 1));
        let rooms = (0..count).map(|_| Room::new(Arc::clone(&pool))).collect();
        (pool, rooms)
    }

    impl Room {
        fn add(&mut self, bytes: usize) {
            self.hold(Kept { records: self.held.records + 1, bytes: self.held.bytes + bytes });
        }

        fn fill(&mut self, partitions: usize, bytes: usize) -> usize {
            while self.is_there(partitions) {
                self.add(bytes);
            }
            self.held.records
        }
    }

    #[test]
    fn one_hot_partition_among_many_quiet_ones_has_nearly_all_and_alone_it_has_all() {
        for partitions in [2, 12, 1000, 5000] {
            let (_, mut rooms) = rooms(partitions, 10_000, 1 << 30);
            assert_eq!(rooms[0].fill(partitions, 100), 8889, "of {partitions}");
            let (_, mut rooms) = self::rooms(partitions, 100_000, 9_000);
            assert_eq!(rooms[0].fill(partitions, 100), 80, "in bytes, of {partitions}");
        }
        let (_, mut rooms) = rooms(1, 10_000, 1 << 30);
        assert_eq!(rooms[0].fill(1, 100), 10_000);
    }

    #[test]
    fn where_one_holds_all_it_can_the_others_go_on_and_it_gives_way_to_them() {
        let (_, mut rooms) = rooms(20, 10_000, 1 << 30);
        rooms[0].fill(20, 100);
        assert!(rooms[1].fill(20, 100) > 900, "what was left for it");
        // The first one's records end one by one; whoever may take the place takes it.
        while rooms[0].held.records > rooms[1].held.records + 8 {
            let held = rooms[0].held.records - 1;
            rooms[0].hold(Kept { records: held, bytes: 100 * held });
            assert!(!rooms[0].is_there(20), "it is the other's");
            rooms[1].fill(20, 100);
        }
        assert!(rooms[1].held.records > 4_000, "equal parts in the end: {:?}", rooms[1].held);
        for room in &mut rooms[2..] {
            assert!(room.fill(20, 100) >= 1, "one that has nothing may have one");
        }
    }

    #[test]
    fn batches_of_all_partitions_can_be_full() {
        let pool = Arc::new(Pool::new(100, 1 << 30, 500));
        let mut rooms: Vec<_> = (0..12).map(|_| Room::new(Arc::clone(&pool))).collect();
        for _ in 0..500 {
            for room in &mut rooms {
                assert!(room.is_there(12), "{:?}", room.held);
                room.add(10);
            }
        }
    }

    #[test]
    fn those_with_the_least_are_woken_and_no_more_than_there_is_room_for() {
        let (pool, mut rooms) = rooms(100, 1000, 1 << 30);
        for room in &mut rooms {
            room.fill(100, 1);
            assert!(room.queue(100), "there is no room for more");
        }
        // The one that has most returns what is beyond the limit, and five.
        let beyond = pool.used_records.load(Ordering::SeqCst) - 1000;
        rooms[0].leave();
        let left = rooms[0].held.records - beyond - 5;
        rooms[0].hold(Kept { records: left, bytes: left });
        rooms[0].pass_on(100);
        let woken: Vec<_> = (0..100).filter(|i| rooms[*i].freed().now_or_never().is_some()).collect();
        assert!(woken.len() == 5 && woken.iter().all(|i| rooms[*i].held.records == 1), "{woken:?}");
        // One that has no use for it wakes another.
        for i in &woken {
            rooms[*i].leave();
            rooms[*i].pass_on(100);
        }
        let others: Vec<_> = (0..100).filter(|i| rooms[*i].freed().now_or_never().is_some()).collect();
        assert!(others.len() == 5 && others.iter().all(|i| !woken.contains(i)), "{others:?}");
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// A partition keeps a record of this size, if it may.
        Keep(usize, usize),
        /// A partition returns one.
        Return(usize),
        /// A partition waits for room.
        Wait(usize),
        /// A partition that waits has other things to do.
        Leave(usize),
        /// A partition is given up.
        Drop(usize),
    }

    const PARTITIONS: usize = 8;

    fn step() -> impl Strategy<Value = Step> {
        let partition = 0..PARTITIONS;
        prop_oneof![
            8 => (partition.clone(), 1..300_usize).prop_map(|(p, bytes)| Step::Keep(p, bytes)),
            5 => partition.clone().prop_map(Step::Return),
            4 => partition.clone().prop_map(Step::Wait),
            1 => partition.clone().prop_map(Step::Leave),
            1 => partition.prop_map(Step::Drop),
        ]
    }

    proptest! {
        #[test]
        fn the_total_is_bounded_and_nobody_waits_in_vain(steps in prop::collection::vec(step(), 1..400)) {
            const RECORDS: usize = 40;
            const BYTES: usize = 3000;
            let (pool, mut rooms) = rooms(PARTITIONS, RECORDS, BYTES);
            let mut sizes = vec![Vec::<usize>::new(); PARTITIONS];
            let held = |sizes: &[usize]| Kept { records: sizes.len(), bytes: sizes.iter().sum() };
            for step in steps {
                match step {
                    Step::Keep(p, bytes) if rooms[p].is_there(PARTITIONS) => {
                        rooms[p].leave();
                        sizes[p].push(bytes);
                        rooms[p].hold(held(&sizes[p]));
                        rooms[p].pass_on(PARTITIONS);
                    }
                    Step::Return(p) => {
                        rooms[p].leave();
                        sizes[p].pop();
                        rooms[p].hold(held(&sizes[p]));
                        rooms[p].pass_on(PARTITIONS);
                    }
                    Step::Wait(p) => {
                        rooms[p].leave();
                        rooms[p].pass_on(PARTITIONS);
                        let may = rooms[p].is_there(PARTITIONS);
                        prop_assert_eq!(rooms[p].queue(PARTITIONS), !may);
                    }
                    Step::Leave(p) => {
                        rooms[p].leave();
                        rooms[p].pass_on(PARTITIONS);
                    }
                    Step::Drop(p) => {
                        rooms[p] = Room::new(Arc::clone(&pool));
                        sizes[p].clear();
                    }
                    Step::Keep(..) => {}
                }
                let all = held(&sizes.concat());
                let used = (pool.used_records.load(Ordering::SeqCst), pool.used_bytes.load(Ordering::SeqCst));
                prop_assert_eq!(used, (all.records, all.bytes));
                // Beyond the limits, one record of each partition and the last one that was let in.
                prop_assert!(all.records <= RECORDS + PARTITIONS && all.bytes <= BYTES + 300 * (PARTITIONS + 1));
                let woken = |room: &Room| room.place.is_some_and(|place| !pool.lock().by_part.contains_key(&place));
                let asleep = |room: &Room| room.place.is_some_and(|place| pool.lock().by_part.contains_key(&place));
                // As long as one that was woken has not looked, there may be room for others.
                if !rooms.iter().any(woken) {
                    prop_assert!(!rooms.iter().any(|r| asleep(r) && r.is_there(PARTITIONS)), "asleep beside free room");
                }
                if rooms.iter().enumerate().any(|(p, room)| sizes[p].is_empty() && !room.is_there(PARTITIONS)) {
                    prop_assert!(false, "one that keeps nothing may always keep one");
                }
            }
        }
    }
}
