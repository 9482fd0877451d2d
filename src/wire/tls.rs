//! TLS below a connection, by rustls.
//!
//! - The files are looked at with each new connection, and used when they have changed; those read before stay in use while what is
//!   new can't be.
//! - No session is resumed: each connection checks the broker's certificate and shows ours, so that what is revoked or replaced
//!   has its effect with the next one.
//! - What goes wrong is told in words for whoever runs the client: see [`explain`].

mod explain;
mod files;
mod provider;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

/// Makes TLS connections by a client's settings.
#[derive(Debug)]
pub(super) struct Tls {
    config: TlsConfig,
    /// What the files made last.
    loaded: Mutex<Option<Loaded>>,
}

struct Loaded {
    files: Files,
    client: Arc<ClientConfig>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").finish_non_exhaustive() // both have our key
    }
}

/// A handshake that failed.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: Error,
    /// The other side showed no sign of TLS.
    pub(super) no_tls: bool,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, no_tls: false }
    }
}

impl Tls {
    pub(super) fn new(config: TlsConfig) -> Self {
        Self { config, loaded: Mutex::default() }
    }

    /// The handshake, within `timeout`.
    pub(super) async fn secure(
        self: &Arc<Self>,
        tcp: TcpStream,
        addr: &BrokerAddr,
        timeout: Duration,
    ) -> Result<Secured, Refused> {
        let name = self.server_name(addr)?;
        let this = Arc::clone(self);
        // Reads files.
        let loaded = tokio::task::spawn_blocking(move || this.load()).await;
        let loaded = loaded.map_err(|e| Error::new(ErrorKind::Closed, format!("{addr}: TLS was not set up: {e}")))?;
        let mut client = (*loaded?).clone();
        let credentials = Arc::new(Credentials {
            own: client.client_auth_cert_resolver,
            cert_file: self.config.cert_file.clone(),
            ca_file: self.config.ca_file.clone(),
            asked: AtomicBool::new(false),
        });
        client.client_auth_cert_resolver = Arc::clone(&credentials) as Arc<dyn ResolvesClientCert>;
        let handshake = TlsConnector::from(Arc::new(client)).connect(name, tcp);
        match tokio::time::timeout(timeout, handshake).await {
            Ok(Ok(stream)) => Ok(Secured { stream, credentials, heard: false }),
            Ok(Err(e)) => Err(explain::handshake(addr, &e, &credentials)),
            Err(_) => {
                let what =
                    format!("{addr} accepted the connection but did not end the TLS handshake within {timeout:?}");
                Err(Refused { error: Error::new(ErrorKind::Connect, what), no_tls: true })
            }
        }
    }

    /// What the broker's certificate must be for.
    fn server_name(&self, addr: &BrokerAddr) -> Result<ServerName<'static>> {
        let name = self.config.server_name.as_deref().unwrap_or(addr.host());
        // The zone of a link-local address is of no meaning to the other side.
        let name = name.split('%').next().unwrap_or(name);
        ServerName::try_from(name.to_owned()).map_err(|_| {
            let what = format!(
                "{addr}: {name:?} is neither a DNS name nor an IP address, so no certificate can be for it: set \
                 REDPANDA_TLS_SERVER_NAME to what the broker's certificate is for"
            );
            Error::new(ErrorKind::Config, what)
        })
    }

    /// By the files as they are now, as far as they can be used.
    fn load(&self) -> Result<Arc<ClientConfig>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Files::read(&self.config);
        if let (Some(now), Ok(files)) = (&*loaded, &fresh) {
            if now.files == *files {
                return Ok(Arc::clone(&now.client));
            }
        }
        let fresh = fresh.and_then(|files| Ok((client_config(&files, &self.config)?, files)));
        match (fresh, &*loaded) {
            (Ok((client, files)), before) => {
                if before.is_some() {
                    tracing::info!("changed TLS files are in use from now on");
                }
                *loaded = Some(Loaded { files, client: Arc::clone(&client) });
                Ok(client)
            }
            (Err(error), Some(before)) => {
                tracing::warn!(%error, "changed TLS files can't be used; what was read before stays in use");
                Ok(Arc::clone(&before.client))
            }
            (Err(error), None) => Err(error),
        }
    }
}

fn client_config(files: &Files, config: &TlsConfig) -> Result<Arc<ClientConfig>> {
    let unusable = |what: String, e: rustls::Error| Error::new(ErrorKind::Config, format!("{what}: {e}"));
    let provider = provider::of_this_cpu();
    let roots = files.roots(config)?;
    let own = files.own(config)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable("TLS can't be used".into(), e))?
        .with_root_certificates(roots);
    let mut client = match own {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|e| files::unusable_key(config, &e))?,
    };
    client.resumption = Resumption::disabled();
    Ok(Arc::new(client))
}

/// What one connection shows of us, and whether the broker asked for it.
struct Credentials {
    own: Arc<dyn ResolvesClientCert>,
    cert_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    asked: AtomicBool,
}

impl Credentials {
    fn were_asked_for(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("cert_file", &self.cert_file).finish_non_exhaustive() // `own` has our key
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.own.resolve(hints, schemes)
    }

    fn has_certs(&self) -> bool {
        self.own.has_certs()
    }
}

/// A TLS stream whose errors are in our words.
#[derive(Debug)]
pub(super) struct Secured {
    stream: TlsStream<TcpStream>,
    credentials: Arc<Credentials>,
    /// Whether the broker has answered anything: in TLS 1.3 it judges our certificate after the handshake has ended for us.
    heard: bool,
}

impl Secured {
    fn explain(&self, e: io::Error) -> io::Error {
        explain::stream(e, &self.credentials, self.heard)
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining());
        let end = match ready!(Pin::new(&mut self.stream).poll_read(cx, buf)) {
            Ok(()) if buf.filled().len() > before => {
                self.heard = true;
                return Poll::Ready(Ok(()));
            }
            Ok(()) if room == 0 => return Poll::Ready(Ok(())),
            Ok(()) => io::ErrorKind::UnexpectedEof.into(),
            Err(e) => e,
        };
        match self.explain(end) {
            // Frames have lengths: that TLS was not ended as it should be tells nothing more than that the connection has ended.
            e if e.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            e => Poll::Ready(Err(e)),
        }
    }
}

impl AsyncWrite for Secured {
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
