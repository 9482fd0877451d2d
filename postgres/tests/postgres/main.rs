//! The inbox and the outbox on a real PostgreSQL, beside a broker: see `server.rs` for which.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod inbox;
mod kill;

mod outbox;
mod server;

use std::time::Duration;

use ailurus::{Admin, Client, Message, MessageStream, ProducerRecord, StartOffset, TopicPartition};
use ailurus_test_support::{self as support, TestBroker};
use futures_util::StreamExt;

/// More than any test needs.
const PATIENCE: Duration = Duration::from_secs(300);

/// A broker and a client of it.
struct Cluster {
    client: Client,
    broker: TestBroker,
}

impl Cluster {
    async fn start() -> Self {
        let broker = support::broker().await;
        let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
        Self { client, broker }
    }

    /// Returns the name of a new topic with one partition.
    async fn topic(&self, name: &str) -> String {
        let topic = self.broker.topic(name);
        Admin::new(&self.client).create_topic(&topic, 1, None).await.unwrap();
        topic
    }

    /// Sends records, and reads them again in a group.
    async fn messages(&self, topic: &str, group: &str, records: &[ProducerRecord<'_>]) -> Vec<Message> {
        let producer = self.client.producer().start().unwrap();
        for record in records {
            producer.send(record.as_borrowed()).await.unwrap().await.unwrap();
        }
        producer.close(PATIENCE).await.unwrap();
        self.read_in_group(topic, group, records.len()).await
    }

    /// Reads the first records of a topic as a new member of a group, which leaves it.
    async fn read_in_group(&self, topic: &str, group: &str, count: usize) -> Vec<Message> {
        let group = self.broker.group(group);
        let mut stream = self.client.consumer(group).subscribe([topic]).await.unwrap().into_stream();
        let messages = take(&mut stream, count).await;
        stream.close().await.unwrap();
        messages
    }

    /// Reads records of a topic from its start.
    async fn read(&self, topic: &str, count: usize) -> Vec<Message> {
        take(&mut self.reader(topic).await, count).await
    }

    /// Reads a topic from its start.
    async fn reader(&self, topic: &str) -> MessageStream {
        let start = (TopicPartition::new(topic, 0), StartOffset::Earliest);
        self.client.reader().assign([start]).await.unwrap().into_stream()
    }
}

/// Returns the next records of a stream.
async fn take(stream: &mut MessageStream, count: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let next = tokio::time::timeout(PATIENCE, stream.next()).await.expect("a record arrives");
        messages.push(next.unwrap().unwrap());
    }
    messages
}
