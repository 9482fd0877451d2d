//! Codecs: other formats of events than plain JSON.

use std::future::Future;
use std::pin::Pin;

use super::attributes::Attributes;
use super::{Envelope, EventType, TOMBSTONE, check_type, decode_error};
use crate::consumer::Message;
use crate::error::Result;
use crate::record::Headers;

/// Future of a [`Codec`].
pub type CodecFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Encodes and decodes the values of events, for [`RedpandaService::send_encoded`],
/// [`Router::on_encoded`] and [`Envelope::decode`]. Without a codec, values are plain JSON.
///
/// The crate `ailurus-schema` has codecs for Avro, Protobuf and JSON Schema with a schema registry.
///
/// ```
/// use ailurus::event::{Codec, CodecFuture, EncodedValue};
/// use ailurus::{Error, ErrorKind, Headers};
///
/// /// Numbers as text.
/// struct Text;
///
/// impl Codec<u64> for Text {
///     fn encode<'a>(&'a self, _topic: &'a str, event: &'a u64) -> CodecFuture<'a, EncodedValue> {
///         Box::pin(async move { Ok(EncodedValue::new("text/plain", event.to_string())) })
///     }
///
///     fn decode<'a>(&'a self, _: &'a str, _: &'a Headers, value: &'a [u8]) -> CodecFuture<'a, u64> {
///         Box::pin(async move {
///             let number = std::str::from_utf8(value).unwrap_or_default().parse();
///             number.map_err(|e| Error::with_source(ErrorKind::Event, "the value is no number", e))
///         })
///     }
/// }
/// ```
///
/// [`RedpandaService::send_encoded`]: crate::RedpandaService::send_encoded
/// [`Router::on_encoded`]: crate::Router::on_encoded
/// [`Envelope::decode`]: crate::Envelope::decode
pub trait Codec<T>: Send + Sync {
    /// Encodes an event for a topic.
    ///
    /// # Errors
    /// [`ErrorKind::Event`](crate::ErrorKind::Event) if the event can't be encoded; others if what the
    /// codec needs is unavailable.
    fn encode<'a>(&'a self, topic: &'a str, event: &'a T) -> CodecFuture<'a, EncodedValue>;

    /// Decodes the value of a record of this topic with these headers.
    ///
    /// # Errors
    /// [`ErrorKind::Event`](crate::ErrorKind::Event) if the record can't be decoded: it becomes a dead
    /// letter without another attempt. After other errors it is tried again.
    fn decode<'a>(&'a self, topic: &'a str, headers: &'a Headers, value: &'a [u8]) -> CodecFuture<'a, T>;
}

/// An event as the value of a record.
///
/// ```
/// use ailurus::event::EncodedValue;
///
/// let value = EncodedValue::new("application/avro", [0, 0, 0, 0, 7, 2]);
/// assert_eq!(value.value.len(), 6);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EncodedValue {
    /// Content type, for the header `content-type`.
    pub content_type: &'static str,
    /// Value.
    pub value: Vec<u8>,
    /// Headers that the value is decoded with.
    pub headers: Headers,
}

impl EncodedValue {
    /// Creates a value without headers.
    pub fn new(content_type: &'static str, value: impl Into<Vec<u8>>) -> Self {
        Self { content_type, value: value.into(), headers: Headers::new() }
    }

    /// Sets the headers.
    #[must_use]
    pub fn headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }
}

impl<T: EventType> Envelope<T> {
    /// Decodes a record with a `T` by a codec; its attributes are those of
    /// [`from_message`](Self::from_message).
    ///
    /// # Errors
    /// [`ErrorKind::Event`](crate::ErrorKind::Event) if the record is a tombstone, has another type in its
    /// headers, or if the codec can't decode it; others of the codec.
    ///
    /// ```
    /// use ailurus::event::Codec;
    /// use ailurus::{Envelope, EventType, Message};
    ///
    /// async fn read<T: EventType>(codec: &impl Codec<T>, message: &Message) -> ailurus::Result<T> {
    ///     let event = Envelope::decode(codec, message).await?;
    ///     println!("event {} of {}", event.id, event.source);
    ///     Ok(event.data)
    /// }
    /// ```
    pub async fn decode(codec: &(impl Codec<T> + ?Sized), message: &Message) -> Result<Self> {
        let invalid = |what: String| decode_error(T::TYPE, message, &what);
        let value = message.value.as_deref().ok_or_else(|| invalid(TOMBSTONE.into()))?;
        let attributes = Attributes::read(message).map_err(&invalid)?;
        check_type::<T>(&attributes).map_err(&invalid)?;
        let Message { topic, partition, offset, .. } = message;
        let place = || format!("can't read {} from {topic}/{partition} at offset {offset}", T::TYPE);
        let data = codec.decode(topic, &message.headers, value).await.map_err(|e| e.context(place()))?;
        Ok(attributes.envelope(data))
    }
}
