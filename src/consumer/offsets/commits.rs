//! The queue of commits: from whoever commits to the group's task ([`Outbox`]), and from there to the coordinator
//! ([`Commits`], without I/O).

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
use crate::failure::is_final;
use crate::lock::Lock;
use crate::record::TopicPartition;
use crate::text;

/// Offsets to commit, each under its lease.
pub(crate) type Commit = commit_queue::Commit<Lease>;

type Queue = CommitQueue<Lease>;

/// Takes everything out, for one reason.
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
    state: Lock<Pushed>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct Pushed {
    queue: Queue,
    /// Why none is taken any more.
    closed: Option<Error>,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Pushed> {
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

    /// Resolves when there may be something. For one waiter.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    pub(crate) fn close(&self, why: &Error) {
        self.lock().closed.get_or_insert_with(|| why.clone());
        fail_all(self.take(), why);
    }
}

/// Commits under leases in force, in order: one request at a time takes all that wait, so that an older offset of a
/// partition never overtakes a newer one.
#[derive(Debug)]
pub(crate) struct Commits {
    group: String,
    waiting: Queue,
    under_way: Queue,
    retry_at: Option<Instant>,
    /// Whether those that wait for it were refused for the member's epoch alone, which is about to be known.
    stale: bool,
    backoff: Backoff,
}

impl Commits {
    pub(crate) fn new(group: &str, backoff: Backoff) -> Self {
        let (waiting, under_way) = (Queue::default(), Queue::default());
        Self { group: group.into(), waiting, under_way, retry_at: None, stale: false, backoff }
    }

    pub(crate) fn push(&mut self, commit: Commit) {
        self.waiting.push(commit);
    }

    /// Takes what was asked for, as far as its leases are in force; `why` tells why another offset is not committed.
    pub(crate) fn take(
        &mut self,
        mut asked: CommitQueue<Lease>,
        is_ours: impl Fn(&Lease) -> bool,
        why: impl Fn(&Lease, i64) -> Error,
    ) {
        let outcome_of = |lease: &Lease| if is_ours(lease) { CommitOutcome::Pending } else { CommitOutcome::Failed };
        warn(asked.settle(outcome_of, why));
        self.waiting.append(asked);
    }

    /// When the next one has waited for too long.
    pub(crate) fn expiry(&self) -> Option<Instant> {
        self.waiting.expiry().into_iter().chain(self.under_way.expiry()).min()
    }

    /// When those refused may be sent again.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| !self.waiting.is_empty())
    }

    /// Gives up those whose time has passed. What is under way may be committed all the same.
    pub(crate) fn expire(&mut self, now: Instant) {
        let late = |what: &str| {
            let what =
                format!("offsets of group {:?} could not be committed within the request timeout: {what}", self.group);
            Error::new(ErrorKind::Timeout, what)
        };
        let not_taken = late("its coordinator did not take them");
        let unknown = late("its coordinator has not answered, so they may have been committed or not");
        for unawaited in [self.under_way.expire(now, true, &unknown), self.waiting.expire(now, false, &not_taken)] {
            warn(unawaited);
        }
    }

    /// The offsets to send now, the newest of each partition.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Vec<PartitionOffset>> {
        if !self.under_way.is_empty() || self.waiting.is_empty() || self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.retry_at = None;
        self.stale = false;
        self.under_way = std::mem::take(&mut self.waiting);
        Some(self.under_way.offsets().map(|(lease, offset)| (lease.partition.clone(), offset.clone())).collect())
    }

    /// What came of them. Gives a code that tells something of the membership. `stale`: the group has begun another generation
    /// since they were sent, so a refusal tells nothing; what is still ours is committed in the new one.
    pub(crate) fn answered(&mut self, now: Instant, outcome: Result<CommitCodes>, stale: bool) -> Option<i16> {
        self.stale = matches!(&outcome, Ok(codes) if codes.values().any(|code| *code == code::STALE_MEMBER_EPOCH));
        let mut sent = std::mem::take(&mut self.under_way);
        let mut told = None;
        match &outcome {
            Err(e) if is_final(e) => fail_all(std::mem::take(&mut sent), e),
            Err(_) => {}
            Ok(codes) => {
                let code = |lease: &Lease| codes.get(&lease.partition).copied().filter(|code| *code != 0);
                let tells = |code: &i16| !(stale && is_of_membership(*code));
                told = sent.offsets().filter_map(|(lease, _)| code(lease)).find(tells);
                let outcome_of = |lease: &Lease| match code(lease) {
                    None => CommitOutcome::Committed,
                    Some(code) if passes(code, stale) => CommitOutcome::Pending,
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
            sent.append(std::mem::take(&mut self.waiting));
            self.waiting = sent;
        }
        told
    }

    /// Whether one of these partitions is in a commit that is on its way, or could be.
    pub(crate) fn touch(&self, partitions: &[TopicPartition]) -> bool {
        let soon = self.retry_at.is_none() || self.stale;
        let lease = |partition: &TopicPartition, epoch| Lease { partition: partition.clone(), epoch };
        let all_of = |p| lease(p, 0)..=lease(p, u64::MAX);
        [&self.under_way, &self.waiting]
            .into_iter()
            .zip([true, soon])
            .any(|(queue, counts)| counts && !queue.is_empty() && partitions.iter().any(|p| queue.has_any(all_of(p))))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    /// These partitions are not ours any more: nothing is committed for them.
    pub(crate) fn fail(&mut self, partitions: &[TopicPartition], why: &Error) {
        let gone: HashSet<_> = partitions.iter().collect();
        let outcome_of = |lease: &Lease| {
            if gone.contains(&lease.partition) { CommitOutcome::Failed } else { CommitOutcome::Pending }
        };
        for queue in [&mut self.under_way, &mut self.waiting] {
            _ = queue.settle(outcome_of, |_, _| why.clone()); // the group's task has said that they are gone
        }
    }
}

/// Whether it may only say that the member's generation is over.
fn is_of_membership(code: i16) -> bool {
    matches!(
        code,
        code::ILLEGAL_GENERATION
            | code::UNKNOWN_MEMBER_ID
            | code::REBALANCE_IN_PROGRESS
            | code::GROUP_ID_NOT_FOUND
            | code::STALE_MEMBER_EPOCH
    )
}

/// Whether what was refused with this code is to be sent again.
fn passes(code: i16, stale: bool) -> bool {
    match code {
        code if stale && is_of_membership(code) => true,
        // What is still ours can be committed in the epoch that the next heartbeat brings.
        code::STALE_MEMBER_EPOCH => true,
        code::UNKNOWN_TOPIC_OR_PARTITION | code::REBALANCE_IN_PROGRESS => false,
        // A broker that does not know what went wrong may do better: a commit can be made twice.
        code => is_retriable_code(code) || code == code::UNKNOWN_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests;
