//! The fetching side of a consumer: one task per broker that partitions are fetched from ([`broker`](super::broker)), and one that
//! follows leader changes. Partitions are added and removed while the others are fetched; all tasks end when the [`Fetcher`] is
//! dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::broker;
use super::partition::StartPosition;
use super::planner::FetchPlanner;
use crate::cluster::{Client, Snapshot};
use crate::code;
use crate::config::ConsumerConfig;
use crate::consumer::event::StartOffset;
use crate::consumer::event_queue::EventQueue;
use crate::consumer::lease::Lease;
use crate::error::{Error, ErrorKind, kind_of};
use crate::failure::{OngoingOutage, Outage};
use crate::lock::Lock;
use crate::record::{BufferPool, TopicPartition};
use crate::text;

/// Wait where nothing is due: only a notification ends it.
const NO_TIMEOUT: Duration = Duration::from_secs(86_400);
/// Size of a block that is mapped at the start and never touched. glibc's allocator returns free memory to the system beyond twice the
/// largest block that was mapped on its own and freed; a fetch frees and allocates the same memory again and again, and a page that is
/// new from the system costs more than filling it. Other allocators are not affected.
const MMAP_BLOCK_BYTES: usize = 8 << 20;
/// Maximum time of an election that is not logged.
const ELECTION_GRACE: Duration = Duration::from_secs(3);

/// Owner of the fetch tasks: they end when it is dropped, and can be awaited through the [`TaskTracker`] that they run in.
#[derive(Debug)]
pub(crate) struct Fetcher {
    state: Arc<FetchState>,
    _cancel: DropGuard,
}

/// State that the fetch tasks share. The planner's lock is taken before the event queue's; both are held where positions and
/// queued records must agree.
pub(crate) struct FetchState {
    pub(super) client: Client,
    pub(super) config: ConsumerConfig,
    pub(super) events: Arc<EventQueue>,
    /// Channel for start offsets that the group must commit; none without a group.
    pub(super) reset_offsets: Option<mpsc::Sender<(Lease, i64)>>,
    planner: Lock<FetchPlanner>,
    /// Outages of brokers that partitions are fetched from.
    pub(super) unreachable: Lock<BTreeMap<i32, OngoingOutage>>,
    /// Outage of partitions without a leader.
    leaderless: Lock<Option<OngoingOutage>>,
    /// Buffers for decompressed batches.
    pub(super) buffers: BufferPool,
    /// Notified when leaders, positions or the budget change.
    pub(super) changed: Arc<Notify>,
    /// Notified when partitions are added, whose leaders are yet to be looked up.
    added: Notify,
    pub(super) cancel: CancellationToken,
    tasks: TaskTracker,
}

impl std::fmt::Debug for FetchState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FetchState").field("planner", &self.planner).finish_non_exhaustive()
    }
}

impl Fetcher {
    pub(crate) fn start(
        client: &Client,
        config: &ConsumerConfig,
        events: &Arc<EventQueue>,
        tasks: &TaskTracker,
        reset_offsets: Option<mpsc::Sender<(Lease, i64)>>,
    ) -> Self {
        drop(std::hint::black_box(Vec::<u8>::with_capacity(MMAP_BLOCK_BYTES)));
        let changed = Arc::new(Notify::new());
        let planner = FetchPlanner::new(config, client.cluster().backoff(), Arc::clone(&changed));
        let cancel = CancellationToken::new();
        let state = Arc::new(FetchState {
            client: client.clone(),
            config: config.clone(),
            events: Arc::clone(events),
            reset_offsets,
            planner: Lock::new(planner),
            unreachable: Lock::default(),
            leaderless: Lock::default(),
            buffers: BufferPool::default(),
            changed,
            added: Notify::new(),
            cancel: cancel.clone(),
            tasks: tasks.clone(),
        });
        tasks.spawn(follow_leaders(Arc::clone(&state)));
        Self { state, _cancel: cancel.drop_guard() }
    }

    /// Starts fetching partitions.
    pub(crate) fn add(&self, partitions: Vec<(Lease, StartPosition)>) {
        for (lease, start) in &partitions {
            if let Some(offset) = start.offset() {
                self.state.events.set_position(lease, offset);
            }
        }
        self.state.planner().add(partitions);
        self.state.added.notify_one();
    }

    /// Returns the shared state, to seek and to pause partitions.
    pub(crate) fn state(&self) -> Arc<FetchState> {
        Arc::clone(&self.state)
    }

    /// Stops fetching partitions. Responses in flight for them are ignored.
    pub(crate) fn remove(&self, partitions: &[TopicPartition]) {
        self.state.planner().remove(partitions);
        self.state.changed.notify_waiters(); // the shares of the others have grown
    }
}

/// Keeps one fetch task running per broker that partitions are fetched from.
async fn follow_leaders(f: Arc<FetchState>) {
    let work = async {
        let mut updated = f.client.cluster().updated();
        let mut backoff = f.client.cluster().backoff();
        let mut outage = f.client.cluster().outages().part();
        loop {
            let snapshot = Arc::clone(&updated.borrow_and_update());
            let changes = f.planner().apply_metadata(&snapshot);
            for broker in changes.new_brokers {
                f.spawn(broker);
            }
            f.changed.notify_waiters();
            // A group rebalances when its topics change; without one the application has to be notified.
            for p in changes.missing.into_iter().filter(|_| f.reset_offsets.is_none()) {
                let what = format!("{p} does not exist; it is read once it is created");
                f.report_error(Some(&p), Error::new(ErrorKind::UnknownTopic, what));
            }
            f.report_leaderless(&snapshot, &mut outage);
            let wait = if changes.leaderless {
                f.client.cluster().refresh_soon();
                backoff.next()
            } else {
                backoff.reset();
                NO_TIMEOUT
            };
            tokio::select! {
                changed = updated.changed() => if changed.is_err() {
                    return; // the client was dropped
                },
                () = f.added.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    };
    _ = f.cancel.run_until_cancelled(work).await;
}

/// Names the partitions without a leader and those of their replicas that are down.
fn leaderless(partitions: &[TopicPartition], snapshot: &Snapshot) -> Error {
    let replicas = partitions.iter().filter_map(|p| snapshot.topics.get(&p.topic)?.partition(p.partition));
    let missing: BTreeSet<i32> =
        replicas.flat_map(|p| &p.replicas).filter(|b| !snapshot.brokers.contains_key(b)).copied().collect();
    let brokers = text::list(&missing);
    let why = match missing.len() {
        0 => String::new(),
        1 => format!(": broker {brokers}, which has a replica, is not in the cluster's metadata and may be down"),
        _ => format!(": brokers {brokers}, which have replicas, are not in the cluster's metadata and may be down"),
    };
    let what = format!("{} without a leader{why}", text::list(partitions));
    Error::new(ErrorKind::Broker(code::LEADER_NOT_AVAILABLE), what)
}

impl FetchState {
    pub(super) fn planner(&self) -> MutexGuard<'_, FetchPlanner> {
        self.planner.lock()
    }

    /// Returns the partitions that can't be read now, each with the outage of its leader or of its election.
    pub(crate) fn outages(&self) -> Vec<(TopicPartition, OngoingOutage)> {
        let sources = self.planner().partition_sources();
        let (unreachable, leaderless) = (self.unreachable.lock(), self.leaderless.lock());
        let outage = |source: Option<i32>| match source {
            Some(broker) => unreachable.get(&broker).cloned(),
            None => leaderless.clone(),
        };
        sources.into_iter().filter_map(|(p, source)| Some((p, outage(source)?))).collect()
    }

    /// Returns the names of the partitions that wait for a broker.
    pub(super) fn waiting_for(&self, broker: i32) -> String {
        let sources = self.planner().partition_sources().into_iter();
        text::list(sources.filter(|(_, s)| *s == Some(broker)).map(|(p, _)| p))
    }

    /// Logs partitions that stay without a leader.
    fn report_leaderless(&self, snapshot: &Snapshot, outage: &mut Outage) {
        let now = Instant::now();
        let sources = self.planner().partition_sources().into_iter();
        let without = sources.filter(|(_, s)| s.is_none()).map(|(p, _)| p);
        // Those of a topic that does not exist are reported as missing.
        let without: Vec<_> = without.filter(|p| snapshot.topics.contains_key(&p.topic)).collect();
        if without.is_empty() {
            outage.log_recovery(now);
        } else {
            let e = leaderless(&without, snapshot);
            if let Some(lasted) = outage.record_failure_with_grace(now, &e, ELECTION_GRACE) {
                tracing::warn!(error = %e.full(), "partitions can't be read, {lasted}; they are read once they have a leader");
            }
        }
        *self.leaderless.lock() = outage.ongoing();
    }

    pub(super) fn report_error(&self, lease: Option<&Lease>, e: Error) {
        tracing::warn!(error = %e.full(), "a partition can't be read");
        self.events.meter().failed("consumer", e.kind());
        self.events.push_error(lease, e);
    }

    /// Handles an error code of a partition.
    pub(super) fn on_partition_error(&self, p: &Lease, code: i16, doing: &str) {
        let error = self.planner().on_error(p, Instant::now(), code, doing);
        if error.refresh {
            self.client.cluster().refresh_soon();
        }
        match error.report {
            Some(e) => self.report_error(Some(p), e),
            None => self.events.meter().failed("consumer", kind_of(code)),
        }
    }

    fn spawn(self: &Arc<Self>, broker: i32) {
        self.tasks.spawn(broker::run(Arc::clone(self), broker));
    }

    /// Starts the tasks of brokers that have become a source, and wakes the others.
    pub(super) fn wake(self: &Arc<Self>) {
        let new = self.planner().take_new_brokers();
        new.into_iter().for_each(|broker| self.spawn(broker));
        self.changed.notify_waiters();
    }

    /// Moves the position of a partition. No record fetched for the previous position is delivered afterwards.
    pub(crate) fn seek(self: &Arc<Self>, lease: &Lease, to: StartOffset) {
        let mut planner = self.planner();
        planner.seek(lease, to);
        let offset = if let StartOffset::Offset(offset) = to { Some(offset) } else { None };
        self.events.on_seek(lease, offset);
        drop(planner);
        self.wake();
    }

    /// Pauses or resumes fetching and delivery. Queued records stay queued.
    pub(crate) fn pause(self: &Arc<Self>, leases: &[Lease], paused: bool) {
        let mut planner = self.planner();
        planner.pause(leases, paused);
        self.events.set_paused(leases, paused);
        drop(planner);
        self.wake();
    }
}
