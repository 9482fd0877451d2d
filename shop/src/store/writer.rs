//! The thread that writes: what is waiting goes into one transaction.

use std::sync::Arc;

use ailurus::Result;
use chrono::Utc;
use tokio::sync::{mpsc, oneshot};

use super::disk::Disk;
use super::tables::{self, Update};
use super::{StoreOptions, failed};
use crate::Outcome;

/// Updates of one commit at most.
const BATCH: usize = 1024;

/// An update, and who waits for it.
#[derive(Debug)]
pub(super) struct Request {
    update: Update,
    answer: oneshot::Sender<Result<Outcome>>,
}

impl Request {
    pub(super) fn new(update: Update) -> (Self, oneshot::Receiver<Result<Outcome>>) {
        let (answer, receiver) = oneshot::channel();
        (Self { update, answer }, receiver)
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

    /// Until all senders are gone and all they sent is answered.
    pub(super) fn run(mut self) {
        while self.turn() > 0 {}
    }

    /// Waits for an update, then commits all that are waiting, and answers. How many there were; 0 at the end.
    pub(super) fn turn(&mut self) -> usize {
        let mut requests = Vec::new();
        let count = self.queue.blocking_recv_many(&mut requests, BATCH);
        if count == 0 {
            return 0;
        }
        let now = u64::try_from(Utc::now().timestamp_millis()).unwrap_or(0);
        let updates: Vec<&Update> = requests.iter().map(|request| &request.update).collect();
        match self.commit(&updates, now) {
            // A caller that went away meanwhile has its update all the same.
            Ok(outcomes) => {
                for (request, outcome) in requests.into_iter().zip(outcomes) {
                    let _ = request.answer.send(outcome);
                }
            }
            Err(error) => {
                let error = failed(&self.name, "writing", &error);
                tracing::error!(updates = count, "{error}");
                for request in requests {
                    let _ = request.answer.send(Err(error.clone()));
                }
            }
        }
        count
    }

    fn commit(&self, updates: &[&Update], now: u64) -> Result<Vec<Result<Outcome>>, redb::Error> {
        self.disk.with(|database| {
            // Dropped before its commit, as on an error in between, a transaction leaves nothing behind.
            let transaction = database.begin_write()?;
            let outcomes = tables::apply(&transaction, updates, &self.options, now)?;
            transaction.commit()?;
            Ok(outcomes)
        })
    }
}
