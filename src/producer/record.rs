//! The record that is passed to `send`: each part is borrowed or owned.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

use crate::config::Compression;
use crate::record::Headers;
use crate::timestamp::Timestamp;

/// A record to send. Each part is borrowed or owned, as it was passed: borrowed parts cost no copy
/// before the one into the batch; with owned parts alone it is a `ProducerRecord<'static>`, which
/// can be stored and moved into a task.
///
/// ```
/// use ailurus::{Headers, ProducerRecord};
///
/// // Borrowed: sent while the values are there.
/// let headers = Headers::new().with("ce_type", "order.created");
/// let value = String::from(r#"{"total": 12.5}"#);
/// let record = ProducerRecord::to("orders").key("order-17").value(&value).headers(&headers);
/// assert_eq!(record.key.as_deref(), Some(&b"order-17"[..]));
///
/// // Owned: built here, sent elsewhere.
/// fn order(id: u64) -> ProducerRecord<'static> {
///     ProducerRecord::to("orders").key(format!("order-{id}")).value(vec![1, 2, 3])
/// }
/// let records: Vec<_> = (0..3).map(order).collect();
/// assert_eq!(records[2].key.as_deref(), Some(&b"order-2"[..]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerRecord<'a> {
    /// The destination topic.
    pub topic: Cow<'a, str>,
    /// The partition; `None` to have the producer's
    /// [`partitioner`](crate::ProducerConfig::partitioner) choose it.
    pub partition: Option<i32>,
    /// The key, whose hash chooses the partition, by default with murmur2 as in Kafka's Java client
    /// and KafkaJS: the same key maps to the same partition as long as the topic's number of
    /// partitions stays. A record without key goes to any partition.
    pub key: Option<CowBytes<'a>>,
    /// The value. `None` is a tombstone: it deletes the key in a compacted topic.
    pub value: Option<CowBytes<'a>>,
    /// The headers, in order.
    pub headers: Option<Cow<'a, Headers>>,
    /// The timestamp, 1970 or later; `None` for now.
    pub timestamp: Option<Timestamp>,
    /// A codec other than the producer's for this topic. It closes the partition's open batch if
    /// that has another one.
    pub compression: Option<Compression>,
}

impl<'a> ProducerRecord<'a> {
    // Inlined, as the other setters are: a caller that is optimised for size would move the record
    // once for each of them.
    /// Creates a record with neither key nor value.
    #[inline(always)]
    pub fn to(topic: impl Into<Cow<'a, str>>) -> Self {
        let topic = topic.into();
        Self { topic, partition: None, key: None, value: None, headers: None, timestamp: None, compression: None }
    }

    /// Sets the key: a reference to text or bytes, or a `String`, `Vec<u8>` or `Bytes`.
    #[must_use]
    #[inline(always)]
    pub fn key(mut self, key: impl Into<CowBytes<'a>>) -> Self {
        replace(&mut self.key, key.into());
        self
    }

    /// Sets the value: a reference to text or bytes, or a `String`, `Vec<u8>` or `Bytes`.
    #[must_use]
    #[inline(always)]
    pub fn value(mut self, value: impl Into<CowBytes<'a>>) -> Self {
        replace(&mut self.value, value.into());
        self
    }

    /// Sets the headers: `Headers`, or a reference to them.
    #[must_use]
    #[inline(always)]
    pub fn headers(mut self, headers: impl Into<Cow<'a, Headers>>) -> Self {
        replace(&mut self.headers, headers.into());
        self
    }

    /// Sets the partition.
    #[must_use]
    #[inline(always)]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the timestamp.
    #[must_use]
    #[inline(always)]
    pub fn timestamp(mut self, timestamp: impl Into<Timestamp>) -> Self {
        self.timestamp = Some(timestamp.into());
        self
    }

    /// Sets the codec.
    #[must_use]
    #[inline(always)]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Returns a record that borrows from this one, to send it more than once without a copy.
    ///
    /// ```
    /// use ailurus::ProducerRecord;
    ///
    /// let stored = ProducerRecord::to("orders").value(String::from("created"));
    /// assert_eq!(stored.as_borrowed(), stored);
    /// ```
    pub fn as_borrowed(&self) -> ProducerRecord<'_> {
        ProducerRecord {
            topic: Cow::Borrowed(&self.topic),
            key: self.key.as_ref().map(CowBytes::as_borrowed),
            value: self.value.as_ref().map(CowBytes::as_borrowed),
            headers: self.headers.as_deref().map(Cow::Borrowed),
            ..*self
        }
    }

    /// Copies what is borrowed, so that the record can outlive it.
    ///
    /// ```
    /// use ailurus::ProducerRecord;
    ///
    /// fn store(line: &str) -> ProducerRecord<'static> {
    ///     ProducerRecord::to("lines").value(line).into_owned()
    /// }
    /// assert_eq!(store("a").value.as_deref(), Some(&b"a"[..]));
    /// ```
    pub fn into_owned(self) -> ProducerRecord<'static> {
        ProducerRecord {
            topic: Cow::Owned(self.topic.into_owned()),
            partition: self.partition,
            key: self.key.map(CowBytes::into_owned),
            value: self.value.map(CowBytes::into_owned),
            headers: self.headers.map(|headers| Cow::Owned(headers.into_owned())),
            timestamp: self.timestamp,
            compression: self.compression,
        }
    }
}

/// Sets a field of a record. A new record has nothing there, and the compiler sees that: an
/// assignment would pass the record's address to the destructor of what was there, and so keep the
/// record in memory, to be copied at each move.
#[inline(always)]
fn replace<T>(field: &mut Option<T>, value: T) {
    if let Some(old) = field.replace(value) {
        discard(old);
    }
}

#[cold]
#[inline(never)]
fn discard<T>(old: T) {
    drop(old);
}

/// The bytes of a key or a value, borrowed or owned. Made by `into` from references to text and
/// bytes, from `String`, `Vec<u8>`, `Bytes` and `Cow`, none of which is copied.
///
/// ```
/// use ailurus::producer::CowBytes;
///
/// assert_eq!(CowBytes::from("text"), CowBytes::from(vec![b't', b'e', b'x', b't']));
/// assert_eq!(CowBytes::from("text").len(), 4);
/// ```
#[derive(Clone)]
pub struct CowBytes<'a>(Storage<'a>);

#[derive(Clone)]
enum Storage<'a> {
    Borrowed(&'a [u8]),
    // Apart from `Shared`: to make `Bytes` of a vector that is not full allocates.
    Vec(Vec<u8>),
    Shared(Bytes),
}

impl CowBytes<'_> {
    /// Returns the same bytes, borrowed from these.
    pub fn as_borrowed(&self) -> CowBytes<'_> {
        CowBytes(Storage::Borrowed(self))
    }

    /// Copies the bytes if they are borrowed.
    pub fn into_owned(self) -> CowBytes<'static> {
        CowBytes(match self.0 {
            Storage::Borrowed(bytes) => Storage::Vec(bytes.to_vec()),
            Storage::Vec(bytes) => Storage::Vec(bytes),
            Storage::Shared(bytes) => Storage::Shared(bytes),
        })
    }
}

impl Deref for CowBytes<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Storage::Borrowed(bytes) => bytes,
            Storage::Vec(bytes) => bytes,
            Storage::Shared(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for CowBytes<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for CowBytes<'a> {
    #[inline(always)]
    fn from(bytes: &'a T) -> Self {
        Self(Storage::Borrowed(bytes.as_ref()))
    }
}

impl From<Vec<u8>> for CowBytes<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Storage::Vec(bytes))
    }
}

impl From<String> for CowBytes<'_> {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<Bytes> for CowBytes<'_> {
    fn from(bytes: Bytes) -> Self {
        Self(Storage::Shared(bytes))
    }
}

impl<'a> From<Cow<'a, [u8]>> for CowBytes<'a> {
    fn from(bytes: Cow<'a, [u8]>) -> Self {
        match bytes {
            Cow::Borrowed(bytes) => bytes.into(),
            Cow::Owned(bytes) => bytes.into(),
        }
    }
}

impl<'a> From<Cow<'a, str>> for CowBytes<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        match text {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}

impl PartialEq for CowBytes<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for CowBytes<'_> {}

impl fmt::Debug for CowBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

impl From<Headers> for Cow<'_, Headers> {
    fn from(headers: Headers) -> Self {
        Cow::Owned(headers)
    }
}

impl<'a> From<&'a Headers> for Cow<'a, Headers> {
    fn from(headers: &'a Headers) -> Self {
        Cow::Borrowed(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_setter_counts() {
        let [first, last] = [1_u8, 2].map(|n| Headers::new().with("n", [n]));
        let mut record = ProducerRecord::to("t");
        for (text, headers) in [("first", first), ("last", last.clone())] {
            record = record.key(text.to_owned()).value(text.to_owned()).headers(headers);
        }
        assert_eq!(record, ProducerRecord::to("t").key("last").value("last").headers(&last));
    }
}
