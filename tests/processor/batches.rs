//! Handlers of several records at a time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::processor::Batching;
use ailurus::{ErrorKind, HandlerOrdering, Message, Outcome};

use super::ordering::until;
use super::{LONG, Seen, assert_order, attempts_at, committed, connect, filled, number, support};

#[tokio::test(flavor = "multi_thread")]
async fn batches_fill_up_or_time_out() {
    let broker = support::broker().await;
    for (name, ordering) in
        [("whole", HandlerOrdering::Partition), ("keyed", HandlerOrdering::Key), ("single", HandlerOrdering::Unordered)]
    {
        let client = connect(broker.config().handler_ordering(ordering)).await;
        let topic = filled(&broker, &client, name, 1, 105).await;
        let (group, seen) = (broker.group(name), Seen::new());
        let (handled, sizes) = (seen.clone(), Arc::new(Mutex::new(Vec::new())));
        let lengths = Arc::clone(&sizes);
        let handle = move |messages: Vec<Message>| {
            let (handled, lengths) = (handled.clone(), Arc::clone(&lengths));
            async move {
                tokio::task::yield_now().await;
                lengths.lock().unwrap().push(messages.len());
                messages.into_iter().for_each(|m| handled.push(m));
            }
        };
        let batching = Batching::new(20, Duration::from_millis(300));
        let processor = client.processor(&group);
        let subscription = processor.subscribe_batches([&topic], batching, handle).await.unwrap();
        seen.until_numbers(105).await;
        assert!(subscription.shutdown().await.unwrap().is_empty());
        assert_eq!(seen.all().len(), 105, "none twice");
        if ordering != HandlerOrdering::Unordered {
            assert_order(&seen.all());
        }
        let sizes = sizes.lock().unwrap().clone();
        assert!(sizes.iter().all(|n| *n <= 20) && sizes.contains(&20), "{sizes:?}");
        assert_eq!(committed(&client, &group).await, 105);
        client.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_of_a_batch_has_its_own_outcome() {
    let broker = support::broker().await;
    let client = connect(broker.config().max_attempts(2_u32)).await;
    let topic = filled(&broker, &client, "each", 1, 10).await;
    let (group, seen) = (broker.group("each"), Seen::new());
    let handled = seen.clone();
    let handle = move |messages: Vec<Message>| {
        let outcomes: Vec<_> = messages
            .iter()
            .map(|m| match (number(m), m.attempt) {
                (3, _) => Outcome::retry("three"),
                (5, 1) => Outcome::retry("five"),
                (7, _) => Outcome::dead_letter("seven"),
                _ => Outcome::Done,
            })
            .collect();
        messages.into_iter().for_each(|m| handled.push(m));
        async { outcomes }
    };
    let batching = Batching::new(10, LONG);
    let processor = client.processor(&group);
    let subscription = processor.subscribe_batches([&topic], batching, handle).await.unwrap();
    seen.until(|all| all.len() == 12).await;
    until(&subscription, |s| s.dead_letters == 2).await;
    let stats = subscription.stats();
    assert_eq!((stats.retries, stats.failed_attempts), (2, 4));
    subscription.shutdown().await.unwrap();
    assert_eq!([0, 3, 5, 7].map(|n| attempts_at(&seen, n).len()), [1, 2, 2, 1]);
    assert_eq!(committed(&client, &group).await, 10);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_record_of_a_batch_becomes_a_dead_letter() {
    let broker = support::broker().await;
    let client = connect(broker.config().max_attempts(2_u32).handler_ordering(HandlerOrdering::Key)).await;
    let topic = filled(&broker, &client, "bad", 1, 20).await;
    let (group, seen) = (broker.group("bad"), Seen::new());
    let handled = seen.clone();
    let handle = move |messages: Vec<Message>| {
        let bad = messages.iter().any(|m| number(m) == 6);
        messages.into_iter().filter(|_| !bad).for_each(|m| handled.push(m));
        async move { if bad { Err("a constraint") } else { Ok(()) } }
    };
    let batching = Batching::new(20, LONG);
    let processor = client.processor(&group);
    let subscription = processor.subscribe_batches([&topic], batching, handle).await.unwrap();
    seen.until_numbers(19).await;
    subscription.shutdown().await.unwrap();
    let letters = super::read_all(&client, &format!("{topic}.dlq")).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].value.as_deref(), Some(b"6".as_slice()));
    assert_order(&seen.all());
    assert_eq!(committed(&client, &group).await, 20);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_sizes_out_of_bounds_are_rejected() {
    let broker = support::broker().await;
    let client = connect(broker.config()).await;
    let handle = |_: Vec<Message>| async {};
    let batching = Batching::new(0, Duration::ZERO);
    let refused = client.processor("g").subscribe_batches(["t"], batching, handle).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Config);
    client.close().await;
}
