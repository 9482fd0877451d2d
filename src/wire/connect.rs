//! From an address to a connection.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::SaslHandshakeRequest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::connection::{Connection, Duplex};
use super::probe;
use super::sasl::{self, Login};
#[cfg(any(feature = "tls", feature = "tls-ring"))]
use super::tls::Tls;
use crate::config::{BrokerAddr, Config, SecurityProtocol};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Observation, Reporter};

/// The largest answer taken. A fetch is bounded by `fetch_max_bytes` (100 MiB at most) plus one batch.
const MAX_MESSAGE: usize = 256 << 20;
/// Probes for peers that vanished without a word.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long a port that refused is asked what it speaks.
const PROBE: Duration = Duration::from_secs(2);

const EXPECTS_TLS: &str = "this port expects TLS, and the connection is plaintext: set the security protocol \
     (REDPANDA_SECURITY_PROTOCOL) to SSL, or to SASL_SSL where there is a login";
#[cfg(any(feature = "tls", feature = "tls-ring"))]
const IS_PLAINTEXT: &str = "this port is plaintext, and the connection is TLS: use the port of the broker's TLS listener, or set \
     the security protocol (REDPANDA_SECURITY_PROTOCOL) to PLAINTEXT, or to SASL_PLAINTEXT where there is a login";

/// What connecting needs to know.
#[derive(Debug, Clone)]
pub(crate) struct ConnectSettings {
    pub(crate) client_id: String,
    /// For the name, for each address, for the handshake of TLS, and for the first answer.
    pub(crate) timeout: Duration,
    metrics: Reporter,
    protocol: SecurityProtocol,
    #[cfg(any(feature = "tls", feature = "tls-ring"))]
    tls: Arc<Tls>,
    login: Option<Arc<Login>>,
}

impl ConnectSettings {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            client_id: config.client_id.clone(),
            timeout: config.connect_timeout,
            metrics: config.metrics.clone(),
            protocol: config.security_protocol,
            #[cfg(any(feature = "tls", feature = "tls-ring"))]
            tls: Arc::new(Tls::new(config.tls.clone())),
            login: Login::new(config).map(Arc::new),
        }
    }

    /// Resolves the name anew, tries each of its addresses, secures the connection, agrees on versions, logs in.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] that tells what each address answered, or why the connection could not be secured;
    /// [`ErrorKind::Config`] if a file that TLS needs can't be used; [`ErrorKind::Authentication`] if we are not let in.
    pub(crate) async fn connect(&self, addr: &BrokerAddr) -> Result<Connection> {
        let outcome = self.secured(addr, self.login.as_ref()).await;
        if let Err(e) = &outcome {
            let broker = &*addr.to_string();
            self.metrics.report(|| Observation::ConnectFailed { broker, error: e.kind() });
        }
        outcome
    }

    /// An open connection with nothing on it yet.
    pub(crate) async fn stream(&self, addr: &BrokerAddr) -> Result<Pin<Box<dyn Duplex>>> {
        let tcp = self.tcp(addr).await?;
        if !self.protocol.is_tls() {
            return Ok(Box::pin(tcp));
        }
        #[cfg(any(feature = "tls", feature = "tls-ring"))]
        return match self.tls.secure(tcp, addr, self.timeout).await {
            Ok(secured) => Ok(Box::pin(secured)),
            Err(refused) => Err(refused.error),
        };
        #[cfg(not(any(feature = "tls", feature = "tls-ring")))]
        Err(Error::new(ErrorKind::Config, format!("{addr}: {}", SecurityProtocol::NO_TLS)))
    }

    async fn secured(&self, addr: &BrokerAddr, login: Option<&Arc<Login>>) -> Result<Connection> {
        let tcp = self.tcp(addr).await?;
        if self.protocol.is_tls() {
            return self.over_tls(tcp, addr, login).await;
        }
        match self.open(tcp, addr, self.timeout, login).await {
            Err(e) if e.kind() == ErrorKind::Connect && self.expects_tls(addr).await => Err(failed(addr, EXPECTS_TLS)),
            outcome => outcome,
        }
    }

    #[cfg(any(feature = "tls", feature = "tls-ring"))]
    async fn over_tls(&self, tcp: TcpStream, addr: &BrokerAddr, login: Option<&Arc<Login>>) -> Result<Connection> {
        match self.tls.secure(tcp, addr, self.timeout).await {
            Ok(secured) => self.open(secured, addr, self.timeout, login).await,
            Err(refused) if refused.no_tls && self.is_plaintext(addr).await => Err(failed(addr, IS_PLAINTEXT)),
            Err(refused) => Err(refused.error),
        }
    }

    #[cfg(not(any(feature = "tls", feature = "tls-ring")))]
    async fn over_tls(&self, _: TcpStream, addr: &BrokerAddr, _: Option<&Arc<Login>>) -> Result<Connection> {
        let what = format!("{addr}: {}", SecurityProtocol::NO_TLS);
        Err(Error::new(ErrorKind::Config, what))
    }

    /// Agrees on versions, and logs in if that is asked for.
    async fn open(
        &self,
        io: impl AsyncRead + AsyncWrite + Send + 'static,
        addr: &BrokerAddr,
        timeout: Duration,
        login: Option<&Arc<Login>>,
    ) -> Result<Connection> {
        let (addr, login) = (addr.to_string(), login.cloned());
        Connection::over(io, &addr, &self.client_id, MAX_MESSAGE, timeout, &self.metrics, login).await
    }

    /// Why a broker closed a connection without an answer to anything but its versions, if it is that it asks for a login and got
    /// none: it says so if asked about logins.
    pub(crate) async fn login_missing(&self, addr: &BrokerAddr) -> Option<Error> {
        if self.login.is_some() {
            return None;
        }
        let connection = self.secured(addr, None).await.ok()?;
        let answer = connection.request(SaslHandshakeRequest::default(), self.timeout).await;
        connection.close().await;
        sasl::wants_login(&answer.ok()?, connection.peer(), self.protocol)
    }

    /// Whether what refused plaintext speaks TLS.
    async fn expects_tls(&self, addr: &BrokerAddr) -> bool {
        let ask = async { probe::answers_tls(self.tcp(addr).await?).await.map_err(|e| failed(addr, &e.to_string())) };
        matches!(tokio::time::timeout(PROBE.min(self.timeout), ask).await, Ok(Ok(true)))
    }

    /// Whether what refused TLS is a broker in plaintext.
    #[cfg(any(feature = "tls", feature = "tls-ring"))]
    async fn is_plaintext(&self, addr: &BrokerAddr) -> bool {
        let ask = async { self.open(self.tcp(addr).await?, addr, PROBE, None).await };
        matches!(tokio::time::timeout(PROBE.min(self.timeout), ask).await, Ok(Ok(_)))
    }

    async fn tcp(&self, addr: &BrokerAddr) -> Result<TcpStream> {
        let failed = |why: String| failed(addr, &why);
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

fn failed(addr: &BrokerAddr, why: &str) -> Error {
    Error::new(ErrorKind::Connect, format!("{addr}: {why}"))
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
