//! Settings of a registry client.

use std::sync::Arc;
use std::time::Duration;

use ailurus::{Secret, TlsConfig, TokenSource};

use super::caller::{Caller, Policy};
use super::http::{Auth, Endpoint};
use super::url::BaseUrl;
use super::{Caches, Inner, SchemaRegistry};
use crate::error::{SchemaError, SchemaErrorKind};

/// Settings of a [`SchemaRegistry`].
///
/// ```
/// use std::time::Duration;
/// use ailurus_schema::SchemaRegistry;
///
/// let registry = SchemaRegistry::builder(["https://registry-1.example.com", "https://registry-2.example.com"])
///     .basic_auth("orders", "hunter2")
///     .timeout(Duration::from_secs(10))
///     .build()?;
/// # let _ = registry;
/// # Ok::<(), ailurus_schema::SchemaError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "settings have no effect until they are built"]
pub struct SchemaRegistryBuilder {
    urls: Vec<String>,
    policy: Policy,
    allow_cleartext: bool,
    context: Option<String>,
    max_schemas: usize,
    max_subjects: usize,
    subject_ttl: Duration,
}

impl SchemaRegistryBuilder {
    pub(super) fn new(urls: Vec<String>) -> Self {
        Self {
            urls,
            policy: Policy {
                auth: Auth::None,
                tls: TlsConfig::default(),
                timeout: Duration::from_secs(30),
                request_timeout: Duration::from_secs(10),
                retries: 3,
                backoff: Duration::from_millis(100),
                backoff_max: Duration::from_secs(2),
            },
            allow_cleartext: false,
            context: None,
            max_schemas: 1000,
            max_subjects: 1000,
            subject_ttl: Duration::from_secs(300),
        }
    }

    /// Authenticates with a user name and a password (HTTP Basic), as Redpanda's and Confluent's
    /// registries and Confluent Cloud's API keys do.
    pub fn basic_auth(mut self, username: impl Into<String>, password: impl Into<Secret>) -> Self {
        self.policy.auth = Auth::Basic { username: username.into(), password: password.into() };
        self
    }

    /// Authenticates with a token of this source (HTTP Bearer), which is called for each request. The
    /// command's source of tokens by client credentials is `ailurus_serve::oauth::source`.
    ///
    /// ```
    /// use ailurus::TokenSource;
    /// use ailurus_schema::SchemaRegistry;
    ///
    /// let tokens = TokenSource::File("/var/run/secrets/registry/token".into());
    /// let registry = SchemaRegistry::builder(["https://registry.example.com"]).bearer_auth(tokens).build()?;
    /// # let _ = registry;
    /// # Ok::<(), ailurus_schema::SchemaError>(())
    /// ```
    pub fn bearer_auth(mut self, tokens: TokenSource) -> Self {
        self.policy.auth = Auth::Bearer(tokens);
        self
    }

    /// Allows credentials over `http` to another machine, where they can be read on the network;
    /// default false: such settings are rejected.
    pub fn allow_cleartext(mut self, allow: bool) -> Self {
        self.allow_cleartext = allow;
        self
    }

    /// Sets trusted CA certificates and the client certificate (mTLS) of `https` URLs; default the
    /// system's, and none.
    pub fn tls(mut self, tls: TlsConfig) -> Self {
        self.policy.tls = tls;
        self
    }

    /// Sets the maximum time of a call with its retries; default 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.policy.timeout = timeout;
        self
    }

    /// Sets the maximum time of one request, after which the next registry is tried; default 10 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.policy.request_timeout = timeout;
        self
    }

    /// Sets the number of retries at each registry, within [`timeout`](Self::timeout); default 3. Retried
    /// is a request without a response, and one with status 408, 429 or 5xx; never one that was
    /// rejected.
    pub fn retries(mut self, retries: u32) -> Self {
        self.policy.retries = retries;
        self
    }

    /// Sets the wait before the first retry, which doubles up to a maximum, with jitter; default
    /// 100 ms up to 2 s.
    pub fn backoff(mut self, first: Duration, max: Duration) -> Self {
        (self.policy.backoff, self.policy.backoff_max) = (first, max);
        self
    }

    /// Sets the context, such as `.staging`: a namespace of subjects and ids. Subjects without one
    /// are of this context, and ids are looked up in it. Default none: the registry's default
    /// context.
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }

    /// Sets the maximum number of cached schemas by id and by GUID, each; default 1,000. A schema
    /// never expires, as its id never means another one; beyond the maximum the one used longest ago
    /// is dropped.
    pub fn max_cached_schemas(mut self, schemas: usize) -> Self {
        self.max_schemas = schemas;
        self
    }

    /// Sets the maximum number of cached versions of subjects; default 1,000. Beyond it the one used
    /// longest ago is dropped.
    pub fn max_cached_versions(mut self, versions: usize) -> Self {
        self.max_subjects = versions;
        self
    }

    /// Sets the time after which a version of a subject, and so the latest one, is looked up again;
    /// default 5 minutes.
    pub fn version_ttl(mut self, ttl: Duration) -> Self {
        self.subject_ttl = ttl;
        self
    }

    /// Creates the client. Nothing is sent.
    ///
    /// # Errors
    /// [`SchemaErrorKind::Config`] without a URL, with one that is neither `http` nor `https`, with an
    /// invalid context, or with credentials over cleartext.
    pub fn build(self) -> Result<SchemaRegistry, SchemaError> {
        let invalid = |what: String| Err(SchemaError::new(SchemaErrorKind::Config, what));
        let urls = self.urls.iter().map(|url| BaseUrl::parse(url)).collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return invalid("there is no URL of a schema registry: name one, such as http://localhost:8081".into());
        }
        let is_authenticated = !matches!(self.policy.auth, Auth::None);
        if let Some(url) = urls.iter().find(|url| is_authenticated && !self.allow_cleartext && !url.is_private()) {
            return invalid(format!(
                "credentials for {} could be read on the network: use https, or allow it by \
                 SchemaRegistryBuilder::allow_cleartext",
                url.text
            ));
        }
        let is_invalid = |context: &str| {
            !context.starts_with('.') || context.contains([':', '/']) || context.chars().any(char::is_control)
        };
        if let Some(context) = self.context.as_deref().filter(|context| is_invalid(context)) {
            return invalid(format!("{context:?} is no context: write a dot and a name, such as .staging"));
        }
        let caller = Caller::new(urls.into_iter().map(Endpoint::new).collect(), self.policy);
        let caches = Caches::new(self.max_schemas, self.max_subjects, self.subject_ttl);
        Ok(SchemaRegistry(Arc::new(Inner { caller: Arc::new(caller), context: self.context, caches })))
    }
}
