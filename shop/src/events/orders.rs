//! Orders; the key is the order's id.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::event;
use crate::Money;

/// `order.created`: a customer has ordered.
///
/// ```
/// use ailurus_shop::Money;
/// use ailurus_shop::events::{OrderCreated, OrderItem};
///
/// let items = vec![OrderItem::new("p-1", 2, Money::cents(1999))];
/// let order = OrderCreated::new("o-1", "u-1", items);
/// assert_eq!(order.total_amount, Money::cents(3998));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "eventType", rename = "order.created", rename_all = "camelCase")]
pub struct OrderCreated {
    /// The order.
    pub order_id: String,
    /// Who ordered.
    pub user_id: String,
    /// What was ordered.
    #[serde(default)]
    pub items: Vec<OrderItem>,
    /// What is to be paid.
    pub total_amount: Money,
    /// The currency of all amounts, as ISO 4217 has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// When the customer ordered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<DateTime<Utc>>,
}

impl OrderCreated {
    /// An order whose total is the sum of its items.
    pub fn new(order_id: impl Into<String>, user_id: impl Into<String>, items: Vec<OrderItem>) -> Self {
        let total = items
            .iter()
            .fold(0i64, |sum, item| sum.saturating_add(item.price.as_cents().saturating_mul(i64::from(item.quantity))));
        Self {
            order_id: order_id.into(),
            user_id: user_id.into(),
            items,
            total_amount: Money::cents(total),
            currency: None,
            created_at: None,
        }
    }
}

/// One line of an order.
///
/// ```
/// use ailurus_shop::events::OrderItem;
///
/// let json = r#"{"productId":"p-1","quantity":2,"price":19.99}"#;
/// let item: OrderItem = serde_json::from_str(json)?;
/// assert_eq!(item, OrderItem::new("p-1", 2, "19.99".parse().unwrap()));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderItem {
    /// The product.
    pub product_id: String,
    /// How many of it.
    pub quantity: u32,
    /// The price of one.
    pub price: Money,
}

impl OrderItem {
    /// So many of a product, at a price each.
    pub fn new(product_id: impl Into<String>, quantity: u32, price: Money) -> Self {
        Self { product_id: product_id.into(), quantity, price }
    }
}

/// `order.updated`: an order's status has changed.
///
/// ```
/// use ailurus_shop::events::OrderUpdated;
///
/// let json = r#"{"orderId":"o-1","previousStatus":"pending","newStatus":"paid"}"#;
/// let event: OrderUpdated = serde_json::from_str(json)?;
/// assert_eq!(event.new_status.as_str(), "paid");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "eventType", rename = "order.updated", rename_all = "camelCase")]
pub struct OrderUpdated {
    /// The order.
    pub order_id: String,
    /// The status it had, if the sender knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_status: Option<OrderStatus>,
    /// The status it has now; read from `status` too.
    #[serde(alias = "status")]
    pub new_status: OrderStatus,
}

/// `order.paid`: the money has arrived.
///
/// ```
/// use ailurus_shop::events::OrderPaid;
///
/// let json = r#"{"orderId":"o-1","totalAmount":19.99,"currency":"EUR","paymentMethod":"card"}"#;
/// let event: OrderPaid = serde_json::from_str(json)?;
/// assert_eq!(event.total_amount.as_cents(), 1999);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "eventType", rename = "order.paid", rename_all = "camelCase")]
pub struct OrderPaid {
    /// The order.
    pub order_id: String,
    /// What was paid.
    pub total_amount: Money,
    /// Its currency, as ISO 4217 has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// How, in the words of the shop: `card`, `invoice`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment_method: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paid_at: Option<DateTime<Utc>>,
}

/// `order.shipped`: the parcel is on its way.
///
/// ```
/// use ailurus_shop::events::OrderShipped;
///
/// let json = r#"{"orderId":"o-1","carrier":"post","trackingNumber":"T-9"}"#;
/// let event: OrderShipped = serde_json::from_str(json)?;
/// assert_eq!(event.tracking_number.as_deref(), Some("T-9"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "eventType", rename = "order.shipped", rename_all = "camelCase")]
pub struct OrderShipped {
    /// The order.
    pub order_id: String,
    /// Who carries it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carrier: Option<String>,
    /// The carrier's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracking_number: Option<String>,
    /// When it left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shipped_at: Option<DateTime<Utc>>,
}

/// `order.completed`: the customer has it.
///
/// ```
/// use ailurus_shop::events::OrderCompleted;
///
/// let json = r#"{"orderId":"o-1","completedAt":"2026-01-01T00:00:00Z"}"#;
/// let event: OrderCompleted = serde_json::from_str(json)?;
/// assert_eq!(event.order_id, "o-1");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "eventType", rename = "order.completed", rename_all = "camelCase")]
pub struct OrderCompleted {
    /// The order.
    pub order_id: String,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<DateTime<Utc>>,
}

/// `order.cancelled`: nothing will come of it.
///
/// ```
/// use ailurus_shop::events::OrderCancelled;
///
/// let json = r#"{"orderId":"o-1","reason":"out of stock"}"#;
/// let event: OrderCancelled = serde_json::from_str(json)?;
/// assert_eq!(event.reason.as_deref(), Some("out of stock"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "eventType", rename = "order.cancelled", rename_all = "camelCase")]
pub struct OrderCancelled {
    /// The order.
    pub order_id: String,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled_at: Option<DateTime<Utc>>,
}

event!(OrderCreated, "order.created", order_id);
event!(OrderUpdated, "order.updated", order_id);
event!(OrderPaid, "order.paid", order_id);
event!(OrderShipped, "order.shipped", order_id);
event!(OrderCompleted, "order.completed", order_id);
event!(OrderCancelled, "order.cancelled", order_id);

/// Where an order is in its life. Read in any case (`PAID`), written in lower case.
///
/// ```
/// use ailurus_shop::events::OrderStatus;
///
/// assert_eq!(OrderStatus::from("PAID".to_owned()), OrderStatus::Paid);
/// assert_eq!(OrderStatus::Paid.as_str(), "paid");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
#[non_exhaustive]
pub enum OrderStatus {
    /// Ordered, not yet paid.
    Pending,
    /// Accepted by the shop.
    Confirmed,
    /// Paid.
    Paid,
    /// On its way.
    Shipped,
    /// Arrived.
    Completed,
    /// Given up.
    Cancelled,
    /// A status that this version has no name for, as it was read.
    Other(String),
}

impl OrderStatus {
    const NAMED: [OrderStatus; 6] =
        [Self::Pending, Self::Confirmed, Self::Paid, Self::Shipped, Self::Completed, Self::Cancelled];

    /// As it is written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::Paid => "paid",
            Self::Shipped => "shipped",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Other(text) => text,
        }
    }
}

impl fmt::Display for OrderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<String> for OrderStatus {
    fn from(text: String) -> Self {
        let named = Self::NAMED.into_iter().find(|status| status.as_str().eq_ignore_ascii_case(&text));
        named.unwrap_or(Self::Other(text))
    }
}

impl From<OrderStatus> for String {
    fn from(status: OrderStatus) -> Self {
        match status {
            OrderStatus::Other(text) => text,
            named => named.as_str().to_owned(),
        }
    }
}
