//! Re-authentication of a connection before its session expires (KIP-368).

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::exchange::Credential;
use super::{Login, authenticate};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Observation, Reporter};
use crate::wire::messenger::HandshakeClient;

/// Fraction of the session's lifetime after which a connection logs in again: random, so that many
/// don't at once.
const LIFETIME_FRACTION: std::ops::Range<f64> = 0.85..0.95;

/// The state of a connection's session, driven by the connection's task.
pub(in crate::wire) struct Reauthentication {
    login: Arc<Login>,
    client: Arc<HandshakeClient>,
    metrics: Reporter,
    stage: Stage,
}

enum Stage {
    NotNeeded,
    Waiting(std::pin::Pin<Box<tokio::time::Sleep>>),
    /// Fetching a token, while requests continue.
    FetchingCredential(BoxFuture<'static, Result<Credential>>),
    /// Waiting for the requests in flight, because a broker rejects other requests during the
    /// exchange. New ones are queued.
    Draining(Credential),
    Authenticating(BoxFuture<'static, Result<Option<Duration>>>),
}

impl Reauthentication {
    /// Starts after a login whose session lasts for `lifetime`.
    pub(in crate::wire) fn new(
        login: Arc<Login>,
        client: Arc<HandshakeClient>,
        metrics: Reporter,
        lifetime: Option<Duration>,
    ) -> Self {
        Self { login, client, metrics, stage: Stage::after(lifetime) }
    }

    /// Reports the outcome; a failure closes the connection.
    fn finish<T>(&mut self, outcome: Result<T>) -> Result<T> {
        self.stage = Stage::NotNeeded;
        let (broker, error) = (self.client.peer(), outcome.as_ref().err().map(Error::kind));
        self.metrics.report(|| Observation::Reauthenticated { broker, error });
        outcome.map_err(|e| e.context("the login could not be renewed before the session's end"))
    }

    pub(in crate::wire) fn pauses_requests(&self) -> bool {
        matches!(self.stage, Stage::Draining(_) | Stage::Authenticating(_))
    }

    /// Advances, and is ready when the stage has changed; `is_idle` says that no request is in
    /// flight.
    ///
    /// # Errors
    /// The re-authentication failed: the broker will close the connection. Returned once.
    pub(in crate::wire) fn poll(&mut self, cx: &mut Context<'_>, is_idle: bool) -> Poll<Result<()>> {
        self.stage = match &mut self.stage {
            Stage::NotNeeded => return Poll::Pending,
            Stage::Waiting(sleep) => {
                ready!(sleep.as_mut().poll(cx));
                let (login, peer) = (Arc::clone(&self.login), self.client.peer().to_owned());
                Stage::FetchingCredential(Box::pin(async move {
                    let credential = tokio::time::timeout(login.timeout, login.credential()).await;
                    credential.unwrap_or_else(|_| {
                        let what = format!("no token to log in to {peer} again within {:?}", login.timeout);
                        Err(Error::new(ErrorKind::Timeout, what))
                    })
                }))
            }
            Stage::FetchingCredential(fetch) => match ready!(fetch.as_mut().poll(cx)) {
                Ok(credential) => Stage::Draining(credential),
                Err(e) => return Poll::Ready(self.finish(Err(e))),
            },
            Stage::Draining(credential) if is_idle => {
                let (credential, timeout) = (credential.clone(), self.login.timeout);
                let client = Arc::clone(&self.client);
                Stage::Authenticating(Box::pin(async move {
                    let timed_out = || {
                        let what = format!("{} did not finish the login within {timeout:?}", client.peer());
                        Error::new(ErrorKind::Timeout, what)
                    };
                    tokio::time::timeout(timeout, authenticate(&client, credential))
                        .await
                        .unwrap_or_else(|_| Err(timed_out()))
                }))
            }
            Stage::Draining(_) => return Poll::Pending,
            Stage::Authenticating(login) => {
                let lifetime = ready!(login.as_mut().poll(cx));
                let lifetime = self.finish(lifetime)?;
                tracing::debug!(peer = self.client.peer(), ?lifetime, "logged in again");
                Stage::after(lifetime)
            }
        };
        Poll::Ready(Ok(()))
    }
}

impl Stage {
    fn after(lifetime: Option<Duration>) -> Self {
        let fraction = LIFETIME_FRACTION.start + (LIFETIME_FRACTION.end - LIFETIME_FRACTION.start) * fastrand::f64();
        let due = lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime.mul_f64(fraction)));
        due.map_or(Self::NotNeeded, |due| Self::Waiting(Box::pin(tokio::time::sleep_until(due))))
    }
}
