//! A member of a consumer group that commits by hand after handling, and finishes before it releases a partition.
//!
//! ```text
//! cargo run --example consume_and_commit
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::time::Duration;

use ailurus::{Client, Config, ConsumerEvent, ProducerRecord};
use ailurus_broker::{Broker, BrokerConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start(BrokerConfig::default()).await?;
    broker.create_topic("orders", 3)?;
    let client = Client::connect(Config::builder().brokers(broker.bootstrap()).build()?).await?;
    let producer = client.producer().start()?;
    for n in 0..100 {
        producer.send(ProducerRecord::to("orders").value(n.to_string())).await?.await?;
    }

    let mut consumer = client.consumer("billing").subscribe(["orders"]).await?;
    let mut handled = 0;
    while handled < 100 {
        match consumer.recv().await? {
            ConsumerEvent::Records(records) => {
                handled += records.records.len(); // handle them here, in order
                consumer.commit(&[(records.topic_partition(), records.next_offset)]).await?;
            }
            ConsumerEvent::Assigned(added) => println!("assigned: {added:?}"),
            // All that was delivered is committed above: the partitions are released when this is dropped.
            ConsumerEvent::Revoked(revocation) => println!("revoked: {:?}", revocation.partitions),
            // Another member may have them already: commits for them fail.
            ConsumerEvent::Lost(lost) => println!("lost: {lost:?}"),
            _ => {}
        }
    }
    println!("{handled} records handled and committed");

    consumer.close().await?;
    producer.close(Duration::from_secs(10)).await?;
    client.close().await;
    broker.shutdown().await;
    Ok(())
}
