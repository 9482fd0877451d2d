//! Health of brokers and subscriptions for an orchestrator, and counters for Prometheus.
//!
//! ```text
//! cargo run --example health_and_metrics
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::sync::Arc;
use std::time::Duration;

use ailurus::{Config, Message, ProducerRecord, RedpandaService};
use ailurus_broker::{Broker, BrokerConfig};
use ailurus_metrics::Registry;
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start(BrokerConfig::default()).await?;
    broker.create_topic("orders", 3)?;
    let registry = Arc::new(Registry::new());
    let config = Config::builder().brokers(broker.bootstrap()).metrics(registry.clone()).build()?;
    let service = RedpandaService::connect(config).await?;

    let (done, mut handled) = mpsc::unbounded_channel();
    let handle = move |message: Message| std::future::ready(done.send(message.offset).map_err(|e| e.to_string()));
    let subscription = service.subscribe(["orders"], "billing", handle).await?;
    for n in 0..10 {
        service.producer().send(ProducerRecord::to("orders").value(n.to_string())).await?.await?;
    }
    for _ in 0..10 {
        handled.recv().await.ok_or("the subscription has ended")?;
    }

    // `GET /health/redpanda` of your own server would return this as JSON (it is serde).
    let health = service.health().await;
    println!("{:?}: {} broker, {} subscription", health.status, health.brokers.len(), health.subscriptions.len());
    let snapshot = registry.snapshot();
    println!("{} records sent", snapshot.total("messaging_client_sent_messages_total"));

    subscription.shutdown().await?;
    service.close(Duration::from_secs(10)).await?;
    broker.shutdown().await;
    Ok(())
}
