//! Settings: typed, validated together, from code, from the environment or from a `.env` file.

mod addr;
mod check;
mod compression;
mod dotenv;
mod env;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod group_name;
mod partitioner;
mod sasl;
mod secret;
mod security;

use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use addr::BrokerAddr;
pub use compression::Compression;
pub use group_name::GroupName;
pub use partitioner::PartitionerKind;
pub use sasl::{
    ClientCredentials, Credentials, OAuthBearer, SaslConfig, SaslMechanism, TokenError, TokenFuture, TokenProvider,
    TokenSource,
};
pub use secret::Secret;
pub use security::{SecurityProtocol, TlsConfig};

use crate::consumer::Assignor;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Metrics, Reporter};
use crate::trace::{Propagation, Propagator};

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

/// Where a consumer starts in a partition for which its group has committed nothing, or whose committed offset is gone.
///
/// ```
/// use ailurus::{Config, OffsetReset};
///
/// let config = Config::builder().offset_reset(OffsetReset::Latest).build()?;
/// assert_eq!(config.consumer.offset_reset, OffsetReset::Latest);
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OffsetReset {
    /// At the first record of the log: nothing that is still there is missed.
    #[default]
    Earliest,
    /// Behind the last record of the log: only what is produced from now on. A partition that its topic is given while a member runs begins at
    /// its start.
    Latest,
    /// Nowhere: that is an error, and the program decides by [`Consumer::seek`](crate::Consumer::seek).
    None,
}

/// How partitions are shared among the members of a group. Two are equal if they have the same name.
///
/// ```
/// use ailurus::{AssignorKind, Config};
///
/// let config = Config::builder().assignors(vec![AssignorKind::RoundRobin]).build()?;
/// assert_eq!(config.consumer.assignors, [AssignorKind::RoundRobin]);
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AssignorKind {
    /// `range`: ranges of each topic's partitions; the same numbers of several topics go to one member. Near replicas first, where
    /// members and brokers have racks.
    Range,
    /// `roundrobin`: all partitions of all topics dealt out in turn.
    RoundRobin,
    /// `sticky`: as even as can be, with as little change as can be; members give all up while the group shares out.
    Sticky,
    /// `cooperative-sticky`: the same, but members keep and go on reading what they have; only what moves is given up.
    CooperativeSticky,
    /// `RoundRobinAssigner`: dealt out in turn, under the name that members of KafkaJS offer unless told otherwise, so that they
    /// can be in a group with this one.
    KafkaJs,
    /// One of your own; see [`AssignorKind::custom`].
    Custom(Arc<dyn Assignor>),
}

/// The protocol by which the members of a group agree on who reads what.
///
/// ```
/// use ailurus::{Config, GroupProtocol};
///
/// let config = Config::builder().group_protocol(GroupProtocol::Auto).build()?;
/// assert_eq!(config.consumer.group_protocol, GroupProtocol::Auto);
/// assert_eq!("consumer".parse::<GroupProtocol>()?, GroupProtocol::Consumer);
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum GroupProtocol {
    /// One of the members shares out, by an assignor that all have. Every broker serves it.
    #[default]
    Classic,
    /// The coordinator shares out, and leads each member to its partitions on its own (KIP-848). Kafka serves it from 4.0 on;
    /// Redpanda does not. Joining fails with [`ErrorKind::Unsupported`] where it is not served.
    Consumer,
    /// [`Consumer`](Self::Consumer) where the group's coordinator offers it, else [`Classic`](Self::Classic).
    Auto,
}

impl FromStr for GroupProtocol {
    type Err = Error;

    /// `classic`, `consumer` or `auto`.
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "classic" => Ok(Self::Classic),
            "consumer" => Ok(Self::Consumer),
            "auto" => Ok(Self::Auto),
            _ => Err(Error::new(
                ErrorKind::Config,
                format!("{s:?} is no group protocol: allowed is classic, consumer or auto"),
            )),
        }
    }
}

impl PartialEq for AssignorKind {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for AssignorKind {}

/// Settings of a [`Producer`](crate::Producer). They are checked when a producer is made.
///
/// The wait before a retry is [`Config::retry_backoff`], the time a request may take [`Config::request_timeout`].
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

/// Which records of transactions a consumer reads (KIP-98). Records that are in no transaction are always read.
///
/// ```
/// use ailurus::{Config, IsolationLevel};
///
/// let config = Config::builder().isolation_level(IsolationLevel::ReadCommitted).build()?;
/// assert_eq!(config.consumer.isolation_level, IsolationLevel::ReadCommitted);
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum IsolationLevel {
    /// All, as soon as all replicas have them: those of transactions that are open or were aborted come too. The default, as
    /// it is the Java client's.
    #[default]
    ReadUncommitted,
    /// Those of committed transactions alone. Reading goes up to the first record of the first transaction that is open.
    ReadCommitted,
}

/// Settings of a [`Consumer`](crate::Consumer).
///
/// ```
/// use std::time::Duration;
/// use ailurus::{Config, ConsumerConfig};
///
/// let mut consumer = ConsumerConfig::default();
/// consumer.session_timeout = Duration::from_secs(10);
/// consumer.prefetch_bytes = 8 << 20;
/// assert_eq!(Config::builder().consumer(consumer.clone()).build()?.consumer, consumer);
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerConfig {
    /// The broker takes a member that sends no heartbeat for this long out of the group; default 30 s. 1 ms to 30 minutes
    /// here, usually 6 s to 5 minutes at the broker.
    pub session_timeout: Duration,
    /// How long members may take to finish their work and join again when the group rebalances; default 60 s. Up to 1 hour.
    pub rebalance_timeout: Duration,
    /// How long a program may take from one event to asking for the next, default 5 minutes. 1 ms to 1 day. One that takes longer
    /// counts as hung: its member leaves the group, which gives its partitions to others, and joins again when the program asks for
    /// the next event. Heartbeats go on meanwhile, so this alone bounds the time that handling may take.
    pub max_poll_interval: Duration,
    /// The time between heartbeats, default 3 s. At most a third of `session_timeout`.
    pub heartbeat_interval: Duration,
    /// The assignors this member supports, the preferred one first; default cooperative-sticky, then range. A group uses one
    /// that all its members support. To have a running group go over from one to another, restart its members one after the
    /// other with both in this list, the new one first; when the last one has both, the group uses the new one.
    pub assignors: Vec<AssignorKind>,
    /// The protocol of the group; default classic. With the `consumer` protocol the coordinator shares out: it has no use for
    /// `assignors`, sets the time between heartbeats, and has a session timeout of its own (Kafka's
    /// `group.consumer.session.timeout.ms`, 45 s). `session_timeout` is then how long this member holds on to its partitions
    /// when it reaches no coordinator.
    pub group_protocol: GroupProtocol,
    /// Makes this a static member of its group: one that comes back under the same id within the session timeout finds its
    /// partitions again, without a rebalance. Default none. No two members may have the same at a time: the older one is fenced. Closing it
    /// keeps its place in a classic group, as Java does.
    pub group_instance_id: Option<String>,
    /// The coordinator's assignor that this member votes for in the `consumer` protocol, such as `uniform` or `range`; default
    /// none: the coordinator's first. Joining fails with an error that lists them if it has no such one.
    pub group_remote_assignor: Option<String>,
    /// The rack (or availability zone) of this client, as brokers name theirs in `broker.rack`; default none. Assignors that know
    /// racks give a member partitions with a replica on its rack, where that is as even; leaders that know them (KIP-392) have
    /// partitions fetched from a replica there. 1 to 249 bytes.
    pub client_rack: Option<String>,
    /// Where to start without a committed offset; default earliest.
    pub offset_reset: OffsetReset,
    /// Which records of transactions to read; default all (`read_uncommitted`).
    pub isolation_level: IsolationLevel,
    /// How often a consumer commits by itself what was handed out before the program last asked for more, which by that counts
    /// as handled; default none: the program commits. 1 ms to 1 hour. It commits as well when it is closed and before it gives up
    /// partitions. A processor, which knows what has ended, takes no notice of it.
    pub auto_commit_interval: Option<Duration>,
    /// The least a fetch waits for, in bytes, unless `fetch_max_wait` passes first; default 1.
    pub fetch_min_bytes: usize,
    /// The longest a broker holds a fetch for lack of records; default 500 ms. At most 30 s.
    pub fetch_max_wait: Duration,
    /// The most a fetch of all partitions of a broker brings, in bytes; default 50 MiB. 1 KiB to 100 MiB, and no more than a
    /// third of `prefetch_bytes`, or all of it from a broker more than 6 ms away. A single batch that is larger still comes.
    pub fetch_max_bytes: usize,
    /// The most a fetch brings of one partition, in bytes, four times as much from a broker more than 6 ms away; default 1 MiB.
    /// 1 KiB to 100 MiB.
    pub partition_fetch_bytes: usize,
    /// Bytes of records, decompressed, that were fetched and that the program has not dropped yet, over all partitions; default
    /// 16 MiB. A partition that holds more than its equal share is not fetched until the program has dropped some of it; the others go
    /// on. Where slow partitions hold all of it, those that hold nothing still fetch their share: up to twice this in total.
    pub prefetch_bytes: usize,
    /// The most a compressed batch may grow to, in bytes, when it is opened; default 128 MiB. A batch beyond it is an
    /// error, not an allocation.
    pub max_decompressed_bytes: usize,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            session_timeout: Duration::from_secs(30),
            rebalance_timeout: Duration::from_secs(60),
            max_poll_interval: Duration::from_secs(300),
            heartbeat_interval: Duration::from_secs(3),
            assignors: vec![AssignorKind::CooperativeSticky, AssignorKind::Range],
            client_rack: None,
            group_protocol: GroupProtocol::Classic,
            group_instance_id: None,
            group_remote_assignor: None,
            offset_reset: OffsetReset::Earliest,
            isolation_level: IsolationLevel::ReadUncommitted,
            auto_commit_interval: None,
            fetch_min_bytes: 1,
            fetch_max_wait: Duration::from_millis(500),
            fetch_max_bytes: 50 << 20,
            partition_fetch_bytes: 1 << 20,
            prefetch_bytes: 16 << 20,
            max_decompressed_bytes: 128 << 20,
        }
    }
}

/// Which records a handler gets one after the other; all others it may get side by side.
///
/// ```
/// use ailurus::{Config, HandlerOrdering};
///
/// let config = Config::builder().handler_ordering(HandlerOrdering::Key).handler_concurrency(16_usize).build()?;
/// assert_eq!(config.processor.ordering, HandlerOrdering::Key);
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HandlerOrdering {
    /// All of a partition. A record that fails holds up its partition until it has ended.
    #[default]
    Partition,
    /// Those of a key in a partition. A record that fails holds up its key. Records without a key have no order: each is on its
    /// own.
    Key,
    /// None: each record is on its own.
    Unordered,
}

/// Settings of a [`Processor`](crate::Processor): order and number of handlers, what happens to a record whose handler fails, and at shutdown.
///
/// ```
/// use std::time::Duration;
/// use ailurus::{Config, ProcessorConfig};
///
/// let mut processor = ProcessorConfig::default();
/// processor.max_attempts = 10;
/// processor.retry_backoff = Duration::from_millis(20);
/// assert_eq!(Config::builder().processor(processor.clone()).build()?.processor, processor);
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessorConfig {
    /// Which records are handled one after the other; default [`HandlerOrdering::Partition`].
    pub ordering: HandlerOrdering,
    /// How many records (or batches) of a subscription may be in hand at a time, over all its partitions, which take turns;
    /// default 64. 1 to 100,000. Where there are several, one partition alone has at most eight ninths, so that slow handlers of one do
    /// not hold up the others.
    pub concurrency: usize,
    /// How many records of a subscription may wait behind others of their key, or for another attempt, in memory of their own;
    /// default 10,000. 1 to 10,000,000. All partitions use one pool: one alone gets up to eight ninths of it, several in need get
    /// equal parts, and one that keeps nothing may always keep one record. A partition that finds no room is read no further until a
    /// record has ended; none is dropped. Batches of [`max_records`](crate::processor::Batching::max_records) can be gathered in all
    /// partitions at a time, whatever this is.
    pub parked_records: usize,
    /// The same in bytes, default 8 MiB. 1 KiB to 64 GiB (256 MiB on 32-bit CPUs). A single record may be larger.
    pub parked_bytes: usize,
    /// How long an attempt may take; it is cancelled then and counts as failed. Default none. 1 ms to 24 hours.
    pub attempt_timeout: Option<Duration>,
    /// How often a record is handed to the handler before it becomes a dead letter; default 4. 1 to 1,000.
    pub max_attempts: u32,
    /// The wait before the second attempt, default 100 ms; it doubles with each further one, with jitter.
    pub retry_backoff: Duration,
    /// The longest wait between two attempts, default 10 s.
    pub retry_backoff_max: Duration,
    /// What is put behind a topic's name to name its dead-letter topic; default `.dlq`.
    pub dead_letter_suffix: String,
    /// Time for which a dead-letter topic that is created keeps its letters, default none: for good. 1 minute to 100 years. A
    /// topic that exists is left as it is; a warning names one that keeps letters for less.
    pub dead_letter_retention: Option<Duration>,
    /// How often handled offsets are committed, default 200 ms. 1 ms to 1 hour. They are committed as well before partitions are
    /// given up.
    pub commit_interval: Duration,
    /// How long a shutdown waits for records in hand, default 30 s; what is not done by then is cancelled and not
    /// committed.
    pub shutdown_timeout: Duration,
    /// How long records of a partition may wait while none ends before the partition counts as stalled, default 60 s. 100 ms to
    /// 24 hours. Health says so, and nothing else comes of it. Raise it above what the slowest handler may take.
    pub stall_timeout: Duration,
}

impl Default for ProcessorConfig {
    fn default() -> Self {
        Self {
            ordering: HandlerOrdering::Partition,
            concurrency: 64,
            parked_records: 10_000,
            parked_bytes: 8 << 20,
            attempt_timeout: None,
            max_attempts: 4,
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(10),
            dead_letter_suffix: ".dlq".into(),
            dead_letter_retention: None,
            commit_interval: Duration::from_millis(200),
            shutdown_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
        }
    }
}

/// All settings of a client.
///
/// ```
/// use std::time::Duration;
/// use ailurus::Config;
///
/// let config = Config::builder()
///     .brokers("localhost:9092,localhost:9093")
///     .client_id("checkout")
///     .linger(Duration::from_millis(5))
///     .build()?;
/// assert_eq!(config.brokers.len(), 2);
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The brokers to begin with; the rest of the cluster is learned from them. Default `localhost:9092`.
    pub brokers: Vec<BrokerAddr>,
    /// What connections are made of; default [`SecurityProtocol::Plaintext`].
    pub security_protocol: SecurityProtocol,
    /// Settings of TLS, if the security protocol has it.
    pub tls: TlsConfig,
    /// The login, if the security protocol has one; default none.
    pub sasl: Option<SaslConfig>,
    /// The name brokers log for our requests and apply quotas by; default `ailurus`. 1 to 249 characters.
    pub client_id: String,
    /// The consumer group of subscriptions that name none (see [`GroupName`]); default `ailurus-group`.
    pub group_id: String,
    /// Whether producing or subscribing to a topic that does not exist may create it, if the broker allows it too;
    /// default true. Reading, listing and health never create one.
    pub allow_auto_topic_creation: bool,
    /// How long a request may take, default 30 s; its connection is closed after that. 100 ms to 10 minutes. Lower it to leave
    /// a broker that hangs sooner, raise it where brokers are slow but sure.
    pub request_timeout: Duration,
    /// How long to try one address of a broker, default 10 s. 10 ms to 2 minutes.
    pub connect_timeout: Duration,
    /// How long a look at the health of cluster and subscriptions may take, default 3 s; what has not answered by then counts as
    /// not answering. 100 ms to 60 s. Keep it below the timeout of whoever asks, such as Kubernetes' `timeoutSeconds`.
    pub health_timeout: Duration,
    /// The age at which what we know of topics is asked for anew, default 5 minutes. 1 ms to 1 day. New partitions of a
    /// growing topic are seen after this at the latest.
    pub metadata_max_age: Duration,
    /// How long a topic may go unused, neither produced to nor read, before this client forgets it and asks for its metadata no
    /// more; default 5 minutes. 1 ms to 1 day. Its next use looks it up again. Raise it where many topics are used seldom.
    pub metadata_max_idle: Duration,
    /// How long a topic that producing or subscribing asks the broker to create may take to appear, default 10 s. 1 ms to 1 hour.
    /// A broker that says that it creates none is not waited for.
    pub topic_creation_timeout: Duration,
    /// The wait before a failed request is tried again, default 100 ms; it doubles each time, with jitter. 1 ms to 60 s. Raise
    /// it where many clients would come back to a broker at once.
    pub retry_backoff: Duration,
    /// The longest wait between two tries, default 1 s. `retry_backoff` to 10 minutes.
    pub retry_backoff_max: Duration,
    /// Who is told what the client does; default nobody. See [`metrics`](crate::metrics).
    pub metrics: Reporter,
    /// How spans belong to the traces of the program's tracing system; default not at all. See [`Propagator`].
    pub propagation: Propagation,
    /// What producers do unless told otherwise.
    pub producer: ProducerConfig,
    /// What consumers do unless told otherwise.
    pub consumer: ConsumerConfig,
    /// What processors do unless told otherwise.
    pub processor: ProcessorConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: vec![BrokerAddr::new("localhost", BrokerAddr::DEFAULT_PORT)],
            security_protocol: SecurityProtocol::Plaintext,
            tls: TlsConfig::default(),
            sasl: None,
            client_id: "ailurus".into(),
            group_id: "ailurus-group".into(),
            allow_auto_topic_creation: true,
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            health_timeout: Duration::from_secs(3),
            metadata_max_age: Duration::from_secs(300),
            metadata_max_idle: Duration::from_secs(300),
            topic_creation_timeout: Duration::from_secs(10),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            metrics: Reporter::default(),
            propagation: Propagation::default(),
            producer: ProducerConfig::default(),
            consumer: ConsumerConfig::default(),
            processor: ProcessorConfig::default(),
        }
    }
}

impl Config {
    /// Starts from the defaults.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// Reads the `REDPANDA_*` variables of the environment and, for those not set there, of the file `.env` in the working
    /// directory, if there is one. An empty variable counts as not set. A `REDPANDA_*` variable that is no setting is named in
    /// a warning, once in a process, with the nearest one that is.
    ///
    /// `.env` has one `NAME=value` a line; lines of other tools are left alone. A value may stand bare, up to a blank and `#`, or
    /// in single or double quotes; in double ones `\\`, `\"`, `\$`, `\n`, `\r` and `\t` are escapes. A `$` stands for itself
    /// everywhere.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that lists every variable whose value is not allowed, with the value and what is allowed, or
    /// the line of `.env` that can't be read.
    pub fn from_env() -> Result<Self> {
        ConfigBuilder::from_env()?.build()
    }
}

/// Builds a [`Config`]; all that is wrong with it is reported together by [`build`](ConfigBuilder::build).
///
/// ```
/// use std::time::Duration;
/// use ailurus::Config;
///
/// let error = Config::builder()
///     .session_timeout(Duration::from_secs(3))
///     .heartbeat_interval(Duration::from_secs(2))
///     .batch_size(10)
///     .build()
///     .unwrap_err();
/// assert!(error.to_string().contains("heartbeat interval"));
/// assert!(error.to_string().contains("batch size"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct ConfigBuilder {
    config: Config,
    problems: Vec<String>,
    set_by_variable: BTreeSet<&'static str>,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty => $($field:ident).+;)*) => { $(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, value: $type) -> Self {
            self.config.$($field).+ = value;
            self
        }
    )* };
}

impl ConfigBuilder {
    /// Reads the environment and `.env`, as [`Config::from_env`] does, for further settings in code.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if `.env` can't be read.
    pub fn from_env() -> Result<Self> {
        // Lossy: a value that is no text is to be refused and not to be ignored.
        let text = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
        env::read(std::path::Path::new(".env"), std::env::vars_os().map(|(name, value)| (text(name), text(value))))
    }

    /// Returns whether a variable, such as `REDPANDA_BROKERS`, was set when variables were read.
    ///
    /// ```
    /// use ailurus::ConfigBuilder;
    ///
    /// let read = |name: &str| (name == "REDPANDA_LINGER").then(|| "5".to_owned());
    /// assert!(ConfigBuilder::from_vars(read).has_variable("REDPANDA_LINGER"));
    /// ```
    pub fn has_variable(&self, name: &str) -> bool {
        self.set_by_variable.contains(name)
    }

    /// Reads variables by a function, for tests and for programs with an environment of their own. No `.env` is read.
    ///
    /// ```
    /// use ailurus::ConfigBuilder;
    ///
    /// let read = |name: &str| (name == "REDPANDA_BROKERS").then(|| "redpanda:29092".to_owned());
    /// let config = ConfigBuilder::from_vars(read).build()?;
    /// assert_eq!(config.brokers[0].port(), 29092);
    /// # Ok::<(), ailurus::Error>(())
    /// ```
    pub fn from_vars(read: impl Fn(&str) -> Option<String>) -> Self {
        let mut builder = Self::default();
        env::apply(&mut builder, read);
        builder
    }

    /// The brokers to begin with, separated by commas.
    #[must_use]
    pub fn brokers(mut self, list: impl AsRef<str>) -> Self {
        match parse_brokers(list.as_ref()) {
            Ok(brokers) => self.config.brokers = brokers,
            Err(e) => self.problems.push(format!("brokers: {e}")),
        }
        self
    }

    /// The name brokers log for our requests.
    #[must_use]
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.config.client_id = id.into();
        self
    }

    /// The consumer group where none is named.
    #[must_use]
    pub fn group_id(mut self, id: impl Into<String>) -> Self {
        self.config.group_id = id.into();
        self
    }

    /// [`ConsumerConfig::client_rack`].
    #[must_use]
    pub fn client_rack(mut self, rack: impl Into<String>) -> Self {
        self.config.consumer.client_rack = Some(rack.into());
        self
    }

    /// Who is told what the client does: a [`Registry`](crate::metrics::Registry), or one of your own.
    #[must_use]
    pub fn metrics(mut self, metrics: Arc<dyn Metrics>) -> Self {
        self.config.metrics = Reporter::to(metrics);
        self
    }

    /// The login of a security protocol that has one.
    #[must_use]
    pub fn sasl(mut self, sasl: SaslConfig) -> Self {
        self.config.sasl = Some(sasl);
        self
    }

    /// Ties spans to the traces of the program's tracing system.
    #[must_use]
    pub fn propagator(mut self, propagator: Arc<dyn Propagator>) -> Self {
        self.config.propagation = Propagation::by(propagator);
        self
    }

    /// Puts a provider in the place of a token endpoint's settings, if tokens come from one: see [`TokenSource::ClientCredentials`].
    /// A provider that can't be made of them says why.
    ///
    /// ```
    /// use ailurus::{ConfigBuilder, TokenSource};
    ///
    /// let config = ConfigBuilder::from_vars(|_| None)
    ///     .token_endpoint(|client| Err(format!("{} is not reached from here", client.token_endpoint)))
    ///     .build();
    /// assert!(config.is_ok(), "these settings have no endpoint");
    /// ```
    #[must_use]
    pub fn token_endpoint(
        mut self,
        provider: impl FnOnce(&ClientCredentials) -> std::result::Result<TokenSource, String>,
    ) -> Self {
        if let Some(SaslConfig { mechanism: SaslMechanism::OAuthBearer(bearer), .. }) = &mut self.config.sasl {
            if let TokenSource::ClientCredentials(client) = &bearer.tokens {
                match provider(client) {
                    Ok(tokens) => bearer.tokens = tokens,
                    Err(why) => self.problems.push(why),
                }
            }
        }
        self
    }

    /// Compression for one topic: adds to [`ProducerConfig::topic_compression`].
    #[must_use]
    pub fn topic_compression(mut self, topic: impl Into<String>, compression: Compression) -> Self {
        self.config.producer.topic_compression.insert(topic.into(), compression);
        self
    }

    setters! {
        /// What connections are made of.
        security_protocol: SecurityProtocol => security_protocol;
        /// Settings of TLS.
        tls: TlsConfig => tls;
        /// Whether producing or subscribing may create topics.
        allow_auto_topic_creation: bool => allow_auto_topic_creation;
        /// How long a request may take.
        request_timeout: Duration => request_timeout;
        /// How long to try one address of a broker.
        connect_timeout: Duration => connect_timeout;
        /// [`Config::health_timeout`].
        health_timeout: Duration => health_timeout;
        /// The age at which metadata is asked for anew.
        metadata_max_age: Duration => metadata_max_age;
        /// [`Config::metadata_max_idle`].
        metadata_max_idle: Duration => metadata_max_idle;
        /// [`Config::topic_creation_timeout`].
        topic_creation_timeout: Duration => topic_creation_timeout;
        /// The wait before a failed request is tried again.
        retry_backoff: Duration => retry_backoff;
        /// The longest wait between two tries.
        retry_backoff_max: Duration => retry_backoff_max;
        /// [`ProducerConfig::acks`].
        acks: Acks => producer.acks;
        /// [`ProducerConfig::idempotence`].
        idempotence: bool => producer.idempotence;
        /// [`ProducerConfig::linger`].
        linger: Duration => producer.linger;
        /// [`ProducerConfig::batch_size`].
        batch_size: usize => producer.batch_size;
        /// [`ProducerConfig::buffer_memory`].
        buffer_memory: usize => producer.buffer_memory;
        /// [`ProducerConfig::max_request_size`].
        max_request_size: usize => producer.max_request_size;
        /// [`ProducerConfig::delivery_timeout`].
        delivery_timeout: Duration => producer.delivery_timeout;
        /// [`ProducerConfig::compression`].
        compression: Compression => producer.compression;
        /// [`ProducerConfig::partitioner`].
        partitioner: PartitionerKind => producer.partitioner;
        /// [`ProducerConfig::adaptive_partitioning`].
        adaptive_partitioning: bool => producer.adaptive_partitioning;
        /// [`ProducerConfig::partition_availability_timeout`].
        partition_availability_timeout: Duration => producer.partition_availability_timeout;
        /// [`ConsumerConfig::session_timeout`].
        session_timeout: Duration => consumer.session_timeout;
        /// [`ConsumerConfig::rebalance_timeout`].
        rebalance_timeout: Duration => consumer.rebalance_timeout;
        /// [`ConsumerConfig::max_poll_interval`].
        max_poll_interval: Duration => consumer.max_poll_interval;
        /// [`ConsumerConfig::heartbeat_interval`].
        heartbeat_interval: Duration => consumer.heartbeat_interval;
        /// [`ConsumerConfig::assignors`].
        assignors: Vec<AssignorKind> => consumer.assignors;
        /// [`ConsumerConfig::group_protocol`].
        group_protocol: GroupProtocol => consumer.group_protocol;
        /// [`ConsumerConfig::group_instance_id`].
        group_instance_id: Option<String> => consumer.group_instance_id;
        /// [`ConsumerConfig::group_remote_assignor`].
        group_remote_assignor: Option<String> => consumer.group_remote_assignor;
        /// [`ConsumerConfig::offset_reset`].
        offset_reset: OffsetReset => consumer.offset_reset;
        /// [`ConsumerConfig::isolation_level`].
        isolation_level: IsolationLevel => consumer.isolation_level;
        /// [`ConsumerConfig::auto_commit_interval`].
        auto_commit_interval: Option<Duration> => consumer.auto_commit_interval;
        /// All settings of consumers.
        consumer: ConsumerConfig => consumer;
        /// All settings of producers.
        producer: ProducerConfig => producer;
        /// All settings of processors.
        processor: ProcessorConfig => processor;
        /// [`ProcessorConfig::ordering`].
        handler_ordering: HandlerOrdering => processor.ordering;
        /// [`ProcessorConfig::concurrency`].
        handler_concurrency: usize => processor.concurrency;
        /// [`ProcessorConfig::attempt_timeout`].
        attempt_timeout: Option<Duration> => processor.attempt_timeout;
        /// [`ProcessorConfig::max_attempts`].
        max_attempts: u32 => processor.max_attempts;
        /// [`ProcessorConfig::dead_letter_retention`].
        dead_letter_retention: Option<Duration> => processor.dead_letter_retention;
        /// [`ProcessorConfig::shutdown_timeout`].
        shutdown_timeout: Duration => processor.shutdown_timeout;
        /// [`ProcessorConfig::stall_timeout`].
        stall_timeout: Duration => processor.stall_timeout;
    }

    /// Checks everything.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that lists all that is wrong.
    pub fn build(self) -> Result<Config> {
        let Self { config, mut problems, .. } = self;
        check::all(&config, &mut problems);
        check::outcome(&problems)?;
        Ok(config)
    }
}

fn parse_brokers(list: &str) -> Result<Vec<BrokerAddr>> {
    let brokers: Vec<_> =
        list.split(',').map(str::trim).filter(|b| !b.is_empty()).map(str::parse).collect::<Result<_>>()?;
    if brokers.is_empty() {
        return Err(Error::new(ErrorKind::Config, "no broker is named: write host:port, separated by commas"));
    }
    Ok(brokers)
}

#[cfg(test)]
mod tests;
