//! SASL login: mechanisms, credentials, tokens.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use super::Secret;

/// SASL login, for [`SecurityProtocol::SaslSsl`](crate::SecurityProtocol::SaslSsl) and
/// [`SecurityProtocol::SaslPlaintext`](crate::SecurityProtocol::SaslPlaintext).
///
/// Each new connection is authenticated, within
/// [`connect_timeout`](crate::Config::connect_timeout), and authenticated again before the broker
/// ends its session (KIP-368): other requests of the connection wait meanwhile. A connection whose
/// login can't be renewed is closed, and its requests fail with an error that says so.
///
/// ```
/// use ailurus::{Config, SaslConfig, SecurityProtocol};
///
/// let config = Config::builder()
///     .security_protocol(SecurityProtocol::SaslPlaintext)
///     .sasl(SaslConfig::scram_sha_512("alice", "hunter2"))
///     .build()?;
/// assert!(!format!("{config:?}").contains("hunter2"));
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SaslConfig {
    /// Mechanism and credentials.
    pub mechanism: SaslMechanism,
    /// Allows a password ([`SaslMechanism::Plain`]) or a token ([`SaslMechanism::OAuthBearer`])
    /// over a connection without TLS, where it can be read on the network; default false: such
    /// settings are rejected.
    pub allow_cleartext: bool,
}

/// SASL mechanisms.
///
/// ```
/// use ailurus::{SaslConfig, SaslMechanism};
///
/// let sasl = SaslConfig::scram_sha_256("alice", "hunter2");
/// assert!(matches!(&sasl.mechanism, SaslMechanism::ScramSha256(who) if who.username == "alice"));
/// assert_eq!(sasl.mechanism.name(), "SCRAM-SHA-256");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SaslMechanism {
    /// `PLAIN`: sends the password.
    Plain(Credentials),
    /// `SCRAM-SHA-256`: both sides prove that they know the password, without sending it.
    ScramSha256(Credentials),
    /// `SCRAM-SHA-512`: SCRAM with a longer hash.
    ScramSha512(Credentials),
    /// `OAUTHBEARER`: a token of an issuer that the brokers trust.
    OAuthBearer(OAuthBearer),
}

impl SaslMechanism {
    /// Returns the name in the protocol.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Plain(_) => "PLAIN",
            Self::ScramSha256(_) => "SCRAM-SHA-256",
            Self::ScramSha512(_) => "SCRAM-SHA-512",
            Self::OAuthBearer(_) => "OAUTHBEARER",
        }
    }
}

/// User name and password.
///
/// ```
/// use ailurus::Credentials;
///
/// let alice = Credentials::new("alice", "hunter2");
/// assert_eq!(format!("{alice:?}"), r#"Credentials { username: "alice", password: Secret(…) }"#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// User name: at least one character, none of them NUL.
    pub username: String,
    /// Password: at least one character, none of them NUL.
    pub password: Secret,
}

impl Credentials {
    /// Both of them.
    pub fn new(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self { username: username.into(), password: password.into() }
    }
}

/// Credentials of `OAUTHBEARER`.
///
/// ```
/// use ailurus::{OAuthBearer, TokenSource};
///
/// let mut bearer = OAuthBearer::new(TokenSource::File("/var/run/secrets/kafka/token".into()));
/// bearer.extensions.push(("logicalCluster".into(), "lkc-1".into()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OAuthBearer {
    /// Source of tokens.
    pub tokens: TokenSource,
    /// SASL extensions (KIP-342), which some services require; default none. Names are of letters
    /// and not `auth`, values of printable ASCII characters.
    pub extensions: Vec<(String, String)>,
}

impl OAuthBearer {
    /// Without extensions.
    pub fn new(tokens: TokenSource) -> Self {
        Self { tokens, extensions: Vec::new() }
    }
}

/// Source of tokens. A token is fetched for each login, and so for each renewal.
///
/// ```
/// use ailurus::TokenSource;
///
/// let file = TokenSource::File("/var/run/secrets/kafka/token".into());
/// let own = TokenSource::provider(|| async { Ok("eyJhbGciOi…".into()) });
/// assert_ne!(file, own);
/// assert_eq!(own, own.clone());
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum TokenSource {
    /// A custom one; see [`TokenSource::provider`].
    Provider(Arc<dyn TokenProvider>),
    /// A file with a token, and nothing else but white space. It is read for each login, and must
    /// be kept fresh.
    File(PathBuf),
}

impl TokenSource {
    /// Creates a source from a provider.
    pub fn provider(provider: impl TokenProvider + 'static) -> Self {
        Self::Provider(Arc::new(provider))
    }
}

/// Providers are equal if they are the same instance.
impl PartialEq for TokenSource {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Provider(a), Self::Provider(b)) => std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)),
            (Self::File(a), Self::File(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for TokenSource {}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provider(_) => f.write_str("Provider"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// Reason why there is no token. Its text is shown in errors and logs: it must not hold a secret.
pub type TokenError = Box<dyn std::error::Error + Send + Sync>;

/// Future of a token.
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<Secret, TokenError>> + Send + 'a>>;

/// Provides tokens; implemented by functions that return a future of one.
///
/// It is called once for each login, possibly by several connections at a time: cache a token that
/// comes from a remote service until shortly before it expires. A login has
/// [`connect_timeout`](crate::Config::connect_timeout) in all; the future is dropped after that.
///
/// ```
/// use ailurus::{SaslConfig, Secret};
/// # async fn request_token() -> std::io::Result<String> { Ok(String::new()) }
///
/// let sasl = SaslConfig::oauthbearer(|| async { Ok(Secret::from(request_token().await?)) });
/// ```
pub trait TokenProvider: Send + Sync {
    /// Returns a valid token.
    fn token(&self) -> TokenFuture<'_>;
}

impl<F, T> TokenProvider for F
where
    F: Fn() -> T + Send + Sync,
    T: Future<Output = Result<Secret, TokenError>> + Send + 'static,
{
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(self())
    }
}

/// Client of an OAuth 2.0 or OpenID Connect token endpoint (the `client_credentials` grant), as the
/// `REDPANDA_SASL_OAUTH_*` variables describe it. The library has no HTTP client: see
/// [`ConfigBuilder::token_endpoint`](crate::ConfigBuilder::token_endpoint).
///
/// ```
/// use ailurus::ClientCredentials;
///
/// let client = ClientCredentials::new("https://id.example.com/oauth/token", "checkout", "hunter2");
/// assert!(!format!("{client:?}").contains("hunter2"));
/// ```
#[cfg(feature = "env")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientCredentials {
    /// URL of the endpoint.
    pub token_endpoint: String,
    /// Client id.
    pub client_id: String,
    /// Client secret.
    pub client_secret: Secret,
    /// Requested scope; default none.
    pub scope: Option<String>,
    /// Trusted CA certificates of the endpoint, PEM; default the system's.
    pub ca_file: Option<PathBuf>,
}

#[cfg(feature = "env")]
impl ClientCredentials {
    /// Without a scope.
    pub fn new(
        token_endpoint: impl Into<String>,
        client_id: impl Into<String>,
        client_secret: impl Into<Secret>,
    ) -> Self {
        Self {
            token_endpoint: token_endpoint.into(),
            client_id: client_id.into(),
            client_secret: client_secret.into(),
            scope: None,
            ca_file: None,
        }
    }
}

impl SaslConfig {
    /// Authenticates with `mechanism`.
    pub fn new(mechanism: SaslMechanism) -> Self {
        Self { mechanism, allow_cleartext: false }
    }

    /// Authenticates with `PLAIN`.
    pub fn plain(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::new(SaslMechanism::Plain(Credentials::new(username, password)))
    }

    /// Authenticates with `SCRAM-SHA-256`.
    pub fn scram_sha_256(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::new(SaslMechanism::ScramSha256(Credentials::new(username, password)))
    }

    /// Authenticates with `SCRAM-SHA-512`.
    pub fn scram_sha_512(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::new(SaslMechanism::ScramSha512(Credentials::new(username, password)))
    }

    /// Authenticates with `OAUTHBEARER`, with tokens of a provider.
    pub fn oauthbearer(provider: impl TokenProvider + 'static) -> Self {
        Self::new(SaslMechanism::OAuthBearer(OAuthBearer::new(TokenSource::provider(provider))))
    }

    /// Authenticates with `OAUTHBEARER`, with the token in a file.
    pub fn oauthbearer_file(path: impl Into<PathBuf>) -> Self {
        Self::new(SaslMechanism::OAuthBearer(OAuthBearer::new(TokenSource::File(path.into()))))
    }

    /// Sets [`allow_cleartext`](field@Self::allow_cleartext).
    #[must_use]
    pub fn allow_cleartext(mut self, allow: bool) -> Self {
        self.allow_cleartext = allow;
        self
    }

    /// Returns whether the login sends a secret that can be read on a connection without TLS.
    pub(crate) fn is_cleartext(&self) -> bool {
        matches!(self.mechanism, SaslMechanism::Plain(_) | SaslMechanism::OAuthBearer(_))
    }
}
