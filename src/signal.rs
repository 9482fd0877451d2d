//! Signals to shut down: SIGTERM, as Kubernetes, systemd and Docker send it, and SIGINT, which is
//! Ctrl-C.
//!
//! A process that handles them can finish and commit in-flight records and leave its groups. By
//! default they kill the process, whose partitions stay assigned to it until its session expires.

use std::future::pending;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

/// Time in which a second signal is a repetition: a terminal and a shell, or Docker and an init
/// process, send the same signal twice.
const ECHO_WINDOW: Duration = Duration::from_millis(100);

/// A receiver of SIGTERM and SIGINT; on systems without them, of Ctrl-C.
///
/// Once installed, the signals have no other effect until the process exits. Two within 100 ms
/// count as one.
///
/// ```no_run
/// use ailurus::signal::ShutdownSignals;
///
/// # async fn example(producer: ailurus::Producer) -> Result<(), Box<dyn std::error::Error>> {
/// let mut signals = ShutdownSignals::install()?;
/// tokio::select! {
///     () = signals.recv() => {}
///     // … or the application's own work.
/// }
/// producer.close(std::time::Duration::from_secs(30)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ShutdownSignals {
    #[cfg(unix)]
    sources: [tokio::signal::unix::Signal; 2],
    echo: EchoFilter,
}

impl ShutdownSignals {
    /// Installs the handlers. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// The system's error if it rejects a handler.
    pub fn install() -> io::Result<Self> {
        #[cfg(unix)]
        let sources = {
            use tokio::signal::unix::{SignalKind, signal};
            [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?]
        };
        Ok(Self {
            #[cfg(unix)]
            sources,
            echo: EchoFilter::default(),
        })
    }

    /// Waits for the next signal.
    ///
    /// # Cancellation
    /// Dropping the future loses no signal.
    pub async fn recv(&mut self) {
        loop {
            #[cfg(unix)]
            {
                let [terminate, interrupt] = &mut self.sources;
                tokio::select! {
                    Some(()) = terminate.recv() => {}
                    Some(()) = interrupt.recv() => {}
                    else => pending().await,
                }
            }
            #[cfg(not(unix))]
            if tokio::signal::ctrl_c().await.is_err() {
                pending::<()>().await;
            }
            if self.echo.counts(Instant::now()) {
                return;
            }
        }
    }
}

/// Waits for SIGTERM or SIGINT, as `ShutdownSignals::install()?.recv()`.
///
/// # Errors
/// Those of [`ShutdownSignals::install`].
///
/// # Cancellation
/// Dropping the future leaves the handlers installed: the signals have no effect any more.
pub async fn shutdown() -> io::Result<()> {
    ShutdownSignals::install()?.recv().await;
    Ok(())
}

/// Recognizes a repetition of the previous signal.
#[derive(Debug, Default)]
struct EchoFilter {
    last_counted: Option<Instant>,
}

impl EchoFilter {
    fn counts(&mut self, now: Instant) -> bool {
        let is_echo = self.last_counted.is_some_and(|before| now.saturating_duration_since(before) < ECHO_WINDOW);
        if !is_echo {
            self.last_counted = Some(now);
        }
        !is_echo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_signal_counts_once() {
        let (mut filter, start) = (EchoFilter::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let counted = [0, 1, 99, 100, 150, 199, 250].map(|ms| filter.counts(at(ms)));
        assert_eq!(counted, [true, false, false, true, false, false, true]);
    }
}
