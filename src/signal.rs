//! Signals that ask a process to end: SIGTERM, as Kubernetes, systemd and Docker send it, and SIGINT, which is Ctrl-C.
//!
//! A process that takes them over from their default, which ends it at once, can finish and commit what is in flight and leave
//! its groups; one that is killed keeps its partitions until its session expires.

use std::future::pending;
use std::io;
use std::time::{Duration, Instant};

/// Signals within this time of one that counted belong to it: a terminal and a shell, or Docker and an init process, send theirs
/// twice.
const ECHO: Duration = Duration::from_millis(100);

/// SIGTERM and SIGINT, from when this is made on; on systems without them, Ctrl-C.
///
/// From then to the end of the process they have no other effect. One that arrives twice within 100 ms counts once.
///
/// ```no_run
/// use ailurus::signal::ShutdownSignals;
///
/// # async fn example(producer: ailurus::Producer) -> Result<(), Box<dyn std::error::Error>> {
/// let mut signals = ShutdownSignals::install()?;
/// tokio::select! {
///     () = signals.recv() => {}
///     // … or what the program does until then.
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
    /// Takes the signals over. Must be called in a runtime of tokio.
    ///
    /// # Errors
    /// What the system refuses.
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

/// Waits for SIGTERM or SIGINT: `ShutdownSignals::install()?.recv()`.
///
/// # Errors
/// Those of [`ShutdownSignals::install`].
///
/// # Cancellation
/// Dropping the future leaves the signals without an effect.
pub async fn shutdown() -> io::Result<()> {
    ShutdownSignals::install()?.recv().await;
    Ok(())
}

/// Tells a signal from the repetition of the one before.
#[derive(Debug, Default)]
struct EchoFilter {
    counted: Option<Instant>,
}

impl EchoFilter {
    fn counts(&mut self, now: Instant) -> bool {
        let is_echo = self.counted.is_some_and(|before| now.saturating_duration_since(before) < ECHO);
        if !is_echo {
            self.counted = Some(now);
        }
        !is_echo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_comes_again_at_once_counts_once() {
        let (mut filter, start) = (EchoFilter::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let counted = [0, 1, 99, 100, 150, 199, 250].map(|ms| filter.counts(at(ms)));
        assert_eq!(counted, [true, false, false, true, false, false, true]);
    }
}
