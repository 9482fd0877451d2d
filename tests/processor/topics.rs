//! Topics that a running subscription adds, removes, and finds by a pattern.

use ailurus::processor::Batching;
use ailurus::{AssignorKind, GroupProtocol, OffsetReset};

use super::control::until_health;
use super::*;

fn quick(broker: &TestBroker) -> ConfigBuilder {
    let session = broker.shortest_session();
    broker.config().session_timeout(session).heartbeat_interval(session / 10)
}

async fn add_and_remove(broker: &TestBroker, config: ConfigBuilder) {
    let client = connect(config).await;
    let (one, two) = (filled(broker, &client, "one", 2, 10).await, filled(broker, &client, "two", 2, 0).await);
    produce(&client, &two, 10..20).await;
    let (group, seen) = (broker.group("g"), Seen::new());
    let subscription = watching(&client, &one, &group, &seen).await;
    seen.until_numbers(10).await;
    let control = subscription.control();
    control.subscribe([&two]).await.unwrap();
    seen.until_numbers(20).await;
    let of = |topic: &str| {
        let topic = topic.to_owned();
        move |h: &ailurus::processor::SubscriptionHealth| h.partitions.iter().filter(|p| p.topic == topic).count()
    };
    until_health(&subscription, |h| of(&one)(h) == 2 && of(&two)(h) == 2 && h.topics.len() == 2).await;

    control.unsubscribe([&one]).await.unwrap();
    until_health(&subscription, |h| of(&one)(h) == 0 && of(&two)(h) == 2 && h.topics == [two.clone()]).await;
    produce(&client, &one, 20..30).await;
    produce(&client, &two, 30..40).await;
    seen.until(|all| all.iter().any(|m| number(m) == 39)).await;
    control.caught_up().await.unwrap();
    assert!(seen.all().iter().all(|m| !(20..30).contains(&number(m))), "of a topic that was removed");
    assert_eq!(control.unsubscribe([&two]).await.unwrap_err().kind(), ErrorKind::Config, "the last one");
    assert_eq!(control.unsubscribe([&one]).await.unwrap_err().kind(), ErrorKind::Config, "not subscribed");

    control.subscribe([&one]).await.unwrap(); // from its committed offset
    seen.until_numbers(40).await;
    assert_eq!(seen.all().len(), 40, "none twice");
    subscription.shutdown().await.unwrap();
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_added_and_removed_with_a_cooperative_assignor() {
    let broker = support::broker().await;
    add_and_remove(&broker, quick(&broker).assignors([AssignorKind::CooperativeSticky])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_added_and_removed_with_an_eager_assignor() {
    let broker = support::broker().await;
    add_and_remove(&broker, quick(&broker).assignors([AssignorKind::Range])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_added_and_removed_in_the_consumer_protocol_where_there_is_one() {
    let broker = support::broker_offering(ailurus_broker::Versions::kafka()).await;
    add_and_remove(&broker, quick(&broker).group_protocol(GroupProtocol::Auto)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_cannot_be_read_changes_nothing() {
    let broker = support::broker().await;
    let client = connect(broker.config().allow_auto_topic_creation(false)).await;
    let topic = filled(&broker, &client, "t", 1, 0).await;
    Admin::new(&client).create_topic(&format!("{topic}.dlq"), 1, None).await.unwrap();
    let (group, seen) = (broker.group("g"), Seen::new());
    let subscription = watching(&client, &topic, &group, &seen).await;
    let control = subscription.control();
    let e = control.subscribe([broker.topic("missing")]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::UnknownTopic, "{e}");
    let e = control.subscribe([format!("{topic}.dlq")]).await.unwrap_err();
    assert!(format!("{e:#}").contains("dead letters"), "{e:#}");
    assert_eq!(control.topics(), [topic]);
    subscription.shutdown().await.unwrap();
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_topics_that_match_join_and_are_read_from_their_beginning() {
    let broker = support::broker().await;
    let config = quick(&broker).metadata_max_age(Duration::from_millis(50)).max_attempts(1_u32);
    let client = connect(config.consumer(|c| c.offset_reset(OffsetReset::Latest))).await;
    let first = filled(&broker, &client, "orders.a", 1, 0).await;
    let other = filled(&broker, &client, "payments", 1, 5).await;
    let (group, seen, prefix) = (broker.group("g"), Seen::new(), broker.topic("orders."));
    let handled = seen.clone();
    let handle = move |message: Message| {
        let is_bad = number(&message) == 11;
        handled.push(message);
        async move { if is_bad { Err("bad") } else { Ok(()) } }
    };
    let matches = {
        let prefix = prefix.clone();
        move |topic: &str| topic.starts_with(&prefix)
    };
    let subscription = client.processor(&group).subscribe_matching(matches, handle).await.unwrap();
    until_health(&subscription, |h| h.partitions.len() == 1).await;
    assert_eq!(subscription.control().topics(), std::slice::from_ref(&first));

    let second = filled(&broker, &client, "orders.b", 2, 0).await;
    produce(&client, &second, 10..20).await; // some before it is found
    seen.until_numbers(10).await;
    assert_eq!(seen.values(), (10..20).collect());
    until_health(&subscription, |_| subscription.stats().dead_letters == 1).await;

    // What its control removes is not found again; the dead-letter topics match, and are left out.
    let control = subscription.control();
    control.unsubscribe([&first]).await.unwrap();
    let third = filled(&broker, &client, "orders.c", 1, 0).await;
    produce(&client, &third, 20..21).await;
    seen.until_numbers(11).await;
    assert_eq!(control.topics(), [second, third]);
    assert!(seen.all().iter().all(|m| *m.topic != *other && !m.topic.ends_with(".dlq")));
    subscription.shutdown().await.unwrap();

    let none = client.processor(&group).subscribe_matching(|_| false, |_: Message| async { Ok::<_, Infallible>(()) });
    assert_eq!(none.await.unwrap_err().kind(), ErrorKind::UnknownTopic);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_have_the_topics_of_a_pattern_too() {
    let broker = support::broker().await;
    let client = connect(quick(&broker).metadata_max_age(Duration::from_millis(50))).await;
    let first = filled(&broker, &client, "bills.a", 1, 10).await;
    let (group, seen, prefix) = (broker.group("g"), Seen::new(), broker.topic("bills."));
    let handled = seen.clone();
    let handle = move |batch: Vec<Message>| {
        batch.into_iter().for_each(|message| handled.push(message));
        async {}
    };
    let batching = Batching::new(4, Duration::from_millis(1));
    let processor = client.processor(&group);
    let matches = move |topic: &str| topic.starts_with(&prefix);
    let subscription = processor.subscribe_batches_matching(matches, batching, handle).await.unwrap();
    seen.until_numbers(10).await;
    let second = filled(&broker, &client, "bills.b", 1, 0).await;
    produce(&client, &second, 10..20).await;
    seen.until_numbers(20).await;
    assert_eq!(subscription.control().topics(), [first, second]);
    subscription.shutdown().await.unwrap();
    let none = client.processor(&group).subscribe_batches_matching(|_| false, batching, |_: Vec<Message>| async {});
    assert_eq!(none.await.unwrap_err().kind(), ErrorKind::UnknownTopic);
    client.close().await;
}
