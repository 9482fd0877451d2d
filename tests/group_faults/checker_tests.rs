//! Tests of the checker, on groups with one problem each.

use super::checker::{GroupChecker, Problem};

/// Two members have a partition each and have handled three records; then `then`, then the end.
fn checked(then: impl FnOnce(&mut GroupChecker)) -> GroupChecker {
    let mut checker = GroupChecker::new(true);
    checker.leader_assigned(1, vec![("a".into(), vec![0]), ("b".into(), vec![1])]);
    for (member, p) in [(0, 0), (1, 1)] {
        checker.assigned(member, &[p]);
        (0..3).for_each(|offset| checker.handled(member, p, offset));
    }
    then(&mut checker);
    checker.finish(&[(0, 3), (1, 3)]);
    checker
}

#[track_caller]
fn assert_only(checker: &GroupChecker, problem: Problem) {
    for (other, name) in Problem::ALL {
        assert_eq!(checker.problems.count(other) > 0, other == problem, "{name}\n{}", checker.problems.details());
    }
}

#[test]
fn correct_group_is_clean() {
    let checker = checked(|w| {
        w.commit_requested("a", 1, 0, 3);
        w.committed(0, 3);
        w.revoked(0, &[0]);
        w.leader_assigned(2, vec![("b".into(), vec![0, 1])]);
        w.assigned(1, &[0]);
        w.commit_requested("b", 2, 0, 3);
        w.committed(0, 3);
    });
    assert!(checker.is_clean(), "{}", checker.problems.details());
}

#[test]
fn unhandled_record_is_found() {
    let mut checker = checked(|_| {});
    checker.finish(&[(0, 4)]);
    assert_only(&checker, Problem::Lost);
}

#[test]
fn repeated_record_is_found_unless_a_member_was_lost() {
    let again = |w: &mut GroupChecker| w.handled(0, 0, 1);
    assert_only(&checked(again), Problem::HandledAgain);
    let checker = checked(|w| {
        again(w);
        w.lost(1, None);
    });
    assert!(checker.is_clean(), "{}", checker.problems.details());
}

#[test]
fn record_handled_out_of_order_is_found() {
    let mut checker = GroupChecker::new(true);
    checker.assigned(0, &[0]);
    [0, 2, 1].into_iter().for_each(|offset| checker.handled(0, 0, offset));
    checker.finish(&[(0, 3)]);
    assert_only(&checker, Problem::OutOfOrder);
}

#[test]
fn record_handled_by_a_non_owner_is_found() {
    let mut checker = GroupChecker::new(true);
    checker.assigned(0, &[0]);
    checker.handled(0, 0, 0);
    checker.revoked(0, &[0]);
    checker.handled(0, 0, 1);
    checker.finish(&[(0, 2)]);
    assert_only(&checker, Problem::NotOwner);
}

#[test]
fn two_owners_are_found_unless_the_first_lost_its_session() {
    let two = |w: &mut GroupChecker| w.assigned(1, &[0]);
    let checker = checked(|w| {
        two(w);
        w.revoked(0, &[0]);
    });
    assert_only(&checker, Problem::TwoOwners);
    let checker = checked(|w| {
        two(w);
        w.lost(0, Some(&[0]));
    });
    assert!(checker.is_clean(), "{}", checker.problems.details());
}

#[test]
fn partition_assigned_twice_is_found() {
    let checker = checked(|w| w.leader_assigned(2, vec![("a".into(), vec![0, 1]), ("b".into(), vec![1])]));
    assert_only(&checker, Problem::AssignedTwice);
}

#[test]
fn commit_for_a_foreign_partition_is_found() {
    assert_only(&checked(|w| w.commit_requested("a", 1, 1, 3)), Problem::ForeignCommit);
}

#[test]
fn commit_ahead_of_handled_records_is_found() {
    assert_only(&checked(|w| w.commit_requested("a", 1, 0, 4)), Problem::CommitAhead);
}

#[test]
fn commit_that_goes_back_is_found() {
    let checker = checked(|w| {
        w.committed(0, 3);
        w.committed(0, 2);
    });
    assert_only(&checker, Problem::CommitWentBack);
}

#[test]
fn record_handled_out_of_key_order_is_found() {
    let handled = |command: [i64; 3]| {
        let mut checker = GroupChecker::new(true);
        command.into_iter().for_each(|offset| checker.handled_by_key(0, offset));
        checker.check_keys(|_, offset| offset % 2); // 0 and 2 have the same key
        checker.finish(&[(0, 3)]);
        checker
    };
    assert!(handled([1, 0, 2]).is_clean());
    assert_only(&handled([2, 1, 0]), Problem::OutOfOrder);
}
