//! Publishers: one method per event, each waiting for the acknowledgement of all in-sync replicas.
//!
//! [`Topics`] has the topic of each event. The key is the id of the order, product or user, so that the events of one of them
//! keep their order as long as the caller awaits each before the next.
//!
//! # Errors
//! Those of [`RedpandaService::send_message`], for every method. After a timeout the event may or may not have been written.
//!
//! # Cancellation
//! An event that was given to the producer is sent even if the future is dropped.

use ailurus::{Acknowledgement, Compression, Event, EventMessage, RedpandaService, Result, SendOptions};

use crate::Topics;
use crate::events::{
    OrderCancelled, OrderCompleted, OrderCreated, OrderPaid, OrderShipped, OrderStatus, OrderUpdated, PriceUpdated,
    ProductCreated, ProductUpdated, ProductViewed, ProfileUpdated, StockUpdated, UserLoggedIn, UserRegistered,
};

/// The common part of the publishers.
#[derive(Debug, Clone)]
struct Publisher {
    service: RedpandaService,
    options: SendOptions,
}

impl Publisher {
    fn new(service: &RedpandaService) -> Self {
        Self { service: service.clone(), options: SendOptions::new() }
    }

    async fn send<E: Event + serde::Serialize>(&self, topic: &str, event: &E) -> Result<Acknowledgement> {
        self.service.send_message(topic, event, self.options.clone()).await
    }

    /// Sends one event, with one id, to two topics; returns the acknowledgement of the first.
    async fn send_with_copy<E: Event + serde::Serialize>(
        &self,
        topic: &str,
        copy_to: &str,
        event: &E,
    ) -> Result<Acknowledgement> {
        let message = EventMessage::new(event, self.options.clone())?;
        let (sent, copied) = tokio::join!(
            self.service.send_batch(topic, vec![message.clone()]),
            self.service.send_batch(copy_to, vec![message])
        );
        let sent = only(sent)?;
        only(copied)
            .map_err(|e| e.context(format!("{} was written to {topic}, its copy to {copy_to} was not", E::TYPE)))?;
        Ok(sent)
    }
}

/// Returns the result of a batch of one.
fn only(results: Vec<Result<Acknowledgement>>) -> Result<Acknowledgement> {
    let missing = || ailurus::Error::new(ailurus::ErrorKind::Closed, "a batch of one event ended without a result");
    results.into_iter().next().unwrap_or_else(|| Err(missing()))
}

/// Publishes the events of orders.
///
/// ```no_run
/// use ailurus::{Compression, RedpandaService, Result};
/// use ailurus_shop::events::{OrderCreated, OrderItem, OrderStatus};
/// use ailurus_shop::{Money, OrderEvents, Topics};
///
/// async fn order(service: &RedpandaService) -> Result<()> {
///     let orders = OrderEvents::new(service, &Topics::default()).compression(Compression::gzip(6)?);
///     let items = vec![OrderItem::new("p-1", 2, Money::cents(1999))];
///     orders.publish_order_created(&OrderCreated::new("o-1", "u-1", items)).await?;
///     let status = (OrderStatus::Pending, OrderStatus::Confirmed);
///     let written = orders.publish_order_status_updated("o-1", status.0, status.1).await?;
///     println!("at offset {:?} of {}/{}", written.offset, written.topic, written.partition);
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct OrderEvents {
    publisher: Publisher,
    topic: String,
    analytics: String,
}

impl OrderEvents {
    /// Publishes to the topics `orders` and `analytics`.
    pub fn new(service: &RedpandaService, topics: &Topics) -> Self {
        Self { publisher: Publisher::new(service), topic: topics.orders.clone(), analytics: topics.analytics.clone() }
    }

    /// Sets another codec than the producer's.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.publisher.options.compression = Some(compression);
        self
    }

    /// Sets another source than the client id.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.publisher.options.source = Some(source.into());
        self
    }

    async fn send<E: Event + serde::Serialize>(&self, event: &E) -> Result<Acknowledgement> {
        self.publisher.send_with_copy(&self.topic, &self.analytics, event).await
    }

    /// Publishes `order.created`.
    pub async fn publish_order_created(&self, event: &OrderCreated) -> Result<Acknowledgement> {
        self.send(event).await
    }

    /// Publishes `order.updated`.
    pub async fn publish_order_updated(&self, event: &OrderUpdated) -> Result<Acknowledgement> {
        self.send(event).await
    }

    /// Publishes `order.updated` with an order's previous and new status. Orders that were paid or shipped have events of
    /// their own, with more data.
    pub async fn publish_order_status_updated(
        &self,
        order_id: &str,
        previous: OrderStatus,
        new: OrderStatus,
    ) -> Result<Acknowledgement> {
        let event = OrderUpdated { order_id: order_id.to_owned(), previous_status: Some(previous), new_status: new };
        self.send(&event).await
    }

    /// Publishes `order.paid`.
    pub async fn publish_order_paid(&self, event: &OrderPaid) -> Result<Acknowledgement> {
        self.send(event).await
    }

    /// Publishes `order.shipped`.
    pub async fn publish_order_shipped(&self, event: &OrderShipped) -> Result<Acknowledgement> {
        self.send(event).await
    }

    /// Publishes `order.completed`.
    pub async fn publish_order_completed(&self, event: &OrderCompleted) -> Result<Acknowledgement> {
        self.send(event).await
    }

    /// Publishes `order.cancelled`.
    pub async fn publish_order_cancelled(&self, event: &OrderCancelled) -> Result<Acknowledgement> {
        self.send(event).await
    }
}

/// Publishes the events of products.
///
/// ```no_run
/// use ailurus::{RedpandaService, Result};
/// use ailurus_shop::events::StockUpdated;
/// use ailurus_shop::{ProductEvents, Topics};
///
/// async fn sold_one(service: &RedpandaService) -> Result<()> {
///     let products = ProductEvents::new(service, &Topics::default());
///     products.publish_stock_updated(&StockUpdated::set("p-1", Some(5), 4)).await?;
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct ProductEvents {
    publisher: Publisher,
    topic: String,
    stock_updates: String,
}

impl ProductEvents {
    /// Publishes to the topics `products` and `stock_updates`.
    pub fn new(service: &RedpandaService, topics: &Topics) -> Self {
        Self {
            publisher: Publisher::new(service),
            topic: topics.products.clone(),
            stock_updates: topics.stock_updates.clone(),
        }
    }

    /// Sets another codec than the producer's.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.publisher.options.compression = Some(compression);
        self
    }

    /// Sets another source than the client id.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.publisher.options.source = Some(source.into());
        self
    }

    /// Publishes `product.created`.
    pub async fn publish_product_created(&self, event: &ProductCreated) -> Result<Acknowledgement> {
        self.publisher.send(&self.topic, event).await
    }

    /// Publishes `product.updated`.
    pub async fn publish_product_updated(&self, event: &ProductUpdated) -> Result<Acknowledgement> {
        self.publisher.send(&self.topic, event).await
    }

    /// Publishes `product.stock.updated`.
    pub async fn publish_stock_updated(&self, event: &StockUpdated) -> Result<Acknowledgement> {
        self.publisher.send(&self.stock_updates, event).await
    }

    /// Publishes `product.price.updated`.
    pub async fn publish_price_updated(&self, event: &PriceUpdated) -> Result<Acknowledgement> {
        self.publisher.send(&self.topic, event).await
    }

    /// Publishes `product.viewed`.
    pub async fn publish_product_viewed(&self, event: &ProductViewed) -> Result<Acknowledgement> {
        self.publisher.send(&self.topic, event).await
    }
}

/// Publishes the events of users.
///
/// ```no_run
/// use ailurus::{RedpandaService, Result};
/// use ailurus_shop::events::UserLoggedIn;
/// use ailurus_shop::{Topics, UserEvents};
///
/// async fn logged_in(service: &RedpandaService, user_id: String) -> Result<()> {
///     let users = UserEvents::new(service, &Topics::default());
///     users.publish_user_logged_in(&UserLoggedIn { user_id, ip_address: None, user_agent: None }).await?;
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct UserEvents {
    publisher: Publisher,
    topic: String,
}

impl UserEvents {
    /// Publishes to the topic `users`.
    pub fn new(service: &RedpandaService, topics: &Topics) -> Self {
        Self { publisher: Publisher::new(service), topic: topics.users.clone() }
    }

    /// Sets another codec than the producer's.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.publisher.options.compression = Some(compression);
        self
    }

    /// Sets another source than the client id.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.publisher.options.source = Some(source.into());
        self
    }

    /// Publishes `user.registered`.
    pub async fn publish_user_registered(&self, event: &UserRegistered) -> Result<Acknowledgement> {
        self.publisher.send(&self.topic, event).await
    }

    /// Publishes `user.logged_in`.
    pub async fn publish_user_logged_in(&self, event: &UserLoggedIn) -> Result<Acknowledgement> {
        self.publisher.send(&self.topic, event).await
    }

    /// Publishes `user.profile.updated`.
    pub async fn publish_profile_updated(&self, event: &ProfileUpdated) -> Result<Acknowledgement> {
        self.publisher.send(&self.topic, event).await
    }
}
