//! Settings of a broker.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::fault::{Fault, Hook, RequestInfo};
use crate::sasl::Sasl;
use crate::versions::Versions;

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
            #[cfg(feature = "tls")]
            tls: None,
            sasl: None,
            hook: None,
        }
    }
}

impl BrokerConfig {
    /// How many nodes the cluster has, at least 1 (default 1). Their ids count from 0.
    #[must_use]
    pub fn nodes(mut self, nodes: u16) -> Self {
        self.nodes = i32::from(nodes.max(1));
        self
    }

    /// Where node 0 listens (default 127.0.0.1, a free port). With a fixed port the other nodes take those that follow
    /// it; with port 0 each takes a free one.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// The host that clients are told to connect to (default: the address listened on, or 127.0.0.1 where that is
    /// "every interface").
    #[must_use]
    pub fn advertised_host(mut self, host: impl Into<String>) -> Self {
        self.advertised_host = Some(host.into());
        self
    }

    /// The port of node 0 that clients are told to connect to, where another one leads here (default: the one listened on). Other
    /// nodes have those that follow it.
    #[must_use]
    pub fn advertised_port(mut self, port: u16) -> Self {
        self.advertised_port = Some(port);
        self
    }

    /// The APIs and versions offered (default [`Versions::redpanda_24_3`]).
    #[must_use]
    pub fn versions(mut self, versions: Versions) -> Self {
        self.versions = versions;
        self
    }

    /// Partitions of a topic that is created without a number of its own, at least 1 (default 1).
    #[must_use]
    pub fn default_partitions(mut self, partitions: u16) -> Self {
        self.default_partitions = i32::from(partitions.max(1));
        self
    }

    /// Replicas of a topic that is created without a number of its own (default 1, at most one per node). With one
    /// replica a partition has no leader while its node is down; with several another node takes over.
    #[must_use]
    pub fn default_replication(mut self, replicas: u16) -> Self {
        self.default_replication = i16::try_from(replicas.max(1)).unwrap_or(i16::MAX);
        self
    }

    /// Whether a Metadata request for an unknown topic creates it, if the request allows it too (default true).
    #[must_use]
    pub fn auto_create(mut self, auto_create: bool) -> Self {
        self.auto_create = auto_create;
        self
    }

    /// The Kafka error code with which the very Metadata request is answered that creates a topic (default none: its
    /// leaders are known at once). Kafka answers 3, unknown topic; other brokers 5, leader not available.
    #[must_use]
    pub fn auto_create_first_error(mut self, error_code: i16) -> Self {
        self.auto_create_first_error = Some(error_code);
        self
    }

    /// The session timeouts that a group member may ask for (default 6 s to 300 s).
    #[must_use]
    pub fn session_timeouts(mut self, min: Duration, max: Duration) -> Self {
        self.session_timeout_min = min;
        self.session_timeout_max = max;
        self
    }

    /// How long an empty group waits for more members after the first one joins (default 0; Kafka's is 3 s).
    #[must_use]
    pub fn initial_rebalance_delay(mut self, delay: Duration) -> Self {
        self.initial_rebalance_delay = delay;
        self
    }

    /// How often a member of the `consumer` protocol is told to send a heartbeat, and how long it may be silent before its
    /// partitions go to others (default 5 s and 45 s). There the broker sets both times, in the classic protocol the client.
    #[must_use]
    pub fn consumer_protocol_timeouts(mut self, heartbeat_interval: Duration, session_timeout: Duration) -> Self {
        self.heartbeat_interval = heartbeat_interval;
        self.session_timeout = session_timeout;
        self
    }

    /// The largest record batch of a topic without a `max.message.bytes` of its own, in bytes as it stands in the log
    /// (default 1,048,588).
    #[must_use]
    pub fn max_message_bytes(mut self, bytes: u32) -> Self {
        self.max_message_bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        self
    }

    /// The bytes a partition keeps before its oldest batches are dropped, for topics without a `retention.bytes` of
    /// their own (default: all). The newest batch is always kept.
    #[must_use]
    pub fn retention_bytes(mut self, bytes: u64) -> Self {
        self.retention_bytes = Some(bytes);
        self
    }

    /// Whether each record of a produced batch is looked at, as Kafka does, not only the batch's header and checksum
    /// (default true). A gzip batch is decompressed for it; batches of other codecs are never looked into.
    #[must_use]
    pub fn check_records(mut self, check: bool) -> Self {
        self.check_records = check;
        self
    }

    /// Whether a fetch may end in the middle of a batch when it reaches a size limit, as Kafka's does (default false).
    #[must_use]
    pub fn partial_batches(mut self, cut: bool) -> Self {
        self.partial_batches = cut;
        self
    }

    /// The racks that the nodes stand in, dealt out to them one by one (default none). A consumer that names its rack is sent
    /// from the leader of a partition to a replica in that rack, as Kafka's rack-aware replica selector does.
    #[must_use]
    pub fn racks(mut self, racks: &[&str]) -> Self {
        self.racks = racks.iter().map(|&r| r.to_owned()).collect();
        self
    }

    /// Has every connection authenticate before anything else is served (default: nobody is asked).
    #[must_use]
    pub fn sasl(mut self, sasl: Sasl) -> Self {
        self.sasl = Some(sasl);
        self
    }

    /// A function that sees every request before it is served; see [`Broker::set_hook`](crate::Broker::set_hook).
    #[must_use]
    pub fn hook(mut self, hook: impl Fn(&RequestInfo<'_>) -> Option<Fault> + Send + Sync + 'static) -> Self {
        self.hook = Some(Hook::new(hook));
        self
    }

    /// Has all nodes listen with TLS (default: plaintext). Certificates, and whether clients need one, are rustls's to say.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, server: crate::TlsServer) -> Self {
        self.tls = Some(server);
        self
    }

    pub(crate) fn host(&self) -> String {
        let listened = match self.listen.ip() {
            ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            ip => ip.to_string(),
        };
        self.advertised_host.clone().unwrap_or(listened)
    }
}
