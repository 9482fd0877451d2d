//! Products; the key is the product's id.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::event;
use crate::Money;

/// `product.created`: a product is new in the shop.
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
    /// What it is called.
    pub name: String,
    /// The price of one.
    pub price: Money,
    /// How many there are at first, if the sender says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stock: Option<i64>,
    /// Where in the shop it is found.
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

/// `product.stock.updated`: how many there are has changed.
///
/// The new stock is given as a number (`newStock`), as a difference (`delta`), or as both; then the number counts.
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
    /// How many there were, if the sender knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_stock: Option<i64>,
    /// How many there are now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_stock: Option<i64>,
    /// How many more there are now; negative for fewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<i64>,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl StockUpdated {
    /// There are `new_stock` now.
    pub fn set(product_id: impl Into<String>, previous_stock: Option<i64>, new_stock: i64) -> Self {
        let product_id = product_id.into();
        Self { product_id, previous_stock, new_stock: Some(new_stock), delta: None, reason: None }
    }

    /// There are `delta` more now.
    pub fn add(product_id: impl Into<String>, delta: i64) -> Self {
        let product_id = product_id.into();
        Self { product_id, previous_stock: None, new_stock: None, delta: Some(delta), reason: None }
    }

    /// What to do to the stock; `None` if the event says neither `newStock` nor `delta`.
    pub fn change(&self) -> Option<StockChange> {
        self.new_stock.map(StockChange::To).or(self.delta.map(StockChange::By))
    }
}

/// What a [`StockUpdated`] does to a product's stock; there is an example there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StockChange {
    /// It becomes this.
    To(i64),
    /// It becomes this much more.
    By(i64),
}

/// `product.price.updated`: a product costs another price now.
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
    /// The price until now; read from `oldPrice` too.
    #[serde(alias = "oldPrice", skip_serializing_if = "Option::is_none")]
    pub previous_price: Option<Money>,
    /// The price from now on.
    pub new_price: Money,
}

/// `product.viewed`: somebody looked at a product.
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
    /// Who, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

event!(ProductCreated, "product.created", product_id);
event!(ProductUpdated, "product.updated", product_id);
event!(StockUpdated, "product.stock.updated", product_id);
event!(PriceUpdated, "product.price.updated", product_id);
event!(ProductViewed, "product.viewed", product_id);
