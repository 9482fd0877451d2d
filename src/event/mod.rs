//! Typed events: the [`Event`] trait, the [`Envelope`] around an event, and [`AnyEvent`] for what has no type of its own here.
//!
//! On the wire an event is a record as the [CloudEvents 1.0 Kafka binding] has it in binary mode: the record's value is the
//! event's plain JSON, as any other client reads it, and what is said about the event stands in headers:
//!
//! | header           | holds                                                        |
//! |------------------|--------------------------------------------------------------|
//! | `ce_specversion` | `1.0`                                                        |
//! | `ce_id`          | the event's id: unique, a UUIDv7, the same however often it is delivered |
//! | `ce_type`        | [`Event::TYPE`]                                              |
//! | `ce_source`      | who sent it                                                  |
//! | `ce_time`        | when it happened, RFC 3339 in UTC                            |
//! | `content-type`   | `application/json`                                           |
//!
//! Records of producers that know nothing of CloudEvents (a plain KafkaJS producer) are read too:
//!
//! - the **type** is that of the headers `ce_type`, `eventType` or `type`, in this order; without any of them the type is not known,
//!   and [`Envelope::from_message`] takes the record for what it was asked to read. A field of the JSON is data, unless it is asked
//!   for as the type: [`Router::type_field`](crate::Router::type_field), [`event_type_in`];
//! - the **id** is `topic-partition-offset`, which stays the same when the record is delivered again;
//! - the **time** is the record's timestamp, or 1970-01-01T00:00:00Z if it has none;
//! - the **source** is not known.
//!
//! What can't be read is an error that names the type, the topic, the partition and the offset. A handler that returns it
//! has the record written to the dead letters, without another attempt.
//!
//! The trace in which an event was made (`ce_traceparent`) is found by [`TraceContext`](crate::TraceContext), as the one in which
//! it was sent.
//!
//! [CloudEvents 1.0 Kafka binding]: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md

mod attributes;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use chrono::{DateTime, SubsecRound, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::consumer::Message;
use crate::error::{Error, ErrorKind, Result};
use crate::record::Headers;
use attributes::Attributes;

/// A fact that happened, with a type of its own.
///
/// ```
/// use std::borrow::Cow;
///
/// use ailurus::Event;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// #[serde(rename_all = "camelCase")]
/// struct OrderPaid {
///     order_id: String,
/// }
///
/// impl Event for OrderPaid {
///     const TYPE: &'static str = "order.paid";
///
///     fn key(&self) -> Option<Cow<'_, str>> {
///         Some(Cow::Borrowed(&self.order_id))
///     }
/// }
/// ```
pub trait Event: Serialize + DeserializeOwned + Send + Sync {
    /// Its type, as consumers route by it: `order.created`. Not empty.
    const TYPE: &'static str;

    /// What it is about: events of one key go to one partition and keep their order. `None` lets the producer choose the
    /// partition, without any order.
    fn key(&self) -> Option<Cow<'_, str>>;
}

/// An event with what CloudEvents says of it.
///
/// [`RedpandaService::send_message`](crate::RedpandaService::send_message) makes one around each event it sends; a handler
/// reads it with [`from_message`](Self::from_message).
///
/// ```
/// use ailurus::{Envelope, ErrorKind, Message};
/// # use ailurus::Event;
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct OrderPaid { order_id: String }
/// # impl Event for OrderPaid {
/// #     const TYPE: &'static str = "order.paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, str>> { None }
/// # }
///
/// async fn handle(message: Message) -> ailurus::Result<()> {
///     let event = Envelope::<OrderPaid>::from_message(&message)?;
///     println!("{} was paid at {} (event {})", event.data.order_id, event.time, event.id);
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Envelope<T> {
    /// Unique; a UUIDv7 where this library made it, `topic-partition-offset` where the sender gave none.
    pub id: String,
    /// Who sent it; empty where the sender did not say.
    pub source: String,
    /// When it happened; the record's timestamp where the sender gave no time.
    pub time: DateTime<Utc>,
    /// The event.
    pub data: T,
}

impl<T> Envelope<T> {
    /// The same envelope around something else made of the event, such as an enum of several event types.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Envelope<U> {
        Envelope { id: self.id, source: self.source, time: self.time, data: f(self.data) }
    }
}

impl<T: Event> Envelope<T> {
    /// An event that happened now (to the millisecond), with a new id. `source` names the sender, as a URI reference:
    /// `order-service`, `/shops/berlin`.
    pub fn new(source: impl Into<String>, data: T) -> Self {
        Self { id: new_id(), source: source.into(), time: now(), data }
    }

    /// The headers of the record, in the order of the table in the [module's documentation](self).
    pub fn headers(&self) -> Headers {
        attributes::headers(&self.id, T::TYPE, &self.source, self.time)
    }

    /// The value of the record: the event as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Event`] if the event can't be written as JSON (a map with keys that are not strings).
    pub fn value(&self) -> Result<Vec<u8>> {
        to_json(&self.data)
    }

    /// Reads a record that holds a `T`, from this library, from another CloudEvents sender (binary mode) or from a sender
    /// of plain JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Event`] if the record is a tombstone, says that it is of another type than [`T::TYPE`](Event::TYPE),
    /// has damaged `ce_` headers, or if its JSON does not fit `T`.
    pub fn from_message(message: &Message) -> Result<Self> {
        let refuse = |what: String| refused(T::TYPE, message, &what);
        let value = message.value.as_deref().ok_or_else(|| refuse(TOMBSTONE.into()))?;
        let attributes = Attributes::read(message).map_err(&refuse)?;
        if let Some((other, header)) = attributes.event_type.filter(|(found, _)| *found != T::TYPE) {
            return Err(refuse(format!("the header {header} says that it holds an event of type {other:?}")));
        }
        let data = serde_json::from_slice(value).map_err(|e| refuse(format!("the JSON does not fit: {e}")))?;
        Ok(Self {
            id: attributes.id,
            source: attributes.source.unwrap_or_default().to_owned(),
            time: attributes.time,
            data,
        })
    }
}

/// An event of any type, its data as JSON.
///
/// ```
/// use ailurus::{AnyEvent, Message};
///
/// async fn log(message: Message) -> ailurus::Result<()> {
///     let event = AnyEvent::from_message(&message)?;
///     println!("{} {}: {}", event.time, event.event_type.as_deref().unwrap_or("untyped"), event.data);
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AnyEvent {
    /// Unique; where the sender gave none, made of topic, partition and offset.
    pub id: String,
    /// Its type, if the sender gave one.
    pub event_type: Option<String>,
    /// Who sent it.
    pub source: Option<String>,
    /// When it happened; where the sender gave no time, the record's timestamp.
    pub time: DateTime<Utc>,
    /// The value.
    pub data: Value,
}

impl AnyEvent {
    /// Reads a record that holds JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Event`] if the record is a tombstone, has damaged `ce_` headers, or if its value is not JSON.
    pub fn from_message(message: &Message) -> Result<Self> {
        let refuse = |what: String| refused("an event of any type", message, &what);
        let value = message.value.as_deref().ok_or_else(|| refuse(TOMBSTONE.into()))?;
        let attributes = Attributes::read(message).map_err(&refuse)?;
        let data: Value = serde_json::from_slice(value).map_err(|e| refuse(format!("the value is not JSON: {e}")))?;
        Ok(Self {
            id: attributes.id,
            event_type: attributes.event_type.map(|(found, _)| found.to_owned()),
            source: attributes.source.map(str::to_owned),
            time: attributes.time,
            data,
        })
    }
}

/// The type of the event in a record, if a header says it: what a handler of several types routes by, before it reads the
/// one it found with [`Envelope::from_message`].
///
/// # Errors
/// [`ErrorKind::Event`] if the `ce_` headers are damaged.
///
/// ```
/// use ailurus::{Message, event};
///
/// async fn route(message: Message) -> ailurus::Result<()> {
///     match event::event_type(&message)? {
///         Some("order.created") => { /* Envelope::<OrderCreated>::from_message(&message)? */ }
///         _ => { /* not ours */ }
///     }
///     Ok(())
/// }
/// ```
pub fn event_type(message: &Message) -> Result<Option<&str>> {
    Ok(type_header(message)?.map(|(found, _)| found))
}

/// As [`event_type`]; where no header says the type, the first of these fields of the JSON object that is a string does. For topics
/// whose senders agree on such a field.
///
/// The value is parsed only if no header says the type.
///
/// # Errors
/// [`ErrorKind::Event`] if the `ce_` headers are damaged.
///
/// ```
/// # fn example(message: &ailurus::Message) -> ailurus::Result<()> {
/// let found = ailurus::event::event_type_in(message, &["eventType"])?;
/// # Ok(())
/// # }
/// ```
pub fn event_type_in<'a>(message: &'a Message, fields: &[&str]) -> Result<Option<Cow<'a, str>>> {
    Ok(find_type(message, fields)?.map(|found| found.name))
}

/// A type, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundType<'a> {
    pub(crate) name: Cow<'a, str>,
    /// `header ce_type`, `field eventType of its JSON`.
    pub(crate) place: String,
}

pub(crate) fn find_type<'a>(message: &'a Message, fields: &[&str]) -> Result<Option<FoundType<'a>>> {
    if let Some((found, header)) = type_header(message)? {
        return Ok(Some(FoundType { name: found.into(), place: format!("header {header}") }));
    }
    if fields.is_empty() {
        return Ok(None);
    }
    // Damaged JSON says nothing: reading it as an event tells what is wrong.
    let body: Option<Value> = message.value.as_deref().and_then(|value| serde_json::from_slice(value).ok());
    let text = |name: &&str| body.as_ref()?.get(name)?.as_str().filter(|found| !found.is_empty());
    let found = fields.iter().find_map(|name| Some((text(name)?, name)));
    Ok(found
        .map(|(found, name)| FoundType { name: found.to_owned().into(), place: format!("field {name} of its JSON") }))
}

fn type_header(message: &Message) -> Result<Option<(&str, &'static str)>> {
    let attributes = Attributes::read(message).map_err(|what| refused("an event of any type", message, &what))?;
    Ok(attributes.event_type)
}

/// Headers of a record that is sent again to another place, by which it is read as the same event: see
/// [`DeadLetter::replay_headers`](crate::processor::DeadLetter::replay_headers).
pub(crate) fn name_again(headers: Headers, place: (&str, i32, i64), timestamp: Option<i64>) -> Headers {
    attributes::name_again(headers, place, timestamp)
}

/// An event made ready to send: encoded once, with an id and a time that all its copies share.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    id: String,
    event_type: &'static str,
    time: DateTime<Utc>,
    /// What the partition is chosen by.
    pub(crate) key: Option<String>,
    /// The JSON.
    pub(crate) value: Vec<u8>,
}

impl Encoded {
    /// An event that happens now, with a new id if it has none.
    ///
    /// # Errors
    /// [`ErrorKind::Event`] if it can't be written as JSON, or if the id is empty.
    pub(crate) fn new<E: Event>(event: &E, id: Option<String>) -> Result<Self> {
        let key = event.key().map(Cow::into_owned);
        let id = id.unwrap_or_else(new_id);
        if id.is_empty() {
            return Err(Error::new(
                ErrorKind::Event,
                format!("the id of {} is empty: give one, or leave it out", E::TYPE),
            ));
        }
        Ok(Self { id, event_type: E::TYPE, time: now(), key, value: to_json(event)? })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The headers of the record, sent by `source`.
    pub(crate) fn headers(&self, source: &str) -> Headers {
        attributes::headers(&self.id, self.event_type, source, self.time)
    }

    /// The event's time as the record's timestamp: milliseconds since 1970.
    pub(crate) fn timestamp(&self) -> i64 {
        self.time.timestamp_millis()
    }
}

const TOMBSTONE: &str = "the record has no value (a tombstone), so there is no event in it: let the handler pass over \
                         records without a value if the topic is meant to have them";

/// Ids of one process sort in the order in which they were made.
fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// Cut to the precision of record timestamps and of JavaScript's `Date`, so that an event's time is the same in all of them.
fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(3)
}

fn to_json<E: Event>(event: &E) -> Result<Vec<u8>> {
    let failed = |e| Error::new(ErrorKind::Event, format!("{} can't be written as JSON: {e}", E::TYPE));
    serde_json::to_vec(event).map_err(failed)
}

fn refused(wanted: &str, message: &Message, what: &str) -> Error {
    let Message { topic, partition, offset, .. } = message;
    Error::new(ErrorKind::Event, format!("can't read {wanted} from {topic}/{partition} at offset {offset}: {what}"))
}
