//! What can go wrong when a program, not a client on the wire, asks something of the broker.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use kafka_protocol::ResponseError;

/// Why the broker did not do what a program asked of it.
///
/// ```
/// use ailurus_broker::{Broker, BrokerConfig, BrokerError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BrokerError> {
/// let broker = Broker::start(BrokerConfig::default()).await?;
/// assert!(matches!(broker.log_records("orders", 0), Err(BrokerError::UnknownPartition { .. })));
/// # broker.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum BrokerError {
    /// An address could not be listened on.
    Listen {
        /// The node that should have listened.
        node: i32,
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// There is no node of that id.
    UnknownNode(i32),
    /// The topic does not exist, or has no such partition.
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// A topic could not be created or changed: the Kafka error code and what is wrong.
    Topic {
        /// The topic.
        topic: String,
        /// The error code of the Kafka protocol, such as 36 for a topic that exists.
        code: i16,
        /// What is wrong.
        message: String,
    },
    /// The bytes are not a record batch of format v2, or its records cannot be read.
    InvalidBatch(String),
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { node, address, source } => {
                write!(f, "node {node} cannot listen on {address}: {source}; is another broker running there?")
            }
            Self::UnknownNode(node) => write!(f, "the cluster has no node {node}"),
            Self::UnknownPartition { topic, partition } => {
                write!(f, "there is no partition {partition} of topic {topic}")
            }
            Self::Topic { topic, code, message } => write!(f, "topic {topic}: {message} (error code {code})"),
            Self::InvalidBatch(why) => write!(f, "not a readable record batch: {why}"),
        }
    }
}

impl Error for BrokerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Listen { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The error code and message of a response.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub error: ResponseError,
    pub message: String,
}

impl ApiError {
    pub fn new(error: ResponseError, message: impl Into<String>) -> Self {
        Self { error, message: message.into() }
    }

    pub fn code(&self) -> i16 {
        self.error.code()
    }
}

impl From<ResponseError> for ApiError {
    fn from(error: ResponseError) -> Self {
        Self { error, message: error.to_string() }
    }
}
