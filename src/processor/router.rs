//! Sends each event type to its own handler.

use std::collections::HashMap;
use std::fmt;

use futures_util::future::{BoxFuture, FutureExt, ready};

use super::handler::{Call, Handler, Outcome};
use crate::consumer::Message;
use crate::error::{Error, ErrorKind};
use crate::event::{self, Envelope, Event};

/// What becomes of a record whose event type no handler of a [`Router`] was given for, or that says no type.
///
/// ```
/// use ailurus::processor::UnknownType;
///
/// assert_eq!(UnknownType::default(), UnknownType::DeadLetter);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownType {
    /// It is passed over and counts as handled: for topics with events of which some are of no interest.
    Skip,
    /// It becomes a dead letter without another attempt: nothing is lost silently.
    #[default]
    DeadLetter,
    /// The subscription ends, and the record is not committed: for groups that must be updated before their senders.
    Stop,
}

/// A handler made of handlers, one for each event type.
///
/// The type is that of the headers, else of the JSON, as [`event_type`](crate::event::event_type) finds it. The handler of that type
/// gets the decoded event and the [`Message`] it came in. A record that can't be decoded as what it says it is becomes a dead
/// letter without another attempt; so does one of an unknown type, unless [`unknown`](Self::unknown) or
/// [`fallback`](Self::fallback) says otherwise.
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
///     .on::<OrderCreated>(created)
///     .on::<ProductViewed>(|view: Envelope<ProductViewed>, _: Message| async move { println!("{}", view.data.id) })
///     .unknown(UnknownType::Skip);
/// let subscription = service.subscribe(&["events"], "audit", router).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Router {
    routes: HashMap<&'static str, Box<Call>>,
    unknown: UnknownType,
    fallback: Option<Box<Call>>,
}

impl Router {
    /// Without handlers: every type is unknown.
    pub fn new() -> Self {
        Self::default()
    }

    /// Hands events of this type to `handler`, in place of one given before.
    ///
    /// It takes the event and the message: `async fn(Envelope<E>, Message)`. The parameters of a closure need their types.
    #[must_use]
    pub fn on<E: Event + 'static>(mut self, handler: impl Handler<(Envelope<E>, Message)>) -> Self {
        self.routes.insert(E::TYPE, Box::new(move |message| handler.call(message)));
        self
    }

    /// What becomes of other types, and of records without a type.
    #[must_use]
    pub fn unknown(mut self, policy: UnknownType) -> Self {
        self.unknown = policy;
        self.fallback = None;
        self
    }

    /// Hands records of other types, and those without a type, to `handler`.
    #[must_use]
    pub fn fallback(mut self, handler: impl Handler<(Message,)>) -> Self {
        self.fallback = Some(Box::new(move |message| handler.call(message)));
        self
    }
}

/// Tells a router from a function.
#[doc(hidden)]
#[derive(Debug)]
pub enum ByRouter {}

impl Handler<ByRouter> for Router {
    fn call(&self, message: Message) -> BoxFuture<'static, Outcome> {
        let found = match event::event_type(&message) {
            Ok(found) => found,
            Err(e) => return ready(Outcome::dead_letter(e)).boxed(),
        };
        let route = found.as_deref().and_then(|name| self.routes.get(name)).or(self.fallback.as_ref());
        match route {
            Some(handler) => handler(message),
            None => ready(self.unknown.outcome(&message, found.as_deref())).boxed(),
        }
    }
}

impl UnknownType {
    fn outcome(self, message: &Message, found: Option<&str>) -> Outcome {
        let error = || {
            let Message { topic, partition, offset, .. } = message;
            let what = match found {
                Some(name) => format!("no handler is there for events of type {name:?}"),
                None => "the record says no event type, neither in the header ce_type nor in its JSON".to_owned(),
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

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut types: Vec<_> = self.routes.keys().collect();
        types.sort();
        let fallback = self.fallback.is_some();
        f.debug_struct("Router")
            .field("types", &types)
            .field("unknown", &self.unknown)
            .field("fallback", &fallback)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::borrow::Cow;
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::record::{Headers, Record};

    macro_rules! event {
        ($name:ident, $type:literal) => {
            #[derive(Serialize, Deserialize)]
            struct $name {
                n: u32,
            }
            impl Event for $name {
                const TYPE: &'static str = $type;
                fn key(&self) -> Option<Cow<'_, str>> {
                    None
                }
            }
        };
    }
    event!(Created, "order.created");
    event!(Viewed, "product.viewed");

    fn message(headers: Headers, value: Option<&str>) -> Message {
        let value = value.map(|v| Bytes::copy_from_slice(v.as_bytes()));
        Message::new("events".into(), 1, Record { offset: 7, timestamp: 0, key: None, value, headers })
    }

    fn of(kind: &str, value: &str) -> Message {
        message(Headers::new().with("ce_type", kind), Some(value))
    }

    /// A router, and what its handlers were called with.
    fn router() -> (Router, Arc<Mutex<Vec<String>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (created, viewed) = (Arc::clone(&seen), Arc::clone(&seen));
        let router = Router::new()
            .on::<Created>(move |event: Envelope<Created>, message: Message| {
                created.lock().unwrap().push(format!("created {} at {}", event.data.n, message.offset));
                async {}
            })
            .on::<Viewed>(move |event: Envelope<Viewed>, _: Message| {
                viewed.lock().unwrap().push(format!("viewed {}", event.data.n));
                async { Err::<(), _>("not today") }
            });
        (router, seen)
    }

    async fn said(router: &Router, message: Message) -> String {
        router.call(message).await.to_string()
    }

    #[tokio::test]
    async fn each_type_goes_to_its_handler() {
        let (router, seen) = router();
        assert_eq!(said(&router, of("order.created", r#"{"n":1}"#)).await, "done");
        assert_eq!(said(&router, of("product.viewed", r#"{"n":2}"#)).await, "to be tried again: not today");
        let plain = message(Headers::new(), Some(r#"{"eventType":"order.created","n":3}"#));
        assert_eq!(said(&router, plain).await, "done");
        assert_eq!(*seen.lock().unwrap(), ["created 1 at 7", "viewed 2", "created 3 at 7"]);
        assert_eq!(
            format!("{router:?}"),
            r#"Router { types: ["order.created", "product.viewed"], unknown: DeadLetter, fallback: false }"#
        );
    }

    #[tokio::test]
    async fn what_cannot_be_decoded_is_a_dead_letter_at_once() {
        let (router, seen) = router();
        for bad in [of("order.created", "{"), of("order.created", "{}"), message(damaged(), Some(r#"{"n":1}"#))] {
            let outcome = router.call(bad).await;
            assert!(matches!(outcome, Outcome::DeadLetter { .. }), "{outcome:?}");
        }
        assert!(seen.lock().unwrap().is_empty());
    }

    fn damaged() -> Headers {
        Headers::new().with("ce_type", [0xff])
    }

    #[tokio::test]
    async fn unknown_types_go_where_the_policy_says() {
        let unknown = || of("user.left", "{}");
        let (router, _) = router();
        let why = "can't route events/1 at offset 7: no handler is there for events of type \"user.left\"";
        assert_eq!(said(&router, unknown()).await, format!("a dead letter: {why}"));
        let untyped = said(&router, message(Headers::new(), None)).await;
        assert!(untyped.contains("a dead letter") && untyped.contains("says no event type"), "{untyped}");
        let router = router.unknown(UnknownType::Stop);
        assert_eq!(said(&router, unknown()).await, format!("the end: {why}"));
        let router =
            router.fallback(|message: Message| async move { Outcome::retry(format!("at {}", message.offset)) });
        assert_eq!(said(&router, unknown()).await, "to be tried again: at 7");
        assert_eq!(said(&router.unknown(UnknownType::Skip), unknown()).await, "done");
    }

    #[tokio::test]
    async fn the_last_handler_of_a_type_counts() {
        let (router, seen) = router();
        let router = router.on::<Created>(|_: Envelope<Created>, _: Message| async { Outcome::dead_letter("mine") });
        assert_eq!(said(&router, of("order.created", r#"{"n":1}"#)).await, "a dead letter: mine");
        assert!(seen.lock().unwrap().is_empty());
    }
}
