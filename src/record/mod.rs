//! A record, its headers, and the batch format v2.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// A partition of a topic.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// The headers of a record, in order, duplicates kept; held in the form they have on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    pub(crate) raw: Bytes,
    pub(crate) count: u32,
}

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds one behind those there.
    pub fn push(&mut self, _key: &str, _value: Option<&[u8]>) {
        todo!()
    }
    /// The same, by value.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.push(key, Some(value.as_ref()));
        self
    }
    /// How many.
    pub fn len(&self) -> usize {
        self.count as usize
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// The value of the last header of that name that has one.
    pub fn get(&self, _key: &str) -> Option<&[u8]> {
        todo!()
    }
    /// [`get`](Self::get), if it is UTF-8.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.get(key)?).ok()
    }
    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = Header<'_>> + '_ {
        let it: std::vec::IntoIter<Header<'_>> = todo!();
        #[allow(unreachable_code)]
        it
    }
}

/// One header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    key: &'a [u8],
    value: Option<&'a [u8]>,
}

impl<'a> Header<'a> {
    /// Its name; bytes that are not UTF-8 are replaced.
    pub fn key(&self) -> std::borrow::Cow<'a, str> {
        String::from_utf8_lossy(self.key)
    }
    /// Its name as it is.
    pub fn key_bytes(&self) -> &'a [u8] {
        self.key
    }
    /// Its value; null is `None`.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }
}

/// A record as it was read; its key, value and headers are slices of the batch it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Its place in the partition.
    pub offset: i64,
    /// Milliseconds since 1970, -1 for none.
    pub timestamp: i64,
    /// Null is `None`.
    pub key: Option<Bytes>,
    /// Null (a tombstone) is `None`.
    pub value: Option<Bytes>,
    /// In order.
    pub headers: Headers,
}
