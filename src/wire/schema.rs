//! Checks the structure of a response before it is decoded.
//!
//! kafka-protocol reserves space for as many elements as an array says it has: 2^31 of them end the process. So each
//! response is walked first, by a table of its fields, and every length is held against the bytes that are there.

#[cfg(test)]
mod sample;

use std::fmt;

#[cfg(test)]
pub(super) use sample::sample;

/// What a field is, and in which versions it is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    kind: Kind,
    since: i16,
    until: i16,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A fixed number of bytes.
    Fixed(usize),
    /// Null is allowed: the decoder tells whether it may be.
    Str,
    /// Bytes with a 4-byte (or compact) length, records among them.
    Bytes,
    /// Elements of these fields; null is allowed.
    Array(&'static [Field]),
    /// These fields, and the tagged ones behind them.
    Struct(&'static [Field]),
    /// These fields behind a byte that tells whether they are there.
    Nullable(&'static [Field]),
    /// A tagged field that the decoder knows: its number and its fields. Those it does not know need no line.
    Tagged(usize, &'static [Field]),
    /// One that is an array of these fields.
    TaggedArray(usize, &'static [Field]),
}

const fn field(kind: Kind) -> Field {
    Field { kind, since: 0, until: i16::MAX }
}
const BOOL: Field = field(Kind::Fixed(1));
const I8: Field = field(Kind::Fixed(1));
const I16: Field = field(Kind::Fixed(2));
const I32: Field = field(Kind::Fixed(4));
const I64: Field = field(Kind::Fixed(8));
const UUID: Field = field(Kind::Fixed(16));
const STR: Field = field(Kind::Str);
const BYTES: Field = field(Kind::Bytes);
const fn array(of: &'static [Field]) -> Field {
    field(Kind::Array(of))
}
const fn nullable(of: &'static [Field]) -> Field {
    field(Kind::Nullable(of))
}
const fn tagged(tag: usize, of: &'static [Field]) -> Field {
    field(Kind::Tagged(tag, of))
}
const fn tagged_array(tag: usize, of: &'static [Field]) -> Field {
    field(Kind::TaggedArray(tag, of))
}
const fn since(version: i16, f: Field) -> Field {
    Field { since: version, ..f }
}
const fn until(version: i16, f: Field) -> Field {
    Field { until: version, ..f }
}
/// An array of plain values, numbers or strings, has no tagged fields behind each.
const I32_ARRAY: Field = array(&[I32]);

#[allow(non_upper_case_globals)]
pub(super) mod table {
    use super::*;

    pub(crate) const Produce: &[Field] = &[
        array(&[
            STR,
            array(&[I32, I16, I64, since(2, I64), since(5, I64), since(8, array(&[I32, STR])), since(8, STR)]),
        ]),
        since(1, I32),
    ];
    pub(crate) const Fetch: &[Field] = &[
        since(1, I32),
        since(7, I16),
        since(7, I32),
        array(&[
            STR,
            array(&[
                I32,
                I16,
                I64,
                since(4, I64),
                since(5, I64),
                since(4, array(&[I64, I64])),
                since(11, I32),
                BYTES,
                tagged(0, &[I32, I64]),
                tagged(1, &[I32, I32]),
                tagged(2, &[I64, I32]),
            ]),
        ]),
    ];
    pub(crate) const ListOffsets: &[Field] =
        &[since(2, I32), array(&[STR, array(&[I32, I16, since(1, I64), since(1, I64), since(4, I32)])])];
    pub(crate) const Metadata: &[Field] = &[
        since(3, I32),
        array(&[I32, STR, I32, since(1, STR)]),
        since(2, STR),
        since(1, I32),
        array(&[
            I16,
            STR,
            since(10, UUID),
            since(1, BOOL),
            array(&[I16, I32, I32, since(7, I32), I32_ARRAY, I32_ARRAY, since(5, I32_ARRAY)]),
            since(8, I32),
        ]),
        since(8, until(10, I32)),
    ];
    pub(crate) const OffsetCommit: &[Field] = &[since(3, I32), array(&[STR, array(&[I32, I16])])];
    pub(crate) const OffsetFetch: &[Field] =
        &[since(3, I32), array(&[STR, array(&[I32, I64, since(5, I32), STR, I16])]), since(2, I16)];
    pub(crate) const FindCoordinator: &[Field] = &[since(1, I32), I16, since(1, STR), I32, STR, I32];
    pub(crate) const JoinGroup: &[Field] =
        &[since(2, I32), I16, I32, since(7, STR), STR, STR, since(9, BOOL), STR, array(&[STR, since(5, STR), BYTES])];
    pub(crate) const SaslHandshake: &[Field] = &[I16, array(&[STR])];
    pub(crate) const SaslAuthenticate: &[Field] = &[I16, STR, BYTES, since(1, I64)];
    pub(crate) const Heartbeat: &[Field] = &[since(1, I32), I16];
    pub(crate) const LeaveGroup: &[Field] = &[since(1, I32), I16, since(3, array(&[STR, STR, I16]))];
    pub(crate) const SyncGroup: &[Field] = &[since(1, I32), I16, since(5, STR), since(5, STR), BYTES];
    pub(crate) const DescribeGroups: &[Field] = &[
        since(1, I32),
        array(&[I16, STR, STR, STR, STR, array(&[STR, since(4, STR), STR, STR, BYTES, BYTES]), since(3, I32)]),
    ];
    pub(crate) const ListGroups: &[Field] = &[since(1, I32), I16, array(&[STR, STR, since(4, STR), since(5, STR)])];
    pub(crate) const CreateTopics: &[Field] = &[
        since(2, I32),
        array(&[
            STR,
            since(7, UUID),
            I16,
            since(1, STR),
            since(5, I32),
            since(5, I16),
            since(5, array(&[STR, STR, BOOL, I8, BOOL])),
            tagged(0, &[I16]),
        ]),
    ];
    pub(crate) const DeleteTopics: &[Field] = &[since(1, I32), array(&[STR, I16, since(5, STR)])];
    pub(crate) const DeleteRecords: &[Field] = &[I32, array(&[STR, array(&[I32, I64, I16])])];
    pub(crate) const DeleteGroups: &[Field] = &[I32, array(&[STR, I16])];
    pub(crate) const DescribeAcls: &[Field] = &[I32, I16, STR, array(&[I8, STR, I8, array(&[STR, STR, I8, I8])])];
    pub(crate) const CreateAcls: &[Field] = &[I32, array(&[I16, STR])];
    pub(crate) const DeleteAcls: &[Field] =
        &[I32, array(&[I16, STR, array(&[I16, STR, I8, STR, I8, STR, STR, I8, I8])])];
    const CONFIG: &[Field] = &[STR, STR, BOOL, I8, BOOL, array(&[STR, STR, I8]), since(3, I8), since(3, STR)];
    pub(crate) const DescribeConfigs: &[Field] = &[I32, array(&[I16, STR, I8, STR, array(CONFIG)])];
    pub(crate) const IncrementalAlterConfigs: &[Field] = &[I32, array(&[I16, STR, I8, STR])];
    const LOGS: Field = array(&[STR, array(&[I32, I64, I64, BOOL])]);
    pub(crate) const DescribeLogDirs: &[Field] =
        &[I32, since(3, I16), array(&[I16, STR, LOGS, since(4, I64), since(4, I64)])];
    pub(crate) const OffsetDelete: &[Field] = &[I16, I32, array(&[STR, array(&[I32, I16])])];
    pub(crate) const CreatePartitions: &[Field] = &[I32, array(&[STR, I16, STR])];
    pub(crate) const OffsetForLeaderEpoch: &[Field] = &[I32, array(&[STR, array(&[I16, I32, I32, I64])])];
    pub(crate) const InitProducerId: &[Field] = &[I32, I16, I64, I16];
    const FEATURES: &[Field] = &[STR, I16, I16];
    pub(crate) const ApiVersions: &[Field] = &[
        I16,
        array(&[I16, I16, I16]),
        since(1, I32),
        tagged_array(0, FEATURES),
        tagged(1, &[I64]),
        tagged_array(2, FEATURES),
        tagged(3, &[BOOL]),
    ];
    pub(crate) const ConsumerGroupHeartbeat: &[Field] =
        &[I32, I16, STR, STR, I32, I32, nullable(&[array(&[UUID, I32_ARRAY])])];
    const ASSIGNMENT: Field = field(Kind::Struct(&[array(&[UUID, STR, I32_ARRAY])]));
    const MEMBER: &[Field] = &[STR, STR, STR, I32, STR, STR, array(&[STR]), STR, ASSIGNMENT, ASSIGNMENT, since(1, I8)];
    pub(crate) const ConsumerGroupDescribe: &[Field] =
        &[I32, array(&[I16, STR, STR, STR, I32, I32, STR, array(MEMBER), I32])];
}
pub(super) use table::*;

/// Where the structure of a response is broken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    at: usize,
    what: &'static str,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {} of the response", self.what, self.at)
    }
}
impl std::error::Error for Broken {}

/// Walks a response; all of it must be used.
pub(super) fn check(body: &[u8], fields: &[Field], version: i16, flexible: bool) -> Result<(), Broken> {
    let mut walk = Walk { body, at: 0, version, flexible };
    walk.structure(fields)?;
    if walk.at < body.len() { Err(walk.broken("unexpected bytes")) } else { Ok(()) }
}

struct Walk<'a> {
    body: &'a [u8],
    at: usize,
    version: i16,
    flexible: bool,
}

impl Walk<'_> {
    fn broken(&self, what: &'static str) -> Broken {
        Broken { at: self.at, what }
    }

    fn skip(&mut self, n: usize) -> Result<(), Broken> {
        if n > self.body.len() - self.at {
            return Err(self.broken("the response ends too early, or a length is too large"));
        }
        self.at += n;
        Ok(())
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let from = self.at;
        self.skip(N)?;
        let mut out = [0; N];
        out.copy_from_slice(&self.body[from..from + N]);
        Ok(out)
    }

    fn varint(&mut self) -> Result<usize, Broken> {
        let mut value = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed::<1>()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                // The decoder drops what is above 32 bits.
                let value = u32::try_from(value).ok().and_then(|v| usize::try_from(v).ok());
                return value.ok_or_else(|| self.broken("a length is too large"));
            }
        }
        Err(self.broken("a length has too many bytes"))
    }

    /// A length as it stands before a string, bytes or an array; null counts as 0.
    fn length(&mut self, short: bool) -> Result<usize, Broken> {
        if self.flexible {
            return Ok(self.varint()?.saturating_sub(1));
        }
        let n = if short { i32::from(i16::from_be_bytes(self.fixed()?)) } else { i32::from_be_bytes(self.fixed()?) };
        if n < -1 { Err(self.broken("a length is negative")) } else { Ok(n.max(0) as usize) }
    }

    fn structure(&mut self, fields: &[Field]) -> Result<(), Broken> {
        self.fields(fields)?;
        if self.flexible {
            for _ in 0..self.varint()? {
                let tag = self.varint()?;
                let size = self.varint()?;
                let from = self.at;
                let known = fields.iter().map(|f| f.kind).find(|kind| match kind {
                    Kind::Tagged(t, _) | Kind::TaggedArray(t, _) => *t == tag,
                    _ => false,
                });
                match known {
                    // The decoder goes by its fields and not by this size: where they differ, it would read lengths that
                    // were not looked at here.
                    Some(Kind::Tagged(_, of)) => self.element(of)?,
                    Some(Kind::TaggedArray(_, of)) => self.array(of)?,
                    _ => self.skip(size)?,
                }
                if self.at - from != size {
                    return Err(self.broken("a tagged field is not as long as it says"));
                }
            }
        }
        Ok(())
    }

    /// A structure, or a plain value, which has no tagged fields behind it.
    fn element(&mut self, of: &[Field]) -> Result<(), Broken> {
        match of {
            [Field { kind: Kind::Fixed(n), .. }] => self.skip(*n),
            [Field { kind: Kind::Str, .. }] => self.fields(of),
            _ => self.structure(of),
        }
    }

    fn array(&mut self, of: &[Field]) -> Result<(), Broken> {
        let n = self.length(false)?;
        // Each element is one byte at least, so a lie ends here and not after 2^31 steps.
        if n > self.body.len() - self.at {
            return Err(self.broken("an array says it is longer than the response"));
        }
        for _ in 0..n {
            self.element(of)?;
        }
        Ok(())
    }

    fn fields(&mut self, fields: &[Field]) -> Result<(), Broken> {
        let version = self.version;
        for f in fields.iter().filter(|f| (f.since..=f.until).contains(&version)) {
            match f.kind {
                Kind::Fixed(n) => self.skip(n)?,
                Kind::Str => {
                    let n = self.length(true)?;
                    self.skip(n)?;
                }
                Kind::Bytes => {
                    let n = self.length(false)?;
                    self.skip(n)?;
                }
                Kind::Array(of) => self.array(of)?,
                Kind::Struct(of) => self.structure(of)?,
                Kind::Nullable(of) => {
                    if i8::from_be_bytes(self.fixed()?) >= 0 {
                        self.structure(of)?;
                    }
                }
                Kind::Tagged(..) | Kind::TaggedArray(..) => {} // behind the others: see `structure`
            }
        }
        Ok(())
    }
}
