//! What a handler is, what it gets and what it says of a record.

use std::fmt;
use std::future::{Future, poll_fn};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tower_service::Service;

use crate::consumer::Message;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{AnyEvent, Envelope, Event};

/// What a handler's error can be.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What becomes of a record after an attempt.
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
pub enum Outcome {
    /// It is handled.
    Done,
    /// The attempt failed: the record is handed in again, or becomes a dead letter if that was the last attempt.
    Retry {
        /// The wait before the next attempt, at most 24 hours; without it, a wait that doubles with each attempt, with jitter
        /// ([`ProcessorConfig::retry_backoff`](crate::ProcessorConfig::retry_backoff)).
        after: Option<Duration>,
        /// Why.
        error: BoxError,
    },
    /// The attempt failed and no other would succeed: the record becomes a dead letter at once.
    DeadLetter {
        /// Why.
        error: BoxError,
    },
    /// The subscription ends with this error, as a [`shutdown`](crate::Subscription::shutdown) ends it; the record is not
    /// committed.
    Stop {
        /// Why.
        error: BoxError,
    },
}

impl Outcome {
    /// Failed, to be tried again with the usual wait.
    pub fn retry(error: impl Into<BoxError>) -> Self {
        Self::Retry { after: None, error: error.into() }
    }
    /// Failed, to be tried again after a wait.
    pub fn retry_after(after: Duration, error: impl Into<BoxError>) -> Self {
        Self::Retry { after: Some(after), error: error.into() }
    }
    /// Failed for good.
    pub fn dead_letter(error: impl Into<BoxError>) -> Self {
        Self::DeadLetter { error: error.into() }
    }
    /// The subscription can't go on.
    pub fn stop(error: impl Into<BoxError>) -> Self {
        Self::Stop { error: error.into() }
    }

    /// What kind of failure it is, and why.
    pub(super) fn failure(&self) -> Option<(&'static str, &BoxError)> {
        match self {
            Self::Done => None,
            Self::Retry { error, .. } => Some(("retry", error)),
            Self::DeadLetter { error } => Some(("dead_letter", error)),
            Self::Stop { error } => Some(("stop", error)),
        }
    }
}

/// What a handler may return: `()`, an [`Outcome`], or a `Result` of them.
///
/// An error asks for another attempt, unless it is an [`Error`] of the kind [`ErrorKind::Event`], or was caused by one: an event
/// that can't be decoded now will never be, so its record becomes a dead letter at once.
///
/// ```
/// use ailurus::processor::{IntoOutcome, Outcome};
///
/// assert!(matches!(Ok::<_, std::io::Error>(()).into_outcome(), Outcome::Done));
/// assert!(matches!(Err::<(), _>("no").into_outcome(), Outcome::Retry { after: None, .. }));
/// ```
pub trait IntoOutcome {
    /// What it says.
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

impl<T: IntoOutcome, E: Into<BoxError>> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        match self {
            Ok(value) => value.into_outcome(),
            Err(e) => {
                let error = e.into();
                if is_poison(&*error) { Outcome::DeadLetter { error } } else { Outcome::Retry { after: None, error } }
            }
        }
    }
}

fn is_poison(error: &(dyn std::error::Error + 'static)) -> bool {
    let chain = std::iter::successors(Some(error), |e| e.source());
    chain.filter_map(|e| e.downcast_ref::<Error>()).any(|e| e.kind() == ErrorKind::Event)
}

/// What a handler may take: the [`Message`] itself, a typed event ([`Envelope`]), or an event of any type ([`AnyEvent`]).
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
/// # fn check(p: ailurus::Processor) { drop(p.subscribe(&["lines"], "readers", handle)); }
/// ```
pub trait FromMessage: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// Whatever is wrong with the record. The record becomes a dead letter at once: its bytes will not change.
    fn read(message: Message) -> Result<Self>;
}

impl FromMessage for Message {
    fn read(message: Message) -> Result<Self> {
        Ok(message)
    }
}

impl<E: Event> FromMessage for Envelope<E> {
    fn read(message: Message) -> Result<Self> {
        Self::from_message(&message)
    }
}

impl FromMessage for AnyEvent {
    fn read(message: Message) -> Result<Self> {
        Self::from_message(&message)
    }
}

/// Handles a record: any async function of what it [takes](FromMessage), or of that and the [`Message`], that returns
/// [what can be understood](IntoOutcome); or a `tower::Service<Message>`.
///
/// `A` only tells these apart and is never written down.
///
/// A service is cloned for each attempt, and each clone is waited for until it is [ready](Service::poll_ready), so that layers
/// which limit by readiness work; that wait is part of the attempt. An error of `poll_ready` ends the subscription, for tower
/// says of it that the service can't be used any more; an error of a call fails the attempt.
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
/// let one = Processor::new(client).subscribe(&["orders"], "sizes", raw).await?;
/// let two = Processor::new(client).subscribe(&["orders"], "payments", typed).await?;
/// # Ok(())
/// # }
/// ```
pub trait Handler<A>: Send + Sync + 'static {
    /// Begins an attempt. The future is dropped, at an await point, when the record is given up or the attempt has timed out.
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
            Ok(taken) => self(taken).map(IntoOutcome::into_outcome).boxed(),
            Err(e) => refused(e),
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
            Ok(taken) => self(taken, message).map(IntoOutcome::into_outcome).boxed(),
            Err(e) => refused(e),
        }
    }
}

fn refused(e: Error) -> BoxFuture<'static, Outcome> {
    std::future::ready(Outcome::dead_letter(e)).boxed()
}

/// Tells a service from a function.
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

/// A handler, whatever it is made of.
pub(super) type Call = dyn Fn(Message) -> BoxFuture<'static, Outcome> + Send + Sync;

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Retry { error, .. } => write!(f, "to be tried again: {error}"),
            Self::DeadLetter { error } => write!(f, "a dead letter: {error}"),
            Self::Stop { error } => write!(f, "the end: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[test]
    fn an_event_that_cannot_be_decoded_is_not_tried_again_whatever_is_around_its_error() {
        let event = || Error::new(ErrorKind::Event, "not JSON");
        for error in [event(), event().context("reading an order"), Error::with_source(ErrorKind::Io, "x", event())] {
            assert!(matches!(Err::<(), _>(error).into_outcome(), Outcome::DeadLetter { .. }));
        }
        let other = Error::new(ErrorKind::Io, "the disk is full");
        assert!(matches!(Err::<(), _>(other).into_outcome(), Outcome::Retry { after: None, .. }));
        assert!(matches!(Ok::<_, Error>(Outcome::stop("x")).into_outcome(), Outcome::Stop { .. }));
    }
}
