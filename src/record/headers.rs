//! Headers, kept in the form they have on the wire.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::varint::{Damage, Reader, put_varint, varint_len};

/// The headers of a record, in order, duplicates kept; held in the form they have on the wire.
///
/// Of a fetched record they are a slice of its batch, and nothing is parsed until they are read. A clone is cheap.
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
    /// Pairs of a key and a nullable value, each with its length in front; checked when they came in.
    pub(crate) raw: Bytes,
    pub(crate) count: u32,
}

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one behind those there; a value of `None` is null, which is not the same as empty.
    pub fn push(&mut self, key: &str, value: Option<&[u8]>) {
        self.push_bytes(key.as_bytes(), value);
    }

    fn push_bytes(&mut self, key: &[u8], value: Option<&[u8]>) {
        // Without a copy unless the bytes are shared with another record or clone.
        let raw = std::mem::take(&mut self.raw).try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let mut raw: Vec<u8> = raw.into();
        let value_len = value.map_or(-1, |v| v.len() as i32);
        raw.reserve(varint_len(key.len() as i32) + key.len() + varint_len(value_len) + value.map_or(0, <[u8]>::len));
        put_varint(&mut raw, key.len() as i32);
        raw.extend_from_slice(key);
        put_varint(&mut raw, value_len);
        raw.extend_from_slice(value.unwrap_or_default());
        self.raw = raw.into();
        self.count += 1;
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
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.iter().filter(|h| h.key == key.as_bytes()).filter_map(|h| h.value).last()
    }

    /// [`get`](Self::get), if it is UTF-8.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.get(key)?).ok()
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = Header<'_>> + '_ {
        let mut reader = Reader::new(&self.raw, 0);
        (0..self.count).map_while(move |_| read_header(&mut reader).ok())
    }

    /// Takes `count` headers from the reader, all of them checked.
    #[inline]
    pub(crate) fn skip(reader: &mut Reader<'_>, count: u32) -> Result<(), Damage> {
        for _ in 0..count {
            read_header(reader)?;
        }
        Ok(())
    }
}

#[inline]
fn read_header<'a>(reader: &mut Reader<'a>) -> Result<Header<'a>, Damage> {
    let key = reader.nullable("header key length")?.ok_or(Damage::Length("header key length", -1))?;
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

/// Headers out of other headers, as they are.
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
    fn a_null_value_is_not_an_empty_one_and_get_wants_a_value() {
        let mut headers = Headers::new().with("a", "1").with("b", "");
        headers.push("a", None);
        assert_eq!(headers.get("a"), Some(&b"1"[..]));
        assert_eq!(headers.get("b"), Some(&b""[..]));
        assert_eq!(headers.get("c"), None);
        assert_eq!(format!("{headers:?}"), r#"[a="1", b="", a=null]"#);
    }

    #[test]
    fn pushing_to_a_clone_leaves_the_other_alone() {
        let one = Headers::new().with("a", "1");
        let two = one.clone().with("b", "2");
        assert_eq!((one.len(), two.len()), (1, 2));
        assert_eq!(one, Headers::from_iter([("a", "1")]));
        assert_eq!(two, Headers::from_iter([("a", "1"), ("b", "2")]));
    }
}
