//! The table of response fields against kafka-protocol's encoder, and against random bytes.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable};
use proptest::prelude::*;

use crate::wire::api::{self, Api};
use crate::wire::validate;
use crate::wire::{Produce, TransactionV2};

/// Checks in each version that what kafka-protocol encodes is valid, and that no prefix of it is.
fn agrees<A: Api>(response: &A::Response)
where
    A::Response: Encodable + Clone,
{
    let (min, max) = A::VERSIONS;
    for version in min..=max {
        let mut body = BytesMut::new();
        // A sample sets fields that some versions lack; kafka-protocol rejects those that are not
        // ignorable.
        if response.encode(&mut body, version).is_err() {
            panic!("{} v{version} can't be encoded", A::NAME);
        }
        let flexible = version >= A::FLEXIBLE;
        let check = |b: &[u8]| validate::check(b, A::RESPONSE, version, flexible);
        assert_eq!(check(&body), Ok(()), "{} v{version}", A::NAME);
        A::Response::decode(&mut body.clone().freeze(), version).unwrap();
        for n in 0..body.len() {
            assert!(check(&body[..n]).is_err(), "{} v{version} truncated at {n}", A::NAME);
        }
        body.extend([0]);
        assert!(check(&body).is_err(), "{} v{version} with an extra byte", A::NAME);
    }
}

fn name() -> TopicName {
    TopicName("topic".into())
}

#[test]
fn produce() {
    use produce_response::*;
    let p = PartitionProduceResponse::default().with_index(1).with_base_offset(7);
    let t = TopicProduceResponse::default().with_name(name()).with_partition_responses(vec![p.clone(), p]);
    let response = ProduceResponse::default().with_responses(vec![t.clone(), t]);
    agrees::<Produce>(&response);
    agrees::<TransactionV2<Produce>>(&response);
}

#[test]
fn transactional_producers() {
    use add_partitions_to_txn_response::*;
    let p = AddPartitionsToTxnPartitionResult::default().with_partition_index(1);
    let t = AddPartitionsToTxnTopicResult::default().with_name(name()).with_results_by_partition(vec![p.clone(), p]);
    let added = AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(vec![t.clone(), t]);
    agrees::<AddPartitionsToTxnRequest>(&added);
    agrees::<AddOffsetsToTxnRequest>(&AddOffsetsToTxnResponse::default());
    use txn_offset_commit_response::*;
    let p = TxnOffsetCommitResponsePartition::default().with_partition_index(1);
    let t = TxnOffsetCommitResponseTopic::default().with_name(name()).with_partitions(vec![p.clone(), p]);
    let committed = TxnOffsetCommitResponse::default().with_topics(vec![t.clone(), t]);
    agrees::<TxnOffsetCommitRequest>(&committed);
    agrees::<TransactionV2<TxnOffsetCommitRequest>>(&committed);
    agrees::<EndTxnRequest>(&EndTxnResponse::default());
    let ended = EndTxnResponse::default().with_producer_id(ProducerId(7)).with_producer_epoch(3);
    agrees::<TransactionV2<EndTxnRequest>>(&ended);
}

#[test]
fn fetch() {
    use fetch_response::*;
    let p = PartitionData::default()
        .with_aborted_transactions(Some(vec![AbortedTransaction::default()]))
        .with_records(Some(Bytes::from_static(b"records")));
    let none = PartitionData::default().with_aborted_transactions(None).with_records(None);
    let t = FetchableTopicResponse::default().with_topic(name()).with_partitions(vec![p, none]);
    agrees::<FetchRequest>(&FetchResponse::default().with_responses(vec![t.clone(), t]));
}

#[test]
fn list_offsets() {
    use list_offsets_response::*;
    let p = ListOffsetsPartitionResponse::default();
    let t = ListOffsetsTopicResponse::default().with_name(name()).with_partitions(vec![p.clone(), p]);
    agrees::<ListOffsetsRequest>(&ListOffsetsResponse::default().with_topics(vec![t]));
}

#[test]
fn metadata() {
    use metadata_response::*;
    let b = MetadataResponseBroker::default().with_host("h".into()).with_rack(Some("r".into()));
    let p = MetadataResponsePartition::default()
        .with_replica_nodes(vec![BrokerId(1), BrokerId(2)])
        .with_isr_nodes(vec![BrokerId(1)]);
    let t = MetadataResponseTopic::default().with_name(Some(name())).with_partitions(vec![p.clone(), p]);
    let brokers = vec![b.clone(), b];
    agrees::<MetadataRequest>(&MetadataResponse::default().with_brokers(brokers).with_topics(vec![t]));
}

#[test]
fn offsets_of_groups() {
    let p = offset_commit_response::OffsetCommitResponsePartition::default();
    let t = offset_commit_response::OffsetCommitResponseTopic::default().with_name(name()).with_partitions(vec![p]);
    agrees::<OffsetCommitRequest>(&OffsetCommitResponse::default().with_topics(vec![t]));
    let p = offset_fetch_response::OffsetFetchResponsePartition::default().with_metadata(Some("m".into()));
    let t = offset_fetch_response::OffsetFetchResponseTopic::default().with_name(name()).with_partitions(vec![p]);
    agrees::<OffsetFetchRequest>(&OffsetFetchResponse::default().with_topics(vec![t]));
}

#[test]
fn groups() {
    agrees::<FindCoordinatorRequest>(&FindCoordinatorResponse::default().with_host("h".into()));
    let m = join_group_response::JoinGroupResponseMember::default()
        .with_member_id("m".into())
        .with_metadata(Bytes::from_static(b"meta"));
    let join = JoinGroupResponse::default().with_protocol_name(Some("range".into())).with_members(vec![m.clone(), m]);
    agrees::<JoinGroupRequest>(&join);
    agrees::<HeartbeatRequest>(&HeartbeatResponse::default());
    let m = leave_group_response::MemberResponse::default().with_member_id("m".into());
    agrees::<LeaveGroupRequest>(&LeaveGroupResponse::default().with_members(vec![m.clone(), m]));
    agrees::<SyncGroupRequest>(&SyncGroupResponse::default().with_assignment(Bytes::from_static(b"a")));
    let m = describe_groups_response::DescribedGroupMember::default()
        .with_member_metadata(Bytes::from_static(b"x"))
        .with_member_assignment(Bytes::from_static(b"y"));
    let g = describe_groups_response::DescribedGroup::default().with_members(vec![m.clone(), m]);
    agrees::<DescribeGroupsRequest>(&DescribeGroupsResponse::default().with_groups(vec![g.clone(), g]));
    let heartbeat = ConsumerGroupHeartbeatResponse::default().with_member_id(Some("m".into()));
    agrees::<ConsumerGroupHeartbeatRequest>(&heartbeat);
    let t = consumer_group_heartbeat_response::TopicPartitions::default().with_partitions(vec![0, 1]);
    let a = consumer_group_heartbeat_response::Assignment::default().with_topic_partitions(vec![t.clone(), t]);
    agrees::<ConsumerGroupHeartbeatRequest>(&heartbeat.with_assignment(Some(a)));
    use consumer_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions};
    let t = TopicPartitions::default().with_topic_name(name()).with_partitions(vec![0, 1]);
    let a = Assignment::default().with_topic_partitions(vec![t.clone(), t]);
    let m = Member::default().with_subscribed_topic_names(vec![name(), name()]).with_assignment(a.clone());
    let g = DescribedGroup::default().with_members(vec![m.clone(), m.with_target_assignment(a)]);
    agrees::<ConsumerGroupDescribeRequest>(&ConsumerGroupDescribeResponse::default().with_groups(vec![g.clone(), g]));
    let g = list_groups_response::ListedGroup::default();
    agrees::<ListGroupsRequest>(&ListGroupsResponse::default().with_groups(vec![g.clone(), g]));
    let g = delete_groups_response::DeletableGroupResult::default();
    agrees::<DeleteGroupsRequest>(&DeleteGroupsResponse::default().with_results(vec![g.clone(), g]));
}

#[test]
fn topics() {
    use create_topics_response::*;
    let c = CreatableTopicConfigs::default().with_name("n".into()).with_value(Some("v".into()));
    let t = CreatableTopicResult::default().with_name(name()).with_configs(Some(vec![c.clone(), c]));
    agrees::<CreateTopicsRequest>(&CreateTopicsResponse::default().with_topics(vec![t.clone(), t]));
    let t = delete_topics_response::DeletableTopicResult::default().with_name(Some(name()));
    agrees::<DeleteTopicsRequest>(&DeleteTopicsResponse::default().with_responses(vec![t.clone(), t]));
    let t = create_partitions_response::CreatePartitionsTopicResult::default().with_name(name());
    agrees::<CreatePartitionsRequest>(&CreatePartitionsResponse::default().with_results(vec![t.clone(), t]));
    agrees::<InitProducerIdRequest>(&InitProducerIdResponse::default());
}

/// The decoder ignores the size of a tagged field that it knows. With a false size it would read
/// what follows from another place than the check, an array of 2^31 elements for example.
#[test]
fn known_tagged_fields_must_have_the_right_size() {
    use fetch_response::*;
    let p = PartitionData::default()
        .with_diverging_epoch(EpochEndOffset::default().with_epoch(3))
        .with_current_leader(LeaderIdAndEpoch::default().with_leader_epoch(4))
        .with_snapshot_id(SnapshotId::default().with_epoch(5));
    let t = FetchableTopicResponse::default().with_topic(name()).with_partitions(vec![p]);
    use produce_response::{NodeEndpoint, PartitionProduceResponse, TopicProduceResponse};
    let leader = produce_response::LeaderIdAndEpoch::default().with_leader_epoch(4);
    let p = PartitionProduceResponse::default().with_current_leader(leader);
    let topic = TopicProduceResponse::default().with_name(name()).with_partition_responses(vec![p]);
    let response = ProduceResponse::default().with_responses(vec![topic]);
    let node = NodeEndpoint::default().with_host("h".into());
    sizes_matter::<Produce>(&response.with_node_endpoints(vec![node]), &[[0, 9], [0, 13]]);
    sizes_matter::<FetchRequest>(&FetchResponse::default().with_responses(vec![t]), &[[0, 13], [1, 9], [2, 13]]);
    let f = api_versions_response::FinalizedFeatureKey::default().with_name("x".into());
    let versions = ApiVersionsResponse::default().with_finalized_features(vec![f.clone(), f]);
    sizes_matter::<ApiVersionsRequest>(&versions, &[[2, 15]]);
    let t = create_topics_response::CreatableTopicResult::default().with_name(name()).with_topic_config_error_code(29);
    sizes_matter::<CreateTopicsRequest>(&CreateTopicsResponse::default().with_topics(vec![t]), &[[0, 2]]);
}

/// Checks in the latest version that each of these tags is there with its size, and that another
/// size is not valid.
fn sizes_matter<A: Api>(response: &A::Response, tags: &[[u8; 2]])
where
    A::Response: Encodable,
{
    let version = A::VERSIONS.1;
    let mut body = BytesMut::new();
    response.encode(&mut body, version).unwrap();
    assert_eq!(validate::check(&body, A::RESPONSE, version, true), Ok(()));
    for tag in tags {
        let at = body.windows(2).rposition(|w| w == tag).unwrap();
        for size in [tag[1] - 1, tag[1] + 1] {
            let mut lie = body.clone();
            lie[at + 1] = size;
            lie.extend([0; 1]); // enough bytes for the larger size
            let checked = validate::check(&lie, A::RESPONSE, version, true);
            assert!(checked.unwrap_err().to_string().contains("not as long as it says"), "{tag:?} with size {size}");
        }
    }
}

proptest! {
    /// The decoder must not abort the process on what passes the check.
    #[test]
    fn random_bytes_are_survived(body in proptest::collection::vec(prop_oneof![3 => 0_u8..3, 1 => any::<u8>()], 0..200)) {
        api::for_each_response(|api| {
            for version in api.versions.0..=api.versions.1 {
                if validate::check(&body, api.fields, version, version >= api.flexible).is_ok() {
                    (api.decode)(&body, version);
                }
            }
        });
    }
}

#[test]
fn api_versions() {
    use api_versions_response::*;
    let k = ApiVersion::default();
    let response = ApiVersionsResponse::default().with_api_keys(vec![k.clone(), k]);
    agrees::<ApiVersionsRequest>(&response);
    // Features are sent from version 3 on, in tagged fields, which kafka-protocol does not write in
    // older versions.
    let s = SupportedFeatureKey::default().with_name("metadata.version".into()).with_max_version(7);
    let f = FinalizedFeatureKey::default().with_name("metadata.version".into()).with_max_version_level(7);
    let response = response.with_supported_features(vec![s.clone(), s]).with_finalized_features(vec![f.clone(), f]);
    agrees::<ApiVersionsRequest>(&response.with_finalized_features_epoch(3).with_zk_migration_ready(true));
}

#[test]
fn administration() {
    use describe_configs_response::*;
    let s = DescribeConfigsSynonym::default().with_name("n".into()).with_value(Some("v".into()));
    let c = DescribeConfigsResourceResult::default().with_name("n".into()).with_value(None);
    let c = c.with_synonyms(vec![s.clone(), s]).with_documentation(None);
    let r = DescribeConfigsResult::default().with_resource_name("t".into()).with_configs(vec![c.clone(), c]);
    agrees::<DescribeConfigsRequest>(&DescribeConfigsResponse::default().with_results(vec![r.clone(), r]));
    let r = incremental_alter_configs_response::AlterConfigsResourceResponse::default();
    let response = IncrementalAlterConfigsResponse::default();
    agrees::<IncrementalAlterConfigsRequest>(&response.with_responses(vec![r.clone(), r.with_error_message(None)]));
    use describe_log_dirs_response::*;
    let p = DescribeLogDirsPartition::default().with_partition_size(7);
    let t = DescribeLogDirsTopic::default().with_name(name()).with_partitions(vec![p.clone(), p]);
    let d = DescribeLogDirsResult::default().with_log_dir("/data".into()).with_topics(vec![t.clone(), t]);
    agrees::<DescribeLogDirsRequest>(&DescribeLogDirsResponse::default().with_results(vec![d.clone(), d]));
    use offset_delete_response::*;
    let p = OffsetDeleteResponsePartition::default();
    let t = OffsetDeleteResponseTopic::default().with_name(name()).with_partitions(vec![p.clone(), p]);
    agrees::<OffsetDeleteRequest>(&OffsetDeleteResponse::default().with_topics(vec![t.clone(), t]));
}

#[test]
fn transactions() {
    use write_txn_markers_response::*;
    let p = WritableTxnMarkerPartitionResult::default().with_partition_index(1).with_error_code(51);
    let t = WritableTxnMarkerTopicResult::default().with_name(name()).with_partitions(vec![p.clone(), p]);
    let m = WritableTxnMarkerResult::default().with_producer_id(ProducerId(7)).with_topics(vec![t.clone(), t]);
    agrees::<WriteTxnMarkersRequest>(&WriteTxnMarkersResponse::default().with_markers(vec![m.clone(), m]));
    use describe_producers_response::*;
    let s = ProducerState::default().with_producer_id(ProducerId(7)).with_current_txn_start_offset(9);
    let p = PartitionResponse::default().with_error_message(Some("m".into())).with_active_producers(vec![s.clone(), s]);
    let t = TopicResponse::default().with_name(name()).with_partitions(vec![p.clone(), p.with_error_message(None)]);
    agrees::<DescribeProducersRequest>(&DescribeProducersResponse::default().with_topics(vec![t.clone(), t]));
    use describe_transactions_response::{TopicData, TransactionState};
    let t = TopicData::default().with_topic(name()).with_partitions(vec![0, 1]);
    let s = TransactionState::default().with_transaction_state("Ongoing".into()).with_topics(vec![t.clone(), t]);
    let response = DescribeTransactionsResponse::default().with_transaction_states(vec![s.clone(), s]);
    agrees::<DescribeTransactionsRequest>(&response);
    let s = list_transactions_response::TransactionState::default().with_transaction_state("Ongoing".into());
    let response = ListTransactionsResponse::default().with_transaction_states(vec![s.clone(), s]);
    agrees::<ListTransactionsRequest>(&response.with_unknown_state_filters(vec!["Odd".into(), "Even".into()]));
}

#[test]
fn acls() {
    use describe_acls_response::*;
    let a = AclDescription::default().with_principal("User:a".into()).with_host("*".into());
    let r = DescribeAclsResource::default().with_resource_name("t".into()).with_acls(vec![a.clone(), a]);
    agrees::<DescribeAclsRequest>(&DescribeAclsResponse::default().with_resources(vec![r.clone(), r]));
    let r = create_acls_response::AclCreationResult::default().with_error_message(Some("m".into()));
    agrees::<CreateAclsRequest>(&CreateAclsResponse::default().with_results(vec![r.clone(), r]));
    use delete_acls_response::*;
    let a = DeleteAclsMatchingAcl::default().with_resource_name("t".into()).with_principal("User:a".into());
    let r = DeleteAclsFilterResult::default().with_matching_acls(vec![a.clone(), a]);
    agrees::<DeleteAclsRequest>(&DeleteAclsResponse::default().with_filter_results(vec![r.clone(), r]));
}

#[test]
fn delete_records() {
    use delete_records_response::*;
    let p = DeleteRecordsPartitionResult::default().with_partition_index(1).with_low_watermark(7);
    let t = DeleteRecordsTopicResult::default().with_name(name()).with_partitions(vec![p.clone(), p]);
    agrees::<DeleteRecordsRequest>(&DeleteRecordsResponse::default().with_topics(vec![t.clone(), t]));
}
