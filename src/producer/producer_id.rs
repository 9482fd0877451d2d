//! The producer id that brokers know an idempotent producer by (KIP-98, KIP-360).

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use tokio::time::Instant;

use super::partition::ProducerIdAndEpoch;
use super::sender::ProducerShared;
use crate::code;
use crate::error::{Error, Result};
use crate::failure::{Outage, is_final};

/// How long a code that passes by itself is not worth a warning: a coordinator that loads answers so on a fresh cluster.
const GRACE: Duration = Duration::from_secs(5);

/// Gets a producer id at first and whenever the brokers have refused the one before.
///
/// What may pass (a broker that loads, that can't be reached, that does not let us log in after it did, an answer that makes no
/// sense) is tried again for as long as it takes: what waits has a delivery timeout, and the error is named when that is over. If a
/// broker refuses, what waits fails at once, and the next record has it tried again.
pub(super) async fn run(shared: Arc<ProducerShared>) {
    let work = async {
        let mut backoff = shared.cluster().backoff();
        let mut outage = Outage::default();
        loop {
            if !shared.lock().needs_producer_id() {
                shared.producer_id.notified().await;
                continue;
            }
            match request_producer_id(&shared).await {
                Ok(producer_id) => {
                    let ProducerIdAndEpoch { id, epoch } = producer_id;
                    match outage.record_recovery(Instant::now().into_std()) {
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
                    let ended = shared.lock().set_producer_id_error(error, !transient);
                    shared.resolve_batches(ended);
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    };
    shared.cancel.run_until_cancelled(work).await;
}

/// Warns at once of what somebody has to mend, and of what a broker answers for a moment when it lasts.
fn report_failure(outage: &mut Outage, error: &Error, transient: bool) {
    let grace = if transient && error.broker_code().is_some() { GRACE } else { Duration::ZERO };
    let what_next = if transient { "it is tried again" } else { "the next record has it tried again" };
    match outage.record_failure_with_grace(Instant::now().into_std(), error, grace) {
        Some(lasted) => {
            tracing::warn!(error = %error.full(), "the producer has no producer id yet, {lasted}; {what_next}");
        }
        None => tracing::debug!(error = %error.full(), "the producer has no producer id yet"),
    }
}

/// One request; an error also says whether it may pass.
async fn request_producer_id(shared: &ProducerShared) -> Result<ProducerIdAndEpoch, (Error, bool)> {
    // Without a transactional id the broker gives a new producer_id to whoever has none: -1 and -1, which are not the defaults.
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(i32::MAX)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let timeout = shared.client.config().request_timeout;
    let response = shared.cluster().request_any(request, timeout).await.map_err(|e| {
        let transient = !is_final(&e);
        (e.context("asking for a producer id"), transient)
    })?;
    match response.error_code {
        0 => Ok(ProducerIdAndEpoch { id: response.producer_id.0, epoch: response.producer_epoch }),
        code => {
            let what = "asking for a producer id, which an idempotent producer needs (REDPANDA_IDEMPOTENCE=false does without)";
            Err((Error::broker(code, what), !is_rejection(code)))
        }
    }
}

/// Whether a broker that answers so will not give a producer id until somebody changes that: it is not authorized, not supported, or
/// the request is not valid. Any other code passes, also one that is not known.
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
    fn only_a_refusal_is_final() {
        for code in [-1, 7, 14, 15, 16, 51, 89, 999] {
            assert!(!is_rejection(code), "{code}");
        }
        for code in [31, 35, 53] {
            assert!(is_rejection(code), "{code}");
        }
    }
}
