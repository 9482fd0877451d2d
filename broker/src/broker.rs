//! A running broker: start, shutdown, topics, leaders and nodes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;

use crate::cluster::{Cluster, NewTopic};
use crate::config::{BrokerConfig, IN_MEMORY_PORT};
use crate::error::{ApiError, BrokerError};
use crate::fault::{Fault, Hook, RequestInfo};
use crate::in_memory::InMemoryNetwork;
use crate::listener::{self, Listener, ReservedPort};
use crate::node::RunningNode;
use crate::shared::Shared;
use crate::timers;
use crate::topic_config::TopicConfig;

/// A running broker of one or several nodes.
///
/// Its methods change the broker's state directly, without the wire. [`shutdown`](Self::shutdown)
/// stops its tasks and waits for them; dropping the broker aborts them.
///
/// ```
/// use ailurus_broker::{Broker, BrokerConfig, BrokerError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BrokerError> {
/// let broker = Broker::start(BrokerConfig::default().nodes(2)).await?;
/// broker.create_topic("orders", 4)?;
/// broker.move_leader("orders", 0, 1)?;
/// assert_eq!(broker.leader("orders", 0)?, Some(1));
/// broker.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Broker {
    pub(crate) shared: Arc<Shared>,
    /// Running nodes by id.
    running: Mutex<BTreeMap<i32, RunningNode>>,
    /// Ports reserved for stopped nodes.
    ports: Mutex<BTreeMap<i32, ReservedPort>>,
    /// None if the nodes listen on sockets.
    network: Option<InMemoryNetwork>,
    ticker: Option<JoinHandle<()>>,
}

impl Broker {
    /// Starts a broker. On return its nodes listen.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Listen`] if an address is in use or not local. No task is left running.
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn start(config: BrokerConfig) -> Result<Self, BrokerError> {
        let network = config.in_memory.then(InMemoryNetwork::default);
        let mut listeners = Vec::new();
        for node in 0..config.nodes {
            let offset = u16::try_from(node).unwrap_or(0);
            let first =
                if config.listen.port() == 0 && config.in_memory { IN_MEMORY_PORT } else { config.listen.port() };
            let port = if first == 0 { 0 } else { first.saturating_add(offset) };
            let address = SocketAddr::new(config.listen.ip(), port);
            listeners.push(listen(network.as_ref(), node, address).await?);
        }
        let advertised =
            |node: u16, listened| config.advertised_port.map_or(listened, |first| first.saturating_add(node));
        let ports = (0..).zip(&listeners).map(|(node, (_, port))| (*port, advertised(node, *port)));
        let cluster = Cluster::new(ports, &config.racks);
        let shared = Arc::new(Shared::new(config, cluster));
        let running =
            (0..).zip(listeners).map(|(id, (l, _))| (id, RunningNode::start(shared.clone(), id, l))).collect();
        let ticker = Some(tokio::spawn(timers::run(shared.clone())));
        Ok(Self { shared, running: Mutex::new(running), ports: Mutex::default(), network, ticker })
    }

    /// Returns the advertised addresses of all nodes, up or down: `host:port,host:port`.
    pub fn bootstrap(&self) -> String {
        let host = bracketed(&self.shared.config.host());
        let cluster = self.shared.cluster();
        cluster.nodes.iter().map(|n| format!("{host}:{}", n.advertised_port)).collect::<Vec<_>>().join(",")
    }

    /// Returns the listen addresses of the nodes, by node id.
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        let ip = self.shared.config.listen.ip();
        self.shared.cluster().nodes.iter().map(|n| SocketAddr::new(ip, n.port)).collect()
    }

    /// Returns the advertised address of one node, as `host:port`.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownNode`].
    pub fn address(&self, node: i32) -> Result<String, BrokerError> {
        let host = bracketed(&self.shared.config.host());
        let cluster = self.shared.cluster();
        cluster.node(node).map(|n| format!("{host}:{}", n.advertised_port)).ok_or(BrokerError::UnknownNode(node))
    }

    /// Returns the network by which clients connect to nodes that [listen in
    /// memory](BrokerConfig::in_memory); `None` if they listen on sockets.
    pub fn in_memory_network(&self) -> Option<InMemoryNetwork> {
        self.network.clone()
    }

    /// Creates a topic with the default replication factor and settings.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Topic`] if it exists, or the name or partition count is invalid.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), BrokerError> {
        self.create_topic_with(name, partitions, &[])
    }

    /// Creates a topic with these settings: `cleanup.policy`, `compression.type`,
    /// `max.message.bytes`, `min.insync.replicas`, `retention.bytes` or `retention.ms`.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Topic`] if it exists, or the name, partition count or a setting is invalid.
    pub fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<(), BrokerError> {
        let error = |error| topic_error(name, error);
        let mut config = TopicConfig::default();
        for (setting, value) in settings {
            config.set(setting, Some(value)).map_err(error)?;
        }
        let new = NewTopic { partitions, replication: -1, config, ..NewTopic::default() };
        self.shared.cluster().create_topic(&self.shared.config, name, new).map_err(error)?;
        Ok(())
    }

    /// Deletes a topic with its records and committed offsets. Returns false if there was none.
    pub fn delete_topic(&self, name: &str) -> bool {
        self.shared.delete_topic(name)
    }

    /// Grows a topic to `partitions` partitions.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Topic`] if it does not exist or has at least as many.
    pub fn grow_topic(&self, name: &str, partitions: i32) -> Result<(), BrokerError> {
        let grown = self.shared.cluster().grow_topic(name, partitions, false);
        grown.map_err(|error| topic_error(name, error))
    }

    /// Makes `node` the leader of a partition. The old leader returns NOT_LEADER_OR_FOLLOWER from
    /// now on, also to waiting fetches.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownNode`], [`BrokerError::UnknownPartition`].
    pub fn move_leader(&self, topic: &str, partition: i32, node: i32) -> Result<(), BrokerError> {
        self.check_node(node)?;
        if self.shared.cluster().move_leader(topic, partition, node) {
            Ok(())
        } else {
            Err(BrokerError::UnknownPartition { topic: topic.into(), partition })
        }
    }

    /// Returns the leader of a partition; `None` while all nodes with a replica are down.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownPartition`].
    pub fn leader(&self, topic: &str, partition: i32) -> Result<Option<i32>, BrokerError> {
        let mut cluster = self.shared.cluster();
        let unknown = || BrokerError::UnknownPartition { topic: topic.into(), partition };
        let leader = cluster.partition(topic, partition).ok_or_else(unknown)?.leader;
        Ok((leader >= 0).then_some(leader))
    }

    /// Makes `node` the coordinator of a group. Pending requests at the old coordinator fail with
    /// NOT_COORDINATOR. The group keeps its members, and their sessions start again.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownNode`].
    pub fn move_coordinator(&self, group: &str, node: i32) -> Result<(), BrokerError> {
        self.check_node(node)?;
        self.shared.cluster().move_coordinator(group, node);
        let now = self.shared.now();
        self.shared.groups().update(group, false, |g| g.on_coordinator_moved(now));
        Ok(())
    }

    /// Returns the coordinator of a group, which need not exist; `None` while all nodes are down.
    pub fn coordinator(&self, group: &str) -> Option<i32> {
        let node = self.shared.cluster().coordinator(group);
        (node >= 0).then_some(node)
    }

    /// Makes `node` the coordinator of a transactional id. The old one returns NOT_COORDINATOR from
    /// now on. The state of the id stays.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownNode`].
    pub fn move_transaction_coordinator(&self, transactional_id: &str, node: i32) -> Result<(), BrokerError> {
        self.check_node(node)?;
        self.shared.cluster().move_transaction_coordinator(transactional_id, node);
        self.on_transaction_coordinator_moved(transactional_id);
        Ok(())
    }

    /// Returns the coordinator of a transactional id, which need not exist; `None` while all nodes
    /// are down.
    pub fn transaction_coordinator(&self, transactional_id: &str) -> Option<i32> {
        let node = self.shared.cluster().transaction_coordinator(transactional_id);
        (node >= 0).then_some(node)
    }

    /// Changes the finalized level of the feature `transaction.version`, as an upgrade or downgrade
    /// of a running cluster does; 0 removes it. Clients see it in their next ApiVersions response.
    /// Returns false if the [versions](crate::Versions) don't support the level.
    pub fn set_transaction_version(&self, level: i16) -> bool {
        self.shared.features().set_transaction_version(level)
    }

    /// Returns the finalized level of `transaction.version`; `None` without that feature.
    pub fn transaction_version(&self) -> Option<i16> {
        self.shared.features().transaction_version()
    }

    /// Returns the API keys of the requests that a hook [holds](Fault::Hold), in the order of their
    /// arrival.
    pub fn held_requests(&self) -> Vec<i16> {
        self.shared.held().iter().map(|r| r.api as i16).collect()
    }

    /// Serves the requests that a hook [holds](Fault::Hold), one after the other in the order of
    /// their arrival, then writes the markers that it holds. Nobody receives the responses. Returns
    /// the number of requests and markers.
    ///
    /// # Cancellation
    ///
    /// Dropping the future drops the requests that are not served yet.
    pub async fn release_held(&self) -> usize {
        timers::release_held(&self.shared).await
    }

    /// Stops a node: it stops listening and closes its connections. Another node with a replica
    /// becomes leader of its partitions, and another node the coordinator of its groups. Does
    /// nothing if the node is down.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownNode`].
    ///
    /// # Cancellation
    ///
    /// Dropping the future still stops the node, without waiting for its connections to close.
    pub async fn stop_node(&self, node: i32) -> Result<(), BrokerError> {
        self.check_node(node)?;
        let coordinated = self.groups_of(node);
        let transactional_ids = self.transaction_coordinators();
        self.shared.cluster().set_up(node, false);
        self.on_transaction_coordinators_moved(transactional_ids);
        let now = self.shared.now();
        for group in coordinated {
            self.shared.groups().update(&group, false, |g| g.on_coordinator_moved(now));
        }
        let running = self.running().remove(&node);
        if let Some(running) = running {
            if let Some(port) = running.stop().await {
                self.ports.lock().unwrap_or_else(PoisonError::into_inner).insert(node, port);
            }
        }
        Ok(())
    }

    /// Starts a stopped node on its port, with its records. Does nothing if the node is up.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownNode`]; [`BrokerError::Listen`] if another process has taken the port.
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves the node stopped.
    pub async fn start_node(&self, node: i32) -> Result<(), BrokerError> {
        let port = self.shared.cluster().node(node).map(|n| n.port).ok_or(BrokerError::UnknownNode(node))?;
        if self.running().contains_key(&node) {
            return Ok(());
        }
        let address = SocketAddr::new(self.shared.config.listen.ip(), port);
        let reserved = self.ports.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
        let listener = match reserved {
            Some(port) => {
                Listener::Tcp(port.listen().map_err(|source| BrokerError::Listen { node, address, source })?)
            }
            None => listen(self.network.as_ref(), node, address).await?.0,
        };
        // Groups return to this node from the one that coordinated them meanwhile.
        let before = self.all_coordinators();
        let transactional_ids = self.transaction_coordinators();
        self.shared.cluster().set_up(node, true);
        self.on_transaction_coordinators_moved(transactional_ids);
        let now = self.shared.now();
        for (group, old) in before {
            if self.coordinator(&group) != old {
                self.shared.groups().update(&group, false, |g| g.on_coordinator_moved(now));
            }
        }
        let running = RunningNode::start(self.shared.clone(), node, listener);
        self.running().insert(node, running);
        Ok(())
    }

    /// Isolates a node from its clients until [`heal_network`](Self::heal_network): connections stay
    /// open, and neither requests nor responses arrive. It stays leader and coordinator.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownNode`].
    pub fn isolate_node(&self, node: i32) -> Result<(), BrokerError> {
        self.check_node(node)?;
        self.shared.isolation.isolate_node(node);
        Ok(())
    }

    /// Isolates the clients with this client id from all nodes until
    /// [`heal_network`](Self::heal_network), as [`isolate_node`](Self::isolate_node) does.
    pub fn isolate_client(&self, client_id: &str) {
        self.shared.isolation.isolate_client(client_id);
    }

    /// Ends all isolation. Requests and responses that were sent meanwhile arrive now, also those of
    /// connections that their client has closed since.
    pub fn heal_network(&self) {
        self.shared.isolation.heal();
    }

    /// Sets a hook that sees every request on all nodes before it is served, and may inject a
    /// fault. Replaces an earlier hook. The hook runs on the connection's task and must not block.
    pub fn set_hook(&self, hook: impl Fn(&RequestInfo<'_>) -> Option<Fault> + Send + Sync + 'static) {
        self.shared.set_hook(Some(Hook::new(hook)));
    }

    /// Removes the hook.
    pub fn clear_hook(&self) {
        self.shared.set_hook(None);
    }

    /// Makes new connections use TLS with this configuration, or plaintext. Open connections stay
    /// as they are.
    #[cfg(feature = "tls")]
    pub fn set_tls(&self, server: Option<crate::TlsServer>) {
        self.shared.set_tls(server);
    }

    /// Stops listening, closes all connections, and stops every task and waits for it.
    ///
    /// # Cancellation
    ///
    /// Dropping the future aborts the tasks without waiting for them.
    pub async fn shutdown(mut self) {
        let running = std::mem::take(&mut *self.running());
        for (_, node) in running {
            node.stop().await;
        }
        if let Some(ticker) = self.ticker.take() {
            ticker.abort();
            let _ = ticker.await;
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<i32, RunningNode>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_node(&self, node: i32) -> Result<(), BrokerError> {
        self.shared.cluster().node(node).map(|_| ()).ok_or(BrokerError::UnknownNode(node))
    }

    fn transaction_coordinators(&self) -> Vec<(String, i32)> {
        let transactions = self.shared.transactions();
        let cluster = self.shared.cluster();
        transactions.iter().map(|(id, _)| (id.to_owned(), cluster.transaction_coordinator(id))).collect()
    }

    /// Makes the new coordinators load the transactional ids that had others `before`.
    fn on_transaction_coordinators_moved(&self, before: Vec<(String, i32)>) {
        for (id, old) in before {
            let new = self.shared.cluster().transaction_coordinator(&id);
            if new != old {
                self.on_transaction_coordinator_moved(&id);
            }
        }
    }

    fn on_transaction_coordinator_moved(&self, transactional_id: &str) {
        let config = &self.shared.config;
        let loaded_at = self.shared.now() + config.coordinator_load_time;
        let mut transactions = self.shared.transactions();
        transactions.on_coordinator_moved(transactional_id, loaded_at, !config.persists_last_epoch);
    }

    fn all_coordinators(&self) -> Vec<(String, Option<i32>)> {
        let groups: Vec<String> = self.shared.groups().iter().map(|(id, _)| id.to_owned()).collect();
        groups.into_iter().map(|id| (id.clone(), self.coordinator(&id))).collect()
    }

    fn groups_of(&self, node: i32) -> Vec<String> {
        let all = self.all_coordinators().into_iter();
        all.filter(|(_, n)| *n == Some(node)).map(|(id, _)| id).collect()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(ticker) = &self.ticker {
            ticker.abort();
        }
    }
}

async fn listen(
    network: Option<&InMemoryNetwork>,
    node: i32,
    address: SocketAddr,
) -> Result<(Listener, u16), BrokerError> {
    if let Some(network) = network {
        return Ok((Listener::in_memory(network.listen(address.port())), address.port()));
    }
    let (listener, port) =
        listener::listen(address).await.map_err(|source| BrokerError::Listen { node, address, source })?;
    Ok((Listener::Tcp(listener), port))
}

/// An IPv6 address needs brackets before a port.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn topic_error(topic: &str, error: ApiError) -> BrokerError {
    BrokerError::Topic { topic: topic.into(), code: error.code(), message: error.message }
}
