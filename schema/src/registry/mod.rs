//! The client of a registry: [`SchemaRegistry`] and the types of its calls.

mod admin;
mod builder;
mod cache;
mod caller;
mod http;
mod options;
mod resolve;
mod url;

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

pub use builder::SchemaRegistryBuilder;
pub use options::{
    Compatibility, CompatibilityLevel, Deleted, Deletion, Mode, RegisterOptions, Registration, SubjectFilter,
    SubjectVersion,
};

use crate::error::{SchemaError, SchemaErrorKind};
use crate::schema::{RegisteredSchema, ResolvedSchema, Schema, Version};
pub(crate) use cache::Cache;
use caller::Caller;
use http::Call;

/// Client of one schema registry, at one or several URLs. Clones share its connections and caches.
///
/// Errors say what failed, at which URL and what to do; a request that may succeed at another URL
/// or later is retried until the [timeout](SchemaRegistryBuilder::timeout) of the call.
///
/// Cached are schemas by id and GUID, forever, and versions of subjects
/// ([`version`](Self::version)), for [a while](SchemaRegistryBuilder::version_ttl). Callers that
/// need the same one at the same time share a request. Failures are not cached.
///
/// ```no_run
/// # async fn example() -> Result<(), ailurus_schema::SchemaError> {
/// use ailurus_schema::{SchemaRegistry, Version};
///
/// let registry = SchemaRegistry::new("http://localhost:8081")?;
/// for subject in registry.subjects(&Default::default()).await? {
///     let latest = registry.version(&subject, Version::Latest).await?;
///     println!("{subject} version {} is {}", latest.version, latest.schema.schema_type);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SchemaRegistry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    caller: Arc<Caller>,
    context: Option<String>,
    caches: Caches,
}

#[derive(Debug)]
struct Caches {
    by_id: Cache<u32, Arc<ResolvedSchema>>,
    by_guid: Cache<Uuid, Arc<ResolvedSchema>>,
    versions: Cache<(String, Version), Arc<RegisteredSchema>>,
}

impl Caches {
    fn new(schemas: usize, versions: usize, ttl: Duration) -> Self {
        Self {
            by_id: Cache::new(schemas, None),
            by_guid: Cache::new(schemas, None),
            versions: Cache::new(versions, Some(ttl)),
        }
    }
}

impl SchemaRegistry {
    /// Creates a client without credentials, and with the default settings.
    ///
    /// # Errors
    /// [`SchemaErrorKind::Config`] if the URL is invalid.
    pub fn new(url: impl Into<String>) -> Result<Self, SchemaError> {
        Self::builder([url]).build()
    }

    /// Returns settings to change. The URLs are of one registry; the first one is tried first.
    pub fn builder<U: Into<String>>(urls: impl IntoIterator<Item = U>) -> SchemaRegistryBuilder {
        SchemaRegistryBuilder::new(urls.into_iter().map(Into::into).collect())
    }

    /// Returns the URLs.
    pub fn urls(&self) -> impl Iterator<Item = &str> {
        self.0.caller.endpoints.iter().map(|endpoint| endpoint.url.text.as_str())
    }

    /// Registers a schema under a subject, and returns its id. A schema that the subject has already is
    /// not registered again.
    ///
    /// # Errors
    /// [`SchemaErrorKind::Incompatible`] if it breaks the compatibility rule of the subject,
    /// [`SchemaErrorKind::InvalidSchema`], and those of any call: [`SchemaErrorKind::Unavailable`],
    /// [`SchemaErrorKind::Authorization`], [`SchemaErrorKind::Protocol`].
    pub async fn register(
        &self,
        subject: &str,
        schema: &Schema,
        options: RegisterOptions,
    ) -> Result<Registration, SchemaError> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(flatten)]
            schema: &'a Schema,
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<u32>,
            #[serde(skip_serializing_if = "Option::is_none")]
            version: Option<i32>,
        }
        let path = format!("{}{}", self.versions_path(subject), normalized('?', options.normalize));
        let body = json(&Body { schema, id: options.id, version: options.version })?;
        let call = Call { method: Method::POST, path, body };
        let result = self.call(call, &format!("registering a schema under {subject}")).await;
        self.forget_subject(subject);
        result
    }

    /// Returns the version of a subject that has this schema. With `normalize`, a version that differs
    /// only in its form (order of fields of JSON, white space) is found, too.
    ///
    /// # Errors
    /// [`SchemaErrorKind::NotFound`] if the subject does not have the schema, or does not exist; and
    /// those of [`register`](Self::register).
    pub async fn look_up(
        &self,
        subject: &str,
        schema: &Schema,
        normalize: bool,
    ) -> Result<RegisteredSchema, SchemaError> {
        let path = format!("{}{}", self.subject_path(subject), normalized('?', normalize));
        let call = Call { method: Method::POST, path, body: json(schema)? };
        self.call(call, &format!("looking up a schema of {subject}")).await
    }

    /// Returns a version of a subject; cached for [a while](SchemaRegistryBuilder::version_ttl).
    ///
    /// # Errors
    /// [`SchemaErrorKind::NotFound`] if the subject or the version does not exist or is deleted; and
    /// those of any call.
    pub async fn version(&self, subject: &str, version: Version) -> Result<Arc<RegisteredSchema>, SchemaError> {
        let key = (self.qualified(subject), version);
        let fetch = || {
            let call = get(format!("{}/{version}", self.versions_path(subject)));
            let (registry, what) = (self.clone(), format!("reading version {version} of {subject}"));
            Box::pin(async move { registry.call(call, &what).await.map(Arc::new) }) as _
        };
        self.0.caches.versions.get(&key, fetch).await
    }

    /// Returns a version of a subject, deleted softly or not, and not cached.
    ///
    /// # Errors
    /// Those of [`version`](Self::version).
    pub async fn version_or_deleted(&self, subject: &str, version: Version) -> Result<RegisteredSchema, SchemaError> {
        let call = get(format!("{}/{version}?deleted=true", self.versions_path(subject)));
        self.call(call, &format!("reading version {version} of {subject}")).await
    }

    /// Returns the schema with this id in the registry's default context, or in that of the
    /// [builder](SchemaRegistryBuilder::context), with the schemas that it references; cached.
    ///
    /// # Errors
    /// [`SchemaErrorKind::NotFound`] if there is none, [`SchemaErrorKind::Protocol`] if its references
    /// are recursive or more than this client reads; and those of any call.
    pub async fn resolved_by_id(&self, id: u32) -> Result<Arc<ResolvedSchema>, SchemaError> {
        let fetch = || {
            let registry = self.clone();
            Box::pin(async move {
                let schema = registry.schema_by_id(id).await?;
                registry.resolve(schema).await.map(Arc::new)
            }) as _
        };
        self.0.caches.by_id.get(&id, fetch).await
    }

    /// Returns the schema with this GUID, with the schemas that it references; cached.
    ///
    /// # Errors
    /// Those of [`resolved_by_id`](Self::resolved_by_id).
    pub async fn resolved_by_guid(&self, guid: Uuid) -> Result<Arc<ResolvedSchema>, SchemaError> {
        let fetch = || {
            let registry = self.clone();
            Box::pin(async move {
                let schema = registry.schema_by_guid(guid).await?;
                registry.resolve(schema).await.map(Arc::new)
            }) as _
        };
        self.0.caches.by_guid.get(&guid, fetch).await
    }

    /// Returns the schema with this id, without those that it references, and not cached.
    ///
    /// # Errors
    /// [`SchemaErrorKind::NotFound`] if there is none; and those of any call.
    pub async fn schema_by_id(&self, id: u32) -> Result<Schema, SchemaError> {
        let path = format!("/schemas/ids/{id}{}", self.context_query('?'));
        self.call(get(path), &format!("reading the schema with id {id}")).await
    }

    /// Returns the schema with this GUID, without those that it references, and not cached.
    ///
    /// # Errors
    /// [`SchemaErrorKind::NotFound`] if there is none, [`SchemaErrorKind::Protocol`] at a registry without
    /// GUIDs; and those of any call.
    pub async fn schema_by_guid(&self, guid: Uuid) -> Result<Schema, SchemaError> {
        self.call(get(format!("/schemas/guids/{guid}")), &format!("reading the schema with GUID {guid}")).await
    }

    /// Returns the maximum number of cached schemas.
    pub(crate) fn max_cached_schemas(&self) -> usize {
        self.0.caches.by_id.capacity()
    }

    /// Returns the time after which a version is looked up again.
    pub(crate) fn version_ttl(&self) -> Duration {
        self.0.caches.versions.ttl().unwrap_or_default()
    }

    /// Sends a request and reads the response.
    async fn call<T: DeserializeOwned>(&self, call: Call, what: &str) -> Result<T, SchemaError> {
        self.0.caller.call(call, what).await
    }

    /// Drops the cached versions of a subject.
    fn forget_subject(&self, subject: &str) {
        let subject = self.qualified(subject);
        self.0.caches.versions.remove_if(|(cached, _)| *cached == subject);
    }

    /// Returns the subject with its context.
    fn qualified(&self, subject: &str) -> String {
        match &self.0.context {
            Some(context) if !subject.starts_with(":.") => format!(":{context}:{subject}"),
            _ => subject.to_owned(),
        }
    }

    fn subject_path(&self, subject: &str) -> String {
        format!("/subjects/{}", encoded(&self.qualified(subject)))
    }

    fn versions_path(&self, subject: &str) -> String {
        format!("{}/versions", self.subject_path(subject))
    }

    /// Returns the query that looks an id up in the context.
    fn context_query(&self, separator: char) -> String {
        match &self.0.context {
            Some(_) => format!("{separator}subject={}", encoded(&self.qualified(""))),
            None => String::new(),
        }
    }
}

fn get(path: String) -> Call {
    Call { method: Method::GET, path, body: Bytes::new() }
}

fn json(body: &impl Serialize) -> Result<Bytes, SchemaError> {
    let invalid = |e| SchemaError::new(SchemaErrorKind::Config, format!("the request can't be written as JSON: {e}"));
    serde_json::to_vec(body).map(Bytes::from).map_err(invalid)
}

fn normalized(separator: char, normalize: bool) -> String {
    if normalize { format!("{separator}normalize=true") } else { String::new() }
}

/// Encodes a part of a path or a query. A colon begins a context, and is allowed in both.
fn encoded(text: &str) -> String {
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b':');
    utf8_percent_encode(text, ENCODED).to_string()
}
