#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use kafka_protocol::messages::offset_fetch_response::{OffsetFetchResponsePartition, OffsetFetchResponseTopic};

use super::*;

fn p(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
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
        let (reply, replied) = oneshot::channel();
        let lease = |i| Lease { partition: p(i), epoch: 1 };
        let offsets = offsets.iter().map(|(i, offset)| (lease(*i), OffsetAndMetadata::new(*offset))).collect();
        let deadline = self.now + Duration::from_secs(30);
        self.commits.push(Commit { offsets, deadline, reply: Some(reply) });
        replied
    }

    fn sends(&mut self) -> Vec<(i32, i64)> {
        let offsets = self.commits.next(self.now).unwrap_or_default();
        offsets.into_iter().map(|(p, at)| (p.partition, at.offset)).collect()
    }

    fn answer(&mut self, codes: &[(i32, i16)]) -> Option<i16> {
        self.commits.answered(self.now, Ok(codes.iter().map(|(i, code)| (p(*i), *code)).collect()), false)
    }
}

#[test]
fn what_waits_goes_in_one_request_with_the_newest_offset_of_each_partition() {
    let mut t = Test::new();
    let mut first = t.commit(&[(0, 5)]);
    assert_eq!(t.sends(), [(0, 5)]);
    let mut second = t.commit(&[(0, 6), (1, 1)]);
    let mut third = t.commit(&[(0, 7)]);
    assert_eq!(t.sends(), [], "one at a time");
    assert_eq!(t.answer(&[(0, 0)]), None);
    first.try_recv().unwrap().unwrap();
    assert_eq!(t.sends(), [(0, 7), (1, 1)]);
    t.answer(&[(0, 0), (1, 12)]);
    assert_eq!(second.try_recv().unwrap().unwrap_err().broker_code(), Some(12));
    third.try_recv().unwrap().unwrap();
}

#[test]
fn a_coordinator_that_moves_is_asked_again_in_the_same_order() {
    let mut t = Test::new();
    let mut first = t.commit(&[(0, 5)]);
    t.sends();
    let mut second = t.commit(&[(0, 6)]);
    assert_eq!(t.answer(&[(0, code::NOT_COORDINATOR)]), Some(code::NOT_COORDINATOR));
    assert_eq!(t.sends(), [], "after a wait");
    t.now = t.commits.retry_at().unwrap();
    assert_eq!(t.sends(), [(0, 6)]);
    let gone = Error::new(ErrorKind::Disconnected, "gone");
    assert_eq!(t.commits.answered(t.now, Err(gone), false), None);
    t.now = t.commits.retry_at().unwrap();
    assert_eq!(t.sends(), [(0, 6)]);
    t.answer(&[(0, 0)]);
    first.try_recv().unwrap().unwrap();
    second.try_recv().unwrap().unwrap();
}

#[test]
fn who_is_no_member_commits_nothing() {
    for code in [code::UNKNOWN_MEMBER_ID, code::ILLEGAL_GENERATION, code::REBALANCE_IN_PROGRESS] {
        let mut t = Test::new();
        let mut commit = t.commit(&[(0, 5)]);
        t.sends();
        assert_eq!(t.answer(&[(0, code)]), Some(code));
        assert_eq!(commit.try_recv().unwrap().unwrap_err().kind(), ErrorKind::GroupMembership);
    }
    let mut t = Test::new();
    let (mut first, mut second) = (t.commit(&[(0, 5)]), t.commit(&[(0, 6)]));
    t.sends();
    t.commits.fail(&[p(0)], &Error::new(ErrorKind::GroupMembership, "revoked"));
    assert!(first.try_recv().unwrap().is_err() && second.try_recv().unwrap().is_err());
    assert_eq!(t.answer(&[(0, 0)]), None, "the answer has no one to go to");
}

#[test]
fn a_commit_does_not_wait_for_ever() {
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
fn committed_offsets_are_those_that_there_are() {
    let partition = |index, offset, code| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_error_code(code)
    };
    let answer = |partitions| {
        let topic = OffsetFetchResponseTopic::default().with_name(topic_name("t")).with_partitions(partitions);
        OffsetFetchResponse::default().with_topics(vec![topic])
    };
    let known = answer(vec![partition(0, 7, 0), partition(1, -1, 0), partition(2, 3, UNKNOWN_TOPIC)]);
    assert_eq!(committed_answer(&known).unwrap(), HashMap::from([(p(0), OffsetAndMetadata::new(7))]));
    let unstable = answer(vec![partition(0, 7, 0), partition(1, -1, 88)]);
    assert_eq!(committed_answer(&unstable).unwrap_err(), 88);
    assert_eq!(committed_answer(&known.with_error_code(14)).unwrap_err(), 14);
}

#[test]
fn what_is_given_up_is_committed_no_more_and_the_rest_goes_on() {
    let mut t = Test::new();
    let (mut both, mut kept) = (t.commit(&[(0, 5), (1, 5)]), t.commit(&[(1, 6)]));
    assert!(t.commits.touch(&[p(0)]) && !t.commits.touch(&[p(2)]));
    assert_eq!(t.sends(), [(0, 5), (1, 6)]);
    let mut waiting = t.commit(&[(0, 7)]);
    t.commits.fail(&[p(0)], &Error::new(ErrorKind::GroupMembership, "revoked"));
    assert!(both.try_recv().unwrap().is_err() && waiting.try_recv().unwrap().is_err());
    assert!(!t.commits.touch(&[p(0)]) && t.commits.touch(&[p(1)]));
    assert_eq!(t.answer(&[(0, 0), (1, 0)]), None);
    kept.try_recv().unwrap().unwrap();
}

#[test]
fn what_was_kept_through_a_rebalance_is_committed_in_the_new_generation() {
    for code in [code::UNKNOWN_MEMBER_ID, code::ILLEGAL_GENERATION, code::REBALANCE_IN_PROGRESS] {
        let mut t = Test::new();
        let mut commit = t.commit(&[(0, 5)]);
        t.sends();
        let refused = HashMap::from([(p(0), code)]);
        assert_eq!(t.commits.answered(t.now, Ok(refused), true), None, "it tells nothing of the present generation");
        assert!(!t.commits.touch(&[p(0)]), "a drain does not wait for what was refused");
        t.now = t.commits.retry_at().unwrap();
        assert_eq!(t.sends(), [(0, 5)]);
        t.answer(&[(0, 0)]);
        commit.try_recv().unwrap().unwrap();
    }
}

#[test]
fn what_is_refused_for_its_epoch_goes_again_and_a_drain_waits_for_it() {
    for generation_is_over in [false, true] {
        let mut t = Test::new();
        let mut commit = t.commit(&[(0, 5)]);
        t.sends();
        let refused = HashMap::from([(p(0), code::STALE_MEMBER_EPOCH)]);
        let told = t.commits.answered(t.now, Ok(refused), generation_is_over);
        assert_eq!(told, Some(code::STALE_MEMBER_EPOCH).filter(|_| !generation_is_over));
        assert!(commit.try_recv().is_err() && t.commits.touch(&[p(0)]));
        t.now = t.commits.retry_at().unwrap();
        assert_eq!(t.sends(), [(0, 5)]);
        t.answer(&[(0, 0)]);
        commit.try_recv().unwrap().unwrap();
        assert!(!t.commits.touch(&[p(0)]));
    }
}
