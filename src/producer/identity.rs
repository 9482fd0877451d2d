//! The producer id that brokers know an idempotent producer by (KIP-98, KIP-360).

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use tokio::time::Instant;

use super::partition::Identity;
use super::sender::Shared;
use crate::code;
use crate::error::{Error, Result};
use crate::failure::{Outage, is_final};

/// How long a code that passes by itself is not worth a warning: a coordinator that loads answers so on a fresh cluster.
const GRACE: Duration = Duration::from_secs(5);

/// Gets an identity at first and whenever the brokers have refused the one before.
///
/// What may pass (a broker that loads, that can't be reached, that does not let us log in after it did, an answer that makes no
/// sense) is tried again for as long as it takes: what waits has a delivery timeout, and the error is named when that is over. If a
/// broker refuses, what waits fails at once, and the next record has it tried again.
pub(super) async fn keep(shared: Arc<Shared>) {
    let work = async {
        let mut backoff = shared.cluster().backoff();
        let mut outage = Outage::default();
        loop {
            if !shared.lock().needs_identity() {
                shared.identity.notified().await;
                continue;
            }
            match ask(&shared).await {
                Ok(identity) => {
                    let Identity { id, epoch } = identity;
                    match outage.over(Instant::now().into_std()) {
                        Some(lasted) => tracing::warn!(id, epoch, "the producer has an identity again, after {lasted}"),
                        None => tracing::debug!(id, epoch, "the producer has an identity"),
                    }
                    shared.lock().set_identity(identity);
                    backoff.reset();
                }
                Err((error, passing)) => {
                    report(&mut outage, &error, passing);
                    shared.meter.metrics.failed("producer", error.kind());
                    let ended = shared.lock().set_identity_error(error, !passing);
                    shared.finish(ended);
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    };
    shared.cancel.run_until_cancelled(work).await;
}

/// Warns at once of what somebody has to mend, and of what a broker answers for a moment when it lasts.
fn report(outage: &mut Outage, error: &Error, passing: bool) {
    let grace = if passing && error.broker_code().is_some() { GRACE } else { Duration::ZERO };
    let what_next = if passing { "it is tried again" } else { "the next record has it tried again" };
    match outage.failed_for(Instant::now().into_std(), error, grace) {
        Some(lasted) => {
            tracing::warn!(error = %error.full(), "the producer has no identity yet, {lasted}; {what_next}");
        }
        None => tracing::debug!(error = %error.full(), "the producer has no identity yet"),
    }
}

/// One request; an error also says whether it may pass.
async fn ask(shared: &Shared) -> Result<Identity, (Error, bool)> {
    // Without a transactional id the broker gives a new identity to whoever has none: -1 and -1, which are not the defaults.
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(i32::MAX)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let timeout = shared.client.config().request_timeout;
    let answer = shared.cluster().request_any(request, timeout).await.map_err(|e| {
        let passing = !is_final(&e);
        (e.context("asking for a producer id"), passing)
    })?;
    match answer.error_code {
        0 => Ok(Identity { id: answer.producer_id.0, epoch: answer.producer_epoch }),
        code => {
            let what = "asking for a producer id, which an idempotent producer needs (REDPANDA_IDEMPOTENCE=false does without)";
            Err((Error::broker(code, what), !is_refusal(code)))
        }
    }
}

/// Whether a broker that answers so will not give an identity until somebody changes that: it is not authorized, not supported, or
/// the request is not valid. Any other code passes, also one that is not known.
fn is_refusal(code: i16) -> bool {
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
            assert!(!is_refusal(code), "{code}");
        }
        for code in [31, 35, 53] {
            assert!(is_refusal(code), "{code}");
        }
    }
}
