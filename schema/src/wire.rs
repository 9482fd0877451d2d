//! Schema ids in records, as Confluent's serializers write them: before the value, or in a header.
//!
//! - before the value: a zero byte and the id as 4 bytes, big endian; in Protobuf, the
//!   [message index](MessageIndex) follows;
//! - in the header [`VALUE_HEADER`] or [`KEY_HEADER`]: the byte 1 and the 16 bytes of a GUID, or the
//!   same bytes as before a value; then the message index.

use ailurus::Headers;
use uuid::Uuid;

use crate::error::{SchemaError, SchemaErrorKind};

/// Header of the schema id of a value.
pub const VALUE_HEADER: &str = "__value_schema_id";
/// Header of the schema id of a key.
pub const KEY_HEADER: &str = "__key_schema_id";

const MAGIC_ID: u8 = 0;
const MAGIC_GUID: u8 = 1;
/// Maximum depth of a message index: messages in messages.
const MAX_DEPTH: usize = 32;

/// Name of a schema in a record.
///
/// ```
/// use ailurus_schema::wire::SchemaId;
///
/// assert_eq!(SchemaId::Id(7).to_string(), "7");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaId {
    /// Id of a registry, or of a context of it.
    Id(u32),
    /// GUID, the same in each registry.
    Guid(Uuid),
}

impl std::fmt::Display for SchemaId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Guid(guid) => guid.fmt(f),
        }
    }
}

impl SchemaId {
    /// Appends the id in its wire format.
    ///
    /// ```
    /// use ailurus_schema::wire::SchemaId;
    ///
    /// let mut value = Vec::new();
    /// SchemaId::Id(258).write(&mut value);
    /// assert_eq!(value, [0, 0, 0, 1, 2]);
    /// ```
    pub fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Id(id) => {
                out.push(MAGIC_ID);
                out.extend_from_slice(&id.to_be_bytes());
            }
            Self::Guid(guid) => {
                out.push(MAGIC_GUID);
                out.extend_from_slice(guid.as_bytes());
            }
        }
    }

    /// Returns the id at the beginning of `bytes`, and what follows.
    ///
    /// # Errors
    /// [`SchemaErrorKind::Decode`] if there is none.
    ///
    /// ```
    /// use ailurus_schema::wire::SchemaId;
    ///
    /// let (id, rest) = SchemaId::read(&[0, 0, 0, 0, 7, 42])?;
    /// assert_eq!((id, rest), (SchemaId::Id(7), &[42][..]));
    /// assert!(SchemaId::read(b"{}").is_err());
    /// # Ok::<(), ailurus_schema::SchemaError>(())
    /// ```
    pub fn read(bytes: &[u8]) -> Result<(Self, &[u8]), SchemaError> {
        let invalid = |what: String| SchemaError::new(SchemaErrorKind::Decode, what);
        match bytes.split_first() {
            Some((&MAGIC_ID, rest)) => match rest.split_first_chunk::<4>() {
                Some((id, rest)) => Ok((Self::Id(u32::from_be_bytes(*id)), rest)),
                None => Err(invalid(format!("it ends in its schema id: {} of 5 bytes", bytes.len()))),
            },
            Some((&MAGIC_GUID, rest)) => match rest.split_first_chunk::<16>() {
                Some((guid, rest)) => Ok((Self::Guid(Uuid::from_bytes(*guid)), rest)),
                None => Err(invalid(format!("it ends in its schema GUID: {} of 17 bytes", bytes.len()))),
            },
            Some((first, _)) => Err(invalid(format!(
                "it has no schema id: the first byte is {first:#04x} and not 0; was it written by a serializer of a \
                 schema registry?"
            ))),
            None => Err(invalid("it is empty, without a schema id".into())),
        }
    }
}

/// Message of a Protobuf schema: its index among the messages of the file, then those of the nested
/// messages that lead to it.
///
/// ```
/// use ailurus_schema::wire::MessageIndex;
///
/// let mut bytes = Vec::new();
/// MessageIndex::new([0]).write(&mut bytes);
/// assert_eq!(bytes, [0], "the first message has a short form");
/// MessageIndex::new([1, 0]).write(&mut bytes);
/// assert_eq!(bytes, [0, 4, 2, 0]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MessageIndex(Vec<u32>);

impl MessageIndex {
    /// Creates an index; the first message of a file is `[0]`.
    pub fn new(path: impl Into<Vec<u32>>) -> Self {
        Self(path.into())
    }

    /// Returns the indexes.
    pub fn path(&self) -> &[u32] {
        &self.0
    }

    /// Appends the index in its wire format: the number of indexes and each of them, as zig-zag
    /// varints; `[0]` is a single zero.
    pub fn write(&self, out: &mut Vec<u8>) {
        if self.0 == [0] {
            return out.push(0);
        }
        for number in std::iter::once(self.0.len() as u64).chain(self.0.iter().map(|i| u64::from(*i))) {
            // Zig-zag of what is not negative.
            let mut rest = number << 1;
            while rest >= 0x80 {
                out.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
    }

    /// Returns the index at the beginning of `bytes`, and what follows.
    ///
    /// # Errors
    /// [`SchemaErrorKind::Decode`] if there is none.
    pub fn read(bytes: &[u8]) -> Result<(Self, &[u8]), SchemaError> {
        let mut rest = bytes;
        let mut next = || {
            let invalid = || SchemaError::new(SchemaErrorKind::Decode, "its message index is invalid");
            let mut number = 0_u64;
            for shift in (0..35).step_by(7) {
                let (byte, after) = rest.split_first().ok_or_else(invalid)?;
                rest = after;
                number |= u64::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    // An odd one is negative.
                    return if number & 1 == 0 {
                        u32::try_from(number >> 1).map_err(|_| invalid())
                    } else {
                        Err(invalid())
                    };
                }
            }
            Err(invalid())
        };
        let count = next()? as usize;
        if count > MAX_DEPTH {
            let what = format!("its message index is {count} deep, and at most {MAX_DEPTH} are read");
            return Err(SchemaError::new(SchemaErrorKind::Decode, what));
        }
        let path = if count == 0 { vec![0] } else { (0..count).map(|_| next()).collect::<Result<_, _>>()? };
        Ok((Self(path), rest))
    }
}

/// Schema id of a value with what follows it: the message index, if it is Protobuf, and the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Framed<'a> {
    pub(crate) id: SchemaId,
    /// Bytes behind the id in the header; none if it is before the value.
    header: Option<&'a [u8]>,
    payload: &'a [u8],
}

impl<'a> Framed<'a> {
    /// Reads the id of a value, from its header or from before it.
    pub(crate) fn read(headers: &'a Headers, value: &'a [u8]) -> Result<Self, SchemaError> {
        let Some(header) = headers.get(VALUE_HEADER) else {
            let (id, payload) = SchemaId::read(value)?;
            return Ok(Self { id, header: None, payload });
        };
        let (id, rest) = SchemaId::read(header).map_err(|e| e.context(format!("the header {VALUE_HEADER}")))?;
        Ok(Self { id, header: Some(rest), payload: value })
    }

    /// Returns the payload.
    pub(crate) fn payload(self) -> &'a [u8] {
        self.payload
    }

    /// Returns message index and payload.
    pub(crate) fn indexed(self) -> Result<(MessageIndex, &'a [u8]), SchemaError> {
        match self.header {
            None => MessageIndex::read(self.payload),
            Some([]) => Ok((MessageIndex::new([0]), self.payload)),
            Some(header) => Ok((MessageIndex::read(header)?.0, self.payload)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn ids_survive_both_places() {
        for id in [SchemaId::Id(0), SchemaId::Id(u32::MAX), SchemaId::Guid(Uuid::from_u128(7))] {
            let mut value = Vec::new();
            id.write(&mut value);
            let headers = Headers::new().with(VALUE_HEADER, &value);
            let framed = Framed::read(&headers, b"\0\0\0\0\x01payload").unwrap();
            assert_eq!((framed.id, framed.payload()), (id, &b"\0\0\0\0\x01payload"[..]));
            value.extend(b"payload");
            let headers = Headers::new();
            let framed = Framed::read(&headers, &value).unwrap();
            assert_eq!((framed.id, framed.payload()), (id, &b"payload"[..]));
        }
    }

    #[test]
    fn message_indexes_survive() {
        for path in [vec![0], vec![1], vec![0, 0], vec![2, 1, 300], vec![u32::MAX]] {
            let (index, mut bytes) = (MessageIndex::new(path), Vec::new());
            index.write(&mut bytes);
            bytes.push(9);
            assert_eq!(MessageIndex::read(&bytes).unwrap(), (index, &[9][..]));
        }
        // The long form of [0], which older serializers wrote.
        assert_eq!(MessageIndex::read(&[2, 0]).unwrap().0, MessageIndex::new([0]));
    }

    #[test]
    fn bad_bytes_are_errors() {
        for bad in [&b""[..], b"\0", b"\0\0\0\0", b"\x01short", b"{\"a\":1}", b"\x02\0\0\0\0"] {
            let error = SchemaId::read(bad).unwrap_err();
            assert_eq!(error.kind(), SchemaErrorKind::Decode, "{bad:?}");
        }
        for bad in
            [&b""[..], b"\x02", b"\x01", b"\x04\x02", b"\xff\xff\xff\xff\xff\xff", b"\xfe\xff\xff\xff\x0f", b"\x02\x01"]
        {
            assert!(MessageIndex::read(bad).is_err(), "{bad:?}");
        }
        let headers = Headers::new().with(VALUE_HEADER, [1, 2]);
        assert!(Framed::read(&headers, b"").unwrap_err().to_string().contains(VALUE_HEADER));
    }
}
