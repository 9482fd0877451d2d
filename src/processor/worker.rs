//! The worker of one partition: handles its records, concurrently as far as their order allows.
//!
//! [`Lanes`] decides which record may be handled when. The worker polls each handler once itself;
//! only a handler that is pending then becomes a task, so that quick handlers cost no more than a
//! call.

mod attempts;
mod batches;
mod holds;
mod metrics;
mod outcome;
mod permits;
mod queue_pool;
mod seek;

pub(super) use outcome::Reporting;
pub(super) use queue_pool::QueuePool;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{self, Poll};
use std::time::Duration;

use futures_util::future::{OptionFuture, poll_fn};
use tokio::sync::futures::Notified;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::RebalanceListener;
use super::attempt::Tracing;
use super::batch::{BatchHandlerFn, Batching};
use super::dead_letter::{DeadLetterWriter, DeadLetters, DelayedRecord, Hook, RetryPartition};
use super::failure_policy::Classifier;
use super::handler::{BoxError, HandlerFn, Outcome};
use super::lanes::{Lane, Lanes};
use super::pauses::PauseReason;
use super::pipeline::{PartitionCollector, Transactions};
use super::positions::CommitPosition;
use super::source::RecordSource;
use super::state::{PartitionState, SubscriptionState};
use crate::cluster::Backoff;
use crate::config::{HandlerOrdering, ProcessorConfig};
use crate::consumer::{Message, Records};
use crate::error::Error;
use crate::metrics::Reporter;
use crate::record::TopicPartition;
use crate::timestamp::Timestamp;
use attempts::{FIRST_SLOW_MEMORY_RECORDS, HandlerUsage};
use holds::{Probe, WorkerHolds};
use metrics::{Backlog, WorkerMetrics};
use permits::Permits;
use queue_pool::QueueShare;
use tokio::time::Instant;

/// Maximum number of records handled before the worker yields.
const MAX_RECORDS_PER_TURN: usize = 256;
/// Maximum time in handlers before the worker yields.
const MAX_TURN_TIME: Duration = Duration::from_millis(5);

/// The handler of a subscription, for single records or batches.
pub(super) enum HandlerMode {
    Each(Arc<HandlerFn>),
    Batches(Batching, Arc<BatchHandlerFn>),
}

impl HandlerMode {
    /// Maximum number of records of a batch.
    pub(super) fn max_batch(&self) -> usize {
        match self {
            Self::Each(_) => 1,
            Self::Batches(batching, _) => batching.max_records,
        }
    }
}

/// Destination of dead letters, outputs and handled offsets.
pub(super) enum Sink {
    /// Dead letters are written at once, offsets are committed by the subscription's task.
    DeadLetters(Box<DeadLetterWriter>),
    /// All go into transactions.
    Transactions(Arc<Transactions>),
}

impl Sink {
    pub(super) fn letters(&self) -> &DeadLetters {
        match self {
            Self::DeadLetters(writer) => writer.letters(),
            Self::Transactions(transactions) => transactions.dead_letters(),
        }
    }
}

/// Context that all workers of a subscription share.
pub(super) struct WorkerContext {
    pub(super) mode: HandlerMode,
    pub(super) sink: Sink,
    pub(super) config: ProcessorConfig,
    /// Maximum time of a handler before a warning; without any finished attempt for as long, the
    /// member leaves its group.
    pub(super) stuck_after: Duration,
    pub(super) shared: Arc<SubscriptionState>,
    pub(super) listener: Option<Arc<dyn RebalanceListener>>,
    /// Chooses what happens to a record whose attempt failed.
    pub(super) on_failure: Option<Classifier>,
    /// Runs after a dead letter is written.
    pub(super) on_dead_letter: Option<Hook>,
    /// Memory for records that are blocked by others or await a retry.
    pub(super) pool: Arc<QueuePool>,
    pub(super) metrics: Reporter,
    pub(super) tracing: Tracing,
    /// Receives the first error that ends the subscription.
    pub(super) fatal: mpsc::Sender<Error>,
}

/// A record that is not completed, with the history of its attempts.
#[derive(Debug)]
pub(super) struct PendingRecord {
    /// The record as it was fetched, also from a retry topic.
    message: Message,
    history: Option<Box<AttemptHistory>>,
}

#[derive(Debug)]
struct AttemptHistory {
    first_failure: Timestamp,
    backoff: Backoff,
    /// Set for a record of a retry topic.
    delayed: Option<DelayedRecord>,
    /// Number of attempts up to the last one that failed because of a dependency.
    uncounted: u32,
    /// Set while it is handled as a probe.
    probe: Option<Probe>,
}

impl PendingRecord {
    fn delayed(&self) -> Option<&DelayedRecord> {
        self.history.as_ref()?.delayed.as_ref()
    }

    /// Returns the record for its handler: one of a retry topic is as in its origin topic.
    fn for_handler(&self) -> Message {
        let mut message = self.message.clone();
        if let Some(delayed) = self.delayed() {
            delayed.restore(&mut message);
        }
        message
    }

    /// Returns the record for its handler.
    fn into_handler_message(self) -> Message {
        match self.delayed() {
            Some(_) => self.for_handler(),
            None => self.message,
        }
    }

    /// Returns the number of this attempt of those that count: since the record was fetched, and since it
    /// last waited for a dependency.
    fn attempt(&self) -> u32 {
        let uncounted = self.history.as_ref().map_or(0, |history| history.uncounted);
        self.message.attempt.saturating_sub(uncounted.max(self.delayed().map_or(0, DelayedRecord::attempts)))
    }
}

/// Output of a worker's task.
#[allow(clippy::large_enum_variant, reason = "most are records, which a box would cost an allocation")]
enum TaskOutput {
    Record(Lane, PendingRecord, Result<Outcome, BoxError>, HandlerUsage),
    Batch(Vec<(Lane, PendingRecord)>, Result<Vec<Outcome>, BoxError>, HandlerUsage),
    /// Lane, offset and size of a record, and whether its dead letter was written.
    DeadLetter(Lane, i64, usize, bool),
}

/// Reason why a worker has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocked {
    /// It has more to do, and only yields.
    Not,
    /// Too many handlers are in flight in the whole subscription.
    OnPermit,
    /// Too many handlers of this partition are in flight: one must finish.
    OnHandlers,
    /// Too many records are queued.
    OnQueue,
    /// Too many records with their outputs await a transaction.
    OnTransactions,
    /// The partition was moved by a seek: handlers of earlier positions must end.
    OnSeek,
    /// The partition is paused: handlers in flight finish.
    OnPause,
    /// A dependency of the handler is down.
    OnHold,
    /// No record may be started: it waits for fetched records, handlers or retries.
    OnEvents,
}

pub(super) struct Worker {
    context: Arc<WorkerContext>,
    state: Arc<PartitionState>,
    /// In a pipeline, has what is handled until a transaction is committed with it.
    collector: Option<Arc<PartitionCollector>>,
    source: RecordSource,
    /// Set for a partition of a retry topic.
    retry: Option<RetryPartition>,
    lanes: Lanes<PendingRecord>,
    tasks: JoinSet<TaskOutput>,
    /// Cancelled to drain the partition: handlers in flight finish, no other record is started.
    stop: Arc<CancellationToken>,
    /// Cancelled to cancel handlers in flight.
    cancel: CancellationToken,
    permits: Permits,
    queue_share: QueueShare,
    in_flight: usize,
    /// Number and bytes of the dead letters that are being written.
    dead_letters_in_flight: usize,
    dead_letter_bytes: usize,
    /// Number of dead letters that were not written before the worker stopped.
    unwritten_dead_letters: usize,
    /// Number of records handled since the last `publish`.
    handled: u64,
    /// True if a record was completed without being handled since the last `publish`.
    is_other_completed: bool,
    /// Number of next records whose handler is assumed slow, and what it becomes at the next slow
    /// poll.
    assume_slow: usize,
    next_assume_slow: usize,
    /// Time spent in handlers in this turn.
    turn_elapsed: Duration,
    /// Number of next records whose handler is assumed pending after its first poll.
    assume_pending: usize,
    /// Time since which records wait for a full batch.
    batch_started_at: Option<Instant>,
    /// The position last published, and the time its metadata was.
    published: Option<(i64, Instant)>,
    /// Deadline for the handlers of positions before a seek.
    seek_deadline: Option<Instant>,
    holds: WorkerHolds,
    metrics: WorkerMetrics,
    /// True if the notification of [`PartitionState::changed`] was received.
    was_notified: bool,
}

impl Worker {
    pub(super) fn new(
        context: Arc<WorkerContext>,
        (partition, state, collector): (TopicPartition, Arc<PartitionState>, Option<Arc<PartitionCollector>>),
        lanes: Lanes<PendingRecord>,
        records: mpsc::UnboundedReceiver<(u64, Records)>,
        (stop, cancel): (CancellationToken, CancellationToken),
    ) -> Self {
        let retry = context.shared.retry_topics.partition(&partition.topic);
        Self {
            permits: Permits::new(Arc::clone(&context.shared.concurrency)),
            queue_share: QueueShare::new(Arc::clone(&context.pool)),
            metrics: WorkerMetrics::new(&context.metrics, partition),
            context,
            state,
            source: RecordSource::new(records, collector.clone(), retry),
            retry,
            collector,
            lanes,
            tasks: JoinSet::new(),
            stop: Arc::new(stop),
            cancel,
            in_flight: 0,
            dead_letters_in_flight: 0,
            dead_letter_bytes: 0,
            unwritten_dead_letters: 0,
            handled: 0,
            is_other_completed: false,
            assume_slow: 0,
            next_assume_slow: FIRST_SLOW_MEMORY_RECORDS,
            turn_elapsed: Duration::ZERO,
            assume_pending: 0,
            batch_started_at: None,
            published: None,
            seek_deadline: None,
            holds: WorkerHolds::default(),
            was_notified: false,
        }
    }

    /// Runs until the partition is drained: handlers in flight have finished or were cancelled.
    pub(super) async fn run(mut self) {
        // Registered once instead of with each wait.
        let (stop, cancel) = (Arc::clone(&self.stop), self.cancel.clone());
        let (mut stopped, mut cancel) = (pin!(stop.cancelled()), pin!(cancel.cancelled()));
        let state = Arc::clone(&self.state);
        let mut changed = pin!(state.changed());
        loop {
            let blocked = poll_fn(|cx| Poll::Ready(self.run_turn(cx))).await;
            self.publish(false);
            if self.tasks.is_empty() && self.stop.is_cancelled() {
                break;
            }
            if blocked == Blocked::OnSeek && self.end_seek().await {
                continue;
            }
            if blocked == Blocked::Not {
                self.permits.waiting = None;
                tokio::task::yield_now().await;
            } else if !self.wait(blocked, stopped.as_mut(), cancel.as_mut(), changed.as_mut()).await {
                break;
            }
            if std::mem::take(&mut self.was_notified) {
                changed.set(state.changed());
            }
            while let Some(joined) = self.tasks.try_join_next() {
                self.on_task_done(joined);
            }
        }
        self.source.close();
        self.publish(true);
        // After `publish`, whose counts include the handlers in flight. A handler may never yield:
        // `Drain` limits the wait for this task.
        self.tasks.shutdown().await;
    }

    /// Waits for the next event; returns false if handlers in flight must be cancelled.
    async fn wait(
        &mut self,
        blocked: Blocked,
        stopped: Pin<&mut WaitForCancellationFuture<'_>>,
        cancel: Pin<&mut WaitForCancellationFuture<'_>>,
        changed: Pin<&mut Notified<'_>>,
    ) -> bool {
        let stopping = self.stop.is_cancelled();
        if blocked == Blocked::OnPermit && !stopping {
            self.permits.start_waiting();
        } else {
            self.permits.waiting = None; // leaves the queue: the permit is for another partition
        }
        let for_queue = blocked == Blocked::OnQueue && !stopping;
        if for_queue && !self.queue_share.start_waiting(self.context.shared.partition_count()) {
            return true;
        }
        let for_room = blocked == Blocked::OnTransactions && !stopping;
        let collector = self.collector.clone().filter(|_| for_room);
        let room = OptionFuture::from(collector.as_ref().map(|collector| collector.has_room()));
        let wake = self.wake_at(blocked).filter(|_| !stopping);
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = cancel => return false,
            Some(joined) = self.tasks.join_next() => self.on_task_done(joined),
            () = stopped, if !stopping => {}
            () = changed => self.was_notified = true,
            Some(permit) = OptionFuture::from(self.permits.waiting.as_mut()) => self.permits.on_acquired(permit),
            () = self.source.wait_ready(), if !stopping && self.source.is_empty() => {}
            () = self.queue_share.capacity_freed(), if for_queue => {}
            _ = room, if for_room => {}
            () = sleep => {}
        }
        self.queue_share.stop_waiting();
        true
    }

    fn wake_at(&self, blocked: Blocked) -> Option<Instant> {
        match blocked {
            Blocked::OnSeek => return self.seek_deadline,
            Blocked::OnPause => return None,
            Blocked::OnHold => return self.holds.next_probe.map(|(at, _)| at),
            _ => {}
        }
        // A probe that is due awaits a permit.
        let awaits_permit = matches!(blocked, Blocked::OnPermit | Blocked::OnHandlers);
        let probe = self.holds.next_probe.filter(|_| !awaits_permit).map(|(at, _)| at);
        let batch = match &self.context.mode {
            // A batch that is blocked on a permit is due already.
            HandlerMode::Batches(batching, _) if blocked == Blocked::OnEvents => {
                self.batch_started_at.map(|since| since + batching.max_wait)
            }
            _ => None,
        };
        self.lanes.next_due().into_iter().chain(batch).chain(probe).chain(self.source.held_until()).min()
    }

    /// Handles records until it has to wait or yield. Holds no unused permit afterwards.
    fn run_turn(&mut self, cx: &mut task::Context<'_>) -> Blocked {
        let context = Arc::clone(&self.context);
        let mut blocked = Blocked::Not;
        self.turn_elapsed = Duration::ZERO;
        for _ in 0..MAX_RECORDS_PER_TURN {
            if self.stop.is_cancelled() {
                blocked = Blocked::OnEvents;
            } else if self.is_moved() {
                blocked = Blocked::OnSeek;
            } else if self.state.paused_by().contains(PauseReason::Control) {
                blocked = Blocked::OnPause;
            }
            if blocked != Blocked::Not || self.turn_elapsed >= MAX_TURN_TIME {
                break;
            }
            match self.poll_holds(cx) {
                None => {}
                Some(Blocked::Not) => continue,
                Some(on_hold) => {
                    blocked = on_hold;
                    break;
                }
            }
            if self.lanes.next_due().is_some() {
                self.lanes.expire_timers(Instant::now());
            }
            blocked = match &context.mode {
                HandlerMode::Each(call) => self.process_next(cx, call),
                HandlerMode::Batches(batching, call) => self.process_next_batch(cx, *batching, call),
            };
        }
        self.permits.end_turn();
        blocked
    }

    fn take_permit(&mut self) -> Result<(), Blocked> {
        self.permits.take(self.context.shared.partition_count() < 2)
    }

    /// Reports the queued records and dead letters to the pool.
    fn update_queue_usage(&mut self) {
        let (records, bytes) =
            (self.lanes.queued() + self.dead_letters_in_flight, self.lanes.queued_bytes() + self.dead_letter_bytes);
        self.queue_share.set_used(queue_pool::QueueSize { records, bytes });
    }

    /// Returns whether another record may be queued. If not, none may be started either: it may
    /// fail, and failed records are queued beyond the limit.
    fn has_queue_capacity(&mut self) -> bool {
        self.update_queue_usage();
        self.queue_share.has_capacity(self.context.shared.partition_count())
    }

    /// Returns whether no other record may be read before a transaction is committed.
    pub(super) fn is_collector_full(&self) -> bool {
        self.collector.as_ref().is_some_and(|collector| collector.is_full())
    }

    /// Handles one queued record and one new record, so that neither kind starves the other.
    fn process_next(&mut self, cx: &mut task::Context<'_>, call: &Arc<HandlerFn>) -> Blocked {
        let mut blocked = Blocked::OnEvents;
        if self.lanes.is_ready() {
            if let Err(blocked) = self.take_permit() {
                return blocked;
            }
            if let Some((lane, queued)) = self.lanes.take_ready(1).pop() {
                self.start_attempt(cx, call, lane, queued.record, true);
            }
            blocked = Blocked::Not;
        }
        // What is queued goes on: until it ends, it may keep others out of the commit's metadata.
        if self.is_collector_full() {
            return if blocked == Blocked::Not { blocked } else { Blocked::OnTransactions };
        }
        let Some(message) = self.source.next(&mut self.lanes, &self.state) else { return blocked };
        let lane = self.lanes.lane(message.key.as_deref(), message.offset);
        // A new record never overtakes the retry of its key:
        // 1. record 5 fails: `requeue` keeps its lane, with a timer.
        // 2. record 9 of the same key is fetched, before or after the timer expires: the lane is
        //    not free, and 9 is queued.
        // 3. the retry of 5 is taken above, alone; 9 becomes ready when 5 completes, or is a dead
        //    letter.
        let is_free = self.lanes.is_free(lane);
        // In partition order, records behind one in flight stay in their fetch instead of being
        // copied.
        if !is_free && self.context.config.ordering == HandlerOrdering::Partition {
            self.source.put_back(message);
            return blocked;
        }
        if !self.lanes.is_idle() && !self.has_queue_capacity() {
            self.source.put_back(message);
            return if blocked == Blocked::Not { blocked } else { Blocked::OnQueue };
        }
        if !is_free {
            self.enqueue(lane, message);
            return Blocked::Not;
        }
        if let Err(blocked) = self.take_permit() {
            self.source.put_back(message);
            return blocked;
        }
        let pending = self.pending(message);
        self.start_attempt(cx, call, lane, pending, false);
        Blocked::Not
    }

    fn enqueue(&mut self, lane: Lane, mut message: Message) {
        message.detach();
        let (offset, bytes) = (message.offset, message.size());
        let pending = self.pending(message);
        self.lanes.enqueue(lane, offset, bytes, pending);
    }

    /// Returns a fetched record before its first attempt here.
    fn pending(&self, mut message: Message) -> PendingRecord {
        let delayed = self.retry.and_then(|_| DelayedRecord::parse(&message.headers));
        let history = delayed.map(|delayed| {
            message.attempt = delayed.attempts().saturating_add(1);
            let config = &self.context.config;
            let first_failure = delayed.first_failure().unwrap_or_else(Timestamp::now);
            Box::new(AttemptHistory { first_failure, delayed: Some(delayed), ..AttemptHistory::new(config) })
        });
        PendingRecord { message, history }
    }

    /// Publishes counts and position. Encodes the offsets completed out of order only twice per
    /// commit interval, and when the worker is idle or stops (`is_last`), because that takes time.
    fn publish(&mut self, is_last: bool) {
        self.update_queue_usage();
        self.queue_share.wake_others(self.context.shared.partition_count());
        let handled = std::mem::take(&mut self.handled);
        self.context.shared.handled.fetch_add(handled, Ordering::Relaxed);
        let set = |count: &AtomicUsize, n: usize| count.store(n, Ordering::Relaxed);
        let counts = &self.state.counts;
        let now = Backlog {
            in_flight: self.in_flight,
            waiting: self.lanes.queued() - self.lanes.awaiting_retry() + self.source.remaining(),
            parked: self.lanes.awaiting_retry() + self.dead_letters_in_flight + self.unwritten_dead_letters,
            parked_keys: self.lanes.blocked_lanes() + self.dead_letters_in_flight + self.unwritten_dead_letters,
            position: self.lanes.committable_offset(),
        };
        set(&counts.in_flight, now.in_flight);
        set(&counts.parked, now.parked);
        set(&counts.parked_keys, now.parked_keys);
        set(&counts.waiting, now.waiting);
        set(&counts.held_keys, self.lanes.held_lanes());
        let completed = std::mem::take(&mut self.is_other_completed) || handled > 0;
        self.context.shared.set_delayed(&self.state, self.source.held_until().is_some());
        let position = now.position.filter(|_| !self.is_moved());
        self.state.publish_progress(position, now.in_flight + now.waiting + now.parked, completed);
        self.context.shared.notify_progress();
        self.metrics.publish(self.context.shared.group(), now);
        let Some(offset) = now.position.filter(|_| self.collector.is_none()) else { return };
        let now = Instant::now();
        let is_recent = |at: Instant| now.saturating_duration_since(at) < self.context.config.commit_interval / 2;
        let with_metadata = is_last || self.lanes.is_idle() || !self.published.is_some_and(|(_, at)| is_recent(at));
        if !with_metadata && self.published.is_some_and(|(published, _)| published == offset) {
            return; // its recent metadata stays
        }
        let metadata = if with_metadata { self.lanes.completed_above() } else { None };
        let at = if with_metadata { now } else { self.published.map_or(now, |(_, at)| at) };
        self.published = Some((offset, at));
        let leader_epoch = self.lanes.leader_epoch();
        let (metadata, seek) = (metadata.unwrap_or_default(), self.source.seek());
        self.state.set_position(CommitPosition { offset, leader_epoch, metadata, seek });
        self.context.shared.mark_moved(self.metrics.partition(), &self.state);
    }
}
