//! The cluster, topics, groups, offsets, settings and access control lists: what an operator lists, describes, creates, changes and
//! deletes.
//!
//! What a broker does not serve is an error of the kind [`Unsupported`](crate::ErrorKind::Unsupported) that names the API, the
//! broker, and what it serves instead: never an empty answer.

mod acl_words;
mod acls;
mod cluster;
mod configs;
mod describe;
mod groups;
mod leaders;
mod logs;
mod new_topic;
mod offsets;
mod reset;
mod topics;

use std::collections::BTreeMap;

use serde::Serialize;

pub use acl_words::{AclOperation, AclPermission, PatternKind, ResourceKind};
pub use acls::{Acl, AclFilter};
pub use cluster::{ApiSupport, BrokerDescription, ClusterDescription, VersionRange};
pub use configs::{ConfigChange, ConfigEntry, ConfigResource, ConfigSource};
pub use logs::{LogDir, ReplicaLog};
pub use new_topic::NewTopic;
pub use reset::{PlannedOffset, ResetTo};

use crate::cluster::{Client, Cluster};

/// One partition of a topic.
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
    /// Its number.
    pub partition: i32,
    /// The broker that leads it, if one does.
    pub leader: Option<i32>,
    /// The brokers that hold it.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub in_sync_replicas: Vec<i32>,
}

/// A topic, as [`Admin::list_topics`] and [`Admin::describe_topic`] give it.
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
    /// Its name.
    pub name: String,
    /// Whether it belongs to the brokers (`__consumer_offsets`).
    pub internal: bool,
    /// In order.
    pub partitions: Vec<PartitionInfo>,
}

/// A group as [`Admin::list_groups`] shows it.
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
    /// Its name.
    pub group: String,
    /// `consumer` for consumer groups.
    pub protocol_type: String,
    /// `Stable`, `Empty`, …; none from old brokers.
    pub state: Option<String>,
    /// `classic`, or `consumer` for KIP-848's protocol; none from Redpanda and from Kafka before 3.8.
    pub group_type: Option<String>,
}

/// Which groups to list: of any of these states and any of these types. [`Default`] means all.
///
/// ```
/// use ailurus::admin::GroupFilter;
///
/// let idle = GroupFilter::default().state("Empty").state("Dead");
/// # let _ = idle;
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupFilter {
    states: Vec<String>,
    types: Vec<String>,
}

impl GroupFilter {
    /// In this state too: `Stable`, `Empty`, `PreparingRebalance`, ….
    #[must_use]
    pub fn state(mut self, state: impl Into<String>) -> Self {
        self.states.push(state.into());
        self
    }

    /// Of this type too: `classic` or `consumer`.
    #[must_use]
    pub fn group_type(mut self, group_type: impl Into<String>) -> Self {
        self.types.push(group_type.into());
        self
    }

    /// The version of ListGroups that can do it, and what it is.
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
    /// As the coordinator named it.
    pub member_id: String,
    /// Of a static member, its name in the group.
    pub instance_id: Option<String>,
    /// As the client named itself.
    pub client_id: String,
    /// From where.
    pub host: String,
    /// The topics that it subscribes to, as far as it names them: a pattern is not resolved here.
    pub topics: Vec<String>,
    /// What it owns, by topic.
    pub assignment: BTreeMap<String, Vec<i32>>,
}

/// How far a group is in a partition. Numbers are offsets and records.
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
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The committed offset: the next record to handle.
    pub committed: Option<i64>,
    /// The end of the partition; none if it is not known, see [`error`](Self::error).
    pub end: Option<i64>,
    /// Number of records between the two. Where nothing is committed it is the whole log if
    /// [`offset_reset`](crate::ConsumerConfig::offset_reset) of the client is `Earliest`, and none otherwise: where members
    /// begin is a setting of theirs.
    pub lag: Option<i64>,
    /// Whether the partition exists: its topic may have been deleted since.
    pub exists: bool,
    /// Reason why its end is not known.
    pub error: Option<String>,
}

/// A group in full, as [`Admin::describe_group`] gives it.
///
/// ```
/// use ailurus::admin::GroupDescription;
///
/// fn works(g: &GroupDescription) -> bool {
///     g.state == "Stable" && g.members.iter().any(|m| !m.assignment.is_empty())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupDescription {
    /// Its name.
    pub group: String,
    /// `classic`, or `consumer` for KIP-848's protocol.
    pub group_type: String,
    /// `Stable`, `Empty`, `Dead` (unknown to the coordinator), ….
    pub state: String,
    /// The assignor in use.
    pub assignor: String,
    /// The broker that coordinates it.
    pub coordinator: i32,
    /// Its members.
    pub members: Vec<MemberDescription>,
    /// Its offsets, in every partition of the topics that it has committed in, subscribes to or is assigned.
    pub offsets: Vec<GroupOffset>,
}

/// What an operator does. Nothing here creates a topic but [`create_topic`](Admin::create_topic) and
/// [`create_topic_with`](Admin::create_topic_with).
///
/// Each call takes at most a few request timeouts; dropping its future leaves at most the request under way to be carried out.
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
    /// On a client.
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone() }
    }

    fn cluster(&self) -> &Cluster {
        self.client.cluster()
    }
}
