//! Names of the shop's topics and groups.

/// Every event of an order's life.
pub const ORDER_EVENTS: &str = "order-events";
/// Products, but for their stock.
pub const PRODUCT_EVENTS: &str = "product-events";
/// Users.
pub const USER_EVENTS: &str = "user-events";
/// Changes of stock, for who keeps the stock.
pub const STOCK_UPDATES: &str = "stock-updates";
/// A copy of every order event, for who counts.
pub const ORDER_ANALYTICS: &str = "order-analytics";
/// The group that keeps the stock.
pub const STOCK_CONSUMER_GROUP: &str = "stock-consumer-group";
/// The group that counts orders.
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
    /// [`ORDER_EVENTS`] by default.
    pub orders: String,
    /// [`PRODUCT_EVENTS`] by default.
    pub products: String,
    /// [`USER_EVENTS`] by default.
    pub users: String,
    /// [`STOCK_UPDATES`] by default.
    pub stock_updates: String,
    /// [`ORDER_ANALYTICS`] by default.
    pub analytics: String,
    /// [`STOCK_CONSUMER_GROUP`] by default.
    pub stock_group: String,
    /// [`ANALYTICS_CONSUMER_GROUP`] by default.
    pub analytics_group: String,
}

impl Default for Topics {
    fn default() -> Self {
        Self::with_prefix("")
    }
}

impl Topics {
    /// The default names, each behind `prefix`: several shops on one cluster.
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

    /// All topics, such as to create them.
    pub fn all(&self) -> [&str; 5] {
        [&self.orders, &self.products, &self.users, &self.stock_updates, &self.analytics]
    }
}
