//! Settings of the library: the environment and `.env`, then the command line.

use ailurus::ConfigBuilder;

use crate::oauth;
use crate::options::Global;

/// Returns the library's settings, with `--brokers` before `REDPANDA_BROKERS`.
///
/// # Errors
/// Those of [`ConfigBuilder::from_env`].
pub fn service(global: &Global) -> ailurus::Result<ConfigBuilder> {
    let builder = ConfigBuilder::from_env()?.token_endpoint(oauth::source);
    #[cfg(feature = "otlp")]
    let builder = crate::otlp::traced(builder);
    Ok(match &global.brokers {
        Some(brokers) => builder.brokers(brokers),
        None => builder,
    })
}
