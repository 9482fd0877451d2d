//! Starts during an outage of the cluster: they wait, health reports the reason, and they continue
//! after the outage.

use std::time::Duration;

use ailurus::consumer::ConsumerState;
use ailurus::health::Status;
use ailurus::{
    Client, Consumer, ConsumerEvent, ErrorKind, Message, ProducerRecord, RedpandaService, SaslConfig, SecurityProtocol,
    StartOffset, Subscription, TopicPartition,
};
use ailurus_broker::{Broker, BrokerConfig, Fault, Sasl};
use tokio::sync::mpsc;

use super::leaders::{in_time, wait_until};

const TIME_LIMIT: Duration = Duration::from_secs(300);
const CREATE_TOPICS: i16 = 19;
const METADATA: i16 = 3;

/// Returns a stopped broker with a topic of one record, and a client that has not reached it.
async fn stopped_broker() -> (Broker, Client) {
    let broker = Broker::start(BrokerConfig::default().default_replication(1)).await.unwrap();
    broker.create_topic("t", 1).unwrap();
    let client = Client::new(config(&broker));
    let writer = Client::connect(config(&broker)).await.unwrap();
    let producer = writer.producer().start().unwrap();
    producer.send(ProducerRecord::to("t").value("x")).await.unwrap().await.unwrap();
    in_time(producer.close(TIME_LIMIT)).await.unwrap();
    writer.close().await;
    broker.stop_node(0).await.unwrap();
    (broker, client)
}

fn config(broker: &Broker) -> ailurus::Config {
    let mut config = ailurus::Config::builder().brokers(broker.bootstrap()).build().unwrap();
    config.retry_backoff = Duration::from_millis(5);
    config.retry_backoff_max = Duration::from_millis(50);
    config.consumer.offset_reset = ailurus::OffsetReset::Earliest;
    config
}

async fn first_record(consumer: &mut Consumer) {
    in_time(async {
        loop {
            match consumer.recv().await.unwrap() {
                ConsumerEvent::Records(records) if !records.records.is_empty() => return,
                _ => {}
            }
        }
    })
    .await;
}

async fn subscribe(client: &Client) -> (ailurus::Result<Subscription>, mpsc::UnboundedReceiver<i64>) {
    let (handled, seen) = mpsc::unbounded_channel();
    let handle = move |message: Message| {
        let handled = handled.clone();
        async move { handled.send(message.offset).unwrap() }
    };
    (client.processor("g").subscribe(["t"], handle).await, seen)
}

/// Waits until health reports a joining group with this problem.
async fn wait_for_problem(service: &RedpandaService, reason: &str) {
    wait_until(async || {
        let health = service.health().await;
        let starting = health.subscriptions.first().filter(|s| s.state == ConsumerState::Joining && s.group == "g");
        starting.and_then(|s| s.problem.as_ref()).is_some_and(|problem| {
            assert!(health.status >= Status::Degraded, "{health:?}");
            assert!(health.problems.iter().any(|p| p.contains("\"g\"") && p.contains(reason)), "{health:?}");
            problem.contains(reason)
        })
    })
    .await;
}

#[tokio::test]
async fn member_start_waits_for_a_broker() {
    let (broker, client) = stopped_broker().await;
    let service = RedpandaService::new(&client).unwrap();
    let start = client.consumer("g").subscribe(["t"]);
    let restart = async {
        wait_for_problem(&service, "no broker could be reached").await;
        broker.start_node(0).await.unwrap();
    };
    let (consumer, ()) = in_time(async { tokio::join!(start, restart) }).await;
    let mut consumer = consumer.unwrap();
    first_record(&mut consumer).await;
    assert!(consumer.problems().is_empty(), "{:?}", consumer.problems());
    wait_until(async || {
        let health = service.health().await;
        assert_eq!(health.subscriptions.len(), 1, "{health:?}");
        health.status == Status::Healthy // the state of brokers is cached for a second
    })
    .await;
    in_time(consumer.close()).await.unwrap();
    assert!(service.health().await.subscriptions.is_empty());
}

/// An unresolvable name is like an unreachable address: it is resolved again for each connection.
#[tokio::test]
async fn member_start_waits_for_names_to_resolve() {
    let (broker, _) = stopped_broker().await;
    let mut config = config(&broker);
    config.brokers.insert(0, "nowhere.invalid:9092".parse().unwrap());
    let client = Client::new(config);
    let service = RedpandaService::new(&client).unwrap();
    let start = client.consumer("g").subscribe(["t"]);
    let restart = async {
        wait_for_problem(&service, "nowhere.invalid:9092: the name could not be resolved").await;
        broker.start_node(0).await.unwrap();
    };
    let (consumer, ()) = in_time(async { tokio::join!(start, restart) }).await;
    let mut consumer = consumer.unwrap();
    first_record(&mut consumer).await;
    in_time(consumer.close()).await.unwrap();
}

#[tokio::test]
async fn subscription_start_waits_for_a_broker() {
    let (broker, client) = stopped_broker().await;
    let service = RedpandaService::new(&client).unwrap();
    let restart = async {
        wait_for_problem(&service, "no broker could be reached").await;
        broker.start_node(0).await.unwrap();
    };
    let ((subscription, mut seen), ()) = in_time(async { tokio::join!(subscribe(&client), restart) }).await;
    assert_eq!(in_time(seen.recv()).await, Some(0));
    wait_until(async || {
        let health = service.health().await;
        assert_eq!(health.subscriptions.len(), 1, "{health:?}");
        health.status == Status::Healthy // the state of brokers is cached for a second
    })
    .await;
    in_time(subscription.unwrap().shutdown()).await.unwrap();
}

#[tokio::test]
async fn assigned_consumer_start_waits_for_a_broker() {
    let (broker, client) = stopped_broker().await;
    let from = vec![(TopicPartition::new("t", 0), StartOffset::Earliest)];
    let start = client.reader().assign(from);
    tokio::pin!(start);
    // It is polled, and an unreachable broker does not end it.
    tokio::select! {
        biased;
        ended = &mut start => panic!("{ended:?}"),
        e = Client::connect(config(&broker)) => assert_eq!(e.unwrap_err().kind(), ErrorKind::Connect, "connect fails"),
    }
    broker.start_node(0).await.unwrap();
    let mut consumer = in_time(start).await.unwrap();
    first_record(&mut consumer).await;
    in_time(consumer.close()).await.unwrap();
}

/// Without its dead-letter topic the subscription does not join: its partitions are for members
/// that can handle them.
#[tokio::test]
async fn subscription_joins_once_its_dead_letter_topic_exists() {
    let (broker, client) = stopped_broker().await;
    broker.start_node(0).await.unwrap();
    let service = RedpandaService::new(&client).unwrap();
    broker.set_hook(|request| (request.api_key == CREATE_TOPICS).then_some(Fault::Close));
    let restart = async {
        wait_for_problem(&service, "creating the dead-letter topic \"t.dlq\"").await;
        assert_eq!(broker.request_count(11), 0, "it has joined");
        broker.clear_hook();
    };
    let ((subscription, mut seen), ()) = in_time(async { tokio::join!(subscribe(&client), restart) }).await;
    assert_eq!(in_time(seen.recv()).await, Some(0));
    in_time(subscription.unwrap().shutdown()).await.unwrap();
}

#[tokio::test]
async fn error_response_ends_a_start() {
    let (broker, client) = stopped_broker().await;
    broker.start_node(0).await.unwrap();
    // The topic exists, but is not authorized.
    broker.set_hook(|request| (request.api_key == METADATA).then_some(Fault::Error(29)));
    let e = in_time(client.consumer("g").subscribe(["t"])).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Authorization, "{e:?}");
    let (subscription, _) = in_time(subscribe(&client)).await;
    assert_eq!(subscription.unwrap_err().kind(), ErrorKind::Authorization);
    // Closing a client ends pending starts.
    broker.stop_node(0).await.unwrap();
    let client = Client::new(config(&broker));
    let start = client.consumer("g").subscribe(["t"]);
    let (ended, ()) = in_time(async { tokio::join!(start, client.close()) }).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn rejected_first_login_ends_a_start() {
    let sasl = Sasl::default().user("somebody", "secret");
    let broker = Broker::start(BrokerConfig::default().sasl(sasl)).await.unwrap();
    let mut config = config(&broker);
    config.security_protocol = SecurityProtocol::SaslPlaintext;
    config.sasl = Some(SaslConfig::plain("somebody", "wrong").allow_cleartext(true));
    let client = Client::new(config);
    let e = in_time(client.consumer("g").subscribe(["t"])).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Authentication, "{e:?}");
    assert!(format!("{e:#}").contains("group \"g\""), "{e:#}");
    let (subscription, _) = in_time(subscribe(&client)).await;
    assert_eq!(subscription.unwrap_err().kind(), ErrorKind::Authentication);
}
