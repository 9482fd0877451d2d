#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StockCounted {
    product_id: String,
    new_stock: i64,
}

impl Event for StockCounted {
    const TYPE: &'static str = "stock.counted";

    fn key(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.product_id))
    }
}

fn counted() -> StockCounted {
    StockCounted { product_id: "p-1".into(), new_stock: 7 }
}

const BODY: &str = r#"{"productId":"p-1","newStock":7}"#;

fn message(headers: Headers, value: Option<&str>) -> Message {
    Message {
        topic: Arc::from("stock"),
        partition: 3,
        offset: 42,
        timestamp: Timestamp::from_millis(1_700_000_000_123),
        key: None,
        value: value.map(|v| Bytes::copy_from_slice(v.as_bytes())),
        headers,
        attempt: 1,
        deadline: None,
        stopping: None,
        trace: std::sync::OnceLock::new(),
        epoch: 0,
        leader_epoch: None,
    }
}

fn sent<T: Event + Serialize>(envelope: &Envelope<T>) -> Message {
    message(envelope.headers(), Some(&String::from_utf8(envelope.value().unwrap()).unwrap()))
}

fn pairs(headers: &Headers) -> Vec<(String, String)> {
    headers.iter().map(|h| (h.key().into_owned(), String::from_utf8(h.value().unwrap().to_vec()).unwrap())).collect()
}

fn refusal(message: &Message) -> String {
    let error = Envelope::<StockCounted>::from_message(message).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Event);
    let text = error.to_string();
    let place = "can't read stock.counted from stock/3 at offset 42: ";
    text.strip_prefix(place).unwrap_or_else(|| panic!("{text:?} does not begin with {place:?}")).to_owned()
}

#[test]
fn headers_are_cloudevents_and_the_value_is_plain_json() {
    let envelope = Envelope {
        id: "0190b3c8-2a5e-7c11-8000-000000000001".into(),
        source: "stock-service".into(),
        time: Timestamp::from_millis(1_700_000_000_120),
        data: counted(),
    };
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", "0190b3c8-2a5e-7c11-8000-000000000001"),
        ("ce_type", "stock.counted"),
        ("ce_source", "stock-service"),
        ("ce_time", "2023-11-14T22:13:20.120Z"),
        ("content-type", "application/json"),
    ];
    assert_eq!(pairs(&envelope.headers()), expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    assert_eq!(String::from_utf8(envelope.value().unwrap()).unwrap(), BODY);
}

#[test]
fn envelopes_have_a_v7_id_and_round_trip() {
    let (first, second) = (Envelope::new("s", counted()), Envelope::new("s", counted()));
    assert_eq!(Uuid::parse_str(&first.id).unwrap().get_version_num(), 7);
    assert!(first.id < second.id, "ids sort by their creation");
    assert_eq!(Envelope::from_message(&sent(&first)).unwrap(), first);
}

#[test]
fn encoded_events_equal_their_envelopes() {
    let encoded = EncodedEvent::new(&counted(), None).unwrap();
    assert_eq!(encoded.key.as_deref(), Some("p-1"));
    let envelope = Envelope::<StockCounted>::from_message(&message(
        encoded.headers("billing"),
        Some(std::str::from_utf8(encoded.value()).unwrap()),
    ))
    .unwrap();
    assert_eq!((envelope.source.as_str(), &envelope.data), ("billing", &counted()));
    assert_eq!(envelope.time, encoded.time);
    assert_eq!(envelope.headers(), encoded.headers("billing"));
}

#[test]
fn plain_json_takes_id_and_time_from_the_record() {
    let envelope = Envelope::<StockCounted>::from_message(&message(Headers::new(), Some(BODY))).unwrap();
    assert_eq!(envelope.id, "stock-3-42");
    assert_eq!(envelope.time.as_millis(), 1_700_000_000_123);
    assert_eq!(envelope.source, "");
    assert_eq!(envelope.data, counted());

    let untimed = Message { timestamp: Timestamp::NONE, ..message(Headers::new(), Some(BODY)) };
    assert_eq!(AnyEvent::from_message(&untimed).unwrap().time, Timestamp::UNIX_EPOCH);
}

#[test]
fn the_type_is_in_a_header_or_a_named_field() {
    let body = r#"{"eventType":"in.body","type":"in.body.too"}"#;
    let cases = [
        (Headers::new(), "{}", None, None),
        (Headers::new(), r#"{"type":"b"}"#, None, Some("b")),
        (Headers::new(), body, None, Some("in.body")),
        (Headers::new(), r#"{"eventType":"","type":"b"}"#, None, Some("b")),
        (Headers::new(), r#"{"eventType":5,"type":{"a":1}}"#, None, None),
        (Headers::new(), r#"["eventType"]"#, None, None),
        (Headers::new().with("type", "h"), body, Some("h"), Some("h")),
        (Headers::new().with("type", "h").with("eventType", "e"), body, Some("e"), Some("e")),
        (Headers::new().with("eventType", "e").with("ce_type", "c"), body, Some("c"), Some("c")),
        (Headers::new().with("type", [0xff]), body, None, Some("in.body")),
    ];
    for (headers, body, of_headers, of_fields) in cases {
        let message = message(headers, Some(body));
        assert_eq!(event_type(&message).unwrap(), of_headers, "{message:?}");
        assert_eq!(AnyEvent::from_message(&message).unwrap().event_type.as_deref(), of_headers, "{message:?}");
        assert_eq!(event_type_in(&message, &["eventType", "type"]).unwrap().as_deref(), of_fields, "{message:?}");
    }
}

#[test]
fn any_event_keeps_data_and_known_attributes() {
    let plain = AnyEvent::from_message(&message(Headers::new(), Some(BODY))).unwrap();
    assert_eq!((plain.source, plain.event_type), (None, None));
    let event = AnyEvent::from_message(&sent(&Envelope::new("s", counted()))).unwrap();
    assert_eq!(event.source.as_deref(), Some("s"));
    assert_eq!(event.event_type.as_deref(), Some("stock.counted"));
    assert_eq!(event.data, json!({"productId": "p-1", "newStock": 7}));
}

#[test]
fn another_type_in_any_header_is_rejected() {
    for header in ["ce_type", "eventType", "type"] {
        let other = format!(r#"the header {header} has the event type "stock.lost""#);
        assert_eq!(refusal(&message(Headers::new().with(header, "stock.lost"), Some(BODY))), other);
    }
    let field = r#"{"type":"stock.lost","eventType":"x","productId":"p-1","newStock":7}"#;
    let event = Envelope::<StockCounted>::from_message(&message(Headers::new(), Some(field))).unwrap();
    assert_eq!(event.data, counted(), "a field is data");
}

#[test]
fn errors_name_what_is_wrong() {
    let ce = |name: &str, value: &[u8]| message(Headers::new().with(name, value), Some(BODY));
    let cases = [
        (message(Headers::new(), None), "the record has no value (a tombstone)"),
        (message(Headers::new(), Some("")), "the JSON does not match: EOF while parsing a value"),
        (message(Headers::new(), Some("{not json")), "the JSON does not match: key must be a string at line 1"),
        (message(Headers::new(), Some(r#"{"productId":"p"}"#)), "the JSON does not match: missing field `newStock`"),
        (ce("ce_time", b"yesterday"), r#"the header ce_time: "yesterday" is not an RFC 3339 time"#),
        (ce("ce_id", b"\xff"), "the header ce_id is not UTF-8"),
        (ce("ce_specversion", b"0.3"), r#"ce_specversion is "0.3""#),
        (ce("content-type", b"application/cloudevents+json; charset=utf-8"), "content-type is application/cloudevents"),
    ];
    for (message, expected) in cases {
        let text = refusal(&message);
        assert!(text.starts_with(expected), "{text:?} does not begin with {expected:?}");
    }
    let text = AnyEvent::from_message(&message(Headers::new(), Some("nope"))).unwrap_err().to_string();
    assert!(
        text.starts_with("can't read an event of any type from stock/3 at offset 42: the value is not JSON"),
        "{text}"
    );
    assert!(AnyEvent::from_message(&message(Headers::new(), None)).is_err());
}

proptest! {
    #[test]
    fn sent_events_are_read(
        id in "[^\\x00]{1,40}", source in ".{1,40}", product_id in ".*", new_stock: i64,
        millis in 0..253_402_300_800_000_i64,
    ) {
        let time = Timestamp::from_millis(millis);
        let envelope = Envelope { id, source, time, data: StockCounted { product_id, new_stock } };
        prop_assert_eq!(Envelope::from_message(&sent(&envelope)).unwrap(), envelope);
    }

    #[test]
    fn any_bytes_are_an_event_or_an_error(
        headers in proptest::collection::vec((prop_oneof![
            Just("ce_id"), Just("ce_type"), Just("ce_time"), Just("ce_specversion"), Just("content-type"), Just("type"),
        ], any::<Vec<u8>>()), 0..6),
        value: Option<Vec<u8>>, timestamp: i64,
    ) {
        let headers = headers.into_iter().fold(Headers::new(), |all, (key, value)| all.with(key, value));
        let message = Message { value: value.map(Bytes::from), timestamp: Timestamp::from_millis(timestamp), ..message(headers, None) };
        let _ = event_type_in(&message, &["eventType", "type"]);
        let _ = Envelope::<StockCounted>::from_message(&message);
        if message.value.is_none() {
            prop_assert!(AnyEvent::from_message(&message).is_err());
        }
    }
}

#[test]
fn a_reader_implements_only_the_name_and_deserialize() {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Count {
        new_stock: i64,
    }
    impl EventType for Count {
        const TYPE: &'static str = "stock.counted";
    }

    let envelope = Envelope::new("warehouse", counted());
    let read = Envelope::<Count>::from_message(&sent(&envelope)).unwrap();
    assert_eq!((read.id, read.data.new_stock), (envelope.id, 7));
}
