#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::oneshot;

use super::*;
use crate::cluster::offset_commit::OffsetAndMetadata;

fn p(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn at(offsets: &[(i32, i64)]) -> Vec<(Lease, OffsetAndMetadata)> {
    let lease = |i| Lease { partition: p(i), epoch: 1 };
    offsets.iter().map(|(i, offset)| (lease(*i), OffsetAndMetadata::new(*offset))).collect()
}

/// A queue, a clock, and a way to commit.
struct Test {
    commits: Commits,
    now: Instant,
}

impl Test {
    fn new() -> Self {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        Self { commits: Commits::new("g", backoff), now: Instant::now() }
    }

    fn commit(&mut self, offsets: &[(i32, i64)]) -> oneshot::Receiver<Result<()>> {
        let (commit, replied) = Commit::awaited(at(offsets), self.now + Duration::from_secs(30));
        self.commits.push(commit);
        replied
    }

    fn sends(&mut self) -> Vec<(i32, i64)> {
        let offsets = self.commits.next_request(self.now).unwrap_or_default();
        offsets.into_iter().map(|(p, at)| (p.partition, at.offset)).collect()
    }

    fn respond(&mut self, codes: &[(i32, i16)]) -> Option<i16> {
        self.commits.on_response(self.now, Ok(codes.iter().map(|(i, code)| (p(*i), *code)).collect()), false)
    }
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
    t.now = t.commits.retry_at().unwrap();
    assert_eq!(t.sends(), [(0, 6)]);
    let gone = Error::new(ErrorKind::Disconnected, "gone");
    assert_eq!(t.commits.on_response(t.now, Err(gone), false), None);
    t.now = t.commits.retry_at().unwrap();
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
    t.commits.drop_partitions(&[p(0)], &Error::new(ErrorKind::GroupMembership, "revoked"));
    assert!(first.try_recv().unwrap().is_err() && second.try_recv().unwrap().is_err());
    assert_eq!(t.respond(&[(0, 0)]), None, "the response has no waiter");
}

#[test]
fn a_commit_expires() {
    let mut t = Test::new();
    let mut commit = t.commit(&[(0, 5)]);
    let expiry = t.commits.expiry().unwrap();
    t.commits.expire(expiry - Duration::from_millis(1));
    assert!(commit.try_recv().is_err());
    t.commits.expire(expiry);
    let e = commit.try_recv().unwrap().unwrap_err();
    assert!(e.is_timeout() && e.to_string().contains("\"g\""), "{e}");
    assert_eq!(t.commits.expiry(), None);
}

#[test]
fn revoked_partitions_are_not_committed() {
    let mut t = Test::new();
    let (mut both, mut kept) = (t.commit(&[(0, 5), (1, 5)]), t.commit(&[(1, 6)]));
    assert!(t.commits.involves(&[p(0)]) && !t.commits.involves(&[p(2)]));
    assert_eq!(t.sends(), [(0, 5), (1, 6)]);
    let mut waiting = t.commit(&[(0, 7)]);
    t.commits.drop_partitions(&[p(0)], &Error::new(ErrorKind::GroupMembership, "revoked"));
    assert!(both.try_recv().unwrap().is_err() && waiting.try_recv().unwrap().is_err());
    assert!(!t.commits.involves(&[p(0)]) && t.commits.involves(&[p(1)]));
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
        assert_eq!(t.commits.on_response(t.now, Ok(refused), true), None, "it does not concern the present generation");
        assert!(!t.commits.involves(&[p(0)]), "a drain does not wait for what was refused");
        t.now = t.commits.retry_at().unwrap();
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
    assert_eq!(t.commits.pending.offsets().count(), 2);
    // Refused ones are superseded as well: they are not sent again after what is newer.
    t.respond(&[(0, code::COORDINATOR_LOAD_IN_PROGRESS)]);
    t.now = t.commits.retry_at().unwrap();
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
    assert!(t.commits.is_empty());
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
    t.now = t.commits.expiry().unwrap();
    t.commits.expire(t.now);
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
    t.now = t.commits.retry_at().unwrap();
    assert_eq!(t.sends(), [(0, 2), (1, 1)]);
}

#[tokio::test]
async fn a_closed_outbox_fails_commits() {
    let outbox = Outbox::default();
    let deadline = Instant::now() + Duration::from_secs(30);
    let push = |offset| {
        let (commit, replied) = Commit::awaited(at(&[(0, offset)]), deadline);
        outbox.push(commit);
        replied
    };
    let _first = push(1);
    let _second = push(2);
    outbox.ready().await;
    let taken = outbox.take();
    assert_eq!(taken.offsets().map(|(_, at)| at.offset).collect::<Vec<_>>(), [2]);
    let mut waiting = push(3);
    outbox.close(&Error::new(ErrorKind::Closed, "over"));
    assert_eq!(waiting.try_recv().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(push(4).try_recv().unwrap().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_drain_waits_for_a_stale_epoch_commit() {
    for generation_is_over in [false, true] {
        let mut t = Test::new();
        let mut commit = t.commit(&[(0, 5)]);
        t.sends();
        let refused = HashMap::from([(p(0), code::STALE_MEMBER_EPOCH)]);
        let returned = t.commits.on_response(t.now, Ok(refused), generation_is_over);
        assert_eq!(returned, Some(code::STALE_MEMBER_EPOCH).filter(|_| !generation_is_over));
        assert!(commit.try_recv().is_err() && t.commits.involves(&[p(0)]));
        t.now = t.commits.retry_at().unwrap();
        assert_eq!(t.sends(), [(0, 5)]);
        t.respond(&[(0, 0)]);
        commit.try_recv().unwrap().unwrap();
        assert!(!t.commits.involves(&[p(0)]));
    }
}
