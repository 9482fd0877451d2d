//! IncrementalAlterConfigs: changes single settings of topics.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::describe_configs::TOPIC;
use super::text;
use crate::cluster::Refused;
use crate::conn::Context;
use crate::shared::Shared;

const SET: i8 = 0;
const DELETE: i8 = 1;

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

/// All of a topic's changes are made, or none.
fn alter(shared: &Shared, cx: &Context, resource: &AlterConfigsResource, dry_run: bool) -> Result<(), Refused> {
    cx.gate().map_err(|error| (error, error.to_string()))?;
    if resource.resource_type != TOPIC {
        return Err((ResponseError::InvalidRequest, "Only the settings of topics can be changed.".into()));
    }
    let mut cluster = shared.cluster();
    let missing = || (ResponseError::UnknownTopicOrPartition, "The topic does not exist.".to_owned());
    let topic = cluster.topics.get_mut(resource.resource_name.as_str()).ok_or_else(missing)?;
    let mut config = topic.config.clone();
    for change in &resource.configs {
        match change.config_operation {
            SET => config.set(&change.name, change.value.as_deref())?,
            DELETE => config.set(&change.name, None)?,
            _ => return Err((ResponseError::InvalidConfig, "Settings can only be set or deleted.".into())),
        }
    }
    if !dry_run {
        topic.config = config;
    }
    Ok(())
}
