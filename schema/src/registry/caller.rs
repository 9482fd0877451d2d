//! Requests to any of several registries, with retries until a deadline.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ailurus::TlsConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until, timeout};

use super::http::{Auth, Call, Endpoint, Failure, MAX_RESPONSE_BYTES, Response};
use crate::error::{SchemaError, SchemaErrorKind};

/// Maximum length of what an error quotes of a response, in characters.
const MAX_QUOTED: usize = 2000;

/// Settings of requests.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    pub(super) auth: Auth,
    pub(super) tls: TlsConfig,
    /// Maximum time of a call, with its retries.
    pub(super) timeout: Duration,
    /// Maximum time of one attempt.
    pub(super) request_timeout: Duration,
    /// Number of retries at each registry.
    pub(super) retries: u32,
    /// Wait before the first retry; doubles with each.
    pub(super) backoff: Duration,
    /// Maximum wait before a retry.
    pub(super) backoff_max: Duration,
}

#[derive(Debug)]
pub(super) struct Caller {
    pub(super) endpoints: Vec<Endpoint>,
    /// Index of the registry that responded last.
    preferred: AtomicUsize,
    pub(super) policy: Policy,
}

/// Body of an error.
#[derive(Deserialize)]
struct ErrorBody {
    error_code: i32,
    #[serde(default)]
    message: String,
}

impl Caller {
    pub(super) fn new(endpoints: Vec<Endpoint>, policy: Policy) -> Self {
        Self { endpoints, preferred: AtomicUsize::new(0), policy }
    }

    /// Sends a request; `what` says in errors what it is for. Registries that don't respond, or respond that they can't
    /// serve now, are followed by the next one, and all of them tried again after a backoff.
    pub(super) async fn call<T: DeserializeOwned>(&self, call: Call, what: &str) -> Result<T, SchemaError> {
        let started = Instant::now();
        let deadline = started + self.policy.timeout;
        let first = self.preferred.load(Ordering::Relaxed);
        let count = self.endpoints.len();
        let (mut attempts, mut last) = (0_usize, None);
        for round in 0..=self.policy.retries {
            if round > 0 && !self.back_off(round, deadline).await {
                break;
            }
            for index in (0..count).map(|i| (first + i) % count) {
                if Instant::now() >= deadline {
                    break;
                }
                attempts += 1;
                match self.attempt(index, &call, what, deadline).await {
                    Ok(response) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return self.parse(index, &response, what);
                    }
                    Err(Attempt::Final(error)) => return Err(error),
                    Err(Attempt::Retry(why)) => {
                        tracing::debug!(
                            url = self.endpoints[index].url.text,
                            error = why,
                            "{what}: the attempt failed"
                        );
                        last = Some((index, why));
                    }
                }
            }
        }
        let (index, why) = last.unwrap_or_else(|| (first, "the timeout is too short for an attempt".into()));
        Err(self.unavailable(what, index, &why, attempts, started.elapsed()))
    }

    /// Waits before a retry; returns whether there is time for it.
    async fn back_off(&self, round: u32, deadline: Instant) -> bool {
        let wait = self.policy.backoff.saturating_mul(1 << (round - 1).min(16)).min(self.policy.backoff_max);
        // Between half of it and all of it, so that clients of a registry that restarts don't come at once.
        let at = Instant::now() + wait.mul_f64(0.5 + fastrand::f64() / 2.0);
        if at >= deadline {
            return false;
        }
        sleep_until(at).await;
        true
    }

    async fn attempt(&self, index: usize, call: &Call, what: &str, deadline: Instant) -> Result<Response, Attempt> {
        let endpoint = &self.endpoints[index];
        let Policy { auth, tls, request_timeout, .. } = &self.policy;
        let limit = (*request_timeout).min(deadline.saturating_duration_since(Instant::now()));
        let result = timeout(limit, endpoint.send(call, auth, tls, limit)).await;
        let result = result.unwrap_or_else(|_| Err(Failure::NoResponse(format!("no response within {limit:?}"))));
        let url = &endpoint.url.text;
        let fails = |kind, why: String| Attempt::Final(SchemaError::new(kind, format!("{what} at {url}: {why}")));
        match result {
            Ok(response) if is_transient(response.status) => {
                let why = format!("status {}{}", response.status, quote(&response.body));
                if call.is_idempotent() || response.status == 429 || response.status == 503 {
                    Err(Attempt::Retry(why))
                } else {
                    Err(fails(SchemaErrorKind::Unavailable, format!("{why}; {UNKNOWN}")))
                }
            }
            Ok(response) if response.status < 400 => Ok(response),
            Ok(response) => Err(Attempt::Final(rejected(&response, what, url, matches!(auth, Auth::None)))),
            Err(Failure::NotSent(why)) => Err(Attempt::Retry(why)),
            Err(Failure::NoResponse(why)) if call.is_idempotent() => Err(Attempt::Retry(why)),
            Err(Failure::NoResponse(why)) => Err(fails(SchemaErrorKind::Unavailable, format!("{why}; {UNKNOWN}"))),
            Err(Failure::NoToken(why)) => {
                Err(fails(SchemaErrorKind::Authorization, format!("there are no credentials: {why}")))
            }
            Err(Failure::Invalid(why)) => Err(fails(SchemaErrorKind::Config, why)),
            Err(Failure::TooLarge) => {
                let why = format!("the response exceeds {MAX_RESPONSE_BYTES} bytes, and is not read");
                Err(fails(SchemaErrorKind::Protocol, why))
            }
        }
    }

    fn parse<T: DeserializeOwned>(&self, index: usize, response: &Response, what: &str) -> Result<T, SchemaError> {
        serde_json::from_slice(&response.body).map_err(|e| {
            let (url, status, quoted) = (&self.endpoints[index].url.text, response.status, quote(&response.body));
            let message = format!(
                "{what} at {url}: status {status} with a body that is not a schema registry's ({e}){quoted}; check the URL"
            );
            SchemaError::of_response(SchemaErrorKind::Protocol, message, status, None)
        })
    }

    fn unavailable(&self, what: &str, index: usize, why: &str, attempts: usize, after: Duration) -> SchemaError {
        let url = &self.endpoints[index].url.text;
        let others = match self.endpoints.len() {
            1 => String::new(),
            count => format!(" (the last of {count} URLs)"),
        };
        let times = if attempts == 1 { "1 attempt".into() } else { format!("{attempts} attempts") };
        let message = format!(
            "{what} at {url}{others}: {why}; {times} within {after:.1?}; check that the schema registry is running and \
             reachable from here"
        );
        SchemaError::new(SchemaErrorKind::Unavailable, message)
    }
}

const UNKNOWN: &str = "it may have been deleted: look before you repeat it";

/// Outcome of an attempt without a result.
enum Attempt {
    Retry(String),
    Final(SchemaError),
}

/// Returns whether the same request may succeed later, or at another registry.
fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429) || (500..600).contains(&status) && !matches!(status, 501 | 505)
}

/// Returns the error of a response with a status from 400.
fn rejected(response: &Response, what: &str, url: &str, is_anonymous: bool) -> SchemaError {
    use SchemaErrorKind::{Authorization, Incompatible, InvalidSchema, NotFound, Protocol, Rejected};
    let status = response.status;
    let body: Option<ErrorBody> = serde_json::from_slice(&response.body).ok();
    let code = body.as_ref().map(|body| body.error_code);
    let kind = match (status, code) {
        (401 | 403, _) => Authorization,
        (404, Some(_)) => NotFound,
        (409, _) => Incompatible,
        (422, Some(42201)) => InvalidSchema,
        (_, Some(_)) => Rejected,
        (_, None) => Protocol,
    };
    let text = match &body {
        Some(body) => format!(": {} ({})", clean(&body.message), body.error_code),
        None => quote(&response.body),
    };
    let hint = match (status, code) {
        (401, _) if is_anonymous => "; it requires credentials",
        (401 | 403, _) => "; check the credentials, and what the registry allows them to do",
        (409, _) => "; change the schema, or the compatibility level of the subject",
        (_, Some(42205)) => "; see the mode of the subject, and the registry's mode",
        (_, Some(42206)) => "; other schemas refer to it: delete those first",
        (404 | 405, None) => "; is it the URL of a schema registry?",
        _ => "",
    };
    SchemaError::of_response(kind, format!("{what} at {url}: status {status}{text}{hint}"), status, code)
}

/// Returns the beginning of a body as part of an error.
fn quote(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => format!("{} ({})", body.message, body.error_code),
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(),
    };
    let text = clean(&text);
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// Returns text of a response in one line, of limited length.
fn clean(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_QUOTED).collect();
    text.trim().to_owned()
}
