//! The trait of assignors, and its data. Kafka's own assignors are in `consumer`.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use bytes::Bytes;

use crate::record::TopicPartition;

/// The protocol of a rebalance: what happens to the partitions of members meanwhile.
///
/// ```
/// use ailurus::consumer::RebalanceProtocol;
///
/// assert_eq!(RebalanceProtocol::default(), RebalanceProtocol::Eager);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum RebalanceProtocol {
    /// Each member revokes all of its partitions before it rejoins.
    #[default]
    Eager,
    /// Members keep their partitions and go on reading them (KIP-429). The assignor must not assign
    /// a partition to another member while one [owns](GroupMember::owned) it: the owner, whose
    /// assignment lacks it, revokes it and rejoins, and it is free in that next rebalance.
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
    /// The member's id in the group.
    pub id: String,
    /// The group instance id of a static member, which stays the same over restarts.
    pub instance_id: Option<String>,
    /// The topics it subscribes to.
    pub topics: BTreeSet<String>,
    /// The user data of its assignor.
    pub user_data: Option<Bytes>,
    /// The partitions that it still owns, with a cooperative assignor.
    pub owned: Vec<TopicPartition>,
    /// The generation in which it was assigned these; `None` if its client does not send it.
    pub generation: Option<i32>,
    /// The member's rack.
    pub rack: Option<String>,
}

impl GroupMember {
    /// Creates a member that subscribes to no topic.
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

    /// Compares members: static members first, by instance id; then the others by member id.
    pub(crate) fn canonical_order(&self, other: &Self) -> Ordering {
        match (&self.instance_id, &other.instance_id) {
            (Some(a), Some(b)) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.id.cmp(&other.id),
        }
    }
}

/// A topic whose partitions are to be assigned.
///
/// ```
/// use ailurus::consumer::TopicLayout;
///
/// assert_eq!(TopicLayout::new(3).partitions, 3);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TopicLayout {
    /// Number of partitions; 0 for a topic that does not exist yet.
    pub partitions: i32,
    /// The racks with a replica, by partition number; empty if brokers have no racks.
    pub racks: Vec<BTreeSet<String>>,
}

impl TopicLayout {
    /// Creates a topic on brokers without racks.
    pub fn new(partitions: i32) -> Self {
        Self { partitions, racks: Vec::new() }
    }

    pub(crate) fn racks_of(&self, partition: i32) -> Option<&BTreeSet<String>> {
        self.racks.get(usize::try_from(partition).ok()?).filter(|racks| !racks.is_empty())
    }

    /// Returns whether a partition has a replica in the rack; true for a member without a rack.
    pub(crate) fn has_replica_in(&self, partition: i32, rack: Option<&str>) -> bool {
        rack.is_none_or(|rack| self.racks_of(partition).is_some_and(|racks| racks.contains(rack)))
    }
}

/// The topics to assign, by name.
pub type Topics = BTreeMap<String, TopicLayout>;
/// The partitions of each member, by member id.
pub type Assignments = BTreeMap<String, Vec<TopicPartition>>;

/// Assigns the partitions of a group's topics to its members.
///
/// Each member offers its assignors by name, and the coordinator chooses one that all of them
/// offer; the group's leader calls it. Set your own with
/// [`AssignorKind::Custom`](crate::AssignorKind::Custom).
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
    /// Returns the name by which members offer it.
    fn name(&self) -> &str;

    /// Returns whether members keep their partitions during a rebalance.
    fn protocol(&self) -> RebalanceProtocol {
        RebalanceProtocol::Eager
    }

    /// Returns this member's user data for the leader's assignor, given its subscription and its
    /// last assignment, of `generation` (-1 if there was none); with an eager assignor those
    /// partitions are revoked.
    fn user_data(&self, topics: &BTreeSet<String>, last: &[TopicPartition], generation: i32) -> Option<Bytes> {
        _ = (topics, last, generation);
        None
    }

    /// Computes the assignment. The same arguments must give the same result, whatever the order of
    /// the members. A member without an entry gets no partitions.
    fn assign(&self, topics: &Topics, members: &[GroupMember]) -> Assignments;
}
