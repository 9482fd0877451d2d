//! Health of subscriptions, and of consumers in the same form.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::activity::Activity;
use crate::consumer::{ConsumerState, RunningConsumer, RunningPartition};

/// Health of one subscription, part of [`Health`](crate::Health).
///
/// ```
/// # fn show(health: &ailurus::processor::SubscriptionHealth) {
/// println!("{} is {} and {} records behind", health.group, health.state, health.lag);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SubscriptionHealth {
    /// Group.
    pub group: String,
    /// Subscribed topics.
    pub topics: Vec<String>,
    /// Membership state: `joining`, `member` or `closed`.
    pub state: ConsumerState,
    /// Milliseconds since the state changed.
    pub state_ms: u64,
    /// Member id, while it is a member.
    pub member_id: Option<String>,
    /// Generation of the group (with KIP-848: member epoch) that assigned the partitions.
    pub generation: Option<i32>,
    /// Worst activity of its partitions. While joining it is busy, and stalled when that takes too
    /// long.
    pub activity: Activity,
    /// The outage that keeps it out of its group, and since when; it may need an operator.
    #[serde(default)]
    pub problem: Option<String>,
    /// Known lag of its partitions, in records.
    pub lag: i64,
    /// Assigned partitions.
    pub partitions: Vec<PartitionHealth>,
}

impl SubscriptionHealth {
    /// Returns the health of a consumer whose application polls for records; its handling of them
    /// is unknown here.
    pub(crate) fn of_consumer(consumer: &RunningConsumer, stalled_after: Duration) -> Self {
        let (state, in_state) = consumer.state();
        let (now, outages) = (Instant::now(), consumer.outlook.of_partitions());
        let outages: BTreeMap<_, _> = outages.into_iter().collect();
        let partition = |p: RunningPartition| {
            let outage = outages.get(&p.partition);
            let has_pending = p.lag.unwrap_or_default() > 0 || outage.is_some();
            PartitionHealth {
                topic: p.partition.topic.to_string(),
                partition: p.partition.partition,
                activity: if has_pending { Activity::Busy } else { Activity::Idle },
                quiet_ms: None,
                position: p.position.unwrap_or(-1),
                committed: p.committed,
                lag: p.lag.filter(|_| outage.is_none()),
                in_flight: 0,
                parked_keys: 0,
                paused: None,
                problem: outage.map(|outage| outage.describe(now)),
            }
        };
        let partitions: Vec<_> = consumer.partitions().into_iter().map(partition).collect();
        let activity = match state {
            ConsumerState::Joining if in_state >= stalled_after => Activity::Stalled,
            ConsumerState::Joining => Activity::Busy,
            _ => partitions.iter().map(|p| p.activity).max().unwrap_or_default(),
        };
        let (member_id, generation) = if state == ConsumerState::Member { consumer.member() } else { (None, None) };
        Self {
            group: consumer.group.clone(),
            topics: consumer.topics.clone(),
            state,
            state_ms: u64::try_from(in_state.as_millis()).unwrap_or(u64::MAX),
            member_id,
            generation,
            activity,
            problem: consumer.outlook.of_group().map(|outage| outage.describe(now)),
            lag: partitions.iter().filter_map(|p| p.lag).sum(),
            partitions,
        }
    }
}

/// Health of one partition of a subscription.
///
/// ```
/// # fn show(partition: &ailurus::processor::PartitionHealth) {
/// if let Some(why) = &partition.paused {
///     println!("{}/{} is at {}: {why}", partition.topic, partition.partition, partition.position);
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PartitionHealth {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Idle, busy or stalled.
    pub activity: Activity,
    /// Milliseconds for which records are pending and none was completed; `None` while idle.
    pub quiet_ms: Option<u64>,
    /// The next offset to handle; -1 before the first fetch if nothing is committed.
    pub position: i64,
    /// The committed offset.
    pub committed: Option<i64>,
    /// Offsets between the position and the last known end offset.
    pub lag: Option<i64>,
    /// Number of records in a handler.
    pub in_flight: usize,
    /// Number of keys (or lanes of another ordering) that are blocked by a failed record.
    pub parked_keys: usize,
    /// The reason why a record makes no progress by itself: for example a dead letter that can't be
    /// written.
    pub paused: Option<String>,
    /// The outage that keeps it from being read, and since when: its leader is unreachable, or it
    /// has none. Its end offset is unknown then.
    #[serde(default)]
    pub problem: Option<String>,
}
