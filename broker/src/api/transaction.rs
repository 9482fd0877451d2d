//! Checks, versions and errors of the APIs of transactions.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ProducerId, TransactionalId};

use crate::markers;
use crate::request::Context;
use crate::shared::Shared;
use crate::transaction::{ProducerIdAndEpoch, TransactionRules, TransactionVersion};

/// Maximum time that the broker waits for the markers of a producer's last transaction, as Kafka's
/// `add.partitions.to.txn.retry.backoff.max.ms`.
const MAX_COMPLETION_WAIT: Duration = Duration::from_millis(100);
/// Interval of its checks, as Kafka's `add.partitions.to.txn.retry.backoff.ms`.
const COMPLETION_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Fails unless this node coordinates the transactional id.
pub(super) fn check_coordinator(shared: &Shared, cx: &Context, id: &str) -> Result<(), ResponseError> {
    cx.check_fault()?;
    if id.is_empty() {
        return Err(ResponseError::InvalidRequest);
    }
    let node = shared.cluster().transaction_coordinator(id);
    if node == cx.node { Ok(()) } else { Err(ResponseError::NotCoordinator) }
}

/// Completes the last transaction of an id before its next request, if the rules are Redpanda's.
pub(super) fn complete_last(shared: &Shared, id: &str) {
    shared.transactions().complete_last(id, shared.now());
    markers::write_markers(shared);
}

/// Waits a moment while the markers of the id's last transaction are missing: with version 2 the
/// broker retries in place of the client.
pub(super) async fn wait_for_completion(shared: &Shared, id: &TransactionalId) {
    let until = shared.now() + MAX_COMPLETION_WAIT;
    while is_completing(shared, id) && shared.now() < until {
        tokio::time::sleep(COMPLETION_CHECK_INTERVAL).await;
    }
}

fn is_completing(shared: &Shared, id: &str) -> bool {
    shared.transactions().get(id).is_some_and(|t| t.state().is_prepared())
}

pub(super) fn producer(id: ProducerId, epoch: i16) -> ProducerIdAndEpoch {
    ProducerIdAndEpoch { id: id.0, epoch }
}

/// Returns the version of a request that has version 2 of the protocol from `first` on.
pub(super) fn transaction_version(cx: &Context, first: i16) -> TransactionVersion {
    if cx.version >= first { TransactionVersion::V2 } else { TransactionVersion::V1 }
}

/// Returns the error for a request version older than PRODUCER_FENCED.
pub(super) fn without_fenced(error: ResponseError) -> ResponseError {
    match error {
        ResponseError::ProducerFenced => ResponseError::InvalidProducerEpoch,
        error => error,
    }
}

/// Returns the error of a write that failed its verification with the coordinator.
pub(super) fn unverified(rules: TransactionRules, error: ResponseError, has_abortable: bool) -> ResponseError {
    match (rules, error) {
        (_, ResponseError::ProducerFenced) | (TransactionRules::Redpanda, ResponseError::TransactionAbortable) => {
            ResponseError::InvalidProducerEpoch
        }
        (_, ResponseError::TransactionAbortable) if !has_abortable => ResponseError::InvalidTxnState,
        (_, error) => error,
    }
}
