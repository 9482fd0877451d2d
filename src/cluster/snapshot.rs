//! Metadata of the cluster: brokers, topics, leaders. A snapshot never changes; a refresh makes the
//! next one.

use std::collections::HashMap;
use std::sync::Arc;

use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::topics::TopicMap;
use crate::code;
use crate::config::BrokerAddr;

/// Number of responses in a row with an older leader epoch that are ignored. Then it is believed: a
/// topic without an id may have been recreated, so that its epochs start again. A broker that lags
/// behind has caught up by then.
const MAX_EPOCH_REWINDS: u8 = 5;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionMeta {
    /// The broker to produce to and fetch from; none during an election.
    pub(crate) leader: Option<i32>,
    /// Number that grows with each election; -1 if the broker does not return it.
    pub(crate) leader_epoch: i32,
    /// Number of responses in a row that had an older leader epoch.
    epoch_rewinds: u8,
    pub(crate) replicas: Vec<i32>,
    pub(crate) in_sync: Vec<i32>,
}

/// A topic that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicMeta {
    pub(crate) name: Arc<str>,
    /// The topic's id, which changes when it is recreated; brokers before Metadata 10 have none.
    pub(crate) id: Option<Uuid>,
    pub(crate) internal: bool,
    /// The partitions by number.
    pub(crate) partitions: Vec<PartitionMeta>,
}

impl TopicMeta {
    pub(crate) fn partition(&self, partition: i32) -> Option<&PartitionMeta> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }
}

/// The cluster's metadata at one time.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// Time of the last request for all topics in use; none before the first response.
    pub(crate) requested_at: Option<Instant>,
    pub(crate) cluster_id: Option<String>,
    pub(crate) controller: Option<i32>,
    pub(crate) brokers: HashMap<i32, BrokerAddr>,
    /// The racks of brokers that have one.
    pub(crate) racks: HashMap<i32, String>,
    pub(crate) topics: TopicMap,
    /// Topics in use without metadata, with the error code.
    pub(crate) failed: HashMap<Arc<str>, i16>,
}

impl Snapshot {
    pub(crate) fn empty() -> Self {
        Self {
            requested_at: None,
            cluster_id: None,
            controller: None,
            brokers: HashMap::new(),
            racks: HashMap::new(),
            topics: TopicMap::new(),
            failed: HashMap::new(),
        }
    }

    /// Returns the next snapshot, from the response to a request for all topics in use. Topics that
    /// are not in use any more are dropped.
    pub(super) fn refreshed(
        &self,
        response: MetadataResponse,
        requested_at: Instant,
        is_in_use: impl Fn(&str) -> bool,
    ) -> Self {
        let mut next = self.clone();
        next.requested_at = Some(requested_at);
        next.merge(response, &is_in_use);
        next.topics.retain(&is_in_use);
        next.failed.retain(|name, _| is_in_use(name));
        next
    }

    /// Merges the response to a request for some topics: the others stay as they are, and a topic
    /// that is not in use is skipped. Returns whether anything changed that was known before.
    pub(super) fn merge(&mut self, response: MetadataResponse, is_in_use: impl Fn(&str) -> bool) -> bool {
        self.cluster_id = response.cluster_id.map(|s| s.to_string()).or(self.cluster_id.take());
        self.controller = Some(response.controller_id.0).filter(|id| *id >= 0);
        let mut changed = false;
        if !response.brokers.is_empty() {
            let before = std::mem::take(&mut self.brokers);
            self.brokers = response.brokers.iter().map(|b| (b.node_id.0, broker_address(&b.host, b.port))).collect();
            changed |= before != self.brokers;
            let rack = |b: &MetadataResponseBroker| Some((b.node_id.0, b.rack.as_ref()?.to_string()));
            self.racks = response.brokers.iter().filter_map(rack).filter(|(_, rack)| !rack.is_empty()).collect();
        }
        for t in response.topics {
            let Some(name) = t.name.as_ref().map(|n| Arc::<str>::from(n.0.as_str())) else { continue };
            if !is_in_use(&name) {
                continue;
            }
            if t.error_code == 0 {
                let known = self.topics.get(&name).map(|k| &**k);
                let new = topic_meta(Arc::clone(&name), &t, known);
                log_changes(known, &new);
                changed |= self.failed.remove(&name).is_some();
                changed |= self.topics.insert(new);
            } else {
                if t.error_code == code::UNKNOWN_TOPIC_OR_PARTITION && self.topics.remove(&name) {
                    tracing::warn!(topic = %name, "the topic is missing: it was deleted, or the broker does not know it yet");
                }
                changed |= self.failed.insert(name, t.error_code) != Some(t.error_code);
            }
        }
        changed
    }
}

pub(crate) fn broker_address(host: &str, port: i32) -> BrokerAddr {
    BrokerAddr::new(host, u16::try_from(port).unwrap_or(0))
}

/// Decodes a topic of a metadata response. If the leader epoch of a partition is older than the
/// known one, the known state stays, for a few responses: brokers learn of an election one after
/// the other.
pub(crate) fn topic_meta(name: Arc<str>, t: &MetadataResponseTopic, known: Option<&TopicMeta>) -> TopicMeta {
    let id = Some(Uuid::from_bytes(*t.topic_id.as_bytes())).filter(|id| !id.is_nil());
    let known = known.filter(|k| k.id == id);
    // Brokers list all partitions: a larger index is damage, and nothing is allocated for it.
    let listed =
        |p: &MetadataResponsePartition| usize::try_from(p.partition_index).ok().filter(|i| *i < t.partitions.len());
    let count = t.partitions.iter().filter_map(listed).max().map_or(0, |last| last + 1);
    let none = PartitionMeta { leader: None, leader_epoch: -1, epoch_rewinds: 0, replicas: vec![], in_sync: vec![] };
    let mut partitions = vec![none; count];
    for p in &t.partitions {
        let Some(slot) = listed(p).and_then(|i| partitions.get_mut(i)) else { continue };
        let ids = |ids: &[kafka_protocol::messages::BrokerId]| ids.iter().map(|b| b.0).collect();
        *slot = PartitionMeta {
            leader: Some(p.leader_id.0).filter(|id| *id >= 0 && p.error_code != code::LEADER_NOT_AVAILABLE),
            leader_epoch: p.leader_epoch,
            epoch_rewinds: 0,
            replicas: ids(&p.replica_nodes),
            in_sync: ids(&p.isr_nodes),
        };
        let newer = known.and_then(|k| k.partition(p.partition_index)).filter(|k| k.leader_epoch > p.leader_epoch);
        if let Some(newer) = newer.filter(|k| k.epoch_rewinds < MAX_EPOCH_REWINDS) {
            *slot = PartitionMeta { epoch_rewinds: newer.epoch_rewinds + 1, ..newer.clone() };
        }
    }
    TopicMeta { name, id, internal: t.is_internal, partitions }
}

fn log_changes(known: Option<&TopicMeta>, new: &TopicMeta) {
    let Some(known) = known else { return };
    let (before, after) = (known.partitions.len(), new.partitions.len());
    if known.id != new.id {
        tracing::warn!(topic = %new.name, "the topic was deleted and recreated");
    } else if before != after {
        // The partition of a key is its hash modulo their number, so most keys move to another one.
        tracing::warn!(topic = %new.name, before, after, "the topic's number of partitions has changed");
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
    use kafka_protocol::messages::{BrokerId, TopicName};

    use super::*;

    fn partition(index: i32, leader: i32, epoch: i32) -> MetadataResponsePartition {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(leader))
            .with_leader_epoch(epoch)
    }

    fn metadata(error: i16, id: u128, partitions: Vec<MetadataResponsePartition>) -> MetadataResponse {
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName("t".into())))
            .with_error_code(error)
            .with_topic_id(Uuid::from_u128(id))
            .with_partitions(partitions);
        let broker = MetadataResponseBroker::default().with_node_id(BrokerId(1)).with_host("h".into()).with_port(9);
        MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic])
    }

    /// Returns the next snapshot, with all topics in use.
    fn next(s: &Snapshot, response: MetadataResponse, now: Instant) -> Snapshot {
        s.refreshed(response, now, |_| true)
    }

    #[allow(clippy::unwrap_used)]
    fn known(s: &Snapshot) -> &TopicMeta {
        s.topics.get("t").unwrap()
    }

    fn leaders(s: &Snapshot) -> Vec<Option<i32>> {
        known(s).partitions.iter().map(|p| p.leader).collect()
    }

    #[test]
    fn an_older_leader_epoch_does_not_replace_a_newer_one() {
        let now = Instant::now();
        let s = next(&Snapshot::empty(), metadata(0, 1, vec![partition(0, 2, 7), partition(1, 3, 4)]), now);
        let s = next(&s, metadata(0, 1, vec![partition(0, 1, 6), partition(1, 1, 5)]), now);
        assert_eq!(leaders(&s), [Some(2), Some(1)]);
        assert_eq!(s.brokers[&1].to_string(), "h:9");
    }

    #[test]
    fn a_recreated_topic_without_id_starts_over_after_a_few_responses() {
        let now = Instant::now();
        let mut s = next(&Snapshot::empty(), metadata(0, 0, vec![partition(0, 2, 7)]), now);
        for _ in 0..MAX_EPOCH_REWINDS {
            s = next(&s, metadata(0, 0, vec![partition(0, 1, 0)]), now);
            assert_eq!(leaders(&s), [Some(2)], "it may be a broker that lags behind");
        }
        let s = next(&s, metadata(0, 0, vec![partition(0, 1, 0)]), now);
        assert_eq!(leaders(&s), [Some(1)]);
    }

    #[test]
    fn a_recreated_topic_starts_over() {
        let now = Instant::now();
        let s = next(&Snapshot::empty(), metadata(0, 1, vec![partition(0, 2, 7), partition(1, 2, 7)]), now);
        let s = next(&s, metadata(0, 2, vec![partition(0, 1, 0)]), now);
        assert_eq!(leaders(&s), [Some(1)], "the epochs of the old topic do not count");
    }

    #[test]
    fn merging_a_new_topic_is_no_change_of_known_ones() {
        let all = |_: &str| true;
        let mut s = next(&Snapshot::empty(), metadata(0, 1, vec![partition(0, 1, 0)]), Instant::now());
        let before = s.clone();
        let mut other = metadata(0, 2, vec![partition(0, 1, 0)]);
        other.topics[0].name = Some(TopicName("other".into()));
        assert!(!s.merge(other.clone(), all), "it is only new");
        assert_eq!((s.requested_at, s.topics.len()), (before.requested_at, 2));
        assert!(s.merge(other.clone(), all), "it was known");
        other.topics[0].name = Some(TopicName("unused".into()));
        assert!(!s.merge(other, |name| name != "unused"));
        assert_eq!(s.topics.len(), 2);
        let s = s.refreshed(metadata(0, 1, vec![partition(0, 1, 0)]), Instant::now(), |name| name == "t");
        assert_eq!((s.topics.len(), s.topics.get("other")), (1, None), "it is not in use any more");
    }

    #[test]
    fn more_partitions_and_elections_are_applied() {
        let now = Instant::now();
        let s = next(&Snapshot::empty(), metadata(0, 1, vec![partition(0, 1, 0)]), now);
        let electing = partition(0, 1, 1).with_error_code(code::LEADER_NOT_AVAILABLE);
        let s = next(&s, metadata(0, 1, vec![partition(2, 1, 0), electing, partition(1, -1, 0)]), now);
        assert_eq!(leaders(&s), [None, None, Some(1)]);
        assert_eq!(known(&s).partition(3), None);
        assert_eq!(known(&s).partition(-1), None);
    }

    #[test]
    fn a_partition_index_out_of_range_is_ignored() {
        let partitions = vec![partition(i32::MAX, 1, 0), partition(0, 1, 0), partition(-1, 1, 0)];
        let s = next(&Snapshot::empty(), metadata(0, 1, partitions), Instant::now());
        assert_eq!(leaders(&s), [Some(1)]);
    }

    #[test]
    fn a_deleted_topic_is_removed_but_not_on_a_transient_error() {
        let now = Instant::now();
        let s = next(&Snapshot::empty(), metadata(0, 1, vec![partition(0, 1, 0)]), now);
        let s = next(&s, metadata(code::LEADER_NOT_AVAILABLE, 0, vec![]), now);
        assert_eq!(leaders(&s), [Some(1)]);
        let s = next(&s, metadata(code::UNKNOWN_TOPIC_OR_PARTITION, 0, vec![]), now);
        assert!(s.topics.get("t").is_none());
        assert_eq!(s.failed["t"], code::UNKNOWN_TOPIC_OR_PARTITION);
    }
}
