//! The task of a relay, around its window.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::outbox::{FetchRows, OutboxRow, OutboxStore};
use super::window::Window;
use super::{RelayShared, RelayState, Settings};
use crate::cluster::Backoff;
use crate::error::Result;
use crate::failure::Outage;
use crate::producer::Producer;
use crate::timestamp::Timestamp;

/// Delays between attempts to reach the database.
const STORE_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// First delay before a row is sent again; it doubles with each attempt.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// Maximum delay before a row is sent again after an outage.
const MAX_OUTAGE_RETRY: Duration = Duration::from_secs(5);
/// Maximum delay before a row is sent again that was rejected.
const MAX_REJECTED_RETRY: Duration = Duration::from_secs(300);
/// Maximum time in which the producer closes: nothing is in flight any more.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

type Sending = BoxFuture<'static, (OutboxRow, Result<()>)>;

pub(super) struct RelayTask<S> {
    store: S,
    producer: Producer,
    settings: Settings,
    health: Arc<RelayShared>,
    stop: CancellationToken,
    window: Window,
    sends: FuturesUnordered<Sending>,
    /// Time of the next look into the outbox.
    next_fetch: Instant,
    /// Time of the next attempt to reach the database, after an error.
    next_attempt: Option<Instant>,
    backoff: Backoff,
    /// Outage of the database.
    outage: Outage,
    /// Outage of the brokers: one warning for all rows that can't be sent.
    send_outage: Outage,
    /// The last row that could not be sent, until one is acknowledged.
    failing_row: Option<String>,
}

impl<S: OutboxStore> RelayTask<S> {
    pub(super) fn new(
        store: S,
        producer: Producer,
        settings: Settings,
        health: Arc<RelayShared>,
        stop: CancellationToken,
    ) -> Self {
        let (first, max) = STORE_BACKOFF;
        Self {
            store,
            producer,
            settings,
            health,
            stop,
            window: Window::default(),
            sends: FuturesUnordered::new(),
            next_fetch: Instant::now(),
            next_attempt: None,
            backoff: Backoff::new(first, max),
            outage: Outage::default(),
            send_outage: Outage::default(),
            failing_row: None,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let stopping = self.stop.is_cancelled();
            if stopping {
                self.window.drop_queued();
            }
            let may_reach_store = self.next_attempt.is_none_or(|at| at <= Instant::now());
            if may_reach_store && self.window.has_settled() {
                let result = self.settle().await;
                self.on_store_result(result);
                continue;
            }
            if stopping && self.sends.is_empty() && !self.window.has_settled() {
                break;
            }
            if !stopping && may_reach_store && self.has_room() && self.next_fetch <= Instant::now() {
                let result = self.fetch().await;
                self.on_store_result(result);
            }
            while let Some(row) = self.window.poll_send() {
                self.sends.push(send(self.producer.clone(), row).boxed());
            }
            self.wait(stopping).await;
            self.report();
        }
        if let Err(error) = self.producer.close(CLOSE_TIMEOUT).await {
            tracing::warn!(error = %error.full(), "the producer of the outbox's relay did not close");
        }
        self.health.lock().state = RelayState::Closed;
    }

    /// Waits until there is something to do.
    async fn wait(&mut self, stopping: bool) {
        let fetches = !stopping && self.has_room();
        let healthy = self.next_attempt.is_none();
        let next_fetch = Some(self.next_fetch).filter(|_| fetches && healthy);
        let wake = self.next_attempt.or(next_fetch);
        tokio::select! {
            Some((row, result)) = self.sends.next(), if !self.sends.is_empty() => {
                self.on_sent(&row, result);
                // Together, so that one statement removes all of them.
                while let Some(Some((row, result))) = self.sends.next().now_or_never() {
                    self.on_sent(&row, result);
                }
            }
            () = self.stop.cancelled(), if !stopping => {}
            () = sleep_until(wake) => {}
            () = self.store.added(), if fetches && healthy => self.next_fetch = Instant::now(),
        }
        if self.next_attempt.is_some_and(|at| at <= Instant::now()) {
            self.next_fetch = Instant::now();
        }
    }

    /// Returns whether rows are fetched: not before half of the window is free, so that a statement
    /// brings many.
    fn has_room(&self) -> bool {
        let (rows, bytes) = self.window.size();
        rows <= self.settings.max_rows / 2 && bytes <= self.settings.max_bytes / 2
    }

    async fn fetch(&mut self) -> Result<()> {
        let (rows, bytes) = self.window.size();
        let Settings { max_rows, max_bytes, poll_interval } = self.settings;
        let request = FetchRows {
            max_rows: (max_rows - rows).max(1),
            max_bytes: max_bytes.saturating_sub(bytes).max(1),
            except: self.window.ids(),
        };
        let fetched = self.store.fetch(&request).await?;
        let state = if fetched.is_some() { RelayState::Active } else { RelayState::Standby };
        let was = std::mem::replace(&mut self.health.lock().state, state);
        if was != state {
            tracing::info!(?state, "the relay of the outbox");
        }
        match fetched {
            // There may be more: the next look is due as soon as there is room.
            Some(rows) if !rows.is_empty() => self.window.on_rows(rows),
            Some(_) => self.next_fetch = Instant::now() + poll_interval,
            None => {
                self.window.drop_queued();
                self.next_fetch = Instant::now() + poll_interval;
            }
        }
        self.health.lock().last_read = Some(Timestamp::now());
        Ok(())
    }

    /// Removes the rows that are acknowledged, and defers those that could not be sent.
    async fn settle(&mut self) -> Result<()> {
        if !self.window.acknowledged().is_empty() {
            self.store.remove(self.window.acknowledged()).await?;
            self.window.on_removed();
        }
        if !self.window.failed().is_empty() {
            self.store.defer(self.window.failed()).await?;
            self.window.on_deferred();
        }
        Ok(())
    }

    fn on_store_result(&mut self, result: Result<()>) {
        let now = Instant::now();
        match result {
            Ok(()) => {
                self.backoff.reset();
                self.next_attempt = None;
                if let Some(lasted) = self.outage.record_recovery(now) {
                    tracing::warn!("the outbox can be reached again after {lasted}");
                }
            }
            Err(error) => {
                self.next_attempt = Some(now + self.backoff.next());
                match self.outage.record_failure(now, &error) {
                    Some(lasted) => tracing::warn!(
                        error = %error.full(),
                        "the outbox can't be reached, {lasted}; it is retried, and no row is lost"
                    ),
                    None => tracing::debug!(error = %error.full(), "the outbox can't be reached"),
                }
            }
        }
        self.report();
    }

    fn on_sent(&mut self, row: &OutboxRow, result: Result<()>) {
        let Err(error) = result else {
            self.window.on_acknowledged(row.id);
            self.failing_row = None;
            self.health.lock().acknowledged += 1;
            if let Some(lasted) = self.send_outage.record_recovery(Instant::now()) {
                tracing::warn!("the rows of the outbox can be sent again after {lasted}");
            }
            return;
        };
        let is_outage = error.is_retriable() || error.is_indeterminate() || error.is_closed();
        let max = if is_outage { MAX_OUTAGE_RETRY } else { MAX_REJECTED_RETRY };
        let retry_after = FIRST_RETRY.saturating_mul(1_u32.checked_shl(row.attempts).unwrap_or(u32::MAX)).min(max);
        let OutboxRow { id, event_id, topic, .. } = row;
        let what = format!("row {id} of the outbox (event {event_id}, topic {topic}): {}", error.full());
        if is_outage {
            match self.send_outage.record_failure(Instant::now(), &error) {
                Some(lasted) => tracing::warn!("records can't be sent, {lasted}; they are retried: {what}"),
                None => tracing::debug!("a record can't be sent and is retried after {retry_after:?}: {what}"),
            }
        } else if row.attempts == 0 {
            // Logged once; it is then in the table with its error.
            tracing::warn!("a record can't be sent and is retried after {retry_after:?}: {what}");
        }
        self.window.on_failed(*id, retry_after, error.full());
        self.failing_row = Some(what);
        self.health.lock().failed += 1;
    }

    fn report(&self) {
        let outage = self.outage.ongoing().map(|o| format!("the database {}", o.describe(Instant::now())));
        let mut health = self.health.lock();
        health.in_flight = self.window.in_flight();
        health.problem = outage.or_else(|| self.failing_row.clone());
    }
}

/// Sends a record and waits until it is acknowledged.
async fn send(producer: Producer, row: OutboxRow) -> (OutboxRow, Result<()>) {
    let headers = row.headers();
    let result = async { producer.send(row.record(&headers)).await?.await.map(drop) }.await;
    (row, result)
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
