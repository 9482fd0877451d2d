//! Handles the records of one partition, in order.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::Utc;
use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Outcome;
use super::dead_letter::{DeadLetters, Failure};
use super::handler::Call;
use super::letter::describe;
use super::state::{Progress, SubscriptionState};
use crate::cluster::Backoff;
use crate::config::ProcessorConfig;
use crate::consumer::{Message, Records};
use crate::error::{Error, ErrorKind};

/// The waits between two tries of a dead letter.
const DEAD_LETTER_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// What all workers of a subscription share.
pub(super) struct Context {
    pub(super) handler: Arc<Call>,
    pub(super) dead_letters: DeadLetters,
    pub(super) config: ProcessorConfig,
    pub(super) shared: Arc<SubscriptionState>,
    /// The first error that ends the subscription.
    pub(super) fatal: mpsc::Sender<Error>,
}

pub(super) struct Worker {
    pub(super) context: Arc<Context>,
    pub(super) progress: Arc<Progress>,
    /// Bounded by the consumer: what it holds counts as fetched and not taken.
    pub(super) records: mpsc::UnboundedReceiver<Records>,
    /// Cancelled when the partition is to be given up: the record in hand is finished, no other is begun.
    pub(super) stop: CancellationToken,
}

impl Worker {
    pub(super) async fn run(mut self) {
        loop {
            let records = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                records = self.records.recv() => records,
            };
            let Some(mut records) = records else { return };
            self.progress.fetched(records.end_offset());
            let (topic, partition) = (Arc::clone(&records.topic), records.partition);
            for record in std::mem::take(&mut records.records) {
                let next = record.offset + 1;
                let message = Message::new(Arc::clone(&topic), partition, record);
                if self.stop.is_cancelled() || !self.handle(message).await {
                    return;
                }
                self.progress.ended(next);
            }
            self.progress.ended(records.next_offset);
        }
    }

    /// Whether the record has ended; if not, the partition was given up before.
    async fn handle(&self, mut message: Message) -> bool {
        let config = &self.context.config;
        let mut backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
        let mut first = None;
        let stopping = Arc::new(self.stop.clone());
        message.stopping = Some(Arc::clone(&stopping));
        loop {
            let place = format!("{}/{}@{}", message.topic, message.partition, message.offset);
            let attempt = message.attempt;
            let (after, error, last_attempt) = match self.attempt(message.clone()).await {
                Outcome::Done => {
                    self.context.shared.handled.fetch_add(1, Ordering::Relaxed);
                    return true;
                }
                Outcome::Retry { after, error } => (after, error, attempt >= config.max_attempts),
                Outcome::DeadLetter { error } => (None, error, true),
                Outcome::Stop { error } => {
                    let what = format!("the handler ended the subscription at {place}");
                    _ = self.context.fatal.try_send(Error::with_source(ErrorKind::Handler, what, error));
                    self.stop.cancel();
                    return false;
                }
            };
            self.context.shared.failed.fetch_add(1, Ordering::Relaxed);
            let last = Utc::now();
            let first = *first.get_or_insert(last);
            if last_attempt {
                tracing::error!(record = %place, attempt, error = %describe(&*error), "the handler failed for the last time");
                let failure = Failure { error, attempts: attempt, first, last };
                return self.bury(&message, &failure).await;
            }
            let wait = after.unwrap_or_else(|| backoff.next());
            tracing::warn!(record = %place, attempt, error = %describe(&*error), retry_in = ?wait, "the handler failed");
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = tokio::time::sleep(wait) => message.attempt += 1,
            }
        }
    }

    /// One call of the handler; a panic counts as a failure.
    async fn attempt(&self, message: Message) -> Outcome {
        let handler = &self.context.handler;
        let outcome = AssertUnwindSafe(async { handler(message).await }).catch_unwind().await;
        outcome.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into());
            Outcome::retry(format!("the handler panicked: {text}"))
        })
    }

    /// Writes the dead letter, however long that takes; the partition waits meanwhile.
    async fn bury(&self, message: &Message, failure: &Failure) -> bool {
        let dead_letters = &self.context.dead_letters;
        let topic = dead_letters.topic_of(message);
        let (first, max) = DEAD_LETTER_BACKOFF;
        let mut backoff = Backoff::new(first, max);
        self.progress.pause(Some(format!("the dead letter of offset {} is being written to {topic}", message.offset)));
        loop {
            let error = match dead_letters.write(message, failure).await {
                Ok(()) => {
                    self.progress.pause(None);
                    self.context.shared.dead.fetch_add(1, Ordering::Relaxed);
                    return true;
                }
                Err(e) => e.full(),
            };
            tracing::error!(%topic, offset = message.offset, %error, "a dead letter can't be written: the partition waits");
            let why = format!("the dead letter of offset {} can't be written to {topic}: {error}", message.offset);
            self.progress.pause(Some(why));
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = tokio::time::sleep(backoff.next()) => {}
            }
        }
    }
}
