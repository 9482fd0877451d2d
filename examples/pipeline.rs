//! An exactly-once pipeline: a handler returns the records to write, which become visible together with the commit of
//! the order's offset. Orders of a customer are priced in order, those of others beside them; a broken order becomes a
//! dead letter in the same transaction.
//!
//! ```text
//! cargo run --example pipeline
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use ailurus::processor::{ExactlyOnce, Outputs};
use ailurus::{
    Client, Config, ConsumerEvent, Error, ErrorKind, HandlerOrdering, IsolationLevel, Message, ProducerRecord,
};
use ailurus_broker::{Broker, BrokerConfig};

async fn price(order: Message) -> Result<Outputs, Error> {
    let items: u32 = match order.text()?.map(str::parse) {
        Some(Ok(items)) => items,
        // Not retried: it becomes a dead letter at once.
        _ => return Err(Error::new(ErrorKind::Event, "an order is a number of items")),
    };
    let mut priced = ProducerRecord::to("priced-orders").value(format!("{}.50", 7 * items));
    priced.key = order.key.map(Into::into);
    Ok(Outputs::new().send(priced))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start(BrokerConfig::default()).await?;
    broker.create_topic("orders", 3)?;
    broker.create_topic("priced-orders", 3)?;
    let config = Config::builder().brokers(broker.bootstrap());
    let config = config.consumer(|consumer| consumer.isolation_level(IsolationLevel::ReadCommitted));
    let client = Client::connect(config.build()?).await?;
    let producer = client.producer().start()?;
    for n in 0..100 {
        let items = if n == 50 { "many".to_owned() } else { n.to_string() };
        drop(producer.send(ProducerRecord::to("orders").key(format!("customer-{}", n % 10)).value(items)).await?);
    }
    producer.close(std::time::Duration::from_secs(10)).await?;

    let pipeline = client.processor("pricing").ordering(HandlerOrdering::Key).exactly_once(ExactlyOnce::new());
    let subscription = pipeline.subscribe(["orders"], price).await?;

    let mut reader = client.consumer("shipping").subscribe(["priced-orders", "orders.dlq"]).await?;
    let (mut priced, mut dead) = (0, 0);
    while priced + dead < 100 {
        if let ConsumerEvent::Records(batch) = reader.recv().await? {
            let count = batch.records.len();
            if batch.topic_partition().topic.ends_with(".dlq") { dead += count } else { priced += count }
        }
    }
    println!("{priced} orders priced, {dead} dead letter");

    reader.close().await?;
    subscription.shutdown().await?;
    client.close().await;
    broker.shutdown().await;
    Ok(())
}
