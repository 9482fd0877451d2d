//! IncrementalAlterConfigs: changes single settings of topics and nodes.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::describe_configs::{NODE, TOPIC, node};
use super::text;
use crate::error::ApiError;
use crate::request::Context;
use crate::shared::Shared;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(super) fn handle(
    shared: &Shared,
    cx: &Context,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let one = |resource: AlterConfigsResource| {
        let altered = alter(shared, cx, &resource, request.validate_only);
        let out = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name);
        match altered {
            Ok(()) => out.with_error_message(None),
            Err(error) => out.with_error_code(error.code()).with_error_message(Some(text(error.message))),
        }
    };
    IncrementalAlterConfigsResponse::default().with_responses(request.resources.into_iter().map(one).collect())
}

/// Applies all changes of a resource or none.
fn alter(shared: &Shared, cx: &Context, resource: &AlterConfigsResource, dry_run: bool) -> Result<(), ApiError> {
    cx.check_fault()?;
    let mut cluster = shared.cluster();
    match resource.resource_type {
        TOPIC => {
            let missing = || ApiError::new(ResponseError::UnknownTopicOrPartition, "The topic does not exist.");
            let topic = cluster.topics.get_mut(resource.resource_name.as_str()).ok_or_else(missing)?;
            let mut config = topic.config.clone();
            for change in &resource.configs {
                let value = new_value(change, config.list_value(&change.name, &shared.config))?;
                config.set(&change.name, value.as_deref())?;
            }
            if !dry_run {
                topic.config = config;
            }
            Ok(())
        }
        NODE => {
            let unknown = || ApiError::new(ResponseError::InvalidRequest, "Unexpected broker id.");
            let node = node(cx, &cluster, &resource.resource_name).ok_or_else(unknown)?;
            let changes = resource.configs.iter().map(|c| Ok((c.name.to_string(), new_value(c, None)?)));
            let changes = changes.collect::<Result<Vec<_>, ApiError>>()?;
            cluster.node_config.alter(node, &changes, &shared.config, dry_run)
        }
        _ => Err(ApiError::new(ResponseError::InvalidRequest, "Only settings of topics and brokers can be changed.")),
    }
}

/// Returns the new value of a setting, `None` for its default; `list` has its current items.
fn new_value(change: &AlterableConfig, list: Option<Vec<String>>) -> Result<Option<String>, ApiError> {
    let value = change.value.as_deref();
    let items = || value.unwrap_or_default().split(',').filter(|i| !i.is_empty()).map(str::to_owned);
    match (change.config_operation, list) {
        (SET, _) => Ok(value.map(str::to_owned)),
        (DELETE, _) => Ok(None),
        (APPEND, Some(mut list)) => {
            let new: Vec<_> = items().filter(|i| !list.contains(i)).collect();
            list.extend(new);
            Ok(Some(list.join(",")))
        }
        (SUBTRACT, Some(mut list)) => {
            list.retain(|i| !items().any(|removed| removed == *i));
            Ok(Some(list.join(",")))
        }
        (APPEND | SUBTRACT, None) => {
            let message =
                format!("Can't append to or subtract from key {}: it is not of a LIST type.", change.name.as_str());
            Err(ApiError::new(ResponseError::InvalidConfig, message))
        }
        _ => Err(ApiError::new(ResponseError::InvalidConfig, "Unknown operation.")),
    }
}
