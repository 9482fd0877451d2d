//! When offsets are committed: on request, at the auto-commit interval, and before partitions are
//! revoked.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::coordinator_task::CoordinatorTask;
use super::member::Member;
use super::requests::instance_id;
use crate::cluster::offset_commit::{
    CommitCodes, OffsetAndMetadata, PartitionOffset, decode_commit_response, encode_commit,
};
use crate::code;
use crate::consumer::lease::Lease;
use crate::error::{Result, kind_of};
use crate::metrics::Observation;
use crate::wire::Connection;

/// Maximum time that leaving waits for commits.
const FINAL_COMMITS_TIMEOUT: Duration = Duration::from_secs(4);

/// A request of the application to leave the group.
pub(super) struct PendingLeave {
    pub(super) reply: oneshot::Sender<Result<()>>,
    /// Until when commits are awaited first; none once leaving has begun.
    pub(super) commits_until: Option<Instant>,
}

/// The generation in which offsets were sent, the offsets, and the result.
pub(super) type CommitOutcome = (i32, Vec<PartitionOffset>, Result<CommitCodes>);

impl CoordinatorTask {
    /// Commits the end of a log, where this group starts. Without that, a next owner would start at
    /// the end as it is then, and skip the records before the group's first commit.
    pub(super) fn commit_reset_offset(&mut self, lease: Lease, offset: i64) {
        if self.context.status.holds(&lease) {
            self.commit(lease, OffsetAndMetadata::new(offset));
        }
    }

    fn commit(&mut self, lease: Lease, offset: OffsetAndMetadata) {
        let deadline = Instant::now() + self.context.client.config().request_timeout;
        self.context.commits.push(vec![(lease, offset)], deadline, None);
    }

    pub(super) fn auto_commit_if_due(&mut self) {
        let now = Instant::now();
        if self.auto_commit_at.is_some_and(|at| now >= at) {
            self.auto_commit();
            self.auto_commit_at = self.context.config.auto_commit_interval.map(|interval| now + interval);
        }
    }

    /// Commits what the application has handled, if auto-commit is on.
    fn auto_commit(&mut self) {
        if self.auto_commit_at.is_none() {
            return;
        }
        for (lease, offset) in self.context.events.handled_offsets() {
            let committed = self.context.status.committed_offset(&lease.partition);
            if self.context.status.holds(&lease) && committed.is_none_or(|at| at.offset != offset.offset) {
                self.commit(lease, offset);
            }
        }
    }

    pub(super) fn send_commit(
        &self,
        connection: &Connection,
        offsets: Vec<PartitionOffset>,
        timeout: Duration,
    ) -> BoxFuture<'static, CommitOutcome> {
        let (member_id, generation) = (self.member.member_id(), self.member.generation());
        let request = encode_commit(&self.context.group, member_id, generation, &offsets)
            .with_group_instance_id(instance_id(&self.context.config));
        let response = connection.submit(request, timeout);
        async move { (generation, offsets, response.await.map(|r| decode_commit_response(&r))) }.boxed()
    }

    /// Revokes drained partitions, with their last commits first. It is called twice:
    ///
    /// 1. The application has finished and signals so. Its last commits are in the queue, and what
    ///    it has handled is auto-committed.
    /// 2. `drained` now waits until no commit of these partitions is pending. Then they are
    ///    revoked, and the next owner's OffsetFetch finds all that was handled here.
    ///
    /// Revoking in step 1 would end their leases, so that those commits would be refused and the
    /// records handled twice. If the coordinator does not take them, the member revokes at the
    /// drain deadline.
    pub(super) fn on_drained(&mut self) {
        match &mut self.revocation {
            Some(revocation) if !revocation.flushed => {
                revocation.flushed = true;
                self.auto_commit();
            }
            _ => {
                self.revocation = None;
                self.member.on_drained(Instant::now());
            }
        }
    }

    /// Has a member of KIP-848 send its next heartbeat now, if it has no other epoch than the refused
    /// one. A classic member learns of its generation when it rejoins.
    pub(super) fn refresh_generation(&mut self, refused: i32) {
        if refused == self.member.generation() {
            self.member.on_commit_refused(Instant::now(), code::STALE_MEMBER_EPOCH);
        }
    }

    pub(super) fn leave(&mut self, reply: oneshot::Sender<Result<()>>) {
        self.auto_commit();
        let commits_until = Some(Instant::now() + FINAL_COMMITS_TIMEOUT);
        self.leaving = Some(PendingLeave { reply, commits_until });
    }

    /// Leaves, if requested, once no commit is pending or they have taken too long; returns whether
    /// it starts now.
    pub(super) fn leave_if_ready(&mut self) -> bool {
        let now = Instant::now();
        let Some(PendingLeave { commits_until, .. }) = &mut self.leaving else { return false };
        let ready =
            commits_until.is_some_and(|until| self.context.commits.with(|commits| commits.is_empty()) || now >= until);
        if ready {
            *commits_until = None;
            self.member.leave(now);
        }
        ready
    }

    pub(super) fn on_committed(&mut self, (generation, offsets, outcome): CommitOutcome) {
        let error = match &outcome {
            Ok(codes) => codes.values().find(|code| **code != 0).map(|code| kind_of(*code)),
            Err(e) => Some(e.kind()),
        };
        let status = &self.context.status;
        status.meter().report(|group| Observation::Committed { group, partitions: offsets.len(), error });
        if let Ok(codes) = &outcome {
            let accepted = |(p, _): &PartitionOffset| codes.get(p) == Some(&0);
            status.committed(&offsets.into_iter().filter(accepted).collect());
        }
        let now = Instant::now();
        // 1. A commit is in flight in generation 5.
        // 2. The member rejoins: generation 6.
        // 3. The commit is refused with ILLEGAL_GENERATION.
        // This says nothing about generation 6, and must not cost the member its partitions.
        let stale = generation != self.member.generation() || !self.member.is_member();
        if let Some(code) = self.context.commits.with(|commits| commits.on_response(now, outcome, stale)) {
            self.member.on_commit_refused(now, code);
        }
    }
}
