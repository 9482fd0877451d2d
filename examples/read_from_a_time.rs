//! Reads a topic from a point in time to its end, without a consumer group.
//!
//! ```text
//! cargo run --example read_from_a_time
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::collections::BTreeSet;
use std::time::Duration;

use ailurus::{Client, Config, ConsumerEvent, ProducerRecord, StartOffset, Timestamp, TopicPartition};
use ailurus_broker::{Broker, BrokerConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start(BrokerConfig::default()).await?;
    broker.create_topic("orders", 3)?;
    let client = Client::connect(Config::builder().brokers(broker.bootstrap()).build()?).await?;
    let producer = client.producer().start()?;
    let midnight: Timestamp = "2026-01-31T00:00:00Z".parse()?;
    for hour in 0..24_u16 {
        let at = midnight.saturating_add(Duration::from_secs(u64::from(hour) * 3600));
        let record = ProducerRecord::to("orders").partition(i32::from(hour % 3)).timestamp(at);
        producer.send(record.value(format!("hour {hour}"))).await?.await?;
    }

    let noon = StartOffset::Timestamp("2026-01-31T12:00:00Z".parse()?);
    let partitions: Vec<_> = (0..3).map(|n| (TopicPartition::new("orders", n), noon)).collect();
    let mut open: BTreeSet<_> = partitions.iter().map(|(partition, _)| partition.clone()).collect();
    let mut reader = client.reader().assign(partitions).await?;
    let mut read = 0;
    while !open.is_empty() {
        if let ConsumerEvent::Records(records) = reader.recv().await? {
            read += records.records.len();
            if records.lag() == 0 {
                open.remove(&records.topic_partition()); // an empty partition reports its end, too
            }
        }
    }
    println!("{read} records since noon");

    reader.close().await?;
    producer.close(Duration::from_secs(10)).await?;
    client.close().await;
    broker.shutdown().await;
    Ok(())
}
