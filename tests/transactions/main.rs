//! Transactions against a broker: what becomes visible and when, offsets that are committed with records, who is fenced.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod embedded;
mod ends;
mod fencing;
mod health;
mod offsets;
mod unknown;

use std::time::Duration;

use ailurus::producer::{TransactionAction, TransactionOutcome};
use ailurus::{
    Admin, Client, ConsumerEvent, ErrorKind, IsolationLevel, ProducerRecord, StartOffset, TopicPartition,
    TransactionalProducer,
};
use ailurus_test_support::{self as support, TestBroker};

/// More than any test needs, less than anyone wants to wait.
const PATIENCE: Duration = Duration::from_secs(300);

/// A topic of this test's own, and a client.
struct Setup {
    broker: TestBroker,
    client: Client,
    topic: String,
}

impl Setup {
    async fn new() -> Self {
        Self::on(support::broker().await).await
    }

    /// On an embedded broker with these versions, unless the tests run on a real one.
    async fn offering(versions: ailurus_broker::Versions) -> Self {
        Self::on(support::broker_offering(versions).await).await
    }

    async fn on(broker: TestBroker) -> Self {
        let config = broker.config().retry_backoff(Duration::from_millis(5)).build().unwrap();
        let client = Client::connect(config).await.unwrap();
        let topic = broker.topic("records");
        support::create_topic(&client, &topic, 3).await.unwrap();
        Self { broker, client, topic }
    }

    /// A transactional id of this test's own.
    fn id(&self) -> String {
        self.broker.group("id")
    }

    async fn producer(&self) -> TransactionalProducer {
        self.client.transactional_producer(self.id()).start().await.unwrap()
    }

    fn record<'a>(&'a self, partition: i32, value: &'a str) -> ProducerRecord<'a> {
        ProducerRecord::to(&*self.topic).partition(partition).value(value)
    }

    /// The values that a reader sees, up to the end of the log, or to the last stable offset of now.
    async fn read(&self, isolation_level: IsolationLevel, to_stable: bool) -> Vec<String> {
        let mut config = self.client.config().consumer.clone();
        config.isolation_level = isolation_level;
        let partitions: Vec<_> = (0..3).map(|p| TopicPartition::new(&*self.topic, p)).collect();
        let assignment = partitions.iter().map(|p| (p.clone(), StartOffset::Earliest));
        let mut consumer = self.client.reader().config(config).assign(assignment).await.unwrap();
        let mut open = match to_stable {
            true => consumer.end_offsets(&partitions).await.unwrap(),
            false => Admin::new(&self.client).list_offsets(&partitions, StartOffset::Latest).await.unwrap(),
        };
        open.retain(|_, end| *end > 0);
        let mut values = Vec::new();
        while !open.is_empty() {
            let event = tokio::time::timeout(PATIENCE, consumer.recv()).await.expect("records come").unwrap();
            if let ConsumerEvent::Records(batch) = event {
                values
                    .extend(batch.records.iter().map(|r| String::from_utf8(r.value.clone().unwrap().into()).unwrap()));
                if open.get(&batch.topic_partition()).is_some_and(|end| batch.next_offset >= *end) {
                    open.remove(&batch.topic_partition());
                }
            }
        }
        consumer.close().await.unwrap();
        values.sort();
        values
    }

    /// The values of committed transactions. Markers are written after the response to EndTxn: a reader at the end of the
    /// log has seen how each transaction ended.
    async fn committed(&self) -> Vec<String> {
        self.read(IsolationLevel::ReadCommitted, false).await
    }
}
