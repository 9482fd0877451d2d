//! Spans of produced and handled records, with the fields of OpenTelemetry's conventions for
//! messaging.

use tracing::Span;

/// Creates the span of an operation on a topic, with further fields.
macro_rules! messaging_span {
    ($operation:literal, $kind:literal, $topic:expr, $client_id:expr, $($fields:tt)*) => {
        tracing::info_span!(
            $operation,
            otel.name = %format_args!(concat!($operation, " {}"), $topic),
            otel.kind = $kind,
            otel.status_code = tracing::field::Empty,
            otel.status_description = tracing::field::Empty,
            messaging.system = "kafka",
            messaging.operation.type = $operation,
            messaging.operation.name = $operation,
            messaging.client.id = $client_id,
            messaging.destination.name = $topic,
            error.type = tracing::field::Empty,
            $($fields)*
        )
    };
}
pub(crate) use messaging_span;

/// Records that the operation of a span failed.
pub(crate) fn record_failure(span: &Span, kind: &str, description: impl FnOnce() -> String) {
    if !span.is_disabled() {
        span.record("error.type", kind);
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", description());
    }
}
