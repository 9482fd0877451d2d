//! `ailurus broker`: the in-memory broker for local development.

use std::net::SocketAddr;

use clap::Args;

use crate::embedded::{Embedded, Preset};
use crate::exit::Exit;
use crate::output;
use crate::signals::Shutdown;

/// Run an in-memory broker for local development.
///
/// It speaks the Kafka protocol over TCP, without TLS or authentication; everything it holds is in memory and gone when it
/// ends, with SIGINT or SIGTERM. Topics are created when they are first produced to.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  ailurus broker --listen 127.0.0.1:9092 &
  echo hello | ailurus produce greetings --brokers 127.0.0.1:9092")]
pub struct Broker {
    /// The address of the first node; further nodes take the ports behind it. Port 0 takes free ones.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9092")]
    listen: SocketAddr,
    /// How many nodes the cluster has.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=32))]
    nodes: u16,
    /// Partitions of a topic that is created without a number of its own.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    partitions: u16,
    /// Whose protocol versions to offer.
    #[arg(long, value_enum, default_value_t = Preset::Redpanda24)]
    versions: Preset,
}

pub async fn run(args: Broker) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::install()?;
    let broker = Embedded::listen(args.listen, args.nodes, args.partitions, args.versions).await?;
    output::print(format_args!("listening on {}\n", broker.brokers()))?;
    shutdown.requested().await;
    broker.stop().await;
    Ok(Exit::Success)
}
