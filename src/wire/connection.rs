//! One connection to one broker, owned by a task.
//!
//! Requests belong to that task and never to the future of whoever asked: a caller that goes away cannot leave half a frame
//! on the wire, nor a request without an owner. Each is polled once where it is submitted, one after the other, with the
//! task's waker: mostly that writes it, and the task sleeps until something comes back. The messenger's write lock is fair,
//! so the order of [`Connection::submit`] is the order on the wire.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rskafka::messenger::{Messenger, RequestError};
use rskafka::protocol::frame::ReadError as FrameError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::api::{Api, Body, Reply};
use super::sasl::{Login, Renewal};
use super::stream::{Control, Stream};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Observation, Reporter};

/// Requests that may wait while the connection logs in again; whoever sends more than this has no bound of its own.
const QUEUE: usize = 256;
/// Brokers close a connection after 10 idle minutes: we are first, so that no request meets a closing one.
const IDLE: Duration = Duration::from_secs(9 * 60);
/// How long `close` waits for the socket.
const CLOSE: Duration = Duration::from_secs(5);

/// What a finished request means for the connection.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    /// It went unanswered, or the stream is broken: nothing that stands behind it may ever be answered.
    Kill(String),
}

/// The messenger of a connection, whatever its stream is.
type AnyStream = Pin<Box<dyn Duplex>>;
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}
type Wire = Messenger<Stream<AnyStream>>;

/// A connection. Dropping it closes the socket once the requests under way have ended.
#[derive(Debug)]
pub(crate) struct Connection {
    meter: Meter,
    control: Arc<Control>,
    lane: Arc<Lane>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.lane.release();
    }
}

impl Connection {
    /// Agrees on versions over an open stream, and logs in if that is asked for; `peer` names the broker in errors.
    pub(super) async fn over(
        io: impl AsyncRead + AsyncWrite + Send + 'static,
        peer: &str,
        client_id: &str,
        max_message_size: usize,
        timeout: Duration,
        metrics: &Reporter,
        login: Option<Arc<Login>>,
    ) -> Result<Self> {
        let control = Arc::new(Control::default());
        let stream = Stream::new(Box::pin(io) as AnyStream, Arc::clone(&control));
        let mut messenger = Messenger::new(stream, max_message_size, client_id.into());
        match tokio::time::timeout(timeout, messenger.sync_versions()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => {
                let why = control.reason().map_or_else(|| e.to_string(), str::to_owned);
                let what = format!("{peer} did not tell its API versions: {why}");
                return Err(Error::new(ErrorKind::Connect, what));
            }
            Err(_) => {
                control.kill("no answer to ApiVersions");
                let what =
                    format!("{peer} accepted the connection but did not tell its API versions within {timeout:?}");
                return Err(Error::new(ErrorKind::Connect, what));
            }
        }
        let (messenger, peer) = (Arc::new(messenger), Arc::from(peer));
        let mut renewal = None;
        if let Some(login) = login {
            let own = Arc::clone(&messenger);
            let asker = Arc::new(Asker { messenger: own, control: Arc::clone(&control), peer: Arc::clone(&peer) });
            let lifetime = login.first(&asker).await.inspect_err(|_| control.kill("the login failed"))?;
            renewal = Some(Renewal::new(login, asker, metrics.clone(), lifetime));
        }
        let lane = Arc::new(Lane::new(messenger));
        let meter = Meter { metrics: metrics.clone(), peer };
        let open = Open::new(meter.clone());
        tokio::spawn(run(Arc::clone(&lane), Arc::clone(&control), renewal, open));
        Ok(Self { meter, control, lane })
    }

    /// The broker, as errors name it.
    pub(crate) fn peer(&self) -> &str {
        &self.meter.peer
    }

    /// Whether any request of its users has had an answer.
    pub(crate) fn was_of_use(&self) -> bool {
        self.control.answered()
    }

    /// Whether it is of no use any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.control.ended().is_cancelled()
    }

    /// Resolves when it is of no use any more.
    pub(crate) async fn closed(&self) {
        self.control.ended().cancelled().await;
    }

    /// Writes a request behind those submitted before; the future resolves with its response.
    ///
    /// The deadline covers all from now on. When it passes, the connection is closed: a broker may never answer what stands
    /// behind a request it has not answered.
    ///
    /// # Cancellation
    /// Dropping the future does not take the request back.
    pub(crate) fn submit<A: Api>(&self, request: A, deadline: Instant) -> Pending<A::Response> {
        let (answer, answered) = oneshot::channel();
        let (meter, control) = (self.meter.clone(), Arc::clone(&self.control));
        let refused = self.lane.submit(&self.control, |messenger| {
            let body = Body { message: request, control: Arc::clone(&control) };
            let sent = meter.clone();
            // Unconstrained, or a task that has used up its budget would not even get in line by polling it.
            let reply = Box::pin(unconstrained(async move {
                sent.metrics.report(|| Observation::RequestSent { broker: &sent.peer, api: A::NAME });
                messenger.request(body).await
            }));
            Box::new(Asked { reply, answer: Some(answer), began: Instant::now(), deadline, meter, control })
        });
        Pending {
            api: A::NAME,
            peer: Arc::clone(&self.meter.peer),
            control: Arc::clone(&self.control),
            answered,
            refused: refused.err(),
        }
    }

    /// [`submit`](Self::submit), with a timeout from now on.
    pub(crate) async fn request<A: Api>(&self, request: A, timeout: Duration) -> Result<A::Response> {
        self.submit(request, Instant::now() + timeout).await
    }

    /// The broker has asked for a pause.
    pub(crate) fn throttled(&self, api: &'static str, pause: Duration) {
        if !pause.is_zero() {
            self.meter.metrics.report(|| Observation::Throttled { broker: &self.meter.peer, api, pause });
        }
    }

    /// Ends it at once: requests under way fail.
    pub(crate) fn kill(&self, reason: &str) {
        self.control.kill(reason);
    }

    /// [`kill`](Self::kill), then waits until the socket is closed.
    pub(crate) async fn close(&self) {
        self.control.kill("the connection was closed by this client");
        if tokio::time::timeout(CLOSE, self.control.gone().cancelled()).await.is_err() {
            tracing::warn!(peer = %self.peer(), "the socket did not close within {CLOSE:?}");
        }
    }
}

/// Whom to tell of what goes over a connection.
#[derive(Debug, Clone)]
struct Meter {
    metrics: Reporter,
    /// The broker, as errors name it.
    peer: Arc<str>,
}

/// Counts a connection for as long as it lives.
struct Open(Meter);

impl Open {
    fn new(meter: Meter) -> Self {
        meter.metrics.report(|| Observation::Connected { broker: &meter.peer });
        Self(meter)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Meter { metrics, peer } = &self.0;
        metrics.report(|| Observation::Disconnected { broker: peer });
    }
}

/// Asks what the connection has to know itself, one question at a time and none while others' requests are under way.
pub(super) struct Asker {
    messenger: Arc<Wire>,
    control: Arc<Control>,
    peer: Arc<str>,
}

impl Asker {
    /// The broker, as errors name it.
    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    /// Whoever asks sets the deadline, and kills the connection if it is not kept.
    pub(super) async fn ask<A: Api>(&self, request: A) -> Result<A::Response> {
        let body = Body { message: request, control: Arc::clone(&self.control) };
        let answer = self.messenger.request(body).await;
        answer.map(|Reply(response)| response).map_err(|e| explain::<A>(e, &self.peer, &self.control))
    }
}

/// The answer to come.
#[derive(Debug)]
pub(crate) struct Pending<R> {
    api: &'static str,
    peer: Arc<str>,
    control: Arc<Control>,
    answered: oneshot::Receiver<Result<R>>,
    refused: Option<&'static str>,
}

impl<R> Future for Pending<R> {
    type Output = Result<R>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let gone = |p: &Self| {
            let why = p.control.reason().or(p.refused).unwrap_or("the connection was closed").to_owned();
            Error::new(ErrorKind::Disconnected, format!("{} to {} failed: {why}", p.api, p.peer))
        };
        if self.refused.is_some() {
            return Poll::Ready(Err(gone(&self)));
        }
        Pin::new(&mut self.answered).poll(cx).map(|r| r.unwrap_or_else(|_| Err(gone(&self))))
    }
}

/// A request under way.
trait Request: Future<Output = Verdict> + Unpin + Send {
    fn deadline(&self) -> Instant;
    /// Tells whoever asked that its deadline has passed.
    fn expire(&mut self) -> String;
}

struct Asked<A: Api> {
    reply: BoxFuture<'static, Result<Reply<A>, RequestError>>,
    /// Whoever asked, who may be gone.
    answer: Option<oneshot::Sender<Result<A::Response>>>,
    began: Instant,
    deadline: Instant,
    meter: Meter,
    control: Arc<Control>,
}

impl<A: Api> Asked<A> {
    fn answer(&mut self, outcome: Result<A::Response>) {
        if let Some(answer) = self.answer.take() {
            self.ended(outcome.as_ref().err().map(Error::kind));
            _ = answer.send(outcome);
        }
    }

    fn ended(&self, error: Option<ErrorKind>) {
        let Meter { metrics, peer } = &self.meter;
        let ended = || Observation::RequestEnded { broker: peer, api: A::NAME, took: self.began.elapsed(), error };
        metrics.report(ended);
    }
}

impl<A: Api> Drop for Asked<A> {
    fn drop(&mut self) {
        if self.answer.is_some() {
            self.ended(Some(ErrorKind::Disconnected));
        }
    }
}

impl<A: Api> Future for Asked<A> {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Verdict> {
        let outcome = match ready!(self.reply.as_mut().poll(cx)) {
            Ok(Reply(response)) => {
                self.control.set_answered();
                Ok(response)
            }
            Err(e) => {
                // Its reader or writer has ended: every later request would fail as this one.
                let broken = matches!(e, RequestError::Poisoned(_));
                let e = explain::<A>(e, &self.meter.peer, &self.control);
                if broken {
                    let why = e.to_string();
                    self.answer(Err(e));
                    return Poll::Ready(Verdict::Kill(why));
                }
                Err(e)
            }
        };
        self.answer(outcome);
        Poll::Ready(Verdict::Keep)
    }
}

impl<A: Api> Request for Asked<A> {
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn expire(&mut self) -> String {
        let what = format!("no answer to {} from {} within {:.1?}", A::NAME, self.meter.peer, self.began.elapsed());
        self.answer(Err(Error::new(ErrorKind::Timeout, what.clone())));
        what
    }
}

/// What those who submit share with the connection's task.
#[derive(Debug)]
struct Lane(Mutex<LaneState>);

struct LaneState {
    /// None when the connection has ended.
    messenger: Option<Arc<Wire>>,
    /// Polled once with the task's waker, and not yet seen by the task.
    begun: Vec<Box<dyn Request>>,
    /// Not begun, in order: the task has not, or it logs in again.
    held: VecDeque<Box<dyn Request>>,
    holding: bool,
    /// Of the task.
    waker: Waker,
    /// When the task looks for deadlines next.
    alarm: Instant,
    used: Instant,
    in_use: bool,
}

impl std::fmt::Debug for LaneState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (begun, held) = (self.begun.len(), self.held.len());
        f.debug_struct("LaneState").field("begun", &begun).field("held", &held).finish_non_exhaustive()
    }
}

impl Lane {
    fn new(messenger: Arc<Wire>) -> Self {
        let now = Instant::now();
        Self(Mutex::new(LaneState {
            messenger: Some(messenger),
            begun: Vec::new(),
            held: VecDeque::new(),
            holding: true,
            waker: Waker::noop().clone(),
            alarm: now,
            used: now,
            in_use: true,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, LaneState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a request, or holds it back.
    fn submit(&self, control: &Control, make: impl FnOnce(Arc<Wire>) -> Box<dyn Request>) -> Result<(), &'static str> {
        let mut lane = self.lock();
        let messenger = lane.messenger.clone().filter(|_| !control.ended().is_cancelled());
        let request = make(messenger.ok_or("the connection is closed")?);
        lane.used = Instant::now();
        if !lane.holding {
            lane.begin(request, control);
        } else if lane.held.len() < QUEUE {
            lane.held.push_back(request);
            lane.waker.wake_by_ref();
        } else {
            return Err("too many requests wait for the connection");
        }
        Ok(())
    }

    /// Nobody submits any more.
    fn release(&self) {
        let mut lane = self.lock();
        lane.in_use = false;
        lane.waker.wake_by_ref();
    }

    /// Begins what was held back, unless it is to be held on, and brings all that was begun to the task. Gives the time of the
    /// next alarm, and whether anybody may still submit.
    fn take(
        &self,
        cx: &Context<'_>,
        (hold, alarm): (bool, Instant),
        control: &Control,
        active: &mut FuturesUnordered<Box<dyn Request>>,
    ) -> (Instant, bool) {
        let mut lane = self.lock();
        lane.waker.clone_from(cx.waker());
        lane.holding = hold;
        let held = if hold { VecDeque::new() } else { std::mem::take(&mut lane.held) };
        held.into_iter().for_each(|request| lane.begin(request, control));
        lane.alarm = lane.begun.iter().map(|request| request.deadline()).fold(alarm, Instant::min);
        active.extend(lane.begun.drain(..));
        (lane.alarm, lane.in_use)
    }

    /// Ready when [`take`](Self::take) has something to do.
    fn poll_fresh(&self, cx: &Context<'_>, hold: bool, in_use: bool) -> Poll<()> {
        let mut lane = self.lock();
        lane.waker.clone_from(cx.waker());
        let fresh = !lane.begun.is_empty() || (!hold && !lane.held.is_empty()) || lane.in_use != in_use;
        if fresh { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Nothing can be submitted any more; what has not ended fails.
    fn end(&self) {
        let mut lane = self.lock();
        let left = (lane.messenger.take(), std::mem::take(&mut lane.begun), std::mem::take(&mut lane.held));
        drop(lane);
        drop(left);
    }
}

impl LaneState {
    /// Polls a request for the first time, which puts it in line for the socket.
    fn begin(&mut self, mut request: Box<dyn Request>, control: &Control) {
        match Pin::new(&mut request).poll(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(Verdict::Kill(reason)) => control.kill(reason),
            Poll::Ready(Verdict::Keep) => {}
            Poll::Pending => {
                if request.deadline() < self.alarm {
                    self.waker.wake_by_ref();
                }
                self.begun.push(request);
            }
        }
    }
}

async fn run(lane: Arc<Lane>, control: Arc<Control>, mut renewal: Option<Renewal>, _open: Open) {
    let mut active = FuturesUnordered::<Box<dyn Request>>::new();
    // One timer, set anew when it fires or is too late: one for each request costs a system call each.
    let alarm = tokio::time::sleep_until(Instant::now() + IDLE);
    let ended = control.ended().cancelled();
    tokio::pin!(alarm, ended);
    let reason = loop {
        let hold = renewal.as_ref().is_some_and(Renewal::holds_back);
        let state = (hold, alarm.deadline());
        let (next, in_use) = poll_fn(|cx| Poll::Ready(lane.take(cx, state, &control, &mut active))).await;
        if !in_use && active.is_empty() {
            break "no one uses the connection any more".to_owned();
        }
        if next < alarm.deadline() {
            alarm.as_mut().reset(next);
        }
        let idle = active.is_empty();
        let login = poll_fn(|cx| renewal.as_mut().map_or(Poll::Pending, |renewal| renewal.poll(cx, idle)));
        tokio::select! {
            biased;
            () = poll_fn(|cx| lane.poll_fresh(cx, hold, in_use)) => {}
            // Before the end: a broker that refuses something may close the connection right behind its answer.
            Some(verdict) = active.next() => if let Verdict::Kill(reason) = verdict { break reason },
            () = &mut ended => break "the connection was closed".to_owned(),
            renewed = login => if let Err(e) = renewed {
                control.explain(e.full());
                break e.full();
            },
            () = &mut alarm => {
                let now = Instant::now();
                let overdue = active.iter_mut().filter(|r| r.deadline() <= now).map(|r| r.expire());
                if let Some(reason) = overdue.reduce(|first, _| first) { break reason }
                let idle_at = lane.lock().used + IDLE;
                if active.is_empty() && idle_at <= now { break "the connection was idle".to_owned() }
                let next = active.iter_mut().map(|r| r.deadline()).min().unwrap_or(idle_at);
                alarm.as_mut().reset(next);
            }
        }
    };
    // A broker that refuses a renewal closes the connection at once, perhaps before its answer was looked at.
    let login = poll_fn(|cx| renewal.as_mut().map_or(Poll::Pending, |renewal| renewal.poll(cx, false)));
    if let Poll::Ready(Err(e)) = futures_util::poll!(login) {
        control.explain(e.full());
    }
    control.kill(reason);
    // Dropping the requests tells those who wait; dropping the messenger ends its reader.
    lane.end();
}

/// A messenger's error in our words.
fn explain<A: Api>(e: RequestError, peer: &str, control: &Control) -> Error {
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
            if let Some(FrameError::MessageTooLarge { limit, actual }) = frame_error(&e) {
                let why = format!("the answer has {actual} bytes, more than the {limit} that are allowed");
                return failed(ErrorKind::Corrupt, &why);
            }
            let why = control.reason().map_or_else(|| e.to_string(), str::to_owned);
            failed(ErrorKind::Disconnected, &why)
        }
    }
}

fn frame_error(e: &RequestError) -> Option<&FrameError> {
    match e {
        RequestError::ReadFramedMessageError(e) => Some(e),
        RequestError::Poisoned(e) => frame_error(e),
        _ => None,
    }
}
