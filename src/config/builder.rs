//! Builder of settings.

#[cfg(feature = "env")]
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::addr::parse_brokers;
use super::*;
use crate::metrics::Metrics;
use crate::trace::Propagator;

/// Builds a [`Config`]; [`build`](ConfigBuilder::build) reports all invalid settings together.
///
/// Each setting has a setter here. Settings of one role may also be set together, by the names they
/// have there: see [`producer`](Self::producer), [`consumer`](Self::consumer),
/// [`processor`](Self::processor) and [`tls`](Self::tls).
///
/// ```
/// use std::time::Duration;
/// use ailurus::Config;
///
/// let error = Config::builder()
///     .session_timeout(Duration::from_secs(3))
///     .heartbeat_interval(Duration::from_secs(2))
///     .batch_size(10)
///     .build()
///     .unwrap_err();
/// assert!(error.to_string().contains("ConsumerConfig::heartbeat_interval"));
/// assert!(error.to_string().contains("ProducerConfig::batch_size"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct ConfigBuilder {
    pub(super) config: Config,
    pub(super) problems: Vec<String>,
    /// Token endpoint of the variables, for which `config.sasl` has a placeholder.
    #[cfg(feature = "env")]
    pub(super) token_endpoint: Option<ClientCredentials>,
    #[cfg(feature = "env")]
    pub(super) set_by_variable: BTreeSet<&'static str>,
    /// Values of variables that belong to other crates.
    #[cfg(feature = "env")]
    pub(super) other_variables: BTreeMap<&'static str, Secret>,
    /// True if errors name variables.
    #[cfg(feature = "env")]
    pub(super) reads_variables: bool,
}

impl ConfigBuilder {
    /// Reads the environment and `.env` like [`Config::from_env`], to be changed further by code.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `.env` can't be read.
    #[cfg(feature = "env")]
    pub fn from_env() -> Result<Self> {
        // Lossy: a value that is not UTF-8 is then reported as invalid instead of ignored.
        let text = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
        env::read(std::path::Path::new(".env"), std::env::vars_os().map(|(name, value)| (text(name), text(value))))
    }

    /// Returns whether a variable, such as `REDPANDA_BROKERS`, was set when variables were read.
    ///
    /// ```
    /// use ailurus::ConfigBuilder;
    ///
    /// let read = |name: &str| (name == "REDPANDA_LINGER").then(|| "5".to_owned());
    /// assert!(ConfigBuilder::from_vars(read).has_variable("REDPANDA_LINGER"));
    /// ```
    #[cfg(feature = "env")]
    pub fn has_variable(&self, name: &str) -> bool {
        self.set_by_variable.contains(name)
    }

    /// Returns the value of a variable that was set when variables were read, and is no setting of this
    /// crate: one of `REDPANDA_SCHEMA_REGISTRY_URL`, `_USERNAME`, `_PASSWORD`, `_TOKEN_FILE` and
    /// `_CONTEXT`, for clients of a schema registry. None for all others.
    ///
    /// ```
    /// use ailurus::ConfigBuilder;
    ///
    /// let url = "http://registry:8081";
    /// let read = |name: &str| (name == "REDPANDA_SCHEMA_REGISTRY_URL").then(|| url.to_owned());
    /// let builder = ConfigBuilder::from_vars(read);
    /// assert_eq!(builder.variable("REDPANDA_SCHEMA_REGISTRY_URL").map(|value| value.expose()), Some(url));
    /// ```
    #[cfg(feature = "env")]
    pub fn variable(&self, name: &str) -> Option<&Secret> {
        self.other_variables.get(name)
    }

    /// Reads variables by a function, for tests and for applications with an environment of their
    /// own. No `.env` is read.
    ///
    /// ```
    /// use ailurus::ConfigBuilder;
    ///
    /// let read = |name: &str| (name == "REDPANDA_BROKERS").then(|| "redpanda:29092".to_owned());
    /// let config = ConfigBuilder::from_vars(read).build()?;
    /// assert_eq!(config.brokers[0].port(), 29092);
    /// # Ok::<(), ailurus::Error>(())
    /// ```
    #[cfg(feature = "env")]
    pub fn from_vars(read: impl Fn(&str) -> Option<String>) -> Self {
        let mut builder = Self::default();
        env::apply(&mut builder, read);
        builder
    }

    /// Sets the bootstrap brokers, separated by commas.
    #[must_use]
    pub fn brokers(mut self, list: impl AsRef<str>) -> Self {
        match parse_brokers(list.as_ref()) {
            Ok(brokers) => self.config.brokers = brokers,
            Err(e) => self.problems.push(format!("brokers: {e}")),
        }
        self
    }

    /// Changes the settings of TLS.
    #[must_use]
    pub fn tls(mut self, set: impl FnOnce(TlsConfig) -> TlsConfig) -> Self {
        self.config.tls = set(self.config.tls);
        self
    }

    /// Changes the settings of producers.
    #[must_use]
    pub fn producer(mut self, set: impl FnOnce(ProducerConfig) -> ProducerConfig) -> Self {
        self.config.producer = set(self.config.producer);
        self
    }

    /// Changes the settings of consumers.
    #[must_use]
    pub fn consumer(mut self, set: impl FnOnce(ConsumerConfig) -> ConsumerConfig) -> Self {
        self.config.consumer = set(self.config.consumer);
        self
    }

    /// Changes the settings of processors.
    #[must_use]
    pub fn processor(mut self, set: impl FnOnce(ProcessorConfig) -> ProcessorConfig) -> Self {
        self.config.processor = set(self.config.processor);
        self
    }

    /// Sets the metrics sink: the registry of the crate `ailurus-metrics`, or another implementation.
    #[must_use]
    pub fn metrics(mut self, metrics: Arc<dyn Metrics>) -> Self {
        self.config.metrics = Reporter::to(metrics);
        self
    }

    /// Sets the transport of broker connections.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    #[must_use]
    pub fn transport(mut self, transport: super::Transport) -> Self {
        self.config.transport = transport;
        self
    }

    /// Sets the login of a security protocol that has one.
    #[must_use]
    pub fn sasl(mut self, sasl: SaslConfig) -> Self {
        self.config.sasl = Some(sasl);
        #[cfg(feature = "env")]
        {
            self.token_endpoint = None;
        }
        self
    }

    /// Connects spans to the traces of the application's tracing system.
    #[must_use]
    pub fn propagator(mut self, propagator: Arc<dyn Propagator>) -> Self {
        self.config.propagation = Propagation::by(propagator);
        self
    }

    /// Fetches tokens from the endpoint of the `REDPANDA_SASL_OAUTH_*` variables, if they are set: `provider` returns a source
    /// for it, or the text of an error. Without it, such variables are an error.
    ///
    /// ```
    /// use ailurus::{ConfigBuilder, TokenSource};
    ///
    /// let config = ConfigBuilder::from_vars(|_| None)
    ///     .token_endpoint(|client| Err(format!("{} is not supported", client.token_endpoint)))
    ///     .build();
    /// assert!(config.is_ok(), "no endpoint is set");
    /// ```
    #[cfg(feature = "env")]
    #[must_use]
    pub fn token_endpoint(
        mut self,
        provider: impl FnOnce(&ClientCredentials) -> std::result::Result<TokenSource, String>,
    ) -> Self {
        let Some(client) = self.token_endpoint.take() else { return self };
        match (provider(&client), &mut self.config.sasl) {
            (Ok(source), Some(SaslConfig { mechanism: SaslMechanism::OAuthBearer(bearer), .. })) => {
                bearer.tokens = source
            }
            (Ok(_), _) => {}
            (Err(why), _) => self.problems.push(why),
        }
        self
    }

    /// Validates the settings.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) that lists all invalid settings.
    pub fn build(self) -> Result<Config> {
        let Self { config, mut problems, .. } = self;
        #[cfg(feature = "env")]
        if self.token_endpoint.is_some() {
            problems.push(
                "ClientCredentials::token_endpoint is set, but this application does not fetch tokens from it: \
                 set TokenSource::File, or call ConfigBuilder::token_endpoint"
                    .into(),
            );
        }
        check::check_all(&config, &mut problems);
        #[cfg(feature = "env")]
        if self.reads_variables {
            problems.iter_mut().for_each(|problem| *problem = env::name_variables(problem));
        }
        check::into_result(&problems)?;
        Ok(config)
    }
}

client_settings!(ConfigBuilder [.config] by_setter);
tls_settings!(ConfigBuilder [.config.tls] by_setter);
producer_settings!(ConfigBuilder [.config.producer] by_setter);
consumer_settings!(ConfigBuilder [.config.consumer] by_setter);
processor_settings!(ConfigBuilder [.config.processor] by_setter);
