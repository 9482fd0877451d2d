//! Health: requests to brokers, and the state of stalled subscriptions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ailurus::consumer::ConsumerState;
use ailurus::health::{Activity, Health, Status};
use ailurus::processor::Batching;
use ailurus::{Admin, ConfigBuilder, Message, Outcome, ProducerRecord, RedpandaService};
use ailurus_broker::{Fault, RequestInfo};
use ailurus_test_support as support;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

/// The longest that anything here may take.
const LONG: Duration = Duration::from_secs(300);
const FETCH: i16 = 1;

/// Settings that lead to a broker, which may take long on a busy machine.
fn config(broker: &support::TestBroker) -> ConfigBuilder {
    broker.config().health_timeout(Duration::from_secs(60))
}

/// Checks health until it is as wanted.
async fn until(service: &RedpandaService, wanted: impl Fn(&Health) -> bool) -> Health {
    let checking = async {
        loop {
            let health = service.health().await;
            if wanted(&health) {
                return health;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(LONG, checking).await {
        Ok(health) => health,
        Err(_) => panic!("it never was as wanted: {:#?}", service.health().await),
    }
}

async fn send(service: &RedpandaService, topic: &str, count: usize) {
    for _ in 0..count {
        let record = ProducerRecord::to(topic).partition(0).value("x");
        service.producer().send(record).await.unwrap().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_handler_stalls_only_its_partition() {
    let broker = support::broker().await;
    let config = config(&broker).stall_timeout(Duration::from_millis(200)).build().unwrap();
    let service = RedpandaService::connect(config).await.unwrap();
    let (topic, group) = (broker.topic("hangs"), broker.group("hangs"));
    Admin::new(service.client()).create_topic(&topic, 2, None).await.unwrap();
    let may = Arc::new(Semaphore::new(0));
    let handle = {
        let may = Arc::clone(&may);
        move |_: Message| {
            let may = Arc::clone(&may);
            async move { may.acquire_owned().await.map(|permit| permit.forget()) }
        }
    };
    let subscription = service.subscribe([&topic], &group, handle).await.unwrap();
    let idle = until(&service, |h| h.subscriptions.first().is_some_and(|s| s.partitions.len() == 2)).await;
    assert_eq!(idle.status, Status::Healthy, "{:?}", idle.problems);
    assert!(idle.subscriptions[0].member_id.is_some() && idle.subscriptions[0].generation.is_some(), "{idle:?}");
    assert!(idle.topics.iter().any(|t| t.name == topic && t.exists && t.partitions == 2), "{:?}", idle.topics);

    send(&service, &topic, 3).await;
    let stalled = until(&service, |h| h.status == Status::Unhealthy).await;
    let [one, other] = &stalled.subscriptions[0].partitions[..] else { panic!("{stalled:?}") };
    assert_eq!((one.activity, other.activity), (Activity::Stalled, Activity::Idle));
    assert_eq!(stalled.subscriptions[0].activity, Activity::Stalled);
    let place = format!("{topic}/0 of group {group:?} is stalled: ");
    assert!(stalled.problems[0].starts_with(&place), "{:?}", stalled.problems);
    assert!(stalled.is_reachable());

    may.add_permits(3);
    let done = until(&service, |h| h.status == Status::Healthy && h.subscriptions[0].lag == 0).await;
    assert!(done.subscriptions[0].partitions.iter().all(|p| p.activity == Activity::Idle), "{done:?}");
    subscription.shutdown().await.unwrap();
    service.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_not_fetched_is_stalled() {
    let broker = support::broker().await;
    let Some(embedded) = broker.embedded() else { return };
    let config = config(&broker).stall_timeout(Duration::from_millis(200)).build().unwrap();
    let service = RedpandaService::connect(config).await.unwrap();
    let (topic, group) = (broker.topic("unread"), broker.group("unread"));
    Admin::new(service.client()).create_topic(&topic, 1, None).await.unwrap();
    let subscription = service.subscribe([&topic], &group, |_: Message| async {}).await.unwrap();
    until(&service, |h| h.subscriptions[0].partitions.iter().any(|p| p.position == 0)).await;
    // From now on only fetches get no response.
    let hangs = Arc::new(Semaphore::new(0));
    let signal = Arc::clone(&hangs);
    embedded.set_hook(move |request: &RequestInfo<'_>| {
        let is_fetch = request.api_key == FETCH;
        signal.add_permits(usize::from(is_fetch));
        is_fetch.then_some(Fault::Delay(Duration::from_secs(3600)))
    });
    tokio::time::timeout(LONG, hangs.acquire()).await.unwrap().unwrap().forget();
    send(&service, &topic, 5).await;
    let stalled = until(&service, |h| h.status == Status::Unhealthy && h.subscriptions[0].lag == 5).await;
    assert!(stalled.problems[0].contains("is stalled: 5 records wait"), "{:?}", stalled.problems);
    embedded.clear_hook();
    drop(subscription);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_are_shared_and_create_no_topic() {
    let broker = support::broker().await;
    let Some(embedded) = broker.embedded() else { return };
    let service = RedpandaService::connect(config(&broker).build().unwrap()).await.unwrap();
    let topic = broker.topic("storm");
    let subscription = service.subscribe([&topic], &broker.group("storm"), |_: Message| async {}).await.unwrap();
    until(&service, |h| h.subscriptions[0].partitions.len() == 3).await;
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    embedded.set_hook(move |request: &RequestInfo<'_>| {
        // Metadata and ListOffsets: the requests of a health check.
        count.fetch_add(usize::from(matches!(request.api_key, 2 | 3)), Ordering::Relaxed);
        None
    });
    let (before, many) = (embedded.topics(), 500);
    let all = join_all((0..many).map(|_| service.health())).await;
    assert!(all.iter().all(|h| h.status == Status::Healthy));
    let requests = requests.load(Ordering::Relaxed);
    assert!(requests < many, "{requests} requests for {many} checks");
    assert_eq!(embedded.topics(), before);
    subscription.shutdown().await.unwrap();
    service.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn health_notices_a_dead_cluster_before_the_member_does() {
    let broker = support::broker().await;
    let Some(embedded) = broker.embedded() else { return };
    let config = config(&broker).session_timeout(Duration::from_secs(300)).build().unwrap();
    let service = RedpandaService::connect(config).await.unwrap();
    let topic = broker.topic("dies");
    let subscription = service.subscribe([&topic], &broker.group("dies"), |_: Message| async {}).await.unwrap();
    until(&service, |h| h.is_reachable() && h.subscriptions[0].state == ConsumerState::Member).await;
    for node in 0..3 {
        embedded.stop_node(node).await.unwrap();
    }
    let health = until(&service, |h| !h.is_reachable()).await;
    assert_eq!(health.status, Status::Unhealthy);
    assert_eq!(health.brokers.len(), 3, "those that were known: {:?}", health.brokers);
    assert_eq!(health.subscriptions[0].state, ConsumerState::Member);
    drop(subscription);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_consumers_of_a_client_are_in_its_health() {
    let broker = support::broker().await;
    let service = RedpandaService::connect(config(&broker).build().unwrap()).await.unwrap();
    let topic = broker.topic("all");
    Admin::new(service.client()).create_topic(&topic, 1, None).await.unwrap();
    let [each, batches, requests, ends] = ["each", "batches", "requests", "ends"].map(|g| broker.group(g));
    let client = service.client();
    let one = client.processor(&each).subscribe([&topic], |_: Message| async {}).await.unwrap();
    let two = client
        .processor(&batches)
        .subscribe_batches([&topic], Batching::new(10, Duration::from_millis(10)), |_: Vec<Message>| async {})
        .await
        .unwrap();
    let mut consumer = client.consumer(&requests).subscribe([&topic]).await.unwrap();
    let receiving = tokio::spawn(async move {
        while let Ok(event) = consumer.recv().await {
            drop(event);
        }
    });
    let members = |h: &Health| {
        let members = h.subscriptions.iter().filter(|s| s.state == ConsumerState::Member);
        members.map(|s| s.group.clone()).collect::<BTreeSet<_>>()
    };
    let wanted = BTreeSet::from([each, batches, requests.clone()]);
    let health = until(&service, |h| members(h) == wanted).await;
    assert_eq!(health.status, Status::Healthy, "{:?}", health.problems);

    // One that has ended by itself is dead, and no other can say so.
    let stop = |_: Message| async { Outcome::Stop { error: "no more".into() } };
    let dead = client.processor(&ends).subscribe([&topic], stop).await.unwrap();
    send(&service, &topic, 1).await;
    let health = until(&service, |h| h.status == Status::Unhealthy).await;
    assert_eq!(health.problems, [format!("the subscription of group {ends:?} is closed")]);
    drop(dead);
    until(&service, |h| !h.subscriptions.iter().any(|s| s.group == ends)).await;
    receiving.abort();
    _ = receiving.await;
    until(&service, |h| !h.subscriptions.iter().any(|s| s.group == requests)).await;
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
    service.close(LONG).await.unwrap();
}
