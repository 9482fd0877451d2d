//! Errors of the coordinator and of its connections.

use super::*;

#[test]
fn unknown_member_loses_partitions_and_member_id() {
    let mut t = Test::with_heartbeat_in_flight();
    t.heartbeat(code::UNKNOWN_MEMBER_ID);
    t.expect(&["lost t/0,t/1", "join \"\""]);
}

#[test]
fn illegal_generation_loses_partitions_but_not_the_id() {
    let mut t = Test::with_heartbeat_in_flight();
    t.heartbeat(code::ILLEGAL_GENERATION);
    t.expect(&["lost t/0,t/1", "join \"m1\""]);
}

#[test]
fn moved_coordinator_costs_no_partition() {
    for code in [code::NOT_COORDINATOR, code::COORDINATOR_NOT_AVAILABLE] {
        let mut t = Test::with_heartbeat_in_flight();
        t.heartbeat(code);
        t.wait();
        t.expect(&["find"]);
        t.connect();
        t.wait();
        t.expect(&["heartbeat 1"]);
        t.heartbeat(0);
        assert!(t.m.is_member());
    }
}

#[test]
fn loading_coordinator_is_retried() {
    let mut t = Test::with_heartbeat_in_flight();
    t.heartbeat(code::COORDINATOR_LOAD_IN_PROGRESS);
    t.wait();
    t.expect(&["heartbeat 1"]);
    let mut t = Test::new();
    t.connect();
    t.actions();
    t.refuse_join(code::COORDINATOR_LOAD_IN_PROGRESS);
    t.expect(&[]);
    t.wait();
    t.expect(&["join \"\""]);
}

#[test]
fn lost_connection_is_reopened() {
    let mut t = Test::with_heartbeat_in_flight();
    t.m.on_heartbeat_response(t.now, Err(broken()));
    t.wait();
    t.expect(&["find"]);
    t.m.on_coordinator_found(t.now, Err(Error::new(ErrorKind::Connect, "no broker")));
    t.expect(&[]);
    t.wait();
    t.expect(&["find"]);
    t.connect();
    t.wait();
    t.expect(&["heartbeat 1"]);
    let mut t = Test::stable();
    t.m.on_disconnected(t.now);
    t.expect(&["find"]);
}

#[test]
fn session_expires_without_responses() {
    let mut t = Test::with_heartbeat_in_flight();
    let sent = t.now;
    t.heartbeat(0);
    t.wait();
    t.expect(&["heartbeat 1"]);
    // Without response: the session counts from the last one that had one.
    t.wait();
    t.expect(&["lost t/0,t/1", "find"]);
    assert_eq!(t.now, sent + SESSION);
    t.heartbeat(0);
    t.expect(&[]);
    t.connect();
    t.expect(&["join \"m1\""]);
}

#[test]
fn session_can_expire_during_a_drain() {
    let mut t = Test::with_heartbeat_in_flight();
    t.heartbeat(code::REBALANCE_IN_PROGRESS);
    t.wait();
    t.expect(&["revoke t/0,t/1", "heartbeat 1"]);
    t.wait();
    t.expect(&["lost t/0,t/1", "find"]);
    t.m.on_drained(t.now);
    t.expect(&[]);
}

#[test]
fn failed_joins_back_off() {
    let mut t = Test::new();
    t.connect();
    t.actions();
    t.refuse_join(code::UNKNOWN_MEMBER_ID);
    t.expect(&["join \"\""]);
    let mut waits = Vec::new();
    for _ in 0..6 {
        t.refuse_join(code::UNKNOWN_MEMBER_ID);
        t.expect(&[]);
        let before = t.now;
        t.wait();
        waits.push(t.now - before);
        t.expect(&["join \"\""]);
    }
    assert!(waits[5] > waits[0] * 4, "{waits:?}");
}

#[test]
fn rebalance_during_sync_rejoins_at_once() {
    for code in [code::REBALANCE_IN_PROGRESS, code::ILLEGAL_GENERATION] {
        let mut t = Test::new();
        t.connect();
        t.join(1);
        t.actions();
        t.m.on_sync_response(t.now, Err(RequestFailure::Code(code)));
        t.expect(&["join \"m1\""]);
    }
    let mut t = Test::new();
    t.connect();
    t.join(1);
    t.actions();
    t.m.on_sync_response(t.now, Err(RequestFailure::Code(code::UNKNOWN_MEMBER_ID)));
    t.expect(&["join \"\""]);
    t.join(2);
    t.actions();
    t.m.on_sync_response(t.now, Err(RequestFailure::Code(code::NOT_COORDINATOR)));
    t.wait();
    t.expect(&["find"]);
    t.connect();
    t.expect(&["sync 2 0"]);
    t.m.on_sync_response(t.now, Err(broken()));
    t.wait();
    t.expect(&["find"]);
}

#[test]
fn fatal_errors_stop_with_a_hint() {
    for (code, kind, text) in [
        (24, ErrorKind::Broker(24), "InvalidGroupId"),
        (26, ErrorKind::Broker(26), "the broker bounds session timeouts"),
        (82, ErrorKind::GroupMembership, "instance id"),
    ] {
        let mut t = Test::new();
        t.connect();
        t.actions();
        t.refuse_join(code);
        let actions = t.actions();
        assert!(actions[0].starts_with(&format!("failed {kind:?}")), "{actions:?}");
        assert!(actions[0].contains(text) && actions[0].contains("\"g\""), "{actions:?}");
        assert_eq!(t.m.poll_timeout(), None);
    }
    let mut t = Test::with_heartbeat_in_flight();
    t.heartbeat(code::FENCED_INSTANCE_ID);
    let actions = t.actions();
    assert_eq!(actions[0], "lost t/0,t/1");
    assert!(actions[1].starts_with("failed GroupMembership"));
    for e in [Error::new(ErrorKind::Authentication, "refused"), Error::new(ErrorKind::Closed, "closed")] {
        let mut t = Test::new();
        let kind = e.kind();
        t.m.on_coordinator_found(t.now, Err(e));
        assert!(t.actions()[1].starts_with(&format!("failed {kind:?}")));
    }
}

#[test]
fn fixable_errors_are_retried_and_reported() {
    for (code, kind, text) in [
        (23, ErrorKind::Broker(23), "all members of a group must share an assignor"),
        (30, ErrorKind::Authorization, "check the ACLs"),
        (81, ErrorKind::Broker(81), "group.max.size"),
        (-1, ErrorKind::Broker(-1), "UnknownServerError"),
    ] {
        let mut t = Test::new();
        t.connect();
        t.actions();
        t.refuse_join(code);
        let error = t.m.outage().unwrap().error;
        assert!(error.kind() == kind && error.full().contains(text) && error.full().contains("\"g\""), "{error:?}");
        t.wait();
        t.expect(&["join \"\""]);
        t.join(1);
        t.m.on_sync_response(t.now, Ok(vec![]));
        assert!(t.m.outage().is_none(), "recovered");
    }
}

#[test]
fn later_login_failure_is_retried() {
    let mut t = Test::with_heartbeat_in_flight();
    t.m.on_heartbeat_response(t.now, Err(broken()));
    t.wait();
    t.expect(&["find"]);
    for _ in 0..20 {
        t.m.on_coordinator_found(t.now, Err(Error::new(ErrorKind::Authentication, "refused").into_transient()));
        t.wait();
        t.expect(&["find"]);
    }
    assert_eq!(t.m.outage().unwrap().error.kind(), ErrorKind::Authentication);
    t.connect();
    t.expect(&["heartbeat 1"]);
    t.m.on_heartbeat_response(t.now, Ok(()));
    assert!(t.m.outage().is_none());
}

#[test]
fn other_retriable_codes_are_retried() {
    let mut t = Test::with_heartbeat_in_flight();
    t.heartbeat(7);
    t.wait();
    t.expect(&["heartbeat 1"]);
}

#[test]
fn refused_commit_counts_as_a_heartbeat_error() {
    for code in [code::UNKNOWN_MEMBER_ID, code::GROUP_ID_NOT_FOUND] {
        let mut t = Test::stable();
        t.m.on_commit_refused(t.now, code);
        t.expect(&["lost t/0,t/1", "join \"\""]);
    }
    let mut t = Test::with_heartbeat_in_flight();
    t.m.on_commit_refused(t.now, code::NOT_COORDINATOR);
    t.wait();
    t.expect(&["find"]);
    t.m.on_commit_refused(t.now, code::NOT_COORDINATOR);
    t.connect();
    t.expect(&["heartbeat 1"]);
    let mut t = Test::stable();
    t.m.on_commit_refused(t.now, code::REBALANCE_IN_PROGRESS);
    t.expect(&["revoke t/0,t/1"]);
    let mut t = Test::stable();
    t.m.on_commit_refused(t.now, 12);
    t.expect(&[]);
}
