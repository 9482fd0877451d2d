//! A cluster of a test.

use std::time::Duration;

use ailurus::config::Transport;
use ailurus::{Acknowledgement, Client, Config, ConfigBuilder, Event, ProducerRecord, RedpandaService, SendOptions};
use ailurus_broker::{Broker, BrokerConfig, InMemoryNetwork, Versions};

use crate::clock;
use crate::error::TestError;
use crate::fault::Fault;
use crate::idle;
use crate::inject::{Faults, InjectedFault};
use crate::inspect::{self, DeadLetterRecord, StoredRecord};

/// Client id of the cluster's own client.
pub(crate) const PUBLISHER: &str = "ailurus-testing";
/// Time that a fetch waits for records. Brokers respond at once when there are any; an hour of the
/// default's 500 ms would be 7,200 requests.
const FETCH_MAX_WAIT: Duration = Duration::from_secs(10);
/// Default limit of `until_idle`, in test time.
const IDLE_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// A cluster in memory, on the paused clock of the test.
///
/// The application under test connects with [`config`](Self::config) or [`client`](Self::client).
/// Dropping the cluster stops its brokers.
///
/// ```
/// use ailurus_testing::{TestCluster, TestError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), TestError> {
/// let cluster = TestCluster::builder().nodes(3).seed(7).start().await?;
/// cluster.topic("orders", 6)?;
/// cluster.send("orders", "o-1", "paid").await?;
/// assert_eq!(cluster.records("orders").len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TestCluster {
    broker: Broker,
    network: InMemoryNetwork,
    faults: Faults,
    seed: u64,
    publisher: RedpandaService,
}

/// Settings of a [`TestCluster`].
///
/// ```
/// use ailurus_broker::Versions;
/// use ailurus_testing::{TestCluster, TestError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), TestError> {
/// let cluster = TestCluster::builder().nodes(3).versions(Versions::kafka()).start().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "it starts nothing by itself"]
pub struct TestClusterBuilder {
    config: BrokerConfig,
    nodes: u16,
    seed: u64,
}

impl Default for TestClusterBuilder {
    fn default() -> Self {
        Self { config: BrokerConfig::default(), nodes: 1, seed: 0 }
    }
}

impl TestClusterBuilder {
    /// Sets the number of nodes; by default 1. Each partition has a replica on each node.
    pub fn nodes(mut self, nodes: u16) -> Self {
        self.nodes = nodes.max(1);
        self
    }

    /// Sets the seed of what is random; by default 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the APIs and versions to offer; by default those of Redpanda 24.3.
    pub fn versions(self, versions: Versions) -> Self {
        self.broker(|config| config.versions(versions))
    }

    /// Changes other settings of the broker.
    pub fn broker(mut self, set: impl FnOnce(BrokerConfig) -> BrokerConfig) -> Self {
        self.config = set(self.config);
        self
    }

    /// Pauses the clock of the runtime, and starts the cluster.
    ///
    /// # Errors
    /// [`TestError::Runtime`] if the runtime has several threads.
    pub async fn start(self) -> Result<TestCluster, TestError> {
        clock::pause()?;
        fastrand::seed(self.seed);
        let config = self.config.nodes(self.nodes).default_replication(self.nodes).in_memory();
        let broker = Broker::start(config).await?;
        // There is one, as it listens in memory.
        let network = broker.in_memory_network().unwrap_or_default();
        let faults = Faults::install(&broker, self.seed);
        let publisher = RedpandaService::connect(config_of(&broker, &network).client_id(PUBLISHER).build()?).await?;
        Ok(TestCluster { broker, network, faults, seed: self.seed, publisher })
    }
}

fn config_of(broker: &Broker, network: &InMemoryNetwork) -> ConfigBuilder {
    let network = network.clone();
    Config::builder()
        .brokers(broker.bootstrap())
        .fetch_max_wait(FETCH_MAX_WAIT)
        .transport(Transport::in_memory(move |addr| network.connect(addr.port())))
}

impl TestCluster {
    /// Pauses the clock of the runtime, and starts a cluster of one node.
    ///
    /// # Errors
    /// [`TestError::Runtime`] if the runtime has several threads.
    pub async fn start() -> Result<Self, TestError> {
        Self::builder().start().await
    }

    /// Starts from the defaults.
    pub fn builder() -> TestClusterBuilder {
        TestClusterBuilder::default()
    }

    /// Returns the seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Returns the broker, whose methods inspect and change everything.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Returns the settings of a client of this cluster, to build on: the brokers' addresses, and
    /// that connections are in memory. An application that takes a
    /// [`Config`](ailurus::Config) is tested with its own settings on top. One differs from the
    /// defaults: [`fetch_max_wait`](ailurus::ConsumerConfig::fetch_max_wait) is 10 s, so that hours
    /// pass with few requests.
    pub fn config(&self) -> ConfigBuilder {
        config_of(&self.broker, &self.network)
    }

    /// Connects a client with the default settings. Faults and isolation can name its client id.
    ///
    /// # Errors
    /// [`TestError::Client`] if no node is reachable, or the id is invalid.
    pub async fn client(&self, client_id: &str) -> Result<Client, TestError> {
        Ok(Client::connect(self.config().client_id(client_id).build()?).await?)
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// [`TestError::Broker`] if it exists, or name or partition count is invalid.
    pub fn topic(&self, name: &str, partitions: i32) -> Result<(), TestError> {
        Ok(self.broker.create_topic(name, partitions)?)
    }

    /// Publishes an event with a key, as [`RedpandaService::send_message`] does, and waits for the
    /// acknowledgement.
    ///
    /// # Errors
    /// [`TestError::Client`] if the event can't be encoded or sent.
    pub async fn publish<E: Event + serde::Serialize>(
        &self,
        topic: &str,
        key: &str,
        event: &E,
    ) -> Result<Acknowledgement, TestError> {
        Ok(self.publisher.send_message(topic, event, SendOptions::new().key(key)).await?)
    }

    /// Sends a record with a key and a value of bytes, and waits for the acknowledgement.
    ///
    /// # Errors
    /// [`TestError::Client`] if it can't be sent.
    pub async fn send(&self, topic: &str, key: &str, value: impl AsRef<[u8]>) -> Result<Acknowledgement, TestError> {
        let record = ProducerRecord::to(topic).key(key).value(value.as_ref());
        Ok(self.publisher.producer().send(record).await?.await?)
    }

    /// Waits until all groups with members have handled and committed every record of their
    /// partitions, and nothing has come for 5 s of test time. The clock jumps over backoffs.
    ///
    /// # Errors
    /// [`TestError::NotIdle`] if something is pending after 24 hours of test time, by partition.
    pub async fn until_idle(&self) -> Result<(), TestError> {
        self.until_idle_within(IDLE_LIMIT).await
    }

    /// Waits like [`until_idle`](Self::until_idle), for at most this much test time.
    ///
    /// # Errors
    /// [`TestError::NotIdle`] if something is pending after it, by partition.
    pub async fn until_idle_within(&self, limit: Duration) -> Result<(), TestError> {
        idle::until_idle(&self.broker, limit).await.map_err(TestError::NotIdle)
    }

    /// Lets a time pass: every timer within it fires.
    pub async fn advance(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Returns the records that a group has handled: those below its committed offsets, by topic,
    /// partition and offset.
    pub fn handled(&self, group: &str) -> Vec<StoredRecord> {
        inspect::handled(&self.broker, group)
    }

    /// Returns the records in the log of a topic, by partition and offset, without those of open and
    /// aborted transactions; empty if there is no such topic.
    pub fn records(&self, topic: &str) -> Vec<StoredRecord> {
        inspect::records(&self.broker, topic)
    }

    /// Returns the dead letters of a topic: those in its dead-letter topic with the default suffix,
    /// `.dlq`.
    pub fn letters(&self, topic: &str) -> Vec<DeadLetterRecord> {
        let suffix = &self.publisher.client().config().processor.dead_letter_suffix;
        self.letters_in(&format!("{topic}{suffix}"))
    }

    /// Returns the dead letters in a dead-letter topic of any name.
    pub fn letters_in(&self, dead_letter_topic: &str) -> Vec<DeadLetterRecord> {
        inspect::dead_letters(&self.broker, dead_letter_topic)
    }

    /// Injects a fault into requests from now on.
    pub fn inject(&self, fault: Fault) -> InjectedFault {
        self.faults.inject(fault)
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.faults.clear();
    }

    /// Makes a node the leader of a partition.
    ///
    /// # Errors
    /// [`TestError::Broker`] if there is no such node or partition.
    pub fn move_leader(&self, topic: &str, partition: i32, node: i32) -> Result<(), TestError> {
        Ok(self.broker.move_leader(topic, partition, node)?)
    }

    /// Makes a node the coordinator of a group.
    ///
    /// # Errors
    /// [`TestError::Broker`] if there is no such node.
    pub fn move_coordinator(&self, group: &str, node: i32) -> Result<(), TestError> {
        Ok(self.broker.move_coordinator(group, node)?)
    }

    /// Stops a node at once: its connections are closed, others lead its partitions.
    ///
    /// # Errors
    /// [`TestError::Broker`] if there is no such node.
    pub async fn kill_node(&self, node: i32) -> Result<(), TestError> {
        Ok(self.broker.stop_node(node).await?)
    }

    /// Starts a node that was killed, with its records.
    ///
    /// # Errors
    /// [`TestError::Broker`] if there is no such node.
    pub async fn start_node(&self, node: i32) -> Result<(), TestError> {
        Ok(self.broker.start_node(node).await?)
    }

    /// Isolates a node from all clients until [`heal_network`](Self::heal_network): connections stay
    /// open, nothing arrives.
    ///
    /// # Errors
    /// [`TestError::Broker`] if there is no such node.
    pub fn isolate_node(&self, node: i32) -> Result<(), TestError> {
        Ok(self.broker.isolate_node(node)?)
    }

    /// Isolates a client from all nodes until [`heal_network`](Self::heal_network), by its client
    /// id: its handlers run on, and its session expires.
    pub fn isolate_client(&self, client_id: &str) {
        self.broker.isolate_client(client_id);
    }

    /// Ends all isolation; what was sent meanwhile arrives now.
    pub fn heal_network(&self) {
        self.broker.heal_network();
    }

    /// Closes the cluster's own client, and stops its nodes and waits for them.
    ///
    /// # Errors
    /// [`TestError::Client`] if events that were published could not be written.
    pub async fn shutdown(self) -> Result<(), TestError> {
        let closed = self.publisher.close(Duration::from_secs(10)).await;
        self.broker.shutdown().await;
        Ok(closed?)
    }
}
