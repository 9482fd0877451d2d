//! The queue of commits: from whoever commits to the group's task ([`Outbox`]), and from there to the coordinator
//! ([`Commits`], without I/O).

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, oneshot};

use super::lease::Lease;
use super::offsets::{Codes, Offset, OffsetAndMetadata};
use super::protocol::code;
use crate::cluster::{Backoff, UNKNOWN_TOPIC};
use crate::error::{Error, ErrorKind, Result, is_retriable_code};
use crate::failure::is_final;
use crate::record::TopicPartition;
use crate::text;

const UNKNOWN_SERVER_ERROR: i16 = -1;

/// Offsets to commit.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) offsets: Vec<(Lease, OffsetAndMetadata)>,
    deadline: Instant,
    /// Who asked for it, or for an older one of the same partitions.
    waiters: Vec<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    partitions: Vec<TopicPartition>,
    deadline: Instant,
    reply: oneshot::Sender<Result<()>>,
}

impl Commit {
    /// One that no one waits for: if it fails, the log says so.
    pub(crate) fn new(offsets: Vec<(Lease, OffsetAndMetadata)>, deadline: Instant) -> Self {
        Self { offsets, deadline, waiters: Vec::new() }
    }

    /// One whose outcome someone may wait for.
    pub(crate) fn awaited(
        offsets: Vec<(Lease, OffsetAndMetadata)>,
        deadline: Instant,
    ) -> (Self, oneshot::Receiver<Result<()>>) {
        let (reply, replied) = oneshot::channel();
        let partitions = offsets.iter().map(|(lease, _)| lease.partition.clone()).collect();
        let waiter = Waiter { partitions, deadline, reply };
        (Self { offsets, deadline, waiters: vec![waiter] }, replied)
    }

    pub(crate) fn fail(self, why: &Error) {
        self.end(|_| Err(why.clone()));
    }

    /// Tells everyone what came of his partitions.
    fn end(self, outcome: impl Fn(&[TopicPartition]) -> Result<()>) {
        let all: Vec<_> = self.offsets.into_iter().map(|(lease, _)| lease.partition).collect();
        let told = self.waiters.into_iter().filter(|w| !w.reply.is_closed()).map(|w| w.tell(&outcome)).count();
        if let (0, Err(e)) = (told, outcome(&all)) {
            let partitions = text::list(&all);
            tracing::warn!(error = %e.full(), count = all.len(), partitions, "offsets could not be committed");
        }
    }

    fn touches(&self, partitions: &HashSet<&TopicPartition>) -> bool {
        self.offsets.iter().any(|(lease, _)| partitions.contains(&lease.partition))
    }

    /// Whether all its partitions are among those of a newer one.
    fn is_covered_by(&self, newer: &HashSet<&Lease>) -> bool {
        self.offsets.len() <= newer.len() && self.offsets.iter().all(|(lease, _)| newer.contains(lease))
    }

    /// These partitions have gone: the others stay in it. Whether any do.
    fn lose(&mut self, partitions: &HashSet<&TopicPartition>, why: &Error) -> bool {
        self.offsets.retain(|(lease, _)| !partitions.contains(&lease.partition));
        self.dismiss(|w| w.partitions.iter().any(|p| partitions.contains(p)), why);
        !self.offsets.is_empty()
    }

    /// Some wait no longer.
    fn dismiss(&mut self, who: impl Fn(&Waiter) -> bool, why: &Error) {
        let (gone, stay) = std::mem::take(&mut self.waiters).into_iter().partition(who);
        self.waiters = stay;
        let gone: Vec<Waiter> = gone;
        gone.into_iter().for_each(|w| w.tell(|_| Err(why.clone())));
    }
}

impl Waiter {
    fn tell(self, outcome: impl Fn(&[TopicPartition]) -> Result<()>) {
        _ = self.reply.send(outcome(&self.partitions)); // whoever asked may be gone
    }
}

/// Puts a commit behind the others. An older one of no other partitions has become pointless: who waits for it waits for the
/// newer one. So there are never more of them than partitions, whatever a program does.
fn enqueue(queue: &mut VecDeque<Commit>, mut commit: Commit) {
    let (mut waiters, newer) = (Vec::new(), commit.offsets.iter().map(|(lease, _)| lease).collect());
    queue.retain_mut(|older| {
        let covered = older.is_covered_by(&newer);
        if covered {
            waiters.extend(older.waiters.drain(..).filter(|w| !w.reply.is_closed()));
        }
        !covered
    });
    commit.waiters.append(&mut waiters);
    queue.push_back(commit);
}

/// Commits that the group's task has not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<Pushed>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct Pushed {
    commits: VecDeque<Commit>,
    /// Why none is taken any more.
    closed: Option<Error>,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Pushed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, commit: Commit) {
        let mut s = self.lock();
        if let Some(why) = s.closed.clone() {
            drop(s);
            return commit.fail(&why);
        }
        enqueue(&mut s.commits, commit);
        self.ready.notify_one();
    }

    pub(crate) fn take(&self) -> VecDeque<Commit> {
        std::mem::take(&mut self.lock().commits)
    }

    /// Resolves when there may be something. For one waiter.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    pub(crate) fn close(&self, why: &Error) {
        self.lock().closed.get_or_insert_with(|| why.clone());
        self.take().into_iter().for_each(|c| c.fail(why));
    }
}

/// Commits under leases in force, in order: one request at a time takes all that wait, so that an older offset of a
/// partition never overtakes a newer one.
#[derive(Debug)]
pub(crate) struct Commits {
    group: String,
    waiting: VecDeque<Commit>,
    under_way: Vec<Commit>,
    retry_at: Option<Instant>,
    /// Whether those that wait for it were refused for the member's epoch alone, which is about to be known.
    stale: bool,
    backoff: Backoff,
}

impl Commits {
    pub(crate) fn new(group: &str, backoff: Backoff) -> Self {
        let (waiting, under_way) = (VecDeque::new(), Vec::new());
        Self { group: group.into(), waiting, under_way, retry_at: None, stale: false, backoff }
    }

    pub(crate) fn push(&mut self, commit: Commit) {
        enqueue(&mut self.waiting, commit);
    }

    /// When the next one has waited for too long.
    pub(crate) fn expiry(&self) -> Option<Instant> {
        let waited_for = self.waiting.iter().chain(&self.under_way).flat_map(|c| &c.waiters).map(|w| w.deadline);
        self.waiting.iter().map(|c| c.deadline).chain(waited_for).min()
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
        self.under_way.iter_mut().for_each(|c| c.dismiss(|w| now >= w.deadline, &unknown));
        for mut c in std::mem::take(&mut self.waiting) {
            if now >= c.deadline {
                c.fail(&not_taken);
            } else {
                c.dismiss(|w| now >= w.deadline, &not_taken);
                self.waiting.push_back(c);
            }
        }
    }

    /// The offsets to send now, the newest of each partition.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Vec<Offset>> {
        if !self.under_way.is_empty() || self.waiting.is_empty() || self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.retry_at = None;
        self.stale = false;
        self.under_way.extend(self.waiting.drain(..));
        let all = self.under_way.iter().flat_map(|c| &c.offsets);
        let newest: BTreeMap<_, _> = all.map(|(lease, offset)| (lease.partition.clone(), offset.clone())).collect();
        Some(newest.into_iter().collect())
    }

    /// What came of them. Gives a code that tells something of the membership. `stale`: the group has begun another generation
    /// since they were sent, so a refusal tells nothing; what is still ours is committed in the new one.
    pub(crate) fn answered(&mut self, now: Instant, outcome: Result<Codes>, stale: bool) -> Option<i16> {
        let mut told = None;
        let mut again = Vec::new();
        self.stale = matches!(&outcome, Ok(codes) if codes.values().any(|code| *code == code::STALE_MEMBER_EPOCH));
        for c in std::mem::take(&mut self.under_way) {
            let codes = match &outcome {
                Err(e) if !is_final(e) => {
                    again.push(c);
                    continue;
                }
                Err(e) => {
                    c.fail(e);
                    continue;
                }
                Ok(codes) => codes,
            };
            let code = |p: &TopicPartition| codes.get(p).copied().filter(|code| *code != 0);
            let first = c.offsets.iter().find_map(|(lease, _)| code(&lease.partition));
            let stays = |code| matches!(code, UNKNOWN_TOPIC | code::REBALANCE_IN_PROGRESS);
            let passes = match first {
                Some(
                    code::ILLEGAL_GENERATION
                    | code::UNKNOWN_MEMBER_ID
                    | code::REBALANCE_IN_PROGRESS
                    | code::GROUP_ID_NOT_FOUND
                    | code::STALE_MEMBER_EPOCH,
                ) if stale => {
                    again.push(c);
                    continue;
                }
                // What is still ours can be committed in the epoch that the next heartbeat brings.
                Some(code::STALE_MEMBER_EPOCH) => true,
                first => first.is_some_and(|code| {
                    // A broker that does not know what went wrong may do better: a commit can be made twice.
                    (is_retriable_code(code) || code == UNKNOWN_SERVER_ERROR) && !stays(code)
                }),
            };
            told = told.or(first);
            if passes {
                again.push(c);
            } else {
                let refused = |code| Error::broker(code, format_args!("committing offsets of group {:?}", self.group));
                c.end(|partitions| partitions.iter().find_map(code).map_or(Ok(()), |code| Err(refused(code))));
            }
        }
        if again.is_empty() {
            self.backoff.reset();
        } else {
            self.retry_at = Some(now + self.backoff.next());
            let newer = std::mem::take(&mut self.waiting);
            again.into_iter().chain(newer).for_each(|c| enqueue(&mut self.waiting, c));
        }
        told
    }

    /// Whether one of these partitions is in a commit that is on its way, or could be.
    pub(crate) fn touch(&self, partitions: &[TopicPartition]) -> bool {
        let soon = self.waiting.iter().filter(|_| self.retry_at.is_none() || self.stale);
        let partitions = partitions.iter().collect();
        self.under_way.iter().chain(soon).any(|c| c.touches(&partitions))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    /// These partitions are not ours any more: nothing is committed for them.
    pub(crate) fn fail(&mut self, partitions: &[TopicPartition], why: &Error) {
        let partitions = partitions.iter().collect();
        self.under_way.retain_mut(|c| c.lose(&partitions, why));
        self.waiting.retain_mut(|c| c.lose(&partitions, why));
    }
}

#[cfg(test)]
#[path = "commits_tests.rs"]
mod tests;
