//! Broker addresses.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// Address of a broker: a host name, an IPv4 or a bracketed IPv6 address, and a port.
///
/// ```
/// use ailurus::BrokerAddr;
///
/// let addr: BrokerAddr = "[::1]:9092".parse()?;
/// assert_eq!((addr.host(), addr.port()), ("::1", 9092));
/// assert_eq!("redpanda".parse::<BrokerAddr>()?.port(), 9092);
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BrokerAddr {
    host: String,
    port: u16,
}

impl BrokerAddr {
    /// Port where none is given.
    pub const DEFAULT_PORT: u16 = 9092;

    /// Creates an address from its parts; `host` without brackets.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// Returns the host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for BrokerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl std::str::FromStr for BrokerAddr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            let what =
                format!("{text:?} is not a broker address: write host:port, for example localhost:9092 or [::1]:9092");
            Error::new(ErrorKind::Config, what)
        };
        let text = text.trim();
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, tail) = rest.split_once(']').ok_or_else(bad)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
                (host, if tail.is_empty() { None } else { Some(tail.strip_prefix(':').ok_or_else(bad)?) })
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            None => Self::DEFAULT_PORT,
            Some(p) => p.parse().ok().filter(|p| *p != 0).ok_or_else(bad)?,
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || !host.chars().all(plain) {
            return Err(bad());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

/// Parses addresses separated by commas.
pub(super) fn parse_brokers(list: &str) -> Result<Vec<BrokerAddr>> {
    let brokers: Vec<_> =
        list.split(',').map(str::trim).filter(|b| !b.is_empty()).map(str::parse).collect::<Result<_>>()?;
    if brokers.is_empty() {
        return Err(Error::new(ErrorKind::Config, "no broker is named: write host:port, separated by commas"));
    }
    Ok(brokers)
}
