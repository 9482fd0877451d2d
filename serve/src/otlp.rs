//! Spans to an OpenTelemetry collector, by OTLP over HTTP.
//!
//! Settings are the standard variables: `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) turns it on,
//! `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER` and others are read by OpenTelemetry's SDK.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ailurus::ConfigBuilder;
use ailurus::trace::{Propagator, TraceContext};
use anyhow::Context as _;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TracerProvider};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Runtime;
use tracing::Subscriber;
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::exit::Usage;

/// Timeout of a request to the collector.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Variables that turn the exporter on.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Returns the variable that turns the exporter on, and its value.
fn endpoint() -> Option<(&'static str, String)> {
    let set = |name| std::env::var(name).ok().filter(|url| !url.is_empty()).map(|url| (name, url));
    ENDPOINTS.into_iter().find_map(set)
}

/// Propagates traces in records that are sent and handled, if a collector is named.
pub fn traced(builder: ConfigBuilder) -> ConfigBuilder {
    match endpoint() {
        Some(_) => builder.propagator(Arc::new(Spans)),
        None => builder,
    }
}

/// Sends spans in batches, and the rest at the end.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Returns an exporter if the environment names a collector.
    ///
    /// # Errors
    /// [`Usage`] if the collector is not at an `http://` address.
    pub fn from_env() -> anyhow::Result<Option<Self>> {
        let Some((name, url)) = endpoint() else { return Ok(None) };
        if !url.starts_with("http://") {
            let what =
                format!("{name} is {url:?}: allowed is http://host:port; send over TLS by a collector on this machine");
            return Err(Usage(what).into());
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_http_client(Client::new()?)
            .build()
            .with_context(|| format!("spans can't be sent to {url} ({name})"))?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("ailurus");
        }
        Ok(Some(Self(
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build(),
        )))
    }

    /// Returns a layer that records the spans of the application and of the library, whatever the log filter is.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let layer: OpenTelemetryLayer<S, SdkTracer> =
            tracing_opentelemetry::layer().with_tracer(self.0.tracer("ailurus"));
        layer.with_filter(filter_fn(|m| m.is_span() && m.target().starts_with("ailurus")))
    }

    /// Sends the spans that are left.
    pub fn finish(self) {
        if let Err(e) = self.0.shutdown() {
            crate::text::note(format_args!("not all spans were sent: {e}"));
        }
    }
}

/// Connects the library's spans with OpenTelemetry's traces.
#[derive(Debug)]
pub struct Spans;

impl Propagator for Spans {
    fn context_of(&self, span: &tracing::Span) -> Option<TraceContext> {
        let context = span.context();
        let at = context.span().span_context().clone();
        let parent = format!("00-{}-{}-{:02x}", at.trace_id(), at.span_id(), at.trace_flags().to_u8());
        TraceContext::parse(&parent, Some(&at.trace_state().header()))
    }

    fn set_parent(&self, span: &tracing::Span, parent: &TraceContext) {
        _ = span.set_parent(Context::new().with_remote_span_context(remote(parent))); // or it has begun, or is not sampled
    }

    fn link(&self, span: &tracing::Span, to: &TraceContext) {
        span.add_link(remote(to));
    }
}

fn remote(at: &TraceContext) -> SpanContext {
    let trace = TraceId::from_hex(&at.trace_id()).unwrap_or(TraceId::INVALID);
    let span = SpanId::from_hex(&at.span_id()).unwrap_or(SpanId::INVALID);
    let flags = if at.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let state = at.state().and_then(|state| state.parse().ok()).unwrap_or_default();
    SpanContext::new(trace, span, flags, true, state)
}

/// A client with a runtime of its own: the SDK exports on a thread without one.
struct Client {
    runtime: Runtime,
    http: HyperClient,
}

impl Client {
    fn new() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("the runtime for sending spans could not be started")?;
        Ok(Self { runtime, http: HyperClient::with_default_connector(TIMEOUT, None) })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move { self.runtime.block_on(self.http.send_bytes(request)) })
    }
}
