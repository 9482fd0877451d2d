//! An unreachable leader: reported by the consumer and in health by its partition, while other
//! partitions are read.

use std::time::Duration;

use ailurus::health::{Activity, Status};
use ailurus::{Client, Consumer, ConsumerEvent, Message, ProducerRecord, RedpandaService, StartOffset, TopicPartition};
use ailurus_broker::{Broker, BrokerConfig, Fault};

/// Time limit of every wait.
const TIME_LIMIT: Duration = Duration::from_secs(300);

pub async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIME_LIMIT, what).await.expect("not in time")
}

/// Starts two nodes and a topic of two partitions without replicas, one on each; returns the leader
/// of partition 1.
async fn broker() -> (Broker, i32) {
    let broker = Broker::start(BrokerConfig::default().nodes(2).default_replication(1)).await.unwrap();
    broker.create_topic("t", 2).unwrap();
    broker.move_leader("t", 0, 0).unwrap();
    broker.move_leader("t", 1, 1).unwrap();
    (broker, 1)
}

fn config(broker: &Broker) -> ailurus::Config {
    let mut config = ailurus::Config::builder().brokers(broker.bootstrap()).build().unwrap();
    config.retry_backoff = Duration::from_millis(10);
    config.retry_backoff_max = Duration::from_millis(100);
    config
}

async fn write(client: &Client, partition: i32) {
    let producer = client.producer().start().unwrap();
    let record = ProducerRecord::to("t").value("x").partition(partition);
    in_time(async { producer.send(record).await.unwrap().await.unwrap() }).await;
    in_time(producer.close(TIME_LIMIT)).await.unwrap();
}

pub async fn wait_until(mut condition: impl AsyncFnMut() -> bool) {
    in_time(async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn consumer_reports_the_partition_whose_leader_is_unreachable() {
    let (broker, unreachable) = broker().await;
    let client = Client::connect(config(&broker)).await.unwrap();
    let from = [0, 1].map(|p| (TopicPartition::new("t", p), StartOffset::Earliest)).to_vec();
    let mut consumer = client.reader().assign(from).await.unwrap();
    // It is the leader, and its connections break.
    broker.set_hook(move |request| (request.node == unreachable && request.api_key == 1).then_some(Fault::Close));
    wait_until(async || !consumer.problems().is_empty()).await;
    let problems = consumer.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].partition, Some(TopicPartition::new("t", 1)));
    assert!(format!("{:#}", problems[0].error).contains(&broker.address(unreachable).unwrap()), "{problems:?}");
    // It is stopped, and there is no other leader.
    broker.stop_node(unreachable).await.unwrap();
    wait_until(async || consumer.problems().iter().any(|p| format!("{:#}", p.error).contains("t/1 without a leader")))
        .await;
    // The other partition is still read.
    write(&client, 0).await;
    let read = async |consumer: &mut Consumer, partition: i32| loop {
        if let ConsumerEvent::Records(records) = in_time(consumer.recv()).await.unwrap() {
            if !records.records.is_empty() {
                assert_eq!(records.partition, partition);
                return;
            }
        }
    };
    read(&mut consumer, 0).await;
    broker.clear_hook();
    broker.start_node(unreachable).await.unwrap();
    write(&client, 1).await;
    read(&mut consumer, 1).await;
    wait_until(async || consumer.problems().is_empty()).await;
    in_time(consumer.close()).await.unwrap();
}

#[tokio::test]
async fn unreadable_partition_is_not_idle_in_health() {
    let (broker, unreachable) = broker().await;
    let service = RedpandaService::connect(config(&broker)).await.unwrap();
    let (handled, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let handle = move |message: Message| {
        let handled = handled.clone();
        async move { handled.send(message.partition).unwrap() }
    };
    let subscription = service.subscribe(["t"], "g", handle).await.unwrap();
    for partition in [0, 1] {
        write(service.client(), partition).await;
        assert_eq!(in_time(seen.recv()).await, Some(partition));
    }
    broker.set_hook(move |request| {
        (request.node == unreachable && matches!(request.api_key, 1 | 2)).then_some(Fault::Close)
    });
    let of = |health: &ailurus::Health| health.subscriptions[0].partitions[1].clone();
    wait_until(async || of(&service.health().await).problem.is_some()).await;
    let health = service.health().await;
    let (one, other) = (of(&health), &health.subscriptions[0].partitions[0]);
    assert_ne!(one.activity, Activity::Idle, "{one:?}");
    assert_eq!(one.lag, None, "{one:?}");
    assert_eq!((other.activity, other.problem.as_deref()), (Activity::Idle, None));
    assert!(health.status >= Status::Degraded, "{health:?}");
    assert!(
        health.problems.iter().any(|p| p.contains("t/1 of group") && p.contains("can't be read")),
        "{:?}",
        health.problems
    );
    broker.clear_hook();
    wait_until(async || service.health().await.status == Status::Healthy).await;
    in_time(subscription.shutdown()).await.unwrap();
    in_time(service.close(TIME_LIMIT)).await.unwrap();
}
