//! Handles records concurrently, but those of a key in order: a slow order delays no other order.
//!
//! ```text
//! cargo run --example handle_by_key
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::time::Duration;

use ailurus::{Client, Config, HandlerOrdering, Message, ProducerRecord};
use ailurus_broker::{Broker, BrokerConfig};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start(BrokerConfig::default()).await?;
    broker.create_topic("orders", 1)?;
    let client = Client::connect(Config::builder().brokers(broker.bootstrap()).build()?).await?;
    let producer = client.producer().start()?;
    for n in 0..100 {
        let key = format!("order-{}", n % 20);
        drop(producer.send(ProducerRecord::to("orders").key(&key).value(n.to_string())).await?); // flushed by `close`
    }

    let (done, mut handled) = mpsc::unbounded_channel();
    let handle = move |message: Message| {
        let done = done.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(10)).await; // a database, for example
            done.send(message.key).map_err(|e| e.to_string())
        }
    };
    let subscription = client
        .processor("billing")
        .ordering(HandlerOrdering::Key)
        .concurrency(20)
        .subscribe(["orders"], handle)
        .await?;
    for _ in 0..100 {
        handled.recv().await.ok_or("the subscription has ended")?;
    }
    println!("100 records of one partition handled, 20 keys at a time");

    // In production: `subscription.run_until_signal().await?`.
    subscription.shutdown().await?;
    producer.close(Duration::from_secs(10)).await?;
    client.close().await;
    broker.shutdown().await;
    Ok(())
}
