//! The embedded broker behaves like a real one.
//!
//! With `BROKER_CONFORMANCE=host:port` the same tests also run against a real one-node Kafka on
//! loopback, which proves the expectations. They use topics and groups of their own, and delete
//! them at the end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod administration;
mod consumer_protocol;
mod groups;
mod transactional_offsets;
mod transactions;

use std::collections::BTreeSet;

use ailurus_broker::{Broker, BrokerConfig, Versions};
use ailurus_test_support::raw_client::batch::{BatchBuilder, write_checksum};
use ailurus_test_support::raw_client::*;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::fetch_request::ForgottenTopic;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use uuid::Uuid;

/// A broker under test, with a prefix for the names of this test.
struct Target {
    address: String,
    prefix: String,
    broker: Option<Broker>,
}

impl Target {
    async fn client(&self) -> Client {
        Client::connect(&self.address).await
    }

    fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }
}

async fn targets() -> Vec<Target> {
    let broker = Broker::start(BrokerConfig::default().versions(Versions::kafka())).await.unwrap();
    let prefix = format!("conformance-{}", Uuid::now_v7());
    let embedded = Target { address: broker.bootstrap(), prefix: prefix.clone(), broker: Some(broker) };
    let real = std::env::var("BROKER_CONFORMANCE").ok();
    let real = real.map(|address| {
        let local = ["127.", "localhost:", "[::1]:"].iter().any(|l| address.starts_with(l));
        assert!(local, "BROKER_CONFORMANCE={address} is not on loopback");
        Target { address, prefix, broker: None }
    });
    [embedded].into_iter().chain(real).collect()
}

async fn clean_up(target: Target) {
    if let Some(broker) = target.broker {
        return broker.shutdown().await;
    }
    let mut client = target.client().await;
    let all = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false);
    let names = client.call(4, &all).await.topics.into_iter().filter_map(|t| t.name);
    let own = names.filter(|n| n.starts_with(&target.prefix)).collect();
    client.call(3, &DeleteTopicsRequest::default().with_topic_names(own).with_timeout_ms(10_000)).await;
    let groups = client.call(0, &ListGroupsRequest::default()).await.groups.into_iter().map(|g| g.group_id);
    let own = groups.filter(|g| g.starts_with(&target.prefix)).collect();
    client.call(0, &DeleteGroupsRequest::default().with_groups_names(own)).await;
}

async fn list_offset(client: &mut Client, topic: &str, timestamp: i64) -> (i16, i64, i64) {
    let requested = ListOffsetsPartition::default().with_timestamp(timestamp).with_current_leader_epoch(-1);
    let topic = ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![requested]);
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let found = client.call(7, &request).await.topics.remove(0).partitions.remove(0);
    (found.error_code, found.offset, found.timestamp)
}

#[tokio::test]
async fn fetch_returns_produced_batches() {
    for target in targets().await {
        let (mut client, topic) = (target.client().await, target.name("t"));
        assert_eq!(client.create_topic(&topic, 1).await, 0);
        let (plain, packed) = (BatchBuilder::new(&[1, 2]).make(), BatchBuilder::new(&[3, 4, 5]).gzip().make());
        let first = client.produce(&topic, 0, plain.clone()).await;
        let second = client.produce(&topic, 0, packed.clone()).await;
        assert_eq!((first.error_code, first.base_offset, first.log_append_time_ms), (0, 0, -1));
        assert_eq!((second.error_code, second.base_offset, second.log_start_offset), (0, 2, 0));
        let fetched = client.fetch(&topic, 0, 0).await;
        assert_eq!((fetched.error_code, fetched.high_watermark, fetched.last_stable_offset), (0, 5, 5));
        let records = fetched.records.unwrap();
        assert_eq!(records.len(), plain.len() + packed.len());
        // Only base offset and leader epoch were written.
        assert_eq!(records[16..plain.len()], plain[16..]);
        assert_eq!(records[plain.len() + 16..], packed[16..]);
        let rest = client.fetch(&topic, 0, 3).await.records.unwrap();
        assert_eq!(rest.len(), packed.len());
        assert_eq!(client.fetch(&topic, 0, 5).await.records.unwrap_or_default(), Bytes::new());
        clean_up(target).await;
    }
}

#[tokio::test]
async fn invalid_produce_and_fetch_get_the_right_error() {
    for target in targets().await {
        let (mut client, topic) = (target.client().await, target.name("t"));
        client.create_topic(&topic, 1).await;
        let good = BatchBuilder::new(&[1, 2]).make();
        assert_eq!(client.produce(&target.name("none"), 0, good.clone()).await.error_code, 3);
        assert_eq!(client.produce(&topic, 1, good.clone()).await.error_code, 3);
        assert_eq!(client.fetch(&target.name("none"), 0, 0).await.error_code, 3);
        assert_eq!(client.fetch(&topic, 1, 0).await.error_code, 3);
        assert_eq!(client.fetch(&topic, 0, 1).await.error_code, 1);
        let mut flipped = BytesMut::from(&good[..]);
        flipped[70] ^= 1;
        assert_eq!(client.produce(&topic, 0, flipped.freeze()).await.error_code, 2);
        let mut miscounted = BytesMut::from(&good[..]);
        miscounted[60] = 3;
        write_checksum(&mut miscounted);
        assert_eq!(client.produce(&topic, 0, miscounted.freeze()).await.error_code, 87);
        let twice = Bytes::from([&good[..], &good[..]].concat());
        assert_eq!(client.produce(&topic, 0, twice).await.error_code, 87);
        assert_eq!(client.produce(&topic, 0, BatchBuilder::new(&[1]).control().make()).await.error_code, 87);
        let mut large = BatchBuilder::new(&[1]).records();
        large[0].value = Some(vec![7; 2 << 20].into());
        assert_eq!(client.produce(&topic, 0, batch::encode(&large, false)).await.error_code, 10);
        let acks = produce_request(&topic, 0, good.clone(), 5);
        let response = client.call(7, &acks).await;
        assert_eq!(response.responses[0].partition_responses[0].error_code, 21);
        assert_eq!(client.produce(&topic, 0, good).await.base_offset, 0, "nothing was appended before");
        clean_up(target).await;
    }
}

#[tokio::test]
async fn acks_0_gets_no_response_and_errors_close_the_connection() {
    for target in targets().await {
        let (mut client, topic) = (target.client().await, target.name("t"));
        client.create_topic(&topic, 1).await;
        client.send(7, &produce_request(&topic, 0, BatchBuilder::new(&[1]).make(), 0)).await;
        let response = client.produce(&topic, 0, BatchBuilder::new(&[2]).make()).await;
        assert_eq!(response.base_offset, 1, "the first response belongs to the second request");
        client.send(7, &produce_request(&target.name("none"), 0, BatchBuilder::new(&[1]).make(), 0)).await;
        assert_eq!(client.receive_raw().await, None);
        clean_up(target).await;
    }
}

#[tokio::test]
async fn producer_sequences_are_checked() {
    for target in targets().await {
        let (mut client, topic) = (target.client().await, target.name("t"));
        client.create_topic(&topic, 1).await;
        let empty_transactional_id = InitProducerIdRequest::default().with_transactional_id(Some(text("").into()));
        assert_eq!(client.call(4, &empty_transactional_id).await.error_code, 42);
        let without_id = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let (mut ids, mut tries) = (Vec::new(), 0);
        while ids.len() < 2 && tries < 10_000 {
            let response = client.call(4, &without_id).await;
            tries += 1;
            // 14 and 15: a broker that has just started is still loading.
            match response.error_code {
                0 => ids.push(response.producer_id.0),
                code => assert!([14, 15].contains(&code), "error {code}"),
            }
        }
        assert_ne!(ids[0], ids[1]);
        let half = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_producer_id(ProducerId(5))
            .with_producer_epoch(-1);
        assert_eq!(client.call(4, &half).await.error_code, 42);
        let id = ids[0];
        let mut produce = async |epoch, sequence| {
            let response = client.produce(&topic, 0, BatchBuilder::new(&[1, 2]).by(id, epoch, sequence).make()).await;
            (response.error_code, response.base_offset)
        };
        assert_eq!(produce(1, 0).await, (0, 0));
        assert_eq!(produce(1, 2).await, (0, 2));
        assert_eq!(produce(1, 0).await, (0, 0), "a repetition");
        assert_eq!(produce(1, 2).await, (0, 2), "a repetition");
        assert_eq!(produce(1, 6).await.0, 45, "a gap");
        assert_eq!(produce(0, 4).await.0, 47, "an old epoch");
        assert_eq!(produce(2, 4).await.0, 45, "a new epoch does not begin at 0");
        assert_eq!(produce(2, 0).await, (0, 4));
        let unknown = BatchBuilder::new(&[1]).by(ids[1], 0, 77).make();
        assert_eq!(client.produce(&topic, 0, unknown).await.error_code, 0, "an unknown producer begins anywhere");
        clean_up(target).await;
    }
}

#[tokio::test]
async fn offsets_are_found_by_timestamp_inside_batches() {
    for target in targets().await {
        let (mut client, topic) = (target.client().await, target.name("t"));
        client.create_topic(&topic, 1).await;
        assert_eq!(list_offset(&mut client, &topic, -1).await, (0, 0, -1));
        assert_eq!(list_offset(&mut client, &topic, 5).await, (0, -1, -1));
        assert_eq!(list_offset(&mut client, &topic, -3).await, (0, -1, -1));
        let t = 1_700_000_000_000;
        client.produce(&topic, 0, BatchBuilder::new(&[t, t + 20, t + 10]).make()).await;
        client.produce(&topic, 0, BatchBuilder::new(&[t + 30, t + 40]).gzip().make()).await;
        for (timestamp, found) in [
            (-1, (0, 5, -1)),
            (-2, (0, 0, -1)),
            (-3, (0, 4, t + 40)),
            (t, (0, 0, t)),
            (t + 1, (0, 1, t + 20)),
            (t + 21, (0, 3, t + 30)),
            (t + 31, (0, 4, t + 40)),
            (t + 41, (0, -1, -1)),
        ] {
            assert_eq!(list_offset(&mut client, &topic, timestamp).await, found, "time {timestamp}");
        }
        assert_eq!(list_offset(&mut client, &target.name("none"), -1).await.0, 3);
        clean_up(target).await;
    }
}

#[tokio::test]
async fn deleted_records_are_out_of_range() {
    for target in targets().await {
        let (mut client, topic) = (target.client().await, target.name("t"));
        client.create_topic(&topic, 1).await;
        client.produce(&topic, 0, BatchBuilder::new(&[1, 2, 3]).make()).await;
        let mut delete = async |offset| {
            let requested = DeleteRecordsPartition::default().with_offset(offset);
            let of = DeleteRecordsTopic::default().with_name(topic_name(&topic)).with_partitions(vec![requested]);
            let request = DeleteRecordsRequest::default().with_topics(vec![of]).with_timeout_ms(10_000);
            let deleted = client.call(1, &request).await.topics.remove(0).partitions.remove(0);
            (deleted.error_code, deleted.low_watermark)
        };
        assert_eq!(delete(2).await, (0, 2));
        assert_eq!(delete(1).await, (0, 2));
        assert_eq!(delete(4).await, (1, -1));
        assert_eq!(client.fetch(&topic, 0, 1).await.error_code, 1);
        assert_eq!(client.fetch(&topic, 0, 2).await.log_start_offset, 2);
        assert_eq!(list_offset(&mut client, &topic, -2).await, (0, 2, -1));
        clean_up(target).await;
    }
}

#[tokio::test]
async fn topics_are_created_grown_and_deleted() {
    for target in targets().await {
        let (mut client, topic) = (target.client().await, target.name("t"));
        let mut create = async |name: &str, partitions, replicas, config: Option<&str>| {
            let config = config.map(|c| CreatableTopicConfig::default().with_name(text(c)).with_value(Some(text("1"))));
            let of = CreatableTopic::default()
                .with_name(topic_name(name))
                .with_num_partitions(partitions)
                .with_replication_factor(replicas)
                .with_configs(config.into_iter().collect());
            let request = CreateTopicsRequest::default().with_topics(vec![of]).with_timeout_ms(10_000);
            let made = client.call(5, &request).await.topics.remove(0);
            (made.error_code, made.num_partitions)
        };
        assert_eq!(create(&topic, 2, 1, Some("retention.ms")).await, (0, 2));
        assert_eq!(create(&topic, 2, 1, None).await.0, 36);
        assert_eq!(create("no/good", 1, 1, None).await.0, 17);
        assert_eq!(create("..", 1, 1, None).await.0, 17);
        assert_eq!(create(&target.name("u"), 0, 1, None).await.0, 37);
        assert_eq!(create(&target.name("u"), 1, 0, None).await.0, 38);
        assert_eq!(create(&target.name("u"), 1, 100, None).await.0, 38);
        assert_eq!(create(&target.name("u"), 1, 1, Some("no.such.setting")).await.0, 40);
        let mut grow = async |name: &str, count| {
            let of =
                CreatePartitionsTopic::default().with_name(topic_name(name)).with_count(count).with_assignments(None);
            let request = CreatePartitionsRequest::default().with_topics(vec![of]).with_timeout_ms(10_000);
            client.call(1, &request).await.results[0].error_code
        };
        assert_eq!(grow(&topic, 3).await, 0);
        assert_eq!(grow(&topic, 3).await, 37);
        assert_eq!(grow(&topic, 1).await, 37);
        assert_eq!(grow(&target.name("none"), 3).await, 3);
        let delete = |name: &str| {
            DeleteTopicsRequest::default().with_topic_names(vec![topic_name(name)]).with_timeout_ms(10_000)
        };
        assert_eq!(client.call(5, &delete(&topic)).await.responses[0].error_code, 0);
        assert_eq!(client.call(5, &delete(&topic)).await.responses[0].error_code, 3);
        clean_up(target).await;
    }
}

#[tokio::test]
async fn metadata_is_returned_per_topic() {
    for target in targets().await {
        let (mut client, topic) = (target.client().await, target.name("t"));
        client.create_topic(&topic, 3).await;
        let mut metadata = async |version, names: Option<Vec<&str>>| {
            let named = |n: &str| MetadataRequestTopic::default().with_name(Some(topic_name(n)));
            let names = names.map(|names| names.into_iter().map(named).collect());
            client
                .call(version, &MetadataRequest::default().with_topics(names).with_allow_auto_topic_creation(false))
                .await
        };
        let none = target.name("none");
        let found = metadata(8, Some(vec![&topic, &none, "no/good"])).await;
        let codes: Vec<i16> = found.topics.iter().map(|t| t.error_code).collect();
        assert_eq!(codes, [0, 3, 17]);
        assert_eq!(found.topics[0].partitions.len(), 3);
        let broker = &found.brokers[0];
        assert_eq!(format!("{}:{}", broker.host.as_str(), broker.port), target.address);
        assert_eq!(found.topics[0].partitions[0].leader_id, broker.node_id);
        assert_eq!(metadata(8, Some(vec![])).await.topics.len(), 0);
        let all = metadata(8, None).await;
        assert!(all.topics.iter().any(|t| t.name == Some(topic_name(&topic))));
        let id = metadata(12, Some(vec![&topic])).await.topics[0].topic_id;
        let by_id = |id| {
            MetadataRequest::default()
                .with_topics(Some(vec![MetadataRequestTopic::default().with_name(None).with_topic_id(id)]))
        };
        assert_eq!(client.call(12, &by_id(id)).await.topics[0].name, Some(topic_name(&topic)));
        assert_eq!(client.call(12, &by_id(Uuid::now_v7())).await.topics[0].error_code, 100);
        clean_up(target).await;
    }
}

#[tokio::test]
async fn unknown_api_versions_version_gets_a_version_0_response() {
    for target in targets().await {
        let mut client = target.client().await;
        // Key 18, version 99, correlation id 7, client id null, no tagged fields.
        client.send_raw(&[0, 0, 0, 11, 0, 18, 0, 99, 0, 0, 0, 7, 0xff, 0xff, 0]).await;
        let response = client.receive_raw().await.unwrap();
        assert_eq!(response[..6], [0, 0, 0, 7, 0, 35]);
        let response = client.call(3, &api_versions()).await;
        assert!(response.error_code == 0 && response.api_keys.iter().any(|k| k.api_key == 18));
        clean_up(target).await;
    }
}

fn api_versions() -> ApiVersionsRequest {
    ApiVersionsRequest::default().with_client_software_name(text("test")).with_client_software_version(text("1"))
}

#[tokio::test]
async fn fetch_waits_for_min_bytes_and_respects_max_bytes() {
    for target in targets().await {
        let (mut client, mut other, topic) = (target.client().await, target.client().await, target.name("t"));
        client.create_topic(&topic, 1).await;
        let long_poll = fetch_request(&topic, 0, 0).with_max_wait_ms(60_000).with_min_bytes(1);
        client.send(11, &long_poll).await;
        let batch = BatchBuilder::new(&[1, 2]).make();
        other.produce(&topic, 0, batch.clone()).await;
        let fetched = client.receive::<FetchRequest>(11).await.unwrap();
        assert_eq!(fetched.responses[0].partitions[0].records.as_ref().unwrap().len(), batch.len());
        other.produce(&topic, 0, batch.clone()).await;
        let narrow = fetch_request(&topic, 0, 0).with_max_bytes(1);
        let fetched = client.call(11, &narrow).await;
        let fetched = fetched.responses[0].partitions[0].records.as_ref().unwrap();
        assert_eq!(fetched.len(), batch.len(), "at least one batch, whatever the limits");
        let more = fetch_request(&topic, 0, 0).with_max_wait_ms(60_000).with_min_bytes(3 * batch.len() as i32);
        client.send(11, &more).await;
        other.produce(&topic, 0, batch.clone()).await;
        let fetched = client.receive::<FetchRequest>(11).await.unwrap();
        assert_eq!(fetched.responses[0].partitions[0].records.as_ref().unwrap().len(), 3 * batch.len());
        clean_up(target).await;
    }
}

/// Returns partition and record bytes of the partitions in a response.
fn reported(response: &FetchResponse) -> Vec<(i32, usize)> {
    let partitions = response.responses.iter().flat_map(|t| &t.partitions);
    partitions.map(|p| (p.partition_index, p.records.as_ref().map_or(0, Bytes::len))).collect()
}

#[tokio::test]
async fn fetch_session_returns_only_changes() {
    for target in targets().await {
        let (mut client, topic) = (target.client().await, target.name("t"));
        client.create_topic(&topic, 3).await;
        let batch = BatchBuilder::new(&[1, 2]).make();
        client.produce(&topic, 1, batch.clone()).await;
        let part = |p, offset| fetch_request(&topic, p, offset).topics.remove(0).partitions.remove(0);
        let request = |id, epoch, partitions: Vec<_>| {
            let mut request = fetch_request(&topic, 0, 0).with_session_id(id).with_session_epoch(epoch);
            request.topics[0].partitions = partitions;
            if request.topics[0].partitions.is_empty() {
                request.topics.clear();
            }
            request.with_max_wait_ms(0)
        };
        let full = client.call(11, &request(0, 0, vec![part(0, 0), part(1, 0), part(2, 0)])).await;
        assert_ne!((full.error_code, full.session_id), (0, 0));
        assert_eq!(reported(&full).into_iter().collect::<BTreeSet<_>>(), [(0, 0), (1, batch.len()), (2, 0)].into());
        let id = full.session_id;
        let quiet = client.call(11, &request(id, 1, vec![part(1, 2)])).await;
        assert_eq!((quiet.error_code, quiet.session_id, reported(&quiet)), (0, id, vec![]));
        client.produce(&topic, 0, batch.clone()).await;
        let changed = client.call(11, &request(id, 2, vec![])).await;
        assert_eq!(reported(&changed), [(0, batch.len())]);
        // A forgotten partition is not returned any more.
        let forgotten = ForgottenTopic::default().with_topic(topic_name(&topic)).with_partitions(vec![0]);
        let request_3 = request(id, 3, vec![]).with_forgotten_topics_data(vec![forgotten]);
        assert_eq!(reported(&client.call(11, &request_3).await), []);
        assert_eq!(client.call(11, &request(id, 3, vec![])).await.error_code, 71, "an epoch comes once");
        assert_eq!(client.call(11, &request(id + 1, 1, vec![])).await.error_code, 70);
        let closed = client.call(11, &request(id, -1, vec![part(0, 0)])).await;
        assert_eq!((closed.session_id, reported(&closed)), (0, vec![(0, batch.len())]));
        assert_eq!(client.call(11, &request(id, 4, vec![])).await.error_code, 70, "a full fetch has closed it");
        clean_up(target).await;
    }
}

#[tokio::test]
async fn leader_epoch_end_offset_is_returned() {
    for target in targets().await {
        let (mut client, topic) = (target.client().await, target.name("t"));
        client.create_topic(&topic, 1).await;
        client.produce(&topic, 0, BatchBuilder::new(&[1, 2]).make()).await;
        for (current, requested, expected) in
            [(-1, 0, (0, 0, 2)), (0, 0, (0, 0, 2)), (-1, 1, (0, -1, -1)), (9, 0, (75, -1, -1))]
        {
            let partition = OffsetForLeaderPartition::default().with_current_leader_epoch(current);
            let partitions = vec![partition.with_leader_epoch(requested)];
            let requested_topic =
                OffsetForLeaderTopic::default().with_topic(topic_name(&topic)).with_partitions(partitions);
            let request =
                OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![requested_topic]);
            for version in 2..=4 {
                let reported = client.call(version, &request).await.topics.remove(0).partitions.remove(0);
                assert_eq!((reported.error_code, reported.leader_epoch, reported.end_offset), expected);
            }
        }
        clean_up(target).await;
    }
}
