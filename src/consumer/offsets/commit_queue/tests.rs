#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::oneshot;

use super::*;
use crate::cluster::offset_commit::OffsetAndMetadata;
use crate::consumer::metrics::Meter;

fn p(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn at(offsets: &[(i32, i64)]) -> Vec<(Lease, OffsetAndMetadata)> {
    let lease = |i| Lease { partition: p(i), epoch: 1 };
    offsets.iter().map(|(i, offset)| (lease(*i), OffsetAndMetadata::new(*offset))).collect()
}

/// A queue, a clock, and a way to commit.
struct Test {
    queue: CommitQueue,
    now: Instant,
}

impl Test {
    fn new() -> Self {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        Self { queue: CommitQueue::new("g", backoff), now: Instant::now() }
    }

    /// Notifies the callers.
    fn notify(&mut self) {
        self.queue.settled.drain(..).for_each(|(reply, outcome)| _ = reply.send(outcome));
    }

    fn commit(&mut self, offsets: &[(i32, i64)]) -> oneshot::Receiver<Result<()>> {
        self.commit_until(self.now + Duration::from_secs(30), offsets)
    }

    fn commit_until(&mut self, deadline: Instant, offsets: &[(i32, i64)]) -> oneshot::Receiver<Result<()>> {
        let (reply, replied) = oneshot::channel();
        self.queue.push(at(offsets), deadline, Some(reply), |_| true);
        replied
    }

    /// Commits without a waiter.
    fn commit_unawaited(&mut self, deadline: Instant, offsets: &[(i32, i64)]) {
        self.queue.push(at(offsets), deadline, None, |_| true);
    }

    fn offsets(&self) -> Vec<(i32, i64)> {
        self.queue.offsets.iter().map(|(lease, p)| (lease.partition.partition, p.offset.offset)).collect()
    }

    fn sends(&mut self) -> Vec<(i32, i64)> {
        let offsets = self.queue.next_request(self.now).unwrap_or_default();
        offsets.into_iter().map(|(p, at)| (p.partition, at.offset)).collect()
    }

    fn expire(&mut self, now: Instant) -> Vec<i32> {
        let unawaited = self.queue.remove_expired(now);
        self.notify();
        partitions(&unawaited)
    }

    fn respond_with(&mut self, outcome: Result<CommitCodes>, stale: bool) -> Option<i16> {
        let concern = self.queue.on_response(self.now, outcome, stale);
        self.notify();
        concern
    }

    fn respond(&mut self, codes: &[(i32, i16)]) -> Option<i16> {
        self.respond_with(Ok(codes.iter().map(|(i, code)| (p(*i), *code)).collect()), false)
    }

    fn revoke(&mut self, partition: i32) {
        self.queue.drop_partitions(&[p(partition)], &Error::new(ErrorKind::GroupMembership, "revoked"));
        self.notify();
    }
}

fn partitions(unawaited: &Unawaited) -> Vec<i32> {
    unawaited.0.iter().map(|(lease, _)| lease.partition.partition).collect()
}

#[test]
fn one_request_carries_the_newest_offsets() {
    let mut t = Test::new();
    let mut first = t.commit(&[(0, 5)]);
    assert_eq!(t.sends(), [(0, 5)]);
    let mut second = t.commit(&[(0, 6), (1, 1)]);
    let mut third = t.commit(&[(0, 7)]);
    assert_eq!(t.sends(), [], "one at a time");
    assert_eq!(t.respond(&[(0, 0)]), None);
    first.try_recv().unwrap().unwrap();
    assert_eq!(t.sends(), [(0, 7), (1, 1)]);
    t.respond(&[(0, 0), (1, 12)]);
    assert_eq!(second.try_recv().unwrap().unwrap_err().broker_code(), Some(12));
    third.try_recv().unwrap().unwrap();
}

#[test]
fn commits_keep_their_order_when_the_coordinator_moves() {
    let mut t = Test::new();
    let mut first = t.commit(&[(0, 5)]);
    t.sends();
    let mut second = t.commit(&[(0, 6)]);
    assert_eq!(t.respond(&[(0, code::NOT_COORDINATOR)]), Some(code::NOT_COORDINATOR));
    assert_eq!(t.sends(), [], "after a wait");
    t.now = t.queue.retry_at().unwrap();
    assert_eq!(t.sends(), [(0, 6)]);
    let gone = Error::new(ErrorKind::Disconnected, "gone");
    assert_eq!(t.respond_with(Err(gone), false), None);
    t.now = t.queue.retry_at().unwrap();
    assert_eq!(t.sends(), [(0, 6)]);
    t.respond(&[(0, 0)]);
    first.try_recv().unwrap().unwrap();
    second.try_recv().unwrap().unwrap();
}

#[test]
fn a_former_member_commits_nothing() {
    for code in [code::UNKNOWN_MEMBER_ID, code::ILLEGAL_GENERATION, code::REBALANCE_IN_PROGRESS] {
        let mut t = Test::new();
        let mut commit = t.commit(&[(0, 5)]);
        t.sends();
        assert_eq!(t.respond(&[(0, code)]), Some(code));
        assert_eq!(commit.try_recv().unwrap().unwrap_err().kind(), ErrorKind::GroupMembership);
    }
    let mut t = Test::new();
    let (mut first, mut second) = (t.commit(&[(0, 5)]), t.commit(&[(0, 6)]));
    t.sends();
    t.revoke(0);
    assert!(first.try_recv().unwrap().is_err() && second.try_recv().unwrap().is_err());
    assert_eq!(t.respond(&[(0, 0)]), None, "the response has no waiter");
}

#[test]
fn a_commit_expires() {
    let mut t = Test::new();
    let mut commit = t.commit(&[(0, 5)]);
    let expiry = t.queue.expiry().unwrap();
    t.expire(expiry - Duration::from_millis(1));
    assert!(commit.try_recv().is_err());
    t.expire(expiry);
    let e = commit.try_recv().unwrap().unwrap_err();
    assert!(e.is_timeout() && e.to_string().contains("\"g\""), "{e}");
    assert_eq!(t.queue.expiry(), None);
}

#[test]
fn revoked_partitions_are_not_committed() {
    let mut t = Test::new();
    let (mut both, mut kept) = (t.commit(&[(0, 5), (1, 5)]), t.commit(&[(1, 6)]));
    assert!(t.queue.involves(&[p(0)]) && !t.queue.involves(&[p(2)]));
    assert_eq!(t.sends(), [(0, 5), (1, 6)]);
    let mut waiting = t.commit(&[(0, 7)]);
    t.revoke(0);
    assert!(both.try_recv().unwrap().is_err() && waiting.try_recv().unwrap().is_err());
    assert!(!t.queue.involves(&[p(0)]) && t.queue.involves(&[p(1)]));
    assert_eq!(t.respond(&[(0, 0), (1, 0)]), None);
    kept.try_recv().unwrap().unwrap();
}

#[test]
fn kept_partitions_are_committed_in_the_new_generation() {
    for code in [code::UNKNOWN_MEMBER_ID, code::ILLEGAL_GENERATION, code::REBALANCE_IN_PROGRESS] {
        let mut t = Test::new();
        let mut commit = t.commit(&[(0, 5)]);
        t.sends();
        let refused = HashMap::from([(p(0), code)]);
        assert_eq!(t.respond_with(Ok(refused), true), None, "it does not concern the present generation");
        assert!(!t.queue.involves(&[p(0)]), "a drain does not wait for what was refused");
        t.now = t.queue.retry_at().unwrap();
        assert_eq!(t.sends(), [(0, 5)]);
        t.respond(&[(0, 0)]);
        commit.try_recv().unwrap().unwrap();
    }
}

#[test]
fn a_newer_commit_replaces_an_older_one() {
    let mut t = Test::new();
    let mut in_flight = t.commit(&[(0, 1)]);
    t.sends();
    let (mut old, mut other) = (t.commit(&[(0, 2)]), t.commit(&[(1, 2)]));
    for offset in 3..10_000 {
        drop(t.commit(&[(0, offset)]));
    }
    assert_eq!(t.offsets().len(), 2);
    // Refused ones are superseded as well: they are not sent again after what is newer.
    t.respond(&[(0, code::COORDINATOR_LOAD_IN_PROGRESS)]);
    t.now = t.queue.retry_at().unwrap();
    assert_eq!(t.sends(), [(0, 9_999), (1, 2)]);
    assert!(in_flight.try_recv().is_err() && old.try_recv().is_err());
    t.respond(&[(0, 0), (1, 12)]);
    in_flight.try_recv().unwrap().unwrap();
    old.try_recv().unwrap().unwrap();
    assert_eq!(
        other.try_recv().unwrap().unwrap_err().broker_code(),
        Some(12),
        "each gets the result of its own partitions"
    );
    assert!(t.queue.is_empty());
}

#[test]
fn a_replaced_commit_keeps_its_deadline() {
    let mut t = Test::new();
    let mut first = t.commit(&[(0, 1)]);
    t.sends();
    t.respond(&[(0, code::NOT_COORDINATOR)]);
    t.now += Duration::from_secs(20);
    let mut second = t.commit(&[(0, 2)]);
    assert_eq!(t.sends(), [(0, 2)]);
    t.now = t.queue.expiry().unwrap();
    t.expire(t.now);
    let e = first.try_recv().unwrap().unwrap_err();
    assert!(e.is_timeout() && e.to_string().contains("may have been committed or not"), "{e}");
    assert!(second.try_recv().is_err());
    t.respond(&[(0, 0)]);
    second.try_recv().unwrap().unwrap();
}

#[test]
fn a_retried_commit_never_overwrites_a_newer_one() {
    let mut t = Test::new();
    let _first = t.commit(&[(0, 1), (1, 1)]);
    t.sends();
    let _second = t.commit(&[(0, 2)]);
    t.respond(&[(0, code::NOT_COORDINATOR), (1, code::NOT_COORDINATOR)]);
    t.now = t.queue.retry_at().unwrap();
    assert_eq!(t.sends(), [(0, 2), (1, 1)]);
}

#[tokio::test]
async fn a_closed_queue_fails_commits() {
    let status = Arc::new(Status::new(Meter::default()));
    status.alone(&[Lease { partition: p(0), epoch: 1 }]);
    let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let commits = Commits::new("g", backoff, status);
    let (now, deadline) = (Instant::now(), Instant::now() + Duration::from_secs(30));
    let push = |offset| {
        let (reply, replied) = oneshot::channel();
        commits.push(at(&[(0, offset)]), deadline, Some(reply));
        replied
    };
    let mut sent = push(1);
    commits.pushed().await;
    assert!(commits.with(|queue| queue.next_request(now)).is_some());
    let mut waiting = push(2);
    commits.with(|queue| queue.close(&Error::new(ErrorKind::Closed, "over")));
    let sent = sent.try_recv().unwrap().unwrap_err();
    assert!(sent.is_closed() && sent.to_string().contains("may have been made or not"), "{sent}");
    for mut commit in [push(3), push(4)] {
        assert_eq!(commit.try_recv().unwrap().unwrap_err().to_string(), "over");
    }
    assert_eq!(waiting.try_recv().unwrap().unwrap_err().to_string(), "over");
    assert!(commits.with(|queue| queue.is_empty()));
}

#[test]
fn a_commit_is_refused_once_its_lease_has_ended() {
    let status = Arc::new(Status::new(Meter::default()));
    let [old, new] = [1, 2].map(|epoch| Lease { partition: p(0), epoch });
    status.alone(std::slice::from_ref(&old));
    let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let commits = Commits::new("g", backoff, Arc::clone(&status));
    let push = |lease: &Lease, offset| {
        let (reply, replied) = oneshot::channel();
        let offsets = vec![(lease.clone(), OffsetAndMetadata::new(offset))];
        commits.push(offsets, Instant::now() + Duration::from_secs(30), Some(reply));
        replied
    };
    let mut accepted = push(&old, 5);
    status.unassigned(&[p(0)], false);
    status.alone(std::slice::from_ref(&new));
    let mut refused = push(&old, 6);
    assert_eq!(refused.try_recv().unwrap().unwrap_err().kind(), ErrorKind::GroupMembership);
    assert!(accepted.try_recv().is_err(), "the group's task decides on those from before");
    let mut both = push(&new, 7);
    assert!(both.try_recv().is_err());
    assert_eq!(commits.with(|queue| queue.offsets.len()), 2);
}

#[test]
fn a_drain_waits_for_a_stale_epoch_commit() {
    for generation_is_over in [false, true] {
        let mut t = Test::new();
        let mut commit = t.commit(&[(0, 5)]);
        t.sends();
        let refused = HashMap::from([(p(0), code::STALE_MEMBER_EPOCH)]);
        let returned = t.respond_with(Ok(refused), generation_is_over);
        assert_eq!(returned, Some(code::STALE_MEMBER_EPOCH).filter(|_| !generation_is_over));
        assert!(commit.try_recv().is_err() && t.queue.involves(&[p(0)]));
        t.now = t.queue.retry_at().unwrap();
        assert_eq!(t.sends(), [(0, 5)]);
        t.respond(&[(0, 0)]);
        commit.try_recv().unwrap().unwrap();
        assert!(!t.queue.involves(&[p(0)]));
    }
}

#[test]
fn a_commit_touches_only_its_own_partitions() {
    let most_bytes = |n: i32| {
        let mut t = Test::new();
        let _waiting: Vec<_> = (0..n).map(|i| t.commit(&[(i, 0)])).collect();
        assert_eq!(t.offsets().len(), n as usize);
        t.queue.sweep_at = usize::MAX; // dropped waiters are swept elsewhere
        t.queue.waiters.reserve(n as usize);
        let cost = |i| allocation_counter::measure(|| drop(t.commit(&[(i, 1)]))).bytes_total;
        (0..n).map(cost).max().unwrap()
    };
    let few = most_bytes(10);
    assert_eq!((most_bytes(1_000), most_bytes(20_000)), (few, few), "bytes to commit one of many");
}

#[test]
fn dropped_waiters_take_no_memory() {
    let mut t = Test::new();
    let mut replied = t.commit(&[(0, 0)]);
    for i in 0..10_000 {
        drop(t.commit(&[(1, i)]));
    }
    let waiters = t.queue.waiters.len();
    assert!(waiters <= 2 * MANY_WAITERS && t.offsets().len() == 2, "{waiters}");
    t.sends();
    t.respond(&[(0, 0), (1, 0)]);
    replied.try_recv().unwrap().unwrap();
}

#[test]
fn a_waiter_gets_the_first_failure() {
    let mut t = Test::new();
    let (mut both, mut one) = (t.commit(&[(0, 5), (1, 6)]), t.commit(&[(0, 7)]));
    t.commit_unawaited(t.now + Duration::from_secs(30), &[(2, 8)]);
    let first = |lease: &Lease| (lease.partition.partition == 0).then_some(Ok(()));
    assert!(partitions(&t.queue.settle(|_| true, first)).is_empty());
    t.notify();
    one.try_recv().unwrap().unwrap();
    assert!(both.try_recv().is_err(), "the other partition waits");
    let failed = t.queue.settle(|_| true, |lease| Some(Err(Error::new(ErrorKind::Closed, format!("{lease}")))));
    t.notify();
    assert_eq!((partitions(&failed), failed.0[0].1.to_string()), (vec![2], "t/2".to_owned()));
    assert_eq!(both.try_recv().unwrap().unwrap_err().to_string(), "t/1");
    assert!(t.queue.is_empty() && t.queue.waiters.is_empty());
}

#[test]
fn each_commit_has_its_own_deadline() {
    let mut t = Test::new();
    let (now, second) = (t.now, Duration::from_secs(1));
    let mut first = t.commit_until(now, &[(0, 1)]);
    t.commit_unawaited(now, &[(1, 1)]);
    t.commit_unawaited(now + second, &[(0, 2)]);
    assert_eq!(t.queue.expiry(), Some(now));
    assert_eq!(t.expire(now), [1]);
    assert!(first.try_recv().unwrap().is_err());
    assert_eq!((t.offsets(), t.queue.expiry()), (vec![(0, 2)], Some(now + second)));
    assert!(t.expire(now).is_empty());
    assert_eq!(t.sends(), [(0, 2)]);
    assert!(t.expire(now + second).is_empty());
    assert!(!t.queue.is_empty() && t.queue.expiry().is_none(), "it is in flight, and nobody waits");
}
