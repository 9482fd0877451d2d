//! Probes of the cluster, no more than needed and no more often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kafka_protocol::messages::MetadataRequest;
use tokio::time::{Instant, timeout_at};

use super::{BrokerHealth, BrokerStatus, TopicHealth};
use crate::cluster::list_offsets::{self, LATEST};
use crate::cluster::{Client, Cluster, Snapshot, TopicMeta};
use crate::code;
use crate::config::{BrokerAddr, IsolationLevel};
use crate::processor::SubscriptionState;
use crate::record::TopicPartition;

/// Maximum age of a cached probe: the cluster is probed once in this time, however many callers
/// there are.
const MAX_AGE: Duration = Duration::from_secs(1);

type Subscriptions = [Arc<SubscriptionState>];
/// Partitions that a broker leads, by the isolation level of their readers.
type ListOffsetsPlan = Vec<(IsolationLevel, Vec<TopicPartition>)>;

/// The latest probe and its time. Concurrent callers wait for the same probe.
#[derive(Debug, Default)]
pub(crate) struct ProbeCache(tokio::sync::Mutex<Option<(Instant, Arc<ClusterProbe>)>>);

impl ProbeCache {
    /// Returns the latest probe and its age.
    pub(crate) async fn get(&self, client: &Client, subscriptions: &Subscriptions) -> (Arc<ClusterProbe>, Duration) {
        let mut last = self.0.lock().await;
        if let Some((at, seen)) = last.as_ref().filter(|(at, _)| at.elapsed() < MAX_AGE) {
            return (Arc::clone(seen), at.elapsed());
        }
        let seen = ClusterProbe::run(client, subscriptions).await;
        *last = Some((Instant::now(), Arc::clone(&seen)));
        (seen, Duration::ZERO)
    }
}

/// State of the cluster at the time of a probe.
#[derive(Debug)]
pub(crate) struct ClusterProbe {
    /// True if brokers, topics and leaders are of this probe.
    pub(super) is_fresh: bool,
    pub(super) cluster_id: Option<String>,
    pub(super) controller_id: Option<i32>,
    pub(super) brokers: Vec<BrokerHealth>,
    pub(super) topics: Vec<TopicHealth>,
}

impl ClusterProbe {
    /// Requests metadata, probes each broker, and requests the end offsets of the subscriptions'
    /// partitions, which it reports to them.
    pub(super) async fn run(client: &Client, subscriptions: &Subscriptions) -> Arc<Self> {
        let cluster = client.cluster();
        let (began, timeout) = (Instant::now(), cluster.config().health_timeout);
        let is_fresh = timeout_at(began + timeout / 2, cluster.refresh()).await.is_ok_and(|r| r.is_ok());
        let snapshot = cluster.snapshot();
        let mut led = plan_list_offsets(&snapshot, subscriptions);
        let mut known: Vec<_> = snapshot.brokers.iter().map(|(id, at)| (Some(*id), at.clone())).collect();
        if known.is_empty() {
            known = cluster.config().brokers.iter().map(|at| (None, at.clone())).collect();
        }
        known.sort();
        let deadline = began + timeout;
        let probes = known.into_iter().map(|(id, at)| {
            let led = id.and_then(|id| led.remove(&id)).unwrap_or_default();
            async move {
                let broker = probe_broker(cluster, id, &at, deadline, timeout).await;
                if broker.status == BrokerStatus::Up {
                    record_end_offsets(cluster, &at, led, subscriptions, deadline).await;
                }
                broker
            }
        });
        let mut brokers = join_all(probes).await;
        brokers.extend(unlisted_brokers(&snapshot));
        let controller_id = snapshot.controller.filter(|_| is_fresh);
        let (cluster_id, topics) = (snapshot.cluster_id.clone(), topics(&snapshot));
        Arc::new(Self { is_fresh, cluster_id, controller_id, brokers, topics })
    }
}

/// Sends two requests: the first opens the connection, if there is none, and the second is timed.
async fn probe_broker(
    cluster: &Cluster,
    id: Option<i32>,
    at: &BrokerAddr,
    deadline: Instant,
    timeout: Duration,
) -> BrokerHealth {
    let ping = || MetadataRequest::default().with_topics(Some(vec![])).with_allow_auto_topic_creation(false);
    let timed = async {
        cluster.request_at(at, ping(), timeout).await?;
        let began = Instant::now();
        cluster.request_at(at, ping(), timeout).await?;
        Ok::<_, crate::Error>(began.elapsed())
    };
    let (latency_ms, error) = match timeout_at(deadline, timed).await {
        Ok(Ok(took)) => (Some((took.as_secs_f64() * 1e6).round() / 1e3), None),
        Ok(Err(e)) => (None, Some(e.full())),
        Err(_) => (None, Some(format!("{at} has not responded within {timeout:?}"))),
    };
    let status = if error.is_none() { BrokerStatus::Up } else { BrokerStatus::Down };
    BrokerHealth { id, address: at.to_string(), status, latency_ms, error }
}

/// Requests the end offsets of the partitions that a broker leads. Those that fail keep their last
/// value.
async fn record_end_offsets(
    cluster: &Cluster,
    at: &BrokerAddr,
    led: ListOffsetsPlan,
    subscriptions: &Subscriptions,
    deadline: Instant,
) {
    for (level, partitions) in led {
        let request = list_offsets::encode_request(partitions.into_iter().map(|p| (p, (-1, LATEST))), level);
        let timeout = deadline.saturating_duration_since(Instant::now());
        let response = match timeout_at(deadline, cluster.request_at(at, request, timeout)).await {
            Ok(Ok(response)) => response,
            Ok(Err(e)) => return tracing::debug!(broker = %at, error = %e.full(), "end offsets could not be fetched"),
            Err(_) => return tracing::debug!(broker = %at, "end offsets were not returned in time"),
        };
        let found: Vec<_> =
            list_offsets::decode_response(response).into_iter().filter(|(_, code, _)| *code == 0).collect();
        for s in subscriptions.iter().filter(|s| s.assigned().0 == level) {
            found.iter().for_each(|(partition, _, end)| s.set_end_offset(partition, end.offset));
        }
    }
}

/// Returns the partitions that subscriptions read, by leader.
fn plan_list_offsets(snapshot: &Snapshot, subscriptions: &Subscriptions) -> BTreeMap<i32, ListOffsetsPlan> {
    let mut by_leader = BTreeMap::<i32, Vec<(IsolationLevel, BTreeSet<TopicPartition>)>>::new();
    for s in subscriptions {
        let (level, partitions) = s.assigned();
        for p in partitions {
            let topic = snapshot.topics.get(&p.topic);
            let Some(leader) = topic.and_then(|t| t.partition(p.partition)?.leader) else { continue };
            let of_leader = by_leader.entry(leader).or_default();
            match of_leader.iter_mut().find(|(l, _)| *l == level) {
                Some((_, partitions)) => drop(partitions.insert(p)),
                None => of_leader.push((level, BTreeSet::from([p]))),
            }
        }
    }
    let listed = |(level, partitions): (_, BTreeSet<_>)| (level, partitions.into_iter().collect());
    by_leader.into_iter().map(|(leader, led)| (leader, led.into_iter().map(listed).collect())).collect()
}

/// Returns the brokers that hold replicas of topics in use and are not in the metadata, which lists
/// live brokers only.
fn unlisted_brokers(snapshot: &Snapshot) -> Vec<BrokerHealth> {
    let is_listed = |id: &i32| snapshot.brokers.contains_key(id);
    unlisted_replica_brokers(snapshot.topics.values().map(|t| &**t), is_listed).collect()
}

/// Returns the brokers that hold replicas of topics and are not listed.
pub(super) fn unlisted_replica_brokers<'a>(
    topics: impl Iterator<Item = &'a TopicMeta>,
    is_listed: impl Fn(&i32) -> bool,
) -> impl Iterator<Item = BrokerHealth> {
    let replicas = topics.flat_map(|t| &t.partitions).flat_map(|p| &p.replicas);
    let missing: BTreeSet<i32> = replicas.filter(|id| !is_listed(id)).copied().collect();
    missing.into_iter().map(|id| BrokerHealth {
        id: Some(id),
        address: "unknown".into(),
        status: BrokerStatus::Down,
        latency_ms: None,
        error: Some(format!("broker {id} holds replicas and is not in the cluster's metadata: it is down")),
    })
}

/// Returns the topics in use, by name.
fn topics(snapshot: &Snapshot) -> Vec<TopicHealth> {
    let mut topics = BTreeMap::new();
    for (name, code) in &snapshot.failed {
        if *code == code::UNKNOWN_TOPIC_OR_PARTITION {
            let name = name.to_string();
            let gone = TopicHealth {
                name,
                exists: false,
                partitions: 0,
                without_leader: 0,
                offline: Vec::new(),
                groups: Vec::new(),
                under_replicated: 0,
            };
            topics.insert(gone.name.clone(), gone);
        }
    }
    topics.extend(snapshot.topics.values().map(|t| (t.name.to_string(), topic_health(t))));
    topics.into_values().collect()
}

/// Returns the health of a topic that exists.
pub(super) fn topic_health(topic: &TopicMeta) -> TopicHealth {
    let partitions = &topic.partitions;
    let offline: Vec<i32> = (0..).zip(partitions).filter(|(_, p)| p.leader.is_none()).map(|(n, _)| n).collect();
    TopicHealth {
        name: topic.name.to_string(),
        exists: true,
        partitions: partitions.len(),
        without_leader: offline.len(),
        offline,
        groups: Vec::new(),
        under_replicated: partitions.iter().filter(|p| p.in_sync.len() < p.replicas.len()).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_topic_is_reported() {
        let mut snapshot = Snapshot::empty();
        snapshot.failed.insert("gone".into(), code::UNKNOWN_TOPIC_OR_PARTITION);
        snapshot.failed.insert("refused".into(), 29);
        let listed: Vec<_> = topics(&snapshot).into_iter().map(|t| (t.name, t.exists)).collect();
        assert_eq!(listed, [("gone".to_owned(), false)]);
    }
}
