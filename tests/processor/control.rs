//! Control of a subscription while it runs.

use ailurus::AssignorKind;
use ailurus::processor::{PauseReason, Scope, SubscriptionHealth};
use ailurus_metrics::Registry;

use super::*;

/// Waits until the subscription's health satisfies `done`.
pub(super) async fn until_health(subscription: &Subscription, done: impl Fn(&SubscriptionHealth) -> bool) {
    let wait = async {
        while !done(&subscription.health()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(LONG, wait).await.is_ok();
    assert!(in_time, "{:?} after {LONG:?}", subscription.health());
}

/// Puts one record into each of these partitions.
async fn produce_to(client: &Client, topic: &str, partitions: impl IntoIterator<Item = i32>, number: usize) {
    let producer = client.producer().start().unwrap();
    for partition in partitions {
        let value = number.to_string();
        let record = ProducerRecord::to(topic).partition(partition).key("k").value(&value);
        producer.send(record).await.unwrap().await.unwrap();
    }
    producer.close(LONG).await.unwrap();
}

fn paused(health: &SubscriptionHealth) -> Vec<i32> {
    let paused = health.partitions.iter().filter(|p| p.paused_by == [PauseReason::Control]);
    paused.map(|p| p.partition).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_topic_stays_assigned_and_is_not_handled() {
    let broker = support::broker().await;
    let client = connect(broker.config()).await;
    let (slow, quick) = (filled(&broker, &client, "slow", 2, 0).await, filled(&broker, &client, "quick", 1, 0).await);
    let (group, seen) = (broker.group("g"), Seen::new());
    let handled = seen.clone();
    let handle = move |message: Message| {
        handled.push(message);
        async { Ok::<_, Infallible>(()) }
    };
    let subscription = client.processor(&group).subscribe([&slow, &quick], handle).await.unwrap();
    until_health(&subscription, |h| h.partitions.len() == 3).await;
    let control = subscription.control();
    control.pause(&slow).unwrap();
    produce_to(&client, &slow, [0, 1], 1).await;
    produce_to(&client, &quick, [0], 2).await;
    seen.until_numbers(1).await;
    assert_eq!(seen.values(), BTreeSet::from([2]), "nothing of the paused topic");
    let health = subscription.health();
    assert_eq!((health.partitions.len(), subscription.stats().rebalances), (3, 1));
    assert_eq!(health.partitions.iter().filter(|p| p.paused_by == [PauseReason::Control]).count(), 2);
    assert_eq!(control.paused(), [Scope::Topic(slow.clone())]);

    control.pause(Scope::All).unwrap();
    control.resume(&slow).unwrap();
    produce_to(&client, &quick, [0], 3).await;
    seen.until(|all| all.len() == 3).await;
    assert_eq!(seen.values(), BTreeSet::from([1, 2]), "the other topic is paused now");
    control.resume(Scope::All).unwrap();
    seen.until_numbers(3).await;
    assert!(control.pause("another").unwrap_err().to_string().contains("not subscribed"));
    let elsewhere = control.pause(TopicPartition::new(&*slow, 7)).unwrap_err();
    assert_eq!(elsewhere.kind(), ErrorKind::GroupMembership);
    subscription.shutdown().await.unwrap();
    assert_eq!(control.pause(Scope::All).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(committed(&client, &group).await, 4);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_in_flight_finish_and_retries_wait_during_a_pause() {
    let broker = support::broker().await;
    let client = connect(broker.config().handler_ordering(HandlerOrdering::Key)).await;
    let topic = filled(&broker, &client, "t", 1, 2).await;
    let (group, seen, gate) = (broker.group("g"), Seen::new(), Arc::new(Semaphore::new(0)));
    let (handled, open) = (seen.clone(), Arc::clone(&gate));
    let handle = move |message: Message| {
        handled.push(message.clone());
        let open = Arc::clone(&open);
        async move {
            open.acquire().await.unwrap().forget();
            match (number(&message), message.attempt) {
                (0, 1) => Outcome::retry_after(Duration::ZERO, "again"),
                _ => Outcome::Done,
            }
        }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    seen.until_numbers(2).await;
    let control = subscription.control();
    control.pause(Scope::All).unwrap();
    gate.add_permits(2);
    until_health(&subscription, |h| h.partitions[0].in_flight == 0 && subscription.stats().retries == 1).await;
    assert_eq!(subscription.stats().handled, 1, "the other one is handled");
    assert_eq!(seen.all().len(), 2, "its retry waits");
    gate.add_permits(1);
    control.resume(Scope::All).unwrap();
    seen.until(|all| all.len() == 3).await;
    subscription.shutdown().await.unwrap();
    assert_eq!(committed(&client, &group).await, 2);
    client.close().await;
}

async fn pauses_over_rebalances(assignor: AssignorKind) {
    let broker = support::broker().await;
    let session = broker.shortest_session();
    let config = broker.config().session_timeout(session).heartbeat_interval(session / 10);
    let client = connect(config.assignors([assignor])).await;
    let topic = filled(&broker, &client, "t", 4, 0).await;
    let (group, first_seen, second_seen) = (broker.group("g"), Seen::new(), Seen::new());
    let first = watching(&client, &topic, &group, &first_seen).await;
    until_health(&first, |h| h.partitions.len() == 4).await;
    let control = first.control();
    for partition in 0..4 {
        control.pause(TopicPartition::new(&*topic, partition)).unwrap();
    }
    produce_to(&client, &topic, 0..4, 1).await;

    let second = watching(&client, &topic, &group, &second_seen).await;
    second_seen.until(|all| all.len() == 2).await; // those that moved are not paused there
    until_health(&first, |h| h.partitions.len() == 2 && paused(h).len() == 2).await;
    let stayed = paused(&first.health());

    second.shutdown().await.unwrap();
    until_health(&first, |h| h.partitions.len() == 4).await;
    produce_to(&client, &topic, 0..4, 2).await;
    first_seen.until(|all| all.len() == 2).await; // those that came back
    assert_eq!(paused(&first.health()), stayed);
    assert!(first_seen.all().iter().all(|m| !stayed.contains(&m.partition)), "what stayed is still paused");

    control.resume(&topic).unwrap();
    first_seen.until(|all| all.len() == 6).await;
    assert_eq!(control.paused(), []);
    first.shutdown().await.unwrap();
    assert_eq!(committed(&client, &group).await, 8);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_survive_an_eager_rebalance_where_partitions_stay() {
    pauses_over_rebalances(AssignorKind::Range).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_survive_a_cooperative_rebalance_where_partitions_stay() {
    pauses_over_rebalances(AssignorKind::CooperativeSticky).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seek_commits_the_new_position_and_never_the_old_one() {
    let broker = support::broker().await;
    let client = connect(broker.config().handler_ordering(HandlerOrdering::Key)).await;
    let topic = filled(&broker, &client, "t", 1, 20).await;
    let (group, seen, gate) = (broker.group("g"), Seen::new(), Arc::new(Semaphore::new(0)));
    let (handled, open) = (seen.clone(), Arc::clone(&gate));
    let handle = move |message: Message| {
        let waits = number(&message) == 15 && handled.all().iter().all(|m| number(m) != 15);
        handled.push(message);
        let open = Arc::clone(&open);
        async move {
            if waits {
                open.acquire().await.unwrap().forget();
            }
            Ok::<_, Infallible>(())
        }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    seen.until_numbers(20).await; // 15 is in its handler, those behind it are completed
    until_health(&subscription, |h| h.partitions[0].committed == Some(15)).await;
    let (control, partition) = (subscription.control(), TopicPartition::new(&*topic, 0));

    assert_eq!(control.seek(&partition, StartOffset::Offset(5)).await.unwrap(), 5);
    assert_eq!(committed(&client, &group).await, 5, "at once");
    assert_eq!(seen.all().len(), 20, "nothing is started beside the handler of the old position");
    gate.add_permits(1);
    seen.until(|all| all.len() == 35).await; // 5 to 19, all of them again
    until_health(&subscription, |h| h.partitions[0].committed == Some(20)).await;

    assert_eq!(control.seek(&partition, StartOffset::Earliest).await.unwrap(), 0);
    seen.until(|all| all.len() == 55).await;
    control.pause(&topic).unwrap();
    assert_eq!(control.seek(&partition, StartOffset::Offset(1)).await.unwrap(), 1);
    produce(&client, &topic, 20..22).await;
    assert_eq!(control.seek(&partition, StartOffset::Latest).await.unwrap(), 22);
    assert_eq!(committed(&client, &group).await, 22);
    control.resume(&topic).unwrap();
    produce(&client, &topic, 22..23).await;
    seen.until(|all| all.iter().any(|m| number(m) == 22)).await;
    assert_eq!(seen.all().len(), 56, "nothing of what was passed over while it was paused");

    let e = control.seek(&partition, StartOffset::Offset(24)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::OffsetOutOfRange);
    assert!(e.to_string().contains("its log is from 0 to 23"), "{e}");
    let later = StartOffset::Timestamp("2099-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(control.seek(&partition, later).await.unwrap(), 23, "the end");
    subscription.shutdown().await.unwrap();
    assert_eq!(committed(&client, &group).await, 23);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seek_cancels_a_handler_that_hangs_and_skips_its_retries() {
    let broker = support::broker().await;
    let config = broker.config().handler_ordering(HandlerOrdering::Key).shutdown_timeout(Duration::ZERO);
    let client = connect(config).await;
    let topic = filled(&broker, &client, "t", 1, 10).await;
    let (group, seen) = (broker.group("g"), Seen::new());
    let handled = seen.clone();
    let handle = move |message: Message| {
        handled.push(message.clone());
        async move {
            match number(&message) {
                3 => std::future::pending().await,
                4 => Outcome::retry_after(LONG, "not today"),
                _ => Outcome::Done,
            }
        }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    seen.until_numbers(10).await;
    until_health(&subscription, |h| h.partitions[0].in_flight == 1 && h.partitions[0].parked_keys == 1).await;
    let partition = TopicPartition::new(&*topic, 0);
    subscription.control().seek(&partition, StartOffset::Offset(8)).await.unwrap();
    seen.until(|all| all.len() == 12).await;
    until_health(&subscription, |h| h.partitions[0].in_flight + h.partitions[0].parked_keys == 0).await;
    assert!(subscription.shutdown().await.unwrap().is_empty());
    assert_eq!(committed(&client, &group).await, 10);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seek_of_a_revoked_partition_is_where_its_next_owner_starts() {
    let broker = support::broker().await;
    let session = broker.shortest_session();
    let client = connect(broker.config().session_timeout(session).heartbeat_interval(session / 10)).await;
    let topic = filled(&broker, &client, "t", 1, 10).await;
    let (group, seen, gate) = (broker.group("g"), Seen::new(), Arc::new(Semaphore::new(0)));
    let (handled, open) = (seen.clone(), Arc::clone(&gate));
    let handle = move |message: Message| {
        let last = number(&message) == 9;
        handled.push(message);
        let open = Arc::clone(&open);
        async move {
            if last {
                open.acquire().await.unwrap().forget();
            }
            Ok::<_, Infallible>(())
        }
    };
    let first = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    seen.until_numbers(10).await;
    first.control().seek(&TopicPartition::new(&*topic, 0), StartOffset::Offset(6)).await.unwrap();
    // The handler of 9 is in flight while the partition is drained.
    let mut shutdown = std::pin::pin!(first.shutdown());
    assert!(futures_util::poll!(&mut shutdown).is_pending());
    gate.add_permits(1);
    shutdown.await.unwrap();
    assert_eq!(committed(&client, &group).await, 6, "the completion of 9 does not move it");
    let next = Seen::new();
    let second = watching(&client, &topic, &group, &next).await;
    next.until_numbers(4).await;
    assert_eq!(next.values(), (6..10).collect());
    second.shutdown().await.unwrap();
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caught_up_resolves_at_the_ends_of_its_call() {
    let broker = support::broker().await;
    let client = connect(broker.config()).await;
    let topic = filled(&broker, &client, "t", 3, 30).await;
    let (group, seen, gate) = (broker.group("g"), Seen::new(), Arc::new(Semaphore::new(0)));
    let (handled, open) = (seen.clone(), Arc::clone(&gate));
    let handle = move |message: Message| {
        let (handled, open) = (handled.clone(), Arc::clone(&open));
        async move {
            open.acquire().await.unwrap().forget();
            handled.push(message);
            Ok::<_, Infallible>(())
        }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    let control = subscription.control();
    let caught_up = tokio::spawn({
        let control = control.clone();
        async move { control.caught_up().await }
    });
    gate.add_permits(29);
    seen.until(|all| all.len() == 29).await;
    assert!(!caught_up.is_finished(), "one is in its handler");
    gate.add_permits(1);
    tokio::time::timeout(LONG, caught_up).await.unwrap().unwrap().unwrap();
    assert_eq!(seen.all().len(), 30);
    tokio::time::timeout(LONG, control.caught_up()).await.unwrap().unwrap();

    // A paused partition counts; the end of the subscription ends the wait.
    control.pause(&topic).unwrap();
    produce(&client, &topic, 30..33).await;
    let mut waiting = std::pin::pin!(control.caught_up());
    let some_time = until_health(&subscription, |h| h.partitions.iter().all(|p| !p.paused_by.is_empty()));
    tokio::select! {
        biased;
        outcome = &mut waiting => panic!("{outcome:?}"),
        () = some_time => {}
    }
    subscription.shutdown().await.unwrap();
    let e = tokio::time::timeout(LONG, waiting).await.unwrap().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Closed);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_is_raised_at_once_and_lowered_as_handlers_end() {
    let broker = support::broker().await;
    let config = broker.config().handler_ordering(HandlerOrdering::Unordered).handler_concurrency(2_usize);
    let registry = Arc::new(Registry::new());
    let client = connect(config.metrics(registry.clone())).await;
    let topic = filled(&broker, &client, "t", 1, 20).await;
    let (group, gate) = (broker.group("g"), Arc::new(Semaphore::new(0)));
    let limit = || registry.snapshot().get("ailurus_processor_concurrency_limit", &[("group", &group)]);
    let open = Arc::clone(&gate);
    let handle = move |_: Message| {
        let open = Arc::clone(&open);
        async move {
            open.acquire().await.unwrap().forget();
            Ok::<_, Infallible>(())
        }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    let control = subscription.control();
    let in_flight = |h: &SubscriptionHealth| h.partitions.iter().map(|p| p.in_flight).sum::<usize>();
    until_health(&subscription, |h| in_flight(h) == 2).await;
    assert_eq!(limit(), Some(2.0));
    control.set_concurrency(5).unwrap();
    until_health(&subscription, |h| in_flight(h) == 5 && h.concurrency == Some(5)).await;
    control.set_concurrency(1).unwrap();
    assert_eq!(limit(), Some(1.0));
    gate.add_permits(4);
    until_health(&subscription, |h| in_flight(h) == 1).await;
    assert_eq!(subscription.stats().handled, 4, "the other 15 wait");
    assert_eq!(control.set_concurrency(0).unwrap_err().kind(), ErrorKind::Config);
    gate.add_permits(16);
    control.caught_up().await.unwrap();
    subscription.shutdown().await.unwrap();
    assert_eq!((committed(&client, &group).await, limit()), (20, None));
    client.close().await;
}
