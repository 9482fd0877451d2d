//! A mutex that outlives a panic of its holder.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A mutex without poisoning: every critical section of the crate leaves its data valid, also if a
/// metrics sink or a [`Waker`](std::task::Waker) of the application panics in it.
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Waits for the lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
