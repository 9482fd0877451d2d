//! An outbox: events that a database has stored are sent until they are acknowledged, each under its stored id. Where a response was
//! lost, the event may be in the log twice, under one id by which readers deduplicate.
//!
//! ```text
//! cargo run --example outbox
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

use ailurus::{Config, Event, RedpandaService, SendOptions};
use ailurus_broker::{Broker, BrokerConfig};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct OrderPaid {
    order: String,
}

impl Event for OrderPaid {
    const TYPE: &'static str = "order.paid";

    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.order.as_str().into())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start(BrokerConfig::default()).await?;
    broker.create_topic("orders", 3)?;
    let service = RedpandaService::connect(Config::builder().brokers(broker.bootstrap()).build()?).await?;

    // In place of rows that the transaction of the order wrote.
    let mut outbox: VecDeque<_> =
        (0..10).map(|n| (format!("event-{n}"), OrderPaid { order: format!("o-{n}") })).collect();
    while let Some((id, event)) = outbox.front() {
        match service.send_message("orders", event, SendOptions::new().id(id)).await {
            // A row is deleted when its event is acknowledged.
            Ok(_) => drop(outbox.pop_front()),
            // Retriable, or written perhaps: the same row is sent again under the same id.
            Err(e) if e.is_retriable() || e.is_indeterminate() => tokio::time::sleep(Duration::from_secs(1)).await,
            Err(e) => return Err(format!("event {id} can't be sent: {e:#}").into()),
        }
    }
    println!("the outbox is empty");

    service.close(Duration::from_secs(10)).await?;
    broker.shutdown().await;
    Ok(())
}
