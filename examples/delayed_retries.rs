//! A record whose dependency is down waits in retry topics, while later ones are handled; then it is a dead letter in a topic of its
//! own, and somebody is notified. The delays would be minutes and hours.
//!
//! ```text
//! cargo run --example delayed_retries
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::time::Duration;

use ailurus::{Client, Config, Message, ProducerRecord};
use ailurus_broker::{Broker, BrokerConfig};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start(BrokerConfig::default()).await?;
    broker.create_topic("orders", 1)?;
    let client = Client::connect(Config::builder().brokers(broker.bootstrap()).build()?).await?;
    let producer = client.producer().start()?;
    for order in ["o-1", "o-2"] {
        producer.send(ProducerRecord::to("orders").key(order).value("pay")).await?.await?;
    }

    let handle = |order: Message| async move {
        let key = String::from_utf8_lossy(order.key.as_deref().unwrap_or_default()).into_owned();
        println!("{key}: attempt {} at {}@{}", order.attempt, order.topic, order.offset);
        if key == "o-1" { Err("the payment service is down") } else { Ok(()) }
    };
    let (sender, mut written) = mpsc::channel(1);
    let subscription = client
        .processor("billing")
        .max_attempts(1)
        .delayed_retries([Duration::from_millis(200), Duration::from_secs(1)])
        .dead_letter_topic(|order, _error| format!("{}.unpaid.dlq", order.topic))
        .on_dead_letter(move |letter| {
            let sender = sender.clone();
            async move { _ = sender.send(letter).await }
        })
        .subscribe(["orders"], handle)
        .await?;

    if let Some(letter) = written.recv().await {
        println!("in {} after {} attempts: {}", letter.topic, letter.letter.attempts, letter.letter.error);
    }

    subscription.shutdown().await?;
    producer.close(Duration::from_secs(10)).await?;
    client.close().await;
    broker.shutdown().await;
    Ok(())
}
