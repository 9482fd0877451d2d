//! The facade for most applications: sends events, runs handlers, reports health.

use std::time::Duration;

use serde::Serialize;

use crate::cluster::Client;
use crate::config::{Compression, Config, GroupName};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Codec, EncodedEvent, Event};
use crate::health::Health;
use crate::processor::{Handler, Subscription};
use crate::producer::{Acknowledgement, Delivery, Producer, ProducerRecord};
use crate::record::{Header, Headers};
use crate::timestamp::Timestamp;
use crate::trace::TraceContext;

/// The header of an event's id.
const ID: &str = "ce_id";

/// Options of [`RedpandaService::send_message`].
///
/// ```
/// use ailurus::{Compression, SendOptions};
///
/// let options = SendOptions::new().compression(Compression::gzip(3)?).header("tenant", "berlin");
/// assert_eq!(options.headers.get_str("tenant"), Some("berlin"));
/// # Ok::<(), ailurus::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SendOptions {
    /// Id of the event; by default a new one. Set it to send an event again after an indeterminate
    /// error ([`Error::event_id`](crate::Error::event_id)), or one that was stored with its id, as
    /// in an outbox. Not empty. Must not be set in options that several events share.
    pub id: Option<String>,
    /// Key; by default the event's.
    pub key: Option<String>,
    /// Partition; by default chosen by key.
    pub partition: Option<i32>,
    /// Codec; by default the producer's.
    pub compression: Option<Compression>,
    /// Headers in addition to those of the event's envelope. A header named like one of the
    /// envelope, such as `ce_time`, replaces it; `ce_id` sets the event's id unless `id` is set.
    pub headers: Headers,
    /// Timestamp; by default the event's time.
    pub timestamp: Option<Timestamp>,
    /// Source of the event; by default the client id.
    pub source: Option<String>,
    /// Trace context, written into the headers.
    pub trace: Option<TraceContext>,
}

impl SendOptions {
    /// Creates options with the defaults.
    pub fn new() -> Self {
        Self::default()
    }
    /// Sets the event's id.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }
    /// Sets the record's timestamp.
    #[must_use]
    pub fn timestamp(mut self, timestamp: impl Into<Timestamp>) -> Self {
        self.timestamp = Some(timestamp.into());
        self
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
    /// Sets the trace, if there is one.
    #[must_use]
    pub fn trace<'a>(mut self, trace: impl Into<Option<&'a TraceContext>>) -> Self {
        self.trace = trace.into().cloned();
        self
    }
}

/// An encoded event with its options, for [`RedpandaService::send_batch`].
///
/// See [`RedpandaService`] for an example.
#[derive(Debug, Clone)]
pub struct EventMessage {
    event: EncodedEvent,
    options: SendOptions,
}

impl EventMessage {
    /// Encodes an event. Its id and time are set here, so that sending it twice sends the same
    /// event.
    ///
    /// # Errors
    /// [`ErrorKind::Event`] if it can't be written as JSON, or if the id in `options` is invalid.
    pub fn new<E: Event + Serialize>(event: &E, mut options: SendOptions) -> Result<Self> {
        let id = take_id::<E>(&mut options)?;
        Ok(Self { event: EncodedEvent::new(event, id)?, options })
    }

    /// Encodes an event for a topic by a codec.
    ///
    /// # Errors
    /// [`ErrorKind::Event`] if it can't be encoded, or if the id in `options` is invalid; others of the codec.
    pub async fn encode<E: Event>(
        codec: &(impl Codec<E> + ?Sized),
        topic: &str,
        event: &E,
        mut options: SendOptions,
    ) -> Result<Self> {
        let id = take_id::<E>(&mut options)?;
        let what = |e: Error| e.context(format!("{} can't be encoded for {topic}", E::TYPE));
        let encoded = codec.encode(topic, event).await.map_err(what)?;
        Ok(Self { event: EncodedEvent::with(event, id, encoded)?, options })
    }

    /// Returns the id of the event, the same in each record that it is sent as.
    pub fn id(&self) -> &str {
        self.event.id()
    }
}

/// Takes the id out of options, which may have it in a header.
fn take_id<E: Event>(options: &mut SendOptions) -> Result<Option<String>> {
    let is_id = |h: &Header<'_>| h.key_bytes() == ID.as_bytes();
    if options.headers.iter().any(|h| is_id(&h)) {
        // Written once, and returned with errors.
        let given = options.headers.get(ID).unwrap_or_default();
        let given = std::str::from_utf8(given)
            .map_err(|_| Error::new(ErrorKind::Event, format!("the header {ID} given for {} is not UTF-8", E::TYPE)))?;
        options.id = options.id.take().or_else(|| Some(given.to_owned()));
        options.headers = options.headers.iter().filter(|h| !is_id(h)).collect();
    }
    Ok(options.id.take())
}

/// Sends events, runs handlers, reports health. Cheap to clone; all clones share a producer and
/// connections.
///
/// ```no_run
/// # async fn example() -> ailurus::Result<()> {
/// use std::{borrow::Cow, time::Duration};
/// use ailurus::{Config, Envelope, Event, EventMessage, RedpandaService, SendOptions};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// #[serde(rename_all = "camelCase")]
/// struct OrderPaid {
///     order_id: String,
/// }
/// impl Event for OrderPaid {
///     const TYPE: &'static str = "order.paid";
///     fn key(&self) -> Option<Cow<'_, str>> {
///         Some(self.order_id.as_str().into())
///     }
/// }
///
/// let service = RedpandaService::connect(Config::from_env()?).await?;
/// let handle = |event: Envelope<OrderPaid>| async move { println!("{} is paid", event.data.order_id) };
/// let subscription = service.subscribe(["orders"], "billing", handle).await?;
/// service.send_message("orders", &OrderPaid { order_id: "o-1".into() }, SendOptions::new()).await?;
/// let two = ["o-2", "o-3"].map(|id| EventMessage::new(&OrderPaid { order_id: id.into() }, SendOptions::new()));
/// for outcome in service.send_batch("orders", two.into_iter().collect::<Result<_, _>>()?).await {
///     println!("at offset {:?}", outcome?.offset);
/// }
/// subscription.shutdown().await?;
/// service.close(Duration::from_secs(10)).await
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RedpandaService {
    client: Client,
    producer: Producer,
}

impl RedpandaService {
    /// Connects to a cluster.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] with the failure of each broker.
    pub async fn connect(config: Config) -> Result<Self> {
        Self::new(&Client::connect(config).await?)
    }

    /// Creates a service on a client, connected or not.
    ///
    /// # Errors
    /// Producer settings out of bounds.
    pub fn new(client: &Client) -> Result<Self> {
        let producer = client.producer().start()?;
        Ok(Self { client: client.clone(), producer })
    }

    /// Returns the client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the producer of all messages.
    pub fn producer(&self) -> &Producer {
        &self.producer
    }

    /// Sends an event and waits until all in-sync replicas have it.
    ///
    /// The record's key, which decides on its partition, is the event's [`key`](Event::key); its
    /// value is the event as JSON; its headers are the event's CloudEvents attributes, then those
    /// of `options`.
    ///
    /// # Errors
    /// The errors of [`Producer::send`] and [`Delivery`]; [`ErrorKind::Event`] if the event can't
    /// be written as JSON. After an indeterminate error, send the event again with its id,
    /// [`Error::event_id`](crate::Error::event_id).
    ///
    /// ```no_run
    /// # async fn example<E: ailurus::Event + serde::Serialize>(service: &ailurus::RedpandaService, event: &E) -> ailurus::Result<()> {
    /// use ailurus::SendOptions;
    ///
    /// if let Err(error) = service.send_message("orders", event, SendOptions::new()).await {
    ///     let Some(id) = error.event_id().filter(|_| error.is_indeterminate()) else { return Err(error) };
    ///     // If it is written twice, consumers that deduplicate by id see one event.
    ///     service.send_message("orders", event, SendOptions::new().id(id)).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// If the future is dropped, the event may be sent or not.
    pub async fn send_message<E: Event + Serialize>(
        &self,
        topic: &str,
        event: &E,
        options: SendOptions,
    ) -> Result<Acknowledgement> {
        self.send_event(topic, &EventMessage::new(event, options)?).await
    }

    /// Sends an event, encoded by a codec, and waits until all in-sync replicas have it. All else is as in
    /// [`send_message`](Self::send_message).
    ///
    /// # Errors
    /// Those of [`send_message`](Self::send_message), and those of the codec.
    ///
    /// # Cancel safety
    /// If the future is dropped, the event may be sent or not.
    pub async fn send_encoded<E: Event>(
        &self,
        codec: &(impl Codec<E> + ?Sized),
        topic: &str,
        event: &E,
        options: SendOptions,
    ) -> Result<Acknowledgement> {
        self.send_event(topic, &EventMessage::encode(codec, topic, event, options).await?).await
    }

    async fn send_event(&self, topic: &str, message: &EventMessage) -> Result<Acknowledgement> {
        let sent = async { self.enqueue(topic, message).await?.await };
        sent.await.map_err(|e| e.with_event_id(message.id()))
    }

    /// Sends events and waits until each is acknowledged or fails. Outcomes are in the order of the
    /// messages; messages of one key keep their order in their partition. Errors have the id of
    /// their event: [`Error::event_id`](crate::Error::event_id).
    ///
    /// # Cancel safety
    /// If the future is dropped, each event may be sent or not.
    pub async fn send_batch(&self, topic: &str, messages: Vec<EventMessage>) -> Vec<Result<Acknowledgement>> {
        let mut deliveries = Vec::with_capacity(messages.len());
        for message in &messages {
            deliveries.push(self.enqueue(topic, message).await);
        }
        let mut outcomes = Vec::with_capacity(messages.len());
        for (delivery, message) in deliveries.into_iter().zip(&messages) {
            let outcome = match delivery {
                Ok(delivery) => delivery.await,
                Err(e) => Err(e),
            };
            outcomes.push(outcome.map_err(|e| e.with_event_id(message.id())));
        }
        outcomes
    }

    async fn enqueue(&self, topic: &str, message: &EventMessage) -> Result<Delivery> {
        let EventMessage { event, options } = message;
        let source = options.source.as_deref().unwrap_or(&self.client.config().client_id);
        let own = event.headers(source);
        let is_given = |h: &Header<'_>| options.headers.iter().any(|given| given.key_bytes() == h.key_bytes());
        let mut headers: Headers = own.iter().filter(|h| !is_given(h)).chain(options.headers.iter()).collect();
        if let Some(trace) = &options.trace {
            headers = headers.with_trace(trace);
        }
        let mut record = ProducerRecord::to(topic).value(event.value()).headers(headers);
        record.key = options.key.as_deref().or(event.key.as_deref()).map(Into::into);
        record.partition = options.partition;
        record.compression = options.compression;
        record.timestamp = Some(options.timestamp.unwrap_or(event.time));
        self.producer.send(record).await
    }

    /// Joins `group` (`None` is [`Config::group_id`]), reads `topics` and calls `handler` with each
    /// record, like [`Processor::subscribe`](crate::Processor::subscribe). The subscription is part
    /// of [`health`](Self::health) while its handle lives.
    ///
    /// # Errors
    /// The errors of [`Processor::subscribe`](crate::Processor::subscribe).
    pub async fn subscribe<A>(
        &self,
        topics: impl IntoIterator<Item: Into<String>>,
        group: impl GroupName,
        handler: impl Handler<A>,
    ) -> Result<Subscription> {
        self.client.processor(group).subscribe(topics, handler).await
    }

    /// Returns the health of brokers and of everything that runs on the service's client: see
    /// [`Client::health`].
    pub async fn health(&self) -> Health {
        self.client.health().await
    }

    /// Flushes and closes the producer, then closes the client's connections. Shut subscriptions
    /// down before, by their handles.
    ///
    /// # Errors
    /// Some records were not acknowledged within `timeout`.
    pub async fn close(&self, timeout: Duration) -> Result<()> {
        let outcome = self.producer.close(timeout).await;
        self.client.close().await;
        outcome
    }
}
