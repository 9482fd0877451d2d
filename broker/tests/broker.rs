//! Features of the embedded broker alone: faults, moves, stopped nodes, inspection.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ailurus_broker::{Broker, BrokerConfig, BrokerError, Fault, Versions};
use ailurus_test_support::api_keys::{FETCH, JOIN_GROUP, PRODUCE};
use ailurus_test_support::raw_client::batch::BatchBuilder;
use ailurus_test_support::raw_client::*;
use bytes::Bytes;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::*;
use tokio::net::TcpStream;

async fn start(config: BrokerConfig) -> Broker {
    Broker::start(config).await.unwrap()
}

/// Starts a broker with topic `t` of one partition, and a client.
async fn one_node() -> (Broker, Client) {
    let broker = start(BrokerConfig::default()).await;
    broker.create_topic("t", 1).unwrap();
    let client = Client::connect(&broker.bootstrap()).await;
    (broker, client)
}

/// Starts three nodes; topic `t` has one partition, led by node 0, with `replicas` replicas.
async fn three_nodes(replicas: u16) -> Broker {
    let broker = start(BrokerConfig::default().nodes(3).default_replication(replicas)).await;
    broker.create_topic("t", 1).unwrap();
    broker
}

async fn connect(broker: &Broker, node: i32) -> Client {
    Client::connect(&broker.address(node).unwrap()).await
}

async fn metadata(client: &mut Client, topic: &str) -> MetadataResponse {
    let requested = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
    client.call(8, &MetadataRequest::default().with_topics(Some(vec![requested]))).await
}

fn one() -> Bytes {
    BatchBuilder::new(&[1]).make()
}

#[tokio::test]
async fn hook_sees_requests_and_injects_faults() {
    let (broker, mut client) = one_node().await;
    let seen = Arc::new(AtomicBool::new(false));
    let seen_by_hook = seen.clone();
    broker.set_hook(move |request| {
        let names_topic = request.body.windows(1).any(|w| w == b"t");
        let right = request.node == 0 && request.version == 7 && request.client_id == "tester" && names_topic;
        seen_by_hook.store(request.api_key == PRODUCE && right && request.correlation_id == 1, Ordering::SeqCst);
        None
    });
    assert_eq!(client.produce("t", 0, one()).await.error_code, 0);
    assert!(seen.load(Ordering::SeqCst));
    broker.set_hook(|_| Some(Fault::Error(6)));
    let refused = client.produce("t", 0, one()).await;
    assert_eq!((refused.error_code, refused.base_offset), (6, -1));
    broker.set_hook(|_| Some(Fault::Delay(Duration::from_millis(1))));
    assert_eq!(client.produce("t", 0, one()).await.base_offset, 1);
    broker.set_hook(|_| Some(Fault::DelayResponse(Duration::from_millis(1))));
    assert_eq!(client.produce("t", 0, one()).await.base_offset, 2);
    broker.set_hook(|_| Some(Fault::Close));
    assert!(client.try_call(7, &produce_request("t", 0, one(), -1)).await.is_none());
    assert_eq!(broker.log_range("t", 0).unwrap(), (0, 3), "not served");
    broker.set_hook(|_| Some(Fault::DropResponse));
    let mut client = Client::connect(&broker.bootstrap()).await;
    assert!(client.try_call(7, &produce_request("t", 0, one(), -1)).await.is_none());
    assert_eq!(broker.log_range("t", 0).unwrap(), (0, 4), "served");
    broker.clear_hook();
    let mut client = Client::connect(&broker.bootstrap()).await;
    assert_eq!(client.produce("t", 0, one()).await.error_code, 0);
    assert_eq!(broker.request_count(PRODUCE), 7);
    broker.shutdown().await;
}

#[tokio::test]
async fn faults_affect_single_partitions_and_records() {
    let (broker, mut client) = one_node().await;
    broker.create_topic("two", 2).unwrap();
    broker.set_hook(|_| Some(Fault::PartitionError { partition: 1, code: 6 }));
    assert_eq!(client.produce("two", 0, one()).await.error_code, 0);
    assert_eq!(client.produce("two", 1, one()).await.error_code, 6);
    assert_eq!(broker.log_range("two", 1).unwrap(), (0, 0), "not served");
    broker.set_hook(|_| Some(Fault::ErrorAfterAppend(-1)));
    let open = client.produce("two", 0, one()).await;
    assert_eq!((open.error_code, open.base_offset), (-1, -1));
    assert_eq!(broker.log_range("two", 0).unwrap(), (0, 2), "served");
    broker.set_hook(|_| Some(Fault::RecordErrors { every: 2 }));
    assert_eq!(client.produce("two", 0, one()).await.error_code, 87);
    assert_eq!(broker.log_range("two", 0).unwrap(), (0, 2), "not served");
    broker.shutdown().await;
}

#[tokio::test]
async fn each_node_leads_a_share_of_the_partitions() {
    let broker = start(BrokerConfig::default().nodes(3)).await;
    broker.create_topic("t", 3).unwrap();
    let mut client = connect(&broker, 0).await;
    let found = metadata(&mut client, "t").await;
    assert_eq!(found.brokers.len(), 3);
    let leaders: Vec<i32> = found.topics[0].partitions.iter().map(|p| p.leader_id.0).collect();
    assert_eq!(leaders, [0, 1, 2]);
    for broker in &found.brokers {
        let address = format!("{}:{}", broker.host.as_str(), broker.port);
        let mut client = Client::connect(&address).await;
        for partition in 0..3 {
            let right = partition == broker.node_id.0;
            assert_eq!(client.produce("t", partition, one()).await.error_code, if right { 0 } else { 6 });
        }
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn leader_change_ends_waiting_fetches_and_fences_epochs() {
    let broker = three_nodes(1).await;
    let (mut old, mut new) = (connect(&broker, 0).await, connect(&broker, 1).await);
    old.produce("t", 0, one()).await;
    let long_poll = fetch_request("t", 0, 1).with_max_wait_ms(60_000).with_min_bytes(1);
    old.send(11, &long_poll).await;
    while broker.request_count(FETCH) == 0 {
        tokio::task::yield_now().await;
    }
    broker.move_leader("t", 0, 1).unwrap();
    let ended = old.receive::<FetchRequest>(11).await.unwrap();
    assert_eq!(ended.responses[0].partitions[0].error_code, 6);
    let found = metadata(&mut old, "t").await;
    let partition = &found.topics[0].partitions[0];
    assert_eq!((partition.leader_id.0, partition.leader_epoch), (1, 1));
    assert_eq!(new.fetch("t", 0, 0).await.high_watermark, 1, "with its records");
    for (epoch, code) in [(0, 74), (1, 0), (2, 75)] {
        let mut request = fetch_request("t", 0, 0);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        assert_eq!(new.call(11, &request).await.responses[0].partitions[0].error_code, code, "epoch {epoch}");
    }
    assert!(matches!(broker.move_leader("t", 0, 7), Err(BrokerError::UnknownNode(7))));
    assert!(matches!(broker.move_leader("t", 9, 1), Err(BrokerError::UnknownPartition { partition: 9, .. })));
    broker.shutdown().await;
}

#[tokio::test]
async fn restarted_node_has_its_data() {
    let broker = three_nodes(1).await;
    let address = broker.address(0).unwrap();
    let (mut deleted, mut other) = (connect(&broker, 0).await, connect(&broker, 1).await);
    deleted.produce("t", 0, one()).await;
    broker.stop_node(0).await.unwrap();
    assert_eq!(deleted.receive_raw().await, None);
    assert!(TcpStream::connect(&address).await.is_err());
    let found = metadata(&mut other, "t").await;
    assert_eq!((found.brokers.len(), found.controller_id.0), (2, 1));
    let partition = &found.topics[0].partitions[0];
    assert_eq!((partition.error_code, partition.leader_id.0, partition.offline_replicas.len()), (5, -1, 1));
    assert_eq!(broker.leader("t", 0).unwrap(), None);
    broker.stop_node(0).await.unwrap();
    broker.start_node(0).await.unwrap();
    broker.start_node(0).await.unwrap();
    let mut back = Client::connect(&address).await;
    assert_eq!(back.fetch("t", 0, 0).await.high_watermark, 1);
    assert_eq!(broker.leader("t", 0).unwrap(), Some(0));
    broker.shutdown().await;
}

#[tokio::test]
async fn replica_becomes_leader_when_a_node_stops() {
    let broker = three_nodes(2).await;
    broker.stop_node(0).await.unwrap();
    assert_eq!(broker.leader("t", 0).unwrap(), Some(1));
    let mut next = connect(&broker, 1).await;
    assert_eq!(next.produce("t", 0, one()).await.error_code, 0);
    broker.start_node(0).await.unwrap();
    assert_eq!(broker.leader("t", 0).unwrap(), Some(1), "it stays there");
    broker.create_topic_with("strict", 1, &[("min.insync.replicas", "2")]).unwrap();
    broker.stop_node(1).await.unwrap();
    let mut first = connect(&broker, 0).await;
    assert_eq!(first.produce("strict", 0, one()).await.error_code, 19);
    broker.shutdown().await;
}

async fn find(client: &mut Client, group: &str) -> i32 {
    client.call(3, &FindCoordinatorRequest::default().with_key(text(group))).await.node_id.0
}

#[tokio::test]
async fn moved_coordinator_redirects_members() {
    let broker = three_nodes(1).await;
    let old = broker.coordinator("g").unwrap();
    let new = (old + 1) % 3;
    let mut client = connect(&broker, old).await;
    assert_eq!(find(&mut client, "g").await, old);
    let mut waiting = connect(&broker, old).await;
    let a = client.call(1, &join_request("g", "")).await;
    waiting.send(1, &join_request("g", "")).await;
    while broker.group_members("g").len() < 2 {
        tokio::task::yield_now().await;
    }
    broker.move_coordinator("g", new).unwrap();
    assert_eq!(waiting.receive::<JoinGroupRequest>(1).await.unwrap().error_code, 16);
    assert_eq!(find(&mut client, "g").await, new);
    let heartbeat = HeartbeatRequest::default()
        .with_group_id(group_id("g"))
        .with_member_id(a.member_id.clone())
        .with_generation_id(1);
    assert_eq!(client.call(0, &heartbeat).await.error_code, 16);
    let mut moved = connect(&broker, new).await;
    assert_eq!(moved.call(0, &heartbeat).await.error_code, 27, "the group keeps its members");
    broker.stop_node(new).await.unwrap();
    assert_ne!(broker.coordinator("g"), Some(new));
    broker.shutdown().await;
}

fn short_sessions() -> BrokerConfig {
    BrokerConfig::default().session_timeouts(Duration::from_millis(1), Duration::from_secs(300))
}

#[tokio::test]
async fn session_expires_without_any_request() {
    let broker = start(short_sessions()).await;
    let mut client = Client::connect(&broker.bootstrap()).await;
    let short_session = join_request("g", "").with_session_timeout_ms(20);
    assert_eq!(client.call(1, &short_session).await.error_code, 0);
    drop(client);
    while !broker.group_members("g").is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(broker.group_state("g"), Some(("Empty", 2)));
    broker.shutdown().await;
}

#[tokio::test]
async fn broken_connection_in_join_does_not_block_the_group() {
    let broker = start(short_sessions()).await;
    let mut client = Client::connect(&broker.bootstrap()).await;
    let mut first = client.call(1, &join_request("g", "")).await;
    let mut broken = Client::connect(&broker.bootstrap()).await;
    broken.send(1, &join_request("g", "").with_session_timeout_ms(20)).await;
    while broker.group_members("g").len() < 2 {
        tokio::task::yield_now().await;
    }
    drop(broken);
    // Rejoins as a client does, until the member without a connection has expired.
    for _ in 0..2 {
        first = client.call(1, &join_request("g", first.member_id.as_str())).await;
        assert_eq!(first.error_code, 0);
        while broker.group_members("g").len() > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(first.members.len(), 1);
    broker.shutdown().await;
}

#[tokio::test]
async fn gaps_empty_and_control_batches_can_be_created() {
    let (broker, mut client) = one_node().await;
    client.produce("t", 0, BatchBuilder::new(&[1, 2, 3]).make()).await;
    assert_eq!(broker.append_control_batch("t", 0, 7, true).unwrap(), 3);
    assert_eq!(broker.append_empty_batch("t", 0, 2).unwrap(), 4);
    assert_eq!(broker.append_raw_batch("t", 0, &one()).unwrap(), 6);
    assert!(matches!(broker.append_raw_batch("t", 0, b"no batch"), Err(BrokerError::InvalidBatch(_))));
    broker.compact("t", 0, |offset| offset != 1).unwrap();
    let records = broker.log_records("t", 0).unwrap();
    let offsets: Vec<i64> = records.iter().map(|r| r.offset).collect();
    assert_eq!(offsets, [0, 2, 6]);
    assert_eq!((records[1].key.as_deref(), records[1].value.as_deref()), (Some(&b"k2"[..]), Some(&b"v2"[..])));
    assert_eq!((records[1].timestamp, records[1].headers.len()), (3, 2));
    let fetched = client.fetch("t", 0, 0).await;
    assert_eq!(fetched.high_watermark, 7);
    let bytes_in_log: usize = broker.log_batches("t", 0).unwrap().iter().map(Bytes::len).sum();
    assert_eq!(fetched.records.unwrap().len(), bytes_in_log);
    broker.delete_records("t", 0, 2).unwrap();
    assert_eq!(broker.log_range("t", 0).unwrap(), (2, 7));
    assert!(broker.delete_records("t", 0, 9).is_err());
    broker.shutdown().await;
}

#[tokio::test]
async fn read_committed_stops_at_the_last_stable_offset() {
    let (broker, mut client) = one_node().await;
    assert_eq!(broker.append_transactional_batch("t", 0, 7, &one()).unwrap(), 0);
    let mut fetch = async |isolation| {
        let request = fetch_request("t", 0, 0).with_isolation_level(isolation).with_max_wait_ms(0);
        let data = client.call(11, &request).await.responses.remove(0).partitions.remove(0);
        let aborted = data.aborted_transactions.map(|a| a.iter().map(|a| (a.producer_id.0, a.first_offset)).collect());
        (data.high_watermark, data.last_stable_offset, data.records.unwrap().len(), aborted)
    };
    let size = one().len();
    assert_eq!(fetch(0).await, (1, 0, size, None));
    assert_eq!(fetch(1).await, (1, 0, 0, Some(vec![])), "an open transaction is not aborted");
    broker.append_control_batch("t", 0, 7, false).unwrap();
    let (clean_up, stable, bytes, aborted) = fetch(1).await;
    assert_eq!((clean_up, stable, aborted), (2, 2, Some(vec![(7, 0)])));
    assert!(bytes > size, "aborted records are returned, with a list to skip them");
    broker.truncate("t", 0, 1).unwrap();
    assert_eq!(broker.log_range("t", 0).unwrap(), (0, 1));
    broker.shutdown().await;
}

#[tokio::test]
async fn consumer_is_sent_to_the_replica_in_its_rack() {
    let broker = start(BrokerConfig::default().nodes(3).default_replication(3).racks(&["a", "b", "c"])).await;
    broker.create_topic("t", 1).unwrap();
    broker.append_raw_batch("t", 0, &one()).unwrap();
    let mut leader = connect(&broker, 0).await;
    let racks: Vec<_> =
        metadata(&mut leader, "t").await.brokers.into_iter().map(|b| b.rack.unwrap().to_string()).collect();
    assert_eq!(racks, ["a", "b", "c"]);
    for (rack, replica) in [("a", -1), ("b", 1), ("d", -1)] {
        let request = fetch_request("t", 0, 0).with_rack_id(text(rack));
        let data = leader.call(11, &request).await.responses.remove(0).partitions.remove(0);
        assert_eq!((data.preferred_read_replica.0, data.records.unwrap().is_empty()), (replica, replica >= 0));
    }
    let mut follower = connect(&broker, 1).await;
    let request = fetch_request("t", 0, 0).with_rack_id(text("b"));
    let data = follower.call(11, &request).await.responses.remove(0).partitions.remove(0);
    assert_eq!((data.error_code, data.preferred_read_replica.0, data.records.unwrap().len()), (0, -1, one().len()));
    broker.shutdown().await;
}

#[tokio::test]
async fn topics_are_auto_created_if_both_sides_allow_it() {
    let broker = start(BrokerConfig::default().default_partitions(4).auto_create_first_error(5)).await;
    let mut client = Client::connect(&broker.bootstrap()).await;
    let requested = |auto| {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name("new")));
        MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(auto)
    };
    assert_eq!(client.call(8, &requested(false)).await.topics[0].error_code, 3);
    assert_eq!(client.call(8, &requested(true)).await.topics[0].error_code, 5);
    assert_eq!(client.call(8, &requested(true)).await.topics[0].partitions.len(), 4);
    assert_eq!(broker.topics(), [("new".to_owned(), 4)]);
    broker.shutdown().await;
    let broker = start(BrokerConfig::default().auto_create(false)).await;
    let mut client = Client::connect(&broker.bootstrap()).await;
    assert_eq!(client.call(8, &requested(true)).await.topics[0].error_code, 3);
    broker.shutdown().await;
}

#[tokio::test]
async fn retention_bytes_and_max_message_bytes_apply() {
    let broker = start(BrokerConfig::default().retention_bytes(one().len() as u64 * 2)).await;
    broker.create_topic("t", 1).unwrap();
    let mut client = Client::connect(&broker.bootstrap()).await;
    for _ in 0..5 {
        client.produce("t", 0, one()).await;
    }
    assert_eq!(broker.log_range("t", 0).unwrap(), (3, 5));
    broker.create_topic_with("all", 1, &[("retention.bytes", "-1"), ("max.message.bytes", "100")]).unwrap();
    for _ in 0..5 {
        client.produce("all", 0, one()).await;
    }
    assert_eq!(broker.log_range("all", 0).unwrap(), (0, 5));
    assert_eq!(client.produce("all", 0, BatchBuilder::new(&[1, 2, 3]).make()).await.error_code, 10);
    broker.shutdown().await;
}

#[tokio::test]
async fn topic_is_deleted_recreated_and_grown_while_read() {
    let (broker, mut client) = one_node().await;
    client.produce("t", 0, one()).await;
    client.send(11, &fetch_request("t", 0, 1).with_max_wait_ms(60_000).with_min_bytes(1)).await;
    while broker.request_count(FETCH) == 0 {
        tokio::task::yield_now().await;
    }
    assert!(broker.delete_topic("t"));
    assert!(!broker.delete_topic("t"));
    let ended = client.receive::<FetchRequest>(11).await.unwrap();
    assert_eq!(ended.responses[0].partitions[0].error_code, 3);
    broker.create_topic("t", 1).unwrap();
    assert_eq!(client.fetch("t", 0, 1).await.error_code, 1, "the new one is empty");
    broker.grow_topic("t", 2).unwrap();
    assert_eq!(client.produce("t", 1, one()).await.error_code, 0);
    assert!(matches!(broker.create_topic("t", 1), Err(BrokerError::Topic { code: 36, .. })));
    assert!(matches!(broker.grow_topic("t", 1), Err(BrokerError::Topic { code: 37, .. })));
    broker.shutdown().await;
}

#[tokio::test]
async fn unsupported_apis_close_the_connection() {
    let broker = start(BrokerConfig::default().versions(Versions::redpanda_24_3().without(JOIN_GROUP))).await;
    broker.create_topic("t", 1).unwrap();
    let mut client = Client::connect(&broker.bootstrap()).await;
    let offered = client.call(3, &ApiVersionsRequest::default()).await;
    let range = |key| offered.api_keys.iter().find(|k| k.api_key == key).map(|k| (k.min_version, k.max_version));
    assert_eq!((range(FETCH), range(JOIN_GROUP)), (Some((4, 11)), None));
    assert!(client.try_call(12, &fetch_request("t", 0, 0)).await.is_none());
    let mut client = Client::connect(&broker.bootstrap()).await;
    assert!(client.try_call(5, &join_request("g", "")).await.is_none());
    broker.shutdown().await;
}

#[tokio::test]
async fn shutdown_closes_connections_and_ports() {
    let broker = three_nodes(1).await;
    let addresses: Vec<String> = broker.bootstrap().split(',').map(str::to_owned).collect();
    let mut waiting = connect(&broker, 0).await;
    waiting.send(11, &fetch_request("t", 0, 0).with_max_wait_ms(60_000).with_min_bytes(1)).await;
    while broker.request_count(FETCH) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(broker.connection_count(), 1);
    broker.shutdown().await;
    assert_eq!(waiting.receive_raw().await, None);
    for address in &addresses {
        assert!(TcpStream::connect(address).await.is_err());
    }
    // The ports are free again, and reported as in use while they are not.
    let config = BrokerConfig::default().listen(addresses[0].parse().unwrap());
    let again = start(config.clone()).await;
    let error = Broker::start(config).await.unwrap_err();
    assert!(error.to_string().contains(&addresses[0]), "{error}");
    again.shutdown().await;
}

#[tokio::test]
async fn requests_on_a_connection_are_served_in_order() {
    let (broker, mut client) = one_node().await;
    let delayed = AtomicUsize::new(0);
    // Only the first request is delayed, and yet its response comes first.
    broker.set_hook(move |_| {
        (delayed.fetch_add(1, Ordering::SeqCst) == 0).then_some(Fault::Delay(Duration::from_millis(20)))
    });
    client.send(7, &produce_request("t", 0, one(), -1)).await;
    client.send(7, &produce_request("t", 0, one(), -1)).await;
    let first = client.receive_raw().await.unwrap();
    let second = client.receive_raw().await.unwrap();
    assert_eq!((first[..4].to_vec(), second[..4].to_vec()), (vec![0, 0, 0, 1], vec![0, 0, 0, 2]));
    broker.shutdown().await;
}
