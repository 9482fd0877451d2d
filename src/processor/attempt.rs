//! One attempt: a call of a handler, in its span.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tracing::Span;
use tracing::field::Empty;

use super::dead_letter::describe;
use super::failure_policy::AttemptTimeout;
use super::handler::{BoxError, Outcome};
use crate::config::Config;
use crate::consumer::Message;
use crate::trace::span::{messaging_span, record_failure};
use crate::trace::{Propagation, TraceContext};

/// Polls a handler in its span, and turns a panic into an error.
pub(super) struct Attempt<T> {
    future: Result<BoxFuture<'static, T>, Option<BoxError>>,
    span: Span,
    failure: fn(&T) -> Option<SpanFailure<'_>>,
}

/// The kind of a failure and its error, as its span records them.
pub(super) type SpanFailure<'a> = (&'static str, &'a BoxError);

impl<T> Attempt<T> {
    /// Calls the handler; `failure` returns the failure of an outcome.
    pub(super) fn start(
        span: Span,
        failure: fn(&T) -> Option<SpanFailure<'_>>,
        call: impl FnOnce() -> BoxFuture<'static, T>,
    ) -> Self {
        let future = span.in_scope(|| catch_unwind(AssertUnwindSafe(call)).map_err(|panic| Some(text_of(&*panic))));
        Self { future, span, failure }
    }

    /// Runs until the deadline, if there is one; `limit` is the time from the start to it.
    pub(super) async fn within(self, limit: Option<(Instant, Duration)>) -> Result<T, BoxError> {
        match limit {
            None => self.await,
            Some((deadline, limit)) => {
                let span = self.span.clone();
                let timed_out = || {
                    let error = AttemptTimeout { limit }.into();
                    fail(&span, ("timeout", &error));
                    error
                };
                tokio::time::timeout_at(deadline, self).await.unwrap_or_else(|_| Err(timed_out()))
            }
        }
    }
}

impl<T> Future for Attempt<T> {
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { future, span, failure } = self.get_mut();
        let _in_span = span.enter();
        let outcome = match future {
            Ok(future) => match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                Ok(polled) => ready!(polled.map(Ok)),
                Err(panic) => Err(text_of(&*panic)),
            },
            Err(panicked) => Err(panicked.take().unwrap_or_else(|| "the handler panicked".into())),
        };
        if !span.is_disabled() {
            let failure = outcome.as_ref().map_or_else(|panic| Some(("panic", panic)), *failure);
            failure.into_iter().for_each(|failure| fail(span, failure));
        }
        Poll::Ready(outcome)
    }
}

/// Returns the first failure of a batch's outcomes.
#[allow(clippy::ptr_arg, reason = "the output type of a batch handler")]
pub(super) fn first_failure(outcomes: &Vec<Outcome>) -> Option<SpanFailure<'_>> {
    outcomes.iter().find_map(Outcome::failure)
}

fn fail(span: &Span, (kind, error): SpanFailure<'_>) {
    record_failure(span, kind, || describe(&**error));
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> BoxError {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("no message")).into()
}

/// Creates the spans of attempts, in the trace of a record's headers.
pub(super) struct Tracing {
    propagation: Propagation,
    client_id: String,
}

impl Tracing {
    pub(super) fn new(config: &Config) -> Self {
        Self { propagation: config.propagation.clone(), client_id: config.client_id.clone() }
    }

    /// Creates the span of an attempt at a record, and sets the record's [trace](Message::trace) to
    /// it.
    pub(super) fn span(&self, message: &mut Message, group: &str) -> Span {
        let span = self.new_span(message, None, group);
        if !span.is_disabled() {
            self.set_trace(&span, message);
        }
        span
    }

    /// Creates the span of an attempt at a batch, linked to the traces of its records.
    pub(super) fn batch_span(&self, messages: &[Message], group: &str) -> Span {
        let Some(first) = messages.first() else { return Span::none() };
        let span = self.new_span(first, Some(messages.len()), group);
        self.propagation.link(&span, messages.iter().filter_map(|m| TraceContext::from_headers(&m.headers)));
        span
    }

    /// `batch_size` is `None` for a single record.
    fn new_span(&self, first: &Message, batch_size: Option<usize>, group: &str) -> Span {
        let record = batch_size.is_none().then_some(first);
        messaging_span!(
            "process",
            "consumer",
            &*first.topic,
            &*self.client_id,
            messaging.destination.partition.id = %first.partition,
            messaging.consumer.group.name = group,
            messaging.kafka.offset = first.offset,
            messaging.kafka.message.key = record.and_then(|m| m.key.as_deref()).map(String::from_utf8_lossy).as_deref(),
            messaging.kafka.message.tombstone = record.is_some_and(|m| m.value.is_none()).then_some(true),
            messaging.message.body.size = record.map(|m| m.value.as_ref().map_or(0, Bytes::len)),
            messaging.batch.message_count = batch_size,
            trace_id = Empty,
            span_id = Empty,
            parent_span_id = Empty,
            attempt = first.attempt,
        )
    }

    fn set_trace(&self, span: &Span, message: &mut Message) {
        let parent = TraceContext::from_headers(&message.headers);
        if self.propagation.is_on() {
            message.trace = OnceLock::from(self.propagation.set_parent(span, parent.as_ref()).map(Arc::new));
        }
        if let Some(own) = message.trace() {
            span.record("trace_id", own.trace_id());
            span.record("span_id", own.span_id());
        }
        if let Some(parent) = parent {
            span.record("parent_span_id", parent.span_id());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::sync::Mutex;

    use futures_util::FutureExt;

    use super::*;
    use crate::record::{Headers, Record};
    use crate::timestamp::Timestamp;

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
    fn spans_and_messages_have_the_trace() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let record = |headers| Record { offset: 7, timestamp: Timestamp::UNIX_EPOCH, key: None, value: None, headers };
        let mut traced = Message::new("orders".into(), 1, record(Headers::new().with("traceparent", parent)));
        let mut other = Message::new("orders".into(), 1, record(Headers::new()));
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(log, || {
            let tracing = Tracing::new(&Config::default());
            tracing.span(&mut traced, "billing").in_scope(|| tracing::info!("one"));
            tracing.span(&mut other, "billing").in_scope(|| tracing::info!("two"));
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
    async fn panics_are_errors_before_and_after_the_first_await() {
        let before = Attempt::<()>::start(Span::none(), |_| None, || panic!("at {}", "once"));
        assert_eq!(before.await.unwrap_err().to_string(), "the handler panicked: at once");
        let after = Attempt::start(
            Span::none(),
            |_| None,
            || {
                async {
                    tokio::task::yield_now().await;
                    panic!("later");
                }
                .map(|(): ()| ())
                .boxed()
            },
        );
        assert_eq!(after.await.unwrap_err().to_string(), "the handler panicked: later");
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_time_out() {
        let limit = Duration::from_secs(5);
        let attempt = Attempt::<()>::start(Span::none(), |_| None, || std::future::pending().boxed());
        let error = attempt.within(Some((Instant::now() + limit, limit))).await.unwrap_err();
        assert_eq!(error.to_string(), "timed out after 5s");
        let quick = Attempt::start(Span::none(), |_| None, || std::future::ready(7).boxed());
        assert_eq!(quick.within(Some((Instant::now() + limit, limit))).await.unwrap(), 7);
    }
}
