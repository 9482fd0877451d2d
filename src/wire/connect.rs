//! From an address to a connection.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use super::connection::Connection;
use crate::config::{BrokerAddr, Config};
use crate::error::{Error, ErrorKind, Result};

/// The largest answer taken. A fetch is bounded by `fetch_max_bytes` (100 MiB at most) plus one batch.
const MAX_MESSAGE: usize = 256 << 20;
/// Probes for peers that vanished without a word.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What connecting needs to know.
#[derive(Debug, Clone)]
pub(crate) struct ConnectSettings {
    pub(crate) client_id: String,
    /// For the name, for each address, and for the first answer.
    pub(crate) timeout: Duration,
}

impl ConnectSettings {
    pub(crate) fn new(config: &Config) -> Self {
        Self { client_id: config.client_id.clone(), timeout: config.connect_timeout }
    }

    /// Resolves the name anew, tries each of its addresses, agrees on versions.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] that tells what each address answered.
    pub(crate) async fn connect(&self, addr: &BrokerAddr) -> Result<Connection> {
        let tcp = self.tcp(addr).await?;
        Connection::over(tcp, &addr.to_string(), &self.client_id, MAX_MESSAGE, self.timeout).await
    }

    async fn tcp(&self, addr: &BrokerAddr) -> Result<TcpStream> {
        let failed = |why: String| Error::new(ErrorKind::Connect, format!("{addr}: {why}"));
        let lookup = tokio::net::lookup_host((addr.host(), addr.port()));
        let addresses: Vec<SocketAddr> = match tokio::time::timeout(self.timeout, lookup).await {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(e)) => return Err(failed(format!("the name could not be resolved: {e}"))),
            Err(_) => return Err(failed(format!("the name was not resolved within {:?}", self.timeout))),
        };
        let mut tried = Vec::new();
        for address in addresses {
            match tokio::time::timeout(self.timeout, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => return tune(tcp).map_err(|e| failed(e.to_string())),
                Ok(Err(e)) => tried.push((address, plain(&e))),
                Err(_) => tried.push((address, format!("did not answer within {:?}", self.timeout))),
            }
        }
        let named = addr.to_string();
        let tried: Vec<_> =
            tried.into_iter().map(|(a, why)| if a.to_string() == named { why } else { format!("{a} {why}") }).collect();
        Err(failed(if tried.is_empty() { "the name has no address".into() } else { tried.join(", ") }))
    }
}

fn tune(tcp: TcpStream) -> std::io::Result<TcpStream> {
    tcp.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
    socket2::SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
    Ok(tcp)
}

fn plain(e: &std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::ConnectionRefused => "refused the connection (is a broker running there?)".into(),
        _ => format!("failed: {e}"),
    }
}
