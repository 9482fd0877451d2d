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
mod keyword;
mod parse;
mod partitioner;
mod processor;
mod producer;
mod sasl;
mod secret;
mod security;
mod table;

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
    pub struct Config(self) in [config];

    /// The brokers to begin with; the rest of the cluster is learned from them.
    brokers by hand: Vec<BrokerAddr> = vec![BrokerAddr::new("localhost", BrokerAddr::DEFAULT_PORT)], "REDPANDA_BROKERS" brokers;
    /// What connections are made of.
    security_protocol: SecurityProtocol = SecurityProtocol::Plaintext, "REDPANDA_SECURITY_PROTOCOL" security_protocol;
    /// The name brokers log for our requests and apply quotas by. 1 to 249 characters.
    client_id by text: String = "ailurus".into(), "REDPANDA_CLIENT_ID" text;
    /// The consumer group of subscriptions that name none (see [`GroupName`]).
    group_id by text: String = "ailurus-group".into(), "REDPANDA_CONSUMER_GROUP_ID" text;
    /// Whether producing or subscribing to a topic that does not exist may create it, if the broker allows it too.
    /// Reading, listing and health never create one.
    allow_auto_topic_creation: bool = true, "REDPANDA_ALLOW_AUTO_TOPIC_CREATION" boolean;
    /// How long a request may take; its connection is closed after that. Lower it to leave
    /// a broker that hangs sooner, raise it where brokers are slow but sure.
    request_timeout: Duration = secs(30), "REDPANDA_REQUEST_TIMEOUT" millis, in millis(100)..=minutes(10);
    /// How long to try one address of a broker.
    connect_timeout: Duration = secs(10), "REDPANDA_CONNECT_TIMEOUT" millis, in millis(10)..=minutes(2);
    /// How long a look at the health of cluster and subscriptions may take; what has not answered by then counts as
    /// not answering. Keep it below the timeout of whoever asks, such as Kubernetes' `timeoutSeconds`.
    health_timeout: Duration = secs(3), "REDPANDA_HEALTH_TIMEOUT" millis, in millis(100)..=secs(60);
    /// The age at which what we know of topics is asked for again. New partitions of a
    /// growing topic are seen after this at the latest.
    metadata_max_age: Duration = minutes(5), "REDPANDA_METADATA_MAX_AGE" millis, in millis(1)..=days(1);
    /// How long a topic may go unused, neither produced to nor read, before this client forgets it and asks for its metadata no
    /// more. Its next use looks it up again. Raise it where many topics are used seldom.
    metadata_max_idle: Duration = minutes(5), "REDPANDA_METADATA_MAX_IDLE" millis, in millis(1)..=days(1);
    /// How long a topic that producing or subscribing asks the broker to create may take to appear.
    /// A broker that says that it creates none is not waited for.
    topic_creation_timeout: Duration = secs(10), "REDPANDA_TOPIC_CREATION_TIMEOUT" millis, in millis(1)..=hours(1);
    /// The wait before a failed request is tried again; it doubles each time, with jitter. Raise
    /// it where many clients would come back to a broker at once.
    retry_backoff: Duration = millis(100), "REDPANDA_RETRY_BACKOFF" millis, in millis(1)..=secs(60);
    /// The longest wait between two tries.
    retry_backoff_max: Duration = secs(1), "REDPANDA_RETRY_BACKOFF_MAX" millis, in self.retry_backoff..=minutes(10);
    + {
        /// Settings of TLS, if the security protocol has it.
        pub tls: TlsConfig = TlsConfig::default();
        /// The login, if the security protocol has one; default none.
        pub sasl by hand: Option<SaslConfig> = None;
        /// Who is told what the client does; default nobody. See [`metrics`](crate::metrics).
        pub metrics by hand: Reporter = Reporter::default();
        /// How spans belong to the traces of the program's tracing system; default not at all. See
        /// [`Propagator`](crate::trace::Propagator).
        pub propagation by hand: Propagation = Propagation::default();
        /// What producers do unless told otherwise.
        pub producer: ProducerConfig = ProducerConfig::default();
        /// What consumers do unless told otherwise.
        pub consumer: ConsumerConfig = ConsumerConfig::default();
        /// What processors do unless told otherwise.
        pub processor: ProcessorConfig = ProcessorConfig::default();
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
