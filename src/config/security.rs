//! Transport security of connections.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::table::settings;
use crate::error::{Error, ErrorKind, Result};

/// Transport security of broker connections: TCP or TLS, with or without a SASL login. Brokers have
/// a listener, and so a port, for each.
///
/// From text, such as `REDPANDA_SECURITY_PROTOCOL`: Kafka's names, in any case.
///
/// ```
/// use ailurus::{Config, SecurityProtocol};
///
/// let config = Config::builder().security_protocol(SecurityProtocol::Plaintext).build()?;
/// assert_eq!(config.security_protocol, "PLAINTEXT".parse()?);
/// assert!(SecurityProtocol::SaslSsl.is_tls() && SecurityProtocol::SaslSsl.is_sasl());
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SecurityProtocol {
    /// `PLAINTEXT`: TCP without authentication.
    #[default]
    Plaintext,
    /// `SSL`: TLS; the client certificate authenticates, if the broker requests one.
    Ssl,
    /// `SASL_PLAINTEXT`: a login over TCP.
    SaslPlaintext,
    /// `SASL_SSL`: a login over TLS.
    SaslSsl,
}

impl SecurityProtocol {
    const ALL: [Self; 4] = [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl];

    /// Error text where TLS is not compiled in.
    #[cfg(not(any(feature = "tls", feature = "tls-ring")))]
    pub(crate) const NO_TLS: &str = "TLS is not built in: build the library with its feature tls (or tls-ring), or the command with its default features";

    /// Returns whether connections use TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Returns whether connections begin with a SASL login.
    pub fn is_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }
}

impl fmt::Display for SecurityProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SecurityProtocol {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|p| p.name().eq_ignore_ascii_case(s)).ok_or_else(|| {
            let what = format!("{s:?} is no security protocol: allowed is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL");
            Error::new(ErrorKind::Config, what)
        })
    }
}

settings! {
    /// Settings of TLS, for [`SecurityProtocol::Ssl`] and [`SecurityProtocol::SaslSsl`].
    ///
    /// The files are PEM. They are read when a client connects, and again for a later connection if
    /// they have changed: replace them, and new connections use the new ones.
    ///
    /// ```
    /// use ailurus::Config;
    ///
    /// // Without TLS they have no effect, so that is an error:
    /// let error = Config::builder().tls(|tls| tls.ca_file("/etc/redpanda/ca.crt")).build().unwrap_err();
    /// assert!(error.to_string().contains("Config::security_protocol"), "{error}");
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct TlsConfig(self) {
        /// Trusted CA certificates, concatenated; none: the system's.
        ca_file as tls_ca_file: Option<PathBuf> = None, "REDPANDA_TLS_CA_FILE" file;
        /// Client certificate, for brokers that request one (mTLS), with its intermediate
        /// certificates.
        cert_file as tls_cert_file: Option<PathBuf> = None, "REDPANDA_TLS_CERT_FILE" file;
        /// Private key of `cert_file`, as PKCS #8, PKCS #1 or SEC 1, not encrypted. It may be in
        /// the same file.
        key_file as tls_key_file: Option<PathBuf> = None, "REDPANDA_TLS_KEY_FILE" file;
        /// Name, or IP address, that the brokers' certificates must be for; none: each broker's
        /// host. Set it where brokers are reached by addresses that are not in their certificates.
        server_name as tls_server_name: Option<String> = None, "REDPANDA_TLS_SERVER_NAME" name;
    }
    setters: tls_settings;
}

tls_settings!(TlsConfig [] by_field);
