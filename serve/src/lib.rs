//! The surroundings of an application on [ailurus](https://docs.rs/ailurus), for the command `ailurus` and the example shop.
//!
//! - [`http`]: health, the page and metrics over HTTP; [`page`] and [`metrics`] are what it sends;
//! - [`signals`]: SIGINT and SIGTERM, which drain the application;
//! - [`options`], [`settings`], [`log`]: the command line, the settings and the log;
//! - [`exit`]: exit codes, and how an error is printed;
//! - [`oauth`]: tokens from a token endpoint; `otlp`, with the feature of that name: spans to a collector.

pub mod exit;
pub mod http;
pub mod log;
pub mod metrics;
pub mod oauth;
pub mod options;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod page;
pub mod settings;
pub mod signals;
pub mod text;
