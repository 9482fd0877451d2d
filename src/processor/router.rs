//! The router, which passes each event type to its own handler.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt, ready};
use serde::de::DeserializeOwned;

use super::handler::{FromMessage, Handler, HandlerFn, IntoOutcome, Outcome, undecodable};
use super::sealed;
use crate::consumer::Message;
use crate::error::{Error, ErrorKind};
use crate::event::{self, Codec, Envelope, EventType, FoundType};

/// The policy of a [`Router`] for records of an event type without a handler, or without a type.
///
/// ```
/// use ailurus::processor::UnknownType;
///
/// assert_eq!(UnknownType::default(), UnknownType::DeadLetter);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum UnknownType {
    /// The record is skipped and counts as handled: for topics of which only some events matter.
    Skip,
    /// The record becomes a dead letter without another attempt: nothing is lost silently.
    #[default]
    DeadLetter,
    /// The subscription ends, and the record is not committed: for groups that must be updated
    /// before their producers.
    Stop,
}

/// The state of a [`Router`], as the first argument of its handlers: see [`Router::with_state`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State<S>(pub S);

impl<S> Deref for State<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.0
    }
}

/// A [`Handler`] with a handler for each event type.
///
/// The type is that of the headers, as [`event_type`](crate::event::event_type) finds it; a field
/// of the JSON decides only if [`type_field`](Self::type_field) names it. The handler of the type
/// gets the decoded event, and the state and the [`Message`] if it has arguments for them. A record
/// that can't be decoded as its type becomes a dead letter without another attempt; so does one of
/// an unknown type, unless [`unknown`](Self::unknown) or [`fallback`](Self::fallback) is set.
///
/// ```no_run
/// use ailurus::processor::{Outcome, Router, UnknownType};
/// use ailurus::{Envelope, Event, Message, RedpandaService};
/// # macro_rules! event { ($name:ident, $type:literal) => {
/// #     #[derive(serde::Serialize, serde::Deserialize)]
/// #     struct $name { id: String }
/// #     impl Event for $name {
/// #         const TYPE: &'static str = $type;
/// #         fn key(&self) -> Option<std::borrow::Cow<'_, str>> { None }
/// #     }
/// # } }
/// # event!(OrderCreated, "order.created");
/// # event!(ProductViewed, "product.viewed");
///
/// async fn created(order: Envelope<OrderCreated>, message: Message) -> Result<(), std::io::Error> {
///     println!("{} on attempt {}", order.data.id, message.attempt);
///     Ok(())
/// }
///
/// # async fn example(service: &RedpandaService) -> ailurus::Result<()> {
/// let router = Router::new()
///     .on(created)
///     .on(|view: Envelope<ProductViewed>| async move { println!("{}", view.data.id) })
///     .unknown(UnknownType::Skip);
/// let subscription = service.subscribe(["events"], "audit", router).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a router does nothing until it is subscribed with"]
#[derive(Default)]
pub struct Router<S = ()> {
    state: S,
    routes: HashMap<&'static str, Box<HandlerFn>>,
    unknown: UnknownType,
    fallback: Option<Box<HandlerFn>>,
    type_fields: Vec<&'static str>,
}

impl Router {
    /// Creates a router without handlers: every type is unknown.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S: Clone + Send + Sync + 'static> Router<S> {
    /// Creates a router whose handlers may take [`State<S>`](State) as their first argument. The
    /// state is cloned for each attempt: an [`Arc`](std::sync::Arc), a connection pool, a channel.
    ///
    /// ```no_run
    /// use std::sync::Arc;
    ///
    /// use ailurus::processor::{Router, State};
    /// use ailurus::{Envelope, Message};
    /// # use ailurus::Event;
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct OrderCreated { id: String }
    /// # impl Event for OrderCreated {
    /// #     const TYPE: &'static str = "order.created";
    /// #     fn key(&self) -> Option<std::borrow::Cow<'_, str>> { None }
    /// # }
    /// # struct Database;
    /// # impl Database { async fn insert(&self, id: &str) -> Result<(), std::io::Error> { drop(id); Ok(()) } }
    ///
    /// async fn created(State(db): State<Arc<Database>>, order: Envelope<OrderCreated>) -> Result<(), std::io::Error> {
    ///     db.insert(&order.data.id).await
    /// }
    ///
    /// async fn other(db: State<Arc<Database>>, message: Message) -> Result<(), std::io::Error> {
    ///     db.insert(&format!("{}/{}@{}", message.topic, message.partition, message.offset)).await
    /// }
    ///
    /// let router = Router::with_state(Arc::new(Database)).on(created).fallback(other);
    /// # let _ = router;
    /// ```
    pub fn with_state(state: S) -> Self {
        let (routes, type_fields) = (HashMap::new(), Vec::new());
        Self { state, routes, unknown: UnknownType::default(), fallback: None, type_fields }
    }

    /// Sets the handler of the event type `E`, and replaces a previous one.
    ///
    /// `handler` takes `Envelope<E>`, with [`State<S>`](State) before and [`Message`] behind it if
    /// it needs them. Closures must declare the types of their arguments.
    pub fn on<E, A>(mut self, handler: impl RouteHandler<S, Envelope<E>, A>) -> Self
    where
        E: EventType + DeserializeOwned,
    {
        let handler = self.bind(handler);
        self.routes.insert(E::TYPE, handler);
        self
    }

    /// Sets a field of the JSON object that has the type of records whose headers have none, for
    /// example of a plain KafkaJS producer that writes `eventType`. Of several fields, the first
    /// one present counts.
    ///
    /// ```
    /// let router = ailurus::Router::new().type_field("eventType");
    /// # let _ = router;
    /// ```
    pub fn type_field(mut self, name: &'static str) -> Self {
        self.type_fields.push(name);
        self
    }

    /// Sets the policy for other types, and for records without a type.
    pub fn unknown(mut self, policy: UnknownType) -> Self {
        self.unknown = policy;
        self.fallback = None;
        self
    }

    /// Sets the handler for records of other types, and without a type. `handler` takes
    /// [`Message`], with [`State<S>`](State) before it if it needs that.
    pub fn fallback<A>(mut self, handler: impl RouteHandler<S, Message, A>) -> Self {
        self.fallback = Some(self.bind(handler));
        self
    }

    /// Sets the handler of the event type `E`, whose records a codec decodes, and replaces a previous one.
    ///
    /// `handler` is as for [`on`](Self::on). A record that the codec can't decode becomes a dead letter
    /// without another attempt, with the id of its schema; if what the codec needs is unavailable, the
    /// record is tried again.
    ///
    /// ```
    /// use ailurus::event::Codec;
    /// use ailurus::{Envelope, EventType, Router};
    ///
    /// fn route<E: EventType + Send + 'static>(codec: impl Codec<E> + 'static) -> Router {
    ///     Router::new().on_encoded(codec, async |event: Envelope<E>| println!("{} happened", event.id))
    /// }
    /// ```
    pub fn on_encoded<E, A>(
        mut self,
        codec: impl Codec<E> + 'static,
        handler: impl RouteHandler<S, Envelope<E>, A>,
    ) -> Self
    where
        E: EventType + Send + 'static,
    {
        let shared = Arc::new((codec, handler, self.state.clone()));
        let handler = move |message: Message| {
            let shared = shared.clone();
            let attempt = async move {
                let (codec, handler, state) = &*shared;
                match Envelope::decode(codec, &message).await {
                    Ok(event) => handler.call(state, message, |_| Ok(event)).await,
                    Err(e) => Err::<(), _>(e).into_outcome(),
                }
            };
            attempt.boxed()
        };
        self.routes.insert(E::TYPE, Box::new(handler));
        self
    }

    fn bind<T: FromMessage, A>(&self, handler: impl RouteHandler<S, T, A>) -> Box<HandlerFn> {
        let state = self.state.clone();
        Box::new(move |message| handler.call(&state, message, T::read))
    }
}

/// A handler of a [`Router`] with the state `S`: an async function or closure of `T`, with
/// [`State<S>`](State) before and [`Message`] behind it if it needs them. Sealed. `A` only
/// distinguishes these forms; it is inferred.
pub trait RouteHandler<S, T, A>: sealed::RouteHandler<S, T, A> + Send + Sync + 'static {
    /// Starts an attempt; `read` decodes the message.
    #[doc(hidden)]
    fn call(
        &self,
        state: &S,
        message: Message,
        read: impl FnOnce(Message) -> Result<T, Error>,
    ) -> BoxFuture<'static, Outcome>;
}

/// Implements [`RouteHandler`] for functions of these arguments.
macro_rules! route_handler {
    (($($argument:ty),+), |$handler:ident, $state:ident, $message:ident, $read:ident| $call:expr) => {
        impl<H: Fn($($argument),+) -> F, S, T, F> sealed::RouteHandler<S, T, ($($argument,)+)> for H {}

        impl<H, S, T, F> RouteHandler<S, T, ($($argument,)+)> for H
        where
            H: Fn($($argument),+) -> F + Send + Sync + 'static,
            S: Clone,
            F: Future + Send + 'static,
            F::Output: IntoOutcome,
        {
            fn call(
                &self,
                $state: &S,
                $message: Message,
                $read: impl FnOnce(Message) -> Result<T, Error>,
            ) -> BoxFuture<'static, Outcome> {
                let $handler = self;
                let called: Result<F, Error> = $call;
                called.map_or_else(undecodable, |outcome| outcome.map(IntoOutcome::into_outcome).boxed())
            }
        }
    };
}

route_handler!((T), |handler, _state, message, read| read(message).map(handler));
route_handler!((T, Message), |handler, _state, message, read| read(message.clone()).map(|t| handler(t, message)));
route_handler!((State<S>, T), |handler, state, message, read| read(message).map(|t| handler(State(state.clone()), t)));
route_handler!((State<S>, T, Message), |handler, state, message, read| {
    read(message.clone()).map(|t| handler(State(state.clone()), t, message))
});

/// Marks the implementation of [`Handler`] for routers.
#[doc(hidden)]
#[derive(Debug)]
pub enum ByRouter {}

impl<S: Send + Sync + 'static> Handler<ByRouter> for Router<S> {
    fn call(&self, message: Message) -> BoxFuture<'static, Outcome> {
        let found = match event::find_type(&message, &self.type_fields) {
            Ok(found) => found,
            Err(e) => return undecodable(e),
        };
        let route = found.as_ref().and_then(|found| self.routes.get(&*found.name));
        match route.or(self.fallback.as_ref()) {
            Some(handler) => handler(message),
            None => ready(self.unknown.outcome(&message, found.as_ref(), &self.type_fields)).boxed(),
        }
    }
}

impl UnknownType {
    fn outcome(self, message: &Message, found: Option<&FoundType<'_>>, fields: &[&str]) -> Outcome {
        let error = || {
            let Message { topic, partition, offset, .. } = message;
            let what = match found {
                Some(FoundType { name, place }) => format!("no handler for the event type {name:?} ({place})"),
                None if fields.is_empty() => {
                    "no header has an event type (ce_type, eventType or type); Router::type_field looks into the JSON"
                        .into()
                }
                None => format!(
                    "neither a header (ce_type, eventType or type) nor a field of the JSON ({}) has an event type",
                    fields.join(", ")
                ),
            };
            Error::new(ErrorKind::Event, format!("can't route {topic}/{partition} at offset {offset}: {what}"))
        };
        match self {
            Self::Skip => Outcome::Done,
            Self::DeadLetter => Outcome::dead_letter(error()),
            Self::Stop => Outcome::stop(error()),
        }
    }
}

impl<S> fmt::Debug for Router<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut types: Vec<_> = self.routes.keys().collect();
        types.sort();
        f.debug_struct("Router")
            .field("types", &types)
            .field("unknown", &self.unknown)
            .field("fallback", &self.fallback.is_some())
            .field("type_fields", &self.type_fields)
            .finish()
    }
}

#[cfg(test)]
mod tests;
