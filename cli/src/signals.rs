//! SIGINT and SIGTERM: the first asks for an orderly end, the next cuts it short.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::exit::Exit;
use crate::output::note;

/// Tells whether an orderly end was asked for. Signals count from `install` until this is dropped.
#[derive(Debug)]
pub struct Shutdown {
    signals: watch::Receiver<u32>,
    task: JoinHandle<()>,
}

impl Shutdown {
    /// Takes the signals over from their default, which ends the process at once; the second one still does.
    pub fn install() -> io::Result<Self> {
        Self::in_steps(2)
    }

    /// With a second signal that the program hears of, as [`cut_short`](Self::cut_short); the third ends the process at once.
    pub fn install_for_three() -> io::Result<Self> {
        Self::in_steps(3)
    }

    fn in_steps(last: u32) -> io::Result<Self> {
        let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (tx, signals) = watch::channel(0);
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                }
                tx.send_modify(|n| *n += 1);
                let n = *tx.borrow();
                if n == last {
                    note(format_args!("ended at once by signal number {n}"));
                    std::process::exit(Exit::Interrupted.code().into());
                }
                tracing::info!("signal number {n} asks for the end; the next cuts it short");
            }
        });
        Ok(Self { signals, task })
    }

    /// Waits for the first signal. Cancel safe.
    pub fn requested(&self) -> impl Future<Output = ()> + use<> {
        self.signal(1)
    }

    /// Waits for the second signal. Cancel safe.
    pub fn cut_short(&self) -> impl Future<Output = ()> + use<> {
        self.signal(2)
    }

    fn signal(&self, number: u32) -> impl Future<Output = ()> + use<> {
        let mut signals = self.signals.clone();
        async move {
            if signals.wait_for(|n| *n >= number).await.is_err() {
                // The task lives as long as `self`: without it no signal can come.
                std::future::pending().await
            }
        }
    }

    /// Whether the first signal has come.
    pub fn is_requested(&self) -> bool {
        *self.signals.borrow() > 0
    }

    /// Whether the second has.
    pub fn is_cut_short(&self) -> bool {
        *self.signals.borrow() > 1
    }
}

impl Drop for Shutdown {
    fn drop(&mut self) {
        self.task.abort();
    }
}
