//! Avro schemas: what the registry must know of them to compare them.

mod compatibility;
mod default_value;
mod parse;
mod print;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub(super) use compatibility::incompatibilities;
pub(super) use parse::parse;
pub(super) use print::sorted;

/// A parsed schema, with every named type that it or a referenced schema defines.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AvroSchema {
    root: Node,
    /// Definitions by full name.
    named: BTreeMap<String, Named>,
}

/// A type where it is used.
#[derive(Clone, Debug, PartialEq)]
struct Node {
    kind: Kind,
    /// Attributes without a meaning of their own here, such as a logical type.
    attributes: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Primitive(Primitive),
    Array(Box<Node>),
    Map(Box<Node>),
    Union(Vec<Node>),
    /// Full name of a definition.
    Named(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Primitive {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
}

impl Primitive {
    const NAMES: [(&str, Self); 8] = [
        ("null", Self::Null),
        ("boolean", Self::Boolean),
        ("int", Self::Int),
        ("long", Self::Long),
        ("float", Self::Float),
        ("double", Self::Double),
        ("bytes", Self::Bytes),
        ("string", Self::String),
    ];

    fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, primitive)| *primitive)
    }

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, primitive)| *primitive == self).map_or("", |(name, _)| name)
    }
}

/// A record, enum or fixed.
#[derive(Clone, Debug, PartialEq)]
struct Named {
    /// Without a leading dot; empty for none.
    namespace: String,
    /// Without the namespace.
    name: String,
    doc: Option<String>,
    /// Full names.
    aliases: Vec<String>,
    attributes: Map<String, Value>,
    body: Body,
}

#[derive(Clone, Debug, PartialEq)]
enum Body {
    Record { fields: Vec<Field>, is_error: bool },
    Enum { symbols: Vec<String>, default: Option<String> },
    Fixed { size: u64 },
}

#[derive(Clone, Debug, PartialEq)]
struct Field {
    name: String,
    doc: Option<String>,
    node: Node,
    default: Option<Value>,
    order: Option<String>,
    aliases: Vec<String>,
    attributes: Map<String, Value>,
}

/// Returns namespace and name of a full name.
fn split_name(full: &str) -> (&str, &str) {
    full.rsplit_once('.').unwrap_or(("", full))
}

/// Returns the full name of a name in a namespace; a name with dots is one already.
fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.trim_start_matches('.').to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}
