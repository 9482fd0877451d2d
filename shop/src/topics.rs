//! Names of the shop's topics and groups.

/// Topic of order events.
pub const ORDER_EVENTS: &str = "order-events";
/// Topic of product events other than changes of stock.
pub const PRODUCT_EVENTS: &str = "product-events";
/// Topic of user events.
pub const USER_EVENTS: &str = "user-events";
/// Topic of changes of stock.
pub const STOCK_UPDATES: &str = "stock-updates";
/// Topic with a copy of every order event.
pub const ORDER_ANALYTICS: &str = "order-analytics";
/// Group of the stock consumer.
pub const STOCK_CONSUMER_GROUP: &str = "stock-consumer-group";
/// Group of the analytics consumer.
pub const ANALYTICS_CONSUMER_GROUP: &str = "analytics-consumer-group";

/// The topics that the shop's publishers write and its consumers read, and the consumers' groups.
///
/// | events                                        | written to                                          |
/// |-----------------------------------------------|-----------------------------------------------------|
/// | `order.*`                                     | `orders`, and the same event (same id) to `analytics` |
/// | `product.stock.updated`                       | `stock_updates`                                     |
/// | `product.*` but for the stock                 | `products`                                          |
/// | `user.*`                                      | `users`                                             |
///
/// | consumer                                                             | reads           | as group          |
/// |----------------------------------------------------------------------|-----------------|-------------------|
/// | [`spawn_stock_consumer`](crate::consumers::spawn_stock_consumer)         | `stock_updates` | `stock_group`     |
/// | [`spawn_analytics_consumer`](crate::consumers::spawn_analytics_consumer) | `analytics`     | `analytics_group` |
///
/// ```
/// use ailurus_shop::Topics;
///
/// assert_eq!(Topics::default().orders, "order-events");
/// assert_eq!(Topics::with_prefix("demo-").stock_group, "demo-stock-consumer-group");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// Topic, by default [`ORDER_EVENTS`].
    pub orders: String,
    /// Topic, by default [`PRODUCT_EVENTS`].
    pub products: String,
    /// Topic, by default [`USER_EVENTS`].
    pub users: String,
    /// Topic, by default [`STOCK_UPDATES`].
    pub stock_updates: String,
    /// Topic, by default [`ORDER_ANALYTICS`].
    pub analytics: String,
    /// Group, by default [`STOCK_CONSUMER_GROUP`].
    pub stock_group: String,
    /// Group, by default [`ANALYTICS_CONSUMER_GROUP`].
    pub analytics_group: String,
}

impl Default for Topics {
    fn default() -> Self {
        Self::with_prefix("")
    }
}

impl Topics {
    /// Puts a prefix before each default name, for several shops on one cluster.
    pub fn with_prefix(prefix: &str) -> Self {
        let name = |name: &str| format!("{prefix}{name}");
        Self {
            orders: name(ORDER_EVENTS),
            products: name(PRODUCT_EVENTS),
            users: name(USER_EVENTS),
            stock_updates: name(STOCK_UPDATES),
            analytics: name(ORDER_ANALYTICS),
            stock_group: name(STOCK_CONSUMER_GROUP),
            analytics_group: name(ANALYTICS_CONSUMER_GROUP),
        }
    }

    /// Returns all topics.
    pub fn all(&self) -> [&str; 5] {
        [&self.orders, &self.products, &self.users, &self.stock_updates, &self.analytics]
    }
}
