//! Who keeps the stock.

use std::future::Future;

use ailurus::Result;

use crate::events::StockUpdated;
use crate::{Outcome, Received};

/// Keeps how many there are of each product.
///
/// [`Store`](crate::Store) is one. Another is written on any database that can change a stock and remember the event's id in
/// one transaction; without that, an event that is delivered twice counts twice.
///
/// ```
/// use std::collections::{HashMap, HashSet};
/// use std::sync::Mutex;
///
/// use ailurus::Result;
/// use ailurus_shop::events::{StockChange, StockUpdated};
/// use ailurus_shop::{Inventory, Outcome, Received};
///
/// /// For tests: it forgets all when it ends.
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
