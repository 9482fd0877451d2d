//! One call of a handler.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tracing::Span;

use super::handler::BoxError;
use crate::consumer::Message;
use crate::trace::TraceContext;

/// Runs a handler in its span; a panic is an error.
pub(super) struct Attempt<T> {
    future: Result<BoxFuture<'static, T>, Option<BoxError>>,
    span: Span,
}

impl<T> Attempt<T> {
    pub(super) fn begin(span: Span, call: impl FnOnce() -> BoxFuture<'static, T>) -> Self {
        let future = span.in_scope(|| catch_unwind(AssertUnwindSafe(call)).map_err(|panic| Some(text_of(&*panic))));
        Self { future, span }
    }

    /// Until the deadline, if there is one, which comes `limit` after the beginning.
    pub(super) async fn within(self, limit: Option<(Instant, Duration)>) -> Result<T, BoxError> {
        match limit {
            None => self.await,
            Some((deadline, limit)) => match tokio::time::timeout_at(deadline, self).await {
                Ok(outcome) => outcome,
                Err(_) => Err(format!("timed out after {limit:?}").into()),
            },
        }
    }
}

impl<T> Future for Attempt<T> {
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { future, span } = self.get_mut();
        let _in_span = span.enter();
        match future {
            Ok(future) => match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                Ok(polled) => polled.map(Ok),
                Err(panic) => Poll::Ready(Err(text_of(&*panic))),
            },
            Err(panicked) => Poll::Ready(Err(panicked.take().unwrap_or_else(|| "the handler panicked".into()))),
        }
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> BoxError {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("no message")).into()
}

/// The span of an attempt at a record, with the fields that OpenTelemetry's conventions for messaging have for it, and with its
/// place in the trace that the record's headers name.
pub(super) fn span(message: &Message, group: &str) -> Span {
    tracing::info_span!(
        "process",
        otel.kind = "consumer",
        messaging.system = "kafka",
        messaging.operation.type = "process",
        messaging.operation.name = "process",
        messaging.destination.name = &*message.topic,
        messaging.destination.partition.id = message.partition,
        messaging.consumer.group.name = group,
        messaging.kafka.offset = message.offset,
        messaging.kafka.message.key = message.key.as_deref().map(String::from_utf8_lossy).as_deref(),
        messaging.kafka.message.tombstone = message.value.is_none().then_some(true),
        trace_id = message.trace().map(TraceContext::trace_id).as_deref(),
        span_id = message.trace().map(TraceContext::span_id).as_deref(),
        parent_span_id = TraceContext::from_headers(&message.headers).map(|sent_in| sent_in.span_id()).as_deref(),
        attempt = message.attempt,
    )
}

/// The same of a batch.
pub(super) fn batch_span(messages: &[Message], group: &str) -> Span {
    let Some(first) = messages.first() else { return Span::none() };
    tracing::info_span!(
        "process",
        otel.kind = "consumer",
        messaging.system = "kafka",
        messaging.operation.type = "process",
        messaging.operation.name = "process",
        messaging.destination.name = &*first.topic,
        messaging.destination.partition.id = first.partition,
        messaging.consumer.group.name = group,
        messaging.kafka.offset = first.offset,
        messaging.batch.message_count = messages.len(),
        attempt = first.attempt,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::sync::{Arc, Mutex};

    use futures_util::FutureExt;

    use super::*;
    use crate::record::{Headers, Record};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_span_has_its_place_in_the_trace_that_the_handler_gets_too() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let record = |headers| Record { offset: 7, timestamp: 0, key: None, value: None, headers };
        let traced = Message::new("orders".into(), 1, record(Headers::new().with("traceparent", parent)));
        let other = Message::new("orders".into(), 1, record(Headers::new()));
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(log, || {
            span(&traced, "billing").in_scope(|| tracing::info!("one"));
            span(&other, "billing").in_scope(|| tracing::info!("two"));
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let [one, two] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        let own = traced.trace().unwrap().span_id();
        for field in [
            r#"trace_id="0af7651916cd43dd8448eb211c80319c""#.to_owned(),
            r#"parent_span_id="b7ad6b7169203331""#.to_owned(),
            format!(r#" span_id="{own}""#),
        ] {
            assert!(one.contains(&field), "{field} is missing in {one}");
        }
        assert!(two.contains("messaging.kafka.offset=7") && !two.contains("trace_id"), "{two}");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_with_its_text_before_and_after_the_first_await() {
        let before = Attempt::<()>::begin(Span::none(), || panic!("at {}", "once"));
        assert_eq!(before.await.unwrap_err().to_string(), "the handler panicked: at once");
        let after = Attempt::begin(Span::none(), || {
            async {
                tokio::task::yield_now().await;
                panic!("later");
            }
            .map(|(): ()| ())
            .boxed()
        });
        assert_eq!(after.await.unwrap_err().to_string(), "the handler panicked: later");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_ends_at_its_deadline() {
        let limit = Duration::from_secs(5);
        let attempt = Attempt::<()>::begin(Span::none(), || std::future::pending().boxed());
        let error = attempt.within(Some((Instant::now() + limit, limit))).await.unwrap_err();
        assert_eq!(error.to_string(), "timed out after 5s");
        let quick = Attempt::begin(Span::none(), || std::future::ready(7).boxed());
        assert_eq!(quick.within(Some((Instant::now() + limit, limit))).await.unwrap(), 7);
    }
}
