//! The work of a group's leader: the assignment of all members, computed from fresh metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::subscription::encode_assignment;
use crate::assignor::{Assignor, GroupMember, TopicLayout, Topics};
use crate::cluster::{Client, Pin, Snapshot};

/// Maximum time to wait for fresh metadata before the assignment is computed from what is known.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of partitions of each assigned topic.
pub(crate) type PartitionCounts = BTreeMap<String, i32>;

/// The leader's assignment for its group.
#[derive(Debug)]
pub(crate) struct GroupAssignment {
    pub(crate) counts: PartitionCounts,
    /// Encoded, by member id.
    pub(crate) assignment: Vec<(String, Bytes)>,
    /// True if a partition is assigned to nobody since its owner has to revoke it first: it is
    /// assigned when that one rejoins.
    pub(crate) withheld: bool,
    /// Keeps the metadata of the members' topics fresh.
    pub(crate) topics_in_use: Vec<Pin>,
}

/// Returns the number of partitions of a topic; one that does not exist has none.
pub(crate) fn count(snapshot: &Snapshot, topic: &str) -> i32 {
    snapshot.topics.get(topic).map_or(0, |t| i32::try_from(t.partitions.len()).unwrap_or(i32::MAX))
}

fn layout(snapshot: &Snapshot, topic: &str) -> TopicLayout {
    let mut layout = TopicLayout::new(count(snapshot, topic));
    if let Some(meta) = snapshot.topics.get(topic).filter(|_| !snapshot.racks.is_empty()) {
        let racks = |replicas: &Vec<i32>| replicas.iter().filter_map(|b| snapshot.racks.get(b)).cloned().collect();
        layout.racks = meta.partitions.iter().map(|p| racks(&p.replicas)).collect();
    }
    layout
}

/// Refreshes the metadata of all members' topics, then computes the assignment. `own` are the
/// topics of this member.
pub(crate) async fn compute_assignment(
    client: &Client,
    own: &BTreeSet<String>,
    members: &[GroupMember],
    assignor: &dyn Assignor,
) -> GroupAssignment {
    let topics: BTreeSet<&String> = members.iter().flat_map(|m| &m.topics).chain(own).collect();
    let cluster = client.cluster();
    let topics_in_use = topics.iter().map(|topic| cluster.pin(&topic.as_str().into())).collect();
    match tokio::time::timeout(METADATA_TIMEOUT, cluster.refresh()).await {
        Ok(Ok(_)) => {}
        Ok(Err(e)) => {
            tracing::warn!(error = %e.full(), "metadata can't be refreshed: partitions are assigned by older metadata")
        }
        Err(_) => tracing::warn!("no metadata within {METADATA_TIMEOUT:?}: partitions are assigned by older metadata"),
    }
    let snapshot = cluster.snapshot();
    let layouts: Topics = topics.into_iter().map(|t| (t.clone(), layout(&snapshot, t))).collect();
    let mut all = assignor.assign(&layouts, members);
    let assigned: BTreeSet<_> = all.values().flatten().collect();
    let withheld = members.iter().flat_map(|m| &m.owned).any(|p| !assigned.contains(p));
    let encoded = members.iter().map(|m| {
        let (member, partitions) = (m.id.clone(), all.remove(&m.id).unwrap_or_default());
        let bytes = encode_assignment(&partitions).unwrap_or_else(|e| {
            let error = e.full();
            tracing::error!(member, %error, "a member's assignment can't be encoded: it is assigned nothing");
            Bytes::new()
        });
        (member, bytes)
    });
    let assignment = encoded.collect();
    let counts = layouts.iter().map(|(topic, layout)| (topic.clone(), layout.partitions)).collect();
    GroupAssignment { counts, assignment, withheld, topics_in_use }
}
