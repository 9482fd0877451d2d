//! Runs a broker until Ctrl-C: `cargo run -p ailurus-broker --example broker -- ADDRESS PRESET NODES`.

#![allow(clippy::print_stdout)]

use ailurus_broker::{Broker, BrokerConfig, Versions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let listen = args.next().unwrap_or_else(|| "127.0.0.1:9092".into());
    let versions = match args.next().as_deref() {
        None | Some("redpanda-24.3") => Versions::redpanda_24_3(),
        Some("redpanda-26.2") => Versions::redpanda_26_2(),
        Some("kafka-3.9") => Versions::kafka_3_9(),
        Some("kafka") => Versions::kafka(),
        Some(other) => {
            return Err(format!("preset {other}: allowed are redpanda-24.3, redpanda-26.2, kafka-3.9, kafka").into());
        }
    };
    let nodes = args.next().map_or(Ok(1), |n| n.parse())?;
    let config = BrokerConfig::default().listen(listen.parse()?).versions(versions).nodes(nodes).default_partitions(3);
    let broker = Broker::start(config).await?;
    println!("listening on {}", broker.bootstrap());
    tokio::signal::ctrl_c().await?;
    broker.shutdown().await;
    Ok(())
}
