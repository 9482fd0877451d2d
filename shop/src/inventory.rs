//! The stock of products.

use std::future::Future;

use ailurus::Result;

use crate::events::StockUpdated;
use crate::{Outcome, Received};

/// Keeps the stock of each product.
///
/// [`Store`](crate::Store) implements it. An implementation needs a database that can change a stock and write the event's id
/// in one transaction: else an event that is delivered twice counts twice.
///
/// ```
/// use std::collections::{HashMap, HashSet};
/// use std::sync::Mutex;
///
/// use ailurus::Result;
/// use ailurus_shop::events::{StockChange, StockUpdated};
/// use ailurus_shop::{Inventory, Outcome, Received};
///
/// /// A shelf in memory, for tests.
/// #[derive(Default)]
/// struct Shelf(Mutex<(HashMap<String, i64>, HashSet<String>)>);
///
/// impl Inventory for Shelf {
///     async fn apply(&self, update: StockUpdated, received: Received) -> Result<Outcome> {
///         let (stock, seen) = &mut *self.0.lock().unwrap();
///         if !seen.insert(received.id) {
///             return Ok(Outcome::Duplicate);
///         }
///         let now = stock.entry(update.product_id.clone()).or_default();
///         match update.change() {
///             Some(StockChange::To(n)) => *now = n,
///             Some(StockChange::By(n)) => *now += n,
///             None => {}
///         }
///         Ok(Outcome::Applied)
///     }
///
///     async fn stock(&self, product_id: &str) -> Result<Option<i64>> {
///         Ok(self.0.lock().unwrap().0.get(product_id).copied())
///     }
/// }
/// ```
pub trait Inventory: Send + Sync + 'static {
    /// Applies an update once: an event that was applied before changes nothing, even if newer ones came in between.
    ///
    /// The update is durable when this returns. Updates of one product come one after the other, in the order in which they
    /// were sent.
    ///
    /// # Errors
    /// If the event can't be applied, or the store failed; nothing was changed then. The record is retried, and then written
    /// to the dead-letter topic.
    fn apply(&self, update: StockUpdated, received: Received) -> impl Future<Output = Result<Outcome>> + Send;

    /// Returns the stock of a product; `None` for an unknown product. Negative if more was sold than there was.
    ///
    /// # Errors
    /// If the store failed.
    fn stock(&self, product_id: &str) -> impl Future<Output = Result<Option<i64>>> + Send;
}
