//! The events that the demonstration publishes: the life cycle of orders, and the stock of products.

use std::borrow::Cow;

use ailurus::Event;
use serde::{Deserialize, Serialize};

/// `event!(Struct, "type", key_field)`: the type and the key of an event.
macro_rules! event {
    ($name:ident, $event_type:literal, $key:ident) => {
        impl Event for $name {
            const TYPE: &'static str = $event_type;

            fn key(&self) -> Option<Cow<'_, str>> {
                Some(Cow::Borrowed(&self.$key))
            }
        }
    };
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderCreated {
    pub order_id: String,
    pub user_id: String,
    pub items: Vec<Item>,
    pub currency: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    pub product_id: String,
    pub quantity: u32,
    pub price_cents: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderPaid {
    pub order_id: String,
    pub total_cents: u32,
    pub currency: String,
    pub payment_method: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderShipped {
    pub order_id: String,
    pub carrier: String,
    pub tracking_number: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderCompleted {
    pub order_id: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StockUpdated {
    pub product_id: String,
    pub previous_stock: u32,
    pub new_stock: u32,
}

event!(OrderCreated, "order.created", order_id);
event!(OrderPaid, "order.paid", order_id);
event!(OrderShipped, "order.shipped", order_id);
event!(OrderCompleted, "order.completed", order_id);
event!(StockUpdated, "product.stock.updated", product_id);
