//! The watch itself, on groups in which one thing is wrong.

use super::watch::{Problem, Watch};

/// Two members with a partition each, who have handled three records; then what the test does, then the end.
fn watched(then: impl FnOnce(&mut Watch)) -> Watch {
    let mut watch = Watch::new(true);
    watch.shared(1, vec![("a".into(), vec![0]), ("b".into(), vec![1])]);
    for (member, p) in [(0, 0), (1, 1)] {
        watch.assigned(member, &[p]);
        (0..3).for_each(|offset| watch.handled(member, p, offset));
    }
    then(&mut watch);
    watch.finish(&[(0, 3), (1, 3)]);
    watch
}

#[track_caller]
fn assert_only(watch: &Watch, problem: Problem) {
    for (other, name) in Problem::ALL {
        assert_eq!(watch.problems.count(other) > 0, other == problem, "{name}\n{}", watch.problems.details());
    }
}

#[test]
fn a_group_without_fault_is_clean() {
    let watch = watched(|w| {
        w.commits("a", 1, 0, 3);
        w.committed(0, 3);
        w.gave_up(0, &[0]);
        w.shared(2, vec![("b".into(), vec![0, 1])]);
        w.assigned(1, &[0]);
        w.commits("b", 2, 0, 3);
        w.committed(0, 3);
    });
    assert!(watch.is_clean(), "{}", watch.problems.details());
}

#[test]
fn a_record_that_nobody_handled_is_found() {
    let mut watch = watched(|_| {});
    watch.finish(&[(0, 4)]);
    assert_only(&watch, Problem::Lost);
}

#[test]
fn a_record_handled_again_is_found_unless_a_member_was_lost() {
    let again = |w: &mut Watch| w.handled(0, 0, 1);
    assert_only(&watched(again), Problem::Again);
    let watch = watched(|w| {
        again(w);
        w.lost(1, None);
    });
    assert!(watch.is_clean(), "{}", watch.problems.details());
}

#[test]
fn a_record_handled_too_early_is_found() {
    let mut watch = Watch::new(true);
    watch.assigned(0, &[0]);
    [0, 2, 1].into_iter().for_each(|offset| watch.handled(0, 0, offset));
    watch.finish(&[(0, 3)]);
    assert_only(&watch, Problem::Skipped);
}

#[test]
fn a_stranger_is_found() {
    let mut watch = Watch::new(true);
    watch.assigned(0, &[0]);
    watch.handled(0, 0, 0);
    watch.gave_up(0, &[0]);
    watch.handled(0, 0, 1);
    watch.finish(&[(0, 2)]);
    assert_only(&watch, Problem::Stranger);
}

#[test]
fn two_owners_are_found_unless_the_first_has_lost_its_session() {
    let two = |w: &mut Watch| w.assigned(1, &[0]);
    let watch = watched(|w| {
        two(w);
        w.gave_up(0, &[0]);
    });
    assert_only(&watch, Problem::TwoOwners);
    let watch = watched(|w| {
        two(w);
        w.lost(0, Some(&[0]));
    });
    assert!(watch.is_clean(), "{}", watch.problems.details());
}

#[test]
fn a_partition_given_to_two_is_found() {
    let watch = watched(|w| w.shared(2, vec![("a".into(), vec![0, 1]), ("b".into(), vec![1])]));
    assert_only(&watch, Problem::SharedTwice);
}

#[test]
fn a_commit_for_another_s_partition_is_found() {
    assert_only(&watched(|w| w.commits("a", 1, 1, 3)), Problem::ForeignCommit);
}

#[test]
fn a_commit_past_what_was_handled_is_found() {
    assert_only(&watched(|w| w.commits("a", 1, 0, 4)), Problem::CommitAhead);
}

#[test]
fn a_commit_that_goes_back_is_found() {
    let watch = watched(|w| {
        w.committed(0, 3);
        w.committed(0, 2);
    });
    assert_only(&watch, Problem::CommitBack);
}

#[test]
fn a_record_handled_before_another_of_its_key_is_found() {
    let handled = |order: [i64; 3]| {
        let mut watch = Watch::new(true);
        order.into_iter().for_each(|offset| watch.handled_by_key(0, offset));
        watch.check_keys(|_, offset| offset % 2); // 0 and 2 have the same key
        watch.finish(&[(0, 3)]);
        watch
    };
    assert!(handled([1, 0, 2]).is_clean());
    assert_only(&handled([2, 1, 0]), Problem::Skipped);
}
