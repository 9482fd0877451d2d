//! The façade: events sent, handled and shown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::borrow::Cow;
use std::time::Duration;

use ailurus::consumer::ConsumerState;
use ailurus::health::Status;
use ailurus::{
    AnyEvent, Compression, ConsumerEvent, Envelope, ErrorKind, Event, EventMessage, Message, ProducerRecord,
    RedpandaService, Router, SendOptions, StartOffset, TopicPartition, TraceContext,
};
use ailurus_test_support as support;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StockCounted {
    product_id: String,
    new_stock: u32,
}

impl Event for StockCounted {
    const TYPE: &'static str = "stock.counted";
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.product_id.as_str().into())
    }
}

fn counted(product: &str, new_stock: u32) -> StockCounted {
    StockCounted { product_id: product.into(), new_stock }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_sent_handled_and_shown() {
    let broker = support::broker().await;
    let config = broker.config().client_id("stock-room").health_timeout(Duration::from_secs(60)).build().unwrap();
    let service = RedpandaService::connect(config).await.unwrap();
    let (topic, group) = (broker.topic("stock"), broker.group("stock"));
    let (tx, mut rx) = mpsc::channel(16);
    let handle = move |message: Message| {
        let tx = tx.clone();
        async move { tx.send(message).await }
    };
    let subscription = service.subscribe([&topic], &group, handle).await.unwrap();

    let options = SendOptions::new().compression(Compression::gzip(6).unwrap()).header("tenant", "berlin");
    let ack = service.send_message(&topic, &counted("p-1", 7), options).await.unwrap();
    let got = rx.recv().await.unwrap();
    assert_eq!((got.partition, Some(got.offset)), (ack.partition, ack.offset));
    assert_eq!(got.key.as_deref(), Some(b"p-1".as_slice()));
    assert_eq!(got.value.as_deref(), Some(br#"{"productId":"p-1","newStock":7}"#.as_slice()));
    assert_eq!(got.headers.get_str("ce_type"), Some("stock.counted"));
    assert_eq!(got.headers.get_str("tenant"), Some("berlin"));
    let envelope = Envelope::<StockCounted>::from_message(&got).unwrap();
    assert_eq!((envelope.source.as_str(), &envelope.data), ("stock-room", &counted("p-1", 7)));

    let batch = (0..5).map(|n| EventMessage::new(&counted("p-2", n), SendOptions::new()).unwrap()).collect();
    let acks = service.send_batch(&topic, batch).await;
    let offsets: Vec<_> = acks.into_iter().map(|a| a.unwrap().offset.unwrap()).collect();
    assert!(offsets.is_sorted(), "{offsets:?}");
    for n in 0..5 {
        assert_eq!(AnyEvent::from_message(&rx.recv().await.unwrap()).unwrap().data["newStock"], n);
    }
    let explicit = SendOptions::new().partition(1).key("other").source("/counter/3");
    let ack = service.send_message(&topic, &counted("p-3", 1), explicit).await.unwrap();
    let got = rx.recv().await.unwrap();
    assert_eq!((ack.partition, got.key.as_deref()), (1, Some(b"other".as_slice())));
    assert_eq!(got.headers.get_str("ce_source"), Some("/counter/3"));

    let health = service.health().await;
    assert_eq!(health.status, Status::Healthy, "{:?}", health.problems);
    let [shown] = &health.subscriptions[..] else { panic!("{:?}", health.subscriptions) };
    assert_eq!((shown.group.as_str(), shown.state), (group.as_str(), ConsumerState::Member));
    assert!(shown.partitions.len() >= 2, "{shown:?}");
    let json = serde_json::to_value(&health).unwrap();
    assert_eq!(json["status"], "healthy");
    assert!(json["brokers"][0]["latencyMs"].is_number(), "{json}");

    subscription.shutdown().await.unwrap();
    assert!(service.health().await.subscriptions.is_empty());
    service.close(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn undecodable_events_become_dead_letters_at_once() {
    let broker = support::broker().await;
    let service = RedpandaService::connect(broker.config().build().unwrap()).await.unwrap();
    let (topic, group) = (broker.topic("typed"), broker.group("typed"));
    let (tx, mut rx) = mpsc::channel(16);
    let handle = move |event: Envelope<StockCounted>, message: Message| {
        let tx = tx.clone();
        async move { tx.send((event.data, message.attempt)).await }
    };
    let subscription = service.subscribe([&topic], &group, handle).await.unwrap();
    let poison = ProducerRecord::to(&topic).key("p-1").value("{ not JSON");
    service.producer().send(poison).await.unwrap().await.unwrap();
    service.send_message(&topic, &counted("p-1", 7), SendOptions::new()).await.unwrap();
    assert_eq!(rx.recv().await.unwrap(), (counted("p-1", 7), 1));
    let stats = subscription.stats();
    assert_eq!((stats.dead_letters, stats.failed_attempts), (1, 1), "one attempt was enough");
    subscription.shutdown().await.unwrap();
    service.close(Duration::from_secs(30)).await.unwrap();
}

/// An event whose fate is not known is sent again as the same event.
#[tokio::test(flavor = "multi_thread")]
async fn a_send_error_has_the_event_id() {
    let broker = support::broker().await;
    let config = broker.config().producer(|p| p.max_request_size(2000));
    let service = RedpandaService::connect(config.build().unwrap()).await.unwrap();
    let topic = broker.topic("stock");
    support::create_topic(service.client(), &topic, 1).await.unwrap();
    let large = counted(&"p".repeat(3000), 7);
    let error = service.send_message(&topic, &large, SendOptions::new()).await.unwrap_err();
    let id = error.event_id().unwrap().to_owned();
    assert!(error.to_string().ends_with(&format!("(event {id})")), "{error}");
    assert_eq!(error.clone().context("counting").event_id(), Some(id.as_str()));

    let given = [
        SendOptions::new().id(&id),
        SendOptions::new().header("ce_id", "other").id(&id),
        SendOptions::new().header("ce_id", "first").header("ce_id", &id).header("ce_time", "2026-01-31T12:00:00Z"),
    ];
    let messages: Vec<_> = given.into_iter().map(|o| EventMessage::new(&counted("p-1", 7), o).unwrap()).collect();
    assert!(messages.iter().all(|m| m.id() == id));
    let failing = EventMessage::new(&large, SendOptions::new().id("mine")).unwrap();
    let failed = service.send_batch(&topic, vec![failing]).await.remove(0).unwrap_err();
    assert_eq!(failed.event_id(), Some("mine"));
    assert!(service.send_batch(&topic, messages).await.iter().all(Result::is_ok));
    for bad in [SendOptions::new().id(""), SendOptions::new().header("ce_id", [0xff])] {
        assert_eq!(EventMessage::new(&counted("p-1", 7), bad).unwrap_err().kind(), ErrorKind::Event);
    }

    let from = [(TopicPartition::new(topic.as_str(), 0), StartOffset::Earliest)];
    let mut consumer = service.client().reader().assign(from).await.unwrap();
    let mut records = Vec::new();
    while records.len() < 3 {
        if let ConsumerEvent::Records(mut more) = consumer.recv().await.unwrap() {
            records.append(&mut more.records);
        }
    }
    for record in &records {
        let ids: Vec<_> = record.headers.iter().filter(|h| h.key() == "ce_id").map(|h| h.value().unwrap()).collect();
        assert_eq!(ids, [id.as_bytes()]);
        assert_eq!(record.headers.iter().filter(|h| h.key() == "ce_time").count(), 1);
    }
    assert_eq!(records[2].headers.get_str("ce_time"), Some("2026-01-31T12:00:00Z"));
    consumer.close().await.unwrap();
    service.close(Duration::from_secs(30)).await.unwrap();
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct ShelfCleared {
    shelf: String,
}

impl Event for ShelfCleared {
    const TYPE: &'static str = "shelf.cleared";
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.shelf.as_str().into())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_dispatches_by_event_type() {
    let broker = support::broker().await;
    let service = RedpandaService::connect(broker.config().build().unwrap()).await.unwrap();
    let (topic, group) = (broker.topic("mixed"), broker.group("mixed"));
    let (tx, mut rx) = mpsc::channel(16);
    let (counted_tx, cleared_tx) = (tx.clone(), tx);
    let router = Router::new()
        .on(move |event: Envelope<StockCounted>, _: Message| {
            let tx = counted_tx.clone();
            async move { tx.send(format!("{} of {}", event.data.new_stock, event.data.product_id)).await }
        })
        .on(move |event: Envelope<ShelfCleared>, message: Message| {
            let tx = cleared_tx.clone();
            async move { tx.send(format!("{} on attempt {}", event.data.shelf, message.attempt)).await }
        })
        .type_field("eventType");
    let subscription = service.subscribe([&topic], &group, router).await.unwrap();
    let same = || SendOptions::new().key("one");
    service.send_message(&topic, &counted("p-1", 7), same()).await.unwrap();
    for bad in [r#"{"eventType":"shelf.cleared"}"#, r#"{"eventType":"shelf.moved","shelf":"s-1"}"#, "no JSON"] {
        service.producer().send(ProducerRecord::to(&topic).key("one").value(bad)).await.unwrap().await.unwrap();
    }
    service.send_message(&topic, &ShelfCleared { shelf: "s-1".into() }, same()).await.unwrap();
    assert_eq!(rx.recv().await.unwrap(), "7 of p-1");
    assert_eq!(rx.recv().await.unwrap(), "s-1 on attempt 1");
    let stats = subscription.stats();
    assert_eq!((stats.dead_letters, stats.failed_attempts), (3, 3), "one attempt each");
    subscription.shutdown().await.unwrap();
    service.close(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_continue_through_handlers() {
    let broker = support::broker().await;
    let service = RedpandaService::connect(broker.config().build().unwrap()).await.unwrap();
    let (first, second) = (broker.topic("first"), broker.topic("second"));
    let (tx, mut rx) = mpsc::channel(16);
    let (handled, forward, next) = (tx.clone(), service.clone(), second.clone());
    let handle = move |event: Envelope<StockCounted>, message: Message| {
        let (tx, service, topic) = (handled.clone(), forward.clone(), next.clone());
        async move {
            let options = SendOptions::new().trace(message.trace());
            service.send_message(&topic, &event.data, options).await.map_err(|e| e.to_string())?;
            tx.send(message).await.map_err(|e| e.to_string())
        }
    };
    let one = service.subscribe([&first], &broker.group("one"), handle).await.unwrap();
    let two = move |message: Message| {
        let tx = tx.clone();
        async move { tx.send(message).await }
    };

    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let sender = TraceContext::parse(parent, Some("vendor=1")).unwrap();
    service.send_message(&first, &counted("p-1", 7), SendOptions::new().trace(&sender)).await.unwrap();
    let begun = rx.recv().await.unwrap();
    assert_eq!(begun.headers.get_str("traceparent"), Some(parent));
    let span = begun.trace().unwrap();
    assert_eq!((span.trace_id(), span.state()), (sender.trace_id(), Some("vendor=1")));
    assert_ne!(span.span_id(), sender.span_id());
    assert_eq!(Some(span), begun.trace(), "the same each time");

    let two = service.subscribe([&second], &broker.group("two"), two).await.unwrap();
    let then = rx.recv().await.unwrap();
    let sent_in = TraceContext::from_headers(&then.headers).unwrap();
    assert_eq!((sent_in.trace_id(), sent_in.state()), (sender.trace_id(), Some("vendor=1")));
    assert_ne!(sent_in.span_id(), sender.span_id(), "it was sent in the handler's span");
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
    service.close(Duration::from_secs(30)).await.unwrap();
}
