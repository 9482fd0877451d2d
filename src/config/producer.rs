//! Settings of producers.

use std::collections::HashMap;
use std::time::Duration;

use super::{Compression, PartitionerKind};

/// Who must have a record before it is acknowledged.
///
/// ```
/// use ailurus::{Acks, Config};
///
/// let config = Config::builder().acks(Acks::Leader).idempotence(false).build()?;
/// assert_eq!(config.producer.acks, Acks::Leader);
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Acks {
    /// All replicas that are in sync, and at least as many as the topic's `min.insync.replicas`.
    #[default]
    All,
    /// The leader of the partition alone: an acknowledged record is lost if the leader is before a follower has it.
    Leader,
}

/// Settings of a [`Producer`](crate::Producer). They are checked when a producer is made.
///
/// The wait before a retry is [`Config::retry_backoff`](super::Config::retry_backoff), the time a request may take [`Config::request_timeout`](super::Config::request_timeout).
///
/// ```
/// use std::time::Duration;
/// use ailurus::{Compression, Config, ProducerConfig};
///
/// let mut producer = ProducerConfig::default();
/// producer.linger = Duration::from_millis(5);
/// producer.compression = Compression::gzip(6)?;
/// assert_eq!(Config::builder().producer(producer.clone()).build()?.producer, producer);
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerConfig {
    /// Who must have a record before it is acknowledged, default [`Acks::All`]. [`Acks::Leader`], for records whose loss does
    /// no harm, needs `idempotence` off.
    pub acks: Acks,
    /// Whether brokers can tell a batch that is sent again from a new one (KIP-98), default true: no retry writes a record
    /// twice, and several batches of a partition may be on their way. Without it there is one at a time. Turn it off for
    /// [`Acks::Leader`], or where the client's principal may not have a producer id.
    pub idempotence: bool,
    /// How long a record may wait for others before its batch is sent, default 0: at once when no request of that partition
    /// is in flight; batches then form while one is. 0 to 60 s, less than `delivery_timeout`. A few milliseconds make larger
    /// batches where many records without hurry come from many places.
    pub linger: Duration,
    /// The size of a batch, in bytes before compression, at which it is sent without waiting; default 1,000,000. 1 KiB to
    /// 64 MiB. A record larger than this gets a batch of its own. Keep it below the topics' `max.message.bytes`: what the
    /// broker finds too large is cut and sent again. Lower it, with `buffer_memory`, where memory is scarce.
    pub batch_size: usize,
    /// Bytes of records that may wait or be in flight, default 16 MiB; `send` waits when it is used up. At least
    /// `batch_size` and `max_request_size`, at most 64 GiB (256 MiB on 32-bit CPUs). The default is three
    /// times what is in flight to a broker; twice as much costs 30 MB more and, for the CPU's caches hold less of it, a fifth
    /// more CPU time. Raise it where brokers are far away or many partitions are written: throughput is at most this much per
    /// round trip.
    pub buffer_memory: usize,
    /// The largest record and the largest request, in bytes before compression; default 1,048,576, as large as brokers
    /// take by default. 1 KiB to 100 MiB. Raise it together with the topic's `max.message.bytes`.
    pub max_request_size: usize,
    /// From `send` to acknowledgement or error, retries included; default 120 s. 1 s to 1 hour, at least `linger` plus the
    /// request timeout. Raise it to outlast longer outages, lower it where an old record is of no use.
    pub delivery_timeout: Duration,
    /// Compression of batches, default none. A batch that it does not make smaller is sent as it is. A record may ask for
    /// another one.
    pub compression: Compression,
    /// Compression of batches of these topics, in place of `compression`; default none named.
    pub topic_compression: HashMap<String, Compression>,
    /// How the partition of a record is chosen that does not name it; default [`PartitionerKind::Murmur2`]. Change it where
    /// other producers of the same topics hash otherwise.
    pub partitioner: PartitionerKind,
    /// How records are spread that may go to any partition, such as those without a key; default true: they stick to one
    /// partition for 16 to 32 KiB (for one to two times `batch_size` if that is less), up to the end of a batch if one lies
    /// there, and then to another, which is the less likely the more batches wait for it (KIP-794): a slow broker gets fewer.
    /// Otherwise they go elsewhere with each batch (KIP-480), and a slow broker gets more, since its batches grow while they
    /// wait. Turn it off where a few small records now and then should not all go to the same partition.
    pub adaptive_partitioning: bool,
    /// With `adaptive_partitioning`: how long the oldest batch of a partition may wait for its acknowledgement, beside
    /// `linger`, before records that may go anywhere move on to other partitions only; default 0: for ever. Up to 1 hour. Set
    /// it where a broker that hangs should cost such records no time.
    pub partition_availability_timeout: Duration,
    /// Largest record where it differs from `max_request_size`, for producers of the library's own.
    pub(crate) max_record_size: Option<usize>,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotence: true,
            linger: Duration::ZERO,
            batch_size: 1_000_000,
            buffer_memory: 16 << 20,
            max_request_size: 1 << 20,
            delivery_timeout: Duration::from_secs(120),
            compression: Compression::None,
            topic_compression: HashMap::new(),
            partitioner: PartitionerKind::Murmur2,
            adaptive_partitioning: true,
            partition_availability_timeout: Duration::ZERO,
            max_record_size: None,
        }
    }
}
