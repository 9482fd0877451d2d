//! How a client proves who it is.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use super::Secret;

/// A login by SASL, for [`SecurityProtocol::SaslSsl`](crate::SecurityProtocol::SaslSsl) and
/// [`SecurityProtocol::SaslPlaintext`](crate::SecurityProtocol::SaslPlaintext).
///
/// It is done on each new connection, within [`connect_timeout`](crate::Config::connect_timeout), and again on those that are open
/// before the broker lets a session end (KIP-368): other requests of the connection wait meanwhile. A connection whose login could
/// not be renewed is closed, and its requests fail with an error that says so.
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
    /// The proof, and what it takes.
    pub mechanism: SaslMechanism,
    /// Whether a password ([`SaslMechanism::Plain`]) or a token ([`SaslMechanism::OAuthBearer`]) may go over a connection that is not
    /// TLS, where whoever is on the way can read and use it; default false: such settings are refused.
    pub allow_cleartext: bool,
}

/// The ways to prove who one is.
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
    /// `PLAIN`: the password as it is.
    Plain(Credentials),
    /// `SCRAM-SHA-256`: both sides prove that they know the password, and neither tells it.
    ScramSha256(Credentials),
    /// `SCRAM-SHA-512`: the same by a longer hash.
    ScramSha512(Credentials),
    /// `OAUTHBEARER`: a token that somebody has issued whom the brokers trust.
    OAuthBearer(OAuthBearer),
}

impl SaslMechanism {
    /// As the protocol calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Plain(_) => "PLAIN",
            Self::ScramSha256(_) => "SCRAM-SHA-256",
            Self::ScramSha512(_) => "SCRAM-SHA-512",
            Self::OAuthBearer(_) => "OAUTHBEARER",
        }
    }
}

/// A user and a password.
///
/// ```
/// use ailurus::Credentials;
///
/// let alice = Credentials::new("alice", "hunter2");
/// assert_eq!(format!("{alice:?}"), r#"Credentials { username: "alice", password: Secret(…) }"#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Who: at least one character, none of them NUL.
    pub username: String,
    /// The password: at least one character, none of them NUL.
    pub password: Secret,
}

impl Credentials {
    /// Both of them.
    pub fn new(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self { username: username.into(), password: password.into() }
    }
}

/// What `OAUTHBEARER` takes.
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
    /// Where tokens come from.
    pub tokens: TokenSource,
    /// Names and values that go with the token where a service asks for them (KIP-342); default none. Names are of letters and not
    /// `auth`, values of printable ASCII characters.
    pub extensions: Vec<(String, String)>,
}

impl OAuthBearer {
    /// Without extensions.
    pub fn new(tokens: TokenSource) -> Self {
        Self { tokens, extensions: Vec::new() }
    }
}

/// Where tokens come from. It is asked for each login, and so whenever one has to be renewed.
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
    /// One of your own; see [`TokenSource::provider`].
    Provider(Arc<dyn TokenProvider>),
    /// A file that holds a token and nothing else but space around it, and which somebody keeps fresh. It is read for each login.
    File(PathBuf),
    /// A token endpoint. The library only reads these settings: who speaks HTTP puts a [`Provider`](Self::Provider) in their place,
    /// as the `ailurus` command does. Connecting with them as they are is an error.
    ClientCredentials(ClientCredentials),
}

impl TokenSource {
    /// One of your own.
    pub fn provider(provider: impl TokenProvider + 'static) -> Self {
        Self::Provider(Arc::new(provider))
    }
}

/// A provider equals itself and its clones.
impl PartialEq for TokenSource {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Provider(a), Self::Provider(b)) => std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)),
            (Self::File(a), Self::File(b)) => a == b,
            (Self::ClientCredentials(a), Self::ClientCredentials(b)) => a == b,
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
            Self::ClientCredentials(client) => client.fmt(f),
        }
    }
}

/// Why there is no token. Its text is shown in errors and logs: it must not hold a secret.
pub type TokenError = Box<dyn std::error::Error + Send + Sync>;

/// A token to come.
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<Secret, TokenError>> + Send + 'a>>;

/// Provides tokens; any function that returns a future of one is such.
///
/// It is asked once for each login, of several connections at a time: one that has to ask somebody else should keep a token until
/// shortly before it expires. A login has [`connect_timeout`](crate::Config::connect_timeout) in all; after that the future is
/// dropped.
///
/// ```
/// use ailurus::{SaslConfig, Secret};
/// # async fn ask_the_identity_provider() -> std::io::Result<String> { Ok(String::new()) }
///
/// let sasl = SaslConfig::oauthbearer(|| async { Ok(Secret::from(ask_the_identity_provider().await?)) });
/// ```
pub trait TokenProvider: Send + Sync {
    /// A token that is good now.
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

/// Who asks an OAuth 2.0 or OpenID Connect token endpoint for tokens of its own (the `client_credentials` grant).
///
/// ```
/// use ailurus::ClientCredentials;
///
/// let client = ClientCredentials::new("https://id.example.com/oauth/token", "checkout", "hunter2");
/// assert!(!format!("{client:?}").contains("hunter2"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientCredentials {
    /// The endpoint's URL.
    pub token_endpoint: String,
    /// The client's id there.
    pub client_id: String,
    /// And its secret.
    pub client_secret: Secret,
    /// What is asked for; default none is named.
    pub scope: Option<String>,
    /// The authorities that may vouch for the endpoint, as PEM certificates one after the other; default those of the system.
    pub ca_file: Option<PathBuf>,
}

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
    /// By this mechanism.
    pub fn new(mechanism: SaslMechanism) -> Self {
        Self { mechanism, allow_cleartext: false }
    }

    /// By `PLAIN`.
    pub fn plain(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::new(SaslMechanism::Plain(Credentials::new(username, password)))
    }

    /// By `SCRAM-SHA-256`.
    pub fn scram_sha_256(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::new(SaslMechanism::ScramSha256(Credentials::new(username, password)))
    }

    /// By `SCRAM-SHA-512`.
    pub fn scram_sha_512(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::new(SaslMechanism::ScramSha512(Credentials::new(username, password)))
    }

    /// By `OAUTHBEARER`, with tokens of a provider.
    pub fn oauthbearer(provider: impl TokenProvider + 'static) -> Self {
        Self::new(SaslMechanism::OAuthBearer(OAuthBearer::new(TokenSource::provider(provider))))
    }

    /// By `OAUTHBEARER`, with the token in a file.
    pub fn oauthbearer_file(path: impl Into<PathBuf>) -> Self {
        Self::new(SaslMechanism::OAuthBearer(OAuthBearer::new(TokenSource::File(path.into()))))
    }

    /// See [`allow_cleartext`](Self::allow_cleartext).
    #[must_use]
    pub fn allow_cleartext(mut self, allow: bool) -> Self {
        self.allow_cleartext = allow;
        self
    }

    /// Whether it tells a secret to whoever can read the connection.
    pub(crate) fn is_cleartext(&self) -> bool {
        matches!(self.mechanism, SaslMechanism::Plain(_) | SaslMechanism::OAuthBearer(_))
    }
}
