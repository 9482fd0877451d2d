//! The span of a record from `send` to its acknowledgement, if spans belong to traces.

use tracing::Span;
use tracing::field::Empty;

use super::ProducerRecord;
use super::delivery::Acknowledgement;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::record::Headers;
use crate::trace::TraceContext;
use crate::trace::span::{messaging_span, record_failure};

/// Starts a span with the fields of OpenTelemetry's conventions for messaging.
pub(super) fn start(record: &ProducerRecord<'_>, client_id: &str) -> Span {
    messaging_span!(
        "send",
        "producer",
        &*record.topic,
        client_id,
        messaging.destination.partition.id = Empty,
        messaging.message.body.size = record.value.as_deref().map_or(0, <[u8]>::len),
        messaging.kafka.message.key = record.key.as_deref().map(String::from_utf8_lossy).as_deref(),
        messaging.kafka.message.tombstone = record.value.is_none().then_some(true),
        messaging.kafka.offset = Empty,
    )
}

/// Returns the record's headers with the context of its span: a child of the span that they name,
/// else of the current one. `None` if the span is disabled: the headers stay as they are.
pub(super) fn headers_with_trace(span: &Span, record: &ProducerRecord<'_>, config: &Config) -> Option<Headers> {
    if span.is_disabled() {
        return None;
    }
    let none = Headers::new();
    let headers = record.headers.as_deref().unwrap_or(&none);
    let parent = TraceContext::from_headers(headers);
    Some(headers.with_trace(&config.propagation.set_parent(span, parent.as_ref())?))
}

/// Records the record's result.
pub(super) fn finish(span: &Span, outcome: &Result<Acknowledgement>) {
    match outcome {
        Ok(ack) => {
            span.record("messaging.destination.partition.id", tracing::field::display(ack.partition));
            if let Some(offset) = ack.offset {
                span.record("messaging.kafka.offset", offset);
            }
        }
        Err(e) => record_error(span, e),
    }
}

pub(super) fn record_error(span: &Span, error: &Error) {
    record_failure(span, &error.kind().name(), || error.full());
}
