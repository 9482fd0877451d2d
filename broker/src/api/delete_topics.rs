//! DeleteTopics: by name, or by id from version 6 on.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use uuid::Uuid;

use super::{code, text};
use crate::request::Context;
use crate::shared::Shared;

pub(super) fn handle(shared: &Shared, cx: &Context, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request.topic_names.into_iter().map(|name| (Some(name), Uuid::nil()));
    let either = request.topics.into_iter().map(|t| (t.name, t.topic_id));
    let one = |(name, id): (Option<TopicName>, Uuid)| {
        let found = match name {
            Some(name) => Some(name),
            None => shared.cluster().topic_name(id).map(|name| TopicName(text(name))),
        };
        let deleted = match &found {
            Some(name) => delete(shared, cx, name),
            None => Err(ResponseError::UnknownTopicId),
        };
        DeletableTopicResult::default().with_name(found).with_topic_id(id).with_error_code(code(&deleted))
    };
    DeleteTopicsResponse::default().with_responses(by_name.chain(either).map(one).collect())
}

fn delete(shared: &Shared, cx: &Context, name: &str) -> Result<(), ResponseError> {
    cx.check_fault()?;
    if shared.delete_topic(name) { Ok(()) } else { Err(ResponseError::UnknownTopicOrPartition) }
}
