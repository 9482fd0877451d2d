//! What an operator asks: are the brokers there, are the groups alive, how far behind are they.

use serde::Serialize;

pub use crate::processor::{PartitionHealth, SubscriptionHealth};

/// The state of a cluster as this client sees it, and of this client's subscriptions.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Health {
    /// `healthy` if all brokers answer and no subscription is stuck.
    pub status: Status,
    /// The cluster's id, if it has one.
    pub cluster_id: Option<String>,
    /// The controller's broker id.
    pub controller_id: Option<i32>,
    /// Each broker known or configured.
    pub brokers: Vec<BrokerHealth>,
    /// Each subscription of this service.
    pub subscriptions: Vec<SubscriptionHealth>,
    /// Why the status is not `healthy`.
    pub problems: Vec<String>,
}

/// In one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All is well.
    Healthy,
    /// Work goes on, something needs a look.
    Degraded,
    /// The cluster can't be reached.
    Unhealthy,
}

/// One broker.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BrokerHealth {
    /// Its id, if it is known from metadata.
    pub id: Option<i32>,
    /// host:port.
    pub address: String,
    /// Milliseconds for one request and answer.
    pub latency_ms: Option<f64>,
    /// Why it can't be used.
    pub error: Option<String>,
}
