//! Spans of one program that produces and one that handles, as a collector gets them.
#![cfg(feature = "otlp")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use support::{Bed, DEADLINE, Process};

/// The service that a span is of, and the span.
type Received = (String, Span);

/// Takes spans at `POST /v1/traces`.
struct Collector {
    url: String,
    spans: Receiver<Received>,
    seen: Vec<Received>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, spans) = sync_channel(1024);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let sender = sender.clone();
                std::thread::spawn(move || while take(stream.as_ref().unwrap(), &sender).is_some() {});
            }
        });
        Self { url, spans, seen: Vec::new() }
    }

    /// Waits for a span.
    fn span(&mut self, wanted: impl Fn(&str, &Span) -> bool) -> Span {
        let begun = Instant::now();
        loop {
            if let Some((_, span)) = self.seen.iter().find(|(service, span)| wanted(service, span)) {
                return span.clone();
            }
            match self.spans.recv_timeout(DEADLINE.saturating_sub(begun.elapsed())) {
                Ok(received) => self.seen.push(received),
                Err(e) => panic!("{e} after {DEADLINE:?}: {:#?}", self.seen),
            }
        }
    }
}

/// One request; none at the end of the connection.
fn take(mut stream: &TcpStream, spans: &SyncSender<Received>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_lowercase()),
        }
    }
    assert_eq!(lines[0], "post /v1/traces http/1.1");
    let field = |name: &str| lines.iter().find_map(|l| l.strip_prefix(name)).map(str::trim);
    assert_eq!(field("content-type:"), Some("application/x-protobuf"));
    let mut body = vec![0; field("content-length:").unwrap().parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    for of_service in ExportTraceServiceRequest::decode(&*body).unwrap().resource_spans {
        let service = text(&of_service.resource.unwrap().attributes, "service.name").unwrap();
        for span in of_service.scope_spans.into_iter().flat_map(|s| s.spans) {
            spans.send((service.clone(), span)).ok()?; // the test is over
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n").ok()
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|a| a.key == key)?;
    let Some(AnyValue { value }) = &found.value else { return None };
    value.as_ref()
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match value(attributes, key)? {
        Value::StringValue(text) => Some(text.clone()),
        other => panic!("{key} is {other:?}"),
    }
}

fn number(attributes: &[KeyValue], key: &str) -> Option<i64> {
    match value(attributes, key)? {
        Value::IntValue(n) => Some(*n),
        other => panic!("{key} is {other:?}"),
    }
}

fn traced(mut command: Command, collector: &Collector, service: &str) -> Command {
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url).env("OTEL_SERVICE_NAME", service);
    command.env("OTEL_BSP_SCHEDULE_DELAY", "100");
    command
}

#[test]
fn a_record_is_one_trace_from_the_producer_to_its_handler() {
    let bed = Bed::embedded(); // the shop's topics have fixed names
    let mut collector = Collector::start();
    let mut serve = bed.command(&["serve", "--listen", "127.0.0.1:0", "--store", "shop.redb"]);
    serve.env("REDPANDA_MAX_ATTEMPTS", "1");
    let serve = Process::spawn(traced(serve, &collector, "shop"));
    serve.line(|l| l.starts_with("http://"));
    let topic = "stock-updates";

    let produce = bed.command(&["produce", topic, "--key-field", "productId"]);
    let ended =
        support::run(traced(produce, &collector, "till"), b"{\"productId\":\"p-1\",\"quantity\":\"no number\"}\n");
    ended.expect(0);

    let sent = collector.span(|service, span| service == "till" && span.name == format!("send {topic}"));
    let handled = collector.span(|service, span| service == "shop" && span.name == format!("process {topic}"));
    assert_eq!((sent.kind(), handled.kind()), (SpanKind::Producer, SpanKind::Consumer));
    assert_eq!(handled.trace_id, sent.trace_id, "one trace");
    assert_eq!(handled.parent_span_id, sent.span_id, "the handler's span is a child of the producer's");
    assert!(sent.parent_span_id.is_empty() && sent.end_time_unix_nano > sent.start_time_unix_nano);

    for (span, operation) in [(&sent, "send"), (&handled, "process")] {
        let of = |key: &str| text(&span.attributes, key);
        assert_eq!(of("messaging.system").as_deref(), Some("kafka"));
        assert_eq!(of("messaging.operation.type").as_deref(), Some(operation));
        assert_eq!(of("messaging.operation.name").as_deref(), Some(operation));
        assert_eq!(of("messaging.destination.name").as_deref(), Some(topic));
        assert_eq!(of("messaging.kafka.message.key").as_deref(), Some("p-1"));
        assert_eq!(of("messaging.client.id").as_deref(), Some("ailurus"));
        assert!(of("messaging.destination.partition.id").is_some());
    }
    let partition = |span: &Span| text(&span.attributes, "messaging.destination.partition.id");
    assert_eq!(partition(&sent), partition(&handled));
    assert_eq!(number(&sent.attributes, "messaging.kafka.offset"), Some(0));
    assert_eq!(number(&handled.attributes, "messaging.kafka.offset"), Some(0));
    assert!(text(&handled.attributes, "messaging.consumer.group.name").is_some());

    // The handler fails, and the record's dead letter is sent in the same trace.
    assert_eq!(text(&handled.attributes, "error.type").as_deref(), Some("retry"));
    assert_eq!(handled.status.as_ref().unwrap().code, 2);
    assert!(text(&sent.attributes, "error.type").is_none());
    let letter = collector.span(|service, span| service == "shop" && span.name == format!("send {topic}.dlq"));
    assert_eq!(letter.trace_id, sent.trace_id);
    assert_eq!(letter.parent_span_id, handled.span_id, "it comes of the handler's failure");
    serve.signal(Signal::SIGTERM);
    serve.end().expect(0);
}

#[test]
fn a_collector_that_can_not_be_used_is_refused_and_one_that_is_gone_stops_nothing() {
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
