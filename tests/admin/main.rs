//! Topics, groups and offsets, and what a client says of a cluster it can't reach.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod acls;
mod cluster;
mod groups;
mod offline;
mod topics;
mod transactions;

use std::collections::BTreeMap;
use std::time::Duration;

use ailurus::health::Status;
use ailurus::{Admin, Client, Config, ErrorKind, Health, ProducerRecord, StartOffset, Timestamp, TopicPartition};
use ailurus_test_support as support;

#[tokio::test]
async fn a_topic_is_created_described_grown_and_deleted() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let name = broker.topic("orders");

    let e = admin.describe_topic(&name).await.unwrap_err();
    assert!(e.is_unknown_topic() && e.to_string().contains("does not exist"), "{e}");
    admin.create_topic(&name, 2, None).await.unwrap();
    assert_eq!(admin.create_topic(&name, 2, None).await.unwrap_err().kind(), ErrorKind::TopicExists);
    let topic = admin.describe_topic(&name).await.unwrap();
    assert_eq!(topic.partitions.iter().map(|p| p.partition).collect::<Vec<_>>(), [0, 1]);
    assert!(topic.partitions.iter().all(|p| p.leader.is_some() && !p.replicas.is_empty()));
    assert!(admin.list_topics().await.unwrap().iter().any(|t| t.name == name));

    admin.create_partitions(&name, 4).await.unwrap();
    assert_eq!(admin.describe_topic(&name).await.unwrap().partitions.len(), 4);
    assert!(admin.create_partitions(&name, 3).await.is_err(), "a topic does not shrink");

    admin.delete_topic(&name).await.unwrap();
    assert!(admin.describe_topic(&name).await.unwrap_err().is_unknown_topic());
    let e = admin.delete_topic(&name).await.unwrap_err();
    assert!(e.is_unknown_topic() && e.to_string().ends_with("it does not exist"), "{e}");
    client.close().await;
}

#[tokio::test]
async fn too_many_partitions_are_rejected() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let name = broker.topic("too-wide");
    let e = admin.create_topic(&name, 10_000, None).await.unwrap_err();
    assert_eq!(e.broker_code(), Some(44), "{e}");
    assert!(admin.describe_topic(&name).await.unwrap_err().is_unknown_topic());
    client.close().await;
}

#[tokio::test]
async fn reads_create_no_topic() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let name = broker.topic("not-there");
    assert!(admin.describe_topic(&name).await.unwrap_err().is_unknown_topic());
    let at = [TopicPartition::new(name.as_str(), 0)];
    assert!(admin.list_offsets(&at, StartOffset::Latest).await.unwrap_err().is_unknown_topic());
    Health::check(&client).await;
    assert!(!admin.list_topics().await.unwrap().iter().any(|t| t.name == name));
    client.close().await;
}

#[tokio::test]
async fn an_invalid_topic_name_has_the_brokers_message() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let e = Admin::new(&client).create_topic("no/slash", 1, None).await.unwrap_err();
    assert_eq!(e.broker_code(), Some(17), "{e}");
    assert!(e.to_string().contains("creating topic \"no/slash\" with 1 partitions"), "{e}");
    client.close().await;
}

#[tokio::test]
async fn offsets_by_position_and_time() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let name = broker.topic("offsets");
    support::create_topic(&client, &name, 2).await.unwrap();
    let producer = client.producer().start().unwrap();
    let at = |millis: i64| Timestamp::from_millis(1_700_000_000_000 + millis);
    for i in 0..5 {
        let record = ProducerRecord::to(&name).partition(1).value("x").timestamp(at(i * 1000));
        producer.send(record).await.unwrap().await.unwrap();
    }
    producer.close(Duration::from_secs(30)).await.unwrap();

    let (empty, full) = (TopicPartition::new(name.as_str(), 0), TopicPartition::new(name.as_str(), 1));
    let both = [empty.clone(), full.clone()];
    for (start, want) in [
        (StartOffset::Earliest, [0, 0]),
        (StartOffset::Latest, [0, 5]),
        (StartOffset::Timestamp(at(1500)), [0, 2]),
        (StartOffset::Timestamp(at(3000)), [0, 3]),
        (StartOffset::Timestamp(at(999_000)), [0, 5]),
    ] {
        let found = admin.list_offsets(&both, start).await.unwrap();
        assert_eq!([found[&empty], found[&full]], want, "{start:?}");
    }
    let e = admin.list_offsets(&[TopicPartition::new(name.as_str(), 2)], StartOffset::Latest).await.unwrap_err();
    assert!(e.to_string().contains("has 2 partitions"), "{e}");
    client.close().await;
}

#[tokio::test]
async fn records_before_an_offset_are_deleted() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let name = broker.topic("deleted");
    admin.create_topic(&name, 3, None).await.unwrap();
    let producer = client.producer().start().unwrap();
    let places = [0, 1, 2].map(|p| TopicPartition::new(name.as_str(), p));
    for place in &places {
        for _ in 0..5 {
            producer
                .send(ProducerRecord::to(&name).partition(place.partition).value("x"))
                .await
                .unwrap()
                .await
                .unwrap();
        }
    }
    producer.close(Duration::from_secs(30)).await.unwrap();

    let before = BTreeMap::from([(places[0].clone(), 3), (places[1].clone(), -1)]);
    let begins = admin.delete_records(&before).await.unwrap();
    assert_eq!(begins, BTreeMap::from([(places[0].clone(), 3), (places[1].clone(), 5)]));
    let earliest = admin.list_offsets(&places, StartOffset::Earliest).await.unwrap();
    assert_eq!(places.each_ref().map(|p| earliest[p]), [3, 5, 0]);
    let e = admin.delete_records(&BTreeMap::from([(places[2].clone(), 6)])).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::OffsetOutOfRange);
    assert!(e.to_string().contains(&format!("deleting records of {name}/2")), "{e}");
    client.close().await;
}

#[tokio::test]
async fn groups_that_do_not_exist() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let group = broker.group("nobody");
    let described = admin.describe_group(&group).await.unwrap();
    assert_eq!((described.state.as_str(), described.members.len(), described.offsets.len()), ("Dead", 0, 0));
    assert!(!admin.list_groups().await.unwrap().iter().any(|g| g.group == group));
    assert_eq!(admin.delete_group(&group).await.unwrap_err().broker_code(), Some(69));
    client.close().await;
}

#[tokio::test]
async fn dead_bootstrap_brokers_are_skipped() {
    let broker = support::broker().await;
    // Nothing listens on a port that was just given back.
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = Config::builder().brokers(format!("{dead},nowhere.invalid:9092,{}", broker.bootstrap()));
    let client = Client::connect(config.build().unwrap()).await.unwrap();
    assert_eq!(Health::check(&client).await.status, Status::Healthy);
    client.close().await;

    let config = Config::builder().brokers(format!("{dead},nowhere.invalid:9092")).build().unwrap();
    let e = Client::connect(config).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Connect);
    let text = format!("{e:#}");
    assert!(text.contains(&format!("{dead}: refused the connection")), "{text}");
    assert!(text.contains("nowhere.invalid:9092: the name could not be resolved"), "{text}");
}

#[tokio::test]
async fn health_of_an_unreachable_cluster() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::new(Config::builder().brokers(dead.to_string()).build().unwrap());
    let health = Health::check(&client).await;
    assert_eq!(health.status, Status::Unhealthy);
    assert_eq!(health.brokers[0].address, dead.to_string());
    assert!(health.problems[0].contains("refused the connection"), "{:?}", health.problems);
    client.close().await;
}

#[tokio::test]
async fn a_broker_that_is_down_degrades_health() {
    let broker = support::broker().await;
    let Some(embedded) = broker.embedded() else { return };
    let config = broker.config().health_timeout(Duration::from_secs(60)).build().unwrap();
    let client = Client::connect(config).await.unwrap();
    let admin = Admin::new(&client);
    let name = broker.topic("spread");
    admin.create_topic(&name, 3, None).await.unwrap();
    let partitions: Vec<_> = (0..3).map(|p| TopicPartition::new(name.as_str(), p)).collect();
    admin.list_offsets(&partitions, StartOffset::Latest).await.unwrap();
    assert_eq!(Health::check(&client).await.status, Status::Healthy);
    embedded.stop_node(1).await.unwrap();
    let health = Health::check(&client).await;
    assert_eq!(health.status, Status::Degraded, "{:?}", health.problems);
    assert!(health.problems[0].contains("broker 1 holds replicas"), "{:?}", health.problems);
    client.close().await;
}

#[tokio::test]
async fn calls_on_a_closed_client_fail() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    client.close().await;
    let e = Admin::new(&client).list_topics().await.unwrap_err();
    assert!(format!("{e:#}").contains("the client is closed"), "{e:#}");
}
