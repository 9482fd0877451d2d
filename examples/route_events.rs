//! One subscription for several event types, each with a handler of its own.
//!
//! ```text
//! cargo run --example route_events
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::borrow::Cow;
use std::time::Duration;

use ailurus::processor::UnknownType;
use ailurus::{Config, Envelope, Event, Message, RedpandaService, Router, SendOptions};
use ailurus_broker::{Broker, BrokerConfig};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Serialize, Deserialize)]
struct OrderCreated {
    order: String,
}

impl Event for OrderCreated {
    const TYPE: &'static str = "order.created";

    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.order.as_str().into())
    }
}

#[derive(Serialize, Deserialize)]
struct OrderPaid {
    order: String,
    amount: u32,
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

    let (sender, mut lines) = mpsc::unbounded_channel();
    let (created, paid) = (sender.clone(), sender);
    let router = Router::new()
        .on(move |event: Envelope<OrderCreated>, _: Message| {
            let line = format!("{} created", event.data.order);
            std::future::ready(created.send(line).map_err(|e| e.to_string()))
        })
        .on(move |event: Envelope<OrderPaid>, _: Message| {
            let line = format!("{} paid: {}", event.data.order, event.data.amount);
            std::future::ready(paid.send(line).map_err(|e| e.to_string()))
        })
        .unknown(UnknownType::Skip);
    let subscription = service.subscribe(["orders"], "audit", router).await?;

    let order = || "o-1".to_owned();
    service.send_message("orders", &OrderCreated { order: order() }, SendOptions::new()).await?;
    service.send_message("orders", &OrderPaid { order: order(), amount: 12 }, SendOptions::new()).await?;
    for _ in 0..2 {
        println!("{}", lines.recv().await.ok_or("the subscription has ended")?);
    }

    subscription.shutdown().await?;
    service.close(Duration::from_secs(10)).await?;
    broker.shutdown().await;
    Ok(())
}
