//! Codecs of events, with the schemas of a registry: [`AvroCodec`], [`JsonSchemaCodec`] and
//! [`ProtobufCodec`].
//!
//! A codec encodes with one schema: its own, or the latest one of the subject
//! ([`use_latest`](SchemaCodec::use_latest)). It decodes with the schema that a record was written with, by the
//! id in the record. Once an id is known, the registry is not needed any more.
//!
//! By default a schema is looked up and must be registered already; see [`auto_register`](SchemaCodec::auto_register).

#[cfg(feature = "avro")]
mod avro;
#[cfg(feature = "json-schema")]
mod json_schema;
#[cfg(feature = "protobuf")]
mod protobuf;
mod subject;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use ailurus::Headers;
use ailurus::event::EncodedValue;

/// Avro's `bytes` as a `Vec<u8>`: `#[serde(with = "ailurus_schema::codec::avro_bytes")]`. Without it, a `Vec<u8>` is
/// an array of numbers.
#[cfg(feature = "avro")]
pub use apache_avro::serde::bytes as avro_bytes;
#[cfg(feature = "avro")]
pub use avro::{Avro, AvroCodec, AvroSchema};
#[cfg(feature = "json-schema")]
pub use json_schema::{JsonSchema, JsonSchemaCodec, JsonValidator};
#[cfg(feature = "protobuf")]
pub use protobuf::{Protobuf, ProtobufCodec, ProtobufSchema};
pub use subject::{SubjectFn, SubjectStrategy};

use crate::error::{SchemaError, SchemaErrorKind};
use crate::registry::{Cache, RegisterOptions, SchemaRegistry};
use crate::schema::{ResolvedSchema, Version};
use crate::wire::{Framed, SchemaId, VALUE_HEADER};

/// Maximum size of a schema, in bytes: a larger one is not parsed.
const MAX_SCHEMA_BYTES: usize = 1 << 20;
/// Maximum number of topics whose schema a codec remembers.
const MAX_TOPICS: usize = 1000;

/// Language of the schemas of a [`SchemaCodec`]. Sealed.
pub trait Format: sealed::Sealed + Send + Sync + 'static {
    /// A schema as it is used.
    type Parsed: std::fmt::Debug + Send + Sync + 'static;
    /// Content type of values.
    #[doc(hidden)]
    const CONTENT_TYPE: &'static str;
    #[doc(hidden)]
    const SCHEMA_TYPE: crate::SchemaType;
    #[doc(hidden)]
    fn parse(schema: &ResolvedSchema) -> Result<Self::Parsed, SchemaError>;
    /// Returns the record name.
    #[doc(hidden)]
    fn record_name(parsed: &Self::Parsed) -> Option<&str>;
}

mod sealed {
    pub trait Sealed {}
}

/// Place of the schema id in a record. Both are read.
///
/// ```
/// use ailurus_schema::codec::IdPlacement;
///
/// assert_eq!(IdPlacement::default(), IdPlacement::Prefix);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum IdPlacement {
    /// The id, before the value: what each client reads.
    #[default]
    Prefix,
    /// The GUID, in the header [`VALUE_HEADER`]: the value alone is what it would be without a registry.
    /// Needs a registry with GUIDs.
    Header,
}

/// Source of the schema that a codec encodes with.
#[derive(Debug, Clone)]
enum Source {
    Own { schema: ResolvedSchema, auto_register: bool },
    Latest,
}

/// Encodes and decodes events with the schemas of a registry; `F` is their language.
///
/// Clones share caches. See [`AvroCodec`], [`JsonSchemaCodec`] and [`ProtobufCodec`].
#[derive(Debug)]
pub struct SchemaCodec<F: Format>(Arc<Inner<F>>);

#[derive(Debug)]
struct Inner<F: Format> {
    registry: SchemaRegistry,
    source: Source,
    normalize: bool,
    placement: IdPlacement,
    strategy: SubjectStrategy,
    /// The codec's own schema, which records are converted to.
    own: Option<Arc<F::Parsed>>,
    writers: Cache<String, Arc<Writer<F>>>,
    readers: Cache<SchemaId, Arc<F::Parsed>>,
}

/// A schema to encode with.
#[derive(Debug)]
struct Writer<F: Format> {
    id: SchemaId,
    parsed: Arc<F::Parsed>,
}

impl<F: Format> Clone for SchemaCodec<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F: Format> SchemaCodec<F> {
    /// Creates a codec that encodes with this schema, which must be registered under the subject, and
    /// decodes records of other versions to it.
    ///
    /// # Errors
    /// [`SchemaErrorKind::InvalidSchema`] if the schema is not valid, of another language, or larger than
    /// 1 MiB.
    pub fn new(registry: &SchemaRegistry, schema: impl Into<ResolvedSchema>) -> Result<Self, SchemaError> {
        let schema = schema.into();
        let own = Arc::new(parse::<F>(&schema)?);
        Ok(Self::with(registry, Source::Own { schema, auto_register: false }, Some(own)))
    }

    /// Creates a codec that encodes with the latest schema of the subject, which is looked up again after
    /// the registry's [`version_ttl`](crate::SchemaRegistryBuilder::version_ttl), and decodes with the schema
    /// of the record.
    pub fn use_latest(registry: &SchemaRegistry) -> Self {
        Self::with(registry, Source::Latest, None)
    }

    fn with(registry: &SchemaRegistry, source: Source, own: Option<Arc<F::Parsed>>) -> Self {
        // An id never means another schema, but the latest version changes.
        let ttl = matches!(source, Source::Latest).then(|| registry.version_ttl());
        Self(Arc::new(Inner {
            registry: registry.clone(),
            source,
            normalize: false,
            placement: IdPlacement::default(),
            strategy: SubjectStrategy::default(),
            own,
            writers: Cache::new(MAX_TOPICS, ttl),
            readers: Cache::new(registry.max_cached_schemas(), None::<Duration>),
        }))
    }

    /// Registers the schema when it is first used; default false: an application that is deployed does
    /// not change the schemas of a topic.
    #[must_use]
    pub fn auto_register(self, register: bool) -> Self {
        self.change(|inner| {
            if let Source::Own { auto_register, .. } = &mut inner.source {
                *auto_register = register;
            }
        })
    }

    /// Looks up, or registers, the schema in its normal form; default false.
    #[must_use]
    pub fn normalize(self, normalize: bool) -> Self {
        self.change(|inner| inner.normalize = normalize)
    }

    /// Sets the place of the id; default [`IdPlacement::Prefix`].
    #[must_use]
    pub fn placement(self, placement: IdPlacement) -> Self {
        self.change(|inner| inner.placement = placement)
    }

    /// Sets the strategy of subjects; default [`SubjectStrategy::Topic`].
    #[must_use]
    pub fn subjects(self, strategy: SubjectStrategy) -> Self {
        self.change(|inner| inner.strategy = strategy)
    }

    /// Changes a setting; clones that exist keep theirs.
    fn change(mut self, change: impl FnOnce(&mut Inner<F>)) -> Self {
        if Arc::get_mut(&mut self.0).is_none() {
            let Inner { registry, source, normalize, placement, strategy, own, .. } = &*self.0;
            let mut copy = Self::with(registry, source.clone(), own.clone());
            if let Some(inner) = Arc::get_mut(&mut copy.0) {
                (inner.normalize, inner.placement, inner.strategy) = (*normalize, *placement, strategy.clone());
            }
            self = copy;
        }
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            change(inner);
        }
        self
    }

    /// Returns the schema for values of the topic, from the registry if it is not known.
    async fn writer(&self, topic: &str, record: Option<&str>) -> Result<Arc<Writer<F>>, SchemaError> {
        // The record is a part of the key only where it is one of the subject.
        let key = match record.filter(|_| self.0.strategy.needs_record()) {
            Some(record) => Cow::Owned(format!("{topic} {record}")),
            None => Cow::Borrowed(topic),
        };
        let fetch = || {
            let (codec, topic, record) = (self.clone(), topic.to_owned(), record.map(str::to_owned));
            Box::pin(async move { codec.find_writer(&topic, record.as_deref()).await.map(Arc::new) }) as _
        };
        self.0.writers.get(&*key, fetch).await
    }

    async fn find_writer(&self, topic: &str, record: Option<&str>) -> Result<Writer<F>, SchemaError> {
        let Inner { registry, source, normalize, strategy, own, .. } = &*self.0;
        let record = record.or_else(|| own.as_deref().and_then(F::record_name));
        let (id, guid, parsed) = match (source, own) {
            (Source::Own { schema, auto_register }, Some(own)) => {
                let subject = strategy.subject(topic, record)?;
                let (id, guid) = if *auto_register {
                    let options = RegisterOptions::new().normalize(*normalize);
                    let registered = registry.register(&subject, &schema.schema, options).await?;
                    (registered.id, registered.guid)
                } else {
                    let found = registry.look_up(&subject, &schema.schema, *normalize).await;
                    let found = found.map_err(|e| if e.is_not_found() { e.context(NOT_REGISTERED) } else { e })?;
                    (found.id, found.guid)
                };
                (id, guid, own.clone())
            }
            _ => {
                let subject = strategy.subject(topic, record)?;
                let latest = registry.version(&subject, Version::Latest).await?;
                let resolved = registry.resolve(latest.schema.clone()).await?;
                (latest.id, latest.guid, Arc::new(parse::<F>(&resolved)?))
            }
        };
        let id = match (self.0.placement, guid) {
            (IdPlacement::Prefix, _) => SchemaId::Id(id),
            (IdPlacement::Header, Some(guid)) => SchemaId::Guid(guid),
            (IdPlacement::Header, None) => {
                let what = "the registry responds without a GUID of the schema: use IdPlacement::Prefix";
                return Err(SchemaError::new(SchemaErrorKind::Config, what));
            }
        };
        Ok(Writer { id, parsed })
    }

    /// Returns the schema with this id, from the registry if it is not known.
    async fn reader(&self, id: SchemaId) -> Result<Arc<F::Parsed>, SchemaError> {
        let fetch = || {
            let registry = self.0.registry.clone();
            Box::pin(async move {
                let resolved = match id {
                    SchemaId::Id(id) => registry.resolved_by_id(id).await?,
                    SchemaId::Guid(guid) => registry.resolved_by_guid(guid).await?,
                };
                parse::<F>(&resolved).map(Arc::new)
            }) as _
        };
        self.0.readers.get(&id, fetch).await.map_err(|e| e.with_schema_id(id))
    }

    /// Encodes an event; `write` appends what follows the id (and is in the header with it), then the
    /// payload.
    async fn encode_with(
        &self,
        topic: &str,
        record: Option<&str>,
        write: impl FnOnce(&F::Parsed, &mut Vec<u8>, &mut Vec<u8>) -> Result<(), SchemaError>,
    ) -> Result<EncodedValue, SchemaError> {
        let writer = self.writer(topic, record).await?;
        let (mut prefix, mut payload) = (Vec::with_capacity(18), Vec::new());
        writer.id.write(&mut prefix);
        let what = |e: SchemaError| e.context(format!("encoding for {topic}")).with_schema_id(writer.id);
        match self.0.placement {
            IdPlacement::Header => {
                write(&writer.parsed, &mut prefix, &mut payload).map_err(what)?;
                let headers = Headers::new().with(VALUE_HEADER, prefix);
                Ok(EncodedValue::new(F::CONTENT_TYPE, payload).headers(headers))
            }
            IdPlacement::Prefix => {
                prefix.reserve(512);
                write(&writer.parsed, &mut prefix, &mut payload).map_err(what)?;
                prefix.append(&mut payload);
                Ok(EncodedValue::new(F::CONTENT_TYPE, prefix))
            }
        }
    }

    /// Decodes a record; `read` gets the schema that it was written with, and the codec's own.
    async fn decode_with<T>(
        &self,
        headers: &Headers,
        value: &[u8],
        read: impl FnOnce(Framed<'_>, &F::Parsed, Option<&F::Parsed>) -> Result<T, SchemaError>,
    ) -> Result<T, SchemaError> {
        let framed = Framed::read(headers, value)?;
        let parsed = self.reader(framed.id).await?;
        read(framed, &parsed, self.0.own.as_deref())
            .map_err(|e| e.context(format!("decoding with schema {}", framed.id)).with_schema_id(framed.id))
    }
}

const NOT_REGISTERED: &str = "the schema must be registered before it is used (SchemaCodec::auto_register is off)";

fn parse<F: Format>(schema: &ResolvedSchema) -> Result<F::Parsed, SchemaError> {
    let invalid = |what: String| Err(SchemaError::new(SchemaErrorKind::InvalidSchema, what));
    let found = schema.schema.schema_type;
    if found != F::SCHEMA_TYPE {
        return invalid(format!("the schema is {found}, and the codec's are {}", F::SCHEMA_TYPE));
    }
    let bytes: usize = schema.references.iter().map(|r| r.schema.text.len()).sum::<usize>() + schema.schema.text.len();
    if bytes > MAX_SCHEMA_BYTES {
        return invalid(format!(
            "the schema has {bytes} bytes with its references, and at most {MAX_SCHEMA_BYTES} are parsed"
        ));
    }
    F::parse(schema)
}

/// Returns an error of a value that can't be encoded.
fn encode_error(what: impl std::fmt::Display) -> SchemaError {
    SchemaError::new(SchemaErrorKind::Encode, what.to_string())
}

/// Returns an error of a value that can't be decoded.
fn decode_error(what: impl std::fmt::Display) -> SchemaError {
    SchemaError::new(SchemaErrorKind::Decode, what.to_string())
}

fn invalid_schema(what: impl std::fmt::Display) -> SchemaError {
    SchemaError::new(SchemaErrorKind::InvalidSchema, format!("the schema is not valid: {what}"))
}
