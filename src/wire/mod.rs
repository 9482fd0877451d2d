//! Connections to brokers: rskafka's `Messenger` over a stream of this module, with
//! kafka-protocol's messages.
//!
//! Nothing outside this module uses rskafka, whose interface is unstable.

mod api;
mod connect;
mod connection;
mod frame_reader;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod messenger;
mod probe;
mod produce;
mod sasl;
mod stream;
#[cfg(any(feature = "tls", feature = "tls-ring"))]
mod tls;
pub(crate) mod validate;

pub(crate) use api::{Api, SUPPORTED_APIS, TransactionV2, api_versions_request};
pub(crate) use connect::Connector;
pub(crate) use connection::Connection;
pub(crate) use produce::{Produce, TopicBatches};

#[cfg(test)]
mod tests;
