//! Hanging transactions: open in a partition, and no coordinator will end them (KIP-664).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::producers::open_transactions;
use super::{OpenTransaction, TransactionDescription, TransactionFilter, TransactionListing};
use crate::admin::Admin;
use crate::code;
use crate::error::Result;
use crate::record::TopicPartition;
use crate::timestamp::Timestamp;

/// A transaction that is open in a partition, and that no coordinator will end: readers of
/// committed records stop before it.
///
/// ```
/// # async fn example(admin: &ailurus::Admin, hanging: &ailurus::admin::HangingTransaction) -> ailurus::Result<()> {
/// println!("{hanging}");
/// admin.abort_transaction(&hanging.transaction).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct HangingTransaction {
    /// The transaction.
    #[serde(flatten)]
    pub transaction: OpenTransaction,
    /// Transactional id that has the producer id now, if a coordinator knows one.
    pub transactional_id: Option<String>,
}

impl fmt::Display for HangingTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = &self.transaction;
        write!(f, "{}/{} from offset {} on: producer id {}", t.topic, t.partition, t.start_offset, t.producer_id)?;
        match &self.transactional_id {
            None => write!(f, ", which no coordinator knows"),
            Some(id) => write!(f, " of transactional id {id:?}, whose transaction does not have this partition"),
        }
    }
}

/// Knowledge of the coordinators about producer ids.
#[derive(Debug, Default)]
pub(super) struct Coordinators {
    pub(super) by_producer_id: BTreeMap<i64, TransactionListing>,
    /// Ids that expired between the two requests are missing.
    pub(super) by_transactional_id: BTreeMap<String, TransactionDescription>,
}

impl Coordinators {
    /// Returns a transaction as a hanging one, unless its coordinator has it.
    pub(super) fn hanging(&self, open: OpenTransaction) -> Option<HangingTransaction> {
        let listed = self.by_producer_id.get(&open.producer_id);
        let described = listed.and_then(|t| self.by_transactional_id.get(&t.transactional_id));
        if described.is_some_and(|t| t.has(&open.topic, open.partition)) {
            return None;
        }
        let transactional_id = described.map(|t| t.transactional_id.clone());
        Some(HangingTransaction { transaction: open, transactional_id })
    }

    /// Returns the transactional id that has the transaction's producer id, and the start of its
    /// transaction if the partition is part of it.
    pub(super) fn owner(&self, open: &OpenTransaction) -> (Option<String>, Option<Timestamp>) {
        let Some(listed) = self.by_producer_id.get(&open.producer_id) else { return (None, None) };
        let described = self.by_transactional_id.get(&listed.transactional_id);
        let start = described.filter(|t| t.has(&open.topic, open.partition)).and_then(|t| t.start_time);
        (Some(listed.transactional_id.clone()), start)
    }
}

/// Returns the suspects that are among the open transactions of a partition.
pub(super) fn still_open(suspects: &[HangingTransaction], open: &[OpenTransaction]) -> Vec<HangingTransaction> {
    let is_same = |a: &OpenTransaction, b: &OpenTransaction| {
        a.place() == b.place() && (a.producer_id, a.start_offset) == (b.producer_id, b.start_offset)
    };
    suspects.iter().filter(|t| open.iter().any(|o| is_same(o, &t.transaction))).cloned().collect()
}

impl Admin {
    /// Returns the hanging transactions of each partition, or the partition's error.
    ///
    /// A transaction is hanging if its producer has written nothing for longer than `idle`, and the
    /// coordinator of the producer's transactional id does not have the partition in its
    /// transaction. `idle` is at least the brokers' `transaction.max.timeout.ms` (15 minutes by
    /// default): a coordinator ends what is open for longer.
    ///
    /// The leaders are queried again after the coordinators, so that a transaction that was ended
    /// meanwhile is not reported.
    ///
    /// # Errors
    /// If a broker can't list its transactions, where one could be hanging: whether its coordinator
    /// has it is not known then.
    pub async fn find_hanging_transactions(
        &self,
        partitions: &[TopicPartition],
        idle: Duration,
    ) -> Result<BTreeMap<TopicPartition, Result<Vec<HangingTransaction>>>> {
        let mut hanging = BTreeMap::new();
        let mut candidates = Vec::new();
        for (place, outcome) in self.open_transactions_of(partitions).await? {
            let outcome = outcome.map(|open| {
                candidates.extend(open.into_iter().filter(|t| t.idle_for() > idle));
                Vec::new()
            });
            hanging.insert(place, outcome);
        }
        let coordinators = self.coordinators_of(&candidates).await?;
        let suspects: Vec<_> = candidates.into_iter().filter_map(|t| coordinators.hanging(t)).collect();
        // Without this second look:
        // 1. The leader reports a transaction, open for 16 minutes.
        // 2. Its coordinator ends it: writes the marker, and clears its partitions.
        // 3. The coordinator reports a transaction without the partition, and the ended one counts as hanging.
        // An open transaction that still begins at the same offset was not ended in step 2.
        let places: BTreeSet<_> = suspects.iter().map(|t| t.transaction.place()).collect();
        let places: Vec<_> = places.into_iter().collect();
        for (place, outcome) in self.open_transactions_of(&places).await? {
            hanging.insert(place, outcome.map(|open| still_open(&suspects, &open)));
        }
        Ok(hanging)
    }

    /// Returns the open transactions of each partition, the one that holds the last stable offset
    /// first, or the partition's error.
    pub(crate) async fn open_transactions_of(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Result<Vec<OpenTransaction>>>> {
        let producers = self.describe_producers(partitions).await?;
        let open = |(p, outcome): (TopicPartition, Result<Vec<_>>)| {
            let open = outcome.map(|producers| open_transactions(&p, &producers));
            (p, open)
        };
        Ok(producers.into_iter().map(open).collect())
    }

    /// Queries the coordinators about the producers of transactions.
    pub(super) async fn coordinators_of(&self, transactions: &[OpenTransaction]) -> Result<Coordinators> {
        let ids: BTreeSet<_> = transactions.iter().map(|t| t.producer_id).collect();
        if ids.is_empty() {
            return Ok(Coordinators::default());
        }
        let filter = ids.into_iter().fold(TransactionFilter::default(), TransactionFilter::producer_id);
        let listed = self.list_transactions(&filter).await?;
        let mut by_transactional_id = BTreeMap::new();
        for (id, outcome) in self.describe_listed(&listed).await {
            match outcome {
                Ok(described) => drop(by_transactional_id.insert(id, described)),
                Err(e) if e.broker_code() == Some(code::TRANSACTIONAL_ID_NOT_FOUND) => {}
                Err(e) => return Err(e),
            }
        }
        let by_producer_id = listed.into_iter().map(|t| (t.producer_id, t)).collect();
        Ok(Coordinators { by_producer_id, by_transactional_id })
    }
}
