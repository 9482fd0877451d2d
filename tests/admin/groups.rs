//! Groups: found by state, their offsets set, shifted and deleted, none of it under members.

use std::collections::BTreeMap;
use std::time::Duration;

use ailurus::admin::{GroupFilter, GroupState, GroupType, ResetTo};
use ailurus::{
    Admin, Client, ConsumerEvent, ErrorKind, GroupProtocol, ProducerRecord, StartOffset, Timestamp, TopicPartition,
};
use ailurus_broker::Versions;

use crate::support::{self, TestBroker};

const LONG: Duration = Duration::from_secs(300);
/// The timestamp of the first record; each is a second later than the one before.
const FIRST: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A topic of two partitions, ten records in the second of them.
async fn topic(broker: &TestBroker, client: &Client) -> (String, [TopicPartition; 2]) {
    let name = broker.topic("t");
    support::create_topic(client, &name, 2).await.unwrap();
    let producer = client.producer().start().unwrap();
    for i in 0..10 {
        let record =
            ProducerRecord::to(&name).partition(1).value("x").timestamp(FIRST.saturating_add(Duration::from_secs(i)));
        producer.send(record).await.unwrap().await.unwrap();
    }
    producer.close(LONG).await.unwrap();
    let places = [0, 1].map(|p| TopicPartition::new(name.as_str(), p));
    (name, places)
}

async fn committed(admin: &Admin, group: &str) -> Vec<(i32, Option<i64>)> {
    admin.describe_group(group).await.unwrap().offsets.iter().map(|o| (o.partition, o.committed)).collect()
}

#[tokio::test]
async fn group_offsets_are_planned_and_reset() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let ((name, places), group) = (topic(&broker, &client).await, broker.group("g"));
    let nobody = admin.describe_group(&group).await.unwrap();

    for (to, expected) in [
        (StartOffset::Earliest, [(0, false), (0, false)]),
        (StartOffset::Latest, [(0, false), (10, false)]),
        (StartOffset::Timestamp(FIRST.saturating_add(Duration::from_millis(2500))), [(0, false), (3, false)]),
        (StartOffset::Timestamp(FIRST.saturating_add(Duration::from_secs(99))), [(0, false), (10, false)]),
        (StartOffset::Offset(4), [(0, true), (4, false)]),
        (StartOffset::Offset(77), [(0, true), (10, true)]),
    ] {
        let plan = admin.plan_reset(&nobody, &places, ResetTo::At(to)).await.unwrap();
        assert_eq!([0, 1].map(|i| (plan[i].to, plan[i].cut)), expected, "{to:?}");
        assert!(plan.iter().all(|p| p.topic == name && p.from.is_none() && p.first == 0));
    }
    let e = admin.plan_reset(&nobody, &places, ResetTo::Shift(1)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
    assert!(e.to_string().contains("has committed none there"), "{e}");
    assert_eq!(committed(&admin, &group).await, [], "a plan changes nothing");

    let plan = admin.plan_reset(&nobody, &places[1..], ResetTo::At(StartOffset::Offset(6))).await.unwrap();
    admin.reset_offsets(&group, &plan).await.unwrap();
    assert_eq!(committed(&admin, &group).await, [(0, None), (1, Some(6))]);
    let described = admin.describe_group(&group).await.unwrap();
    assert_eq!((described.state.as_str(), described.offsets[1].lag), ("Empty", Some(4)));
    for (by, expected) in [(-2, (4, false)), (3, (9, false)), (-7, (0, true)), (5, (10, true))] {
        let plan = admin.plan_reset(&described, &places[1..], ResetTo::Shift(by)).await.unwrap();
        assert_eq!((plan[0].from, (plan[0].to, plan[0].cut)), (Some(6), expected), "{by}");
    }
    let each = BTreeMap::from([(places[0].clone(), 0), (places[1].clone(), 2)]);
    let plan = admin.plan_offsets(&described, &each).await.unwrap();
    admin.reset_offsets(&group, &plan).await.unwrap();
    assert_eq!(committed(&admin, &group).await, [(0, Some(0)), (1, Some(2))]);

    // A reader goes on there.
    let mut consumer = client.consumer(&group).subscribe([&name]).await.unwrap();
    let records = loop {
        match tokio::time::timeout(LONG, consumer.recv()).await.unwrap().unwrap() {
            ConsumerEvent::Records(records) if !records.records.is_empty() => break records,
            _ => continue,
        }
    };
    assert_eq!(records.records[0].offset, 2);
    consumer.close().await.unwrap();
    client.close().await;
}

/// A member of a group is there, in the protocol given: its offsets are not touched, and it is named.
async fn refused_under_members(broker: &TestBroker, protocol: GroupProtocol) {
    let config = broker.config().client_id("billing-1").group_protocol(protocol).build().unwrap();
    let client = Client::connect(config).await.unwrap();
    let admin = Admin::new(&client);
    let ((name, places), group) = (topic(broker, &client).await, broker.group("g"));
    let at = BTreeMap::from([(places[1].clone(), 5)]);
    admin.set_offsets(&group, &at).await.unwrap();
    let mut consumer = client.consumer(&group).subscribe([&name]).await.unwrap();
    while !matches!(tokio::time::timeout(LONG, consumer.recv()).await.unwrap().unwrap(), ConsumerEvent::Records(_)) {}

    let described = admin.describe_group(&group).await.unwrap();
    let expected = if protocol == GroupProtocol::Consumer { "consumer" } else { "classic" };
    assert_eq!((described.group_type.as_str(), described.members.len()), (expected, 1));
    let e = admin.set_offsets(&group, &BTreeMap::from([(places[1].clone(), 0)])).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::GroupMembership);
    for says in [&format!("setting the offsets of group {group:?}: it has 1 member (billing-1 at "), "stop it first"] {
        assert!(e.to_string().contains(says), "{says}: {e}");
    }
    let e = admin.delete_offsets(&group, &places[1..]).await.unwrap_err();
    assert_eq!(e.broker_code(), Some(86), "{e}");
    let e = admin.delete_group(&group).await.unwrap_err();
    assert_eq!(e.broker_code(), Some(68), "{e}");
    assert!(e.to_string().contains("stop them first"), "{e}");
    assert!(committed(&admin, &group).await.contains(&(1, Some(5))), "nothing was changed");
    consumer.close().await.unwrap();

    admin.delete_offsets(&group, &places[1..]).await.unwrap();
    assert!(!committed(&admin, &group).await.iter().any(|(p, o)| *p == 1 && o.is_some()));
    client.close().await;
}

#[tokio::test]
async fn offsets_of_a_group_with_members_are_not_reset() {
    let broker = support::broker().await;
    refused_under_members(&broker, GroupProtocol::Classic).await;
}

#[tokio::test]
async fn offsets_of_a_kip848_group_with_members_are_not_reset() {
    let broker = support::broker_offering(Versions::kafka()).await;
    refused_under_members(&broker, GroupProtocol::Consumer).await;
}

#[tokio::test]
async fn an_offset_that_can_not_be_deleted_has_an_error() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let ((_, places), group) = (topic(&broker, &client).await, broker.group("g"));
    let e = admin.delete_offsets(&group, &places).await.unwrap_err();
    assert_eq!(e.broker_code(), Some(69), "{e}");
    assert!(e.to_string().contains("the group does not exist"), "{e}");
    admin.set_offsets(&group, &BTreeMap::from([(places[1].clone(), 5)])).await.unwrap();
    let none = TopicPartition::new(broker.topic("not-there").as_str(), 0);
    assert!(admin.delete_offsets(&group, std::slice::from_ref(&none)).await.unwrap_err().is_unknown_topic());
    let e = admin.set_offsets(&group, &BTreeMap::from([(none, 5)])).await.unwrap_err();
    assert!(e.is_unknown_topic() && e.to_string().contains("not-there/0"), "{e}");
    assert_eq!(committed(&admin, &group).await, [(0, None), (1, Some(5))]);
    client.close().await;
}

#[tokio::test]
async fn groups_are_listed_by_state() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let ((_, places), group) = (topic(&broker, &client).await, broker.group("g"));
    admin.set_offsets(&group, &BTreeMap::from([(places[1].clone(), 5)])).await.unwrap();
    let listed = async |filter: GroupFilter| {
        let all = admin.list_groups_where(&filter).await.unwrap();
        all.into_iter().find(|g| g.group == group).map(|g| g.state)
    };
    let empty = Some(Some(GroupState::Empty));
    assert_eq!(listed(GroupFilter::default()).await, empty);
    assert_eq!(listed(GroupFilter::default().state(GroupState::Stable).state(GroupState::Empty)).await, empty);
    assert_eq!(listed(GroupFilter::default().state(GroupState::Stable)).await, None);
    client.close().await;
}

#[tokio::test]
async fn groups_are_listed_by_type() {
    let broker = support::broker_offering(Versions::kafka()).await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let ((_, places), group) = (topic(&broker, &client).await, broker.group("g"));
    admin.set_offsets(&group, &BTreeMap::from([(places[1].clone(), 5)])).await.unwrap();
    let types = async |filter: GroupFilter| match admin.list_groups_where(&filter).await {
        Ok(all) => Ok(all.into_iter().find(|g| g.group == group).map(|g| g.group_type)),
        Err(e) => Err(e.kind()),
    };
    let found = types(GroupFilter::default().group_type(GroupType::Classic)).await;
    if found == Err(ErrorKind::Unsupported) && broker.embedded().is_none() {
        return client.close().await; // a broker without types, which says so
    }
    assert_eq!(found, Ok(Some(Some(GroupType::Classic))));
    assert_eq!(types(GroupFilter::default().group_type(GroupType::Consumer)).await, Ok(None));
    client.close().await;
}
