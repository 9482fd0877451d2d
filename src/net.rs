//! Connections to somebody else than a broker, made as those to brokers are.
//!
//! For providers of tokens and their like, which need what a client has anyway: addresses tried one after the other, deadlines, TLS
//! with a provider that compiles no C.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::{BrokerAddr, Config, SecurityProtocol, TlsConfig};
use crate::error::Result;
use crate::wire::ConnectSettings;

/// Opens a TCP connection, or a TLS one by these settings; `timeout` is for the name, for each address and for the handshake.
///
/// # Errors
/// [`ErrorKind::Connect`](crate::ErrorKind::Connect) that tells what each address answered, or why the connection could not be
/// secured; [`ErrorKind::Config`](crate::ErrorKind::Config) if a file that TLS needs can't be used, or TLS is not built in.
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
    ConnectSettings::new(&config).stream(at).await
}
