//! A collector of spans.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
pub use opentelemetry_proto::tonic::trace::v1::Span;
pub use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use tokio::time::Instant;

/// Maximum time to wait for a span.
const DEADLINE: Duration = Duration::from_secs(300);

/// A service, and a span of it.
pub type Received = (String, Span);

/// A collector that takes spans at `POST /v1/traces`.
pub struct Collector {
    pub url: String,
    spans: Receiver<Received>,
    seen: Vec<Received>,
}

impl Collector {
    pub fn start() -> Self {
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
    pub fn span(&mut self, wanted: impl Fn(&str, &Span) -> bool) -> Span {
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

/// Reads one request; `None` at the end of the connection.
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

pub fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match value(attributes, key)? {
        Value::StringValue(text) => Some(text.clone()),
        other => panic!("{key} is {other:?}"),
    }
}

pub fn number(attributes: &[KeyValue], key: &str) -> Option<i64> {
    match value(attributes, key)? {
        Value::IntValue(n) => Some(*n),
        other => panic!("{key} is {other:?}"),
    }
}

/// Sends the spans of a command to the collector, as those of the service.
pub fn traced(mut command: Command, collector: &Collector, service: &str) -> Command {
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url).env("OTEL_SERVICE_NAME", service);
    command.env("OTEL_BSP_SCHEDULE_DELAY", "100");
    command
}

/// Checks the attributes of a span of an operation at a record with the key `p-1`.
pub fn check_attributes(span: &Span, operation: &str, topic: &str) {
    let of = |key: &str| text(&span.attributes, key);
    assert_eq!(of("messaging.system").as_deref(), Some("kafka"));
    assert_eq!(of("messaging.operation.type").as_deref(), Some(operation));
    assert_eq!(of("messaging.operation.name").as_deref(), Some(operation));
    assert_eq!(of("messaging.destination.name").as_deref(), Some(topic));
    assert_eq!(of("messaging.kafka.message.key").as_deref(), Some("p-1"));
    assert_eq!(of("messaging.client.id").as_deref(), Some("ailurus"));
    assert_eq!(of("messaging.destination.partition.id").as_deref(), Some("0"));
    assert_eq!(number(&span.attributes, "messaging.kafka.offset"), Some(0));
}
