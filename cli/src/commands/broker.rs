//! `ailurus broker`: the in-memory broker for local development.

use ailurus_broker::registry::{Registry, RegistryConfig};
use anyhow::Context;
use clap::Args;

use crate::embedded::{Embedded, Preset};
use crate::exit::Exit;
use crate::options::Address;
use crate::output;
use crate::signals::Shutdown;

/// Run an in-memory broker for local development.
///
/// It speaks the Kafka protocol over TCP, without TLS or authentication. All data is in memory and lost when it ends, with
/// SIGINT or SIGTERM. A topic that does not exist is created for clients that allow auto-creation.
#[derive(Debug, Args)]
#[command(after_help = "\
Clients connect to the address that the broker advertises. Where it listens on every interface, that
is 127.0.0.1, unless --advertise names another.

Examples:
  ailurus broker --listen 127.0.0.1:9092 &
  echo hello | ailurus produce greetings --create --brokers 127.0.0.1:9092
  ailurus broker --registry &                                       # and a schema registry on 127.0.0.1:8081
  ailurus broker --listen 0.0.0.0:9092 --advertise broker.test      # for clients on other machines")]
pub struct Broker {
    /// Address of the first node; further nodes take the next ports. Port 0 takes free ones.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    listen: Address,
    /// Address advertised to clients, by default with the port of --listen. Further nodes have the next ports.
    #[arg(long, value_name = "HOST[:PORT]", value_parser = advertised)]
    advertise: Option<(String, Option<u16>)>,
    /// Number of nodes.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=32))]
    nodes: u16,
    /// Default number of partitions of a topic.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    partitions: u16,
    /// Broker whose protocol versions are offered.
    #[arg(long, value_enum, default_value_t = Preset::Redpanda24)]
    versions: Preset,
    /// Serve a schema registry too, over HTTP without a login; its schemas are in memory as well [address, if none is named:
    /// 127.0.0.1:8081].
    #[arg(long, value_name = "HOST:PORT", num_args = 0..=1, default_missing_value = DEFAULT_REGISTRY)]
    registry: Option<Address>,
}

const DEFAULT_REGISTRY: &str = "127.0.0.1:8081";

/// Parses a host, and perhaps a port.
fn advertised(text: &str) -> Result<(String, Option<u16>), String> {
    let allowed = || "allowed is HOST or HOST:PORT, such as broker.test:9092 or [::1]:9092".to_owned();
    let (host, port) = match (text.strip_prefix('[').and_then(|t| t.split_once(']')), text.rsplit_once(':')) {
        (Some((host, "")), _) => (host, None),
        (Some((host, rest)), _) => (host, Some(rest.strip_prefix(':').unwrap_or(rest))),
        (None, Some((host, port))) if !host.contains(':') => (host, Some(port)),
        _ => (text, None),
    };
    let port = port.map(|p| p.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(allowed)).transpose()?;
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(allowed());
    }
    Ok((host.to_owned(), port))
}

pub async fn run(args: Broker) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::install()?;
    let (listen, is_named) = (args.listen.resolve().await?, args.advertise.is_some());
    let registry = match &args.registry {
        Some(address) => Some(start_registry(address).await?),
        None => None,
    };
    let broker = Embedded::listen(listen, args.advertise, args.nodes, args.partitions, args.versions).await?;
    let (listening, advertised) = (broker.listen_addresses(), broker.brokers());
    output::print(format_args!("listening on {listening}\n"))?;
    if advertised != listening {
        let hint = if is_named { "" } else { "; --advertise names another host" };
        output::print(format_args!("clients connect to {advertised}{hint}\n"))?;
    }
    if let Some(registry) = &registry {
        output::print(format_args!("schema registry on {}\n", registry.url()))?;
    }
    shutdown.requested().await;
    broker.stop().await;
    if let Some(registry) = registry {
        registry.shutdown().await;
    }
    Ok(Exit::Success)
}

async fn start_registry(address: &Address) -> anyhow::Result<Registry> {
    let listen = address.resolve().await?;
    let started = Registry::start_with(RegistryConfig::default().listen(listen)).await;
    started.with_context(|| format!("the schema registry could not listen on {listen}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertised_address_is_a_host_with_or_without_a_port() {
        let of = |text: &str| advertised(text).ok();
        assert_eq!(of("broker.test"), Some(("broker.test".into(), None)));
        assert_eq!(of("broker.test:19092"), Some(("broker.test".into(), Some(19092))));
        assert_eq!(of("[::1]:9092"), Some(("::1".into(), Some(9092))));
        assert_eq!(of("::1"), Some(("::1".into(), None)));
        for bad in ["", ":9092", "a:b", "a:0", "a b"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
