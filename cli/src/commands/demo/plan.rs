//! The events of a run, in the order in which they are published.

use std::borrow::Cow;

use ailurus::{Envelope, Event, Headers, Message};
use anyhow::{Context, ensure};
use serde::de::DeserializeOwned;

use super::events::{Item, OrderCompleted, OrderCreated, OrderPaid, OrderShipped, StockUpdated};

/// Header with the event's number in the plan.
const NUMBER: &str = "demo-event";
/// Source of the events.
const SOURCE: &str = "ailurus-demo";
/// Number of orders after which an order has its next event.
const STEP: u32 = 50;
/// Partitions of each topic.
pub const PARTITIONS: i32 = 6;

/// A topic and the group that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Orders,
    Stock,
}

/// Names of the topics and groups of a run.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Puts a prefix before each name.
    pub fn with_prefix(prefix: String) -> Self {
        Self { prefix }
    }

    pub fn topic(&self, stream: Stream) -> String {
        let name = match stream {
            Stream::Orders => "order-events",
            Stream::Stock => "stock-updates",
        };
        format!("{}{name}", self.prefix)
    }

    pub fn group(&self, stream: Stream) -> String {
        let name = match stream {
            Stream::Orders => "analytics-consumer-group",
            Stream::Stock => "stock-consumer-group",
        };
        format!("{}{name}", self.prefix)
    }
}

#[derive(Debug, Clone, Copy)]
enum What {
    Created,
    Paid,
    Shipped,
    Completed,
    Stock,
}

#[derive(Debug, Clone, Copy)]
struct Planned {
    what: What,
    /// Number of the order or of the product.
    subject: u32,
    /// Position among the events of its key.
    place: u32,
}

/// All events of a run, in order.
#[derive(Debug)]
pub struct Plan {
    orders: u32,
    events: Vec<Planned>,
}

/// An event, ready to be sent.
pub struct Encoded {
    pub stream: Stream,
    pub key: String,
    pub value: Vec<u8>,
    pub headers: Headers,
}

impl Plan {
    /// Plans overlapping life cycles of `orders` orders, and a stock update for each.
    pub fn new(orders: u32) -> Self {
        let products = (orders / 20).clamp(1, 500);
        let mut events = Vec::with_capacity(orders as usize * 5);
        for now in 0..orders + 3 * STEP {
            for (what, after) in [(What::Created, 0), (What::Paid, 1), (What::Shipped, 2), (What::Completed, 3)] {
                match now.checked_sub(after * STEP) {
                    Some(order) if order < orders => events.push(Planned { what, subject: order, place: after }),
                    _ => {}
                }
            }
            if now < orders {
                events.push(Planned { what: What::Stock, subject: now % products, place: now / products });
            }
        }
        Self { orders, events }
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Returns each event's key and its position among the events of that key.
    pub fn keys_and_places(&self) -> impl Iterator<Item = (u32, u32)> {
        self.events.iter().map(|e| match e.what {
            What::Stock => (self.orders + e.subject, e.place),
            _ => (e.subject, e.place),
        })
    }

    pub fn encode(&self, number: usize) -> anyhow::Result<Encoded> {
        let Planned { what, subject, place } = self.events[number];
        let order_id = format!("order-{subject}");
        let (stream, (key, value, headers)) = match what {
            What::Created => (Stream::Orders, encode(created(order_id, subject))?),
            What::Paid => (Stream::Orders, encode(paid(order_id, subject))?),
            What::Shipped => (Stream::Orders, encode(shipped(order_id, subject))?),
            What::Completed => (Stream::Orders, encode(OrderCompleted { order_id })?),
            What::Stock => (Stream::Stock, encode(stock(subject, place))?),
        };
        Ok(Encoded { stream, key, value, headers: headers.with(NUMBER, number.to_string()) })
    }

    /// Returns the number of the event in a message; fails if the message is not that event.
    pub fn recognise(&self, message: &Message) -> anyhow::Result<usize> {
        let number = message.headers.get_str(NUMBER).with_context(|| format!("no header {NUMBER}"))?;
        let number: usize = number.parse().with_context(|| format!("header {NUMBER} is {number:?}"))?;
        let planned = self.events.get(number).with_context(|| format!("no event has the number {number}"))?;
        let key = match planned.what {
            What::Created => key_of::<OrderCreated>(message)?,
            What::Paid => key_of::<OrderPaid>(message)?,
            What::Shipped => key_of::<OrderShipped>(message)?,
            What::Completed => key_of::<OrderCompleted>(message)?,
            What::Stock => key_of::<StockUpdated>(message)?,
        };
        ensure!(message.key.as_deref() == Some(key.as_bytes()), "event {number} has another key than its message");
        Ok(number)
    }
}

fn items(order: u32) -> Vec<Item> {
    let item = |i| Item {
        product_id: format!("product-{}", (order + i) % 500),
        quantity: 1 + i,
        price_cents: order % 90 * 100 + 99,
    };
    (0..1 + order % 3).map(item).collect()
}

fn created(order_id: String, order: u32) -> OrderCreated {
    let (user_id, items) = (format!("user-{}", order % 1000), items(order));
    OrderCreated { order_id, user_id, items, currency: "EUR".to_owned() }
}

fn paid(order_id: String, order: u32) -> OrderPaid {
    let total_cents = items(order).iter().map(|item| item.quantity * item.price_cents).sum();
    OrderPaid { order_id, total_cents, currency: "EUR".to_owned(), payment_method: "card".to_owned() }
}

fn shipped(order_id: String, order: u32) -> OrderShipped {
    OrderShipped { order_id, carrier: "post".to_owned(), tracking_number: format!("parcel-{order:08}") }
}

fn stock(product: u32, place: u32) -> StockUpdated {
    let left = 10_000_000 - place;
    StockUpdated { product_id: format!("product-{product}"), previous_stock: left, new_stock: left - 1 }
}

fn encode<E: Event + serde::Serialize>(event: E) -> anyhow::Result<(String, Vec<u8>, Headers)> {
    let key = event.key().map(Cow::into_owned).unwrap_or_default();
    let envelope = Envelope::new(SOURCE, event);
    Ok((key, serde_json::to_vec(&envelope.data)?, envelope.headers()))
}

fn key_of<E: Event + DeserializeOwned>(message: &Message) -> anyhow::Result<String> {
    let event = Envelope::<E>::from_message(message)?.data;
    Ok(event.key().map(Cow::into_owned).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    #[test]
    fn every_order_takes_its_steps_in_turn() {
        let plan = Plan::new(120);
        assert_eq!(plan.len(), 120 * 5);
        let mut places: HashMap<u32, u32> = HashMap::new();
        for (key, place) in plan.keys_and_places() {
            let next = places.entry(key).or_default();
            assert_eq!(*next, place, "key {key}");
            *next += 1;
        }
        assert_eq!(places.len(), 120 + 6);
        assert!((0..120).all(|order| places[&order] == 4));
    }

    #[test]
    fn life_cycles_overlap() {
        let plan = Plan::new(200);
        let halfway: HashSet<u32> = plan.keys_and_places().skip(300).take(50).map(|(_, place)| place).collect();
        assert!(halfway.len() > 2);
    }

    #[test]
    fn one_order_is_a_plan() {
        assert_eq!(Plan::new(1).len(), 5);
    }
}
