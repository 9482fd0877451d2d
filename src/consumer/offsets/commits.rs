//! Commits in two steps: from the application to the group's task ([`Outbox`]), and from there to
//! the coordinator ([`Commits`], without I/O).

use std::collections::HashSet;
use std::sync::MutexGuard;
use std::time::Instant;

use tokio::sync::Notify;

use super::commit_queue::{self, CommitOutcome, CommitQueue, Unawaited};
use crate::cluster::Backoff;
use crate::cluster::offset_commit::{CommitCodes, PartitionOffset};
use crate::code;
use crate::consumer::lease::Lease;
use crate::error::{Error, ErrorKind, Result, is_retriable_code};
use crate::failure::is_fatal;
use crate::lock::Lock;
use crate::record::TopicPartition;
use crate::text;

/// Offsets to commit, each under its lease.
pub(crate) type Commit = commit_queue::Commit<Lease>;

type Queue = CommitQueue<Lease>;

/// Fails all commits of a queue, for one reason.
fn fail_all(mut queue: Queue, why: &Error) {
    warn(queue.settle(|_| CommitOutcome::Failed, |_, _| why.clone()));
}

fn warn(failed: Option<Unawaited<Lease>>) {
    if let Some(Unawaited { keys, why }) = failed {
        let partitions = text::list(&keys);
        tracing::warn!(error = %why.full(), count = keys.len(), partitions, "offsets could not be committed");
    }
}

/// Commits that the group's task has not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Lock<OutboxState>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct OutboxState {
    queue: Queue,
    /// Error for all further commits.
    closed: Option<Error>,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, OutboxState> {
        self.state.lock()
    }

    pub(crate) fn push(&self, commit: Commit) {
        let mut s = self.lock();
        if let Some(why) = s.closed.clone() {
            drop(s);
            let mut queue = Queue::default();
            queue.push(commit);
            return fail_all(queue, &why);
        }
        s.queue.push(commit);
        self.ready.notify_one();
    }

    pub(crate) fn take(&self) -> CommitQueue<Lease> {
        std::mem::take(&mut self.lock().queue)
    }

    /// Resolves when there may be a commit. For one waiter.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    pub(crate) fn close(&self, why: &Error) {
        self.lock().closed.get_or_insert_with(|| why.clone());
        fail_all(self.take(), why);
    }
}

/// Commits under leases in force. One request at a time carries all that are pending, so that an
/// older offset of a partition never overwrites a newer one.
#[derive(Debug)]
pub(crate) struct Commits {
    group: String,
    pending: Queue,
    in_flight: Queue,
    retry_at: Option<Instant>,
    /// True if the pending ones failed with STALE_MEMBER_EPOCH alone: the new epoch comes with the
    /// next heartbeat.
    stale: bool,
    backoff: Backoff,
}

impl Commits {
    pub(crate) fn new(group: &str, backoff: Backoff) -> Self {
        let (pending, in_flight) = (Queue::default(), Queue::default());
        Self { group: group.into(), pending, in_flight, retry_at: None, stale: false, backoff }
    }

    pub(crate) fn push(&mut self, commit: Commit) {
        self.pending.push(commit);
    }

    /// Takes commits over, as far as their leases are in force; `why` is the error of the others.
    pub(crate) fn take(
        &mut self,
        mut newer: CommitQueue<Lease>,
        is_assigned: impl Fn(&Lease) -> bool,
        why: impl Fn(&Lease, i64) -> Error,
    ) {
        let outcome_of =
            |lease: &Lease| if is_assigned(lease) { CommitOutcome::Pending } else { CommitOutcome::Failed };
        warn(newer.settle(outcome_of, why));
        self.pending.append(newer);
    }

    /// Returns the next deadline.
    pub(crate) fn expiry(&self) -> Option<Instant> {
        self.pending.expiry().into_iter().chain(self.in_flight.expiry()).min()
    }

    /// Returns the end of the backoff.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| !self.pending.is_empty())
    }

    /// Fails the commits whose deadline has passed. Those in flight may be made nevertheless.
    pub(crate) fn expire(&mut self, now: Instant) {
        let late = |what: &str| {
            let what =
                format!("offsets of group {:?} could not be committed within the request timeout: {what}", self.group);
            Error::new(ErrorKind::Timeout, what)
        };
        let not_taken = late("its coordinator did not take them");
        let unknown = late("its coordinator has not responded, so they may have been committed or not");
        for unawaited in [self.in_flight.expire(now, true, &unknown), self.pending.expire(now, false, &not_taken)] {
            warn(unawaited);
        }
    }

    /// Returns the offsets to send now, the newest of each partition.
    pub(crate) fn next_request(&mut self, now: Instant) -> Option<Vec<PartitionOffset>> {
        if !self.in_flight.is_empty() || self.pending.is_empty() || self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.retry_at = None;
        self.stale = false;
        self.in_flight = std::mem::take(&mut self.pending);
        Some(self.in_flight.offsets().map(|(lease, offset)| (lease.partition.clone(), offset.clone())).collect())
    }

    /// Handles the response. Returns an error code that concerns the membership. `stale`: the
    /// generation has changed since the request, so its error codes say nothing about the present
    /// one; offsets of partitions that are still assigned are committed again.
    pub(crate) fn on_response(&mut self, now: Instant, outcome: Result<CommitCodes>, stale: bool) -> Option<i16> {
        self.stale = matches!(&outcome, Ok(codes) if codes.values().any(|code| *code == code::STALE_MEMBER_EPOCH));
        let mut sent = std::mem::take(&mut self.in_flight);
        let mut concern = None;
        match &outcome {
            Err(e) if is_fatal(e) => fail_all(std::mem::take(&mut sent), e),
            Err(_) => {}
            Ok(codes) => {
                let code = |lease: &Lease| codes.get(&lease.partition).copied().filter(|code| *code != 0);
                let concerns = |code: &i16| !(stale && concerns_membership(*code));
                concern = sent.offsets().filter_map(|(lease, _)| code(lease)).find(concerns);
                let outcome_of = |lease: &Lease| match code(lease) {
                    None => CommitOutcome::Committed,
                    Some(code) if is_retriable(code, stale) => CommitOutcome::Pending,
                    Some(_) => CommitOutcome::Failed,
                };
                let why = |code| Error::broker(code, format_args!("committing offsets of group {:?}", self.group));
                warn(sent.settle(outcome_of, |lease, _| why(code(lease).unwrap_or_default())));
            }
        }
        if sent.is_empty() {
            self.backoff.reset();
        } else {
            self.retry_at = Some(now + self.backoff.next());
            // 1. Offset 5 is in flight; offset 7 of the same partition waits.
            // 2. The coordinator moves: 5 is to be sent again.
            // With a request for each, 5 could be committed after 7. So the pending ones are appended
            // to those that were sent, where 7 replaces 5; the caller of 5 gets the outcome of 7.
            sent.append(std::mem::take(&mut self.pending));
            self.pending = sent;
        }
        concern
    }

    /// Returns whether one of these partitions is in a commit that is in flight, or is about to be.
    pub(crate) fn involves(&self, partitions: &[TopicPartition]) -> bool {
        let soon = self.retry_at.is_none() || self.stale;
        let lease = |partition: &TopicPartition, epoch| Lease { partition: partition.clone(), epoch };
        let all_of = |p| lease(p, 0)..=lease(p, u64::MAX);
        [&self.in_flight, &self.pending]
            .into_iter()
            .zip([true, soon])
            .any(|(queue, counts)| counts && !queue.is_empty() && partitions.iter().any(|p| queue.has_any(all_of(p))))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.in_flight.is_empty()
    }

    /// Fails the commits of partitions that are no longer assigned.
    pub(crate) fn drop_partitions(&mut self, partitions: &[TopicPartition], why: &Error) {
        let dropped: HashSet<_> = partitions.iter().collect();
        let outcome_of = |lease: &Lease| {
            if dropped.contains(&lease.partition) { CommitOutcome::Failed } else { CommitOutcome::Pending }
        };
        for queue in [&mut self.in_flight, &mut self.pending] {
            _ = queue.settle(outcome_of, |_, _| why.clone()); // the group's task has reported the revocation
        }
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
