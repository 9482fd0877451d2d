//! Failed requests are retried, in order. On the embedded broker only.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ailurus::{Client, Delivery, ErrorKind, ProducerRecord};
use ailurus_broker::{Broker, Fault};

use super::{PATIENCE, Setup, numbers, support};

const PRODUCE: i16 = 0;
const METADATA: i16 = 3;
const INIT_PRODUCER_ID: i16 = 22;

/// Spoils some of the produce requests: the hook gets their number, from 0.
fn spoil(broker: &Broker, fault: impl Fn(u32) -> Option<Fault> + Send + Sync + 'static) -> Arc<AtomicU32> {
    let count = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&count);
    broker.set_hook(move |request| match request.api_key {
        PRODUCE => fault(counter.fetch_add(1, Ordering::SeqCst)),
        _ => None,
    });
    count
}

/// Sends numbers to the partitions in turn, `each` after every one.
async fn send_numbers(s: &Setup, count: u32, partitions: u32, mut each: impl FnMut(u32)) -> Vec<Delivery> {
    let mut handles = Vec::new();
    for n in 0..count {
        let record = ProducerRecord::to(&s.topic).partition((n % partitions) as i32);
        handles.push(s.producer.send(record.value(n.to_string())).await.unwrap());
        each(n);
        // So that there are many requests.
        if n % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    handles
}

/// Every number is there, the first of each in order.
async fn assert_complete(s: &Setup, count: u32, partitions: u32) {
    let log = s.read().await;
    for p in 0..partitions {
        let want: Vec<u32> = (0..count).filter(|n| n % partitions == p).collect();
        assert_eq!(numbers(&log[&(p as i32)]), want, "partition {p}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retriable_errors_are_retried() {
    for code in [-1, 2, 3, 5, 6, 7, 19, 20, 41, 56, 74, 75, 999] {
        let s = Setup::new(2).await;
        let Some(embedded) = s.broker.embedded() else { return s.close().await };
        let tries = spoil(embedded, move |n| (n < 3).then_some(Fault::Error(code)));
        let handles = send_numbers(&s, 50, 2, |_| {}).await;
        for handle in handles {
            handle.await.unwrap();
        }
        assert!(tries.load(Ordering::SeqCst) > 3);
        assert_complete(&s, 50, 2).await;
        s.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fatal_errors_fail_the_batch() {
    for (code, kind) in [(87, ErrorKind::InvalidRecord), (29, ErrorKind::Authorization), (17, ErrorKind::Broker(17))] {
        let s = Setup::new(1).await;
        let Some(embedded) = s.broker.embedded() else { return s.close().await };
        spoil(embedded, move |n| (n == 0).then_some(Fault::Error(code)));
        let send = |value| s.producer.send(ProducerRecord::to(&s.topic).value(value));
        let error = send("0").await.unwrap().await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(&format!("produce to {}/0 on 127.0.0.1:", s.topic)), "{error}");
        assert_eq!(send("1").await.unwrap().await.unwrap().offset, Some(0));
        s.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_break_at_any_point() {
    for fault in [Fault::Close, Fault::DropResponse] {
        let s = Setup::new(3).await;
        let Some(embedded) = s.broker.embedded() else { return s.close().await };
        spoil(embedded, move |n| (n % 4 == 1).then_some(fault));
        let handles = send_numbers(&s, 600, 3, |_| {}).await;
        for handle in handles {
            handle.await.unwrap();
        }
        assert_complete(&s, 600, 3).await;
        s.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unresponsive_broker_is_disconnected_and_retried() {
    let broker = support::broker().await;
    let s = Setup::on(broker, 1, |c| c.request_timeout(Duration::from_millis(300)), |_| {}).await;
    let Some(embedded) = s.broker.embedded() else { return s.close().await };
    let tries = spoil(embedded, |n| (n == 0).then_some(Fault::Delay(Duration::from_secs(3600))));
    s.producer.send(ProducerRecord::to(&s.topic).value("0")).await.unwrap().await.unwrap();
    assert_eq!(tries.load(Ordering::SeqCst), 2);
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_follow_a_leader_that_moves() {
    let s = Setup::new(3).await;
    let Some(embedded) = s.broker.embedded() else { return s.close().await };
    let handles = send_numbers(&s, 900, 3, |n| {
        if n % 100 == 50 {
            let partition = (n / 100 % 3) as i32;
            let leader = embedded.leader(&s.topic, partition).unwrap().unwrap();
            embedded.move_leader(&s.topic, partition, (leader + 1) % 3).unwrap();
        }
    })
    .await;
    let mut places = HashMap::new();
    for (n, handle) in (0..).zip(handles) {
        let ack = handle.await.unwrap();
        places.insert((ack.partition, ack.offset.unwrap()), n);
    }
    assert_complete(&s, 900, 3).await;
    for (partition, records) in s.read().await {
        for record in records {
            assert_eq!(numbers(std::slice::from_ref(&record)), [places[&(partition, record.offset)]]);
        }
    }
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_records_of_a_stopped_node_wait() {
    let s = Setup::new(3).await;
    let Some(embedded) = s.broker.embedded() else { return s.close().await };
    for handle in send_numbers(&s, 3, 3, |_| {}).await {
        handle.await.unwrap();
    }
    let down = embedded.leader(&s.topic, 1).unwrap().unwrap();
    embedded.stop_node(down).await.unwrap();
    let send = |partition, value| s.producer.send(ProducerRecord::to(&s.topic).partition(partition).value(value));
    let waiting = send(1, "4").await.unwrap();
    assert_eq!(send(0, "3").await.unwrap().await.unwrap().offset, Some(1));
    assert_eq!(send(2, "5").await.unwrap().await.unwrap().offset, Some(1));
    embedded.start_node(down).await.unwrap();
    assert_eq!(waiting.await.unwrap().offset, Some(1));
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_records_are_indeterminate_only_if_sent() {
    for (fault, kind, text) in [
        (Fault::Error(19), ErrorKind::Broker(19), "not written"),
        // A leader that steps down during replication returns this, too.
        (Fault::Error(6), ErrorKind::Indeterminate, "may be in the log"),
        (Fault::Error(7), ErrorKind::Indeterminate, "may be in the log"),
        (Fault::DropResponse, ErrorKind::Indeterminate, "may be in the log"),
        (Fault::DelayResponse(Duration::from_secs(3600)), ErrorKind::Indeterminate, "may be in the log"),
    ] {
        let broker = support::broker().await;
        // After an error response no retry is in flight when the timeout passes, so no late response can be lost.
        let [request, delivery, backoff] = match fault {
            Fault::Error(_) => [2000, 3000, 10_000],
            _ => [400, 1000, 100],
        }
        .map(Duration::from_millis);
        let settings = |c: ailurus::ConfigBuilder| {
            c.request_timeout(request).retry_backoff(backoff).retry_backoff_max(backoff.max(Duration::from_secs(1)))
        };
        let s = Setup::on(broker, 1, settings, |c| c.delivery_timeout = delivery).await;
        let Some(embedded) = s.broker.embedded() else { return s.close().await };
        spoil(embedded, move |_| Some(fault));
        let handle = s.producer.send(ProducerRecord::to(&s.topic).value("0")).await.unwrap();
        let error = tokio::time::timeout(PATIENCE, handle).await.expect("it ends").unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains(text), "{error:?}");
        embedded.clear_hook();
        // What comes later goes out as ever.
        s.producer.send(ProducerRecord::to(&s.topic).value("1")).await.unwrap().await.unwrap();
        assert_eq!(s.producer.buffered_bytes(), 0);
        s.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_after_a_lost_response_is_indeterminate() {
    let s = Setup::new(1).await;
    let Some(embedded) = s.broker.embedded() else { return s.close().await };
    spoil(embedded, move |n| match n {
        0 => Some(Fault::DropResponse),
        1 => Some(Fault::Error(87)),
        _ => None,
    });
    let error = s.producer.send(ProducerRecord::to(&s.topic).value("0")).await.unwrap().await.unwrap_err();
    assert!(format!("{error:#}").contains("may be in the log or not"), "{error:#}");
    assert_eq!(numbers(&s.read().await[&0]), [0]);
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn close_fails_no_completed_delivery() {
    let broker = support::broker().await;
    let settings = |c: ailurus::ConfigBuilder| c.request_timeout(Duration::from_millis(700));
    let s = Setup::on(broker, 1, settings, |c| c.delivery_timeout = Duration::from_secs(1)).await;
    let Some(embedded) = s.broker.embedded() else { return s.close().await };
    spoil(embedded, move |_| Some(Fault::DelayResponse(Duration::from_secs(3600))));
    // When this ends, the second try is with the broker and stays there.
    s.producer.send(ProducerRecord::to(&s.topic).value("0")).await.unwrap().await.unwrap_err();
    s.producer.close(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_errors_end_as_indeterminate() {
    for code in [-1, 7, 999] {
        let broker = support::broker().await;
        let second = Duration::from_secs(1);
        let short = |c: ailurus::ConfigBuilder| c.request_timeout(second).delivery_timeout(second);
        let s = Setup::on(broker, 1, short, |_| {}).await;
        let Some(embedded) = s.broker.embedded() else { return s.close().await };
        spoil(embedded, move |_| Some(Fault::Error(code)));
        let error = s.producer.send(ProducerRecord::to(&s.topic).value("0")).await.unwrap().await.unwrap_err();
        assert!(error.is_indeterminate(), "{code}: {error:?}");
        embedded.clear_hook();
        s.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topic_lookup_lasts_until_the_delivery_timeout() {
    let broker = support::broker().await;
    let Some(embedded) = broker.embedded() else { return };
    embedded.create_topic("later", 1).unwrap();
    let tries = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&tries);
    embedded.set_hook(move |r| {
        let away = r.api_key == METADATA && counter.fetch_add(1, Ordering::SeqCst) < 20;
        away.then_some(Fault::Close)
    });
    let quick = broker.config().retry_backoff(Duration::from_millis(5)).retry_backoff_max(Duration::from_millis(20));
    let client = Client::new(quick.build().unwrap());
    let producer = client.producer().start().unwrap();
    let sent = producer.send(ProducerRecord::to("later").value("0")).await.unwrap();
    assert_eq!(sent.await.unwrap().offset, Some(0));
    assert!(tries.load(Ordering::SeqCst) > 20);

    // When the time is over it says so, and a producer that is closed does not wait for it.
    embedded.set_hook(|r| (r.api_key == METADATA).then_some(Fault::Close));
    let mut short = client.config().producer.clone();
    short.delivery_timeout = Duration::from_secs(30);
    let other = client.producer().config(short).start().unwrap();
    let waiting = tokio::spawn({
        let other = other.clone();
        async move { other.send(ProducerRecord::to("unheard-of").value("0")).await.map(drop) }
    });
    other.close(Duration::ZERO).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, waiting).await.expect("close ends it").unwrap();
    assert!(ended.is_err_and(|e| e.is_closed()));
    producer.close(PATIENCE).await.unwrap();
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_id_is_requested_until_it_succeeds() {
    for code in [-1, 14, 16, 999] {
        let s = Setup::new(1).await;
        let Some(embedded) = s.broker.embedded() else { return s.close().await };
        let tries = AtomicU32::new(0);
        embedded.set_hook(move |r| {
            let away = r.api_key == INIT_PRODUCER_ID && tries.fetch_add(1, Ordering::SeqCst) < 3;
            away.then_some(Fault::Error(code))
        });
        let producer = s.client.producer().start().unwrap();
        producer.send(ProducerRecord::to(&s.topic).value("0")).await.unwrap().await.unwrap();
        producer.close(PATIENCE).await.unwrap();
        s.close().await;
    }
}
