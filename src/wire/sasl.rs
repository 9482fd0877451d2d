//! The login of a connection: when it is made, and again before the broker lets its session end.

mod exchange;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod renewal;
mod token;

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest, SaslHandshakeResponse};
use kafka_protocol::protocol::StrBytes;

use super::connection::Asker;
use crate::code;
use crate::config::{Config, SaslConfig, SaslMechanism, SecurityProtocol};
use crate::error::{Error, ErrorKind, Result};
use exchange::{Exchange, Message, Next, Proof};
pub(super) use renewal::Renewal;

/// How to log in.
#[derive(Debug, Clone)]
pub(super) struct Login {
    sasl: SaslConfig,
    /// For all of it, a token included.
    timeout: Duration,
}

impl Login {
    /// None if the security protocol has none.
    pub(super) fn new(config: &Config) -> Option<Self> {
        let sasl = config.sasl.clone().filter(|_| config.security_protocol.is_sasl())?;
        Some(Self { sasl, timeout: config.connect_timeout })
    }

    /// Who we are by now: a token is fetched anew.
    async fn proof(&self) -> Result<Proof> {
        let mechanism = self.sasl.mechanism.name();
        match &self.sasl.mechanism {
            SaslMechanism::Plain(who) | SaslMechanism::ScramSha256(who) | SaslMechanism::ScramSha512(who) => {
                Ok(Proof::Password { mechanism, username: who.username.clone(), password: who.password.clone() })
            }
            SaslMechanism::OAuthBearer(bearer) => {
                let token = token::fetch(&bearer.tokens).await?;
                Ok(Proof::Token { token, extensions: bearer.extensions.clone() })
            }
        }
    }

    /// Logs in on a connection that has sent nothing but the question for its versions. Gives how long that counts, if not for ever.
    ///
    /// # Errors
    /// [`ErrorKind::Authentication`] that says what the broker has against us, or we against it; [`ErrorKind::Connect`] if it
    /// took too long or the connection broke.
    pub(super) async fn first(&self, asker: &Asker) -> Result<Option<Duration>> {
        let late = || {
            let what = format!("the login to {} ({}) took longer than {:?}", asker.peer(), self.name(), self.timeout);
            Error::new(ErrorKind::Connect, what)
        };
        let all = async {
            let proof = self.proof().await.map_err(|e| self.without_proof(asker, e))?;
            prove(asker, proof).await
        };
        let lifetime = tokio::time::timeout(self.timeout, all).await.map_err(|_| late())??;
        tracing::debug!(peer = asker.peer(), mechanism = self.name(), ?lifetime, "logged in");
        Ok(lifetime)
    }

    fn name(&self) -> &'static str {
        self.sasl.mechanism.name()
    }

    fn without_proof(&self, asker: &Asker, e: Error) -> Error {
        let token_source_away = e.is_token_source_outage();
        let e = Error::new(e.kind(), format!("can't log in to {} by {}: {}", asker.peer(), self.name(), e.full()));
        if token_source_away { e.into_token_source_outage() } else { e }
    }
}

/// From the mechanism to the broker's yes.
async fn prove(asker: &Asker, proof: Proof) -> Result<Option<Duration>> {
    let handshake = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(proof.mechanism()));
    let agreed = match asker.ask(handshake).await {
        Ok(answer) => agreed(&answer, proof.mechanism(), asker.peer()),
        Err(e) if e.kind() == ErrorKind::Unsupported => Err(no_login(asker.peer())),
        Err(e) => Err(broke_off(e)),
    };
    agreed?;
    let (mut exchange, mut message) = Exchange::begin(proof.clone()).map_err(|e| unusable(asker, &proof, &e))?;
    loop {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_owner(Owned(message)));
        let answer = asker.ask(request).await.map_err(broke_off)?;
        if answer.error_code != 0 {
            let said = answer.error_message.as_deref().unwrap_or_default();
            return Err(refused(asker.peer(), &proof, answer.error_code, said, exchange.refused()));
        }
        let next;
        (exchange, next) = think(exchange, answer.auth_bytes).await?;
        match next.map_err(|e| unusable(asker, &proof, &e))? {
            Next::Send(next) => message = next,
            Next::Done => {
                let lifetime = u64::try_from(answer.session_lifetime_ms).unwrap_or(0);
                return Ok(Some(Duration::from_millis(lifetime)).filter(|l| !l.is_zero()));
            }
        }
    }
}

/// A password is hashed thousands of times: not where others wait.
async fn think(mut exchange: Exchange, message: Bytes) -> Result<(Exchange, Result<Next, exchange::Broken>)> {
    let thinking = tokio::task::spawn_blocking(move || {
        let next = exchange.answer(&message);
        (exchange, next)
    });
    thinking.await.map_err(|e| Error::with_source(ErrorKind::Authentication, "the login ended without a word", e))
}

/// A message that the request takes over as it is.
struct Owned(Message);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn agreed(answer: &SaslHandshakeResponse, mechanism: &str, peer: &str) -> Result<()> {
    match answer.error_code {
        0 => Ok(()),
        code::UNSUPPORTED_SASL_MECHANISM => {
            let what = format!(
                "{peer} does not offer the SASL mechanism {mechanism}: it offers {}; change REDPANDA_SASL_MECHANISM",
                offered(answer)
            );
            Err(Error::new(ErrorKind::Authentication, what))
        }
        code::ILLEGAL_SASL_STATE => Err(no_login(peer)),
        code => Err(Error::broker(code, format_args!("asking {peer} for the SASL mechanism {mechanism}"))),
    }
}

fn offered(answer: &SaslHandshakeResponse) -> String {
    let names: Vec<_> = answer.mechanisms.iter().map(|m| m.as_str()).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn no_login(peer: &str) -> Error {
    let what = format!(
        "{peer} asks for no login: this listener is without SASL; take the port of one that has it, or set REDPANDA_SECURITY_PROTOCOL to PLAINTEXT or SSL"
    );
    Error::new(ErrorKind::Authentication, what)
}

/// What a broker is that closes a connection which has asked for something without a login: the answer to a handshake that names no
/// mechanism tells. `None` if that is not why.
pub(super) fn wants_login(answer: &SaslHandshakeResponse, peer: &str, protocol: SecurityProtocol) -> Option<Error> {
    let instead = if protocol.is_tls() { "SASL_SSL" } else { "SASL_PLAINTEXT" };
    (answer.error_code == code::UNSUPPORTED_SASL_MECHANISM).then(|| {
        let what = format!(
            "{peer} asks for a login: this listener has SASL (it offers {}), and REDPANDA_SECURITY_PROTOCOL is {protocol}; set it to {instead}, and REDPANDA_SASL_MECHANISM",
            offered(answer)
        );
        Error::new(ErrorKind::Authentication, what)
    })
}

/// A broken connection is one that can't be made, so far.
fn broke_off(e: Error) -> Error {
    match e.kind() {
        ErrorKind::Disconnected => Error::new(ErrorKind::Connect, format!("{e} (during the login)")),
        _ => e,
    }
}

/// The broker's answer is no good.
fn unusable(asker: &Asker, proof: &Proof, e: &exchange::Broken) -> Error {
    let what = format!("the login to {} by {} failed: {e}", asker.peer(), proof.mechanism());
    Error::new(ErrorKind::Authentication, what)
}

/// The broker says no; `said` and `status` are its words.
fn refused(peer: &str, proof: &Proof, code: i16, said: &str, status: Option<&str>) -> Error {
    // Whatever it is: what is told in confidence is not repeated.
    let discreet = !said.contains(proof.secret().expose());
    let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
    let said = match (said.is_empty() || !discreet, status) {
        (false, _) => said,
        (true, Some(status)) => status.to_owned(),
        (true, None) => format!("{} ({code})", crate::error::code_name(code)),
    };
    let mechanism = proof.mechanism();
    let what = match proof {
        Proof::Password { username, .. } => format!(
            "{peer} refused user {username:?} by {mechanism}: {said}; check REDPANDA_SASL_USERNAME and REDPANDA_SASL_PASSWORD"
        ),
        Proof::Token { token, .. } => match token::expiry(token) {
            Some(at) if at <= chrono::Utc::now() => {
                format!(
                    "{peer} refused the token by {mechanism}, which expired at {}: {said}; renew it",
                    at.to_rfc3339()
                )
            }
            _ => format!(
                "{peer} refused the token by {mechanism}: {said}; see whether its issuer, audience and scope are what the broker asks for"
            ),
        },
    };
    Error::new(ErrorKind::Authentication, what)
}

#[cfg(test)]
mod tests;
