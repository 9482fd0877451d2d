//! The producer id that brokers know an idempotent producer by (KIP-98, KIP-360).

use std::sync::Arc;

use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};

use super::partition::Identity;
use super::sender::Shared;
use crate::error::{Error, Result, is_retriable_code};

/// Gets an identity at first and whenever the brokers have refused the one before.
///
/// A broker that loads, or that can't be reached, is asked again for as long as it takes: what waits has a delivery timeout,
/// and the error is named when that is over. If a broker refuses, what waits fails at once.
pub(super) async fn keep(shared: Arc<Shared>) {
    let work = async {
        let mut backoff = shared.cluster().backoff();
        loop {
            if !shared.lock().needs_identity() {
                shared.identity.notified().await;
                continue;
            }
            match ask(&shared).await {
                Ok(identity) => {
                    tracing::debug!(id = identity.id, epoch = identity.epoch, "the producer has an identity");
                    shared.lock().set_identity(identity);
                    backoff.reset();
                }
                Err((error, passing)) => {
                    tracing::warn!(error = %error.full(), will_retry = passing, "the producer has no identity yet");
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

/// One request; an error also says whether it may go better next time.
async fn ask(shared: &Shared) -> Result<Identity, (Error, bool)> {
    // Without a transactional id the broker gives a new identity to whoever has none: -1 and -1, which are not the defaults.
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(i32::MAX)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let timeout = shared.client.config().request_timeout;
    let answer = shared.cluster().request_any(request, timeout).await.map_err(|e| {
        let passing = e.is_retriable();
        (e.context("asking for a producer id"), passing)
    })?;
    match answer.error_code {
        0 => Ok(Identity { id: answer.producer_id.0, epoch: answer.producer_epoch }),
        code => {
            let what = "asking for a producer id, which an idempotent producer needs (REDPANDA_IDEMPOTENCE=false does without)";
            Err((Error::broker(code, what), is_retriable_code(code)))
        }
    }
}
