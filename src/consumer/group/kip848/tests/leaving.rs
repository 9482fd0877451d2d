//! Leaving, for good and temporarily.

use super::*;

#[test]
fn static_member_keeps_its_place_and_waits_for_it() {
    let config = MemberConfig { instance_id: Some("i".into()), ..config() };
    let mut test = Test::stable_with(config.clone());
    test.m.leave(test.now);
    test.expect(&["revoked t/0,t/1", "heartbeat own -2"]);
    test.respond(-2, None);
    test.expect(&["stop"]);

    let mut test = Test::with(config);
    test.connect();
    test.actions();
    let began = test.now;
    loop {
        test.refuse(code::UNRELEASED_INSTANCE_ID);
        if let Some(end) = test.actions().first() {
            assert!(end.starts_with("failed") && end.contains("another member has this one's instance id"), "{end}");
            break;
        }
        test.wait();
        test.expect(&["heartbeat own 0 full owning []"]);
    }
    assert!(test.now >= began + SESSION, "the session of a dead member has expired by then");
}

#[test]
fn unsupported_protocol_stops_or_falls_back() {
    let refuse = |may_be_classic, by: &dyn Fn(&mut Test)| {
        let mut test = Test::with(MemberConfig { may_be_classic, ..config() });
        by(&mut test);
        test.actions().pop().unwrap()
    };
    let not_served = |test: &mut Test| test.m.on_coordinator_found(test.now, Ok(None));
    let disabled = |test: &mut Test| {
        test.connect();
        test.refuse(code::UNSUPPORTED_VERSION);
    };
    let classic_group = |test: &mut Test| {
        test.connect();
        test.refuse(code::GROUP_ID_NOT_FOUND);
    };
    for by in [&not_served as &dyn Fn(&mut Test), &disabled, &classic_group] {
        assert_eq!(refuse(true, by), "fall back");
        let why = refuse(false, by);
        assert!(why.starts_with("failed Unsupported") && why.contains("ConsumerConfig::group_protocol"), "{why}");
    }
    let mut test = Test::stable_with(MemberConfig { may_be_classic: true, ..config() });
    test.m.on_disconnected(test.now);
    test.m.on_coordinator_found(test.now, Ok(None));
    test.expect(&["find", "lost t/0,t/1", "fall back"]);
}

#[test]
fn leaves_from_any_phase() {
    let mut test = Test::new();
    test.m.leave(test.now);
    test.expect(&["find"]);
    test.m.on_coordinator_found(test.now, Ok(Some(1)));
    test.expect(&["stop"]);

    let mut test = Test::new();
    test.connect();
    test.m.leave(test.now);
    test.expect(&["find", "heartbeat own 0 full owning []", "heartbeat own -1"]);
    test.respond(-1, None);
    test.expect(&["stop"]);

    let mut test = Test::new();
    test.m.on_coordinator_found(test.now, Ok(Some(0)));
    test.m.leave(test.now);
    test.expect(&["find", "heartbeat  0 full owning []"]);
    test.respond(1, Some(t(&[0])));
    test.expect(&["heartbeat given -1"]);

    let mut test = Test::draining();
    test.m.leave(test.now);
    test.expect(&["revoked t/0,t/1", "heartbeat own -1"]);
    test.m.on_drained(test.now);
    test.m.leave(test.now);
    test.expect(&[]);
    test.wait();
    let actions = test.actions();
    assert!(actions.len() == 1 && actions[0].starts_with("failed Timeout"), "{actions:?}");
    assert_eq!(test.m.poll_timeout(), None);
}

#[test]
fn temporary_leave_loses_partitions_until_resume() {
    let mut test = Test::stable();
    test.m.leave_temporarily(test.now);
    test.expect(&["lost t/0,t/1", "heartbeat own -1"]);
    test.respond(-1, None);
    test.expect(&[]);
    assert_eq!(test.m.poll_timeout(), None);
    test.m.leave_temporarily(test.now);
    test.learn_names();
    test.expect(&[]);
    test.m.resume(test.now);
    test.expect(&["heartbeat own 0 full owning []"]);
    test.respond(4, Some(t(&[0])));
    test.expect(&["assigned 4 t/0", "heartbeat own 4 owning [0]"]);

    // It resumes while the leave is in flight, which is awaited for no longer than the timeout of
    // leaving.
    let mut test = Test::with_heartbeat_in_flight();
    test.m.leave_temporarily(test.now);
    test.actions();
    test.m.resume(test.now);
    test.expect(&[]);
    test.wait();
    test.expect(&["find"]);
    test.connect();
    test.expect(&["heartbeat own 0 full owning []"]);

    // During a drain; a static member too.
    let mut test = Test::draining();
    test.m.leave_temporarily(test.now);
    test.m.on_drained(test.now);
    test.expect(&["lost t/0,t/1", "heartbeat own -1"]);
    let mut test = Test::stable_with(MemberConfig { instance_id: Some("i".into()), ..config() });
    test.m.leave_temporarily(test.now);
    test.expect(&["lost t/0,t/1", "heartbeat own -1"]);

    // A member that has stepped out closes at once.
    test.respond(-1, None);
    test.m.leave(test.now);
    test.expect(&["stop"]);
}
