//! A client of Confluent-compatible schema registries: Redpanda's, Confluent's and Apicurio's.
//!
//! [`SchemaRegistry`] registers, looks up and checks schemas, and caches what can't change.
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

mod error;
pub mod registry;
mod schema;

#[doc(no_inline)]
pub use uuid::Uuid;

pub use error::{SchemaError, SchemaErrorKind};
pub use registry::{SchemaRegistry, SchemaRegistryBuilder};
pub use schema::{RegisteredSchema, ResolvedReference, ResolvedSchema, Schema, SchemaReference, SchemaType, Version};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
