//! Settings of producers.

use std::collections::HashMap;
use std::time::Duration;

use super::keyword::keywords;
use super::table::{KIB, MEMORY, MIB, hours, millis, secs, settings};
use super::{Compression, PartitionerKind};

/// Replicas that must have a record before it is acknowledged.
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
    /// All in-sync replicas, and at least as many as the topic's `min.insync.replicas`.
    #[default]
    All,
    /// The partition's leader alone: an acknowledged record is lost if the leader fails before a
    /// follower has fetched it.
    Leader,
}

keywords!(Acks, "number of acknowledgements": "all" | "-1" => Self::All, "leader" | "1" => Self::Leader);

settings! {
    /// Settings of a [`Producer`](crate::Producer), validated when it is created.
    ///
    /// Retries wait for [`Config::retry_backoff`](super::Config::retry_backoff); a request times
    /// out after [`Config::request_timeout`](super::Config::request_timeout).
    ///
    /// ```
    /// use std::time::Duration;
    /// use ailurus::{Compression, Config, ProducerConfig};
    ///
    /// let producer = ProducerConfig::default().linger(Duration::from_millis(5)).compression(Compression::gzip(6)?);
    /// let config = Config::builder().producer(|p| p.linger(Duration::from_millis(5)).compression(Compression::Zstd)).build()?;
    /// assert_eq!(config.producer, producer.compression(Compression::Zstd));
    /// # Ok::<(), ailurus::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct ProducerConfig(self) {
        /// Replicas that must have a record before it is acknowledged. [`Acks::Leader`] needs
        /// `idempotence` off.
        acks: Acks = Acks::All, "REDPANDA_ACKS" keyword;
        /// Retries never write a record twice, because brokers detect a batch they already have
        /// (KIP-98), and several batches of a partition may be in flight. Without it there is one
        /// at a time. Turn it off for [`Acks::Leader`], or where the client's principal may not get
        /// a producer id.
        idempotence: bool = true, "REDPANDA_IDEMPOTENCE" boolean;
        /// Maximum time a batch waits for more records; 0: it is sent as soon as no request of its
        /// partition is in flight, and batches form meanwhile. Less than `delivery_timeout`. A few
        /// milliseconds make larger batches where many records come from many places.
        linger: Duration = millis(0), "REDPANDA_LINGER" millis, in millis(0)..=secs(60);
        /// Size of a batch, in bytes before compression, at which it is sent without waiting. A
        /// larger record gets a batch of its own. Keep it below the topics' `max.message.bytes`: a
        /// batch that the broker rejects as too large is split and sent again. Lower it, with
        /// `buffer_memory`, where memory is scarce.
        batch_size: usize = 1_000_000, "REDPANDA_BATCH_SIZE" bytes, in KIB..=64 * MIB;
        /// Bytes of records that may be buffered or in flight; `send` waits while it is exhausted.
        /// At least `batch_size` and `max_request_size`, at most 64 GiB (256 MiB on 32-bit CPUs).
        /// The default is three times what is in flight to a broker; doubling it costs 30 MB more
        /// and, as less of it fits the CPU's caches, a fifth more CPU time. Raise it where brokers
        /// are far away or many partitions are written: throughput is at most this much per round
        /// trip.
        buffer_memory: usize = 16 * MIB, "REDPANDA_BUFFER_MEMORY" bytes, in self.batch_size.max(self.max_request_size)..=MEMORY;
        /// Maximum size of a record and of a request, in bytes before compression; the default is
        /// that of brokers. Raise it together with the topic's `max.message.bytes`.
        max_request_size: usize = MIB, "REDPANDA_MAX_REQUEST_SIZE" bytes, in KIB..=100 * MIB;
        /// Maximum time from `send` to acknowledgement or error, retries included; at least
        /// `linger` plus the request timeout. Raise it to outlast longer outages, lower it where an
        /// old record is of no use.
        delivery_timeout: Duration = secs(120), "REDPANDA_DELIVERY_TIMEOUT" millis, in secs(1)..=hours(1);
        /// Time after which a coordinator aborts an open transaction, and fences its producer; also the
        /// maximum time to wait for a coordinator. For a [`TransactionalProducer`](crate::TransactionalProducer),
        /// whose `delivery_timeout` is at most this. The brokers' `transaction.max.timeout.ms` bounds
        /// it, 15 minutes by default. Lower it where readers must not wait long for a process that died
        /// in a transaction, raise it where a transaction covers long work.
        transaction_timeout: Duration = secs(40), "REDPANDA_TRANSACTION_TIMEOUT" millis, in secs(1)..=hours(24);
        /// Compression of batches. A batch that it does not shrink is sent uncompressed. A record
        /// may override it. The gzip level has a variable of its own, `REDPANDA_COMPRESSION_LEVEL`.
        compression: Compression = Compression::None, "REDPANDA_COMPRESSION" keyword;
        /// Compression by topic, overriding `compression`.
        topic_compression: HashMap<String, Compression> = HashMap::new(), "REDPANDA_TOPIC_COMPRESSION" topic_codecs;
        /// Chooses the partition of a record that does not name one. Change it where other
        /// producers of the same topics hash differently.
        partitioner: PartitionerKind = PartitionerKind::Murmur2, "REDPANDA_PARTITIONER" keyword;
        /// Slow brokers get fewer of the records that may go to any partition, such as those
        /// without a key (KIP-794). These stick to one partition for 16 to 32 KiB (one to two times
        /// `batch_size` if that is less), up to the end of a batch if one falls there, and then
        /// switch to another, which is the less likely the more batches it has queued. If false,
        /// they switch with each batch (KIP-480), and a slow broker gets more, since its batches
        /// grow while they wait. Turn it off where a few small records now and then should not all
        /// go to the same partition.
        adaptive_partitioning: bool = true, "REDPANDA_ADAPTIVE_PARTITIONING" boolean;
        /// With `adaptive_partitioning`: maximum time, beside `linger`, that the oldest batch of a
        /// partition may await its acknowledgement before records that may go anywhere skip the
        /// partition; 0: no limit. Set it where a hanging broker should not delay such records.
        partition_availability_timeout: Duration = millis(0),
            "REDPANDA_PARTITION_AVAILABILITY_TIMEOUT" millis, in millis(0)..=hours(1);
    }
    and {
        /// Maximum size of a record where it differs from `max_request_size`, for the library's
        /// internal producers.
        pub(crate) max_record_size: Option<usize> = None;
    }
    setters: producer_settings;
}

producer_settings!(ProducerConfig [] by_field);
