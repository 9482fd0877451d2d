//! Permits for the handlers of one partition, from the semaphore that all partitions of a
//! subscription share.
//!
//! Without a limit, a partition with slow handlers would collect all permits: it takes each free
//! one and returns none for long. So a partition takes no further permit while it has
//! [`MAX_RATIO_TO_FREE`] times as many as are free: the more it has, the more are left for others.
//! Nothing is reserved while few handlers run or many partitions are busy.
//!
//! If more partitions are busy than there are permits, a permit would change its partition with
//! every record, and the cost of a record would grow with the number of partitions. So a quick
//! handler returns its permit to its partition, [`MAX_REUSES`] times in a row, and then to waiting
//! partitions.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};

use super::Blocked;
use crate::processor::concurrency::{Concurrency, Permit};

/// Number of permits that a partition may have for each free one. With 64 in all, one partition
/// gets 57.
const MAX_RATIO_TO_FREE: usize = 8;
/// Number of times that a partition reuses a permit before others get it.
const MAX_REUSES: usize = 32;

pub(super) struct Permits {
    all: Arc<Concurrency>,
    /// Permits for the next handlers of this turn.
    next: Vec<Permit>,
    /// Number of reuses since a permit was acquired.
    reuses: usize,
    /// Place in the queue of the semaphore.
    pub(super) waiting: Option<BoxFuture<'static, Option<Permit>>>,
    /// Number of permits of handlers in flight.
    in_use: usize,
}

impl Permits {
    pub(super) fn new(all: Arc<Concurrency>) -> Self {
        Self { all, next: Vec::new(), reuses: 0, waiting: None, in_use: 0 }
    }

    /// Acquires a permit for the next handler; the error says what to wait for. `is_alone` if no
    /// other partition is assigned.
    pub(super) fn take(&mut self, is_alone: bool) -> Result<(), Blocked> {
        if !self.next.is_empty() {
            return Ok(());
        }
        if !is_alone && !may_take(self.in_use, self.all.available()) {
            return Err(Blocked::OnHandlers);
        }
        let permit = self.all.try_acquire().ok_or(Blocked::OnPermit)?;
        self.next.push(permit);
        self.reuses = 0;
        Ok(())
    }

    /// Returns unused permits at the end of a turn.
    pub(super) fn end_turn(&mut self) {
        self.next.clear();
    }

    /// Joins the queue of the semaphore.
    pub(super) fn start_waiting(&mut self) {
        let all = &self.all;
        self.waiting.get_or_insert_with(|| Arc::clone(all).acquire().boxed());
    }

    /// Takes the permit that was waited for.
    pub(super) fn on_acquired(&mut self, permit: Option<Permit>) {
        self.waiting = None;
        self.next.extend(permit);
        self.reuses = 0;
    }

    /// Moves a permit to a handler that became a task, which must end with
    /// [`on_handler_done`](Self::on_handler_done).
    pub(super) fn hand_to_task(&mut self) -> Option<Permit> {
        self.in_use += 1;
        self.next.pop()
    }

    /// Handles the end of a handler; a quick one returns its permit.
    pub(super) fn on_handler_done(&mut self, permit: Option<Permit>) {
        self.in_use -= 1;
        // Reused while the limit is lowered, it would start another handler in place of the one that ended.
        if self.reuses < MAX_REUSES && !self.all.has_excess() {
            self.reuses += usize::from(permit.is_some());
            self.next.extend(permit);
        }
    }
}

fn may_take(in_use: usize, free: usize) -> bool {
    in_use == 0 || in_use < free.saturating_mul(MAX_RATIO_TO_FREE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets partitions take permits in turn until none may; `in_use` counts those of each.
    fn fill(all: usize, in_use: &mut [usize]) {
        loop {
            let mut taken = false;
            for i in 0..in_use.len() {
                let free = all - in_use.iter().sum::<usize>();
                if free > 0 && may_take(in_use[i], free) {
                    in_use[i] += 1;
                    taken = true;
                }
            }
            if !taken {
                return;
            }
        }
    }

    #[test]
    fn one_partition_leaves_permits_and_many_use_all() {
        let of_one = |all| {
            let mut in_use = [0];
            fill(all, &mut in_use);
            in_use[0]
        };
        assert_eq!([1, 2, 8, 16, 64, 1000].map(of_one), [1, 2, 8, 15, 57, 889]);
        let mut in_use = [0; 12];
        fill(64, &mut in_use);
        assert_eq!(in_use.iter().sum::<usize>(), 64, "{in_use:?}");
    }

    #[test]
    fn a_partition_without_permits_gets_one() {
        let mut in_use = [0, 0];
        fill(64, &mut in_use[..1]);
        assert!(may_take(in_use[1], 64 - in_use[0]) && in_use[0] < 64);
        // A returned permit does not go to the partition with the most.
        assert!(!may_take(57, 7) && !may_take(57, 6));
    }

    #[tokio::test]
    async fn partitions_wait_for_own_handlers_or_in_the_queue() {
        let all = Arc::new(Concurrency::new(1));
        let (mut one, mut other) = (Permits::new(Arc::clone(&all)), Permits::new(all));
        assert_eq!(one.take(false), Ok(()));
        let permit = one.hand_to_task();
        assert_eq!((one.take(false), one.take(true)), (Err(Blocked::OnHandlers), Err(Blocked::OnPermit)));
        assert_eq!(other.take(false), Err(Blocked::OnPermit));
        other.start_waiting();
        assert!(other.waiting.as_mut().and_then(FutureExt::now_or_never).is_none());
        drop(permit);
        one.on_handler_done(None);
        assert_eq!(one.take(false), Err(Blocked::OnPermit), "it is for the other one");
        let got = other.waiting.take().and_then(|place| place.now_or_never()).flatten();
        other.on_acquired(got);
        assert_eq!(other.take(false), Ok(()));
    }

    #[tokio::test]
    async fn a_permit_is_not_reused_above_a_lowered_limit() {
        let all = Arc::new(Concurrency::new(2));
        let mut one = Permits::new(Arc::clone(&all));
        let permits = [(); 2].map(|()| {
            assert_eq!(one.take(true), Ok(()));
            one.hand_to_task()
        });
        all.set_limit(1);
        let [ended, _running] = permits;
        one.on_handler_done(ended);
        assert_eq!(one.take(true), Err(Blocked::OnPermit));
    }

    #[tokio::test]
    async fn quick_handlers_reuse_a_permit_a_bounded_number_of_times() {
        let all = Arc::new(Concurrency::new(1));
        let (mut one, mut other) = (Permits::new(Arc::clone(&all)), Permits::new(Arc::clone(&all)));
        assert_eq!((one.take(false), other.take(false)), (Ok(()), Err(Blocked::OnPermit)));
        other.start_waiting();
        for _ in 0..=MAX_REUSES {
            assert!(other.waiting.as_mut().and_then(FutureExt::now_or_never).is_none());
            assert_eq!(one.take(false), Ok(()));
            let permit = one.hand_to_task();
            one.on_handler_done(permit);
        }
        assert_eq!(one.take(false), Err(Blocked::OnPermit), "its reuses are spent");
        let got = other.waiting.take().and_then(|place| place.now_or_never()).flatten();
        other.on_acquired(got);
        assert_eq!(other.take(false), Ok(()));
        // Permits not used in a turn are returned.
        other.end_turn();
        assert_eq!(all.available(), 1);
    }
}
