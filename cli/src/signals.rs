//! SIGINT and SIGTERM: the first asks for an orderly end, the second cuts it short.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::exit::Exit;
use crate::output::note;

/// Tells whether an orderly end was asked for. Signals count from `install` until this is dropped.
#[derive(Debug)]
pub struct Shutdown {
    requested: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Shutdown {
    /// Takes the signals over from their default, which ends the process at once.
    pub fn install() -> io::Result<Self> {
        let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (tx, requested) = watch::channel(false);
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                }
                if tx.send_replace(true) {
                    note(format_args!("ended at once by a second signal"));
                    std::process::exit(Exit::Interrupted.code().into());
                }
                tracing::info!("a signal asks for the end; a second one cuts it short");
            }
        });
        Ok(Self { requested, task })
    }

    /// Waits for the first signal. Cancel safe.
    pub async fn requested(&self) {
        let mut requested = self.requested.clone();
        if requested.wait_for(|r| *r).await.is_err() {
            // The task lives as long as `self`: without it no signal can come.
            std::future::pending().await
        }
    }

    /// Whether the first signal has come.
    pub fn is_requested(&self) -> bool {
        *self.requested.borrow()
    }
}

impl Drop for Shutdown {
    fn drop(&mut self) {
        self.task.abort();
    }
}
