//! IncrementalAlterConfigs: changes single settings of topics and nodes.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::describe_configs::{NODE, TOPIC, node};
use super::text;
use crate::error::Refused;
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
            Err((error, why)) => out.with_error_code(error.code()).with_error_message(Some(text(why))),
        }
    };
    IncrementalAlterConfigsResponse::default().with_responses(request.resources.into_iter().map(one).collect())
}

/// All of a resource's changes are made, or none.
fn alter(shared: &Shared, cx: &Context, resource: &AlterConfigsResource, dry_run: bool) -> Result<(), Refused> {
    cx.gate().map_err(|error| (error, error.to_string()))?;
    let mut cluster = shared.cluster();
    match resource.resource_type {
        TOPIC => {
            let missing = || (ResponseError::UnknownTopicOrPartition, "The topic does not exist.".to_owned());
            let topic = cluster.topics.get_mut(resource.resource_name.as_str()).ok_or_else(missing)?;
            let mut config = topic.config.clone();
            for change in &resource.configs {
                let value = value(change, config.list(&change.name, &shared.config))?;
                config.set(&change.name, value.as_deref())?;
            }
            if !dry_run {
                topic.config = config;
            }
            Ok(())
        }
        NODE => {
            let unknown = || (ResponseError::InvalidRequest, "Unexpected broker id.".to_owned());
            let node = node(cx, &cluster, &resource.resource_name).ok_or_else(unknown)?;
            let changes = resource.configs.iter().map(|c| Ok((c.name.to_string(), value(c, None)?)));
            let changes = changes.collect::<Result<Vec<_>, Refused>>()?;
            cluster.settings.alter(node, &changes, &shared.config, dry_run)
        }
        _ => Err((ResponseError::InvalidRequest, "Only topics and nodes have settings that can be changed.".into())),
    }
}

/// What a setting is to be, `None` for its default; `list` has what is there, if it is a list.
fn value(change: &AlterableConfig, list: Option<Vec<String>>) -> Result<Option<String>, Refused> {
    let given = change.value.as_deref();
    let items = || given.unwrap_or_default().split(',').filter(|i| !i.is_empty()).map(str::to_owned);
    match (change.config_operation, list) {
        (SET, _) => Ok(given.map(str::to_owned)),
        (DELETE, _) => Ok(None),
        (APPEND, Some(mut list)) => {
            let new: Vec<_> = items().filter(|i| !list.contains(i)).collect();
            list.extend(new);
            Ok(Some(list.join(",")))
        }
        (SUBTRACT, Some(mut list)) => {
            list.retain(|i| !items().any(|gone| gone == *i));
            Ok(Some(list.join(",")))
        }
        (APPEND | SUBTRACT, None) => {
            let why =
                format!("Can't append to or subtract from key {}: it is not of a LIST type.", change.name.as_str());
            Err((ResponseError::InvalidConfig, why))
        }
        _ => Err((ResponseError::InvalidConfig, "Unknown operation.".into())),
    }
}
