//! `ailurus broker`: the in-memory broker for local development.

use clap::Args;

use crate::embedded::{Embedded, Preset};
use crate::exit::Exit;
use crate::options::Address;
use crate::output;
use crate::signals::Shutdown;

/// Run an in-memory broker for local development.
///
/// It speaks the Kafka protocol over TCP, without TLS or authentication; everything it holds is in memory and gone when it
/// ends, with SIGINT or SIGTERM. Topics are created when they are first produced to.
#[derive(Debug, Args)]
#[command(after_help = "\
Clients connect to the address that the broker advertises, whatever they were given first. Where it
listens on every interface that is 127.0.0.1, unless --advertise names another.

Examples:
  ailurus broker --listen 127.0.0.1:9092 &
  echo hello | ailurus produce greetings --brokers 127.0.0.1:9092
  ailurus broker --listen 0.0.0.0:9092 --advertise broker.test      # for clients on other machines")]
pub struct Broker {
    /// The address of the first node; further nodes take the ports behind it. Port 0 takes free ones.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    listen: Address,
    /// The address advertised to clients; without a port the one listened on. Further nodes have the ports behind
    /// it.
    #[arg(long, value_name = "HOST[:PORT]", value_parser = advertised)]
    advertise: Option<(String, Option<u16>)>,
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

/// A host that clients are told, and perhaps a port.
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
    let broker = Embedded::listen(listen, args.advertise, args.nodes, args.partitions, args.versions).await?;
    let (listening, told) = (broker.listen_addresses(), broker.brokers());
    output::print(format_args!("listening on {listening}\n"))?;
    if told != listening {
        let hint = if is_named { "" } else { "; --advertise names another host" };
        output::print(format_args!("clients are told to connect to {told}{hint}\n"))?;
    }
    shutdown.requested().await;
    broker.stop().await;
    Ok(Exit::Success)
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
