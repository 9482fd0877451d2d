//! Ordering scopes: which records are handled in sequence, and which a failed one blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::processor::Stats;
use ailurus::{Admin, HandlerOrdering, Message, Outcome, ProducerRecord, Subscription};
use bytes::Bytes;
use tokio::sync::{Barrier, watch};

use super::{LONG, Seen, assert_order, attempts_at, committed, connect, filled, number, produce, support};

/// Waits until the subscription's counts satisfy `done`.
pub(super) async fn until(subscription: &Subscription, done: impl Fn(&Stats) -> bool) {
    let wait = async {
        while !done(&subscription.stats()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(LONG, wait).await.is_ok();
    assert!(in_time, "{:?} after {LONG:?}", subscription.stats());
}

/// Notes which keys are in a handler.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<BTreeSet<(i32, Bytes)>>>);

impl Running {
    fn begin(&self, message: &Message) {
        let key = (message.partition, message.key.clone().unwrap());
        assert!(self.0.lock().unwrap().insert(key), "two of key {:?} at a time", message.key);
    }
    fn end(&self, message: &Message) {
        self.0.lock().unwrap().remove(&(message.partition, message.key.clone().unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_handled_concurrently_and_in_order() {
    let broker = support::broker().await;
    let client = connect(broker.config().handler_ordering(HandlerOrdering::Key)).await;
    let topic = filled(&broker, &client, "keys", 2, 600).await;
    let (group, seen) = (broker.group("keys"), Seen::new());
    let (handled, running, all_at_once) = (seen.clone(), Running::default(), Arc::new(Barrier::new(10)));
    let handle = move |message: Message| {
        let (handled, running, all_at_once) = (handled.clone(), running.clone(), Arc::clone(&all_at_once));
        async move {
            running.begin(&message);
            let n = number(&message);
            if n < 10 {
                all_at_once.wait().await; // the first of each key: none gets further unless all are here
            }
            for _ in 0..n % 5 {
                tokio::task::yield_now().await;
            }
            running.end(&message);
            handled.push(message);
        }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    seen.until_numbers(600).await;
    assert!(subscription.shutdown().await.unwrap().is_empty());
    assert_eq!(seen.all().len(), 600, "none twice");
    assert_order(&seen.all());
    assert_eq!(committed(&client, &group).await, 600);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_key_blocks_only_itself() {
    let broker = support::broker().await;
    let client = connect(broker.config().handler_ordering(HandlerOrdering::Key).max_attempts(1000_u32)).await;
    let topic = filled(&broker, &client, "parked", 1, 100).await;
    let (group, seen) = (broker.group("parked"), Seen::new());
    let (handled, closed) = (seen.clone(), Arc::new(AtomicBool::new(true)));
    let gate = Arc::clone(&closed);
    let handle = move |message: Message| {
        if number(&message) == 3 && gate.load(Ordering::SeqCst) {
            return std::future::ready(Outcome::retry_after(Duration::from_millis(5), "closed"));
        }
        handled.push(message);
        std::future::ready(Outcome::Done)
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    seen.until_numbers(90).await;
    assert!(seen.values().iter().all(|n| n % 10 != 3), "those of the key wait");
    until(&subscription, |s| s.parked_keys == 1 && s.retries > 5).await;
    closed.store(false, Ordering::SeqCst);
    seen.until_numbers(100).await;
    assert_order(&seen.all());
    subscription.shutdown().await.unwrap();
    assert_eq!(seen.all().len(), 100);
    assert_eq!(committed(&client, &group).await, 100);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unordered_failures_block_nothing() {
    let broker = support::broker().await;
    let client = connect(broker.config().handler_ordering(HandlerOrdering::Unordered)).await;
    let topic = filled(&broker, &client, "free", 1, 50).await;
    let (group, seen) = (broker.group("free"), Seen::new());
    let handled = seen.clone();
    let handle = move |message: Message| {
        let outcome = match number(&message) {
            3 => Outcome::retry_after(LONG, "never"),
            _ => Outcome::Done,
        };
        handled.push(message);
        async { outcome }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    seen.until_numbers(50).await;
    let left = subscription.shutdown().await.unwrap();
    assert_eq!(left.to_string(), format!("{topic}/0: 0 cancelled, 1 awaiting retry, 0 queued"));
    assert_eq!(committed(&client, &group).await, 3);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completed_offsets_survive_a_change_of_owner() {
    let broker = support::broker().await;
    let client = connect(broker.config().handler_ordering(HandlerOrdering::Key)).await;
    let topic = filled(&broker, &client, "again", 1, 100).await;
    let (group, first, second) = (broker.group("again"), Seen::new(), Seen::new());
    let handled = first.clone();
    let handle = move |message: Message| {
        let outcome = match number(&message) % 10 {
            4 => Outcome::retry_after(LONG, "another may"),
            _ => Outcome::Done,
        };
        handled.push(message);
        async { outcome }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    first.until_numbers(91).await;
    subscription.shutdown().await.unwrap();
    assert_eq!(committed(&client, &group).await, 4);

    let subscription = super::watching(&client, &topic, &group, &second).await;
    produce(&client, &topic, 100..110).await;
    second.until(|all| all.iter().any(|m| number(m) == 109)).await;
    subscription.shutdown().await.unwrap();
    let expected: BTreeSet<_> = (0..100).filter(|n| n % 10 == 4).chain(100..110).collect();
    assert_eq!(second.values(), expected);
    assert_eq!(committed(&client, &group).await, 110);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_is_bounded_and_shared_fairly() {
    let broker = support::broker().await;
    let config = broker.config().handler_ordering(HandlerOrdering::Unordered).handler_concurrency(3_usize);
    let client = connect(config).await;
    let topic = filled(&broker, &client, "limit", 4, 400).await;
    let (group, seen) = (broker.group("limit"), Seen::new());
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (handled, running, peak) = (seen.clone(), Arc::clone(&now), Arc::clone(&most));
    let handle = move |message: Message| {
        let (handled, running, peak) = (handled.clone(), Arc::clone(&running), Arc::clone(&peak));
        async move {
            peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(1)).await;
            running.fetch_sub(1, Ordering::SeqCst);
            handled.push(message);
        }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    seen.until_numbers(400).await;
    subscription.shutdown().await.unwrap();
    assert!((2..=3).contains(&most.load(Ordering::SeqCst)), "{most:?} were in flight");
    assert_eq!(seen.all().len(), 400);
    client.close().await;
}

/// Handlers that take long do not end up with all of the concurrency.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_partition_leaves_permits_for_others() {
    let broker = support::broker().await;
    let client =
        connect(broker.config().handler_ordering(HandlerOrdering::Unordered).handler_concurrency(16_usize)).await;
    let topic = broker.topic("slow");
    Admin::new(&client).create_topic(&topic, 2, None).await.unwrap();
    let producer = client.producer().start().unwrap();
    let send = async |partition: i32, count: usize| {
        for i in 0..count {
            let value = i.to_string();
            let record = ProducerRecord::to(&topic).partition(partition).key(&value).value(&value);
            producer.send(record).await.unwrap().await.unwrap();
        }
    };
    let (open, gate) = watch::channel(false);
    let (group, seen) = (broker.group("slow"), Seen::new());
    let handled = seen.clone();
    let handle = move |message: Message| {
        let (handled, mut gate) = (handled.clone(), gate.clone());
        async move {
            if message.partition == 0 {
                _ = gate.wait_for(|open| *open).await;
            }
            tokio::task::yield_now().await;
            handled.push(message);
        }
    };
    send(0, 40).await;
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    until(&subscription, |s| s.in_flight >= 15).await;
    send(1, 100).await;
    seen.until_numbers(100).await;
    assert!(seen.all().iter().all(|m| m.partition == 1), "the slow ones have not ended");
    open.send(true).unwrap();
    until(&subscription, |s| s.handled == 140).await;
    subscription.shutdown().await.unwrap();
    producer.close(LONG).await.unwrap();
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_pauses_fetching() {
    const ROOM: usize = 5;
    let broker = support::broker().await;
    let config =
        broker.config().processor(|p| p.ordering(HandlerOrdering::Key).parked_records(ROOM).max_attempts(1000));
    let client = connect(config).await;
    // Each key once, and all of them fail: what has failed waits, and must not be joined by all others.
    let topic = filled(&broker, &client, "room", 1, 0).await;
    let producer = client.producer().start().unwrap();
    for n in 0..100 {
        let (key, value) = (format!("key-{n}"), n.to_string());
        drop(producer.send(ailurus::ProducerRecord::to(&topic).key(&key).value(&value)).await.unwrap());
    }
    producer.close(LONG).await.unwrap();
    let (group, seen) = (broker.group("room"), Seen::new());
    let (handled, closed) = (seen.clone(), Arc::new(AtomicBool::new(true)));
    let gate = Arc::clone(&closed);
    let handle = move |message: Message| {
        handled.push(message);
        let outcome = match gate.load(Ordering::SeqCst) {
            true => Outcome::retry_after(Duration::from_millis(1), "closed"),
            false => Outcome::Done,
        };
        async { outcome }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    until(&subscription, |s| s.retries > 100).await;
    assert_eq!(seen.values(), (0..ROOM).collect(), "no other was begun");
    closed.store(false, Ordering::SeqCst);
    until(&subscription, |s| s.handled == 100).await; // the first ones have been seen before, when they failed
    subscription.shutdown().await.unwrap();
    assert_eq!(seen.values().len(), 100);
    assert_eq!(committed(&client, &group).await, 100);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempt_timeout_cancels_and_fails_the_attempt() {
    let broker = support::broker().await;
    let limit = Duration::from_millis(100);
    let client = connect(broker.config().attempt_timeout(Some(limit)).max_attempts(2_u32)).await;
    let topic = filled(&broker, &client, "timeout", 1, 10).await;
    let (group, seen) = (broker.group("timeout"), Seen::new());
    let handled = seen.clone();
    let handle = move |message: Message| {
        let n = number(&message);
        assert!(message.deadline().is_some());
        handled.push(message);
        async move {
            if n == 4 {
                std::future::pending::<()>().await;
            }
        }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    seen.until_numbers(10).await;
    subscription.shutdown().await.unwrap();
    assert_eq!(attempts_at(&seen, 4), [1, 2]);
    let letters = super::read_all(&client, &format!("{topic}.dlq")).await;
    assert_eq!(letters.len(), 1);
    assert!(letters[0].headers.get_str("dlq-error").unwrap().ends_with("timed out after 100ms"));
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_handler_loses_its_partitions() {
    let broker = support::broker().await;
    let client = connect(broker.config().max_poll_interval(Duration::from_secs(1))).await;
    let topic = filled(&broker, &client, "hangs", 1, 10).await;
    let (group, seen) = (broker.group("hangs"), Seen::new());
    let (handled, first) = (seen.clone(), Arc::new(AtomicBool::new(true)));
    let handle = move |message: Message| {
        let hangs = number(&message) == 3 && first.swap(false, Ordering::SeqCst);
        let handled = handled.clone();
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            handled.push(message);
        }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    seen.until_numbers(10).await;
    assert!(subscription.stats().rebalances > 1, "it had to join again");
    subscription.shutdown().await.unwrap();
    assert_eq!(committed(&client, &group).await, 10);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn membership_changes_keep_key_order() {
    let broker = support::broker().await;
    let session = broker.shortest_session();
    let config = broker.config().session_timeout(session).heartbeat_interval(session / 10);
    let client = connect(config.handler_ordering(HandlerOrdering::Key)).await;
    let topic = filled(&broker, &client, "move", 4, 300).await;
    let (group, seen) = (broker.group("move"), Seen::new());
    let member = async || {
        let (handled, failed) = (seen.clone(), Arc::new(Mutex::new(BTreeMap::new())));
        let handle = move |message: Message| {
            let (handled, failed) = (handled.clone(), Arc::clone(&failed));
            async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                let n = number(&message);
                if n % 7 == 0 && failed.lock().unwrap().insert(n, ()).is_none() {
                    return Err("the first time");
                }
                handled.push(message);
                Ok(())
            }
        };
        client.processor(&group).subscribe([&topic], handle).await.unwrap()
    };
    let first = member().await;
    seen.until(|all| all.len() > 50).await;
    let second = member().await;
    produce(&client, &topic, 300..600).await;
    seen.until_numbers(600).await;
    first.shutdown().await.unwrap();
    produce(&client, &topic, 600..900).await;
    seen.until_numbers(900).await;
    second.shutdown().await.unwrap();
    assert_eq!(committed(&client, &group).await, 900);
    // In the order in which they were handled first; again only what was handled before.
    let mut known = BTreeSet::new();
    let all = seen.all();
    let firsts: Vec<_> = all.iter().filter(|m| known.insert(number(m))).cloned().collect();
    assert_order(&firsts);
    client.close().await;
}
