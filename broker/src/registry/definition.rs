//! Registered schemas: text, type, references and metadata.

use std::fmt;
use std::sync::Arc;

use prost::Message;
use prost_types::FileDescriptorProto;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::avro::{self, AvroSchema};
use super::json_text;

/// Name of the file of a registered Protobuf schema, in messages.
const PROTO_FILE: &str = "schema.proto";

/// A schema language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SchemaType {
    Avro,
    Json,
    Protobuf,
}

impl SchemaType {
    pub const ALL: [Self; 3] = [Self::Json, Self::Protobuf, Self::Avro];

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|schema_type| schema_type.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Avro => "AVRO",
            Self::Json => "JSON",
            Self::Protobuf => "PROTOBUF",
        }
    }
}

impl fmt::Display for SchemaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A reference to a version of another subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub name: String,
    /// As the client wrote it: without a context it is one of the schema's own context.
    pub subject: String,
    pub version: u32,
}

/// A schema as a client sends it.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub schema_type: SchemaType,
    pub text: String,
    pub references: Vec<Reference>,
    pub metadata: Option<Value>,
    pub rule_set: Option<Value>,
}

/// A schema that was checked.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    pub schema_type: SchemaType,
    /// Text that the API returns.
    pub text: String,
    pub references: Vec<Reference>,
    pub metadata: Option<Value>,
    pub rule_set: Option<Value>,
    /// Equal for schemas that are the same.
    identity: String,
    avro: Option<AvroSchema>,
}

impl Definition {
    /// Checks a schema; `referenced` are those that its references name, and theirs.
    ///
    /// # Errors
    ///
    /// A sentence about what is wrong with the schema.
    pub fn parse(draft: Draft, referenced: &[Arc<Self>], is_normalized: bool) -> Result<Self, String> {
        let Draft { schema_type, text, mut references, metadata, rule_set } = draft;
        if text.trim().is_empty() {
            return Err("Empty schema".to_owned());
        }
        let invalid = |error: String| format!("Invalid schema of type {schema_type}: {error}");
        if is_normalized {
            references.sort_by(|a, b| a.name.cmp(&b.name));
            references.dedup();
        }
        let mut avro = None;
        let (text, canonical) = match schema_type {
            SchemaType::Avro => {
                let known: Vec<_> = referenced.iter().filter_map(|r| r.avro.as_ref()).collect();
                let schema = avro::parse(&text, &known).map_err(invalid)?;
                let canonical = schema.canonical(&known);
                avro = Some(schema);
                (canonical.clone(), canonical)
            }
            SchemaType::Json => {
                let canonical = json_text::check_schema(&text, is_normalized).map_err(invalid)?;
                (canonical.clone(), canonical)
            }
            SchemaType::Protobuf => {
                let canonical = protobuf_identity(&text).map_err(invalid)?;
                (text, canonical)
            }
        };
        let names = references.iter().map(|r| format!("{}\0{}\0{}", r.name, r.subject, r.version));
        let names = names.collect::<Vec<_>>().join("\0");
        let identity = format!("{schema_type}\0{canonical}\0{names}\0{metadata:?}\0{rule_set:?}");
        Ok(Self { schema_type, text, references, metadata, rule_set, identity, avro })
    }

    /// Returns whether both are the same schema.
    pub fn is_same(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// Returns the schema's GUID: the same in every context and registry of this kind.
    pub fn guid(&self) -> Uuid {
        let digest = Sha256::digest(&self.identity);
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// Returns why this schema cannot read what `writer` wrote. Of JSON and Protobuf only the type is compared.
    pub fn incompatibilities(&self, writer: &Self) -> Vec<String> {
        match (&self.avro, &writer.avro) {
            (Some(reader), Some(writer)) => avro::incompatibilities(reader, writer),
            _ if self.schema_type == writer.schema_type => Vec::new(),
            _ => vec![format!(
                "{{errorType:'SCHEMA_TYPE', description:'the schema is of type {}, and the other of type {}'}}",
                self.schema_type, writer.schema_type
            )],
        }
    }
}

/// Returns the same for `.proto` files that differ in spaces and comments only, and for the descriptor of such a file in base64.
fn protobuf_identity(text: &str) -> Result<String, String> {
    use base64::Engine;
    let engine = base64::engine::general_purpose::STANDARD;
    // Python's serializer registers the descriptor.
    let decoded = engine.decode(text.trim()).ok().and_then(|bytes| FileDescriptorProto::decode(&bytes[..]).ok());
    let mut file = match decoded {
        Some(file) => file,
        None => protox_parse::parse(PROTO_FILE, text).map_err(|error| error.to_string())?,
    };
    file.name = None;
    file.source_code_info = None;
    Ok(engine.encode(file.encode_to_vec()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn parse(schema_type: SchemaType, text: &str) -> Result<Definition, String> {
        let text = text.to_owned();
        let draft = Draft { schema_type, text, references: Vec::new(), metadata: None, rule_set: None };
        Definition::parse(draft, &[], false)
    }

    #[test]
    fn protobuf_is_compared_without_spaces_and_comments() {
        let schema = "syntax = \"proto3\"; message Order { string id = 1; }";
        let same = "// an order\nsyntax = \"proto3\";\nmessage Order {\n  string id = 1; // its id\n}\n";
        let other = "syntax = \"proto3\"; message Order { string id = 2; }";
        let [schema, same, other] = [schema, same, other].map(|text| parse(SchemaType::Protobuf, text).expect(text));
        assert!(schema.is_same(&same) && !schema.is_same(&other));
        assert_eq!(schema.guid(), same.guid());
        assert_ne!(schema.guid(), other.guid());
        let error = parse(SchemaType::Protobuf, "message {").expect_err("no name");
        assert!(error.starts_with("Invalid schema of type PROTOBUF"), "{error}");
    }

    #[test]
    fn descriptor_is_the_same_as_its_file() {
        use base64::Engine;
        let text = "syntax = \"proto3\"; message Order { string id = 1; }";
        let file = protox_parse::parse("order.proto", text).expect("a file");
        let encoded = base64::engine::general_purpose::STANDARD.encode(file.encode_to_vec());
        let [file, descriptor] = [text, &encoded].map(|t| parse(SchemaType::Protobuf, t).expect(t));
        assert!(file.is_same(&descriptor));
    }

    #[test]
    fn types_are_not_compatible_with_each_other() {
        let avro = parse(SchemaType::Avro, "\"string\"").expect("avro");
        let json = parse(SchemaType::Json, "{\"type\": \"string\"}").expect("json");
        assert!(avro.incompatibilities(&avro).is_empty() && json.incompatibilities(&json).is_empty());
        assert_eq!(avro.incompatibilities(&json).len(), 1);
        assert!(!avro.is_same(&json));
        assert!(parse(SchemaType::Avro, " ").is_err());
    }
}
