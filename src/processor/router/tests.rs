#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde::Deserialize;

use super::*;
use crate::record::{Headers, Record};
use crate::timestamp::Timestamp;

macro_rules! event {
    ($name:ident, $type:literal) => {
        #[derive(Deserialize)]
        struct $name {
            n: u32,
        }
        impl EventType for $name {
            const TYPE: &'static str = $type;
        }
    };
}
event!(Created, "order.created");
event!(Viewed, "product.viewed");

fn message(headers: Headers, value: Option<&str>) -> Message {
    let value = value.map(|v| Bytes::copy_from_slice(v.as_bytes()));
    Message::new("events".into(), 1, Record { offset: 7, timestamp: Timestamp::UNIX_EPOCH, key: None, value, headers })
}

fn event(kind: &str, value: &str) -> Message {
    message(Headers::new().with("ce_type", kind), Some(value))
}

/// The calls of a router's handlers.
type Calls = Arc<Mutex<Vec<String>>>;

fn router() -> (Router, Calls) {
    let calls = Calls::default();
    let (created, viewed) = (Arc::clone(&calls), Arc::clone(&calls));
    let router = Router::new()
        .on(move |event: Envelope<Created>, message: Message| {
            created.lock().unwrap().push(format!("created {} at {}", event.data.n, message.offset));
            async {}
        })
        .on(move |event: Envelope<Viewed>| {
            viewed.lock().unwrap().push(format!("viewed {}", event.data.n));
            async { Err::<(), _>("not today") }
        });
    (router, calls)
}

async fn outcome(router: &Router, message: Message) -> String {
    router.call(message).await.to_string()
}

#[tokio::test]
async fn each_type_goes_to_its_handler() {
    let (router, calls) = router();
    assert_eq!(outcome(&router, event("order.created", r#"{"n":1}"#)).await, "done");
    assert_eq!(outcome(&router, event("product.viewed", r#"{"n":2}"#)).await, "retry: not today");
    let plain = || message(Headers::new(), Some(r#"{"eventType":"order.created","n":3}"#));
    assert!(outcome(&router, plain()).await.contains("no header has an event type"));
    let router = router.type_field("kind").type_field("eventType");
    assert_eq!(outcome(&router, plain()).await, "done");
    assert_eq!(*calls.lock().unwrap(), ["created 1 at 7", "viewed 2", "created 3 at 7"]);
    assert_eq!(
        format!("{router:?}"),
        r#"Router { types: ["order.created", "product.viewed"], unknown: DeadLetter, fallback: false, type_fields: ["kind", "eventType"] }"#
    );
}

#[tokio::test]
async fn handlers_may_take_the_state() {
    async fn created(State(calls): State<Calls>, event: Envelope<Created>) {
        calls.lock().unwrap().push(format!("created {}", event.data.n));
    }
    async fn other(calls: State<Calls>, message: Message) -> Result<(), std::io::Error> {
        calls.lock().unwrap().push(format!("other at {}", message.offset));
        Ok(())
    }
    let calls = Calls::default();
    let router = Router::with_state(Arc::clone(&calls))
        .on(created)
        .on(|State(calls): State<Calls>, event: Envelope<Viewed>, message: Message| async move {
            calls.lock().unwrap().push(format!("viewed {} at {}", event.data.n, message.offset));
        })
        .fallback(other);
    for (kind, value) in [("order.created", r#"{"n":1}"#), ("product.viewed", r#"{"n":2}"#), ("user.left", "{}")] {
        assert!(matches!(router.call(event(kind, value)).await, Outcome::Done));
    }
    assert_eq!(*calls.lock().unwrap(), ["created 1", "viewed 2 at 7", "other at 7"]);
}

#[tokio::test]
async fn undecodable_events_are_dead_letters_at_once() {
    let (router, calls) = router();
    let bad_header = message(Headers::new().with("ce_type", [0xff]), Some(r#"{"n":1}"#));
    for bad in [event("order.created", "{"), event("order.created", "{}"), bad_header] {
        let outcome = router.call(bad).await;
        assert!(matches!(outcome, Outcome::DeadLetter { .. }), "{outcome:?}");
    }
    assert!(calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_policy_decides_on_unknown_types() {
    let unknown = || event("user.left", "{}");
    let (router, _) = router();
    let why = r#"can't route events/1 at offset 7: no handler for the event type "user.left" (header ce_type)"#;
    assert_eq!(outcome(&router, unknown()).await, format!("dead letter: {why}"));
    let untyped = outcome(&router, message(Headers::new(), None)).await;
    assert!(untyped.starts_with("dead letter: ") && untyped.contains("no header has an event type"), "{untyped}");
    let router = router.unknown(UnknownType::Stop);
    assert_eq!(outcome(&router, unknown()).await, format!("stop: {why}"));
    let router = router.fallback(|message: Message| async move { Outcome::retry(format!("at {}", message.offset)) });
    assert_eq!(outcome(&router, unknown()).await, "retry: at 7");
    assert_eq!(outcome(&router.unknown(UnknownType::Skip), unknown()).await, "done");
}

#[tokio::test]
async fn fields_are_data_unless_named_as_the_type() {
    let (router, calls) = router();
    let body = r#"{"type":"premium","eventType":"user.left","n":4}"#;
    assert_eq!(outcome(&router, event("order.created", body)).await, "done");
    let router = router.fallback(|message: Message| async move {
        Envelope::<Created>::from_message(&message).map(|event| assert_eq!(event.data.n, 4))
    });
    assert_eq!(outcome(&router, message(Headers::new(), Some(body))).await, "done");
    assert_eq!(*calls.lock().unwrap(), ["created 4 at 7"]);
    let why = outcome(&Router::new().type_field("type"), message(Headers::new(), Some(body))).await;
    assert!(why.contains(r#""premium" (field type of the JSON)"#), "{why}");
    let why = outcome(&Router::new().type_field("kind"), message(Headers::new(), Some(body))).await;
    assert!(why.contains("nor a field of the JSON (kind) has an event type"), "{why}");
}

#[tokio::test]
async fn the_last_handler_of_a_type_counts() {
    let (router, calls) = router();
    let router = router.on(|_: Envelope<Created>| async { Outcome::dead_letter("mine") });
    assert_eq!(outcome(&router, event("order.created", r#"{"n":1}"#)).await, "dead letter: mine");
    assert!(calls.lock().unwrap().is_empty());
}
