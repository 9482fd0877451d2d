//! The open database, opened again after an I/O error.
//!
//! After a failed read or write (a full disk, say) redb refuses to use a database until it was closed and opened. So it is
//! closed then, and the next use opens it: the store works again as soon as the disk does.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::{Database, Error};

type Open = Box<dyn FnMut() -> Result<Database, Error> + Send + Sync>;

pub(super) struct Disk(RwLock<State>);

struct State {
    database: Option<Database>,
    open: Open,
}

impl Disk {
    /// Opens the database with `open`, now and after each I/O error. All methods block.
    pub(super) fn new(open: impl FnMut() -> Result<Database, Error> + Send + Sync + 'static) -> Result<Self, Error> {
        let mut open: Open = Box::new(open);
        Ok(Self(RwLock::new(State { database: Some(open()?), open })))
    }

    /// Runs work on the database; many threads may at a time.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, Error>) -> Result<T, Error> {
        if self.read().database.is_none() {
            let state = &mut *self.write();
            if state.database.is_none() {
                state.database = Some((state.open)()?);
            }
        }
        let state = self.read();
        // `None` only if another thread had an error in between.
        let result = work(state.database.as_ref().ok_or(Error::PreviousIo)?);
        drop(state);
        if matches!(result, Err(Error::Io(_) | Error::PreviousIo)) {
            self.write().database = None;
        }
        result
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
