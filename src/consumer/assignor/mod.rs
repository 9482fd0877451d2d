//! Who reads what: the assignors of Kafka's Java client, and the interface for others.

mod range;
mod round_robin;
mod sticky;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use bytes::Bytes;

use super::subscription::{Subscription, decode_sticky, encode_sticky};
use crate::config::AssignorKind;
use crate::record::TopicPartition;

/// What becomes of the partitions of members while their group shares out anew.
///
/// ```
/// use ailurus::consumer::RebalanceProtocol;
///
/// assert_eq!(RebalanceProtocol::default(), RebalanceProtocol::Eager);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RebalanceProtocol {
    /// Each member gives up all it has before it joins again.
    #[default]
    Eager,
    /// Members keep what they have and go on reading it (KIP-429). The assignor must not give a partition to another member as
    /// long as one says that it [owns](GroupMember::owned) it: its owner, who finds it missing from its share, gives it up and
    /// joins again, and it is free in that next round.
    Cooperative,
}

/// A member of the group as its leader sees it.
///
/// ```
/// use ailurus::consumer::GroupMember;
///
/// let mut member = GroupMember::new("member-1");
/// member.topics.insert("orders".into());
/// assert!(member.owned.is_empty());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMember {
    /// Its id in the group.
    pub id: String,
    /// Static members have one; it stays the same over restarts.
    pub instance_id: Option<String>,
    /// The topics it subscribes to.
    pub topics: BTreeSet<String>,
    /// What its assignor had to say.
    pub user_data: Option<Bytes>,
    /// What it has kept, with a cooperative assignor.
    pub owned: Vec<TopicPartition>,
    /// The generation by whose assignment it has that; none if its client does not tell.
    pub generation: Option<i32>,
    /// Its rack.
    pub rack: Option<String>,
}

impl GroupMember {
    /// A member that subscribes to nothing.
    pub fn new(id: impl Into<String>) -> Self {
        Self::subscribed(id.into(), None, Subscription::default())
    }

    pub(crate) fn subscribed(id: String, instance_id: Option<String>, subscription: Subscription) -> Self {
        let Subscription { topics, user_data, owned, generation, rack } = subscription;
        Self { id, instance_id, topics, user_data, owned, generation, rack }
    }

    /// Static members first, by instance id; then the others by member id.
    fn order(&self, other: &Self) -> Ordering {
        match (&self.instance_id, &other.instance_id) {
            (Some(a), Some(b)) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.id.cmp(&other.id),
        }
    }
}

/// A topic whose partitions are to be shared out.
///
/// ```
/// use ailurus::consumer::TopicLayout;
///
/// assert_eq!(TopicLayout::new(3).partitions, 3);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TopicLayout {
    /// How many partitions it has; 0 for a topic that does not exist yet.
    pub partitions: i32,
    /// The racks that have a replica, by partition number; empty where brokers tell none.
    pub racks: Vec<BTreeSet<String>>,
}

impl TopicLayout {
    /// A topic on brokers without racks.
    pub fn new(partitions: i32) -> Self {
        Self { partitions, racks: Vec::new() }
    }

    fn racks_of(&self, partition: i32) -> Option<&BTreeSet<String>> {
        self.racks.get(usize::try_from(partition).ok()?).filter(|racks| !racks.is_empty())
    }

    /// A member without a rack is near to all.
    fn is_near(&self, partition: i32, rack: Option<&str>) -> bool {
        rack.is_none_or(|rack| self.racks_of(partition).is_some_and(|racks| racks.contains(rack)))
    }
}

/// The topics to share out, by name.
pub type Topics = BTreeMap<String, TopicLayout>;
/// Member id to its partitions.
pub type Assignments = BTreeMap<String, Vec<TopicPartition>>;

/// Shares out the partitions of a group's topics among its members.
///
/// Each member offers its assignors by name, and the group agrees on one that all of them offer; the member that leads calls it.
/// Give one of your own with [`AssignorKind::Custom`].
///
/// ```
/// use ailurus::consumer::{Assignments, Assignor, GroupMember, Topics};
/// use ailurus::{AssignorKind, Config, TopicPartition};
///
/// /// All to the member with the lowest id; the others stand by.
/// #[derive(Debug)]
/// struct Standby;
///
/// impl Assignor for Standby {
///     fn name(&self) -> &str {
///         "standby"
///     }
///
///     fn assign(&self, topics: &Topics, members: &[GroupMember]) -> Assignments {
///         let Some(first) = members.iter().min_by_key(|m| &m.id) else { return Assignments::new() };
///         let wanted = topics.iter().filter(|(name, _)| first.topics.contains(*name));
///         let all = wanted.flat_map(|(name, t)| (0..t.partitions).map(|p| TopicPartition::new(&**name, p)));
///         Assignments::from([(first.id.clone(), all.collect())])
///     }
/// }
///
/// let config = Config::builder().assignors(vec![AssignorKind::custom(Standby)]).build()?;
/// # Ok::<(), ailurus::Error>(())
/// ```
pub trait Assignor: Debug + Send + Sync {
    /// The name by which members agree on it.
    fn name(&self) -> &str;

    /// Whether members keep what they have while the group shares out.
    fn protocol(&self) -> RebalanceProtocol {
        RebalanceProtocol::Eager
    }

    /// What this member tells the leader's assignor, given its subscription and what it was assigned last, in which generation (-1
    /// if it was in none); with an eager assignor it has given that up.
    fn user_data(&self, topics: &BTreeSet<String>, last: &[TopicPartition], generation: i32) -> Option<Bytes> {
        _ = (topics, last, generation);
        None
    }

    /// Shares out. The same arguments must give the same result, whatever the order of the members. A member without an entry
    /// gets nothing.
    fn assign(&self, topics: &Topics, members: &[GroupMember]) -> Assignments;
}

#[derive(Debug)]
struct Range;
#[derive(Debug)]
struct RoundRobin;
#[derive(Debug)]
struct KafkaJs;
#[derive(Debug)]
struct Sticky;
#[derive(Debug)]
struct CooperativeSticky;

impl AssignorKind {
    /// An assignor of one's own.
    pub fn custom(assignor: impl Assignor + 'static) -> Self {
        Self::Custom(std::sync::Arc::new(assignor))
    }

    /// What it does.
    fn assignor(&self) -> &dyn Assignor {
        match self {
            Self::Range => &Range,
            Self::RoundRobin => &RoundRobin,
            Self::KafkaJs => &KafkaJs,
            Self::Sticky => &Sticky,
            Self::CooperativeSticky => &CooperativeSticky,
            Self::Custom(assignor) => &**assignor,
        }
    }

    /// The name by which members agree on it.
    pub fn name(&self) -> &str {
        self.assignor().name()
    }
}

/// So that an assignor of one's own can build on one of these.
impl Assignor for AssignorKind {
    fn name(&self) -> &str {
        self.assignor().name()
    }

    fn protocol(&self) -> RebalanceProtocol {
        self.assignor().protocol()
    }

    fn user_data(&self, topics: &BTreeSet<String>, last: &[TopicPartition], generation: i32) -> Option<Bytes> {
        self.assignor().user_data(topics, last, generation)
    }

    fn assign(&self, topics: &Topics, members: &[GroupMember]) -> Assignments {
        self.assignor().assign(topics, members)
    }
}

impl Assignor for Range {
    fn name(&self) -> &str {
        "range"
    }

    fn assign(&self, topics: &Topics, members: &[GroupMember]) -> Assignments {
        range::assign(topics, &sorted(members))
    }
}

impl Assignor for RoundRobin {
    fn name(&self) -> &str {
        "roundrobin"
    }

    fn assign(&self, topics: &Topics, members: &[GroupMember]) -> Assignments {
        round_robin::assign(topics, &sorted(members))
    }
}

impl Assignor for KafkaJs {
    fn name(&self) -> &str {
        "RoundRobinAssigner"
    }

    fn assign(&self, topics: &Topics, members: &[GroupMember]) -> Assignments {
        RoundRobin.assign(topics, members)
    }
}

impl Assignor for Sticky {
    fn name(&self) -> &str {
        "sticky"
    }

    fn user_data(&self, _: &BTreeSet<String>, last: &[TopicPartition], generation: i32) -> Option<Bytes> {
        (generation >= 0).then(|| encode_sticky(last, generation))
    }

    fn assign(&self, topics: &Topics, members: &[GroupMember]) -> Assignments {
        let last = |m: &GroupMember| {
            let data = m.user_data.as_deref().filter(|data| !data.is_empty());
            let known = data.map(decode_sticky).transpose().unwrap_or_else(|e| {
                tracing::debug!(member = m.id, error = %e.full(), "what the member had before can't be read");
                None
            });
            known.map_or((Vec::new(), -1), |(partitions, generation)| (partitions, generation.unwrap_or(-1)))
        };
        sticky::assign(topics, &sorted(members), last)
    }
}

impl Assignor for CooperativeSticky {
    fn name(&self) -> &str {
        "cooperative-sticky"
    }

    fn protocol(&self) -> RebalanceProtocol {
        RebalanceProtocol::Cooperative
    }

    /// For leaders that do not know the generation in the subscription.
    fn user_data(&self, _: &BTreeSet<String>, _: &[TopicPartition], generation: i32) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(&generation.to_be_bytes()))
    }

    fn assign(&self, topics: &Topics, members: &[GroupMember]) -> Assignments {
        let generation = |m: &GroupMember| {
            let told = || m.user_data.as_deref().and_then(|data| data.try_into().ok()).map(i32::from_be_bytes);
            m.generation.or_else(told).unwrap_or(-1)
        };
        let owned = |m: &GroupMember| (m.owned.clone(), generation(m));
        let members = sorted(members);
        let mut all = sticky::assign(topics, &members, owned);
        sticky::withhold(&mut all, &members, owned);
        all
    }
}

fn sorted(members: &[GroupMember]) -> Vec<&GroupMember> {
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_by(|a, b| a.order(b));
    sorted
}

fn empty(members: &[&GroupMember]) -> Assignments {
    members.iter().map(|m| (m.id.clone(), Vec::new())).collect()
}

/// Whether racks matter (KIP-881): some member is on a rack of some replica, and not all partitions are on the same racks.
fn racks_matter<'a>(members: impl IntoIterator<Item = &'a GroupMember>, topics: &[&TopicLayout]) -> bool {
    let all: BTreeSet<&String> = topics.iter().flat_map(|t| t.racks.iter().flatten()).collect();
    let shared = members.into_iter().any(|m| m.rack.as_ref().is_some_and(|rack| all.contains(rack)));
    let spread = |t: &&TopicLayout| (0..t.partitions).any(|p| t.racks_of(p).map_or(0, BTreeSet::len) != all.len());
    shared && topics.iter().any(spread)
}

#[cfg(test)]
mod tests;
