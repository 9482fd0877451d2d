//! Leaving, for good and temporarily.

use super::*;

#[test]
fn refused_temporary_leave_is_retried() {
    let mut t = Test::with_heartbeat_in_flight();
    t.m.leave_temporarily(t.now);
    t.actions();
    t.m.on_leave_response(t.now, Err(RequestFailure::Code(-1)));
    t.m.resume(t.now);
    t.wait();
    t.expect(&["leave \"m1\""]);
    t.m.on_leave_response(t.now, Ok(()));
    t.expect(&["find"]);
}

#[test]
fn leave_revokes_and_sends_leave_group() {
    let mut t = Test::stable();
    t.m.leave(t.now);
    t.expect(&["revoked t/0,t/1", "leave \"m1\""]);
    t.m.on_leave_response(t.now, Ok(()));
    t.expect(&["stop"]);
    t.m.leave(t.now);
    t.expect(&[]);
    let mut t = Test::with_heartbeat_in_flight();
    t.m.leave(t.now);
    t.expect(&["revoked t/0,t/1", "leave \"m1\""]);
    t.m.on_leave_response(t.now, Err(RequestFailure::Code(code::UNKNOWN_MEMBER_ID)));
    t.expect(&["stop"]);
}

#[test]
fn leave_during_a_parked_join_reconnects() {
    let mut t = Test::with_heartbeat_in_flight();
    t.heartbeat(code::REBALANCE_IN_PROGRESS);
    t.m.on_drained(t.now);
    t.actions();
    t.m.leave(t.now);
    t.expect(&["find"]);
    t.connect();
    t.expect(&["leave \"m1\""]);
}

#[test]
fn leave_before_a_member_id_waits_for_it() {
    let mut t = Test::new();
    t.connect();
    t.actions();
    t.m.leave(t.now);
    t.expect(&[]);
    t.refuse_join(code::MEMBER_ID_REQUIRED);
    t.expect(&["leave \"m1\""]);
    let mut t = Test::new();
    t.expect(&["find"]);
    t.m.leave(t.now);
    t.connect();
    t.expect(&["stop"]);
}

#[test]
fn leave_ends_at_its_timeout() {
    let mut t = Test::stable();
    t.m.leave(t.now);
    t.actions();
    t.m.on_leave_response(t.now, Err(RequestFailure::Code(code::NOT_COORDINATOR)));
    t.wait();
    t.expect(&["find"]);
    t.wait();
    assert!(t.actions()[0].starts_with("failed Timeout"), "the search for the coordinator is not awaited");
}

#[test]
fn static_member_leaves_without_leave_group() {
    let mut t = Test::static_member();
    t.m.leave(t.now);
    t.expect(&["revoked t/0,t/1", "stop"]);
    let mut t = Test::static_member();
    t.wait();
    t.actions();
    t.heartbeat(code::FENCED_INSTANCE_ID);
    let actions = t.actions();
    assert!(actions[1].contains("ConsumerConfig::group_instance_id"), "{actions:?}");
}

#[test]
fn temporary_leave_loses_partitions_until_resume() {
    let mut t = Test::with_heartbeat_in_flight();
    t.m.leave_temporarily(t.now);
    t.expect(&["lost t/0,t/1", "leave \"m1\""]);
    t.m.on_leave_response(t.now, Ok(()));
    t.expect(&[]);
    assert_eq!(t.m.poll_timeout(), None);
    t.m.leave_temporarily(t.now);
    t.m.on_partitions_changed(t.now);
    t.expect(&[]);
    t.m.resume(t.now);
    t.expect(&["find"]);
    t.connect();
    t.expect(&["join \"\""]);

    // It resumes while LeaveGroup is in flight, which is awaited for no longer than the timeout of
    // leaving.
    let mut t = Test::stable();
    t.m.leave_temporarily(t.now);
    t.actions();
    t.m.resume(t.now);
    t.expect(&[]);
    t.wait();
    t.expect(&["find"]);

    // During a drain, and while a JoinGroup is parked.
    let mut t = Test::with_heartbeat_in_flight();
    t.heartbeat(code::REBALANCE_IN_PROGRESS);
    t.m.leave_temporarily(t.now);
    t.m.on_drained(t.now);
    t.expect(&["revoke t/0,t/1", "lost t/0,t/1", "leave \"m1\""]);
    let mut t = Test::cooperative();
    t.hear_of_rebalance();
    t.actions();
    t.m.leave_temporarily(t.now);
    t.expect(&["lost t/0,t/1", "find"]);
    t.connect();
    t.expect(&["leave \"m1\""]);

    // The broker keeps the place of a static member until its session expires.
    let mut t = Test::static_member();
    t.m.leave_temporarily(t.now);
    t.expect(&["lost t/0,t/1"]);
    assert_eq!(t.m.poll_timeout(), None);
    t.m.resume(t.now);
    t.expect(&["find"]);
    t.connect();
    t.expect(&["join \"m1\""]);

    // A member that has stepped out closes at once.
    let mut t = Test::static_member();
    t.m.leave_temporarily(t.now);
    t.m.leave(t.now);
    t.expect(&["lost t/0,t/1", "stop"]);
}
