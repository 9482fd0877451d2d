//! Avro.

mod bounds;

use std::fmt;

use ailurus::Headers;
use ailurus::event::{Codec, CodecFuture, EncodedValue};
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::ResolvedSchema as ResolvedAvro;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Schema, from_value};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Format, SchemaCodec, decode_error, encode_error, invalid_schema, sealed};
use crate::error::SchemaError;
use crate::schema::{ResolvedSchema, SchemaType};

/// Depth of values that are decoded on the caller's stack.
const SHALLOW: usize = 8;
/// Stack for deeper ones: the decoder uses up to 100 KB for a level, without optimisation.
const DEEP_STACK_BYTES: usize = 16 << 20;

/// Encodes and decodes types of serde as Avro.
///
/// With a schema of its own, it resolves the schema that a record was written with to that one: fields
/// are reordered, dropped and set to their defaults, numbers promoted, as Avro's specification says. Logical
/// types are what they are based on: a timestamp is an `i64`, a decimal bytes, a UUID a string.
///
/// ```no_run
/// # async fn example(registry: ailurus_schema::SchemaRegistry, service: ailurus::RedpandaService) -> Result<(), Box<dyn std::error::Error>> {
/// use ailurus::{Envelope, Event, Router, SendOptions};
/// use ailurus_schema::Schema;
/// use ailurus_schema::codec::AvroCodec;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct OrderPaid {
///     order_id: String,
///     total: i64,
/// }
/// # impl Event for OrderPaid {
/// #     const TYPE: &'static str = "order.paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, str>> { Some(self.order_id.as_str().into()) }
/// # }
///
/// const ORDER_PAID: &str = r#"{"type": "record", "name": "OrderPaid", "namespace": "shop", "fields": [
///     {"name": "order_id", "type": "string"}, {"name": "total", "type": "long", "default": 0}
/// ]}"#;
///
/// let codec = AvroCodec::new(&registry, Schema::avro(ORDER_PAID))?;
/// service.send_encoded(&codec, "orders", &OrderPaid { order_id: "o-1".into(), total: 999 }, SendOptions::new()).await?;
///
/// let router = Router::new().on_encoded(codec, |event: Envelope<OrderPaid>| async move { println!("{}", event.data.total) });
/// # let _ = router;
/// # Ok(())
/// # }
/// ```
pub type AvroCodec = SchemaCodec<Avro>;

/// The language Avro.
#[derive(Debug, Clone, Copy)]
pub enum Avro {}

/// A parsed Avro schema, with those that it references.
///
/// ```
/// use ailurus_schema::codec::AvroSchema;
/// use ailurus_schema::{ResolvedSchema, Schema};
///
/// let schema = AvroSchema::parse(&ResolvedSchema::from(Schema::avro("\"long\"")))?;
/// let bytes = schema.encode(&3_i64)?;
/// assert_eq!(bytes, [6]);
/// assert_eq!(schema.decode::<i64>(&bytes)?, 3);
/// # Ok::<(), ailurus_schema::SchemaError>(())
/// ```
pub struct AvroSchema {
    /// Referenced schemas, then the schema itself.
    all: Vec<Schema>,
    record_name: Option<String>,
}

impl fmt::Debug for AvroSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AvroSchema").field("record_name", &self.record_name).finish_non_exhaustive()
    }
}

impl sealed::Sealed for Avro {}

impl Format for Avro {
    type Parsed = AvroSchema;
    const CONTENT_TYPE: &'static str = "application/avro";
    const SCHEMA_TYPE: SchemaType = SchemaType::Avro;

    fn parse(schema: &ResolvedSchema) -> Result<AvroSchema, SchemaError> {
        AvroSchema::parse(schema)
    }

    fn record_name(parsed: &AvroSchema) -> Option<&str> {
        parsed.record_name.as_deref()
    }
}

impl AvroSchema {
    /// Parses a schema.
    ///
    /// # Errors
    /// [`SchemaErrorKind::InvalidSchema`](crate::SchemaErrorKind::InvalidSchema).
    pub fn parse(schema: &ResolvedSchema) -> Result<Self, SchemaError> {
        let texts = schema.references.iter().map(|reference| reference.schema.text.as_str());
        let (root, mut all) = match schema.references.is_empty() {
            true => (Schema::parse_str(&schema.schema.text).map_err(invalid_schema)?, Vec::new()),
            false => Schema::parse_str_with_list(&schema.schema.text, texts).map_err(invalid_schema)?,
        };
        let record_name = root.name().map(|name| name.fullname(None));
        all.push(root);
        let parsed = Self { all, record_name };
        parsed.resolved()?;
        Ok(parsed)
    }

    fn root(&self) -> Result<&Schema, SchemaError> {
        self.all.last().ok_or_else(|| invalid_schema("it is empty"))
    }

    /// Returns the schemas by name.
    fn resolved(&self) -> Result<ResolvedAvro<'_>, SchemaError> {
        ResolvedAvro::new_with_schemata(self.all.iter().collect()).map_err(invalid_schema)
    }

    /// Encodes a value, without a schema id.
    ///
    /// # Errors
    /// [`SchemaErrorKind::Encode`](crate::SchemaErrorKind::Encode) if the value does not match the schema.
    pub fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Vec<u8>, SchemaError> {
        let mut out = Vec::with_capacity(256);
        self.encode_into(value, &mut out)?;
        Ok(out)
    }

    fn encode_into<T: Serialize + ?Sized>(&self, value: &T, out: &mut Vec<u8>) -> Result<(), SchemaError> {
        let writer = GenericDatumWriter::builder(self.root()?).resolved_schemata(self.resolved()?).build();
        writer.and_then(|writer| writer.write_ser(out, &value)).map(drop).map_err(encode_error)
    }

    /// Decodes a value that was written with this schema, without a schema id.
    ///
    /// # Errors
    /// [`SchemaErrorKind::Decode`](crate::SchemaErrorKind::Decode) if the bytes are not such a value, if it is more than 64
    /// levels deep, or if `T` has another form.
    pub fn decode<T: DeserializeOwned + Send>(&self, bytes: &[u8]) -> Result<T, SchemaError> {
        self.decode_with(bytes, None)
    }

    /// Decodes a value that was written with this schema, and resolves it to `reader`.
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode), and if the schemas don't match.
    pub fn decode_as<T: DeserializeOwned + Send>(&self, bytes: &[u8], reader: &Self) -> Result<T, SchemaError> {
        // Equal schemas need no resolution.
        self.decode_with(bytes, Some(reader).filter(|reader| self.all != reader.all))
    }

    /// The value is decoded first, and made a `T` then: the crate's direct way to `T` insists on the name of
    /// the record being that of the type.
    fn decode_with<T: DeserializeOwned + Send>(&self, bytes: &[u8], reader: Option<&Self>) -> Result<T, SchemaError> {
        let (root, resolved) = (self.root()?, self.resolved()?);
        let depth = bounds::check(root, resolved.get_names(), bytes)?;
        let datum = GenericDatumReader::builder(root).resolved_writer_schemata(resolved);
        let datum = match reader {
            None => datum.build(),
            Some(reader) => datum.reader_schema(reader.root()?).resolved_reader_schemata(reader.resolved()?).build(),
        };
        let datum = datum.map_err(decode_error)?;
        let decode = || {
            let value = datum.read_value(&mut &*bytes).map_err(decode_error)?;
            from_value(&value).map_err(decode_error)
        };
        if depth > SHALLOW { with_large_stack(decode) } else { decode() }
    }
}

/// Runs a function on a thread with a [stack](DEEP_STACK_BYTES) for deep values.
fn with_large_stack<T: Send>(run: impl FnOnce() -> Result<T, SchemaError> + Send) -> Result<T, SchemaError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(DEEP_STACK_BYTES).spawn_scoped(scope, run);
        let thread = thread.map_err(|e| decode_error(format!("no thread for a deep value: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(decode_error("the decoder panicked")))
    })
}

impl<T: Serialize + DeserializeOwned + Send + Sync> Codec<T> for AvroCodec {
    fn encode<'a>(&'a self, topic: &'a str, event: &'a T) -> CodecFuture<'a, EncodedValue> {
        Box::pin(async move {
            let encoded = self.encode_with(topic, None, |schema, _, out| schema.encode_into(event, out));
            encoded.await.map_err(Into::into)
        })
    }

    fn decode<'a>(&'a self, _: &'a str, headers: &'a Headers, value: &'a [u8]) -> CodecFuture<'a, T> {
        Box::pin(async move {
            let decoded = self.decode_with(headers, value, |framed, schema, own| match own {
                Some(own) => schema.decode_as(framed.payload(), own),
                None => schema.decode(framed.payload()),
            });
            decoded.await.map_err(Into::into)
        })
    }
}
