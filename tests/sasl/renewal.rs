//! Logins that count for a while and are renewed while records go both ways.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kafka_protocol::messages::SaslAuthenticateRequest;
use kafka_protocol::protocol::Decodable;
use tokio::time::Instant;

use super::*;

/// Number of renewals to wait for, over a handful of connections.
const RENEWALS: i64 = 8;

/// Sends and reads until `enough`; each record must come once, and in its partition's order.
async fn traffic(broker: &SaslBroker, client: &Client, enough: impl Fn() -> bool) {
    let (topic, group) = (broker.create_topic(client).await, unique("g"));
    let producer = client.producer().start().unwrap();
    let mut consumer = client.consumer(&group).subscribe([&topic]).await.unwrap();
    let (mut sent, mut seen) = (0, 0);
    let mut last = [-1; 3];
    while !enough() || seen < sent {
        if seen == sent {
            produce(&producer, &topic, sent..sent + 30).await;
            sent += 30;
        }
        let (partition, numbers) = next(&mut consumer).await;
        let last = &mut last[usize::try_from(partition).unwrap()];
        for n in numbers {
            assert!(n > *last && n % 3 == partition, "{n} after {last} in {partition}");
            *last = n;
            seen += 1;
        }
    }
    assert_eq!(seen, sent);
    consumer.close().await.unwrap();
    producer.close(LONG).await.unwrap();
    client.close().await;
}

#[tokio::test]
async fn records_flow_during_reauthentication() {
    let broker = SaslBroker::embedded(|sasl| sasl.session_lifetime(Duration::from_secs(1))).await;
    for login in broker.logins() {
        let before = renewals(broker.broker());
        let client = broker.client(login).await;
        soon(traffic(&broker, &client, || renewals(broker.broker()) >= before + RENEWALS)).await;
    }
}

#[tokio::test]
async fn sessions_of_a_real_broker_are_renewed() {
    // Kafka's connections.max.reauth.ms, which tests/kafka/security.rs sets.
    let Some(lifetime) = env::var("AILURUS_TEST_SASL_LIFETIME").ok().map(|ms| ms.parse().unwrap()) else { return };
    let broker = SaslBroker::any().await;
    for login in broker.logins() {
        let client = broker.client(login).await;
        let end = Instant::now() + Duration::from_millis(lifetime) * 3;
        soon(traffic(&broker, &client, || Instant::now() > end)).await;
    }
}

#[tokio::test]
async fn a_token_file_is_read_for_each_login() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let write = |token: &str| {
        // Moved to its place, as those do it who keep such a file.
        std::fs::write(dir.path().join("new"), token).unwrap();
        std::fs::rename(dir.path().join("new"), &file).unwrap();
    };
    write("first");
    let lifetime = Duration::from_millis(500);
    let broker =
        SaslBroker::embedded(|s| s.token("bob", "first").token("bob", "second").session_lifetime(lifetime)).await;
    let messages = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&messages);
    broker.broker().set_hook(move |request| {
        if request.api_key == SASL_AUTHENTICATE {
            let body = SaslAuthenticateRequest::decode(&mut request.body.clone(), request.version).unwrap();
            seen.lock().unwrap().push(String::from_utf8_lossy(&body.auth_bytes).into_owned());
        }
        None
    });
    let client = broker.client(SaslConfig::oauthbearer_file(&file)).await;
    assert!(messages.lock().unwrap().iter().all(|m| m.contains("Bearer first\x01")));
    write("second");
    let renewed = || messages.lock().unwrap().iter().any(|m| m.contains("Bearer second\x01"));
    soon(traffic(&broker, &client, renewed)).await;
}

#[tokio::test]
async fn a_rejected_reauthentication_reconnects() {
    let broker = SaslBroker::embedded(|sasl| sasl.session_lifetime(Duration::from_millis(500))).await;
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    // Every seventh message of a login, whichever it is.
    let messages = AtomicUsize::new(0);
    let login = broker.logins().remove(0);
    let client = broker.client(login).await;
    broker.broker().set_hook(move |request| {
        let bad = request.api_key == SASL_AUTHENTICATE && messages.fetch_add(1, Ordering::Relaxed) % 7 == 6;
        bad.then(|| {
            count.fetch_add(1, Ordering::Relaxed);
            Fault::Close
        })
    });
    soon(traffic(&broker, &client, || refused.load(Ordering::Relaxed) >= 3)).await;
}
