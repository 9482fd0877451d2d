//! The messages of one login, a core without I/O: [`Exchange::start`] returns the first,
//! [`Exchange::handle_message`] the next.
//!
//! The mechanisms are rsasl's. It checks neither the work that a server demands nor short messages
//! nor rejected tokens: that is done here.

use std::fmt;
use std::sync::Arc;

use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::scram::properties::Iterations;
use rsasl::prelude::{Mechname, SASLClient, SASLConfig, Session, SessionError, State};
use rsasl::property::{AuthId, OAuthBearerKV, OAuthBearerToken, Password};
use zeroize::Zeroizing;

use crate::config::Secret;

/// Allowed number of SCRAM iterations. With fewer than Kafka's minimum, the messages would make the
/// password easy to guess; with more than the maximum, a server that is not authenticated yet could
/// keep a core busy for seconds.
const SCRAM_ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=1_000_000;
/// Response to the rejection of a token, after which the broker ends the exchange (RFC 7628).
const REJECTION_RESPONSE: &[u8] = b"\x01";

/// An identity, and the secret that proves it.
#[derive(Debug, Clone)]
pub(super) enum Credential {
    Password { mechanism: &'static str, username: String, password: Secret },
    Token { token: Secret, extensions: Vec<(String, String)> },
}

impl Credential {
    pub(super) fn mechanism(&self) -> &'static str {
        match self {
            Self::Password { mechanism, .. } => mechanism,
            Self::Token { .. } => "OAUTHBEARER",
        }
    }

    /// Returns the password or token, which must not be logged.
    pub(super) fn secret(&self) -> &Secret {
        match self {
            Self::Password { password, .. } => password,
            Self::Token { token, .. } => token,
        }
    }
}

/// A message to the broker; it may contain the secret.
pub(super) type SaslMessage = Zeroizing<Vec<u8>>;

/// The step that follows a message of the broker.
pub(super) enum Step {
    Send(SaslMessage),
    /// The exchange is complete, and the broker is authenticated if the mechanism does that.
    Done,
}

/// A message of the broker that the exchange can't continue from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ExchangeError {
    /// A broker proves in SCRAM that it knows the password too; this one did not.
    ServerNotAuthenticated,
    /// The message is not valid in the mechanism, or not at this point.
    Malformed(String),
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerNotAuthenticated => {
                f.write_str("it did not prove that it knows the password: it may not be the broker it seems to be")
            }
            Self::Malformed(why) => write!(f, "its part of the exchange can't be read: {why}"),
        }
    }
}

pub(super) struct Exchange {
    session: Session,
    /// True once the client has sent its last message.
    finished: bool,
    is_token: bool,
    /// Status with which the broker rejected the token.
    token_rejection: Option<String>,
}

impl Exchange {
    /// Starts a login, and returns its first message.
    pub(super) fn start(credential: Credential) -> Result<(Self, SaslMessage), ExchangeError> {
        let failed = |e: &dyn fmt::Display| ExchangeError::Malformed(e.to_string());
        let name = credential.mechanism();
        let is_token = matches!(credential, Credential::Token { .. });
        let config: Arc<SASLConfig> = SASLConfig::builder()
            .with_default_mechanisms()
            .with_callback(CredentialCallback(credential))
            .map_err(|e| failed(&e))?;
        let name = Mechname::parse(name.as_bytes()).map_err(|e| failed(&e))?;
        let session = SASLClient::new(config).start_suggested(&[name]).map_err(|e| failed(&e))?;
        let mut exchange = Self { session, finished: false, is_token, token_rejection: None };
        let first = exchange.step_session(None)?;
        Ok((exchange, first))
    }

    /// Handles a message that the broker sent without an error code.
    pub(super) fn handle_message(&mut self, message: &[u8]) -> Result<Step, ExchangeError> {
        if self.token_rejection.is_some() {
            return Err(ExchangeError::Malformed("it continues after it rejected the token".into()));
        }
        if self.is_token {
            // rsasl would end here without the response that makes the broker send its error code.
            if message.is_empty() {
                return Ok(Step::Done);
            }
            self.token_rejection = Some(status(message));
            return Ok(Step::Send(REJECTION_RESPONSE.to_vec().into()));
        }
        if self.finished {
            return Ok(Step::Done);
        }
        // rsasl reads the first two bytes of an attribute without a check of its length.
        if message.split(|b| *b == b',').any(|attribute| attribute.len() < 2) {
            return Err(ExchangeError::Malformed("it is no list of attributes".into()));
        }
        let next = self.step_session(Some(message))?;
        Ok(if self.finished && next.is_empty() { Step::Done } else { Step::Send(next) })
    }

    /// Returns the status with which the broker rejected the token.
    pub(super) fn token_rejection(&self) -> Option<&str> {
        self.token_rejection.as_deref()
    }

    fn step_session(&mut self, message: Option<&[u8]>) -> Result<SaslMessage, ExchangeError> {
        let mut out = SaslMessage::default();
        let state = self.session.step(message, &mut *out).map_err(|e| match e {
            SessionError::MutualAuthenticationFailed => ExchangeError::ServerNotAuthenticated,
            e => ExchangeError::Malformed(e.to_string()),
        })?;
        self.finished = matches!(state, State::Finished(_));
        Ok(out)
    }
}

/// Returns the `status` of a rejection, which is JSON; at most 100 characters, without control
/// characters.
fn status(message: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(message).ok();
    let status = json.as_ref().and_then(|j| j.get("status")).and_then(|s| s.as_str());
    status.unwrap_or("no reason given").chars().filter(|c| !c.is_control()).take(100).collect()
}

/// Gives the mechanism the credential, and checks the number of iterations.
struct CredentialCallback(Credential);

impl SessionCallback for CredentialCallback {
    fn callback(&self, _: &SessionData, context: &Context<'_>, request: &mut Request<'_>) -> Result<(), SessionError> {
        if let Some(iterations) = context.get_ref::<Iterations>().filter(|i| !SCRAM_ITERATIONS.contains(i)) {
            let (min, max) = SCRAM_ITERATIONS.into_inner();
            let what = format!("it demands {iterations} iterations: allowed is {min} to {max}");
            return Err(SessionError::Boxed(what.into()));
        }
        match &self.0 {
            Credential::Password { username, password, .. } => {
                request.satisfy::<AuthId>(username)?.satisfy::<Password>(password.expose().as_bytes())?;
            }
            Credential::Token { token, extensions } => {
                let pairs: Vec<_> = extensions.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                request.satisfy::<OAuthBearerKV>(&pairs)?.satisfy::<OAuthBearerToken>(token.expose())?;
            }
        }
        Ok(())
    }
}
