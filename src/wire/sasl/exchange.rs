//! One login's messages, without I/O: what to send first, and what to answer.
//!
//! The mechanisms are rsasl's. It takes on trust what a server sends where it comes to the work that this means, to short messages
//! and to refused tokens; these are judged here.

use std::fmt;
use std::sync::Arc;

use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::scram::properties::Iterations;
use rsasl::prelude::{Mechname, SASLClient, SASLConfig, Session, SessionError, State};
use rsasl::property::{AuthId, OAuthBearerKV, OAuthBearerToken, Password};
use zeroize::Zeroizing;

use crate::config::Secret;

/// How often a password may be hashed: fewer rounds than Kafka has at least would make it easy to guess from what is sent, and
/// more than this would keep a core busy for seconds on the word of somebody who has not proved anything yet.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=1_000_000;
/// What a client says that has understood why its token was refused (RFC 7628).
const UNDERSTOOD: &[u8] = b"\x01";

/// Who we are, and what proves it.
#[derive(Debug, Clone)]
pub(super) enum Proof {
    Password { mechanism: &'static str, username: String, password: Secret },
    Token { token: Secret, extensions: Vec<(String, String)> },
}

impl Proof {
    pub(super) fn mechanism(&self) -> &'static str {
        match self {
            Self::Password { mechanism, .. } => mechanism,
            Self::Token { .. } => "OAUTHBEARER",
        }
    }

    /// What must not be seen anywhere.
    pub(super) fn secret(&self) -> &Secret {
        match self {
            Self::Password { password, .. } => password,
            Self::Token { token, .. } => token,
        }
    }
}

/// A message for the broker; it may be as secret as what it proves.
pub(super) type Message = Zeroizing<Vec<u8>>;

/// What follows from an answer.
pub(super) enum Next {
    Send(Message),
    /// The broker has proved what it has to: nothing is left to say.
    Done,
}

/// What an answer is that can't be gone on from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// By SCRAM a broker that lets somebody in proves that it knows the password too.
    Unproven,
    /// It is not what the mechanism has here.
    Malformed(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unproven => {
                f.write_str("it did not prove that it knows the password: it may not be the broker it seems to be")
            }
            Self::Malformed(why) => write!(f, "its part of the exchange can't be read: {why}"),
        }
    }
}

/// A login under way.
pub(super) struct Exchange {
    session: Session,
    /// All has been said: what comes is a yes or a no.
    finished: bool,
    is_token: bool,
    /// What the broker said of a token that it does not take.
    refused: Option<String>,
}

impl Exchange {
    /// And the first message.
    pub(super) fn begin(proof: Proof) -> Result<(Self, Message), Broken> {
        let failed = |e: &dyn fmt::Display| Broken::Malformed(e.to_string());
        let name = proof.mechanism();
        let is_token = matches!(proof, Proof::Token { .. });
        let config: Arc<SASLConfig> =
            SASLConfig::builder().with_default_mechanisms().with_callback(Answers(proof)).map_err(|e| failed(&e))?;
        let name = Mechname::parse(name.as_bytes()).map_err(|e| failed(&e))?;
        let session = SASLClient::new(config).start_suggested(&[name]).map_err(|e| failed(&e))?;
        let mut exchange = Self { session, finished: false, is_token, refused: None };
        let first = exchange.advance(None)?;
        Ok((exchange, first))
    }

    /// What to answer to a message that the broker has sent without refusing us.
    pub(super) fn answer(&mut self, message: &[u8]) -> Result<Next, Broken> {
        if self.refused.is_some() {
            return Err(Broken::Malformed("it goes on with a token that it does not take".into()));
        }
        if self.is_token {
            // rsasl would end here without the answer that makes a broker say no.
            if message.is_empty() {
                return Ok(Next::Done);
            }
            self.refused = Some(status(message));
            return Ok(Next::Send(UNDERSTOOD.to_vec().into()));
        }
        if self.finished {
            return Ok(Next::Done);
        }
        // rsasl looks at an attribute's first two bytes without asking whether they are there.
        if message.split(|b| *b == b',').any(|attribute| attribute.len() < 2) {
            return Err(Broken::Malformed("it is no list of attributes".into()));
        }
        let next = self.advance(Some(message))?;
        Ok(if self.finished && next.is_empty() { Next::Done } else { Next::Send(next) })
    }

    /// What the broker said of a token that it does not take.
    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    fn advance(&mut self, message: Option<&[u8]>) -> Result<Message, Broken> {
        let mut out = Message::default();
        let state = self.session.step(message, &mut *out).map_err(|e| match e {
            SessionError::MutualAuthenticationFailed => Broken::Unproven,
            e => Broken::Malformed(e.to_string()),
        })?;
        self.finished = matches!(state, State::Finished(_));
        Ok(out)
    }
}

/// The `status` of a refusal, which is JSON; no more of it than one would want to read.
fn status(message: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(message).ok();
    let status = json.as_ref().and_then(|j| j.get("status")).and_then(|s| s.as_str());
    status.unwrap_or("no reason given").chars().filter(|c| !c.is_control()).take(100).collect()
}

/// Answers the mechanism's questions.
struct Answers(Proof);

impl SessionCallback for Answers {
    fn callback(&self, _: &SessionData, context: &Context<'_>, request: &mut Request<'_>) -> Result<(), SessionError> {
        if let Some(iterations) = context.get_ref::<Iterations>().filter(|i| !ITERATIONS.contains(i)) {
            let (least, most) = ITERATIONS.into_inner();
            let what = format!("it asks for {iterations} iterations: allowed is {least} to {most}");
            return Err(SessionError::Boxed(what.into()));
        }
        match &self.0 {
            Proof::Password { username, password, .. } => {
                request.satisfy::<AuthId>(username)?.satisfy::<Password>(password.expose().as_bytes())?;
            }
            Proof::Token { token, extensions } => {
                let pairs: Vec<_> = extensions.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                request.satisfy::<OAuthBearerKV>(&pairs)?.satisfy::<OAuthBearerToken>(token.expose())?;
            }
        }
        Ok(())
    }
}
