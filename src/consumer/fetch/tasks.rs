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

use super::budget::Charge;
use super::decode::{Aborted, Limits, Unpacked, unpack};
use super::partition::Begin;
use super::planner::{Ask, Came, FetchFrom, Plan, Tracker, Validate};
use super::requests::{epochs_answer, epochs_request, fetch_request, list_answer, list_request};
use super::source::FetchPlan;
use crate::cluster::{Backoff, Client, Snapshot};
use crate::code;
use crate::config::{ConsumerConfig, IsolationLevel};
use crate::consumer::event::{Records, StartOffset, Watermarks};
use crate::consumer::event_queue::Inbox;
use crate::consumer::lease::Lease;
use crate::consumer::metrics as meter;
use crate::error::{Error, ErrorKind, Result, kind_of};
use crate::failure::{OngoingOutage, Outage};
use crate::lock::Lock;
use crate::record::{BufferPool, TopicPartition, begins_with_batch, is_compressed};
use crate::wire::Connection;

/// Until something changes.
const FOREVER: Duration = Duration::from_secs(86_400);
/// Compressed bytes of a partition from which they are opened off the async threads.
const OFFLOAD: usize = 64 << 10;
/// Memory that compressed batches may take before what they hold is handed over: opened all at once, a fetch's take what is spared
/// for their partition, and the program waits for the last of them.
const PIECE: usize = 1 << 20;
/// Records of a partition are copied rather than kept where they would keep a response in memory that is this many times as large.
const MUCH: usize = 16;
/// glibc's allocator gives free memory back to the system beyond twice the largest block that was mapped on its own and freed.
/// What a fetch takes is freed and taken again with the next one, and a page that comes anew from the system costs more than
/// to fill it: so one such block is mapped at the start, and never touched. Other allocators do not mind.
const MAPPED: usize = 8 << 20;
/// How long an election may take without a word of it in the log.
const ELECTION: Duration = Duration::from_secs(3);
/// Partitions that a warning names.
const NAMED: usize = 5;

/// Ends its tasks on drop; who owns the tracker they run in can wait for them.
#[derive(Debug)]
pub(crate) struct Fetcher {
    shared: Arc<Shared>,
    _cancel: DropGuard,
}

/// What the tasks share. The tracker's lock is taken before the inbox's, and both are held where what is fetched and what
/// is to be delivered must agree.
pub(crate) struct Shared {
    client: Client,
    config: ConsumerConfig,
    inbox: Arc<Inbox>,
    /// Where to tell start offsets that must not be forgotten; none without a group.
    pins: Option<mpsc::Sender<(Lease, i64)>>,
    tracker: Lock<Tracker>,
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

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("tracker", &self.tracker).finish_non_exhaustive()
    }
}

impl Fetcher {
    pub(crate) fn start(
        client: &Client,
        config: &ConsumerConfig,
        inbox: &Arc<Inbox>,
        tasks: &TaskTracker,
        pins: Option<mpsc::Sender<(Lease, i64)>>,
    ) -> Self {
        drop(std::hint::black_box(Vec::<u8>::with_capacity(MAPPED)));
        let changed = Arc::new(Notify::new());
        let tracker = Tracker::new(config, client.cluster().backoff(), Arc::clone(&changed));
        let cancel = CancellationToken::new();
        let shared = Arc::new(Shared {
            client: client.clone(),
            config: config.clone(),
            inbox: Arc::clone(inbox),
            pins,
            tracker: Lock::new(tracker),
            unreachable: Lock::default(),
            leaderless: Lock::default(),
            spare: BufferPool::default(),
            changed,
            added: Notify::new(),
            cancel: cancel.clone(),
            tasks: tasks.clone(),
        });
        tasks.spawn(follow_leaders(Arc::clone(&shared)));
        Self { shared, _cancel: cancel.drop_guard() }
    }

    /// Reads these too.
    pub(crate) fn add(&self, partitions: Vec<(Lease, Begin)>) {
        for (lease, begin) in &partitions {
            if let Some(offset) = begin.offset() {
                self.shared.inbox.starts(lease, offset);
            }
        }
        self.shared.tracker().add(partitions);
        self.shared.added.notify_one();
    }

    /// For the front, to move and to pause what is read.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Reads these no more; nothing of them comes from here on.
    pub(crate) fn remove(&self, partitions: &[TopicPartition]) {
        self.shared.tracker().remove(partitions);
        self.shared.changed.notify_waiters(); // the shares of the others have grown
    }
}

/// Keeps a task running for each broker that leads something.
async fn follow_leaders(f: Arc<Shared>) {
    let work = async {
        let mut updated = f.client.cluster().updated();
        let mut backoff = f.tracker().backoff();
        let mut outage = Outage::default();
        loop {
            let snapshot = Arc::clone(&updated.borrow_and_update());
            let moved = f.tracker().lead(&snapshot);
            for broker in moved.start {
                f.spawn(broker);
            }
            f.changed.notify_waiters();
            // A group shares out anew when its topics change; without one the program has to know.
            for p in moved.missing.into_iter().filter(|_| f.pins.is_none()) {
                let what = format!("{p} does not exist; reading goes on when it does");
                f.trouble(Some(&p), Error::new(ErrorKind::UnknownTopic, what));
            }
            f.look_for_leaders(&snapshot, &mut outage);
            let wait = if moved.leaderless {
                f.client.cluster().refresh_soon();
                backoff.next()
            } else {
                backoff.reset();
                FOREVER
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
async fn serve(f: Arc<Shared>, broker: i32) {
    let backoff = f.tracker().backoff();
    let outage = Outage::default();
    let mut link = Link { broker, connection: None, backoff, outage, reported: false };
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
struct Link {
    broker: i32,
    connection: Option<Connection>,
    backoff: Backoff,
    outage: Outage,
    /// Whether an answer that can't be read has been told.
    reported: bool,
}

async fn run(f: &Arc<Shared>, link: &mut Link) {
    loop {
        let mut changed = pin!(f.changed.notified());
        changed.as_mut().enable(); // a change from here on is not missed
        let now = Instant::now().into_std();
        if f.tracker().expire(now) {
            f.wake();
        }
        let plan = f.tracker().plan(link.broker, now);
        match plan {
            Plan::Gone => return,
            Plan::Wait(None) => changed.await,
            Plan::Wait(Some(until)) => _ = tokio::time::timeout_at(until.into(), changed).await,
            Plan::Seek(asks) => {
                let outcome = f.ask_offsets(link, &asks).await;
                f.settle(link, &asks, outcome).await;
            }
            Plan::Validate(asks) => {
                let outcome = f.validate(link, &asks).await;
                f.settle(link, &asks, outcome).await;
            }
            Plan::Fetch(plan) => {
                let outcome = f.fetch(link, &plan).await;
                f.settle::<FetchFrom>(link, &[], outcome).await;
            }
        }
    }
}

/// The first few, and how many more there are.
fn named(partitions: &[TopicPartition]) -> String {
    let names: Vec<_> = partitions.iter().take(NAMED).map(ToString::to_string).collect();
    match partitions.len().saturating_sub(NAMED) {
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

impl Shared {
    fn tracker(&self) -> MutexGuard<'_, Tracker> {
        self.tracker.lock()
    }

    /// Partitions that can't be read now, each with the reason: their leader can't be reached, or there is none.
    pub(crate) fn troubles(&self) -> Vec<(TopicPartition, OngoingOutage)> {
        let sources = self.tracker().sources();
        let (unreachable, leaderless) = (self.unreachable.lock(), self.leaderless.lock());
        let trouble = |source: Option<i32>| match source {
            Some(broker) => unreachable.get(&broker).cloned(),
            None => leaderless.clone(),
        };
        sources.into_iter().filter_map(|(p, source)| Some((p, trouble(source)?))).collect()
    }

    /// Tells of partitions without a leader, if they stay so.
    fn look_for_leaders(&self, snapshot: &Snapshot, outage: &mut Outage) {
        let now = Instant::now().into_std();
        let without: Vec<_> =
            self.tracker().sources().into_iter().filter(|(_, s)| s.is_none()).map(|(p, _)| p).collect();
        // Those of a topic that does not exist are told as missing.
        let without: Vec<_> = without.into_iter().filter(|p| snapshot.topics.contains_key(&p.topic)).collect();
        if without.is_empty() {
            if let Some(lasted) = outage.record_recovery(now) {
                tracing::warn!("all partitions have a leader again, after {lasted}");
            }
        } else {
            let e = leaderless(&without, snapshot);
            if let Some(lasted) = outage.record_failure_with_grace(now, &e, ELECTION) {
                tracing::warn!(error = %e.full(), "partitions can't be read, {lasted}; reading goes on when they have a leader");
            }
        }
        *self.leaderless.lock() = outage.ongoing();
    }

    /// A request to a broker has come to nothing: the partitions that wait for it are named now and then.
    fn failed(&self, link: &mut Link, e: &Error) {
        let now = Instant::now().into_std();
        let broker = link.broker;
        let lasted = link.outage.record_failure(now, e);
        if let Some(trouble) = link.outage.ongoing() {
            self.unreachable.lock().insert(broker, trouble);
        }
        if let Some(lasted) = lasted {
            let waiting = self.tracker().sources().into_iter().filter(|(_, s)| *s == Some(broker)).map(|(p, _)| p);
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
    fn recovered(&self, link: &mut Link) {
        if link.outage.ongoing().is_none() {
            return;
        }
        self.unreachable.lock().remove(&link.broker);
        if let Some(lasted) = link.outage.record_recovery(Instant::now().into_std()) {
            tracing::warn!(broker = link.broker, "the broker can be read from again, after {lasted}");
        }
    }

    fn trouble(&self, lease: Option<&Lease>, e: Error) {
        tracing::warn!(error = %e.full(), "reading has met with trouble");
        self.inbox.meter().failed("consumer", e.kind());
        self.inbox.trouble(lease, e);
    }

    fn spawn(self: &Arc<Self>, broker: i32) {
        self.tasks.spawn(serve(Arc::clone(self), broker));
    }

    /// Something is to be asked of other brokers than before, or of one that waits.
    fn wake(self: &Arc<Self>) {
        let starts = self.tracker().starts();
        starts.into_iter().for_each(|broker| self.spawn(broker));
        self.changed.notify_waiters();
    }

    /// Reads on somewhere else: nothing of before is delivered any more.
    pub(crate) fn seek(self: &Arc<Self>, lease: &Lease, to: StartOffset) {
        let mut tracker = self.tracker();
        tracker.seek(lease, to);
        let offset = if let StartOffset::Offset(offset) = to { Some(offset) } else { None };
        self.inbox.sought(lease, offset);
        drop(tracker);
        self.wake();
    }

    /// Fetches and delivers these no more, or again; what is here is kept.
    pub(crate) fn pause(self: &Arc<Self>, leases: &[Lease], paused: bool) {
        let mut tracker = self.tracker();
        tracker.pause(leases, paused);
        self.inbox.pause(leases, paused);
        drop(tracker);
        self.wake();
    }

    /// After a request: all is well, or the connection is given up and the partitions are asked for again later.
    async fn settle<T>(self: &Arc<Self>, link: &mut Link, asks: &[Ask<T>], outcome: Result<()>) {
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
            let mut tracker = self.tracker();
            tracker.on_failure(link.broker);
            let current: Vec<_> = asks.iter().filter(|ask| tracker.is_current(ask)).map(|a| a.lease.clone()).collect();
            let fetched = tracker.release(link.broker);
            for lease in current.iter().chain(&fetched) {
                tracker.desert(lease, link.broker, Instant::now().into_std());
                tracker.give_back([lease]);
            }
        }
        self.wake();
        self.failed(link, &e);
        self.inbox.meter().failed("consumer", e.kind());
        // What can't be read or is not spoken does not pass by itself: the program is told, once.
        if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported)
            && !std::mem::replace(&mut link.reported, true)
        {
            self.inbox.trouble(None, e);
        }
        self.client.cluster().refresh_soon(); // perhaps another broker leads by now
        tokio::time::sleep(link.backoff.next()).await;
    }

    async fn connect<'a>(&self, link: &'a mut Link) -> Result<&'a Connection> {
        if link.connection.as_ref().is_some_and(Connection::is_closed) {
            link.connection = None;
        }
        match &mut link.connection {
            Some(connection) => Ok(connection),
            none => {
                let began = Instant::now();
                let connection = self.client.cluster().connect(link.broker).await?;
                // Two round trips at least: TCP's, and the one that agrees on versions.
                self.tracker().on_round_trip(link.broker, began.elapsed() / 2);
                Ok(none.insert(connection))
            }
        }
    }

    /// Asks for offsets at the ends of logs or at a time.
    async fn ask_offsets(&self, link: &mut Link, asks: &[Ask<StartOffset>]) -> Result<()> {
        let timeout = self.client.config().request_timeout;
        let request = list_request(asks, self.config.isolation_level);
        let connection = self.connect(link).await?;
        let began = Instant::now();
        let answer = connection.request(request, timeout).await?;
        self.tracker().on_round_trip(link.broker, began.elapsed());
        let mut offsets = list_answer(answer);
        for ask in asks {
            let found = offsets.remove(&ask.lease.partition);
            let pin = self.found(ask, found);
            if let (Some(offset), Some(pins)) = (pin, &self.pins) {
                _ = pins.send((ask.lease.clone(), offset)).await; // the group's task may be ending
            }
        }
        Ok(())
    }

    /// What came of an offset that was asked for. Gives it if it must not be forgotten.
    fn found(&self, ask: &Ask<StartOffset>, found: Option<Result<(i64, Option<i32>), i16>>) -> Option<i64> {
        let p = &ask.lease;
        let mut tracker = self.tracker();
        if !tracker.is_current(ask) {
            return None;
        }
        match found {
            None => tracker.give_back([p]),
            Some(Err(code)) => {
                drop(tracker);
                self.refused(p, code, "finding the start offset of");
            }
            Some(Ok((offset, epoch))) => {
                let sought = tracker.sought(p, ask.what, offset, epoch);
                if let Some(offset) = sought.at {
                    self.inbox.starts(p, offset);
                }
                drop(tracker);
                if let Some(e) = sought.report {
                    self.trouble(Some(p), e);
                }
                return sought.at.filter(|_| sought.pin);
            }
        }
        None
    }

    /// Asks whether what was read is still in the logs.
    async fn validate(self: &Arc<Self>, link: &mut Link, asks: &[Ask<Validate>]) -> Result<()> {
        let timeout = self.client.config().request_timeout;
        let answer = match self.connect(link).await?.request(epochs_request(asks), timeout).await {
            Err(e) if e.kind() == ErrorKind::Unsupported => {
                tracing::debug!(broker = link.broker, "it can't tell whether logs were cut");
                self.tracker().cannot_validate(asks.iter().map(|a| &a.lease));
                self.wake();
                return Ok(());
            }
            answer => answer?,
        };
        let mut ends = epochs_answer(&answer);
        for ask in asks {
            let p = &ask.lease;
            let mut tracker = self.tracker();
            if !tracker.is_current(ask) {
                continue;
            }
            match ends.remove(&p.partition) {
                None => tracker.give_back([p]),
                Some(Err(code)) => {
                    drop(tracker);
                    self.refused(p, code, "validating the position of");
                }
                Some(Ok(end)) => {
                    if let Some(end) = tracker.validated(p, ask.what, end) {
                        let at = self.inbox.rewind(p, end);
                        tracing::warn!(
                            partition = %p, read = ask.what.offset, cut = end, new = at,
                            "the log was cut and written anew below the position: reading goes on at the new one"
                        );
                        tracker.seek(p, StartOffset::Offset(at));
                    }
                }
            }
        }
        self.wake(); // a preferred replica may be fetched from again
        Ok(())
    }

    fn refused(&self, p: &Lease, code: i16, doing: &str) {
        let refused = self.tracker().refused(p, Instant::now().into_std(), code, doing);
        if refused.refresh {
            self.client.cluster().refresh_soon();
        }
        match refused.report {
            Some(e) => self.trouble(Some(p), e),
            None => self.inbox.meter().failed("consumer", kind_of(code)),
        }
    }

    async fn fetch(self: &Arc<Self>, link: &mut Link, plan: &FetchPlan) -> Result<()> {
        let timeout = plan.wait + self.client.config().request_timeout;
        let request = fetch_request(plan, &self.config);
        let connection = self.connect(link).await?;
        let answer = connection.request(request, timeout).await?;
        connection.report_throttle("Fetch", Duration::from_millis(answer.throttle_time_ms.try_into().unwrap_or(0)));
        let partitions = answer.responses.iter().flat_map(|t| &t.partitions);
        let bytes = partitions.map(|p| p.records.as_ref().map_or(0, Bytes::len)).sum();
        let now = Instant::now().into_std();
        let counts = self.tracker().on_response(link.broker, now, answer.error_code, answer.session_id, bytes);
        if !counts {
            tracing::debug!(broker = link.broker, "the fetch session is gone: it begins again");
        } else if answer.error_code != 0 {
            return Err(Error::broker(answer.error_code, format_args!("fetching from broker {}", link.broker)));
        } else {
            self.take(answer, link.broker, bytes).await;
        }
        self.tracker().release(link.broker);
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
                let Some(ask) = self.tracker().asked(broker, &p) else { continue };
                let replica = data.preferred_read_replica.0;
                match data.error_code {
                    0 if replica >= 0 => {
                        let until = Instant::now() + self.client.config().metadata_max_age;
                        tracing::debug!(partition = %p, replica, "it is fetched from a closer replica");
                        self.tracker().prefer(&ask.lease, replica, until.into_std());
                        elsewhere = true;
                    }
                    0 => self.deliver(&ask, data, &mut response).await,
                    code => {
                        let deserted = self.tracker().desert(&ask.lease, broker, Instant::now().into_std());
                        elsewhere |= deserted;
                        // A replica that has fallen behind does not know the whole log: the leader is asked.
                        if !(deserted && code == code::OFFSET_OUT_OF_RANGE) {
                            self.refused(&ask.lease, code, "fetching");
                        }
                    }
                }
            }
        }
        if elsewhere {
            self.wake();
        }
    }

    async fn deliver(&self, ask: &Ask<FetchFrom>, data: PartitionData, response: &mut Response) {
        let p = &ask.lease;
        let committed = self.config.isolation_level == IsolationLevel::ReadCommitted;
        let mut aborted = committed.then(|| Aborted::new(data.aborted_transactions.as_deref().unwrap_or_default()));
        let marks = Watermarks {
            log_start_offset: Some(data.log_start_offset).filter(|offset| *offset >= 0),
            high_watermark: data.high_watermark,
            last_stable_offset: Some(data.last_stable_offset).filter(|offset| *offset >= 0),
        };
        let (mut bytes, mut offset) = (data.records.unwrap_or_default(), ask.what.offset);
        loop {
            let (wire, compressed) = (bytes.len(), is_compressed(&bytes));
            let (room, full) = {
                let mut tracker = self.tracker();
                (tracker.room(p), tracker.budget().free() == 0)
            };
            // Records of an uncompressed batch are slices of the whole response: a few must not keep it, and where the budget is
            // used up, none may.
            let kept = !compressed && wire > 0 && wire >= response.bytes / MUCH && (response.charge.is_some() || !full);
            if wire > 0 && room == 0 && !kept {
                return self.tracker().give_back([p]); // the others of this response have used it up, or what came before
            }
            let (piece, base, room) = match (compressed, kept) {
                (true, _) => (bytes.clone(), 0, room.min(PIECE)),
                (false, true) => (bytes.clone(), wire, usize::MAX),
                (false, false) => (Bytes::copy_from_slice(&bytes), wire, room),
            };
            let shared = kept.then(|| (self.charge(response), wire));
            let end = marks.high_watermark;
            let mut unpacked = self.unpack(piece, offset, aborted.take(), room, end).await;
            let (used, next, damaged) = (unpacked.used, unpacked.next_offset, unpacked.damage.is_some());
            aborted = unpacked.aborted.take();
            let wanted = self.hand_over(ask, offset, unpacked, (base, shared), marks);
            (bytes, offset) = (bytes.slice(used..), next);
            if !(wanted && compressed && used > 0 && begins_with_batch(&bytes)) || damaged {
                return;
            }
        }
    }

    /// Charges a response, once for all partitions that keep slices of it.
    fn charge(&self, response: &mut Response) -> Arc<Charge> {
        let charge = response.charge.get_or_insert_with(|| Arc::new(self.tracker().budget().charge(response.bytes)));
        Arc::clone(charge)
    }

    /// Delivers what was unpacked from `offset` on, which takes as much memory as it has `grown` and the `base` that it is slices of,
    /// `shared` with others of its response. Returns whether it was still wanted.
    fn hand_over(
        &self,
        ask: &Ask<FetchFrom>,
        offset: i64,
        unpacked: Unpacked,
        (base, shared): (usize, Option<(Arc<Charge>, usize)>),
        marks: Watermarks,
    ) -> bool {
        let p = &ask.lease;
        let Unpacked { records, next_offset, leader_epoch, used, grown, batches, uncompressed, damage, .. } = unpacked;
        let committed = self.config.isolation_level == IsolationLevel::ReadCommitted;
        let counts = meter::Came { batches, records: records.len(), bytes: used, uncompressed };
        let leader_epoch = leader_epoch.filter(|epoch| *epoch >= 0);
        let memory = if records.is_empty() { 0 } else { base + grown };
        let end = marks.last_stable_offset.filter(|_| committed).unwrap_or(marks.high_watermark);
        let response = shared.filter(|_| memory > 0);
        let came =
            Came { next: next_offset, end, leader_epoch, wire: used, memory, response, damaged: damage.is_some() };
        {
            let mut tracker = self.tracker();
            if !tracker.is_current(ask) {
                return false;
            }
            let fetched = tracker.fetched(p, Instant::now().into_std(), offset, came);
            self.inbox.marks(p, marks);
            self.inbox.meter().fetched(&p.partition, counts, end);
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
                self.inbox.records(p, records);
            }
        }
        if let Some(e) = damage {
            if self.tracker().damaged(p) {
                let what = format!("reading {p} at offset {next_offset}; it is tried again, and nothing is skipped");
                self.trouble(Some(p), e.context(what));
            }
        }
        true
    }

    async fn unpack(&self, bytes: Bytes, offset: i64, aborted: Option<Aborted>, room: usize, end: i64) -> Unpacked {
        let (max_decompressed, spare) = (self.config.max_decompressed_bytes, self.spare.clone());
        let end = if end < 0 { i64::MAX } else { end };
        let limits = Limits { max_decompressed, room, end, spare };
        if !is_compressed(&bytes) || bytes.len() < OFFLOAD {
            return unpack(bytes, offset, aborted, limits);
        }
        match tokio::task::spawn_blocking(move || unpack(bytes, offset, aborted, limits)).await {
            Ok(unpacked) => unpacked,
            Err(e) => {
                let e = Error::with_source(ErrorKind::Corrupt, "opening a compressed batch failed", e);
                Unpacked { damage: Some(e), ..Unpacked::nothing(offset) }
            }
        }
    }
}
