#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::consumer::group::test_bed::{REBALANCE, SESSION, TestBed, broken as connection_lost, config};

mod failure;
mod leaving;
mod random;

const INTERVAL: Duration = Duration::from_secs(5);

fn t(partitions: &[i32]) -> BTreeSet<IdPartition> {
    of(1, partitions)
}

fn of(topic: u128, partitions: &[i32]) -> BTreeSet<IdPartition> {
    partitions.iter().map(|p| (Uuid::from_u128(topic), *p)).collect()
}

type Test = TestBed<Kip848Member>;

impl Test {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: MemberConfig) -> Self {
        let now = Instant::now();
        Self::of(Kip848Member::new(config, "own".into(), now), now)
    }

    fn connect(&mut self) {
        self.m.on_coordinator_found(self.now, Ok(Some(1)));
    }

    fn learn_names(&mut self) {
        self.m.on_topic_names(self.now, vec![(Uuid::from_u128(1), "t".into())]);
    }

    fn respond(&mut self, epoch: i32, assignment: Option<BTreeSet<IdPartition>>) {
        let member_id = Some("given".to_owned()).filter(|_| self.m.member_id().is_empty());
        self.m.on_heartbeat_response(
            self.now,
            Ok(HeartbeatResponse { member_id, epoch, interval: INTERVAL, assignment }),
        );
    }

    fn refuse(&mut self, code: i16) {
        self.m.on_heartbeat_response(self.now, Err((RequestFailure::Code(code), String::new())));
    }

    /// A member in epoch 2 that owns t/0 and t/1 and has reported them.
    fn stable() -> Self {
        Self::stable_with(config())
    }

    fn stable_with(config: MemberConfig) -> Self {
        let mut test = Self::with(config);
        test.connect();
        test.learn_names();
        test.respond(2, Some(t(&[0, 1])));
        test.respond(2, None);
        test.expect(&["find", "heartbeat own 0 full owning []", "assigned 2 t/0,t/1", "heartbeat own 2 owning [0,1]"]);
        test
    }

    /// A stable member with a heartbeat in flight.
    fn with_heartbeat_in_flight() -> Self {
        let mut test = Self::stable();
        test.wait();
        test.expect(&["heartbeat own 2"]);
        test
    }

    /// A member that drains t/1, with a heartbeat in flight.
    fn draining() -> Self {
        let mut test = Self::with_heartbeat_in_flight();
        test.respond(2, Some(t(&[0])));
        test.wait();
        test.expect(&["revoke t/1", "heartbeat own 2"]);
        test
    }
}

fn broken() -> (RequestFailure, String) {
    (connection_lost(), String::new())
}

#[test]
fn member_generates_its_id_from_version_1() {
    let mut test = Test::new();
    test.m.on_coordinator_found(test.now, Ok(Some(1)));
    test.expect(&["find", "heartbeat own 0 full owning []"]);
    let mut test = Test::new();
    test.m.on_coordinator_found(test.now, Ok(Some(0)));
    test.expect(&["find", "heartbeat  0 full owning []"]);
    test.respond(1, Some(t(&[])));
    test.expect(&["assigned 1 "]);
    assert_eq!((test.m.member_id(), test.m.generation()), ("given", 1));
    test.wait();
    test.expect(&["heartbeat given 1"]);
}

#[test]
fn assignment_waits_for_topic_names() {
    let mut test = Test::new();
    test.connect();
    test.actions();
    test.respond(2, Some(t(&[0]).union(&of(2, &[5])).copied().collect()));
    test.expect(&["assigned 2 ", "refresh names"]);
    test.learn_names();
    test.expect(&["assigned 2 t/0", "heartbeat own 2 owning [0]"]);
    test.wait();
    test.expect(&["refresh names"]);
    test.respond(2, None);
    test.m.on_topic_names(test.now, vec![(Uuid::from_u128(2), "u".into())]);
    test.expect(&["assigned 2 u/5", "heartbeat own 2 owning [0,5]"]);
    test.respond(2, None);
    assert!(!test.m.needs_topic_names());
}

#[test]
fn partitions_are_added_once_the_revocation_is_acknowledged() {
    let mut test = Test::with_heartbeat_in_flight();
    test.respond(3, Some(t(&[0, 2])));
    test.expect(&["revoke t/1", "assigned 3 "]);
    for _ in 0..2 {
        test.wait();
        test.expect(&["heartbeat own 3"]);
        test.respond(3, None);
        assert!(test.m.is_member(), "still owned");
    }
    test.m.on_drained(test.now);
    test.expect(&["revoked t/1", "heartbeat own 3 owning [0]"]);
    test.respond(4, None);
    test.expect(&["assigned 4 t/2", "heartbeat own 4 owning [0,2]"]);
    test.respond(4, None);
    test.expect(&[]);
}

#[test]
fn drain_during_a_heartbeat_is_reported_by_the_next() {
    let mut test = Test::draining();
    test.m.on_drained(test.now);
    test.expect(&["revoked t/1"]);
    test.respond(2, None);
    test.expect(&["heartbeat own 2 owning [0]"]);
}

#[test]
fn drain_deadline_counts_from_the_revoking_heartbeat() {
    let mut test = Test::with_heartbeat_in_flight();
    let sent = test.now;
    test.now += Duration::from_millis(100);
    test.respond(2, Some(t(&[0])));
    let deadline = test.drain_deadline();
    assert_eq!(deadline, Some(sent + REBALANCE - Duration::from_secs(5)));
    loop {
        test.wait();
        match test.actions().as_slice() {
            [one] if one == "heartbeat own 2" => test.respond(2, None),
            other => {
                assert_eq!(other, ["revoked t/1", "heartbeat own 2 owning [0]"]);
                break;
            }
        }
    }
    assert_eq!(Some(test.now), deadline);
}

#[test]
fn new_target_waits_for_the_drain() {
    let mut test = Test::draining();
    test.respond(2, Some(t(&[1, 2])));
    test.expect(&[]);
    test.m.on_drained(test.now);
    test.expect(&["revoked t/1", "revoke t/0"]);
    test.m.on_drained(test.now);
    test.expect(&["revoked t/0", "heartbeat own 2 owning []"]);
    test.respond(3, None);
    test.expect(&["assigned 3 t/1,t/2", "heartbeat own 3 owning [1,2]"]);
}

#[test]
fn recreated_topic_replaces_the_old_one() {
    let mut test = Test::with_heartbeat_in_flight();
    test.m.on_topic_names(test.now, vec![(Uuid::from_u128(2), "t".into())]);
    let both: BTreeSet<_> = t(&[0, 1]).union(&of(2, &[0])).copied().collect();
    test.respond(3, Some(both));
    test.expect(&["assigned 3 "]);
    test.wait();
    test.respond(4, Some(of(2, &[0])));
    test.m.on_drained(test.now);
    test.expect(&["heartbeat own 3", "revoke t/0,t/1", "assigned 4 ", "revoked t/0,t/1", "heartbeat own 4 owning []"]);
    test.respond(4, None);
    test.expect(&["assigned 4 t/0", "heartbeat own 4 owning [0]"]);
}

#[test]
fn heartbeat_interval_doubles_after_a_change() {
    let mut test = Test::with_heartbeat_in_flight();
    let mut gaps = Vec::new();
    test.respond(3, None);
    for _ in 0..6 {
        let before = test.now;
        test.wait();
        gaps.push(test.now - before);
        test.respond(3, None);
    }
    assert_eq!(gaps, [1, 2, 4, 8, 8, 8].map(|n| INTERVAL / 8 * n));
    let own = HeartbeatResponse { member_id: None, epoch: 3, interval: Duration::from_secs(3600), assignment: None };
    test.wait();
    test.m.on_heartbeat_response(test.now, Ok(own));
    assert!(test.m.poll_timeout().unwrap() <= test.now + SESSION / 3, "often enough for the session");
}

#[test]
fn a_changed_subscription_is_sent_also_after_a_heartbeat_in_flight() {
    let mut test = Test::stable();
    test.m.on_subscription_changed(test.now);
    test.expect(&["heartbeat own 2 full owning [0,1]"]);
    test.m.on_subscription_changed(test.now); // the heartbeat in flight has the topics before
    test.expect(&[]);
    test.respond(2, None);
    test.expect(&["heartbeat own 2 full owning [0,1]"]);
    test.respond(3, Some(t(&[0])));
    test.expect(&["revoke t/1", "assigned 3 "]);
}

#[test]
fn a_changed_subscription_is_sent_again_after_a_failure() {
    let mut test = Test::stable();
    test.m.on_subscription_changed(test.now);
    test.actions();
    test.refuse(code::COORDINATOR_LOAD_IN_PROGRESS);
    test.wait();
    test.expect(&["heartbeat own 2 full owning [0,1]"]);
    test.respond(2, None);
    test.wait();
    test.expect(&["heartbeat own 2"]);
}
