//! Publishes records with a key, without waiting for each: records of a key keep their order, and every delivery is checked.
//!
//! ```text
//! cargo run --example publish_in_order
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::time::Duration;

use ailurus::{Client, Config, ProducerRecord};
use ailurus_broker::{Broker, BrokerConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start(BrokerConfig::default()).await?;
    broker.create_topic("orders", 3)?;
    let client = Client::connect(Config::builder().brokers(broker.bootstrap()).build()?).await?;

    let producer = client.producer().linger(Duration::from_millis(5)).start()?;
    let mut deliveries = Vec::new();
    for n in 0..1_000 {
        let (key, value) = (format!("order-{}", n % 10), format!("step {}", n / 10));
        // Waits only while the buffer is full; the delivery completes later.
        deliveries.push(producer.send(ProducerRecord::to("orders").key(&key).value(&value)).await?);
    }
    let mut partitions = [0; 3];
    for delivery in deliveries {
        let ack = delivery.await?; // all in-sync replicas have it
        partitions[usize::try_from(ack.partition)?] += 1;
    }
    println!("1000 records acknowledged, by partition: {partitions:?}");

    producer.close(Duration::from_secs(10)).await?;
    client.close().await;
    broker.shutdown().await;
    Ok(())
}
