//! JSON Schema.

use std::fmt;

use ailurus::Headers;
use ailurus::event::{Codec, CodecFuture, EncodedValue};
use jsonschema::{Retrieve, Uri, Validator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Format, SchemaCodec, decode_error, encode_error, invalid_schema, sealed};
use crate::error::SchemaError;
use crate::schema::{ResolvedSchema, SchemaType};

/// Maximum number of errors of a value that are listed.
const MAX_ERRORS: usize = 5;

/// Encodes and decodes types of serde as JSON that is valid by a JSON Schema. Values are validated before they
/// are sent, and after they were read by the schema that they were written with.
///
/// Nothing is fetched: a `$ref` is to the schema itself or to a reference in the registry.
///
/// ```no_run
/// # async fn example(registry: ailurus_schema::SchemaRegistry) -> Result<(), Box<dyn std::error::Error>> {
/// use ailurus_schema::Schema;
/// use ailurus_schema::codec::JsonSchemaCodec;
///
/// let schema = r#"{"title": "OrderPaid", "type": "object", "required": ["orderId"], "properties": {"orderId": {"type": "string"}}}"#;
/// let codec = JsonSchemaCodec::new(&registry, Schema::json(schema))?;
/// # let _ = codec;
/// # Ok(())
/// # }
/// ```
pub type JsonSchemaCodec = SchemaCodec<JsonSchema>;

/// The language JSON Schema.
#[derive(Debug, Clone, Copy)]
pub enum JsonSchema {}

/// A compiled JSON Schema, with those that it references.
///
/// ```
/// use ailurus_schema::codec::JsonValidator;
/// use ailurus_schema::{ResolvedSchema, Schema};
///
/// let schema = JsonValidator::parse(&ResolvedSchema::from(Schema::json(r#"{"type": "integer"}"#)))?;
/// assert_eq!(schema.encode(&3)?, b"3");
/// assert!(schema.decode::<i64>(b"\"three\"").is_err());
/// # Ok::<(), ailurus_schema::SchemaError>(())
/// ```
pub struct JsonValidator {
    validator: Validator,
    title: Option<String>,
}

impl fmt::Debug for JsonValidator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonValidator").field("title", &self.title).finish_non_exhaustive()
    }
}

impl sealed::Sealed for JsonSchema {}

impl Format for JsonSchema {
    type Parsed = JsonValidator;
    const CONTENT_TYPE: &'static str = "application/json";
    const SCHEMA_TYPE: SchemaType = SchemaType::Json;

    fn parse(schema: &ResolvedSchema) -> Result<JsonValidator, SchemaError> {
        JsonValidator::parse(schema)
    }

    fn record_name(parsed: &JsonValidator) -> Option<&str> {
        parsed.title.as_deref()
    }
}

/// The schemas that a schema references, by name; nothing else is retrieved.
struct References(Vec<(String, Value)>);

impl Retrieve for References {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        // A relative name has been made absolute with a base of the validator.
        let is_named = |name: &str| uri.as_str() == name || uri.as_str().ends_with(&format!("/{name}"));
        let found = self.0.iter().find(|(name, _)| is_named(name)).map(|(_, schema)| schema.clone());
        found.ok_or_else(|| format!("{uri} is no reference of the schema, and nothing is fetched").into())
    }
}

impl JsonValidator {
    /// Compiles a schema.
    ///
    /// # Errors
    /// [`SchemaErrorKind::InvalidSchema`](crate::SchemaErrorKind::InvalidSchema).
    pub fn parse(schema: &ResolvedSchema) -> Result<Self, SchemaError> {
        let json = |text: &str| serde_json::from_str::<Value>(text).map_err(invalid_schema);
        let root = json(&schema.schema.text)?;
        let references: Result<_, SchemaError> =
            schema.references.iter().map(|r| Ok((r.name.clone(), json(&r.schema.text)?))).collect();
        let title = root.get("title").and_then(Value::as_str).map(str::to_owned);
        let validator = jsonschema::options().with_retriever(References(references?)).build(&root);
        Ok(Self { validator: validator.map_err(invalid_schema)?, title })
    }

    /// Encodes a value as JSON.
    ///
    /// # Errors
    /// [`SchemaErrorKind::Encode`](crate::SchemaErrorKind::Encode) with the fields that the schema does not allow.
    pub fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Vec<u8>, SchemaError> {
        let json = serde_json::to_value(value).map_err(encode_error)?;
        self.validate(&json).map_err(encode_error)?;
        serde_json::to_vec(&json).map_err(encode_error)
    }

    /// Decodes a value from JSON.
    ///
    /// # Errors
    /// [`SchemaErrorKind::Decode`](crate::SchemaErrorKind::Decode) if it is no JSON, with the fields that the schema does not
    /// allow, or if `T` has another form.
    pub fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, SchemaError> {
        let json: Value = serde_json::from_slice(bytes).map_err(decode_error)?;
        self.validate(&json).map_err(decode_error)?;
        serde_json::from_value(json).map_err(decode_error)
    }

    fn validate(&self, json: &Value) -> Result<(), String> {
        if self.validator.is_valid(json) {
            return Ok(());
        }
        let mut errors = self.validator.iter_errors(json).map(|e| match e.instance_path().as_str() {
            "" => e.to_string(),
            path => format!("{path}: {e}"),
        });
        let mut text = errors.by_ref().take(MAX_ERRORS).collect::<Vec<_>>().join("; ");
        let more = errors.count();
        if more > 0 {
            text += &format!("; and {more} more");
        }
        Err(text)
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync> Codec<T> for JsonSchemaCodec {
    fn encode<'a>(&'a self, topic: &'a str, event: &'a T) -> CodecFuture<'a, EncodedValue> {
        Box::pin(async move {
            let encoded = self.encode_with(topic, None, |schema, _, out| {
                *out = schema.encode(event)?;
                Ok(())
            });
            encoded.await.map_err(Into::into)
        })
    }

    fn decode<'a>(&'a self, _: &'a str, headers: &'a Headers, value: &'a [u8]) -> CodecFuture<'a, T> {
        Box::pin(async move {
            let decoded = self.decode_with(headers, value, |framed, schema, _| schema.decode(framed.payload()));
            decoded.await.map_err(Into::into)
        })
    }
}
