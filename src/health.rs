//! What an operator asks: are the brokers there, are the groups alive, how far behind are they, does anything stand still.

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
pub use crate::processor::{Activity, PartitionHealth, SubscriptionHealth};
use crate::text;

/// The state of a cluster as a client sees it, and of that client's subscriptions. As JSON it is what
/// `GET /health/redpanda` answers, and can be read from that again.
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
    /// All in one word.
    pub status: Status,
    /// Why the status is not `healthy`. Of a subscription's partitions up to 20 are named for the same reason, and the others
    /// counted.
    pub problems: Vec<String>,
    /// Milliseconds since the brokers were asked.
    pub age_ms: u64,
    /// The cluster's id, if it has one.
    pub cluster_id: Option<String>,
    /// The controller's broker id, if there is one now.
    pub controller_id: Option<i32>,
    /// Each broker of the cluster; the configured addresses if none of them was ever reached.
    pub brokers: Vec<BrokerHealth>,
    /// Each topic in use.
    pub topics: Vec<TopicHealth>,
    /// Each subscription that lives.
    pub subscriptions: Vec<SubscriptionHealth>,
}

/// In one word.
///
/// ```
/// assert_eq!(serde_json::to_string(&ailurus::health::Status::Degraded).unwrap(), r#""degraded""#);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All brokers answer, and no subscription stands still.
    Healthy,
    /// Work goes on, but a broker does not answer, a partition has no leader or waits for what does not come by itself, or a
    /// topic is gone.
    Degraded,
    /// No broker can be reached, a subscription has ended, or it or a partition of it is [stalled](Activity::Stalled).
    Unhealthy,
}

/// Whether a broker answers.
///
/// ```
/// assert_eq!(serde_json::to_string(&ailurus::health::BrokerStatus::Down).unwrap(), r#""down""#);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BrokerStatus {
    /// It does.
    Up,
    /// It does not, or the cluster does not list it any more.
    Down,
}

/// One broker.
///
/// ```
/// # fn show(broker: &ailurus::health::BrokerHealth) {
/// println!("{}: {}", broker.address, broker.error.as_deref().unwrap_or("answers"));
/// # }
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BrokerHealth {
    /// Its id, if it is known from metadata.
    pub id: Option<i32>,
    /// `host:port`.
    pub address: String,
    /// Whether it answers.
    pub status: BrokerStatus,
    /// Milliseconds for one request and its answer over an open connection.
    pub latency_ms: Option<f64>,
    /// Why it can't be used.
    pub error: Option<String>,
}

/// One topic.
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
    /// Its name.
    pub name: String,
    /// Whether it exists.
    pub exists: bool,
    /// How many partitions it has.
    pub partitions: usize,
    /// How many of them have no leader, so that they can neither be read nor written.
    pub without_leader: usize,
    /// Numbers of those partitions.
    #[serde(default)]
    pub offline: Vec<i32>,
    /// Groups that read it, where this client does not: only [`Health::check`] asks for them, and only of a topic that has
    /// partitions without a leader.
    #[serde(default)]
    pub groups: Vec<String>,
    /// How many of them have replicas that are not in sync. That alone is no problem of a client's: the status says nothing of it.
    pub under_replicated: usize,
}

impl Health {
    /// Asks each broker. Never fails: what can't be reached is in the answer. Takes
    /// [`Config::health_timeout`](crate::Config::health_timeout) at most, whatever brokers do: half of it for the list of
    /// brokers and half for the brokers themselves, all at the same time. Creates no topic.
    ///
    /// Topics in use are those of this client, and those with partitions without a leader that a group of the cluster has
    /// committed in, subscribes to or is assigned. A broker that holds replicas of any topic and is not in the metadata is down.
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

    /// With a status, and why it is not `healthy`.
    fn with_status(mut self, is_fresh: bool) -> Self {
        let mut findings = Findings::default();
        findings.brokers(&self, is_fresh);
        findings.topics(&self);
        self.subscriptions.iter().for_each(|s| findings.subscription(s));
        Findings { worst: self.status, problems: self.problems } = findings;
        self
    }

    /// Adds what other users of the cluster suffer from.
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

    /// Whether a broker answers.
    pub fn is_reachable(&self) -> bool {
        self.brokers.iter().any(|b| b.status == BrokerStatus::Up)
    }
}

/// Maximum number of partitions of a subscription that are named for the same reason; the others are counted.
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
            let what = "no broker has told in time what topics and leaders there are: what is known of them is old";
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
        // A subscription to a topic that is not there looks well: it has nothing to do.
        for s in &health.subscriptions {
            for t in health.topics.iter().filter(|t| !t.exists && s.topics.contains(&t.name)) {
                self.add(Status::Degraded, format!("topic {:?} of group {:?} does not exist", t.name, s.group));
            }
        }
    }

    fn subscription(&mut self, s: &SubscriptionHealth) {
        let group = &s.group;
        match s.state.as_str() {
            "closed" => self.add(Status::Unhealthy, format!("the subscription of group {group:?} has ended")),
            "joining" if s.activity == Activity::Stalled => {
                let long = Duration::from_secs(s.state_ms / 1000);
                self.add(
                    Status::Unhealthy,
                    format!("the subscription of group {group:?} has been joining for {long:?}"),
                );
            }
            _ => {}
        }
        if let Some(problem) = &s.problem {
            self.add(Status::Degraded, format!("group {group:?} can't be reached as it should, {problem}"));
        }
        let (mut stalled, mut paused, mut unread) = (0, 0, 0);
        for p in &s.partitions {
            let waits = p.paused.as_ref().map(|why| format!("it waits: {why}"));
            let place = format!("{}/{} of group {group:?}", p.topic, p.partition);
            if let Some(problem) = &p.problem {
                unread += 1;
                let status = if p.activity == Activity::Stalled { Status::Unhealthy } else { Status::Degraded };
                if unread <= MAX_NAMED_PARTITIONS {
                    self.add(status, format!("{place} can't be read, {problem}"));
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
                let why = waits.map(|w| format!("; {w}")).unwrap_or_default();
                let what = format!("{place} is stalled: {behind}, and none has ended for {long:?}{why}");
                self.add(Status::Unhealthy, what);
            } else if let Some(why) = &p.paused {
                paused += 1;
                if paused <= MAX_NAMED_PARTITIONS {
                    self.add(Status::Degraded, format!("{place} waits: {why}"));
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
        if paused > MAX_NAMED_PARTITIONS {
            self.add(
                Status::Degraded,
                format!("{} more partitions of group {group:?} wait", paused - MAX_NAMED_PARTITIONS),
            );
        }
    }
}
