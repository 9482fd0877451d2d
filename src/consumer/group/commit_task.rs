//! When what is committed: as it is asked for, by itself at an interval, and before partitions are given up.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::coordinator_task::{CommitOutcome, CoordinatorTask};
use crate::cluster::offset_commit::{OffsetAndMetadata, PartitionOffset};
use crate::consumer::lease::Lease;
use crate::consumer::offsets::commits::Commit;
use crate::consumer::offsets::committer::not_ours;
use crate::error::{Result, kind_of};

/// How long leaving waits for commits.
const FINAL_COMMITS_TIMEOUT: Duration = Duration::from_secs(4);

/// Who asked to leave.
pub(super) struct Leaving {
    pub(super) reply: oneshot::Sender<Result<()>>,
    /// Until when commits are waited for before; none when leaving has begun.
    pub(super) commits_until: Option<Instant>,
}

impl CoordinatorTask {
    /// Takes the commits that were asked for, of what is still ours.
    pub(super) fn take_commits(&mut self) {
        let (asked, group) = (self.context.outbox.take(), &self.context.group);
        let why = |lease: &Lease, offset| not_ours(&lease.partition, offset, group);
        self.commits.take(asked, |lease| self.leases.holds(lease), why);
    }

    /// The end of a log is where this group starts: without a commit, records that come before its first commit would be
    /// skipped by the next owner, who would start at the end as it is then.
    pub(super) fn pin(&mut self, lease: Lease, offset: i64) {
        if self.leases.holds(&lease) {
            self.commit(lease, OffsetAndMetadata::new(offset));
        }
    }

    fn commit(&mut self, lease: Lease, offset: OffsetAndMetadata) {
        let deadline = Instant::now() + self.context.client.config().request_timeout;
        self.commits.push(Commit::new(vec![(lease, offset)], deadline));
    }

    pub(super) fn auto_commit_if_due(&mut self) {
        let now = Instant::now();
        if self.auto_commit_at.is_some_and(|at| now >= at) {
            self.auto_commit();
            self.auto_commit_at = self.context.config.auto_commit_interval.map(|interval| now + interval);
        }
    }

    /// Commits what the program has handled, if it leaves that to us.
    fn auto_commit(&mut self) {
        if self.auto_commit_at.is_none() {
            return;
        }
        for (lease, offset) in self.context.events.handled_offsets() {
            let committed = self.context.status.committed_offset(&lease.partition);
            if self.leases.holds(&lease) && committed.is_none_or(|at| at.offset != offset.offset) {
                self.commit(lease, offset);
            }
        }
    }

    /// The program has finished with what is to be given up. What it has handled until then is committed first.
    pub(super) fn drained(&mut self) {
        match &mut self.draining {
            Some(draining) if !draining.flushed => {
                draining.flushed = true;
                self.take_commits();
                self.auto_commit();
            }
            _ => {
                self.draining = None;
                self.membership.drained(Instant::now());
            }
        }
    }

    pub(super) fn leave(&mut self, reply: oneshot::Sender<Result<()>>) {
        self.take_commits();
        self.auto_commit();
        self.leaving = Some(Leaving { reply, commits_until: Some(Instant::now() + FINAL_COMMITS_TIMEOUT) });
    }

    /// Leaves, if that was asked for, once the last commits are answered or have taken too long. Whether it begins now.
    pub(super) fn leave_if_ready(&mut self) -> bool {
        let now = Instant::now();
        let Some(Leaving { commits_until, .. }) = &mut self.leaving else { return false };
        let ready = commits_until.is_some_and(|until| self.commits.is_empty() || now >= until);
        if ready {
            *commits_until = None;
            self.membership.leave(now);
        }
        ready
    }

    /// What came of a request.
    pub(super) fn committed(&mut self, (generation, offsets, outcome): CommitOutcome) {
        let error = match &outcome {
            Ok(codes) => codes.values().find(|code| **code != 0).map(|code| kind_of(*code)),
            Err(e) => Some(e.kind()),
        };
        self.context.status.meter().committed(offsets.len(), error);
        if let Ok(codes) = &outcome {
            let taken = |(p, _): &PartitionOffset| codes.get(p) == Some(&0);
            self.context.status.committed(&offsets.into_iter().filter(taken).collect());
        }
        let now = Instant::now();
        let stale = generation != self.membership.generation() || !self.membership.is_member();
        if let Some(code) = self.commits.answered(now, outcome, stale) {
            self.membership.commit_refused(now, code);
        }
    }
}
