//! Health: brokers, groups, lag, stalled partitions.

mod offline;
mod probe;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use offline::OfflineReport;
use probe::ClusterProbe;
pub(crate) use probe::ProbeCache;

use crate::cluster::Client;
use crate::consumer::ConsumerState;
pub use crate::processor::{Activity, PartitionHealth, SubscriptionHealth};
use crate::text;

/// State of a cluster as a client sees it, and of that client's subscriptions. Serialized as JSON
/// it is the response to `GET /health/redpanda`; words of a newer version are read as `unknown`.
///
/// ```no_run
/// # async fn example() -> ailurus::Result<()> {
/// use ailurus::{Client, Config, Health};
///
/// let health = Health::check(&Client::new(Config::default())).await;
/// for broker in &health.brokers {
///     println!("{} {:?} ms {:?}", broker.address, broker.latency_ms, broker.error);
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
    /// Milliseconds since the brokers were probed.
    pub age_ms: u64,
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
    /// Milliseconds of one request over an open connection.
    pub latency_ms: Option<f64>,
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

impl Health {
    /// Probes each broker. Never fails: what can't be reached is in the result. Takes
    /// [`Config::health_timeout`](crate::Config::health_timeout) at most: half of it for the
    /// metadata and half for the brokers, all concurrently. Creates no topic.
    ///
    /// Topics in use are those of this client, and those with partitions without a leader that a
    /// group of the cluster has committed in, subscribes to or is assigned. A broker that holds
    /// replicas of any topic and is not in the metadata is down.
    ///
    /// # Cancellation
    /// Dropping the future ends the questions; nothing else is touched.
    pub async fn check(client: &Client) -> Self {
        let (seen, offline) = tokio::join!(ClusterProbe::run(client, &[]), offline::find(client));
        let mut health = Self::without_status(&seen, Duration::ZERO, Vec::new());
        health.add_offline(offline);
        health.with_status(seen.is_fresh)
    }

    pub(crate) fn new(seen: &Arc<ClusterProbe>, age: Duration, subscriptions: Vec<SubscriptionHealth>) -> Self {
        Self::without_status(seen, age, subscriptions).with_status(seen.is_fresh)
    }

    fn without_status(seen: &Arc<ClusterProbe>, age: Duration, subscriptions: Vec<SubscriptionHealth>) -> Self {
        Self {
            status: Status::Healthy,
            problems: Vec::new(),
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            cluster_id: seen.cluster_id.clone(),
            controller_id: seen.controller_id,
            brokers: seen.brokers.clone(),
            topics: seen.topics.clone(),
            subscriptions,
        }
    }

    /// Adds the status and the reasons for it.
    fn with_status(mut self, is_fresh: bool) -> Self {
        let mut findings = Findings::default();
        findings.brokers(&self, is_fresh);
        findings.topics(&self);
        self.subscriptions.iter().for_each(|s| findings.subscription(s));
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

    fn subscription(&mut self, s: &SubscriptionHealth) {
        let group = &s.group;
        match s.state {
            ConsumerState::Closed => {
                self.add(Status::Unhealthy, format!("the subscription of group {group:?} is closed"))
            }
            ConsumerState::Joining if s.activity == Activity::Stalled => {
                let long = Duration::from_secs(s.state_ms / 1000);
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
        let (mut stalled, mut blocked_count, mut unread) = (0, 0, 0);
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
                let long = Duration::from_secs(p.quiet_ms.unwrap_or_default() / 1000);
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
            }
        }
        if unread > MAX_NAMED_PARTITIONS {
            self.add(
                Status::Degraded,
                format!("{} more partitions of group {group:?} can't be read", unread - MAX_NAMED_PARTITIONS),
            );
        }
        if stalled > MAX_NAMED_PARTITIONS {
            self.add(
                Status::Unhealthy,
                format!("{} more partitions of group {group:?} are stalled", stalled - MAX_NAMED_PARTITIONS),
            );
        }
        if blocked_count > MAX_NAMED_PARTITIONS {
            self.add(
                Status::Degraded,
                format!("{} more partitions of group {group:?} are blocked", blocked_count - MAX_NAMED_PARTITIONS),
            );
        }
    }
}
