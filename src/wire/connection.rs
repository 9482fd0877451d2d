//! One connection to one broker, owned by a task.
//!
//! A caller that goes away cannot leave half a frame on the wire, nor a request without an owner: the task sees to both. Each
//! request is polled once where it is submitted, one after the other, with the task's waker: mostly that writes it, and the
//! task sleeps on while its caller waits for the answer. The messenger's write lock is fair, so the order of
//! [`Connection::submit`] is the order on the wire.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rskafka::messenger::Messenger;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::api::{Api, Body, Reply};
use super::sasl::{Login, Renewal};
use super::stream::{Control, Stream};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Observation, Reporter};
use asked::{Asked, Pending, Request};

mod asked;

/// Requests that may wait while the connection logs in again; whoever sends more than this has no bound of its own.
const QUEUE: usize = 256;
/// Brokers close a connection after 10 idle minutes: we are first, so that no request meets a closing one.
const IDLE: Duration = Duration::from_secs(9 * 60);
/// How long `close` waits for the socket.
const CLOSE: Duration = Duration::from_secs(5);

/// The messenger of a connection, whatever its stream is.
type AnyStream = Pin<Box<dyn Duplex>>;
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}
type Wire = Messenger<Stream<AnyStream>>;

/// A connection. Dropping it closes the socket once the requests under way have ended.
#[derive(Debug)]
pub(crate) struct Connection(Arc<Line>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.lock().in_use = false;
        self.0.wake();
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
        let stream = Stream::new(Box::pin(io) as AnyStream, Arc::clone(&control), max_message_size);
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
        let line =
            Arc::new(Line { peer, metrics: metrics.clone(), control, lane: Mutex::new(LaneState::new(messenger)) });
        tokio::spawn(run(Open::new(Arc::clone(&line)), renewal));
        Ok(Self(line))
    }

    /// The broker, as errors name it.
    pub(crate) fn peer(&self) -> &str {
        &self.0.peer
    }

    /// Whether any request of its users has had an answer.
    pub(crate) fn was_of_use(&self) -> bool {
        self.0.control.answered()
    }

    /// Whether it is of no use any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.control.is_over()
    }

    /// Resolves when it is of no use any more.
    pub(crate) async fn closed(&self) {
        self.0.control.ended().cancelled().await;
    }

    /// Writes a request behind those submitted before; the future resolves with its response.
    ///
    /// The timeout covers all from now on. When it is over, the connection is closed: a broker may never answer what stands
    /// behind a request it has not answered.
    ///
    /// # Cancellation
    /// Dropping the future does not take the request back.
    pub(crate) fn submit<A: Api>(&self, request: A, timeout: Duration) -> Pending<A> {
        Pending::new(Arc::clone(&self.0), self.0.submit(request, timeout))
    }

    /// [`submit`](Self::submit), and its answer.
    pub(crate) async fn request<A: Api>(&self, request: A, timeout: Duration) -> Result<A::Response> {
        self.submit(request, timeout).await
    }

    /// The broker has asked for a pause.
    pub(crate) fn throttled(&self, api: &'static str, pause: Duration) {
        if !pause.is_zero() {
            self.0.metrics.report(|| Observation::Throttled { broker: &self.0.peer, api, pause });
        }
    }

    /// Ends it at once: requests under way fail.
    pub(crate) fn kill(&self, reason: &str) {
        self.0.control.kill(reason);
    }

    /// [`kill`](Self::kill), then waits until the socket is closed.
    pub(crate) async fn close(&self) {
        self.0.control.kill("the connection was closed by this client");
        if tokio::time::timeout(CLOSE, self.0.control.gone().cancelled()).await.is_err() {
            tracing::warn!(peer = %self.peer(), "the socket did not close within {CLOSE:?}");
        }
    }
}

/// Counts a connection for as long as its task lives, with which all that is under way ends.
struct Open(Arc<Line>);

impl Open {
    fn new(line: Arc<Line>) -> Self {
        line.metrics.report(|| Observation::Connected { broker: &line.peer });
        Self(line)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.control.kill("the connection's task has ended");
        self.0.end();
        self.0.metrics.report(|| Observation::Disconnected { broker: &self.0.peer });
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
        answer.map(|Reply(response)| response).map_err(|e| asked::explain::<A>(e, &self.peer, &self.control))
    }
}

/// What the connection, its requests and its task share.
#[derive(Debug)]
struct Line {
    /// The broker, as errors name it.
    peer: Arc<str>,
    /// Whom to tell of what goes over it.
    metrics: Reporter,
    control: Arc<Control>,
    lane: Mutex<LaneState>,
}

struct LaneState {
    /// None when the connection has ended.
    messenger: Option<Arc<Wire>>,
    /// Begun: polled once, and not ended.
    active: Vec<Arc<dyn Request>>,
    /// Not begun, in order: the task has not, or it logs in again.
    held: VecDeque<Arc<dyn Request>>,
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
        let (active, held) = (self.active.len(), self.held.len());
        f.debug_struct("LaneState").field("active", &active).field("held", &held).finish_non_exhaustive()
    }
}

/// What the task looks at in its turn.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// Whether anybody may still submit.
    in_use: bool,
    /// Whether no request is under way.
    idle: bool,
}

impl LaneState {
    fn new(messenger: Arc<Wire>) -> Self {
        let now = Instant::now();
        Self {
            messenger: Some(messenger),
            active: Vec::new(),
            held: VecDeque::new(),
            holding: true,
            waker: Waker::noop().clone(),
            alarm: now,
            used: now,
            in_use: true,
        }
    }

    fn seen(&self) -> Seen {
        Seen { in_use: self.in_use, idle: self.active.is_empty() }
    }

    /// Polls a request for the first time, which puts it in line for the socket.
    fn begin(&mut self, request: Arc<dyn Request>) {
        if request.advance(&mut Context::from_waker(&self.waker), false).is_ready() {
            return;
        }
        if request.deadline() < self.alarm {
            self.alarm = request.deadline();
            self.waker.wake_by_ref();
        }
        self.active.push(request);
    }

    fn remove(&mut self, ended: *const ()) {
        self.active.retain(|request| Arc::as_ptr(request).cast() != ended);
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, LaneState> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the task look again.
    fn wake(&self) {
        self.lock().waker.wake_by_ref();
    }

    /// Begins a request, or holds it back.
    fn submit<A: Api>(self: &Arc<Self>, request: A, timeout: Duration) -> Result<Arc<Asked<A>>, &'static str> {
        let mut lane = self.lock();
        let messenger = lane.messenger.clone().filter(|_| !self.control.is_over());
        let messenger = messenger.ok_or("the connection is closed")?;
        let asked = Arc::new(Asked::new(self, messenger, request, timeout));
        lane.used = asked.began();
        if !lane.holding {
            lane.begin(Arc::clone(&asked) as _);
        } else if lane.held.len() < QUEUE {
            lane.held.push_back(Arc::clone(&asked) as _);
            lane.waker.wake_by_ref();
        } else {
            return Err("too many requests wait for the connection");
        }
        Ok(asked)
    }

    /// Whoever asked has found that his request has ended.
    fn remove<A: Api>(&self, asked: &Arc<Asked<A>>) {
        let mut lane = self.lock();
        lane.remove(Arc::as_ptr(asked).cast());
        // Only then does the task wait for the last one.
        if lane.active.is_empty() && (lane.holding || !lane.in_use) {
            lane.waker.wake_by_ref();
        }
    }

    /// Begins what was held back, unless it is to be held on. Gives the time of the next alarm.
    fn take(&self, cx: &Context<'_>, hold: bool, alarm: Instant) -> (Instant, Seen) {
        let mut lane = self.lock();
        lane.waker.clone_from(cx.waker());
        lane.holding = hold;
        let held = if hold { VecDeque::new() } else { std::mem::take(&mut lane.held) };
        lane.alarm = lane.active.iter().map(|request| request.deadline()).fold(alarm, Instant::min);
        held.into_iter().for_each(|request| lane.begin(request));
        (lane.alarm, lane.seen())
    }

    /// Brings on the requests whose callers do not, and all where the task waits for the last one. Ready when
    /// [`take`](Self::take) has something to do.
    fn poll(&self, cx: &mut Context<'_>, hold: bool, alarm: Instant, seen: Seen) -> Poll<()> {
        let mut lane = self.lock();
        lane.waker.clone_from(cx.waker());
        let (active, keep) = (lane.active.clone(), hold || !lane.in_use);
        drop(lane); // an answer may take long to decode
        let ended: Vec<_> = active.iter().filter(|request| request.advance(cx, keep).is_ready()).collect();
        let mut lane = self.lock();
        ended.into_iter().for_each(|request| lane.remove(Arc::as_ptr(request).cast()));
        let fresh = (!hold && !lane.held.is_empty()) || lane.alarm < alarm || lane.seen() != seen;
        if fresh { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Tells whom it concerns that a deadline has passed, and gives the first that has; else the time of the next.
    fn overdue(&self, cx: &mut Context<'_>) -> Result<Instant, String> {
        let now = Instant::now();
        let lane = self.lock();
        let (active, idle_at) = (lane.active.clone(), lane.used + IDLE);
        drop(lane);
        let overdue = active.iter().filter(|r| r.deadline() <= now).filter_map(|r| r.expire(cx));
        if let Some(reason) = overdue.reduce(|first, _| first) {
            return Err(reason);
        }
        if active.is_empty() && idle_at <= now {
            return Err("the connection was idle".to_owned());
        }
        Ok(active.iter().map(|r| r.deadline()).filter(|d| *d > now).min().unwrap_or(idle_at))
    }

    /// Nothing can be submitted any more; what has not ended fails.
    fn end(&self) {
        let mut lane = self.lock();
        let messenger = lane.messenger.take(); // its reader ends with it
        let (active, held) = (std::mem::take(&mut lane.active), std::mem::take(&mut lane.held));
        drop(lane);
        // A broker that refuses something may close the connection right behind its answer.
        let look = !std::thread::panicking();
        active.iter().for_each(|request| request.fail(look));
        held.iter().for_each(|request| request.fail(false));
        drop(messenger);
    }
}

async fn run(open: Open, mut renewal: Option<Renewal>) {
    let line = &open.0;
    let control = &line.control;
    // One timer, set anew when it fires or is too late: one for each request costs a system call each.
    let alarm = tokio::time::sleep_until(Instant::now() + IDLE);
    let ended = control.ended().cancelled();
    tokio::pin!(alarm, ended);
    let reason = loop {
        let hold = renewal.as_ref().is_some_and(Renewal::holds_back);
        let until = alarm.deadline();
        let (next, seen) = poll_fn(|cx| Poll::Ready(line.take(cx, hold, until))).await;
        if !seen.in_use && seen.idle {
            break "no one uses the connection any more".to_owned();
        }
        if next < until {
            alarm.as_mut().reset(next);
        }
        let login = poll_fn(|cx| renewal.as_mut().map_or(Poll::Pending, |renewal| renewal.poll(cx, seen.idle)));
        tokio::select! {
            biased;
            () = poll_fn(|cx| line.poll(cx, hold, next, seen)) => {}
            () = &mut ended => break "the connection was closed".to_owned(),
            renewed = login => if let Err(e) = renewed {
                control.explain(e.full());
                break e.full();
            },
            () = &mut alarm => match poll_fn(|cx| Poll::Ready(line.overdue(cx))).await {
                Ok(next) => alarm.as_mut().reset(next),
                Err(reason) => break reason,
            },
        }
    };
    // A broker that refuses a renewal closes the connection at once, perhaps before its answer was looked at.
    let login = poll_fn(|cx| renewal.as_mut().map_or(Poll::Pending, |renewal| renewal.poll(cx, false)));
    if let Poll::Ready(Err(e)) = futures_util::poll!(login) {
        control.explain(e.full());
    }
    control.kill(reason);
}
