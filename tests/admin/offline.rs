//! One partition without a leader, or one unresponsive broker: the others are described all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use ailurus::admin::{GroupFilter, GroupOffset, ResetTo};
use ailurus::{Admin, Client, ErrorKind, Health, StartOffset, TopicPartition};
use ailurus_broker::Fault;

use crate::support::{self, TestBroker};

const LIST_GROUPS: i16 = 16;
const LONG: Duration = Duration::from_secs(60);

/// A topic whose partitions are on one node each; the group has committed 0 in each of them.
async fn one_replica_each(broker: &TestBroker, client: &Client, group: &str) -> (String, Vec<TopicPartition>) {
    let (admin, name) = (Admin::new(client), broker.topic("thin"));
    admin.create_topic(&name, 3, Some(1)).await.unwrap();
    let places: Vec<_> = (0..3).map(|p| TopicPartition::new(name.as_str(), p)).collect();
    admin.set_offsets(group, &places.iter().map(|p| (p.clone(), 0)).collect()).await.unwrap();
    (name, places)
}

/// Stops the node that leads the last partition. The first of the three coordinates the group.
async fn stop_last(broker: &TestBroker, name: &str, group: &str) {
    let embedded = broker.embedded().unwrap();
    let last = embedded.leader(name, 2).unwrap().unwrap();
    embedded.move_coordinator(group, embedded.leader(name, 0).unwrap().unwrap()).unwrap();
    embedded.stop_node(last).await.unwrap();
}

fn known(offsets: &[GroupOffset]) -> Vec<(Option<i64>, Option<i64>, bool)> {
    offsets.iter().map(|o| (o.committed, o.end, o.error.is_some())).collect()
}

#[tokio::test]
async fn a_leaderless_partition_does_not_affect_the_others() {
    let Some(broker) = support::embedded(|config| config).await else { return };
    // What would be waited for would take longer than anybody looks on.
    let config = broker.config().request_timeout(LONG * 10).delivery_timeout(LONG * 11).health_timeout(LONG);
    let client = Client::connect(config.build().unwrap()).await.unwrap();
    let (admin, group) = (Admin::new(&client), broker.group("g"));
    let (name, places) = one_replica_each(&broker, &client, &group).await;
    stop_last(&broker, &name, &group).await;

    let described = admin.describe_group(&group).await.unwrap();
    let expected = [(Some(0), Some(0), false), (Some(0), Some(0), false), (Some(0), None, true)];
    assert_eq!(known(&described.offsets), expected);
    let why = described.offsets[2].error.as_deref().unwrap();
    assert!(why.starts_with(&format!("{name}/2 has no leader; its one replica is on broker ")), "{why}");
    assert_eq!(described.offsets[2].lag, None);
    assert!(described.offsets[2].exists);

    let ends = admin.list_offsets_each(&places, StartOffset::Latest).await.unwrap();
    assert_eq!(ends.values().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false]);

    let plan = admin.plan_reset(&described, &places[..1], ResetTo::At(StartOffset::Latest)).await.unwrap();
    admin.reset_offsets(&group, &plan).await.unwrap();
    let e = admin.plan_reset(&described, &places, ResetTo::At(StartOffset::Latest)).await.unwrap_err();
    assert!(e.is_retriable() && e.to_string().contains("/2 has no leader"), "{e}");

    // As what the client uses, and as what a group reads.
    let health = Health::check(&client).await;
    let topic = health.topics.iter().find(|t| t.name == name).unwrap();
    assert_eq!((topic.offline.as_slice(), topic.groups.as_slice()), ([2].as_slice(), [group.clone()].as_slice()));
    let says = format!("1 of the 3 partitions of topic {name:?} has no leader (2)");
    assert!(health.problems.iter().any(|p| p.starts_with(&says) && p.contains(&group)), "{:?}", health.problems);
    client.close().await;
}

#[tokio::test]
async fn health_ignores_topics_that_no_group_reads() {
    let Some(broker) = support::embedded(|config| config).await else { return };
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let name = broker.topic("left-over");
    Admin::new(&client).create_topic(&name, 3, Some(1)).await.unwrap();
    let node = broker.embedded().unwrap().leader(&name, 2).unwrap().unwrap();
    broker.embedded().unwrap().stop_node(node).await.unwrap();
    let other = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let health = Health::check(&other).await;
    assert!(!health.problems.iter().any(|p| p.contains(&name)), "{:?}", health.problems);
    client.close().await;
    other.close().await;
}

#[tokio::test]
async fn partitions_without_a_commit_are_described() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let (admin, group, name) = (Admin::new(&client), broker.group("g"), broker.topic("t"));
    support::create_topic(&client, &name, 3).await.unwrap();
    let producer = client.producer().start().unwrap();
    for partition in [0, 0, 1] {
        let record = ailurus::ProducerRecord::to(&name).partition(partition).value("x");
        producer.send(record).await.unwrap().await.unwrap();
    }
    let lags = |offsets: &[GroupOffset]| offsets.iter().map(|o| (o.committed, o.lag)).collect::<Vec<_>>();

    // A member that subscribes: all of the topic is to be read, though nothing is committed.
    let mut config = client.config().consumer.clone();
    config.auto_commit_interval = None;
    let mut consumer = client.consumer(&group).config(config).subscribe([&name]).await.unwrap();
    while !matches!(
        tokio::time::timeout(LONG, consumer.recv()).await.unwrap().unwrap(),
        ailurus::ConsumerEvent::Assigned(_)
    ) {}
    let described = admin.describe_group(&group).await.unwrap();
    assert_eq!(described.members[0].topics, std::slice::from_ref(&name));
    assert_eq!(lags(&described.offsets), [(None, Some(2)), (None, Some(1)), (None, Some(0))]);
    consumer.close().await.unwrap();

    // One commit is enough to know which topic it reads.
    admin.set_offsets(&group, &BTreeMap::from([(TopicPartition::new(name.as_str(), 0), 2)])).await.unwrap();
    let described = admin.describe_group(&group).await.unwrap();
    assert_eq!(lags(&described.offsets), [(Some(2), Some(0)), (None, Some(1)), (None, Some(0))]);

    // Where a group begins at the end, its lag is not known before it has begun.
    let late = broker.config().offset_reset(ailurus::OffsetReset::Latest).build().unwrap();
    let late = Client::connect(late).await.unwrap();
    let described = Admin::new(&late).describe_group(&group).await.unwrap();
    assert_eq!(lags(&described.offsets), [(Some(2), Some(0)), (None, None), (None, None)]);
    producer.close(LONG).await.unwrap();
    client.close().await;
    late.close().await;
}

#[tokio::test]
async fn an_unresponsive_broker_hides_no_groups_of_others() {
    let Some(broker) = support::embedded(|config| config).await else { return };
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let (admin, groups) = (Admin::new(&client), ["a", "b"].map(|g| broker.group(g)));
    let name = broker.topic("t");
    admin.create_topic(&name, 1, None).await.unwrap();
    let embedded = broker.embedded().unwrap();
    for (node, group) in [0, 1].into_iter().zip(&groups) {
        embedded.move_coordinator(group, node).unwrap();
        admin.set_offsets(group, &BTreeMap::from([(TopicPartition::new(name.as_str(), 0), 0)])).await.unwrap();
    }
    embedded.set_hook(|request| (request.node == 1 && request.api_key == LIST_GROUPS).then_some(Fault::Close));
    let lists = admin.list_groups_by_broker(&GroupFilter::default()).await.unwrap();
    let listed = lists[&0].as_ref().unwrap();
    assert_eq!(listed.iter().map(|g| &g.group).collect::<Vec<_>>(), [&groups[0]]);
    assert_eq!(lists[&1].as_ref().unwrap_err().kind(), ErrorKind::Disconnected);
    assert!(admin.list_groups().await.is_err(), "a list without its groups would be wrong");
    client.close().await;
}
