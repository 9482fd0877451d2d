//! Settings of a broker.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::fault::{Fault, Hook, RequestInfo};
use crate::sasl::Sasl;
use crate::versions::Versions;

/// Host of nodes that listen in memory.
const IN_MEMORY_HOST: &str = "in-memory";
/// Port of node 0 if it listens in memory, and none is set.
pub(crate) const IN_MEMORY_PORT: u16 = 9092;

/// Settings of a [`Broker`](crate::Broker); [`Default`] is one node on a free port of 127.0.0.1 that behaves like
/// Redpanda 24.3 in its development mode.
///
/// ```
/// use std::time::Duration;
/// use ailurus_broker::{BrokerConfig, Versions};
///
/// let config = BrokerConfig::default()
///     .nodes(3)
///     .versions(Versions::kafka())
///     .session_timeouts(Duration::from_millis(100), Duration::from_secs(60));
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    pub(crate) nodes: i32,
    pub(crate) listen: SocketAddr,
    pub(crate) in_memory: bool,
    pub(crate) advertised_host: Option<String>,
    pub(crate) advertised_port: Option<u16>,
    pub(crate) versions: Versions,
    pub(crate) default_partitions: i32,
    pub(crate) default_replication: i16,
    pub(crate) auto_create: bool,
    pub(crate) auto_create_first_error: Option<i16>,
    pub(crate) session_timeout_min: Duration,
    pub(crate) session_timeout_max: Duration,
    pub(crate) initial_rebalance_delay: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) session_timeout: Duration,
    pub(crate) max_message_bytes: i32,
    pub(crate) retention_bytes: Option<u64>,
    pub(crate) check_records: bool,
    pub(crate) partial_batches: bool,
    pub(crate) racks: Vec<String>,
    pub(crate) max_transaction_timeout: Duration,
    pub(crate) transactional_id_expiration: Duration,
    pub(crate) coordinator_load_time: Duration,
    pub(crate) persists_last_epoch: bool,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::TlsServer>,
    pub(crate) sasl: Option<Sasl>,
    pub(crate) hook: Option<Hook>,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            nodes: 1,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            in_memory: false,
            advertised_host: None,
            advertised_port: None,
            versions: Versions::default(),
            default_partitions: 1,
            default_replication: 1,
            auto_create: true,
            auto_create_first_error: None,
            session_timeout_min: Duration::from_secs(6),
            session_timeout_max: Duration::from_secs(300),
            initial_rebalance_delay: Duration::ZERO,
            heartbeat_interval: Duration::from_secs(5),
            session_timeout: Duration::from_secs(45),
            max_message_bytes: 1_048_588,
            retention_bytes: None,
            check_records: true,
            partial_batches: false,
            racks: Vec::new(),
            max_transaction_timeout: Duration::from_secs(900),
            transactional_id_expiration: Duration::from_secs(7 * 24 * 3600),
            coordinator_load_time: Duration::ZERO,
            persists_last_epoch: true,
            #[cfg(feature = "tls")]
            tls: None,
            sasl: None,
            hook: None,
        }
    }
}

impl BrokerConfig {
    /// Sets the number of nodes, at least 1 (default 1). Ids start at 0.
    #[must_use]
    pub fn nodes(mut self, nodes: u16) -> Self {
        self.nodes = i32::from(nodes.max(1));
        self
    }

    /// Sets the address that node 0 listens on (default 127.0.0.1, a free port). Other nodes take
    /// the ports after it; with port 0 each takes a free one.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Makes the nodes listen in memory in place of sockets: clients connect by
    /// [`Broker::in_memory_network`](crate::Broker::in_memory_network). The nodes are `in-memory:9092`,
    /// `in-memory:9093` and so on, unless [`listen`](Self::listen) names another port.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.in_memory = true;
        self
    }

    /// Sets the host that clients connect to (default: the listen address, or 127.0.0.1 if it is
    /// unspecified).
    #[must_use]
    pub fn advertised_host(mut self, host: impl Into<String>) -> Self {
        self.advertised_host = Some(host.into());
        self
    }

    /// Sets the port of node 0 that clients connect to, if another one is forwarded here (default:
    /// the listen port). Other nodes have the ports after it.
    #[must_use]
    pub fn advertised_port(mut self, port: u16) -> Self {
        self.advertised_port = Some(port);
        self
    }

    /// Sets the APIs and versions to offer (default [`Versions::redpanda_24_3`]).
    #[must_use]
    pub fn versions(mut self, versions: Versions) -> Self {
        self.versions = versions;
        self
    }

    /// Sets the partition count of topics that are created without one, at least 1 (default 1).
    #[must_use]
    pub fn default_partitions(mut self, partitions: u16) -> Self {
        self.default_partitions = i32::from(partitions.max(1));
        self
    }

    /// Sets the replication factor of topics that are created without one (default 1, at most the
    /// number of nodes). With one replica a partition has no leader while its node is down.
    #[must_use]
    pub fn default_replication(mut self, replicas: u16) -> Self {
        self.default_replication = i16::try_from(replicas.max(1)).unwrap_or(i16::MAX);
        self
    }

    /// Sets whether a Metadata request that allows it creates an unknown topic (default true).
    #[must_use]
    pub fn auto_create(mut self, auto_create: bool) -> Self {
        self.auto_create = auto_create;
        self
    }

    /// Sets the Kafka error code of a topic in the Metadata response that creates it (default none:
    /// its leaders are elected at once). Kafka returns 3, UNKNOWN_TOPIC_OR_PARTITION; other brokers
    /// 5, LEADER_NOT_AVAILABLE.
    #[must_use]
    pub fn auto_create_first_error(mut self, error_code: i16) -> Self {
        self.auto_create_first_error = Some(error_code);
        self
    }

    /// Sets the allowed session timeouts of the classic protocol (default 6 s to 300 s).
    #[must_use]
    pub fn session_timeouts(mut self, min: Duration, max: Duration) -> Self {
        self.session_timeout_min = min;
        self.session_timeout_max = max;
        self
    }

    /// Sets the delay of the first rebalance of an empty group, for more members to join (default
    /// 0; Kafka's is 3 s).
    #[must_use]
    pub fn initial_rebalance_delay(mut self, delay: Duration) -> Self {
        self.initial_rebalance_delay = delay;
        self
    }

    /// Sets heartbeat interval and session timeout of the `consumer` protocol (default 5 s and 45
    /// s). There the broker sets both; in the classic protocol the client does.
    #[must_use]
    pub fn consumer_protocol_timeouts(mut self, heartbeat_interval: Duration, session_timeout: Duration) -> Self {
        self.heartbeat_interval = heartbeat_interval;
        self.session_timeout = session_timeout;
        self
    }

    /// Sets the maximum bytes of a record batch, for topics without `max.message.bytes` (default
    /// 1,048,588).
    #[must_use]
    pub fn max_message_bytes(mut self, bytes: u32) -> Self {
        self.max_message_bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        self
    }

    /// Sets the bytes that a partition retains, for topics without `retention.bytes` (default:
    /// unlimited). The newest batch is always retained.
    #[must_use]
    pub fn retention_bytes(mut self, bytes: u64) -> Self {
        self.retention_bytes = Some(bytes);
        self
    }

    /// Sets whether each record of a produced batch is validated, as Kafka does, or only the header
    /// and checksum (default true). Batches of codecs other than none and gzip are not
    /// decompressed.
    #[must_use]
    pub fn check_records(mut self, check: bool) -> Self {
        self.check_records = check;
        self
    }

    /// Sets whether a Fetch response may end with a partial batch at a size limit, as Kafka's may
    /// (default false).
    #[must_use]
    pub fn partial_batches(mut self, cut: bool) -> Self {
        self.partial_batches = cut;
        self
    }

    /// Sets the maximum timeout of a transaction (default 900 s), and the time after which an idle
    /// transactional id is forgotten (default 7 days).
    #[must_use]
    pub fn transaction_timeouts(mut self, max: Duration, expiration: Duration) -> Self {
        self.max_transaction_timeout = max;
        self.transactional_id_expiration = expiration;
        self
    }

    /// Sets how long a new coordinator of a transactional id responds COORDINATOR_LOAD_IN_PROGRESS
    /// after a move (default 0).
    #[must_use]
    pub fn coordinator_load_time(mut self, time: Duration) -> Self {
        self.coordinator_load_time = time;
        self
    }

    /// Sets whether a new coordinator of a transactional id knows the producer epoch before the last
    /// one (default true). Kafka's may not (KAFKA-20357): it fences a producer that repeats an
    /// InitProducerId whose response was lost.
    #[must_use]
    pub fn persist_last_epoch(mut self, persist: bool) -> Self {
        self.persists_last_epoch = persist;
        self
    }

    /// Sets the racks of the nodes, assigned round-robin (default none). A consumer with a rack is
    /// sent to a replica in that rack, as by Kafka's rack-aware replica selector.
    #[must_use]
    pub fn racks(mut self, racks: &[&str]) -> Self {
        self.racks = racks.iter().map(|&r| r.to_owned()).collect();
        self
    }

    /// Requires SASL authentication on every connection (default: none).
    #[must_use]
    pub fn sasl(mut self, sasl: Sasl) -> Self {
        self.sasl = Some(sasl);
        self
    }

    /// Sets a hook that sees every request before it is served; see
    /// [`Broker::set_hook`](crate::Broker::set_hook).
    #[must_use]
    pub fn hook(mut self, hook: impl Fn(&RequestInfo<'_>) -> Option<Fault> + Send + Sync + 'static) -> Self {
        self.hook = Some(Hook::new(hook));
        self
    }

    /// Makes all nodes listen with TLS (default: plaintext). Certificates and client authentication
    /// are part of rustls's configuration.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, server: crate::TlsServer) -> Self {
        self.tls = Some(server);
        self
    }

    pub(crate) fn host(&self) -> String {
        let listened = match self.listen.ip() {
            _ if self.in_memory => IN_MEMORY_HOST.to_owned(),
            ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            ip => ip.to_string(),
        };
        self.advertised_host.clone().unwrap_or(listened)
    }
}
