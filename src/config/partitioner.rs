//! How the partition of a record is chosen.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

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
#[derive(Clone, Default)]
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
    /// By the program itself.
    Custom(Arc<dyn Partitioner>),
}

impl PartitionerKind {
    /// The program's own.
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

impl fmt::Debug for PartitionerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Murmur2 => "Murmur2",
            Self::ConsistentRandom => "ConsistentRandom",
            Self::RoundRobin => "RoundRobin",
            Self::Custom(_) => "Custom",
        })
    }
}

impl FromStr for PartitionerKind {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Ok(match s {
            "murmur2" => Self::Murmur2,
            "consistent_random" => Self::ConsistentRandom,
            "round_robin" => Self::RoundRobin,
            _ => {
                let what =
                    format!("partitioner {s:?} is not known: allowed is murmur2, consistent_random or round_robin");
                return Err(Error::new(ErrorKind::Config, what));
            }
        })
    }
}

/// Chooses the partition of records, in a program's own way: see [`PartitionerKind::Custom`].
///
/// It is asked once for each record that does not name its partition, on the thread that calls
/// [`Producer::send`](crate::Producer::send), which waits for it: it should not block. It may be asked by several threads at a
/// time, and once more for a record that had to wait for its topic to be known. Where it panics, so does that `send`; the
/// producer goes on.
///
/// ```
/// use ailurus::{Config, Partitioner, PartitionerKind, Unpartitioned, producer::murmur2};
///
/// /// Keys are `COUNTRY-NUMBER`: what belongs to a country stays in order.
/// struct ByCountry;
///
/// impl Partitioner for ByCountry {
///     fn partition(&self, record: &Unpartitioned<'_>) -> Option<i32> {
///         let country = record.key?.split(|byte| *byte == b'-').next()?;
///         Some((murmur2(country) & i32::MAX) % record.partitions)
///     }
/// }
///
/// let mut record = Unpartitioned::new("orders", 6, &[0, 1, 2, 3, 5]); // partition 4 has no leader
/// assert_eq!(ByCountry.partition(&record), None);
/// record.key = Some(b"de-17");
/// let home = ByCountry.partition(&record);
/// record.key = Some(b"de-4711");
/// assert_eq!(ByCountry.partition(&record), home);
///
/// let config = Config::builder().partitioner(PartitionerKind::custom(ByCountry)).build()?;
/// # drop(config);
/// # Ok::<(), ailurus::Error>(())
/// ```
pub trait Partitioner: Send + Sync {
    /// The partition of this record; `None` if any will do: it then goes with the records that have no key.
    ///
    /// A partition that the topic does not have is an error of this record,
    /// [`ErrorKind::InvalidRecord`](crate::ErrorKind::InvalidRecord), and of no other.
    fn partition(&self, record: &Unpartitioned<'_>) -> Option<i32>;
}

/// A record that is to get its partition, and the partitions there are: what a [`Partitioner`] is asked with, and where
/// there is an example.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Unpartitioned<'a> {
    /// Where to.
    pub topic: &'a str,
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// The record's value.
    pub value: Option<&'a [u8]>,
    /// How many partitions the topic has, at least 1; they are numbered from 0. A topic may grow.
    pub partitions: i32,
    /// The partitions that have a leader, in ascending order; all of them while none has one. Never empty. Records may be
    /// sent to the others too: they wait for a leader until the delivery timeout.
    pub available: &'a [i32],
}

impl<'a> Unpartitioned<'a> {
    /// A record without key and value.
    pub fn new(topic: &'a str, partitions: i32, available: &'a [i32]) -> Self {
        Self { topic, key: None, value: None, partitions, available }
    }
}
