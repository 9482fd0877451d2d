//! Who may speak to a broker, and what proofs of it are taken.
//!
//! All of this is the broker's own, on the plain building blocks (HMAC, SHA-2, PBKDF2): a client's library is held against another
//! one here.

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

/// A way to prove who one is.
///
/// ```
/// use ailurus_broker::SaslMechanism;
///
/// assert_eq!(SaslMechanism::ScramSha512.name(), "SCRAM-SHA-512");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SaslMechanism {
    /// The password as it is.
    Plain,
    /// A proof that one has the password, and the broker's proof that it knows it (RFC 7677).
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
    /// A token that somebody else has issued (RFC 7628).
    OAuthBearer,
}

impl SaslMechanism {
    const ALL: [Self; 4] = [Self::Plain, Self::ScramSha256, Self::ScramSha512, Self::OAuthBearer];

    /// As the protocol calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }
}

/// Whom a broker lets in; every connection has to authenticate then. [`Default`] takes all mechanisms and knows nobody.
///
/// ```
/// use std::time::{Duration, SystemTime};
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
    /// By token: whose it is.
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
    /// The mechanisms that are offered (default all).
    #[must_use]
    pub fn mechanisms(mut self, mechanisms: &[SaslMechanism]) -> Self {
        self.mechanisms = mechanisms.to_vec();
        self
    }

    /// Lets a user in with a password, by `PLAIN` and both `SCRAM` mechanisms.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        let password = password.into();
        let (sha_256, sha_512) = (ScramCredential::of(&password), ScramCredential::of(&password));
        self.users.insert(name.into(), User { password, sha_256, sha_512 });
        self
    }

    /// Lets somebody in with a token, for ever.
    #[must_use]
    pub fn token(mut self, principal: impl Into<String>, token: impl Into<String>) -> Self {
        self.tokens.insert(token.into(), principal.into());
        self
    }

    /// Lets everybody in with an unsecured JWS (`"alg":"none"`) that names them in `sub` and has not expired by its `exp`: for
    /// tests, as Kafka's own unsecured validator is (default false). A session ends with its token.
    #[must_use]
    pub fn unsecured_tokens(mut self, allow: bool) -> Self {
        self.unsecured_tokens = allow;
        self
    }

    /// How long an authentication counts (default for ever), as Kafka's `connections.max.reauth.ms`: a client is told, and a
    /// connection on which anything but a new authentication comes later is closed (KIP-368).
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

/// Names, but neither passwords nor tokens.
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

/// Who has authenticated, and how long that counts if it is not for ever.
#[derive(Debug, Clone)]
struct Principal {
    name: String,
    expires_at: Option<SystemTime>,
}

/// Why somebody is not let in, in the words that they are told.
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
