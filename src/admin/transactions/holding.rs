//! Transactions that hold last stable offsets back.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::OpenTransaction;
use crate::admin::Admin;
use crate::error::Result;
use crate::record::TopicPartition;
use crate::timestamp::{Timestamp, millis};

/// The transaction that holds the last stable offset of a partition back: the open one that begins
/// first.
///
/// ```
/// # fn show(held: &ailurus::admin::HoldingTransaction) {
/// println!("readers of committed records stop at {} for {held}", held.transaction.start_offset);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct HoldingTransaction {
    /// The transaction.
    #[serde(flatten)]
    pub transaction: OpenTransaction,
    /// Transactional id that has the producer id, if a coordinator responded with one.
    pub transactional_id: Option<String>,
    /// Start of the transaction, if its coordinator has it: `startTimeMs` in JSON.
    #[serde(rename = "startTimeMs", with = "millis")]
    pub start_time: Option<Timestamp>,
}

impl HoldingTransaction {
    /// Returns how long the transaction is open, by the clock of this machine; where its coordinator
    /// does not have it, the time since the producer's last record, which is less.
    pub fn age(&self) -> Duration {
        self.start_time.map_or_else(|| self.transaction.idle_for(), Timestamp::elapsed)
    }
}

impl fmt::Display for HoldingTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the transaction of producer id {}", self.transaction.producer_id)?;
        if let Some(id) = &self.transactional_id {
            write!(f, " (transactional id {id:?})")?;
        }
        let seconds = self.age().as_secs();
        match self.start_time {
            Some(_) => write!(f, ", open for {seconds} s"),
            None => write!(f, ", which no coordinator has and which wrote its last record {seconds} s ago"),
        }
    }
}

impl Admin {
    /// Returns the transaction that holds the last stable offset of each partition back, none if no
    /// transaction is open, or the partition's error. A coordinator that does not respond costs the
    /// transactional id and the start time.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`](crate::ErrorKind::Connect) if no broker can be reached.
    pub async fn find_holding_transactions(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Result<Option<HoldingTransaction>>>> {
        let open = self.open_transactions_of(partitions).await?;
        let first = |open: Vec<OpenTransaction>| open.into_iter().next();
        let first: BTreeMap<_, _> = open.into_iter().map(|(p, open)| (p, open.map(first))).collect();
        let transactions: Vec<_> = first.values().flatten().flatten().cloned().collect();
        let coordinators = self.coordinators_of(&transactions).await.unwrap_or_default();
        let holding = |transaction: OpenTransaction| {
            let (transactional_id, start_time) = coordinators.owner(&transaction);
            HoldingTransaction { transaction, transactional_id, start_time }
        };
        Ok(first.into_iter().map(|(p, first)| (p, first.map(|t| t.map(holding)))).collect())
    }
}
