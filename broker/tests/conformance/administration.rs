//! Administration: ACLs, log sizes, settings, offset deletion.

use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_topics_request::CreatableReplicaAssignment;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};

use super::groups::Member;
use super::*;

const ANY: i8 = 1;
const MATCH: i8 = 2;
const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
const TOPIC: i8 = 2;
const NODE: i8 = 4;
const READ: i8 = 3;
const WRITE: i8 = 4;
const ALLOW: i8 = 3;
const SECURITY_DISABLED: i16 = 54;

fn acl(name: &str, pattern: i8, operation: i8) -> AclCreation {
    AclCreation::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(name))
        .with_resource_pattern_type(pattern)
        .with_principal(text("User:alice"))
        .with_host(text("*"))
        .with_operation(operation)
        .with_permission_type(ALLOW)
}

fn filter(name: &str, pattern: i8) -> DescribeAclsRequest {
    DescribeAclsRequest::default()
        .with_resource_type_filter(TOPIC)
        .with_resource_name_filter(Some(text(name)))
        .with_pattern_type_filter(pattern)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(ANY)
}

/// Returns name, pattern type and operation of the ACLs that match a filter.
async fn found(client: &mut Client, request: &DescribeAclsRequest) -> BTreeSet<(String, i8, i8)> {
    let response = client.call(2, request).await;
    assert_eq!(response.error_code, 0);
    let of = |r: &describe_acls_response::DescribeAclsResource| {
        let (name, pattern) = (r.resource_name.to_string(), r.pattern_type);
        r.acls.iter().map(|a| (name.clone(), pattern, a.operation)).collect::<Vec<_>>()
    };
    response.resources.iter().flat_map(of).collect()
}

/// Waits for the expected ACLs: brokers apply a change shortly after their response.
async fn wait_for_acls<const N: usize>(
    client: &mut Client,
    request: &DescribeAclsRequest,
    expected: [&(String, i8, i8); N],
) {
    let expected: BTreeSet<_> = expected.into_iter().cloned().collect();
    let mut last = found(client, request).await;
    for _ in 0..10_000 {
        if last == expected {
            break;
        }
        last = found(client, request).await;
    }
    assert_eq!(last, expected);
}

#[tokio::test]
async fn acls_are_created_described_and_deleted() {
    for target in targets().await {
        let (mut client, name) = (target.client().await, target.name("t"));
        let prefix = name.strip_suffix("t").unwrap().to_owned();
        let all = vec![acl(&name, LITERAL, READ), acl(&name, LITERAL, WRITE), acl(&prefix, PREFIXED, READ)];
        let created = client.call(2, &CreateAclsRequest::default().with_creations(all.clone())).await;
        let codes: Vec<_> = created.results.iter().map(|r| r.error_code).collect();
        if codes == [SECURITY_DISABLED; 3] && target.broker.is_none() {
            return clean_up(target).await; // it has no authorizer: there is nothing to compare
        }
        assert_eq!(codes, [0; 3]);
        let mut invalid = vec![acl("", LITERAL, READ)];
        invalid.push(acl(&name, LITERAL, READ).with_resource_type(4));
        invalid.push(acl(&name, LITERAL, READ).with_principal(text("alice")));
        for invalid in invalid {
            let refused = client.call(2, &CreateAclsRequest::default().with_creations(vec![invalid.clone()])).await;
            assert_eq!(refused.results[0].error_code, 42, "{invalid:?}");
        }

        let (one, two, three) =
            ((name.clone(), LITERAL, READ), (name.clone(), LITERAL, WRITE), (prefix.clone(), PREFIXED, READ));
        wait_for_acls(&mut client, &filter(&name, LITERAL), [&one, &two]).await;
        wait_for_acls(&mut client, &filter(&name, PREFIXED), []).await;
        wait_for_acls(&mut client, &filter(&prefix, ANY), [&three]).await;
        wait_for_acls(&mut client, &filter(&name, MATCH), [&one, &two, &three]).await;
        let other = filter(&name, MATCH).with_principal_filter(Some(text("User:bob")));
        wait_for_acls(&mut client, &other, []).await;
        let reads = filter(&name, MATCH).with_operation(READ);
        wait_for_acls(&mut client, &reads, [&one, &three]).await;

        let delete = |name: &str, pattern, operation| {
            let filter = DeleteAclsFilter::default().with_resource_type_filter(TOPIC);
            let filter = filter.with_resource_name_filter(Some(text(name))).with_pattern_type_filter(pattern);
            let filter = filter.with_principal_filter(None).with_host_filter(None);
            DeleteAclsRequest::default().with_filters(vec![filter.with_operation(operation).with_permission_type(ANY)])
        };
        let mut deleted = client.call(2, &delete(&name, LITERAL, READ)).await.filter_results.remove(0);
        assert_eq!((deleted.error_code, deleted.matching_acls.len()), (0, 1));
        let deleted = deleted.matching_acls.remove(0);
        assert_eq!((deleted.error_code, deleted.resource_name.as_str(), deleted.operation), (0, name.as_str(), READ));
        wait_for_acls(&mut client, &filter(&name, MATCH), [&two, &three]).await;
        let none = client.call(2, &delete(&name, LITERAL, READ)).await.filter_results.remove(0);
        assert_eq!((none.error_code, none.matching_acls.len()), (0, 0));
        let rest = client.call(2, &delete(&name, MATCH, ANY)).await.filter_results.remove(0);
        assert_eq!(rest.matching_acls.len(), 2);
        clean_up(target).await;
    }
}

#[tokio::test]
async fn log_sizes_are_described() {
    for target in targets().await {
        let (mut client, topic) = (target.client().await, target.name("t"));
        client.create_topic(&topic, 2).await;
        let batch = BatchBuilder::new(&[1, 2]).make();
        client.produce(&topic, 1, batch.clone()).await;
        let sizes = |response: &DescribeLogDirsResponse| {
            assert!(response.results.iter().all(|d| d.error_code == 0 && !d.log_dir.is_empty()));
            let topics = response.results.iter().flat_map(|d| &d.topics).filter(|t| t.name == topic_name(&topic));
            let partitions = topics.flat_map(|t| &t.partitions);
            partitions
                .map(|p| (p.partition_index, p.partition_size, p.offset_lag, p.is_future_key))
                .collect::<BTreeSet<_>>()
        };
        let both = BTreeSet::from([(0, 0, 0, false), (1, batch.len() as i64, 0, false)]);
        for version in 1..=4 {
            let all = client.call(version, &DescribeLogDirsRequest::default().with_topics(None)).await;
            assert_eq!(sizes(&all), both, "version {version}");
        }
        let requested = DescribableLogDirTopic::default().with_topic(topic_name(&topic)).with_partitions(vec![1, 7]);
        let some = client.call(4, &DescribeLogDirsRequest::default().with_topics(Some(vec![requested]))).await;
        assert_eq!(sizes(&some), [(1, batch.len() as i64, 0, false)].into());
        clean_up(target).await;
    }
}

fn deleting(group: &str, topic: &str, partition: i32) -> OffsetDeleteRequest {
    let partition = OffsetDeleteRequestPartition::default().with_partition_index(partition);
    let topic = OffsetDeleteRequestTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
    OffsetDeleteRequest::default().with_group_id(group_id(group)).with_topics(vec![topic])
}

#[tokio::test]
async fn offsets_are_deleted_unless_a_member_subscribes() {
    for target in targets().await {
        let (group, topic, other) = (target.name("g"), target.name("t"), target.name("other"));
        let mut a = Member::connect(&target, &group).await;
        a.client.create_topic(&topic, 1).await;
        a.client.create_topic(&other, 1).await;
        assert_eq!(a.client.call(0, &deleting(&group, &topic, 0)).await.error_code, 69, "no such group");
        assert_eq!(a.commit_as(-1, "", &topic, 5, "").await, 0);
        assert_eq!(a.commit_as(-1, "", &other, 5, "").await, 0);
        let delete = async |a: &mut Member, topic: &str, partition| {
            let response = a.client.call(0, &deleting(&group, topic, partition)).await;
            (response.error_code, response.topics.first().map(|t| t.partitions[0].error_code))
        };
        assert_eq!(delete(&mut a, &topic, 1).await, (0, Some(3)), "no such partition");
        assert_eq!(delete(&mut a, &target.name("none"), 0).await, (0, Some(3)));
        // A member subscribes to one topic, with consumer metadata of version 0.
        let mut metadata = vec![0, 0, 0, 0, 0, 1];
        metadata.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
        metadata.extend([topic.as_bytes(), &[0, 0, 0, 0]].concat());
        let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(metadata.into());
        let join = join_request(&group, "").with_protocols(vec![protocol]);
        let id = a.client.call(5, &join).await.member_id;
        let joined = a.client.call(5, &join.with_member_id(id.clone())).await;
        assert_eq!(joined.error_code, 0);
        (a.id, a.generation) = (id.to_string(), joined.generation_id);
        assert_eq!(a.sync(&[(id.as_str(), b"")]).await.error_code, 0);
        assert_eq!(delete(&mut a, &topic, 0).await, (0, Some(86)));
        assert_eq!(delete(&mut a, &other, 0).await, (0, Some(0)));
        assert_eq!(a.committed(&other).await.1, -1);
        assert_eq!(a.committed(&topic).await.1, 5);
        assert_eq!(a.leave(id.as_str(), None).await, 0);
        assert_eq!(delete(&mut a, &topic, 0).await, (0, Some(0)));
        assert_eq!(delete(&mut a, &topic, 0).await, (0, Some(0)), "deleting a missing offset is no error");
        assert_eq!(a.committed(&topic).await.1, -1);
        clean_up(target).await;
    }
}

async fn alter(client: &mut Client, resource_type: i8, name: &str, change: (&str, i8, Option<&str>)) -> i16 {
    let config = AlterableConfig::default().with_name(text(change.0)).with_config_operation(change.1);
    let config = config.with_value(change.2.map(text));
    let resource = AlterConfigsResource::default().with_resource_type(resource_type).with_resource_name(text(name));
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource.with_configs(vec![config])]);
    client.call(1, &request).await.responses[0].error_code
}

/// Returns value, source and whether it can be changed, or the error code.
async fn setting(
    client: &mut Client,
    resource_type: i8,
    name: &str,
    key: &str,
) -> Result<Option<(String, i8, bool)>, i16> {
    let resource = DescribeConfigsResource::default().with_resource_type(resource_type).with_resource_name(text(name));
    let resource = resource.with_configuration_keys(Some(vec![text(key)]));
    let mut response = client.call(4, &DescribeConfigsRequest::default().with_resources(vec![resource])).await;
    let found = response.results.remove(0);
    if found.error_code != 0 {
        return Err(found.error_code);
    }
    let one = found.configs.into_iter().next();
    Ok(one.map(|c| (c.value.map_or_else(String::new, |v| v.to_string()), c.config_source, c.read_only)))
}

/// Waits for the expected setting: brokers apply a change shortly after their response.
async fn wait_for_setting(client: &mut Client, resource_type: i8, name: &str, key: &str, expected: Option<(&str, i8)>) {
    let expected = expected.map(|(value, source)| (value.to_owned(), source, false));
    for _ in 0..10_000 {
        if setting(client, resource_type, name, key).await == Ok(expected.clone()) {
            return;
        }
    }
    assert_eq!(setting(client, resource_type, name, key).await, Ok(expected));
}

#[tokio::test]
async fn topic_settings_are_set_deleted_and_appended_to() {
    const POLICY: &str = "cleanup.policy";
    for target in targets().await {
        let (mut client, topic) = (target.client().await, target.name("t"));
        client.create_topic(&topic, 1).await;
        assert_eq!(setting(&mut client, TOPIC, &target.name("none"), POLICY).await, Err(3));
        wait_for_setting(&mut client, TOPIC, &topic, POLICY, Some(("delete", 5))).await;
        assert_eq!(alter(&mut client, TOPIC, &topic, (POLICY, 2, Some("compact"))).await, 0);
        wait_for_setting(&mut client, TOPIC, &topic, POLICY, Some(("delete,compact", 1))).await;
        assert_eq!(alter(&mut client, TOPIC, &topic, (POLICY, 3, Some("delete"))).await, 0);
        wait_for_setting(&mut client, TOPIC, &topic, POLICY, Some(("compact", 1))).await;
        assert_eq!(alter(&mut client, TOPIC, &topic, (POLICY, 1, None)).await, 0);
        wait_for_setting(&mut client, TOPIC, &topic, POLICY, Some(("delete", 5))).await;
        assert_eq!(alter(&mut client, TOPIC, &topic, ("retention.ms", 2, Some("1"))).await, 40, "it is no list");
        assert_eq!(alter(&mut client, TOPIC, &topic, ("retention.ms", 0, Some("soon"))).await, 40);
        assert_eq!(alter(&mut client, TOPIC, &topic, ("no.such.setting", 0, Some("1"))).await, 40);
        assert_eq!(alter(&mut client, TOPIC, &target.name("none"), (POLICY, 0, Some("delete"))).await, 3);
        clean_up(target).await;
    }
}

#[tokio::test]
async fn broker_settings_are_described_and_changed() {
    const RETENTION: &str = "log.retention.ms";
    for target in targets().await {
        let mut client = target.client().await;
        let all = MetadataRequest::default().with_topics(Some(vec![]));
        let node = client.call(4, &all).await.brokers[0].node_id.0;
        let (own, other) = (node.to_string(), (node + 1).to_string());
        let fixed = setting(&mut client, NODE, &own, "num.partitions").await.unwrap().unwrap();
        assert_eq!((fixed.1, fixed.2), (4, true));
        assert_eq!(setting(&mut client, NODE, &other, "num.partitions").await, Err(42));
        assert_eq!(setting(&mut client, NODE, "x", "num.partitions").await, Err(42));
        assert_eq!(alter(&mut client, NODE, &own, ("num.partitions", 0, Some("2"))).await, 42);
        assert_eq!(alter(&mut client, NODE, &other, (RETENTION, 0, Some("77"))).await, 42);
        assert_eq!(alter(&mut client, NODE, &own, (RETENTION, 0, Some("soon"))).await, 42);
        assert_eq!(alter(&mut client, NODE, "", (RETENTION, 0, Some("86400001"))).await, 0);
        wait_for_setting(&mut client, NODE, &own, RETENTION, Some(("86400001", 3))).await;
        wait_for_setting(&mut client, NODE, "", RETENTION, Some(("86400001", 3))).await;
        assert_eq!(alter(&mut client, NODE, &own, (RETENTION, 0, Some("86400002"))).await, 0);
        wait_for_setting(&mut client, NODE, &own, RETENTION, Some(("86400002", 2))).await;
        assert_eq!(alter(&mut client, NODE, &own, (RETENTION, 1, None)).await, 0);
        assert_eq!(alter(&mut client, NODE, "", (RETENTION, 1, None)).await, 0);
        wait_for_setting(&mut client, NODE, "", RETENTION, None).await;
        clean_up(target).await;
    }
}

#[tokio::test]
async fn topic_is_created_with_an_assignment_or_only_validated() {
    for target in targets().await {
        let (mut client, topic) = (target.client().await, target.name("t"));
        let all = MetadataRequest::default().with_topics(Some(vec![]));
        let node = client.call(4, &all).await.brokers[0].node_id;
        let create = |partitions: &[(i32, BrokerId)], count, check: bool| {
            let place = |&(index, node)| {
                CreatableReplicaAssignment::default().with_partition_index(index).with_broker_ids(vec![node])
            };
            let new = CreatableTopic::default().with_name(topic_name(&topic)).with_num_partitions(count);
            let new = new.with_replication_factor(-1).with_assignments(partitions.iter().map(place).collect());
            let request = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(10_000);
            request.with_validate_only(check)
        };
        let mut code = async |request: CreateTopicsRequest| client.call(5, &request).await.topics[0].error_code;
        assert_eq!(code(create(&[(0, node), (1, node)], -1, true)).await, 0);
        assert_eq!(code(create(&[(0, node), (2, node)], -1, false)).await, 39, "1 is missing");
        assert_eq!(code(create(&[(0, node)], 1, false)).await, 42, "both a number and an assignment");
        assert_eq!(code(create(&[(0, BrokerId(node.0 + 77))], -1, false)).await, 39);
        assert_eq!(code(create(&[(0, node), (1, node)], -1, false)).await, 0, "what was checked was not created");
        assert_eq!(code(create(&[(0, node)], -1, true)).await, 36);
        clean_up(target).await;
    }
}
