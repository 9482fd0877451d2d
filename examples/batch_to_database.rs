//! Handles records in batches, one transaction each. A record that the database rejects becomes a dead letter, the others are stored.
//!
//! ```text
//! cargo run --example batch_to_database
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ailurus::processor::Batching;
use ailurus::{Client, Config, Message, Outcome, ProducerRecord};
use ailurus_broker::{Broker, BrokerConfig};

/// A table of numbers, in place of a database.
#[derive(Default)]
struct Database {
    rows: AtomicUsize,
    transactions: AtomicUsize,
}

impl Database {
    fn insert(&self, messages: &[Message]) -> Vec<Outcome> {
        self.transactions.fetch_add(1, Ordering::Relaxed);
        let insert = |message: &Message| {
            let text = message.value.as_deref().and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default();
            match text.parse::<u64>() {
                Ok(_) => {
                    self.rows.fetch_add(1, Ordering::Relaxed);
                    Outcome::Done
                }
                Err(e) => Outcome::dead_letter(e), // no retry would change it
            }
        };
        messages.iter().map(insert).collect()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start(BrokerConfig::default()).await?;
    broker.create_topic("numbers", 3)?;
    let client = Client::connect(Config::builder().brokers(broker.bootstrap()).build()?).await?;
    let producer = client.producer().start()?;
    for n in 0..1_000 {
        let value = if n == 500 { "no number".to_owned() } else { n.to_string() };
        drop(producer.send(ProducerRecord::to("numbers").value(&value)).await?); // flushed by `close`
    }

    let database = Arc::new(Database::default());
    let store = {
        let database = Arc::clone(&database);
        move |messages: Vec<Message>| {
            let database = Arc::clone(&database);
            async move { database.insert(&messages) }
        }
    };
    let batching = Batching::new(200, Duration::from_millis(20));
    let subscription = client.processor("warehouse").subscribe_batches(["numbers"], batching, store).await?;
    while subscription.stats().handled + subscription.stats().dead_letters < 1_000 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (rows, transactions) = (database.rows.load(Ordering::Relaxed), database.transactions.load(Ordering::Relaxed));
    println!("{rows} rows in {transactions} transactions, {} dead letter", subscription.stats().dead_letters);

    subscription.shutdown().await?;
    producer.close(Duration::from_secs(10)).await?;
    client.close().await;
    broker.shutdown().await;
    Ok(())
}
