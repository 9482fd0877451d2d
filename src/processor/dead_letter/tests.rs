#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::{DeadLetter, Origin, Truncation, describe, printable_key};
use crate::AnyEvent;
use crate::consumer::Message;
use crate::record::{Headers, Record};
use crate::timestamp::Timestamp;

fn letter(error: &str, headers: Headers, truncation: Truncation) -> DeadLetter {
    let at = |millis| Some(Timestamp::from_millis(millis));
    let origin =
        Origin { topic: "orders".into(), partition: 3, offset: 42, timestamp: at(7), group: Some("billing".into()) };
    DeadLetter {
        error: error.into(),
        attempts: 4,
        first_failure: at(1000),
        last_failure: at(2500),
        origin,
        headers,
        truncation,
        schema_id: None,
    }
}

/// Any headers, with those of dead letters and replays, duplicates and nulls.
fn any_headers() -> impl Strategy<Value = Headers> {
    let name = prop_oneof![
        Just("a".to_owned()),
        Just("dlq-error".to_owned()),
        Just("dlq-topic".to_owned()),
        Just("dlq-offset".to_owned()),
        ".{0,5}"
    ];
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..8));
    prop::collection::vec((name, value), 0..8).prop_map(|pairs| {
        let mut headers = Headers::new();
        pairs.iter().for_each(|(k, v)| headers.push(k, v.as_deref()));
        headers
    })
}

proptest! {
    #[test]
    fn dead_letters_round_trip_with_the_records_headers(
        headers in any_headers(),
        error in ".{0,40}",
        timestamp in prop::option::of(0_i64..),
        group in prop::option::of("[a-z]{1,5}"),
    ) {
        let mut written = letter(&error, headers, Truncation::Nothing);
        written.origin.timestamp = timestamp.map(Timestamp::from_millis);
        written.origin.group = group;
        prop_assert_eq!(DeadLetter::parse(&written.to_headers()), Some(written.clone()));
        // A dead letter of a dead letter, too.
        let again = letter("again", written.to_headers(), Truncation::Value);
        let outer = DeadLetter::parse(&again.to_headers()).unwrap();
        prop_assert_eq!(DeadLetter::parse(&outer.headers), Some(written));
    }

    #[test]
    fn any_headers_are_parsed(headers in any_headers()) {
        if let Some(letter) = DeadLetter::parse(&headers) {
            prop_assert!(headers.get("dlq-error").is_some() || headers.iter().any(|h| h.key() == "dlq-error"));
            prop_assert!(letter.headers.len() < headers.len());
        }
    }
}

#[test]
fn other_records_are_no_dead_letters() {
    assert_eq!(DeadLetter::parse(&Headers::new()), None);
    let half = Headers::new().with("dlq-error", "boom").with("dlq-topic", "orders").with("dlq-partition", "x");
    assert_eq!(DeadLetter::parse(&half), None);
}

#[test]
fn dead_letters_without_timestamp_and_group_are_parsed() {
    let old = Headers::new().with("h", "1").with("dlq-error", "boom").with("dlq-topic", "orders");
    let old = old.with("dlq-partition", "0").with("dlq-offset", "5").with("dlq-attempts", "4");
    let letter = DeadLetter::parse(&old).unwrap();
    assert_eq!((letter.origin.timestamp, letter.origin.group.as_deref(), letter.first_failure), (None, None, None));
    assert_eq!(letter.headers, Headers::new().with("h", "1"));
}

#[test]
fn truncation_is_in_a_header() {
    let headers = Headers::new().with("h", "1");
    let mut truncation = Truncation::Nothing;
    let mut written_as = Vec::new();
    loop {
        let written = letter("boom", headers.clone(), truncation).to_headers();
        let read = DeadLetter::parse(&written).unwrap();
        assert_eq!(read.truncation, truncation);
        assert_eq!(read.headers.is_empty(), truncation >= Truncation::ValueAndHeaders);
        written_as.push(written.get_str("dlq-left-out").map(str::to_owned));
        let Some(more) = truncation.next() else { break };
        truncation = more;
    }
    let expected = [None, Some("value"), Some("value,headers"), Some("value,headers,key")];
    assert_eq!(written_as.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
}

fn message(headers: Headers, offset: i64, timestamp: i64) -> Message {
    let timestamp = Timestamp::from_millis(timestamp);
    let value = Some(bytes::Bytes::from_static(b"{}"));
    Message::new("orders".into(), 3, Record { offset, timestamp, key: None, value, headers })
}

/// Returns the dead letter of a replayed record that fails again at another position.
fn fails_again(replayed: Headers, offset: i64) -> DeadLetter {
    let mut letter = letter("boom", replayed, Truncation::Nothing);
    (letter.origin.offset, letter.origin.timestamp) = (offset, Some(Timestamp::from_millis(1_000_000)));
    DeadLetter::parse(&letter.to_headers()).unwrap()
}

#[test]
fn a_replay_has_the_records_headers_and_a_count() {
    let headers = Headers::new().with("a", "1").with("traceparent", "t").with("a", "2").with("ce_id", "7");
    let headers = headers.with("ce_time", "2026-01-31T12:00:00Z");
    let first = letter("boom", headers.clone(), Truncation::Nothing);
    assert_eq!(first.replays(), 0);
    let kept = headers.clone().with("dlq-original-timestamp", "7");
    assert_eq!(first.replay_headers(), kept.clone().with("dlq-replays", "1"));
    let second = fails_again(first.replay_headers(), 99);
    assert_eq!(second.replays(), 1);
    assert_eq!(second.replay_headers(), kept.with("dlq-replays", "2"), "the first timestamp stays");
    let damaged = letter("boom", headers.with("dlq-replays", "many"), Truncation::Nothing);
    assert_eq!(damaged.replays(), u32::MAX, "a count that can't be read lets nothing go round");
}

#[test]
fn replays_are_the_same_event() {
    let empty = Headers::new().with("ce_id", "").with("ce_id", "");
    for headers in [Headers::new(), Headers::new().with("ce_type", "order.paid"), empty] {
        let read = |headers, offset, timestamp| {
            let event = AnyEvent::from_message(&message(headers, offset, timestamp)).unwrap();
            (event.id, event.time)
        };
        let at_first = read(headers.clone(), 42, 7);
        let first = letter("boom", headers, Truncation::Nothing).replay_headers();
        assert_eq!(read(first.clone(), 99, 1_000_000), at_first);
        let second = fails_again(first, 99).replay_headers();
        assert_eq!(read(second.clone(), 120, 2_000_000), at_first);
        assert_eq!(second.iter().filter(|h| h.key() == "ce_id").count(), 1);
    }
    // A time without a text in RFC 3339 is left to the record.
    let mut late = letter("boom", Headers::new(), Truncation::Nothing);
    for millis in [253_402_300_800_000, i64::MAX] {
        late.origin.timestamp = Some(Timestamp::from_millis(millis));
        assert_eq!(late.replay_headers().get("ce_time"), None);
    }
    let structured = Headers::new().with("content-type", "application/cloudevents+json");
    assert_eq!(letter("boom", structured, Truncation::Nothing).replay_headers().get("ce_id"), None);
}

#[test]
fn logged_keys_are_one_short_line() {
    assert_eq!(printable_key(b"o-17"), "o-17");
    assert_eq!(printable_key(b"a\nb\x1b[31m\xff"), "a\\nb\\u{1b}[31m\u{fffd}");
    assert_eq!(printable_key("ä".repeat(65).as_bytes()), format!("{}… (130 bytes)", "ä".repeat(64)));
}

#[test]
fn error_text_has_causes_and_a_bound() {
    let cause = crate::Error::new(crate::ErrorKind::Io, "disk full");
    assert_eq!(describe(&cause.context("storing")), "storing: disk full");
    let long = letter(&"ä".repeat(2000), Headers::new(), Truncation::Nothing).to_headers();
    assert_eq!(long.get_str("dlq-error").unwrap(), "ä".repeat(1024));
}
