//! A request under way, which two may bring on: whoever asked, and the connection's task.
//!
//! The task has the request written and stands in for whoever asked when he is gone or looks elsewhere. Once it is written,
//! whoever asked waits for the answer himself: it wakes nobody else.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rskafka::messenger::RequestError;
use rskafka::protocol::frame::ReadError as FrameError;
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::{Line, Wire};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Observation;
use crate::wire::api::{Api, Body, Reply};
use crate::wire::incoming::TooLarge;
use crate::wire::stream::{self, Control};

/// What the connection's task does with a request, whatever is asked.
pub(super) trait Request: Send + Sync {
    fn deadline(&self) -> Instant;
    /// Brings it on unless whoever asked does, or with `keep` for good: he may not look for long. Tells whether it has ended.
    fn advance(&self, cx: &mut Context<'_>, keep: bool) -> Poll<()>;
    /// Its deadline has passed: whoever asked is told so, unless the answer is there. Says what is wrong with the connection.
    fn expire(&self, cx: &mut Context<'_>) -> Option<String>;
    /// The connection has ended; with `look`, the answer may be there all the same.
    fn fail(&self, look: bool);
}

pub(super) struct Asked<A: Api> {
    line: Arc<Line>,
    began: Instant,
    deadline: Instant,
    state: Mutex<State<A>>,
}

enum State<A: Api> {
    UnderWay(UnderWay<A>),
    /// With what came of it, until that is taken; none if the connection ended first.
    Ended(Option<Result<A::Response>>),
}

/// Who brings a request on.
#[derive(PartialEq, Eq)]
enum By {
    /// The connection's task, until it is written and whoever asked waits.
    Task,
    Asker,
    /// The connection's task to the end.
    TaskAlone,
}

struct UnderWay<A: Api> {
    reply: BoxFuture<'static, Result<Reply<A>, RequestError>>,
    /// The frame's correlation id; none before it is in line for the socket.
    frame: Option<i32>,
    by: By,
    /// Whoever asked, if he waits.
    waiter: Option<Waker>,
}

impl<A: Api> Asked<A> {
    pub(super) fn new(line: &Arc<Line>, messenger: Arc<Wire>, message: A, timeout: Duration) -> Self {
        let body = Body { message, control: Arc::clone(&line.control) };
        // Unconstrained, or a task that has used up its budget would not even get in line by polling it.
        let reply = Box::pin(unconstrained(async move { messenger.request(body).await }));
        let state = State::UnderWay(UnderWay { reply, frame: None, by: By::Task, waiter: None });
        let began = Instant::now();
        Self { line: Arc::clone(line), began, deadline: began + timeout, state: Mutex::new(state) }
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    fn lock(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls the reply, and notes what came of it; wakes whoever waits for that.
    fn poll_reply(&self, state: &mut State<A>, cx: &mut Context<'_>) -> Poll<()> {
        let State::UnderWay(under_way) = state else { return Poll::Ready(()) };
        if under_way.frame.is_none() {
            self.line.metrics.report(|| Observation::RequestSent { broker: &self.line.peer, api: A::NAME });
        }
        let reply = under_way.reply.as_mut().poll(cx);
        under_way.frame.get_or_insert_with(|| self.line.control.given());
        let Poll::Ready(reply) = reply else { return Poll::Pending };
        let outcome = match reply {
            Ok(Reply(response)) => {
                self.line.control.set_answered();
                Ok(response)
            }
            Err(e) => {
                // Its reader or writer has ended: every later request would fail as this one.
                let broken = matches!(e, RequestError::Poisoned(_));
                let e = explain::<A>(e, &self.line.peer, &self.line.control);
                if broken {
                    self.line.control.kill(e.to_string());
                }
                Err(e)
            }
        };
        self.end(state, Some(outcome));
        Poll::Ready(())
    }

    fn end(&self, state: &mut State<A>, outcome: Option<Result<A::Response>>) {
        let error = match &outcome {
            Some(outcome) => outcome.as_ref().err().map(Error::kind),
            None => Some(ErrorKind::Disconnected),
        };
        let State::UnderWay(under_way) = state else { return };
        let (frame, waiter) = (under_way.frame, under_way.waiter.take());
        *state = State::Ended(outcome);
        if let Some(waiter) = waiter {
            waiter.wake(); // first: whoever looks at metrics might panic
        }
        if frame.is_some() {
            let Line { metrics, peer, .. } = &*self.line;
            let took = || self.began.elapsed();
            metrics.report(|| Observation::RequestEnded { broker: peer, api: A::NAME, took: took(), error });
        }
    }
}

impl<A: Api> Request for Asked<A> {
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn advance(&self, cx: &mut Context<'_>, keep: bool) -> Poll<()> {
        let mut state = self.lock();
        if let State::UnderWay(under_way) = &mut *state {
            if keep {
                under_way.by = By::TaskAlone;
            }
            if under_way.by == By::Asker {
                return Poll::Pending;
            }
        }
        self.poll_reply(&mut state, cx)
    }

    fn expire(&self, cx: &mut Context<'_>) -> Option<String> {
        let mut state = self.lock();
        if self.poll_reply(&mut state, cx).is_ready() {
            return None;
        }
        let what = format!("no answer to {} from {} within {:.1?}", A::NAME, self.line.peer, self.began.elapsed());
        self.end(&mut state, Some(Err(Error::new(ErrorKind::Timeout, what.clone()))));
        Some(what)
    }

    fn fail(&self, look: bool) {
        let mut state = self.lock();
        if look && self.poll_reply(&mut state, &mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        self.end(&mut state, None);
    }
}

/// The answer to come.
pub(crate) struct Pending<A: Api> {
    line: Arc<Line>,
    /// None when it has ended, or why it was not even begun.
    asked: Result<Option<Arc<Asked<A>>>, &'static str>,
}

impl<A: Api> Pending<A> {
    pub(super) fn new(line: Arc<Line>, asked: Result<Arc<Asked<A>>, &'static str>) -> Self {
        Self { line, asked: asked.map(Some) }
    }

    fn gone(&self) -> Error {
        let refused = self.asked.as_ref().err().copied();
        let why = self.line.control.reason().or(refused).unwrap_or("the connection was closed");
        Error::new(ErrorKind::Disconnected, format!("{} to {} failed: {why}", A::NAME, self.line.peer))
    }
}

impl<A: Api> fmt::Debug for Pending<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("api", &A::NAME).field("peer", &self.line.peer).finish_non_exhaustive()
    }
}

impl<A: Api> Future for Pending<A> {
    type Output = Result<A::Response>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(Some(asked)) = &self.asked else { return Poll::Ready(Err(self.gone())) };
        let mut state = asked.lock();
        let mut found = false;
        if let State::UnderWay(under_way) = &mut *state {
            let is_written = |frame| self.line.control.is_written(frame);
            if under_way.by == By::Task && under_way.frame.is_some_and(is_written) {
                under_way.by = By::Asker;
            }
            let waiter = under_way.waiter.take(); // he need not wake himself
            found = under_way.by == By::Asker && asked.poll_reply(&mut state, cx).is_ready();
            if let State::UnderWay(under_way) = &mut *state {
                // Also if it is he who brings it on: the connection may end.
                under_way.waiter = waiter.filter(|w| w.will_wake(cx.waker())).or_else(|| Some(cx.waker().clone()));
            }
        }
        let State::Ended(outcome) = &mut *state else { return Poll::Pending };
        let outcome = outcome.take();
        drop(state);
        if found {
            self.line.remove(asked);
        }
        self.asked = Ok(None);
        Poll::Ready(outcome.unwrap_or_else(|| Err(self.gone())))
    }
}

impl<A: Api> Drop for Pending<A> {
    fn drop(&mut self) {
        let Ok(Some(asked)) = &self.asked else { return };
        if let State::UnderWay(under_way) = &mut *asked.lock() {
            under_way.waiter = None;
            under_way.by = By::TaskAlone;
        }
        self.line.wake();
    }
}

/// A messenger's error in our words.
pub(super) fn explain<A: Api>(e: RequestError, peer: &str, control: &Control) -> Error {
    let failed = |kind, why: &str| Error::new(kind, format!("{} to {peer} failed: {why}", A::NAME));
    match e {
        RequestError::NoVersionMatch { .. } => {
            let (min, max) = A::VERSIONS;
            failed(ErrorKind::Unsupported, &format!("the broker does not serve it in any version from {min} to {max}"))
        }
        RequestError::WriteError(e) => failed(ErrorKind::Unsupported, &format!("it can't be encoded: {e}")),
        RequestError::ReadVersionedError(e) => failed(ErrorKind::Corrupt, &format!("the answer can't be decoded: {e}")),
        RequestError::ReadError(e) => failed(ErrorKind::Corrupt, &format!("the answer can't be decoded: {e}")),
        e @ RequestError::TooMuchData { .. } => failed(ErrorKind::Corrupt, &e.to_string()),
        e => {
            // Only the first is told so: that it was its answer is as good a guess as any.
            if let Some(too_large) = frame_error(&e).filter(|_| !control.is_over()) {
                return failed(ErrorKind::Corrupt, &too_large.to_string());
            }
            let why = control.reason().map_or_else(|| e.to_string(), str::to_owned);
            failed(ErrorKind::Disconnected, &why)
        }
    }
}

fn frame_error(e: &RequestError) -> Option<&TooLarge> {
    match e {
        RequestError::ReadFramedMessageError(FrameError::IO(e)) => stream::too_large(e),
        RequestError::Poisoned(e) => frame_error(e),
        _ => None,
    }
}
