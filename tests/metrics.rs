//! Counts of a registry after a client has produced, consumed, failed and closed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::metrics::{Metrics, Observation};
use ailurus::{Admin, Client, Compression, Config, ErrorKind, Message, ProducerRecord};
use ailurus_metrics::{MetricsSnapshot, Registry};
use ailurus_test_support as support;
use tokio::sync::watch;

const LONG: Duration = Duration::from_secs(300);

/// A registry that can be waited for.
#[derive(Debug, Default)]
struct Watched {
    registry: Registry,
    changed: watch::Sender<()>,
}

impl Metrics for Watched {
    fn observe(&self, observation: &Observation<'_>) {
        self.registry.observe(observation);
        self.changed.send_replace(());
    }
}

impl Watched {
    async fn until(&self, done: impl Fn(&MetricsSnapshot) -> bool) -> MetricsSnapshot {
        let mut changed = self.changed.subscribe();
        let wait = changed.wait_for(|()| done(&self.registry.snapshot()));
        let in_time = tokio::time::timeout(LONG, wait).await.is_ok();
        let seen = self.registry.snapshot();
        assert!(in_time, "after {LONG:?}: {seen:#?}");
        seen
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_counted_from_producer_to_dead_letter() {
    let broker = support::broker().await;
    let watched = Arc::new(Watched::default());
    let config = broker.config().metrics(watched.clone()).compression(Compression::gzip(4).unwrap()).max_attempts(2);
    let client = Client::connect(config.build().unwrap()).await.unwrap();
    let (topic, group) = (broker.topic("counted"), broker.group("counted"));
    Admin::new(&client).create_topic(&topic, 2, None).await.unwrap();
    let producer = client.producer().start().unwrap();
    assert_eq!(watched.registry.snapshot().total("ailurus_producer_buffer_limit_bytes"), 16.0 * 1_048_576.0);
    let mut sent = Vec::new();
    for i in 0..200_i32 {
        let (key, value) = (i.to_string(), format!("{{\"number\": {i}, \"text\": \"{}\"}}", "again ".repeat(20)));
        let record = ProducerRecord::to(&topic).partition(i % 2).key(&key).value(&value);
        sent.push(producer.send(record).await.unwrap());
    }
    for delivery in sent {
        delivery.await.unwrap();
    }

    let produced = watched.registry.snapshot();
    let of_topic = [("topic", &*topic)];
    let destination = [("messaging_destination_name", &*topic)];
    assert_eq!(produced.get("messaging_client_sent_messages_total", &destination), Some(200.0));
    let batches = produced.get("ailurus_producer_batches_total", &of_topic).unwrap();
    assert!((2.0..=200.0).contains(&batches), "{batches}");
    assert!(produced.get("messaging_client_operation_duration_seconds", &destination).unwrap() >= batches);
    let ratio = produced.get("ailurus_producer_compression_ratio", &of_topic).unwrap();
    assert!(ratio > 1.0, "{ratio}");
    let uncompressed = produced.get("ailurus_producer_uncompressed_bytes_total", &of_topic).unwrap();
    assert!(uncompressed > 200.0 * 120.0, "{uncompressed}");
    assert!(produced.get("ailurus_request_duration_seconds", &[("api", "Produce")]).unwrap() >= 1.0);
    assert!(produced.total("ailurus_connections") >= 1.0);

    // The first attempt at every tenth record fails, and each attempt at the record with the key 7.
    let failed = Arc::new(Mutex::new(HashSet::new()));
    let handle = move |message: Message| {
        let key = String::from_utf8(message.key.unwrap().to_vec()).unwrap();
        let tenth = key.ends_with('0') && failed.lock().unwrap().insert(key.clone());
        async move { if tenth || key == "7" { Err("no".to_owned()) } else { Ok(()) } }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    let of_group = [("group", &*group), ("topic", &*topic)];
    let processed = [("messaging_consumer_group_name", &*group), ("messaging_destination_name", &*topic)];
    let seen = watched
        .until(|seen| {
            let done = seen.get("messaging_process_duration_seconds", &processed) == Some(199.0);
            done && seen.get("ailurus_processor_dead_letters_total", &of_group) == Some(1.0)
                && (0..2).all(|p| {
                    let of = [("group", &*group), ("partition", &*p.to_string())];
                    seen.get("ailurus_consumer_lag_records", &of) == Some(0.0)
                        && seen.get("ailurus_consumer_committed_offset", &of) == Some(100.0)
                        && seen.get("ailurus_processor_parked_keys", &of) == Some(0.0)
                })
        })
        .await;
    assert_eq!(seen.get("messaging_client_consumed_messages_total", &processed), Some(200.0));
    let failures = [processed[0], processed[1], ("error_type", "handler")];
    assert_eq!(seen.get("messaging_process_duration_seconds", &failures), Some(22.0));
    assert_eq!(seen.get("ailurus_processor_failures_total", &of_group), Some(22.0));
    assert_eq!(seen.get("ailurus_processor_retries_total", &of_group), Some(21.0));
    assert_eq!(seen.get("ailurus_errors_total", &[("part", "handler"), ("error_type", "handler")]), Some(22.0));
    assert_eq!(seen.get("ailurus_consumer_fetched_records_total", &of_group), Some(200.0));
    let bytes = |name: &str, labels: &[(&str, &str)]| seen.get(name, labels).unwrap();
    assert_eq!(
        bytes("ailurus_consumer_fetched_bytes_total", &of_group),
        bytes("ailurus_producer_sent_bytes_total", &of_topic)
    );
    assert_eq!(
        bytes("ailurus_consumer_uncompressed_bytes_total", &of_group),
        bytes("ailurus_producer_uncompressed_bytes_total", &of_topic)
    );
    assert_eq!(seen.get("ailurus_consumer_members", &[("group", &group), ("state", "member")]), Some(1.0));
    assert_eq!(seen.get("ailurus_consumer_members", &[("group", &group), ("state", "joining")]), Some(0.0));
    assert_eq!(seen.get("ailurus_consumer_assigned_partitions", &[("group", &group)]), Some(2.0));
    assert!(seen.get("ailurus_consumer_rebalance_duration_seconds", &[("group", &group)]).unwrap() >= 1.0);
    assert!(seen.get("ailurus_consumer_commits_total", &[("group", &group)]).unwrap() >= 1.0);
    assert_eq!(seen.get("ailurus_consumer_end_offset", &[("group", &group), ("partition", "1")]), Some(100.0));

    subscription.shutdown().await.unwrap();
    producer.close(LONG).await.unwrap();
    client.close().await;
    let left = watched.until(|seen| seen.total("ailurus_connections") == 0.0).await;
    for gone in [
        "ailurus_requests_in_flight",
        "ailurus_producer_buffer_used_bytes",
        "ailurus_producer_buffer_limit_bytes",
        "ailurus_consumer_members",
        "ailurus_consumer_assigned_partitions",
    ] {
        assert_eq!(left.total(gone), 0.0, "{gone}");
    }
    assert!(left.samples("ailurus_consumer_lag_records").is_empty());
    assert!(left.samples("ailurus_processor_in_hand_records").is_empty());
    assert_eq!(left.total("messaging_client_sent_messages_total"), 201.0, "with the dead letter");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_counted_by_kind() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let watched = Arc::new(Watched::default());
    let config = Config::builder().brokers(&nobody).metrics(watched.clone()).build().unwrap();
    let error = Client::connect(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    let labels = [("broker", &*nobody), ("error_type", "connect")];
    let failures = watched.registry.snapshot().get("ailurus_connection_failures_total", &labels);
    assert_eq!(failures, Some(1.0));

    let broker = support::broker().await;
    let config = broker.config().metrics(watched.clone()).build().unwrap();
    let client = Client::connect(config).await.unwrap();
    let topic = broker.topic("gone");
    Admin::new(&client).create_topic(&topic, 1, None).await.unwrap();
    let producer = client.producer().start().unwrap();
    let delivery = producer.send(ProducerRecord::to(&topic).value("x")).await.unwrap();
    drop(producer); // which fails what is not acknowledged yet
    let outcome = delivery.await.map(drop).map_err(|e| e.kind().name().into_owned());
    let seen = watched.registry.snapshot();
    let of = seen.samples("messaging_client_sent_messages_total").iter().find(|s| {
        s.label("messaging_destination_name") == Some(&*topic)
            && s.label("error_type") == outcome.as_ref().err().map(|e| &**e)
    });
    assert_eq!(of.map(|s| s.value.number()), Some(1.0), "{outcome:?}: {seen:?}");
    client.close().await;
}
