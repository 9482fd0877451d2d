//! Errors of the broker's own methods, and of responses.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use kafka_protocol::ResponseError;

/// Error of a [`Broker`](crate::Broker) method.
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
    /// Failed to listen on an address.
    Listen {
        /// The node.
        node: i32,
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// No node has this id.
    UnknownNode(i32),
    /// The topic or partition does not exist.
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// A topic could not be created or changed.
    Topic {
        /// The topic.
        topic: String,
        /// Kafka error code, such as 36, TOPIC_ALREADY_EXISTS.
        code: i16,
        /// The broker's message.
        message: String,
    },
    /// Not a record batch of format v2, or its records cannot be decoded.
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
                write!(f, "topic {topic} has no partition {partition}")
            }
            Self::Topic { topic, code, message } => write!(f, "topic {topic}: {message} (error code {code})"),
            Self::InvalidBatch(message) => write!(f, "invalid record batch: {message}"),
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

/// Error code and message of a response.
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
