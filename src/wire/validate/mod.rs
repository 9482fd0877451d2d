//! Validates the structure of a response before it is decoded.
//!
//! kafka-protocol reserves memory for as many elements as an array claims: 2^31 of them abort the
//! process. So each response is first walked by a table of its fields, and every length is compared
//! with the bytes that are left.

#[cfg(test)]
mod sample;
mod table;

use std::fmt;

#[cfg(test)]
pub(super) use sample::sample;
pub(super) use table::*;

/// A field, and the versions that have it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    kind: FieldKind,
    since: i16,
    until: i16,
}

#[derive(Debug, Clone, Copy)]
enum FieldKind {
    Fixed(usize),
    /// A string. Null is valid here; the decoder checks where it may be.
    Str,
    /// Bytes with a 4-byte (or compact) length, records among them.
    Bytes,
    /// An array whose elements have these fields. Null is valid.
    Array(&'static [Field]),
    /// These fields, then tagged ones.
    Struct(&'static [Field]),
    /// A struct behind a byte that says whether it is null.
    Nullable(&'static [Field]),
    /// A tagged field that the decoder knows, by tag and fields. Others need no row.
    Tagged(usize, &'static [Field]),
    /// A tagged field that is an array of these fields.
    TaggedArray(usize, &'static [Field]),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidResponse {
    at: usize,
    what: &'static str,
}

impl fmt::Display for InvalidResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {} of the response", self.what, self.at)
    }
}
impl std::error::Error for InvalidResponse {}

/// Validates a response, which must end with its last field.
pub(super) fn check(body: &[u8], fields: &[Field], version: i16, flexible: bool) -> Result<(), InvalidResponse> {
    let mut walker = Walker { body, at: 0, version, flexible };
    walker.structure(fields)?;
    if walker.at < body.len() { Err(walker.invalid("unexpected bytes")) } else { Ok(()) }
}

struct Walker<'a> {
    body: &'a [u8],
    at: usize,
    version: i16,
    flexible: bool,
}

impl Walker<'_> {
    fn invalid(&self, what: &'static str) -> InvalidResponse {
        InvalidResponse { at: self.at, what }
    }

    fn skip(&mut self, n: usize) -> Result<(), InvalidResponse> {
        if n > self.body.len() - self.at {
            return Err(self.invalid("the response ends too early, or a length is too large"));
        }
        self.at += n;
        Ok(())
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], InvalidResponse> {
        let from = self.at;
        self.skip(N)?;
        let mut out = [0; N];
        out.copy_from_slice(&self.body[from..from + N]);
        Ok(out)
    }

    fn varint(&mut self) -> Result<usize, InvalidResponse> {
        let mut value = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed::<1>()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                // The decoder drops what is above 32 bits.
                let value = u32::try_from(value).ok().and_then(|v| usize::try_from(v).ok());
                return value.ok_or_else(|| self.invalid("a length is too large"));
            }
        }
        Err(self.invalid("a length has too many bytes"))
    }

    /// Reads the length of a string, bytes or an array; 0 for null.
    fn length(&mut self, short: bool) -> Result<usize, InvalidResponse> {
        if self.flexible {
            return Ok(self.varint()?.saturating_sub(1));
        }
        let n = if short { i32::from(i16::from_be_bytes(self.fixed()?)) } else { i32::from_be_bytes(self.fixed()?) };
        if n < -1 { Err(self.invalid("a length is negative")) } else { Ok(n.max(0) as usize) }
    }

    fn structure(&mut self, fields: &[Field]) -> Result<(), InvalidResponse> {
        self.fields(fields)?;
        if self.flexible {
            for _ in 0..self.varint()? {
                let tag = self.varint()?;
                let size = self.varint()?;
                let from = self.at;
                let version = self.version;
                let current = fields.iter().filter(|f| (f.since..=f.until).contains(&version));
                let known = current.map(|f| f.kind).find(|kind| match kind {
                    FieldKind::Tagged(t, _) | FieldKind::TaggedArray(t, _) => *t == tag,
                    _ => false,
                });
                match known {
                    // The decoder reads the fields whatever the size is. With a false size it would
                    // read lengths from bytes that were skipped here as the field's, or validated
                    // as something else.
                    Some(FieldKind::Tagged(_, of)) => self.element(of)?,
                    Some(FieldKind::TaggedArray(_, of)) => self.array(of)?,
                    _ => self.skip(size)?,
                }
                if self.at - from != size {
                    return Err(self.invalid("a tagged field is not as long as it says"));
                }
            }
        }
        Ok(())
    }

    /// Walks a structure, or a plain value, which has no tagged fields.
    fn element(&mut self, of: &[Field]) -> Result<(), InvalidResponse> {
        match of {
            [Field { kind: FieldKind::Fixed(n), .. }] => self.skip(*n),
            [Field { kind: FieldKind::Str, .. }] => self.fields(of),
            _ => self.structure(of),
        }
    }

    fn array(&mut self, of: &[Field]) -> Result<(), InvalidResponse> {
        let n = self.length(false)?;
        // Each element takes at least one byte: a false length fails here and not after 2^31 steps.
        if n > self.body.len() - self.at {
            return Err(self.invalid("an array says it is longer than the response"));
        }
        for _ in 0..n {
            self.element(of)?;
        }
        Ok(())
    }

    fn fields(&mut self, fields: &[Field]) -> Result<(), InvalidResponse> {
        let version = self.version;
        for f in fields.iter().filter(|f| (f.since..=f.until).contains(&version)) {
            match f.kind {
                FieldKind::Fixed(n) => self.skip(n)?,
                FieldKind::Str => {
                    let n = self.length(true)?;
                    self.skip(n)?;
                }
                FieldKind::Bytes => {
                    let n = self.length(false)?;
                    self.skip(n)?;
                }
                FieldKind::Array(of) => self.array(of)?,
                FieldKind::Struct(of) => self.structure(of)?,
                FieldKind::Nullable(of) => {
                    if i8::from_be_bytes(self.fixed()?) >= 0 {
                        self.structure(of)?;
                    }
                }
                FieldKind::Tagged(..) | FieldKind::TaggedArray(..) => {} // behind the other fields: see `structure`
            }
        }
        Ok(())
    }
}
