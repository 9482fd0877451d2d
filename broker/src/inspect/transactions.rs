//! Inspection of transactions.

use std::collections::HashMap;

use super::{LogRecord, records};
use crate::batch;
use crate::broker::Broker;
use crate::error::BrokerError;
use crate::log::Log;
use crate::transaction::{Participant, TransactionMetadata};

/// State of a transactional id; see [`Broker::transactions`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionInfo {
    /// Transactional id.
    pub transactional_id: String,
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch; -1 if no producer has received one.
    pub producer_epoch: i16,
    /// State, as in ListTransactions: `Empty`, `Ongoing`, `PrepareCommit`, `PrepareAbort`,
    /// `CompleteCommit` or `CompleteAbort`.
    pub state: &'static str,
    /// Partitions of the open transaction, whose markers are not written.
    pub partitions: Vec<(String, i32)>,
    /// Groups of the open transaction, whose markers are not written.
    pub groups: Vec<String>,
}

/// State of a producer in a partition; see [`Broker::producers`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerInfo {
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch; of a marker if that is newer than the last batch.
    pub producer_epoch: i16,
    /// Last sequence; -1 if the epoch has no batch.
    pub last_sequence: i32,
    /// Start offset of its open transaction.
    pub transaction_start: Option<i64>,
}

/// Outcome of a transaction in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionOutcome {
    /// There is no marker yet.
    Open,
    /// Its marker is a commit.
    Committed,
    /// Its marker is an abort.
    Aborted,
}

/// A record of a transaction; see [`Broker::transactional_records`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionalRecord {
    /// The record.
    pub record: LogRecord,
    /// Epoch of its producer.
    pub producer_epoch: i16,
    /// Offset of the first record of the transaction in the partition.
    pub transaction_start: i64,
    /// Outcome of the transaction in the partition.
    pub outcome: TransactionOutcome,
}

/// Offset of a group that an open transaction commits; see [`Broker::pending_offsets`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingOffset {
    /// Producer id.
    pub producer_id: i64,
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

impl Broker {
    /// Returns the transactional ids, in order, with their states.
    pub fn transactions(&self) -> Vec<TransactionInfo> {
        self.shared.transactions().iter().map(|(id, t)| info(id, t)).collect()
    }

    /// Returns the producers of a partition, by id. [`append_transactional_batch`] adds none.
    ///
    /// [`append_transactional_batch`]: Self::append_transactional_batch
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownPartition`].
    pub fn producers(&self, topic: &str, partition: i32) -> Result<Vec<ProducerInfo>, BrokerError> {
        let one = |log: &Log, id, state: &crate::log::ProducerState| ProducerInfo {
            producer_id: id,
            producer_epoch: state.epoch,
            last_sequence: state.last_sequence(),
            transaction_start: log.open_transaction(id),
        };
        self.with_log(topic, partition, |log| log.producers().map(|(id, state)| one(log, id, state)).collect())
    }

    /// Returns the last stable offset of a partition: the start of its first open transaction, or
    /// the log end offset.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownPartition`].
    pub fn last_stable_offset(&self, topic: &str, partition: i32) -> Result<i64, BrokerError> {
        self.with_log(topic, partition, |log| log.last_stable_offset())
    }

    /// Returns the records of a partition that are part of a transaction, in order, with the
    /// outcomes of their transactions.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownPartition`]; [`BrokerError::InvalidBatch`] if a batch is compressed
    /// with a codec other than gzip.
    pub fn transactional_records(&self, topic: &str, partition: i32) -> Result<Vec<TransactionalRecord>, BrokerError> {
        self.with_log(topic, partition, |log| transactional_records(log))?
    }

    /// Returns the offsets of a group that open transactions commit, by producer id.
    pub fn pending_offsets(&self, group: &str) -> Vec<PendingOffset> {
        let groups = self.shared.groups();
        let pending = groups.get(group).into_iter().flat_map(|g| g.pending_offsets());
        let one = |(producer_id, topic, partition, offset): (i64, &str, i32, i64)| PendingOffset {
            producer_id,
            topic: topic.to_owned(),
            partition,
            offset,
        };
        pending.map(one).collect()
    }

    /// Returns the number of markers that a hook holds or delays, or whose partitions have no
    /// leader.
    pub fn waiting_markers(&self) -> usize {
        self.shared.transactions().waiting_markers()
    }
}

fn info(id: &str, transaction: &TransactionMetadata) -> TransactionInfo {
    let (mut partitions, mut groups) = (Vec::new(), Vec::new());
    for participant in transaction.participants() {
        match participant {
            Participant::Partition(topic, partition) => partitions.push((topic.clone(), *partition)),
            Participant::Group(group) => groups.push(group.clone()),
        }
    }
    TransactionInfo {
        transactional_id: id.to_owned(),
        producer_id: transaction.producer().id,
        producer_epoch: transaction.producer().epoch,
        state: transaction.state().name(),
        partitions,
        groups,
    }
}

fn transactional_records(log: &Log) -> Result<Vec<TransactionalRecord>, BrokerError> {
    let mut out: Vec<TransactionalRecord> = Vec::new();
    // By producer: start of its open transaction, and the indexes of its records in `out`.
    let mut open: HashMap<i64, (i64, Vec<usize>)> = HashMap::new();
    for found in log.batches() {
        let header = &found.header;
        if let Some(is_commit) = batch::transaction_marker(header, &found.data) {
            let outcome = if is_commit { TransactionOutcome::Committed } else { TransactionOutcome::Aborted };
            for index in open.remove(&header.producer_id).into_iter().flat_map(|(_, indexes)| indexes) {
                out[index].outcome = outcome;
            }
        } else if header.is_transactional() {
            let mut of_batch = Vec::new();
            records(found, log.start(), &mut of_batch)?;
            let (start, indexes) = open.entry(header.producer_id).or_insert((header.base_offset, Vec::new()));
            indexes.extend(out.len()..out.len() + of_batch.len());
            out.extend(of_batch.into_iter().map(|record| TransactionalRecord {
                record,
                producer_epoch: header.producer_epoch,
                transaction_start: *start,
                outcome: TransactionOutcome::Open,
            }));
        }
    }
    Ok(out)
}
