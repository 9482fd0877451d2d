//! The trait of partitioners, and its data. The library's own partitioners are in `producer`.

use std::fmt::Debug;

use crate::record::Headers;

/// Chooses the partition of records, in the application's own way: see
/// [`PartitionerKind::Custom`](crate::PartitionerKind::Custom).
///
/// It is called once for each record without a partition, on the thread that calls
/// [`Producer::send`](crate::Producer::send), which waits for it: it should not block. Several
/// threads may call it at a time, and it is called again for a record that had to wait for its
/// topic's metadata. If it panics, so does that `send`; the producer is not affected.
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
    /// Returns the partition of this record; `None` for any: the record is then treated like one
    /// without key.
    ///
    /// A partition that the topic does not have is an error of this record,
    /// [`ErrorKind::InvalidRecord`](crate::ErrorKind::InvalidRecord), and of no other.
    fn partition(&self, record: &PartitionInput<'_>) -> Option<i32>;
}

/// The input of a [`Partitioner`], whose documentation has an example: a record, and the partitions
/// of its topic.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct PartitionInput<'a> {
    /// The record's topic.
    pub topic: &'a str,
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// The record's value.
    pub value: Option<&'a [u8]>,
    /// The record's headers.
    pub headers: Option<&'a Headers>,
    /// The topic's number of partitions, at least 1. Partitions are numbered from 0. A topic may
    /// get more.
    pub partitions: i32,
    /// The partitions that have a leader, in ascending order; all of them while none has one. Never
    /// empty. Records may be sent to the others too: they wait for a leader until the delivery
    /// timeout.
    pub available: &'a [i32],
}

impl<'a> PartitionInput<'a> {
    /// Creates the input of a record with neither key nor value.
    pub fn new(topic: &'a str, partitions: i32, available: &'a [i32]) -> Self {
        Self { topic, key: None, value: None, headers: None, partitions, available }
    }
}
