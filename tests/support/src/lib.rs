//! The broker that black-box tests run against, and what the tests of several members share: no file of
//! one is a module of another.
//!
//! With `AILURUS_TEST_BROKERS` set it is a real one, which must be on loopback unless
//! `AILURUS_TEST_ALLOW_REMOTE=1`. Otherwise each [`broker`] is an embedded one, with the versions
//! of `AILURUS_TEST_EMBEDDED`: `redpanda-24.3` (the default), `redpanda-26.2`, `kafka-3.9` or
//! `kafka`.
//! `scripts/test` runs the presets of Redpanda. No `REDPANDA_*` variable and no `.env` is read.

#![allow(missing_docs, missing_debug_implementations, reason = "only tests use it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

pub mod api_keys;
pub mod certs;
#[cfg(feature = "collector")]
pub mod collector;
pub mod faults;
pub mod history;
pub mod problems;
#[cfg(unix)]
pub mod process;
pub mod raw_client;
pub mod seeds;
pub mod transaction_cluster;
pub mod transaction_history;

use std::env;
use std::net::IpAddr;
use std::time::Duration;

use ailurus::admin::NewTopic;
use ailurus::{Admin, BrokerAddr, Client, Config, ConfigBuilder};
use ailurus_broker::{Broker, BrokerConfig, Versions};

/// A broker, and the prefix of what one test creates there. Dropping it deletes everything with
/// that prefix: declare it first, so that clients are closed before.
pub struct TestBroker {
    bootstrap: String,
    prefix: String,
    embedded: Option<Broker>,
}

/// Returns the configured broker, or a new embedded one with three nodes.
pub async fn broker() -> TestBroker {
    broker_offering(embedded_versions()).await
}

/// Returns the configured broker, or a new embedded one with these versions.
pub async fn broker_offering(versions: Versions) -> TestBroker {
    let prefix = format!("ailurus-test-{}-", uuid::Uuid::now_v7().simple());
    if let Some(bootstrap) = env::var("AILURUS_TEST_BROKERS").ok().filter(|b| !b.is_empty()) {
        refuse_remote(&bootstrap);
        return TestBroker { bootstrap, prefix, embedded: None };
    }
    start(prefix, |config| config.versions(versions)).await
}

/// Returns whether the tests run on a real broker.
pub fn has_real_broker() -> bool {
    env::var("AILURUS_TEST_BROKERS").is_ok_and(|brokers| !brokers.is_empty())
}

/// Starts an embedded broker with changed settings; `None` if the tests run on a real one.
pub async fn embedded(change: impl FnOnce(BrokerConfig) -> BrokerConfig) -> Option<TestBroker> {
    if has_real_broker() { None } else { Some(start("ailurus-test-".into(), change).await) }
}

async fn start(prefix: String, change: impl FnOnce(BrokerConfig) -> BrokerConfig) -> TestBroker {
    let config = BrokerConfig::default()
        .nodes(3)
        .default_partitions(3)
        .versions(embedded_versions())
        .consumer_protocol_timeouts(Duration::from_millis(200), Duration::from_secs(5))
        .session_timeouts(Duration::from_millis(100), Duration::from_secs(300));
    let embedded = Broker::start(change(config)).await.expect("the embedded broker starts");
    TestBroker { bootstrap: embedded.bootstrap(), prefix, embedded: Some(embedded) }
}

impl TestBroker {
    /// Returns the bootstrap servers.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Returns the prefix of the names of this test.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the name of this test's topic `name`.
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Returns the name of this test's group `name`.
    pub fn group(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Returns a configuration for this broker, to build on.
    pub fn config(&self) -> ConfigBuilder {
        Config::builder().brokers(self.bootstrap.as_str())
    }

    /// Returns the shortest session timeout that the broker allows, after which a killed member
    /// expires.
    pub fn shortest_session(&self) -> Duration {
        if self.embedded.is_some() { Duration::from_secs(1) } else { Duration::from_secs(6) }
    }

    /// Returns the embedded broker; `None` if the tests run on a real one.
    pub fn embedded(&self) -> Option<&Broker> {
        self.embedded.as_ref()
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        if self.embedded.is_some() {
            return; // its state is lost with the broker
        }
        // On a thread with its own runtime: this works after a panic too, and in a runtime of any
        // kind.
        let (config, prefix) = (self.config().build(), self.prefix.clone());
        let cleanup = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let client = Client::connect(config?).await?;
                let result = delete_all(&client, &prefix).await;
                client.close().await;
                result
            })
        });
        if let Ok(Err(error)) = cleanup.join() {
            eprintln!("not all of {}* could be deleted: {error}", self.prefix);
        }
    }
}

/// Creates a topic that retains records whatever their timestamps: brokers expire records by those.
pub async fn create_topic(client: &Client, name: &str, partitions: i32) -> ailurus::Result<()> {
    let new = NewTopic::new(name).partitions(partitions).config("retention.ms", "-1");
    Admin::new(client).create_topic_with(&new).await
}

/// Deletes the topics and groups with this prefix, as many as possible; returns the first error.
async fn delete_all(client: &Client, prefix: &str) -> ailurus::Result<()> {
    let admin = Admin::new(client);
    let mut result = Ok(());
    for group in admin.list_groups().await?.into_iter().filter(|g| g.group.starts_with(prefix)) {
        result = result.and(admin.delete_group(&group.group).await);
    }
    for topic in admin.list_topics().await?.into_iter().filter(|t| t.name.starts_with(prefix)) {
        result = result.and(admin.delete_topic(&topic.name).await);
    }
    result
}

/// Returns the versions that an embedded broker offers.
pub fn embedded_versions() -> Versions {
    match env::var("AILURUS_TEST_EMBEDDED").as_deref() {
        Err(_) | Ok("" | "redpanda-24.3") => Versions::redpanda_24_3(),
        Ok("redpanda-26.2") => Versions::redpanda_26_2(),
        Ok("kafka-3.9") => Versions::kafka_3_9(),
        Ok("kafka") => Versions::kafka(),
        Ok(other) => {
            panic!("AILURUS_TEST_EMBEDDED is {other:?}: allowed is redpanda-24.3, redpanda-26.2, kafka-3.9 or kafka")
        }
    }
}

/// Panics if a broker is not on loopback, unless `AILURUS_TEST_ALLOW_REMOTE=1`.
pub fn refuse_remote(bootstrap: &str) {
    if env::var("AILURUS_TEST_ALLOW_REMOTE").as_deref() == Ok("1") {
        return;
    }
    for address in bootstrap.split(',') {
        let broker: BrokerAddr = address.parse().expect("AILURUS_TEST_BROKERS is host:port,...");
        let loopback = broker.host() == "localhost" || broker.host().parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        assert!(
            loopback,
            "AILURUS_TEST_BROKERS has {address}, which is not on loopback. The tests create and delete topics and groups \
             there: set AILURUS_TEST_ALLOW_REMOTE=1 if that is meant."
        );
    }
}
