//! SASL: the login of a connection, and its re-authentication before the session expires (KIP-368).

mod exchange;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod reauthentication;
mod token;

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest, SaslHandshakeResponse};
use kafka_protocol::protocol::StrBytes;

use super::messenger::HandshakeClient;
use crate::code;
use crate::config::{Config, SaslConfig, SaslMechanism, SecurityProtocol};
use crate::error::{Error, ErrorKind, Result};
use crate::timestamp::Timestamp;
use exchange::{Credential, Exchange, ExchangeError, SaslMessage, Step};
pub(super) use reauthentication::Reauthentication;

/// The login that a client's settings describe.
#[derive(Debug, Clone)]
pub(super) struct Login {
    sasl: SaslConfig,
    /// Time limit of the whole login, including the fetch of a token.
    timeout: Duration,
}

impl Login {
    /// Returns none if the security protocol is without SASL.
    pub(super) fn new(config: &Config) -> Option<Self> {
        let sasl = config.sasl.clone().filter(|_| config.security_protocol.is_sasl())?;
        Some(Self { sasl, timeout: config.connect_timeout })
    }

    /// Returns the current credential; fetches a new token.
    async fn credential(&self) -> Result<Credential> {
        let mechanism = self.sasl.mechanism.name();
        match &self.sasl.mechanism {
            SaslMechanism::Plain(user) | SaslMechanism::ScramSha256(user) | SaslMechanism::ScramSha512(user) => {
                Ok(Credential::Password { mechanism, username: user.username.clone(), password: user.password.clone() })
            }
            SaslMechanism::OAuthBearer(bearer) => {
                let token = token::fetch(&bearer.tokens).await?;
                Ok(Credential::Token { token, extensions: bearer.extensions.clone() })
            }
        }
    }

    /// Logs in on a connection that has only exchanged versions. Returns the session's lifetime,
    /// none if it does not expire.
    ///
    /// # Errors
    /// [`ErrorKind::Authentication`] if the broker rejects the credentials or fails to authenticate
    /// itself; [`ErrorKind::Connect`] if the login times out or the connection breaks.
    pub(super) async fn log_in(&self, client: &HandshakeClient) -> Result<Option<Duration>> {
        let timed_out = || {
            let what = format!("the login to {} ({}) took longer than {:?}", client.peer(), self.name(), self.timeout);
            Error::new(ErrorKind::Connect, what)
        };
        let login = async {
            let credential = self.credential().await.map_err(|e| self.no_credential(client, e))?;
            authenticate(client, credential).await
        };
        let lifetime = tokio::time::timeout(self.timeout, login).await.map_err(|_| timed_out())??;
        tracing::debug!(peer = client.peer(), mechanism = self.name(), ?lifetime, "logged in");
        Ok(lifetime)
    }

    fn name(&self) -> &'static str {
        self.sasl.mechanism.name()
    }

    fn no_credential(&self, client: &HandshakeClient, e: Error) -> Error {
        let is_outage = e.is_token_source_outage();
        let e = Error::new(e.kind(), format!("can't log in to {} by {}: {}", client.peer(), self.name(), e.full()));
        if is_outage { e.into_token_source_outage() } else { e }
    }
}

/// Runs the exchange, from the mechanism to the broker's acceptance. Returns the session's
/// lifetime, none if it does not expire.
async fn authenticate(client: &HandshakeClient, credential: Credential) -> Result<Option<Duration>> {
    let handshake = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(credential.mechanism()));
    let accepted = match client.request(handshake).await {
        Ok(response) => check_handshake(&response, credential.mechanism(), client.peer()),
        Err(e) if e.kind() == ErrorKind::Unsupported => Err(sasl_not_enabled(client.peer())),
        Err(e) => Err(during_login(e)),
    };
    accepted?;
    let (mut exchange, mut message) =
        Exchange::start(credential.clone()).map_err(|e| exchange_failed(client, &credential, &e))?;
    loop {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_owner(SecretMessage(message)));
        let response = client.request(request).await.map_err(during_login)?;
        if response.error_code != 0 {
            let message = response.error_message.as_deref().unwrap_or_default();
            return Err(rejected(client.peer(), &credential, response.error_code, message, exchange.token_rejection()));
        }
        let step;
        (exchange, step) = step_blocking(exchange, response.auth_bytes).await?;
        match step.map_err(|e| exchange_failed(client, &credential, &e))? {
            Step::Send(next) => message = next,
            Step::Done => {
                let lifetime = u64::try_from(response.session_lifetime_ms).unwrap_or(0);
                return Ok(Some(Duration::from_millis(lifetime)).filter(|l| !l.is_zero()));
            }
        }
    }
}

/// Computes the next step on the blocking pool, because a password is hashed thousands of times.
async fn step_blocking(mut exchange: Exchange, message: Bytes) -> Result<(Exchange, Result<Step, ExchangeError>)> {
    let stepping = tokio::task::spawn_blocking(move || {
        let step = exchange.handle_message(&message);
        (exchange, step)
    });
    stepping.await.map_err(|e| Error::with_source(ErrorKind::Authentication, "the login did not complete", e))
}

/// A message that a request takes without a copy.
struct SecretMessage(SaslMessage);

impl AsRef<[u8]> for SecretMessage {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn check_handshake(response: &SaslHandshakeResponse, mechanism: &str, peer: &str) -> Result<()> {
    match response.error_code {
        0 => Ok(()),
        code::UNSUPPORTED_SASL_MECHANISM => {
            let what = format!(
                "{peer} does not offer the SASL mechanism {mechanism}: it offers {}; change SaslConfig::mechanism",
                offered_mechanisms(response)
            );
            Err(Error::new(ErrorKind::Authentication, what))
        }
        code::ILLEGAL_SASL_STATE => Err(sasl_not_enabled(peer)),
        code => Err(Error::broker(code, format_args!("requesting the SASL mechanism {mechanism} from {peer}"))),
    }
}

fn offered_mechanisms(response: &SaslHandshakeResponse) -> String {
    let names: Vec<_> = response.mechanisms.iter().map(|m| m.as_str()).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn sasl_not_enabled(peer: &str) -> Error {
    let what = format!(
        "{peer} does not use logins: this listener is without SASL; use the port of one that has it, or set Config::security_protocol to PLAINTEXT or SSL"
    );
    Error::new(ErrorKind::Authentication, what)
}

/// Explains that a broker requires a login, if its response to a handshake without a mechanism
/// shows that.
pub(super) fn explain_missing_login(
    response: &SaslHandshakeResponse,
    peer: &str,
    protocol: SecurityProtocol,
) -> Option<Error> {
    let instead = if protocol.is_tls() { "SASL_SSL" } else { "SASL_PLAINTEXT" };
    (response.error_code == code::UNSUPPORTED_SASL_MECHANISM).then(|| {
        let what = format!(
            "{peer} requires a login: this listener has SASL (it offers {}), and Config::security_protocol is {protocol}; set it to {instead}, and SaslConfig::mechanism",
            offered_mechanisms(response)
        );
        Error::new(ErrorKind::Authentication, what)
    })
}

/// Makes a disconnect a failure to connect.
fn during_login(e: Error) -> Error {
    match e.kind() {
        ErrorKind::Disconnected => Error::new(ErrorKind::Connect, format!("{e} (during the login)")),
        _ => e,
    }
}

/// Reports a message of the broker that the exchange can't continue from.
fn exchange_failed(client: &HandshakeClient, credential: &Credential, e: &ExchangeError) -> Error {
    let what = format!("the login to {} by {} failed: {e}", client.peer(), credential.mechanism());
    Error::new(ErrorKind::Authentication, what)
}

fn rejected(peer: &str, credential: &Credential, code: i16, message: &str, status: Option<&str>) -> Error {
    // Never echo the secret.
    let has_secret = message.contains(credential.secret().expose());
    let message: String = message.chars().filter(|c| !c.is_control()).take(300).collect();
    let message = match (message.is_empty() || has_secret, status) {
        (false, _) => message,
        (true, Some(status)) => status.to_owned(),
        (true, None) => format!("{} ({code})", crate::error::code_name(code)),
    };
    let mechanism = credential.mechanism();
    let what = match credential {
        Credential::Password { username, .. } => format!(
            "{peer} refused user {username:?} by {mechanism}: {message}; check Credentials::username and Credentials::password"
        ),
        Credential::Token { token, .. } => match token::expiry(token) {
            Some(at) if at <= Timestamp::now() => {
                format!("{peer} refused the token by {mechanism}, which expired at {at}: {message}; renew it")
            }
            _ => format!(
                "{peer} refused the token by {mechanism}: {message}; see whether its issuer, audience and scope are what the broker expects"
            ),
        },
    };
    Error::new(ErrorKind::Authentication, what)
}

#[cfg(test)]
mod tests;
