//! Events of a codec: decoded for their handler, dead letters with the id of their schema, or tried again.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ailurus::event::{Codec, CodecFuture, EncodedValue};
use ailurus::processor::DeadLetter;
use ailurus::{Envelope, Error, ErrorKind, Event, Headers, ProducerRecord, RedpandaService, Router, SendOptions};
use tokio::sync::mpsc;

use super::ordering::until;
use super::{LONG, connect, filled, read_all, support};

#[derive(Debug, PartialEq)]
struct Count(u64);

impl Event for Count {
    const TYPE: &'static str = "count";

    fn key(&self) -> Option<Cow<'_, str>> {
        Some("k".into())
    }
}

/// The value is the schema id 1, a colon and the number. What it decodes with is unavailable at first.
struct Text {
    available: AtomicBool,
}

impl Codec<Count> for Text {
    fn encode<'a>(&'a self, _: &'a str, event: &'a Count) -> CodecFuture<'a, EncodedValue> {
        Box::pin(async move { Ok(EncodedValue::new("text/plain", format!("1:{}", event.0))) })
    }

    fn decode<'a>(&'a self, _: &'a str, _: &'a Headers, value: &'a [u8]) -> CodecFuture<'a, Count> {
        Box::pin(async move {
            if !self.available.swap(true, Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::Connect, "the registry is away"));
            }
            let invalid = |what: &str| Error::new(ErrorKind::Event, what);
            let text = std::str::from_utf8(value).map_err(|_| invalid("no text"))?;
            match text.split_once(':') {
                Some(("1", number)) => number.parse().map(Count).map_err(|_| invalid("no number").with_schema_id("1")),
                Some((other, _)) => Err(invalid("unknown schema").with_schema_id(other)),
                None => Err(invalid("no schema id")),
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_codec_decodes_events_and_names_the_schema_of_dead_letters() {
    let broker = support::broker().await;
    let client = connect(broker.config()).await;
    let topic = filled(&broker, &client, "codec", 1, 0).await;
    let service = RedpandaService::new(&client).unwrap();
    let codec = Text { available: AtomicBool::new(true) };
    service.send_encoded(&codec, &topic, &Count(7), SendOptions::new()).await.unwrap();
    for value in ["9:1", "1:x", "nothing"] {
        let headers = Headers::new().with("ce_type", "count");
        let record = ProducerRecord::to(&*topic).key("k").value(value).headers(headers);
        service.producer().send(record).await.unwrap().await.unwrap();
    }
    service.send_encoded(&codec, &topic, &Count(8), SendOptions::new()).await.unwrap();

    let (handled, mut events) = mpsc::channel(10);
    let handled = Arc::new(handled);
    let router = Router::new().on_encoded(
        Text { available: AtomicBool::new(false) },
        move |event: Envelope<Count>, message: ailurus::Message| {
            let handled = handled.clone();
            async move { handled.send((event.data, message.attempt, message.headers)).await }
        },
    );
    let subscription = service.subscribe([&topic], broker.group("codec").as_str(), router).await.unwrap();
    let mut next = async || tokio::time::timeout(LONG, events.recv()).await.unwrap().unwrap();
    let (count, attempt, headers) = next().await;
    assert_eq!((count, attempt), (Count(7), 2), "not a dead letter, as the registry was away");
    assert_eq!(headers.get_str("content-type"), Some("text/plain"));
    assert_eq!(next().await.0, Count(8));
    until(&subscription, |s| s.dead_letters == 3).await;
    subscription.shutdown().await.unwrap();
    let letters = read_all(&client, &format!("{topic}.dlq")).await;
    let ids: Vec<_> = letters.iter().map(|m| DeadLetter::parse(&m.headers).unwrap().schema_id).collect();
    assert_eq!(ids, [Some("9".to_owned()), Some("1".to_owned()), None]);
}
