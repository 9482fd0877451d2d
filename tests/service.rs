//! The façade: events sent, handled and shown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::borrow::Cow;
use std::time::Duration;

use ailurus::health::Status;
use ailurus::{
    AnyEvent, Compression, Envelope, Event, EventMessage, Message, ProducerRecord, RedpandaService, SendOptions,
};
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
    let service = RedpandaService::connect(broker.config().client_id("stock-room").build().unwrap()).await.unwrap();
    let (topic, group) = (broker.topic("stock"), broker.group("stock"));
    let (tx, mut rx) = mpsc::channel(16);
    let handle = move |message: Message| {
        let tx = tx.clone();
        async move { tx.send(message).await }
    };
    let subscription = service.subscribe(&[&topic], &group, handle).await.unwrap();

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
    assert_eq!((shown.group.as_str(), shown.state.as_str()), (group.as_str(), "member"));
    assert!(shown.partitions.len() >= 2, "{shown:?}");
    let json = serde_json::to_value(&health).unwrap();
    assert_eq!(json["status"], "healthy");
    assert!(json["brokers"][0]["latencyMs"].is_number(), "{json}");

    subscription.shutdown().await.unwrap();
    assert!(service.health().await.subscriptions.is_empty());
    service.close(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_events_are_decoded_and_poison_is_a_dead_letter_at_once() {
    let broker = support::broker().await;
    let service = RedpandaService::connect(broker.config().build().unwrap()).await.unwrap();
    let (topic, group) = (broker.topic("typed"), broker.group("typed"));
    let (tx, mut rx) = mpsc::channel(16);
    let handle = move |event: Envelope<StockCounted>, message: Message| {
        let tx = tx.clone();
        async move { tx.send((event.data, message.attempt)).await }
    };
    let subscription = service.subscribe(&[&topic], &group, handle).await.unwrap();
    let poison = ProducerRecord::to(&topic).key("p-1").value("{ not JSON");
    service.producer().send(poison).await.unwrap().await.unwrap();
    service.send_message(&topic, &counted("p-1", 7), SendOptions::new()).await.unwrap();
    assert_eq!(rx.recv().await.unwrap(), (counted("p-1", 7), 1));
    let stats = subscription.stats();
    assert_eq!((stats.dead_letters, stats.failed_attempts), (1, 1), "one attempt was enough");
    subscription.shutdown().await.unwrap();
    service.close(Duration::from_secs(30)).await.unwrap();
}
