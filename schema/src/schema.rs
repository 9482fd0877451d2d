//! Schemas, as a registry has them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::error::{SchemaError, SchemaErrorKind};

/// Languages of schemas.
///
/// From text: the registry's names, in any case.
///
/// ```
/// use ailurus_schema::SchemaType;
///
/// assert_eq!("avro".parse::<SchemaType>()?, SchemaType::Avro);
/// assert_eq!(SchemaType::Json.to_string(), "JSON");
/// # Ok::<(), ailurus_schema::SchemaError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum SchemaType {
    /// `AVRO`; what a response without a type means.
    #[default]
    Avro,
    /// `JSON`: JSON Schema.
    Json,
    /// `PROTOBUF`.
    Protobuf,
}

impl SchemaType {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Avro, Self::Json, Self::Protobuf];

    /// Returns the registry's name.
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
        f.pad(self.name())
    }
}

impl FromStr for SchemaType {
    type Err = SchemaError;

    fn from_str(text: &str) -> Result<Self, SchemaError> {
        Self::ALL.into_iter().find(|t| t.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
            let what = format!("{text:?} is no type of schemas: allowed is AVRO, JSON or PROTOBUF");
            SchemaError::new(SchemaErrorKind::Config, what)
        })
    }
}

impl Serialize for SchemaType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for SchemaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A schema: its text, and the schemas that the text names.
///
/// Its JSON is the body of a request that registers it.
///
/// ```
/// use ailurus_schema::{Schema, SchemaType};
///
/// let schema = Schema::protobuf(r#"syntax = "proto3"; import "money.proto"; message Order { Money total = 1; }"#)
///     .reference("money.proto", "money-value", 3);
/// assert_eq!(schema.schema_type, SchemaType::Protobuf);
/// assert_eq!(schema.references[0].subject, "money-value");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Schema {
    /// Text.
    #[serde(rename = "schema")]
    pub text: String,
    /// Language of the text.
    #[serde(rename = "schemaType", default, skip_serializing_if = "is_avro")]
    pub schema_type: SchemaType,
    /// Schemas that the text names, in the order of registration.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub references: Vec<SchemaReference>,
}

/// Older registries know no `schemaType`.
fn is_avro(schema_type: &SchemaType) -> bool {
    *schema_type == SchemaType::Avro
}

/// Some registries send `null` for an empty list.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Schema {
    /// Creates a schema without references.
    pub fn new(schema_type: SchemaType, text: impl Into<String>) -> Self {
        Self { text: text.into(), schema_type, references: Vec::new() }
    }

    /// Creates an Avro schema without references.
    pub fn avro(text: impl Into<String>) -> Self {
        Self::new(SchemaType::Avro, text)
    }

    /// Creates a JSON Schema without references.
    pub fn json(text: impl Into<String>) -> Self {
        Self::new(SchemaType::Json, text)
    }

    /// Creates a Protobuf schema (a `.proto` file) without references.
    pub fn protobuf(text: impl Into<String>) -> Self {
        Self::new(SchemaType::Protobuf, text)
    }

    /// Adds a reference: `name` is what the text calls it (an Avro full name, the path of an import,
    /// the URI of a `$ref`), and `version` of `subject` the schema.
    #[must_use]
    pub fn reference(mut self, name: impl Into<String>, subject: impl Into<String>, version: i32) -> Self {
        self.references.push(SchemaReference { name: name.into(), subject: subject.into(), version });
        self
    }
}

/// Reference from the text of a schema to a version of a subject.
///
/// ```
/// use ailurus_schema::{Schema, SchemaReference};
///
/// let schema = Schema::avro(r#""com.example.Money""#).reference("com.example.Money", "money", 1);
/// let money: &SchemaReference = &schema.references[0];
/// assert_eq!((money.name.as_str(), money.version), ("com.example.Money", 1));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SchemaReference {
    /// Name in the text.
    pub name: String,
    /// Subject that has the schema.
    pub subject: String,
    /// Version of the subject.
    pub version: i32,
}

/// A schema with its place in the registry.
///
/// ```no_run
/// # async fn example(registry: ailurus_schema::SchemaRegistry) -> Result<(), ailurus_schema::SchemaError> {
/// use ailurus_schema::{RegisteredSchema, Version};
///
/// let latest: std::sync::Arc<RegisteredSchema> = registry.version("orders-value", Version::Latest).await?;
/// println!("version {} has id {}: {}", latest.version, latest.id, latest.schema.text);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RegisteredSchema {
    /// Subject.
    pub subject: String,
    /// Version of the subject.
    pub version: i32,
    /// Id, unique in the registry or in its context: versions with the same schema share it.
    pub id: u32,
    /// GUID, the same in each registry that has the schema, if the registry assigns them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guid: Option<Uuid>,
    /// Schema.
    #[serde(flatten)]
    pub schema: Schema,
}

/// Version of a subject.
///
/// From text: `latest`, or a number.
///
/// ```
/// use ailurus_schema::Version;
///
/// assert_eq!("latest".parse::<Version>()?, Version::Latest);
/// assert_eq!("3".parse::<Version>()?, Version::from(3));
/// # Ok::<(), ailurus_schema::SchemaError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Version {
    /// The last one that is not deleted.
    #[default]
    Latest,
    /// The one with this number, from 1.
    Number(i32),
}

impl From<i32> for Version {
    fn from(number: i32) -> Self {
        Self::Number(number)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl FromStr for Version {
    type Err = SchemaError;

    fn from_str(text: &str) -> Result<Self, SchemaError> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        let number = text.parse().ok().filter(|number| *number > 0);
        number.map(Self::Number).ok_or_else(|| {
            let what = format!("{text:?} is no version: allowed is latest, or a number from 1");
            SchemaError::new(SchemaErrorKind::Config, what)
        })
    }
}

/// A schema with each schema that it references, directly or not.
///
/// ```no_run
/// # async fn example(registry: ailurus_schema::SchemaRegistry) -> Result<(), ailurus_schema::SchemaError> {
/// let order = registry.resolved_by_id(7).await?;
/// for reference in &order.references {
///     println!("{}: {}", reference.name, reference.schema.text);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResolvedSchema {
    /// Schema.
    pub schema: Schema,
    /// Referenced schemas, each after those that it references itself, and each once.
    pub references: Vec<ResolvedReference>,
}

impl From<Schema> for ResolvedSchema {
    /// Without the schemas of its references.
    fn from(schema: Schema) -> Self {
        Self { schema, references: Vec::new() }
    }
}

impl ResolvedSchema {
    /// Adds a referenced schema; add what it references itself before it.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, schema: Schema) -> Self {
        self.references.push(ResolvedReference { name: name.into(), schema });
        self
    }
}

/// A referenced schema, under the name that the text of the referencing schema has for it.
///
/// ```
/// use ailurus_schema::{ResolvedSchema, Schema};
///
/// let order = ResolvedSchema::from(Schema::avro(r#""Money""#)).with("Money", Schema::avro(r#"{"type": "fixed", "name": "Money", "size": 8}"#));
/// assert_eq!(order.references[0].name, "Money");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResolvedReference {
    /// Name.
    pub name: String,
    /// Schema.
    pub schema: Schema,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_only_what_is_not_the_default() {
        let body = |schema: &Schema| serde_json::to_string(schema).unwrap();
        assert_eq!(body(&Schema::avro("\"int\"")), r#"{"schema":"\"int\""}"#);
        let json = Schema::json("{}").reference("a.json", "a", 2);
        let expected =
            r#"{"schema":"{}","schemaType":"JSON","references":[{"name":"a.json","subject":"a","version":2}]}"#;
        assert_eq!(body(&json), expected);
    }

    #[test]
    fn a_response_may_have_more_and_null_references() {
        let text = r#"{"subject":"s","version":2,"id":7,"schema":"\"int\"","references":null,"metadata":{},"maxId":9}"#;
        let found: RegisteredSchema = serde_json::from_str(text).unwrap();
        assert_eq!((found.id, found.version, found.guid), (7, 2, None));
        assert_eq!(found.schema, Schema::avro("\"int\""));
        assert!(serde_json::from_str::<RegisteredSchema>(&text.replace('7', "-7")).is_err());
    }

    #[test]
    fn versions_are_positive() {
        assert!("0".parse::<Version>().is_err() && "-1".parse::<Version>().is_err() && "x".parse::<Version>().is_err());
        assert_eq!(Version::from(3).to_string(), "3");
    }
}
