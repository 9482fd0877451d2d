//! The database goes down while orders are handled: they wait, single ones probe, and all go on by themselves. No dead letter is
//! written for it.
//!
//! ```text
//! cargo run --example wait_for_a_database
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ailurus::processor::{FailurePolicy, find_cause};
use ailurus::{Client, Config, HandlerOrdering, Message, ProducerRecord};
use ailurus_broker::{Broker, BrokerConfig};

/// Errors of the database's driver.
#[derive(Debug)]
enum DatabaseError {
    Unreachable,
    InvalidOrder,
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "connection refused",
            Self::InvalidOrder => "no such customer",
        })
    }
}

impl std::error::Error for DatabaseError {}

#[derive(Default)]
struct Database {
    is_down: AtomicBool,
    orders: AtomicUsize,
}

impl Database {
    fn insert(&self, order: &Message) -> Result<(), DatabaseError> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err(DatabaseError::Unreachable);
        }
        if order.value.as_deref() == Some(b"order 13") {
            return Err(DatabaseError::InvalidOrder);
        }
        self.orders.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start(BrokerConfig::default()).await?;
    broker.create_topic("orders", 3)?;
    let client = Client::connect(Config::builder().brokers(broker.bootstrap()).build()?).await?;
    let database = Arc::new(Database::default());
    database.is_down.store(true, Ordering::Relaxed);

    let store = Arc::clone(&database);
    let handle = move |order: Message| {
        let inserted = store.insert(&order);
        async move { inserted }
    };
    let subscription = client
        .processor("billing")
        .ordering(HandlerOrdering::Key)
        .on_failure(|_order, error| match find_cause::<DatabaseError>(error) {
            Some(DatabaseError::Unreachable) => FailurePolicy::hold("postgres"),
            Some(DatabaseError::InvalidOrder) => FailurePolicy::DeadLetter,
            None => FailurePolicy::Retry,
        })
        .hold_backoff(Duration::from_millis(50)) // a second is right for a real database
        .subscribe(["orders"], handle)
        .await?;

    let producer = client.producer().start()?;
    for n in 0..100 {
        let record = ProducerRecord::to("orders").key(format!("customer {}", n % 10)).value(format!("order {n}"));
        drop(producer.send(record).await?);
    }
    producer.close(Duration::from_secs(10)).await?;

    while subscription.health().waiting_for.iter().all(|w| w.failed_probes < 3) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for dependency in &subscription.health().waiting_for {
        println!("{dependency}");
    }
    println!(
        "{} orders are stored, {} dead letters",
        database.orders.load(Ordering::Relaxed),
        subscription.stats().dead_letters
    );

    database.is_down.store(false, Ordering::Relaxed);
    while subscription.stats().handled < 99 || subscription.stats().dead_letters < 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!(
        "{} orders are stored, {} dead letter",
        database.orders.load(Ordering::Relaxed),
        subscription.stats().dead_letters
    );

    subscription.shutdown().await?;
    client.close().await;
    broker.shutdown().await;
    Ok(())
}
