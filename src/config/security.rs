//! How a connection is secured.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::table::settings;
use crate::error::{Error, ErrorKind, Result};

/// What a connection to a broker is made of: TCP or TLS, with or without a login by SASL. Brokers have a listener, and so a port,
/// for each.
///
/// From text, such as `REDPANDA_SECURITY_PROTOCOL`: the names that Kafka has for them, in any case.
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
pub enum SecurityProtocol {
    /// `PLAINTEXT`: TCP; nobody asks who we are.
    #[default]
    Plaintext,
    /// `SSL`: TLS; we are who our certificate says, if the broker asks for one.
    Ssl,
    /// `SASL_PLAINTEXT`: a login over TCP.
    SaslPlaintext,
    /// `SASL_SSL`: a login over TLS.
    SaslSsl,
}

impl SecurityProtocol {
    const ALL: [Self; 4] = [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl];

    /// What is missing where TLS is asked for.
    #[cfg(not(any(feature = "tls", feature = "tls-ring")))]
    pub(crate) const NO_TLS: &str = "TLS is not built in: build the library with its feature tls (or tls-ring), or the command with its default features";

    /// Whether the connection is TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Whether a login by SASL comes first.
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
    /// The files are PEM. They are read when a client connects, and again when one of them has changed by the time of a later
    /// connection: replace them, and new connections use what is new.
    ///
    /// ```
    /// use ailurus::{Config, TlsConfig};
    ///
    /// let mut tls = TlsConfig::default();
    /// tls.ca_file = Some("/etc/redpanda/ca.crt".into());
    /// // Without TLS they would do nothing, so that is an error:
    /// let error = Config::builder().tls(tls).build().unwrap_err();
    /// assert!(error.to_string().contains("security protocol"), "{error}");
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct TlsConfig(self) in [config.tls];

    /// The authorities that may vouch for brokers, as certificates one after the other; none: those of the system.
    ca_file as tls_ca_file: Option<PathBuf> = None, "REDPANDA_TLS_CA_FILE" file;
    /// The certificate that we show to brokers which ask for one (mTLS), and those between it and its authority.
    cert_file as tls_cert_file: Option<PathBuf> = None, "REDPANDA_TLS_CERT_FILE" file;
    /// The private key of `cert_file`, as PKCS #8, PKCS #1 or SEC 1, not encrypted. It may be the same file.
    key_file as tls_key_file: Option<PathBuf> = None, "REDPANDA_TLS_KEY_FILE" file;
    /// The name, or IP address, that the certificates of brokers must be for; none: each broker's host. Set it where brokers
    /// are reached by names or addresses that are not in their certificates.
    server_name as tls_server_name: Option<String> = None, "REDPANDA_TLS_SERVER_NAME" name;
}
