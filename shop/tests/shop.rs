//! The shop from end to end: publishers, broker, consumers, store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ailurus::{
    Admin, Compression, ConsumerEvent, Headers, ProducerRecord, Record, RedpandaService, Result, StartOffset,
    Timestamp, TopicPartition,
};
use ailurus_shop::consumers::{spawn_analytics_consumer, spawn_stock_consumer};
use ailurus_shop::events::{
    OrderCancelled, OrderCompleted, OrderCreated, OrderItem, OrderPaid, OrderShipped, OrderStatus, PriceUpdated,
    ProductCreated, ProductUpdated, ProductViewed, ProfileUpdated, StockUpdated, UserLoggedIn, UserRegistered,
};
use ailurus_shop::{
    Analytics, Inventory, Money, OrderEvents, OrderFact, Outcome, ProductEvents, Received, Store, Summary, Topics,
    UserEvents,
};
use ailurus_test_support::{self as support, TestBroker};
use tokio::sync::mpsc;

const LONG: Duration = Duration::from_secs(300);

async fn service(broker: &TestBroker) -> (RedpandaService, Topics) {
    let session = broker.shortest_session();
    let config = broker.config().client_id("shop").session_timeout(session).heartbeat_interval(session / 10);
    let service = RedpandaService::connect(config.max_attempts(2_u32).build().unwrap()).await.unwrap();
    let topics = Topics::with_prefix(broker.prefix());
    for topic in topics.all() {
        Admin::new(service.client()).create_topic(topic, 3, None).await.unwrap();
    }
    (service, topics)
}

/// A store that reports the outcome of each event after its commit.
struct Watched {
    store: Store,
    seen: mpsc::UnboundedSender<(Received, Outcome)>,
}

type Seen = mpsc::UnboundedReceiver<(Received, Outcome)>;

fn watched(store: &Store) -> (Watched, Seen) {
    let (seen, receiver) = mpsc::unbounded_channel();
    (Watched { store: store.clone(), seen }, receiver)
}

impl Inventory for Watched {
    async fn apply(&self, update: StockUpdated, received: Received) -> Result<Outcome> {
        let outcome = self.store.apply(update, received.clone()).await?;
        let _ = self.seen.send((received, outcome));
        Ok(outcome)
    }
    async fn stock(&self, product_id: &str) -> Result<Option<i64>> {
        self.store.stock(product_id).await
    }
}

impl Analytics for Watched {
    async fn record(&self, fact: OrderFact, received: Received) -> Result<Outcome> {
        let outcome = self.store.record(fact, received.clone()).await?;
        let _ = self.seen.send((received, outcome));
        Ok(outcome)
    }
    async fn summary(&self) -> Result<Summary> {
        self.store.summary().await
    }
    async fn order_status(&self, order_id: &str) -> Result<Option<OrderStatus>> {
        self.store.order_status(order_id).await
    }
}

async fn next(seen: &mut Seen) -> (Received, Outcome) {
    tokio::time::timeout(LONG, seen.recv()).await.expect("an event in time").expect("the consumer runs")
}

async fn outcomes(seen: &mut Seen, count: usize) -> Vec<Outcome> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(next(seen).await.1);
    }
    all
}

/// All records of a topic.
async fn read_all(service: &RedpandaService, topic: &str) -> Vec<Record> {
    let client = service.client();
    let count = Admin::new(client).describe_topic(topic).await.unwrap().partitions.len();
    let from: Vec<_> = (0..count).map(|p| (TopicPartition::new(topic, p as i32), StartOffset::Earliest)).collect();
    let mut open: BTreeSet<_> = from.iter().map(|(tp, _)| tp.partition).collect();
    let mut consumer = client.reader().assign(from).await.unwrap();
    let mut all = Vec::new();
    while !open.is_empty() {
        let event = tokio::time::timeout(LONG, consumer.recv()).await.expect("records in time").unwrap();
        if let ConsumerEvent::Records(mut r) = event {
            if r.next_offset >= r.high_watermark {
                open.remove(&r.partition);
            }
            all.append(&mut r.records);
        }
    }
    consumer.close().await.unwrap();
    all
}

async fn produce(service: &RedpandaService, topic: &str, key: &str, value: &str, headers: &Headers) {
    let record = ProducerRecord::to(topic).key(key).value(value).headers(headers);
    service.producer().send(record).await.unwrap().await.unwrap();
}

fn text(bytes: Option<&bytes::Bytes>) -> &str {
    std::str::from_utf8(bytes.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_is_what_the_last_updates_say_however_often_they_are_delivered() {
    let broker = support::broker().await;
    let (service, topics) = service(&broker).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.redb");
    let store = Store::open(&path).await.unwrap();
    let (inventory, mut seen) = watched(&store);
    let consumer = spawn_stock_consumer(&service, inventory, &topics).await.unwrap();

    let products = ProductEvents::new(&service, &topics).compression(Compression::gzip(6).unwrap());
    for left in (0..10).rev() {
        for product in ["p-1", "p-2", "p-3"] {
            products.publish_stock_updated(&StockUpdated::set(product, Some(left + 1), left)).await.unwrap();
        }
    }
    products.publish_stock_updated(&StockUpdated::add("p-1", -2)).await.unwrap();
    assert_eq!(outcomes(&mut seen, 31).await, [Outcome::Applied; 31]);
    let stock = async |store: &Store| {
        let mut all = Vec::new();
        for product in ["p-1", "p-2", "p-3", "p-4"] {
            all.push(store.stock(product).await.unwrap());
        }
        all
    };
    assert_eq!(stock(&store).await, [Some(-2), Some(0), Some(0), None]);

    // Sent again, as after a lost acknowledgement.
    let records = read_all(&service, &topics.stock_updates).await;
    assert_eq!(records.len(), 31);
    for record in &records {
        produce(
            &service,
            &topics.stock_updates,
            text(record.key.as_ref()),
            text(record.value.as_ref()),
            &record.headers,
        )
        .await;
    }
    assert_eq!(outcomes(&mut seen, 31).await, [Outcome::Duplicate; 31]);
    assert_eq!(stock(&store).await, [Some(-2), Some(0), Some(0), None]);
    consumer.shutdown().await.unwrap();
    store.close().await;

    // Another group reads the whole topic again into the same file, as after lost commits.
    let store = Store::open(&path).await.unwrap();
    let again = Topics { stock_group: broker.group("again"), ..topics.clone() };
    let (inventory, mut seen) = watched(&store);
    let consumer = spawn_stock_consumer(&service, inventory, &again).await.unwrap();
    assert_eq!(outcomes(&mut seen, 62).await, [Outcome::Duplicate; 62]);
    assert_eq!(stock(&store).await, [Some(-2), Some(0), Some(0), None]);
    consumer.shutdown().await.unwrap();
    store.close().await;
    service.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_dies_leaves_nothing_out_and_nothing_counted_twice() {
    let broker = support::broker().await;
    let (service, topics) = service(&broker).await;
    let store = Store::in_memory().unwrap();
    let (watching_first, mut seen_first) = watched(&store);
    let (watching_second, mut seen_second) = watched(&store);
    let first = spawn_stock_consumer(&service, watching_first, &topics).await.unwrap();
    let products = ProductEvents::new(&service, &topics);
    for n in 0..30 {
        products.publish_stock_updated(&StockUpdated::add(format!("p-{}", n % 5), 1)).await.unwrap();
    }
    assert_eq!(outcomes(&mut seen_first, 30).await, [Outcome::Applied; 30]);

    let second = spawn_stock_consumer(&service, watching_second, &topics).await.unwrap();
    first.abort().await;
    for n in 0..30 {
        products.publish_stock_updated(&StockUpdated::add(format!("p-{}", n % 5), 1)).await.unwrap();
    }
    // What the first had not committed is handled again, and changes nothing.
    let mut applied = BTreeSet::new();
    while let Ok((received, outcome)) = seen_first.try_recv() {
        assert!(outcome == Outcome::Duplicate || applied.insert(received.id));
    }
    while applied.len() < 30 {
        let (received, outcome) = next(&mut seen_second).await;
        assert!(outcome == Outcome::Duplicate || applied.insert(received.id));
    }
    for n in 0..5 {
        assert_eq!(store.stock(&format!("p-{n}")).await.unwrap(), Some(12));
    }
    second.shutdown().await.unwrap();
    service.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_counted_and_both_topics_have_every_event() {
    let broker = support::broker().await;
    let (service, topics) = service(&broker).await;
    let store = Store::in_memory().unwrap();
    let (analytics, mut seen) = watched(&store);
    let consumer = spawn_analytics_consumer(&service, analytics, &topics).await.unwrap();

    let orders = OrderEvents::new(&service, &topics).compression(Compression::gzip(6).unwrap()).source("order-service");
    for order in ["o-1", "o-2", "o-3"] {
        let items = vec![OrderItem::new("p-1", 2, Money::cents(1999))];
        let created = OrderCreated { currency: Some("EUR".into()), ..OrderCreated::new(order, "u-1", items) };
        orders.publish_order_created(&created).await.unwrap();
        let (old, new) = (OrderStatus::Pending, OrderStatus::Confirmed);
        orders.publish_order_status_updated(order, old, new).await.unwrap();
    }
    for (order, cents) in [("o-1", 3998), ("o-2", 3990)] {
        let paid = OrderPaid {
            order_id: order.into(),
            total_amount: Money::cents(cents),
            currency: Some("EUR".into()),
            payment_method: None,
            paid_at: None,
        };
        orders.publish_order_paid(&paid).await.unwrap();
        let shipped = OrderShipped { order_id: order.into(), carrier: None, tracking_number: None, shipped_at: None };
        orders.publish_order_shipped(&shipped).await.unwrap();
    }
    orders.publish_order_completed(&OrderCompleted { order_id: "o-1".into(), completed_at: None }).await.unwrap();
    let cancelled = OrderCancelled { order_id: "o-3".into(), reason: None, cancelled_at: None };
    orders.publish_order_cancelled(&cancelled).await.unwrap();

    assert_eq!(outcomes(&mut seen, 12).await, [Outcome::Applied; 12]);
    let summary = store.summary().await.unwrap();
    let counts = |pairs: &[(&str, u64)]| pairs.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect::<BTreeMap<_, _>>();
    let types = [
        ("order.created", 3),
        ("order.updated", 3),
        ("order.paid", 2),
        ("order.shipped", 2),
        ("order.completed", 1),
        ("order.cancelled", 1),
    ];
    assert_eq!(summary.events, counts(&types));
    assert_eq!(summary.orders, counts(&[("completed", 1), ("shipped", 1), ("cancelled", 1)]));
    assert_eq!(summary.revenue, BTreeMap::from([("EUR".to_owned(), Money::cents(7988))]));
    consumer.shutdown().await.unwrap();

    let ids = async |topic: &str| {
        let records = read_all(&service, topic).await;
        assert!(records.iter().all(|r| r.headers.get_str("ce_source") == Some("order-service")));
        records.iter().map(|r| r.headers.get_str("ce_id").unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let (events, copies) = (ids(&topics.orders).await, ids(&topics.analytics).await);
    assert_eq!(events.len(), 12);
    assert_eq!(events, copies);
    service.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_goes_to_its_topic_as_plain_json_with_cloudevents_headers() {
    let broker = support::broker().await;
    let (service, topics) = service(&broker).await;
    let products = ProductEvents::new(&service, &topics);
    let users = UserEvents::new(&service, &topics).source("/accounts");

    let created = ProductCreated {
        product_id: "p-1".into(),
        name: "Bamboo".into(),
        price: Money::cents(1999),
        stock: None,
        category: None,
    };
    products.publish_product_created(&created).await.unwrap();
    let changes = [("name".to_owned(), "Fresh bamboo".into())].into_iter().collect();
    products.publish_product_updated(&ProductUpdated { product_id: "p-1".into(), changes }).await.unwrap();
    let price = PriceUpdated { product_id: "p-1".into(), previous_price: None, new_price: Money::cents(1850) };
    products.publish_price_updated(&price).await.unwrap();
    products.publish_product_viewed(&ProductViewed { product_id: "p-1".into(), user_id: None }).await.unwrap();
    let registered = UserRegistered { user_id: "u-1".into(), email: None, name: None };
    users.publish_user_registered(&registered).await.unwrap();
    users
        .publish_user_logged_in(&UserLoggedIn { user_id: "u-1".into(), ip_address: None, user_agent: None })
        .await
        .unwrap();
    let changed = ProfileUpdated { user_id: "u-1".into(), updated_fields: vec!["email".into()] };
    users.publish_profile_updated(&changed).await.unwrap();

    // Of one key, so in the order in which they were sent.
    let of_products = read_all(&service, &topics.products).await;
    let bodies: Vec<_> = of_products.iter().map(|r| (text(r.key.as_ref()), text(r.value.as_ref()))).collect();
    assert_eq!(
        bodies,
        [
            ("p-1", r#"{"eventType":"product.created","productId":"p-1","name":"Bamboo","price":19.99}"#),
            ("p-1", r#"{"eventType":"product.updated","productId":"p-1","changes":{"name":"Fresh bamboo"}}"#),
            ("p-1", r#"{"eventType":"product.price.updated","productId":"p-1","newPrice":18.5}"#),
            ("p-1", r#"{"eventType":"product.viewed","productId":"p-1"}"#),
        ]
    );
    let of_users = read_all(&service, &topics.users).await;
    let types: Vec<_> = of_users.iter().map(|r| r.headers.get_str("ce_type").unwrap()).collect();
    assert_eq!(types, ["user.registered", "user.logged_in", "user.profile.updated"]);

    let headers = |r: &Record| {
        let all =
            r.headers.iter().map(|h| (h.key().into_owned(), String::from_utf8(h.value().unwrap().to_vec()).unwrap()));
        all.collect::<Vec<_>>()
    };
    let [version, id, event_type, source, time, content] = &headers(&of_users[0])[..] else { panic!("{of_users:?}") };
    let pair = |(name, value): &(String, String)| format!("{name}={value}");
    assert_eq!(pair(version), "ce_specversion=1.0");
    assert_eq!((id.0.as_str(), uuid::Uuid::parse_str(&id.1).unwrap().get_version_num()), ("ce_id", 7));
    assert_eq!(pair(event_type), "ce_type=user.registered");
    assert_eq!(pair(source), "ce_source=/accounts");
    let happened = time.1.parse::<Timestamp>().unwrap();
    assert_eq!((time.0.as_str(), happened), ("ce_time", of_users[0].timestamp));
    assert_eq!(pair(content), "content-type=application/json");
    service.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_json_is_read_and_what_cannot_be_read_is_a_dead_letter() {
    let broker = support::broker().await;
    let (service, topics) = service(&broker).await;
    let store = Store::in_memory().unwrap();
    let ((inventory, mut stock_seen), (analytics, mut orders_seen)) = (watched(&store), watched(&store));
    let stock = spawn_stock_consumer(&service, inventory, &topics).await.unwrap();
    let orders = spawn_analytics_consumer(&service, analytics, &topics).await.unwrap();

    let none = Headers::new();
    let send = async |topic: &str, key: &str, value: &str| produce(&service, topic, key, value, &none).await;
    send(&topics.stock_updates, "p", r#"{"eventType":"product.stock.updated","productId":"p","newStock":7}"#).await;
    send(&topics.stock_updates, "p", r#"{"productId":"p","newStock":"many"}"#).await;
    send(&topics.stock_updates, "p", r#"{"productId":"p"}"#).await;
    send(&topics.stock_updates, "p", r#"{"eventType":"product.viewed","productId":"p"}"#).await;
    send(&topics.stock_updates, "p", r#"{"productId":"p","previousStock":7,"newStock":6}"#).await;
    send(&topics.analytics, "o", r#"{"eventType":"order.paid","orderId":"o","totalAmount":59.970000000000006}"#).await;
    send(&topics.analytics, "o", r#"{"eventType":"order.paid","orderId":"o"}"#).await;
    send(&topics.analytics, "o", r#"{"orderId":"o"}"#).await;
    send(&topics.analytics, "o", r#"{"eventType":"order.updated","orderId":"o","status":"SHIPPED"}"#).await;

    assert_eq!(outcomes(&mut stock_seen, 2).await, [Outcome::Applied; 2]);
    assert_eq!(outcomes(&mut orders_seen, 2).await, [Outcome::Applied; 2]);
    assert_eq!(store.stock("p").await.unwrap(), Some(6));
    assert_eq!(store.order_status("o").await.unwrap(), Some(OrderStatus::Shipped));
    let revenue = store.summary().await.unwrap().revenue;
    assert_eq!(revenue, BTreeMap::from([(String::new(), Money::cents(5997))]));
    stock.shutdown().await.unwrap();
    orders.shutdown().await.unwrap();

    let reasons = async |topic: &str| {
        let letters = read_all(&service, &format!("{topic}.dlq")).await;
        letters.iter().map(|r| r.headers.get_str("dlq-error").unwrap().to_owned()).collect::<Vec<_>>()
    };
    let check = |found: Vec<String>, expected: &[&str]| {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found:?} does not say {expected:?}");
        }
    };
    let of_stock = ["the JSON does not match: invalid type: string \"many\"", "has neither newStock", "product.viewed"];
    check(reasons(&topics.stock_updates).await, &of_stock);
    check(reasons(&topics.analytics).await, &["missing field `totalAmount`", "has no event type"]);
    service.close(LONG).await.unwrap();
}
