//! Requests that a hook holds: their connections are closed, and they are served later.

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use tokio::time::Instant;

use crate::request::Context;

/// A held request, decoded up to its header.
#[derive(Debug)]
pub(crate) struct HeldRequest {
    pub api: ApiKey,
    pub context: Context,
    pub body: Bytes,
    /// Time to serve it; `None` when it is released.
    pub due: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct HeldRequests(Vec<HeldRequest>);

impl HeldRequests {
    pub fn push(&mut self, request: HeldRequest) {
        self.0.push(request);
    }

    pub fn iter(&self) -> impl Iterator<Item = &HeldRequest> {
        self.0.iter()
    }

    /// Takes the requests that are due.
    pub fn take_due(&mut self, now: Instant) -> Vec<HeldRequest> {
        let (due, held) = std::mem::take(&mut self.0).into_iter().partition(|r| r.due.is_some_and(|at| at <= now));
        self.0 = held;
        due
    }

    /// Takes all requests, in the order in which they arrived.
    pub fn take_all(&mut self) -> Vec<HeldRequest> {
        std::mem::take(&mut self.0)
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.0.iter().filter_map(|r| r.due).min()
    }
}
