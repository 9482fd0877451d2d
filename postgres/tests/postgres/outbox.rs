//! The outbox and its relay: what is sent, in which order, and what an outage leaves.

use std::collections::BTreeMap;
use std::time::Duration;

use ailurus::store::{Relay, RelayHandle, RelayState};
use ailurus::{Envelope, ErrorKind, Event, Headers, Message, ProducerRecord, Timestamp};
use ailurus_postgres::{Outbox, OutboxTable};
use tokio_postgres::{Client, Config, NoTls};

use super::{Cluster, PATIENCE, server, take};

fn relay(cluster: &Cluster, database: &server::Database) -> RelayHandle {
    let config: Config = database.config.parse().unwrap();
    let table = OutboxTable::new(move || {
        let config = config.clone();
        async move { config.connect(NoTls).await }
    });
    Relay::new(&cluster.client, table).poll_interval(Duration::from_millis(20)).start().unwrap()
}

async fn add(client: &mut Client, record: ProducerRecord<'_>) -> String {
    let transaction = client.transaction().await.unwrap();
    let id = Outbox::new().add(&transaction, &record).await.unwrap();
    transaction.commit().await.unwrap();
    id
}

async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn until_empty(client: &Client) {
    until("the outbox is empty", async || Outbox::new().backlog(client).await.unwrap().rows == 0).await;
}

fn values(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|m| m.text().unwrap().unwrap_or("-")).collect()
}

#[derive(serde::Serialize, serde::Deserialize, Debug, PartialEq)]
struct OrderPaid {
    order: String,
}

impl Event for OrderPaid {
    const TYPE: &'static str = "order.paid";

    fn key(&self) -> Option<std::borrow::Cow<'_, str>> {
        Some(self.order.as_str().into())
    }
}

#[tokio::test]
async fn rows_become_the_records_that_were_added() {
    let Some(database) = server::database().await else { return };
    let (mut client, cluster) = (database.migrated().await, Cluster::start().await);
    let topic = cluster.topic("orders").await;
    let mut headers = Headers::new().with("tenant", "berlin").with("tenant", [0xff, 0]);
    headers.push("null", None);
    let sent_at = Timestamp::from_millis(1_700_000_000_000);
    let full = ProducerRecord::to(&topic).key("k").value("v").headers(&headers).timestamp(sent_at).partition(0);
    let own_id = Headers::new().with("ce_id", "mine");
    let ids = [add(&mut client, full).await, add(&mut client, ProducerRecord::to(&topic).headers(&own_id)).await];
    let paid = Envelope::new("shop", OrderPaid { order: "o-1".into() });
    let transaction = client.transaction().await.unwrap();
    Outbox::new().notify(true).add_event(&transaction, &topic, &paid).await.unwrap();
    transaction.commit().await.unwrap();
    client.execute("INSERT INTO ailurus_outbox (topic, value) VALUES ($1, 'plain')", &[&topic]).await.unwrap();
    let transaction = client.transaction().await.unwrap();
    Outbox::new().add(&transaction, &ProducerRecord::to(&topic).value("never")).await.unwrap();
    transaction.rollback().await.unwrap();
    let backlog = Outbox::new().backlog(&client).await.unwrap();
    assert_eq!((backlog.rows, backlog.failing, backlog.oldest.is_some()), (4, 0, true));

    let relay = relay(&cluster, &database);
    until_empty(&client).await;
    let read = cluster.read(&topic, 4).await;
    let by = |id: &str| read.iter().find(|m| m.headers.get_str("ce_id") == Some(id)).unwrap();
    let first = by(&ids[0]);
    assert_eq!((first.key.as_deref(), first.text().unwrap(), first.timestamp), (Some(&b"k"[..]), Some("v"), sent_at));
    assert_eq!(first.headers.iter().take(3).collect::<Vec<_>>(), headers.iter().collect::<Vec<_>>());
    assert_eq!((ids[1].as_str(), by("mine").value.as_deref(), by("mine").headers.len()), ("mine", None, 1));
    assert_eq!(Envelope::<OrderPaid>::from_message(by(&paid.id)).unwrap(), paid);
    assert!(read.iter().any(|m| m.value.as_deref() == Some(b"plain") && m.headers.get("ce_id").is_some()));
    assert_eq!(relay.health().acknowledged, 4);
    relay.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_commits_late_is_not_skipped() {
    let Some(database) = server::database().await else { return };
    let (mut client, mut other, cluster) =
        (database.migrated().await, database.connect().await, Cluster::start().await);
    let topic = cluster.topic("orders").await;
    let relay = relay(&cluster, &database);
    let late = other.transaction().await.unwrap();
    Outbox::new().add(&late, &ProducerRecord::to(&topic).value("lower id")).await.unwrap();
    add(&mut client, ProducerRecord::to(&topic).value("higher id")).await;
    until_empty(&client).await;
    late.commit().await.unwrap();
    until_empty(&client).await;
    assert_eq!(values(&cluster.read(&topic, 2).await), ["higher id", "lower id"]);
    relay.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_commit_notifies_the_relay() {
    let Some(database) = server::database().await else { return };
    let (mut client, cluster) = (database.migrated().await, Cluster::start().await);
    let topic = cluster.topic("orders").await;
    let config: Config = database.config.parse().unwrap();
    let table = OutboxTable::new(move || {
        let config = config.clone();
        async move { config.connect(NoTls).await }
    });
    let relay = Relay::new(&cluster.client, table).poll_interval(Duration::from_secs(3600)).start().unwrap();
    until("the relay has looked", async || relay.health().last_read.is_some()).await;
    let transaction = client.transaction().await.unwrap();
    Outbox::new().notify(true).add(&transaction, &ProducerRecord::to(&topic).value("v")).await.unwrap();
    transaction.commit().await.unwrap();
    until_empty(&client).await; // long before the poll interval
    relay.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn one_relay_is_active_and_the_next_takes_over() {
    let Some(database) = server::database().await else { return };
    let (mut client, cluster) = (database.migrated().await, Cluster::start().await);
    let topic = cluster.topic("orders").await;
    let first = relay(&cluster, &database);
    until("the first is active", async || first.health().state == RelayState::Active).await;
    let second = relay(&cluster, &database);
    until("the second is in standby", async || second.health().state == RelayState::Standby).await;
    add(&mut client, ProducerRecord::to(&topic).value("1")).await;
    until_empty(&client).await;
    assert_eq!((first.health().acknowledged, second.health().acknowledged), (1, 0));

    // As if its connection were lost: the lock ends with the session, and either becomes active.
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted \
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    client.execute(kill, &[]).await.unwrap();
    add(&mut client, ProducerRecord::to(&topic).value("2")).await;
    until_empty(&client).await;
    first.shutdown(PATIENCE).await.unwrap();
    add(&mut client, ProducerRecord::to(&topic).value("3")).await;
    until_empty(&client).await;
    assert_eq!(second.health().state, RelayState::Active);
    assert_eq!(values(&cluster.read(&topic, 3).await), ["1", "2", "3"]);
    second.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_rejected_record_holds_back_its_key_alone() {
    let Some(database) = server::database().await else { return };
    let (mut client, cluster) = (database.migrated().await, Cluster::start().await);
    let topic = cluster.topic("orders").await;
    let too_large = vec![b'x'; 4 << 20];
    add(&mut client, ProducerRecord::to(&topic).key("a").value(&too_large)).await;
    add(&mut client, ProducerRecord::to(&topic).key("a").value("behind it")).await;
    add(&mut client, ProducerRecord::to(&topic).key("b").value("of another key")).await;
    let relay = relay(&cluster, &database);
    until("it is deferred", async || {
        let backlog = Outbox::new().backlog(&client).await.unwrap();
        (backlog.rows, backlog.failing) == (2, 1)
    })
    .await;
    let error: String =
        client.query_one("SELECT error FROM ailurus_outbox WHERE error IS NOT NULL", &[]).await.unwrap().get(0);
    assert!(error.contains("bytes"), "{error}");
    until("health names it", async || relay.health().problem.is_some_and(|p| p.contains("row 1 of the outbox"))).await;

    client.execute("DELETE FROM ailurus_outbox WHERE id = 1", &[]).await.unwrap();
    until_empty(&client).await;
    assert_eq!(values(&cluster.read(&topic, 2).await), ["of another key", "behind it"]);
    assert_eq!(relay.health().problem, None);
    relay.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn rows_of_a_key_keep_their_order_across_outages() {
    let Some(database) = server::database().await else { return };
    let (mut client, cluster) = (database.migrated().await, Cluster::start().await);
    let topic = cluster.topic("orders").await;
    let relay = relay(&cluster, &database);
    for n in 0..60 {
        let (key, value) = (format!("k{}", n % 3), n.to_string());
        add(&mut client, ProducerRecord::to(&topic).key(&key).value(&value)).await;
        if n % 20 == 10 {
            let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ailurus outbox relay' \
                        AND datname = current_database()";
            client.execute(kill, &[]).await.unwrap();
        }
    }
    until_empty(&client).await;
    // A record may be there twice; the first of each counts.
    let mut seen = BTreeMap::<String, Vec<usize>>::new();
    let mut stream = cluster.reader(&topic).await;
    let mut ids = std::collections::BTreeSet::new();
    while ids.len() < 60 {
        let message = take(&mut stream, 1).await.remove(0);
        let number: usize = message.text().unwrap().unwrap().parse().unwrap();
        if ids.insert(message.headers.get_str("ce_id").unwrap().to_owned()) {
            seen.entry(String::from_utf8(message.key.unwrap().to_vec()).unwrap()).or_default().push(number);
        }
    }
    for (key, numbers) in seen {
        assert!(numbers.is_sorted() && numbers.len() == 20, "{key}: {numbers:?}");
    }
    relay.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn records_that_cannot_be_stored_are_refused_before_the_database_sees_them() {
    let Some(database) = server::database().await else { return };
    let mut client = database.migrated().await;
    let transaction = client.transaction().await.unwrap();
    let (nul, empty, bytes) =
        (Headers::new().with("a\0", "v"), Headers::new().with("ce_id", ""), Headers::new().with("ce_id", [0xff]));
    let records = [
        ProducerRecord::to(""),
        ProducerRecord::to("t").headers(&nul),
        ProducerRecord::to("t").headers(&empty),
        ProducerRecord::to("t").headers(&bytes),
        ProducerRecord::to("t").timestamp(Timestamp::NONE),
        ProducerRecord::to("t").partition(-1),
    ];
    for record in records {
        let error = Outbox::new().add(&transaction, &record).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRecord, "{error}");
    }
    Outbox::new().add(&transaction, &ProducerRecord::to("t")).await.unwrap();
    transaction.commit().await.unwrap();
}
