//! Typed events: the traits [`Event`] and [`EventType`], the [`Envelope`] of an event, and [`AnyEvent`] for events of
//! any type.
//!
//! On the wire an event is a record in the binary mode of the [CloudEvents 1.0 Kafka binding]: the
//! value is the event's plain JSON, which any other client can read, and the attributes of the
//! event are headers:
//!
//! | header           | content                                                      |
//! |------------------|--------------------------------------------------------------|
//! | `ce_specversion` | `1.0`                                                        |
//! | `ce_id`          | the unique id, a UUIDv7, the same in each delivery           |
//! | `ce_type`        | [`Event::TYPE`]                                              |
//! | `ce_source`      | its producer                                                 |
//! | `ce_time`        | its time, RFC 3339 in UTC                                    |
//! | `content-type`   | `application/json`                                           |
//!
//! A [`Codec`] writes other values, with its own content type.
//!
//! Records of producers without CloudEvents, such as a plain KafkaJS producer, are read too:
//!
//! - the **type** is in the header `ce_type`, `eventType` or `type`, in this order; without any of
//!   them it is unknown, and [`Envelope::from_message`] accepts the record for any type. A field of
//!   the JSON is data, unless the application names it as the type:
//!   [`Router::type_field`](crate::Router::type_field), [`event_type_in`];
//! - the **id** is `topic-partition-offset`, the same in each delivery;
//! - the **time** is the record's timestamp, or 1970-01-01T00:00:00Z if it has none;
//! - the **source** is unknown.
//!
//! Decoding errors name type, topic, partition and offset. If a handler returns one, the record
//! becomes a dead letter without another attempt.
//!
//! [`TraceContext`](crate::TraceContext) reads the trace in which an event was created
//! (`ce_traceparent`) or sent (`traceparent`).
//!
//! [CloudEvents 1.0 Kafka binding]: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md

mod attributes;
mod codec;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::consumer::Message;
use crate::error::{Error, ErrorKind, Result};
use crate::record::Headers;
use crate::timestamp::Timestamp;
use attributes::Attributes;
pub use codec::{Codec, CodecFuture, EncodedValue};

/// A type of events that can be read, by programs that do not publish it. A type that implements
/// [`Event`] has it already.
///
/// ```
/// use ailurus::{Envelope, EventType, Router};
///
/// #[derive(serde::Deserialize)]
/// struct OrderPaid {
///     total: f64,
/// }
///
/// impl EventType for OrderPaid {
///     const TYPE: &'static str = "order.paid";
/// }
///
/// let router = Router::new().on(async |event: Envelope<OrderPaid>| println!("{}", event.data.total));
/// # let _ = router;
/// ```
pub trait EventType {
    /// Type of the event, such as `order.created`. Not empty.
    const TYPE: &'static str;
}

impl<E: Event> EventType for E {
    const TYPE: &'static str = E::TYPE;
}

/// A type of events that can be published: as JSON if it implements `Serialize`, else with a [`Codec`]. It can
/// be read if it implements `Deserialize`, or with a codec.
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
pub trait Event: Send + Sync {
    /// Type of the event, such as `order.created`. Not empty.
    const TYPE: &'static str;

    /// Returns the key: events of one key are written to one partition and keep their order. `None`
    /// lets the producer choose the partition, without an order.
    fn key(&self) -> Option<Cow<'_, str>>;
}

/// An event with its CloudEvents attributes.
///
/// [`RedpandaService::send_message`](crate::RedpandaService::send_message) creates it for each
/// event; a handler takes it as an argument, or reads it with [`from_message`](Self::from_message).
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
    /// Unique id: a UUIDv7 if this library created it, `topic-partition-offset` if the producer set
    /// none.
    pub id: String,
    /// Producer of the event; empty if unknown.
    pub source: String,
    /// Time of the event; the record's timestamp if the producer set none.
    pub time: Timestamp,
    /// The event.
    pub data: T,
}

impl<T> Envelope<T> {
    /// Maps the event, for example to an enum of several event types, and keeps the attributes.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Envelope<U> {
        Envelope { id: self.id, source: self.source, time: self.time, data: f(self.data) }
    }
}

impl<T: Event> Envelope<T> {
    /// Creates the envelope of an event that happens now, with a new id.
    /// `source` names the producer as a URI reference: `order-service`, `/shops/berlin`.
    pub fn new(source: impl Into<String>, data: T) -> Self {
        Self { id: new_id(), source: source.into(), time: Timestamp::now(), data }
    }

    /// Returns the headers of the record, in the order of the table in the [module's
    /// documentation](self).
    pub fn headers(&self) -> Headers {
        attributes::headers(&self.id, T::TYPE, &self.source, self.time, JSON)
    }
}

impl<T: Event + Serialize> Envelope<T> {
    /// Returns the value of the record: the event as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Event`] if the event can't be written as JSON (a map with keys that are not
    /// strings).
    pub fn value(&self) -> Result<Vec<u8>> {
        to_json(&self.data)
    }
}

impl<T: EventType + DeserializeOwned> Envelope<T> {
    /// Decodes a record with a `T`, from this library, another CloudEvents producer (binary mode)
    /// or a producer of plain JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Event`] if the record is a tombstone, has another type than
    /// [`T::TYPE`](EventType::TYPE) in its headers, has invalid `ce_` headers, or if its JSON does not
    /// match `T`.
    pub fn from_message(message: &Message) -> Result<Self> {
        let invalid = |what: String| decode_error(T::TYPE, message, &what);
        let value = message.value.as_deref().ok_or_else(|| invalid(TOMBSTONE.into()))?;
        let attributes = Attributes::read(message).map_err(&invalid)?;
        check_type::<T>(&attributes).map_err(&invalid)?;
        let data = serde_json::from_slice(value).map_err(|e| invalid(format!("the JSON does not match: {e}")))?;
        Ok(attributes.envelope(data))
    }
}

impl Attributes<'_> {
    fn envelope<T>(self, data: T) -> Envelope<T> {
        Envelope { id: self.id, source: self.source.unwrap_or_default().to_owned(), time: self.time, data }
    }
}

/// An event of any type, with its data as JSON.
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
    /// Unique id; `topic-partition-offset` if the producer set none.
    pub id: String,
    /// Type, if the producer set one.
    pub event_type: Option<String>,
    /// Producer of the event, if known.
    pub source: Option<String>,
    /// Time of the event; the record's timestamp if the producer set none.
    pub time: Timestamp,
    /// Data.
    pub data: Value,
}

impl AnyEvent {
    /// Decodes a record with JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Event`] if the record is a tombstone, has invalid `ce_` headers, or if its
    /// value is not JSON.
    pub fn from_message(message: &Message) -> Result<Self> {
        let invalid = |what: String| decode_error("an event of any type", message, &what);
        let value = message.value.as_deref().ok_or_else(|| invalid(TOMBSTONE.into()))?;
        let attributes = Attributes::read(message).map_err(&invalid)?;
        let data: Value = serde_json::from_slice(value).map_err(|e| invalid(format!("the value is not JSON: {e}")))?;
        Ok(Self {
            id: attributes.id,
            event_type: attributes.event_type.map(|(found, _)| found.to_owned()),
            source: attributes.source.map(str::to_owned),
            time: attributes.time,
            data,
        })
    }
}

/// Returns the event type in the headers of a record, so that a handler of several types knows
/// which one to decode.
///
/// # Errors
/// [`ErrorKind::Event`] if the `ce_` headers are invalid.
///
/// ```
/// use ailurus::{Message, event};
///
/// async fn route(message: Message) -> ailurus::Result<()> {
///     match event::event_type(&message)? {
///         Some("order.created") => { /* Envelope::<OrderCreated>::from_message(&message)? */ }
///         _ => { /* another type */ }
///     }
///     Ok(())
/// }
/// ```
pub fn event_type(message: &Message) -> Result<Option<&str>> {
    Ok(type_header(message)?.map(|(found, _)| found))
}

/// Returns the source and the id of the event in a record, whatever its value is: together they name
/// the event, the same in each delivery and in each record that its producer sent for it. A record
/// without an id in its headers has its position as the id.
///
/// # Errors
/// [`ErrorKind::Event`] if the `ce_` headers are invalid.
///
/// ```
/// # fn example(message: &ailurus::Message) -> ailurus::Result<()> {
/// let (source, id) = ailurus::event::identity(message)?;
/// println!("{id} of {}", source.unwrap_or("an unknown producer"));
/// # Ok(())
/// # }
/// ```
pub fn identity(message: &Message) -> Result<(Option<&str>, String)> {
    let attributes = Attributes::read(message).map_err(|what| decode_error("the id of an event", message, &what))?;
    Ok((attributes.source, attributes.id))
}

/// Returns the event type in the headers of a record, or else in the first of these fields of the
/// JSON object that is a string. For topics whose producers agree on such a field.
///
/// The value is parsed only if no header has the type.
///
/// # Errors
/// [`ErrorKind::Event`] if the `ce_` headers are invalid.
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

/// An event type, and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundType<'a> {
    pub(crate) name: Cow<'a, str>,
    /// `header ce_type`, `field eventType of the JSON`.
    pub(crate) place: String,
}

pub(crate) fn find_type<'a>(message: &'a Message, fields: &[&str]) -> Result<Option<FoundType<'a>>> {
    if let Some((found, header)) = type_header(message)? {
        return Ok(Some(FoundType { name: found.into(), place: format!("header {header}") }));
    }
    if fields.is_empty() {
        return Ok(None);
    }
    // Invalid JSON has no type here: decoding it as an event reports the error.
    let body: Option<Value> = message.value.as_deref().and_then(|value| serde_json::from_slice(value).ok());
    let text = |name: &&str| body.as_ref()?.get(name)?.as_str().filter(|found| !found.is_empty());
    let found = fields.iter().find_map(|name| Some((text(name)?, name)));
    Ok(found
        .map(|(found, name)| FoundType { name: found.to_owned().into(), place: format!("field {name} of the JSON") }))
}

/// Checks that the headers have no other type.
fn check_type<T: EventType>(attributes: &Attributes<'_>) -> Result<(), String> {
    match attributes.event_type.filter(|(found, _)| *found != T::TYPE) {
        Some((other, header)) => Err(format!("the header {header} has the event type {other:?}")),
        None => Ok(()),
    }
}

fn type_header(message: &Message) -> Result<Option<(&str, &'static str)>> {
    let attributes = Attributes::read(message).map_err(|what| decode_error("an event of any type", message, &what))?;
    Ok(attributes.event_type)
}

/// Adds the headers that keep the identity of an event when its record is copied: see
/// [`DeadLetter::replay_headers`](crate::processor::DeadLetter::replay_headers).
pub(crate) fn preserve_identity(headers: Headers, position: (&str, i32, i64), timestamp: Option<Timestamp>) -> Headers {
    attributes::preserve_identity(headers, position, timestamp)
}

/// An event encoded once, with an id and a time that all its records share.
#[derive(Debug, Clone)]
pub(crate) struct EncodedEvent {
    id: String,
    event_type: &'static str,
    /// Also the timestamp of its records.
    pub(crate) time: Timestamp,
    /// Key of the record.
    pub(crate) key: Option<String>,
    /// Value of the record, and headers of its codec.
    encoded: EncodedValue,
}

impl EncodedEvent {
    /// Encodes an event as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Event`] if it can't be written as JSON, or if the id is empty.
    pub(crate) fn new<E: Event + Serialize>(event: &E, id: Option<String>) -> Result<Self> {
        Self::with(event, id, EncodedValue::new(JSON, to_json(event)?))
    }

    /// Creates an event that happens now, with a new id unless one is given.
    ///
    /// # Errors
    /// [`ErrorKind::Event`] if the id is empty.
    pub(crate) fn with<E: Event>(event: &E, id: Option<String>, encoded: EncodedValue) -> Result<Self> {
        let key = event.key().map(Cow::into_owned);
        let id = id.unwrap_or_else(new_id);
        if id.is_empty() {
            return Err(Error::new(
                ErrorKind::Event,
                format!("the id of {} is empty: set one, or leave it out", E::TYPE),
            ));
        }
        Ok(Self { id, event_type: E::TYPE, time: Timestamp::now(), key, encoded })
    }

    /// Returns the value of the record.
    pub(crate) fn value(&self) -> &[u8] {
        &self.encoded.value
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Returns the headers of the record.
    pub(crate) fn headers(&self, source: &str) -> Headers {
        let own = attributes::headers(&self.id, self.event_type, source, self.time, self.encoded.content_type);
        own.iter().chain(self.encoded.headers.iter()).collect()
    }
}

const JSON: &str = "application/json";

const TOMBSTONE: &str = "the record has no value (a tombstone) and so no event: if the topic may have tombstones, let the handler \
                         skip records without a value";

/// Ids of one process sort by their creation.
fn new_id() -> String {
    Uuid::now_v7().to_string()
}

fn to_json<E: Event + Serialize>(event: &E) -> Result<Vec<u8>> {
    let error = |e| Error::new(ErrorKind::Event, format!("{} can't be written as JSON: {e}", E::TYPE));
    serde_json::to_vec(event).map_err(error)
}

fn decode_error(wanted: &str, message: &Message, what: &str) -> Error {
    let Message { topic, partition, offset, .. } = message;
    Error::new(ErrorKind::Event, format!("can't read {wanted} from {topic}/{partition} at offset {offset}: {what}"))
}
