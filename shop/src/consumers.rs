//! The shop's two consumers; [`Topics`] has their topics and groups.
//!
//! A record without such an event is written to the dead-letter topic; one that can't be applied is retried, and written there
//! after the last attempt. The consumer continues with the next record.

use std::sync::Arc;

use ailurus::{
    Envelope, Error, ErrorKind, Event, Message, Outcome as HandlerOutcome, RedpandaService, Result, Subscription, event,
};

use crate::analytics::{Analytics, OrderFact};
use crate::events::{StockUpdated, TYPE_FIELD};
use crate::inventory::Inventory;
use crate::{Outcome, Received, Topics};

/// Starts a member of the group that keeps the stock: each `product.stock.updated` (or JSON without a type that has its
/// fields) is applied to the inventory once.
///
/// It runs until the subscription is shut down or dropped. Partitions are assigned to all members, in one process or many;
/// those in one process may use clones of one [`Store`](crate::Store).
///
/// # Errors
/// Those of [`RedpandaService::subscribe`].
///
/// ```no_run
/// use ailurus::{RedpandaService, Result};
/// use ailurus_shop::consumers::{spawn_analytics_consumer, spawn_stock_consumer};
/// use ailurus_shop::{Inventory, Store, Topics};
///
/// async fn run(service: &RedpandaService) -> Result<()> {
///     let (store, topics) = (Store::open("shop.redb").await?, Topics::default());
///     let stock = spawn_stock_consumer(service, store.clone(), &topics).await?;
///     let orders = spawn_analytics_consumer(service, store.clone(), &topics).await?;
///     println!("{:?} left of p-1", store.stock("p-1").await?);
///     stock.shutdown().await?;
///     orders.shutdown().await?;
///     store.close().await;
///     Ok(())
/// }
/// ```
pub async fn spawn_stock_consumer<I>(service: &RedpandaService, inventory: I, topics: &Topics) -> Result<Subscription>
where
    I: Inventory,
{
    let inventory = Arc::new(inventory);
    let handler = move |message: Message| {
        let inventory = inventory.clone();
        async move {
            let envelope = stock_updated(&message)?;
            let received = Received::new(&envelope, &message);
            Ok::<_, Error>(outcome(inventory.apply(envelope.data, received.clone()).await, &received))
        }
    };
    service.subscribe([&topics.stock_updates], &topics.stock_group, handler).await
}

/// Returns the update in a record; fails if its type is another event's.
fn stock_updated(message: &Message) -> Result<Envelope<StockUpdated>> {
    let found = event::event_type_in(message, &[TYPE_FIELD])?;
    if let Some(other) = found.filter(|found| found != StockUpdated::TYPE) {
        let Message { topic, partition, offset, .. } = message;
        let what = format!("the record in {topic}/{partition} at offset {offset} holds an event of type {other:?}");
        return Err(Error::new(ErrorKind::Event, what));
    }
    Envelope::from_message(message)
}

/// Starts a member of the group that counts orders: each event is recorded once.
///
/// It runs until the subscription is shut down or dropped; an example is at [`spawn_stock_consumer`].
///
/// # Errors
/// Those of [`RedpandaService::subscribe`].
pub async fn spawn_analytics_consumer<A>(
    service: &RedpandaService,
    analytics: A,
    topics: &Topics,
) -> Result<Subscription>
where
    A: Analytics,
{
    let analytics = Arc::new(analytics);
    let handler = move |message: Message| {
        let analytics = analytics.clone();
        async move {
            let (fact, received) = OrderFact::from_message(&message)?;
            Ok::<_, Error>(outcome(analytics.record(fact, received.clone()).await, &received))
        }
    };
    service.subscribe([&topics.analytics], &topics.analytics_group, handler).await
}

/// Returns the handler's outcome: an event that can't be applied now is retried, for an earlier one may still come.
fn outcome(applied: Result<Outcome>, received: &Received) -> HandlerOutcome {
    match applied {
        Ok(Outcome::Applied) => {}
        Ok(Outcome::Duplicate) => {
            let Received { id, topic, partition, offset, .. } = received;
            tracing::debug!(%id, %topic, partition, offset, "event was applied before");
        }
        Err(e) => return HandlerOutcome::retry(e),
    }
    HandlerOutcome::Done
}
