//! TLS: the whole path over it, client certificates, files that change, and what each thing that goes wrong is called. The broker
//! is always the embedded one; `tests/kafka/security.rs` does the like with Kafka.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod files;
mod outages;
mod refusals;

use std::path::PathBuf;
use std::time::Duration;

use ailurus::{
    Client, Compression, Config, ConfigBuilder, ConsumerEvent, Error, ProducerRecord, SecurityProtocol, TlsConfig,
};
use ailurus_broker::{Broker, BrokerConfig, TlsServer};
use ailurus_test_support::certs::{self, Authority, Issued};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(300);
const HERE: &[&str] = &["localhost", "127.0.0.1"];

/// A broker with TLS, the authority of its certificate, and a directory for files.
struct Secured {
    broker: Broker,
    authority: Authority,
    dir: TempDir,
}

impl Secured {
    /// As `server` says, for an authority of its own.
    async fn start(server: impl FnOnce(&Authority) -> TlsServer) -> Self {
        let authority = Authority::new("brokers");
        let broker = start(server(&authority)).await;
        Self { broker, authority, dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        certs::file(self.dir.path(), name, text)
    }

    /// TLS settings that trust this broker.
    fn tls(&self) -> TlsConfig {
        let mut tls = TlsConfig::default();
        tls.ca_file = Some(self.file("ca.pem", &self.authority.own().cert));
        tls
    }

    /// The same, with a certificate of the client.
    fn tls_as(&self, client: &Issued) -> TlsConfig {
        let mut tls = self.tls();
        tls.cert_file = Some(self.file("client.pem", &client.cert));
        tls.key_file = Some(self.file("client.key", &client.key));
        tls
    }

    fn config(&self, tls: TlsConfig) -> ConfigBuilder {
        config(&self.broker).tls(|_| tls)
    }
}

async fn start(server: TlsServer) -> Broker {
    Broker::start(BrokerConfig::default().nodes(3).tls(server)).await.unwrap()
}

fn config(broker: &Broker) -> ConfigBuilder {
    Config::builder().brokers(broker.bootstrap()).security_protocol(SecurityProtocol::Ssl)
}

/// Returns the error of a client that can't connect.
async fn error(config: ConfigBuilder) -> Error {
    Client::connect(config.build().unwrap()).await.expect_err("a client that can't connect")
}

async fn produce(client: &Client, topic: &str, values: &[Vec<u8>], compression: Compression) {
    let mut config = client.config().producer.clone();
    config.compression = compression;
    let producer = client.producer().config(config).start().unwrap();
    let mut sent = Vec::new();
    for (i, value) in values.iter().enumerate() {
        let partition = i32::try_from(i % 3).unwrap();
        sent.push(producer.send(ProducerRecord::to(topic).partition(partition).value(value)).await.unwrap());
    }
    for delivery in sent {
        delivery.await.unwrap();
    }
    producer.close(LONG).await.unwrap();
}

/// Reads so many records as a member of a group, and commits.
async fn consume(client: &Client, topic: &str, count: usize) -> Vec<Vec<u8>> {
    let settings = client.config().consumer.clone();
    let mut consumer = client.consumer("readers").config(settings).subscribe([topic]).await.unwrap();
    let mut values = Vec::new();
    let read = async {
        while values.len() < count {
            if let ConsumerEvent::Records(batch) = consumer.recv().await.unwrap() {
                values.extend(batch.records.iter().map(|r| r.value.as_deref().unwrap_or_default().to_vec()));
                consumer.commit(&[(batch.topic_partition(), batch.next_offset)]).await.unwrap();
            }
        }
    };
    tokio::time::timeout(LONG, read).await.expect("all records");
    consumer.close().await.unwrap();
    values.sort();
    values
}

/// Produces and reads, with records that take one piece of TLS and others that take many.
async fn there_and_back(secured: &Secured, tls: TlsConfig) {
    let client = Client::connect(secured.config(tls).build().unwrap()).await.unwrap();
    secured.broker.create_topic("orders", 3).unwrap();
    let mut values: Vec<Vec<u8>> = (0..200_u32).map(|i| i.to_be_bytes().to_vec()).collect();
    values.extend((0..6).map(|i| vec![i; 300_000]));
    produce(&client, "orders", &values, Compression::None).await;
    produce(&client, "orders", &values, Compression::Gzip { level: 4 }).await;
    let mut expected = [values.clone(), values].concat();
    expected.sort();
    assert!(consume(&client, "orders", expected.len()).await == expected);
    client.close().await;
}

#[tokio::test]
async fn records_round_trip_over_tls_1_3() {
    let secured = Secured::start(|a| a.issue(HERE).server()).await;
    there_and_back(&secured, secured.tls()).await;
}

#[tokio::test]
async fn records_round_trip_over_tls_1_2() {
    let secured = Secured::start(|a| a.issue(HERE).server_of(&[&rustls::version::TLS12], None)).await;
    there_and_back(&secured, secured.tls()).await;
}

#[tokio::test]
async fn a_client_certificate_is_accepted() {
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let secured = Secured::start(|a| a.issue(HERE).server_of(versions, Some(a))).await;
        there_and_back(&secured, secured.tls_as(&secured.authority.issue(&["client"]))).await;
    }
}

#[tokio::test]
async fn the_server_name_can_be_set() {
    let secured = Secured::start(|a| a.issue(&["kafka.example.com"]).server()).await;
    let mut tls = secured.tls();
    tls.server_name = Some("kafka.example.com".into());
    Client::connect(secured.config(tls).build().unwrap()).await.unwrap().close().await;
}
