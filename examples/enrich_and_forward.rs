//! A pipeline: each order is read, enriched and forwarded to another topic. The offset is committed when the new record is
//! acknowledged; after a crash it may be forwarded again, under the same id.
//!
//! ```text
//! cargo run --example enrich_and_forward
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::time::Duration;

use ailurus::{Client, Config, ConsumerEvent, Error, Headers, Message, Producer, ProducerRecord};
use ailurus_broker::{Broker, BrokerConfig};

async fn forward(producer: Producer, message: Message) -> Result<(), Error> {
    let id = format!("{}-{}-{}", message.topic, message.partition, message.offset);
    let headers = Headers::new().with("ce_id", &id); // the same each time
    let value = [message.value.as_deref().unwrap_or_default(), b", checked"].concat();
    let mut record = ProducerRecord::to("checked-orders").value(value).headers(headers);
    record.key = message.key.map(Into::into);
    producer.send(record).await?.await.map(drop)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start(BrokerConfig::default()).await?;
    broker.create_topic("orders", 3)?;
    broker.create_topic("checked-orders", 3)?;
    let client = Client::connect(Config::builder().brokers(broker.bootstrap()).build()?).await?;
    let producer = client.producer().start()?;
    for n in 0..100 {
        let record = ProducerRecord::to("orders").key(format!("o-{n}")).value("order");
        drop(producer.send(record).await?); // flushed by `close`
    }

    let output = producer.clone();
    let handle = move |message: Message| forward(output.clone(), message);
    let subscription = client.processor("checks").subscribe(["orders"], handle).await?;

    let mut consumer = client.consumer("shipping").subscribe(["checked-orders"]).await?;
    let mut arrived = 0;
    while arrived < 100 {
        if let ConsumerEvent::Records(records) = consumer.recv().await? {
            arrived += records.records.len();
        }
    }
    println!("{arrived} orders forwarded");

    consumer.close().await?;
    subscription.shutdown().await?;
    producer.close(Duration::from_secs(10)).await?;
    client.close().await;
    broker.shutdown().await;
    Ok(())
}
