//! Settings: typed, validated together, from code, the environment or a `.env` file.

mod addr;
mod builder;
mod check;
mod compression;
mod consumer;
#[cfg(feature = "env")]
mod dotenv;
#[cfg(feature = "env")]
mod env;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod group_name;
mod keyword;
#[cfg(feature = "env")]
mod parse;
mod partitioner;
mod processor;
mod producer;
mod sasl;
mod secret;
mod security;
pub(crate) mod table;
mod transport;

use std::time::Duration;

pub use addr::BrokerAddr;
pub use builder::ConfigBuilder;
pub use compression::Compression;
pub use consumer::{AssignorKind, ConsumerConfig, GroupProtocol, IsolationLevel, OffsetReset};
#[cfg(feature = "env")]
pub use env::name_variables;
pub use group_name::GroupName;
pub use partitioner::PartitionerKind;
pub use processor::{HandlerOrdering, ProcessorConfig};
pub use producer::{Acks, ProducerConfig};
#[cfg(feature = "env")]
pub use sasl::ClientCredentials;
pub use sasl::{
    Credentials, OAuthBearer, SaslConfig, SaslMechanism, TokenError, TokenFuture, TokenProvider, TokenSource,
};
pub use secret::Secret;
pub use security::{SecurityProtocol, TlsConfig};
#[doc(hidden)]
pub use transport::Transport;

pub(crate) use consumer::consumer_settings;
pub(crate) use processor::processor_settings;
pub(crate) use producer::producer_settings;
use security::tls_settings;
use table::{days, hours, millis, minutes, secs, settings};

use crate::error::Result;
use crate::metrics::Reporter;
use crate::trace::Propagation;

settings! {
    /// All settings of a client.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ailurus::Config;
    ///
    /// let config = Config::builder()
    ///     .brokers("localhost:9092,localhost:9093")
    ///     .client_id("checkout")
    ///     .linger(Duration::from_millis(5))
    ///     .build()?;
    /// assert_eq!(config.brokers.len(), 2);
    /// # Ok::<(), ailurus::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct Config(self) {
        /// Bootstrap brokers; the rest of the cluster is discovered from them.
        brokers: Vec<BrokerAddr> = vec![BrokerAddr::new("localhost", BrokerAddr::DEFAULT_PORT)], "REDPANDA_BROKERS" brokers;
        /// Transport security of broker connections.
        security_protocol: SecurityProtocol = SecurityProtocol::Plaintext, "REDPANDA_SECURITY_PROTOCOL" security_protocol;
        /// Client id, which brokers log and apply quotas by. 1 to 249 characters.
        client_id: String = "ailurus".into(), "REDPANDA_CLIENT_ID" text;
        /// Default consumer group, of subscriptions that name none. See [`GroupName`].
        group_id: String = "ailurus-group".into(), "REDPANDA_CONSUMER_GROUP_ID" text;
        /// Producing or subscribing to a topic that does not exist creates it, if the broker allows
        /// it too. Reading, listing and health checks never create one.
        allow_auto_topic_creation: bool = true, "REDPANDA_ALLOW_AUTO_TOPIC_CREATION" boolean;
        /// Maximum time until a response; the connection is closed after it. Lower it to abandon a
        /// hanging broker sooner, raise it where brokers are slow.
        request_timeout: Duration = secs(30), "REDPANDA_REQUEST_TIMEOUT" millis, in millis(100)..=minutes(10);
        /// Maximum time to connect to one address of a broker.
        connect_timeout: Duration = secs(10), "REDPANDA_CONNECT_TIMEOUT" millis, in millis(10)..=minutes(2);
        /// Maximum time of a health check; a broker that has not responded by then counts as down.
        /// Keep it below the timeout of the caller, such as Kubernetes' `timeoutSeconds`.
        health_timeout: Duration = secs(3), "REDPANDA_HEALTH_TIMEOUT" millis, in millis(100)..=secs(60);
        /// Maximum age of topic metadata before it is refreshed. New partitions are discovered
        /// within it.
        metadata_max_age: Duration = minutes(5), "REDPANDA_METADATA_MAX_AGE" millis, in millis(1)..=days(1);
        /// Time after which a topic that is neither produced to nor read is dropped from the cache
        /// and no longer refreshed. Its next use looks it up again. Raise it where many topics are
        /// used seldom.
        metadata_max_idle: Duration = minutes(5), "REDPANDA_METADATA_MAX_IDLE" millis, in millis(1)..=days(1);
        /// Maximum time until a topic that producing or subscribing creates appears. If the broker
        /// responds that it does not create topics, the call fails at once.
        topic_creation_timeout: Duration = secs(10), "REDPANDA_TOPIC_CREATION_TIMEOUT" millis, in millis(1)..=hours(1);
        /// Wait before the first retry of a failed request; doubles with each retry, with jitter.
        /// Raise it where many clients could retry at one broker at the same time.
        retry_backoff: Duration = millis(100), "REDPANDA_RETRY_BACKOFF" millis, in millis(1)..=secs(60);
        /// Maximum wait between two retries.
        retry_backoff_max: Duration = secs(1), "REDPANDA_RETRY_BACKOFF_MAX" millis, in self.retry_backoff..=minutes(10);
    }
    and {
        /// TLS, for security protocols that have it.
        pub tls: TlsConfig = TlsConfig::default();
        /// SASL login, for security protocols that have it; default none.
        pub sasl: Option<SaslConfig> = None;
        /// Metrics sink; default none. See [`metrics`](crate::metrics).
        pub metrics: Reporter = Reporter::default();
        /// Connects spans to the traces of the application's tracing system; default none. See
        /// [`Propagator`](crate::trace::Propagator).
        pub propagation: Propagation = Propagation::default();
        /// Transport of broker connections.
        #[doc(hidden)]
        pub transport: Transport = Transport::default();
        /// Defaults of producers.
        pub producer: ProducerConfig = ProducerConfig::default();
        /// Defaults of consumers.
        pub consumer: ConsumerConfig = ConsumerConfig::default();
        /// Defaults of processors.
        pub processor: ProcessorConfig = ProcessorConfig::default();
    }
    setters: client_settings;
}

impl Config {
    /// Starts from the defaults.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// Reads the `REDPANDA_*` variables of the environment and, for those not set there, of the
    /// file `.env` in the working directory, if it exists. An empty variable counts as not set. An
    /// unknown `REDPANDA_*` variable is logged as a warning, once per process, with the most
    /// similar known one.
    ///
    /// `.env` has one `NAME=value` a line; lines of other tools are ignored. A value is bare, up to
    /// a blank and `#`, or in single or double quotes; in double ones `\\`, `\"`, `\$`, `\n`, `\r`
    /// and `\t` are escapes. `$` is never substituted.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) that lists every variable with an invalid
    /// value, the value and what is allowed; or the line of `.env` that can't be parsed.
    #[cfg(feature = "env")]
    pub fn from_env() -> Result<Self> {
        ConfigBuilder::from_env()?.build()
    }
}

#[cfg(test)]
mod tests;
