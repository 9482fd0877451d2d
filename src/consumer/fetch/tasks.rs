//! Fetches partitions: a task per broker that leads some of them, each with a connection of its own, and one that follows the
//! leaders. Partitions are added and removed while the others are read on: what was under way for one that was removed is
//! dropped when it comes. All tasks end when the [`Fetcher`] is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::FetchResponse;
use kafka_protocol::messages::fetch_response::PartitionData;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::decode::{AbortedTransactions, DecodeLimits, DecodedFetch, decode_fetch};
use super::partition::StartPosition;
use super::planner::{FetchFrom, FetchPlanner, FetchedPartition, PartitionRequest, Plan, PositionCheck};
use super::requests::{
    decode_leader_epochs, decode_list_offsets, fetch_request, leader_epochs_request, list_offsets_request,
};
use super::source::FetchPlan;
use crate::cluster::{Backoff, Client, Snapshot};
use crate::code;
use crate::config::{ConsumerConfig, IsolationLevel};
use crate::consumer::event::{Records, StartOffset, Watermarks};
use crate::consumer::event_queue::EventQueue;
use crate::consumer::lease::Lease;
use crate::consumer::memory::Charge;
use crate::consumer::metrics as meter;
use crate::error::{Error, ErrorKind, Result, kind_of};
use crate::failure::{OngoingOutage, Outage};
use crate::lock::Lock;
use crate::record::{BufferPool, TopicPartition, begins_with_batch, is_compressed};
use crate::wire::Connection;

/// Until something changes.
const NO_TIMEOUT: Duration = Duration::from_secs(86_400);
/// Compressed bytes of a partition from which they are opened off the async threads.
const OFFLOAD_BYTES: usize = 64 << 10;
/// Memory that compressed batches may take before what they hold is handed over: opened all at once, a fetch's take what is spared
/// for their partition, and the program waits for the last of them.
const DECODE_CHUNK_BYTES: usize = 1 << 20;
/// Records of a partition are copied rather than kept where they would keep a response in memory that is this many times as large.
const COPY_RATIO: usize = 16;
/// glibc's allocator gives free memory back to the system beyond twice the largest block that was mapped on its own and freed.
/// What a fetch takes is freed and taken again with the next one, and a page that comes anew from the system costs more than
/// to fill it: so one such block is mapped at the start, and never touched. Other allocators do not mind.
const MMAP_BLOCK_BYTES: usize = 8 << 20;
/// How long an election may take without a word of it in the log.
const ELECTION_GRACE: Duration = Duration::from_secs(3);
/// Partitions that a warning names.
const MAX_NAMED_PARTITIONS: usize = 5;

/// Ends its tasks on drop; who owns the tracker they run in can wait for them.
#[derive(Debug)]
pub(crate) struct Fetcher {
    state: Arc<FetchState>,
    _cancel: DropGuard,
}

/// What the tasks share. The planner's lock is taken before the event queue's, and both are held where what is fetched and what
/// is to be delivered must agree.
pub(crate) struct FetchState {
    client: Client,
    config: ConsumerConfig,
    events: Arc<EventQueue>,
    /// Where to tell start offsets that must not be forgotten; none without a group.
    reset_offsets: Option<mpsc::Sender<(Lease, i64)>>,
    planner: Lock<FetchPlanner>,
    /// Leaders that can't be asked, and why.
    unreachable: Lock<BTreeMap<i32, OngoingOutage>>,
    /// Why partitions have no leader to ask.
    leaderless: Lock<Option<OngoingOutage>>,
    /// Buffers for batches that are opened.
    spare: BufferPool,
    /// Leaders or budgets have changed.
    changed: Arc<Notify>,
    /// Partitions have come, whose leaders are to be looked up.
    added: Notify,
    cancel: CancellationToken,
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
            spare: BufferPool::default(),
            changed,
            added: Notify::new(),
            cancel: cancel.clone(),
            tasks: tasks.clone(),
        });
        tasks.spawn(follow_leaders(Arc::clone(&state)));
        Self { state, _cancel: cancel.drop_guard() }
    }

    /// Reads these too.
    pub(crate) fn add(&self, partitions: Vec<(Lease, StartPosition)>) {
        for (lease, begin) in &partitions {
            if let Some(offset) = begin.offset() {
                self.state.events.set_position(lease, offset);
            }
        }
        self.state.planner().add(partitions);
        self.state.added.notify_one();
    }

    /// For the front, to move and to pause what is read.
    pub(crate) fn state(&self) -> Arc<FetchState> {
        Arc::clone(&self.state)
    }

    /// Reads these no more; nothing of them comes from here on.
    pub(crate) fn remove(&self, partitions: &[TopicPartition]) {
        self.state.planner().remove(partitions);
        self.state.changed.notify_waiters(); // the shares of the others have grown
    }
}

/// Keeps a task running for each broker that leads something.
async fn follow_leaders(f: Arc<FetchState>) {
    let work = async {
        let mut updated = f.client.cluster().updated();
        let mut backoff = f.planner().backoff();
        let mut outage = Outage::default();
        loop {
            let snapshot = Arc::clone(&updated.borrow_and_update());
            let changes = f.planner().apply_metadata(&snapshot);
            for broker in changes.new_brokers {
                f.spawn(broker);
            }
            f.changed.notify_waiters();
            // A group shares out anew when its topics change; without one the program has to know.
            for p in changes.missing.into_iter().filter(|_| f.reset_offsets.is_none()) {
                let what = format!("{p} does not exist; reading goes on when it does");
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
                    return; // the client is gone
                },
                () = f.added.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    };
    _ = f.cancel.run_until_cancelled(work).await;
}

/// Fetches from a broker for as long as it leads something.
async fn serve(f: Arc<FetchState>, broker: i32) {
    let backoff = f.planner().backoff();
    let outage = Outage::default();
    let mut link = BrokerFetcher { broker, connection: None, backoff, outage, reported: false };
    _ = f.cancel.run_until_cancelled(run(&f, &mut link)).await;
    f.unreachable.lock().remove(&broker);
    if let Some(connection) = link.connection {
        connection.close().await; // a long poll would keep it open
    }
}

/// A response that is being taken apart.
struct Response {
    /// Bytes of records in it.
    bytes: usize,
    /// Once some of its records are kept as slices of it.
    charge: Option<Arc<Charge>>,
}

/// A broker and the connection to it.
struct BrokerFetcher {
    broker: i32,
    connection: Option<Connection>,
    backoff: Backoff,
    outage: Outage,
    /// Whether an answer that can't be read has been told.
    reported: bool,
}

async fn run(f: &Arc<FetchState>, link: &mut BrokerFetcher) {
    loop {
        let mut changed = pin!(f.changed.notified());
        changed.as_mut().enable(); // a change from here on is not missed
        let now = Instant::now().into_std();
        if f.planner().expire_preferred_replicas(now) {
            f.wake();
        }
        let plan = f.planner().plan(link.broker, now);
        match plan {
            Plan::Stop => return,
            Plan::Wait(None) => changed.await,
            Plan::Wait(Some(until)) => _ = tokio::time::timeout_at(until.into(), changed).await,
            Plan::ListOffsets(requests) => {
                let outcome = f.list_offsets(link, &requests).await;
                f.on_request_done(link, &requests, outcome).await;
            }
            Plan::Validate(requests) => {
                let outcome = f.validate(link, &requests).await;
                f.on_request_done(link, &requests, outcome).await;
            }
            Plan::Fetch(plan) => {
                let outcome = f.fetch(link, &plan).await;
                f.on_request_done::<FetchFrom>(link, &[], outcome).await;
            }
        }
    }
}

/// The first few, and how many more there are.
fn named(partitions: &[TopicPartition]) -> String {
    let names: Vec<_> = partitions.iter().take(MAX_NAMED_PARTITIONS).map(ToString::to_string).collect();
    match partitions.len().saturating_sub(MAX_NAMED_PARTITIONS) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// Which partitions have no leader, and who could be it.
fn leaderless(partitions: &[TopicPartition], snapshot: &Snapshot) -> Error {
    let replicas = partitions.iter().filter_map(|p| snapshot.topics.get(&p.topic)?.partition(p.partition));
    let away: BTreeSet<i32> =
        replicas.flat_map(|p| &p.replicas).filter(|b| !snapshot.brokers.contains_key(b)).copied().collect();
    let away: Vec<_> = away.iter().map(ToString::to_string).collect();
    let why = match away.len() {
        0 => String::new(),
        1 => format!(": broker {}, which has a replica, is not in the cluster's metadata and may be down", away[0]),
        _ => format!(
            ": brokers {}, which have replicas, are not in the cluster's metadata and may be down",
            away.join(", ")
        ),
    };
    let what = format!("{} without a leader{why}", named(partitions));
    Error::new(ErrorKind::Broker(code::LEADER_NOT_AVAILABLE), what)
}

impl FetchState {
    fn planner(&self) -> MutexGuard<'_, FetchPlanner> {
        self.planner.lock()
    }

    /// Partitions that can't be read now, each with the reason: their leader can't be reached, or there is none.
    pub(crate) fn outages(&self) -> Vec<(TopicPartition, OngoingOutage)> {
        let sources = self.planner().partition_sources();
        let (unreachable, leaderless) = (self.unreachable.lock(), self.leaderless.lock());
        let trouble = |source: Option<i32>| match source {
            Some(broker) => unreachable.get(&broker).cloned(),
            None => leaderless.clone(),
        };
        sources.into_iter().filter_map(|(p, source)| Some((p, trouble(source)?))).collect()
    }

    /// Tells of partitions without a leader, if they stay so.
    fn report_leaderless(&self, snapshot: &Snapshot, outage: &mut Outage) {
        let now = Instant::now().into_std();
        let without: Vec<_> =
            self.planner().partition_sources().into_iter().filter(|(_, s)| s.is_none()).map(|(p, _)| p).collect();
        // Those of a topic that does not exist are told as missing.
        let without: Vec<_> = without.into_iter().filter(|p| snapshot.topics.contains_key(&p.topic)).collect();
        if without.is_empty() {
            if let Some(lasted) = outage.record_recovery(now) {
                tracing::warn!("all partitions have a leader again, after {lasted}");
            }
        } else {
            let e = leaderless(&without, snapshot);
            if let Some(lasted) = outage.record_failure_with_grace(now, &e, ELECTION_GRACE) {
                tracing::warn!(error = %e.full(), "partitions can't be read, {lasted}; reading goes on when they have a leader");
            }
        }
        *self.leaderless.lock() = outage.ongoing();
    }

    /// A request to a broker has come to nothing: the partitions that wait for it are named now and then.
    fn failed(&self, link: &mut BrokerFetcher, e: &Error) {
        let now = Instant::now().into_std();
        let broker = link.broker;
        let lasted = link.outage.record_failure(now, e);
        if let Some(trouble) = link.outage.ongoing() {
            self.unreachable.lock().insert(broker, trouble);
        }
        if let Some(lasted) = lasted {
            let waiting =
                self.planner().partition_sources().into_iter().filter(|(_, s)| *s == Some(broker)).map(|(p, _)| p);
            let partitions = named(&waiting.collect::<Vec<_>>());
            let address = self.client.cluster().snapshot().brokers.get(&broker).map(ToString::to_string);
            let address = address.unwrap_or_else(|| "an unknown address".into());
            tracing::warn!(
                broker, address, partitions, error = %e.full(),
                "a broker that leads partitions can't be read from, {lasted}; it is tried again"
            );
        }
    }

    /// A request to a broker has been answered.
    fn recovered(&self, link: &mut BrokerFetcher) {
        if link.outage.ongoing().is_none() {
            return;
        }
        self.unreachable.lock().remove(&link.broker);
        if let Some(lasted) = link.outage.record_recovery(Instant::now().into_std()) {
            tracing::warn!(broker = link.broker, "the broker can be read from again, after {lasted}");
        }
    }

    fn report_error(&self, lease: Option<&Lease>, e: Error) {
        tracing::warn!(error = %e.full(), "reading has met with trouble");
        self.events.meter().failed("consumer", e.kind());
        self.events.push_error(lease, e);
    }

    fn spawn(self: &Arc<Self>, broker: i32) {
        self.tasks.spawn(serve(Arc::clone(self), broker));
    }

    /// Something is to be asked of other brokers than before, or of one that waits.
    fn wake(self: &Arc<Self>) {
        let starts = self.planner().take_new_brokers();
        starts.into_iter().for_each(|broker| self.spawn(broker));
        self.changed.notify_waiters();
    }

    /// Reads on somewhere else: nothing of before is delivered any more.
    pub(crate) fn seek(self: &Arc<Self>, lease: &Lease, to: StartOffset) {
        let mut planner = self.planner();
        planner.seek(lease, to);
        let offset = if let StartOffset::Offset(offset) = to { Some(offset) } else { None };
        self.events.on_seek(lease, offset);
        drop(planner);
        self.wake();
    }

    /// Fetches and delivers these no more, or again; what is here is kept.
    pub(crate) fn pause(self: &Arc<Self>, leases: &[Lease], paused: bool) {
        let mut planner = self.planner();
        planner.pause(leases, paused);
        self.events.set_paused(leases, paused);
        drop(planner);
        self.wake();
    }

    /// After a request: all is well, or the connection is given up and the partitions are asked for again later.
    async fn on_request_done<T>(
        self: &Arc<Self>,
        link: &mut BrokerFetcher,
        requests: &[PartitionRequest<T>],
        outcome: Result<()>,
    ) {
        let Err(e) = outcome else {
            link.backoff.reset();
            link.reported = false;
            self.recovered(link);
            return;
        };
        if let Some(connection) = link.connection.take() {
            connection.kill("its last request failed");
        }
        {
            let mut planner = self.planner();
            planner.on_failure(link.broker);
            let current: Vec<_> =
                requests.iter().filter(|request| planner.is_current(request)).map(|a| a.lease.clone()).collect();
            let fetched = planner.clear_in_flight_of(link.broker);
            for lease in current.iter().chain(&fetched) {
                planner.drop_preferred_replica(lease, link.broker, Instant::now().into_std());
                planner.clear_in_flight([lease]);
            }
        }
        self.wake();
        self.failed(link, &e);
        self.events.meter().failed("consumer", e.kind());
        // What can't be read or is not spoken does not pass by itself: the program is told, once.
        if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported)
            && !std::mem::replace(&mut link.reported, true)
        {
            self.events.push_error(None, e);
        }
        self.client.cluster().refresh_soon(); // perhaps another broker leads by now
        tokio::time::sleep(link.backoff.next()).await;
    }

    async fn connect<'a>(&self, link: &'a mut BrokerFetcher) -> Result<&'a Connection> {
        if link.connection.as_ref().is_some_and(Connection::is_closed) {
            link.connection = None;
        }
        match &mut link.connection {
            Some(connection) => Ok(connection),
            none => {
                let began = Instant::now();
                let connection = self.client.cluster().connect(link.broker).await?;
                // Two round trips at least: TCP's, and the one that agrees on versions.
                self.planner().on_round_trip(link.broker, began.elapsed() / 2);
                Ok(none.insert(connection))
            }
        }
    }

    /// Asks for offsets at the ends of logs or at a time.
    async fn list_offsets(&self, link: &mut BrokerFetcher, requests: &[PartitionRequest<StartOffset>]) -> Result<()> {
        let timeout = self.client.config().request_timeout;
        let request = list_offsets_request(requests, self.config.isolation_level);
        let connection = self.connect(link).await?;
        let began = Instant::now();
        let answer = connection.request(request, timeout).await?;
        self.planner().on_round_trip(link.broker, began.elapsed());
        let mut offsets = decode_list_offsets(answer);
        for request in requests {
            let found = offsets.remove(&request.lease.partition);
            let pin = self.on_listed(request, found);
            if let (Some(offset), Some(reset_offsets)) = (pin, &self.reset_offsets) {
                _ = reset_offsets.send((request.lease.clone(), offset)).await; // the group's task may be ending
            }
        }
        Ok(())
    }

    /// What fetched of an offset that was asked for. Gives it if it must not be forgotten.
    fn on_listed(
        &self,
        request: &PartitionRequest<StartOffset>,
        found: Option<Result<(i64, Option<i32>), i16>>,
    ) -> Option<i64> {
        let p = &request.lease;
        let mut planner = self.planner();
        if !planner.is_current(request) {
            return None;
        }
        match found {
            None => planner.clear_in_flight([p]),
            Some(Err(code)) => {
                drop(planner);
                self.on_partition_error(p, code, "finding the start offset of");
            }
            Some(Ok((offset, epoch))) => {
                let sought = planner.on_offset_resolved(p, request.what, offset, epoch);
                if let Some(offset) = sought.at {
                    self.events.set_position(p, offset);
                }
                drop(planner);
                if let Some(e) = sought.report {
                    self.report_error(Some(p), e);
                }
                return sought.at.filter(|_| sought.must_commit);
            }
        }
        None
    }

    /// Asks whether what was read is still in the logs.
    async fn validate(
        self: &Arc<Self>,
        link: &mut BrokerFetcher,
        requests: &[PartitionRequest<PositionCheck>],
    ) -> Result<()> {
        let timeout = self.client.config().request_timeout;
        let answer = match self.connect(link).await?.request(leader_epochs_request(requests), timeout).await {
            Err(e) if e.kind() == ErrorKind::Unsupported => {
                tracing::debug!(broker = link.broker, "it can't tell whether logs were cut");
                self.planner().skip_validation(requests.iter().map(|a| &a.lease));
                self.wake();
                return Ok(());
            }
            answer => answer?,
        };
        let mut ends = decode_leader_epochs(&answer);
        for request in requests {
            let p = &request.lease;
            let mut planner = self.planner();
            if !planner.is_current(request) {
                continue;
            }
            match ends.remove(&p.partition) {
                None => planner.clear_in_flight([p]),
                Some(Err(code)) => {
                    drop(planner);
                    self.on_partition_error(p, code, "validating the position of");
                }
                Some(Ok(end)) => {
                    if let Some(end) = planner.on_validated(p, request.what, end) {
                        let at = self.events.truncate(p, end);
                        tracing::warn!(
                            partition = %p, read = request.what.offset, cut = end, new = at,
                            "the log was cut and written anew below the position: reading goes on at the new one"
                        );
                        planner.seek(p, StartOffset::Offset(at));
                    }
                }
            }
        }
        self.wake(); // a preferred replica may be fetched from again
        Ok(())
    }

    fn on_partition_error(&self, p: &Lease, code: i16, doing: &str) {
        let refused = self.planner().on_error(p, Instant::now().into_std(), code, doing);
        if refused.refresh {
            self.client.cluster().refresh_soon();
        }
        match refused.report {
            Some(e) => self.report_error(Some(p), e),
            None => self.events.meter().failed("consumer", kind_of(code)),
        }
    }

    async fn fetch(self: &Arc<Self>, link: &mut BrokerFetcher, plan: &FetchPlan) -> Result<()> {
        let timeout = plan.wait + self.client.config().request_timeout;
        let request = fetch_request(plan, &self.config);
        let connection = self.connect(link).await?;
        let answer = connection.request(request, timeout).await?;
        connection.report_throttle("Fetch", Duration::from_millis(answer.throttle_time_ms.try_into().unwrap_or(0)));
        let partitions = answer.responses.iter().flat_map(|t| &t.partitions);
        let bytes = partitions.map(|p| p.records.as_ref().map_or(0, Bytes::len)).sum();
        let now = Instant::now().into_std();
        let counts = self.planner().on_response(link.broker, now, answer.error_code, answer.session_id, bytes);
        if !counts {
            tracing::debug!(broker = link.broker, "the fetch session is gone: it begins again");
        } else if answer.error_code != 0 {
            return Err(Error::broker(answer.error_code, format_args!("fetching from broker {}", link.broker)));
        } else {
            self.take(answer, link.broker, bytes).await;
        }
        self.planner().clear_in_flight_of(link.broker);
        Ok(())
    }

    /// Takes what a response has brought, `bytes` of records in all.
    async fn take(self: &Arc<Self>, answer: FetchResponse, broker: i32, bytes: usize) {
        let mut response = Response { bytes, charge: None };
        let mut elsewhere = false;
        for topic in answer.responses {
            let name: Arc<str> = topic.topic.as_str().into();
            for data in topic.partitions {
                let p = TopicPartition { topic: Arc::clone(&name), partition: data.partition_index };
                let Some(request) = self.planner().current_request(broker, &p) else { continue };
                let replica = data.preferred_read_replica.0;
                match data.error_code {
                    0 if replica >= 0 => {
                        let until = Instant::now() + self.client.config().metadata_max_age;
                        tracing::debug!(partition = %p, replica, "it is fetched from a closer replica");
                        self.planner().set_preferred_replica(&request.lease, replica, until.into_std());
                        elsewhere = true;
                    }
                    0 => self.deliver(&request, data, &mut response).await,
                    code => {
                        let deserted =
                            self.planner().drop_preferred_replica(&request.lease, broker, Instant::now().into_std());
                        elsewhere |= deserted;
                        // A replica that has fallen behind does not know the whole log: the leader is asked.
                        if !(deserted && code == code::OFFSET_OUT_OF_RANGE) {
                            self.on_partition_error(&request.lease, code, "fetching");
                        }
                    }
                }
            }
        }
        if elsewhere {
            self.wake();
        }
    }

    async fn deliver(&self, request: &PartitionRequest<FetchFrom>, data: PartitionData, response: &mut Response) {
        let p = &request.lease;
        let committed = self.config.isolation_level == IsolationLevel::ReadCommitted;
        let mut aborted =
            committed.then(|| AbortedTransactions::new(data.aborted_transactions.as_deref().unwrap_or_default()));
        let marks = Watermarks {
            log_start_offset: Some(data.log_start_offset).filter(|offset| *offset >= 0),
            high_watermark: data.high_watermark,
            last_stable_offset: Some(data.last_stable_offset).filter(|offset| *offset >= 0),
        };
        let (mut bytes, mut offset) = (data.records.unwrap_or_default(), request.what.offset);
        loop {
            let (wire, compressed) = (bytes.len(), is_compressed(&bytes));
            let (room, full) = {
                let mut planner = self.planner();
                (planner.available_bytes(p), planner.budget().free() == 0)
            };
            // Records of an uncompressed batch are slices of the whole response: a few must not keep it, and where the budget is
            // used up, none may.
            let kept =
                !compressed && wire > 0 && wire >= response.bytes / COPY_RATIO && (response.charge.is_some() || !full);
            if wire > 0 && room == 0 && !kept {
                return self.planner().clear_in_flight([p]); // the others of this response have used it up, or what fetched before
            }
            let (piece, base, room) = match (compressed, kept) {
                (true, _) => (bytes.clone(), 0, room.min(DECODE_CHUNK_BYTES)),
                (false, true) => (bytes.clone(), wire, usize::MAX),
                (false, false) => (Bytes::copy_from_slice(&bytes), wire, room),
            };
            let shared = kept.then(|| (self.charge(response), wire));
            let end = marks.high_watermark;
            let mut decoded = self.decode(piece, offset, aborted.take(), room, end).await;
            let (used, next, damaged) = (decoded.used_bytes, decoded.next_offset, decoded.error.is_some());
            aborted = decoded.aborted.take();
            let wanted = self.enqueue_records(request, offset, decoded, (base, shared), marks);
            (bytes, offset) = (bytes.slice(used..), next);
            if !(wanted && compressed && used > 0 && begins_with_batch(&bytes)) || damaged {
                return;
            }
        }
    }

    /// Charges a response, once for all partitions that keep slices of it.
    fn charge(&self, response: &mut Response) -> Arc<Charge> {
        let charge = response.charge.get_or_insert_with(|| Arc::new(self.planner().budget().charge(response.bytes)));
        Arc::clone(charge)
    }

    /// Delivers what was decoded from `offset` on, which takes as much memory as it has `decoded_bytes` and the `base` that it is slices of,
    /// `shared` with others of its response. Returns whether it was still wanted.
    fn enqueue_records(
        &self,
        request: &PartitionRequest<FetchFrom>,
        offset: i64,
        decoded: DecodedFetch,
        (base, shared): (usize, Option<(Arc<Charge>, usize)>),
        marks: Watermarks,
    ) -> bool {
        let p = &request.lease;
        let DecodedFetch {
            records,
            next_offset,
            leader_epoch,
            used_bytes,
            decoded_bytes,
            batches,
            uncompressed,
            error,
            ..
        } = decoded;
        let committed = self.config.isolation_level == IsolationLevel::ReadCommitted;
        let counts = meter::FetchedStats { batches, records: records.len(), bytes: used_bytes, uncompressed };
        let leader_epoch = leader_epoch.filter(|epoch| *epoch >= 0);
        let memory = if records.is_empty() { 0 } else { base + decoded_bytes };
        let end = marks.last_stable_offset.filter(|_| committed).unwrap_or(marks.high_watermark);
        let response = shared.filter(|_| memory > 0);
        let fetched = FetchedPartition {
            next: next_offset,
            end,
            leader_epoch,
            wire: used_bytes,
            memory,
            response,
            corrupt: error.is_some(),
        };
        {
            let mut planner = self.planner();
            if !planner.is_current(request) {
                return false;
            }
            let fetched = planner.on_fetched(p, Instant::now().into_std(), offset, fetched);
            self.events.set_watermarks(p, marks);
            self.events.meter().fetched(&p.partition, counts, end);
            let Some((held, tell)) = fetched else { return false };
            if tell {
                let records = Records {
                    topic: Arc::clone(&p.partition.topic),
                    partition: p.partition.partition,
                    records,
                    next_offset,
                    leader_epoch,
                    high_watermark: marks.high_watermark,
                    last_stable_offset: marks.last_stable_offset,
                    read_committed: committed,
                    epoch: p.epoch,
                    _held: Some(held),
                };
                self.events.push_records(p, records);
            }
        }
        if let Some(e) = error {
            if self.planner().on_corrupt(p) {
                let what = format!("reading {p} at offset {next_offset}; it is tried again, and nothing is skipped");
                self.report_error(Some(p), e.context(what));
            }
        }
        true
    }

    async fn decode(
        &self,
        bytes: Bytes,
        offset: i64,
        aborted: Option<AbortedTransactions>,
        room: usize,
        end: i64,
    ) -> DecodedFetch {
        let (max_decompressed, spare) = (self.config.max_decompressed_bytes, self.spare.clone());
        let end = if end < 0 { i64::MAX } else { end };
        let limits = DecodeLimits { max_decompressed, max_memory: room, log_end: end, spare };
        if !is_compressed(&bytes) || bytes.len() < OFFLOAD_BYTES {
            return decode_fetch(bytes, offset, aborted, limits);
        }
        match tokio::task::spawn_blocking(move || decode_fetch(bytes, offset, aborted, limits)).await {
            Ok(decoded) => decoded,
            Err(e) => {
                let e = Error::with_source(ErrorKind::Corrupt, "opening a compressed batch failed", e);
                DecodedFetch { error: Some(e), ..DecodedFetch::empty(offset) }
            }
        }
    }
}
