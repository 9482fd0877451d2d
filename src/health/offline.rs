//! Topics with partitions without a leader that groups of the cluster read, by this client or not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::probe::{topic_health, unlisted_replica_brokers};
use super::{BrokerHealth, TopicHealth};
use crate::admin::{Admin, GroupFilter, PartitionInfo, TopicInfo};
use crate::cluster::leaders::topics_by_name;
use crate::cluster::{Client, TopicMeta};

/// Maximum number of groups described concurrently.
const MAX_CONCURRENT_GROUPS: usize = 16;

/// Problems of other users of the cluster.
#[derive(Debug, Default)]
pub(super) struct OfflineReport {
    /// Topics that have a partition without a leader and are read by a group.
    pub(super) topics: Vec<TopicHealth>,
    /// Brokers that hold replicas of any topic and are down.
    pub(super) brokers: Vec<BrokerHealth>,
}

/// Finds them. In a healthy cluster it is one request; groups are described only where a partition
/// is offline. A topic counts as read if that could not be ruled out within the health timeout.
pub(super) async fn find(client: &Client) -> OfflineReport {
    let deadline = Instant::now() + client.config().health_timeout;
    let Ok(Ok(response)) = timeout_at(deadline, client.cluster().metadata(None, false)).await else {
        return OfflineReport::default(); // reported by the probe of the brokers
    };
    let all: Vec<_> = topics_by_name(&response).into_values().flatten().collect();
    let listed: BTreeSet<i32> = response.brokers.iter().map(|b| b.node_id.0).collect();
    let brokers = unlisted_replica_brokers(all.iter(), |id| listed.contains(id)).collect();
    let offline = all.into_iter().filter(|t| t.partitions.iter().any(|p| p.leader.is_none()));
    let offline: BTreeMap<_, _> = offline.map(|t| (Arc::clone(&t.name), t)).collect();
    let topics = if offline.is_empty() { Vec::new() } else { read_by_groups(client, &offline, deadline).await };
    OfflineReport { topics, brokers }
}

async fn read_by_groups(
    client: &Client,
    offline: &BTreeMap<Arc<str>, TopicMeta>,
    deadline: Instant,
) -> Vec<TopicHealth> {
    let mut readers = BTreeMap::<Arc<str>, BTreeSet<String>>::new();
    let found = timeout_at(deadline, find_readers(client, offline, &mut readers)).await;
    if found != Ok(true) {
        // Whether a group reads the offline is not known: that is no reason to keep silent about them.
        for topic in offline.keys() {
            readers.entry(Arc::clone(topic)).or_default();
        }
    }
    let read = |(name, groups): (Arc<str>, BTreeSet<String>)| {
        Some(TopicHealth { groups: groups.into_iter().collect(), ..topic_health(offline.get(&name)?) })
    };
    readers.into_iter().filter_map(read).collect()
}

/// Finds the groups that read one of these topics; returns whether all groups were described.
async fn find_readers(
    client: &Client,
    topics: &BTreeMap<Arc<str>, TopicMeta>,
    readers: &mut BTreeMap<Arc<str>, BTreeSet<String>>,
) -> bool {
    let admin = &Admin::new(client);
    let limit = client.config().health_timeout / 2;
    let Ok(lists) = admin.groups_by_broker(&GroupFilter::default(), limit).await else { return false };
    let mut is_whole = lists.values().all(Result::is_ok);
    let groups = lists.into_values().flatten().flatten().map(|g| g.group);
    let mut reads = stream::iter(groups)
        .map(|group| async move {
            let topics = admin.topics_read_by(&group).await;
            (group, topics)
        })
        .buffer_unordered(MAX_CONCURRENT_GROUPS);
    while let Some((group, read)) = reads.next().await {
        match read {
            Ok(read) => {
                for topic in read.into_iter().filter(|t| topics.contains_key(t)) {
                    readers.entry(topic).or_default().insert(group.clone());
                }
            }
            Err(e) => {
                tracing::debug!(group, error = %e.full(), "the topics of a group could not be determined");
                is_whole = false;
            }
        }
    }
    is_whole
}

impl From<&TopicInfo> for TopicHealth {
    /// Takes the topic as an administrator sees it; which groups read it is not part of that.
    fn from(topic: &TopicInfo) -> Self {
        let partitions = topic.partitions.iter();
        let is_whole = |p: &PartitionInfo| p.in_sync_replicas.len() >= p.replicas.len();
        Self::existing(&topic.name, partitions.map(|p| (p.partition, p.leader.is_some(), is_whole(p))))
    }
}

impl TopicHealth {
    pub(super) fn missing(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            exists: false,
            partitions: 0,
            without_leader: 0,
            offline: Vec::new(),
            groups: Vec::new(),
            under_replicated: 0,
        }
    }

    /// Returns the health of a topic by its partitions: for each the id, whether it has a leader,
    /// and whether all replicas are in sync.
    pub(super) fn existing(name: &str, partitions: impl Iterator<Item = (i32, bool, bool)>) -> Self {
        let mut topic = Self { exists: true, ..Self::missing(name) };
        for (partition, has_leader, is_whole) in partitions {
            topic.partitions += 1;
            topic.under_replicated += usize::from(!is_whole);
            if !has_leader {
                topic.offline.push(partition);
            }
        }
        topic.without_leader = topic.offline.len();
        topic
    }
}
