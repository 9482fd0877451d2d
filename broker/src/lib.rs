//! An in-memory Kafka broker over real TCP, for tests, demos and local development.
//!
//! It speaks the Kafka protocol to any client: topics, idempotent produce, long-polling fetch, consumer groups of the
//! classic and of the `consumer` protocol (KIP-848; a group's members all speak one), and the usual administration. It keeps
//! everything in memory and forgets it when it ends. It asks who one is [if told to](BrokerConfig::sasl), but whoever it lets in may
//! do all: access control lists are kept, and not acted upon. It knows no coordinator of transactions and no replication, though it
//! can pretend to have several nodes: each listens on its own port and leads its share of the partitions. It trusts its clients, as a
//! tool for loopback may: do not open it to machines that you do not trust.
//!
//! Its other half is for tests: look into logs and groups without the wire, spoil requests by a [hook](Broker::set_hook),
//! move leaders and coordinators, stop and start nodes, and offer the [version ranges](Versions) of older brokers.
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
mod fetch_session;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod inspect;
mod log;
mod node;
mod node_config;
mod request;
mod sasl;
mod schema;
mod shared;
mod topic_config;
mod versions;

pub use broker::Broker;
pub use config::BrokerConfig;
pub use error::BrokerError;
pub use fault::{Fault, RequestInfo};
pub use inspect::{GroupMember, LogRecord};
pub use sasl::{Sasl, SaslMechanism};
pub use versions::Versions;

/// What a broker's TLS is made of: see [`BrokerConfig::tls`].
#[cfg(feature = "tls")]
pub type TlsServer = std::sync::Arc<tokio_rustls::rustls::ServerConfig>;
