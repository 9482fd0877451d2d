//! Settings: typed, validated together, from code, from the environment or from a `.env` file.

mod addr;
mod builder;
mod check;
mod compression;
mod consumer;
mod dotenv;
mod env;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod group_name;
mod partitioner;
mod processor;
mod producer;
mod sasl;
mod secret;
mod security;

use std::time::Duration;

pub use addr::BrokerAddr;
pub use builder::ConfigBuilder;
pub use compression::Compression;
pub use consumer::{AssignorKind, ConsumerConfig, GroupProtocol, IsolationLevel, OffsetReset};
pub use group_name::GroupName;
pub use partitioner::PartitionerKind;
pub use processor::{HandlerOrdering, ProcessorConfig};
pub use producer::{Acks, ProducerConfig};
pub use sasl::{
    ClientCredentials, Credentials, OAuthBearer, SaslConfig, SaslMechanism, TokenError, TokenFuture, TokenProvider,
    TokenSource,
};
pub use secret::Secret;
pub use security::{SecurityProtocol, TlsConfig};

use crate::error::Result;
use crate::metrics::Reporter;
use crate::trace::Propagation;

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
pub struct Config {
    /// The brokers to begin with; the rest of the cluster is learned from them. Default `localhost:9092`.
    pub brokers: Vec<BrokerAddr>,
    /// What connections are made of; default [`SecurityProtocol::Plaintext`].
    pub security_protocol: SecurityProtocol,
    /// Settings of TLS, if the security protocol has it.
    pub tls: TlsConfig,
    /// The login, if the security protocol has one; default none.
    pub sasl: Option<SaslConfig>,
    /// The name brokers log for our requests and apply quotas by; default `ailurus`. 1 to 249 characters.
    pub client_id: String,
    /// The consumer group of subscriptions that name none (see [`GroupName`]); default `ailurus-group`.
    pub group_id: String,
    /// Whether producing or subscribing to a topic that does not exist may create it, if the broker allows it too;
    /// default true. Reading, listing and health never create one.
    pub allow_auto_topic_creation: bool,
    /// How long a request may take, default 30 s; its connection is closed after that. 100 ms to 10 minutes. Lower it to leave
    /// a broker that hangs sooner, raise it where brokers are slow but sure.
    pub request_timeout: Duration,
    /// How long to try one address of a broker, default 10 s. 10 ms to 2 minutes.
    pub connect_timeout: Duration,
    /// How long a look at the health of cluster and subscriptions may take, default 3 s; what has not answered by then counts as
    /// not answering. 100 ms to 60 s. Keep it below the timeout of whoever asks, such as Kubernetes' `timeoutSeconds`.
    pub health_timeout: Duration,
    /// The age at which what we know of topics is asked for anew, default 5 minutes. 1 ms to 1 day. New partitions of a
    /// growing topic are seen after this at the latest.
    pub metadata_max_age: Duration,
    /// How long a topic may go unused, neither produced to nor read, before this client forgets it and asks for its metadata no
    /// more; default 5 minutes. 1 ms to 1 day. Its next use looks it up again. Raise it where many topics are used seldom.
    pub metadata_max_idle: Duration,
    /// How long a topic that producing or subscribing asks the broker to create may take to appear, default 10 s. 1 ms to 1 hour.
    /// A broker that says that it creates none is not waited for.
    pub topic_creation_timeout: Duration,
    /// The wait before a failed request is tried again, default 100 ms; it doubles each time, with jitter. 1 ms to 60 s. Raise
    /// it where many clients would come back to a broker at once.
    pub retry_backoff: Duration,
    /// The longest wait between two tries, default 1 s. `retry_backoff` to 10 minutes.
    pub retry_backoff_max: Duration,
    /// Who is told what the client does; default nobody. See [`metrics`](crate::metrics).
    pub metrics: Reporter,
    /// How spans belong to the traces of the program's tracing system; default not at all. See
    /// [`Propagator`](crate::trace::Propagator).
    pub propagation: Propagation,
    /// What producers do unless told otherwise.
    pub producer: ProducerConfig,
    /// What consumers do unless told otherwise.
    pub consumer: ConsumerConfig,
    /// What processors do unless told otherwise.
    pub processor: ProcessorConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: vec![BrokerAddr::new("localhost", BrokerAddr::DEFAULT_PORT)],
            security_protocol: SecurityProtocol::Plaintext,
            tls: TlsConfig::default(),
            sasl: None,
            client_id: "ailurus".into(),
            group_id: "ailurus-group".into(),
            allow_auto_topic_creation: true,
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            health_timeout: Duration::from_secs(3),
            metadata_max_age: Duration::from_secs(300),
            metadata_max_idle: Duration::from_secs(300),
            topic_creation_timeout: Duration::from_secs(10),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            metrics: Reporter::default(),
            propagation: Propagation::default(),
            producer: ProducerConfig::default(),
            consumer: ConsumerConfig::default(),
            processor: ProcessorConfig::default(),
        }
    }
}

impl Config {
    /// Starts from the defaults.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// Reads the `REDPANDA_*` variables of the environment and, for those not set there, of the file `.env` in the working
    /// directory, if there is one. An empty variable counts as not set. A `REDPANDA_*` variable that is no setting is named in
    /// a warning, once in a process, with the nearest one that is.
    ///
    /// `.env` has one `NAME=value` a line; lines of other tools are left alone. A value may stand bare, up to a blank and `#`, or
    /// in single or double quotes; in double ones `\\`, `\"`, `\$`, `\n`, `\r` and `\t` are escapes. A `$` stands for itself
    /// everywhere.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) that lists every variable whose value is not allowed, with the value and what is allowed, or
    /// the line of `.env` that can't be read.
    pub fn from_env() -> Result<Self> {
        ConfigBuilder::from_env()?.build()
    }
}

#[cfg(test)]
mod tests;
