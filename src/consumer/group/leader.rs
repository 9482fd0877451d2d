//! The work of a group's leader: fresh numbers of partitions, and what each member gets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::subscription::encode_assignment;
use crate::assignor::{Assignor, GroupMember, TopicLayout, Topics};
use crate::cluster::{Client, Pin, Snapshot};

/// How long the leader waits for fresh metadata before it shares out by what it knows.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// How many partitions each topic has: what was shared out.
pub(crate) type PartitionCounts = BTreeMap<String, i32>;

/// What the leader has come to.
#[derive(Debug)]
pub(crate) struct GroupAssignment {
    pub(crate) counts: PartitionCounts,
    /// For each member.
    pub(crate) shares: Vec<(String, Bytes)>,
    /// Whether nobody gets what a member still has: it gives it up and joins again, and then somebody does.
    pub(crate) withheld: bool,
    /// Keeps the members' topics fresh.
    pub(crate) in_use: Vec<Pin>,
}

/// A topic that does not exist has no partitions.
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

/// Asks for metadata of the topics of all members, then shares out. `own` are the topics that are kept fresh anyway.
pub(crate) async fn compute_assignment(
    client: &Client,
    own: &BTreeSet<String>,
    members: &[GroupMember],
    assignor: &dyn Assignor,
) -> GroupAssignment {
    let topics: BTreeSet<&String> = members.iter().flat_map(|m| &m.topics).chain(own).collect();
    let cluster = client.cluster();
    let in_use = topics.iter().map(|topic| cluster.pin(&topic.as_str().into())).collect();
    // Topics of other members may be new to us. One that does not exist has no partitions.
    let learn = cluster.refresh();
    match tokio::time::timeout(METADATA_TIMEOUT, learn).await {
        Ok(Ok(_)) => {}
        Ok(Err(e)) => tracing::warn!(error = %e.full(), "partitions are shared out by older metadata"),
        Err(_) => tracing::warn!("partitions are shared out by older metadata: none came within {METADATA_TIMEOUT:?}"),
    }
    let snapshot = cluster.snapshot();
    let layouts: Topics = topics.into_iter().map(|t| (t.clone(), layout(&snapshot, t))).collect();
    let mut all = assignor.assign(&layouts, members);
    let given: BTreeSet<_> = all.values().flatten().collect();
    let withheld = members.iter().flat_map(|m| &m.owned).any(|p| !given.contains(p));
    let shares = members.iter().map(|m| {
        let (member, partitions) = (m.id.clone(), all.remove(&m.id).unwrap_or_default());
        let bytes = encode_assignment(&partitions).unwrap_or_else(|e| {
            tracing::error!(member, error = %e.full(), "a member gets nothing");
            Bytes::new()
        });
        (member, bytes)
    });
    let shares = shares.collect();
    let counts = layouts.iter().map(|(topic, layout)| (topic.clone(), layout.partitions)).collect();
    GroupAssignment { counts, shares, withheld, in_use }
}
