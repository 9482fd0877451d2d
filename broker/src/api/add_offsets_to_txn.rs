//! AddOffsetsToTxn: registers a group with the coordinator before its offsets are committed.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use super::code;
use super::transaction::{check_coordinator, complete_last, producer, without_fenced};
use crate::group::{Group, Phase};
use crate::request::Context;
use crate::shared::Shared;
use crate::transaction::{Participant, TransactionRules, TransactionVersion};

/// First version with PRODUCER_FENCED.
const FENCED_VERSION: i16 = 2;

pub(super) fn handle(shared: &Shared, cx: &Context, request: AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse {
    let added = add(shared, cx, &request);
    let added = if cx.version < FENCED_VERSION { added.map_err(without_fenced) } else { added };
    AddOffsetsToTxnResponse::default().with_error_code(code(&added))
}

fn add(shared: &Shared, cx: &Context, request: &AddOffsetsToTxnRequest) -> Result<(), ResponseError> {
    let id = &request.transactional_id;
    check_coordinator(shared, cx, id)?;
    if request.group_id.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    complete_last(shared, id);
    let producer = producer(request.producer_id, request.producer_epoch);
    let mut transactions = shared.transactions();
    if transactions.rules() == TransactionRules::Redpanda {
        check_group(shared.groups().get(&request.group_id), producer.id)?;
    }
    let group = Participant::Group(request.group_id.to_string());
    transactions.add(id, producer, [group], TransactionVersion::V1, shared.now())
}

/// Checks the group as Redpanda does, which requests it from the group coordinator.
fn check_group(group: Option<&Group>, producer_id: i64) -> Result<(), ResponseError> {
    let Some(group) = group else { return Ok(()) };
    if group.consumer().is_none() && group.phase() == Phase::CompletingRebalance {
        return Err(ResponseError::ConcurrentTransactions);
    }
    if group.has_offsets_of(producer_id) {
        return Err(ResponseError::UnknownServerError);
    }
    Ok(())
}
