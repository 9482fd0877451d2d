//! A walk over encoded values before they are decoded: its depth and its number of elements are bounded,
//! and it ends where the value ends. The decoder checks none of it: it takes the end of the bytes for
//! nulls, and calls itself for each level.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, UuidSchema};

use crate::codec::decode_error;
use crate::error::SchemaError;

/// Maximum depth of a value: records, arrays and maps in each other. The decoder's frames are large.
const MAX_DEPTH: usize = 64;
/// Maximum number of elements without bytes of their own: nulls, empty records.
const MAX_EMPTY_ELEMENTS: usize = 1 << 16;

/// Checks that `bytes` is one value of the schema, and returns its depth.
pub(super) fn check(schema: &Schema, names: &HashMap<Name, &Schema>, bytes: &[u8]) -> Result<usize, SchemaError> {
    let mut walk = Walk { names, bytes, empty_elements: 0, depth: 0 };
    walk.value(schema, None, 0)?;
    match walk.bytes.len() {
        0 => Ok(walk.depth),
        left => {
            Err(decode_error(format!("{left} bytes are left behind the value: it was written with another schema")))
        }
    }
}

struct Walk<'a> {
    names: &'a HashMap<Name, &'a Schema>,
    bytes: &'a [u8],
    empty_elements: usize,
    /// Depth that was reached.
    depth: usize,
}

impl Walk<'_> {
    fn value(&mut self, schema: &Schema, namespace: Option<&str>, depth: usize) -> Result<(), SchemaError> {
        if depth > MAX_DEPTH {
            return Err(decode_error(format!("the value is more than {MAX_DEPTH} levels deep")));
        }
        self.depth = self.depth.max(depth);
        match schema {
            Schema::Null => Ok(()),
            Schema::Boolean => self.skip(1),
            Schema::Int
            | Schema::Long
            | Schema::Enum(_)
            | Schema::Date
            | Schema::TimeMillis
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => self.number().map(drop),
            Schema::Float => self.skip(4),
            Schema::Double => self.skip(8),
            Schema::Bytes
            | Schema::String
            | Schema::BigDecimal
            | Schema::Uuid(UuidSchema::String | UuidSchema::Bytes) => self.sized(),
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => self.sized(),
                InnerDecimalSchema::Fixed(fixed) => self.skip(fixed.size),
            },
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                self.skip(fixed.size)
            }
            Schema::Array(array) => self.blocks(|walk| walk.value(&array.items, namespace, depth + 1)),
            Schema::Map(map) => self.blocks(|walk| {
                walk.sized()?;
                walk.value(&map.types, namespace, depth + 1)
            }),
            Schema::Union(union) => {
                let branch = self.number()?;
                let variant = usize::try_from(branch).ok().and_then(|branch| union.variants().get(branch));
                let variant = variant.ok_or_else(|| {
                    decode_error(format!(
                        "a union has {} branches, and the value is of branch {branch}",
                        union.variants().len()
                    ))
                })?;
                self.value(variant, namespace, depth)
            }
            Schema::Record(record) => {
                let name = record.name.fully_qualified_name(namespace);
                for field in &record.fields {
                    self.value(&field.schema, name.namespace(), depth + 1)?;
                }
                Ok(())
            }
            Schema::Ref { name } => {
                let name = name.fully_qualified_name(namespace);
                let schema = self.names.get(&*name).copied();
                let schema = schema.ok_or_else(|| decode_error(format!("the schema does not define {name:?}")))?;
                self.value(schema, name.namespace(), depth)
            }
        }
    }

    /// Walks over the blocks of an array or a map.
    fn blocks(&mut self, mut element: impl FnMut(&mut Self) -> Result<(), SchemaError>) -> Result<(), SchemaError> {
        loop {
            let mut count = self.number()?;
            if count < 0 {
                self.number()?; // size in bytes
                count = count.checked_neg().ok_or_else(too_short)?;
            }
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count {
                let before = self.bytes.len();
                element(self)?;
                if self.bytes.len() == before {
                    self.empty_elements += 1;
                    if self.empty_elements > MAX_EMPTY_ELEMENTS {
                        return Err(decode_error(format!(
                            "the value has more than {MAX_EMPTY_ELEMENTS} empty elements"
                        )));
                    }
                }
            }
        }
    }

    fn sized(&mut self) -> Result<(), SchemaError> {
        let size = self.number()?;
        self.skip(usize::try_from(size).map_err(|_| too_short())?)
    }

    fn skip(&mut self, count: usize) -> Result<(), SchemaError> {
        self.bytes = self.bytes.get(count..).ok_or_else(too_short)?;
        Ok(())
    }

    /// Reads a zig-zag varint.
    fn number(&mut self) -> Result<i64, SchemaError> {
        let mut number = 0_u64;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.bytes.split_first().ok_or_else(too_short)?;
            self.bytes = rest;
            number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or_default();
            if byte & 0x80 == 0 {
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err(decode_error("a number has more than 10 bytes"))
    }
}

fn too_short() -> SchemaError {
    decode_error("the value ends early: it is truncated, or was written with another schema")
}
