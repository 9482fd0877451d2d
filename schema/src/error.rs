//! The error type of the crate.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::wire::SchemaId;

/// Error of the registry client and of codecs.
///
/// Its text says what failed, at which URL, after how long and what to do about it;
/// [`kind`](Self::kind) and [`code`](Self::code) are for code. It is cheap to clone, so all callers
/// that wait for one request share one.
///
/// ```
/// use ailurus_schema::{SchemaErrorKind, SchemaRegistry};
///
/// let error = SchemaRegistry::new("localhost").unwrap_err();
/// assert_eq!(error.kind(), SchemaErrorKind::Config);
/// assert!(!error.is_retriable());
/// ```
#[derive(Clone)]
pub struct SchemaError(Arc<Inner>);

struct Inner {
    kind: SchemaErrorKind,
    message: String,
    status: Option<u16>,
    code: Option<i32>,
    schema_id: Option<SchemaId>,
}

/// Classes of [`SchemaError`].
///
/// ```
/// use ailurus_schema::{SchemaError, SchemaErrorKind};
///
/// fn does_not_exist_yet(error: &SchemaError) -> bool {
///     error.kind() == SchemaErrorKind::NotFound
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SchemaErrorKind {
    /// A setting is missing or invalid.
    Config,
    /// No registry responded within the deadline, or each responded that it can't serve now.
    Unavailable,
    /// The registry denied the request, or there was no token for it.
    Authorization,
    /// The subject, version, schema or setting does not exist.
    NotFound,
    /// The schema breaks the compatibility rule of its subject.
    Incompatible,
    /// The schema is not valid.
    InvalidSchema,
    /// The registry rejected the request for another reason: its mode, a reference to what is
    /// deleted, an invalid version.
    Rejected,
    /// The response is not one of a schema registry, or exceeds a limit of this client.
    Protocol,
    /// A value does not match the schema that it is to be written with.
    Encode,
    /// A record has no schema id, or is no value of its schema.
    Decode,
}

impl SchemaError {
    /// Creates an error.
    pub fn new(kind: SchemaErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), status: None, code: None, schema_id: None }))
    }

    pub(crate) fn of_response(kind: SchemaErrorKind, message: String, status: u16, code: Option<i32>) -> Self {
        Self(Arc::new(Inner { kind, message, status: Some(status), code, schema_id: None }))
    }

    /// Prefixes what was being done; all else stays.
    #[must_use]
    pub fn context(self, what: impl fmt::Display) -> Self {
        let Inner { kind, ref message, status, code, schema_id } = *self.0;
        Self(Arc::new(Inner { kind, message: format!("{what}: {message}"), status, code, schema_id }))
    }

    /// Adds the schema id of the record that this error is about.
    #[must_use]
    pub(crate) fn with_schema_id(self, id: SchemaId) -> Self {
        let Inner { kind, ref message, status, code, .. } = *self.0;
        Self(Arc::new(Inner { kind, message: message.clone(), status, code, schema_id: Some(id) }))
    }

    /// Returns the class.
    pub fn kind(&self) -> SchemaErrorKind {
        self.0.kind
    }

    /// Returns the HTTP status of the response that this error is about.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// Returns the registry's error code, such as 40401 for an unknown subject.
    pub fn code(&self) -> Option<i32> {
        self.0.code
    }

    /// Returns the schema id of the record that this error is about.
    pub fn schema_id(&self) -> Option<SchemaId> {
        self.0.schema_id
    }

    /// Returns whether the same call may succeed later without a change by the caller. It has been
    /// retried until the deadline of the call; this is for the layer above.
    pub fn is_retriable(&self) -> bool {
        self.0.kind == SchemaErrorKind::Unavailable
    }

    /// Returns whether the subject, version, schema or setting does not exist.
    pub fn is_not_found(&self) -> bool {
        self.0.kind == SchemaErrorKind::NotFound
    }
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.message)
    }
}

impl StdError for SchemaError {}

/// An unavailable registry is retriable ([`ailurus::ErrorKind::Connect`]); what the schema or the
/// record is to blame for is [`ailurus::ErrorKind::Event`].
impl From<SchemaError> for ailurus::Error {
    fn from(error: SchemaError) -> Self {
        use ailurus::ErrorKind;
        let kind = match error.kind() {
            SchemaErrorKind::Config => ErrorKind::Config,
            SchemaErrorKind::Unavailable => ErrorKind::Connect,
            SchemaErrorKind::Authorization => ErrorKind::Authorization,
            _ => ErrorKind::Event,
        };
        let (message, id) = (error.to_string(), error.schema_id());
        let converted = Self::with_source(kind, message, error);
        match id {
            Some(id) => converted.with_schema_id(id.to_string()),
            None => converted,
        }
    }
}
