//! Settings of consumers and of their groups.

use std::sync::Arc;
use std::time::Duration;

use super::keyword::keywords;
use super::table::{KIB, MEMORY, MIB, days, hours, millis, minutes, secs, settings};
use crate::assignor::Assignor;

/// Start position in a partition without a committed offset, or whose committed offset is out of
/// range.
///
/// ```
/// use ailurus::{Config, OffsetReset};
///
/// let config = Config::builder().offset_reset(OffsetReset::Latest).build()?;
/// assert_eq!(config.consumer.offset_reset, OffsetReset::Latest);
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OffsetReset {
    /// The first record of the log.
    #[default]
    Earliest,
    /// The end of the log: only records produced from now on. A partition that is added to its
    /// topic while a member runs is read from its start.
    Latest,
    /// An error; the application decides by [`Consumer::seek`](crate::Consumer::seek).
    None,
}

/// Strategy that assigns partitions to the members of a group. Two are equal if they have the same
/// name.
///
/// ```
/// use ailurus::{AssignorKind, Config};
///
/// let config = Config::builder().assignors([AssignorKind::RoundRobin]).build()?;
/// assert_eq!(config.consumer.assignors, [AssignorKind::RoundRobin]);
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AssignorKind {
    /// `range`: ranges of each topic's partitions; the same partitions of several topics go to one
    /// member. Partitions prefer members in the rack of a replica, where members and brokers have
    /// racks.
    Range,
    /// `roundrobin`: all partitions of all topics, in turn.
    RoundRobin,
    /// `sticky`: as balanced as possible, with as few moves as possible; members revoke everything
    /// during a rebalance.
    Sticky,
    /// `cooperative-sticky`: like `sticky`, but only partitions that move are revoked; members read
    /// on from the others.
    CooperativeSticky,
    /// `RoundRobinAssigner`: in turn, under the name that KafkaJS members support by default, so
    /// that they can share a group with this one.
    KafkaJs,
    /// A custom one; see [`AssignorKind::custom`].
    Custom(Arc<dyn Assignor>),
}

/// Protocol of a consumer group.
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
    /// The classic protocol: one of the members computes the assignment, by an assignor that all
    /// support. Every broker serves it.
    #[default]
    Classic,
    /// The coordinator computes the assignment and reconciles each member on its own (KIP-848).
    /// Kafka serves it from 4.0 on; Redpanda does not. Joining fails with
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where it is not served.
    Consumer,
    /// [`Consumer`](Self::Consumer) where the group's coordinator offers it, else
    /// [`Classic`](Self::Classic).
    Auto,
}

keywords!(GroupProtocol, "group protocol": "classic" => Self::Classic, "consumer" => Self::Consumer, "auto" => Self::Auto);

impl PartialEq for AssignorKind {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for AssignorKind {}

/// Visibility of transactional records (KIP-98). Records outside transactions are always visible.
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
    /// All records, up to the high watermark, those of open and aborted transactions included. The
    /// default, as in the Java client.
    #[default]
    ReadUncommitted,
    /// Records of committed transactions only, up to the last stable offset.
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
    /// let consumer = ConsumerConfig::default().session_timeout(Duration::from_secs(10)).prefetch_bytes(8 << 20);
    /// assert_eq!(Config::builder().consumer(|_| consumer.clone()).build()?.consumer, consumer);
    /// # Ok::<(), ailurus::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct ConsumerConfig(self) {
        /// Time without a heartbeat after which the broker removes a member from the group. Brokers
        /// usually allow 6 s to 5 minutes.
        session_timeout: Duration = secs(30), "REDPANDA_SESSION_TIMEOUT" millis, in millis(1)..=minutes(30);
        /// Maximum time for members to finish their work and rejoin when the group rebalances.
        rebalance_timeout: Duration = secs(60), "REDPANDA_REBALANCE_TIMEOUT" millis, in millis(1)..=hours(1);
        /// Maximum time between two calls of `recv` or `poll`. A consumer that exceeds it leaves
        /// the group, which reassigns its partitions, until its next poll. Heartbeats continue
        /// meanwhile, so this alone bounds the time that handling may take.
        max_poll_interval: Duration = minutes(5), "REDPANDA_MAX_POLL_INTERVAL" millis, in millis(1)..=days(1);
        /// Interval between heartbeats. At most a third of `session_timeout`.
        heartbeat_interval: Duration = secs(3), "REDPANDA_HEARTBEAT_INTERVAL" millis, in millis(1)..=minutes(10);
        /// Assignors this member supports, in order of preference. A group uses one that all its
        /// members support. To switch a running group to another, restart its members one after the
        /// other with both in this list, the new one first; once the last one has both, the group
        /// uses the new one.
        assignors: Vec<AssignorKind> = vec![AssignorKind::CooperativeSticky, AssignorKind::Range], "REDPANDA_ASSIGNORS" assignors;
        /// Protocol of the group. With `consumer`, the coordinator assigns partitions: it ignores
        /// `assignors`, sets the heartbeat interval, and has a session timeout of its own (Kafka's
        /// `group.consumer.session.timeout.ms`, 45 s). `session_timeout` is then the time after
        /// which this member drops its partitions if it reaches no coordinator.
        group_protocol: GroupProtocol = GroupProtocol::Classic, "REDPANDA_GROUP_PROTOCOL" keyword;
        /// Makes this a static member (KIP-345): one that restarts with the same id within the
        /// session timeout gets its partitions back without a rebalance. Ids are unique in a group:
        /// a second member with the same id fences the first. Closing a static member keeps its
        /// place in a classic group, as in the Java client.
        group_instance_id: Option<String> = None, "REDPANDA_GROUP_INSTANCE_ID" name;
        /// Coordinator's assignor that this member selects in the `consumer` protocol, such as
        /// `uniform` or `range`; none: the coordinator's default. Joining fails with an error that
        /// lists the supported ones if it is not among them.
        group_remote_assignor: Option<String> = None, "REDPANDA_GROUP_REMOTE_ASSIGNOR" name;
        /// Rack (or availability zone) of this client, as in the brokers' `broker.rack`. Rack-aware
        /// assignors prefer partitions with a replica in it, where the balance allows; brokers with
        /// a replica selector (KIP-392) let it fetch from a replica there. 1 to 249 bytes.
        client_rack: Option<String> = None, "REDPANDA_CLIENT_RACK" name;
        /// Start position without a committed offset.
        offset_reset: OffsetReset = OffsetReset::Earliest, "REDPANDA_AUTO_OFFSET_RESET" keyword;
        /// Visibility of transactional records.
        isolation_level: IsolationLevel = IsolationLevel::ReadUncommitted, "REDPANDA_ISOLATION_LEVEL" keyword;
        /// Interval of automatic commits of records returned before the latest poll, which counts
        /// as having handled them; none: the application commits. They are committed on close and
        /// before partitions are revoked, too. A processor ignores it and commits what it has
        /// handled.
        auto_commit_interval: Option<Duration> = None, "REDPANDA_AUTO_COMMIT_INTERVAL" limit, in millis(1)..=hours(1);
        /// Minimum size of a fetch response, in bytes, unless `fetch_max_wait` expires first.
        fetch_min_bytes: usize = 1, "REDPANDA_FETCH_MIN_BYTES" bytes, in 0..=self.fetch_max_bytes;
        /// Maximum time a broker waits for records before it responds to a fetch.
        fetch_max_wait: Duration = millis(500), "REDPANDA_FETCH_MAX_WAIT" millis, in millis(0)..=secs(30);
        /// Maximum size of a fetch response, over all partitions of a broker, in bytes; limited to
        /// a third of `prefetch_bytes`, or all of it if the round trip exceeds 6 ms. A single
        /// larger batch is returned still.
        fetch_max_bytes: usize = 50 * MIB, "REDPANDA_FETCH_MAX_BYTES" bytes, in KIB..=100 * MIB;
        /// Maximum size per partition in a fetch response, in bytes; four times as much if the
        /// round trip exceeds 6 ms.
        partition_fetch_bytes: usize = MIB, "REDPANDA_PARTITION_FETCH_BYTES" bytes, in KIB..=100 * MIB;
        /// Bytes of decompressed records that are fetched and not dropped by the application yet,
        /// over all partitions; at most 64 GiB (256 MiB on 32-bit CPUs). A partition that holds
        /// more than its equal share is not fetched until the application drops some of it; the
        /// others continue. While slow partitions hold all of it, the others may fetch their share
        /// still: up to twice this in total.
        prefetch_bytes: usize = 16 * MIB, "REDPANDA_PREFETCH_BYTES" bytes, in KIB..=MEMORY;
        /// Maximum decompressed size of a batch, in bytes. A larger batch is an error, not an
        /// allocation.
        max_decompressed_bytes: usize = 128 * MIB, "REDPANDA_MAX_DECOMPRESSED_BYTES" bytes, in KIB..=2048 * MIB;
    }
    and {
        /// Part of the names of topics that are read from their beginning without a committed offset,
        /// whatever `offset_reset` is.
        pub(crate) earliest_topics: Option<String> = None;
    }
    setters: consumer_settings;
}

consumer_settings!(ConsumerConfig [] by_field);
