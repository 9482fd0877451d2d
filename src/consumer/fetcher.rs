//! Fetches partitions: a task per broker that leads some of them, each with a connection of its own, and one that follows the
//! leaders. Partitions are added and removed while the others are read on: what was under way for one that was removed is
//! dropped when it comes. All tasks end when the [`Fetcher`] is dropped.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::inbox::Inbox;
use super::lease::Lease;
use super::offsets::{isolation, list_answer, list_request, topic_name};
use super::tracker::{Ask, Came, FetchFrom, Plan, Tracker};
use super::unpack::{Aborted, Unpacked, is_compressed, unpack};
use super::{Records, StartOffset};
use crate::cluster::{Backoff, Client};
use crate::config::{ConsumerConfig, IsolationLevel};
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;
use crate::wire::Connection;

/// How long a broker may hold a fetch while partitions that are left out of it wait for their turn.
const SHORT_WAIT: Duration = Duration::from_millis(50);
/// Until something changes.
const FOREVER: Duration = Duration::from_secs(86_400);
/// Compressed bytes of a partition from which they are opened off the async threads.
const OFFLOAD: usize = 64 << 10;
/// A slice this small is copied rather than kept, where it would keep a much larger answer in memory.
const SMALL: usize = 16 << 10;
/// What counts as much larger.
const MUCH: usize = 16;

/// Ends its tasks on drop; who owns the tracker they run in can wait for them.
#[derive(Debug)]
pub(crate) struct Fetcher {
    shared: Arc<Shared>,
    _cancel: DropGuard,
}

struct Shared {
    client: Client,
    config: ConsumerConfig,
    inbox: Arc<Inbox>,
    /// Where to tell start offsets that must not be forgotten; none without a group.
    pins: Option<mpsc::Sender<(Lease, i64)>>,
    tracker: Mutex<Tracker>,
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
        let changed = Arc::new(Notify::new());
        let tracker = Tracker::new(config, client.cluster().backoff(), Arc::clone(&changed));
        let cancel = CancellationToken::new();
        let shared = Arc::new(Shared {
            client: client.clone(),
            config: config.clone(),
            inbox: Arc::clone(inbox),
            pins,
            tracker: Mutex::new(tracker),
            changed,
            added: Notify::new(),
            cancel: cancel.clone(),
            tasks: tasks.clone(),
        });
        tasks.spawn(follow_leaders(Arc::clone(&shared)));
        Self { shared, _cancel: cancel.drop_guard() }
    }

    /// Reads these too.
    pub(crate) fn add(&self, partitions: Vec<(Lease, StartOffset)>) {
        for (lease, start) in &partitions {
            if let StartOffset::Offset(offset) = start {
                self.shared.inbox.starts(lease, *offset);
            }
        }
        self.shared.tracker().add(partitions);
        self.shared.added.notify_one();
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
        loop {
            let snapshot = Arc::clone(&updated.borrow_and_update());
            let moved = f.tracker().lead(&snapshot);
            for broker in moved.start {
                f.tasks.spawn(serve(Arc::clone(&f), broker));
            }
            f.changed.notify_waiters();
            // A group shares out anew when its topics change; without one the program has to know.
            for p in moved.missing.into_iter().filter(|_| f.pins.is_none()) {
                let what = format!("{p} does not exist; reading goes on when it does");
                f.trouble(Some(&p), Error::new(ErrorKind::UnknownTopic, what));
            }
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
    let mut link = Link { broker, connection: None, backoff: f.tracker().backoff(), reported: false };
    _ = f.cancel.run_until_cancelled(run(&f, &mut link)).await;
    if let Some(connection) = link.connection {
        connection.close().await; // a long poll would keep it open
    }
}

/// A broker and the connection to it.
struct Link {
    broker: i32,
    connection: Option<Connection>,
    backoff: Backoff,
    /// Whether an answer that can't be read has been told.
    reported: bool,
}

async fn run(f: &Shared, link: &mut Link) {
    loop {
        let mut changed = pin!(f.changed.notified());
        changed.as_mut().enable(); // a change from here on is not missed
        let plan = f.tracker().plan(link.broker, Instant::now().into_std());
        match plan {
            Plan::Gone => return,
            Plan::Wait(None) => changed.await,
            Plan::Wait(Some(until)) => _ = tokio::time::timeout_at(until.into(), changed).await,
            Plan::Seek(asks) => {
                let outcome = f.seek(link, &asks).await;
                f.settle(link, asks.iter().map(|a| &a.lease), outcome).await;
            }
            Plan::Fetch { asks, short } => {
                let outcome = f.fetch(link, &asks, short).await;
                f.settle(link, asks.iter().map(|a| &a.lease), outcome).await;
            }
        }
    }
}

impl Shared {
    fn tracker(&self) -> MutexGuard<'_, Tracker> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self, lease: Option<&Lease>, e: Error) {
        tracing::warn!(error = %e.full(), "reading has met with trouble");
        self.inbox.trouble(lease, e);
    }

    /// After a request: all is well, or the connection is given up and the partitions are asked for again later.
    async fn settle(&self, link: &mut Link, leases: impl Iterator<Item = &Lease>, outcome: Result<()>) {
        let Err(e) = outcome else {
            link.backoff.reset();
            link.reported = false;
            return;
        };
        if let Some(connection) = link.connection.take() {
            connection.kill("its last request failed");
        }
        self.tracker().give_back(leases);
        if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) && !link.reported {
            link.reported = true;
            self.trouble(None, e);
        } else {
            tracing::debug!(broker = link.broker, error = %e.full(), "fetching failed; it is tried again");
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
            none => Ok(none.insert(self.client.cluster().connect(link.broker).await?)),
        }
    }

    /// Asks for offsets at the ends of logs or at a time.
    async fn seek(&self, link: &mut Link, asks: &[Ask<StartOffset>]) -> Result<()> {
        let timeout = self.client.config().request_timeout;
        let answer =
            self.connect(link).await?.request(list_request(asks, self.config.isolation_level), timeout).await?;
        let mut offsets = list_answer(&answer);
        for ask in asks {
            let p = &ask.lease;
            match offsets.remove(&p.partition) {
                None => self.tracker().give_back([p]),
                Some(Err(code)) => self.refused(p, code, "finding the start offset of"),
                Some(Ok(offset)) => {
                    let pin = self.tracker().sought(p, ask.what, offset);
                    if offset >= 0 {
                        self.inbox.starts(p, offset);
                    }
                    if let (true, Some(pins)) = (pin, &self.pins) {
                        _ = pins.send((p.clone(), offset)).await; // the group's task may be ending
                    }
                }
            }
        }
        Ok(())
    }

    fn refused(&self, p: &Lease, code: i16, doing: &str) {
        let refused = self.tracker().refused(p, Instant::now().into_std(), code, doing);
        if refused.refresh {
            self.client.cluster().refresh_soon();
        }
        if let Some(e) = refused.report {
            self.trouble(Some(p), e);
        }
    }

    async fn fetch(&self, link: &mut Link, asks: &[Ask<FetchFrom>], short: bool) -> Result<()> {
        let wait = if short { self.config.fetch_max_wait.min(SHORT_WAIT) } else { self.config.fetch_max_wait };
        let request = fetch_request(asks, wait, &self.config);
        let timeout = wait + self.client.config().request_timeout;
        let answer = self.connect(link).await?.request(request, timeout).await?;
        if answer.error_code != 0 {
            return Err(Error::broker(answer.error_code, format_args!("fetching from broker {}", link.broker)));
        }
        self.take(answer, asks).await;
        Ok(())
    }

    async fn take(&self, answer: FetchResponse, asks: &[Ask<FetchFrom>]) {
        let mut open: HashMap<&TopicPartition, &Ask<FetchFrom>> =
            asks.iter().map(|a| (&a.lease.partition, a)).collect();
        let data = |p: &PartitionData| p.records.as_ref().map_or(0, Bytes::len);
        let frame: usize = answer.responses.iter().flat_map(|t| t.partitions.iter().map(data)).sum();
        for topic in answer.responses {
            let name: Arc<str> = topic.topic.as_str().into();
            for data in topic.partitions {
                let p = TopicPartition { topic: Arc::clone(&name), partition: data.partition_index };
                if let Some(ask) = open.remove(&p) {
                    match data.error_code {
                        0 => self.deliver(&ask.lease, ask.what.offset, data, frame).await,
                        code => self.refused(&ask.lease, code, "fetching"),
                    }
                }
            }
        }
        self.tracker().give_back(open.into_values().map(|a| &a.lease));
    }

    async fn deliver(&self, p: &Lease, offset: i64, data: PartitionData, frame: usize) {
        let bytes = data.records.unwrap_or_default();
        let wire = bytes.len();
        // Records are slices of the whole answer: a few small ones must not keep it, and others share its cost.
        let (bytes, base) = match is_compressed(&bytes) {
            true => (bytes, 0),
            false if wire < SMALL && wire < frame / MUCH => (Bytes::copy_from_slice(&bytes), wire),
            false => (bytes, wire.max(frame / MUCH)),
        };
        let committed = self.config.isolation_level == IsolationLevel::ReadCommitted;
        let aborted = committed.then(|| Aborted::new(data.aborted_transactions.as_deref().unwrap_or_default()));
        let Unpacked { records, next_offset, leader_epoch, grown, damage } = self.unpack(bytes, offset, aborted).await;
        let memory = if records.is_empty() { 0 } else { base + grown };
        let came = Came { next: next_offset, wire, memory, damaged: damage.is_some() };
        let Some((held, tell)) = self.tracker().fetched(p, Instant::now().into_std(), offset, came) else { return };
        if tell {
            let records = Records {
                topic: Arc::clone(&p.partition.topic),
                partition: p.partition.partition,
                records,
                next_offset,
                leader_epoch: leader_epoch.filter(|epoch| *epoch >= 0),
                high_watermark: data.high_watermark,
                last_stable_offset: Some(data.last_stable_offset).filter(|offset| *offset >= 0),
                read_committed: committed,
                _held: Some(held),
            };
            self.inbox.records(p, records);
        }
        if let Some(e) = damage {
            if self.tracker().damaged(p) {
                let what = format!("reading {p} at offset {next_offset}; it is tried again, and nothing is skipped");
                self.trouble(Some(p), e.context(what));
            }
        }
    }

    async fn unpack(&self, bytes: Bytes, offset: i64, aborted: Option<Aborted>) -> Unpacked {
        let limit = self.config.max_decompressed_bytes;
        if !is_compressed(&bytes) || bytes.len() < OFFLOAD {
            return unpack(bytes, offset, aborted, limit);
        }
        match tokio::task::spawn_blocking(move || unpack(bytes, offset, aborted, limit)).await {
            Ok(unpacked) => unpacked,
            Err(e) => {
                let e = Error::with_source(ErrorKind::Corrupt, "opening a compressed batch failed", e);
                Unpacked { records: Vec::new(), next_offset: offset, leader_epoch: None, grown: 0, damage: Some(e) }
            }
        }
    }
}

fn fetch_request(asks: &[Ask<FetchFrom>], wait: Duration, config: &ConsumerConfig) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for ask in asks {
        let partition = FetchPartition::default()
            .with_partition(ask.lease.partition.partition)
            .with_current_leader_epoch(ask.leader_epoch)
            .with_fetch_offset(ask.what.offset)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(to_i32(ask.what.max_bytes));
        // The order counts: the broker fills the answer from the front, and who has waited longest stands there.
        match topics.iter_mut().find(|t| t.topic.as_str() == &*ask.lease.partition.topic) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(
                FetchTopic::default()
                    .with_topic(topic_name(&ask.lease.partition.topic))
                    .with_partitions(vec![partition]),
            ),
        }
    }
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(to_i32(config.fetch_min_bytes.max(1)))
        .with_max_bytes(to_i32(config.fetch_max_bytes))
        .with_isolation_level(isolation(config.isolation_level))
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_topics(topics)
}

fn to_i32(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
