//! The client against a scripted HTTP server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bad_bytes;
mod calls;
mod codecs;
mod memory;
mod outages;
mod server;

use std::time::Duration;

use ailurus_schema::{SchemaRegistry, SchemaRegistryBuilder};

/// Waits long enough for a loaded machine, and backs off briefly.
fn quick<U: Into<String>>(urls: impl IntoIterator<Item = U>) -> SchemaRegistryBuilder {
    SchemaRegistry::builder(urls)
        .timeout(Duration::from_secs(300))
        .request_timeout(Duration::from_secs(300))
        .backoff(Duration::from_millis(1), Duration::from_millis(2))
}
