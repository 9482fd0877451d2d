//! CreatePartitions.

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::text;
use crate::error::ApiError;
use crate::request::Context;
use crate::shared::Shared;

pub(super) fn handle(shared: &Shared, cx: &Context, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let grow = |topic: &CreatePartitionsTopic| -> Result<(), ApiError> {
        cx.check_fault()?;
        shared.cluster().grow_topic(&topic.name, topic.count, request.validate_only)
    };
    let one = |topic: CreatePartitionsTopic| {
        let grown = grow(&topic);
        let out = CreatePartitionsTopicResult::default().with_name(topic.name);
        match grown {
            Ok(()) => out.with_error_message(None),
            Err(error) => out.with_error_code(error.code()).with_error_message(Some(text(error.message))),
        }
    };
    CreatePartitionsResponse::default().with_results(request.topics.into_iter().map(one).collect())
}
