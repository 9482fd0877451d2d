#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ailurus::Timestamp;
use proptest::prelude::*;
use redb::StorageBackend;
use tokio::sync::oneshot::error::TryRecvError;
use uuid::{NoContext, Uuid};

use super::*;
use crate::Money;
use crate::events::StockChange;

const DAY: u64 = 24 * 3600 * 1000;
/// Any time will do.
const NOW: u64 = 1_767_225_600_000;

fn uuid(ms: u64) -> String {
    let (seconds, nanos) = (ms / 1000, (ms % 1000) as u32 * 1_000_000);
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, nanos)).to_string()
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms as i64)
}

fn received(id: &str, ms: u64, offset: i64) -> Received {
    Received { id: id.into(), source: "s".into(), time: at(ms), topic: "t".into(), partition: 0, offset }
}

/// An event that happens now, with an id of its own.
fn fresh(offset: i64) -> Received {
    let now = Timestamp::now().as_millis() as u64;
    received(&Uuid::now_v7().to_string(), now, offset)
}

fn fact(event_type: &str, order: &str, status: OrderStatus, paid: Option<i64>) -> OrderFact {
    let payment = paid.map(|cents| (Money::cents(cents), "EUR".to_owned()));
    OrderFact { event_type: event_type.into(), order: Some((order.into(), status)), payment }
}

#[tokio::test]
async fn a_second_delivery_changes_nothing_not_even_after_newer_ones() {
    let store = Store::in_memory().unwrap();
    let (first, second, third) = (fresh(0), fresh(1), fresh(2));
    let deliveries = [
        (StockUpdated::set("p", None, 10), &first, Outcome::Applied, 10),
        (StockUpdated::set("p", None, 10), &first, Outcome::Duplicate, 10),
        (StockUpdated::set("p", Some(10), 7), &second, Outcome::Applied, 7),
        (StockUpdated::add("p", -1), &third, Outcome::Applied, 6),
        // The partition is read again from its start.
        (StockUpdated::set("p", None, 10), &first, Outcome::Duplicate, 6),
        (StockUpdated::set("p", Some(10), 7), &second, Outcome::Duplicate, 6),
        (StockUpdated::add("p", -1), &third, Outcome::Duplicate, 6),
    ];
    for (update, event, outcome, stock) in deliveries {
        assert_eq!(store.apply(update, event.clone()).await.unwrap(), outcome);
        assert_eq!(store.stock("p").await.unwrap(), Some(stock));
    }
    // Sent twice: the same event in two records.
    let again = Received { offset: 99, ..third };
    assert_eq!(store.apply(StockUpdated::add("p", -1), again).await.unwrap(), Outcome::Duplicate);
    assert_eq!(store.stock("other").await.unwrap(), None);
}

#[tokio::test]
async fn a_difference_counts_from_what_is_known() {
    let store = Store::in_memory().unwrap();
    let known = StockUpdated { previous_stock: Some(10), ..StockUpdated::add("p", -3) };
    store.apply(known, fresh(0)).await.unwrap();
    assert_eq!(store.stock("p").await.unwrap(), Some(7));
    // The store's own number counts more than the sender's.
    let stale = StockUpdated { previous_stock: Some(10), ..StockUpdated::add("p", -3) };
    store.apply(stale, fresh(1)).await.unwrap();
    assert_eq!(store.stock("p").await.unwrap(), Some(4));
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused_and_may_be_tried_again() {
    let store = Store::in_memory().unwrap();
    let event = received("e-1", NOW, 3);
    let empty = StockUpdated { delta: None, ..StockUpdated::add("p", 0) };
    let error = store.apply(empty, event.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Event);
    assert!(error.to_string().starts_with("the stock update e-1 in t/0 at offset 3 has neither newStock"), "{error}");

    store.apply(StockUpdated::set("p", None, i64::MAX), fresh(2)).await.unwrap();
    let error = store.apply(StockUpdated::add("p", 1), event.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Event);
    assert!(error.to_string().starts_with("event e-1 in t/0 at offset 3 can't be applied"), "{error}");
    assert_eq!(store.apply(StockUpdated::add("p", -1), event).await.unwrap(), Outcome::Applied);
}

#[tokio::test]
async fn orders_are_counted_once() {
    let store = Store::in_memory().unwrap();
    let paid = fresh(1);
    for (fact, event) in [
        (fact("order.created", "o-1", OrderStatus::Pending, None), fresh(0)),
        (fact("order.paid", "o-1", OrderStatus::Paid, Some(1999)), paid.clone()),
        (fact("order.created", "o-2", OrderStatus::Pending, None), fresh(2)),
        (fact("order.paid", "o-1", OrderStatus::Paid, Some(1999)), paid),
    ] {
        store.record(fact, event).await.unwrap();
    }
    let other = OrderFact { event_type: "product.viewed".into(), order: None, payment: None };
    store.record(other, fresh(3)).await.unwrap();

    let summary = store.summary().await.unwrap();
    let counts = |pairs: &[(&str, u64)]| pairs.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect::<BTreeMap<_, _>>();
    assert_eq!(summary.events, counts(&[("order.created", 2), ("order.paid", 1), ("product.viewed", 1)]));
    assert_eq!(summary.orders, counts(&[("paid", 1), ("pending", 1)]));
    assert_eq!(summary.revenue, BTreeMap::from([("EUR".to_owned(), Money::cents(1999))]));
    assert_eq!(store.order_status("o-1").await.unwrap(), Some(OrderStatus::Paid));
    assert_eq!(store.order_status("o-9").await.unwrap(), None);
}

#[tokio::test]
async fn inventory_and_analytics_each_apply_an_event() {
    let store = Store::in_memory().unwrap();
    let event = fresh(0);
    assert_eq!(store.apply(StockUpdated::add("p", 1), event.clone()).await.unwrap(), Outcome::Applied);
    let viewed = OrderFact { event_type: "x".into(), order: None, payment: None };
    assert_eq!(store.record(viewed, event).await.unwrap(), Outcome::Applied);
}

#[tokio::test]
async fn a_reopened_file_knows_its_stock_and_its_events() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.redb");
    let event = fresh(0);
    let store = Store::open(&path).await.unwrap();
    store.apply(StockUpdated::add("p", 5), event.clone()).await.unwrap();

    let refused = Store::open(&path).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Io);
    assert!(refused.to_string().contains(&path.display().to_string()), "{refused}");
    store.close().await;

    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.stock("p").await.unwrap(), Some(5));
    assert_eq!(store.apply(StockUpdated::add("p", 5), event).await.unwrap(), Outcome::Duplicate);
    assert_eq!(store.stock("p").await.unwrap(), Some(5));
}

#[tokio::test]
async fn updates_given_before_the_last_handle_goes_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.redb");
    let store = Store::open(&path).await.unwrap();
    let mut outcome_receivers = Vec::new();
    for offset in 0..100 {
        let effect = Effect::Stock { product_id: "p".into(), previous_stock: None, change: StockChange::By(1) };
        let (request, outcome) = Request::new(Update { effect, received: fresh(offset) });
        store.0.requests.as_ref().unwrap().send(request).await.unwrap();
        outcome_receivers.push(outcome);
    }
    store.close().await;
    for mut outcome in outcome_receivers {
        assert_eq!(outcome.try_recv().unwrap().unwrap(), Outcome::Applied);
    }
    assert_eq!(Store::open(&path).await.unwrap().stock("p").await.unwrap(), Some(100));
}

#[tokio::test]
async fn a_file_of_another_kind_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    std::fs::write(&path, "not a store, and long enough to look like one: ".repeat(2000)).unwrap();
    assert_eq!(Store::open(&path).await.unwrap_err().kind(), ErrorKind::Io);

    let path = directory.path().join("newer.redb");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(redb::TableDefinition::<(), u64>::new("format")).unwrap().insert((), 2).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Store::open(&path).await.unwrap_err();
    assert!(error.to_string().contains("it has format 2"), "{error}");
}

fn add(product: &str, received: Received) -> (Request, tokio::sync::oneshot::Receiver<Result<Outcome>>) {
    let effect = Effect::Stock { product_id: product.into(), previous_stock: None, change: StockChange::By(1) };
    Request::new(Update { effect, received })
}

#[test]
fn what_is_waiting_goes_into_one_commit() {
    let disk = Arc::new(memory());
    let (requests, queue) = mpsc::channel(MAX_QUEUED);
    let mut writer = Writer::new("test".into(), disk.clone(), StoreOptions::default(), queue);
    let mut outcome_receivers = Vec::new();
    for offset in 0..500 {
        // Every event twice, side by side: one of the two is the duplicate, though neither is committed yet.
        for _ in 0..2 {
            let (request, outcome) = add("p", received(&format!("e-{offset}"), NOW, offset));
            requests.try_send(request).unwrap();
            outcome_receivers.push(outcome);
        }
    }
    assert_eq!(outcome_receivers[0].try_recv().unwrap_err(), TryRecvError::Empty);
    assert_eq!(writer.turn(), 1000);
    let outcomes: Vec<_> = outcome_receivers.iter_mut().map(|outcome| outcome.try_recv().unwrap().unwrap()).collect();
    assert_eq!(outcomes, [Outcome::Applied, Outcome::Duplicate].repeat(500));
    assert_eq!(stock(&disk), Some(500));
    drop(requests);
    assert_eq!(writer.turn(), 0);
}

fn memory() -> Disk {
    Disk::new(|| {
        let database = Database::builder().create_with_backend(InMemoryBackend::new())?;
        tables::prepare(&database)?;
        Ok(database)
    })
    .unwrap()
}

fn stock(disk: &Disk) -> Option<i64> {
    disk.with(|database| tables::stock(&database.begin_read()?, "p")).unwrap()
}

/// Adds one to the stock of `p`, at a time.
fn deliver(disk: &Disk, options: &StoreOptions, event: &Received, now: u64) -> Outcome {
    let effect = Effect::Stock { product_id: "p".into(), previous_stock: None, change: StockChange::By(1) };
    let update = Update { effect, received: event.clone() };
    let outcomes = disk.with(|database| {
        let transaction = database.begin_write()?;
        let outcomes = tables::apply(&transaction, &[&update], options, now)?;
        transaction.commit()?;
        Ok(outcomes)
    });
    outcomes.unwrap().remove(0).unwrap()
}

#[test]
fn an_event_older_than_the_ids_is_known_by_its_place() {
    let (disk, options) = (memory(), StoreOptions::default());
    let old = received(&uuid(NOW), NOW, 0);
    assert_eq!(deliver(&disk, &options, &old, NOW), Outcome::Applied);
    // Ten days later its id is gone.
    let later = NOW + 10 * DAY;
    assert_eq!(deliver(&disk, &options, &received(&uuid(later), later, 1), later), Outcome::Applied);
    assert_eq!(deliver(&disk, &options, &old, later), Outcome::Duplicate, "a replay");
    // Late, but never seen: it was behind the last one.
    let late = received(&uuid(NOW + 1), NOW + 1, 2);
    assert_eq!(deliver(&disk, &options, &late, later), Outcome::Applied);
    assert_eq!(deliver(&disk, &options, &late, later), Outcome::Duplicate);
    // Another partition has come less far.
    let elsewhere = Received { partition: 1, ..received(&uuid(NOW), NOW, 0) };
    assert_eq!(deliver(&disk, &options, &elsewhere, later), Outcome::Applied);
}

#[test]
fn a_topic_that_is_created_again_begins_again() {
    let (disk, options) = (memory(), StoreOptions::default());
    for offset in 0..5 {
        deliver(&disk, &options, &received(&uuid(NOW), NOW, offset), NOW);
    }
    assert_eq!(
        deliver(&disk, &options, &received(&uuid(NOW), NOW, 0), NOW),
        Outcome::Applied,
        "a new event at offset 0"
    );
    assert_eq!(stock(&disk), Some(6));
}

#[test]
fn ids_that_are_no_uuids_are_unique_together_with_source_and_time() {
    let (disk, options) = (memory(), StoreOptions::default());
    let one = received("1", NOW, 0);
    assert_eq!(deliver(&disk, &options, &one, NOW), Outcome::Applied);
    assert_eq!(deliver(&disk, &options, &one, NOW), Outcome::Duplicate);
    assert_eq!(deliver(&disk, &options, &Received { source: "other".into(), ..one.clone() }, NOW), Outcome::Applied);
    assert_eq!(deliver(&disk, &options, &Received { time: at(NOW + 1), ..one }, NOW), Outcome::Applied);
    // A UUIDv7 has a time: a sender that gives its retry a new timestamp sends the same event.
    let id = uuid(NOW);
    assert_eq!(deliver(&disk, &options, &received(&id, NOW, 1), NOW), Outcome::Applied);
    assert_eq!(deliver(&disk, &options, &received(&id, NOW + 9, 2), NOW), Outcome::Duplicate);
}

fn ids(disk: &Disk) -> u64 {
    use redb::ReadableTableMetadata;
    let table = redb::TableDefinition::<(u64, u8, &str), ()>::new("applied_ids");
    disk.with(|database| Ok(database.begin_read()?.open_table(table)?.len()?)).unwrap()
}

#[test]
fn ids_do_not_pile_up() {
    let (disk, options) = (memory(), StoreOptions::default().max_ids(10));
    for offset in 0..100i64 {
        let now = NOW + offset as u64;
        deliver(&disk, &options, &received(&uuid(now), now, offset), now);
        assert!(ids(&disk) <= 10);
    }
    assert_eq!(ids(&disk), 10);
    for offset in 0..100 {
        let event = received(&uuid(NOW), NOW, offset);
        assert_eq!(deliver(&disk, &options, &event, NOW), Outcome::Duplicate);
    }
    assert_eq!(stock(&disk), Some(100));

    let (disk, options) = (memory(), StoreOptions::default());
    for day in 0..30i64 {
        let now = NOW + day as u64 * DAY;
        deliver(&disk, &options, &received(&uuid(now), now, day), now);
    }
    assert_eq!(ids(&disk), 8, "seven days, and the one that is just seven days old");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Partitions are read in order, with rewinds such as a rebalance or a crash causes, while ids are forgotten fast.
    #[test]
    fn each_event_counts_once_whatever_is_read_again(
        times in proptest::collection::vec(0u64..50, 1..40),
        reads in proptest::collection::vec((0usize..3, 0usize..8), 1..60),
        max_ids in 0u64..8, retention in 0u64..40,
    ) {
        let disk = memory();
        let options = StoreOptions::default().max_ids(max_ids).retention(Duration::from_millis(retention));
        // The events of partition p are all of `times`, each with an id of its own.
        let log: Vec<Vec<Received>> = (0..3i32)
            .map(|p| (0i64..).zip(&times).map(|(o, t)| Received {
                partition: p, ..received(&uuid(NOW + t), NOW + t, o)
            }).collect())
            .collect();
        let mut positions = [0usize; 3];
        let mut ended = BTreeSet::new();
        for (clock, (partition, back)) in reads.into_iter().enumerate() {
            positions[partition] = positions[partition].saturating_sub(back);
            for _ in 0..4 {
                let Some(event) = log[partition].get(positions[partition]) else { break };
                let first = ended.insert((partition, positions[partition]));
                let outcome = deliver(&disk, &options, event, NOW + clock as u64);
                prop_assert_eq!(outcome, if first { Outcome::Applied } else { Outcome::Duplicate });
                positions[partition] += 1;
            }
        }
        prop_assert_eq!(stock(&disk), Some(ended.len() as i64));
    }
}

/// A disk that can be full, and keeps what it has.
#[derive(Debug, Clone, Default)]
struct Flaky {
    bytes: Arc<Mutex<Vec<u8>>>,
    full: Arc<AtomicBool>,
}

impl Flaky {
    fn check(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(io::Error::other("no space left on device")) } else { Ok(()) }
    }
}

impl StorageBackend for Flaky {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = offset as usize;
        out.copy_from_slice(&self.bytes.lock().unwrap()[offset..offset + out.len()]);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        self.check()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let offset = offset as usize;
        self.bytes.lock().unwrap()[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_afterwards_all_goes_on() {
    let disk = Flaky::default();
    let backend = disk.clone();
    let open = move || Ok(Database::builder().create_with_backend(backend.clone())?);
    let store = Store::start("flaky".into(), StoreOptions::default(), open).unwrap();
    let (first, second) = (fresh(0), fresh(1));
    store.apply(StockUpdated::add("p", 1), first.clone()).await.unwrap();

    disk.full.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let error = store.apply(StockUpdated::add("p", 1), second.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("no space left on device"), "{error}");
    }
    disk.full.store(false, Ordering::SeqCst);
    assert_eq!(store.apply(StockUpdated::add("p", 1), second).await.unwrap(), Outcome::Applied);
    assert_eq!(store.apply(StockUpdated::add("p", 1), first).await.unwrap(), Outcome::Duplicate);
    assert_eq!(store.stock("p").await.unwrap(), Some(2));
}
