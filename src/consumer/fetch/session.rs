//! An incremental fetch session (KIP-227), without I/O: the broker remembers which partitions a connection fetches, so that a
//! request names only those that have changed, and a response only those that have news.

use crate::code;

/// The epoch of a request outside of sessions.
const FINAL_EPOCH: i32 = -1;
/// The epoch of a request that begins a session, and closes the one whose id it names.
const INITIAL_EPOCH: i32 = 0;

/// The session fields of a fetch request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FetchMetadata {
    pub(crate) id: i32,
    pub(crate) epoch: i32,
}

impl FetchMetadata {
    /// Of a request that no session remembers.
    pub(crate) const SESSIONLESS: Self = Self { id: 0, epoch: FINAL_EPOCH };
}

/// The session of a connection.
#[derive(Debug, Default)]
pub(crate) struct Session {
    id: i32,
    /// Of the next request; [`INITIAL_EPOCH`] while there is no session.
    epoch: i32,
}

impl Session {
    /// Returns what the next request carries. [`on_response`](Self::on_response) or [`on_failure`](Self::on_failure) must follow.
    pub(crate) fn next(&self) -> FetchMetadata {
        FetchMetadata { id: self.id, epoch: self.epoch }
    }

    /// Whether the next request begins a session, so that it must name all partitions.
    pub(crate) fn is_new(&self) -> bool {
        self.epoch == INITIAL_EPOCH
    }

    /// Takes the error code and session id of a response. Returns whether the response counts: if not, the request is to be
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

    /// What the broker remembers is not known any more: the next request begins a new session and closes this one.
    pub(crate) fn on_failure(&mut self) {
        self.epoch = INITIAL_EPOCH;
    }
}

#[cfg(test)]
mod tests;
