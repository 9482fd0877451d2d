//! Nodes, topics, partitions and their leaders.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::acls::Acls;
use crate::config::BrokerConfig;
use crate::error::ApiError;
use crate::log::Log;
use crate::node_config::NodeConfig;
use crate::topic_config::TopicConfig;

/// Maximum number of partitions of a topic.
const MAX_PARTITIONS: i32 = 10_000;

#[derive(Debug)]
pub(crate) struct Partition {
    pub log: Log,
    pub replicas: Vec<i32>,
    /// -1 while all nodes with a replica are down.
    pub leader: i32,
    pub leader_epoch: i32,
}

impl Partition {
    fn set_leader(&mut self, leader: i32) {
        if self.leader != leader {
            self.leader = leader;
            self.start_leader_epoch();
        }
    }

    /// Starts a new leader epoch after an election.
    fn start_leader_epoch(&mut self) {
        self.leader_epoch += 1;
        self.log.begin_epoch(self.leader_epoch);
        self.log.notify_waiters();
    }

    /// Truncates the log to `end` and starts a new leader epoch, as after the election of a replica
    /// that lagged.
    pub fn truncate(&mut self, end: i64) {
        self.log.truncate(end);
        self.start_leader_epoch();
    }

    /// Fails if the client's leader epoch is not the current one; -1 skips the check.
    pub fn check_epoch(&self, client_epoch: i32) -> Result<(), ResponseError> {
        match client_epoch {
            -1 => Ok(()),
            older if older < self.leader_epoch => Err(ResponseError::FencedLeaderEpoch),
            newer if newer > self.leader_epoch => Err(ResponseError::UnknownLeaderEpoch),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Topic {
    pub id: Uuid,
    pub config: TopicConfig,
    pub partitions: Vec<Partition>,
}

/// Parameters of a topic to create.
#[derive(Debug, Default)]
pub(crate) struct NewTopic {
    /// -1 for the broker's default.
    pub partitions: i32,
    /// -1 for the broker's default.
    pub replication: i16,
    /// Replicas of each partition, in place of the two counts.
    pub assignment: Vec<Vec<i32>>,
    pub config: TopicConfig,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub id: i32,
    /// Port that the node listens on.
    pub port: u16,
    /// Port that clients connect to.
    pub advertised_port: u16,
    pub up: bool,
    pub rack: Option<String>,
}

/// Cluster state, without groups.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub nodes: Vec<Node>,
    pub topics: BTreeMap<String, Topic>,
    pub acls: Acls,
    pub node_config: NodeConfig,
    coordinators: BTreeMap<String, i32>,
    transaction_coordinators: BTreeMap<String, i32>,
}

impl Cluster {
    /// Creates nodes from (listen port, advertised port); racks are assigned round-robin.
    pub fn new(ports: impl IntoIterator<Item = (u16, u16)>, racks: &[String]) -> Self {
        let mut racks = racks.iter().cycle();
        let node =
            |(id, (port, advertised_port))| Node { id, port, advertised_port, up: true, rack: racks.next().cloned() };
        Self {
            nodes: (0..).zip(ports).map(node).collect(),
            topics: BTreeMap::new(),
            acls: Acls::default(),
            node_config: NodeConfig::default(),
            coordinators: BTreeMap::new(),
            transaction_coordinators: BTreeMap::new(),
        }
    }

    pub fn node(&self, id: i32) -> Option<&Node> {
        self.nodes.get(usize::try_from(id).ok()?)
    }

    pub fn is_up(&self, id: i32) -> bool {
        self.node(id).is_some_and(|n| n.up)
    }

    pub fn nodes_up(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| n.up)
    }

    /// Returns the controller: the first node that is up.
    pub fn controller(&self) -> i32 {
        self.nodes_up().next().map_or(-1, |n| n.id)
    }

    pub fn topic_name(&self, id: Uuid) -> Option<&str> {
        self.topics.iter().find(|(_, t)| t.id == id).map(|(name, _)| name.as_str())
    }

    pub fn partition(&mut self, topic: &str, partition: i32) -> Option<&mut Partition> {
        self.topics.get_mut(topic)?.partitions.get_mut(usize::try_from(partition).ok()?)
    }

    /// Returns a partition if `node` leads it.
    pub fn leader_partition(
        &mut self,
        node: i32,
        topic: &str,
        partition: i32,
    ) -> Result<&mut Partition, ResponseError> {
        let found = self.partition(topic, partition).ok_or(ResponseError::UnknownTopicOrPartition)?;
        if found.leader == node { Ok(found) } else { Err(ResponseError::NotLeaderOrFollower) }
    }

    /// Returns a partition if `node` has a replica of it.
    pub fn replica_partition(
        &mut self,
        node: i32,
        topic: &str,
        partition: i32,
    ) -> Result<&mut Partition, ResponseError> {
        let found = self.partition(topic, partition).ok_or(ResponseError::UnknownTopicOrPartition)?;
        let has_replica = found.leader >= 0 && (found.leader == node || found.replicas.contains(&node));
        if has_replica { Ok(found) } else { Err(ResponseError::NotLeaderOrFollower) }
    }

    /// Returns the replica in `rack` to read from; `None` for the leader.
    pub fn preferred_read_replica(&self, topic: &str, partition: i32, rack: &str) -> Option<i32> {
        let p = self.topics.get(topic)?.partitions.get(usize::try_from(partition).ok()?)?;
        let is_in_rack = |id: &&i32| self.node(**id).is_some_and(|n| n.up && n.rack.as_deref() == Some(rack));
        let in_rack = p.replicas.iter().filter(is_in_rack);
        if in_rack.clone().any(|&n| n == p.leader) { None } else { in_rack.copied().next() }
    }

    /// Validates a topic to create and returns the replicas of its partitions.
    pub fn assign_replicas(
        &self,
        defaults: &BrokerConfig,
        name: &str,
        new: &NewTopic,
    ) -> Result<Vec<Vec<i32>>, ApiError> {
        check_name(name)?;
        if self.topics.contains_key(name) {
            return Err(ApiError::new(ResponseError::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
        }
        if !new.assignment.is_empty() {
            return self.check_assignment(new);
        }
        let partitions = if new.partitions == -1 { defaults.default_partitions } else { new.partitions };
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            let message = format!("Number of partitions was set to {partitions}; 1 to {MAX_PARTITIONS} are possible.");
            return Err(ApiError::new(ResponseError::InvalidPartitions, message));
        }
        let nodes = self.nodes.len();
        let replicas = match new.replication {
            -1 => usize::try_from(defaults.default_replication).unwrap_or(1).min(nodes),
            n => usize::try_from(n).unwrap_or(0),
        };
        if !(1..=nodes).contains(&replicas) {
            let message = format!("Replication factor {} is not possible with {nodes} nodes.", new.replication);
            return Err(ApiError::new(ResponseError::InvalidReplicationFactor, message));
        }
        Ok((0..partitions).map(|p| self.replicas_of(p, replicas)).collect())
    }

    fn check_assignment(&self, new: &NewTopic) -> Result<Vec<Vec<i32>>, ApiError> {
        if new.partitions != -1 || new.replication != -1 {
            let message = "Both partitions or replication factor and an assignment were given.";
            return Err(ApiError::new(ResponseError::InvalidRequest, message));
        }
        let known = |replicas: &Vec<i32>| !replicas.is_empty() && replicas.iter().all(|&n| self.node(n).is_some());
        if !new.assignment.iter().all(known) {
            let message = "The assignment has a partition without replicas or with an unknown node.";
            return Err(ApiError::new(ResponseError::InvalidReplicaAssignment, message));
        }
        Ok(new.assignment.clone())
    }

    /// Returns consecutive nodes for a partition's replicas, so that leaders are spread evenly.
    fn replicas_of(&self, partition: i32, replicas: usize) -> Vec<i32> {
        let nodes = self.nodes.len();
        let first = usize::try_from(partition).unwrap_or(0);
        (0..replicas).map(|r| self.nodes[(first + r) % nodes].id).collect()
    }

    fn new_partition(&self, replicas: Vec<i32>) -> Partition {
        let leader = replicas.iter().copied().find(|&n| self.is_up(n)).unwrap_or(-1);
        Partition { log: Log::default(), replicas, leader, leader_epoch: 0 }
    }

    pub fn create_topic(&mut self, defaults: &BrokerConfig, name: &str, new: NewTopic) -> Result<&Topic, ApiError> {
        let assignment = self.assign_replicas(defaults, name, &new)?;
        let partitions = assignment.into_iter().map(|replicas| self.new_partition(replicas)).collect();
        let topic = Topic { id: Uuid::now_v7(), config: new.config, partitions };
        Ok(self.topics.entry(name.to_owned()).or_insert(topic))
    }

    /// Deletes a topic; returns false if there was none.
    pub fn delete_topic(&mut self, name: &str) -> bool {
        let Some(mut topic) = self.topics.remove(name) else { return false };
        topic.partitions.iter_mut().for_each(|p| p.log.notify_waiters());
        true
    }

    pub fn grow_topic(&mut self, name: &str, count: i32, dry_run: bool) -> Result<(), ApiError> {
        let missing =
            || ApiError::new(ResponseError::UnknownTopicOrPartition, format!("Topic '{name}' does not exist."));
        let topic = self.topics.get(name).ok_or_else(missing)?;
        let now = topic.partitions.len();
        let replicas = topic.partitions.first().map_or(1, |p| p.replicas.len());
        let wanted = usize::try_from(count).unwrap_or(0);
        if wanted <= now || count > MAX_PARTITIONS {
            let message = format!("The topic has {now} partitions and cannot be changed to {count}.");
            return Err(ApiError::new(ResponseError::InvalidPartitions, message));
        }
        if dry_run {
            return Ok(());
        }
        let more = (now as i32..count).map(|p| self.new_partition(self.replicas_of(p, replicas)));
        let more: Vec<_> = more.collect();
        if let Some(topic) = self.topics.get_mut(name) {
            topic.partitions.extend(more);
        }
        Ok(())
    }

    /// Makes `node` the leader of a partition; without a replica there, it replaces the old
    /// leader's.
    pub fn move_leader(&mut self, topic: &str, partition: i32, node: i32) -> bool {
        let Some(p) = self.partition(topic, partition) else { return false };
        if !p.replicas.contains(&node) {
            let old = p.leader;
            p.replicas.retain(|&n| n != old);
            p.replicas.insert(0, node);
        }
        p.set_leader(node);
        true
    }

    /// Marks a node as up or down, and elects leaders for partitions without one.
    pub fn set_up(&mut self, node: i32, up: bool) {
        if let Some(n) = self.nodes.iter_mut().find(|n| n.id == node) {
            n.up = up;
        }
        let alive: Vec<i32> = self.nodes_up().map(|n| n.id).collect();
        for p in self.topics.values_mut().flat_map(|t| &mut t.partitions) {
            if !alive.contains(&p.leader) {
                let next = p.replicas.iter().copied().find(|n| alive.contains(n));
                p.set_leader(next.unwrap_or(-1));
            }
        }
    }

    /// Returns the coordinator of a group: the node it was moved to, else one by the hash of its
    /// name; the next node that is up.
    pub fn coordinator(&self, group: &str) -> i32 {
        self.next_node_up(group, self.coordinators.get(group))
    }

    /// Returns the coordinator of a transactional id, like [`coordinator`](Self::coordinator).
    pub fn transaction_coordinator(&self, transactional_id: &str) -> i32 {
        self.next_node_up(transactional_id, self.transaction_coordinators.get(transactional_id))
    }

    fn next_node_up(&self, key: &str, moved_to: Option<&i32>) -> i32 {
        let hash = key.bytes().fold(7u32, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
        let nodes = self.nodes.len().max(1);
        let by_hash = hash as usize % nodes;
        let first = moved_to.and_then(|&n| usize::try_from(n).ok()).unwrap_or(by_hash);
        let next = (0..nodes).map(|i| (first + i) % nodes).find(|&n| self.nodes[n].up);
        next.map_or(-1, |n| self.nodes[n].id)
    }

    pub fn move_transaction_coordinator(&mut self, transactional_id: &str, node: i32) {
        self.transaction_coordinators.insert(transactional_id.to_owned(), node);
    }

    pub fn move_coordinator(&mut self, group: &str, node: i32) {
        self.coordinators.insert(group.to_owned(), node);
    }

    /// Notifies `waiter` on the next change of any of the partitions.
    pub fn notify_on_change<'a>(&mut self, waiter: &Arc<Notify>, partitions: impl Iterator<Item = (&'a str, i32)>) {
        for (topic, partition) in partitions {
            if let Some(p) = self.partition(topic, partition) {
                p.log.notify_on_change(waiter);
            }
        }
    }
}

/// Validates a topic name by Kafka's rules.
pub(crate) fn check_name(name: &str) -> Result<(), ApiError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=249).contains(&name.len()) && name != "." && name != ".." && name.chars().all(legal) {
        return Ok(());
    }
    let message = format!(
        "Topic name '{name}' is illegal: 1 to 249 ASCII letters, digits, '.', '_' and '-', and neither '.' nor '..'."
    );
    Err(ApiError::new(ResponseError::InvalidTopicException, message))
}
