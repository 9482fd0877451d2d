//! FindCoordinator: the coordinator of a group or a transactional id.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::text;
use crate::request::Context;
use crate::shared::Shared;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// First version with several keys.
const BATCH_VERSION: i16 = 4;

pub(super) fn handle(shared: &Shared, cx: &Context, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let host = text(shared.config.host());
    let one = |key: StrBytes| match find(shared, cx, request.key_type, &key) {
        Ok((node, port)) => Coordinator::default()
            .with_key(key)
            .with_node_id(BrokerId(node))
            .with_host(host.clone())
            .with_port(port.into()),
        Err(error) => {
            let message = Some(text(error.to_string()));
            let out = Coordinator::default().with_key(key).with_node_id(BrokerId(-1)).with_port(-1);
            out.with_error_code(error.code()).with_error_message(message)
        }
    };
    if cx.version >= BATCH_VERSION {
        let found = request.coordinator_keys.into_iter().map(one).collect();
        return FindCoordinatorResponse::default().with_coordinators(found);
    }
    let found = one(request.key);
    FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_error_message(found.error_message)
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port)
}

fn find(shared: &Shared, cx: &Context, key_type: i8, key: &str) -> Result<(i32, u16), ResponseError> {
    cx.check_fault()?;
    let cluster = shared.cluster();
    let node = match key_type {
        GROUP => cluster.coordinator(key),
        TRANSACTION if !shared.config.versions.has_transactions() => return Err(ResponseError::UnsupportedVersion),
        TRANSACTION if key.is_empty() => return Err(ResponseError::InvalidRequest),
        TRANSACTION => cluster.transaction_coordinator(key),
        _ => return Err(ResponseError::InvalidRequest),
    };
    let node = cluster.node(node).ok_or(ResponseError::CoordinatorNotAvailable)?;
    Ok((node.id, node.advertised_port))
}
