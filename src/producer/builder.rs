//! The start of a producer.

use std::time::Duration;

use super::Producer;
use crate::cluster::Client;
use crate::config::{Acks, Compression, PartitionerKind, ProducerConfig, producer_settings};
use crate::error::Result;

/// Starts a [`Producer`] with the client's settings, or others.
///
/// ```no_run
/// # fn example(client: &ailurus::Client) -> ailurus::Result<()> {
/// use std::time::Duration;
///
/// let producer = client.producer().linger(Duration::from_millis(5)).start()?;
/// # drop(producer);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ProducerBuilder {
    client: Client,
    config: ProducerConfig,
}

producer_settings!(ProducerBuilder [.config] by_field, all by config);

impl ProducerBuilder {
    /// Starts the producer, which connects on first use. One serves a whole process: cloning it is
    /// cheap, and records of all clones are batched together.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a setting is out of bounds.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(self) -> Result<Producer> {
        Producer::new(&self.client, self.config)
    }
}

impl Client {
    /// Configures a producer: by default with [`Config::producer`](crate::Config::producer).
    #[must_use = "a builder does nothing by itself"]
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder { client: self.clone(), config: self.config().producer.clone() }
    }
}
