//! The embedded, durable default of [`Inventory`] and [`Analytics`].

mod disk;
mod seen;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ailurus::{Error, ErrorKind, Result};
use redb::backends::InMemoryBackend;
use redb::{Database, ReadTransaction, ReadableDatabase};
use tokio::sync::mpsc;

use crate::events::{OrderStatus, StockUpdated};
use crate::{Analytics, Inventory, OrderFact, Outcome, Received, Summary};
use disk::Disk;
use tables::{Effect, Update};
use writer::{Request, Writer};

/// Maximum number of updates queued for the next commit; further callers wait.
const MAX_QUEUED: usize = 1024;

/// Keeps the stock and counts the orders in one file, each event once even if it is delivered twice.
///
/// Cheap to clone; all clones share the file. A thread of its own commits queued updates, up to 1024 at a time, in one ACID
/// transaction of [redb](https://docs.rs/redb); each caller waits until the commit is on disk. So the rate of updates is not
/// bound by that of the disk's syncs; but a partition's updates come one after the other, so each partition has at most one
/// in a commit. The thread ends after the last clone was dropped and all updates are done. After an I/O error the file is
/// closed, and the next use opens it again, so that the store works as soon as the disk does.
///
/// # Once
///
/// An event's effect and its id are written in the same transaction, so that a second delivery finds the id, also after a
/// crash, and also when newer events came in between. Inventory and analytics keep ids apart: each applies an event once.
///
/// Ids are kept for [`StoreOptions::retention`] by the time of the event (of the id itself, if it is a UUIDv7), and of the
/// youngest [`StoreOptions::max_ids`]. An event older than all of these ids is known by its position alone: a record at or
/// before the last one applied of its partition counts as applied, one behind it is applied. So a replay of a partition
/// applies nothing twice however old it is, and a consumer that was stopped for long misses nothing. Two cases are not found
/// for events that old: an event that was sent twice, as two records; and a topic that was deleted and created again, with
/// offsets from 0.
///
/// ```
/// use ailurus::Timestamp;
/// use ailurus_shop::events::StockUpdated;
/// use ailurus_shop::{Inventory, Outcome, Received, Store};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = Store::in_memory()?;
/// let received = Received {
///     id: "0190b3c8-2a5e-7c11-8000-000000000001".into(),
///     source: "stock-service".into(),
///     time: Timestamp::now(),
///     topic: "stock-updates".into(),
///     partition: 0,
///     offset: 17,
/// };
/// let sold_one = StockUpdated::add("p-1", -1);
/// assert_eq!(store.apply(sold_one.clone(), received.clone()).await?, Outcome::Applied);
/// assert_eq!(store.apply(sold_one, received).await?, Outcome::Duplicate);
/// assert_eq!(store.stock("p-1").await?, Some(-1));
/// store.close().await;
/// # Ok::<(), ailurus::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    name: Arc<str>,
    disk: Arc<Disk>,
    /// `None` while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

/// Limits of the ids of applied events that a [`Store`] keeps.
///
/// ```
/// use std::time::Duration;
///
/// use ailurus_shop::StoreOptions;
///
/// let a_month = StoreOptions::default().retention(Duration::from_secs(30 * 24 * 3600)).max_ids(10_000_000);
/// # let _ = a_month;
/// ```
#[derive(Debug, Clone)]
pub struct StoreOptions {
    retention: Duration,
    max_ids: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { retention: Duration::from_secs(7 * 24 * 3600), max_ids: 1_000_000 }
    }
}

impl StoreOptions {
    /// Sets the time for which an event's id is kept. Default 7 days, as long as brokers keep records by default.
    #[must_use]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// Sets the maximum number of ids; the oldest are removed first. Default 1,000,000, which take up about 100 MB.
    #[must_use]
    pub fn max_ids(mut self, max_ids: u64) -> Self {
        self.max_ids = max_ids;
        self
    }
}

impl Store {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the file can't be opened or created, is open already (here or in another process), or is not a store
    /// of this version.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, StoreOptions::default()).await
    }

    /// Opens the file, or creates it, with options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(path: impl AsRef<Path>, options: StoreOptions) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let name: Arc<str> = path.display().to_string().into();
        blocking(name.clone(), move || Self::start(name, options, move || Ok(Database::create(&path)?))).await
    }

    /// Creates a store in memory, for demos and tests.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if its thread can't be started.
    pub fn in_memory() -> Result<Self> {
        Self::in_memory_with(StoreOptions::default())
    }

    /// Creates a store in memory, with options.
    ///
    /// # Errors
    /// As [`in_memory`](Self::in_memory).
    pub fn in_memory_with(options: StoreOptions) -> Result<Self> {
        let make = || Ok(Database::builder().create_with_backend(InMemoryBackend::new())?);
        Self::start("in memory".into(), options, make)
    }

    fn start(
        name: Arc<str>,
        options: StoreOptions,
        mut open: impl FnMut() -> Result<Database, redb::Error> + Send + Sync + 'static,
    ) -> Result<Self> {
        let open = move || {
            let database = open()?;
            tables::prepare(&database)?;
            Ok(database)
        };
        let disk = Arc::new(Disk::new(open).map_err(|e| failed(&name, "opening", &e))?);
        let (requests, queue) = mpsc::channel(MAX_QUEUED);
        let writer = Writer::new(name.clone(), disk.clone(), options, queue);
        let thread = std::thread::Builder::new().name("shop-store".into()).spawn(move || writer.run());
        let writer = thread.map_err(|e| failed(&name, "starting its thread", &e))?;
        Ok(Self(Arc::new(Inner { name, disk, requests: Some(requests), writer: Some(writer) })))
    }

    /// Drops this handle without blocking the runtime. After the last one all updates are on disk, and the file can be opened
    /// again.
    pub async fn close(self) {
        // A panic could only be one of the writer's, which its callers have seen.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    async fn write(&self, effect: Effect, received: Received) -> Result<Outcome> {
        let ended = || failed(&self.0.name, "writing", &"its thread has ended");
        let (request, outcome) = Request::new(Update { effect, received });
        let requests = self.0.requests.as_ref().ok_or_else(ended)?;
        requests.send(request).await.map_err(|_| ended())?;
        outcome.await.map_err(|_| ended())?
    }

    async fn read<T, F>(&self, read: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    {
        let Inner { name, disk, .. } = &*self.0;
        let (name, disk) = (name.clone(), disk.clone());
        let work = move || {
            let result = disk.with(|database| read(&database.begin_read()?));
            result.map_err(|e| failed(&name, "reading", &e))
        };
        blocking(self.0.name.clone(), work).await
    }
}

impl Inventory for Store {
    /// # Errors
    /// [`ErrorKind::Event`] if the update has neither `newStock` nor `delta`, or if the stock would leave the range of `i64`;
    /// [`ErrorKind::Io`] if the file can't be written.
    ///
    /// # Cancellation
    /// Once the update is queued, dropping the future does not cancel it: the next delivery is a duplicate.
    async fn apply(&self, update: StockUpdated, received: Received) -> Result<Outcome> {
        let Some(change) = update.change() else {
            let Received { id, topic, partition, offset, .. } = received;
            let what = format!(
                "the stock update {id} in {topic}/{partition} at offset {offset} has neither newStock nor delta, for product \
                 {}",
                update.product_id
            );
            return Err(Error::new(ErrorKind::Event, what));
        };
        let StockUpdated { product_id, previous_stock, .. } = update;
        self.write(Effect::Stock { product_id, previous_stock, change }, received).await
    }

    async fn stock(&self, product_id: &str) -> Result<Option<i64>> {
        let product_id = product_id.to_owned();
        self.read(move |transaction| tables::stock(transaction, &product_id)).await
    }
}

impl Analytics for Store {
    /// # Errors
    /// [`ErrorKind::Io`] if the file can't be written.
    ///
    /// # Cancellation
    /// Once the fact is queued, dropping the future does not cancel it: the next delivery is a duplicate.
    async fn record(&self, fact: OrderFact, received: Received) -> Result<Outcome> {
        self.write(Effect::Order(fact), received).await
    }

    async fn summary(&self) -> Result<Summary> {
        self.read(tables::summary).await
    }

    async fn order_status(&self, order_id: &str) -> Result<Option<OrderStatus>> {
        let order_id = order_id.to_owned();
        self.read(move |transaction| tables::order_status(transaction, &order_id)).await
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.requests = None;
        // It ends after one more commit at most: no sender is left.
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.0.name).finish()
    }
}

async fn blocking<T: Send + 'static>(name: Arc<str>, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or_else(|e| Err(failed(&name, "reading or opening", &e)))
}

fn failed(store: &str, doing: &str, error: &dyn fmt::Display) -> Error {
    Error::new(ErrorKind::Io, format!("the shop's store ({store}): {doing} failed: {error}"))
}
