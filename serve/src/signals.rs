//! SIGINT and SIGTERM: the first drains the application, the next cuts that short.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ailurus::signal::ShutdownSignals;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::exit::Exit;
use crate::text::note;

/// Time after which a shutdown is explained: what it waits for, and what ends it.
const EXPLAIN_AFTER: Duration = Duration::from_millis(300);

/// Returns what a shutdown waits for, as text.
type Waiting = Arc<Mutex<Box<dyn Fn() -> String + Send>>>;

/// Counts signals from `install` until it is dropped.
pub struct Shutdown {
    signals: watch::Receiver<u32>,
    waiting: Waiting,
    task: JoinHandle<()>,
}

impl Shutdown {
    /// Takes the signals over from their default, which ends the process at once; the second one still does.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn install() -> io::Result<Self> {
        Self::in_steps(2)
    }

    /// Also counts a second signal, for [`cut_short`](Self::cut_short); the third ends the process at once.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn install_for_three() -> io::Result<Self> {
        Self::in_steps(3)
    }

    fn in_steps(last: u32) -> io::Result<Self> {
        let incoming = ShutdownSignals::install()?;
        let (tx, signals) = watch::channel(0);
        let waiting: Waiting = Arc::new(Mutex::new(Box::new(|| "what is in flight".to_owned())));
        let task = tokio::spawn(count(incoming, last, tx, Arc::clone(&waiting)));
        Ok(Self { signals, waiting, task })
    }

    /// Sets the text of what a shutdown waits for.
    pub fn set_waiting_for(&self, what: impl Fn() -> String + Send + 'static) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(what);
    }

    /// Runs work that needs no draining: the first signal cancels it, and there is no result.
    pub async fn unless_requested<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.requested() => None,
            result = work => Some(result),
        }
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

    /// Returns whether the first signal has come.
    pub fn is_requested(&self) -> bool {
        *self.signals.borrow() > 0
    }

    /// Returns whether the second signal has come.
    pub fn is_cut_short(&self) -> bool {
        *self.signals.borrow() > 1
    }
}

/// Counts signals; the last one ends the process.
async fn count(mut incoming: ShutdownSignals, last: u32, counted: watch::Sender<u32>, waiting: Waiting) {
    for n in 1.. {
        if n > 1 && tokio::time::timeout(EXPLAIN_AFTER, incoming.recv()).await.is_err() {
            let what = waiting.lock().unwrap_or_else(PoisonError::into_inner)();
            let next = if n == last { "ends it at once" } else { "cuts it short" };
            note(format_args!("waiting for {what}; {} signal {next}", if n == 2 { "a second" } else { "one more" }));
            incoming.recv().await;
        } else if n == 1 {
            incoming.recv().await;
        }
        if n == last {
            note(format_args!("ended at once by signal number {n}"));
            std::process::exit(Exit::Interrupted.code().into());
        }
        tracing::info!("signal number {n} starts the shutdown; the next cuts it short");
        counted.send_replace(n);
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("signals", &*self.signals.borrow()).finish_non_exhaustive()
    }
}

impl Drop for Shutdown {
    fn drop(&mut self) {
        self.task.abort();
    }
}
