//! A test per recipe of docs/testing.md: each is an application's test, and ends in milliseconds.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::processor::{ExactlyOnce, Outcome, Outputs, Unavailable};
use ailurus::{
    Client, Envelope, Event, HandlerOrdering, Message, ProcessorConfig, ProducerRecord, Subscription, Timestamp,
};
use ailurus_testing::{Api, TestCluster, TestError, fault};
use tokio::time::Instant;

type Result<T = ()> = std::result::Result<T, TestError>;

#[derive(serde::Serialize, serde::Deserialize)]
struct OrderPaid {
    order_id: String,
}

impl Event for OrderPaid {
    const TYPE: &'static str = "order.paid";

    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.order_id.as_str().into())
    }
}

/// Names of the handlers of each record, in order, by its value.
type Log = Arc<Mutex<BTreeMap<String, Vec<&'static str>>>>;

/// Subscribes with a handler that takes a second and logs its name.
async fn worker(client: &Client, name: &'static str, log: &Log) -> Result<Subscription> {
    let log = Arc::clone(log);
    let handler = move |message: Message| {
        let log = Arc::clone(&log);
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let value = message.text()?.unwrap_or_default().to_owned();
            log.lock().unwrap().entry(value).or_default().push(name);
            Ok::<(), ailurus::Error>(())
        }
    };
    Ok(client.processor("billing").subscribe(["orders"], handler).await?)
}

#[tokio::test]
async fn retries_over_an_hour() -> Result {
    let real = std::time::SystemTime::now();
    let cluster = TestCluster::start().await?;
    cluster.topic("orders", 3)?;
    let client = cluster.client("billing").await?;
    let started = Instant::now();
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&attempts);
    let handler = move |event: Envelope<OrderPaid>| {
        counted.fetch_add(1, Ordering::Relaxed);
        // The carrier takes the order an hour later.
        let is_late = started.elapsed() >= Duration::from_secs(3600);
        async move { if is_late { Ok(()) } else { Err(format!("no carrier takes {}", event.data.order_id)) } }
    };
    let processor = ProcessorConfig::default().max_attempts(1000).retry_backoff_max(Duration::from_secs(60));
    let _subscription = client.processor("billing").config(processor).subscribe(["orders"], handler).await?;

    cluster.publish("orders", "o-1", &OrderPaid { order_id: "o-1".into() }).await?;
    cluster.until_idle().await?;

    assert!(started.elapsed() >= Duration::from_secs(3600));
    assert!(attempts.load(Ordering::Relaxed) > 60, "it was tried at least every minute");
    assert_eq!(cluster.handled("billing").len(), 1);
    assert!(cluster.letters("orders").is_empty());
    let (attempts, test, real) = (attempts.load(Ordering::Relaxed), started.elapsed(), real.elapsed().unwrap());
    eprintln!("an hour of retries: {attempts} attempts in {test:.0?} of test time, {real:.0?} of real time");
    Ok(())
}

#[tokio::test]
async fn delayed_retries_survive_crashes() -> Result {
    let cluster = TestCluster::start().await?;
    cluster.topic("orders", 3)?;
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
    let started = Instant::now();
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let start = async |name| -> Result<Subscription> {
        let noted = Arc::clone(&attempts);
        let handler = move |message: Message| {
            noted.lock().unwrap().push((message.topic.to_string(), message.attempt, started.elapsed()));
            async move { if message.attempt < 3 { Err("the bank is closed") } else { Ok(()) } }
        };
        let billing = cluster.client(name).await?.processor("billing").max_attempts(1);
        Ok(billing.delayed_retries([minute, hour]).subscribe(["orders"], handler).await?)
    };
    let first = start("billing-1").await?;
    cluster.send("orders", "o-1", "pay").await?;
    cluster.advance(minute / 2).await;
    first.abort().await; // the record waits for its minute
    let second = start("billing-2").await?;
    cluster.advance(10 * minute).await;
    second.abort().await; // and for its hour
    let _third = start("billing-3").await?;
    cluster.until_idle().await?;

    let attempts = attempts.lock().unwrap().clone();
    let [at_once, later, last] = &attempts[..] else { panic!("{attempts:?}") };
    let numbers = [at_once, later, last].map(|(topic, attempt, _)| (&**topic, *attempt));
    assert_eq!(numbers, [("orders", 1), ("orders", 2), ("orders", 3)]);
    assert!(later.2 >= at_once.2 + minute && last.2 >= later.2 + hour, "no sooner than due: {attempts:?}");
    assert!(cluster.letters("orders").is_empty());
    Ok(())
}

#[tokio::test]
async fn database_that_is_down_makes_no_dead_letters() -> Result {
    let cluster = TestCluster::start().await?;
    cluster.topic("orders", 3)?;
    let client = cluster.client("billing").await?;
    let is_up = Arc::new(AtomicBool::new(false));
    let database = Arc::clone(&is_up);
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&attempts);
    let handler = move |_: Envelope<OrderPaid>| {
        counted.fetch_add(1, Ordering::Relaxed);
        let is_up = database.load(Ordering::Relaxed);
        async move { if is_up { Ok(()) } else { Err(Unavailable::new("postgres", "connection refused")) } }
    };
    let subscription = client.processor("billing").subscribe(["orders"], handler).await?;

    let down_since = Timestamp::now();
    for order in 0..100 {
        let order_id = format!("o-{order}");
        cluster.publish("orders", &order_id, &OrderPaid { order_id: order_id.clone() }).await?;
    }
    cluster.advance(Duration::from_secs(600)).await;
    assert!(cluster.handled("billing").is_empty());
    let health = subscription.health();
    assert_eq!(health.waiting_for[0].dependency, "postgres");
    assert!(health.waiting_for[0].since.saturating_duration_since(down_since) < Duration::from_secs(1), "{health:?}");
    assert!(attempts.load(Ordering::Relaxed) < 50, "single records probe, each 30 s in the end");
    is_up.store(true, Ordering::Relaxed);
    cluster.until_idle().await?;

    assert_eq!(cluster.handled("billing").len(), 100);
    assert!(cluster.letters("orders").is_empty());
    assert!(subscription.health().waiting_for.is_empty());
    Ok(())
}

#[tokio::test]
async fn outage_that_no_handler_names_makes_no_dead_letters() -> Result {
    let cluster = TestCluster::start().await?;
    cluster.topic("orders", 3)?;
    let client = cluster.client("billing").await?;
    let is_up = Arc::new(AtomicBool::new(false));
    let database = Arc::clone(&is_up);
    let handler = move |_: Envelope<OrderPaid>| {
        let is_up = database.load(Ordering::Relaxed);
        async move { if is_up { Ok(()) } else { Err("connection refused") } }
    };
    let processor = client.processor("billing").ordering(HandlerOrdering::Key);
    let subscription = processor.subscribe(["orders"], handler).await?;

    for order in 0..100 {
        let order_id = format!("o-{order}");
        cluster.publish("orders", &order_id, &OrderPaid { order_id: order_id.clone() }).await?;
    }
    cluster.advance(Duration::from_secs(600)).await;
    let health = subscription.health();
    assert_eq!((&*health.waiting_for[0].dependency, &*health.waiting_for[0].error), ("unknown", "connection refused"));
    is_up.store(true, Ordering::Relaxed);
    cluster.until_idle().await?;

    assert_eq!(cluster.handled("billing").len(), 100);
    assert!(cluster.letters("orders").is_empty());
    Ok(())
}

#[tokio::test]
async fn outage_in_one_partition_in_order_makes_few_dead_letters() -> Result {
    let cluster = TestCluster::start().await?;
    cluster.topic("orders", 1)?;
    let client = cluster.client("billing").await?;
    let is_up = Arc::new(AtomicBool::new(false));
    let database = Arc::clone(&is_up);
    let handler = move |_: Message| {
        let is_up = database.load(Ordering::Relaxed);
        async move { if is_up { Ok(()) } else { Err("connection refused") } }
    };
    let _subscription = client.processor("billing").subscribe(["orders"], handler).await?;

    for order in 0..1000 {
        cluster.send("orders", &format!("o-{order}"), "paid").await?;
    }
    cluster.advance(Duration::from_secs(600)).await; // each record alone fails for about a second
    is_up.store(true, Ordering::Relaxed);
    cluster.until_idle().await?;

    assert_eq!(cluster.handled("billing").len(), 1000);
    assert_eq!(cluster.letters("orders").len(), ProcessorConfig::default().outage_records - 1);
    Ok(())
}

#[tokio::test]
async fn record_that_always_fails_becomes_a_dead_letter() -> Result {
    let cluster = TestCluster::start().await?;
    cluster.topic("orders", 3)?;
    let client = cluster.client("billing").await?;
    let handler = |event: Envelope<OrderPaid>| async move {
        if event.data.order_id == "o-2" { Err("no such price") } else { Ok(()) }
    };
    let _subscription = client.processor("billing").subscribe(["orders"], handler).await?;

    for order_id in ["o-1", "o-2", "o-3"] {
        cluster.publish("orders", order_id, &OrderPaid { order_id: order_id.into() }).await?;
    }
    cluster.until_idle().await?;

    assert_eq!(cluster.handled("billing").len(), 3);
    let letters = cluster.letters("orders");
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].record.key_text(), "o-2");
    assert_eq!(letters[0].details.error, "no such price");
    assert_eq!(letters[0].details.attempts, ProcessorConfig::default().max_attempts);
    assert_eq!(letters[0].details.origin.group.as_deref(), Some("billing"));
    Ok(())
}

#[tokio::test]
async fn rebalance_hands_no_record_to_two_members() -> Result {
    let cluster = TestCluster::start().await?;
    cluster.topic("orders", 6)?;
    let log = Log::default();
    let (a, b) = (cluster.client("a").await?, cluster.client("b").await?);
    let _first = worker(&a, "a", &log).await?;
    for order in 0..60 {
        cluster.send("orders", &format!("o-{order}"), order.to_string()).await?;
    }
    cluster.advance(Duration::from_millis(2500)).await;
    let _second = worker(&b, "b", &log).await?; // joins while records are handled
    cluster.until_idle().await?;

    let log = log.lock().unwrap();
    assert_eq!(log.len(), 60);
    assert!(log.values().all(|handlers| handlers.len() == 1), "{log:?}");
    assert!(log.values().any(|handlers| handlers == &["a"]) && log.values().any(|handlers| handlers == &["b"]));
    Ok(())
}

#[tokio::test]
async fn records_of_a_killed_member_are_handled_by_another() -> Result {
    let cluster = TestCluster::start().await?;
    cluster.topic("orders", 6)?;
    let log = Log::default();
    let (a, b) = (cluster.client("a").await?, cluster.client("b").await?);
    let (killed, _survivor) = (worker(&a, "a", &log).await?, worker(&b, "b", &log).await?);
    cluster.until_idle().await?;
    for order in 0..60 {
        cluster.send("orders", &format!("o-{order}"), order.to_string()).await?;
    }
    cluster.advance(Duration::from_millis(2500)).await;
    killed.abort().await; // like a crash: the group waits for its session to expire
    cluster.until_idle().await?;

    let log = log.lock().unwrap();
    assert_eq!(log.len(), 60);
    assert!(log.values().any(|handlers| handlers == &["a"]), "it had handled some");
    assert!(log.values().all(|handlers| handlers.len() == 1 || handlers == &["a", "b"]), "{log:?}");
    assert_eq!(cluster.handled("billing").len(), 60);
    Ok(())
}

#[tokio::test]
async fn records_of_an_isolated_member_are_handled_by_another() -> Result {
    let cluster = TestCluster::start().await?;
    cluster.topic("orders", 6)?;
    let log = Log::default();
    let (a, b) = (cluster.client("a").await?, cluster.client("b").await?);
    let _members = (worker(&a, "a", &log).await?, worker(&b, "b", &log).await?);
    cluster.until_idle().await?;
    cluster.isolate_client("a");
    for order in 0..60 {
        cluster.send("orders", &format!("o-{order}"), order.to_string()).await?;
    }
    cluster.until_idle().await?; // after a's session has expired, b has all partitions
    assert_eq!(cluster.handled("billing").len(), 60);
    assert!(log.lock().unwrap().values().all(|handlers| handlers == &["b"]));

    cluster.heal_network(); // a rejoins, and takes part again
    cluster.until_idle().await?;
    assert_eq!(cluster.broker().group_members("billing").len(), 2);
    Ok(())
}

#[tokio::test]
async fn pipeline_writes_each_output_once() -> Result {
    let cluster = TestCluster::builder().nodes(3).start().await?;
    cluster.topic("orders", 3)?;
    cluster.topic("invoices", 3)?;
    let client = cluster.client("invoicing").await?;
    let handler = |message: Message| async move {
        if message.attempt == 1 && message.offset % 5 == 0 {
            return Outcome::retry("the first attempt fails");
        }
        let key = message.key.clone().unwrap_or_default();
        let invoice = ProducerRecord::to("invoices").key(key.clone()).value(key);
        Outcome::Send(Outputs::from_iter([invoice]))
    };
    let pipeline = client.processor("invoicing").exactly_once(ExactlyOnce::new());
    let _subscription = pipeline.subscribe(["orders"], handler).await?;
    let faults = [
        cluster.inject(fault::drop_response().on(Api::EndTxn).after(1).times(2)),
        cluster.inject(fault::drop_response().on(Api::Produce).times(2)),
        cluster.inject(fault::not_coordinator().on(Api::TxnOffsetCommit).times(2)),
        cluster.inject(fault::not_leader().on(Api::Fetch).times(2)),
    ];
    for order in 0..100 {
        cluster.send("orders", &format!("o-{order}"), "paid").await?;
        if order == 50 {
            cluster.kill_node(1).await?;
        }
    }
    cluster.until_idle().await?;

    let mut invoices: Vec<_> = cluster.records("invoices").iter().map(|r| r.key_text()).collect();
    invoices.sort();
    let mut orders: Vec<_> = (0..100).map(|order| format!("o-{order}")).collect();
    orders.sort();
    assert_eq!(invoices, orders);
    assert!(faults.iter().all(|fault| fault.fired() == 2), "{faults:?}");
    Ok(())
}

#[tokio::test]
async fn lost_response_makes_no_second_record() -> Result {
    let cluster = TestCluster::builder().nodes(3).start().await?;
    cluster.topic("orders", 1)?;
    let client = cluster.client("checkout").await?;
    let producer = client.producer().start()?;
    let lost = cluster.inject(fault::drop_response().on(Api::Produce));
    let moved = cluster.inject(fault::not_leader().on(Api::Produce).times(3));

    producer.send(ProducerRecord::to("orders").key("o-1").value("paid")).await?.await?;

    assert_eq!((lost.fired(), moved.fired()), (1, 3));
    assert_eq!(cluster.records("orders").len(), 1);
    Ok(())
}
