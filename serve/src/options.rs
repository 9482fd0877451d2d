//! Options that commands have in common.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use ailurus::Secret;
use anyhow::{Context, anyhow};
use clap::Args;

use crate::exit::Usage;

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

/// The token of those who may act on the page.
#[derive(Debug, Clone, Args)]
pub struct ActionToken {
    /// File with a token of 16 characters or more, such as `openssl rand -hex 32` prints: with it the page lets those who have the
    /// token replay and discard dead letters and more [default: it shows the state, and changes nothing].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl ActionToken {
    /// Least length of a token, which can be tried as often as one likes.
    const MIN_LENGTH: usize = 16;

    /// Reads the token.
    ///
    /// # Errors
    /// If the file can't be read, or the token is shorter than 16 characters.
    pub fn read(&self) -> anyhow::Result<Option<Secret>> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let named = |why: String| Usage(format!("--token-file {}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| named(e.to_string()))?;
        let token = text.trim();
        if token.len() < Self::MIN_LENGTH {
            let what = format!("the token has {} characters: at least {}", token.len(), Self::MIN_LENGTH);
            return Err(named(format!("{what} (openssl rand -hex 32)")).into());
        }
        Ok(Some(Secret::from(token)))
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
