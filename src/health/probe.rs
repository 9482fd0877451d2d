//! Probes of the cluster, no more than needed and no more often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kafka_protocol::messages::MetadataRequest;
use tokio::time::{Instant, timeout, timeout_at};

use super::held::{HeldOffsets, StableOffset};
use super::{BrokerHealth, BrokerStatus, TopicHealth};
use crate::admin::{Admin, HoldingTransaction};
use crate::cluster::list_offsets::{self, LATEST};
use crate::cluster::{Client, Cluster, Snapshot, TopicMeta};
use crate::code;
use crate::config::{BrokerAddr, IsolationLevel};
use crate::consumer::RunningConsumer;
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
pub(crate) struct ProbeCache(tokio::sync::Mutex<ProbeHistory>);

#[derive(Debug, Default)]
struct ProbeHistory {
    last: Option<(Instant, Arc<ClusterProbe>)>,
    held: HeldOffsets,
}

impl ProbeCache {
    /// Returns the latest probe and its age.
    pub(crate) async fn get(
        &self,
        client: &Client,
        subscriptions: &Subscriptions,
        consumers: &[Arc<RunningConsumer>],
    ) -> (Arc<ClusterProbe>, Duration) {
        let mut history = self.0.lock().await;
        if let Some((at, seen)) = history.last.as_ref().filter(|(at, _)| at.elapsed() < MAX_AGE) {
            return (Arc::clone(seen), at.elapsed());
        }
        let mut probe = ClusterProbe::run(client, subscriptions).await;
        let of_consumers = consumers.iter().flat_map(|c| c.read_committed_watermarks());
        let of_consumers = of_consumers.filter_map(|(partition, w)| {
            Some(StableOffset { partition, last_stable: w.last_stable_offset?, high_watermark: w.high_watermark })
        });
        let offsets = std::mem::take(&mut probe.stable_offsets).into_iter().chain(of_consumers);
        probe.held = held_offsets(client, &mut history.held, offsets).await;
        let seen = Arc::new(probe);
        history.last = Some((Instant::now(), Arc::clone(&seen)));
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
    /// Offsets of the partitions that subscriptions read with isolation level `read_committed`.
    pub(super) stable_offsets: Vec<StableOffset>,
    /// Last stable offsets that a transaction has held back for long.
    pub(super) held: Vec<HeldOffset>,
}

/// A last stable offset that has been the same for long, behind the high watermark.
#[derive(Debug)]
pub(super) struct HeldOffset {
    pub(super) partition: TopicPartition,
    pub(super) offset: i64,
    pub(super) long: Duration,
    /// The transaction that holds it; none if the leader did not return it in time.
    pub(super) by: Option<HoldingTransaction>,
}

/// Updates the held offsets, and finds the transactions that have held one for the stall timeout.
async fn held_offsets(
    client: &Client,
    held: &mut HeldOffsets,
    offsets: impl Iterator<Item = StableOffset>,
) -> Vec<HeldOffset> {
    let (config, now) = (client.config(), Instant::now());
    held.on_offsets(offsets, now);
    let held = held.held_for(config.processor.stall_timeout, now);
    if held.is_empty() {
        return Vec::new();
    }
    let partitions: Vec<_> = held.iter().map(|(p, ..)| p.clone()).collect();
    let admin = Admin::new(client);
    let found = timeout(config.health_timeout / 2, admin.find_holding_transactions(&partitions)).await;
    let mut found = match found {
        Ok(Ok(found)) => found,
        Ok(Err(e)) => {
            tracing::debug!(error = %e.full(), "transactions that hold last stable offsets were not found");
            BTreeMap::new()
        }
        Err(_) => BTreeMap::new(),
    };
    let one = |(partition, offset, long)| {
        let by = found.remove(&partition).and_then(|outcome| outcome.ok().flatten());
        HeldOffset { partition, offset, long, by }
    };
    held.into_iter().map(one).collect()
}

impl ClusterProbe {
    /// Requests metadata, probes each broker, and requests the end offsets of the subscriptions'
    /// partitions, which it reports to them.
    pub(super) async fn run(client: &Client, subscriptions: &Subscriptions) -> Self {
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
                let mut stable = Vec::new();
                if broker.status == BrokerStatus::Up {
                    stable = record_end_offsets(cluster, &at, led, subscriptions, deadline).await;
                }
                (broker, stable)
            }
        });
        let (mut brokers, stable): (Vec<_>, Vec<_>) = join_all(probes).await.into_iter().unzip();
        brokers.extend(unlisted_brokers(&snapshot));
        let controller_id = snapshot.controller.filter(|_| is_fresh);
        let (cluster_id, topics) = (snapshot.cluster_id.clone(), topics(&snapshot));
        let stable_offsets = stable.into_iter().flatten().collect();
        Self { is_fresh, cluster_id, controller_id, brokers, topics, stable_offsets, held: Vec::new() }
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
    let (latency, error) = match timeout_at(deadline, timed).await {
        Ok(Ok(took)) => (Some(took), None),
        Ok(Err(e)) => (None, Some(e.full())),
        Err(_) => (None, Some(format!("{at} has not responded within {timeout:?}"))),
    };
    let status = if error.is_none() { BrokerStatus::Up } else { BrokerStatus::Down };
    BrokerHealth { id, address: at.to_string(), status, latency, error }
}

/// Requests the end offsets of the partitions that a broker leads. Those that fail keep their last
/// value. Returns last stable offsets and high watermarks of the partitions whose readers stop at
/// the former.
async fn record_end_offsets(
    cluster: &Cluster,
    at: &BrokerAddr,
    led: ListOffsetsPlan,
    subscriptions: &Subscriptions,
    deadline: Instant,
) -> Vec<StableOffset> {
    let mut stable_offsets = Vec::new();
    for (level, partitions) in led {
        let ends = async |level| end_offsets(cluster, at, &partitions, level, deadline).await;
        let Some(found) = ends(level).await else { break };
        for s in subscriptions.iter().filter(|s| s.assigned().0 == level) {
            found.iter().for_each(|(partition, end)| s.set_end_offset(partition, *end));
        }
        if level == IsolationLevel::ReadCommitted {
            let Some(high) = ends(IsolationLevel::ReadUncommitted).await else { break };
            stable_offsets.extend(found.into_iter().filter_map(|(partition, last_stable)| {
                let high_watermark = *high.get(&partition)?;
                Some(StableOffset { partition, last_stable, high_watermark })
            }));
        }
    }
    stable_offsets
}

/// Requests end offsets of an isolation level from a broker; none if it fails.
async fn end_offsets(
    cluster: &Cluster,
    at: &BrokerAddr,
    partitions: &[TopicPartition],
    level: IsolationLevel,
    deadline: Instant,
) -> Option<BTreeMap<TopicPartition, i64>> {
    let request = list_offsets::encode_request(partitions.iter().map(|p| (p.clone(), (-1, LATEST))), level);
    let timeout = deadline.saturating_duration_since(Instant::now());
    match timeout_at(deadline, cluster.request_at(at, request, timeout)).await {
        Ok(Ok(response)) => {
            let found = list_offsets::decode_response(response).into_iter().filter(|(_, code, _)| *code == 0);
            return Some(found.map(|(partition, _, end)| (partition, end.offset)).collect());
        }
        Ok(Err(e)) => tracing::debug!(broker = %at, error = %e.full(), "end offsets could not be fetched"),
        Err(_) => tracing::debug!(broker = %at, "end offsets were not returned in time"),
    }
    None
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
        latency: None,
        error: Some(format!("broker {id} holds replicas and is not in the cluster's metadata: it is down")),
    })
}

/// Returns the topics in use, by name.
fn topics(snapshot: &Snapshot) -> Vec<TopicHealth> {
    let mut topics = BTreeMap::new();
    let missing = snapshot.failed.iter().filter(|(_, code)| **code == code::UNKNOWN_TOPIC_OR_PARTITION);
    topics.extend(missing.map(|(name, _)| (name.to_string(), TopicHealth::missing(name))));
    topics.extend(snapshot.topics.values().map(|t| (t.name.to_string(), topic_health(t))));
    topics.into_values().collect()
}

/// Returns the health of a topic that exists.
pub(super) fn topic_health(topic: &TopicMeta) -> TopicHealth {
    let partitions = (0..).zip(&topic.partitions);
    let partitions = partitions.map(|(id, p)| (id, p.leader.is_some(), p.in_sync.len() >= p.replicas.len()));
    TopicHealth::existing(&topic.name, partitions)
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
