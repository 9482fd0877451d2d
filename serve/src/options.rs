//! Options that commands have in common.

use std::net::SocketAddr;
use std::str::FromStr;

use anyhow::{Context, anyhow};
use clap::Args;

/// Options of all commands, before or after the command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Bootstrap brokers, host:port separated by commas; the rest of the cluster is discovered from them
    /// [default: REDPANDA_BROKERS of the environment or .env, else localhost:9092].
    #[arg(long, global = true, value_name = "HOST:PORT,…", help_heading = "Global options")]
    pub brokers: Option<String>,
    /// Log on stderr: a level (error, warn, info, debug, trace) or a filter such as ailurus=debug,warn
    /// [default: warn, and topics that were created].
    #[arg(long, global = true, env = "RUST_LOG", value_name = "FILTER", help_heading = "Global options")]
    pub log: Option<String>,
}

/// An address to listen on, `HOST:PORT`; the host may be a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(String);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        parts.map(|_| Self(text.to_owned())).ok_or_else(|| {
            "allowed is HOST:PORT, such as 127.0.0.1:8080, localhost:8080 or [::1]:8080; 0.0.0.0 means every interface".to_owned()
        })
    }
}

impl Address {
    /// Resolves the name to its first address.
    ///
    /// # Errors
    /// If the name has no address.
    pub async fn resolve(&self) -> anyhow::Result<SocketAddr> {
        let found = tokio::net::lookup_host(&self.0).await;
        let found = found.with_context(|| format!("{} can't be listened on", self.0))?.next();
        found.ok_or_else(|| anyhow!("{} can't be listened on: the name has no address", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["127.0.0.1:0", "localhost:8080", "[::1]:80", "0.0.0.0:1"] {
            assert!(good.parse::<Address>().is_ok(), "{good}");
        }
        for bad in ["", "8080", "localhost", ":80", "localhost:x", "localhost:99999"] {
            assert!(bad.parse::<Address>().is_err_and(|e| e.contains("HOST:PORT")), "{bad}");
        }
    }
}
