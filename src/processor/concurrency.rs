//! The number of handlers of a subscription that may run at a time, which can change while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::lock::Lock;
use crate::metrics::{Observation, Reporter};

/// A semaphore whose number of permits can be lowered while they are in use.
#[derive(Debug)]
pub(super) struct Concurrency {
    semaphore: Arc<Semaphore>,
    limit: Lock<Limit>,
    /// Number of permits in use that are not to be returned. Changed under the lock.
    excess: AtomicUsize,
}

#[derive(Debug)]
struct Limit {
    permits: usize,
    /// Metrics and group, while the subscription runs.
    reporter: Option<(Reporter, String)>,
}

impl Limit {
    /// Returns the report of a change, to be made without the lock. Changes are added up by the metrics: their order is of no
    /// consequence.
    fn report(&self, from: usize, to: usize) -> impl FnOnce() + use<> {
        let reporter = self.reporter.clone();
        move || {
            if let Some((metrics, group)) = reporter {
                metrics.report(|| Observation::ConcurrencyChanged { group: &group, from, to });
            }
        }
    }
}

/// The permit of one handler.
#[derive(Debug)]
pub(super) struct Permit {
    permit: Option<OwnedSemaphorePermit>,
    concurrency: Arc<Concurrency>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take().filter(|_| self.concurrency.has_excess()) {
            self.concurrency.return_permit(permit);
        }
    }
}

impl Concurrency {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            semaphore: Arc::new(Semaphore::new(limit)),
            limit: Lock::new(Limit { permits: limit, reporter: None }),
            excess: AtomicUsize::new(0),
        }
    }

    /// Returns the maximum number of handlers.
    pub(super) fn limit(&self) -> usize {
        self.limit.lock().permits
    }

    /// Changes the maximum number of handlers. While more are running, none is started.
    pub(super) fn set_limit(&self, to: usize) {
        let mut limit = self.limit.lock();
        let was = std::mem::replace(&mut limit.permits, to);
        let excess = self.excess.load(Ordering::Relaxed);
        if to >= was {
            let kept = excess.min(to - was);
            self.excess.store(excess - kept, Ordering::Release);
            self.semaphore.add_permits(to - was - kept);
        } else {
            self.forget(excess + was - to);
        }
        let report = limit.report(was, to);
        drop(limit);
        report();
    }

    /// Reports the limit, and its changes from now on.
    pub(super) fn start_reporting(&self, metrics: Reporter, group: &str) {
        let mut limit = self.limit.lock();
        limit.reporter = Some((metrics, group.to_owned()));
        let report = limit.report(0, limit.permits);
        drop(limit);
        report();
    }

    /// Reports that there is no limit any more.
    pub(super) fn stop_reporting(&self) {
        let mut limit = self.limit.lock();
        let report = limit.report(limit.permits, 0);
        limit.reporter = None;
        drop(limit);
        report();
    }

    /// Returns whether permits in use are not to be returned.
    pub(super) fn has_excess(&self) -> bool {
        self.excess.load(Ordering::Acquire) > 0
    }

    /// Forgets this number of permits, those in use when they are returned. The limit is locked.
    fn forget(&self, excess: usize) {
        let forgotten = self.semaphore.forget_permits(excess);
        self.excess.store(excess - forgotten, Ordering::Release);
    }

    fn return_permit(&self, permit: OwnedSemaphorePermit) {
        let _limit = self.limit.lock();
        let excess = self.excess.load(Ordering::Relaxed);
        if excess > 0 {
            self.excess.store(excess - 1, Ordering::Release);
            permit.forget();
        }
    }

    /// Forgets permits that were returned while the limit was lowered:
    /// 1. A handler ends, and finds no excess.
    /// 2. The limit is lowered: its permit is in use and counts as excess.
    /// 3. The permit of 1 is returned, and could be acquired again.
    fn settle(&self) {
        if self.has_excess() {
            let _limit = self.limit.lock();
            self.forget(self.excess.load(Ordering::Relaxed));
        }
    }

    /// Returns the number of handlers that may be started now.
    pub(super) fn available(&self) -> usize {
        self.settle();
        self.semaphore.available_permits()
    }

    pub(super) fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        self.settle();
        let permit = Arc::clone(&self.semaphore).try_acquire_owned().ok()?;
        Some(Permit { permit: Some(permit), concurrency: Arc::clone(self) })
    }

    /// Waits for a permit, in the order of the calls.
    pub(super) async fn acquire(self: Arc<Self>) -> Option<Permit> {
        let permit = Arc::clone(&self.semaphore).acquire_owned().await.ok()?;
        Some(Permit { permit: Some(permit), concurrency: self })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn take(all: &Arc<Concurrency>, count: usize) -> Vec<Permit> {
        std::iter::from_fn(|| all.try_acquire()).take(count).collect()
    }

    #[test]
    fn a_lower_limit_holds_once_handlers_end() {
        let all = Arc::new(Concurrency::new(4));
        let mut running = take(&all, 3);
        all.set_limit(2); // one is free: it goes at once, one of the three when it ends
        assert_eq!((all.available(), all.limit()), (0, 2));
        running.pop();
        assert_eq!(all.available(), 0, "two are running");
        running.pop();
        assert_eq!(all.available(), 1);
        drop(running);
        assert_eq!(take(&all, 9).len(), 2);
    }

    #[test]
    fn a_higher_limit_pays_for_what_is_running() {
        let all = Arc::new(Concurrency::new(4));
        let running = take(&all, 4);
        all.set_limit(1);
        all.set_limit(3);
        assert_eq!(all.available(), 0, "four are running");
        all.set_limit(6);
        assert_eq!(all.available(), 2);
        drop(running);
        assert_eq!(take(&all, 9).len(), 6);
    }

    #[test]
    fn a_waiting_partition_is_woken_by_a_higher_limit() {
        let all = Arc::new(Concurrency::new(1));
        let running = take(&all, 1);
        let mut waiting = Box::pin(Arc::clone(&all).acquire());
        assert!(waiting.as_mut().now_or_never().is_none());
        all.set_limit(2);
        let permit = waiting.now_or_never().flatten();
        assert!(permit.is_some());
        all.set_limit(1);
        drop(permit);
        assert_eq!(all.available(), 0);
        drop(running);
        assert_eq!(all.available(), 1);
    }
}
