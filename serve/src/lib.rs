#![doc = include_str!("../README.md")]
//!
//! # Around a command
//!
//! With the feature `command`, what the command `ailurus` and the example shop share: `signals` that drain the application;
//! `options`, `settings` and `log` of the command line; `exit` codes, and how an error is printed; `oauth`, tokens from a
//! token endpoint. With `otlp`: spans to a collector.

pub mod actions;
pub mod client;
pub mod control;
pub mod dead_letters;
#[cfg(feature = "command")]
pub mod exit;
pub mod http;
pub mod lag;
#[cfg(feature = "command")]
pub mod log;
pub mod log_end;
pub mod metrics;
#[cfg(feature = "command")]
pub mod oauth;
#[cfg(feature = "command")]
pub mod options;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod page;
#[cfg(feature = "command")]
pub mod settings;
#[cfg(feature = "command")]
pub mod signals;
pub mod text;

pub use client::ClientApp;
pub use http::{router, router_with_actions};
