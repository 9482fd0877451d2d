//! The handle of a running subscription.

use tokio_util::sync::CancellationToken;

use super::control::SubscriptionControl;
use super::drain::Unfinished;
use super::health::SubscriptionHealth;
use crate::error::{Error, ErrorKind, Result};
use crate::signal::ShutdownSignals;
use crate::text;

/// Statistics of a subscription since its start.
///
/// ```
/// assert_eq!(ailurus::processor::Stats::default().handled, 0);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Number of records whose handler succeeded.
    pub handled: u64,
    /// Number of attempts that failed.
    pub failed_attempts: u64,
    /// Number of failed attempts that were followed by a retry.
    pub retries: u64,
    /// Number of records written to a dead-letter topic.
    pub dead_letters: u64,
    /// Number of failed records that were [skipped](super::Outcome::Skip).
    pub skipped: u64,
    /// Number of rebalances that assigned partitions to this member.
    pub rebalances: u64,
    /// Number of records in a handler now.
    pub in_flight: usize,
    /// Number of keys (or lanes of another ordering) that are blocked now by a failed record.
    pub parked_keys: usize,
}

/// A running subscription. Dropping it starts a [`shutdown`](Subscription::shutdown) without
/// waiting for it, and logs a warning.
///
/// See [`Processor`](super::Processor) for an example. This does not compile where warnings are
/// errors:
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// # async fn example(service: ailurus::RedpandaService) -> ailurus::Result<()> {
/// service.subscribe(["orders"], "billing", |message: ailurus::Message| async move { drop(message) }).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping a subscription shuts it down: keep it, and end it with `run_until_signal` or `shutdown`"]
#[derive(Debug)]
pub struct Subscription {
    pub(super) control: SubscriptionControl,
    /// Cancelled to shut down.
    pub(super) stop: CancellationToken,
    /// Cancelled to cancel handlers in flight during the shutdown.
    pub(super) cancel_handlers: CancellationToken,
    /// Cancelled to end like a crash.
    pub(super) abort: CancellationToken,
}

impl Subscription {
    /// Returns its membership and its progress in each partition.
    pub fn health(&self) -> SubscriptionHealth {
        self.control.shared.health()
    }

    /// Returns its statistics.
    pub fn stats(&self) -> Stats {
        self.control.shared.stats()
    }

    /// Returns a handle to control it while it runs. Cheap, for any task.
    pub fn control(&self) -> SubscriptionControl {
        self.control.clone()
    }

    /// Stops fetching, finishes the records in flight within
    /// [`shutdown_timeout`](crate::ProcessorConfig::shutdown_timeout), commits and leaves the
    /// group. Handlers that don't finish in time are cancelled, and their records not committed.
    /// Returns the fetched records that are unfinished.
    ///
    /// # Errors
    /// The error that ended it, if it had ended before; the error of the last commit or of leaving
    /// the group.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the shutdown.
    pub async fn shutdown(self) -> Result<Unfinished> {
        self.stop.cancel();
        self.outcome().await
    }

    /// Runs until SIGTERM or SIGINT (Ctrl-C) after this call, then [shuts down](Self::shutdown). A
    /// second signal cancels the handlers in flight, as in [`run_until`](Self::run_until); signals
    /// within 100 ms count once. Returns earlier if the subscription ends with an error.
    ///
    /// ```no_run
    /// # async fn example(subscription: ailurus::Subscription) -> ailurus::Result<()> {
    /// let left = subscription.run_until_signal().await?;
    /// println!("{left}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`shutdown`](Self::shutdown); [`ErrorKind::Io`] if signal handlers can't be
    /// installed: the subscription is shut down then.
    ///
    /// # Cancel safety
    /// Dropping the future starts a [`shutdown`](Self::shutdown) without waiting for it.
    pub fn run_until_signal(self) -> impl Future<Output = Result<Unfinished>> + Send + use<> {
        // Installed now, not at the first poll: a signal in between would kill the process.
        let signals = ShutdownSignals::install();
        async move {
            let mut signals = match signals {
                Ok(signals) => signals,
                Err(e) => {
                    _ = self.shutdown().await;
                    return Err(Error::with_source(
                        ErrorKind::Io,
                        "handlers of SIGTERM and SIGINT can't be installed",
                        e,
                    ));
                }
            };
            tokio::select! {
                () = signals.recv() => {
                    tracing::info!("signal received: finishing records in flight; a second signal cancels them");
                    self.stop.cancel();
                }
                outcome = self.outcome() => return outcome,
            }
            tokio::select! {
                () = signals.recv() => self.cancel_handlers.cancel(),
                outcome = self.outcome() => return outcome,
            }
            self.outcome().await
        }
    }

    /// Runs until `stop` resolves, then [shuts down](Self::shutdown). If `cancel` resolves during
    /// the shutdown, handlers in flight are cancelled at once; offsets of handled records are
    /// committed and the group is left all the same. Returns earlier if the subscription ends with
    /// an error.
    ///
    /// ```no_run
    /// # async fn example(subscription: ailurus::Subscription, stop: tokio::sync::oneshot::Receiver<()>) -> ailurus::Result<()> {
    /// use std::time::Duration;
    ///
    /// let cancel = tokio::time::sleep(Duration::from_secs(3600));
    /// let left = subscription.run_until(stop, cancel).await?;
    /// println!("{left}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`shutdown`](Self::shutdown).
    ///
    /// # Cancel safety
    /// Dropping the future starts a [`shutdown`](Self::shutdown) without waiting for it.
    pub async fn run_until(self, stop: impl Future, cancel: impl Future) -> Result<Unfinished> {
        tokio::select! {
            _ = stop => self.stop.cancel(),
            outcome = self.outcome() => return outcome,
        }
        tokio::select! {
            _ = cancel => self.cancel_handlers.cancel(),
            outcome = self.outcome() => return outcome,
        }
        self.outcome().await
    }

    /// Ends at once, like a crash: handlers in flight are cancelled, nothing is committed, and the
    /// member stays in the group until its session expires.
    pub async fn abort(self) {
        self.abort.cancel();
        _ = self.ended().await;
    }

    /// Waits until it has ended, by a shutdown or with an error.
    ///
    /// # Errors
    /// The error that ended it: an [`Outcome::Stop`](super::Outcome::Stop) of the handler, or a
    /// fatal error of the group.
    pub async fn ended(&self) -> Result<()> {
        self.outcome().await.map(drop)
    }

    async fn outcome(&self) -> Result<Unfinished> {
        let mut ended = self.control.ended.clone();
        let died = || Error::new(ErrorKind::Closed, "the subscription's task ended unexpectedly");
        let outcome = ended.wait_for(Option::is_some).await.map_err(|_| died())?;
        outcome.clone().unwrap_or_else(|| Err(died()))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let is_ending = self.stop.is_cancelled() || self.abort.is_cancelled() || self.control.ended.borrow().is_some();
        if !is_ending {
            let shared = &self.control.shared;
            tracing::warn!(
                group = shared.group(),
                topics = %text::list(shared.topics()),
                "a subscription was dropped and shuts down: keep it, and end it with run_until_signal or shutdown"
            );
        }
        self.stop.cancel();
    }
}
