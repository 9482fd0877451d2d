#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Mutex;
use std::time::Duration;

use ailurus_broker::{Broker, BrokerConfig, Fault};
use futures_util::future::join_all;
use kafka_protocol::protocol::Decodable;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;

const METADATA: i16 = 3;
/// Time that is enough for whatever does not wait for a broker that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what).await.expect("nothing waits for the broker that hangs")
}

/// Returns an address that accepts connections and never responds, as a broker that is stopped
/// (SIGSTOP).
async fn hung() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn config(brokers: &str) -> Config {
    let ms = Duration::from_millis;
    // Longer than the tests wait: a call that waits for a broker that hangs fails them.
    let timeouts =
        Config::builder().connect_timeout(2 * PATIENCE).request_timeout(2 * PATIENCE).delivery_timeout(4 * PATIENCE);
    timeouts.brokers(brokers).retry_backoff(ms(5)).retry_backoff_max(ms(50)).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn concurrent_refreshes_share_a_failure() {
    let (_listener, address) = hung().await;
    let client = Client::new(config(&address));
    let began = Instant::now();
    let outcomes = join_all((0..50).map(|_| client.cluster().refresh())).await;
    assert!(outcomes.iter().all(|o| o.as_ref().is_err_and(|e| e.kind() == ErrorKind::Connect)));
    let longest = 2 * client.config().connect_timeout;
    assert!(began.elapsed() <= longest, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_topic_stays_in_use_when_a_lookup_fails() {
    let broker = Broker::start(BrokerConfig::default()).await.unwrap();
    let client = Client::new(config(&broker.bootstrap()));
    let cluster = client.cluster();
    broker.create_topic("t", 1).unwrap();
    cluster.topic("t", true).await.unwrap();
    broker.delete_topic("t");
    cluster.refresh().await.unwrap();
    assert!(cluster.topic("t", false).await.unwrap_err().is_unknown_topic());
    broker.create_topic("t", 1).unwrap();
    assert!(cluster.refresh().await.unwrap().topics.get("t").is_some(), "a user learns that it is back");
    assert!(cluster.topic("other", false).await.is_err());
    assert!(!cluster.interests.contains("other"), "nobody uses it");
    client.close().await;
}

#[tokio::test]
async fn an_invalid_name_does_not_fail_refreshes() {
    let broker = Broker::start(BrokerConfig::default()).await.unwrap();
    let client = Client::new(config(&broker.bootstrap()));
    let e = client.cluster().topic(&"n".repeat(40_000), true).await.unwrap_err();
    assert!(e.is_unknown_topic() && e.to_string().contains("40000 bytes"), "{e}");
    client.cluster().refresh().await.unwrap();
    client.close().await;
}

#[tokio::test]
async fn a_broker_that_hangs_does_not_delay_the_others() {
    let broker = Broker::start(BrokerConfig::default().nodes(2)).await.unwrap();
    // One that hangs from the start: the next one responds long before its timeout.
    let (_listener, address) = hung().await;
    let client = Client::new(config(&format!("{address},{}", broker.bootstrap())));
    soon(client.cluster().refresh()).await.unwrap();
    // One that hangs while the client has a connection to it.
    broker.set_hook(|r| (r.api_key == METADATA && r.node == 1).then_some(Fault::Delay(Duration::from_secs(600))));
    let all = MetadataRequest::default().with_topics(None);
    for _ in 0..4 {
        soon(client.cluster().request_any(all.clone(), 2 * PATIENCE)).await.unwrap();
    }
    client.close().await;
}

#[tokio::test]
async fn close_does_not_wait_for_a_broker_that_hangs() {
    let (listener, address) = hung().await;
    let client = Client::new(config(&address));
    let refresh = tokio::spawn({
        let client = client.clone();
        async move { client.cluster().refresh().await }
    });
    let _taken = listener.accept().await.unwrap();
    soon(client.close()).await;
    let e = soon(refresh).await.unwrap().unwrap_err();
    assert!(e.is_closed() && !e.is_retriable(), "{e}");
    assert!(client.cluster().refresh().await.unwrap_err().is_closed());
}

#[tokio::test]
async fn a_missing_topic_in_use_is_looked_for() {
    let client = Client::new(Config::default());
    let cluster = client.cluster();
    let mut snapshot = (*cluster.snapshot()).clone();
    snapshot.failed.insert("gone".into(), code::UNKNOWN_TOPIC_OR_PARTITION);
    cluster.snapshot.send_replace(Arc::new(snapshot));
    assert!(cluster.missing_topics().is_empty(), "nobody uses it");
    cluster.interest(&"gone".into());
    assert_eq!(cluster.missing_topics(), ["gone".into()]);
}

/// Counts the topics of each metadata request.
fn count_topics(broker: &Broker) -> Arc<Mutex<Vec<usize>>> {
    let counts = Arc::<Mutex<Vec<usize>>>::default();
    let counter = Arc::clone(&counts);
    broker.set_hook(move |r| {
        if r.api_key == METADATA {
            let request = MetadataRequest::decode(&mut r.body.clone(), r.version).unwrap();
            counter.lock().unwrap().push(request.topics.map_or(0, |topics| topics.len()));
        }
        None
    });
    counts
}

#[tokio::test]
async fn new_topics_are_requested_alone_and_together() {
    let broker = Broker::start(BrokerConfig::default()).await.unwrap();
    let client = Client::new(config(&broker.bootstrap()));
    let names: Vec<_> = (0..200).map(|i| format!("t{i}")).collect();
    for name in &names {
        broker.create_topic(name, 1).unwrap();
    }
    let counts = count_topics(&broker);
    let (first, rest) = names.split_at(100);
    for name in first {
        client.cluster().topic(name, false).await.unwrap();
    }
    assert_eq!(*counts.lock().unwrap(), [1; 100], "each alone: known topics are not requested again");
    counts.lock().unwrap().clear();
    join_all(rest.iter().map(|name| client.cluster().topic(name, false))).await;
    let requests = counts.lock().unwrap().clone();
    assert_eq!(requests.iter().sum::<usize>(), 100, "{requests:?}");
    assert!(requests.len() <= 2, "they share requests: {requests:?}");
    client.close().await;
}

#[tokio::test]
async fn admin_calls_do_not_refresh_the_topics_in_use() {
    let broker = Broker::start(BrokerConfig::default()).await.unwrap();
    let client = Client::new(config(&broker.bootstrap()));
    for i in 0..50 {
        let name = format!("t{i}");
        broker.create_topic(&name, 1).unwrap();
        client.cluster().topic(&name, false).await.unwrap();
    }
    let counts = count_topics(&broker);
    let admin = crate::Admin::new(&client);
    admin.create_topic("new", 1, None).await.unwrap();
    admin.create_partitions("new", 2).await.unwrap();
    admin.list_groups().await.unwrap();
    admin.delete_topic("new").await.unwrap();
    let requests = counts.lock().unwrap().clone();
    assert!(!requests.is_empty() && requests.iter().all(|topics| *topics <= 1), "{requests:?}");
    client.close().await;
}

#[tokio::test]
async fn an_unused_topic_is_forgotten() {
    let broker = Broker::start(BrokerConfig::default()).await.unwrap();
    broker.create_topic("used", 1).unwrap();
    broker.create_topic("unused", 1).unwrap();
    let mut settings = config(&broker.bootstrap());
    settings.metadata_max_idle = Duration::ZERO;
    let client = Client::new(settings);
    let cluster = client.cluster();
    cluster.topic("unused", false).await.unwrap();
    let pin = cluster.pin(&cluster.topic("used", false).await.unwrap().name);
    cluster.refresh().await.unwrap(); // counts the use until now
    let snapshot = cluster.refresh().await.unwrap();
    assert!(snapshot.topics.get("used").is_some() && snapshot.topics.get("unused").is_none());
    assert!(cluster.topic("unused", false).await.is_ok(), "it is found again when it is used");
    drop(pin);
    client.close().await;
}

#[tokio::test]
async fn a_topic_that_the_broker_does_not_create_fails_at_once() {
    let broker = Broker::start(BrokerConfig::default().auto_create(false)).await.unwrap();
    let mut settings = config(&broker.bootstrap());
    settings.topic_creation_timeout = 2 * PATIENCE;
    let client = Client::new(settings);
    let e = soon(client.cluster().topic("absent", true)).await.unwrap_err();
    assert!(e.is_unknown_topic() && e.to_string().contains("auto.create.topics.enable is false"), "{e}");
    client.close().await;
}
