#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Debug;

use ailurus::{Event, Timestamp};
use proptest::option;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::*;
use crate::Money;

fn time() -> Timestamp {
    Timestamp::from_millis(1_767_225_600_250)
}

/// The JSON is exactly this, is read back as the same event, and names the type and holds the key that the trait says.
fn check<E: Event + serde::Serialize + DeserializeOwned + PartialEq + Debug>(event: &E, key: &str, json: &str) {
    assert_eq!(serde_json::to_string(event).unwrap(), json);
    assert_eq!(&serde_json::from_str::<E>(json).unwrap(), event);
    assert_eq!(event.key().as_deref(), Some(key));
    assert!(json.starts_with(&format!(r#"{{"eventType":"{}","#, E::TYPE)), "{json} is not of type {}", E::TYPE);
}

#[test]
fn orders_are_written_as_other_clients_read_them() {
    let items = vec![OrderItem::new("p-1", 2, Money::cents(1999)), OrderItem::new("p-2", 1, Money::cents(500))];
    let created = OrderCreated::new("o-1", "u-1", items);
    check(
        &created,
        "o-1",
        r#"{"eventType":"order.created","orderId":"o-1","userId":"u-1","items":[{"productId":"p-1","quantity":2,"price":19.99},{"productId":"p-2","quantity":1,"price":5}],"totalAmount":44.98}"#,
    );
    check(
        &OrderCreated { currency: Some("EUR".into()), created_at: Some(time()), items: vec![], ..created },
        "o-1",
        r#"{"eventType":"order.created","orderId":"o-1","userId":"u-1","items":[],"totalAmount":44.98,"currency":"EUR","createdAt":"2026-01-01T00:00:00.250Z"}"#,
    );
    check(
        &OrderUpdated {
            order_id: "o-1".into(),
            previous_status: Some(OrderStatus::Pending),
            new_status: OrderStatus::Confirmed,
        },
        "o-1",
        r#"{"eventType":"order.updated","orderId":"o-1","previousStatus":"pending","newStatus":"confirmed"}"#,
    );
    check(
        &OrderPaid {
            order_id: "o-1".into(),
            total_amount: Money::cents(4490),
            currency: Some("EUR".into()),
            payment_method: Some("card".into()),
            paid_at: Some(time()),
        },
        "o-1",
        r#"{"eventType":"order.paid","orderId":"o-1","totalAmount":44.9,"currency":"EUR","paymentMethod":"card","paidAt":"2026-01-01T00:00:00.250Z"}"#,
    );
    check(
        &OrderShipped {
            order_id: "o-1".into(),
            carrier: Some("post".into()),
            tracking_number: Some("T-9".into()),
            shipped_at: Some(time()),
        },
        "o-1",
        r#"{"eventType":"order.shipped","orderId":"o-1","carrier":"post","trackingNumber":"T-9","shippedAt":"2026-01-01T00:00:00.250Z"}"#,
    );
    check(
        &OrderCompleted { order_id: "o-1".into(), completed_at: Some(time()) },
        "o-1",
        r#"{"eventType":"order.completed","orderId":"o-1","completedAt":"2026-01-01T00:00:00.250Z"}"#,
    );
    check(
        &OrderCancelled { order_id: "o-1".into(), reason: Some("too late".into()), cancelled_at: None },
        "o-1",
        r#"{"eventType":"order.cancelled","orderId":"o-1","reason":"too late"}"#,
    );
}

#[test]
fn products_are_written_as_other_clients_read_them() {
    check(
        &ProductCreated {
            product_id: "p-1".into(),
            name: "Bamboo".into(),
            price: Money::cents(1999),
            stock: Some(5),
            category: Some("food".into()),
        },
        "p-1",
        r#"{"eventType":"product.created","productId":"p-1","name":"Bamboo","price":19.99,"stock":5,"category":"food"}"#,
    );
    let changes = [("name".to_owned(), json!("Fresh bamboo"))].into_iter().collect();
    check(
        &ProductUpdated { product_id: "p-1".into(), changes },
        "p-1",
        r#"{"eventType":"product.updated","productId":"p-1","changes":{"name":"Fresh bamboo"}}"#,
    );
    check(
        &StockUpdated { reason: Some("sold".into()), ..StockUpdated::set("p-1", Some(5), 4) },
        "p-1",
        r#"{"eventType":"product.stock.updated","productId":"p-1","previousStock":5,"newStock":4,"reason":"sold"}"#,
    );
    check(
        &StockUpdated::add("p-1", -1),
        "p-1",
        r#"{"eventType":"product.stock.updated","productId":"p-1","delta":-1}"#,
    );
    check(
        &PriceUpdated {
            product_id: "p-1".into(),
            previous_price: Some(Money::cents(1999)),
            new_price: Money::cents(1850),
        },
        "p-1",
        r#"{"eventType":"product.price.updated","productId":"p-1","previousPrice":19.99,"newPrice":18.5}"#,
    );
    check(
        &ProductViewed { product_id: "p-1".into(), user_id: Some("u-1".into()) },
        "p-1",
        r#"{"eventType":"product.viewed","productId":"p-1","userId":"u-1"}"#,
    );
}

#[test]
fn users_are_written_as_other_clients_read_them() {
    check(
        &UserRegistered { user_id: "u-1".into(), email: Some("u@example.com".into()), name: Some("U".into()) },
        "u-1",
        r#"{"eventType":"user.registered","userId":"u-1","email":"u@example.com","name":"U"}"#,
    );
    check(
        &UserLoggedIn { user_id: "u-1".into(), ip_address: Some("::1".into()), user_agent: Some("curl".into()) },
        "u-1",
        r#"{"eventType":"user.logged_in","userId":"u-1","ipAddress":"::1","userAgent":"curl"}"#,
    );
    check(
        &ProfileUpdated { user_id: "u-1".into(), updated_fields: vec!["name".into(), "email".into()] },
        "u-1",
        r#"{"eventType":"user.profile.updated","userId":"u-1","updatedFields":["name","email"]}"#,
    );
}

#[test]
fn what_other_shops_write_is_read() {
    let order: OrderCreated = serde_json::from_value(json!({
        "eventId": "e", "eventType": "order.created", "orderId": "o", "userId": "u", "status": "PENDING", "currency": "EUR",
        "items": [{"productId": "p", "quantity": 3, "price": "19.99", "name": "Bamboo"}], "totalAmount": 59.97,
        "timestamp": "2026-01-01T00:00:00.000Z",
    }))
    .unwrap();
    assert_eq!((order.total_amount, order.items[0].price), (Money::cents(5997), Money::cents(1999)));

    let updated: OrderUpdated = serde_json::from_value(json!({"orderId": "o", "status": "PAID"})).unwrap();
    assert_eq!((updated.previous_status, updated.new_status), (None, OrderStatus::Paid));
    let updated: OrderUpdated = serde_json::from_value(json!({"orderId": "o", "newStatus": "RETURNED"})).unwrap();
    assert_eq!(updated.new_status, OrderStatus::Other("RETURNED".into()));
    assert_eq!(serde_json::to_value(&updated).unwrap()["newStatus"], "RETURNED");

    let stock: StockUpdated =
        serde_json::from_value(json!({"productId": "p", "previousStock": 5, "newStock": 4, "delta": -1})).unwrap();
    assert_eq!(stock.change(), Some(StockChange::To(4)));
    let empty: StockUpdated = serde_json::from_value(json!({"productId": "p"})).unwrap();
    assert_eq!(empty.change(), None);
    let price: PriceUpdated = serde_json::from_value(json!({"productId": "p", "oldPrice": 1, "newPrice": 2})).unwrap();
    assert_eq!(price.previous_price, Some(Money::cents(100)));
}

#[test]
fn an_event_without_its_fields_is_refused_by_their_names() {
    let error = serde_json::from_str::<OrderCreated>(r#"{"orderId":"o","userId":"u"}"#).unwrap_err();
    assert!(error.to_string().starts_with("missing field `totalAmount`"), "{error}");
    let error = serde_json::from_str::<StockUpdated>(r#"{"productId":"p","newStock":4.5}"#).unwrap_err();
    assert!(error.to_string().contains("floating point `4.5`, expected i64"), "{error}");
}

#[test]
fn a_total_beyond_what_can_be_written_is_an_error_and_no_wrong_number() {
    let order = OrderCreated::new("o", "u", vec![OrderItem::new("p", u32::MAX, Money::MAX)]);
    assert!(serde_json::to_string(&order).is_err());
}

fn money() -> impl Strategy<Value = Money> {
    (-Money::MAX.as_cents()..=Money::MAX.as_cents()).prop_map(Money::cents)
}

fn instant() -> impl Strategy<Value = Timestamp> {
    (0..253_402_300_800_000_i64).prop_map(Timestamp::from_millis)
}

fn item() -> impl Strategy<Value = OrderItem> {
    (".*", any::<u32>(), money()).prop_map(|(id, quantity, price)| OrderItem::new(id, quantity, price))
}

proptest! {
    #[test]
    fn an_order_reads_back_as_it_was(
        order_id in ".*", user_id in ".*", items in proptest::collection::vec(item(), 0..4), total_amount in money(),
        currency in option::of("[A-Z]{3}"), created_at in option::of(instant()),
    ) {
        let order = OrderCreated { order_id, user_id, items, total_amount, currency, created_at };
        let read: OrderCreated = serde_json::from_str(&serde_json::to_string(&order).unwrap()).unwrap();
        prop_assert_eq!(read, order);
    }

    #[test]
    fn a_stock_update_reads_back_as_it_was(
        product_id in ".*", previous_stock: Option<i64>, new_stock: Option<i64>, delta: Option<i64>,
        reason in option::of(".*"),
    ) {
        let update = StockUpdated { product_id, previous_stock, new_stock, delta, reason };
        let read: StockUpdated = serde_json::from_str(&serde_json::to_string(&update).unwrap()).unwrap();
        prop_assert_eq!(read, update);
    }

    #[test]
    fn a_status_reads_back_as_it_was(text in ".*") {
        let status = OrderStatus::from(text.clone());
        prop_assert!(status.as_str().eq_ignore_ascii_case(&text));
        prop_assert_eq!(OrderStatus::from(String::from(status.clone())), status);
    }
}
