//! SASL on the broker's side.
//!
//! It is written on HMAC, SHA-2 and PBKDF2 alone, so that the client's SASL library is tested
//! against another implementation.

mod auth;
mod plain;
mod scram;
mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use sha2::{Sha256, Sha512};

pub(crate) use auth::{Auth, AuthOutcome};

use scram::ScramCredential;

/// A SASL mechanism.
///
/// ```
/// use ailurus_broker::SaslMechanism;
///
/// assert_eq!(SaslMechanism::ScramSha512.name(), "SCRAM-SHA-512");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SaslMechanism {
    /// Password in plain text.
    Plain,
    /// Challenge and response with SHA-256 (RFC 7677).
    ScramSha256,
    /// Challenge and response with SHA-512.
    ScramSha512,
    /// Bearer token (RFC 7628).
    OAuthBearer,
}

impl SaslMechanism {
    const ALL: [Self; 4] = [Self::Plain, Self::ScramSha256, Self::ScramSha512, Self::OAuthBearer];

    /// Returns the name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }
}

/// Authentication settings of a broker. [`Default`] offers all mechanisms and has no users.
///
/// ```
/// use std::time::Duration;
/// use ailurus_broker::{Broker, BrokerConfig, BrokerError, Sasl, SaslMechanism};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BrokerError> {
/// let sasl = Sasl::default()
///     .mechanisms(&[SaslMechanism::ScramSha256, SaslMechanism::ScramSha512])
///     .user("alice", "secret")
///     .session_lifetime(Duration::from_secs(60));
/// let broker = Broker::start(BrokerConfig::default().sasl(sasl)).await?;
/// # broker.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Sasl {
    mechanisms: Vec<SaslMechanism>,
    users: BTreeMap<String, User>,
    /// Principals by token.
    tokens: BTreeMap<String, String>,
    unsecured_tokens: bool,
    session_lifetime: Option<Duration>,
}

#[derive(Clone)]
struct User {
    password: String,
    sha_256: ScramCredential<Sha256>,
    sha_512: ScramCredential<Sha512>,
}

impl Default for Sasl {
    fn default() -> Self {
        Self {
            mechanisms: SaslMechanism::ALL.to_vec(),
            users: BTreeMap::new(),
            tokens: BTreeMap::new(),
            unsecured_tokens: false,
            session_lifetime: None,
        }
    }
}

impl Sasl {
    /// Sets the mechanisms to offer (default all).
    #[must_use]
    pub fn mechanisms(mut self, mechanisms: &[SaslMechanism]) -> Self {
        self.mechanisms = mechanisms.to_vec();
        self
    }

    /// Adds a user with a password, for `PLAIN` and both `SCRAM` mechanisms.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        let password = password.into();
        let (sha_256, sha_512) = (ScramCredential::of(&password), ScramCredential::of(&password));
        self.users.insert(name.into(), User { password, sha_256, sha_512 });
        self
    }

    /// Adds a principal with a token that does not expire.
    #[must_use]
    pub fn token(mut self, principal: impl Into<String>, token: impl Into<String>) -> Self {
        self.tokens.insert(token.into(), principal.into());
        self
    }

    /// Sets whether unsecured JWS tokens (`"alg":"none"`) that have not expired are accepted for
    /// the principal in `sub`, as by Kafka's unsecured validator (default false). A session expires
    /// with its token.
    #[must_use]
    pub fn unsecured_tokens(mut self, allow: bool) -> Self {
        self.unsecured_tokens = allow;
        self
    }

    /// Sets the session lifetime (default unlimited), as Kafka's `connections.max.reauth.ms`:
    /// clients get it, and a connection is closed on a request after it other than a new
    /// authentication (KIP-368).
    #[must_use]
    pub fn session_lifetime(mut self, lifetime: Duration) -> Self {
        self.session_lifetime = Some(lifetime);
        self
    }

    pub(crate) fn mechanism_names(&self) -> Vec<&'static str> {
        self.mechanisms.iter().map(|m| m.name()).collect()
    }

    fn find_mechanism(&self, name: &str) -> Option<SaslMechanism> {
        self.mechanisms.iter().copied().find(|m| m.name() == name)
    }
}

/// Shows names, but neither passwords nor tokens.
impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sasl")
            .field("mechanisms", &self.mechanisms)
            .field("users", &self.users.keys())
            .field("tokens_of", &self.tokens.values())
            .field("unsecured_tokens", &self.unsecured_tokens)
            .field("session_lifetime", &self.session_lifetime)
            .finish()
    }
}

/// An authenticated principal, and when its credentials expire.
#[derive(Debug, Clone)]
struct Principal {
    name: String,
    expires_at: Option<SystemTime>,
}

/// Message of a failed authentication, as sent to the client.
#[derive(Debug)]
struct AuthError(String);

impl AuthError {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    fn credentials() -> Self {
        Self::new("Authentication failed during authentication due to invalid credentials")
    }
}

#[cfg(test)]
mod tests;
