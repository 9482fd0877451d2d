//! Requests the producer id of an idempotent producer (KIP-98, KIP-360).

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use tokio::time::Instant;

use super::partition::ProducerIdAndEpoch;
use super::shared::ProducerShared;
use crate::code;
use crate::error::{Error, ErrorKind, Result};
use crate::failure::{Outage, is_fatal};

/// Time for which a transient error code is logged without a warning: a coordinator on a fresh
/// cluster returns one while it loads.
const WARNING_GRACE: Duration = Duration::from_secs(5);

/// Requests a producer id at first and whenever brokers have rejected the last one.
///
/// A transient failure (a broker that loads or can't be reached, a login that is rejected after one
/// succeeded, an invalid response) is retried for as long as it takes: the pending batches have a
/// delivery timeout, and then fail with this error. If a broker rejects the request, the pending
/// batches fail at once, and the next record starts another attempt.
pub(super) async fn run(shared: Arc<ProducerShared>) {
    let work = async {
        let mut backoff = shared.cluster().backoff();
        let mut outage = shared.cluster().outages().part();
        loop {
            if !shared.lock().needs_producer_id() {
                shared.producer_id.notified().await;
                continue;
            }
            match request_producer_id(&shared).await {
                Ok(producer_id) => {
                    let ProducerIdAndEpoch { id, epoch } = producer_id;
                    match outage.record_recovery(Instant::now()) {
                        Some(lasted) => {
                            tracing::warn!(id, epoch, "the producer has a producer id again, after {lasted}")
                        }
                        None => tracing::debug!(id, epoch, "the producer has a producer id"),
                    }
                    shared.lock().set_producer_id(producer_id);
                    backoff.reset();
                }
                Err((error, transient)) => {
                    report_failure(&mut outage, &error, transient);
                    shared.metrics.reporter.failed("producer", error.kind());
                    let finished = shared.lock().set_producer_id_error(error, !transient);
                    shared.resolve_batches(finished);
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    };
    shared.cancel.run_until_cancelled(work).await;
}

/// Warns of a failure: at once if somebody must act, else once it lasts.
fn report_failure(outage: &mut Outage, error: &Error, transient: bool) {
    let grace = if transient && matches!(error.kind(), ErrorKind::Broker(_)) { WARNING_GRACE } else { Duration::ZERO };
    let what_next = if transient { "it is retried" } else { "the next record starts another attempt" };
    match outage.record_failure_with_grace(Instant::now(), error, grace) {
        Some(lasted) => {
            tracing::warn!(error = %error.full(), "the producer has no producer id yet, {lasted}; {what_next}");
        }
        None => tracing::debug!(error = %error.full(), "the producer has no producer id yet"),
    }
}

/// Sends one request. An error has a flag: is it transient?
async fn request_producer_id(shared: &ProducerShared) -> Result<ProducerIdAndEpoch, (Error, bool)> {
    // Without a transactional id, id -1 and epoch -1 request a new producer id; they are not the
    // defaults.
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(i32::MAX)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let timeout = shared.client.config().request_timeout;
    let response = shared.cluster().request_any(request, timeout).await.map_err(|e| {
        let transient = !is_fatal(&e);
        (e.context("requesting a producer id"), transient)
    })?;
    match response.error_code {
        0 => Ok(ProducerIdAndEpoch { id: response.producer_id.0, epoch: response.producer_epoch }),
        code => {
            let what = "requesting a producer id, which an idempotent producer needs (one with ProducerConfig::idempotence off does not)";
            Err((Error::broker(code, what), !is_rejection(code)))
        }
    }
}

/// Returns whether brokers will not assign a producer id until somebody acts: the request is not
/// authorized, not supported or invalid. Any other code is transient, also an unknown one.
fn is_rejection(code: i16) -> bool {
    matches!(
        code,
        code::TOPIC_AUTHORIZATION_FAILED
            | code::CLUSTER_AUTHORIZATION_FAILED
            | code::UNSUPPORTED_VERSION
            | code::INVALID_REQUEST
            | code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_rejection_is_final() {
        for code in [-1, 7, 14, 15, 16, 51, 89, 999] {
            assert!(!is_rejection(code), "{code}");
        }
        for code in [31, 35, 53] {
            assert!(is_rejection(code), "{code}");
        }
    }
}
