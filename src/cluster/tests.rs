#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use ailurus_broker::{Broker, BrokerConfig, Fault};
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;

const METADATA: i16 = 3;
/// More than what does not wait for a broker that hangs can need.
const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what).await.expect("nothing waits for the broker that hangs")
}

/// An address where connections are taken and nothing is ever answered, as at a broker that is stopped (SIGSTOP).
async fn hung() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn config(brokers: &str) -> Config {
    let ms = Duration::from_millis;
    // Who waits for a broker that hangs is waited for in vain.
    let timeouts =
        Config::builder().connect_timeout(2 * PATIENCE).request_timeout(2 * PATIENCE).delivery_timeout(4 * PATIENCE);
    timeouts.brokers(brokers).retry_backoff(ms(5)).retry_backoff_max(ms(50)).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn callers_that_wait_for_a_refresh_share_its_failure() {
    let (_listener, address) = hung().await;
    let client = Client::new(config(&address));
    let began = Instant::now();
    let outcomes = join_all((0..50).map(|_| client.cluster().refresh())).await;
    assert!(outcomes.iter().all(|o| o.as_ref().is_err_and(|e| e.kind() == ErrorKind::Connect)));
    let longest = 2 * client.config().connect_timeout;
    assert!(began.elapsed() <= longest, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_topic_in_use_stays_so_when_a_search_for_it_fails() {
    let broker = Broker::start(BrokerConfig::default()).await.unwrap();
    let client = Client::new(config(&broker.bootstrap()));
    let cluster = client.cluster();
    broker.create_topic("t", 1).unwrap();
    cluster.topic("t", true).await.unwrap();
    broker.delete_topic("t");
    cluster.refresh().await.unwrap();
    assert!(cluster.topic("t", false).await.unwrap_err().is_unknown_topic());
    broker.create_topic("t", 1).unwrap();
    assert!(cluster.refresh().await.unwrap().topics.contains_key("t"), "who used it learns that it is back");
    assert!(cluster.topic("other", false).await.is_err());
    assert!(!cluster.lock_wanted().contains("other"), "nobody uses it");
    client.close().await;
}

#[tokio::test]
async fn a_name_that_no_topic_can_have_spoils_no_refresh() {
    let broker = Broker::start(BrokerConfig::default()).await.unwrap();
    let client = Client::new(config(&broker.bootstrap()));
    let e = client.cluster().topic(&"n".repeat(40_000), true).await.unwrap_err();
    assert!(e.is_unknown_topic() && e.to_string().contains("40000 bytes"), "{e}");
    client.cluster().refresh().await.unwrap();
    client.close().await;
}

#[tokio::test]
async fn a_broker_that_hangs_does_not_hold_up_the_others() {
    let broker = Broker::start(BrokerConfig::default().nodes(2)).await.unwrap();
    // One that hangs from the start: the next one answers long before it is given up.
    let (_listener, address) = hung().await;
    let client = Client::new(config(&format!("{address},{}", broker.bootstrap())));
    soon(client.cluster().refresh()).await.unwrap();
    // One that hangs while it has our connection.
    broker.set_hook(|r| (r.api_key == METADATA && r.node == 1).then_some(Fault::Delay(Duration::from_secs(600))));
    let all = MetadataRequest::default().with_topics(None);
    for _ in 0..4 {
        soon(client.cluster().request_any(all.clone(), 2 * PATIENCE)).await.unwrap();
    }
    client.close().await;
}

#[tokio::test]
async fn a_closed_client_says_so_and_does_not_wait_for_a_broker_that_hangs() {
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
async fn a_topic_in_use_that_is_missing_is_looked_for_soon() {
    let client = Client::new(Config::default());
    let cluster = client.cluster();
    let rest = cluster.max_age();
    let mut snapshot = (*cluster.snapshot()).clone();
    snapshot.failed.insert("gone".into(), UNKNOWN_TOPIC);
    cluster.snapshot.send_replace(Arc::new(snapshot));
    assert_eq!(cluster.max_age(), rest, "nobody uses it");
    cluster.lock_wanted().insert("gone".into());
    assert_eq!(cluster.max_age(), MISSING);
    assert!(MISSING < rest);
}
