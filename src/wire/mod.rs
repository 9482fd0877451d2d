//! Bytes on a socket: rskafka's `Messenger` over our own stream, speaking kafka-protocol's messages.
//!
//! Everything that touches rskafka's unstable interface is in this module.

mod api;
mod connect;
mod connection;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod incoming;
mod probe;
mod produce;
mod sasl;
pub(crate) mod schema;
mod stream;
#[cfg(any(feature = "tls", feature = "tls-ring"))]
mod tls;

pub(crate) use api::{Api, SPOKEN, api_versions};
pub(crate) use connect::ConnectSettings;
pub(crate) use connection::Connection;
pub(crate) use produce::{Produce, TopicBatches};

#[cfg(test)]
mod tests;
