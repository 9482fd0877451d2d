//! What starts while the cluster is away: it waits, health says why, and it works when the cluster is back.

use std::time::Duration;

use ailurus::health::Status;
use ailurus::{
    Client, Consumer, ConsumerEvent, ErrorKind, Message, Processor, ProducerRecord, RedpandaService, SaslConfig,
    SecurityProtocol, StartOffset, Subscription, TopicPartition,
};
use ailurus_broker::{Broker, BrokerConfig, Fault, Sasl};
use tokio::sync::mpsc;

use super::leaders::{soon, until};

const LONG: Duration = Duration::from_secs(60);
const CREATE_TOPICS: i16 = 19;
const METADATA: i16 = 3;

/// A broker that is down, with a topic of one record, and a client that has not reached it.
async fn down() -> (Broker, Client) {
    let broker = Broker::start(BrokerConfig::default().default_replication(1)).await.unwrap();
    broker.create_topic("t", 1).unwrap();
    let client = Client::new(config(&broker));
    let writer = Client::connect(config(&broker)).await.unwrap();
    let producer = writer.producer().start().unwrap();
    producer.send(ProducerRecord::to("t").value("x")).await.unwrap().await.unwrap();
    soon(producer.close(LONG)).await.unwrap();
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
    soon(async {
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
    (Processor::new(client).subscribe(&["t"], "g", handle).await, seen)
}

/// Waits until health names a group that is joining, in trouble for this reason.
async fn health_says(service: &RedpandaService, why: &str) {
    until(async || {
        let health = service.health().await;
        let starting = health.subscriptions.first().filter(|s| s.state == "joining" && s.group == "g");
        starting.and_then(|s| s.problem.as_ref()).is_some_and(|trouble| {
            assert!(health.status >= Status::Degraded, "{health:?}");
            assert!(health.problems.iter().any(|p| p.contains("\"g\"") && p.contains(why)), "{health:?}");
            trouble.contains(why)
        })
    })
    .await;
}

#[tokio::test]
async fn a_member_waits_for_a_broker_at_its_start() {
    let (broker, client) = down().await;
    let service = RedpandaService::new(&client).unwrap();
    let begins = client.consumer("g").subscribe(["t"]);
    let back = async {
        health_says(&service, "no broker could be reached").await;
        broker.start_node(0).await.unwrap();
    };
    let (consumer, ()) = soon(async { tokio::join!(begins, back) }).await;
    let mut consumer = consumer.unwrap();
    first_record(&mut consumer).await;
    assert!(consumer.problems().is_empty(), "{:?}", consumer.problems());
    until(async || {
        let health = service.health().await;
        assert_eq!(health.subscriptions.len(), 1, "{health:?}");
        health.status == Status::Healthy // what brokers are asked is a second old at most
    })
    .await;
    soon(consumer.close()).await.unwrap();
    assert!(service.health().await.subscriptions.is_empty());
}

/// A name that can't be resolved is one more address that can't be reached now: it is looked up again for each connection.
#[tokio::test]
async fn a_member_waits_for_names_that_can_t_be_resolved() {
    let (broker, _) = down().await;
    let mut config = config(&broker);
    config.brokers.insert(0, "nowhere.invalid:9092".parse().unwrap());
    let client = Client::new(config);
    let service = RedpandaService::new(&client).unwrap();
    let begins = client.consumer("g").subscribe(["t"]);
    let back = async {
        health_says(&service, "nowhere.invalid:9092: the name could not be resolved").await;
        broker.start_node(0).await.unwrap();
    };
    let (consumer, ()) = soon(async { tokio::join!(begins, back) }).await;
    let mut consumer = consumer.unwrap();
    first_record(&mut consumer).await;
    soon(consumer.close()).await.unwrap();
}

#[tokio::test]
async fn a_subscription_waits_for_a_broker_at_its_start() {
    let (broker, client) = down().await;
    let service = RedpandaService::new(&client).unwrap();
    let back = async {
        health_says(&service, "no broker could be reached").await;
        broker.start_node(0).await.unwrap();
    };
    let ((subscription, mut seen), ()) = soon(async { tokio::join!(subscribe(&client), back) }).await;
    assert_eq!(soon(seen.recv()).await, Some(0));
    until(async || {
        let health = service.health().await;
        assert_eq!(health.subscriptions.len(), 1, "{health:?}");
        health.status == Status::Healthy // what brokers are asked is a second old at most
    })
    .await;
    soon(subscription.unwrap().shutdown()).await.unwrap();
}

#[tokio::test]
async fn a_consumer_without_a_group_waits_for_a_broker_at_its_start() {
    let (broker, client) = down().await;
    let from = vec![(TopicPartition::new("t", 0), StartOffset::Earliest)];
    let begins = client.reader().assign(from);
    tokio::pin!(begins);
    // Polled, and not ended by a broker that is away.
    tokio::select! {
        biased;
        ended = &mut begins => panic!("{ended:?}"),
        e = Client::connect(config(&broker)) => assert_eq!(e.unwrap_err().kind(), ErrorKind::Connect, "connect tells"),
    }
    broker.start_node(0).await.unwrap();
    let mut consumer = soon(begins).await.unwrap();
    first_record(&mut consumer).await;
    soon(consumer.close()).await.unwrap();
}

/// While its dead letters have no topic, it is no member: its partitions are for members that can handle them.
#[tokio::test]
async fn a_subscription_whose_dead_letters_can_t_have_a_topic_yet_waits_outside_of_its_group() {
    let (broker, client) = down().await;
    broker.start_node(0).await.unwrap();
    let service = RedpandaService::new(&client).unwrap();
    broker.set_hook(|request| (request.api_key == CREATE_TOPICS).then_some(Fault::Close));
    let back = async {
        health_says(&service, "creating the dead-letter topic \"t.dlq\"").await;
        assert_eq!(broker.request_count(11), 0, "it has joined");
        broker.clear_hook();
    };
    let ((subscription, mut seen), ()) = soon(async { tokio::join!(subscribe(&client), back) }).await;
    assert_eq!(soon(seen.recv()).await, Some(0));
    soon(subscription.unwrap().shutdown()).await.unwrap();
}

#[tokio::test]
async fn what_a_broker_answers_ends_a_start() {
    let (broker, client) = down().await;
    broker.start_node(0).await.unwrap();
    // The topic is there, and may not be used.
    broker.set_hook(|request| (request.api_key == METADATA).then_some(Fault::Error(29)));
    let e = soon(client.consumer("g").subscribe(["t"])).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Authorization, "{e:?}");
    let (subscription, _) = soon(subscribe(&client)).await;
    assert_eq!(subscription.unwrap_err().kind(), ErrorKind::Authorization);
    // A client that closes ends what waits.
    broker.stop_node(0).await.unwrap();
    let client = Client::new(config(&broker));
    let begins = client.consumer("g").subscribe(["t"]);
    let (ended, ()) = soon(async { tokio::join!(begins, client.close()) }).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_first_login_that_is_refused_ends_a_start() {
    let sasl = Sasl::default().user("somebody", "secret");
    let broker = Broker::start(BrokerConfig::default().sasl(sasl)).await.unwrap();
    let mut config = config(&broker);
    config.security_protocol = SecurityProtocol::SaslPlaintext;
    config.sasl = Some(SaslConfig::plain("somebody", "wrong").allow_cleartext(true));
    let client = Client::new(config);
    let e = soon(client.consumer("g").subscribe(["t"])).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Authentication, "{e:?}");
    assert!(format!("{e:#}").contains("group \"g\""), "{e:#}");
    let (subscription, _) = soon(subscribe(&client)).await;
    assert_eq!(subscription.unwrap_err().kind(), ErrorKind::Authentication);
}
