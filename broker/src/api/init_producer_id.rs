//! InitProducerId: a producer id for an idempotent producer.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use crate::request::Context;
use crate::shared::Shared;

/// First version with the producer's current id and epoch.
const PRODUCER_ID_VERSION: i16 = 3;

pub(super) fn handle(shared: &Shared, cx: &Context, request: InitProducerIdRequest) -> InitProducerIdResponse {
    match new_producer_id(shared, cx, &request) {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(error) => InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    }
}

/// Returns a new producer id for every request without a transactional id, as Kafka does.
fn new_producer_id(shared: &Shared, cx: &Context, request: &InitProducerIdRequest) -> Result<i64, ResponseError> {
    cx.check_fault()?;
    let is_incomplete = (request.producer_id.0 == -1) != (request.producer_epoch == -1);
    let has_empty_transactional_id = request.transactional_id.as_ref().is_some_and(|id| id.is_empty());
    if has_empty_transactional_id || (cx.version >= PRODUCER_ID_VERSION && is_incomplete) {
        return Err(ResponseError::InvalidRequest);
    }
    if request.transactional_id.is_some() {
        // There is no transaction coordinator.
        return Err(ResponseError::CoordinatorNotAvailable);
    }
    Ok(shared.cluster().new_producer_id())
}
