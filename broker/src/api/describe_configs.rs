//! DescribeConfigs: settings of topics and nodes.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::text;
use crate::cluster::Cluster;
use crate::node_config::{ConfigSource, NodeConfigEntry};
use crate::request::Context;
use crate::shared::Shared;

pub(super) const TOPIC: i8 = 2;
pub(super) const NODE: i8 = 4;
const SOURCE_TOPIC: i8 = 1;
const SOURCE_DEFAULT: i8 = 5;
/// Type code of a setting without a known type.
const UNKNOWN_TYPE: i8 = 0;

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
    cx.check_fault()?;
    let cluster = shared.cluster();
    match resource.resource_type {
        TOPIC => {
            let topic = cluster.topics.get(resource.resource_name.as_str());
            let topic = topic.ok_or(ResponseError::UnknownTopicOrPartition)?;
            let one = |c: crate::topic_config::TopicConfigEntry| {
                let source = if c.is_default { SOURCE_DEFAULT } else { SOURCE_TOPIC };
                entry(cx, c.name, c.value, source, c.config_type as i8)
            };
            Ok(topic.config.describe(&shared.config).into_iter().map(one).collect())
        }
        NODE => {
            let node = node(cx, &cluster, &resource.resource_name).ok_or(ResponseError::InvalidRequest)?;
            let one = |c: NodeConfigEntry| entry(cx, c.name, c.value, c.source as i8, UNKNOWN_TYPE);
            Ok(cluster.node_config.describe(node, &shared.config).into_iter().map(one).collect())
        }
        _ => Err(ResponseError::InvalidRequest),
    }
}

/// Returns the node of a resource name, `None` for all nodes. A node describes only itself.
pub(super) fn node(cx: &Context, cluster: &Cluster, name: &str) -> Option<Option<i32>> {
    if name.is_empty() {
        return Some(None);
    }
    let own = cluster.nodes.iter().find(|n| n.id == cx.node && n.id.to_string() == name);
    own.map(|n| Some(n.id))
}

fn entry(cx: &Context, name: &str, value: String, source: i8, config_type: i8) -> DescribeConfigsResourceResult {
    let out = DescribeConfigsResourceResult::default()
        .with_name(text(name))
        .with_value(Some(text(value)))
        .with_read_only(source == ConfigSource::StaticBroker as i8)
        .with_config_source(source);
    if cx.version >= 3 { out.with_config_type(config_type).with_documentation(None) } else { out }
}
