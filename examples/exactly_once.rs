//! Consume, transform, produce: what is written for a batch of orders and the offset behind it are committed in one
//! transaction, so that each order is priced once, whatever fails.
//!
//! ```text
//! cargo run --example exactly_once
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::time::Duration;

use ailurus::producer::TransactionAction;
use ailurus::{
    Client, Config, Consumer, ConsumerEvent, Error, ErrorKind, IsolationLevel, ProducerRecord, Records,
    TransactionalProducer,
};
use ailurus_broker::{Broker, BrokerConfig};

/// Writes the priced orders and commits their offset, all or nothing.
async fn price(producer: &mut TransactionalProducer, consumer: &Consumer, orders: &Records) -> Result<(), Error> {
    let metadata = consumer.group_metadata()?;
    loop {
        let mut transaction = producer.begin().await?;
        for order in &orders.records {
            let value = [order.value.as_deref().unwrap_or_default(), b", priced"].concat();
            let mut record = ProducerRecord::to("priced-orders").value(value);
            record.key = order.key.clone().map(Into::into);
            _ = transaction.send(record).await; // a failure makes the commit fail
        }
        transaction.send_offsets(&metadata, [(orders.topic_partition(), orders.next_offset)])?;
        match transaction.commit().await {
            Ok(()) => return Ok(()),
            // Another member has the partition now, and prices these orders.
            Err(e) if e.error().kind() == ErrorKind::GroupMembership => return Ok(()),
            Err(e) if e.action() == TransactionAction::Abort => println!("{e}"),
            // Another producer with this id, or something to change: a restart reads from the last committed offset.
            Err(e) => return Err(e.into()),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start(BrokerConfig::default()).await?;
    broker.create_topic("orders", 3)?;
    broker.create_topic("priced-orders", 3)?;
    let config = Config::builder().brokers(broker.bootstrap());
    let config = config.consumer(|consumer| consumer.isolation_level(IsolationLevel::ReadCommitted));
    let client = Client::connect(config.build()?).await?;
    let orders = client.producer().start()?;
    for n in 0..100 {
        drop(orders.send(ProducerRecord::to("orders").key(format!("o-{n}")).value("order")).await?);
    }
    orders.close(Duration::from_secs(10)).await?;

    // One producer a process, with an id that no other has: who commits an offset is checked by the group.
    let mut producer = client.transactional_producer("pricing").exclusive().start().await?;
    let mut consumer = client.consumer("pricing").subscribe(["orders"]).await?;
    let mut read = 0;
    while read < 100 {
        if let ConsumerEvent::Records(batch) = consumer.recv().await? {
            price(&mut producer, &consumer, &batch).await?;
            read += batch.records.len();
        }
    }
    consumer.close().await?;
    producer.close(Duration::from_secs(10)).await?;

    let mut reader = client.consumer("shipping").subscribe(["priced-orders"]).await?;
    let mut priced = 0;
    while priced < 100 {
        if let ConsumerEvent::Records(batch) = reader.recv().await? {
            priced += batch.records.len();
        }
    }
    println!("{priced} orders priced");
    reader.close().await?;
    client.close().await;
    broker.shutdown().await;
    Ok(())
}
