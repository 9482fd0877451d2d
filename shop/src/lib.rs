//! A shop's events on Redpanda or Apache Kafka: events of orders, products and users, their publishers, and the two consumers
//! that keep the stock and count the orders. The binary `ailurus-shop` runs the consumers.
//!
//! ```no_run
//! use ailurus::{Config, RedpandaService, Result};
//! use ailurus_shop::events::StockUpdated;
//! use ailurus_shop::{Inventory, ProductEvents, Store, Topics, consumers};
//!
//! # async fn example() -> Result<()> {
//! let service = RedpandaService::connect(Config::from_env()?).await?;
//! let (store, topics) = (Store::open("shop.redb").await?, Topics::default());
//! let consumer = consumers::spawn_stock_consumer(&service, store.clone(), &topics).await?;
//!
//! let products = ProductEvents::new(&service, &topics);
//! products.publish_stock_updated(&StockUpdated::set("p-1", Some(5), 4)).await?;
//!
//! println!("{:?} left of p-1", store.stock("p-1").await?);
//! consumer.shutdown().await?;
//! store.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! - [`events`]: the events, their JSON, and [`Money`];
//! - [`OrderEvents`], [`ProductEvents`], [`UserEvents`]: a method to publish each;
//! - [`Topics`]: topics and groups;
//! - [`consumers`]: the stock consumer and the analytics consumer;
//! - [`Inventory`], [`Analytics`]: the stores of the consumers; [`Store`] is the durable default of both, and applies each
//!   event once even if it is delivered twice.

pub mod analytics;
pub mod consumers;
pub mod events;
pub mod inventory;
mod money;
pub mod publishers;
mod received;
mod store;
pub mod topics;

pub use analytics::{Analytics, OrderFact, Summary};
pub use inventory::Inventory;
pub use money::{Money, NotMoney};
pub use publishers::{OrderEvents, ProductEvents, UserEvents};
pub use received::{Outcome, Received};
pub use store::{Store, StoreOptions};
pub use topics::Topics;
