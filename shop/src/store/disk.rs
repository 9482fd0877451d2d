//! The open database, opened anew after an I/O error.
//!
//! redb trusts a database no more once reading or writing it has failed (a full disk, say) until it was closed and opened.
//! So it is closed then, and the next use opens it: the store works again as soon as the disk does.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::{Database, Error};

type Open = Box<dyn FnMut() -> Result<Database, Error> + Send + Sync>;

pub(super) struct Disk(RwLock<State>);

struct State {
    database: Option<Database>,
    open: Open,
}

impl Disk {
    /// Opens it with `open`, now and after each I/O error. Blocks, as all that follows.
    pub(super) fn new(open: impl FnMut() -> Result<Database, Error> + Send + Sync + 'static) -> Result<Self, Error> {
        let mut open: Open = Box::new(open);
        Ok(Self(RwLock::new(State { database: Some(open()?), open })))
    }

    /// Works on the database; many threads may at a time.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, Error>) -> Result<T, Error> {
        if self.read().database.is_none() {
            let state = &mut *self.write();
            if state.database.is_none() {
                state.database = Some((state.open)()?);
            }
        }
        let state = self.read();
        // `None` only if another thread has met an error in between.
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
