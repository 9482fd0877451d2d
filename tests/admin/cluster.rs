//! The cluster, its brokers, and what they serve.

use ailurus::admin::{ConfigResource, GroupFilter, GroupType};
use ailurus::{Admin, Client, ErrorKind, TopicPartition};
use ailurus_broker::Versions;

use crate::support;

const METADATA: i16 = 3;
const DESCRIBE_CONFIGS: i16 = 32;
const DESCRIBE_LOG_DIRS: i16 = 35;
const OFFSET_DELETE: i16 = 47;

#[tokio::test]
async fn the_cluster_is_described() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let cluster = Admin::new(&client).describe_cluster().await.unwrap();
    assert!(cluster.cluster_id.as_deref().is_some_and(|id| !id.is_empty()));
    assert!(cluster.brokers.iter().any(|b| Some(b.id) == cluster.controller), "{cluster:?}");
    assert!(cluster.brokers.is_sorted_by_key(|b| b.id));
    for b in &cluster.brokers {
        assert_eq!(b.error, None);
        assert!(broker.embedded().is_none() || broker.bootstrap().contains(&b.address), "{b:?}");
    }
    client.close().await;
}

#[tokio::test]
async fn an_unresponsive_broker_is_listed_with_the_reason() {
    let Some(broker) = support::embedded(|config| config.racks(&["a", "b", "a"])).await else { return };
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let racks = |cluster: &ailurus::admin::ClusterDescription| {
        cluster.brokers.iter().map(|b| b.rack.clone().unwrap()).collect::<Vec<_>>()
    };
    let admin = Admin::new(&client);
    assert_eq!(racks(&admin.describe_cluster().await.unwrap()), ["a", "b", "a"]);
    const API_VERSIONS: i16 = 18;
    broker.embedded().unwrap().set_hook(|request| {
        (request.node == 1 && request.api_key == API_VERSIONS).then_some(ailurus_broker::Fault::Close)
    });
    let cluster = admin.describe_cluster().await.unwrap();
    let failed: Vec<_> = cluster.brokers.iter().filter(|b| b.error.is_some()).map(|b| b.id).collect();
    assert_eq!(failed, [1], "{cluster:?}");
    client.close().await;
}

#[tokio::test]
async fn api_versions_are_compared_with_the_supported_ones() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let id = admin.describe_cluster().await.unwrap().brokers[0].id;
    let apis = admin.api_versions(id).await.unwrap();
    let metadata = apis.iter().find(|a| a.key == METADATA).unwrap();
    assert_eq!(metadata.name, "Metadata");
    let (broker_range, client_range) = (metadata.broker.unwrap(), metadata.client.unwrap());
    assert_eq!(metadata.usable(), Some(broker_range.max.min(client_range.max)));
    if broker.embedded().is_some() {
        let offered = support::embedded_versions().range(METADATA).unwrap();
        assert_eq!((broker_range.min, broker_range.max), offered);
    }
    let e = admin.api_versions(7_777_777).await.unwrap_err();
    assert!(e.to_string().contains("broker 7777777 is not in the cluster's metadata"), "{e}");
    client.close().await;
}

#[tokio::test]
async fn an_unsupported_api_error_lists_what_the_broker_serves() {
    let poor = Versions::redpanda_24_3().without(DESCRIBE_LOG_DIRS).without(OFFSET_DELETE).with(DESCRIBE_CONFIGS, 0, 0); // a version that this client does not speak is none at all
    let Some(broker) = support::embedded(|config| config.versions(poor)).await else { return };
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let group = broker.group("g");
    let partitions = [TopicPartition::new("t", 0)];
    let by_type = GroupFilter::default().group_type(GroupType::Consumer);
    let broker_of = |e: &ailurus::Error| broker.bootstrap().split(',').any(|b| format!("{e:#}").contains(b));
    for (e, says) in [
        (admin.log_dirs(None).await.unwrap_err(), "does not serve DescribeLogDirs (API 35): it serves "),
        (admin.delete_offsets(&group, &partitions).await.unwrap_err(), "does not serve OffsetDelete (API 47): "),
        (
            admin.describe_configs(&ConfigResource::BrokerDefaults).await.unwrap_err(),
            "does not serve DescribeConfigs (API 32): ",
        ),
    ] {
        assert_eq!(e.kind(), ErrorKind::Unsupported, "{e:#}");
        assert!(format!("{e:#}").contains(says) && broker_of(&e), "{e:#}");
    }
    let e = admin.list_groups_where(&by_type).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    let says =
        "listing groups by type needs ListGroups in version 5: broker 0 serves ListGroups (API 16) in versions 0 to 4";
    assert_eq!(e.to_string(), says);
    client.close().await;
}

#[tokio::test]
async fn disjoint_api_versions_are_an_error() {
    const CREATE_TOPICS: i16 = 19;
    let new = Versions::kafka().with(CREATE_TOPICS, 7, 7);
    let Some(broker) = support::embedded(|config| config.versions(new)).await else { return };
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let e = Admin::new(&client).create_topic("t", 1, None).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    let says = "does not serve CreateTopics (API 19): it serves versions 7 to 7, and this client supports 2 to 6";
    assert!(format!("{e:#}").contains(says), "{e:#}");
    client.close().await;
}
