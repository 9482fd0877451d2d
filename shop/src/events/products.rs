//! Products; the key is the product's id.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::event;
use crate::Money;

/// `product.created`: a product was added to the shop.
///
/// ```
/// use ailurus_shop::events::ProductCreated;
///
/// let json = r#"{"productId":"p-1","name":"Bamboo","price":19.99,"stock":5}"#;
/// let event: ProductCreated = serde_json::from_str(json)?;
/// assert_eq!(event.stock, Some(5));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "eventType", rename = "product.created", rename_all = "camelCase")]
pub struct ProductCreated {
    /// The product.
    pub product_id: String,
    /// Name of the product.
    pub name: String,
    /// Price of one piece.
    pub price: Money,
    /// Initial stock, if the sender knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stock: Option<i64>,
    /// Category in the shop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
}

/// `product.updated`: something about a product has changed.
///
/// ```
/// use ailurus_shop::events::ProductUpdated;
///
/// let json = r#"{"productId":"p-1","changes":{"name":"Fresh bamboo"}}"#;
/// let event: ProductUpdated = serde_json::from_str(json)?;
/// assert_eq!(event.changes["name"], "Fresh bamboo");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "eventType", rename = "product.updated", rename_all = "camelCase")]
pub struct ProductUpdated {
    /// The product.
    pub product_id: String,
    /// The fields that changed, with their new values.
    #[serde(default)]
    pub changes: Map<String, Value>,
}

/// `product.stock.updated`: the stock of a product has changed.
///
/// The new stock is given as a number (`newStock`), as a difference (`delta`), or as both; then the number takes precedence.
///
/// ```
/// use ailurus_shop::events::{StockChange, StockUpdated};
///
/// assert_eq!(StockUpdated::set("p-1", Some(5), 4).change(), Some(StockChange::To(4)));
/// assert_eq!(StockUpdated::add("p-1", -1).change(), Some(StockChange::By(-1)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "eventType", rename = "product.stock.updated", rename_all = "camelCase")]
pub struct StockUpdated {
    /// The product.
    pub product_id: String,
    /// Stock before, if the sender knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_stock: Option<i64>,
    /// New stock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_stock: Option<i64>,
    /// Difference to the stock before; negative for fewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<i64>,
    /// Reason, as text for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl StockUpdated {
    /// Creates an update to a new stock.
    pub fn set(product_id: impl Into<String>, previous_stock: Option<i64>, new_stock: i64) -> Self {
        let product_id = product_id.into();
        Self { product_id, previous_stock, new_stock: Some(new_stock), delta: None, reason: None }
    }

    /// Creates an update by a difference.
    pub fn add(product_id: impl Into<String>, delta: i64) -> Self {
        let product_id = product_id.into();
        Self { product_id, previous_stock: None, new_stock: None, delta: Some(delta), reason: None }
    }

    /// Returns the change of the stock; `None` if the event has neither `newStock` nor `delta`.
    pub fn change(&self) -> Option<StockChange> {
        self.new_stock.map(StockChange::To).or(self.delta.map(StockChange::By))
    }
}

/// Change of a product's stock; [`StockUpdated`] has an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StockChange {
    /// The new stock.
    To(i64),
    /// The difference to the stock before.
    By(i64),
}

/// `product.price.updated`: the price of a product has changed.
///
/// ```
/// use ailurus_shop::events::PriceUpdated;
///
/// let json = r#"{"productId":"p-1","previousPrice":19.99,"newPrice":18.5}"#;
/// let event: PriceUpdated = serde_json::from_str(json)?;
/// assert_eq!(event.new_price.as_cents(), 1850);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "eventType", rename = "product.price.updated", rename_all = "camelCase")]
pub struct PriceUpdated {
    /// The product.
    pub product_id: String,
    /// Price before; also read from `oldPrice`.
    #[serde(alias = "oldPrice", skip_serializing_if = "Option::is_none")]
    pub previous_price: Option<Money>,
    /// New price.
    pub new_price: Money,
}

/// `product.viewed`: a product was viewed.
///
/// ```
/// use ailurus_shop::events::ProductViewed;
///
/// let json = r#"{"productId":"p-1","userId":"u-1"}"#;
/// let event: ProductViewed = serde_json::from_str(json)?;
/// assert_eq!(event.user_id.as_deref(), Some("u-1"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "eventType", rename = "product.viewed", rename_all = "camelCase")]
pub struct ProductViewed {
    /// The product.
    pub product_id: String,
    /// User, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

event!(ProductCreated, "product.created", product_id);
event!(ProductUpdated, "product.updated", product_id);
event!(StockUpdated, "product.stock.updated", product_id);
event!(PriceUpdated, "product.price.updated", product_id);
event!(ProductViewed, "product.viewed", product_id);
