//! Health of transactional producers.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::timestamp::millis;

/// Health of a [`TransactionalProducer`](crate::TransactionalProducer), part of
/// [`Health`](crate::Health).
///
/// ```
/// # fn show(producer: &ailurus::producer::TransactionalProducerHealth) {
/// if let Some(open_for) = producer.open_for {
///     println!("{} is {} for {open_for:?}", producer.transactional_id, producer.state);
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TransactionalProducerHealth {
    /// Transactional id, with its random part if it is exclusive.
    pub transactional_id: String,
    /// Group of the pipeline that it writes the outputs of; `None` for an application's own.
    pub group: Option<String>,
    /// State.
    pub state: TransactionalProducerState,
    /// Time since the transaction that is open, or that is not known to have ended, began: `openMs`
    /// in JSON.
    #[serde(rename = "openMs", default, with = "millis")]
    pub open_for: Option<Duration>,
    /// Time after which its coordinator aborts a transaction: `timeoutMs` in JSON.
    #[serde(rename = "timeoutMs", with = "millis")]
    pub timeout: Duration,
    /// Number of transactions that were committed. Empty ones, for which nothing is sent, don't count.
    pub committed: u64,
    /// Number of transactions that were aborted, by the application or because of an error.
    pub aborted: u64,
    /// Time from the last call of commit to its confirmation: `commitMs` in JSON, with three decimals.
    #[serde(rename = "commitMs", default, with = "millis::fractional")]
    pub commit_latency: Option<Duration>,
    /// The last error of a transaction.
    pub last_error: Option<TransactionErrorHealth>,
    /// The failure of a request to a coordinator that is being retried.
    pub problem: Option<String>,
}

/// The last error of a transactional producer, part of [`TransactionalProducerHealth`].
///
/// ```
/// # fn show(error: &ailurus::producer::TransactionErrorHealth) {
/// println!("{} ago, to {}: {}", error.age.as_secs(), error.action, error.error);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TransactionErrorHealth {
    /// Text of the error.
    pub error: String,
    /// [`TransactionAction`](crate::producer::TransactionAction) in lower case: `abort`, `unknown`,
    /// `fenced` or `stop`.
    pub action: String,
    /// Time since it occurred: `ageMs` in JSON.
    #[serde(rename = "ageMs", with = "millis")]
    pub age: Duration,
}

/// State of a transactional producer.
///
/// ```
/// use ailurus::producer::TransactionalProducerState;
///
/// assert_eq!(TransactionalProducerState::Committing.to_string(), "committing");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TransactionalProducerState {
    /// It gets a producer id, or the epoch of the next transaction.
    Starting,
    /// No transaction is open.
    Ready,
    /// A transaction is open.
    Open,
    /// A transaction is being committed.
    Committing,
    /// A transaction is being aborted.
    Aborting,
    /// A commit was not confirmed within the transaction timeout, and is sent again until it is.
    Unconfirmed,
    /// Another producer has the transactional id, or a transaction took longer than its timeout.
    Fenced,
    /// It can't go on before a setting, a permission or the application is changed.
    Stopped,
    /// Read from the JSON of a newer version, which has a state that this one does not know.
    #[serde(other)]
    Unknown,
}

impl TransactionalProducerState {
    /// Returns the state in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Open => "open",
            Self::Committing => "committing",
            Self::Aborting => "aborting",
            Self::Unconfirmed => "unconfirmed",
            Self::Fenced => "fenced",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for TransactionalProducerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
