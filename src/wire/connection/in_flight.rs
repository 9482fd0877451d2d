//! An in-flight request, polled by its caller or by the connection task.
//!
//! The future of `Messenger::request` must be polled by exactly one waker at a time, which changes:
//!
//! 1. [`Driver::Task`]: until the frame is written, the task polls. A caller may stop polling at
//!    any time, and a frame that nobody writes would block all behind it.
//! 2. [`Driver::Caller`]: once the frame is written and the caller waits, the caller polls. The
//!    response then wakes the caller alone, not the task first: that saves a switch of tasks per
//!    request.
//! 3. [`Driver::TaskOnly`]: the caller dropped its [`ResponseFuture`], or the task has to see each
//!    response (it drains the connection to log in again or to close). The task polls until the
//!    response.
//!
//! The deadline belongs to the task in each case. Two locks are involved, the connection's queue
//! before the state of a request; a caller that completes its request releases the second before it
//! takes the first.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rskafka::messenger::RequestError;
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::ConnectionShared;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::Lock;
use crate::metrics::Observation;
use crate::wire::api::Api;
use crate::wire::messenger::{BrokerMessenger, RequestMessage, ResponseMessage, to_error};

/// The connection task's view of a request, of any API.
pub(super) trait DriveRequest: Send + Sync {
    fn deadline(&self) -> Instant;
    /// Polls the request unless its caller does; with `take_over` the task drives it from now on.
    /// Ready when it is done.
    fn poll_if_driver(&self, cx: &mut Context<'_>, take_over: bool) -> Poll<()>;
    /// Fails the request, whose deadline has passed, unless its response has arrived. Returns the
    /// reason to close the connection.
    fn expire(&self, cx: &mut Context<'_>) -> Option<String>;
    /// Fails the request because the connection is closed; with `poll_first`, unless its response
    /// has arrived.
    fn fail(&self, poll_first: bool);
}

pub(super) struct InFlightRequest<A: Api> {
    connection: Arc<ConnectionShared>,
    submitted_at: Instant,
    deadline: Instant,
    state: Lock<RequestState<A>>,
}

enum RequestState<A: Api> {
    Pending(PendingRequest<A>),
    /// The response or an error, until the caller takes it; none if the connection was closed
    /// first.
    Done(Option<Result<A::Response>>),
}

/// The party that polls a request.
#[derive(PartialEq, Eq)]
enum Driver {
    /// The task, until the frame is written and the caller waits.
    Task,
    Caller,
    /// The task, until the request is done.
    TaskOnly,
}

struct PendingRequest<A: Api> {
    response: BoxFuture<'static, Result<ResponseMessage<A>, RequestError>>,
    /// None before the first poll.
    correlation_id: Option<i32>,
    driver: Driver,
    /// Set while the caller waits.
    caller_waker: Option<Waker>,
}

impl<A: Api> InFlightRequest<A> {
    pub(super) fn new(
        connection: &Arc<ConnectionShared>,
        messenger: Arc<BrokerMessenger>,
        message: A,
        timeout: Duration,
    ) -> Self {
        let message = RequestMessage { message, control: Arc::clone(&connection.control) };
        // Unconstrained: in a task whose tokio budget is used up, the first poll would not even
        // enqueue the frame.
        let response = Box::pin(unconstrained(async move { messenger.request(message).await }));
        let pending = PendingRequest { response, correlation_id: None, driver: Driver::Task, caller_waker: None };
        let submitted_at = Instant::now();
        let state = Lock::new(RequestState::Pending(pending));
        Self { connection: Arc::clone(connection), submitted_at, deadline: submitted_at + timeout, state }
    }

    pub(super) fn submitted_at(&self) -> Instant {
        self.submitted_at
    }

    /// Polls the response, and completes the request when it has arrived.
    fn poll_response(&self, state: &mut RequestState<A>, cx: &mut Context<'_>) -> Poll<()> {
        let RequestState::Pending(pending) = state else { return Poll::Ready(()) };
        let ConnectionShared { metrics, peer, control, .. } = &*self.connection;
        if pending.correlation_id.is_none() {
            metrics.report(|| Observation::RequestSent { broker: peer, api: A::NAME });
        }
        let response = pending.response.as_mut().poll(cx);
        // The first poll has encoded the frame, under the connection's lock: the last registered
        // frame is this one.
        pending.correlation_id.get_or_insert_with(|| control.last_registered());
        let Poll::Ready(response) = response else { return Poll::Pending };
        let outcome = match response {
            Ok(ResponseMessage(response)) => {
                control.set_responded();
                Ok(response)
            }
            Err(e) => {
                // The messenger's reader or writer has failed: every later request would fail like
                // this one.
                let is_poisoned = matches!(e, RequestError::Poisoned(_));
                let e = to_error::<A>(e, peer, control);
                if is_poisoned {
                    control.kill(e.to_string());
                }
                Err(e)
            }
        };
        self.complete(state, Some(outcome));
        Poll::Ready(())
    }

    fn complete(&self, state: &mut RequestState<A>, outcome: Option<Result<A::Response>>) {
        let error = match &outcome {
            Some(outcome) => outcome.as_ref().err().map(Error::kind),
            None => Some(ErrorKind::Disconnected),
        };
        let RequestState::Pending(pending) = state else { return };
        let (was_sent, caller_waker) = (pending.correlation_id.is_some(), pending.caller_waker.take());
        *state = RequestState::Done(outcome);
        if let Some(waker) = caller_waker {
            waker.wake(); // first: a metrics sink may panic
        }
        if was_sent {
            let ConnectionShared { metrics, peer, .. } = &*self.connection;
            let took = || self.submitted_at.elapsed();
            metrics.report(|| Observation::RequestEnded { broker: peer, api: A::NAME, took: took(), error });
        }
    }
}

impl<A: Api> DriveRequest for InFlightRequest<A> {
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn poll_if_driver(&self, cx: &mut Context<'_>, take_over: bool) -> Poll<()> {
        let mut state = self.state.lock();
        if let RequestState::Pending(pending) = &mut *state {
            if take_over {
                // 1. The caller drives. 2. The task drains the connection, and is asleep until the
                //    last request is done.
                // 3. The caller holds its future without polling it: nobody would see the response.
                //    So the task polls; its waker replaces the caller's in the messenger, and
                //    `complete` wakes the caller.
                pending.driver = Driver::TaskOnly;
            }
            if pending.driver == Driver::Caller {
                return Poll::Pending;
            }
        }
        self.poll_response(&mut state, cx)
    }

    fn expire(&self, cx: &mut Context<'_>) -> Option<String> {
        // The deadline passes while the response arrives:
        // 1. The timer fires; the task lists the requests whose deadline has passed, without a lock
        //    on their state.
        // 2. The messenger's reader delivers the response, and wakes the caller.
        // 3a. The caller takes the lock first: the request is done, and nothing expires.
        // 3b. The task takes the lock first, and polls before it decides: it completes the request
        //     with the response, which the caller finds. Without that poll a response in time would
        //     close the connection.
        let mut state = self.state.lock();
        if self.poll_response(&mut state, cx).is_ready() {
            return None;
        }
        let waited = self.submitted_at.elapsed();
        let what = format!("no response to {} from {} within {waited:.1?}", A::NAME, self.connection.peer);
        self.complete(&mut state, Some(Err(Error::new(ErrorKind::Timeout, what.clone()))));
        Some(what)
    }

    fn fail(&self, poll_first: bool) {
        let mut state = self.state.lock();
        if poll_first && self.poll_response(&mut state, &mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        self.complete(&mut state, None);
    }
}

pub(crate) struct ResponseFuture<A: Api> {
    connection: Arc<ConnectionShared>,
    /// None once it is done; an error if the request was not accepted.
    request: Result<Option<Arc<InFlightRequest<A>>>, &'static str>,
}

impl<A: Api> ResponseFuture<A> {
    pub(super) fn new(
        connection: Arc<ConnectionShared>,
        request: Result<Arc<InFlightRequest<A>>, &'static str>,
    ) -> Self {
        Self { connection, request: request.map(Some) }
    }

    fn disconnected(&self) -> Error {
        let not_accepted = self.request.as_ref().err().copied();
        let why = self.connection.control.reason().or(not_accepted).unwrap_or("the connection was closed");
        Error::new(ErrorKind::Disconnected, format!("{} to {} failed: {why}", A::NAME, self.connection.peer))
    }
}

impl<A: Api> fmt::Debug for ResponseFuture<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = &self.connection.peer;
        f.debug_struct("ResponseFuture").field("api", &A::NAME).field("peer", peer).finish_non_exhaustive()
    }
}

impl<A: Api> Future for ResponseFuture<A> {
    type Output = Result<A::Response>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(Some(request)) = &self.request else { return Poll::Ready(Err(self.disconnected())) };
        let mut state = request.state.lock();
        let mut is_completed_here = false;
        if let RequestState::Pending(pending) = &mut *state {
            // 1. `submit` polled the request with the task's waker; the frame waits for the socket.
            //    The task stays the driver, and this call only leaves a waker for `complete`.
            // 2. The frame is written. The caller becomes the driver: the poll below replaces the
            //    task's waker in the messenger, and the response wakes the caller alone.
            let is_written = |id| self.connection.control.is_written(id);
            if pending.driver == Driver::Task && pending.correlation_id.is_some_and(is_written) {
                pending.driver = Driver::Caller;
            }
            // Taken, so that `complete` does not wake the caller that is polling.
            let waker = pending.caller_waker.take();
            is_completed_here = pending.driver == Driver::Caller && request.poll_response(&mut state, cx).is_ready();
            if let RequestState::Pending(pending) = &mut *state {
                // Also if the caller is the driver: the task completes the request when it expires
                // or is disconnected.
                pending.caller_waker = waker.filter(|w| w.will_wake(cx.waker())).or_else(|| Some(cx.waker().clone()));
            }
        }
        let RequestState::Done(outcome) = &mut *state else { return Poll::Pending };
        let outcome = outcome.take();
        drop(state); // before the queue's lock
        if is_completed_here {
            self.connection.remove(request);
        }
        self.request = Ok(None);
        Poll::Ready(outcome.unwrap_or_else(|| Err(self.disconnected())))
    }
}

impl<A: Api> Drop for ResponseFuture<A> {
    fn drop(&mut self) {
        let Ok(Some(request)) = &self.request else { return };
        // 1. The caller has polled: it is the driver, and the messenger will wake the caller's
        //    task.
        // 2. The caller drops the future, because a select! took another branch. Its task would
        //    ignore the wake.
        // 3. So the connection task takes over, and is woken to poll the request once: that puts
        //    its waker in place of the caller's. A response that arrives between 2 and 3 is found
        //    by this poll.
        if let RequestState::Pending(pending) = &mut *request.state.lock() {
            pending.caller_waker = None;
            pending.driver = Driver::TaskOnly;
        }
        self.connection.wake_task();
    }
}
