//! Who keeps the stock.

use std::future::Future;

use ailurus::Result;

use crate::events::StockUpdated;
use crate::{Outcome, Received};

/// Keeps how many there are of each product.
///
/// [`Store`](crate::Store) is one. Another is written on any database that can change a stock and remember the event's id in
/// one transaction; without that, an event that is delivered twice counts twice.
pub trait Inventory: Send + Sync + 'static {
    /// Applies an update once: an event that was applied before changes nothing, even if newer ones came in between.
    ///
    /// When this returns, the update outlives a crash. Updates of one product come one after the other, in the order in which
    /// they were sent.
    ///
    /// # Errors
    /// The event can't be applied, or the store failed; nothing was changed then. The record is retried and then written to
    /// the dead letters.
    fn apply(&self, update: StockUpdated, received: Received) -> impl Future<Output = Result<Outcome>> + Send;

    /// How many there are of a product; `None` if nothing is known of it. Negative if more was sold than there was.
    ///
    /// # Errors
    /// The store failed.
    fn stock(&self, product_id: &str) -> impl Future<Output = Result<Option<i64>>> + Send;
}
