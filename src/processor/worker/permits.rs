//! Permits of the handlers of one partition, out of those that all partitions of a subscription share.
//!
//! A partition whose handlers are slow would end up with all permits: it takes each one that becomes free and returns none for
//! long, and others, whose handlers need a permit for a moment, would wait for it. So a partition takes no further permit while it
//! has [`FACTOR`] times as many as are free: the more it has, the more are left for others. Nothing is reserved where few
//! handlers run, or where many partitions are busy.
//!
//! Where more partitions are busy than there are permits, each would have one for one record, and then another partition the next
//! time: what a record costs would grow with the number of partitions. So a handler that was quick gives its permit back to its
//! partition, [`STREAK`] times in a row, and then to those that wait.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Waits;

/// Permits that a partition may have for each one that is free. With 64 in all, one partition gets 57.
const FACTOR: usize = 8;
/// Number of handlers of a partition that use permits of those before them, until others have their turn.
const STREAK: usize = 32;

pub(super) struct Permits {
    all: Arc<Semaphore>,
    /// For the next handlers of this turn.
    next: Vec<OwnedSemaphorePermit>,
    /// How many were used again since one was acquired.
    streak: usize,
    /// Our place among those that wait for one.
    pub(super) place: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
    /// Those that handlers at work have.
    held: usize,
}

impl Permits {
    pub(super) fn new(all: Arc<Semaphore>) -> Self {
        Self { all, next: Vec::new(), streak: 0, place: None, held: 0 }
    }

    /// Whether there is a permit for the next handler; if not, what to wait for. `alone` where no other partition is owned.
    pub(super) fn take(&mut self, alone: bool) -> Result<(), Waits> {
        if !self.next.is_empty() {
            return Ok(());
        }
        if !alone && !may_take(self.held, self.all.available_permits()) {
            return Err(Waits::ForHandlers);
        }
        let permit = Arc::clone(&self.all).try_acquire_owned().map_err(|_| Waits::ForPermit)?;
        self.next.push(permit);
        self.streak = 0;
        Ok(())
    }

    /// The end of a turn: nothing is kept while waiting.
    pub(super) fn end_turn(&mut self) {
        self.next.clear();
    }

    /// Waits in line for one.
    pub(super) fn queue(&mut self) {
        let all = &self.all;
        self.place.get_or_insert_with(|| Arc::clone(all).acquire_owned().map(Result::ok).boxed());
    }

    /// It is our turn.
    pub(super) fn got(&mut self, permit: Option<OwnedSemaphorePermit>) {
        self.place = None;
        self.next.extend(permit);
        self.streak = 0;
    }

    /// Gives it to a handler that is a task now; [`returned`](Self::returned) is to be called at its end.
    pub(super) fn hand_over(&mut self) -> Option<OwnedSemaphorePermit> {
        self.held += 1;
        self.next.pop()
    }

    /// A handler has ended; with its permit, if it was quick.
    pub(super) fn returned(&mut self, permit: Option<OwnedSemaphorePermit>) {
        self.held -= 1;
        if self.streak < STREAK {
            self.streak += usize::from(permit.is_some());
            self.next.extend(permit);
        }
    }
}

fn may_take(held: usize, free: usize) -> bool {
    held == 0 || held < free.saturating_mul(FACTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes turns until no partition takes another; `held` is what each has.
    fn fill(all: usize, held: &mut [usize]) {
        loop {
            let mut taken = false;
            for i in 0..held.len() {
                let free = all - held.iter().sum::<usize>();
                if free > 0 && may_take(held[i], free) {
                    held[i] += 1;
                    taken = true;
                }
            }
            if !taken {
                return;
            }
        }
    }

    #[test]
    fn one_partition_leaves_some_for_others_and_many_use_them_all() {
        let of_one = |all| {
            let mut held = [0];
            fill(all, &mut held);
            held[0]
        };
        assert_eq!([1, 2, 8, 16, 64, 1000].map(of_one), [1, 2, 8, 15, 57, 889]);
        let mut held = [0; 12];
        fill(64, &mut held);
        assert_eq!(held.iter().sum::<usize>(), 64, "{held:?}");
    }

    #[test]
    fn who_has_none_gets_one_beside_partitions_that_are_full() {
        let mut held = [0, 0];
        fill(64, &mut held[..1]);
        assert!(may_take(held[1], 64 - held[0]) && held[0] < 64);
        // A permit that becomes free is not taken by who has most.
        assert!(!may_take(57, 7) && !may_take(57, 6));
    }

    #[tokio::test]
    async fn who_has_some_waits_for_handlers_of_its_own_and_who_has_none_in_line() {
        let all = Arc::new(Semaphore::new(1));
        let (mut one, mut other) = (Permits::new(Arc::clone(&all)), Permits::new(all));
        assert_eq!(one.take(false), Ok(()));
        let permit = one.hand_over();
        assert_eq!((one.take(false), one.take(true)), (Err(Waits::ForHandlers), Err(Waits::ForPermit)));
        assert_eq!(other.take(false), Err(Waits::ForPermit));
        other.queue();
        assert!(other.place.as_mut().and_then(FutureExt::now_or_never).is_none());
        drop(permit);
        one.returned(None);
        assert_eq!(one.take(false), Err(Waits::ForPermit), "it is the other's");
        let got = other.place.take().and_then(|place| place.now_or_never()).flatten();
        other.got(got);
        assert_eq!(other.take(false), Ok(()));
    }

    #[tokio::test]
    async fn who_is_quick_uses_a_permit_some_times_and_then_it_is_anothers() {
        let all = Arc::new(Semaphore::new(1));
        let (mut one, mut other) = (Permits::new(Arc::clone(&all)), Permits::new(Arc::clone(&all)));
        assert_eq!((one.take(false), other.take(false)), (Ok(()), Err(Waits::ForPermit)));
        other.queue();
        for _ in 0..=STREAK {
            assert!(other.place.as_mut().and_then(FutureExt::now_or_never).is_none());
            assert_eq!(one.take(false), Ok(()));
            let permit = one.hand_over();
            one.returned(permit);
        }
        assert_eq!(one.take(false), Err(Waits::ForPermit), "it has had its turn");
        let got = other.place.take().and_then(|place| place.now_or_never()).flatten();
        other.got(got);
        assert_eq!(other.take(false), Ok(()));
        // What is not used in a turn is another's, too.
        other.end_turn();
        assert_eq!(all.available_permits(), 1);
    }
}
