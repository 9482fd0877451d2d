//! The producer against a broker: where records go, what comes back, what is refused; and, on the embedded broker, what
//! happens when things break.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod delivery;
mod faults;
mod idempotence;
mod lifecycle;
mod partitioners;

use std::collections::BTreeMap;
use std::time::Duration;

use ailurus::{
    Admin, Client, ConfigBuilder, ConsumerEvent, Producer, ProducerConfig, Record, StartOffset, TopicPartition,
};
use ailurus_test_support::{self as support, TestBroker};

/// More than any test needs, less than anyone wants to wait.
const PATIENCE: Duration = Duration::from_secs(300);

/// A topic of this test's own, and a producer.
struct Setup {
    topic: String,
    client: Client,
    producer: Producer,
    broker: TestBroker,
}

impl Setup {
    async fn new(partitions: i32) -> Self {
        Self::with(partitions, |_| {}).await
    }

    /// With other settings of the producer.
    async fn with(partitions: i32, change: impl FnOnce(&mut ProducerConfig)) -> Self {
        Self::on(support::broker().await, partitions, |config| config, change).await
    }

    /// With other settings of the client, too.
    async fn on(
        broker: TestBroker,
        partitions: i32,
        config: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
        change: impl FnOnce(&mut ProducerConfig),
    ) -> Self {
        let topic = broker.topic("records");
        let quick =
            broker.config().retry_backoff(Duration::from_millis(5)).retry_backoff_max(Duration::from_millis(100));
        let client = Client::connect(config(quick).build().unwrap()).await.unwrap();
        // With time enough, which a test of short timeouts has not.
        let patient = Client::connect(broker.config().build().unwrap()).await.unwrap();
        support::create_topic(&patient, &topic, partitions).await.unwrap();
        patient.close().await;
        let mut settings = client.config().producer.clone();
        change(&mut settings);
        let producer = client.producer().config(settings).start().unwrap();
        Self { topic, client, producer, broker }
    }

    /// All that is in the topic.
    async fn read(&self) -> BTreeMap<i32, Vec<Record>> {
        read(&self.client, &self.topic).await
    }

    async fn close(self) {
        self.producer.close(PATIENCE).await.unwrap();
        self.client.close().await;
    }
}

/// All records of a topic, by partition.
async fn read(client: &Client, topic: &str) -> BTreeMap<i32, Vec<Record>> {
    let partitions = Admin::new(client).describe_topic(topic).await.unwrap().partitions;
    let partitions: Vec<_> = partitions.iter().map(|p| TopicPartition::new(topic, p.partition)).collect();
    let mut log: BTreeMap<i32, Vec<Record>> = partitions.iter().map(|p| (p.partition, Vec::new())).collect();
    let ends = Admin::new(client).list_offsets(&partitions, StartOffset::Latest).await.unwrap();
    let mut open: BTreeMap<i32, i64> = ends.into_iter().map(|(p, end)| (p.partition, end)).collect();
    open.retain(|_, end| *end > 0);
    let assignment = partitions.into_iter().map(|p| (p, StartOffset::Earliest));
    let mut consumer = client.reader().assign(assignment).await.unwrap();
    while !open.is_empty() {
        let event = tokio::time::timeout(PATIENCE, consumer.recv()).await.expect("records come").unwrap();
        if let ConsumerEvent::Records(batch) = event {
            if open.get(&batch.partition).is_some_and(|end| batch.next_offset >= *end) {
                open.remove(&batch.partition);
            }
            log.entry(batch.partition).or_default().extend(batch.records);
        }
    }
    consumer.close().await.unwrap();
    log
}

fn text(bytes: &Option<bytes::Bytes>) -> &str {
    std::str::from_utf8(bytes.as_deref().unwrap()).unwrap()
}

/// The records' values, as numbers; of those that are there twice, the first.
fn numbers(records: &[Record]) -> Vec<u32> {
    let mut seen = std::collections::HashSet::new();
    records.iter().map(|r| text(&r.value).parse().unwrap()).filter(|n| seen.insert(*n)).collect()
}
