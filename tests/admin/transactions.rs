//! Transactions that hold the last stable offset of a partition back: found, named and ended.

use super::*;
use ailurus::admin::{TransactionFilter, TransactionState};
use ailurus::producer::{Transaction, TransactionalProducer};
use ailurus::{IsolationLevel, RedpandaService};
use ailurus_broker::Versions;
use support::TestBroker;

/// Transactional id whose transaction is open.
const ID: &str = "billing";

async fn produce(client: &Client, topic: &str, value: &[u8]) {
    let producer = client.producer().start().unwrap();
    producer.send(ProducerRecord::to(topic).value(value)).await.unwrap().await.unwrap();
    producer.close(Duration::from_secs(30)).await.unwrap();
}

/// Creates a topic with a record, a record of the producer's transaction at offset 1, which stays open
/// until the returned value is dropped, and another record.
async fn open<'a>(
    broker: &TestBroker,
    client: &Client,
    producer: &'a mut TransactionalProducer,
) -> (TopicPartition, Transaction<'a>) {
    let topic = broker.topic("held");
    Admin::new(client).create_topic(&topic, 1, None).await.unwrap();
    produce(client, &topic, b"before").await;
    let transaction = producer.begin().await.unwrap();
    transaction.send(ProducerRecord::to(topic.as_str()).value("open")).await.unwrap().await.unwrap();
    produce(client, &topic, b"after").await;
    (TopicPartition::new(topic.as_str(), 0), transaction)
}

async fn kafka() -> Option<TestBroker> {
    support::embedded(|config| config.versions(Versions::kafka())).await
}

#[tokio::test]
async fn an_open_transaction_is_described_and_ended_by_a_marker() {
    let Some(broker) = kafka().await else { return };
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let mut producer = client.transactional_producer(ID).start().await.unwrap();
    let (at, _transaction) = open(&broker, &client, &mut producer).await;
    let described = admin.describe_transaction(ID).await.unwrap();
    assert_eq!(described.partitions, BTreeMap::from([(at.topic.to_string(), vec![0])]));
    let ongoing = TransactionFilter::default().state(TransactionState::Ongoing);
    let listed = admin.list_transactions(&ongoing).await.unwrap();
    let found: Vec<_> = listed.iter().map(|t| (t.transactional_id.as_str(), t.producer_id)).collect();
    assert_eq!(found, [(ID, described.producer_id)]);
    let long = ongoing.older_than(Duration::from_secs(3600));
    assert_eq!(admin.list_transactions(&long).await.unwrap(), []);
    let partitions = [at.clone()];
    let hanging = admin.find_hanging_transactions(&partitions, Duration::ZERO).await.unwrap();
    assert_eq!(hanging[&at].as_ref().unwrap(), &[], "its coordinator has it");

    let e = admin.open_transaction(&at, 0).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::OffsetOutOfRange);
    assert!(e.to_string().contains("those that are open: 1"), "{e}");
    let found = admin.open_transaction(&at, 1).await.unwrap();
    assert_eq!(found.producer_id, described.producer_id);
    admin.abort_transaction(&found).await.unwrap();
    assert!(admin.open_transaction(&at, 1).await.unwrap_err().to_string().contains("none is open"));
    client.close().await;
}

#[tokio::test]
async fn an_abort_that_redpanda_refuses_names_what_works_there() {
    let versions = Versions::redpanda_24_3();
    let Some(broker) = support::embedded(|config| config.versions(versions)).await else { return };
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let mut producer = client.transactional_producer(ID).start().await.unwrap();
    let (at, _transaction) = open(&broker, &client, &mut producer).await;
    let open = admin.open_transaction(&at, 1).await.unwrap();
    let e = admin.abort_transaction(&open).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported, "{e:#}");
    let text = format!("{e:#}");
    let call =
        format!("POST /v1/partitions/kafka/{}/0/mark_transaction_expired?id={}&epoch=", at.topic, open.producer_id);
    assert!(text.contains(&call) && text.contains("(Admin::fence_producer)"), "{text}");
    client.close().await;
}

#[tokio::test]
async fn lag_of_committed_readers_ends_at_the_last_stable_offset() {
    let Some(broker) = kafka().await else { return };
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let mut producer = client.transactional_producer(ID).start().await.unwrap();
    let (at, _transaction) = open(&broker, &client, &mut producer).await;
    let group = broker.group("g");
    let committed = broker.config().isolation_level(IsolationLevel::ReadCommitted).build().unwrap();
    let committed = Client::connect(committed).await.unwrap();
    Admin::new(&client).set_offsets(&group, &BTreeMap::from([(at.clone(), 0)])).await.unwrap();
    for (client, lag) in [(&client, 3), (&committed, 1)] {
        let described = Admin::new(client).describe_group(&group).await.unwrap();
        let offset = &described.offsets[0];
        assert_eq!((offset.end, offset.last_stable, offset.lag), (Some(3), Some(1), Some(lag)));
    }
    client.close().await;
    committed.close().await;
}

#[tokio::test]
async fn health_names_the_transaction_that_holds_committed_readers() {
    let Some(broker) = kafka().await else { return };
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let mut producer = client.transactional_producer(ID).start().await.unwrap();
    let (at, transaction) = open(&broker, &client, &mut producer).await;
    let config = broker.config().isolation_level(IsolationLevel::ReadCommitted).processor(|mut p| {
        p.stall_timeout = Duration::from_millis(100);
        p
    });
    let service = RedpandaService::connect(config.build().unwrap()).await.unwrap();
    let consumer = service.client().consumer(broker.group("g")).subscribe([&*at.topic]).await.unwrap();
    let expected = format!("{at} can be read up to offset 1 alone");
    let named = async |problem: &dyn Fn(&str) -> bool| loop {
        let health = service.health().await;
        if let Some(problem) = health.problems.iter().find(|p| problem(p)) {
            assert_eq!(health.status, Status::Degraded, "{:?}", health.problems);
            break problem.clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let problem = named(&|p| p.starts_with(&expected)).await;
    assert!(problem.contains("(transactional id \"billing\"), open for"), "{problem}");
    // A client that reads nothing lists the transactions of the cluster.
    let problems = async || Health::check(service.client()).await.problems;
    let checked = problems().await;
    let problem = checked.iter().find(|p| p.starts_with(&expected)).unwrap_or_else(|| panic!("{checked:?}"));
    assert!(problem.contains("(transactional id \"billing\"), open for"), "{problem}");
    let recent = Health::check(&client).await.problems;
    assert_eq!(recent, Vec::<String>::new(), "not open for its stall timeout of a minute");
    transaction.commit().await.unwrap();
    while problems().await.iter().any(|p| p.starts_with(&expected)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    while service.health().await.problems.iter().any(|p| p.starts_with(&expected)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    consumer.close().await.unwrap();
    client.close().await;
    service.close(Duration::from_secs(10)).await.unwrap();
}
