//! Selection of a producer's partitioner.

use std::sync::Arc;

use super::keyword::keywords;
use crate::partitioner::Partitioner;

/// Strategy that chooses the partition of records that do not name one.
///
/// | | a key | an empty key | no key |
/// |---|---|---|---|
/// | [`Murmur2`](Self::Murmur2) | murmur2 | murmur2 | any |
/// | [`ConsistentRandom`](Self::ConsistentRandom) | CRC-32 | any | any |
/// | [`RoundRobin`](Self::RoundRobin) | the next | the next | the next |
/// | [`Custom`](Self::Custom) | custom | custom | custom |
///
/// Records that may go to any partition stick to one for a while: see
/// [`adaptive_partitioning`](field@crate::ProducerConfig::adaptive_partitioning). Choose one hash for
/// all producers of a topic: with another one, a key's records go to another partition.
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
    /// murmur2 hash of the key, as in Kafka's Java client and KafkaJS, and librdkafka's
    /// `murmur2_random`.
    #[default]
    Murmur2,
    /// CRC-32 of the key, the default of librdkafka, and so of clients in C, C++, Python, Go or
    /// .NET.
    ConsistentRandom,
    /// Each record to the next partition that has a leader, whatever its key, as Java's
    /// `RoundRobinPartitioner`. Batches stay small, and records of a key lose their order.
    RoundRobin,
    /// A custom one; see [`PartitionerKind::custom`].
    Custom(Arc<dyn Partitioner>),
}

impl PartitionerKind {
    /// Creates a custom one: see [`Partitioner`].
    pub fn custom(partitioner: impl Partitioner + 'static) -> Self {
        Self::Custom(Arc::new(partitioner))
    }
}

/// Custom partitioners are equal if they are the same instance.
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
