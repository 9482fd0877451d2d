//! Spans of the shop, as a collector gets them.
#![cfg(feature = "otlp")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ailurus::{Headers, ProducerRecord};
use ailurus_test_support::collector::{Collector, SpanKind, check_attributes, text, traced};
use nix::sys::signal::Signal;
use support::{Bed, Process};

#[test]
fn a_record_is_handled_in_the_trace_of_its_producer() {
    let bed = Bed::new();
    let mut collector = Collector::start();
    let mut shop = bed.command();
    shop.env("REDPANDA_MAX_ATTEMPTS", "1");
    let shop = Process::spawn(traced(shop, &collector, "shop"));
    shop.line(|l| l.starts_with("http://"));
    let topic = "stock-updates";
    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let headers = Headers::new().with("traceparent", format!("00-{trace}-{parent}-01"));
    let value = b"{\"productId\":\"p-1\",\"quantity\":\"no number\"}";
    bed.produce(ProducerRecord::to(topic).key("p-1").value(value).headers(&headers));

    let handled = collector.span(|service, span| service == "shop" && span.name == format!("process {topic}"));
    assert_eq!(handled.kind(), SpanKind::Consumer);
    assert_eq!((hex(&handled.trace_id), hex(&handled.parent_span_id)), (trace.to_owned(), parent.to_owned()));
    check_attributes(&handled, "process", topic);
    assert!(text(&handled.attributes, "messaging.consumer.group.name").is_some());

    // The handler fails, and the dead letter is sent in the same trace.
    assert_eq!(text(&handled.attributes, "error.type").as_deref(), Some("retry"));
    assert_eq!(handled.status.as_ref().unwrap().code, 2);
    let dead = collector.span(|service, span| service == "shop" && span.name == format!("send {topic}.dlq"));
    assert_eq!(dead.trace_id, handled.trace_id);
    assert_eq!(dead.parent_span_id, handled.span_id, "its cause is the handler's failure");
    shop.signal(Signal::SIGTERM);
    shop.end().expect(0);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
