//! Protobuf.

use std::collections::HashMap;

use ailurus::Headers;
use ailurus::event::{Codec, CodecFuture, EncodedValue};
use prost::Name;
use prost_reflect::{DescriptorPool, DynamicMessage, FileDescriptor, MessageDescriptor};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use serde_json::Value;

use super::{Format, SchemaCodec, decode_error, encode_error, invalid_schema, sealed};
use crate::error::SchemaError;
use crate::schema::{ResolvedSchema, SchemaType};
use crate::wire::MessageIndex;

/// Name of the file that the schema is, for its parser.
const FILE: &str = "schema.proto";
/// Maximum depth of braces in a schema: its parser calls itself for each level.
const MAX_NESTING: usize = 64;

/// Encodes and decodes prost's messages. The message of a record is that with the full name of the type
/// ([`prost::Name`]), which the schema must have.
///
/// ```no_run
/// # async fn example(registry: ailurus_schema::SchemaRegistry) -> Result<(), Box<dyn std::error::Error>> {
/// use ailurus_schema::Schema;
/// use ailurus_schema::codec::ProtobufCodec;
///
/// let schema = r#"syntax = "proto3"; package shop; message OrderPaid { string order_id = 1; int64 total = 2; }"#;
/// let codec = ProtobufCodec::new(&registry, Schema::protobuf(schema))?;
/// # let _ = codec;
/// # Ok(())
/// # }
/// ```
pub type ProtobufCodec = SchemaCodec<Protobuf>;

/// The language Protobuf.
#[derive(Debug, Clone, Copy)]
pub enum Protobuf {}

/// A compiled Protobuf schema, with the files that it imports.
///
/// ```
/// use ailurus_schema::codec::ProtobufSchema;
/// use ailurus_schema::{ResolvedSchema, Schema};
///
/// let text = r#"syntax = "proto3"; message Order { string id = 1; }"#;
/// let schema = ProtobufSchema::parse(&ResolvedSchema::from(Schema::protobuf(text)))?;
/// let bytes = schema.encode_json("Order", &serde_json::json!({"id": "o-1"}))?;
/// assert_eq!(schema.decode_json("Order", &bytes)?, serde_json::json!({"id": "o-1"}));
/// # Ok::<(), ailurus_schema::SchemaError>(())
/// ```
#[derive(Debug)]
pub struct ProtobufSchema {
    file: FileDescriptor,
    /// Messages of the file by full name, with their index.
    messages: HashMap<String, (MessageIndex, MessageDescriptor)>,
    first: Option<String>,
}

impl sealed::Sealed for Protobuf {}

impl Format for Protobuf {
    type Parsed = ProtobufSchema;
    const CONTENT_TYPE: &'static str = "application/protobuf";
    const SCHEMA_TYPE: SchemaType = SchemaType::Protobuf;

    fn parse(schema: &ResolvedSchema) -> Result<ProtobufSchema, SchemaError> {
        ProtobufSchema::parse(schema)
    }

    fn record_name(parsed: &ProtobufSchema) -> Option<&str> {
        parsed.first.as_deref()
    }
}

/// The schema and its references, by the paths that imports have for them.
struct Files(HashMap<String, String>);

impl FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.get(name) {
            Some(text) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

impl ProtobufSchema {
    /// Compiles a schema. Google's own imports (`google/protobuf/timestamp.proto`) are built in.
    ///
    /// # Errors
    /// [`SchemaErrorKind::InvalidSchema`](crate::SchemaErrorKind::InvalidSchema).
    pub fn parse(schema: &ResolvedSchema) -> Result<Self, SchemaError> {
        let mut files = HashMap::from([(FILE.to_owned(), schema.schema.text.clone())]);
        files.extend(schema.references.iter().map(|r| (r.name.clone(), r.schema.text.clone())));
        for text in files.values() {
            check_nesting(text)?;
        }
        let mut resolver = ChainFileResolver::new();
        resolver.add(Files(files));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = protox::Compiler::with_file_resolver(resolver);
        compiler.include_imports(true).open_file(FILE).map_err(invalid_schema)?;
        let pool: DescriptorPool = compiler.descriptor_pool();
        let file = pool.get_file_by_name(FILE).ok_or_else(|| invalid_schema("it has no file"))?;
        let mut messages = HashMap::new();
        let mut open: Vec<(Vec<u32>, MessageDescriptor)> = indexed(&[], file.messages());
        while let Some((path, message)) = open.pop() {
            open.extend(indexed(&path, message.child_messages()));
            messages.insert(message.full_name().to_owned(), (MessageIndex::new(path), message));
        }
        let first = file.messages().next().map(|message| message.full_name().to_owned());
        Ok(Self { file, messages, first })
    }

    /// Returns the index and the descriptor of a message by its full name.
    ///
    /// # Errors
    /// [`SchemaErrorKind::Encode`](crate::SchemaErrorKind::Encode) if the schema does not have it.
    fn message(&self, name: &str) -> Result<&(MessageIndex, MessageDescriptor), SchemaError> {
        self.messages.get(name).ok_or_else(|| {
            let mut known: Vec<&str> = self.messages.keys().map(String::as_str).take(10).collect();
            known.sort_unstable();
            encode_error(format!("the schema has no message {name}: it has {}", known.join(", ")))
        })
    }

    /// Returns the full name of the message with this index.
    ///
    /// # Errors
    /// [`SchemaErrorKind::Decode`](crate::SchemaErrorKind::Decode) if the schema does not have it.
    pub fn message_name(&self, index: &MessageIndex) -> Result<String, SchemaError> {
        let unknown = || decode_error(format!("the schema has no message with the index {:?}", index.path()));
        let mut path = index.path().iter().map(|i| *i as usize);
        let mut message = self.file.messages().nth(path.next().ok_or_else(unknown)?).ok_or_else(unknown)?;
        for i in path {
            let child = message.child_messages().nth(i).ok_or_else(unknown)?;
            message = child;
        }
        Ok(message.full_name().to_owned())
    }

    /// Encodes a message from its canonical JSON, without a schema id.
    ///
    /// # Errors
    /// [`SchemaErrorKind::Encode`](crate::SchemaErrorKind::Encode) if the schema has no such message, or the JSON does not match
    /// it.
    pub fn encode_json(&self, message: &str, json: &Value) -> Result<Vec<u8>, SchemaError> {
        use prost::Message;
        let (_, descriptor) = self.message(message)?;
        let dynamic = DynamicMessage::deserialize(descriptor.clone(), json).map_err(encode_error)?;
        Ok(dynamic.encode_to_vec())
    }

    /// Decodes a message to its canonical JSON, without a schema id.
    ///
    /// # Errors
    /// [`SchemaErrorKind::Decode`](crate::SchemaErrorKind::Decode) if the schema has no such message, or the bytes are not one.
    pub fn decode_json(&self, message: &str, bytes: &[u8]) -> Result<Value, SchemaError> {
        let (_, descriptor) = self.message(message).map_err(decode_error)?;
        let dynamic = DynamicMessage::decode(descriptor.clone(), bytes).map_err(decode_error)?;
        serde_json::to_value(&dynamic).map_err(decode_error)
    }
}

/// Returns messages with their paths.
fn indexed(parent: &[u32], messages: impl Iterator<Item = MessageDescriptor>) -> Vec<(Vec<u32>, MessageDescriptor)> {
    let path = |i: u32| parent.iter().copied().chain([i]).collect();
    (0..).zip(messages).map(|(i, message)| (path(i), message)).collect()
}

fn check_nesting(text: &str) -> Result<(), SchemaError> {
    let mut depth = 0_usize;
    for byte in text.bytes() {
        match byte {
            b'{' | b'[' | b'(' | b'<' => depth += 1,
            b'}' | b']' | b')' | b'>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err(invalid_schema(format!("it is nested more than {MAX_NESTING} deep")));
        }
    }
    Ok(())
}

impl<T: prost::Message + Name + Default> Codec<T> for ProtobufCodec {
    fn encode<'a>(&'a self, topic: &'a str, event: &'a T) -> CodecFuture<'a, EncodedValue> {
        Box::pin(async move {
            let name = T::full_name();
            let encoded = self.encode_with(topic, Some(&name), |schema, prefix, out| {
                schema.message(&name)?.0.write(prefix);
                event.encode(out).map_err(encode_error)
            });
            encoded.await.map_err(Into::into)
        })
    }

    fn decode<'a>(&'a self, _: &'a str, headers: &'a Headers, value: &'a [u8]) -> CodecFuture<'a, T> {
        Box::pin(async move {
            let decoded = self.decode_with(headers, value, |framed, schema, _| {
                let (index, payload) = framed.indexed()?;
                let (found, wanted) = (schema.message_name(&index)?, T::full_name());
                if found != wanted {
                    return Err(decode_error(format!("the record is a {found}, and not a {wanted}")));
                }
                T::decode(payload).map_err(decode_error)
            });
            decoded.await.map_err(Into::into)
        })
    }
}
