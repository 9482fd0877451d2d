//! Consumers: groups and rebalances, start offsets, ends of logs, faults.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod commits;
mod cooperative;
mod faults;
mod flow;
mod groups;
mod membership;
mod mixed;
mod modern;
mod positions;
mod reading;
mod streams;
mod transactions;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::consumer::ConsumerState;
use ailurus::{
    Admin, AssignorKind, Client, Compression, ConfigBuilder, Consumer, ConsumerConfig, ConsumerEvent, Error, ErrorKind,
    OffsetAndMetadata, OffsetReset, ProducerRecord, Records, StartOffset, Timestamp, TopicPartition,
};
use ailurus_broker::Fault;
use ailurus_test_support::{self as support, TestBroker};
use tokio::sync::{oneshot, watch};

/// No test takes this long; one that does has failed.
const LONG: Duration = Duration::from_secs(300);
const FETCH: i16 = 1;
const OFFSET_COMMIT: i16 = 8;
const JOIN_GROUP: i16 = 11;
const HEARTBEAT: i16 = 12;
const SYNC_GROUP: i16 = 14;

async fn connect(config: ConfigBuilder) -> Client {
    Client::connect(config.build().unwrap()).await.unwrap()
}

/// A client whose members are missed as early as the broker allows.
async fn client(broker: &TestBroker) -> Client {
    let session = broker.shortest_session();
    let config = broker.config().session_timeout(session).heartbeat_interval(session / 10);
    connect(config.rebalance_timeout(Duration::from_secs(20)).metadata_max_age(Duration::from_millis(500))).await
}

async fn topic(broker: &TestBroker, client: &Client, name: &str, partitions: i32) -> String {
    let topic = broker.topic(name);
    support::create_topic(client, &topic, partitions).await.unwrap();
    topic
}

/// Puts a record with each number as its value into partition number modulo `partitions`.
async fn produce(client: &Client, topic: &str, partitions: i32, numbers: Range<i32>, compression: Compression) {
    let producer = client.producer().start().unwrap();
    let mut sent = Vec::new();
    for n in numbers {
        let value = n.to_string();
        let at = Timestamp::from_millis(i64::from(n) + 1);
        let record = ProducerRecord::to(topic).value(&value).partition(n % partitions).timestamp(at);
        sent.push(producer.send(record.compression(compression)).await.unwrap());
    }
    for delivery in sent {
        delivery.await.unwrap();
    }
    producer.close(LONG).await.unwrap();
}

fn numbers(records: &Records) -> impl Iterator<Item = i32> + '_ {
    records.records.iter().map(|r| std::str::from_utf8(r.value.as_ref().unwrap()).unwrap().parse().unwrap())
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, what).await.expect("it takes too long")
}

async fn next(consumer: &mut Consumer) -> ConsumerEvent {
    soon(consumer.recv()).await.unwrap()
}

async fn next_records(consumer: &mut Consumer) -> Records {
    loop {
        if let ConsumerEvent::Records(records) = next(consumer).await {
            return records;
        }
    }
}

async fn assigned(consumer: &mut Consumer) -> Vec<TopicPartition> {
    loop {
        if let ConsumerEvent::Assigned(partitions) = next(consumer).await {
            return partitions;
        }
    }
}

/// The first partitions that it gets: one that joins others may get none before they have given some up.
async fn some(consumer: &mut Consumer) -> Vec<TopicPartition> {
    loop {
        let partitions = assigned(consumer).await;
        if !partitions.is_empty() {
            return partitions;
        }
    }
}

/// Reads given partitions to their ends: what `exit at end` does.
async fn read_to_end(client: &Client, from: Vec<(TopicPartition, StartOffset)>, config: ConsumerConfig) -> Vec<i32> {
    let mut open: BTreeSet<_> = from.iter().map(|(p, _)| p.clone()).collect();
    let mut consumer = client.reader().config(config).assign(from).await.unwrap();
    let mut seen = Vec::new();
    while !open.is_empty() {
        let records = next_records(&mut consumer).await;
        seen.extend(numbers(&records));
        if records.next_offset >= records.end_offset() {
            open.remove(&records.topic_partition());
        }
    }
    consumer.close().await.unwrap();
    seen
}

/// Reads with a group until nothing is left, commits all, and leaves.
async fn drain(client: &Client, group: &str, topic: &str, config: ConsumerConfig) -> Vec<i32> {
    let mut consumer = client.consumer(group).config(config).subscribe([topic]).await.unwrap();
    let mut open: BTreeSet<_> = assigned(&mut consumer).await.into_iter().collect();
    let mut seen = Vec::new();
    while !open.is_empty() {
        let records = next_records(&mut consumer).await;
        seen.extend(numbers(&records));
        consumer.commit(&[(records.topic_partition(), records.next_offset)]).await.unwrap();
        if records.lag() == 0 {
            open.remove(&records.topic_partition());
        }
    }
    consumer.close().await.unwrap();
    seen
}

fn all(topic: &str, partitions: i32, from: StartOffset) -> Vec<(TopicPartition, StartOffset)> {
    (0..partitions).map(|p| (TopicPartition::new(topic, p), from)).collect()
}

fn sorted(mut numbers: Vec<i32>) -> Vec<i32> {
    numbers.sort_unstable();
    numbers
}
