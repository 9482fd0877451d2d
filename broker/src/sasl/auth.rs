//! How far a connection has come in proving who it is.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use sha2::{Sha256, Sha512};

use super::scram::Challenge;
use super::{Refused, Sasl, SaslMechanism, Who, plain, token};

/// A session that began with a successful authentication.
#[derive(Debug, Clone)]
struct Session {
    principal: String,
    mechanism: SaslMechanism,
    ends: Option<Instant>,
}

/// What was agreed on, and what came of it so far.
#[derive(Debug)]
enum Exchange {
    Begun,
    Sha256(Box<Challenge<Sha256>>),
    Sha512(Box<Challenge<Sha512>>),
    /// A token was not taken, and the client has been told.
    TokenRefused,
}

#[derive(Debug)]
enum Stage {
    /// Nothing may be asked but the versions and for a mechanism.
    Strange,
    /// The exchange goes on; `before` is the session that it renews.
    Proving {
        mechanism: SaslMechanism,
        exchange: Exchange,
        before: Option<Session>,
    },
    Known(Session),
}

/// One connection's.
#[derive(Debug)]
pub(crate) struct Auth {
    stage: Stage,
}

/// What a step of the exchange is answered with.
#[derive(Debug)]
pub(crate) enum Outcome {
    Next(Bytes),
    Done { last: Bytes, lifetime: Option<Duration> },
    Failed(ResponseError, String),
}

impl Auth {
    pub fn new() -> Self {
        Self { stage: Stage::Strange }
    }

    /// Whether this API may be asked for now; if not, the connection is closed, as Kafka does.
    pub fn allows(&self, api: ApiKey, now: Instant) -> bool {
        match (&self.stage, api) {
            (Stage::Strange, ApiKey::ApiVersions | ApiKey::SaslHandshake) => true,
            (Stage::Proving { .. }, ApiKey::SaslAuthenticate) => true,
            (Stage::Strange | Stage::Proving { .. }, _) => false,
            (Stage::Known(_), ApiKey::SaslHandshake) => true,
            (Stage::Known(session), _) => session.ends.is_none_or(|ends| now < ends),
        }
    }

    /// A client asks for a mechanism, for the first time or to renew its session.
    pub fn begin(&mut self, sasl: &Sasl, mechanism: &str) -> Result<(), ResponseError> {
        let before = match std::mem::replace(&mut self.stage, Stage::Strange) {
            Stage::Known(session) => Some(session),
            _ => None,
        };
        let mechanism = sasl.offered(mechanism).ok_or(ResponseError::UnsupportedSaslMechanism)?;
        if before.as_ref().is_some_and(|s| s.mechanism != mechanism) {
            return Err(ResponseError::IllegalSaslState);
        }
        self.stage = Stage::Proving { mechanism, exchange: Exchange::Begun, before };
        Ok(())
    }

    /// One message of the client.
    pub fn step(&mut self, sasl: &Sasl, message: &[u8], now: Instant) -> Outcome {
        let Stage::Proving { mechanism, exchange, before } = std::mem::replace(&mut self.stage, Stage::Strange) else {
            let why = "SaslAuthenticate request received after successful authentication";
            return Outcome::Failed(ResponseError::IllegalSaslState, why.into());
        };
        match advance(sasl, mechanism, exchange, message) {
            Ok(Step::More(exchange, answer)) => {
                self.stage = Stage::Proving { mechanism, exchange, before };
                Outcome::Next(answer)
            }
            Ok(Step::End(who, _)) if before.as_ref().is_some_and(|s| s.principal != who.principal) => {
                let why = "Cannot change principals during re-authentication";
                Outcome::Failed(ResponseError::SaslAuthenticationFailed, why.into())
            }
            Ok(Step::End(who, last)) => {
                let of_token = who.until.map(|until| until.duration_since(SystemTime::now()).unwrap_or_default());
                let lifetime = of_token.into_iter().chain(sasl.session_lifetime).min();
                let ends = lifetime.and_then(|l| now.checked_add(l));
                self.stage = Stage::Known(Session { principal: who.principal, mechanism, ends });
                Outcome::Done { last, lifetime }
            }
            Err(Refused(why)) => Outcome::Failed(ResponseError::SaslAuthenticationFailed, why),
        }
    }
}

enum Step {
    More(Exchange, Bytes),
    End(Who, Bytes),
}

fn advance(sasl: &Sasl, mechanism: SaslMechanism, exchange: Exchange, message: &[u8]) -> Result<Step, Refused> {
    let known = |user: &str| sasl.users.get(user);
    let end = |user: &str, last: String| Step::End(Who { principal: user.to_owned(), until: None }, last.into());
    match (mechanism, exchange) {
        (SaslMechanism::Plain, _) => Ok(Step::End(plain::check(sasl, message)?, Bytes::new())),
        (SaslMechanism::ScramSha256, Exchange::Begun) => {
            let (challenge, first) = Challenge::new(message, |user| known(user).map(|u| u.sha_256.clone()))?;
            Ok(Step::More(Exchange::Sha256(challenge.into()), first.into()))
        }
        (SaslMechanism::ScramSha512, Exchange::Begun) => {
            let (challenge, first) = Challenge::new(message, |user| known(user).map(|u| u.sha_512.clone()))?;
            Ok(Step::More(Exchange::Sha512(challenge.into()), first.into()))
        }
        (_, Exchange::Sha256(challenge)) => Ok(end(&challenge.user, challenge.check(message)?)),
        (_, Exchange::Sha512(challenge)) => Ok(end(&challenge.user, challenge.check(message)?)),
        (SaslMechanism::OAuthBearer, Exchange::Begun) => Ok(match token::check(sasl, message)? {
            Some(who) => Step::End(who, Bytes::new()),
            None => Step::More(Exchange::TokenRefused, token::INVALID.into()),
        }),
        (_, Exchange::TokenRefused) => Err(Refused::new(token::INVALID)),
    }
}
