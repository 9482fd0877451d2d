//! TLS below a connection, by rustls.
//!
//! - The certificate files are read for each new connection. Changed files that can't be used are
//!   ignored, with a warning.
//! - Sessions are not resumed: each connection verifies the broker's certificate and presents the
//!   client's, so that a revoked or replaced one takes effect with the next connection.
//! - Errors say what an operator has to do: see [`explain`].

mod explain;
mod files;
mod provider;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use self::files::Files;
use crate::config::{BrokerAddr, TlsConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::lock::Lock;

/// Makes TLS streams by a client's settings.
#[derive(Debug)]
pub(super) struct TlsClient {
    config: TlsConfig,
    loaded: Lock<Option<LoadedConfig>>,
}

struct LoadedConfig {
    files: Files,
    client: Arc<ClientConfig>,
}

impl fmt::Debug for LoadedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedConfig").finish_non_exhaustive() // both hold the private key
    }
}

#[derive(Debug)]
pub(super) struct HandshakeFailure {
    pub(super) error: Error,
    /// True if the peer may not speak TLS.
    pub(super) is_not_tls: bool,
}

impl From<Error> for HandshakeFailure {
    fn from(error: Error) -> Self {
        Self { error, is_not_tls: false }
    }
}

impl TlsClient {
    pub(super) fn new(config: TlsConfig) -> Self {
        Self { config, loaded: Lock::default() }
    }

    pub(super) async fn handshake(
        self: &Arc<Self>,
        tcp: TcpStream,
        addr: &BrokerAddr,
        timeout: Duration,
    ) -> Result<TlsDuplex, HandshakeFailure> {
        let name = self.server_name(addr)?;
        let this = Arc::clone(self);
        // On the blocking pool: reads files.
        let loaded = tokio::task::spawn_blocking(move || this.load()).await;
        let loaded = loaded.map_err(|e| Error::new(ErrorKind::Closed, format!("{addr}: TLS was not set up: {e}")))?;
        let mut client = (*loaded?).clone();
        let client_auth = Arc::new(ClientAuth {
            resolver: client.client_auth_cert_resolver,
            cert_file: self.config.cert_file.clone(),
            ca_file: self.config.ca_file.clone(),
            was_requested: AtomicBool::new(false),
        });
        client.client_auth_cert_resolver = Arc::clone(&client_auth) as Arc<dyn ResolvesClientCert>;
        let handshake = TlsConnector::from(Arc::new(client)).connect(name, tcp);
        match tokio::time::timeout(timeout, handshake).await {
            Ok(Ok(stream)) => Ok(TlsDuplex { stream, client_auth, has_received: false }),
            Ok(Err(e)) => Err(explain::handshake(addr, &e, &client_auth)),
            Err(_) => {
                let what =
                    format!("{addr} accepted the connection but did not complete the TLS handshake within {timeout:?}");
                Err(HandshakeFailure { error: Error::new(ErrorKind::Connect, what), is_not_tls: true })
            }
        }
    }

    fn server_name(&self, addr: &BrokerAddr) -> Result<ServerName<'static>> {
        let name = self.config.server_name.as_deref().unwrap_or(addr.host());
        // The zone of a link-local address means nothing to the peer.
        let name = name.split('%').next().unwrap_or(name);
        ServerName::try_from(name.to_owned()).map_err(|_| {
            let what = format!(
                "{addr}: {name:?} is neither a DNS name nor an IP address, so no certificate can have it: set \
                 TlsConfig::server_name to a name in the broker's certificate"
            );
            Error::new(ErrorKind::Config, what)
        })
    }

    /// Returns the configuration by the current files, or the previous one if those can't be used.
    fn load(&self) -> Result<Arc<ClientConfig>> {
        let mut loaded = self.loaded.lock();
        let fresh = Files::read(&self.config);
        if let (Some(now), Ok(files)) = (&*loaded, &fresh) {
            if now.files == *files {
                return Ok(Arc::clone(&now.client));
            }
        }
        let fresh = fresh.and_then(|files| Ok((client_config(&files)?, files)));
        match (fresh, &*loaded) {
            (Ok((client, files)), before) => {
                if before.is_some() {
                    tracing::info!("changed TLS files are in use");
                }
                *loaded = Some(LoadedConfig { files, client: Arc::clone(&client) });
                Ok(client)
            }
            (Err(error), Some(before)) => {
                tracing::warn!(%error, "changed TLS files can't be used; the previous ones stay in use");
                Ok(Arc::clone(&before.client))
            }
            (Err(error), None) => Err(error),
        }
    }
}

fn client_config(files: &Files) -> Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(provider::for_this_cpu())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::new(ErrorKind::Config, format!("TLS can't be used: {e}")))?
        .with_root_certificates(files.roots()?);
    let mut client = files.client_config(builder)?;
    client.resumption = Resumption::disabled();
    Ok(Arc::new(client))
}

/// The client certificate of one connection, which notes whether the broker requested it.
struct ClientAuth {
    resolver: Arc<dyn ResolvesClientCert>,
    cert_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    was_requested: AtomicBool,
}

impl ClientAuth {
    fn was_requested(&self) -> bool {
        self.was_requested.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuth").field("cert_file", &self.cert_file).finish_non_exhaustive() // `resolver` holds the private key
    }
}

impl ResolvesClientCert for ClientAuth {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.was_requested.store(true, Ordering::Relaxed);
        self.resolver.resolve(hints, schemes)
    }

    fn has_certs(&self) -> bool {
        self.resolver.has_certs()
    }
}

/// A TLS stream that explains its errors.
#[derive(Debug)]
pub(super) struct TlsDuplex {
    stream: TlsStream<TcpStream>,
    client_auth: Arc<ClientAuth>,
    /// True once the broker has sent data: in TLS 1.3 it verifies the client certificate after the
    /// client's handshake is complete.
    has_received: bool,
}

impl TlsDuplex {
    fn explain(&self, e: io::Error) -> io::Error {
        explain::stream(e, &self.client_auth, self.has_received)
    }
}

impl AsyncRead for TlsDuplex {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining());
        let end = match ready!(Pin::new(&mut self.stream).poll_read(cx, buf)) {
            Ok(()) if buf.filled().len() > before => {
                self.has_received = true;
                return Poll::Ready(Ok(()));
            }
            Ok(()) if room == 0 => return Poll::Ready(Ok(())),
            Ok(()) => io::ErrorKind::UnexpectedEof.into(),
            Err(e) => e,
        };
        match self.explain(end) {
            // Frames have lengths, so a missing close_notify can't hide a truncated frame: it is an
            // ordinary end.
            e if e.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            e => Poll::Ready(Err(e)),
        }
    }
}

impl AsyncWrite for TlsDuplex {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        Poll::Ready(written.map_err(|e| self.explain(e)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        Poll::Ready(written.map_err(|e| self.explain(e)))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        Poll::Ready(flushed.map_err(|e| self.explain(e)))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
