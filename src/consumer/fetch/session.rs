//! An incremental fetch session (KIP-227), without I/O: the broker remembers the partitions that a
//! connection fetches, so that a request names only those that have changed, and a response only
//! those with records.

use crate::code;

/// Epoch of a request without a session.
const FINAL_EPOCH: i32 = -1;
/// Epoch of a request that opens a session, and closes the one whose id it names.
const INITIAL_EPOCH: i32 = 0;

/// Session fields of a fetch request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FetchMetadata {
    pub(crate) id: i32,
    pub(crate) epoch: i32,
}

impl FetchMetadata {
    pub(crate) const SESSIONLESS: Self = Self { id: 0, epoch: FINAL_EPOCH };
}

/// The session of a connection.
#[derive(Debug, Default)]
pub(crate) struct Session {
    id: i32,
    /// Epoch of the next request; [`INITIAL_EPOCH`] while there is no session.
    epoch: i32,
}

impl Session {
    /// Returns the session fields of the next request. [`on_response`](Self::on_response) or
    /// [`on_failure`](Self::on_failure) must follow.
    pub(crate) fn next(&self) -> FetchMetadata {
        FetchMetadata { id: self.id, epoch: self.epoch }
    }

    /// Returns whether the next request opens a session, so that it must name all partitions.
    pub(crate) fn is_new(&self) -> bool {
        self.epoch == INITIAL_EPOCH
    }

    /// Handles the error code and session id of a response. Returns false if the request is to be
    /// repeated at once, in a new session.
    pub(crate) fn on_response(&mut self, code: i16, id: i32) -> bool {
        match code {
            code::FETCH_SESSION_ID_NOT_FOUND => *self = Self::default(),
            code::INVALID_FETCH_SESSION_EPOCH => self.on_failure(),
            _ if id == 0 => *self = Self::default(),
            _ => {
                self.id = id;
                self.epoch = if self.epoch == i32::MAX { 1 } else { self.epoch + 1 };
            }
        }
        !matches!(code, code::FETCH_SESSION_ID_NOT_FOUND | code::INVALID_FETCH_SESSION_EPOCH)
    }

    /// Handles a lost response: the content of the session is unknown, so the next request opens a
    /// new one and closes this one.
    pub(crate) fn on_failure(&mut self) {
        self.epoch = INITIAL_EPOCH;
    }
}

#[cfg(test)]
mod tests;
