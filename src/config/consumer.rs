//! Settings of consumers and of their groups.

use std::sync::Arc;
use std::time::Duration;

use super::keyword::keywords;
use super::table::{KIB, MEMORY, MIB, days, hours, millis, minutes, secs, settings};
use crate::assignor::Assignor;

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
    /// Redpanda does not. Joining fails with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where it is not served.
    Consumer,
    /// [`Consumer`](Self::Consumer) where the group's coordinator offers it, else [`Classic`](Self::Classic).
    Auto,
}

keywords!(GroupProtocol, "group protocol": "classic" => Self::Classic, "consumer" => Self::Consumer, "auto" => Self::Auto);

impl PartialEq for AssignorKind {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for AssignorKind {}

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

keywords!(OffsetReset, "offset reset": "earliest" => Self::Earliest, "latest" => Self::Latest, "none" => Self::None);
keywords!(
    IsolationLevel, "isolation level": "read_uncommitted" => Self::ReadUncommitted, "read_committed" => Self::ReadCommitted
);

settings! {
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
    pub struct ConsumerConfig(self) in [config.consumer];

    /// The broker takes a member that sends no heartbeat for this long out of the group. Brokers usually allow 6 s to 5 minutes.
    session_timeout: Duration = secs(30), "REDPANDA_SESSION_TIMEOUT" millis, in millis(1)..=minutes(30);
    /// How long members may take to finish their work and join again when the group rebalances.
    rebalance_timeout: Duration = secs(60), "REDPANDA_REBALANCE_TIMEOUT" millis, in millis(1)..=hours(1);
    /// How long a program may take from one event to asking for the next. One that takes longer
    /// counts as hung: its member leaves the group, which gives its partitions to others, and joins again when the program asks for
    /// the next event. Heartbeats go on meanwhile, so this alone bounds the time that handling may take.
    max_poll_interval: Duration = minutes(5), "REDPANDA_MAX_POLL_INTERVAL" millis, in millis(1)..=days(1);
    /// The time between heartbeats. At most a third of `session_timeout`.
    heartbeat_interval: Duration = secs(3), "REDPANDA_HEARTBEAT_INTERVAL" millis, in millis(1)..=minutes(10);
    /// The assignors this member supports, the preferred one first. A group uses one
    /// that all its members support. To have a running group go over from one to another, restart its members one after the
    /// other with both in this list, the new one first; when the last one has both, the group uses the new one.
    assignors: Vec<AssignorKind> = vec![AssignorKind::CooperativeSticky, AssignorKind::Range], "REDPANDA_ASSIGNORS" assignors;
    /// The protocol of the group. With the `consumer` protocol the coordinator shares out: it has no use for
    /// `assignors`, sets the time between heartbeats, and has a session timeout of its own (Kafka's
    /// `group.consumer.session.timeout.ms`, 45 s). `session_timeout` is then how long this member holds on to its partitions
    /// when it reaches no coordinator.
    group_protocol: GroupProtocol = GroupProtocol::Classic, "REDPANDA_GROUP_PROTOCOL" keyword;
    /// Makes this a static member of its group: one that comes back under the same id within the session timeout finds its
    /// partitions again, without a rebalance. No two members may have the same at a time: the older one is fenced. Closing it
    /// keeps its place in a classic group, as Java does.
    group_instance_id: Option<String> = None, "REDPANDA_GROUP_INSTANCE_ID" name;
    /// The coordinator's assignor that this member votes for in the `consumer` protocol, such as `uniform` or `range`;
    /// none: the coordinator's first. Joining fails with an error that lists them if it has no such one.
    group_remote_assignor: Option<String> = None, "REDPANDA_GROUP_REMOTE_ASSIGNOR" name;
    /// The rack (or availability zone) of this client, as brokers name theirs in `broker.rack`. Assignors that know
    /// racks give a member partitions with a replica on its rack, where that is as even; leaders that know them (KIP-392) have
    /// partitions fetched from a replica there. 1 to 249 bytes.
    client_rack by hand: Option<String> = None, "REDPANDA_CLIENT_RACK" name;
    /// Where to start without a committed offset.
    offset_reset: OffsetReset = OffsetReset::Earliest, "REDPANDA_AUTO_OFFSET_RESET" keyword;
    /// Which records of transactions to read.
    isolation_level: IsolationLevel = IsolationLevel::ReadUncommitted, "REDPANDA_ISOLATION_LEVEL" keyword;
    /// How often a consumer commits by itself what was handed out before the program last asked for more, which by that counts
    /// as handled; none: the program commits. It commits as well when it is closed and before it gives up
    /// partitions. A processor, which knows what has ended, takes no notice of it.
    auto_commit_interval: Option<Duration> = None, "REDPANDA_AUTO_COMMIT_INTERVAL" limit, in millis(1)..=hours(1);
    /// The least a fetch waits for, in bytes, unless `fetch_max_wait` passes first.
    fetch_min_bytes: usize = 1, "REDPANDA_FETCH_MIN_BYTES" bytes, in 0..=self.fetch_max_bytes;
    /// The longest a broker holds a fetch for lack of records.
    fetch_max_wait: Duration = millis(500), "REDPANDA_FETCH_MAX_WAIT" millis, in millis(0)..=secs(30);
    /// The most a fetch of all partitions of a broker brings, in bytes; no more than a
    /// third of `prefetch_bytes`, or all of it from a broker more than 6 ms away. A single batch that is larger still comes.
    fetch_max_bytes: usize = 50 * MIB, "REDPANDA_FETCH_MAX_BYTES" bytes, in KIB..=100 * MIB;
    /// The most a fetch brings of one partition, in bytes, four times as much from a broker more than 6 ms away.
    partition_fetch_bytes: usize = MIB, "REDPANDA_PARTITION_FETCH_BYTES" bytes, in KIB..=100 * MIB;
    /// Bytes of records, decompressed, that were fetched and that the program has not dropped yet, over all partitions;
    /// at most 64 GiB (256 MiB on 32-bit CPUs). A partition that holds more than its equal share is not fetched until the program has dropped some of it; the others go
    /// on. Where slow partitions hold all of it, those that hold nothing still fetch their share: up to twice this in total.
    prefetch_bytes: usize = 16 * MIB, "REDPANDA_PREFETCH_BYTES" bytes, in KIB..=MEMORY;
    /// The most a compressed batch may grow to, in bytes, when it is opened. A batch beyond it is an
    /// error, not an allocation.
    max_decompressed_bytes: usize = 128 * MIB, "REDPANDA_MAX_DECOMPRESSED_BYTES" bytes, in KIB..=2048 * MIB;
}
