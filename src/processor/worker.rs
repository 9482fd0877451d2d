//! Handles the records of one partition, as many side by side as its order allows.
//!
//! What may be handled when is decided by [`Lanes`]. A handler is polled once where it is; only one that is not done then
//! becomes a task of its own, so that quick handlers cost no more than a call.

mod batches;
mod meter;
mod permits;
mod room;
mod settle;

pub(super) use room::Pool;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{self, Poll};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::future::{OptionFuture, poll_fn};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::RebalanceListener;
use super::attempt::{Attempt, Tracing};
use super::batch::{BatchCall, Batching};
use super::dead_letter::DeadLetters;
use super::handler::{BoxError, Call, Outcome};
use super::lanes::{Lane, Lanes};
use super::source::Source;
use super::state::{PartitionState, Position, SubscriptionState};
use crate::cluster::Backoff;
use crate::config::{HandlerOrdering, ProcessorConfig};
use crate::consumer::{Message, Records};
use crate::error::Error;
use crate::metrics::Reporter;
use crate::record::TopicPartition;
use meter::{Backlog, Meter};
use permits::Permits;
use room::Room;

/// Records that are handled before other tasks get their turn.
const TURN: usize = 256;
/// A handler that takes longer without giving way to others has a task of its own the next times: others run beside it then.
const SLOW: Duration = Duration::from_millis(1);
/// How many records a handler that was not done at once, or was slow again and again, is taken to be like that.
const MEMORY: usize = 256;
/// The same of one that was slow for the first time: on a busy machine any may be.
const FIRST_MEMORY: usize = 4;
/// Time after which other tasks get their turn.
const TURN_TIME: Duration = Duration::from_millis(5);

/// What handles records.
pub(super) enum Routine {
    Each(Arc<Call>),
    Batches(Batching, Arc<BatchCall>),
}

impl Routine {
    /// Number of records that a partition gathers.
    pub(super) fn gathers(&self) -> usize {
        match self {
            Self::Each(_) => 1,
            Self::Batches(batching, _) => batching.max_records,
        }
    }
}

/// What all workers of a subscription share.
pub(super) struct Context {
    pub(super) routine: Routine,
    pub(super) dead_letters: DeadLetters,
    pub(super) config: ProcessorConfig,
    /// A record that is in a handler for longer is told of; if none ends for as long, the group is left for now.
    pub(super) hangs_after: Duration,
    pub(super) shared: Arc<SubscriptionState>,
    pub(super) listener: Option<Arc<dyn RebalanceListener>>,
    /// One permit for each record or batch in hand; partitions that wait for one get it in turn.
    pub(super) permits: Arc<Semaphore>,
    /// Memory for records that wait behind others, or for another attempt.
    pub(super) pool: Arc<Pool>,
    pub(super) metrics: Reporter,
    pub(super) tracing: Tracing,
    /// The first error that ends the subscription.
    pub(super) fatal: mpsc::Sender<Error>,
}

/// A record with what its attempts have left.
#[derive(Debug)]
pub(super) struct Item {
    message: Message,
    history: Option<Box<History>>,
}

#[derive(Debug)]
struct History {
    first: DateTime<Utc>,
    backoff: Backoff,
}

/// What a task of a worker says at its end.
enum Finished {
    Each(Lane, Item, Result<Outcome, BoxError>, Spent),
    Batch(Vec<(Lane, Item)>, Result<Vec<Outcome>, BoxError>, Spent),
    /// A dead letter, its record's size, whether it was written.
    Letter(Lane, i64, usize, bool),
}

/// What a handler has used: its time, and the permit if that was [not long](SLOW).
type Spent = (Duration, Option<OwnedSemaphorePermit>);

fn spent(began: Instant, permit: Option<OwnedSemaphorePermit>) -> Spent {
    let took = began.elapsed();
    (took, permit.filter(|_| took <= SLOW))
}

/// What came of polling a handler, when that was, and how long it took.
struct Polled<T> {
    outcome: Poll<T>,
    began: Instant,
    took: Duration,
}

/// Why a worker does not go on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// It does: it gives way.
    No,
    /// Too many handlers are at work in the whole subscription.
    ForPermit,
    /// Too many handlers of this partition are: one of them has to end.
    ForHandlers,
    /// Too many records are kept.
    ForRoom,
    /// For records, for handlers, for the time of another attempt.
    ForEvents,
}

pub(super) struct Worker {
    context: Arc<Context>,
    state: Arc<PartitionState>,
    source: Source,
    lanes: Lanes<Item>,
    tasks: JoinSet<Finished>,
    /// Cancelled when the partition is to be given up: what is in hand is finished, nothing else is begun.
    stop: Arc<CancellationToken>,
    /// Cancelled when what is in hand is to be cancelled.
    cut: CancellationToken,
    permits: Permits,
    room: Room,
    in_flight: usize,
    /// Dead letters that are being written, and their size in bytes.
    letters: usize,
    letter_bytes: usize,
    /// Dead letters that were not written before the end.
    unwritten: usize,
    handled: u64,
    /// A dead letter was written since this was last told.
    buried: bool,
    /// For how many more records a handler is taken to be slow, and for how many the next time that one is.
    slow: usize,
    slow_next: usize,
    /// Time that handlers have had in this turn.
    turn_took: Duration,
    /// For how many more records a handler is taken not to be done at once.
    pending: usize,
    /// Since when records wait for their batch to become full.
    gathering: Option<Instant>,
    /// The offset last told, and when the metadata was.
    told: Option<(i64, Instant)>,
    meter: Meter,
}

impl Worker {
    pub(super) fn new(
        context: Arc<Context>,
        (partition, state): (TopicPartition, Arc<PartitionState>),
        lanes: Lanes<Item>,
        records: mpsc::UnboundedReceiver<Records>,
        (stop, cut): (CancellationToken, CancellationToken),
    ) -> Self {
        Self {
            permits: Permits::new(Arc::clone(&context.permits)),
            room: Room::new(Arc::clone(&context.pool)),
            meter: Meter::new(&context.metrics, partition),
            context,
            state,
            source: Source::new(records),
            lanes,
            tasks: JoinSet::new(),
            stop: Arc::new(stop),
            cut,
            in_flight: 0,
            letters: 0,
            letter_bytes: 0,
            unwritten: 0,
            handled: 0,
            buried: false,
            slow: 0,
            slow_next: FIRST_MEMORY,
            turn_took: Duration::ZERO,
            pending: 0,
            gathering: None,
            told: None,
        }
    }

    /// Until the partition is given up and what was in hand has ended or been cancelled.
    pub(super) async fn run(mut self) {
        // Registered once, and not with each wait.
        let (stop, cut) = (Arc::clone(&self.stop), self.cut.clone());
        let (mut stopped, mut cut) = (pin!(stop.cancelled()), pin!(cut.cancelled()));
        loop {
            let waits = poll_fn(|cx| Poll::Ready(self.turn(cx))).await;
            self.tell(false);
            if self.tasks.is_empty() && self.stop.is_cancelled() {
                break;
            }
            if waits == Waits::No {
                self.permits.place = None;
                tokio::task::yield_now().await;
            } else if !self.wait(waits, stopped.as_mut(), cut.as_mut()).await {
                break;
            }
            while let Some(joined) = self.tasks.try_join_next() {
                self.joined(joined);
            }
        }
        self.source.close();
        self.tell(true);
        // The counts above say what was in hand. A handler that never gives way can't be waited for: whoever waits has a limit.
        self.tasks.shutdown().await;
    }

    /// Waits for whatever comes first; false if what is in hand is to be cancelled.
    async fn wait(
        &mut self,
        waits: Waits,
        stopped: Pin<&mut WaitForCancellationFuture<'_>>,
        cut: Pin<&mut WaitForCancellationFuture<'_>>,
    ) -> bool {
        let stopping = self.stop.is_cancelled();
        if waits == Waits::ForPermit && !stopping {
            self.permits.queue();
        } else {
            self.permits.place = None; // it is another's
        }
        let for_room = waits == Waits::ForRoom && !stopping;
        if for_room && !self.room.queue(self.context.shared.partitions()) {
            return true;
        }
        let wake = self.wake_at(waits).filter(|_| !stopping);
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = cut => return false,
            Some(joined) = self.tasks.join_next() => self.joined(joined),
            () = stopped, if !stopping => {}
            Some(permit) = OptionFuture::from(self.permits.place.as_mut()) => self.permits.got(permit),
            () = self.source.ready(), if !stopping && self.source.is_empty() => {}
            () = self.room.freed(), if for_room => {}
            () = sleep => {}
        }
        self.room.leave();
        true
    }

    fn wake_at(&self, waits: Waits) -> Option<Instant> {
        let batch = match &self.context.routine {
            // A batch that waits for a permit has waited long enough for others: it is no reason to look again.
            Routine::Batches(batching, _) if waits == Waits::ForEvents => {
                self.gathering.map(|since| since + batching.max_wait)
            }
            _ => None,
        };
        self.lanes.due().into_iter().chain(batch).min()
    }

    /// Handles what can be handled now. Keeps no permit when it has to wait.
    fn turn(&mut self, cx: &mut task::Context<'_>) -> Waits {
        let context = Arc::clone(&self.context);
        let mut waits = Waits::No;
        self.turn_took = Duration::ZERO;
        for _ in 0..TURN {
            if self.stop.is_cancelled() {
                waits = Waits::ForEvents;
            }
            if waits != Waits::No || self.turn_took >= TURN_TIME {
                break;
            }
            if self.lanes.due().is_some() {
                self.lanes.wake(Instant::now());
            }
            waits = match &context.routine {
                Routine::Each(call) => self.next(cx, call),
                Routine::Batches(batching, call) => self.next_batch(cx, *batching, call),
            };
        }
        self.permits.end_turn();
        waits
    }

    fn take_permit(&mut self) -> Result<(), Waits> {
        self.permits.take(self.context.shared.partitions() < 2)
    }

    /// Tells the pool what is kept now: what waits in lanes, and letters.
    fn hold(&mut self) {
        let (records, bytes) = (self.lanes.kept() + self.letters, self.lanes.bytes() + self.letter_bytes);
        self.room.hold(room::Kept { records, bytes });
    }

    /// Whether another record may be kept. Without it none may be begun either, for it may fail, and what has failed is kept
    /// whatever the room.
    fn has_room(&mut self) -> bool {
        self.hold();
        self.room.is_there(self.context.shared.partitions())
    }

    /// One that was kept and one that is new, so that neither waits for the other's end.
    fn next(&mut self, cx: &mut task::Context<'_>, call: &Arc<Call>) -> Waits {
        let mut waits = Waits::ForEvents;
        if self.lanes.is_ready() {
            if let Err(waits) = self.take_permit() {
                return waits;
            }
            if let Some((lane, kept)) = self.lanes.take(1).pop() {
                self.attempt(cx, call, lane, kept.record, true);
            }
            waits = Waits::No;
        }
        let Some(message) = self.source.next(&mut self.lanes, &self.state) else { return waits };
        let lane = self.lanes.lane(message.key.as_deref(), message.offset);
        let free = self.lanes.is_free(lane);
        // With the order of the partition, those behind one in hand can stay where they are.
        let stays = !free && self.context.config.ordering == HandlerOrdering::Partition;
        if stays {
            self.source.put_back(message);
            return waits;
        }
        if !self.lanes.is_idle() && !self.has_room() {
            self.source.put_back(message);
            return if waits == Waits::No { waits } else { Waits::ForRoom };
        }
        if !free {
            self.keep(lane, message);
            return Waits::No;
        }
        if let Err(waits) = self.take_permit() {
            self.source.put_back(message);
            return waits;
        }
        self.attempt(cx, call, lane, Item { message, history: None }, false);
        Waits::No
    }

    fn keep(&mut self, lane: Lane, mut message: Message) {
        message.detach();
        let (offset, bytes) = (message.offset, message.size());
        self.lanes.keep(lane, offset, bytes, Item { message, history: None });
    }

    /// Calls the handler; `begun` if the record's lane knows that it is in hand.
    fn attempt(&mut self, cx: &mut task::Context<'_>, call: &Arc<Call>, lane: Lane, mut item: Item, begun: bool) {
        let offset = item.message.offset;
        let limit = self.arm(&mut item.message);
        if !begun && self.pending > 0 {
            item.message.detach(); // it may be in hand for long
        }
        let span = self.context.tracing.span(&mut item.message, self.context.shared.group());
        let message = item.message.clone();
        let mut attempt = Attempt::begin(span, Outcome::failure, || call(message));
        let Polled { outcome, began, took } = self.poll_once(cx, &mut attempt, offset);
        if let Poll::Ready(outcome) = outcome {
            self.meter.called(took, !matches!(outcome, Ok(Outcome::Done)));
            if begun || !matches!(outcome, Ok(Outcome::Done)) {
                if !begun {
                    self.lanes.begin(lane);
                }
                self.settle(lane, item, outcome);
            } else {
                self.lanes.passed(offset);
                self.handled += 1;
            }
            return;
        }
        if !begun {
            self.lanes.begin(lane);
            item.message.detach();
        }
        self.in_flight += 1;
        self.state.begun(offset, item.message.key.clone());
        let permit = self.permits.hand_over();
        self.tasks.spawn(async move {
            let outcome = attempt.within(limit).await;
            Finished::Each(lane, item, outcome, spent(began, permit))
        });
    }

    /// Tells the message what its attempt is bound by.
    fn arm(&self, message: &mut Message) -> Option<(tokio::time::Instant, Duration)> {
        message.stopping = Some(Arc::clone(&self.stop));
        let limit = self.context.config.attempt_timeout?;
        let deadline = Instant::now() + limit;
        message.deadline = Some(deadline);
        Some((deadline.into(), limit))
    }

    /// Polls a handler where we are, unless it was slow lately.
    fn poll_once<T>(
        &mut self,
        cx: &mut task::Context<'_>,
        attempt: &mut Attempt<T>,
        offset: i64,
    ) -> Polled<Result<T, BoxError>> {
        let began = Instant::now();
        if self.slow > 0 && self.context.config.ordering != HandlerOrdering::Partition {
            self.slow -= 1;
            return Polled { outcome: Poll::Pending, began, took: Duration::ZERO };
        }
        self.state.runs_at_once(Some(offset));
        let outcome = Pin::new(attempt).poll(cx);
        let took = began.elapsed();
        self.turn_took += took;
        if took > SLOW {
            self.slow = self.slow_next;
            self.slow_next = (2 * self.slow_next).min(MEMORY);
        } else {
            self.slow_next = FIRST_MEMORY;
        }
        self.state.runs_at_once(None);
        self.pending = if outcome.is_ready() { self.pending.saturating_sub(1) } else { MEMORY };
        Polled { outcome, began, took }
    }

    /// Tells how far it is; what has ended out of order only now and then, for that takes time, and at the end.
    fn tell(&mut self, end: bool) {
        self.hold();
        self.room.pass_on(self.context.shared.partitions());
        let handled = std::mem::take(&mut self.handled);
        self.context.shared.handled.fetch_add(handled, Ordering::Relaxed);
        let set = |count: &AtomicUsize, n: usize| count.store(n, Ordering::Relaxed);
        let counts = &self.state.counts;
        let now = Backlog {
            in_flight: self.in_flight,
            waiting: self.lanes.kept() - self.lanes.failed() + self.source.left(),
            parked: self.lanes.failed() + self.letters + self.unwritten,
            parked_keys: self.lanes.parked() + self.letters + self.unwritten,
            position: self.lanes.committable(),
        };
        set(&counts.in_flight, now.in_flight);
        set(&counts.parked, now.parked);
        set(&counts.parked_keys, now.parked_keys);
        set(&counts.waiting, now.waiting);
        let ended = handled > 0 || std::mem::take(&mut self.buried);
        self.state.progressed(now.position, now.in_flight + now.waiting + now.parked, ended);
        self.meter.tell(self.context.shared.group(), now);
        let Some(offset) = now.position else { return };
        let now = Instant::now();
        let lately = |told: Instant| now.saturating_duration_since(told) < self.context.config.commit_interval / 2;
        let with_metadata = end || self.lanes.is_idle() || !self.told.is_some_and(|(_, at)| lately(at));
        if !with_metadata && self.told.is_some_and(|(told, _)| told == offset) {
            return; // with what had ended above it a moment ago
        }
        let metadata = if with_metadata { self.lanes.ended_above() } else { None };
        let at = if with_metadata { now } else { self.told.map_or(now, |(_, at)| at) };
        self.told = Some((offset, at));
        let leader_epoch = self.lanes.leader_epoch();
        self.state.is_at(Position { offset, leader_epoch, metadata: metadata.unwrap_or_default() });
        self.context.shared.has_moved(self.meter.partition(), &self.state);
    }
}
