//! Health and metrics of a core.

use super::*;
use crate::producer::TransactionalProducerState as Shown;

#[test]
fn health_has_the_age_of_the_open_transaction() {
    for mut bed in [TestBed::v1(), TestBed::v2()] {
        let health = |bed: &TestBed| bed.core.health(bed.now, None);
        assert_eq!((health(&bed).state, health(&bed).open_for), (Shown::Ready, None));
        bed.begin_with_record();
        bed.now += 7000 * MS;
        assert_eq!((health(&bed).state, health(&bed).open_for), (Shown::Open, Some(7000 * MS)));
        bed.commit();
        bed.request();
        bed.now += 30 * MS;
        assert_eq!((health(&bed).state, health(&bed).open_for), (Shown::Committing, Some(7030 * MS)));
        bed.respond(epoch(1));
        let after = health(&bed);
        assert_eq!((after.state, after.open_for, after.commit_latency), (Shown::Ready, None, Some(30 * MS)));
        let ended = bed.core.poll_ended().unwrap();
        assert_eq!((ended.outcome, ended.took, ended.error), ("committed", 30 * MS, None));
        assert_eq!(bed.core.poll_ended(), None, "reported once");
    }
}

#[test]
fn transactions_are_counted_but_not_empty_ones() {
    let mut bed = TestBed::v1();
    bed.begin();
    bed.commit();
    assert_eq!(bed.request(), "");
    bed.begin();
    bed.abort();
    assert_eq!(bed.request(), "");
    let counts = |bed: &TestBed| (bed.core.health(bed.now, None).committed, bed.core.health(bed.now, None).aborted);
    assert_eq!((counts(&bed), bed.core.poll_ended()), ((0, 0), None));
    bed.begin_with_record();
    bed.commit();
    assert_eq!(bed.request(), "commit 0");
    bed.respond(Response::Done);
    bed.begin_with_record();
    bed.abort();
    assert_eq!(bed.request(), "abort 0");
    bed.respond(Response::Done);
    assert_eq!(counts(&bed), (1, 1));
    assert_eq!(bed.core.health(bed.now, None).last_error, None, "the application has aborted it");
}

#[test]
fn health_has_the_last_error_with_its_action() {
    let mut bed = TestBed::v1();
    bed.begin_with_record();
    bed.core.on_send_failure(bed.now, &SendFailure { error: Error::broker(29, "produce"), needs_epoch: false });
    bed.commit();
    assert_eq!(bed.request(), "abort 0");
    bed.respond(Response::Done);
    assert_eq!(bed.core.poll_ended().unwrap().outcome, "aborted");
    bed.begin_with_record();
    bed.commit();
    assert_eq!(bed.request(), "commit 0");
    bed.now += 5000 * MS;
    bed.fail(refusal(code::PRODUCER_FENCED));
    let health = bed.core.health(bed.now + 1000 * MS, Some("g".into()));
    let error = health.last_error.unwrap();
    assert_eq!((health.state.as_str(), &*error.action, error.age), ("fenced", "fenced", 1000 * MS));
    assert!(error.error.contains("PRODUCER_FENCED") || error.error.contains("ProducerFenced"), "{}", error.error);
    assert_eq!((health.aborted, health.open_for, health.group.as_deref()), (1, None, Some("g")));
    assert_eq!(bed.core.poll_ended().unwrap().outcome, "fenced");
}

#[test]
fn health_has_the_request_that_is_retried_for_long() {
    let mut bed = TestBed::v1();
    bed.begin_with_record();
    bed.commit();
    assert_eq!(bed.request(), "commit 0");
    bed.fail(refusal(code::CONCURRENT_TRANSACTIONS));
    assert_eq!(bed.core.health(bed.now, None).problem, None, "for a moment");
    bed.wait();
    assert_eq!(bed.request(), "commit 0");
    bed.fail(refusal(code::COORDINATOR_LOAD_IN_PROGRESS));
    let problem = bed.core.health(bed.now, None).problem.unwrap();
    assert!(problem.starts_with("for 1s: "), "{problem}");
    bed.wait();
    assert_eq!(bed.request(), "commit 0");
    bed.respond(Response::Done);
    assert_eq!(bed.core.health(bed.now, None).problem, None);
}

#[test]
fn a_commit_that_is_confirmed_late_counts_as_unknown_and_as_committed() {
    let mut bed = TestBed::v1();
    bed.begin_with_record();
    bed.commit();
    assert_eq!(bed.request(), "commit 0");
    bed.now += TIMEOUT;
    bed.core.on_timeout(bed.now);
    assert_eq!(bed.core.poll_ended().unwrap().outcome, "unknown");
    let health = bed.core.health(bed.now, None);
    assert_eq!((health.state.as_str(), health.open_for, health.committed), ("unconfirmed", Some(TIMEOUT), 0));
    bed.respond(Response::Done);
    assert_eq!(bed.core.poll_ended().unwrap().outcome, "committed");
    let health = bed.core.health(bed.now, None);
    assert_eq!((health.committed, health.aborted, health.open_for), (1, 0, None));
    assert_eq!(health.last_error.unwrap().action, "unknown");
}
