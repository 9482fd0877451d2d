//! Headers, in wire format.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::varint::{DecodeError, Reader, nullable_len, put_nullable};

/// The headers of a record, in order and with duplicates, stored in wire format.
///
/// The headers of a fetched record are a slice of its batch, parsed as they are read. A clone is
/// cheap.
///
/// ```
/// use ailurus::Headers;
///
/// let headers = Headers::new().with("trace", "1").with("retry", "a").with("retry", "b");
/// assert_eq!(headers.len(), 3);
/// assert_eq!(headers.get_str("retry"), Some("b"), "the last one counts");
/// let keys: Vec<_> = headers.iter().map(|h| h.key().into_owned()).collect();
/// assert_eq!(keys, ["trace", "retry", "retry"]);
/// ```
#[derive(Clone, Default)]
pub struct Headers {
    /// Pairs of a key and a nullable value, each behind its length; checked when they were decoded.
    pub(crate) raw: Bytes,
    pub(crate) count: u32,
}

impl Headers {
    /// Creates an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a header; a value of `None` is null, which differs from an empty one.
    pub fn push(&mut self, key: &str, value: Option<&[u8]>) {
        self.push_bytes(key.as_bytes(), value);
    }

    fn push_bytes(&mut self, key: &[u8], value: Option<&[u8]>) {
        // Copies only if the bytes are shared with another record or clone.
        let raw = std::mem::take(&mut self.raw).try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let mut raw: Vec<u8> = raw.into();
        raw.reserve(nullable_len(Some(key)) + nullable_len(value));
        put_nullable(&mut raw, Some(key));
        put_nullable(&mut raw, value);
        self.raw = raw.into();
        self.count += 1;
    }

    /// Appends a header and returns the list.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.push(key, Some(value.as_ref()));
        self
    }

    /// Returns the number of headers.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Returns whether there are no headers.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the value of the last header of that name whose value is not null.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.iter().filter(|h| h.key == key.as_bytes()).filter_map(|h| h.value).last()
    }

    /// Returns the value that [`get`](Self::get) returns, if it is UTF-8.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.get(key)?).ok()
    }

    /// Iterates over the headers, in order.
    pub fn iter(&self) -> impl Iterator<Item = Header<'_>> + '_ {
        let mut reader = Reader::new(&self.raw, 0);
        (0..self.count).map_while(move |_| read_header(&mut reader).ok())
    }

    /// Moves the reader behind `count` headers, and checks them.
    #[inline]
    pub(crate) fn skip(reader: &mut Reader<'_>, count: u32) -> Result<(), DecodeError> {
        for _ in 0..count {
            read_header(reader)?;
        }
        Ok(())
    }
}

#[inline]
fn read_header<'a>(reader: &mut Reader<'a>) -> Result<Header<'a>, DecodeError> {
    let key = reader.nullable("header key length")?.ok_or(DecodeError::Length("header key length", -1))?;
    let value = reader.nullable("header value length")?;
    Ok(Header { key: reader.slice(key), value: value.map(|v| reader.slice(v)) })
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<K: AsRef<str>, V: AsRef<[u8]>> FromIterator<(K, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        pairs.into_iter().fold(Self::new(), |headers, (key, value)| headers.with(key.as_ref(), value))
    }
}

/// Collects headers unchanged, also with null values and keys that are not UTF-8.
impl<'a> FromIterator<Header<'a>> for Headers {
    fn from_iter<I: IntoIterator<Item = Header<'a>>>(all: I) -> Self {
        let mut headers = Self::new();
        all.into_iter().for_each(|h| headers.push_bytes(h.key, h.value));
        headers
    }
}

/// One header of a record.
///
/// ```
/// use ailurus::Headers;
///
/// let mut headers = Headers::new().with("ce_type", "order.created");
/// headers.push("note", None);
/// let all: Vec<_> = headers.iter().collect();
/// assert_eq!((all[0].key().as_ref(), all[0].value()), ("ce_type", Some(&b"order.created"[..])));
/// assert_eq!(all[1].value(), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    key: &'a [u8],
    value: Option<&'a [u8]>,
}

impl<'a> Header<'a> {
    /// Returns its name, with bytes that are not UTF-8 replaced.
    pub fn key(&self) -> std::borrow::Cow<'a, str> {
        String::from_utf8_lossy(self.key)
    }

    /// Returns its name as bytes.
    pub fn key_bytes(&self) -> &'a [u8] {
        self.key
    }

    /// Returns its value; null is `None`.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }
}

impl fmt::Debug for Header<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.key())?;
        match self.value {
            Some(value) => write!(f, "{:?}", String::from_utf8_lossy(value)),
            None => f.write_str("null"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_differs_from_empty_and_get_skips_it() {
        let mut headers = Headers::new().with("a", "1").with("b", "");
        headers.push("a", None);
        assert_eq!(headers.get("a"), Some(&b"1"[..]));
        assert_eq!(headers.get("b"), Some(&b""[..]));
        assert_eq!(headers.get("c"), None);
        assert_eq!(format!("{headers:?}"), r#"[a="1", b="", a=null]"#);
    }

    #[test]
    fn push_to_a_clone_keeps_the_original() {
        let one = Headers::new().with("a", "1");
        let two = one.clone().with("b", "2");
        assert_eq!((one.len(), two.len()), (1, 2));
        assert_eq!(one, Headers::from_iter([("a", "1")]));
        assert_eq!(two, Headers::from_iter([("a", "1"), ("b", "2")]));
    }
}
