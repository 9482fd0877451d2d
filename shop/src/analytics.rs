//! Figures about orders.

use std::collections::BTreeMap;
use std::future::Future;

use ailurus::{AnyEvent, Envelope, Error, ErrorKind, Event, Message, Result, event};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::events::TYPE_FIELD;
use crate::events::{OrderCancelled, OrderCompleted, OrderCreated, OrderPaid, OrderShipped, OrderStatus, OrderUpdated};
use crate::{Money, Outcome, Received};

/// Records what happens to orders.
///
/// [`Store`](crate::Store) implements it. An implementation has to write the event's id in the transaction that counts it:
/// else an event that is delivered twice counts twice.
///
/// ```
/// use ailurus::Timestamp;
/// use ailurus_shop::events::OrderStatus;
/// use ailurus_shop::{Analytics, Money, OrderFact, Received, Store};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = Store::in_memory()?;
/// let paid = OrderFact {
///     event_type: "order.paid".into(),
///     order: Some(("o-1".into(), OrderStatus::Paid)),
///     payment: Some((Money::cents(1999), "EUR".into())),
/// };
/// let (id, source, topic) = ("e-1".into(), "order-service".into(), "order-analytics".into());
/// let received = Received { id, source, time: Timestamp::now(), topic, partition: 0, offset: 17 };
/// store.record(paid.clone(), received.clone()).await?;
/// store.record(paid, received).await?; // delivered again
/// let summary = store.summary().await?;
/// assert_eq!((summary.events["order.paid"], summary.revenue["EUR"]), (1, Money::cents(1999)));
/// assert_eq!(store.order_status("o-1").await?, Some(OrderStatus::Paid));
/// # Ok::<(), ailurus::Error>(())
/// # }).unwrap();
/// ```
pub trait Analytics: Send + Sync + 'static {
    /// Counts an event once, durably. Events of one order come one after the other, in the order in which they were sent.
    ///
    /// # Errors
    /// If the event can't be counted, or the store failed; nothing was changed then. The record is retried, and then written
    /// to the dead-letter topic.
    fn record(&self, fact: OrderFact, received: Received) -> impl Future<Output = Result<Outcome>> + Send;

    /// Returns the figures so far.
    ///
    /// # Errors
    /// If the store failed.
    fn summary(&self) -> impl Future<Output = Result<Summary>> + Send;

    /// Returns the last status of an order; `None` for an unknown order.
    ///
    /// # Errors
    /// If the store failed.
    fn order_status(&self, order_id: &str) -> impl Future<Output = Result<Option<OrderStatus>>> + Send;
}

/// The data of an event that is counted; [`Analytics`] has an example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderFact {
    /// Type of the event.
    pub event_type: String,
    /// Order and its new status; `None` for an event that is not of an order.
    pub order: Option<(String, OrderStatus)>,
    /// Amount that was paid, and its currency (empty if the event has none).
    pub payment: Option<(Money, String)>,
}

/// Figures about orders; [`Analytics`] has an example. In JSON: `{"events":{…},"orders":{…},"revenue":{…}}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Summary {
    /// Number of events by type.
    pub events: BTreeMap<String, u64>,
    /// Number of orders by last status.
    pub orders: BTreeMap<String, u64>,
    /// Sum of payments (`order.paid`) by currency; those without a currency are under an empty name.
    pub revenue: BTreeMap<String, Money>,
}

impl OrderFact {
    /// Reads an event of an order, or the type alone of any other event.
    ///
    /// # Errors
    /// [`ErrorKind::Event`] if the record has no event type, or if its JSON is not an event of that type.
    pub fn from_message(message: &Message) -> Result<(Self, Received)> {
        let event_type = event::event_type_in(message, &[TYPE_FIELD])?;
        match event_type.as_deref() {
            Some(OrderCreated::TYPE) => order::<OrderCreated>(message, |e| (e.order_id, OrderStatus::Pending, None)),
            Some(OrderUpdated::TYPE) => order::<OrderUpdated>(message, |e| (e.order_id, e.new_status, None)),
            Some(OrderPaid::TYPE) => order::<OrderPaid>(message, |e| {
                (e.order_id, OrderStatus::Paid, Some((e.total_amount, e.currency.unwrap_or_default())))
            }),
            Some(OrderShipped::TYPE) => order::<OrderShipped>(message, |e| (e.order_id, OrderStatus::Shipped, None)),
            Some(OrderCompleted::TYPE) => {
                order::<OrderCompleted>(message, |e| (e.order_id, OrderStatus::Completed, None))
            }
            Some(OrderCancelled::TYPE) => {
                order::<OrderCancelled>(message, |e| (e.order_id, OrderStatus::Cancelled, None))
            }
            Some(other) => {
                let event_type = other.to_owned();
                let AnyEvent { id, source, time, .. } = AnyEvent::from_message(message)?;
                let Message { topic, partition, offset, .. } = message;
                let source = source.unwrap_or_default();
                let received =
                    Received { id, source, time, topic: topic.clone(), partition: *partition, offset: *offset };
                Ok((Self { event_type, order: None, payment: None }, received))
            }
            None => {
                let Message { topic, partition, offset, .. } = message;
                let what = format!(
                    "the record in {topic}/{partition} at offset {offset} has no event type: send it with the header \
                     ce_type, or with a field eventType in its JSON"
                );
                Err(Error::new(ErrorKind::Event, what))
            }
        }
    }
}

type Parts = (String, OrderStatus, Option<(Money, String)>);

fn order<T: Event + DeserializeOwned>(
    message: &Message,
    parts: impl FnOnce(T) -> Parts,
) -> Result<(OrderFact, Received)> {
    let envelope = Envelope::<T>::from_message(message)?;
    let received = Received::new(&envelope, message);
    let (order_id, status, payment) = parts(envelope.data);
    Ok((OrderFact { event_type: T::TYPE.to_owned(), order: Some((order_id, status)), payment }, received))
}
