//! Offsets to commit: the newest of each partition, the callers that wait for them, and the one
//! request in flight.
//!
//! Adding a commit touches only its own partitions, whatever else is pending: single records of
//! thousands of partitions may be committed each on its own.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::committer::{ended, not_assigned};
use crate::cluster::Backoff;
use crate::cluster::offset_commit::{CommitCodes, OffsetAndMetadata, PartitionOffset};
use crate::code;
use crate::consumer::lease::Lease;
use crate::consumer::status::Status;
use crate::error::{Error, ErrorKind, Result, is_retriable_code};
use crate::failure::is_fatal;
use crate::lock::Lock;
use crate::record::TopicPartition;
use crate::text;

/// Minimum number of waiters from which those that were dropped are removed.
const MANY_WAITERS: usize = 16;

/// The queue of a consumer: its handles add commits, the group's task sends them.
#[derive(Debug)]
pub(crate) struct Commits {
    queue: Lock<CommitQueue>,
    status: Arc<Status>,
    pushed: Notify,
}

impl Commits {
    pub(crate) fn new(group: &str, backoff: Backoff, status: Arc<Status>) -> Self {
        Self { queue: Lock::new(CommitQueue::new(group, backoff)), status, pushed: Notify::new() }
    }

    /// Adds offsets under leases in force; without a `reply`, a failure is logged.
    pub(crate) fn push(
        &self,
        offsets: Vec<(Lease, OffsetAndMetadata)>,
        deadline: Instant,
        reply: Option<oneshot::Sender<Result<()>>>,
    ) {
        // 1. The task ends a lease in `status`, then fails its commits here, under this lock.
        // 2. A handle adds a commit under the same lease.
        // With the lease looked up under the lock, 2 comes either before the commits of the lease
        // are failed, or sees that it has ended: none is left behind to be sent later.
        self.with(|queue| queue.push(offsets, deadline, reply, |lease| self.status.holds(lease)));
        self.pushed.notify_one();
    }

    /// Resolves when there may be a new commit. For one waiter.
    pub(crate) async fn pushed(&self) {
        self.pushed.notified().await;
    }

    /// Applies a function to the queue, then notifies the callers whose commits have an outcome:
    /// their wakers are called without the lock.
    pub(crate) fn with<T>(&self, apply: impl FnOnce(&mut CommitQueue) -> T) -> T {
        let mut queue = self.queue.lock();
        let result = apply(&mut queue);
        let settled = std::mem::take(&mut queue.settled);
        drop(queue);
        settled.into_iter().for_each(|(reply, outcome)| _ = reply.send(outcome)); // it may have been dropped
        result
    }
}

#[derive(Debug)]
struct Pending {
    offset: OffsetAndMetadata,
    deadline: Instant,
    in_flight: bool,
}

type Reply = oneshot::Sender<Result<()>>;

/// A caller that waits for offsets, or for newer ones of the same partitions.
#[derive(Debug)]
struct Waiter {
    /// Partitions without an outcome, and the offsets to commit.
    open: Vec<(Lease, i64)>,
    deadline: Instant,
    reply: Reply,
    in_flight: bool,
}

/// Partitions that are not committed, of which no caller was notified, each with the error.
#[must_use = "the log is to say so"]
#[derive(Debug, Default)]
struct Unawaited(Vec<(Lease, Error)>);

impl Unawaited {
    fn warn(self) {
        if let Some((_, why)) = self.0.first() {
            let (count, partitions) = (self.0.len(), text::list(self.0.iter().map(|(lease, _)| lease)));
            tracing::warn!(error = %why.full(), count, partitions, "offsets could not be committed");
        }
    }
}

/// See the [module](self). Without I/O. One request at a time carries all that are pending, so that
/// an older offset of a partition never overwrites a newer one.
#[derive(Debug)]
pub(crate) struct CommitQueue {
    group: String,
    /// Newest offset of each partition.
    offsets: BTreeMap<Lease, Pending>,
    waiters: Vec<Waiter>,
    /// Partitions of the request in flight.
    in_flight: BTreeSet<Lease>,
    /// Callers to notify.
    settled: Vec<(Reply, Result<()>)>,
    /// Number of waiters at which those that were dropped are removed.
    sweep_at: usize,
    /// No deadline is earlier.
    expiry: Option<Instant>,
    retry_at: Option<Instant>,
    /// True if the last request failed with STALE_MEMBER_EPOCH alone: the new epoch comes with the
    /// next heartbeat.
    stale: bool,
    backoff: Backoff,
    /// Error for all further commits.
    closed: Option<Error>,
}

impl CommitQueue {
    fn new(group: &str, backoff: Backoff) -> Self {
        Self {
            group: group.into(),
            offsets: BTreeMap::new(),
            waiters: Vec::new(),
            in_flight: BTreeSet::new(),
            settled: Vec::new(),
            sweep_at: MANY_WAITERS,
            expiry: None,
            retry_at: None,
            stale: false,
            backoff,
            closed: None,
        }
    }

    fn push(
        &mut self,
        offsets: Vec<(Lease, OffsetAndMetadata)>,
        deadline: Instant,
        mut reply: Option<Reply>,
        is_assigned: impl Fn(&Lease) -> bool,
    ) {
        let accepts = |(lease, _): &(Lease, _)| self.closed.is_none() && is_assigned(lease);
        let (accepted, refused): (Vec<_>, Vec<_>) = offsets.into_iter().partition(accepts);
        if let Some((first, at)) = refused.first() {
            let why = self.closed.clone();
            let why = why.unwrap_or_else(|| not_assigned(&first.partition, at.offset, &self.group));
            match reply.take().filter(|reply| !reply.is_closed()) {
                Some(reply) => self.settled.push((reply, Err(why))),
                None => Unawaited(refused.into_iter().map(|(lease, _)| (lease, why.clone())).collect()).warn(),
            }
        }
        if accepted.is_empty() {
            return;
        }
        self.expiry = Some(self.expiry.map_or(deadline, |expiry| expiry.min(deadline)));
        if let Some(reply) = reply {
            let open = accepted.iter().map(|(lease, at)| (lease.clone(), at.offset)).collect();
            if self.waiters.len() >= self.sweep_at {
                self.waiters.retain(|w| !w.reply.is_closed());
                self.sweep_at = (2 * self.waiters.len()).max(MANY_WAITERS);
            }
            self.waiters.push(Waiter { open, deadline, reply, in_flight: false });
        }
        let pending = |(lease, offset)| (lease, Pending { offset, deadline, in_flight: false });
        self.offsets.extend(accepted.into_iter().map(pending));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.offsets.is_empty() && self.in_flight.is_empty()
    }

    /// Returns a time before which nothing [expires](Self::expire).
    pub(crate) fn expiry(&self) -> Option<Instant> {
        self.expiry
    }

    /// Returns the end of the backoff.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| !self.offsets.is_empty())
    }

    /// Fails the commits whose deadline has passed. Those in flight may be made nevertheless.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.remove_expired(now).warn();
    }

    fn remove_expired(&mut self, now: Instant) -> Unawaited {
        if self.expiry.is_none_or(|at| now < at) {
            return Unawaited::default();
        }
        let late = |what| {
            let what =
                format!("offsets of group {:?} could not be committed within the request timeout: {what}", self.group);
            Error::new(ErrorKind::Timeout, what)
        };
        let not_taken = late("its coordinator did not take them");
        let unknown = late("its coordinator has not responded, so they may have been committed or not");
        let (late, waiting): (Vec<_>, _) =
            std::mem::take(&mut self.waiters).into_iter().partition(|w| now >= w.deadline);
        self.waiters = waiting;
        let mut notified = BTreeSet::new();
        for waiter in late {
            let why = if waiter.in_flight { &unknown } else { &not_taken };
            self.fail(waiter, why.clone(), &mut notified);
        }
        let mut unawaited = Unawaited::default();
        self.offsets.retain(|lease, pending| {
            let stays = pending.in_flight || now < pending.deadline;
            if !stays && !notified.contains(lease) {
                unawaited.0.push((lease.clone(), not_taken.clone()));
            }
            stays
        });
        self.find_expiry();
        unawaited
    }

    fn find_expiry(&mut self) {
        let offsets = self.offsets.values().filter(|p| !p.in_flight).map(|p| p.deadline);
        self.expiry = self.waiters.iter().map(|w| w.deadline).chain(offsets).min();
    }

    /// Fails a waiter; its partitions are added to those of which a caller was notified.
    fn fail(&mut self, waiter: Waiter, why: Error, notified: &mut BTreeSet<Lease>) {
        if !waiter.reply.is_closed() {
            notified.extend(waiter.open.into_iter().map(|(lease, _)| lease));
            self.settled.push((waiter.reply, Err(why)));
        }
    }

    /// Removes the offsets that have an outcome, and settles their waiters: those in flight, those
    /// that are not, or both.
    fn settle(
        &mut self,
        is_meant: impl Fn(bool) -> bool,
        outcome_of: impl Fn(&Lease) -> Option<Result<()>>,
    ) -> Unawaited {
        let mut notified = BTreeSet::new();
        for mut waiter in std::mem::take(&mut self.waiters) {
            if is_meant(waiter.in_flight) {
                if let Some(why) = waiter.open.iter().find_map(|(lease, _)| outcome_of(lease)?.err()) {
                    self.fail(waiter, why, &mut notified);
                    continue;
                }
                waiter.open.retain(|(lease, _)| outcome_of(lease).is_none());
                if waiter.open.is_empty() {
                    self.settled.push((waiter.reply, Ok(())));
                    continue;
                }
            }
            self.waiters.push(waiter);
        }
        let mut unawaited = Unawaited::default();
        self.offsets.retain(|lease, pending| {
            let outcome = if is_meant(pending.in_flight) { outcome_of(lease) } else { None };
            if let Some(Err(why)) = outcome.as_ref().filter(|_| !notified.contains(lease)) {
                unawaited.0.push((lease.clone(), why.clone()));
            }
            outcome.is_none()
        });
        self.find_expiry();
        unawaited
    }

    /// Returns the offsets to send now, the newest of each partition.
    pub(crate) fn next_request(&mut self, now: Instant) -> Option<Vec<PartitionOffset>> {
        if !self.in_flight.is_empty() || self.offsets.is_empty() || self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.retry_at = None;
        self.stale = false;
        self.in_flight = self.offsets.keys().cloned().collect();
        self.set_in_flight(true);
        Some(self.offsets.iter().map(|(lease, p)| (lease.partition.clone(), p.offset.clone())).collect())
    }

    fn set_in_flight(&mut self, in_flight: bool) {
        self.offsets.values_mut().for_each(|pending| pending.in_flight = in_flight);
        self.waiters.iter_mut().for_each(|waiter| waiter.in_flight = in_flight);
    }

    /// Handles the response. Returns an error code that concerns the membership. `stale`: the
    /// generation has changed since the request, so its error codes say nothing about the present
    /// one; offsets of partitions that are still assigned are committed again.
    pub(crate) fn on_response(&mut self, now: Instant, outcome: Result<CommitCodes>, stale: bool) -> Option<i16> {
        self.stale = matches!(&outcome, Ok(codes) if codes.values().any(|code| *code == code::STALE_MEMBER_EPOCH));
        let sent = std::mem::take(&mut self.in_flight);
        let code = |lease: &Lease| {
            let codes = outcome.as_ref().ok()?;
            codes.get(&lease.partition).copied().filter(|code| *code != 0)
        };
        let doing = format!("committing offsets of group {:?}", self.group);
        let outcome_of = |lease: &Lease| match &outcome {
            Err(e) => is_fatal(e).then(|| Err(e.clone())),
            Ok(_) => match code(lease) {
                None => Some(Ok(())),
                Some(code) if is_retriable(code, stale) => None,
                Some(code) => Some(Err(Error::broker(code, &doing))),
            },
        };
        self.settle(|in_flight| in_flight, outcome_of).warn();
        if sent.iter().any(|lease| outcome_of(lease).is_none()) {
            self.retry_at = Some(now + self.backoff.next());
        } else {
            self.backoff.reset();
        }
        // 1. Offset 5 is in flight; offset 7 of the same partition waits.
        // 2. The coordinator moves: 5 is to be sent again.
        // With a request for each, 5 could be committed after 7. So what was sent is pending again,
        // where 7 has replaced 5; the caller of 5 gets the outcome of 7.
        self.set_in_flight(false);
        self.find_expiry();
        sent.iter().filter_map(code).find(|code| !(stale && concerns_membership(*code)))
    }

    /// Returns whether one of these partitions is in a commit that is in flight, or is about to be.
    pub(crate) fn involves(&self, partitions: &[TopicPartition]) -> bool {
        let soon = self.retry_at.is_none() || self.stale;
        let lease = |p: &TopicPartition, epoch| Lease { partition: p.clone(), epoch };
        let all_of = |p| lease(p, 0)..=lease(p, u64::MAX);
        partitions.iter().any(|p| {
            let is_in_flight = self.in_flight.range(all_of(p)).next().is_some();
            is_in_flight || (soon && self.offsets.range(all_of(p)).next().is_some())
        })
    }

    /// Fails the commits of partitions that are no longer assigned.
    pub(crate) fn drop_partitions(&mut self, partitions: &[TopicPartition], why: &Error) {
        let dropped: HashSet<_> = partitions.iter().collect();
        let is_dropped = |lease: &Lease| dropped.contains(&lease.partition);
        self.in_flight.retain(|lease| !is_dropped(lease));
        // The group's task has reported the revocation.
        _ = self.settle(|_| true, |lease| is_dropped(lease).then(|| Err(why.clone())));
    }

    /// Fails all commits, and all further ones.
    pub(crate) fn close(&mut self, why: &Error) {
        _ = self.settle(|in_flight| in_flight, |_| Some(Err(ended())));
        self.settle(|_| true, |_| Some(Err(why.clone()))).warn();
        self.in_flight.clear();
        self.closed.get_or_insert_with(|| why.clone());
    }
}

/// Returns whether the code may say only that the generation is over.
fn concerns_membership(code: i16) -> bool {
    matches!(
        code,
        code::ILLEGAL_GENERATION
            | code::UNKNOWN_MEMBER_ID
            | code::REBALANCE_IN_PROGRESS
            | code::GROUP_ID_NOT_FOUND
            | code::STALE_MEMBER_EPOCH
    )
}

/// Returns whether to send an offset again after this code.
fn is_retriable(code: i16, stale: bool) -> bool {
    match code {
        code if stale && concerns_membership(code) => true,
        // Committed again in the epoch of the next heartbeat response.
        code::STALE_MEMBER_EPOCH => true,
        code::UNKNOWN_TOPIC_OR_PARTITION | code::REBALANCE_IN_PROGRESS => false,
        // An unknown error may be transient, and a commit can be made twice.
        code => is_retriable_code(code) || code == code::UNKNOWN_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests;
