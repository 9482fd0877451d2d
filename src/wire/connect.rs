//! Connects to a broker: DNS, TCP, TLS, versions, login.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::SaslHandshakeRequest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::connection::Connection;
use super::messenger::Duplex;
use super::probe;
use super::sasl::{self, Login};
#[cfg(any(feature = "tls", feature = "tls-ring"))]
use super::tls::TlsClient;
use crate::config::{BrokerAddr, Config, SecurityProtocol, Transport};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Observation, Reporter};

/// Maximum size of a response. A fetch is bounded by `fetch_max_bytes` (100 MiB at most) plus one
/// batch.
const MAX_RESPONSE_BYTES: usize = 256 << 20;
/// Idle time after which TCP probes whether the peer is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Maximum time to find out which protocol a port speaks.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

const EXPECTS_TLS: &str = "this port expects TLS, and the connection is plaintext: set \
     Config::security_protocol to SSL, or to SASL_SSL where there is a login";
#[cfg(any(feature = "tls", feature = "tls-ring"))]
const IS_PLAINTEXT: &str = "this port is plaintext, and the connection is TLS: use the port of the broker's TLS listener, or set \
     Config::security_protocol to PLAINTEXT, or to SASL_PLAINTEXT where there is a login";

/// Makes connections by a client's settings.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    pub(crate) client_id: String,
    /// Time limit of each step: the name, each address, the TLS handshake, the first response.
    pub(crate) timeout: Duration,
    metrics: Reporter,
    protocol: SecurityProtocol,
    transport: Transport,
    #[cfg(any(feature = "tls", feature = "tls-ring"))]
    tls: Arc<TlsClient>,
    login: Option<Arc<Login>>,
}

impl Connector {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            client_id: config.client_id.clone(),
            timeout: config.connect_timeout,
            metrics: config.metrics.clone(),
            protocol: config.security_protocol,
            transport: config.transport.clone(),
            #[cfg(any(feature = "tls", feature = "tls-ring"))]
            tls: Arc::new(TlsClient::new(config.tls.clone())),
            login: Login::new(config).map(Arc::new),
        }
    }

    /// Resolves the name, tries each of its addresses, secures the connection, negotiates versions,
    /// logs in.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] with the failure of each address, or of the TLS handshake;
    /// [`ErrorKind::Config`] if a file that TLS needs can't be used; [`ErrorKind::Authentication`]
    /// if the broker rejects the credentials.
    pub(crate) async fn connect(&self, addr: &BrokerAddr) -> Result<Connection> {
        let outcome = self.open_secured(addr, self.login.as_ref()).await;
        if let Err(e) = &outcome {
            let broker = &*addr.to_string();
            self.metrics.report(|| Observation::ConnectFailed { broker, error: e.kind() });
        }
        outcome
    }

    /// Opens a TCP or TLS stream, and sends nothing on it.
    pub(crate) async fn open_stream(&self, addr: &BrokerAddr) -> Result<Pin<Box<dyn Duplex>>> {
        let tcp = self.connect_tcp(addr).await?;
        if !self.protocol.is_tls() {
            return Ok(Box::pin(tcp));
        }
        #[cfg(any(feature = "tls", feature = "tls-ring"))]
        return match self.tls.handshake(tcp, addr, self.timeout).await {
            Ok(stream) => Ok(Box::pin(stream)),
            Err(failure) => Err(failure.error),
        };
        #[cfg(not(any(feature = "tls", feature = "tls-ring")))]
        Err(Error::new(ErrorKind::Config, format!("{addr}: {}", SecurityProtocol::NO_TLS)))
    }

    async fn open_secured(&self, addr: &BrokerAddr, login: Option<&Arc<Login>>) -> Result<Connection> {
        if let Some(opened) = self.transport.open(addr) {
            let pipe = opened.map_err(|e| connect_error(addr, &describe(&e)))?;
            return self.establish(pipe, addr, self.timeout, login).await;
        }
        let tcp = self.connect_tcp(addr).await?;
        if self.protocol.is_tls() {
            return self.open_tls(tcp, addr, login).await;
        }
        match self.establish(tcp, addr, self.timeout, login).await {
            Err(e) if e.kind() == ErrorKind::Connect && self.speaks_tls(addr).await => {
                Err(connect_error(addr, EXPECTS_TLS))
            }
            outcome => outcome,
        }
    }

    #[cfg(any(feature = "tls", feature = "tls-ring"))]
    async fn open_tls(&self, tcp: TcpStream, addr: &BrokerAddr, login: Option<&Arc<Login>>) -> Result<Connection> {
        match self.tls.handshake(tcp, addr, self.timeout).await {
            Ok(stream) => self.establish(stream, addr, self.timeout, login).await,
            Err(failure) if failure.is_not_tls && self.is_plaintext_broker(addr).await => {
                Err(connect_error(addr, IS_PLAINTEXT))
            }
            Err(failure) => Err(failure.error),
        }
    }

    #[cfg(not(any(feature = "tls", feature = "tls-ring")))]
    async fn open_tls(&self, _: TcpStream, addr: &BrokerAddr, _: Option<&Arc<Login>>) -> Result<Connection> {
        let what = format!("{addr}: {}", SecurityProtocol::NO_TLS);
        Err(Error::new(ErrorKind::Config, what))
    }

    /// Negotiates versions, and logs in if `login` is given.
    async fn establish(
        &self,
        io: impl AsyncRead + AsyncWrite + Send + 'static,
        addr: &BrokerAddr,
        timeout: Duration,
        login: Option<&Arc<Login>>,
    ) -> Result<Connection> {
        let (addr, login) = (addr.to_string(), login.cloned());
        Connection::establish(io, &addr, &self.client_id, MAX_RESPONSE_BYTES, timeout, &self.metrics, login).await
    }

    /// Explains why a broker closed a connection after the exchange of versions, if it requires a
    /// login and none is configured: its response to a SaslHandshake shows that.
    pub(crate) async fn explain_missing_login(&self, addr: &BrokerAddr) -> Option<Error> {
        if self.login.is_some() {
            return None;
        }
        let connection = self.open_secured(addr, None).await.ok()?;
        let response = connection.request(SaslHandshakeRequest::default(), self.timeout).await;
        connection.close().await;
        sasl::explain_missing_login(&response.ok()?, connection.peer(), self.protocol)
    }

    /// Returns whether a port that rejected plaintext speaks TLS.
    async fn speaks_tls(&self, addr: &BrokerAddr) -> bool {
        let probe = async {
            probe::speaks_tls(self.connect_tcp(addr).await?).await.map_err(|e| connect_error(addr, &e.to_string()))
        };
        matches!(tokio::time::timeout(PROBE_TIMEOUT.min(self.timeout), probe).await, Ok(Ok(true)))
    }

    /// Returns whether a port that rejected TLS is a broker without it.
    #[cfg(any(feature = "tls", feature = "tls-ring"))]
    async fn is_plaintext_broker(&self, addr: &BrokerAddr) -> bool {
        let probe = async { self.establish(self.connect_tcp(addr).await?, addr, PROBE_TIMEOUT, None).await };
        matches!(tokio::time::timeout(PROBE_TIMEOUT.min(self.timeout), probe).await, Ok(Ok(_)))
    }

    async fn connect_tcp(&self, addr: &BrokerAddr) -> Result<TcpStream> {
        let failed = |why: String| connect_error(addr, &why);
        let lookup = tokio::net::lookup_host((addr.host(), addr.port()));
        let addresses: Vec<SocketAddr> = match tokio::time::timeout(self.timeout, lookup).await {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(e)) => return Err(failed(format!("the name could not be resolved: {e}"))),
            Err(_) => return Err(failed(format!("the name was not resolved within {:?}", self.timeout))),
        };
        let mut tried = Vec::new();
        for address in addresses {
            match tokio::time::timeout(self.timeout, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => return set_socket_options(tcp).map_err(|e| failed(e.to_string())),
                Ok(Err(e)) => tried.push((address, describe(&e))),
                Err(_) => tried.push((address, format!("did not accept within {:?}", self.timeout))),
            }
        }
        let named = addr.to_string();
        let tried: Vec<_> =
            tried.into_iter().map(|(a, why)| if a.to_string() == named { why } else { format!("{a} {why}") }).collect();
        Err(failed(if tried.is_empty() { "the name has no address".into() } else { tried.join(", ") }))
    }
}

fn connect_error(addr: &BrokerAddr, why: &str) -> Error {
    Error::new(ErrorKind::Connect, format!("{addr}: {why}"))
}

fn set_socket_options(tcp: TcpStream) -> std::io::Result<TcpStream> {
    tcp.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE_IDLE);
    socket2::SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
    Ok(tcp)
}

fn describe(e: &std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::ConnectionRefused => "refused the connection (is a broker running there?)".into(),
        _ => format!("failed: {e}"),
    }
}
