//! Arguments and results of the registry's calls.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{SchemaError, SchemaErrorKind};

/// Options of [`SchemaRegistry::register`](crate::SchemaRegistry::register).
///
/// ```
/// use ailurus_schema::registry::RegisterOptions;
///
/// let options = RegisterOptions::new().normalize(true);
/// assert!(options.normalize);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RegisterOptions {
    /// Stores the schema in a normal form, so that schemas which differ only in form are the same;
    /// default false.
    pub normalize: bool,
    /// Id of the schema, in [`Mode::Import`]; default the registry's next.
    pub id: Option<u32>,
    /// Version of the subject, in [`Mode::Import`]; default the next.
    pub version: Option<i32>,
}

impl RegisterOptions {
    /// Creates the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`normalize`](field@Self::normalize).
    #[must_use]
    pub fn normalize(mut self, normalize: bool) -> Self {
        self.normalize = normalize;
        self
    }

    /// Sets id and version, as another registry has them. The subject, or the registry, must be in
    /// [`Mode::Import`].
    #[must_use]
    pub fn import(mut self, id: u32, version: i32) -> Self {
        (self.id, self.version) = (Some(id), Some(version));
        self
    }
}

/// Result of a registration.
///
/// ```no_run
/// # async fn example(registry: ailurus_schema::SchemaRegistry) -> Result<(), ailurus_schema::SchemaError> {
/// use ailurus_schema::Schema;
///
/// let registration = registry.register("ids", &Schema::avro("\"long\""), Default::default()).await?;
/// println!("id {}", registration.id);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Registration {
    /// Id of the schema.
    pub id: u32,
    /// Version of the subject, if the registry responds with it.
    #[serde(default)]
    pub version: Option<i32>,
    /// GUID of the schema, if the registry assigns them and responds with it.
    #[serde(default)]
    pub guid: Option<Uuid>,
}

/// A version of a subject.
///
/// ```no_run
/// # async fn example(registry: ailurus_schema::SchemaRegistry) -> Result<(), ailurus_schema::SchemaError> {
/// use ailurus_schema::registry::Deleted;
///
/// for used in registry.versions_of_id(7, Deleted::Exclude).await? {
///     println!("{} version {}", used.subject, used.version);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SubjectVersion {
    /// Subject.
    pub subject: String,
    /// Version.
    pub version: i32,
}

/// Selection by soft deletion.
///
/// ```
/// use ailurus_schema::registry::Deleted;
///
/// assert_eq!(Deleted::default(), Deleted::Exclude);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Deleted {
    /// Those that are not deleted.
    #[default]
    Exclude,
    /// Those that are deleted softly, too.
    Include,
    /// Those that are deleted softly. Not each registry knows it.
    Only,
}

impl Deleted {
    pub(super) fn query(self) -> Option<&'static str> {
        match self {
            Self::Exclude => None,
            Self::Include => Some("deleted=true"),
            Self::Only => Some("deletedOnly=true"),
        }
    }
}

/// Selection of subjects.
///
/// ```
/// use ailurus_schema::registry::{Deleted, SubjectFilter};
///
/// let all_of_orders = SubjectFilter::prefix("orders-").deleted(Deleted::Include);
/// # let _ = all_of_orders;
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SubjectFilter {
    /// Prefix of the subjects, in the context of the client; default each.
    pub prefix: Option<String>,
    /// Selection by soft deletion; default those that are not deleted.
    pub deleted: Deleted,
}

impl SubjectFilter {
    /// Selects subjects that begin with this.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { prefix: Some(prefix.into()), ..Self::default() }
    }

    /// Sets [`deleted`](field@Self::deleted).
    #[must_use]
    pub fn deleted(mut self, deleted: Deleted) -> Self {
        self.deleted = deleted;
        self
    }
}

/// Ways to delete.
///
/// ```
/// use ailurus_schema::registry::Deletion;
///
/// let first = Deletion::Soft; // its ids can still be read
/// let then = Deletion::Hard; // only what is deleted softly can be deleted hard
/// assert_ne!(first, then);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deletion {
    /// Hides the versions. Records with their ids can still be read, and registering the schema again
    /// restores it.
    Soft,
    /// Removes the versions, which must be deleted softly. Records with their ids can't be read any
    /// more.
    Hard,
}

/// Result of a compatibility check.
///
/// ```no_run
/// # async fn example(registry: ailurus_schema::SchemaRegistry) -> Result<(), ailurus_schema::SchemaError> {
/// use ailurus_schema::{Schema, Version};
///
/// let check = registry.check("orders-value", Version::Latest, &Schema::avro("\"int\"")).await?;
/// if !check.is_compatible {
///     println!("{}", check.messages.join("\n"));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Compatibility {
    /// True if the schema obeys the rule.
    pub is_compatible: bool,
    /// Reasons why it does not.
    #[serde(default)]
    pub messages: Vec<String>,
}

/// Implements name, text and JSON of an enum by the registry's names.
macro_rules! names {
    ($type:ident, $what:literal, $($variant:ident = $name:literal),+) => {
        impl $type {
            /// Each of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Returns the registry's name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $type {
            type Err = SchemaError;

            fn from_str(text: &str) -> Result<Self, SchemaError> {
                Self::ALL.iter().copied().find(|value| value.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
                    let what = format!(concat!("{:?} is no ", $what, ": allowed is {}"), text, [$($name),+].join(", "));
                    SchemaError::new(SchemaErrorKind::Config, what)
                })
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Compatibility levels: which versions a new schema must be able to read, or be read by.
///
/// From text: the registry's names, in any case.
///
/// ```
/// use ailurus_schema::registry::CompatibilityLevel;
///
/// assert_eq!("full_transitive".parse::<CompatibilityLevel>()?, CompatibilityLevel::FullTransitive);
/// # Ok::<(), ailurus_schema::SchemaError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CompatibilityLevel {
    /// `BACKWARD`, the default of registries: readers with the new schema can read the last version.
    /// Update consumers first.
    Backward,
    /// `BACKWARD_TRANSITIVE`: and each earlier version.
    BackwardTransitive,
    /// `FORWARD`: readers with the last version can read the new schema. Update producers first.
    Forward,
    /// `FORWARD_TRANSITIVE`: and readers with each earlier version.
    ForwardTransitive,
    /// `FULL`: both, with the last version.
    Full,
    /// `FULL_TRANSITIVE`: both, with each version.
    FullTransitive,
    /// `NONE`: no check.
    None,
}

names!(
    CompatibilityLevel,
    "compatibility level",
    Backward = "BACKWARD",
    BackwardTransitive = "BACKWARD_TRANSITIVE",
    Forward = "FORWARD",
    ForwardTransitive = "FORWARD_TRANSITIVE",
    Full = "FULL",
    FullTransitive = "FULL_TRANSITIVE",
    None = "NONE"
);

/// Modes of a registry, or of a subject.
///
/// From text: the registry's names, in any case.
///
/// ```
/// use ailurus_schema::registry::Mode;
///
/// assert_eq!("readonly".parse::<Mode>()?, Mode::ReadOnly);
/// # Ok::<(), ailurus_schema::SchemaError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// `READWRITE`, the default.
    ReadWrite,
    /// `READONLY`: registers and deletes nothing.
    ReadOnly,
    /// `READONLY_OVERRIDE`: read-only, also for subjects with a mode of their own.
    ReadOnlyOverride,
    /// `IMPORT`: registers schemas with given ids and versions, without a compatibility check.
    Import,
    /// `FORWARD`: forwards to another registry what it does not have.
    Forward,
}

names!(
    Mode,
    "mode",
    ReadWrite = "READWRITE",
    ReadOnly = "READONLY",
    ReadOnlyOverride = "READONLY_OVERRIDE",
    Import = "IMPORT",
    Forward = "FORWARD"
);
