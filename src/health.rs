//! Health: brokers, groups, lag, stalled partitions.

mod held;
mod offline;
mod open_transactions;
mod probe;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use offline::OfflineReport;
use probe::{ClusterProbe, HeldOffset, ProbeCache};

use crate::cluster::Client;
use crate::consumer::{ConsumerState, RunningConsumer};
pub use crate::processor::{Activity, PartitionHealth, SubscriptionHealth};
use crate::processor::{PauseReason, SubscriptionState};
use crate::producer::TransactionShared;
pub use crate::producer::{TransactionErrorHealth, TransactionalProducerHealth, TransactionalProducerState};
pub use crate::store::RelayHealth;
use crate::store::RelayShared;
use crate::text;
use crate::timestamp::millis;

/// State of a cluster as a client sees it, and of that client's subscriptions. Serialized as JSON
/// it is the response to `GET /health/redpanda`; words of a newer version are read as `unknown`.
///
/// ```no_run
/// # async fn example() -> ailurus::Result<()> {
/// use ailurus::{Client, Config, Health};
///
/// let health = Health::check(&Client::new(Config::default())).await;
/// for broker in &health.brokers {
///     println!("{} {:?} {:?}", broker.address, broker.latency, broker.error);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Health {
    /// Overall status.
    pub status: Status,
    /// Reasons why the status is not `healthy`. At most 20 partitions of a subscription are named
    /// for the same reason, and the others counted.
    pub problems: Vec<String>,
    /// Time since the brokers were probed: `ageMs` in JSON.
    #[serde(rename = "ageMs", with = "millis")]
    pub age: Duration,
    /// Cluster id, if it has one.
    pub cluster_id: Option<String>,
    /// Broker id of the controller, if there is one.
    pub controller_id: Option<i32>,
    /// Brokers of the cluster; the configured addresses if none was ever reached.
    pub brokers: Vec<BrokerHealth>,
    /// Topics in use.
    pub topics: Vec<TopicHealth>,
    /// Running subscriptions.
    pub subscriptions: Vec<SubscriptionHealth>,
    /// Transactional producers: an application's, and those of pipelines.
    #[serde(default)]
    pub transactional_producers: Vec<TransactionalProducerHealth>,
    /// Relays of outboxes.
    #[serde(default)]
    pub relays: Vec<RelayHealth>,
}

/// Overall status.
///
/// ```
/// assert_eq!(serde_json::to_string(&ailurus::health::Status::Degraded).unwrap(), r#""degraded""#);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    /// All brokers respond, and no subscription is blocked.
    Healthy,
    /// Work goes on, but a broker does not respond, a partition has no leader or is blocked by
    /// something that needs action, or a topic does not exist.
    Degraded,
    /// No broker can be reached, a subscription is closed, or it or a partition of it is
    /// [stalled](Activity::Stalled).
    Unhealthy,
    /// Read from the JSON of a newer version, which has a word that this one does not know.
    #[serde(other)]
    Unknown,
}

/// Status of a broker.
///
/// ```
/// assert_eq!(serde_json::to_string(&ailurus::health::BrokerStatus::Down).unwrap(), r#""down""#);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BrokerStatus {
    /// The broker responds.
    Up,
    /// The broker does not respond, or is not in the cluster's metadata.
    Down,
    /// Read from the JSON of a newer version, which has a word that this one does not know.
    #[serde(other)]
    Unknown,
}

/// Health of a broker.
///
/// ```
/// # fn show(broker: &ailurus::health::BrokerHealth) {
/// println!("{}: {}", broker.address, broker.error.as_deref().unwrap_or("responds"));
/// # }
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BrokerHealth {
    /// Broker id, if it is known from metadata.
    pub id: Option<i32>,
    /// `host:port`.
    pub address: String,
    /// Status.
    pub status: BrokerStatus,
    /// Duration of one request over an open connection: `latencyMs` in JSON, with three decimals.
    #[serde(rename = "latencyMs", default, with = "millis::fractional")]
    pub latency: Option<Duration>,
    /// Reason why it can't be used.
    pub error: Option<String>,
}

/// Health of a topic.
///
/// ```
/// # fn show(topic: &ailurus::health::TopicHealth) {
/// println!("{}: {} of {} partitions without a leader", topic.name, topic.without_leader, topic.partitions);
/// # }
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TopicHealth {
    /// Name.
    pub name: String,
    /// True if it exists.
    pub exists: bool,
    /// Number of partitions.
    pub partitions: usize,
    /// Number of partitions without a leader, which can neither be read nor written.
    pub without_leader: usize,
    /// Partitions without a leader.
    #[serde(default)]
    pub offline: Vec<i32>,
    /// Groups that read it, besides those of this client: only [`Health::check`] looks for them,
    /// and only for a topic that has partitions without a leader.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Number of partitions with replicas that are not in sync. Does not affect the status.
    pub under_replicated: usize,
}

impl Client {
    /// Returns the health of brokers, and of all that runs on this client: subscriptions of
    /// [`Processor`](crate::Processor), group consumers
    /// ([`ConsumerBuilder::subscribe`](crate::ConsumerBuilder::subscribe)), transactional
    /// producers, and relays of outboxes, until they are closed or dropped. One that ended with an error makes the status
    /// [`Unhealthy`](Status::Unhealthy) while its handle lives. Never fails: unreachable brokers are
    /// part of the result.
    ///
    /// Takes [`Config::health_timeout`](crate::Config::health_timeout), at most twice that. Sends
    /// requests at most once per second, however many callers there are: for metadata, to each
    /// broker, and to the leaders of assigned partitions for their end offsets, so that records that
    /// are not fetched are noticed. The state of subscriptions is current. Creates no topic.
    ///
    /// ```no_run
    /// # async fn example(client: ailurus::Client) {
    /// for subscription in client.health().await.subscriptions {
    ///     println!("{} is {} records behind", subscription.group, subscription.lag);
    /// }
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Dropping the future cancels its requests, or stops waiting for those of another caller.
    pub async fn health(&self) -> Health {
        let components = self.cluster().components();
        let subscriptions = components.running::<SubscriptionState>();
        // Before the wait below: a consumer that starts becomes a subscription meanwhile.
        let consumers = components.running::<RunningConsumer>();
        let transactional = components.running::<TransactionShared>();
        let relays = components.running::<RelayShared>();
        let (seen, age) = components.shared::<ProbeCache>().get(self, &subscriptions, &consumers).await;
        Health {
            subscriptions: self.health_of(&subscriptions, &consumers),
            transactional_producers: transactional.iter().map(|p| p.health()).collect(),
            relays: relays.iter().map(|relay| relay.health()).collect(),
            ..Health::without_status(&seen, age)
        }
        .with_status(&seen)
    }

    /// Returns the health of all that reads on this client, without a request: the lag counts the
    /// records that the brokers have reported so far.
    pub fn subscriptions(&self) -> Vec<SubscriptionHealth> {
        let components = self.cluster().components();
        self.health_of(&components.running::<SubscriptionState>(), &components.running::<RunningConsumer>())
    }

    fn health_of(
        &self,
        subscriptions: &[Arc<SubscriptionState>],
        consumers: &[Arc<RunningConsumer>],
    ) -> Vec<SubscriptionHealth> {
        let stall_timeout = self.config().processor.stall_timeout;
        let consumers = consumers.iter().map(|c| SubscriptionHealth::of_consumer(c, stall_timeout));
        subscriptions.iter().map(|s| s.health()).chain(consumers).collect()
    }
}

impl Health {
    /// Probes each broker. Never fails: what can't be reached is in the result. Takes
    /// [`Config::health_timeout`](crate::Config::health_timeout) at most: half of it for the
    /// metadata and half for the brokers, all concurrently. Creates no topic.
    ///
    /// Topics in use are those of this client, and those with partitions without a leader that a
    /// group of the cluster has committed in, subscribes to or is assigned. A broker that holds
    /// replicas of any topic and is not in the metadata is down. A transaction that has been open for
    /// [`ProcessorConfig::stall_timeout`](crate::ProcessorConfig::stall_timeout) is named with each
    /// partition whose last stable offset it holds back.
    ///
    /// # Cancellation
    /// Dropping the future ends the questions; nothing else is touched.
    pub async fn check(client: &Client) -> Self {
        let (mut seen, offline, held) =
            tokio::join!(ClusterProbe::run(client, &[]), offline::find(client), open_transactions::find(client));
        seen.held = held;
        let mut health = Self::without_status(&seen, Duration::ZERO);
        health.add_offline(offline);
        health.with_status(&seen)
    }

    fn without_status(seen: &ClusterProbe, age: Duration) -> Self {
        Self {
            status: Status::Healthy,
            problems: Vec::new(),
            age,
            cluster_id: seen.cluster_id.clone(),
            controller_id: seen.controller_id,
            brokers: seen.brokers.clone(),
            topics: seen.topics.clone(),
            subscriptions: Vec::new(),
            transactional_producers: Vec::new(),
            relays: Vec::new(),
        }
    }

    /// Adds the status and the reasons for it.
    fn with_status(mut self, seen: &ClusterProbe) -> Self {
        let mut findings = Findings::default();
        findings.brokers(&self, seen.is_fresh);
        findings.topics(&self);
        findings.held(&seen.held);
        self.subscriptions.iter().for_each(|s| findings.subscription(s));
        self.transactional_producers.iter().for_each(|p| findings.transactional_producer(p));
        self.relays.iter().for_each(|relay| findings.relay(relay));
        Findings { worst: self.status, problems: self.problems } = findings;
        self
    }

    /// Adds what affects other users of the cluster.
    fn add_offline(&mut self, offline: OfflineReport) {
        let known: Vec<_> = self.brokers.iter().map(|b| b.id).collect();
        self.brokers.extend(offline.brokers.into_iter().filter(|b| !known.contains(&b.id)));
        for t in offline.topics {
            match self.topics.iter_mut().find(|known| known.name == t.name) {
                Some(known) => known.groups = t.groups,
                None => self.topics.push(t),
            }
        }
        self.topics.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Returns whether a broker responds.
    pub fn is_reachable(&self) -> bool {
        self.brokers.iter().any(|b| b.status == BrokerStatus::Up)
    }
}

/// Maximum number of partitions of a subscription that are named for the same reason; the others
/// are counted.
const MAX_NAMED_PARTITIONS: usize = 20;

struct Findings {
    worst: Status,
    problems: Vec<String>,
}

impl Default for Findings {
    fn default() -> Self {
        Self { worst: Status::Healthy, problems: Vec::new() }
    }
}

impl Findings {
    fn add(&mut self, status: Status, problem: String) {
        self.worst = self.worst.max(status);
        self.problems.push(problem);
    }

    fn brokers(&mut self, health: &Health, is_fresh: bool) {
        if health.brokers.is_empty() {
            self.add(Status::Unhealthy, "the cluster lists no broker".into());
        }
        let status = if health.is_reachable() { Status::Degraded } else { Status::Unhealthy };
        for b in &health.brokers {
            if let Some(error) = &b.error {
                self.add(status, error.clone());
            }
        }
        if !is_fresh && health.is_reachable() {
            let what = "no broker has returned metadata in time: topics and leaders may be outdated";
            self.add(Status::Degraded, what.into());
        } else if health.controller_id.is_none() && health.is_reachable() {
            self.add(Status::Degraded, "the cluster has no controller: topics can't be created or changed".into());
        }
    }

    fn topics(&mut self, health: &Health) {
        for t in health.topics.iter().filter(|t| t.without_leader > 0) {
            let (has, it) = if t.without_leader == 1 { ("has", "it") } else { ("have", "they") };
            let mut what = format!(
                "{} of the {} partitions of topic {:?} {has} no leader ({}): {it} can neither be read nor written",
                t.without_leader,
                t.partitions,
                t.name,
                text::list(&t.offline),
            );
            if !t.groups.is_empty() {
                what += &format!("; read by {}", text::list(t.groups.iter().map(|g| format!("group {g:?}"))));
            }
            self.add(Status::Degraded, what);
        }
        // A subscription to a topic that does not exist looks idle.
        for s in &health.subscriptions {
            for t in health.topics.iter().filter(|t| !t.exists && s.topics.contains(&t.name)) {
                self.add(Status::Degraded, format!("topic {:?} of group {:?} does not exist", t.name, s.group));
            }
        }
    }

    /// Adds the partitions whose readers stop at a last stable offset that a transaction holds back:
    /// they look idle.
    fn held(&mut self, held: &[HeldOffset]) {
        for h in held.iter().take(MAX_NAMED_PARTITIONS) {
            let by = h.by.as_ref().map_or_else(|| "an open transaction".to_owned(), ToString::to_string);
            let (place, offset, seconds) = (&h.partition, h.offset, h.long.as_secs());
            let what = format!(
                "{place} can be read up to offset {offset} alone for {seconds} s: {by} holds its last stable offset back \
                 (Admin::describe_producers, Admin::find_hanging_transactions)"
            );
            self.add(Status::Degraded, what);
        }
        if let Some(more) = held.len().checked_sub(MAX_NAMED_PARTITIONS).filter(|more| *more > 0) {
            self.add(
                Status::Degraded,
                format!("transactions hold the last stable offsets of {more} more partitions back"),
            );
        }
    }

    fn transactional_producer(&mut self, p: &TransactionalProducerHealth) {
        use TransactionalProducerState::{Fenced, Stopped, Unconfirmed};
        let of_group = p.group.as_ref().map(|group| format!(" of group {group:?}")).unwrap_or_default();
        let name = format!("the transactional producer {:?}{of_group}", p.transactional_id);
        let error = || p.last_error.as_ref().map(|e| format!(": {}", e.error)).unwrap_or_default();
        let open_for = Duration::from_secs(p.open_for.unwrap_or_default().as_secs());
        match p.state {
            Fenced | Stopped => self.add(Status::Unhealthy, format!("{name} is {}{}", p.state, error())),
            Unconfirmed => {
                let what = "its transaction is all visible or not at all";
                self.add(Status::Degraded, format!("{name} has had no response to a commit for {open_for:?}: {what}"));
            }
            state if p.open_for.is_some_and(|open_for| open_for >= p.timeout) => {
                let what =
                    format!("{name} has been {state} for {open_for:?}, and its coordinator aborts a transaction");
                self.add(Status::Degraded, format!("{what} after {:?}", p.timeout));
            }
            _ => {}
        }
        if let Some(problem) = &p.problem {
            self.add(Status::Degraded, format!("{name} waits for its coordinator {problem}"));
        }
    }

    fn relay(&mut self, relay: &RelayHealth) {
        if let Some(problem) = &relay.problem {
            self.add(Status::Degraded, format!("a relay of an outbox: {problem}"));
        }
    }

    fn subscription(&mut self, s: &SubscriptionHealth) {
        let group = &s.group;
        match s.state {
            ConsumerState::Closed => {
                self.add(Status::Unhealthy, format!("the subscription of group {group:?} is closed"))
            }
            ConsumerState::Joining if s.activity == Activity::Stalled => {
                let long = Duration::from_secs(s.state_age.as_secs());
                self.add(
                    Status::Unhealthy,
                    format!("the subscription of group {group:?} has been joining for {long:?}"),
                );
            }
            _ => {}
        }
        if let Some(problem) = &s.problem {
            self.add(Status::Degraded, format!("group {group:?} is unavailable {problem}"));
        }
        for dependency in &s.waiting_for {
            let (long, probes) = (Duration::from_secs(dependency.waited_for.as_secs()), dependency.failed_probes);
            let what = format!("group {group:?} is {dependency} (for {long:?}, {probes} failed probes)");
            self.add(Status::Degraded, what);
        }
        let (mut stalled, mut blocked_count, mut unread, mut paused_count) = (0, 0, 0, 0);
        for p in &s.partitions {
            let blocked = p.paused.as_ref().map(|why| format!("blocked: {why}"));
            let place = format!("{}/{} of group {group:?}", p.topic, p.partition);
            if let Some(problem) = &p.problem {
                unread += 1;
                let status = if p.activity == Activity::Stalled { Status::Unhealthy } else { Status::Degraded };
                if unread <= MAX_NAMED_PARTITIONS {
                    self.add(status, format!("{place} can't be read {problem}"));
                }
            } else if p.activity == Activity::Stalled {
                stalled += 1;
                if stalled > MAX_NAMED_PARTITIONS {
                    continue;
                }
                let long = Duration::from_secs(p.quiet_for.unwrap_or_default().as_secs());
                let behind = match p.lag {
                    Some(1) => "1 record waits".into(),
                    Some(lag @ 2..) => format!("{lag} records wait"),
                    _ => "records wait".to_owned(),
                };
                let why = blocked.map(|w| format!("; {w}")).unwrap_or_default();
                let what = format!("{place} is stalled: {behind}, none done for {long:?}{why}");
                self.add(Status::Unhealthy, what);
            } else if let Some(why) = &p.paused {
                blocked_count += 1;
                if blocked_count <= MAX_NAMED_PARTITIONS {
                    self.add(Status::Degraded, format!("{place} is blocked: {why}"));
                }
            } else if p.paused_by.contains(&PauseReason::Control) {
                paused_count += 1;
                if paused_count <= MAX_NAMED_PARTITIONS {
                    self.add(Status::Degraded, format!("{place} is paused by control"));
                }
            }
        }
        for (count, status, what) in [
            (unread, Status::Degraded, "can't be read"),
            (stalled, Status::Unhealthy, "are stalled"),
            (blocked_count, Status::Degraded, "are blocked"),
            (paused_count, Status::Degraded, "are paused by control"),
        ] {
            if count > MAX_NAMED_PARTITIONS {
                let more = count - MAX_NAMED_PARTITIONS;
                self.add(status, format!("{more} more partitions of group {group:?} {what}"));
            }
        }
    }
}
