//! The log: lines on stderr, and spans to a collector.

use std::io::IsTerminal;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::exit::Usage;

/// Filter of commands by default: warnings, and topics that were created, whose names may be mistyped.
pub const DEFAULT: &str = "warn,ailurus::created=info";

/// Sends what is left at the end of the application.
pub type Finish = Option<Box<dyn FnOnce()>>;

/// Logs to stderr what the filter passes; stdout is for results.
///
/// # Errors
/// [`Usage`] if the filter, or the address of the collector, can't be used.
pub fn start(filter: Option<&str>, default: &str) -> anyhow::Result<Finish> {
    let filter = filter.filter(|filter| !filter.is_empty()).unwrap_or(default);
    let filter: Targets = filter.parse().map_err(|e| {
        Usage(format!("--log (RUST_LOG) is {filter:?}: {e}; write a level such as info, or ailurus=debug,warn"))
    })?;
    let log = tracing_subscriber::fmt::layer()
        .with_writer(|| crate::text::Log)
        .with_ansi(std::io::stderr().is_terminal())
        .with_filter(filter);
    let registry = tracing_subscriber::registry().with(log);
    #[cfg(feature = "otlp")]
    if let Some(exporter) = crate::otlp::Exporter::from_env()? {
        registry.with(exporter.layer()).init();
        return Ok(Some(Box::new(move || exporter.finish())));
    }
    registry.init();
    Ok(None)
}
