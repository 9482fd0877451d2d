//! TCP and TLS streams to servers other than brokers, for token providers and the like.
//!
//! They have what connections to brokers have: each address of a name is tried, each step has a
//! deadline, and TLS comes without C code.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::{BrokerAddr, Config, SecurityProtocol, TlsConfig};
use crate::error::Result;
use crate::wire::Connector;

/// Opens a TCP stream, or a TLS stream with these settings. `timeout` applies to the name, to each
/// address and to the handshake.
///
/// # Errors
/// [`ErrorKind::Connect`](crate::ErrorKind::Connect) with the failure of each address, or of the
/// handshake; [`ErrorKind::Config`](crate::ErrorKind::Config) if a file that TLS needs can't be
/// used, or TLS is not built in.
///
/// # Cancellation
/// Dropping the future leaves nothing behind.
///
/// ```no_run
/// # async fn example() -> ailurus::Result<()> {
/// use std::time::Duration;
/// use ailurus::{BrokerAddr, TlsConfig, net};
///
/// let at = BrokerAddr::new("id.example.com", 443);
/// let _stream = net::open(&at, Some(&TlsConfig::default()), Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
pub async fn open(
    at: &BrokerAddr,
    tls: Option<&TlsConfig>,
    timeout: Duration,
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static + use<>> {
    let mut config = Config { connect_timeout: timeout, ..Config::default() };
    if let Some(tls) = tls {
        config.security_protocol = SecurityProtocol::Ssl;
        config.tls = tls.clone();
    }
    Connector::new(&config).open_stream(at).await
}
