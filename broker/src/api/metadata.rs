//! Metadata: nodes, topics and leaders. May create topics.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};

use super::{code, text};
use crate::cluster::{self, Cluster, NewTopic, Partition};
use crate::request::Context;
use crate::shared::Shared;

pub(super) fn handle(shared: &Shared, cx: &Context, request: MetadataRequest) -> MetadataResponse {
    let mut cluster = shared.cluster();
    let may_create = shared.config.auto_create && (request.allow_auto_topic_creation || cx.version < 4);
    let topics = match request.topics {
        // Version 0 has no null array: there an empty one requests all topics.
        Some(topics) if cx.version > 0 || !topics.is_empty() => {
            topics.into_iter().map(|t| requested_topic(shared, cx, &mut cluster, &t, may_create)).collect()
        }
        _ => cluster.topics.keys().map(|name| topic_metadata(cx, &cluster, name)).collect(),
    };
    let host = text(shared.config.host());
    let broker = |n: &cluster::Node| {
        let rack = n.rack.as_ref().filter(|_| cx.version >= 1).map(text);
        let out = MetadataResponseBroker::default().with_node_id(BrokerId(n.id)).with_host(host.clone());
        out.with_port(n.advertised_port.into()).with_rack(rack)
    };
    MetadataResponse::default()
        .with_brokers(cluster.nodes_up().map(broker).collect())
        .with_cluster_id(Some(text(shared.cluster_id())))
        .with_controller_id(BrokerId(cluster.controller()))
        .with_topics(topics)
}

fn requested_topic(
    shared: &Shared,
    cx: &Context,
    cluster: &mut Cluster,
    topic: &MetadataRequestTopic,
    may_create: bool,
) -> MetadataResponseTopic {
    let with_error = |error: ResponseError| {
        MetadataResponseTopic::default()
            .with_error_code(error.code())
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id)
    };
    let name = match &topic.name {
        Some(name) => name.to_string(),
        None => match cluster.topic_name(topic.topic_id) {
            Some(name) => name.to_owned(),
            None => return with_error(ResponseError::UnknownTopicId),
        },
    };
    if let Err(error) = cx.check_fault() {
        return with_error(error);
    }
    if cluster.topics.contains_key(&name) {
        return topic_metadata(cx, cluster, &name);
    }
    if let Err(error) = cluster::check_name(&name) {
        return with_error(error.error);
    }
    if !may_create {
        return with_error(ResponseError::UnknownTopicOrPartition);
    }
    let new = NewTopic { partitions: -1, replication: -1, ..NewTopic::default() };
    if let Err(error) = cluster.create_topic(&shared.config, &name, new) {
        return with_error(error.error);
    }
    match shared.config.auto_create_first_error.and_then(ResponseError::try_from_code) {
        Some(error) => with_error(error),
        None => topic_metadata(cx, cluster, &name),
    }
}

fn topic_metadata(cx: &Context, cluster: &Cluster, name: &str) -> MetadataResponseTopic {
    let out = MetadataResponseTopic::default()
        .with_error_code(code(&cx.check_fault()))
        .with_name(Some(TopicName(text(name))));
    match cluster.topics.get(name) {
        None => out.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
        Some(topic) => out
            .with_topic_id(topic.id)
            .with_partitions((0..).zip(&topic.partitions).map(|(i, p)| partition(cx, cluster, i, p)).collect()),
    }
}

fn partition(cx: &Context, cluster: &Cluster, index: i32, p: &Partition) -> MetadataResponsePartition {
    let error_code = if p.leader < 0 { ResponseError::LeaderNotAvailable.code() } else { 0 };
    let (up, down): (Vec<_>, Vec<_>) = p.replicas.iter().map(|&n| BrokerId(n)).partition(|n| cluster.is_up(n.0));
    MetadataResponsePartition::default()
        .with_error_code(error_code)
        .with_partition_index(index)
        .with_leader_id(BrokerId(p.leader))
        .with_leader_epoch(if cx.version >= 7 { p.leader_epoch } else { -1 })
        .with_replica_nodes(p.replicas.iter().map(|&n| BrokerId(n)).collect())
        .with_isr_nodes(up)
        .with_offline_replicas(down)
}
