//! Authentication state of a connection.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use sha2::{Sha256, Sha512};
use tokio::time::Instant;

use super::scram::ScramExchange;
use super::{AuthError, Principal, Sasl, SaslMechanism, plain, token};

/// An authenticated session.
#[derive(Debug, Clone)]
struct Session {
    principal: String,
    mechanism: SaslMechanism,
    expires_at: Option<Instant>,
}

/// State of an exchange.
#[derive(Debug)]
enum Exchange {
    Started,
    Sha256(Box<ScramExchange<Sha256>>),
    Sha512(Box<ScramExchange<Sha512>>),
    /// The token was rejected, and the client has been sent the reason.
    TokenRejected,
}

#[derive(Debug)]
enum Stage {
    /// Only ApiVersions and SaslHandshake are allowed.
    AwaitingHandshake,
    /// The exchange is in progress; `previous` is the session that it renews.
    Authenticating {
        mechanism: SaslMechanism,
        exchange: Exchange,
        previous: Option<Session>,
    },
    Authenticated(Session),
}

#[derive(Debug)]
pub(crate) struct Auth {
    stage: Stage,
}

/// Outcome of one message of an exchange.
#[derive(Debug)]
pub(crate) enum AuthOutcome {
    Continue(Bytes),
    Done { last: Bytes, lifetime: Option<Duration> },
    Failed(ResponseError, String),
}

impl Auth {
    pub fn new() -> Self {
        Self { stage: Stage::AwaitingHandshake }
    }

    /// Returns whether a request of this API is allowed now; otherwise the connection is closed, as
    /// Kafka does.
    pub fn allows(&self, api: ApiKey, now: Instant) -> bool {
        match (&self.stage, api) {
            (Stage::AwaitingHandshake, ApiKey::ApiVersions | ApiKey::SaslHandshake) => true,
            (Stage::Authenticating { .. }, ApiKey::SaslAuthenticate) => true,
            (Stage::AwaitingHandshake | Stage::Authenticating { .. }, _) => false,
            (Stage::Authenticated(_), ApiKey::SaslHandshake) => true,
            (Stage::Authenticated(session), _) => session.expires_at.is_none_or(|expires_at| now < expires_at),
        }
    }

    /// Handles a SaslHandshake: the first, or one that renews the session.
    pub fn handshake(&mut self, sasl: &Sasl, mechanism: &str) -> Result<(), ResponseError> {
        let previous = match std::mem::replace(&mut self.stage, Stage::AwaitingHandshake) {
            Stage::Authenticated(session) => Some(session),
            _ => None,
        };
        let mechanism = sasl.find_mechanism(mechanism).ok_or(ResponseError::UnsupportedSaslMechanism)?;
        if previous.as_ref().is_some_and(|s| s.mechanism != mechanism) {
            return Err(ResponseError::IllegalSaslState);
        }
        self.stage = Stage::Authenticating { mechanism, exchange: Exchange::Started, previous };
        Ok(())
    }

    /// Handles a message of the client.
    pub fn authenticate(&mut self, sasl: &Sasl, message: &[u8], now: Instant) -> AuthOutcome {
        let Stage::Authenticating { mechanism, exchange, previous } =
            std::mem::replace(&mut self.stage, Stage::AwaitingHandshake)
        else {
            let message = "SaslAuthenticate request received after successful authentication";
            return AuthOutcome::Failed(ResponseError::IllegalSaslState, message.into());
        };
        match advance(sasl, mechanism, exchange, message) {
            Ok(Step::Continue(exchange, message)) => {
                self.stage = Stage::Authenticating { mechanism, exchange, previous };
                AuthOutcome::Continue(message)
            }
            Ok(Step::Done(principal, _)) if previous.as_ref().is_some_and(|s| s.principal != principal.name) => {
                let message = "Cannot change principals during re-authentication";
                AuthOutcome::Failed(ResponseError::SaslAuthenticationFailed, message.into())
            }
            Ok(Step::Done(principal, last)) => {
                let token_lifetime = principal
                    .expires_at
                    .map(|expires_at| expires_at.duration_since(SystemTime::now()).unwrap_or_default());
                let lifetime = token_lifetime.into_iter().chain(sasl.session_lifetime).min();
                let expires_at = lifetime.and_then(|l| now.checked_add(l));
                self.stage = Stage::Authenticated(Session { principal: principal.name, mechanism, expires_at });
                AuthOutcome::Done { last, lifetime }
            }
            Err(AuthError(message)) => AuthOutcome::Failed(ResponseError::SaslAuthenticationFailed, message),
        }
    }
}

enum Step {
    Continue(Exchange, Bytes),
    Done(Principal, Bytes),
}

fn advance(sasl: &Sasl, mechanism: SaslMechanism, exchange: Exchange, message: &[u8]) -> Result<Step, AuthError> {
    let find_user = |user: &str| sasl.users.get(user);
    let done =
        |user: &str, last: String| Step::Done(Principal { name: user.to_owned(), expires_at: None }, last.into());
    match (mechanism, exchange) {
        (SaslMechanism::Plain, _) => Ok(Step::Done(plain::check(sasl, message)?, Bytes::new())),
        (SaslMechanism::ScramSha256, Exchange::Started) => {
            let (scram, first) = ScramExchange::new(message, |user| find_user(user).map(|u| u.sha_256.clone()))?;
            Ok(Step::Continue(Exchange::Sha256(scram.into()), first.into()))
        }
        (SaslMechanism::ScramSha512, Exchange::Started) => {
            let (scram, first) = ScramExchange::new(message, |user| find_user(user).map(|u| u.sha_512.clone()))?;
            Ok(Step::Continue(Exchange::Sha512(scram.into()), first.into()))
        }
        (_, Exchange::Sha256(scram)) => Ok(done(&scram.user, scram.check(message)?)),
        (_, Exchange::Sha512(scram)) => Ok(done(&scram.user, scram.check(message)?)),
        (SaslMechanism::OAuthBearer, Exchange::Started) => Ok(match token::check(sasl, message)? {
            Some(principal) => Step::Done(principal, Bytes::new()),
            None => Step::Continue(Exchange::TokenRejected, token::INVALID_TOKEN_RESPONSE.into()),
        }),
        (_, Exchange::TokenRejected) => Err(AuthError::new(token::INVALID_TOKEN_RESPONSE)),
    }
}
