//! Rules of a [`TestCluster`]: its clock, what it reports as pending, what it repeats.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::producer::TransactionAction;
use ailurus::{Message, ProcessorConfig, ProducerRecord, Timestamp};
use ailurus_broker::Versions;
use ailurus_testing::{Api, TestCluster, TestError, fault, run};
use tokio::time::Instant;

type Result<T = ()> = std::result::Result<T, TestError>;

#[tokio::test]
async fn pending_records_are_named() -> Result {
    let cluster = TestCluster::start().await?;
    cluster.topic("orders", 1)?;
    let client = cluster.client("billing-1").await?;
    let _subscription = client.processor("billing").subscribe(["orders"], |_: Message| pending::<()>()).await?;
    cluster.send("orders", "o-1", "paid").await?;
    let error = cluster.until_idle_within(Duration::from_secs(60)).await.unwrap_err();
    let TestError::NotIdle(pending) = &error else { panic!("{error}") };
    assert!(pending.waited >= Duration::from_secs(60));
    let line = r#"group "billing": orders/0: 1 records from offset 0 are not handled, offset 0 is committed; it is "billing-1"'s"#;
    assert_eq!(pending.pending, [line]);
    Ok(())
}

#[tokio::test]
async fn cluster_without_members_is_idle() -> Result {
    let cluster = TestCluster::start().await?;
    cluster.topic("orders", 1)?;
    cluster.send("orders", "o-1", "paid").await?;
    cluster.until_idle().await?;
    assert!(cluster.handled("billing").is_empty());
    Ok(())
}

#[tokio::test]
async fn member_that_starts_later_is_waited_for() -> Result {
    let cluster = TestCluster::start().await?;
    cluster.topic("orders", 1)?;
    cluster.send("orders", "o-1", "paid").await?;
    let client = cluster.client("billing-1").await?;
    let subscribed = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        client.processor("billing").subscribe(["orders"], |_: Message| async {}).await
    });
    cluster.until_idle().await?;
    assert_eq!(cluster.handled("billing").len(), 1);
    drop(subscribed);
    Ok(())
}

#[tokio::test]
async fn groups_of_both_protocols_become_idle() -> Result {
    let cluster = TestCluster::builder().versions(Versions::kafka()).start().await?;
    cluster.topic("orders", 3)?;
    let client = cluster.client("billing-1").await?;
    let mut consumer = client.config().consumer.clone();
    consumer.group_protocol = ailurus::GroupProtocol::Consumer;
    let modern =
        client.processor("modern").consumer_config(consumer).subscribe(["orders"], |_: Message| async {}).await?;
    let classic = client.processor("classic").subscribe(["orders"], |_: Message| async {}).await?;
    for order in 0..10 {
        cluster.send("orders", &order.to_string(), "paid").await?;
    }
    cluster.until_idle().await?;
    assert_eq!((cluster.handled("modern").len(), cluster.handled("classic").len()), (10, 10));
    modern.shutdown().await?;
    classic.shutdown().await?;
    cluster.shutdown().await
}

#[tokio::test]
async fn timestamps_follow_the_paused_clock() -> Result {
    let cluster = TestCluster::start().await?;
    cluster.topic("orders", 1)?;
    let before = Timestamp::now();
    cluster.advance(Duration::from_secs(3600)).await;
    cluster.send("orders", "o-1", "paid").await?;
    let written = cluster.records("orders")[0].timestamp;
    assert!(written.as_millis() - before.as_millis() >= 3_600_000, "{before:?} {written:?}");
    Ok(())
}

#[tokio::test]
async fn killed_node_is_refused_and_comes_back() -> Result {
    let cluster = TestCluster::builder().nodes(2).start().await?;
    cluster.topic("orders", 4)?;
    cluster.kill_node(0).await?;
    let client = cluster.client("checkout").await?; // by node 1
    let producer = client.producer().start()?;
    for partition in 0..4 {
        producer.send(ProducerRecord::to("orders").partition(partition).value("paid")).await?.await?;
    }
    cluster.start_node(0).await?;
    (0..4).try_for_each(|partition| cluster.move_leader("orders", partition, 0))?;
    for partition in 0..4 {
        producer.send(ProducerRecord::to("orders").partition(partition).value("paid")).await?.await?;
    }
    assert_eq!(cluster.records("orders").len(), 8);
    Ok(())
}

#[tokio::test]
async fn isolated_node_delays_what_is_sent_to_it() -> Result {
    let cluster = TestCluster::builder().nodes(2).start().await?;
    cluster.topic("orders", 1)?;
    cluster.move_leader("orders", 0, 1)?;
    let client = cluster.client("checkout").await?;
    let producer = client.producer().start()?;
    producer.send(ProducerRecord::to("orders").value("before")).await?.await?;
    cluster.isolate_node(1)?;
    let delivery = producer.send(ProducerRecord::to("orders").value("meanwhile")).await?;
    cluster.advance(Duration::from_secs(10)).await;
    assert_eq!(cluster.records("orders").len(), 1);
    cluster.heal_network();
    delivery.await?;
    assert_eq!(cluster.records("orders").len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn runtime_with_threads_is_refused() {
    assert!(matches!(TestCluster::start().await, Err(TestError::Runtime)));
}

/// Returns the times of the attempts of one record, from the start of the test.
async fn attempts(seed: u64) -> Result<Vec<Duration>> {
    let cluster = TestCluster::builder().seed(seed).start().await?;
    cluster.topic("orders", 1)?;
    let client = cluster.client("billing-1").await?;
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let (log, started) = (Arc::clone(&attempts), Instant::now());
    let handler = move |_: Message| {
        log.lock().unwrap().push(started.elapsed());
        async { Err::<(), _>("it fails") }
    };
    let processor = ProcessorConfig::default().max_attempts(20);
    let _subscription = client.processor("billing").config(processor).subscribe(["orders"], handler).await?;
    cluster.send("orders", "o-1", "paid").await?;
    cluster.until_idle().await?;
    let attempts = attempts.lock().unwrap().clone();
    Ok(attempts)
}

#[test]
fn same_seed_makes_the_same_run() -> Result {
    let first = run(7, attempts(7))?;
    assert_eq!(first.len(), 20);
    assert_eq!(run(7, attempts(7))?, first);
    assert_ne!(run(8, attempts(8))?, first);
    Ok(())
}

#[tokio::test]
async fn begin_waits_for_a_coordinator_that_is_away_without_spinning() -> Result {
    let cluster = TestCluster::builder().versions(Versions::kafka()).start().await?;
    cluster.topic("orders", 1)?;
    let client = cluster.client("publisher").await?;
    let mut producer = client.transactional_producer("publisher-0").start().await.unwrap();
    let transaction = producer.begin().await.unwrap();
    drop(transaction.send(ProducerRecord::to("orders").value("paid")).await?);
    let away = cluster.inject(fault::drop_response().on(Api::EndTxn).always());
    assert_eq!(transaction.commit().await.unwrap_err().action(), TransactionAction::Unknown);
    // A task that does not pause here lets no time pass on this clock: the test would not end.
    let before = away.fired();
    assert_eq!(producer.begin().await.unwrap_err().action(), TransactionAction::Unknown);
    assert!(away.fired() > before, "the commit is sent again meanwhile");
    away.clear();
    producer.begin().await.unwrap().abort().await.unwrap();
    Ok(())
}
