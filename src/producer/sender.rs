//! Sends one broker's batches, in requests over a connection of its own.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::Either;
use futures_util::stream::{FuturesOrdered, StreamExt};
use kafka_protocol::messages::ProduceResponse;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::accumulator::{BatchId, DrainedBatch};
use super::batch::SendOutcome;
use super::request::{self, EncodedBatch, PartitionResponses};
use super::shared::ProducerShared;
use super::supervisor::sleep_until;
use super::verdict::is_stale_leader;
use crate::cluster::{Backoff, DISTANT_ROUND_TRIP};
use crate::config::Compression;
use crate::wire::{Connection, TransactionV2};

/// Maximum number of requests in flight to a broker, whatever their size. Records that are appended
/// meanwhile make larger requests.
const MAX_IN_FLIGHT: usize = 5;
/// Maximum number of large requests in flight to a distant broker: over a long round trip they fill
/// the line, as far as the producer's buffer goes. Each partition keeps to its own limit of batches
/// in flight. A broker nearby is kept busy by [`MAX_IN_FLIGHT`] requests: more of them would be
/// more and smaller batches, each with its own cost at both ends.
const MAX_LARGE_IN_FLIGHT: usize = 64;
/// Divisor of the request timeout that gives the time of a prompt response. After a slower one, no
/// more than [`MAX_IN_FLIGHT`] requests are sent at a time: a line or a broker at the end of its
/// capacity would queue more of them until the last ones time out.
const PROMPT_TIMEOUT_SHARE: u32 = 10;
/// Size from which on a request is compressed on the blocking threads: it then takes longer than
/// two changes of threads.
const BLOCKING_COMPRESS_BYTES: usize = 16 << 10;

/// The outcome of a batch that was sent.
struct BatchResult {
    id: BatchId,
    outcome: SendOutcome,
    /// The batch's buffer, to be pooled if the batch is not retried.
    buffer: Option<Bytes>,
}

/// The times of a completed request that the sender adapts to.
struct RequestResult {
    /// Time for which the broker wants no other request.
    throttle: Duration,
    /// Time until the response; `None` if there was none.
    time: Option<Duration>,
}

/// Sends one broker's batches over a connection of its own.
pub(super) struct BrokerSender {
    shared: Arc<ProducerShared>,
    broker: i32,
    wake: Arc<Notify>,
    backoff: Backoff,
    /// Maximum number of requests that are compressed at a time: while one waits for a core, the
    /// next may still grow.
    encoders: usize,
    /// Shortest response time on the current connection.
    round_trip: Duration,
}

impl BrokerSender {
    pub(super) fn new(shared: Arc<ProducerShared>, broker: i32, wake: Arc<Notify>) -> Self {
        let backoff = shared.cluster().backoff();
        let encoders = std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_IN_FLIGHT));
        Self { shared, broker, wake, backoff, encoders, round_trip: Duration::ZERO }
    }

    pub(super) async fn run(mut self) {
        let cancel = self.shared.cancel.clone();
        let mut throttled = None;
        while let Some(Some(connection)) = cancel.run_until_cancelled(self.connect()).await {
            // Returns when the connection is closed.
            let serve = self.serve(&connection, self.round_trip, &mut throttled);
            let cancelled = cancel.run_until_cancelled(serve).await.is_none();
            connection.close().await;
            if cancelled {
                return;
            }
        }
    }

    /// Returns whether batches are pending; if not, the sender is woken for the next one.
    fn has_pending(&self) -> bool {
        let mut accumulator = self.shared.lock();
        let has_pending = accumulator.has_pending(self.broker);
        if !has_pending {
            accumulator.wake_when_ready(self.broker);
        }
        has_pending
    }

    /// Waits until a batch is pending, then connects, however long that takes: meanwhile the batch
    /// may move to another leader, or expire.
    async fn connect(&mut self) -> Option<Connection> {
        let mut outage = self.shared.cluster().outages().part();
        loop {
            while !self.has_pending() {
                self.wake.notified().await;
            }
            let started = Instant::now();
            match self.shared.cluster().connect(self.broker).await {
                Ok(connection) => {
                    // At least two round trips: of TCP and of ApiVersions.
                    self.round_trip = started.elapsed() / 2;
                    self.shared.lock().set_leader_error(self.broker, None);
                    self.backoff.reset();
                    outage.log_recovery(Instant::now());
                    return Some(connection);
                }
                Err(e) => {
                    if let Some(lasted) = outage.record_failure(Instant::now(), &e) {
                        let (broker, error) = (self.broker, e.full());
                        tracing::warn!(
                            broker,
                            error,
                            "the producer can't connect to the broker, {lasted}; it is retried"
                        );
                    }
                    self.shared.lock().set_leader_error(self.broker, Some(e));
                    self.shared.cluster().refresh_soon(); // other brokers may lead its partitions
                    tokio::time::sleep(self.backoff.next()).await;
                }
            }
        }
    }

    /// Keeps up to [`MAX_IN_FLIGHT`] requests in flight, or more large ones if the fastest response
    /// shows that the broker is distant, until the connection is closed; none before `throttled`,
    /// which the broker sets.
    async fn serve(&self, connection: &Connection, mut fastest: Duration, throttled: &mut Option<Instant>) {
        let prompt_limit = self.shared.client.config().request_timeout / PROMPT_TIMEOUT_SHARE;
        // Requests reach the connection in their order, and the connection keeps it.
        let mut encoding = FuturesOrdered::new();
        let mut in_flight = Vec::with_capacity(MAX_IN_FLIGHT);
        let mut max_in_flight = MAX_IN_FLIGHT;
        // Created once: each costs a lock.
        let (woken, closed) = (self.wake.notified(), connection.closed());
        tokio::pin!(woken, closed);
        loop {
            // The clock is read only if it matters: it costs more than the rest of an idle
            // iteration.
            *throttled = throttled.filter(|until| *until > Instant::now());
            let mut recheck_at = *throttled;
            while recheck_at.is_none()
                && encoding.len() < self.encoders
                && encoding.len() + in_flight.len() < max_in_flight
                && !connection.is_closed()
            {
                let mut accumulator = self.shared.lock();
                if encoding.len() + in_flight.len() >= MAX_IN_FLIGHT {
                    let at = accumulator.large_request_at(Instant::now, self.broker);
                    if at.is_none_or(|at| at > Instant::now()) {
                        accumulator.wake_when_ready(self.broker);
                        recheck_at = at;
                        break;
                    }
                }
                let (batches, next) = accumulator.drain(Instant::now, self.broker);
                recheck_at = next;
                if batches.is_empty() {
                    accumulator.wake_when_ready(self.broker);
                    break;
                }
                drop(accumulator);
                let costly = is_costly_to_compress(&batches);
                if costly || !encoding.is_empty() {
                    encoding.push_back(encode(batches, costly));
                } else {
                    in_flight.push(Box::pin(self.send(connection, encode_all(batches))));
                }
            }
            tokio::select! {
                biased; // no branch is ready forever, and a random choice costs
                result = poll_fn(|cx| poll_first(&mut in_flight, cx)) => {
                    fastest = result.time.map_or(fastest, |time| time.min(fastest));
                    let is_prompt = result.time.is_some_and(|time| time <= prompt_limit);
                    max_in_flight = if fastest >= DISTANT_ROUND_TRIP && is_prompt { MAX_LARGE_IN_FLIGHT } else { MAX_IN_FLIGHT };
                    if !result.throttle.is_zero() {
                        *throttled = (*throttled).max(Some(Instant::now() + result.throttle));
                    }
                }
                Some(batches) = encoding.next(), if throttled.is_none() => in_flight.push(Box::pin(self.send(connection, batches))),
                () = &mut woken => woken.set(self.wake.notified()),
                () = sleep_until(recheck_at) => {}
                // First the requests in flight fail, and their batches return to their queues.
                () = &mut closed, if encoding.is_empty() && in_flight.is_empty() => return,
            }
        }
    }

    /// Sends a request. The future completes its batches.
    fn send<'a>(
        &'a self,
        connection: &'a Connection,
        mut batches: Vec<EncodedBatch>,
    ) -> impl Future<Output = RequestResult> + 'a {
        let timeout = self.shared.client.config().request_timeout;
        let mut unused = batches.iter_mut().filter_map(EncodedBatch::take_unused_buffer).peekable();
        if unused.peek().is_some() {
            let mut accumulator = self.shared.lock();
            unused.for_each(|buffer| accumulator.recycle_buffer(buffer));
        }
        self.shared.metrics.report_buffer(&self.shared.memory);
        batches.iter().for_each(|batch| batch.report_encoded(&self.shared.metrics.reporter));
        // Not in the future below: the order of the calls is the order on the wire.
        let sent = !connection.is_closed();
        let transactional_id = self.shared.transactions.as_ref().map(|t| Arc::clone(&t.transactional_id));
        let leaders_add = transactional_id.is_some() && self.shared.lock().leaders_add();
        let request = request::produce_request(&batches, self.shared.config.acks, timeout, transactional_id);
        let sent_at = Instant::now();
        let response = match leaders_add {
            true => Either::Left(connection.submit(TransactionV2(request), timeout)),
            false => Either::Right(connection.submit(request, timeout)),
        };
        async move {
            let response = response.await;
            let mut throttle = Duration::ZERO;
            let time = response.is_ok().then(|| sent_at.elapsed());
            let results: Vec<_> = match response {
                Ok(response) => {
                    throttle = Duration::from_millis(response.throttle_time_ms.try_into().unwrap_or(0));
                    connection.report_throttle("Produce", throttle);
                    self.process_response(connection, &response, batches)
                }
                Err(e) => {
                    tracing::debug!(broker = self.broker, error = %e.full(), "a produce request failed");
                    self.shared.cluster().refresh_soon();
                    let outcome = |b| request::outcome_without_response(b, &e, sent, |n| self.retry_backoff(n));
                    batches.into_iter().map(|b| self.batch_result(b, outcome)).collect()
                }
            };
            let mut finished = Vec::with_capacity(results.len());
            let mut accumulator = self.shared.lock();
            let now = Instant::now();
            for BatchResult { id, outcome, buffer } in results {
                accumulator.complete(now, id, outcome, &mut finished);
                if let Some(Ok(mut buffer)) = buffer.map(Bytes::try_into_mut) {
                    buffer.clear(); // its bytes would be copied
                    accumulator.recycle_buffer(buffer.into());
                }
            }
            drop(accumulator);
            self.shared.resolve_batches(finished);
            RequestResult { throttle, time }
        }
    }

    fn process_response(
        &self,
        connection: &Connection,
        response: &ProduceResponse,
        batches: Vec<EncodedBatch>,
    ) -> Vec<BatchResult> {
        let mut is_stale = false;
        let responses = PartitionResponses::new(response);
        let results = batches
            .into_iter()
            .map(|batch| {
                let response = responses.get(&batch.topic, batch.partition);
                is_stale |= response.is_some_and(|r| is_stale_leader(r.error_code));
                let outcome =
                    |b| request::outcome_of_response(b, response, connection.peer(), |n| self.retry_backoff(n));
                self.batch_result(batch, outcome)
            })
            .collect();
        if is_stale {
            self.shared.cluster().refresh_soon();
        }
        results
    }

    fn batch_result(&self, batch: EncodedBatch, outcome: impl FnOnce(EncodedBatch) -> SendOutcome) -> BatchResult {
        let (id, topic, buffer) = (batch.id, Arc::clone(&batch.topic), batch.reusable_buffer());
        let outcome = outcome(batch);
        self.shared.metrics.report_outcome(&topic, &outcome);
        BatchResult { id, outcome, buffer }
    }

    /// Returns the backoff of a batch after so many attempts.
    fn retry_backoff(&self, attempts: u32) -> Duration {
        let mut backoff = self.shared.cluster().backoff();
        for _ in 0..attempts.min(16) {
            backoff.next();
        }
        backoff.next()
    }
}

/// Polls a few futures and removes the first that is ready; the others keep their order. Cheaper
/// for so few than a `FuturesUnordered`, whose task is polled another time for each new future.
fn poll_first<F: Future>(few: &mut Vec<Pin<Box<F>>>, cx: &mut Context<'_>) -> Poll<F::Output> {
    for at in 0..few.len() {
        if let Poll::Ready(output) = few[at].as_mut().poll(cx) {
            drop(few.remove(at));
            return Poll::Ready(output);
        }
    }
    Poll::Pending
}

/// Returns whether compressing the batches takes longer than a change of threads.
fn is_costly_to_compress(batches: &[DrainedBatch]) -> bool {
    let compressed = batches.iter().filter(|b| b.compression != Compression::None && b.payload.is_plain());
    compressed.map(|b| b.payload.size()).sum::<usize>() >= BLOCKING_COMPRESS_BYTES
}

fn encode_all(batches: Vec<DrainedBatch>) -> Vec<EncodedBatch> {
    batches.into_iter().map(EncodedBatch::from).collect()
}

/// Encodes batches, here or on a blocking thread.
async fn encode(batches: Vec<DrainedBatch>, blocking: bool) -> Vec<EncodedBatch> {
    if !blocking {
        return encode_all(batches);
    }
    match tokio::task::spawn_blocking(move || encode_all(batches)).await {
        Ok(encoded) => encoded,
        // The runtime is shutting down, and this task with it.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn first_ready_future_is_removed_and_others_keep_their_order() {
        let (mut senders, mut few): (Vec<_>, Vec<_>) = (0..3)
            .map(|_| {
                let (sender, receiver) = oneshot::channel::<u8>();
                (Some(sender), Box::pin(receiver))
            })
            .unzip();
        let mut next = || poll_fn(|cx| poll_first(&mut few, cx)).now_or_never();
        assert_eq!(next(), None);
        for at in [1, 0, 2] {
            assert!(senders[at].take().is_some_and(|s| s.send(at as u8).is_ok()));
            assert_eq!(next(), Some(Ok(at as u8)));
            assert_eq!(next(), None);
        }
    }
}
