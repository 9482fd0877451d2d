//! The interface of assignors, and what it speaks of. Kafka's own assignors are in `consumer`; the settings hold either.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use bytes::Bytes;

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
        Self {
            id: id.into(),
            instance_id: None,
            topics: BTreeSet::new(),
            user_data: None,
            owned: Vec::new(),
            generation: None,
            rack: None,
        }
    }

    /// Static members first, by instance id; then the others by member id.
    pub(crate) fn canonical_order(&self, other: &Self) -> Ordering {
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

    pub(crate) fn racks_of(&self, partition: i32) -> Option<&BTreeSet<String>> {
        self.racks.get(usize::try_from(partition).ok()?).filter(|racks| !racks.is_empty())
    }

    /// A member without a rack is near to all.
    pub(crate) fn has_replica_in(&self, partition: i32, rack: Option<&str>) -> bool {
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
/// Give one of your own with [`AssignorKind::Custom`](crate::AssignorKind::Custom).
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
