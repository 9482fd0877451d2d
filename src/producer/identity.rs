//! The producer id that brokers know an idempotent producer by (KIP-98, KIP-360).

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use tokio::time::Instant;

use super::partition::Identity;
use super::sender::Shared;
use crate::error::{Error, Result};
use crate::failure::is_final;

/// How long an error that passes by itself is not worth a warning: a coordinator that loads answers so on a fresh cluster.
const GRACE: Duration = Duration::from_secs(5);
/// How often a warning is repeated while there is no identity.
const REMINDER: Duration = Duration::from_secs(30);

/// Gets an identity at first and whenever the brokers have refused the one before.
///
/// What may pass (a broker that loads, that can't be reached, that does not let us log in after it did, an answer that makes no
/// sense) is tried again for as long as it takes: what waits has a delivery timeout, and the error is named when that is over. If a
/// broker refuses, what waits fails at once, and the next record has it tried again.
pub(super) async fn keep(shared: Arc<Shared>) {
    let work = async {
        let mut backoff = shared.cluster().backoff();
        let mut absence = None;
        loop {
            if !shared.lock().needs_identity() {
                shared.identity.notified().await;
                continue;
            }
            match ask(&shared).await {
                Ok(identity) => {
                    report_end(absence.take(), identity);
                    shared.lock().set_identity(identity);
                    backoff.reset();
                }
                Err((error, passing)) => {
                    absence.get_or_insert_with(Absence::begin).report(&error, passing);
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

/// A time without an identity, and what the log says of it.
struct Absence {
    began: Instant,
    tries: u32,
    warned_at: Option<Instant>,
}

impl Absence {
    fn begin() -> Self {
        Self { began: Instant::now(), tries: 0, warned_at: None }
    }

    /// Warns at once of what will not pass by itself, else after [`GRACE`], and again after each [`REMINDER`].
    fn report(&mut self, error: &Error, passing: bool) {
        self.tries += 1;
        let now = Instant::now();
        let is_due = match self.warned_at {
            Some(at) => now - at >= REMINDER,
            None => !passing || error.broker_code().is_none() || now - self.began >= GRACE,
        };
        if is_due {
            self.warned_at = Some(now);
            let (tries, since) = (self.tries, now - self.began);
            tracing::warn!(error = %error.full(), will_retry = passing, tries, ?since, "the producer has no identity yet");
        } else {
            tracing::debug!(error = %error.full(), will_retry = passing, "the producer has no identity yet");
        }
    }
}

fn report_end(absence: Option<Absence>, Identity { id, epoch }: Identity) {
    match absence.filter(|absence| absence.warned_at.is_some()) {
        Some(Absence { began, tries, .. }) => {
            tracing::info!(id, epoch, tries, after = ?began.elapsed(), "the producer has an identity again");
        }
        None => tracing::debug!(id, epoch, "the producer has an identity"),
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
    matches!(code, 29 | 31 | 35 | 42 | 53)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn only_a_refusal_is_final() {
        for code in [-1, 7, 14, 15, 16, 51, 89, 999] {
            assert!(!is_refusal(code), "{code}");
        }
        for code in [31, 35, 53] {
            assert!(is_refusal(code), "{code}");
        }
    }

    #[test]
    fn a_coordinator_that_loads_is_warned_of_only_when_it_takes_long() {
        let mut absence = Absence::begin();
        absence.report(&Error::broker(14, "x"), true);
        assert_eq!((absence.warned_at, absence.tries), (None, 1));
        absence.report(&Error::broker(31, "x"), false);
        assert!(absence.warned_at.is_some());
        let mut absence = Absence::begin();
        absence.report(&Error::new(ErrorKind::Connect, "x"), true);
        assert!(absence.warned_at.is_some());
    }
}
