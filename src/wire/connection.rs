//! One connection to one broker, owned by a task.
//!
//! Requests belong to that task and never to the future of whoever asked: a caller that goes away cannot leave half a frame
//! on the wire, nor a request without an owner. The task polls each request once before it takes the next one, and the
//! messenger's write lock is fair, so the order of [`Connection::submit`] is the order on the wire.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rskafka::messenger::{Messenger, RequestError};
use rskafka::protocol::frame::ReadError as FrameError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::api::{Api, Body, Reply};
use super::sasl::{Login, Renewal};
use super::stream::{Control, Stream};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Observation, Reporter};

/// Requests that may wait for the connection's task; whoever sends more than this has no bound of its own.
const QUEUE: usize = 256;
/// Brokers close a connection after 10 idle minutes: we are first, so that no request meets a closing one.
const IDLE: Duration = Duration::from_secs(9 * 60);
/// How long `close` waits for the socket.
const CLOSE: Duration = Duration::from_secs(5);

/// Makes a request once the connection's task comes to it.
type Job = Box<dyn FnOnce(Arc<Wire>) -> Box<dyn Request> + Send>;

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
    jobs: mpsc::Sender<Job>,
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
        let (jobs, queue) = mpsc::channel(QUEUE);
        let meter = Meter { metrics: metrics.clone(), peer };
        let open = Open::new(meter.clone());
        tokio::spawn(run(messenger, queue, Arc::clone(&control), renewal, open));
        Ok(Self { meter, control, jobs })
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

    /// Queues a request behind those submitted before; the future resolves with its response.
    ///
    /// The deadline covers all from now on. When it passes, the connection is closed: a broker may never answer what stands
    /// behind a request it has not answered.
    ///
    /// # Cancellation
    /// Dropping the future does not take the request back.
    pub(crate) fn submit<A: Api>(&self, request: A, deadline: Instant) -> Pending<A::Response> {
        let (answer, answered) = oneshot::channel();
        let (meter, control) = (self.meter.clone(), Arc::clone(&self.control));
        let began = Instant::now();
        let job: Job = Box::new(move |messenger| {
            let body = Body { message: request, control: Arc::clone(&control) };
            let reply = Box::pin(async move { messenger.request(body).await });
            meter.metrics.report(|| Observation::RequestSent { broker: &meter.peer, api: A::NAME });
            Box::new(Asked { reply, answer: Some(answer), began, deadline, meter, control })
        });
        let refused = match self.jobs.try_send(job) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(_)) => Some("too many requests wait for the connection"),
            Err(mpsc::error::TrySendError::Closed(_)) => Some("the connection is closed"),
        };
        Pending {
            api: A::NAME,
            peer: Arc::clone(&self.meter.peer),
            control: Arc::clone(&self.control),
            answered,
            refused,
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

async fn run(
    messenger: Arc<Wire>,
    mut jobs: mpsc::Receiver<Job>,
    control: Arc<Control>,
    mut renewal: Option<Renewal>,
    _open: Open,
) {
    let mut active = FuturesUnordered::<Box<dyn Request>>::new();
    let mut in_use = true;
    let mut idle_at = Instant::now() + IDLE;
    // One timer, set anew when it fires: one for each request costs a system call each.
    let alarm = tokio::time::sleep_until(idle_at);
    let ended = control.ended().cancelled();
    tokio::pin!(alarm, ended);
    let reason = loop {
        if !in_use && active.is_empty() {
            break "no one uses the connection any more".to_owned();
        }
        let (idle, held) = (active.is_empty(), renewal.as_ref().is_some_and(Renewal::holds_back));
        let login = poll_fn(|cx| renewal.as_mut().map_or(Poll::Pending, |renewal| renewal.poll(cx, idle)));
        tokio::select! {
            biased;
            // Before the end: a broker that refuses something may close the connection right behind its answer.
            Some(verdict) = active.next() => if let Verdict::Kill(reason) = verdict { break reason },
            () = &mut ended => break "the connection was closed".to_owned(),
            renewed = login => if let Err(e) = renewed {
                control.explain(e.full());
                break e.full();
            },
            job = jobs.recv(), if in_use && !held => match job {
                Some(job) => {
                    idle_at = Instant::now() + IDLE;
                    let mut request = job(Arc::clone(&messenger));
                    // Once before the next is made, so that it stands in the write lock's queue. The set polls it again and
                    // registers its waker.
                    match futures_util::poll!(&mut request) {
                        Poll::Ready(Verdict::Kill(reason)) => break reason,
                        Poll::Ready(Verdict::Keep) => {}
                        Poll::Pending => {
                            if request.deadline() < alarm.deadline() {
                                alarm.as_mut().reset(request.deadline());
                            }
                            active.push(request);
                        }
                    }
                }
                None => in_use = false,
            },
            () = &mut alarm => {
                let now = Instant::now();
                let overdue = active.iter_mut().filter(|r| r.deadline() <= now).map(|r| r.expire());
                if let Some(reason) = overdue.reduce(|first, _| first) { break reason }
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
