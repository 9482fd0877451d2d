//! Spans of the command, as a collector gets them.
#![cfg(feature = "otlp")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::TcpListener;

use ailurus_test_support::collector::{Collector, SpanKind, check_attributes, text, traced};
use support::Bed;

#[test]
fn a_record_that_is_sent_has_a_span() {
    let mut bed = Bed::embedded();
    let topic = bed.topic("traced", 1);
    let mut collector = Collector::start();
    let produce = bed.command(&["produce", &topic, "--key-field", "productId"]);
    support::run(traced(produce, &collector, "till"), b"{\"productId\":\"p-1\"}\n").expect(0);
    let sent = collector.span(|service, span| service == "till" && span.name == format!("send {topic}"));
    assert_eq!(sent.kind(), SpanKind::Producer);
    assert!(sent.parent_span_id.is_empty() && sent.end_time_unix_nano > sent.start_time_unix_nano);
    check_attributes(&sent, "send", &topic);
    assert!(text(&sent.attributes, "error.type").is_none());
}

#[test]
fn a_wrong_collector_is_refused_and_an_absent_one_stops_nothing() {
    let mut bed = Bed::embedded();
    let topic = bed.topic("untraced", 1);
    let mut produce = bed.command(&["produce", &topic]);
    produce.env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318");
    let ended = support::run(produce, b"x\n").expect(2);
    assert!(
        ended.stderr.contains("OTEL_EXPORTER_OTLP_ENDPOINT") && ended.stderr.contains("http://"),
        "{}",
        ended.stderr
    );

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut produce = bed.command(&["produce", &topic]);
    produce.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{nobody}"));
    support::run(produce, b"x\n").expect(0);
}
