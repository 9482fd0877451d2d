//! Every offered version of every API is served, with and without an error.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use ailurus_broker::{Broker, BrokerConfig, Fault, Versions};
use ailurus_test_support::raw_client::batch::BatchBuilder;
use ailurus_test_support::raw_client::*;
use kafka_protocol::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Request;
use uuid::Uuid;

const TOPIC: i8 = 2;

/// Sends `make`'s request in every offered version.
async fn for_each_version<R: Request>(broker: &Broker, check: impl Fn(i16, &R::Response), make: impl Fn(i16) -> R) {
    // The codec has Produce only from version 3 on.
    let (lowest, highest) = Versions::kafka().range(R::KEY).expect("it is served");
    for version in lowest.max(R::VERSIONS.min)..=highest {
        let mut client = Client::connect(&broker.bootstrap()).await;
        let response = client.try_call(version, &make(version)).await;
        check(version, &response.unwrap_or_else(|| panic!("api {} version {version}: closed", R::KEY)));
    }
}

async fn topic_id(broker: &Broker) -> Uuid {
    let mut client = Client::connect(&broker.bootstrap()).await;
    client.call(12, &MetadataRequest::default().with_topics(None)).await.topics[0].topic_id
}

async fn all(broker: &Broker, code: i16, id: Uuid) {
    let group = || group_id("g");
    let ok = |found: i16, version: i16| assert_eq!(found, code, "version {version}");
    for_each_version::<ProduceRequest>(
        broker,
        |v, a| ok(a.responses[0].partition_responses[0].error_code, v),
        |v| {
            let mut request = produce_request("t", 0, BatchBuilder::new(&[1]).make(), 1).with_transactional_id(None);
            if v >= 13 {
                request.topic_data[0].topic_id = id;
            }
            request
        },
    )
    .await;
    for_each_version::<FetchRequest>(
        broker,
        |v, a| ok(a.responses[0].partitions[0].error_code, v),
        |v| {
            let mut request = fetch_request("t", 0, 0).with_session_epoch(if v >= 7 { -1 } else { 0 });
            request.topics[0].partitions[0].current_leader_epoch = -1;
            if v >= 13 {
                request.topics[0].topic_id = id;
            }
            request
        },
    )
    .await;
    for_each_version::<ListOffsetsRequest>(
        broker,
        |v, a| ok(a.topics[0].partitions[0].error_code, v),
        |_| {
            let partition = ListOffsetsPartition::default().with_timestamp(-1).with_current_leader_epoch(-1);
            let topic = ListOffsetsTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
            ListOffsetsRequest::default().with_topics(vec![topic])
        },
    )
    .await;
    for_each_version::<OffsetForLeaderEpochRequest>(
        broker,
        |v, a| ok(a.topics[0].partitions[0].error_code, v),
        |_| {
            let partition = OffsetForLeaderPartition::default().with_current_leader_epoch(-1);
            let topic = OffsetForLeaderTopic::default().with_topic(topic_name("t")).with_partitions(vec![partition]);
            OffsetForLeaderEpochRequest::default().with_topics(vec![topic])
        },
    )
    .await;
    for_each_version::<MetadataRequest>(
        broker,
        |v, a| ok(a.topics[0].error_code, v),
        |_| {
            let topic = MetadataRequestTopic::default().with_name(Some(topic_name("t")));
            MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(true)
        },
    )
    .await;
    for_each_version::<OffsetCommitRequest>(
        broker,
        |v, a| ok(a.topics[0].partitions[0].error_code, v),
        |_| {
            let partition = OffsetCommitRequestPartition::default().with_committed_offset(1);
            let topic = OffsetCommitRequestTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
            let request = OffsetCommitRequest::default().with_group_id(group()).with_generation_id_or_member_epoch(-1);
            request.with_retention_time_ms(-1).with_topics(vec![topic])
        },
    )
    .await;
    for_each_version::<OffsetFetchRequest>(
        broker,
        |v, a| match v {
            // Version 1 has no error code for the group.
            1 => {}
            ..=7 => ok(a.error_code, v),
            _ => ok(a.groups[0].error_code, v),
        },
        |v| {
            if v < 8 {
                let topic =
                    OffsetFetchRequestTopic::default().with_name(topic_name("t")).with_partition_indexes(vec![0]);
                return OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![topic]));
            }
            let topic = OffsetFetchRequestTopics::default().with_name(topic_name("t")).with_partition_indexes(vec![0]);
            let of = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![topic]));
            OffsetFetchRequest::default().with_groups(vec![of])
        },
    )
    .await;
    for_each_version::<FindCoordinatorRequest>(
        broker,
        |v, a| ok(if v >= 4 { a.coordinators[0].error_code } else { a.error_code }, v),
        |v| match v {
            4.. => FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]),
            _ => FindCoordinatorRequest::default().with_key(text("g")),
        },
    )
    .await;
    groups(broker, code).await;
    for_each_version::<ApiVersionsRequest>(broker, |v, a| ok(a.error_code, v), |_| ApiVersionsRequest::default()).await;
    for_each_version::<CreateTopicsRequest>(
        broker,
        |v, a| ok(a.topics[0].error_code, v),
        |v| {
            let topic = CreatableTopic::default().with_num_partitions(1).with_replication_factor(1);
            CreateTopicsRequest::default().with_topics(vec![topic.with_name(topic_name(&format!("new-{v}")))])
        },
    )
    .await;
    for_each_version::<CreatePartitionsRequest>(
        broker,
        |v, a| ok(a.results[0].error_code, v),
        |v| {
            let topic = CreatePartitionsTopic::default().with_name(topic_name("new-2")).with_count(i32::from(v) + 2);
            CreatePartitionsRequest::default().with_topics(vec![topic.with_assignments(None)])
        },
    )
    .await;
    for_each_version::<DeleteTopicsRequest>(
        broker,
        |v, a| ok(a.responses[0].error_code, v),
        |v| match v {
            6.. => DeleteTopicsRequest::default()
                .with_topics(vec![DeleteTopicState::default().with_name(Some(topic_name("new-7")))]),
            _ => DeleteTopicsRequest::default().with_topic_names(vec![topic_name(&format!("new-{}", v + 1))]),
        },
    )
    .await;
    for_each_version::<DeleteRecordsRequest>(
        broker,
        |v, a| ok(a.topics[0].partitions[0].error_code, v),
        |_| {
            let partition = DeleteRecordsPartition::default().with_offset(0);
            let topic = DeleteRecordsTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
            DeleteRecordsRequest::default().with_topics(vec![topic])
        },
    )
    .await;
    for_each_version::<InitProducerIdRequest>(
        broker,
        |v, a| ok(a.error_code, v),
        |v| {
            let request = InitProducerIdRequest::default().with_transactional_id(None);
            if v >= 3 { request.with_producer_id(ProducerId(-1)).with_producer_epoch(-1) } else { request }
        },
    )
    .await;
    for_each_version::<DescribeConfigsRequest>(
        broker,
        |v, a| ok(a.results[0].error_code, v),
        |_| {
            let topic = DescribeConfigsResource::default().with_resource_type(TOPIC).with_resource_name(text("t"));
            DescribeConfigsRequest::default().with_resources(vec![topic.with_configuration_keys(None)])
        },
    )
    .await;
    for_each_version::<IncrementalAlterConfigsRequest>(
        broker,
        |v, a| ok(a.responses[0].error_code, v),
        |_| {
            let topic = AlterConfigsResource::default().with_resource_type(TOPIC).with_resource_name(text("t"));
            IncrementalAlterConfigsRequest::default().with_resources(vec![topic])
        },
    )
    .await;
    // This listener has no SASL.
    let illegal = if code == 0 { 34 } else { code };
    for_each_version::<SaslHandshakeRequest>(
        broker,
        |v, a| assert_eq!(a.error_code, illegal, "version {v}"),
        |_| SaslHandshakeRequest::default().with_mechanism(text("PLAIN")),
    )
    .await;
    for_each_version::<SaslAuthenticateRequest>(
        broker,
        |v, a| assert_eq!(a.error_code, illegal, "version {v}"),
        |_| SaslAuthenticateRequest::default(),
    )
    .await;
    for_each_version::<DescribeClusterRequest>(
        broker,
        |v, a| ok(a.error_code, v),
        |_| DescribeClusterRequest::default(),
    )
    .await;
    for_each_version::<DescribeLogDirsRequest>(
        broker,
        |v, a| ok(a.results[0].error_code, v),
        |_| DescribeLogDirsRequest::default().with_topics(None),
    )
    .await;
    acls(broker, code).await;
    for_each_version::<OffsetDeleteRequest>(
        broker,
        |v, a| ok(a.topics.first().map_or(a.error_code, |t| t.partitions[0].error_code), v),
        |_| {
            let partition = OffsetDeleteRequestPartition::default();
            let topic = OffsetDeleteRequestTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
            OffsetDeleteRequest::default().with_group_id(group()).with_topics(vec![topic])
        },
    )
    .await;
    for_each_version::<DeleteGroupsRequest>(
        broker,
        // The first version finds the group, the others do not.
        |v, a| ok(if a.results[0].error_code == 69 { 0 } else { a.results[0].error_code }, v),
        |_| DeleteGroupsRequest::default().with_groups_names(vec![group()]),
    )
    .await;
}

async fn acls(broker: &Broker, code: i16) {
    let ok = |found: i16, version: i16| assert_eq!(found, code, "version {version}");
    for_each_version::<CreateAclsRequest>(
        broker,
        |v, a| ok(a.results[0].error_code, v),
        |_| {
            let acl = AclCreation::default().with_resource_type(TOPIC).with_resource_name(text("t"));
            let acl = acl.with_resource_pattern_type(3).with_principal(text("User:a")).with_host(text("*"));
            CreateAclsRequest::default().with_creations(vec![acl.with_operation(3).with_permission_type(3)])
        },
    )
    .await;
    for_each_version::<DescribeAclsRequest>(
        broker,
        |v, a| {
            ok(a.error_code, v);
            assert_eq!(a.resources.len(), usize::from(code == 0), "version {v}");
        },
        |_| {
            let request = DescribeAclsRequest::default().with_resource_type_filter(1).with_pattern_type_filter(1);
            let request = request.with_resource_name_filter(None).with_principal_filter(None).with_host_filter(None);
            request.with_operation(1).with_permission_type(1)
        },
    )
    .await;
    for_each_version::<DeleteAclsRequest>(
        broker,
        |v, a| ok(a.filter_results[0].error_code, v),
        |_| {
            let filter = DeleteAclsFilter::default().with_resource_type_filter(1).with_pattern_type_filter(1);
            let filter = filter.with_resource_name_filter(None).with_principal_filter(None).with_host_filter(None);
            DeleteAclsRequest::default().with_filters(vec![filter.with_operation(1).with_permission_type(1)])
        },
    )
    .await;
}

/// Requests of members, each in its own group.
async fn groups(broker: &Broker, code: i16) {
    let ok = |found: i16, version: i16| assert_eq!(found, code, "version {version}");
    let group_name = |v: i16, what: &str| format!("{what}-{v}-{code}");
    for_each_version::<JoinGroupRequest>(
        broker,
        // From version 4 on a new member first gets an id.
        |v, a| ok(if a.error_code == 79 { 0 } else { a.error_code }, v),
        |v| join_request(&group_name(v, "join"), "").with_rebalance_timeout_ms(if v >= 1 { 10_000 } else { -1 }),
    )
    .await;
    let unknown = if code == 0 { 25 } else { code };
    for_each_version::<SyncGroupRequest>(
        broker,
        |v, a| assert_eq!(a.error_code, unknown, "version {v}"),
        |v| SyncGroupRequest::default().with_group_id(group_id(&group_name(v, "sync"))),
    )
    .await;
    for_each_version::<HeartbeatRequest>(
        broker,
        |v, a| assert_eq!(a.error_code, unknown, "version {v}"),
        |v| HeartbeatRequest::default().with_group_id(group_id(&group_name(v, "beat"))),
    )
    .await;
    for_each_version::<LeaveGroupRequest>(
        broker,
        |v, a| {
            let top = a.error_code;
            assert_eq!(a.members.first().map_or(top, |m| m.error_code), unknown, "version {v}");
        },
        |v| {
            let request = LeaveGroupRequest::default().with_group_id(group_id(&group_name(v, "leave")));
            let member = MemberIdentity::default().with_member_id(text("m")).with_reason(None);
            if v >= 3 { request.with_members(vec![member]) } else { request.with_member_id(text("m")) }
        },
    )
    .await;
    let unknown = if code == 0 { 69 } else { code };
    for_each_version::<ConsumerGroupDescribeRequest>(
        broker,
        |v, a| assert_eq!(a.groups[0].error_code, unknown, "version {v}"),
        |_| ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id("g")]),
    )
    .await;
    for_each_version::<ConsumerGroupHeartbeatRequest>(
        broker,
        |v, a| ok(a.error_code, v),
        |v| {
            ConsumerGroupHeartbeatRequest::default()
                .with_group_id(group_id(&group_name(v, "consumer")))
                .with_member_id(text(if v >= 1 { "m" } else { "" }))
                .with_rebalance_timeout_ms(10_000)
                .with_subscribed_topic_names(Some(vec![topic_name("t")]))
                .with_topic_partitions(Some(vec![]))
        },
    )
    .await;
    for_each_version::<DescribeGroupsRequest>(
        broker,
        |v, a| ok(a.groups[0].error_code, v),
        |_| DescribeGroupsRequest::default().with_groups(vec![group_id("g")]),
    )
    .await;
    for_each_version::<ListGroupsRequest>(broker, |v, a| ok(a.error_code, v), |_| ListGroupsRequest::default()).await;
    all_of_transactions(broker, code).await;
}

/// APIs of transactions: without a fault, each has its own error for an unknown id.
async fn all_of_transactions(broker: &Broker, code: i16) {
    let or = |unknown: i16| if code == 0 { unknown } else { code };
    let no_mapping = or(49);
    let id = || TransactionalId(text("unknown"));
    for_each_version::<AddPartitionsToTxnRequest>(
        broker,
        |v, a| {
            let of_batch = a.results_by_transaction.iter().flat_map(|t| &t.topic_results);
            let topics: Vec<_> = a.results_by_topic_v3_and_below.iter().chain(of_batch).collect();
            assert_eq!(topics.len(), 1, "version {v}");
            assert_eq!(topics[0].results_by_partition[0].partition_error_code, no_mapping, "version {v}");
        },
        |v| {
            let topic = AddPartitionsToTxnTopic::default().with_name(topic_name("t")).with_partitions(vec![0]);
            let transaction = AddPartitionsToTxnTransaction::default().with_transactional_id(id());
            let request = AddPartitionsToTxnRequest::default();
            if v >= 4 {
                return request.with_transactions(vec![transaction.with_topics(vec![topic])]);
            }
            request.with_v3_and_below_transactional_id(id()).with_v3_and_below_topics(vec![topic])
        },
    )
    .await;
    for_each_version::<AddOffsetsToTxnRequest>(
        broker,
        |v, a| assert_eq!(a.error_code, no_mapping, "version {v}"),
        |_| AddOffsetsToTxnRequest::default().with_transactional_id(id()).with_group_id(group_id("g")),
    )
    .await;
    for_each_version::<TxnOffsetCommitRequest>(
        broker,
        |v, a| assert_eq!(a.topics[0].partitions[0].error_code, no_mapping, "version {v}"),
        |v| {
            let partition = TxnOffsetCommitRequestPartition::default();
            let topic = TxnOffsetCommitRequestTopic::default().with_name(topic_name("t"));
            let request = TxnOffsetCommitRequest::default().with_transactional_id(id()).with_group_id(group_id("g"));
            let request = if v >= 3 { request.with_generation_id(-1) } else { request };
            request.with_topics(vec![topic.with_partitions(vec![partition])])
        },
    )
    .await;
    for_each_version::<EndTxnRequest>(
        broker,
        |v, a| assert_eq!(a.error_code, no_mapping, "version {v}"),
        |_| EndTxnRequest::default().with_transactional_id(id()),
    )
    .await;
    for_each_version::<WriteTxnMarkersRequest>(
        broker,
        |v, a| assert_eq!(a.markers[0].topics[0].partitions[0].error_code, or(3), "version {v}"),
        |_| {
            let topic = WritableTxnMarkerTopic::default().with_name(topic_name("none")).with_partition_indexes(vec![0]);
            WriteTxnMarkersRequest::default().with_markers(vec![WritableTxnMarker::default().with_topics(vec![topic])])
        },
    )
    .await;
    for_each_version::<DescribeProducersRequest>(
        broker,
        |v, a| assert_eq!(a.topics[0].partitions[0].error_code, code, "version {v}"),
        |_| {
            let topic = TopicRequest::default().with_name(topic_name("t")).with_partition_indexes(vec![0]);
            DescribeProducersRequest::default().with_topics(vec![topic])
        },
    )
    .await;
    for_each_version::<DescribeTransactionsRequest>(
        broker,
        |v, a| assert_eq!(a.transaction_states[0].error_code, or(105), "version {v}"),
        |_| DescribeTransactionsRequest::default().with_transactional_ids(vec![id()]),
    )
    .await;
    for_each_version::<ListTransactionsRequest>(
        broker,
        |v, a| assert_eq!(a.error_code, code, "version {v}"),
        |_| ListTransactionsRequest::default(),
    )
    .await;
}

#[tokio::test]
async fn every_version_offered_is_served() {
    let broker = Broker::start(BrokerConfig::default().versions(Versions::kafka())).await.unwrap();
    broker.create_topic("t", 1).unwrap();
    let id = topic_id(&broker).await;
    all(&broker, 0, id).await;
    broker.shutdown().await;
}

#[tokio::test]
async fn injected_errors_are_returned_in_every_version() {
    const LEADER_NOT_AVAILABLE: i16 = 5;
    let broker = Broker::start(BrokerConfig::default().versions(Versions::kafka())).await.unwrap();
    broker.create_topic("t", 1).unwrap();
    let id = topic_id(&broker).await;
    broker.set_hook(|_| Some(Fault::Error(LEADER_NOT_AVAILABLE)));
    all(&broker, LEADER_NOT_AVAILABLE, id).await;
    broker.shutdown().await;
}
