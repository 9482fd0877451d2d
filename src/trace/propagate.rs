//! The link between spans of the crate `tracing` and the traces of a tracing system.

use std::fmt;
use std::sync::Arc;

use tracing::Span;

use super::TraceContext;

/// Maps a [`tracing::Span`] to its context in a tracing system such as OpenTelemetry, and sets its
/// parent there. Set by [`ConfigBuilder::propagator`](crate::ConfigBuilder::propagator).
///
/// With one, each record that is sent has a span (`send`), whose context is in the record's header
/// `traceparent`. The span in which a record is handled (`process`) is a child of that one, and the
/// parent of what its handler sends. Without one there is no span for sending, and headers have the
/// trace that [`SendOptions::trace`](crate::SendOptions::trace) or the application sets. The spans
/// have a target that begins with `ailurus`, the level info, and the fields of OpenTelemetry's
/// conventions for messaging.
///
/// For applications whose subscriber has the layer of the crate `tracing-opentelemetry`, this is
/// all it takes:
///
/// ```text
/// use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
/// use tracing_opentelemetry::OpenTelemetrySpanExt;
///
/// #[derive(Debug)]
/// struct OpenTelemetry;
///
/// impl Propagator for OpenTelemetry {
///     fn context_of(&self, span: &tracing::Span) -> Option<TraceContext> {
///         let context = span.context();
///         let at = context.span().span_context().clone();
///         let parent = format!("00-{}-{}-{:02x}", at.trace_id(), at.span_id(), at.trace_flags().to_u8());
///         TraceContext::parse(&parent, Some(&at.trace_state().header()))
///     }
///
///     fn set_parent(&self, span: &tracing::Span, parent: &TraceContext) {
///         _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote(parent)));
///     }
///
///     fn link(&self, span: &tracing::Span, to: &TraceContext) {
///         span.add_link(remote(to));
///     }
/// }
///
/// fn remote(at: &TraceContext) -> SpanContext {
///     let trace = TraceId::from_hex(&at.trace_id()).unwrap_or(TraceId::INVALID);
///     let span = SpanId::from_hex(&at.span_id()).unwrap_or(SpanId::INVALID);
///     let flags = if at.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::default() };
///     let state = at.state().and_then(|state| state.parse().ok()).unwrap_or_default();
///     SpanContext::new(trace, span, flags, true, state)
/// }
/// ```
///
/// Its methods are called for each record: they must neither block nor panic.
pub trait Propagator: fmt::Debug + Send + Sync + 'static {
    /// Returns a span's context; `None` if it is part of no trace. It may start the span: its
    /// parent is set by then.
    fn context_of(&self, span: &Span) -> Option<TraceContext>;

    /// Makes a span, which was not entered yet, a child of another one, which may be of another
    /// process.
    fn set_parent(&self, span: &Span, parent: &TraceContext);

    /// Links a span to another one: for batches, whose records may be of many traces.
    fn link(&self, span: &Span, to: &TraceContext) {
        _ = (span, to);
    }
}

/// A [`Propagator`], or none.
///
/// ```
/// assert!(!ailurus::Config::default().propagation.is_on());
/// ```
#[derive(Clone, Default)]
pub struct Propagation(Option<Arc<dyn Propagator>>);

impl Propagation {
    /// Propagates by this propagator.
    pub fn by(propagator: Arc<dyn Propagator>) -> Self {
        Self(Some(propagator))
    }

    /// Returns whether there is a propagator.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Makes a span a child of `parent`, if there is one. Returns its context; `None` if the span
    /// is disabled.
    pub(crate) fn set_parent(&self, span: &Span, parent: Option<&TraceContext>) -> Option<TraceContext> {
        let propagator = self.0.as_ref().filter(|_| !span.is_disabled())?;
        if let Some(parent) = parent {
            propagator.set_parent(span, parent);
        }
        propagator.context_of(span)
    }

    /// Links a span to others.
    pub(crate) fn link(&self, span: &Span, to: impl Iterator<Item = TraceContext>) {
        if let Some(propagator) = self.0.as_ref().filter(|_| !span.is_disabled()) {
            to.for_each(|to| propagator.link(span, &to));
        }
    }
}

impl fmt::Debug for Propagation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Propagation(on)" } else { "Propagation(off)" })
    }
}

/// Compares the propagators by identity.
impl PartialEq for Propagation {
    fn eq(&self, other: &Self) -> bool {
        let address = |of: &Self| of.0.as_ref().map(|propagator| Arc::as_ptr(propagator).cast::<()>());
        address(self) == address(other)
    }
}

impl Eq for Propagation {}
