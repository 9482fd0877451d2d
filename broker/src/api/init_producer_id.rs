//! InitProducerId: a producer id for an idempotent producer, or the one of a transactional id.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::transaction::{check_coordinator, complete_last, producer, without_fenced};
use crate::markers;
use crate::request::Context;
use crate::shared::Shared;
use crate::transaction::ProducerIdAndEpoch;

/// First version with the producer's current id and epoch.
const PRODUCER_ID_VERSION: i16 = 3;
/// First version with PRODUCER_FENCED.
const FENCED_VERSION: i16 = 4;

pub(super) fn handle(shared: &Shared, cx: &Context, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let initialized = init(shared, cx, &request);
    // A new owner aborts the open transaction of the old one.
    markers::write_markers(shared);
    match initialized {
        Ok(ProducerIdAndEpoch { id, epoch }) => {
            InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(epoch)
        }
        Err(error) => {
            let error = if cx.version < FENCED_VERSION { without_fenced(error) } else { error };
            InitProducerIdResponse::default()
                .with_error_code(error.code())
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1)
        }
    }
}

/// Returns a new producer id for every request without a transactional id, as Kafka does.
fn init(shared: &Shared, cx: &Context, request: &InitProducerIdRequest) -> Result<ProducerIdAndEpoch, ResponseError> {
    cx.check_fault()?;
    let current = producer(request.producer_id, request.producer_epoch);
    let is_incomplete = (current.id == -1) != (current.epoch == -1);
    if cx.version >= PRODUCER_ID_VERSION && is_incomplete {
        return Err(ResponseError::InvalidRequest);
    }
    let Some(id) = &request.transactional_id else {
        return Ok(ProducerIdAndEpoch { id: shared.transactions().new_producer_id(), epoch: 0 });
    };
    check_coordinator(shared, cx, id)?;
    complete_last(shared, id);
    let timeout = Duration::from_millis(u64::try_from(request.transaction_timeout_ms).unwrap_or(0));
    let expected = (cx.version >= PRODUCER_ID_VERSION && current.id != -1).then_some(current);
    shared.transactions().init_producer(id, timeout, expected, shared.now())
}
