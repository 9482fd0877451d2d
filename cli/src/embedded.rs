//! The in-memory broker inside this process.

use std::net::SocketAddr;
use std::time::Duration;

use ailurus_broker::{Broker, BrokerConfig, Versions};
use anyhow::anyhow;
use clap::ValueEnum;

/// Broker whose protocol versions are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    #[value(name = "redpanda-24.3")]
    Redpanda24,
    #[value(name = "redpanda-26.2")]
    Redpanda26,
    #[value(name = "kafka-3.9")]
    Kafka39,
    Kafka,
}

impl Preset {
    fn versions(self) -> Versions {
        match self {
            Preset::Redpanda24 => Versions::redpanda_24_3(),
            Preset::Redpanda26 => Versions::redpanda_26_2(),
            Preset::Kafka39 => Versions::kafka_3_9(),
            Preset::Kafka => Versions::kafka(),
        }
    }
}

/// A running broker.
#[derive(Debug)]
pub struct Embedded {
    broker: Broker,
}

impl Embedded {
    /// Starts three nodes on free ports, with short session timeouts.
    pub async fn for_demo() -> anyhow::Result<Self> {
        let config =
            BrokerConfig::default().nodes(3).session_timeouts(Duration::from_millis(100), Duration::from_secs(300));
        Self::start(config).await
    }

    /// Starts the broker of `ailurus broker`.
    pub async fn listen(
        address: SocketAddr,
        advertised: Option<(String, Option<u16>)>,
        nodes: u16,
        partitions: u16,
        preset: Preset,
    ) -> anyhow::Result<Self> {
        let mut config = BrokerConfig::default()
            .nodes(nodes)
            .listen(address)
            .default_partitions(partitions)
            .versions(preset.versions());
        if let Some((host, port)) = advertised {
            config = config.advertised_host(host);
            config = port.into_iter().fold(config, BrokerConfig::advertised_port);
        }
        Self::start(config).await
    }

    async fn start(config: BrokerConfig) -> anyhow::Result<Self> {
        // Its errors have their causes in their text.
        let broker = Broker::start(config).await.map_err(|e| anyhow!("{e}"))?;
        Ok(Self { broker })
    }

    /// Returns the addresses on which it listens, with commas between.
    pub fn listen_addresses(&self) -> String {
        self.broker.listen_addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// Returns the advertised addresses, with commas between.
    pub fn brokers(&self) -> String {
        self.broker.bootstrap()
    }

    /// Stops its tasks and frees its ports.
    pub async fn stop(self) {
        self.broker.shutdown().await;
    }
}
