//! The shop's events: orders, products and users.
//!
//! Each is a struct whose JSON is a flat camelCase object that begins with its type, so that a consumer can route by the body
//! alone:
//!
//! ```
//! use ailurus_shop::events::StockUpdated;
//!
//! let event = StockUpdated::set("p-1", Some(5), 4);
//! let json = serde_json::to_string(&event)?;
//! assert_eq!(json, r#"{"eventType":"product.stock.updated","productId":"p-1","previousStock":5,"newStock":4}"#);
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! Unknown fields are ignored when reading, and optional ones that are not set are left out when writing.
//! Times are RFC 3339, amounts are [`Money`](crate::Money). An event's id and time are in its
//! [`Envelope`](ailurus::Envelope); times in the body (`paidAt`) are of the business and may differ.

mod orders;
mod products;
#[cfg(test)]
mod tests;
mod users;

pub use orders::{
    OrderCancelled, OrderCompleted, OrderCreated, OrderItem, OrderPaid, OrderShipped, OrderStatus, OrderUpdated,
};
pub use products::{PriceUpdated, ProductCreated, ProductUpdated, ProductViewed, StockChange, StockUpdated};
pub use users::{ProfileUpdated, UserLoggedIn, UserRegistered};

/// Field of the JSON with the type of an event whose sender writes no headers.
pub(crate) const TYPE_FIELD: &str = "eventType";

/// Implements `Event`: `event!(Struct, "type", key_field)`.
macro_rules! event {
    ($name:ident, $event_type:literal, $key:ident) => {
        impl ailurus::Event for $name {
            const TYPE: &'static str = $event_type;

            fn key(&self) -> Option<std::borrow::Cow<'_, str>> {
                Some(std::borrow::Cow::Borrowed(&self.$key))
            }
        }
    };
}
use event;
