//! The tasks of a producer: one sender per broker, one that keeps leaders and deadlines, one that keeps its producer_id.
//!
//! The accumulator is behind one lock, held for as long as an append takes. A sender is woken only when there is something
//! new for its broker: a batch's first record, a batch that is full, or the end of the batch in front of another.

use std::collections::{BTreeMap, HashSet};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesOrdered, StreamExt};
use kafka_protocol::messages::ProduceResponse;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accumulator::{Accumulator, AccumulatorConfig, BatchId, DrainedBatch, NO_LEADER};
use super::batch::{FinishedBatch, SendOutcome};
use super::metrics::ProducerMetrics;
use super::producer_id;
use super::request::{self, EncodedBatch, PartitionResponses};
use super::send::METADATA_PROPAGATION;
use super::verdict::is_stale_leader;
use crate::cluster::{Backoff, Client, Cluster, DISTANT_ROUND_TRIP, TopicMeta};
use crate::code;
use crate::config::{Compression, ProducerConfig};
use crate::lock::Lock;
use crate::wire::Connection;

/// Number of requests to one broker that may be in flight whatever their size. What comes while so many are makes larger ones.
const MAX_IN_FLIGHT: usize = 5;
/// Number of large requests to one broker far away that may be in flight: where a round trip is long, they fill the line, as far
/// as the producer's buffer goes. Each partition keeps to its own bound of batches in flight. A broker nearby is kept busy by
/// [`MAX_IN_FLIGHT`] requests: more of them would be more and smaller batches, which cost it and us the more, the more partitions there
/// are.
const MAX_LARGE_IN_FLIGHT: usize = 64;
/// Share of the request timeout that an answer may take before no more than [`MAX_IN_FLIGHT`] requests are sent at a time: a line
/// or a broker that is prompt_limit for want of capacity is not given more to hold, or the last ones would time out.
const PROMPT_TIMEOUT_SHARE: u32 = 10;
/// From this size on a request is compressed on the threads for blocking work: it takes longer than handing it over.
const BLOCKING_COMPRESS_BYTES: usize = 16 << 10;

/// What handles, senders and the supervisor share.
#[derive(Debug)]
pub(super) struct ProducerShared {
    pub(super) client: Client,
    /// Whether brokers are asked to create topics that do not exist, if the settings allow it.
    pub(super) creates_topics: bool,
    pub(super) config: ProducerConfig,
    /// Whether records get spans of their own.
    pub(super) traced: bool,
    state: Lock<SharedState>,
    /// Free bytes of the buffer; fair to those who wait.
    pub(super) memory: Semaphore,
    pub(super) metrics: ProducerMetrics,
    /// Wakes the supervisor.
    supervisor: Notify,
    /// Wakes the task that keeps the producer's producer_id.
    pub(super) producer_id: Notify,
    pub(super) cancel: CancellationToken,
    pub(super) tasks: TaskTracker,
}

#[derive(Debug)]
struct SharedState {
    accumulator: Accumulator,
    senders: BTreeMap<i32, SenderWaker>,
    /// Topics that are looked up for callers who do not wait.
    lookups: HashSet<String>,
    closed: bool,
}

/// Wakes the sender of a broker.
#[derive(Debug)]
struct SenderWaker {
    notify: Arc<Notify>,
    /// Whether the sender found nothing to send when it looked last. One that has as many requests in flight as it may have looks
    /// again when one of them ends: to wake it before, once for each batch, costs as much as to send the batch.
    ///
    /// Both sides change it under the lock of [`SharedState`]: either the sender finds what was appended, or the append finds this set.
    is_waiting: bool,
}

/// The accumulator, locked; wakes whom it has to when it is let go.
pub(super) struct AccumulatorGuard<'a> {
    state: MutexGuard<'a, SharedState>,
    supervisor: &'a Notify,
}

impl AccumulatorGuard<'_> {
    pub(super) fn is_closed(&self) -> bool {
        self.state.closed
    }

    /// Whether a topic is to be looked up now: it is not if someone does it already.
    pub(super) fn try_start_lookup(&mut self, topic: &str) -> bool {
        !self.state.closed && self.state.lookups.insert(topic.to_owned())
    }

    pub(super) fn finish_lookup(&mut self, topic: &str) {
        self.state.lookups.remove(topic);
    }

    /// Has a sender woken when there is something to send to its broker.
    fn wake_when_ready(&mut self, broker: i32) {
        if let Some(waker) = self.state.senders.get_mut(&broker) {
            waker.is_waiting = true;
        }
    }

    /// No more records; tells whether it was closed before.
    pub(super) fn close(&mut self) -> bool {
        std::mem::replace(&mut self.state.closed, true)
    }
}

impl std::ops::Deref for AccumulatorGuard<'_> {
    type Target = Accumulator;
    fn deref(&self) -> &Accumulator {
        &self.state.accumulator
    }
}

impl std::ops::DerefMut for AccumulatorGuard<'_> {
    fn deref_mut(&mut self) -> &mut Accumulator {
        &mut self.state.accumulator
    }
}

impl Drop for AccumulatorGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        let SharedState { accumulator, senders, .. } = &mut *self.state;
        for leader in accumulator.take_wakeups() {
            match senders.get_mut(&leader) {
                Some(waker) => {
                    if std::mem::take(&mut waker.is_waiting) {
                        waker.notify.notify_one();
                    }
                }
                None => self.supervisor.notify_one(), // it starts senders, and looks for leaders
            }
        }
    }
}

impl ProducerShared {
    pub(super) fn start(client: &Client, config: ProducerConfig, creates_topics: bool) -> Arc<Self> {
        let request_timeout = client.config().request_timeout;
        // A producer that may not create topics serves a caller that does, once the records of a deleted one have failed.
        let missing_timeout = if creates_topics { request_timeout } else { METADATA_PROPAGATION.min(request_timeout) };
        let settings = AccumulatorConfig::new(&config, missing_timeout);
        let accumulator = Accumulator::new(settings, fastrand::u64(..));
        let shared = Arc::new(Self {
            client: client.clone(),
            creates_topics,
            traced: client.config().propagation.is_on(),
            memory: Semaphore::new(config.buffer_memory),
            metrics: ProducerMetrics::new(&client.config().metrics, &config),
            config,
            state: Lock::new(SharedState {
                accumulator,
                senders: BTreeMap::new(),
                lookups: HashSet::new(),
                closed: false,
            }),
            supervisor: Notify::new(),
            producer_id: Notify::new(),
            cancel: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn(supervise(Arc::clone(&shared)));
        if shared.config.idempotence {
            shared.tasks.spawn(producer_id::run(Arc::clone(&shared)));
        }
        shared
    }

    #[inline]
    pub(super) fn lock(&self) -> AccumulatorGuard<'_> {
        let state = self.state.lock();
        AccumulatorGuard { state, supervisor: &self.supervisor }
    }

    pub(super) fn cluster(&self) -> &Cluster {
        self.client.cluster()
    }

    /// Frees what batches held and tells their handles. Not under the lock: tasks are woken.
    pub(super) fn resolve_batches(&self, finished: impl IntoIterator<Item = FinishedBatch>) {
        let now = self.metrics.now_if_on();
        for batch in finished {
            if let Err(e) = &batch.result {
                // A target of its own: a program that reports each delivery itself need not hear of it twice.
                tracing::warn!(
                    target: "ailurus::undelivered",
                    error = %e.full(),
                    records = batch.records,
                    "records were not delivered"
                );
            }
            self.metrics.report_finished(now, &batch);
            self.memory.add_permits(batch.freed_bytes);
            batch.completion.resolve(batch.first_record, batch.records, batch.result);
        }
        self.metrics.report_buffer(&self.memory);
    }

    /// Takes a topic into use.
    pub(super) fn track_topic(&self, topic: &TopicMeta) {
        self.apply_metadata(topic);
        let interest = self.cluster().interest(&topic.name);
        self.lock().track_use(&topic.name, interest);
    }

    fn apply_metadata(&self, topic: &TopicMeta) {
        let leaders: Vec<_> = topic.partitions.iter().map(|p| p.leader).collect();
        let finished = self.lock().update_topic(Instant::now(), &topic.name, topic.id, Some(&leaders));
        self.resolve_batches(finished);
    }
}

/// Brings leaders from metadata to the accumulator, starts senders, fails what is too old.
async fn supervise(shared: Arc<ProducerShared>) {
    let mut metadata = shared.cluster().updated();
    let mut backoff = shared.cluster().backoff();
    let mut expiry = Instant::now() + shared.config.delivery_timeout;
    // While partitions with batches have no leader, metadata is asked for again and again.
    let mut ask = None::<Instant>;
    loop {
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            () = shared.supervisor.notified() => {}
            Ok(()) = metadata.changed() => {
                update_leaders(&shared);
                expiry = Instant::now(); // a topic that is missing has a deadline of its own
            }
            () = tokio::time::sleep_until(expiry) => {
                let (finished, next) = shared.lock().expire(Instant::now());
                expiry = next;
                shared.resolve_batches(finished);
            }
            () = sleep_until(ask) => {
                ask = None;
                shared.cluster().refresh_soon();
            }
        }
        start_senders(&shared);
        let locked = shared.lock();
        let leaderless = locked.has_pending(NO_LEADER);
        if locked.needs_producer_id() {
            shared.producer_id.notify_one();
        }
        drop(locked);
        if !leaderless {
            ask = None;
            backoff.reset();
        } else if ask.is_none() {
            ask = Some(Instant::now() + backoff.next());
        }
    }
}

/// Sleeps until then, or for ever.
async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

fn update_leaders(shared: &ProducerShared) {
    let snapshot = shared.cluster().snapshot();
    let names = shared.lock().topic_names();
    shared.lock().touch_pending_topics();
    for name in names {
        match snapshot.topics.get(&name) {
            Some(topic) => shared.apply_metadata(topic),
            None if snapshot.failed.get(&name) == Some(&code::UNKNOWN_TOPIC_OR_PARTITION) => {
                let finished = shared.lock().update_topic(Instant::now(), &name, None, None);
                shared.resolve_batches(finished);
            }
            // Not in use any more; but records may wait that were sent long ago.
            None if !snapshot.failed.contains_key(&name) && !shared.lock().forget_topic(&name) => {
                _ = shared.cluster().interest(&name);
                shared.cluster().refresh_soon();
            }
            None => {}
        }
    }
}

fn start_senders(shared: &Arc<ProducerShared>) {
    let mut locked = shared.lock();
    for broker in locked.leaders_with_pending() {
        locked.state.senders.entry(broker).or_insert_with(|| {
            let notify = Arc::new(Notify::new());
            shared.tasks.spawn(BrokerSender::new(Arc::clone(shared), broker, Arc::clone(&notify)).run());
            SenderWaker { notify, is_waiting: false } // it looks first
        });
    }
}

/// What became of a batch that was sent.
struct BatchResult {
    id: BatchId,
    outcome: SendOutcome,
    /// To be used again, if the batch is not sent again.
    buffer: Option<Bytes>,
}

/// What a sender needs to know of a request that has finished.
struct RequestResult {
    /// For how long the broker wants no other.
    throttle: Duration,
    /// Time until the response came; none if none came.
    time: Option<Duration>,
}

/// Sends one broker's batches over a connection of its own.
struct BrokerSender {
    shared: Arc<ProducerShared>,
    broker: i32,
    wake: Arc<Notify>,
    backoff: Backoff,
    /// Requests that are compressed at a time: what waits for a core might as well grow.
    encoders: usize,
    /// Time of the fastest response on the current connection.
    round_trip: Duration,
}

impl BrokerSender {
    fn new(shared: Arc<ProducerShared>, broker: i32, wake: Arc<Notify>) -> Self {
        let backoff = shared.cluster().backoff();
        let encoders = std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_IN_FLIGHT));
        Self { shared, broker, wake, backoff, encoders, round_trip: Duration::ZERO }
    }

    async fn run(mut self) {
        let cancel = self.shared.cancel.clone();
        let mut throttled = None;
        while let Some(Some(connection)) = cancel.run_until_cancelled(self.connect()).await {
            // Ends by itself when the connection does.
            let serve = self.serve(&connection, self.round_trip, &mut throttled);
            let cancelled = cancel.run_until_cancelled(serve).await.is_none();
            connection.close().await;
            if cancelled {
                return;
            }
        }
    }

    fn has_pending(&self) -> bool {
        let mut locked = self.shared.lock();
        let has_pending = locked.has_pending(self.broker);
        if !has_pending {
            locked.wake_when_ready(self.broker);
        }
        has_pending
    }

    /// Waits until there is something to send, then connects, however long that takes: what waits may meanwhile move to
    /// another leader, or expire.
    async fn connect(&mut self) -> Option<Connection> {
        loop {
            while !self.has_pending() {
                self.wake.notified().await;
            }
            let began = Instant::now();
            match self.shared.cluster().connect(self.broker).await {
                Ok(connection) => {
                    // Two round trips at least: that of TCP, and the one that agrees on versions.
                    self.round_trip = began.elapsed() / 2;
                    self.shared.lock().set_leader_error(self.broker, None);
                    self.backoff.reset();
                    return Some(connection);
                }
                Err(e) => {
                    tracing::warn!(broker = self.broker, error = %e.full(), "the producer can't connect");
                    self.shared.lock().set_leader_error(self.broker, Some(e));
                    self.shared.cluster().refresh_soon(); // it may lead no more
                    tokio::time::sleep(self.backoff.next()).await;
                }
            }
        }
    }

    /// Keeps up to [`MAX_IN_FLIGHT`] requests in flight, or more that are large if the fastest round trip says that the broker is far
    /// away, until the connection ends; none before `throttled`, which the broker sets.
    async fn serve(&self, connection: &Connection, mut fastest: Duration, throttled: &mut Option<Instant>) {
        let prompt_limit = self.shared.client.config().request_timeout / PROMPT_TIMEOUT_SHARE;
        // In order up to the connection, which keeps the order to the broker.
        let mut encoding = FuturesOrdered::new();
        let mut in_flight = Vec::with_capacity(MAX_IN_FLIGHT);
        let mut max_in_flight = MAX_IN_FLIGHT;
        // Made once: each costs a lock.
        let (woken, closed) = (self.wake.notified(), connection.closed());
        tokio::pin!(woken, closed);
        loop {
            // Reading the clock costs more than the rest of a turn in which there is nothing to do.
            *throttled = throttled.filter(|until| *until > Instant::now());
            let mut recheck_at = *throttled;
            while recheck_at.is_none()
                && encoding.len() < self.encoders
                && encoding.len() + in_flight.len() < max_in_flight
                && !connection.is_closed()
            {
                let mut locked = self.shared.lock();
                if encoding.len() + in_flight.len() >= MAX_IN_FLIGHT {
                    let at = locked.large_request_at(Instant::now, self.broker);
                    if at.is_none_or(|at| at > Instant::now()) {
                        locked.wake_when_ready(self.broker);
                        recheck_at = at;
                        break;
                    }
                }
                let (batches, next) = locked.drain(Instant::now, self.broker);
                recheck_at = next;
                if batches.is_empty() {
                    locked.wake_when_ready(self.broker);
                    break;
                }
                drop(locked);
                let costly = is_costly_to_compress(&batches);
                if costly || !encoding.is_empty() {
                    encoding.push_back(encode(batches, costly));
                } else {
                    in_flight.push(Box::pin(self.send(connection, encode_all(batches))));
                }
            }
            tokio::select! {
                biased; // nothing here is ready for ever, and to choose at random is not free
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
                // What is on the way fails at once and goes back to its queues first.
                () = &mut closed, if encoding.is_empty() && in_flight.is_empty() => return,
            }
        }
    }
}

impl BrokerSender {
    /// Sends a request and brings each of its batches to its outcome.
    fn send<'a>(
        &'a self,
        connection: &'a Connection,
        mut batches: Vec<EncodedBatch>,
    ) -> impl Future<Output = RequestResult> + 'a {
        let timeout = self.shared.client.config().request_timeout;
        let mut free = batches.iter_mut().filter_map(EncodedBatch::take_spare_buffer).peekable();
        if free.peek().is_some() {
            let mut locked = self.shared.lock();
            free.for_each(|buffer| locked.recycle_buffer(buffer));
        }
        self.shared.metrics.report_buffer(&self.shared.memory);
        batches.iter().for_each(|batch| batch.report_encoded(&self.shared.metrics.reporter));
        // Not in the future below: the order of these calls is the order on the wire.
        let sent = !connection.is_closed();
        let request = request::produce_request(&batches, self.shared.config.acks, timeout);
        let sent_at = Instant::now();
        let response = connection.submit(request, timeout);
        async move {
            let response = response.await;
            let mut throttle = Duration::ZERO;
            let time = response.is_ok().then(|| sent_at.elapsed());
            let outcomes: Vec<_> = match response {
                Ok(response) => {
                    throttle = Duration::from_millis(response.throttle_time_ms.try_into().unwrap_or(0));
                    connection.report_throttle("Produce", throttle);
                    self.process_response(connection, &response, batches)
                }
                Err(e) => {
                    tracing::debug!(broker = self.broker, error = %e.full(), "a produce request failed");
                    self.shared.cluster().refresh_soon();
                    let judge = |b| {
                        self.batch_result(b, |b| {
                            request::outcome_without_response(b, &e, sent, |n| self.retry_backoff(n))
                        })
                    };
                    batches.into_iter().map(judge).collect()
                }
            };
            let mut finished = Vec::with_capacity(outcomes.len());
            let mut locked = self.shared.lock();
            let now = Instant::now();
            for BatchResult { id, outcome, buffer } in outcomes {
                locked.complete(now, id, outcome, &mut finished);
                if let Some(Ok(mut buffer)) = buffer.map(Bytes::try_into_mut) {
                    buffer.clear(); // its bytes would be copied
                    locked.recycle_buffer(buffer.into());
                }
            }
            drop(locked);
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
        let mut stale = false;
        let responses = PartitionResponses::new(response);
        let outcomes = batches
            .into_iter()
            .map(|batch| {
                let response = responses.get(&batch.topic, batch.partition);
                stale |= response.is_some_and(|a| is_stale_leader(a.error_code));
                let judge =
                    |batch| request::outcome_of_response(batch, response, connection.peer(), |n| self.retry_backoff(n));
                self.batch_result(batch, judge)
            })
            .collect();
        if stale {
            self.shared.cluster().refresh_soon();
        }
        outcomes
    }

    fn batch_result(&self, batch: EncodedBatch, judge: impl FnOnce(EncodedBatch) -> SendOutcome) -> BatchResult {
        let (id, topic, buffer) = (batch.id, Arc::clone(&batch.topic), batch.reusable_buffer());
        let outcome = judge(batch);
        self.shared.metrics.report_outcome(&topic, &outcome);
        BatchResult { id, outcome, buffer }
    }

    /// The wait before a batch is tried again that was tried this often before.
    fn retry_backoff(&self, attempts: u32) -> Duration {
        let mut backoff = self.shared.cluster().backoff();
        for _ in 0..attempts.min(16) {
            backoff.next();
        }
        backoff.next()
    }
}

/// The end of the first of a few futures that has finished; the others keep their order. Cheaper for so few than a
/// `FuturesUnordered`, which has its task polled once more for each new one.
fn poll_first<F: Future>(few: &mut Vec<Pin<Box<F>>>, cx: &mut Context<'_>) -> Poll<F::Output> {
    for at in 0..few.len() {
        if let Poll::Ready(end) = few[at].as_mut().poll(cx) {
            drop(few.remove(at));
            return Poll::Ready(end);
        }
    }
    Poll::Pending
}

/// Whether making batches ready for the wire takes longer than handing them to another thread.
fn is_costly_to_compress(batches: &[DrainedBatch]) -> bool {
    let packed = batches.iter().filter(|b| b.compression != Compression::None && b.payload.is_plain());
    packed.map(|b| b.payload.size()).sum::<usize>() >= BLOCKING_COMPRESS_BYTES
}

fn encode_all(batches: Vec<DrainedBatch>) -> Vec<EncodedBatch> {
    batches.into_iter().map(EncodedBatch::from).collect()
}

/// Makes batches ready for the wire: here, or on a thread for blocking work.
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
    fn the_first_that_has_ended_is_told_and_the_others_keep_their_order() {
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
