//! An inbox and an outbox on PostgreSQL for [`ailurus`], inside the application's own transactions
//! of [`tokio_postgres`]. Pure Rust, no C, and no pool: a client of any pool will do.
//!
//! - [`Inbox`]: each event has its effect in the database once, however often it is delivered.
//! - [`Outbox`] and [`OutboxTable`]: a record is sent if and only if the transaction that added it
//!   has committed.
//!
//! [`ailurus::store`] lists what holds and what does not.
//!
//! ```no_run
//! use ailurus::processor::BoxError;
//! use ailurus::store::Relay;
//! use ailurus::{Client, Message, ProducerRecord};
//! use ailurus_postgres::{Inbox, Outbox, OutboxTable, migrate};
//! use tokio_postgres::{Config, NoTls, Transaction};
//!
//! # async fn example(client: Client) -> Result<(), BoxError> {
//! let config: Config = "host=localhost user=shop".parse()?;
//! let connect = move || {
//!     let config = config.clone();
//!     async move { config.connect(NoTls).await }
//! };
//! let (database, connection) = connect().await?;
//! tokio::spawn(connection);
//! migrate(&database).await?;
//!
//! // Sends what handlers add to the outbox.
//! let relay = Relay::new(&client, OutboxTable::new(connect.clone())).start()?;
//!
//! // Each order is billed once, and its bill is sent.
//! let handle = move |message: Message| {
//!     let connecting = connect(); // or one of a pool
//!     async move {
//!         let (mut database, connection) = connecting.await?;
//!         tokio::spawn(connection);
//!         let bill = async |transaction: &Transaction<'_>| {
//!             let order = message.text()?;
//!             transaction.execute("INSERT INTO bills (order_id) VALUES ($1)", &[&order]).await?;
//!             let record = ProducerRecord::to("bills").value(order.unwrap_or_default());
//!             Outbox::new().add(transaction, &record).await?;
//!             Ok::<_, BoxError>(())
//!         };
//!         Inbox::by_event_id("billing").apply(&mut database, &message, bill).await?;
//!         Ok::<_, BoxError>(())
//!     }
//! };
//! let subscription = client.processor("billing").subscribe(["orders"], handle).await?;
//! subscription.run_until_signal().await?;
//! relay.shutdown(std::time::Duration::from_secs(10)).await?;
//! # Ok(())
//! # }
//! ```

mod error;
mod inbox;
mod outbox;
mod outbox_table;
mod schema;

pub use inbox::Inbox;
pub use outbox::{Backlog, Outbox};
pub use outbox_table::OutboxTable;
pub use schema::{SCHEMA, migrate};
#[doc(no_inline)]
pub use tokio_postgres;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
