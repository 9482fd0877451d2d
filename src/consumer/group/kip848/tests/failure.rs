//! Errors of the coordinator and of its connections.

use super::*;

#[test]
fn lost_response_is_followed_by_a_full_heartbeat() {
    let mut test = Test::with_heartbeat_in_flight();
    test.m.on_heartbeat_response(test.now, Err(broken()));
    test.wait();
    test.expect(&["find"]);
    test.m.on_coordinator_found(test.now, Err(Error::new(ErrorKind::Connect, "no broker")));
    test.expect(&[]);
    test.wait();
    test.expect(&["find"]);
    test.connect();
    test.expect(&["heartbeat own 2 full owning [0,1]"]);
    test.respond(3, Some(t(&[0])));
    test.expect(&["revoke t/1", "assigned 3 "]);

    let mut test = Test::stable();
    test.m.on_disconnected(test.now);
    test.expect(&["find"]);
    test.connect();
    test.wait();
    test.expect(&["heartbeat own 2 full owning [0,1]"]);
}

#[test]
fn moved_coordinator_costs_no_partition() {
    for code in [code::NOT_COORDINATOR, code::COORDINATOR_NOT_AVAILABLE] {
        let mut test = Test::draining();
        test.refuse(code);
        test.wait();
        test.expect(&["find"]);
        test.connect();
        test.expect(&["heartbeat own 2 full owning [0,1]"]);
        test.m.on_drained(test.now);
        test.expect(&["revoked t/1"]);
        test.respond(2, Some(t(&[0])));
        test.expect(&["heartbeat own 2 owning [0]"]);
        assert!(test.m.is_member());
    }
}

/// The effect of each error code in each state, and of one wait after it.
#[test]
fn every_code_in_every_state() {
    type Row = (i16, [&'static str; 4]);
    const AGAIN: &str = "again";
    const FIND: &str = "find";
    const REJOIN: &str = "rejoin";
    const END: &str = "stop";
    const LEFT: &str = "left";
    // joining, stable, draining, leaving
    let table: &[Row] = &[
        (code::COORDINATOR_LOAD_IN_PROGRESS, [AGAIN, AGAIN, AGAIN, AGAIN]),
        (code::COORDINATOR_NOT_AVAILABLE, [FIND, FIND, FIND, FIND]),
        (code::NOT_COORDINATOR, [FIND, FIND, FIND, FIND]),
        (code::UNKNOWN_MEMBER_ID, [REJOIN, REJOIN, REJOIN, LEFT]),
        (code::FENCED_MEMBER_EPOCH, [REJOIN, REJOIN, REJOIN, LEFT]),
        (code::GROUP_ID_NOT_FOUND, [END, REJOIN, REJOIN, LEFT]),
        (code::FENCED_INSTANCE_ID, [END, END, END, LEFT]),
        (code::UNRELEASED_INSTANCE_ID, [AGAIN, AGAIN, AGAIN, AGAIN]),
        (code::UNSUPPORTED_ASSIGNOR, [END, END, END, END]),
        (code::UNSUPPORTED_VERSION, [END, END, END, END]),
        (code::GROUP_MAX_SIZE_REACHED, [AGAIN, AGAIN, AGAIN, END]),
        (24, [END, END, END, END]),        // INVALID_GROUP_ID
        (30, [AGAIN, AGAIN, AGAIN, END]),  // GROUP_AUTHORIZATION_FAILED
        (42, [END, END, END, END]),        // INVALID_REQUEST
        (128, [END, END, END, END]),       // INVALID_REGULAR_EXPRESSION
        (7, [AGAIN, AGAIN, AGAIN, AGAIN]), // REQUEST_TIMED_OUT
        (-1, [AGAIN, AGAIN, AGAIN, END]),  // UNKNOWN_SERVER_ERROR
        (9999, [AGAIN, AGAIN, AGAIN, END]),
    ];
    let joining = || {
        let mut test = Test::new();
        test.connect();
        test.actions();
        test
    };
    let leaving = || {
        let mut test = Test::stable();
        test.m.leave(test.now);
        test.expect(&["revoked t/0,t/1", "heartbeat own -1"]);
        test
    };
    let states: [(&str, &dyn Fn() -> Test); 4] = [
        ("joining", &joining),
        ("stable", &Test::with_heartbeat_in_flight),
        ("draining", &Test::draining),
        ("leaving", &leaving),
    ];
    for (code, outcomes) in table {
        for ((state, make), expected) in states.iter().zip(outcomes) {
            let mut test = make();
            let owned = matches!(*state, "stable" | "draining");
            test.refuse(*code);
            let mut actions = test.actions();
            if owned && matches!(*expected, REJOIN | END) {
                assert_eq!(actions.remove(0), "lost t/0,t/1", "{state} {code}");
                assert!(!test.m.is_member());
            } else {
                assert_eq!(test.m.is_member(), owned, "{state} {code}");
            }
            let beat = match *state {
                "joining" => "heartbeat own 0 full owning []",
                "leaving" => "heartbeat own -1",
                _ => "heartbeat own 2 full owning [0,1]",
            };
            match *expected {
                END => assert!(actions.len() == 1 && actions[0].starts_with("failed"), "{state} {code}: {actions:?}"),
                LEFT => assert_eq!(actions, ["stop"], "{state} {code}"),
                REJOIN => assert_eq!(actions, ["heartbeat own 0 full owning []"], "{state} {code}"),
                _ => {
                    assert!(actions.is_empty(), "{state} {code}: {actions:?}");
                    test.wait();
                    if *expected == FIND {
                        test.expect(&["find"]);
                        test.connect();
                    }
                    if test.m.poll_timeout().is_some_and(|d| d > test.now) && test.actions.is_empty() {
                        let actions = test.actions();
                        if actions.is_empty() {
                            test.wait();
                        } else {
                            test.actions = actions;
                        }
                    }
                    assert_eq!(test.actions(), [beat], "{state} {code}");
                }
            }
        }
    }
}

#[test]
fn repeated_fencing_backs_off() {
    let mut test = Test::with_heartbeat_in_flight();
    test.refuse(code::FENCED_MEMBER_EPOCH);
    test.expect(&["lost t/0,t/1", "heartbeat own 0 full owning []"]);
    test.refuse(code::FENCED_MEMBER_EPOCH);
    test.expect(&[]);
    test.wait();
    test.expect(&["heartbeat own 0 full owning []"]);
    test.respond(5, Some(t(&[0, 1])));
    test.expect(&["assigned 5 t/0,t/1", "heartbeat own 5 owning [0,1]"]);
}

#[test]
fn response_without_an_epoch_is_corrupt() {
    for epoch in [0, -1, i32::MIN] {
        let mut test = Test::with_heartbeat_in_flight();
        test.respond(epoch, Some(t(&[0, 1, 2])));
        test.expect(&[]);
        test.wait();
        test.expect(&["find"]);
        assert!(test.m.is_member());
    }
}

#[test]
fn session_expires_without_responses() {
    let mut test = Test::with_heartbeat_in_flight();
    let sent = test.now;
    test.respond(2, None);
    test.wait();
    test.expect(&["heartbeat own 2"]);
    test.wait();
    test.expect(&["lost t/0,t/1", "find"]);
    assert_eq!(test.now, sent + SESSION);
    test.respond(2, Some(t(&[0, 1])));
    test.expect(&[]);
    test.connect();
    test.expect(&["heartbeat own 0 full owning []"]);
}

#[test]
fn stale_commit_sends_a_heartbeat() {
    let mut test = Test::stable();
    test.m.on_commit_refused(test.now, code::STALE_MEMBER_EPOCH);
    test.expect(&["heartbeat own 2"]);
    test.m.on_commit_refused(test.now, code::STALE_MEMBER_EPOCH);
    test.expect(&[]);
    test.respond(3, None);
    test.expect(&["assigned 3 "]);
    assert_eq!(test.m.generation(), 3);
}

#[test]
fn refused_commit_counts_as_a_heartbeat_error() {
    for (code, expected) in [
        (code::NOT_COORDINATOR, &["find"][..]),
        (code::UNKNOWN_MEMBER_ID, &["lost t/0,t/1", "heartbeat own 0 full owning []"]),
        (code::GROUP_ID_NOT_FOUND, &["lost t/0,t/1", "heartbeat own 0 full owning []"]),
        (12, &[]), // OFFSET_METADATA_TOO_LARGE
    ] {
        let mut test = Test::stable();
        test.m.on_commit_refused(test.now, code);
        if expected == ["find"] {
            test.wait();
        }
        test.expect(expected);
    }
    let mut test = Test::stable();
    test.m.on_commit_refused(test.now, code::FENCED_INSTANCE_ID);
    assert!(test.actions()[1].starts_with("failed"));
    test.m.on_commit_refused(test.now, code::UNKNOWN_MEMBER_ID);
    test.expect(&[]);
}

#[test]
fn refused_commit_keeps_the_heartbeat_in_flight() {
    let mut test = Test::stable();
    test.wait();
    test.expect(&["heartbeat own 2"]);
    test.m.on_commit_refused(test.now, code::NOT_COORDINATOR);
    test.expect(&[]);
    test.respond(3, None);
    test.expect(&["assigned 3 "]);
}

#[test]
fn fatal_errors_stop_the_member() {
    let mut test = Test::with_heartbeat_in_flight();
    test.refuse(code::FENCED_INSTANCE_ID);
    let actions = test.actions();
    assert_eq!(actions[0], "lost t/0,t/1");
    assert!(actions[1].starts_with("failed GroupMembership"), "{actions:?}");
    let mut test = Test::stable();
    test.m.on_fatal_error(Error::new(ErrorKind::Config, "no"));
    assert_eq!(test.actions().len(), 2);
}

#[test]
fn fixable_errors_are_retried_and_reported() {
    for code in [30, 81, -1] {
        let mut test = Test::with_heartbeat_in_flight();
        test.refuse(code);
        assert!(test.m.outage().is_some(), "code {code}");
        test.wait();
        test.expect(&["heartbeat own 2 full owning [0,1]"]);
        test.respond(2, None);
        assert!(test.m.outage().is_none(), "code {code}");
    }
    let mut test = Test::with_heartbeat_in_flight();
    let refused = Error::new(ErrorKind::Authentication, "refused").into_transient();
    test.m.on_heartbeat_response(test.now, Err((RequestFailure::Connection(refused), String::new())));
    test.wait();
    test.expect(&["find"]);
}

#[test]
fn error_includes_the_coordinators_message() {
    let mut test = Test::new();
    test.connect();
    test.actions();
    let why = "ServerAssignor x is not supported.".to_owned();
    test.m.on_heartbeat_response(test.now, Err((RequestFailure::Code(code::UNSUPPORTED_ASSIGNOR), why)));
    assert!(test.actions()[0].contains("ServerAssignor x is not supported."));
}
