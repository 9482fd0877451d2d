//! A connection to one broker, owned by a task.
//!
//! [`Connection::submit`] polls each request once, under the connection's lock and with the task's
//! waker. Usually that poll writes the frame, and the task sleeps on while the caller waits for the
//! response. The messenger's write lock is fair, so the order of `submit` is the order on the wire.
//! A caller that drops its future leaves neither half a frame on the wire nor a request without an
//! owner: the task finishes both (see [`in_flight`]).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rskafka::messenger::Messenger;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::api::Api;
use super::messenger::{BoxedStream, BrokerMessenger, HandshakeClient};
use super::sasl::{Login, Reauthentication};
use super::stream::{MessengerStream, StreamControl};
use crate::error::{Error, ErrorKind, Result};
use crate::lock::Lock;
use crate::metrics::{Observation, Reporter};
use in_flight::{DriveRequest, InFlightRequest, ResponseFuture};

mod in_flight;

/// Maximum number of requests that wait while the connection logs in again.
const MAX_QUEUED_REQUESTS: usize = 256;
/// Time after which an idle connection is closed. Brokers close it after 10 minutes: closing first
/// keeps a request from being sent on a connection that the broker is closing.
const MAX_IDLE: Duration = Duration::from_secs(9 * 60);
/// Maximum time that [`Connection::close`] waits for the socket.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection. Dropping it closes the socket once the requests submitted to it are done.
#[derive(Debug)]
pub(crate) struct Connection(Arc<ConnectionShared>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.queue.lock().has_owner = false;
        self.0.wake_task();
    }
}

impl Connection {
    /// Negotiates versions over an open stream, and logs in if `login` is given; `peer` names the
    /// broker in errors.
    pub(super) async fn establish(
        io: impl AsyncRead + AsyncWrite + Send + 'static,
        peer: &str,
        client_id: &str,
        max_message_size: usize,
        timeout: Duration,
        metrics: &Reporter,
        login: Option<Arc<Login>>,
    ) -> Result<Self> {
        let control = Arc::new(StreamControl::default());
        let stream = MessengerStream::new(Box::pin(io) as BoxedStream, Arc::clone(&control), max_message_size);
        let mut messenger = Messenger::new(stream, max_message_size, client_id.into());
        match tokio::time::timeout(timeout, messenger.sync_versions()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => {
                let why = control.reason().map_or_else(|| e.to_string(), str::to_owned);
                let what = format!("{peer} did not send its API versions: {why}");
                return Err(Error::new(ErrorKind::Connect, what));
            }
            Err(_) => {
                control.kill("no response to ApiVersions");
                let what =
                    format!("{peer} accepted the connection but did not send its API versions within {timeout:?}");
                return Err(Error::new(ErrorKind::Connect, what));
            }
        }
        let (messenger, peer) = (Arc::new(messenger), Arc::from(peer));
        let mut reauthentication = None;
        if let Some(login) = login {
            let messenger = Arc::clone(&messenger);
            let client = HandshakeClient { messenger, control: Arc::clone(&control), peer: Arc::clone(&peer) };
            let client = Arc::new(client);
            let lifetime = login.log_in(&client).await.inspect_err(|_| control.kill("the login failed"))?;
            reauthentication = Some(Reauthentication::new(login, client, metrics.clone(), lifetime));
        }
        let queue = Lock::new(RequestQueue::new(messenger));
        let shared = Arc::new(ConnectionShared { peer, metrics: metrics.clone(), control, queue });
        tokio::spawn(run(TaskGuard::new(Arc::clone(&shared)), reauthentication));
        Ok(Self(shared))
    }

    /// Returns the broker's name in errors.
    pub(crate) fn peer(&self) -> &str {
        &self.0.peer
    }

    /// Returns whether any request after the handshake has had a response.
    pub(crate) fn has_responded(&self) -> bool {
        self.0.control.has_responded()
    }

    /// Returns whether the connection can't be used any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.control.is_killed()
    }

    /// Waits until the connection can't be used any more.
    pub(crate) async fn closed(&self) {
        self.0.control.killed().cancelled().await;
    }

    /// Writes a request behind those submitted before; the future returns its response.
    ///
    /// `timeout` starts now and includes the wait for the socket. The connection is closed when it
    /// expires, because a broker responds in order: it may never respond to the requests behind
    /// this one.
    ///
    /// # Cancellation
    /// Dropping the future does not cancel the request.
    pub(crate) fn submit<A: Api>(&self, request: A, timeout: Duration) -> ResponseFuture<A> {
        ResponseFuture::new(Arc::clone(&self.0), self.0.submit(request, timeout))
    }

    pub(crate) async fn request<A: Api>(&self, request: A, timeout: Duration) -> Result<A::Response> {
        self.submit(request, timeout).await
    }

    /// Reports that the broker throttles this client.
    pub(crate) fn report_throttle(&self, api: &'static str, pause: Duration) {
        if !pause.is_zero() {
            self.0.metrics.report(|| Observation::Throttled { broker: &self.0.peer, api, pause });
        }
    }

    /// Aborts the connection: requests in flight fail.
    pub(crate) fn kill(&self, reason: &str) {
        self.0.control.kill(reason);
    }

    /// Aborts the connection, and waits until the socket is closed.
    pub(crate) async fn close(&self) {
        self.0.control.kill("the connection was closed by this client");
        if tokio::time::timeout(CLOSE_TIMEOUT, self.0.control.socket_closed().cancelled()).await.is_err() {
            tracing::warn!(peer = %self.peer(), "the socket did not close within {CLOSE_TIMEOUT:?}");
        }
    }
}

/// Counts the connection in metrics while its task runs, and fails its requests when the task ends.
struct TaskGuard(Arc<ConnectionShared>);

impl TaskGuard {
    fn new(shared: Arc<ConnectionShared>) -> Self {
        shared.metrics.report(|| Observation::Connected { broker: &shared.peer });
        Self(shared)
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.0.control.kill("the connection's task has ended");
        self.0.fail_all();
        self.0.metrics.report(|| Observation::Disconnected { broker: &self.0.peer });
    }
}

/// State of a connection, shared by its handle, its requests and its task.
///
/// Lock order: `queue` before the state of a request.
#[derive(Debug)]
struct ConnectionShared {
    /// Name of the broker in errors.
    peer: Arc<str>,
    metrics: Reporter,
    control: Arc<StreamControl>,
    queue: Lock<RequestQueue>,
}

struct RequestQueue {
    /// None once the connection is closed.
    messenger: Option<Arc<BrokerMessenger>>,
    /// Requests that were polled, and are not done.
    in_flight: Vec<Arc<dyn DriveRequest>>,
    /// Requests to start, in order: those submitted while the connection is `paused`.
    queued: VecDeque<Arc<dyn DriveRequest>>,
    /// True before the task first runs, and while it logs in again.
    paused: bool,
    task_waker: Waker,
    /// Time at which the task checks deadlines next.
    next_check: Instant,
    last_submit: Instant,
    /// False once the [`Connection`] was dropped: no request can follow.
    has_owner: bool,
}

impl std::fmt::Debug for RequestQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (in_flight, queued) = (self.in_flight.len(), self.queued.len());
        f.debug_struct("RequestQueue").field("in_flight", &in_flight).field("queued", &queued).finish_non_exhaustive()
    }
}

/// The part of the queue's state on which the task's next step depends.
#[derive(Clone, Copy, PartialEq, Eq)]
struct QueueState {
    has_owner: bool,
    /// No request is in flight.
    is_idle: bool,
    /// Requests wait for the end of a re-authentication.
    has_queued: bool,
}

impl RequestQueue {
    fn new(messenger: Arc<BrokerMessenger>) -> Self {
        let now = Instant::now();
        Self {
            messenger: Some(messenger),
            in_flight: Vec::new(),
            queued: VecDeque::new(),
            paused: true,
            task_waker: Waker::noop().clone(),
            next_check: now,
            last_submit: now,
            has_owner: true,
        }
    }

    fn state(&self) -> QueueState {
        QueueState {
            has_owner: self.has_owner,
            is_idle: self.in_flight.is_empty(),
            has_queued: !self.queued.is_empty(),
        }
    }

    /// Polls a request for the first time, which enqueues it at the socket.
    fn start(&mut self, request: Arc<dyn DriveRequest>) {
        if request.poll_if_driver(&mut Context::from_waker(&self.task_waker), false).is_ready() {
            return;
        }
        if request.deadline() < self.next_check {
            self.next_check = request.deadline();
            self.task_waker.wake_by_ref();
        }
        self.in_flight.push(request);
    }

    fn remove(&mut self, done: *const ()) {
        self.in_flight.retain(|request| Arc::as_ptr(request).cast() != done);
    }
}

impl ConnectionShared {
    fn wake_task(&self) {
        self.queue.lock().task_waker.wake_by_ref();
    }

    /// Starts a request, or queues it while the connection is paused.
    fn submit<A: Api>(
        self: &Arc<Self>,
        request: A,
        timeout: Duration,
    ) -> Result<Arc<InFlightRequest<A>>, &'static str> {
        let mut queue = self.queue.lock();
        let messenger = queue.messenger.clone().filter(|_| !self.control.is_killed());
        let messenger = messenger.ok_or("the connection is closed")?;
        let request = Arc::new(InFlightRequest::new(self, messenger, request, timeout));
        queue.last_submit = request.submitted_at();
        if !queue.paused {
            queue.start(Arc::clone(&request) as _);
        } else if queue.queued.len() < MAX_QUEUED_REQUESTS {
            queue.queued.push_back(Arc::clone(&request) as _); // `set_paused` starts it
        } else {
            return Err("too many requests wait for the connection");
        }
        Ok(request)
    }

    /// Removes a request whose caller found its response.
    fn remove<A: Api>(&self, request: &Arc<InFlightRequest<A>>) {
        let mut queue = self.queue.lock();
        queue.remove(Arc::as_ptr(request).cast());
        // The task waits for the last request in flight only in these two cases.
        if queue.in_flight.is_empty() && (queue.paused || !queue.has_owner) {
            queue.task_waker.wake_by_ref();
        }
    }

    /// Pauses or resumes the queue; resuming starts the queued requests. Returns the time of the
    /// next check of deadlines, at the latest `timer_at`.
    fn set_paused(&self, cx: &Context<'_>, paused: bool, timer_at: Instant) -> (Instant, QueueState) {
        let mut queue = self.queue.lock();
        queue.task_waker.clone_from(cx.waker());
        queue.paused = paused;
        let queued = if paused { VecDeque::new() } else { std::mem::take(&mut queue.queued) };
        queue.next_check = queue.in_flight.iter().map(|request| request.deadline()).fold(timer_at, Instant::min);
        queued.into_iter().for_each(|request| queue.start(request));
        (queue.next_check, queue.state())
    }

    /// Polls the requests whose callers don't, and all of them where the task waits for the last
    /// one. Ready when the task has to call [`set_paused`](Self::set_paused) again, because
    /// something other than these requests has changed.
    fn poll_requests(&self, cx: &mut Context<'_>, paused: bool, check_at: Instant, before: QueueState) -> Poll<()> {
        let mut queue = self.queue.lock();
        queue.task_waker.clone_from(cx.waker());
        let (in_flight, take_over) = (queue.in_flight.clone(), paused || !queue.has_owner);
        drop(queue); // decoding a response may take long
        let done: Vec<_> =
            in_flight.iter().filter(|request| request.poll_if_driver(cx, take_over).is_ready()).collect();
        let mut queue = self.queue.lock();
        done.into_iter().for_each(|request| queue.remove(Arc::as_ptr(request).cast()));
        // `submit` and callers may have changed the queue since `set_paused` released the lock:
        // 1. A request was submitted to an idle connection, or a caller completed the last one: the
        //    state differs. Re-authentication waits for the latter.
        // 2. A request was submitted whose deadline is before the timer's: the timer would be late.
        // Nothing else concerns the task: the timer finds a later deadline when it fires, and a
        // request is queued only while paused, until the `set_paused` that resumes the queue.
        if queue.next_check < check_at || queue.state() != before { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Expires requests whose deadline has passed. Returns the time of the next check.
    ///
    /// # Errors
    /// The reason to close the connection: a request has expired, or the connection is idle.
    fn check_deadlines(&self, cx: &mut Context<'_>) -> Result<Instant, String> {
        let now = Instant::now();
        let queue = self.queue.lock();
        let (in_flight, idle_at) = (queue.in_flight.clone(), queue.last_submit + MAX_IDLE);
        drop(queue);
        let expired = in_flight.iter().filter(|r| r.deadline() <= now).filter_map(|r| r.expire(cx));
        // Not `next`: all of them are expired, not the first alone.
        if let Some(reason) = expired.reduce(|first, _| first) {
            return Err(reason);
        }
        if in_flight.is_empty() && idle_at <= now {
            return Err("the connection was idle".to_owned());
        }
        Ok(in_flight.iter().map(|r| r.deadline()).filter(|d| *d > now).min().unwrap_or(idle_at))
    }

    /// Closes the queue, and fails the requests that are not done.
    fn fail_all(&self) {
        let mut queue = self.queue.lock();
        let messenger = queue.messenger.take(); // its reader ends when the last reference is dropped
        let (in_flight, queued) = (std::mem::take(&mut queue.in_flight), std::mem::take(&mut queue.queued));
        drop(queue);
        // A broker may close the connection right after a response that says why: look for it.
        let poll_first = !std::thread::panicking();
        in_flight.iter().for_each(|request| request.fail(poll_first));
        queued.iter().for_each(|request| request.fail(false));
        drop(messenger);
    }
}

/// Drives a connection until it is closed.
async fn run(guard: TaskGuard, mut reauthentication: Option<Reauthentication>) {
    let shared = &guard.0;
    let control = &shared.control;
    // One timer for all deadlines, reset when it fires or would be late: one per request costs a
    // system call each.
    let timer = tokio::time::sleep_until(Instant::now() + MAX_IDLE);
    let killed = control.killed().cancelled();
    tokio::pin!(timer, killed);
    let reason = loop {
        let paused = reauthentication.as_ref().is_some_and(Reauthentication::pauses_requests);
        let timer_at = timer.deadline();
        let (check_at, state) = poll_fn(|cx| Poll::Ready(shared.set_paused(cx, paused, timer_at))).await;
        // 1. The connection logs in again; a request is queued, and its caller waits. 2. The handle is
        //    dropped. 3. Nothing is in flight, yet the request is sent when the login is done: the
        //    connection ends after its response.
        if !state.has_owner && state.is_idle && !state.has_queued {
            break "no one uses the connection any more".to_owned();
        }
        if check_at < timer_at {
            timer.as_mut().reset(check_at);
        }
        let login = poll_fn(|cx| reauthentication.as_mut().map_or(Poll::Pending, |r| r.poll(cx, state.is_idle)));
        tokio::select! {
            biased;
            () = poll_fn(|cx| shared.poll_requests(cx, paused, check_at, state)) => {}
            () = &mut killed => break "the connection was closed".to_owned(),
            outcome = login => if let Err(e) = outcome {
                control.set_cause(e.full());
                break e.full();
            },
            () = &mut timer => match poll_fn(|cx| Poll::Ready(shared.check_deadlines(cx))).await {
                Ok(next) => timer.as_mut().reset(next),
                Err(reason) => break reason,
            },
        }
    };
    // 1. The broker rejects the re-authentication and closes the connection at once. 2. The stream
    //    ends first, which kills the connection. 3. The response with the reason has been read but
    //    not looked at: look at it now, so that errors say it.
    let login = poll_fn(|cx| reauthentication.as_mut().map_or(Poll::Pending, |r| r.poll(cx, false)));
    if let Poll::Ready(Err(e)) = futures_util::poll!(login) {
        control.set_cause(e.full());
    }
    control.kill(reason);
}
