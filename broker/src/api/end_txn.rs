//! EndTxn: commits or aborts a transaction.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse, ProducerId};

use super::transaction::{check_coordinator, complete_last, producer, transaction_version, without_fenced};
use crate::markers;
use crate::request::Context;
use crate::shared::Shared;
use crate::transaction::ProducerIdAndEpoch;

/// First version with PRODUCER_FENCED.
const FENCED_VERSION: i16 = 2;
/// First version whose response has producer id and epoch of the next transaction (KIP-890).
const V2_VERSION: i16 = 5;

pub(super) fn handle(shared: &Shared, cx: &Context, request: EndTxnRequest) -> EndTxnResponse {
    let ended = end(shared, cx, &request);
    // The outcome is decided, so the response does not depend on the markers.
    markers::write_markers(shared);
    match ended {
        Err(error) => {
            let error = if cx.version < FENCED_VERSION { without_fenced(error) } else { error };
            let out = EndTxnResponse::default().with_error_code(error.code());
            out.with_producer_id(ProducerId(-1)).with_producer_epoch(-1)
        }
        Ok(next) if cx.version >= V2_VERSION => {
            EndTxnResponse::default().with_producer_id(ProducerId(next.id)).with_producer_epoch(next.epoch)
        }
        Ok(_) => EndTxnResponse::default(),
    }
}

fn end(shared: &Shared, cx: &Context, request: &EndTxnRequest) -> Result<ProducerIdAndEpoch, ResponseError> {
    let id = &request.transactional_id;
    check_coordinator(shared, cx, id)?;
    complete_last(shared, id);
    let producer = producer(request.producer_id, request.producer_epoch);
    let version = transaction_version(cx, V2_VERSION);
    shared.transactions().end(id, producer, request.committed, version, shared.now())
}
