//! CreateTopics.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};

use super::text;
use crate::cluster::NewTopic;
use crate::error::ApiError;
use crate::request::Context;
use crate::shared::Shared;
use crate::topic_config::TopicConfig;

const SOURCE_TOPIC: i8 = 1;
const SOURCE_DEFAULT: i8 = 5;
/// Maximum metadata records of a request in Kafka's controller: one per topic and per partition.
const MAX_CONTROLLER_RECORDS: usize = 10_000;

pub(super) fn handle(shared: &Shared, cx: &Context, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut name_counts: BTreeMap<String, usize> = BTreeMap::new();
    for topic in &request.topics {
        *name_counts.entry(topic.name.to_string()).or_default() += 1;
    }
    let one = |topic: CreatableTopic| {
        let out = CreatableTopicResult::default().with_name(topic.name.clone());
        let is_duplicate = name_counts.get(topic.name.as_str()).is_some_and(|&n| n > 1);
        match create(shared, cx, &topic, is_duplicate, request.validate_only) {
            Err(error) => out
                .with_error_code(error.code())
                .with_error_message(Some(text(error.message)))
                .with_configs(Some(Vec::new())),
            Ok(created) => describe(cx, shared, out, created),
        }
    };
    CreateTopicsResponse::default().with_topics(request.topics.into_iter().map(one).collect())
}

struct Created {
    id: uuid::Uuid,
    partitions: usize,
    replication: usize,
    config: TopicConfig,
}

fn create(
    shared: &Shared,
    cx: &Context,
    topic: &CreatableTopic,
    is_duplicate: bool,
    dry_run: bool,
) -> Result<Created, ApiError> {
    cx.check_fault()?;
    if is_duplicate {
        return Err(ApiError::new(ResponseError::InvalidRequest, "Duplicate topic name."));
    }
    let mut config = TopicConfig::default();
    for setting in &topic.configs {
        config.set(&setting.name, setting.value.as_deref())?;
    }
    let mut assignment: Vec<_> = topic.assignments.iter().map(|a| (a.partition_index, &a.broker_ids)).collect();
    assignment.sort_by_key(|&(index, _)| index);
    if !assignment.iter().map(|a| a.0).eq(0..assignment.len() as i32) {
        let message = "The partitions of the assignment are not consecutive from 0.";
        return Err(ApiError::new(ResponseError::InvalidReplicaAssignment, message));
    }
    let assignment = assignment.into_iter().map(|(_, nodes)| nodes.iter().map(|n| n.0).collect()).collect();
    let new = NewTopic {
        partitions: topic.num_partitions,
        replication: topic.replication_factor,
        assignment,
        config: config.clone(),
    };
    let mut cluster = shared.cluster();
    let replicas = cluster.assign_replicas(&shared.config, &topic.name, &new)?;
    let (partitions, replication) = (replicas.len(), replicas.first().map_or(0, Vec::len));
    if partitions >= MAX_CONTROLLER_RECORDS {
        return Err(ApiError::new(
            ResponseError::PolicyViolation,
            "Unable to perform excessively large batch operation.",
        ));
    }
    let id = match dry_run {
        true => uuid::Uuid::nil(),
        false => cluster.create_topic(&shared.config, &topic.name, new)?.id,
    };
    Ok(Created { id, partitions, replication, config })
}

fn describe(cx: &Context, shared: &Shared, out: CreatableTopicResult, created: Created) -> CreatableTopicResult {
    let out = out.with_topic_id(created.id).with_error_message(None);
    if cx.version < 5 {
        return out;
    }
    let config = |c: crate::topic_config::TopicConfigEntry| {
        CreatableTopicConfigs::default()
            .with_name(text(c.name))
            .with_value(Some(text(c.value)))
            .with_config_source(if c.is_default { SOURCE_DEFAULT } else { SOURCE_TOPIC })
    };
    out.with_num_partitions(i32::try_from(created.partitions).unwrap_or(i32::MAX))
        .with_replication_factor(i16::try_from(created.replication).unwrap_or(i16::MAX))
        .with_configs(Some(created.config.describe(&shared.config).into_iter().map(config).collect()))
}
