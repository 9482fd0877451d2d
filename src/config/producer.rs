//! Settings of producers.

use std::collections::HashMap;
use std::time::Duration;

use super::keyword::keywords;
use super::table::{KIB, MEMORY, MIB, hours, millis, secs, settings};
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

keywords!(Acks, "number of acknowledgements": "all" | "-1" => Self::All, "leader" | "1" => Self::Leader);

settings! {
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
    pub struct ProducerConfig(self) in [config.producer];

    /// Who must have a record before it is acknowledged. [`Acks::Leader`], for records whose loss does
    /// no harm, needs `idempotence` off.
    acks: Acks = Acks::All, "REDPANDA_ACKS" keyword;
    /// Whether brokers can tell a batch that is sent again from a new one (KIP-98): no retry writes a record
    /// twice, and several batches of a partition may be on their way. Without it there is one at a time. Turn it off for
    /// [`Acks::Leader`], or where the client's principal may not have a producer id.
    idempotence: bool = true, "REDPANDA_IDEMPOTENCE" boolean;
    /// How long a record may wait for others before its batch is sent; 0: at once when no request of that partition
    /// is in flight; batches then form while one is. Less than `delivery_timeout`. A few milliseconds make larger
    /// batches where many records without hurry come from many places.
    linger: Duration = millis(0), "REDPANDA_LINGER" millis, in millis(0)..=secs(60);
    /// The size of a batch, in bytes before compression, at which it is sent without waiting.
    /// A record larger than this gets a batch of its own. Keep it below the topics' `max.message.bytes`: what the
    /// broker finds too large is cut and sent again. Lower it, with `buffer_memory`, where memory is scarce.
    batch_size: usize = 1_000_000, "REDPANDA_BATCH_SIZE" bytes, in KIB..=64 * MIB;
    /// Bytes of records that may wait or be in flight; `send` waits when it is used up. At least
    /// `batch_size` and `max_request_size`, at most 64 GiB (256 MiB on 32-bit CPUs). The default is three
    /// times what is in flight to a broker; twice as much costs 30 MB more and, for the CPU's caches hold less of it, a fifth
    /// more CPU time. Raise it where brokers are far away or many partitions are written: throughput is at most this much per
    /// round trip.
    buffer_memory: usize = 16 * MIB, "REDPANDA_BUFFER_MEMORY" bytes, in self.batch_size.max(self.max_request_size)..=MEMORY;
    /// The largest record and the largest request, in bytes before compression; by default as large as brokers
    /// take by default. Raise it together with the topic's `max.message.bytes`.
    max_request_size: usize = MIB, "REDPANDA_MAX_REQUEST_SIZE" bytes, in KIB..=100 * MIB;
    /// From `send` to acknowledgement or error, retries included; at least `linger` plus the
    /// request timeout. Raise it to outlast longer outages, lower it where an old record is of no use.
    delivery_timeout: Duration = secs(120), "REDPANDA_DELIVERY_TIMEOUT" millis, in secs(1)..=hours(1);
    /// Compression of batches. A batch that it does not make smaller is sent as it is. A record may ask for
    /// another one. The level of gzip has a variable of its own, `REDPANDA_COMPRESSION_LEVEL`.
    compression: Compression = Compression::None, "REDPANDA_COMPRESSION" keyword;
    /// Compression of batches of these topics, in place of `compression`.
    topic_compression by hand: HashMap<String, Compression> = HashMap::new(), "REDPANDA_TOPIC_COMPRESSION" topic_codecs;
    /// How the partition of a record is chosen that does not name it. Change it where
    /// other producers of the same topics hash otherwise.
    partitioner: PartitionerKind = PartitionerKind::Murmur2, "REDPANDA_PARTITIONER" keyword;
    /// How records are spread that may go to any partition, such as those without a key. If true, they stick to one
    /// partition for 16 to 32 KiB (for one to two times `batch_size` if that is less), up to the end of a batch if one lies
    /// there, and then to another, which is the less likely the more batches wait for it (KIP-794): a slow broker gets fewer.
    /// Otherwise they go elsewhere with each batch (KIP-480), and a slow broker gets more, since its batches grow while they
    /// wait. Turn it off where a few small records now and then should not all go to the same partition.
    adaptive_partitioning: bool = true, "REDPANDA_ADAPTIVE_PARTITIONING" boolean;
    /// With `adaptive_partitioning`: how long the oldest batch of a partition may wait for its acknowledgement, beside
    /// `linger`, before records that may go anywhere move on to other partitions only; 0: without limit. Set
    /// it where a broker that hangs should cost such records no time.
    partition_availability_timeout: Duration = millis(0),
        "REDPANDA_PARTITION_AVAILABILITY_TIMEOUT" millis, in millis(0)..=hours(1);
    + {
        /// Largest record where it differs from `max_request_size`, for producers of the library's own.
        pub(crate) max_record_size by hand: Option<usize> = None;
    }
}
