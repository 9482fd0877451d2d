//! Handlers of single records: their arguments and their outcomes.

use std::fmt;
use std::future::{Future, poll_fn};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use serde::de::DeserializeOwned;
use tower_service::Service;

use super::failure_policy::{Hold, Unavailable, find_cause};
use super::{Outputs, sealed};
use crate::consumer::Message;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{AnyEvent, Envelope, EventType};

/// The error of a handler.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The outcome of an attempt to handle a record.
///
/// ```
/// use std::time::Duration;
/// use ailurus::{Message, processor::Outcome};
///
/// async fn handle(message: Message) -> Outcome {
///     match message.value {
///         None => Outcome::dead_letter("there is no value"),
///         Some(v) if v.starts_with(b"later") => Outcome::retry_after(Duration::from_secs(60), "not yet"),
///         Some(_) => Outcome::Done,
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The record is handled.
    Done,
    /// The record is handled, and these records are to be written in the transaction that commits
    /// its offset. Only in a [`Pipeline`](super::Pipeline); another subscription ends with an error.
    Send(Outputs),
    /// The attempt failed: the record is retried, or becomes a dead letter if this was the last
    /// attempt.
    Retry {
        /// Delay before the next attempt, at most 24 hours. `None` is an exponential backoff with
        /// jitter ([`ProcessorConfig::retry_backoff`](crate::ProcessorConfig::retry_backoff)).
        after: Option<Duration>,
        /// The cause.
        error: BoxError,
    },
    /// The attempt failed and no other would succeed: the record becomes a dead letter at once.
    DeadLetter {
        /// The cause.
        error: BoxError,
    },
    /// The attempt failed: the record is retried until it succeeds, and never becomes a dead letter.
    RetryForever {
        /// Delay before the next attempt, as of [`Retry`](Self::Retry).
        after: Option<Duration>,
        /// The cause.
        error: BoxError,
    },
    /// The record can't be handled and is left out: it counts as
    /// [skipped](super::Stats::skipped) and is committed, without a dead letter.
    Skip {
        /// The cause.
        error: BoxError,
    },
    /// The attempt failed because a dependency of the handler is down: the record waits until that is
    /// back, and with it all that the [`Hold`] covers. The attempt does not count, and there is no dead
    /// letter.
    Hold {
        /// The dependency, and what waits for it.
        hold: Hold,
        /// The cause.
        error: BoxError,
    },
    /// The subscription ends with this error, as if by a
    /// [`shutdown`](crate::Subscription::shutdown); the record is not committed.
    Stop {
        /// The cause.
        error: BoxError,
    },
}

impl Outcome {
    /// Returns a failure that is retried with the usual backoff.
    pub fn retry(error: impl Into<BoxError>) -> Self {
        Self::Retry { after: None, error: error.into() }
    }
    /// Returns a failure that is retried after a delay.
    pub fn retry_after(after: Duration, error: impl Into<BoxError>) -> Self {
        Self::Retry { after: Some(after), error: error.into() }
    }
    /// Returns a failure that makes the record a dead letter.
    pub fn dead_letter(error: impl Into<BoxError>) -> Self {
        Self::DeadLetter { error: error.into() }
    }
    /// Returns a failure that is retried until it succeeds.
    pub fn retry_forever(error: impl Into<BoxError>) -> Self {
        Self::RetryForever { after: None, error: error.into() }
    }
    /// Returns a failure that leaves the record out.
    pub fn skip(error: impl Into<BoxError>) -> Self {
        Self::Skip { error: error.into() }
    }
    /// Returns a failure because a dependency is down, by its name or with a [`Hold`].
    pub fn hold(hold: impl Into<Hold>, error: impl Into<BoxError>) -> Self {
        Self::Hold { hold: hold.into(), error: error.into() }
    }
    /// Returns a failure that ends the subscription.
    pub fn stop(error: impl Into<BoxError>) -> Self {
        Self::Stop { error: error.into() }
    }

    /// Returns whether the record is handled.
    pub(super) fn is_success(&self) -> bool {
        matches!(self, Self::Done | Self::Send(_))
    }

    /// Returns the kind of a failure, and its error.
    pub(super) fn failure(&self) -> Option<(&'static str, &BoxError)> {
        match self {
            Self::Done | Self::Send(_) => None,
            Self::Retry { error, .. } => Some(("retry", error)),
            Self::DeadLetter { error } => Some(("dead_letter", error)),
            Self::RetryForever { error, .. } => Some(("retry", error)),
            Self::Skip { error } => Some(("skip", error)),
            Self::Hold { error, .. } => Some(("hold", error)),
            Self::Stop { error } => Some(("stop", error)),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Send(outputs) => write!(f, "done, with {} outputs", outputs.len()),
            Self::Retry { error, .. } => write!(f, "retry: {error}"),
            Self::DeadLetter { error } => write!(f, "dead letter: {error}"),
            Self::RetryForever { error, .. } => write!(f, "retry forever: {error}"),
            Self::Skip { error } => write!(f, "skip: {error}"),
            Self::Hold { hold, error } => write!(f, "hold for {}: {error}", hold.dependency()),
            Self::Stop { error } => write!(f, "stop: {error}"),
        }
    }
}

/// The return types of a handler: `()`, [`Outcome`], or a `Result` of them; in a
/// [`Pipeline`](super::Pipeline) also [`Outputs`]. Sealed.
///
/// An error is retried, or what [`Processor::on_failure`](crate::Processor::on_failure) says, unless it is
/// one of these or was caused by one: an [`Error`] of the kind [`ErrorKind::Event`], as an event that can't
/// be decoded now never can, so that its record becomes a dead letter at once; and [`Unavailable`],
/// with which the record waits for a dependency.
///
/// ```
/// use ailurus::processor::{IntoOutcome, Outcome};
///
/// assert!(matches!(Ok::<_, std::io::Error>(()).into_outcome(), Outcome::Done));
/// assert!(matches!(Err::<(), _>("no").into_outcome(), Outcome::Retry { after: None, .. }));
/// ```
#[diagnostic::on_unimplemented(
    message = "a handler can't return `{Self}`",
    note = "it returns `()`, `Result<(), E>` with an error that can be boxed, or `Outcome`; in a pipeline also `Outputs`"
)]
pub trait IntoOutcome: sealed::IntoOutcome {
    /// Returns the outcome.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Done
    }
}

impl IntoOutcome for Outputs {
    fn into_outcome(self) -> Outcome {
        if self.is_empty() { Outcome::Done } else { Outcome::Send(self) }
    }
}

impl<T: IntoOutcome, E: Into<BoxError>> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        match self {
            Ok(value) => value.into_outcome(),
            Err(e) => {
                let error = e.into();
                if let Some(hold) = find_cause::<Unavailable>(&*error).map(|e| e.hold().clone()) {
                    Outcome::Hold { hold, error }
                } else if is_undecodable(&*error) {
                    Outcome::DeadLetter { error }
                } else {
                    Outcome::Retry { after: None, error }
                }
            }
        }
    }
}

fn is_undecodable(error: &(dyn std::error::Error + 'static)) -> bool {
    let chain = std::iter::successors(Some(error), |e| e.source());
    chain.filter_map(|e| e.downcast_ref::<Error>()).any(|e| e.kind() == ErrorKind::Event)
}

/// The arguments of a handler: the [`Message`] itself, a typed event ([`Envelope`]), an event of
/// any type ([`AnyEvent`]), or a type of the application that implements this.
///
/// ```
/// use ailurus::{ErrorKind, Message, Result, processor::FromMessage};
///
/// struct Line(String);
///
/// impl FromMessage for Line {
///     fn read(message: Message) -> Result<Self> {
///         let text = std::str::from_utf8(message.value.as_deref().unwrap_or_default());
///         Ok(Self(text.map_err(|e| ailurus::Error::new(ErrorKind::Event, e.to_string()))?.to_owned()))
///     }
/// }
///
/// async fn handle(Line(text): Line) {
///     println!("{text}");
/// }
/// # fn check(p: ailurus::Processor) { drop(p.subscribe(["lines"], handle)); }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an argument of a handler",
    note = "arguments are `Message`, `Envelope<E>` and `AnyEvent` of events, `Json<T>` of other records, and types that implement `FromMessage`"
)]
pub trait FromMessage: Sized {
    /// Decodes the argument.
    ///
    /// # Errors
    /// What is wrong with the record, which becomes a dead letter at once: its bytes will not
    /// change.
    fn read(message: Message) -> Result<Self>;
}

impl FromMessage for Message {
    fn read(message: Message) -> Result<Self> {
        Ok(message)
    }
}

/// A value decoded from JSON, as the argument of a handler: of records that are no events of this
/// library. A record that can't be decoded becomes a dead letter at once.
///
/// ```
/// use ailurus::processor::Json;
///
/// #[derive(serde::Deserialize)]
/// struct Order {
///     id: String,
/// }
///
/// async fn handle(Json(order): Json<Order>) {
///     println!("{}", order.id);
/// }
/// # fn check(p: ailurus::Processor) { drop(p.subscribe(["orders"], handle)); }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromMessage for Json<T> {
    fn read(message: Message) -> Result<Self> {
        message.json().map(Self)
    }
}

impl<E: EventType + DeserializeOwned> FromMessage for Envelope<E> {
    fn read(message: Message) -> Result<Self> {
        Self::from_message(&message)
    }
}

impl FromMessage for AnyEvent {
    fn read(message: Message) -> Result<Self> {
        Self::from_message(&message)
    }
}

/// A handler of single records: an async function or closure, a `tower::Service<Message>`, or a
/// [`Router`](super::Router). Sealed: a handler type of your own is a `tower::Service<Message>`, or
/// a closure that captures it.
///
/// Functions and closures take an argument that implements [`FromMessage`], or that and the
/// [`Message`], and return a type that implements [`IntoOutcome`]. `A` only distinguishes these
/// forms; it is inferred.
///
/// A service is cloned for each attempt, and each clone is polled until it is
/// [ready](Service::poll_ready), so that layers which limit by readiness work; that wait is part of
/// the attempt. An error of `poll_ready` ends the subscription, because tower defines that the
/// service can't be used any more; an error of a call fails the attempt.
///
/// ```
/// use ailurus::{Envelope, Event, Message, Processor, processor::Outcome};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct OrderPaid { order_id: String }
/// # impl Event for OrderPaid {
/// #     const TYPE: &'static str = "order.paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, str>> { None }
/// # }
///
/// async fn raw(message: Message) -> Result<(), std::io::Error> {
///     println!("{} bytes", message.value.map_or(0, |v| v.len()));
///     Ok(())
/// }
///
/// async fn typed(event: Envelope<OrderPaid>, message: Message) -> Outcome {
///     println!("{} is paid, attempt {}", event.data.order_id, message.attempt);
///     Outcome::Done
/// }
///
/// # async fn example(client: &ailurus::Client) -> ailurus::Result<()> {
/// let one = client.processor("sizes").subscribe(["orders"], raw).await?;
/// let two = client.processor("payments").subscribe(["orders"], typed).await?;
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler of records",
    note = "a handler is an async function or closure of one argument that implements `FromMessage` (`Message`, `Envelope<E>`, `Json<T>`, …), or of that and the `Message`; it returns `()`, `Result<(), E>` or `Outcome`",
    note = "the parameters of a closure need their types: `|event: Envelope<OrderPaid>| async move {{ … }}`"
)]
pub trait Handler<A>: sealed::Handler<A> + Send + Sync + 'static {
    /// Starts an attempt. The future is dropped at an await point when the partition is lost or the
    /// attempt timed out.
    fn call(&self, message: Message) -> BoxFuture<'static, Outcome>;
}

impl<H, A, F> Handler<(A,)> for H
where
    H: Fn(A) -> F + Send + Sync + 'static,
    A: FromMessage,
    F: Future + Send + 'static,
    F::Output: IntoOutcome,
{
    fn call(&self, message: Message) -> BoxFuture<'static, Outcome> {
        match A::read(message) {
            Ok(argument) => self(argument).map(IntoOutcome::into_outcome).boxed(),
            Err(e) => undecodable(e),
        }
    }
}

impl<H, A, F> Handler<(A, Message)> for H
where
    H: Fn(A, Message) -> F + Send + Sync + 'static,
    A: FromMessage,
    F: Future + Send + 'static,
    F::Output: IntoOutcome,
{
    fn call(&self, message: Message) -> BoxFuture<'static, Outcome> {
        match A::read(message.clone()) {
            Ok(argument) => self(argument, message).map(IntoOutcome::into_outcome).boxed(),
            Err(e) => undecodable(e),
        }
    }
}

pub(super) fn undecodable(e: Error) -> BoxFuture<'static, Outcome> {
    std::future::ready(Outcome::dead_letter(e)).boxed()
}

/// Marks the implementation of [`Handler`] for services.
#[doc(hidden)]
#[derive(Debug)]
pub enum ByService {}

impl<S> Handler<ByService> for S
where
    S: Service<Message> + Clone + Send + Sync + 'static,
    S::Response: IntoOutcome,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    fn call(&self, message: Message) -> BoxFuture<'static, Outcome> {
        let mut service = self.clone();
        async move {
            if let Err(e) = poll_fn(|cx| service.poll_ready(cx)).await {
                return Outcome::stop(e);
            }
            Service::call(&mut service, message).await.into_outcome()
        }
        .boxed()
    }
}

/// A [`Handler`] of any form.
pub(super) type HandlerFn = dyn Fn(Message) -> BoxFuture<'static, Outcome> + Send + Sync;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use bytes::Bytes;

    use super::*;
    use crate::record::{Headers, Record};
    use crate::timestamp::Timestamp;

    #[test]
    fn decoding_errors_are_not_retried_whatever_wraps_them() {
        let event = || Error::new(ErrorKind::Event, "not JSON");
        for error in [event(), event().context("reading an order"), Error::with_source(ErrorKind::Io, "x", event())] {
            assert!(matches!(Err::<(), _>(error).into_outcome(), Outcome::DeadLetter { .. }));
        }
        let other = Error::new(ErrorKind::Io, "the disk is full");
        assert!(matches!(Err::<(), _>(other).into_outcome(), Outcome::Retry { after: None, .. }));
        assert!(matches!(Ok::<_, Error>(Outcome::stop("x")).into_outcome(), Outcome::Stop { .. }));
    }

    fn message(value: Option<&'static [u8]>) -> Message {
        let record = Record {
            offset: 7,
            timestamp: Timestamp::UNIX_EPOCH,
            key: None,
            value: value.map(Bytes::from_static),
            headers: Headers::default(),
        };
        Message::new("orders".into(), 3, record)
    }

    async fn handle(Json(numbers): Json<Vec<u32>>) -> Result<(), String> {
        if numbers == [1, 2] { Ok(()) } else { Err(format!("{numbers:?}")) }
    }

    #[tokio::test]
    async fn json_is_decoded_and_other_bytes_become_dead_letters() {
        assert!(matches!(Handler::call(&handle, message(Some(b"[1, 2]"))).await, Outcome::Done));
        assert!(matches!(Handler::call(&handle, message(Some(b"[3]"))).await, Outcome::Retry { .. }));
        for bad in [Some(&b"{"[..]), Some(b"[\"1\"]"), None] {
            let Outcome::DeadLetter { error } = Handler::call(&handle, message(bad)).await else { panic!("{bad:?}") };
            assert!(error.to_string().starts_with("orders/3@7: the value is not the expected JSON"), "{error}");
        }
    }

    #[test]
    fn text_is_utf_8() {
        assert_eq!(message(Some("größe".as_bytes())).text().unwrap(), Some("größe"));
        assert_eq!(message(None).text().unwrap(), None);
        assert_eq!(message(Some(b"\xff")).text().unwrap_err().kind(), ErrorKind::Event);
    }
}
