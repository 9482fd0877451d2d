//! Orders; the key is the order's id.

use std::fmt;

use ailurus::Timestamp;
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
    /// Customer.
    pub user_id: String,
    /// Items of the order.
    #[serde(default)]
    pub items: Vec<OrderItem>,
    /// Total price.
    pub total_amount: Money,
    /// Currency of all amounts, by ISO 4217.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// Time of the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

impl OrderCreated {
    /// Creates an order whose total is the sum of its items.
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
    /// Number of pieces.
    pub quantity: u32,
    /// Price of one piece.
    pub price: Money,
}

impl OrderItem {
    /// Creates a line of an order.
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
    /// Status before, if the sender knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_status: Option<OrderStatus>,
    /// New status; also read from `status`.
    #[serde(alias = "status")]
    pub new_status: OrderStatus,
}

/// `order.paid`: an order was paid.
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
    /// Amount that was paid.
    pub total_amount: Money,
    /// Currency of the amount, by ISO 4217.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// Way of payment: `card`, `invoice`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment_method: Option<String>,
    /// Time of the payment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paid_at: Option<Timestamp>,
}

/// `order.shipped`: the parcel was sent.
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
    /// Carrier of the parcel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carrier: Option<String>,
    /// Number of the parcel at the carrier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracking_number: Option<String>,
    /// Time of shipping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shipped_at: Option<Timestamp>,
}

/// `order.completed`: the customer has received the order.
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
    /// Time of the delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
}

/// `order.cancelled`: the order was cancelled.
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
    /// Reason, as text for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Time of the cancellation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled_at: Option<Timestamp>,
}

event!(OrderCreated, "order.created", order_id);
event!(OrderUpdated, "order.updated", order_id);
event!(OrderPaid, "order.paid", order_id);
event!(OrderShipped, "order.shipped", order_id);
event!(OrderCompleted, "order.completed", order_id);
event!(OrderCancelled, "order.cancelled", order_id);

/// Status of an order. Read in any case (`PAID`), written in lower case.
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
    /// Sent to the customer.
    Shipped,
    /// Arrived.
    Completed,
    /// Cancelled.
    Cancelled,
    /// Another status, as it was read.
    Other(String),
}

impl OrderStatus {
    const NAMED: [OrderStatus; 6] =
        [Self::Pending, Self::Confirmed, Self::Paid, Self::Shipped, Self::Completed, Self::Cancelled];

    /// Returns the status as it is written.
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
