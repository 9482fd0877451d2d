//! Administration: cluster, topics, groups, offsets, transactions, configurations and access control
//! lists.
//!
//! A request that a broker does not support is an error of the kind
//! [`Unsupported`](crate::ErrorKind::Unsupported) that names the API, the broker, and the versions
//! it serves: never an empty result.

mod acl_words;
mod acls;
mod cluster;
mod configs;
mod describe;
mod group_state;
mod groups;
mod logs;
mod new_topic;
mod offsets;
mod reset;
mod topics;
mod transactions;

use std::collections::BTreeMap;

use serde::Serialize;

pub use acl_words::{AclOperation, AclPermission, PatternKind, ResourceKind};
pub use acls::{Acl, AclFilter};
pub use cluster::{ApiSupport, BrokerDescription, ClusterDescription, VersionRange};
pub use configs::{ConfigChange, ConfigEntry, ConfigResource, ConfigSource};
pub use group_state::{GroupState, GroupType};
pub use logs::{LogDir, ReplicaLog};
pub use new_topic::NewTopic;
pub use reset::{PlannedOffset, ResetTo};
pub use transactions::{
    FencedProducer, HangingTransaction, HoldingTransaction, OpenTransaction, ProducerState, TransactionDescription,
    TransactionFilter, TransactionListing, TransactionState,
};

use crate::cluster::fields::millis;
use crate::cluster::{Client, Cluster};
use crate::config::Config;

/// A partition of a topic.
///
/// ```
/// use ailurus::admin::PartitionInfo;
///
/// fn is_at_risk(p: &PartitionInfo) -> bool {
///     p.leader.is_none() || p.in_sync_replicas.len() < p.replicas.len()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PartitionInfo {
    /// Partition id.
    pub partition: i32,
    /// Broker id of the leader, if there is one.
    pub leader: Option<i32>,
    /// Broker ids of the replicas.
    pub replicas: Vec<i32>,
    /// Broker ids of the in-sync replicas.
    pub in_sync_replicas: Vec<i32>,
}

/// A topic, as [`Admin::list_topics`] and [`Admin::describe_topic`] return it.
///
/// ```
/// use ailurus::admin::TopicInfo;
///
/// fn row(t: &TopicInfo) -> String {
///     format!("{}: {} partitions", t.name, t.partitions.len())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TopicInfo {
    /// Topic name.
    pub name: String,
    /// True if it is internal to the brokers (`__consumer_offsets`).
    pub internal: bool,
    /// Partitions, in order.
    pub partitions: Vec<PartitionInfo>,
}

/// A group, as [`Admin::list_groups`] returns it.
///
/// ```
/// use ailurus::admin::GroupListing;
///
/// fn consumers(groups: Vec<GroupListing>) -> Vec<String> {
///     groups.into_iter().filter(|g| g.protocol_type == "consumer").map(|g| g.group).collect()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupListing {
    /// Group name.
    pub group: String,
    /// Protocol type: `consumer` for consumer groups.
    pub protocol_type: String,
    /// State; `None` from brokers before Kafka 2.6.
    pub state: Option<GroupState>,
    /// Protocol; `None` from Redpanda and from Kafka before 3.8.
    pub group_type: Option<GroupType>,
}

/// Selects groups by state and type: those of any given state and any given type. [`Default`]
/// selects all.
///
/// ```
/// use ailurus::admin::{GroupFilter, GroupState};
///
/// let idle = GroupFilter::default().state(GroupState::Empty).state(GroupState::Dead);
/// # let _ = idle;
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupFilter {
    states: Vec<GroupState>,
    types: Vec<GroupType>,
}

impl GroupFilter {
    /// Adds a state.
    #[must_use]
    pub fn state(mut self, state: impl Into<GroupState>) -> Self {
        self.states.push(state.into());
        self
    }

    /// Adds a protocol.
    #[must_use]
    pub fn group_type(mut self, group_type: impl Into<GroupType>) -> Self {
        self.types.push(group_type.into());
        self
    }

    /// Returns the version of ListGroups that the filter needs, and what for.
    fn needs(&self) -> Option<(i16, &'static str)> {
        match (self.states.is_empty(), self.types.is_empty()) {
            (_, false) => Some((5, "type")),
            (false, true) => Some((4, "state")),
            (true, true) => None,
        }
    }
}

/// A member of a group.
///
/// ```
/// use ailurus::admin::MemberDescription;
///
/// fn owns(m: &MemberDescription, topic: &str, partition: i32) -> bool {
///     m.assignment.get(topic).is_some_and(|p| p.contains(&partition))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct MemberDescription {
    /// Member id, assigned by the coordinator.
    pub member_id: String,
    /// Instance id of a static member.
    pub instance_id: Option<String>,
    /// Client id.
    pub client_id: String,
    /// Client host.
    pub host: String,
    /// Subscribed topics; those subscribed by a pattern are not included.
    pub topics: Vec<String>,
    /// Assigned partitions, by topic.
    pub assignment: BTreeMap<String, Vec<i32>>,
}

/// Progress of a group in a partition.
///
/// ```
/// use ailurus::admin::GroupOffset;
///
/// fn behind(offsets: &[GroupOffset]) -> i64 {
///     offsets.iter().filter_map(|o| o.lag).sum()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupOffset {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Committed offset: the next record to handle.
    pub committed: Option<i64>,
    /// End offset of the partition, its high watermark; `None` if it is unknown, see
    /// [`error`](Self::error).
    pub end: Option<i64>,
    /// Last stable offset: readers of committed records stop there. Less than the end while a
    /// transaction is open; [`Admin::find_holding_transactions`] finds that.
    pub last_stable: Option<i64>,
    /// Number of records between the committed offset and the end: with
    /// [`IsolationLevel::ReadCommitted`](crate::IsolationLevel::ReadCommitted) in the client's
    /// settings the last stable offset. Without a committed offset it is the whole log if the
    /// client's [`offset_reset`](field@crate::ConsumerConfig::offset_reset) is `Earliest`, and
    /// `None` otherwise: the members' own setting is unknown here.
    pub lag: Option<i64>,
    /// True if the partition exists: its topic may have been deleted.
    pub exists: bool,
    /// Reason why the end offset is unknown.
    pub error: Option<String>,
}

/// A group with members and offsets, as [`Admin::describe_group`] returns it.
///
/// ```
/// use ailurus::admin::{GroupDescription, GroupState};
///
/// fn works(g: &GroupDescription) -> bool {
///     g.state == GroupState::Stable && g.members.iter().any(|m| !m.assignment.is_empty())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupDescription {
    /// Group name.
    pub group: String,
    /// Protocol.
    pub group_type: GroupType,
    /// State; `Dead` if the coordinator does not know the group.
    pub state: GroupState,
    /// Assignor in use.
    pub assignor: String,
    /// Broker id of the coordinator.
    pub coordinator: i32,
    /// Members.
    pub members: Vec<MemberDescription>,
    /// Offsets, in every partition of the topics that the group has committed in, subscribes to or
    /// is assigned.
    pub offsets: Vec<GroupOffset>,
}

/// Admin client. No call creates a topic but [`create_topic`](Admin::create_topic) and
/// [`create_topic_with`](Admin::create_topic_with).
///
/// Each call takes at most a few request timeouts; if its future is dropped, the request in flight
/// may still take effect.
///
/// ```no_run
/// # async fn example() -> ailurus::Result<()> {
/// use ailurus::{Admin, Client, Config};
///
/// let client = Client::connect(Config::default()).await?;
/// let admin = Admin::new(&client);
/// admin.create_topic("orders", 3, None).await?;
/// for topic in admin.list_topics().await? {
///     println!("{} has {} partitions", topic.name, topic.partitions.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
}

impl Admin {
    /// Creates an admin client.
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone() }
    }

    /// Returns the client's settings.
    pub fn config(&self) -> &Config {
        self.client.config()
    }

    fn cluster(&self) -> &Cluster {
        self.client.cluster()
    }

    /// Returns the time that brokers may take for a request, as requests carry it.
    fn timeout_ms(&self) -> i32 {
        millis(self.cluster().request_timeout())
    }
}
