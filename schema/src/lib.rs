//! Schemas of events: a client of Confluent-compatible schema registries (Redpanda's, Confluent's, Apicurio's), and codecs for
//! Avro, Protobuf and JSON Schema.
//!
//! | for | see |
//! |---|---|
//! | schemas, subjects, compatibility | [`SchemaRegistry`] |
//! | events in Avro, Protobuf or JSON Schema | [`codec`] |
//! | schema ids in records | [`wire`] |
//!
//! # Features
//!
//! | feature | |
//! |---|---|
//! | `avro` (default) | `codec::AvroCodec`, by `apache-avro` |
//! | `json-schema` (default) | `codec::JsonSchemaCodec`, by `jsonschema`, which fetches nothing |
//! | `protobuf` (default) | `codec::ProtobufCodec`, by `prost`, `prost-reflect` and `protox` |
//!
//! TLS needs the feature `tls` of `ailurus`.
//!
//! # A schema is registered
//!
//! ```no_run
//! # async fn example() -> Result<(), ailurus_schema::SchemaError> {
//! use ailurus_schema::{Schema, SchemaRegistry};
//!
//! let registry = SchemaRegistry::new("http://localhost:8081")?;
//! let schema = Schema::avro(r#"{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "string"}]}"#);
//! let registered = registry.register("orders-value", &schema, Default::default()).await?;
//! println!("orders-value has the schema id {}", registered.id);
//! # Ok(())
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod codec;
mod error;
pub mod registry;
mod schema;
pub mod wire;

#[doc(no_inline)]
pub use uuid::Uuid;

pub use error::{SchemaError, SchemaErrorKind};
pub use registry::{SchemaRegistry, SchemaRegistryBuilder};
pub use schema::{RegisteredSchema, ResolvedReference, ResolvedSchema, Schema, SchemaReference, SchemaType, Version};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
#[cfg(doctest)]
#[doc = include_str!("../../docs/schemas.md")]
mod guide {}
