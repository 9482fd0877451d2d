#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::assignor::GroupMember;
use crate::consumer::group::member::Member;
use crate::consumer::group::requests::JoinedGroup;
use crate::consumer::group::session::drain_margin;
use crate::consumer::group::test_bed::{HEARTBEAT, REBALANCE, SESSION, TestBed, broken, config};
use crate::error::ErrorKind;

mod codes;
mod cooperative;
mod failure;
mod leaving;
mod random;

type Test = TestBed<ClassicMember>;

impl Test {
    fn new() -> Self {
        Self::with(REBALANCE)
    }

    fn with(rebalance_timeout: Duration) -> Self {
        let now = Instant::now();
        Self::of(ClassicMember::new(MemberConfig { rebalance_timeout, ..config() }, now), now)
    }

    /// A stable static member.
    fn static_member() -> Self {
        let mut t = Self::stable();
        t.m.session.config.instance_id = Some("i".into());
        t
    }

    fn connect(&mut self) {
        self.m.on_coordinator_found(self.now, Ok(None));
    }

    fn refuse_join(&mut self, code: i16) {
        self.m.on_join_response(self.now, Err((RequestFailure::Code(code), "m1".into())));
    }

    fn join(&mut self, generation: i32) {
        self.join_by(generation, "range");
    }

    fn join_by(&mut self, generation: i32, assignor: &str) {
        let joined = JoinedGroup {
            member_id: "m1".into(),
            generation,
            assignor: assignor.into(),
            is_leader: false,
            members: None,
        };
        self.m.on_join_response(self.now, Ok(joined));
    }

    fn sync(&mut self, partitions: &[i32]) {
        let p = partitions.iter().map(|p| TopicPartition::new("t", *p)).collect();
        self.m.on_sync_response(self.now, Ok(p));
    }

    fn heartbeat(&mut self, code: i16) {
        let outcome = if code == 0 { Ok(()) } else { Err(RequestFailure::Code(code)) };
        self.m.on_heartbeat_response(self.now, outcome);
    }

    /// A member of generation 1 that owns t/0 and t/1.
    fn stable() -> Self {
        let mut t = Self::new();
        t.connect();
        t.join(1);
        t.sync(&[0, 1]);
        t.actions();
        t
    }

    /// A member as in `stable`, with a cooperative assignor.
    fn cooperative() -> Self {
        let mut t = Self::new();
        t.connect();
        t.join_by(1, "cooperative-sticky");
        t.sync(&[0, 1]);
        t.actions();
        t
    }

    /// Lets the next heartbeat report a rebalance.
    fn hear_of_rebalance(&mut self) {
        self.wait();
        self.actions();
        self.heartbeat(code::REBALANCE_IN_PROGRESS);
    }

    /// A stable member with a heartbeat in flight.
    fn with_heartbeat_in_flight() -> Self {
        let mut t = Self::stable();
        t.wait();
        t.expect(&["heartbeat 1"]);
        t
    }
}

#[test]
fn joins_with_the_assigned_member_id() {
    let mut t = Test::new();
    t.expect(&["find"]);
    t.connect();
    t.expect(&["join \"\""]);
    t.refuse_join(code::MEMBER_ID_REQUIRED);
    t.expect(&["join \"m1\""]);
    t.join(1);
    t.expect(&["sync 1 0"]);
    assert!(!t.m.is_member());
    t.sync(&[0, 1]);
    t.expect(&["assigned 1 t/0,t/1"]);
    assert!(t.m.is_member());
    assert_eq!((t.m.member_id(), t.m.generation(), t.m.is_leader()), ("m1", 1, false));
}

#[test]
fn leader_computes_the_assignment() {
    let mut t = Test::new();
    t.connect();
    t.actions();
    let member = GroupMember::new("m1");
    let joined = JoinedGroup {
        member_id: "m1".into(),
        generation: 4,
        assignor: "roundrobin".into(),
        is_leader: true,
        members: Some(vec![member]),
    };
    t.m.on_join_response(t.now, Ok(joined));
    t.expect(&["assign 1 roundrobin"]);
    t.m.on_assignment_computed(t.now, vec![("m1".into(), Bytes::new())], false);
    t.expect(&["sync 4 1"]);
    t.sync(&[0]);
    t.expect(&["assigned 4 t/0"]);

    t.m.on_partitions_changed(t.now);
    t.expect(&["revoke t/0"]);
    t.m.on_drained(t.now);
    t.expect(&["revoked t/0", "join \"m1\""]);
    t.m.on_partitions_changed(t.now);
    t.expect(&[]);
}

#[test]
fn only_the_leader_rebalances_on_changed_partitions() {
    let mut t = Test::stable();
    t.m.on_partitions_changed(t.now);
    t.expect(&[]);
}

#[test]
fn assignor_not_offered_is_fatal() {
    let mut t = Test::new();
    t.connect();
    t.actions();
    let joined = JoinedGroup {
        member_id: "m".into(),
        generation: 1,
        assignor: "sticky".into(),
        is_leader: false,
        members: None,
    };
    t.m.on_join_response(t.now, Ok(joined));
    assert!(t.actions()[0].starts_with("failed Unsupported"));
}

#[test]
fn heartbeat_interval_doubles_after_a_join() {
    let mut t = Test::stable();
    let mut gaps = Vec::new();
    for _ in 0..6 {
        let before = t.now;
        t.wait();
        gaps.push(t.now - before);
        t.expect(&["heartbeat 1"]);
        t.heartbeat(0);
    }
    assert_eq!(gaps, [1, 2, 4, 8, 8, 8].map(|n| HEARTBEAT / 8 * n));
}

#[test]
fn rebalance_drains_with_heartbeats_before_the_rejoin() {
    let mut t = Test::with_heartbeat_in_flight();
    t.heartbeat(code::REBALANCE_IN_PROGRESS);
    t.expect(&["revoke t/0,t/1"]);
    for _ in 0..3 {
        t.wait();
        t.expect(&["heartbeat 1"]);
        t.heartbeat(code::REBALANCE_IN_PROGRESS);
        assert!(t.m.is_member(), "still owned");
    }
    t.m.on_drained(t.now);
    t.expect(&["revoked t/0,t/1", "join \"m1\""]);
    t.join(2);
    t.sync(&[0]);
    t.expect(&["sync 2 0", "assigned 2 t/0"]);
}

#[test]
fn drain_deadline_counts_from_the_last_stable_heartbeat() {
    let mut t = Test::stable();
    let stable = t.now;
    t.wait();
    t.heartbeat(code::REBALANCE_IN_PROGRESS);
    let deadline = t.drain_deadline();
    assert_eq!(deadline, Some(stable + REBALANCE - Duration::from_secs(5)));
    loop {
        t.wait();
        match t.actions().as_slice() {
            [one] if one == "heartbeat 1" => t.heartbeat(code::REBALANCE_IN_PROGRESS),
            other => {
                assert_eq!(other, ["revoked t/0,t/1", "join \"m1\""]);
                break;
            }
        }
    }
    assert_eq!(Some(t.now), deadline);
    assert_eq!(drain_margin(Duration::from_secs(10)), Duration::from_secs(1));
}

#[test]
fn heartbeat_response_after_a_join_is_ignored() {
    let mut t = Test::with_heartbeat_in_flight();
    t.heartbeat(code::REBALANCE_IN_PROGRESS);
    t.wait();
    t.m.on_drained(t.now);
    t.expect(&["revoke t/0,t/1", "heartbeat 1", "revoked t/0,t/1", "join \"m1\""]);
    t.heartbeat(code::UNKNOWN_MEMBER_ID);
    t.expect(&[]);
    assert_eq!(t.m.member_id(), "m1");
}

#[test]
fn rebalance_without_partitions_skips_the_drain() {
    let mut t = Test::new();
    t.connect();
    t.join(1);
    t.sync(&[]);
    t.wait();
    t.actions();
    t.heartbeat(code::REBALANCE_IN_PROGRESS);
    t.expect(&["join \"m1\""]);
}

#[test]
fn restarted_static_leader_computes_no_assignment() {
    let mut t = Test::new();
    t.connect();
    t.actions();
    let joined =
        JoinedGroup { member_id: "m2".into(), generation: 4, assignor: "range".into(), is_leader: true, members: None };
    t.m.on_join_response(t.now, Ok(joined));
    t.expect(&["sync 4 0"]);
    t.sync(&[0]);
    t.expect(&["assigned 4 t/0"]);
    t.m.on_partitions_changed(t.now);
    t.expect(&["revoke t/0"]);
}
