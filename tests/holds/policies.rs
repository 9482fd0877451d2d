//! Policies: failures that wait, are skipped, are retried forever or become dead letters.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::processor::{AttemptTimeout, Batching, FailurePolicy, Hold, HoldScope, find_cause};
use ailurus::{HandlerOrdering, Message, Outcome};

use super::{Setup, number, until, until_failed_probes};

/// The error of a database's driver.
#[derive(Debug)]
enum DatabaseError {
    Unreachable,
    Invalid,
}

impl std::fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for DatabaseError {}

fn classify(_: &Message, error: &(dyn std::error::Error + 'static)) -> FailurePolicy {
    match find_cause::<DatabaseError>(error) {
        Some(DatabaseError::Unreachable) => FailurePolicy::hold("postgres"),
        Some(DatabaseError::Invalid) => FailurePolicy::DeadLetter,
        None => FailurePolicy::Retry,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_classifies_errors_of_records_and_batches() {
    for is_batched in [false, true] {
        let setup = Setup::new(60).await;
        let dependency = setup.dependency.clone();
        let handle = move |message: Message| match dependency.store(&message) {
            Err(_) => Err(DatabaseError::Unreachable),
            Ok(()) if number(&message) == 7 => Err(DatabaseError::Invalid),
            Ok(()) => Ok(()),
        };
        let processor = setup.processor().on_failure(classify);
        let subscription = if is_batched {
            let handle = move |all: Vec<Message>| {
                let outcomes = all.into_iter().map(&handle).collect::<Vec<_>>();
                async move { outcomes }
            };
            let batching = Batching::new(8, Duration::from_millis(2));
            processor.subscribe_batches([&setup.topic], batching, handle).await.unwrap()
        } else {
            let handle = move |message: Message| {
                let outcome = handle(message);
                async move { outcome }
            };
            processor.subscribe([&setup.topic], handle).await.unwrap()
        };
        until_failed_probes(&subscription, 4).await;
        assert_eq!(subscription.stats().dead_letters, 0);
        setup.dependency.set_up(true);
        until("the commit", async || setup.committed().await == 60).await;
        assert_eq!(subscription.stats().dead_letters, 1, "the invalid one");
        subscription.shutdown().await.unwrap();
        setup.client.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_common_error_of_a_batch_is_classified() {
    let setup = Setup::new(60).await;
    let dependency = setup.dependency.clone();
    let handle = move |all: Vec<Message>| {
        let stored = all.iter().try_for_each(|m| dependency.store(m).map_err(|_| DatabaseError::Unreachable));
        async move { stored }
    };
    let batching = Batching::new(8, Duration::from_millis(2));
    let processor = setup.processor().on_failure(classify);
    let subscription = processor.subscribe_batches([&setup.topic], batching, handle).await.unwrap();
    until_failed_probes(&subscription, 4).await;
    setup.dependency.set_up(true);
    setup.until_handled(60).await;
    setup.end(subscription, 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_can_be_an_outage() {
    let setup = Setup::new(30).await;
    let dependency = setup.dependency.clone();
    let handle = move |message: Message| {
        let stored = dependency.store(&message);
        async move {
            if stored.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let processor =
        setup.processor().attempt_timeout(Duration::from_millis(20)).on_failure(|_, error| {
            match find_cause::<AttemptTimeout>(error) {
                Some(_) => FailurePolicy::hold(Hold::on("prices").scope(HoldScope::Subscription)),
                None => FailurePolicy::Retry,
            }
        });
    let subscription = processor.subscribe([&setup.topic], handle).await.unwrap();
    until_failed_probes(&subscription, 3).await;
    assert_eq!(subscription.health().waiting_for[0].error, "timed out after 20ms");
    setup.dependency.set_up(true);
    setup.until_handled(30).await;
    setup.end(subscription, 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_skipped_or_retried_for_ever() {
    let setup = Setup::new(30).await;
    setup.dependency.set_up(true);
    let (dependency, retries) = (setup.dependency.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&retries);
    let handle = move |message: Message| {
        let outcome = match number(&message) {
            4 => Outcome::skip("of no interest"),
            5 if message.attempt <= 50 => {
                counted.fetch_add(1, Ordering::SeqCst);
                Outcome::retry_forever("not yet")
            }
            _ => {
                dependency.store(&message).unwrap();
                Outcome::Done
            }
        };
        async move { outcome }
    };
    let processor = setup.processor().retry_backoff_max(Duration::from_millis(2));
    let subscription = processor.subscribe([&setup.topic], handle).await.unwrap();
    until("the commit", async || setup.committed().await == 30).await;
    let stats = subscription.stats();
    assert_eq!((stats.skipped, stats.handled, stats.dead_letters), (1, 29, 0), "{stats:?}");
    assert_eq!(retries.load(Ordering::SeqCst), 50);
    subscription.shutdown().await.unwrap();
    setup.client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_everything_are_an_outage_without_a_word_from_the_handler() {
    let setup = Setup::new(100).await;
    let dependency = setup.dependency.clone();
    let handle = move |message: Message| {
        let stored = dependency.store(&message);
        async move { stored }
    };
    let subscription = setup.processor().outage_records(10_usize).subscribe([&setup.topic], handle).await.unwrap();
    until_failed_probes(&subscription, 5).await;
    let waiting = subscription.health().waiting_for[0].clone();
    assert_eq!(waiting.dependency, "unknown");
    assert_eq!(waiting.error, "connection refused");
    setup.dependency.set_up(true);
    until("the commit", async || setup.committed().await == 100).await;
    let stats = subscription.stats();
    assert!(stats.dead_letters < 10 && stats.dead_letters + stats.handled == 100, "{stats:?}");
    assert!(subscription.health().waiting_for.is_empty());
    subscription.shutdown().await.unwrap();
    setup.client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_records_that_fail_are_no_outage() {
    let setup = Setup::new(100).await;
    setup.dependency.set_up(true);
    let dependency = setup.dependency.clone();
    let handle = move |message: Message| {
        let outcome = match number(&message) {
            3 | 18 | 37 | 56 | 74 => Err("no such price"),
            _ => dependency.store(&message),
        };
        async move { outcome }
    };
    // In partition order, so that a bad record is alone in its partition while it fails.
    let processor = setup.processor().ordering(HandlerOrdering::Partition);
    let subscription = processor.outage_records(4_usize).subscribe([&setup.topic], handle).await.unwrap();
    until("the commit", async || setup.committed().await == 100).await;
    let stats = subscription.stats();
    assert_eq!((stats.dead_letters, stats.handled), (5, 95), "{stats:?}");
    subscription.shutdown().await.unwrap();
    setup.client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_of_a_batch_is_no_outage() {
    let setup = Setup::new(100).await;
    setup.dependency.set_up(true);
    let dependency = setup.dependency.clone();
    let handle = move |all: Vec<Message>| {
        let outcome = match all.iter().any(|m| m.partition == 0 && m.offset == 0) {
            true => Err("no such price"),
            false => {
                all.iter().for_each(|m| dependency.note(m));
                Ok(())
            }
        };
        async move { outcome }
    };
    let batching = Batching::new(50, Duration::from_millis(100));
    let processor = setup.processor().ordering(HandlerOrdering::Partition).outage_records(4_usize);
    let subscription = processor.subscribe_batches([&setup.topic], batching, handle).await.unwrap();
    until("the commit", async || setup.committed().await == 100).await;
    let stats = subscription.stats();
    assert_eq!((stats.dead_letters, stats.handled), (1, 99), "{stats:?}");
    subscription.shutdown().await.unwrap();
    setup.client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_detection_an_outage_makes_dead_letters() {
    let setup = Setup::new(30).await;
    let handle = |_: Message| async { Err::<(), _>("connection refused") };
    let subscription = setup.processor().outage_records(0_usize).subscribe([&setup.topic], handle).await.unwrap();
    until("the commit", async || setup.committed().await == 30).await;
    assert_eq!(subscription.stats().dead_letters, 30);
    assert!(subscription.health().waiting_for.is_empty());
    subscription.shutdown().await.unwrap();
    assert_eq!(setup.dead_letters().await, 30);
    setup.client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_does_not_keep_what_waits() {
    let setup = Setup::new(40).await;
    let dependency = setup.dependency.clone();
    // The first record of each partition fails for another reason once the dependency is back.
    let firsts = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
    let handle = move |message: Message| {
        let outcome = match dependency.store(&message) {
            Err(e) => Outcome::hold("postgres", e),
            Ok(()) if message.offset == 0 => {
                firsts.lock().unwrap().insert(message.partition);
                Outcome::retry("no such price")
            }
            Ok(()) => Outcome::Done,
        };
        async move { outcome }
    };
    let processor = setup.processor().ordering(HandlerOrdering::Partition);
    let subscription = processor.subscribe([&setup.topic], handle).await.unwrap();
    until_failed_probes(&subscription, 6).await;
    setup.dependency.set_up(true);
    until("the commit", async || setup.committed().await == 40).await;
    let stats = subscription.stats();
    assert!(stats.dead_letters <= 3 && stats.dead_letters + stats.handled == 40, "{stats:?}");
    assert!(stats.dead_letters > 0 && subscription.health().waiting_for.is_empty());
    subscription.shutdown().await.unwrap();
    setup.client.close().await;
}
