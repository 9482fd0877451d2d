//! The interface of partitioners, and what it speaks of. Those that come with the library are in `producer`; the settings hold either.

use std::fmt::Debug;

use crate::record::Headers;

/// Chooses the partition of records, in a program's own way: see
/// [`PartitionerKind::Custom`](crate::PartitionerKind::Custom).
///
/// It is asked once for each record that does not name its partition, on the thread that calls
/// [`Producer::send`](crate::Producer::send), which waits for it: it should not block. It may be asked by several threads at a
/// time, and once more for a record that had to wait for its topic to be known. Where it panics, so does that `send`; the
/// producer goes on.
///
/// ```
/// use ailurus::producer::{Partitioner, PartitionInput, murmur2};
/// use ailurus::{Config, PartitionerKind};
///
/// /// Keys are `COUNTRY-NUMBER`: what belongs to a country stays in order.
/// #[derive(Debug)]
/// struct ByCountry;
///
/// impl Partitioner for ByCountry {
///     fn partition(&self, record: &PartitionInput<'_>) -> Option<i32> {
///         let country = record.key?.split(|byte| *byte == b'-').next()?;
///         Some((murmur2(country) & i32::MAX) % record.partitions)
///     }
/// }
///
/// let mut record = PartitionInput::new("orders", 6, &[0, 1, 2, 3, 5]); // partition 4 has no leader
/// assert_eq!(ByCountry.partition(&record), None);
/// record.key = Some(b"de-17");
/// let home = ByCountry.partition(&record);
/// record.key = Some(b"de-4711");
/// assert_eq!(ByCountry.partition(&record), home);
///
/// let config = Config::builder().partitioner(PartitionerKind::custom(ByCountry)).build()?;
/// # Ok::<(), ailurus::Error>(())
/// ```
pub trait Partitioner: Debug + Send + Sync {
    /// The partition of this record; `None` if any will do: it then goes with the records that have no key.
    ///
    /// A partition that the topic does not have is an error of this record,
    /// [`ErrorKind::InvalidRecord`](crate::ErrorKind::InvalidRecord), and of no other.
    fn partition(&self, record: &PartitionInput<'_>) -> Option<i32>;
}

/// A record that is to get its partition, and the partitions there are: what a [`Partitioner`] is asked with, and where
/// there is an example.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct PartitionInput<'a> {
    /// Where to.
    pub topic: &'a str,
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// The record's value.
    pub value: Option<&'a [u8]>,
    /// The record's headers.
    pub headers: Option<&'a Headers>,
    /// How many partitions the topic has, at least 1; they are numbered from 0. A topic may grow.
    pub partitions: i32,
    /// The partitions that have a leader, in ascending order; all of them while none has one. Never empty. Records may be
    /// sent to the others too: they wait for a leader until the delivery timeout.
    pub available: &'a [i32],
}

impl<'a> PartitionInput<'a> {
    /// A record with neither key nor value.
    pub fn new(topic: &'a str, partitions: i32, available: &'a [i32]) -> Self {
        Self { topic, key: None, value: None, headers: None, partitions, available }
    }
}
