//! Specification of a new topic.

use std::collections::BTreeMap;
use std::fmt;

use kafka_protocol::messages::BrokerId;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};

use crate::cluster::fields::{text, topic_name};
use crate::error::{Error, ErrorKind, Result};

/// A topic to create; anything unset is the brokers' default.
///
/// ```
/// use ailurus::admin::NewTopic;
///
/// let compacted = NewTopic::new("customers").partitions(6).replication(3).config("cleanup.policy", "compact");
/// // Three partitions; the first broker named for each is to lead it.
/// let placed = NewTopic::new("orders").replicas(vec![vec![1, 2], vec![2, 3], vec![3, 1]]);
/// # let _ = (compacted, placed);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    name: String,
    partitions: Option<i32>,
    replication: Option<i16>,
    replicas: Vec<Vec<i32>>,
    configs: BTreeMap<String, String>,
}

impl NewTopic {
    /// Creates a specification with the brokers' defaults.
    pub fn new(name: impl Into<String>) -> Self {
        let configs = BTreeMap::new();
        Self { name: name.into(), partitions: None, replication: None, replicas: Vec::new(), configs }
    }

    /// Sets the number of partitions.
    #[must_use]
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Sets the replication factor.
    #[must_use]
    pub fn replication(mut self, replication: i16) -> Self {
        self.replication = Some(replication);
        self
    }

    /// Assigns replicas: the broker ids of each partition, in order; the first of each is its
    /// preferred leader. Replaces number of partitions and replication factor.
    #[must_use]
    pub fn replicas(mut self, of_each_partition: Vec<Vec<i32>>) -> Self {
        self.replicas = of_each_partition;
        self
    }

    /// Sets a configuration, such as `retention.ms`; the last value of a name wins.
    #[must_use]
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.insert(name.into(), value.into());
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number of partitions, if it is set.
    pub(super) fn count(&self) -> Option<i32> {
        let placed = i32::try_from(self.replicas.len()).unwrap_or(i32::MAX);
        if placed > 0 { Some(placed) } else { self.partitions }
    }

    pub(super) fn request(&self) -> Result<CreatableTopic> {
        let out = CreatableTopic::default().with_name(topic_name(&self.name)).with_configs(self.settings());
        if self.replicas.is_empty() {
            let (partitions, replication) = (self.partitions.unwrap_or(-1), self.replication.unwrap_or(-1));
            return Ok(out.with_num_partitions(partitions).with_replication_factor(replication));
        }
        let placed = self.replicas.len();
        if self.partitions.is_some_and(|n| usize::try_from(n) != Ok(placed)) || self.replication.is_some() {
            let what = format!(
                "topic {:?} has replicas placed for {placed} partitions: neither another number of partitions nor a \
                 replication factor goes with that",
                self.name
            );
            return Err(Error::new(ErrorKind::Config, what));
        }
        let place = |(index, brokers): (i32, &Vec<i32>)| {
            let brokers = brokers.iter().map(|b| BrokerId(*b)).collect();
            CreatableReplicaAssignment::default().with_partition_index(index).with_broker_ids(brokers)
        };
        // The protocol wants no numbers beside places.
        let out = out.with_num_partitions(-1).with_replication_factor(-1);
        Ok(out.with_assignments((0..).zip(&self.replicas).map(place).collect()))
    }

    fn settings(&self) -> Vec<CreatableTopicConfig> {
        let one = |(name, value): (&String, &String)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        };
        self.configs.iter().map(one).collect()
    }
}

/// The operation, for errors.
impl fmt::Display for NewTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "creating topic {:?}", self.name)?;
        match self.count() {
            Some(partitions) => write!(f, " with {partitions} partitions"),
            None => Ok(()),
        }
    }
}
