//! How the partition of a record is chosen.

use std::sync::Arc;

use super::keyword::keywords;
use crate::partitioner::Partitioner;

/// How a producer chooses the partition of records that do not name theirs.
///
/// | | a key | an empty key | no key |
/// |---|---|---|---|
/// | [`Murmur2`](Self::Murmur2) | murmur2 | murmur2 | any |
/// | [`ConsistentRandom`](Self::ConsistentRandom) | CRC-32 | any | any |
/// | [`RoundRobin`](Self::RoundRobin) | the next | the next | the next |
/// | [`Custom`](Self::Custom) | asked | asked | asked |
///
/// Where any partition will do, records stick to one for a while:
/// [`adaptive_partitioning`](crate::ProducerConfig::adaptive_partitioning) says for how long, and which one is next. Choose one
/// hash for all producers of a topic: with another one, a key's records go to another partition.
///
/// From text, such as `REDPANDA_PARTITIONER`: `murmur2`, `consistent_random`, `round_robin`.
///
/// ```
/// use ailurus::{Config, PartitionerKind};
///
/// let config = Config::builder().partitioner(PartitionerKind::ConsistentRandom).build()?;
/// assert_eq!(config.producer.partitioner, "consistent_random".parse()?);
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum PartitionerKind {
    /// By the murmur2 hash of the key, as Kafka's Java client and KafkaJS do it, and librdkafka as `murmur2_random`.
    #[default]
    Murmur2,
    /// By the CRC-32 of the key, as librdkafka does it by default, and with it clients in C, C++, Python, Go or .NET.
    ConsistentRandom,
    /// Each record to the next partition that has a leader, whatever its key, as Java's `RoundRobinPartitioner`. Batches stay
    /// small, and records of a key lose their order.
    RoundRobin,
    /// By one of your own; see [`PartitionerKind::custom`].
    Custom(Arc<dyn Partitioner>),
}

impl PartitionerKind {
    /// One of your own: see [`Partitioner`].
    pub fn custom(partitioner: impl Partitioner + 'static) -> Self {
        Self::Custom(Arc::new(partitioner))
    }
}

/// A custom one equals itself and its clones.
impl PartialEq for PartitionerKind {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Custom(a), Self::Custom(b)) => std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)),
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl Eq for PartitionerKind {}

keywords!(
    PartitionerKind, "partitioner":
    "murmur2" => Self::Murmur2, "consistent_random" => Self::ConsistentRandom, "round_robin" => Self::RoundRobin
);
