//! Settings by code.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::addr::parse_brokers;
use super::*;
use crate::metrics::Metrics;
use crate::trace::Propagator;

/// Builds a [`Config`]; all that is wrong with it is reported together by [`build`](ConfigBuilder::build).
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
/// assert!(error.to_string().contains("heartbeat interval"));
/// assert!(error.to_string().contains("batch size"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct ConfigBuilder {
    pub(super) config: Config,
    pub(super) problems: Vec<String>,
    pub(super) set_by_variable: BTreeSet<&'static str>,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty => $($field:ident).+;)*) => { $(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, value: $type) -> Self {
            self.config.$($field).+ = value;
            self
        }
    )* };
}

impl ConfigBuilder {
    /// Reads the environment and `.env`, as [`Config::from_env`] does, for further settings in code.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `.env` can't be read.
    pub fn from_env() -> Result<Self> {
        // Lossy: a value that is no text is to be refused and not to be ignored.
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
    pub fn has_variable(&self, name: &str) -> bool {
        self.set_by_variable.contains(name)
    }

    /// Reads variables by a function, for tests and for programs with an environment of their own. No `.env` is read.
    ///
    /// ```
    /// use ailurus::ConfigBuilder;
    ///
    /// let read = |name: &str| (name == "REDPANDA_BROKERS").then(|| "redpanda:29092".to_owned());
    /// let config = ConfigBuilder::from_vars(read).build()?;
    /// assert_eq!(config.brokers[0].port(), 29092);
    /// # Ok::<(), ailurus::Error>(())
    /// ```
    pub fn from_vars(read: impl Fn(&str) -> Option<String>) -> Self {
        let mut builder = Self::default();
        env::apply(&mut builder, read);
        builder
    }

    /// The brokers to begin with, separated by commas.
    #[must_use]
    pub fn brokers(mut self, list: impl AsRef<str>) -> Self {
        match parse_brokers(list.as_ref()) {
            Ok(brokers) => self.config.brokers = brokers,
            Err(e) => self.problems.push(format!("brokers: {e}")),
        }
        self
    }

    /// The name brokers log for our requests.
    #[must_use]
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.config.client_id = id.into();
        self
    }

    /// The consumer group where none is named.
    #[must_use]
    pub fn group_id(mut self, id: impl Into<String>) -> Self {
        self.config.group_id = id.into();
        self
    }

    /// [`ConsumerConfig::client_rack`].
    #[must_use]
    pub fn client_rack(mut self, rack: impl Into<String>) -> Self {
        self.config.consumer.client_rack = Some(rack.into());
        self
    }

    /// Who is told what the client does: a [`Registry`](crate::metrics::Registry), or one of your own.
    #[must_use]
    pub fn metrics(mut self, metrics: Arc<dyn Metrics>) -> Self {
        self.config.metrics = Reporter::to(metrics);
        self
    }

    /// The login of a security protocol that has one.
    #[must_use]
    pub fn sasl(mut self, sasl: SaslConfig) -> Self {
        self.config.sasl = Some(sasl);
        self
    }

    /// Ties spans to the traces of the program's tracing system.
    #[must_use]
    pub fn propagator(mut self, propagator: Arc<dyn Propagator>) -> Self {
        self.config.propagation = Propagation::by(propagator);
        self
    }

    /// Puts a provider in the place of a token endpoint's settings, if tokens come from one: see [`TokenSource::ClientCredentials`].
    /// A provider that can't be made of them says why.
    ///
    /// ```
    /// use ailurus::{ConfigBuilder, TokenSource};
    ///
    /// let config = ConfigBuilder::from_vars(|_| None)
    ///     .token_endpoint(|client| Err(format!("{} is not reached from here", client.token_endpoint)))
    ///     .build();
    /// assert!(config.is_ok(), "these settings have no endpoint");
    /// ```
    #[must_use]
    pub fn token_endpoint(
        mut self,
        provider: impl FnOnce(&ClientCredentials) -> std::result::Result<TokenSource, String>,
    ) -> Self {
        if let Some(SaslConfig { mechanism: SaslMechanism::OAuthBearer(bearer), .. }) = &mut self.config.sasl {
            if let TokenSource::ClientCredentials(client) = &bearer.tokens {
                match provider(client) {
                    Ok(tokens) => bearer.tokens = tokens,
                    Err(why) => self.problems.push(why),
                }
            }
        }
        self
    }

    /// Compression for one topic: adds to [`ProducerConfig::topic_compression`].
    #[must_use]
    pub fn topic_compression(mut self, topic: impl Into<String>, compression: Compression) -> Self {
        self.config.producer.topic_compression.insert(topic.into(), compression);
        self
    }

    setters! {
        /// What connections are made of.
        security_protocol: SecurityProtocol => security_protocol;
        /// Settings of TLS.
        tls: TlsConfig => tls;
        /// Whether producing or subscribing may create topics.
        allow_auto_topic_creation: bool => allow_auto_topic_creation;
        /// How long a request may take.
        request_timeout: Duration => request_timeout;
        /// How long to try one address of a broker.
        connect_timeout: Duration => connect_timeout;
        /// [`Config::health_timeout`].
        health_timeout: Duration => health_timeout;
        /// The age at which metadata is asked for anew.
        metadata_max_age: Duration => metadata_max_age;
        /// [`Config::metadata_max_idle`].
        metadata_max_idle: Duration => metadata_max_idle;
        /// [`Config::topic_creation_timeout`].
        topic_creation_timeout: Duration => topic_creation_timeout;
        /// The wait before a failed request is tried again.
        retry_backoff: Duration => retry_backoff;
        /// The longest wait between two tries.
        retry_backoff_max: Duration => retry_backoff_max;
        /// [`ProducerConfig::acks`].
        acks: Acks => producer.acks;
        /// [`ProducerConfig::idempotence`].
        idempotence: bool => producer.idempotence;
        /// [`ProducerConfig::linger`].
        linger: Duration => producer.linger;
        /// [`ProducerConfig::batch_size`].
        batch_size: usize => producer.batch_size;
        /// [`ProducerConfig::buffer_memory`].
        buffer_memory: usize => producer.buffer_memory;
        /// [`ProducerConfig::max_request_size`].
        max_request_size: usize => producer.max_request_size;
        /// [`ProducerConfig::delivery_timeout`].
        delivery_timeout: Duration => producer.delivery_timeout;
        /// [`ProducerConfig::compression`].
        compression: Compression => producer.compression;
        /// [`ProducerConfig::partitioner`].
        partitioner: PartitionerKind => producer.partitioner;
        /// [`ProducerConfig::adaptive_partitioning`].
        adaptive_partitioning: bool => producer.adaptive_partitioning;
        /// [`ProducerConfig::partition_availability_timeout`].
        partition_availability_timeout: Duration => producer.partition_availability_timeout;
        /// [`ConsumerConfig::session_timeout`].
        session_timeout: Duration => consumer.session_timeout;
        /// [`ConsumerConfig::rebalance_timeout`].
        rebalance_timeout: Duration => consumer.rebalance_timeout;
        /// [`ConsumerConfig::max_poll_interval`].
        max_poll_interval: Duration => consumer.max_poll_interval;
        /// [`ConsumerConfig::heartbeat_interval`].
        heartbeat_interval: Duration => consumer.heartbeat_interval;
        /// [`ConsumerConfig::assignors`].
        assignors: Vec<AssignorKind> => consumer.assignors;
        /// [`ConsumerConfig::group_protocol`].
        group_protocol: GroupProtocol => consumer.group_protocol;
        /// [`ConsumerConfig::group_instance_id`].
        group_instance_id: Option<String> => consumer.group_instance_id;
        /// [`ConsumerConfig::group_remote_assignor`].
        group_remote_assignor: Option<String> => consumer.group_remote_assignor;
        /// [`ConsumerConfig::offset_reset`].
        offset_reset: OffsetReset => consumer.offset_reset;
        /// [`ConsumerConfig::isolation_level`].
        isolation_level: IsolationLevel => consumer.isolation_level;
        /// [`ConsumerConfig::auto_commit_interval`].
        auto_commit_interval: Option<Duration> => consumer.auto_commit_interval;
        /// All settings of consumers.
        consumer: ConsumerConfig => consumer;
        /// All settings of producers.
        producer: ProducerConfig => producer;
        /// All settings of processors.
        processor: ProcessorConfig => processor;
        /// [`ProcessorConfig::ordering`].
        handler_ordering: HandlerOrdering => processor.ordering;
        /// [`ProcessorConfig::concurrency`].
        handler_concurrency: usize => processor.concurrency;
        /// [`ProcessorConfig::attempt_timeout`].
        attempt_timeout: Option<Duration> => processor.attempt_timeout;
        /// [`ProcessorConfig::max_attempts`].
        max_attempts: u32 => processor.max_attempts;
        /// [`ProcessorConfig::dead_letter_retention`].
        dead_letter_retention: Option<Duration> => processor.dead_letter_retention;
        /// [`ProcessorConfig::shutdown_timeout`].
        shutdown_timeout: Duration => processor.shutdown_timeout;
        /// [`ProcessorConfig::stall_timeout`].
        stall_timeout: Duration => processor.stall_timeout;
    }

    /// Checks everything.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) that lists all that is wrong.
    pub fn build(self) -> Result<Config> {
        let Self { config, mut problems, .. } = self;
        check::all(&config, &mut problems);
        check::outcome(&problems)?;
        Ok(config)
    }
}
