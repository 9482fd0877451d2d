//! Health of subscriptions, and of consumers in the same form.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::activity::Activity;
use super::failure_policy::HoldScope;
use super::pauses::PauseReason;
use crate::consumer::{ConsumerState, RunningConsumer, RunningPartition};
use crate::timestamp::{Timestamp, millis};

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
    /// Time since the state changed: `stateMs` in JSON.
    #[serde(rename = "stateMs", with = "millis")]
    pub state_age: Duration,
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
    /// Maximum number of records (or batches) in handlers at a time; none for a consumer.
    #[serde(default)]
    pub concurrency: Option<usize>,
    /// The dependencies of its handler that are down, for which records wait.
    #[serde(default)]
    pub waiting_for: Vec<WaitingFor>,
    /// Assigned partitions.
    pub partitions: Vec<PartitionHealth>,
}

impl SubscriptionHealth {
    /// Returns the health of a consumer whose application polls for records; its handling of them
    /// is unknown here.
    pub(crate) fn of_consumer(consumer: &RunningConsumer, stalled_after: Duration) -> Self {
        let (state, in_state) = consumer.status.state_for();
        let (now, outages) = (Instant::now(), consumer.status.partition_outages());
        let outages: BTreeMap<_, _> = outages.into_iter().collect();
        let partition = |p: RunningPartition| {
            let outage = outages.get(&p.partition);
            let has_pending = p.lag.unwrap_or_default() > 0 || outage.is_some();
            PartitionHealth {
                topic: p.partition.topic.to_string(),
                partition: p.partition.partition,
                activity: if has_pending { Activity::Busy } else { Activity::Idle },
                quiet_for: None,
                position: p.position.unwrap_or(-1),
                committed: p.committed,
                lag: p.lag.filter(|_| outage.is_none()),
                in_flight: 0,
                parked_keys: 0,
                paused: None,
                paused_by: Vec::new(),
                problem: outage.map(|outage| outage.describe(now)),
            }
        };
        let partitions: Vec<_> = consumer.partitions().into_iter().map(partition).collect();
        let activity = match state {
            ConsumerState::Joining if in_state >= stalled_after => Activity::Stalled,
            ConsumerState::Joining => Activity::Busy,
            _ => partitions.iter().map(|p| p.activity).max().unwrap_or_default(),
        };
        let (member_id, generation) = if state == ConsumerState::Member {
            (consumer.status.member_id(), consumer.status.generation())
        } else {
            (None, None)
        };
        Self {
            group: consumer.group.clone(),
            topics: consumer.topics.clone(),
            state,
            state_age: in_state,
            member_id,
            generation,
            activity,
            problem: consumer.status.outage().map(|outage| outage.describe(now)),
            lag: partitions.iter().filter_map(|p| p.lag).sum(),
            concurrency: None,
            waiting_for: Vec::new(),
            partitions,
        }
    }
}

/// A dependency of a handler that is down, for which a subscription waits: see
/// [`Hold`](crate::processor::Hold).
///
/// ```
/// # fn show(health: &ailurus::processor::SubscriptionHealth) {
/// for dependency in &health.waiting_for {
///     println!("{}: {dependency}", health.group); // billing: waiting for postgres since 2026-12-01T06:00:00Z: …
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct WaitingFor {
    /// Name of the dependency; `unknown` if all records fail and the handler names none.
    pub dependency: String,
    /// Scope of what waits.
    pub scope: HoldScope,
    /// Time of the first failure.
    pub since: Timestamp,
    /// Time since then: `waitedMs` in JSON.
    #[serde(rename = "waitedMs", with = "millis")]
    pub waited_for: Duration,
    /// The last error, of the first record that failed or of a probe.
    pub error: String,
    /// Number of probes that failed.
    pub failed_probes: u32,
    /// Number of partitions with records that failed; the scope may cover more.
    pub partitions: usize,
}

impl fmt::Display for WaitingFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waiting for {} since {}: {}", self.dependency, self.since, self.error)
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
    /// Time for which records are pending and none was completed; `None` while idle. `quietMs` in
    /// JSON.
    #[serde(rename = "quietMs", default, with = "millis")]
    pub quiet_for: Option<Duration>,
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
    /// The reasons why it is not read on; none while it is. While no record is in a handler, a paused
    /// partition is idle.
    #[serde(default)]
    pub paused_by: Vec<PauseReason>,
    /// The outage that keeps it from being read, and since when: its leader is unreachable, or it
    /// has none. Its end offset is unknown then.
    #[serde(default)]
    pub problem: Option<String>,
}
