//! A running broker: starting, stopping, and what can happen to its nodes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, NewTopic};
use crate::config::BrokerConfig;
use crate::error::{ApiError, BrokerError};
use crate::fault::{Fault, Hook, RequestInfo};
use crate::node::{self, ReservedPort, RunningNode};
use crate::shared::Shared;
use crate::topic_config::TopicConfig;

/// A running broker of one or several nodes.
///
/// Its methods work on the broker's state at once, without the wire. [`shutdown`](Self::shutdown) ends all of its tasks
/// and waits for them; dropping it ends them without waiting.
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
    /// By node id; `None` while a node is stopped.
    running: Mutex<BTreeMap<i32, RunningNode>>,
    /// Ports of the nodes that are stopped.
    ports: Mutex<BTreeMap<i32, ReservedPort>>,
    ticker: Option<JoinHandle<()>>,
}

impl Broker {
    /// Starts a broker; when this returns, its nodes listen.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Listen`] if an address is taken or not this machine's. Nothing keeps running then.
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn start(config: BrokerConfig) -> Result<Self, BrokerError> {
        let mut listeners = Vec::new();
        for node in 0..config.nodes {
            let offset = u16::try_from(node).unwrap_or(0);
            let port = if config.listen.port() == 0 { 0 } else { config.listen.port().saturating_add(offset) };
            listeners.push(listen(node, SocketAddr::new(config.listen.ip(), port)).await?);
        }
        let advertised =
            |node: u16, listened| config.advertised_port.map_or(listened, |first| first.saturating_add(node));
        let ports = (0..).zip(&listeners).map(|(node, (_, port))| (*port, advertised(node, *port)));
        let cluster = Cluster::new(ports, &config.racks);
        let shared = Arc::new(Shared::new(config, cluster));
        let running =
            (0..).zip(listeners).map(|(id, (l, _))| (id, RunningNode::start(shared.clone(), id, l))).collect();
        let ticker = Some(tokio::spawn(run_group_timers(shared.clone())));
        Ok(Self { shared, running: Mutex::new(running), ports: Mutex::default(), ticker })
    }

    /// The addresses of all nodes, up or down, as clients want them: `host:port,host:port`.
    pub fn bootstrap(&self) -> String {
        let host = bracketed(&self.shared.config.host());
        let cluster = self.shared.cluster();
        cluster.nodes.iter().map(|n| format!("{host}:{}", n.advertised_port)).collect::<Vec<_>>().join(",")
    }

    /// Where the nodes listen, in their order.
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        let ip = self.shared.config.listen.ip();
        self.shared.cluster().nodes.iter().map(|n| SocketAddr::new(ip, n.port)).collect()
    }

    /// The address of one node, as `host:port`.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownNode`].
    pub fn address(&self, node: i32) -> Result<String, BrokerError> {
        let host = bracketed(&self.shared.config.host());
        let cluster = self.shared.cluster();
        cluster.node(node).map(|n| format!("{host}:{}", n.advertised_port)).ok_or(BrokerError::UnknownNode(node))
    }

    /// Creates a topic with the default number of replicas and default settings.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Topic`] if it exists, or the name or number is not allowed.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), BrokerError> {
        self.create_topic_with(name, partitions, &[])
    }

    /// Creates a topic with settings of its own: `cleanup.policy`, `compression.type`, `max.message.bytes`,
    /// `min.insync.replicas`, `retention.bytes` or `retention.ms`.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Topic`] if it exists, or the name, the number or a setting is not allowed.
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

    /// Deletes a topic with its records and the offsets committed for it. Whether it was there.
    pub fn delete_topic(&self, name: &str) -> bool {
        self.shared.delete_topic(name)
    }

    /// Grows a topic to `partitions` partitions.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Topic`] if it does not exist or has as many already.
    pub fn grow_topic(&self, name: &str, partitions: i32) -> Result<(), BrokerError> {
        let grown = self.shared.cluster().grow_topic(name, partitions, false);
        grown.map_err(|error| topic_error(name, error))
    }

    /// Makes another node lead a partition: the old one answers "not leader" from now on. Waiting fetches end with it.
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

    /// The node that leads a partition; `None` while every node that has it is down.
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

    /// Makes another node coordinate a group: members that wait at the old one are sent away with "not coordinator".
    /// The group keeps its members, whose sessions begin anew.
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

    /// The node that coordinates a group, whether the group exists or not; `None` while all nodes are down.
    pub fn coordinator(&self, group: &str) -> Option<i32> {
        let node = self.shared.cluster().coordinator(group);
        (node >= 0).then_some(node)
    }

    /// Takes a node down: it stops listening and its connections are closed. Another node that has a replica takes over
    /// its partitions, and another its groups. Stopping a node that is down does nothing.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownNode`].
    ///
    /// # Cancellation
    ///
    /// Dropping the future still takes the node down, without waiting for its connections to end.
    pub async fn stop_node(&self, node: i32) -> Result<(), BrokerError> {
        self.check_node(node)?;
        let coordinated = self.groups_of(node);
        self.shared.cluster().set_up(node, false);
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

    /// Brings a node back on the port it had, with its partitions' records. Starting a node that is up does nothing.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownNode`]; [`BrokerError::Listen`] if another program has taken the port meanwhile.
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves the node as it was.
    pub async fn start_node(&self, node: i32) -> Result<(), BrokerError> {
        let port = self.shared.cluster().node(node).map(|n| n.port).ok_or(BrokerError::UnknownNode(node))?;
        if self.running().contains_key(&node) {
            return Ok(());
        }
        let address = SocketAddr::new(self.shared.config.listen.ip(), port);
        let reserved = self.ports.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
        let listener = match reserved {
            Some(port) => port.listen().map_err(|source| BrokerError::Listen { node, address, source })?,
            None => listen(node, address).await?.0,
        };
        // Groups that come home leave the node that stood in.
        let before = self.all_coordinators();
        self.shared.cluster().set_up(node, true);
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

    /// Has `hook` look at every request before it is served, on all nodes, and spoil those it likes. It takes the place
    /// of the hook before. The hook runs on the connection's task and must not block.
    pub fn set_hook(&self, hook: impl Fn(&RequestInfo<'_>) -> Option<Fault> + Send + Sync + 'static) {
        self.shared.set_hook(Some(Hook::new(hook)));
    }

    /// Removes the hook.
    pub fn clear_hook(&self) {
        self.shared.set_hook(None);
    }

    /// Has connections from now on speak TLS so, or plaintext; those that are open stay as they are.
    #[cfg(feature = "tls")]
    pub fn set_tls(&self, server: Option<crate::TlsServer>) {
        self.shared.set_tls(server);
    }

    /// Stops listening, closes all connections, ends every task and waits for them.
    ///
    /// # Cancellation
    ///
    /// Dropping the future ends the tasks without waiting for them.
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

/// Runs the timers of groups (sessions, rebalances) until it is aborted.
pub(crate) async fn run_group_timers(shared: Arc<Shared>) {
    let changed = shared.groups().changed();
    loop {
        let now = shared.now();
        let deadline = shared.groups().tick(now);
        let woken = changed.notified();
        match deadline {
            // A deadline that stays where it is must not make this loop spin.
            Some(deadline) => {
                let sleep = tokio::time::sleep_until(deadline.max(now + Duration::from_millis(1)).into());
                tokio::select! {
                    () = sleep => {}
                    () = woken => {}
                }
            }
            None => woken.await,
        }
    }
}

async fn listen(node: i32, address: SocketAddr) -> Result<(TcpListener, u16), BrokerError> {
    node::listen(address).await.map_err(|source| BrokerError::Listen { node, address, source })
}

/// An IPv6 address needs brackets before a port.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn topic_error(topic: &str, error: ApiError) -> BrokerError {
    BrokerError::Topic { topic: topic.into(), code: error.code(), message: error.message }
}
