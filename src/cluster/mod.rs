//! The cluster: brokers, topics, leaders, coordinators, and the connections to them.
//!
//! A [`Client`] is the handle from which producers, consumers and the others are made. It has a
//! snapshot of the metadata of the topics in use, refreshes it when it is old or stale, and owns
//! the connections for metadata and admin requests. Producers and consumers open connections of
//! their own.

mod backoff;
pub(crate) mod fields;
pub(crate) mod group_metadata;
mod interest;
pub(crate) mod leaders;
pub(crate) mod list_offsets;
pub(crate) mod offset_commit;
mod registry;
mod requests;
mod snapshot;
mod topic_lookup;
mod topics;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub(crate) use backoff::{Attempts, Backoff};
use fields::topic_name;
pub use group_metadata::ConsumerGroupMetadata;
use interest::Interests;
pub(crate) use interest::{Interest, Pin};
pub(crate) use registry::ComponentRegistry;
pub(crate) use requests::{CoordinatorKey, check_api_versions};
pub(crate) use snapshot::{Snapshot, TopicMeta, broker_address, topic_meta};
use topic_lookup::LookupRequest;

use crate::code;
use crate::config::{BrokerAddr, Config};
use crate::error::{Error, ErrorKind, Result};
use crate::failure::{OutageLog, is_fatal};
use crate::lock::Lock;
use crate::wire::{Connection, Connector};

/// Maximum length of a topic's name.
const MAX_TOPIC_NAME_BYTES: usize = 249;
/// Shortest response time of a broker that counts as distant: fewer round trips to it are worth
/// more memory.
pub(crate) const DISTANT_ROUND_TRIP: Duration = Duration::from_millis(6);
/// Time between lookups of a missing topic in use: no fetch and no send would notice that it is
/// back.
const MISSING_TOPIC_INTERVAL: Duration = Duration::from_secs(5);
/// Time limit of requests that any broker can serve, for metadata or a coordinator: the next one
/// may be faster.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// A handle of a cluster: cheap to clone, shared by producers, consumers and admin calls.
///
/// ```no_run
/// # async fn example() -> ailurus::Result<()> {
/// use ailurus::{Client, Config};
///
/// let client = Client::connect(Config::from_env()?).await?;
/// println!("{:?}", client.config().brokers);
/// client.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    cluster: Arc<Cluster>,
    /// Stops the tasks with the last handle.
    _guard: Arc<DropGuard>,
}

impl Client {
    /// Creates a client that connects when it is first used. Must be called within a tokio runtime.
    pub fn new(config: Config) -> Self {
        let cancel = CancellationToken::new();
        let (lookups, queue) = mpsc::channel(topic_lookup::LOOKUP_QUEUE);
        let cluster = Arc::new(Cluster {
            settings: Connector::new(&config),
            config,
            snapshot: watch::channel(Arc::new(Snapshot::empty())).0,
            interests: Interests::default(),
            lookups,
            refreshing: tokio::sync::Mutex::default(),
            stale: Notify::new(),
            connections: Lock::default(),
            has_connected: AtomicBool::new(false),
            cancel: cancel.clone(),
            tasks: TaskTracker::new(),
            components: ComponentRegistry::default(),
            outages: OutageLog::default(),
        });
        cluster.tasks.spawn(keep_metadata_fresh(Arc::clone(&cluster)));
        cluster.tasks.spawn(topic_lookup::serve(Arc::clone(&cluster), queue));
        Self { cluster, _guard: Arc::new(cancel.drop_guard()) }
    }

    /// Creates a client and connects it to the cluster.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that lists the invalid settings, or names a file that can't be used;
    /// [`ErrorKind::Authentication`] as soon as a broker rejects the login; [`ErrorKind::Connect`]
    /// with the error of each broker that was tried.
    pub async fn connect(config: Config) -> Result<Self> {
        config.validate()?;
        let client = Self::new(config);
        client.cluster.refresh().await?;
        Ok(client)
    }

    /// Returns the client's settings.
    pub fn config(&self) -> &Config {
        &self.cluster.config
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Stops the client's tasks and closes its connections. Close producers and consumers before:
    /// without the client they learn of no new leader.
    pub async fn close(&self) {
        self.cluster.cancel.cancel();
        self.cluster.tasks.close();
        self.cluster.tasks.wait().await;
        let slots: Vec<_> = self.cluster.connections.lock().drain().map(|(_, slot)| slot).collect();
        for slot in slots {
            if let Some(connection) = slot.lock().await.take() {
                connection.close().await;
            }
        }
    }
}

/// A shared connection, or none yet. The lock is held while it is opened.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Connection>>>>;

/// State of a [`Client`], shared by its handles and tasks.
#[derive(Debug)]
pub(crate) struct Cluster {
    config: Config,
    settings: Connector,
    snapshot: watch::Sender<Arc<Snapshot>>,
    /// The topics in use: metadata is requested for these alone.
    interests: Interests,
    /// Queue of the task that looks up new topics.
    lookups: mpsc::Sender<LookupRequest>,
    /// Held by the one refresh at a time, whose result all who wait for it share. Has start and
    /// error of the last failed one.
    refreshing: tokio::sync::Mutex<Option<(Instant, Error)>>,
    stale: Notify,
    connections: Lock<HashMap<BrokerAddr, Slot>>,
    /// True once a broker has responded, so that a login has succeeded.
    has_connected: AtomicBool,
    cancel: CancellationToken,
    tasks: TaskTracker,
    components: ComponentRegistry,
    outages: OutageLog,
}

impl Cluster {
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the outages of the client, of whose parts each has its own.
    pub(crate) fn outages(&self) -> &OutageLog {
        &self.outages
    }

    /// Returns the components that run on this client, for its health.
    pub(crate) fn components(&self) -> &ComponentRegistry {
        &self.components
    }

    /// Returns the current metadata.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Returns a receiver that is notified of each refresh and of each change of a known topic. A
    /// new topic is no change: each one would cost as much as there are topics, and only its caller
    /// waits for it.
    pub(crate) fn updated(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    /// Returns a topic that is known already, without a request.
    pub(crate) fn cached_topic(&self, name: &str) -> Option<Arc<TopicMeta>> {
        self.snapshot.borrow().topics.get(name).cloned()
    }

    /// Has the metadata of the topics in use refreshed, at most once per retry backoff.
    pub(crate) fn refresh_soon(&self) {
        self.stale.notify_one();
    }

    /// Keeps a topic in use until it was not used for the idle time of the settings.
    pub(crate) fn interest(&self, topic: &Arc<str>) -> Arc<Interest> {
        self.interests.add(topic, Instant::now())
    }

    /// Keeps a topic in use until the pin is dropped.
    pub(crate) fn pin(&self, topic: &Arc<str>) -> Pin {
        self.interests.pin(topic, Instant::now())
    }

    /// Returns a topic, which is in use from now on.
    ///
    /// With `create`, and if the settings allow it, the broker creates a missing topic.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`]; [`ErrorKind::Connect`] if no broker can be reached; the
    /// broker's error, such as for an invalid name.
    pub(crate) async fn topic(&self, name: &str, create: bool) -> Result<Arc<TopicMeta>> {
        if let Some(topic) = self.cached_topic(name) {
            return Ok(topic);
        }
        if name.len() > MAX_TOPIC_NAME_BYTES {
            // A name that can't be encoded would fail the whole request, with other callers'
            // topics.
            let what = format!("a topic's name has {} bytes: allowed are 1 to {MAX_TOPIC_NAME_BYTES}", name.len());
            return Err(Error::new(ErrorKind::UnknownTopic, what));
        }
        let name: Arc<str> = name.into();
        let create = create && self.config.allow_auto_topic_creation;
        let started = Instant::now();
        let mut backoff = self.backoff();
        let (mut creating, mut attempts) = (false, 0_u32);
        loop {
            let code = match self.lookup(&name, creating).await? {
                Ok(topic) => return Ok(topic),
                Err(code) => code,
            };
            let may_appear = code == code::LEADER_NOT_AVAILABLE || (create && code == code::UNKNOWN_TOPIC_OR_PARTITION);
            if !may_appear || started.elapsed() > self.config.topic_creation_timeout {
                return Err(unknown_topic(&name, code, create, started.elapsed()));
            }
            // The first request does not create it, so that a created topic can be logged as such.
            if create && code == code::UNKNOWN_TOPIC_OR_PARTITION && !creating {
                creating = true;
                continue;
            }
            attempts += 1;
            // The response is the same for a topic that is being created and one that never will
            // be. Most exist by the second attempt, so this request is rare.
            if attempts == 2 && code == code::UNKNOWN_TOPIC_OR_PARTITION && self.creates_topics().await == Some(false) {
                let what = format!(
                    "topic {name:?} does not exist, and the broker creates none by itself (auto.create.topics.enable is \
                     false): create it first (Admin::create_topic)"
                );
                return Err(Error::new(ErrorKind::UnknownTopic, what));
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Refreshes the metadata of the topics in use, by a request that starts after this call.
    /// Concurrent calls share a request, and its failure too: it may take long, and callers must
    /// not wait for one after the other.
    pub(crate) async fn refresh(&self) -> Result<Arc<Snapshot>> {
        let started = Instant::now();
        let mut failed = self.refreshing.lock().await;
        let now = self.snapshot();
        if now.requested_at.is_some_and(|at| at >= started) {
            return Ok(now);
        }
        if let Some((_, error)) = failed.as_ref().filter(|(at, _)| *at >= started) {
            return Err(error.clone());
        }
        let requested_at = Instant::now();
        let wanted = self.interests.expire(requested_at, self.config.metadata_max_idle);
        let response = match self.metadata(Some(&wanted), false).await {
            Ok(response) => response,
            Err(e) => {
                *failed = Some((requested_at, e.clone()));
                return Err(e);
            }
        };
        let is_in_use = |name: &str| self.interests.contains(name);
        // Topics that were looked up meanwhile stay.
        self.snapshot.send_modify(|now| *now = Arc::new(now.refreshed(response, requested_at, is_in_use)));
        Ok(self.snapshot())
    }

    /// Refreshes the brokers and the controller only: the cost does not grow with the topics in
    /// use.
    pub(crate) async fn refresh_brokers(&self) -> Result<Arc<Snapshot>> {
        self.merge_metadata(self.metadata(Some(&[]), false).await?);
        Ok(self.snapshot())
    }

    /// Merges the topics in use that a response has.
    fn merge_metadata(&self, response: MetadataResponse) {
        self.snapshot.send_if_modified(|now| {
            let mut next = (**now).clone();
            let changed = next.merge(response, |name| self.interests.contains(name));
            *now = Arc::new(next);
            changed
        });
    }

    /// Looks again for missing topics in use.
    async fn refresh_missing(&self, missing: &[Arc<str>]) -> Result<()> {
        self.merge_metadata(self.metadata(Some(missing), false).await?);
        Ok(())
    }

    /// Requests metadata of some topics, or of all, from any broker.
    pub(crate) async fn metadata(&self, topics: Option<&[Arc<str>]>, create: bool) -> Result<MetadataResponse> {
        let topic = |name: &Arc<str>| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request = MetadataRequest::default()
            .with_topics(topics.map(|names| names.iter().map(topic).collect()))
            .with_allow_auto_topic_creation(create);
        self.request_any(request, self.lookup_timeout()).await
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.config.request_timeout
    }

    fn lookup_timeout(&self) -> Duration {
        LOOKUP_TIMEOUT.min(self.config.request_timeout)
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.config.retry_backoff, self.config.retry_backoff_max)
    }

    /// Returns attempts with the backoff of retries, for the request timeout.
    pub(crate) fn attempts(&self) -> Attempts {
        Attempts { deadline: Instant::now() + self.request_timeout(), backoff: self.backoff() }
    }

    /// Opens a connection to a broker for the caller alone.
    pub(crate) async fn connect(&self, broker: i32) -> Result<Connection> {
        let address = self.address(broker).await?;
        self.settings.connect(&address).await.map_err(|e| self.mark_transient_after_connect(e))
    }

    /// Returns a broker's address, after a refresh if it is not known.
    async fn address(&self, broker: i32) -> Result<BrokerAddr> {
        if let Some(address) = self.snapshot().brokers.get(&broker) {
            return Ok(address.clone());
        }
        let known = self.refresh_brokers().await?.brokers.get(&broker).cloned();
        known.ok_or_else(|| {
            Error::new(ErrorKind::Connect, format!("broker {broker} is not in the cluster's metadata: it may be down"))
        })
    }

    /// Returns the topics in use that had no metadata in the last response.
    fn missing_topics(&self) -> Vec<Arc<str>> {
        let snapshot = self.snapshot();
        snapshot.failed.keys().filter(|name| self.interests.contains(name)).cloned().collect()
    }

    fn has_topics_in_use(&self) -> bool {
        !self.interests.is_empty()
    }
}

/// Logs a topic that the broker has created: its name may be mistyped.
fn log_created(topic: &TopicMeta) {
    let replication = topic.partitions.first().map_or(0, |p| p.replicas.len());
    tracing::info!(
        target: "ailurus::created",
        topic = %topic.name,
        partitions = topic.partitions.len(),
        replication,
        "the topic did not exist and was created with the broker's defaults"
    );
}

fn unknown_topic(name: &str, code: i16, create: bool, waited: Duration) -> Error {
    let what = format!("topic {name:?}");
    if code != code::UNKNOWN_TOPIC_OR_PARTITION && code != code::LEADER_NOT_AVAILABLE {
        return Error::broker(code, what);
    }
    let why = if create {
        format!(
            "does not exist, and the broker did not create it within Config::topic_creation_timeout, \
             {waited:.1?}: create it (Admin::create_topic), or see whether the broker allows auto-creation"
        )
    } else if code == code::LEADER_NOT_AVAILABLE {
        format!("has had no leader for {waited:.1?}: check the brokers")
    } else {
        "does not exist: create it first (Admin::create_topic)".into()
    };
    Error::new(ErrorKind::UnknownTopic, format!("{what} {why}"))
}

/// Refreshes the metadata when it is old or stale, and looks for missing topics.
async fn keep_metadata_fresh(cluster: Arc<Cluster>) {
    let cancel = cluster.cancel.clone();
    let mut backoff = cluster.backoff();
    let mut updated = cluster.updated();
    let mut outage = cluster.outages().part();
    let work = async {
        loop {
            let now = Instant::now();
            let refresh_at = cluster.snapshot().requested_at.unwrap_or(now) + cluster.config.metadata_max_age;
            let missing = cluster.missing_topics();
            let due = if missing.is_empty() { refresh_at } else { refresh_at.min(now + MISSING_TOPIC_INTERVAL) };
            tokio::select! {
                () = cluster.stale.notified() => {}
                Ok(()) = updated.changed() => continue, // another request has refreshed it
                () = tokio::time::sleep_until(due) => {
                    if due < refresh_at {
                        if let Err(e) = cluster.refresh_missing(&missing).await {
                            tracing::debug!(error = %e.full(), "topics in use that are missing were not found");
                        }
                        continue;
                    }
                    // Nothing is refreshed before the first use.
                    if cluster.snapshot().requested_at.is_none() && !cluster.has_topics_in_use() {
                        continue;
                    }
                }
            }
            match cluster.refresh().await {
                Ok(_) => {
                    backoff.reset();
                    outage.log_recovery(Instant::now());
                }
                // The client is being closed while the refresh is in flight: not an outage.
                Err(e) if e.is_closed() => return,
                Err(e) => {
                    if let Some(lasted) = outage.record_failure(Instant::now(), &e) {
                        tracing::warn!(error = %e.full(), "metadata can't be refreshed, {lasted}; it is retried");
                    }
                    cluster.config.metrics.failed("metadata", e.kind());
                    // Retried after the backoff below. A final error is retried when the metadata
                    // is next needed.
                    if !is_fatal(&e) {
                        cluster.stale.notify_one();
                    }
                }
            }
            tokio::time::sleep(backoff.next()).await;
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = work => {}
    }
}

#[cfg(test)]
mod tests;
