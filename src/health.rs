//! What an operator asks: are the brokers there, are the groups alive, how far behind are they.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use kafka_protocol::messages::MetadataRequest;
use serde::Serialize;
use tokio::time::Instant;

use crate::cluster::{Client, Snapshot, UNKNOWN_TOPIC};
use crate::config::BrokerAddr;
pub use crate::processor::{PartitionHealth, SubscriptionHealth};

/// The longest wait for metadata, and then for the brokers, which are asked at the same time.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The state of a cluster as a client sees it, and of that client's subscriptions. As JSON it is what
/// `GET /health/redpanda` answers.
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
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Health {
    /// All in one word.
    pub status: Status,
    /// The cluster's id, if it has one.
    pub cluster_id: Option<String>,
    /// The controller's broker id, if there is one now.
    pub controller_id: Option<i32>,
    /// Each broker of the cluster; the configured addresses if none of them could be reached.
    pub brokers: Vec<BrokerHealth>,
    /// Each subscription that lives.
    pub subscriptions: Vec<SubscriptionHealth>,
    /// Why the status is not `healthy`.
    pub problems: Vec<String>,
}

/// In one word.
///
/// ```
/// assert_eq!(serde_json::to_string(&ailurus::health::Status::Degraded).unwrap(), r#""degraded""#);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All brokers answer, and no subscription stands still.
    Healthy,
    /// Work goes on, but a broker does not answer, a partition or a subscription stands still, or its topic is gone.
    Degraded,
    /// No broker can be reached, or a subscription has ended.
    Unhealthy,
}

/// One broker.
///
/// ```
/// # fn show(broker: &ailurus::health::BrokerHealth) {
/// println!("{}: {}", broker.address, broker.error.as_deref().unwrap_or("answers"));
/// # }
/// ```
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BrokerHealth {
    /// Its id, if it is known from metadata.
    pub id: Option<i32>,
    /// `host:port`.
    pub address: String,
    /// Milliseconds for one request and its answer over an open connection.
    pub latency_ms: Option<f64>,
    /// Why it can't be used.
    pub error: Option<String>,
}

impl Health {
    /// Asks each broker. Never fails: what can't be reached is in the answer. Takes 10 s at most, whatever brokers do: 5 s
    /// for the list of brokers and 5 s for the brokers themselves, all at the same time.
    ///
    /// # Cancellation
    /// Dropping the future ends the questions; nothing else is touched.
    pub async fn check(client: &Client) -> Self {
        Self::of(client, Vec::new()).await
    }

    pub(crate) async fn of(client: &Client, subscriptions: Vec<SubscriptionHealth>) -> Self {
        let cluster = client.cluster();
        let refreshed = tokio::time::timeout(TIMEOUT, cluster.refresh()).await.ok().and_then(Result::ok);
        let snapshot = cluster.snapshot();
        let mut known: Vec<_> = match &refreshed {
            Some(s) => s.brokers.iter().map(|(id, at)| (Some(*id), at.clone())).collect(),
            None => cluster.config().brokers.iter().map(|at| (None, at.clone())).collect(),
        };
        known.sort();
        let mut brokers = join_all(known.into_iter().map(|(id, at)| probe(client, id, at))).await;
        brokers.extend(missing(&snapshot));
        let controller_id = snapshot.controller.filter(|_| refreshed.is_some());
        let mut health = Self {
            status: Status::Healthy,
            cluster_id: snapshot.cluster_id.clone(),
            controller_id,
            brokers,
            subscriptions,
            problems: Vec::new(),
        };
        health.judge();
        health.miss(&snapshot);
        health
    }

    /// A subscription to a topic that is not there looks well: it has nothing to do.
    fn miss(&mut self, snapshot: &Snapshot) {
        for s in &self.subscriptions {
            for topic in s.topics.iter().filter(|t| snapshot.failed.get(t.as_str()) == Some(&UNKNOWN_TOPIC)) {
                self.problems.push(format!("topic {topic:?} of group {:?} does not exist", s.group));
                if self.status == Status::Healthy {
                    self.status = Status::Degraded;
                }
            }
        }
    }

    fn judge(&mut self) {
        let mut worst = Status::Healthy;
        let mut problems = Vec::new();
        let mut problem = |status: Status, what: String| {
            if worst != Status::Unhealthy && status != Status::Healthy {
                worst = status;
            }
            problems.push(what);
        };
        let down: Vec<_> = self.brokers.iter().filter(|b| b.error.is_some()).collect();
        let none = down.len() == self.brokers.len();
        if self.brokers.is_empty() {
            problem(Status::Unhealthy, "the cluster lists no broker".into());
        }
        for b in down {
            let status = if none { Status::Unhealthy } else { Status::Degraded };
            problem(status, b.error.clone().unwrap_or_default());
        }
        if self.controller_id.is_none() && !none {
            problem(Status::Degraded, "the cluster has no controller: topics can't be created or changed".into());
        }
        for s in &self.subscriptions {
            if s.state == "closed" {
                problem(Status::Unhealthy, format!("the subscription of group {:?} has ended", s.group));
            }
            for p in &s.partitions {
                if let Some(why) = &p.paused {
                    problem(
                        Status::Degraded,
                        format!("{}/{} of group {:?} waits: {why}", p.topic, p.partition, s.group),
                    );
                }
            }
        }
        self.status = worst;
        self.problems = problems;
    }
}

/// Brokers that hold replicas of topics in use and that the metadata does not list, for it lists only those that live.
fn missing(snapshot: &Snapshot) -> Vec<BrokerHealth> {
    let replicas = snapshot.topics.values().flat_map(|t| &t.partitions).flat_map(|p| &p.replicas);
    let missing: BTreeSet<i32> = replicas.filter(|id| !snapshot.brokers.contains_key(id)).copied().collect();
    let down = |id| BrokerHealth {
        id: Some(id),
        address: "unknown".into(),
        latency_ms: None,
        error: Some(format!(
            "broker {id} holds replicas of topics in use and is not in the cluster's metadata: it is down"
        )),
    };
    missing.into_iter().map(down).collect()
}

async fn probe(client: &Client, id: Option<i32>, at: BrokerAddr) -> BrokerHealth {
    let ping = || MetadataRequest::default().with_topics(Some(vec![])).with_allow_auto_topic_creation(false);
    let cluster = client.cluster();
    let timeout = TIMEOUT.min(cluster.config().request_timeout);
    let timed = async {
        cluster.request_at(&at, ping(), timeout).await?; // opens the connection, if there is none
        let began = Instant::now();
        cluster.request_at(&at, ping(), timeout).await?;
        Ok::<_, crate::Error>(began.elapsed())
    };
    let (latency_ms, error) = match tokio::time::timeout(TIMEOUT, timed).await {
        Ok(Ok(took)) => (Some((took.as_secs_f64() * 1e6).round() / 1e3), None),
        Ok(Err(e)) => (None, Some(e.full())),
        Err(_) => (None, Some(format!("{at} has not answered within {TIMEOUT:?}"))),
    };
    BrokerHealth { id, address: at.to_string(), latency_ms, error }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn broker(error: Option<&str>) -> BrokerHealth {
        let error = error.map(str::to_owned);
        BrokerHealth { id: Some(1), address: "a:1".into(), latency_ms: None, error }
    }

    fn judged(brokers: Vec<BrokerHealth>, state: &str, paused: Option<&str>) -> Health {
        let partition = PartitionHealth {
            topic: "t".into(),
            partition: 0,
            position: 5,
            committed: None,
            lag: Some(0),
            in_hand: 0,
            parked_keys: 0,
            paused: paused.map(str::to_owned),
        };
        let subscriptions = vec![SubscriptionHealth {
            group: "g".into(),
            topics: vec!["t".into()],
            state: state.into(),
            partitions: vec![partition],
        }];
        let (status, problems) = (Status::Healthy, vec![]);
        let mut h = Health { status, cluster_id: None, controller_id: Some(1), brokers, subscriptions, problems };
        h.judge();
        h
    }

    #[tokio::test(start_paused = true)]
    async fn brokers_that_are_silent_do_not_hold_it_up() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap(); // connections wait in its queue
        let config = crate::Config::builder().brokers(silent.local_addr().unwrap().to_string()).build().unwrap();
        let client = Client::new(config);
        let checks = (0..3).map(|_| Health::check(&client)); // one does not wait for another
        let all = tokio::time::timeout(TIMEOUT * 2 + Duration::from_secs(1), join_all(checks)).await.unwrap();
        for health in all {
            assert_eq!(health.status, Status::Unhealthy);
            assert!(health.problems[0].contains("within"), "{:?}", health.problems);
        }
    }

    #[test]
    fn a_topic_that_is_gone_is_a_problem() {
        let mut health = judged(vec![broker(None)], "member", None);
        let mut snapshot = Snapshot::empty();
        snapshot.failed.insert("other".into(), UNKNOWN_TOPIC);
        health.miss(&snapshot);
        assert_eq!(health.status, Status::Healthy);
        snapshot.failed.insert("t".into(), UNKNOWN_TOPIC);
        health.miss(&snapshot);
        assert_eq!(health.status, Status::Degraded);
        assert_eq!(health.problems, ["topic \"t\" of group \"g\" does not exist"]);
    }

    #[test]
    fn the_worst_finding_is_the_status() {
        assert_eq!(judged(vec![broker(None)], "member", None).status, Status::Healthy);
        assert_eq!(judged(vec![broker(None), broker(Some("down"))], "member", None).status, Status::Degraded);
        assert_eq!(judged(vec![broker(Some("down"))], "member", None).status, Status::Unhealthy);
        assert_eq!(judged(vec![broker(Some("down"))], "member", Some("why")).status, Status::Unhealthy);
        assert_eq!(judged(vec![], "member", None).status, Status::Unhealthy);
        let waiting = judged(vec![broker(None)], "member", Some("why"));
        assert_eq!((waiting.status, waiting.problems.len()), (Status::Degraded, 1));
        assert!(waiting.problems[0].contains("t/0 of group \"g\" waits: why"), "{:?}", waiting.problems);
        assert_eq!(judged(vec![broker(None)], "closed", None).status, Status::Unhealthy);
    }
}
