//! A subscription is controlled while it runs: paused and resumed, moved back to its beginning, given more concurrency and another
//! topic, and awaited until it has caught up.
//!
//! ```text
//! cargo run --example control_while_it_runs
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::convert::Infallible;
use std::time::Duration;

use ailurus::processor::Scope;
use ailurus::{Client, Config, Message, ProducerRecord, StartOffset, TopicPartition};
use ailurus_broker::{Broker, BrokerConfig};

async fn handle(order: Message) -> Result<(), Infallible> {
    println!("{}/{}@{}", order.topic, order.partition, order.offset);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start(BrokerConfig::default()).await?;
    for topic in ["orders", "payments"] {
        broker.create_topic(topic, 1)?;
    }
    let client = Client::connect(Config::builder().brokers(broker.bootstrap()).build()?).await?;
    let producer = client.producer().start()?;
    let send = async |topic: &'static str| producer.send(ProducerRecord::to(topic).value("42")).await?.await;
    for _ in 0..3 {
        send("orders").await?;
    }
    let subscription = client.processor("billing").subscribe(["orders"], handle).await?;
    let control = subscription.control(); // cheap to clone, for any task

    control.caught_up().await?;
    println!("caught up: ready to serve");

    // Before a migration of the database: handlers in flight finish, the membership stays.
    control.pause(Scope::All)?;
    send("orders").await?;
    for partition in subscription.health().partitions {
        println!("paused by {:?}, at {}", partition.paused_by, partition.position);
    }
    control.resume(Scope::All)?;
    control.caught_up().await?;

    // All again, after a bug was fixed. The new position is committed: it survives a restart.
    let offset = control.seek(&TopicPartition::new("orders", 0), StartOffset::Earliest).await?;
    println!("again from {offset} on");

    control.set_concurrency(128)?;
    send("payments").await?;
    control.subscribe(["payments"]).await?;
    while subscription.stats().handled < 9 {
        tokio::time::sleep(Duration::from_millis(20)).await; // 4 orders twice, and a payment
    }

    subscription.shutdown().await?;
    producer.close(Duration::from_secs(10)).await?;
    client.close().await;
    broker.shutdown().await;
    Ok(())
}
