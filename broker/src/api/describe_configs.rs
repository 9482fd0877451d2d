//! DescribeConfigs: the settings of topics, and a few of the nodes.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::text;
use crate::conn::Context;
use crate::shared::Shared;

pub(super) const TOPIC: i8 = 2;
pub(super) const NODE: i8 = 4;
const SOURCE_TOPIC: i8 = 1;
const SOURCE_STATIC: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;
/// DescribeConfigs' number for a type that is not told.
const UNKNOWN: i8 = 0;

pub(super) fn handle(shared: &Shared, cx: &Context, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let one = |resource: DescribeConfigsResource| {
        let out = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let wanted = |c: &DescribeConfigsResourceResult| {
            resource.configuration_keys.as_ref().is_none_or(|keys| keys.contains(&c.name))
        };
        match describe(shared, cx, &resource) {
            Ok(configs) => out.with_error_message(None).with_configs(configs.into_iter().filter(wanted).collect()),
            Err(error) => out.with_error_code(error.code()).with_error_message(Some(text(error.to_string()))),
        }
    };
    DescribeConfigsResponse::default().with_results(request.resources.into_iter().map(one).collect())
}

fn describe(
    shared: &Shared,
    cx: &Context,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribeConfigsResourceResult>, ResponseError> {
    cx.gate()?;
    let cluster = shared.cluster();
    match resource.resource_type {
        TOPIC => {
            let topic = cluster.topics.get(resource.resource_name.as_str());
            let topic = topic.ok_or(ResponseError::UnknownTopicOrPartition)?;
            let one = |c: crate::topic_config::Described| {
                let source = if c.is_default { SOURCE_DEFAULT } else { SOURCE_TOPIC };
                entry(cx, c.name, c.value, source, c.kind as i8)
            };
            Ok(topic.config.describe(&shared.config).into_iter().map(one).collect())
        }
        NODE if cluster.nodes.iter().any(|n| n.id.to_string() == resource.resource_name.as_str()) => {
            let c = &shared.config;
            let all = [
                ("auto.create.topics.enable", c.auto_create.to_string()),
                ("default.replication.factor", c.default_replication.to_string()),
                ("group.initial.rebalance.delay.ms", c.initial_rebalance_delay.as_millis().to_string()),
                ("group.max.session.timeout.ms", c.session_timeout_max.as_millis().to_string()),
                ("group.min.session.timeout.ms", c.session_timeout_min.as_millis().to_string()),
                ("message.max.bytes", c.max_message_bytes.to_string()),
                ("num.partitions", c.default_partitions.to_string()),
            ];
            Ok(all.into_iter().map(|(name, value)| entry(cx, name, value, SOURCE_STATIC, UNKNOWN)).collect())
        }
        _ => Err(ResponseError::InvalidRequest),
    }
}

fn entry(cx: &Context, name: &str, value: String, source: i8, kind: i8) -> DescribeConfigsResourceResult {
    let out = DescribeConfigsResourceResult::default()
        .with_name(text(name))
        .with_value(Some(text(value)))
        .with_read_only(source == SOURCE_STATIC)
        .with_config_source(source);
    if cx.version >= 3 { out.with_config_type(kind).with_documentation(None) } else { out }
}
