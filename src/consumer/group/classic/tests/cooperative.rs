//! Rebalances with a cooperative assignor.

use super::*;

#[test]
fn cooperative_rejoin_keeps_partitions() {
    let mut t = Test::cooperative();
    t.hear_of_rebalance();
    t.expect(&["join \"m1\" with t/0,t/1 of 1"]);
    assert!(t.m.can_commit(), "in the old generation");
    t.join_by(2, "cooperative-sticky");
    t.expect(&["sync 2 0"]);
    assert!(!t.m.can_commit());
    t.sync(&[0, 1]);
    t.expect(&["assigned 2 "]);
    assert!(t.m.can_commit() && t.m.is_member());
}

#[test]
fn moved_partitions_are_drained_before_the_rejoin() {
    let mut t = Test::cooperative();
    t.hear_of_rebalance();
    t.join_by(2, "cooperative-sticky");
    t.actions();
    t.sync(&[1, 2]);
    t.expect(&["revoke t/0", "assigned 2 t/2"]);
    t.wait();
    t.expect(&["heartbeat 2"]);
    t.heartbeat(code::REBALANCE_IN_PROGRESS);
    t.expect(&[]);
    t.m.on_drained(t.now);
    t.expect(&["revoked t/0", "join \"m1\" with t/1,t/2 of 2"]);
    t.join_by(3, "cooperative-sticky");
    t.sync(&[1, 2, 0]);
    t.expect(&["sync 3 0", "assigned 3 t/0"]);
}

#[test]
fn cooperative_drain_has_a_deadline() {
    let mut t = Test::cooperative();
    t.hear_of_rebalance();
    t.join_by(2, "cooperative-sticky");
    t.sync(&[1]);
    t.actions();
    loop {
        t.wait();
        match t.actions().as_slice() {
            [one] if one == "heartbeat 2" => t.heartbeat(0),
            other => {
                assert_eq!(other, ["revoked t/0", "join \"m1\" with t/1 of 2"]);
                break;
            }
        }
    }
}

/// The broker returns a static member its place without a rebalance, so that the revoked partitions
/// would stay unassigned.
#[test]
fn static_member_lost_before_its_rejoin_rejoins_later() {
    let mut t = Test::cooperative();
    t.m.session.config.instance_id = Some("i".into());
    t.hear_of_rebalance();
    t.join_by(2, "cooperative-sticky");
    t.sync(&[1]);
    t.m.on_drained(t.now);
    t.actions();
    t.refuse_join(code::UNKNOWN_MEMBER_ID);
    t.expect(&["lost t/1", "join \"\""]);
    t.join_by(2, "cooperative-sticky");
    t.sync(&[1]);
    t.expect(&["sync 2 0", "assigned 2 t/1"]);
    t.wait();
    t.expect(&["join \"m1\" with t/1 of 2"]);
    t.join_by(3, "cooperative-sticky");
    t.sync(&[1]);
    t.expect(&["sync 3 0", "assigned 3 "]);
    assert!(t.m.is_member());
    t.wait();
    t.expect(&["heartbeat 3"]);
}

/// A static member that restarts before its rejoin does not know that it must; the leader does.
#[test]
fn leader_rebalances_when_withheld_partitions_are_overdue() {
    let mut t = Test::cooperative();
    for withheld in [true, false] {
        t.hear_of_rebalance();
        let members = Some(vec![GroupMember::new("m1"), GroupMember::new("m2")]);
        let (generation, assignor) = (t.m.generation() + 1, "cooperative-sticky".to_owned());
        t.m.on_join_response(
            t.now,
            Ok(JoinedGroup { member_id: "m1".into(), generation, assignor, is_leader: true, members }),
        );
        t.m.on_assignment_computed(t.now, Vec::new(), withheld);
        t.sync(&[0, 1]);
        t.actions();
        let since = t.now;
        loop {
            t.wait();
            match t.actions().as_slice() {
                [one] if one.starts_with("heartbeat") && t.now < since + 2 * REBALANCE => t.heartbeat(0),
                [one] if one.starts_with("heartbeat") => break assert!(!withheld),
                other => {
                    assert_eq!(other, [format!("join \"m1\" with t/0,t/1 of {generation}")]);
                    assert!(withheld && t.now == since + REBALANCE);
                    t.join_by(generation + 1, "cooperative-sticky");
                    t.sync(&[0, 1]);
                    break;
                }
            }
        }
        t.actions();
    }
}

#[test]
fn overtaking_rebalance_keeps_cooperative_partitions() {
    let mut t = Test::cooperative();
    t.hear_of_rebalance();
    t.join_by(2, "cooperative-sticky");
    t.actions();
    t.m.on_sync_response(t.now, Err(RequestFailure::Code(code::REBALANCE_IN_PROGRESS)));
    t.expect(&["join \"m1\" with t/0,t/1 of 1"]);
    t.join_by(3, "cooperative-sticky");
    t.actions();
    t.m.on_sync_response(t.now, Err(RequestFailure::Code(code::ILLEGAL_GENERATION)));
    t.expect(&["lost t/0,t/1"]);
    t.wait();
    t.expect(&["join \"m1\""]);
}

#[test]
fn change_to_an_eager_assignor_loses_partitions() {
    let mut t = Test::cooperative();
    t.hear_of_rebalance();
    t.actions();
    t.join_by(2, "range");
    t.expect(&["lost t/0,t/1", "sync 2 0"]);
    t.sync(&[1]);
    t.expect(&["assigned 2 t/1"]);
    t.hear_of_rebalance();
    t.expect(&["revoke t/1"]);
    t.m.on_drained(t.now);
    t.expect(&["revoked t/1", "join \"m1\""]);
}

#[test]
fn partitions_survive_a_parked_join_but_not_the_session() {
    let mut t = Test::cooperative();
    t.hear_of_rebalance();
    t.expect(&["join \"m1\" with t/0,t/1 of 1"]);
    assert_eq!(t.m.poll_timeout(), None, "the group waits for others");
    t.m.on_join_response(t.now, Err((broken(), String::new())));
    t.wait();
    t.expect(&["find"]);
    let joined = t.now;
    t.wait();
    t.expect(&["lost t/0,t/1", "find"]);
    assert!(t.now > joined);
    t.connect();
    t.expect(&["join \"m1\""]);
}

#[test]
fn cooperative_leave_revokes_kept_partitions() {
    let mut t = Test::cooperative();
    t.hear_of_rebalance();
    t.actions();
    t.m.leave(t.now);
    t.expect(&["revoked t/0,t/1", "find"]);
    t.connect();
    t.expect(&["leave \"m1\""]);
    let mut t = Test::cooperative();
    t.m.on_partitions_changed(t.now);
    t.expect(&[]);
}

#[test]
fn a_changed_subscription_rejoins_also_after_a_join_in_flight() {
    let mut t = Test::cooperative();
    t.m.on_subscription_changed(t.now);
    t.expect(&["join \"m1\" with t/0,t/1 of 1"]);
    t.m.on_subscription_changed(t.now); // the JoinGroup in flight has the topics before
    t.expect(&[]);
    t.join_by(2, "cooperative-sticky");
    t.actions();
    t.sync(&[0, 1]);
    t.expect(&["assigned 2 ", "join \"m1\" with t/0,t/1 of 2"]);
    t.join_by(3, "cooperative-sticky");
    t.actions();
    t.sync(&[0, 1]);
    t.expect(&["assigned 3 "]);
}
