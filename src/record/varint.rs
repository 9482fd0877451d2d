//! Zigzag varints: every length and delta of a record is one.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// The bytes end within this field.
    Truncated(&'static str),
    /// This varint has more bytes than its type allows.
    Overlong(&'static str),
    /// This length or count is not possible here.
    Length(&'static str, i32),
    /// The record's length differs from the sum of its fields.
    RecordLength { expected: usize, actual: usize },
    /// The offset is outside the range of the batch.
    OffsetDelta(i32),
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truncated(field) => write!(f, "the bytes end within its {field}"),
            Self::Overlong(field) => write!(f, "its {field} is not a varint"),
            Self::Length(field, n) => write!(f, "its {field} is {n}, which its bytes do not hold"),
            Self::RecordLength { expected, actual } => {
                write!(f, "its length is {expected} but its fields take {actual} bytes")
            }
            Self::OffsetDelta(delta) => write!(f, "its offset delta is {delta}, outside its batch"),
        }
    }
}

#[inline]
pub(crate) fn varint_len(value: i32) -> usize {
    varlong_len(i64::from(value))
}

#[inline]
pub(crate) fn varlong_len(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[inline]
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, value: i32) {
    put_varlong(out, i64::from(value));
}

#[inline]
pub(crate) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Returns the size of bytes behind their length.
#[inline]
pub(crate) fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |b| varint_len(b.len() as i32) + b.len())
}

/// Appends bytes behind their length; null is the length -1.
#[inline]
pub(crate) fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varint(out, bytes.len() as i32);
            // musl's memcpy is `rep movs`: its start-up alone takes longer than this copy of most
            // records.
            if cfg!(all(target_env = "musl", target_arch = "x86_64")) && bytes.len() <= MAX_INLINE_COPY_BYTES {
                extend_inline(out, bytes);
            } else {
                out.extend_from_slice(bytes);
            }
        }
        None => put_varint(out, -1),
    }
}

/// Length up to which an inline copy is faster than a call of musl's memcpy.
const MAX_INLINE_COPY_BYTES: usize = 1024;

/// Copies in pieces of constant size: by vector registers, without a call.
#[inline]
fn extend_inline(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len());
    let mut wide = bytes.chunks_exact(32);
    for piece in wide.by_ref().filter_map(<[u8]>::first_chunk::<32>) {
        out.extend_from_slice(piece);
    }
    let mut words = wide.remainder().chunks_exact(8);
    for piece in words.by_ref().filter_map(<[u8]>::first_chunk::<8>) {
        out.extend_from_slice(piece);
    }
    for byte in words.remainder() {
        out.push(*byte);
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], pos: usize) -> Self {
        Self { bytes, pos }
    }

    #[inline]
    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    #[inline]
    pub(crate) fn byte(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        let byte = *self.bytes.get(self.pos).ok_or(DecodeError::Truncated(field))?;
        self.pos += 1;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn varint(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        match self.short() {
            Some(value) => Ok(value as i32),
            None => i32::try_from(self.long(field, 5)?).map_err(|_| DecodeError::Overlong(field)),
        }
    }

    #[inline]
    pub(crate) fn varlong(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        match self.short() {
            Some(value) => Ok(value),
            None => self.long(field, 10),
        }
    }

    /// Reads a value of at most three bytes, as nearly all lengths and deltas are.
    #[inline(always)]
    fn short(&mut self) -> Option<i64> {
        let (value, len) = match self.bytes.get(self.pos..)? {
            [a, ..] if *a < 0x80 => (u64::from(*a), 1),
            [a, b, ..] if *b < 0x80 => (u64::from(a & 0x7f) | u64::from(*b) << 7, 2),
            [a, b, c, ..] if *c < 0x80 => (u64::from(a & 0x7f) | u64::from(b & 0x7f) << 7 | u64::from(*c) << 14, 3),
            _ => return None,
        };
        self.pos += len;
        Some(unzigzag(value))
    }

    #[cold]
    fn long(&mut self, field: &'static str, max_bytes: usize) -> Result<i64, DecodeError> {
        let mut value = 0u64;
        for i in 0..max_bytes {
            let byte = self.byte(field)?;
            // The tenth byte of a varlong holds one bit.
            if i == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                return Ok(unzigzag(value));
            }
        }
        Err(DecodeError::Overlong(field))
    }

    /// Reads a length and skips as many bytes; returns their range, or none for a length of -1
    /// (null).
    #[inline]
    pub(crate) fn nullable(&mut self, field: &'static str) -> Result<Option<std::ops::Range<usize>>, DecodeError> {
        let n = self.varint(field)?;
        if n == -1 {
            return Ok(None);
        }
        let len = usize::try_from(n).map_err(|_| DecodeError::Length(field, n))?;
        if len > self.bytes.len() - self.pos {
            return Err(DecodeError::Length(field, n));
        }
        let start = self.pos;
        self.pos += len;
        Ok(Some(start..self.pos))
    }

    pub(crate) fn slice(&self, range: std::ops::Range<usize>) -> &'a [u8] {
        &self.bytes[range]
    }
}

#[inline]
fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limits_round_trip_in_the_computed_size() {
        for value in [0, -1, 1, -64, 63, 64, i64::from(i32::MAX), i64::from(i32::MIN), i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_varlong(&mut out, value);
            assert_eq!(out.len(), varlong_len(value), "{value}");
            assert_eq!(Reader::new(&out, 0).varlong("x").unwrap(), value);
            if let Ok(small) = i32::try_from(value) {
                assert_eq!(Reader::new(&out, 0).varint("x").unwrap(), small);
            } else {
                assert_eq!(Reader::new(&out, 0).varint("x"), Err(DecodeError::Overlong("x")), "{value}");
            }
        }
    }

    #[test]
    fn overlong_and_truncated_varints_are_errors() {
        assert_eq!(Reader::new(&[0xff; 11], 0).varlong("x"), Err(DecodeError::Overlong("x")));
        assert_eq!(Reader::new(&[0xff; 11], 0).varint("x"), Err(DecodeError::Overlong("x")));
        assert_eq!(Reader::new(&[0x80], 0).varint("x"), Err(DecodeError::Truncated("x")));
        assert_eq!(Reader::new(&[], 0).varlong("x"), Err(DecodeError::Truncated("x")));
        assert_eq!(Reader::new(&[4, 0], 0).nullable("x"), Err(DecodeError::Length("x", 2)));
        assert_eq!(Reader::new(&[3], 0).nullable("x"), Err(DecodeError::Length("x", -2)));
        assert_eq!(Reader::new(&[1], 0).nullable("x"), Ok(None));
    }

    #[test]
    fn inline_copies_of_every_length_are_whole() {
        let bytes: Vec<u8> = (0..MAX_INLINE_COPY_BYTES).map(|i| i as u8 ^ (i >> 8) as u8).collect();
        let mut out = vec![7];
        for length in 0..=MAX_INLINE_COPY_BYTES {
            out.truncate(1);
            extend_inline(&mut out, &bytes[..length]);
            assert!(out[0] == 7 && out[1..] == bytes[..length], "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_value_round_trips(value: i64, small: i32) {
            let mut out = Vec::new();
            put_varlong(&mut out, value);
            put_varint(&mut out, small);
            prop_assert_eq!(out.len(), varlong_len(value) + varint_len(small));
            let mut reader = Reader::new(&out, 0);
            prop_assert_eq!(reader.varlong("x").unwrap(), value);
            prop_assert_eq!(reader.varint("x").unwrap(), small);
            prop_assert_eq!(reader.pos(), out.len());
        }
    }
}
