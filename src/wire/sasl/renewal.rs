//! When a connection has to log in again, and how far that has come.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::exchange::Proof;
use super::{Login, prove};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Observation, Reporter};
use crate::wire::connection::Asker;

/// A connection logs in again when so much of its session is over; each at a time of its own, so that many do not at once.
const SHARE: std::ops::Range<f64> = 0.85..0.95;

/// What a connection's task does about its session.
pub(in crate::wire) struct Renewal {
    login: Arc<Login>,
    asker: Arc<Asker>,
    metrics: Reporter,
    stage: Stage,
}

enum Stage {
    /// It counts until the connection ends.
    ForEver,
    Waiting(std::pin::Pin<Box<tokio::time::Sleep>>),
    /// A token is fetched; requests go on meanwhile.
    Preparing(BoxFuture<'static, Result<Proof>>),
    /// Requests under way end before the exchange, for a broker in the middle of one takes no other; none begins meanwhile.
    Draining(Proof),
    Proving(BoxFuture<'static, Result<Option<Duration>>>),
}

impl Renewal {
    /// After a login that counts for `lifetime`.
    pub(in crate::wire) fn new(
        login: Arc<Login>,
        asker: Arc<Asker>,
        metrics: Reporter,
        lifetime: Option<Duration>,
    ) -> Self {
        Self { login, asker, metrics, stage: Stage::after(lifetime) }
    }

    /// What came of it, whatever that was, is counted; a failure ends the connection.
    fn ended<T>(&mut self, outcome: Result<T>) -> Result<T> {
        self.stage = Stage::ForEver;
        let (broker, error) = (self.asker.peer(), outcome.as_ref().err().map(Error::kind));
        self.metrics.report(|| Observation::Reauthenticated { broker, error });
        outcome.map_err(|e| e.context("the login could not be renewed before the session's end"))
    }

    /// Whether requests have to wait.
    pub(in crate::wire) fn holds_back(&self) -> bool {
        matches!(self.stage, Stage::Draining(_) | Stage::Proving(_))
    }

    /// Goes on, and is ready when something has changed; `idle` says that no request is under way. May be dropped at any time.
    ///
    /// # Errors
    /// The login could not be renewed: the connection is of no use any more. It is told once.
    pub(in crate::wire) fn poll(&mut self, cx: &mut Context<'_>, idle: bool) -> Poll<Result<()>> {
        self.stage = match &mut self.stage {
            Stage::ForEver => return Poll::Pending,
            Stage::Waiting(sleep) => {
                ready!(sleep.as_mut().poll(cx));
                let (login, peer) = (Arc::clone(&self.login), self.asker.peer().to_owned());
                Stage::Preparing(Box::pin(async move {
                    let proof = tokio::time::timeout(login.timeout, login.proof()).await;
                    proof.unwrap_or_else(|_| {
                        let what = format!("no token to log in to {peer} again within {:?}", login.timeout);
                        Err(Error::new(ErrorKind::Timeout, what))
                    })
                }))
            }
            Stage::Preparing(proof) => match ready!(proof.as_mut().poll(cx)) {
                Ok(proof) => Stage::Draining(proof),
                Err(e) => return Poll::Ready(self.ended(Err(e))),
            },
            Stage::Draining(proof) if idle => {
                let (proof, timeout) = (proof.clone(), self.login.timeout);
                let asker = Arc::clone(&self.asker);
                Stage::Proving(Box::pin(async move {
                    let late = || {
                        let what = format!("{} did not finish the login within {timeout:?}", asker.peer());
                        Error::new(ErrorKind::Timeout, what)
                    };
                    tokio::time::timeout(timeout, prove(&asker, proof)).await.unwrap_or_else(|_| Err(late()))
                }))
            }
            Stage::Draining(_) => return Poll::Pending,
            Stage::Proving(login) => {
                let lifetime = ready!(login.as_mut().poll(cx));
                let lifetime = self.ended(lifetime)?;
                tracing::debug!(peer = self.asker.peer(), ?lifetime, "logged in again");
                Stage::after(lifetime)
            }
        };
        Poll::Ready(Ok(()))
    }
}

impl Stage {
    fn after(lifetime: Option<Duration>) -> Self {
        let share = SHARE.start + (SHARE.end - SHARE.start) * fastrand::f64();
        let due = lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime.mul_f64(share)));
        due.map_or(Self::ForEver, |due| Self::Waiting(Box::pin(tokio::time::sleep_until(due))))
    }
}
