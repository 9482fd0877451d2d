//! Sends each event type to its own handler.

use std::collections::HashMap;
use std::fmt;

use futures_util::future::{BoxFuture, FutureExt, ready};

use super::handler::{Call, Handler, Outcome};
use crate::consumer::Message;
use crate::error::{Error, ErrorKind};
use crate::event::{self, Envelope, Event, FoundType};

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
/// The type is that of the headers, as [`event_type`](crate::event::event_type) finds it; a field of the JSON says it only where
/// [`type_field`](Self::type_field) names that field. The handler of that type gets the decoded event and the [`Message`] it came in. A record that can't be decoded as what it says it is becomes a dead
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
    type_fields: Vec<&'static str>,
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

    /// Takes this field of the JSON object for the type of records whose headers say none, such as those of a plain KafkaJS
    /// producer that writes `eventType`. Of several, the first that is there counts.
    ///
    /// ```
    /// let router = ailurus::Router::new().type_field("eventType");
    /// # let _ = router;
    /// ```
    #[must_use]
    pub fn type_field(mut self, name: &'static str) -> Self {
        self.type_fields.push(name);
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
        let found = match event::find_type(&message, &self.type_fields) {
            Ok(found) => found,
            Err(e) => return ready(Outcome::dead_letter(e)).boxed(),
        };
        let of_type = found.as_ref().and_then(|found| self.routes.get(&*found.name));
        match of_type.or(self.fallback.as_ref()) {
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
                Some(FoundType { name, place }) => {
                    format!("no handler is there for events of type {name:?}, which its {place} says")
                }
                None if fields.is_empty() => {
                    "no header says its event type (ce_type, eventType or type); fields of the JSON are looked at only with Router::type_field".into()
                }
                None => format!(
                    "neither a header (ce_type, eventType or type) nor a field of its JSON ({}) says its event type",
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

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut types: Vec<_> = self.routes.keys().collect();
        types.sort();
        let fallback = self.fallback.is_some();
        f.debug_struct("Router")
            .field("types", &types)
            .field("unknown", &self.unknown)
            .field("fallback", &fallback)
            .field("type_fields", &self.type_fields)
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
        let plain = || message(Headers::new(), Some(r#"{"eventType":"order.created","n":3}"#));
        assert!(said(&router, plain()).await.contains("no header says its event type"));
        let router = router.type_field("kind").type_field("eventType");
        assert_eq!(said(&router, plain()).await, "done");
        assert_eq!(*seen.lock().unwrap(), ["created 1 at 7", "viewed 2", "created 3 at 7"]);
        assert_eq!(
            format!("{router:?}"),
            r#"Router { types: ["order.created", "product.viewed"], unknown: DeadLetter, fallback: false, type_fields: ["kind", "eventType"] }"#
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
        let why = "can't route events/1 at offset 7: no handler is there for events of type \"user.left\", which its header ce_type says";
        assert_eq!(said(&router, unknown()).await, format!("a dead letter: {why}"));
        let untyped = said(&router, message(Headers::new(), None)).await;
        assert!(untyped.contains("a dead letter") && untyped.contains("no header says its event type"), "{untyped}");
        let router = router.unknown(UnknownType::Stop);
        assert_eq!(said(&router, unknown()).await, format!("the end: {why}"));
        let router =
            router.fallback(|message: Message| async move { Outcome::retry(format!("at {}", message.offset)) });
        assert_eq!(said(&router, unknown()).await, "to be tried again: at 7");
        assert_eq!(said(&router.unknown(UnknownType::Skip), unknown()).await, "done");
    }

    /// A field is data: what it says decides nothing unless it is asked for.
    #[tokio::test]
    async fn a_field_that_is_called_type_is_data() {
        let (router, seen) = router();
        let body = r#"{"type":"premium","eventType":"user.left","n":4}"#;
        assert_eq!(said(&router, of("order.created", body)).await, "done");
        let router = router.fallback(|message: Message| async move {
            Envelope::<Created>::from_message(&message).map(|event| assert_eq!(event.data.n, 4))
        });
        assert_eq!(said(&router, message(Headers::new(), Some(body))).await, "done");
        assert_eq!(*seen.lock().unwrap(), ["created 4 at 7"]);
        let router = Router::new().type_field("type");
        let why = said(&router, message(Headers::new(), Some(body))).await;
        assert!(why.contains(r#""premium", which its field type of its JSON says"#), "{why}");
        let router = Router::new().type_field("kind");
        let why = said(&router, message(Headers::new(), Some(body))).await;
        assert!(why.contains("nor a field of its JSON (kind) says its event type"), "{why}");
    }

    #[tokio::test]
    async fn the_last_handler_of_a_type_counts() {
        let (router, seen) = router();
        let router = router.on::<Created>(|_: Envelope<Created>, _: Message| async { Outcome::dead_letter("mine") });
        assert_eq!(said(&router, of("order.created", r#"{"n":1}"#)).await, "a dead letter: mine");
        assert!(seen.lock().unwrap().is_empty());
    }
}
