//! The thread that writes: it commits waiting updates in one transaction.

use std::sync::Arc;

use ailurus::{Result, Timestamp};
use tokio::sync::{mpsc, oneshot};

use super::disk::Disk;
use super::tables::{self, Update};
use super::{StoreOptions, failed};
use crate::Outcome;

/// Maximum number of updates of a commit.
const MAX_BATCH: usize = 1024;

/// An update, and the channel for its outcome.
#[derive(Debug)]
pub(super) struct Request {
    update: Update,
    outcome: oneshot::Sender<Result<Outcome>>,
}

impl Request {
    pub(super) fn new(update: Update) -> (Self, oneshot::Receiver<Result<Outcome>>) {
        let (outcome, receiver) = oneshot::channel();
        (Self { update, outcome }, receiver)
    }
}

pub(super) struct Writer {
    name: Arc<str>,
    disk: Arc<Disk>,
    options: StoreOptions,
    queue: mpsc::Receiver<Request>,
}

impl Writer {
    pub(super) fn new(name: Arc<str>, disk: Arc<Disk>, options: StoreOptions, queue: mpsc::Receiver<Request>) -> Self {
        Self { name, disk, options, queue }
    }

    /// Runs until all senders are dropped and all of their updates are done.
    pub(super) fn run(mut self) {
        while self.turn() > 0 {}
    }

    /// Waits for an update, and commits all that are waiting. Returns their number; 0 at the end.
    pub(super) fn turn(&mut self) -> usize {
        let mut requests = Vec::new();
        let count = self.queue.blocking_recv_many(&mut requests, MAX_BATCH);
        if count == 0 {
            return 0;
        }
        let now = u64::try_from(Timestamp::now().as_millis()).unwrap_or(0);
        let updates: Vec<&Update> = requests.iter().map(|request| &request.update).collect();
        match self.commit(&updates, now) {
            // The update of a caller that was dropped meanwhile is committed, too.
            Ok(outcomes) => {
                for (request, outcome) in requests.into_iter().zip(outcomes) {
                    let _ = request.outcome.send(outcome);
                }
            }
            Err(error) => {
                let error = failed(&self.name, "writing", &error);
                tracing::error!(updates = count, "{error}");
                for request in requests {
                    let _ = request.outcome.send(Err(error.clone()));
                }
            }
        }
        count
    }

    fn commit(&self, updates: &[&Update], now: u64) -> Result<Vec<Result<Outcome>>, redb::Error> {
        self.disk.with(|database| {
            // A transaction that is dropped before its commit, as after an error, changes nothing.
            let transaction = database.begin_write()?;
            let outcomes = tables::apply(&transaction, updates, &self.options, now)?;
            transaction.commit()?;
            Ok(outcomes)
        })
    }
}
