//! A registry that counts in memory what a client of [ailurus](https://docs.rs/ailurus) reports, and returns snapshots of it.
//!
//! ```no_run
//! # async fn example() -> ailurus::Result<()> {
//! use std::sync::Arc;
//! use ailurus::{Client, Config};
//! use ailurus_metrics::Registry;
//!
//! let registry = Arc::new(Registry::new());
//! let client = Client::connect(Config::builder().metrics(registry.clone()).build()?).await?;
//! // Produce, consume; then, or now and then:
//! let snapshot = registry.snapshot();
//! println!("{} records sent", snapshot.total("messaging_client_sent_messages_total"));
//! for lag in snapshot.samples("ailurus_consumer_lag_records") {
//!     println!("{:?}: {}", lag.labels, lag.value.number());
//! }
//! # Ok(())
//! # }
//! ```

mod families;
mod registry;
mod snapshot;

pub use registry::Registry;
pub use snapshot::{Family, Kind, MetricsSnapshot, Sample, Unit, Value};

#[cfg(test)]
mod tests;
