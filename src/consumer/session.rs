//! An incremental fetch session (KIP-227), without I/O: the broker remembers what a connection fetches, so that a request names
//! only what has changed, and an answer only partitions of which there is news.
//!
//! The broker turns the order of a session's partitions itself, so that each is served in its turn.

use std::collections::HashMap;

use super::tracker::{Ask, FetchFrom};
use crate::record::TopicPartition;

const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
/// So few partitions are named each time: what a session saves of them is not worth its state at the broker.
const WORTH_IT: usize = 16;
/// The epoch of a request outside of sessions.
const NONE: i32 = -1;
/// The epoch of a request that begins one.
const BEGIN: i32 = 0;

/// How a fetch request is to look.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shape<'a> {
    pub(crate) id: i32,
    pub(crate) epoch: i32,
    /// What to name; the broker knows of the others.
    pub(crate) named: Vec<&'a Ask<FetchFrom>>,
    /// What the broker is not to fetch any more.
    pub(crate) forgotten: Vec<TopicPartition>,
}

/// What the broker remembers of a connection.
#[derive(Debug, Default)]
pub(crate) struct Session {
    id: i32,
    /// Of the next request; [`BEGIN`] while there is no session.
    epoch: i32,
    known: HashMap<TopicPartition, Ask<FetchFrom>>,
}

impl Session {
    /// The request that fetches these and nothing else. `answered` or `failed` must follow.
    pub(crate) fn request<'a>(&mut self, asks: &'a [Ask<FetchFrom>]) -> Shape<'a> {
        if asks.len() < WORTH_IT {
            let id = std::mem::take(self).id; // closes it
            return Shape { id, epoch: NONE, named: asks.iter().collect(), forgotten: Vec::new() };
        }
        // The broker would not tell again what it has told under an older lease or before a seek.
        let anew = |ask: &Ask<FetchFrom>| {
            let known = self.known.get(&ask.lease.partition);
            known.is_some_and(|k| (&k.lease, k.version) != (&ask.lease, ask.version))
        };
        if self.epoch == BEGIN || asks.iter().any(anew) {
            self.epoch = BEGIN;
            self.known = asks.iter().map(|a| (a.lease.partition.clone(), a.clone())).collect();
            return Shape { id: self.id, epoch: BEGIN, named: asks.iter().collect(), forgotten: Vec::new() };
        }
        let mut left: HashMap<_, _> = std::mem::take(&mut self.known);
        let mut named = Vec::new();
        for ask in asks {
            if left.remove(&ask.lease.partition).is_none_or(|known| known != *ask) {
                named.push(ask);
            }
            self.known.insert(ask.lease.partition.clone(), ask.clone());
        }
        Shape { id: self.id, epoch: self.epoch, named, forgotten: left.into_keys().collect() }
    }

    /// The answer's error code and session id. Whether the answer counts: if not, all is to be asked for anew, at once.
    pub(crate) fn answered(&mut self, code: i16, id: i32) -> bool {
        match code {
            FETCH_SESSION_ID_NOT_FOUND => *self = Self::default(),
            INVALID_FETCH_SESSION_EPOCH => self.failed(),
            _ if id == 0 => *self = Self::default(),
            _ => {
                self.id = id;
                self.epoch = if self.epoch == i32::MAX { 1 } else { self.epoch + 1 };
            }
        }
        !matches!(code, FETCH_SESSION_ID_NOT_FOUND | INVALID_FETCH_SESSION_EPOCH)
    }

    /// What the broker knows now is not known here: the next request begins anew, and closes this one.
    pub(crate) fn failed(&mut self) {
        self.epoch = BEGIN;
        self.known.clear();
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
