//! An in-memory Kafka broker, for tests, demos and local development: over real TCP, or over
//! [connections in memory](BrokerConfig::in_memory), where tokio's paused clock governs everything.
//!
//! Any Kafka client can use it: topics, idempotent produce, long-polling fetch, consumer groups of
//! the classic and the `consumer` protocol (KIP-848), and administration. All state is in memory
//! and lost at shutdown. It can require [authentication](BrokerConfig::sasl), but no authorization:
//! access control lists are stored, not enforced. Transactions of both versions of the protocol are
//! supported (KIP-98, KIP-447, KIP-890). It has no replication; several nodes, each with its own
//! port and a share of the partitions, work on the same state. It trusts its clients: use it on
//! loopback.
//!
//! Tests can also inspect logs, groups and transactions without the wire, inject faults by a
//! [hook](Broker::set_hook), move leaders and coordinators, stop and start nodes, and offer the
//! [versions](Versions) of older brokers.
//!
//! ```
//! use ailurus_broker::{Broker, BrokerConfig, BrokerError};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BrokerError> {
//! let broker = Broker::start(BrokerConfig::default().nodes(3)).await?;
//! broker.create_topic("orders", 6)?;
//! println!("point a client at {}", broker.bootstrap());
//! broker.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod acls;
mod api;
mod batch;
mod broker;
mod cluster;
mod config;
mod connection;
mod consumer_group;
mod coordinator;
mod error;
mod fault;
mod features;
mod fetch_session;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod held;
mod in_memory;
mod inspect;
mod isolation;
mod listener;
mod log;
mod markers;
mod node;
mod node_config;
mod pattern;
#[cfg(feature = "registry")]
pub mod registry;
mod request;
mod sasl;
mod schema;
mod shared;
mod timers;
mod topic_config;
mod transaction;
mod versions;

pub use broker::Broker;
pub use config::BrokerConfig;
pub use error::BrokerError;
pub use fault::{Fault, RequestInfo};
pub use in_memory::InMemoryNetwork;
pub use inspect::{
    GroupMember, LogRecord, PendingOffset, ProducerInfo, TransactionInfo, TransactionOutcome, TransactionalRecord,
};
pub use sasl::{Sasl, SaslMechanism};
pub use versions::Versions;

/// TLS configuration of a broker; see [`BrokerConfig::tls`].
#[cfg(feature = "tls")]
pub type TlsServer = std::sync::Arc<tokio_rustls::rustls::ServerConfig>;
