//! A record that fails is retried with backoff, then written to the dead-letter topic, which is read here.
//!
//! ```text
//! cargo run --example retry_and_dead_letter
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::time::Duration;

use ailurus::processor::DeadLetter;
use ailurus::{Client, Config, ConsumerEvent, Message, ProducerRecord, StartOffset, TopicPartition};
use ailurus_broker::{Broker, BrokerConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start(BrokerConfig::default()).await?;
    broker.create_topic("orders", 1)?;
    let client = Client::connect(Config::builder().brokers(broker.bootstrap()).build()?).await?;
    let producer = client.producer().start()?;
    producer.send(ProducerRecord::to("orders").key("o-1").value("pay").partition(0)).await?.await?;

    let handle = |message: Message| async move {
        println!("attempt {} at {}/{}@{}", message.attempt, message.topic, message.partition, message.offset);
        Err::<(), _>("the payment service is down")
    };
    let subscription = client
        .processor("billing")
        .max_attempts(3)
        .retry_backoff(Duration::from_millis(50))
        .subscribe(["orders"], handle)
        .await?;

    // Its topic is created when the subscription starts.
    let letters = TopicPartition::new("orders.dlq", 0);
    let mut reader = client.reader().assign(vec![(letters, StartOffset::Earliest)]).await?;
    let letter = loop {
        if let ConsumerEvent::Records(records) = reader.recv().await? {
            if let Some(letter) = records.records.first().and_then(|r| DeadLetter::parse(&r.headers)) {
                break letter;
            }
        }
    };
    println!(
        "dead letter of {}@{}: {} ({} attempts)",
        letter.origin.topic, letter.origin.offset, letter.error, letter.attempts
    );

    reader.close().await?;
    subscription.shutdown().await?;
    producer.close(Duration::from_secs(10)).await?;
    client.close().await;
    broker.shutdown().await;
    Ok(())
}
