//! The façade most programs use.

use std::future::Future;
use std::time::Duration;

use crate::cluster::Client;
use crate::config::{Compression, Config};
use crate::consumer::Message;
use crate::error::Result;
use crate::event::Event;
use crate::health::Health;
use crate::processor::{BoxError, Subscription};
use crate::producer::Acknowledgement;
use crate::record::Headers;

/// What [`RedpandaService::send_message`] can be told beside topic and event.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SendOptions {
    /// The key, if not the event's own.
    pub key: Option<String>,
    /// The partition, if not chosen by key.
    pub partition: Option<i32>,
    /// Another codec than the producer's.
    pub compression: Option<Compression>,
    /// Headers beside those of the event's envelope.
    pub headers: Headers,
    /// Milliseconds since 1970, if not the event's time.
    pub timestamp: Option<i64>,
    /// The event's source, if not the client id.
    pub source: Option<String>,
}

impl SendOptions {
    /// Nothing special.
    pub fn new() -> Self {
        Self::default()
    }
    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }
    /// Sets the partition.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }
    /// Sets the codec.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push(key, Some(value.as_ref()));
        self
    }
    /// Sets the source.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// One message of [`RedpandaService::send_batch`]: an event, made ready to send.
#[derive(Debug, Clone)]
pub struct EventMessage(());

impl EventMessage {
    /// An event with options.
    ///
    /// # Errors
    /// [`ErrorKind::Event`](crate::ErrorKind::Event) if it can't be encoded.
    pub fn new<E: Event>(_event: &E, _options: SendOptions) -> Result<Self> {
        todo!()
    }
}

/// Sends events, runs handlers, tells how things are. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RedpandaService(());

impl RedpandaService {
    /// Connects.
    pub async fn connect(_config: Config) -> Result<Self> {
        todo!()
    }
    /// The client below, for what the service has no word for.
    pub fn client(&self) -> &Client {
        todo!()
    }
    /// Sends an event and waits for its acknowledgement by all in-sync replicas.
    pub async fn send_message<E: Event>(
        &self,
        _topic: &str,
        _event: &E,
        _options: SendOptions,
    ) -> Result<Acknowledgement> {
        todo!()
    }
    /// Sends several and waits for all of them; the results are in the messages' order.
    pub async fn send_batch(&self, _topic: &str, _messages: Vec<EventMessage>) -> Result<Vec<Result<Acknowledgement>>> {
        todo!()
    }
    /// Joins `group`, reads `topics` and hands each record to `handler`; the service's health shows it while it lives.
    pub async fn subscribe<H, F, E>(&self, _topics: &[&str], _group: &str, _handler: H) -> Result<Subscription>
    where
        H: Fn(Message) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        todo!()
    }
    /// How brokers and subscriptions are. Never fails: what can't be reached is in the answer.
    pub async fn health(&self) -> Health {
        todo!()
    }
    /// Sends what is waiting, then closes producer and connections.
    pub async fn close(&self, _timeout: Duration) -> Result<()> {
        todo!()
    }
}
