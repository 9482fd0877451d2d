//! Typed events: a trait, an envelope, CloudEvents headers.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::consumer::Message;
use crate::error::Result;
use crate::record::Headers;

/// A fact that happened, with a type of its own.
pub trait Event: Serialize + DeserializeOwned + Send + Sync {
    /// Its type, as consumers route by it: `order.created`.
    const TYPE: &'static str;
    /// What it is about: events of one key keep their order.
    fn key(&self) -> Option<Cow<'_, str>>;
}

/// An event with what CloudEvents says of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Envelope<T> {
    /// Unique; UUIDv7.
    pub id: String,
    /// Who sent it.
    pub source: String,
    /// When it happened.
    pub time: DateTime<Utc>,
    /// The event.
    pub data: T,
}

impl<T: Event> Envelope<T> {
    /// Now, with a new id.
    pub fn new(_source: &str, _data: T) -> Self {
        let _ = Uuid::now_v7();
        todo!()
    }
    /// The headers `ce_*` of CloudEvents 1.0 (Kafka binding, binary mode).
    pub fn headers(&self) -> Headers {
        todo!()
    }
    /// Reads a message.
    pub fn from_message(_message: &Message) -> Result<Self> {
        todo!()
    }
}

/// An event of any type, its data as JSON.
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
    pub data: serde_json::Value,
}

impl AnyEvent {
    /// Reads a message.
    pub fn from_message(_message: &Message) -> Result<Self> {
        todo!()
    }
}
