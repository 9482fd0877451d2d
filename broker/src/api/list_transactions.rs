//! ListTransactions: the transactional ids that a node coordinates.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_transactions_response::TransactionState as ListedTransaction;
use kafka_protocol::messages::{ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId};

use super::{code, text};
use crate::pattern::Pattern;
use crate::request::Context;
use crate::shared::Shared;
use crate::transaction::TransactionState;

pub(super) fn handle(shared: &Shared, cx: &Context, request: ListTransactionsRequest) -> ListTransactionsResponse {
    let is_known = |name: &str| TransactionState::ALL.iter().any(|s| s.name() == name);
    let unknown = request.state_filters.iter().filter(|name| !is_known(name)).cloned().collect();
    let listed = cx.check_fault().and_then(|()| list(shared, cx, &request));
    ListTransactionsResponse::default()
        .with_error_code(code(&listed))
        .with_unknown_state_filters(unknown)
        .with_transaction_states(listed.unwrap_or_default())
}

fn list(
    shared: &Shared,
    cx: &Context,
    request: &ListTransactionsRequest,
) -> Result<Vec<ListedTransaction>, ResponseError> {
    let pattern = match request.transactional_id_pattern.as_deref() {
        None | Some("") => None,
        Some(pattern) => Some(Pattern::parse(pattern).ok_or(ResponseError::InvalidRegularExpression)?),
    };
    // Negative: no filter, which is also the value of versions without it.
    let min_age = u64::try_from(request.duration_filter).ok().map(Duration::from_millis);
    let now = shared.now();
    let transactions = shared.transactions();
    let cluster = shared.cluster();
    let mut listed = Vec::new();
    for (id, transaction) in transactions.iter() {
        let (state, producer) = (transaction.state().name(), transaction.producer());
        let (states, ids) = (&request.state_filters, &request.producer_id_filters);
        let is_old = |min| transaction.started_at().is_some_and(|at| now.saturating_duration_since(at) > min);
        let is_selected = cluster.transaction_coordinator(id) == cx.node
            && (states.is_empty() || states.iter().any(|s| s.as_str() == state))
            && (ids.is_empty() || ids.contains(&ProducerId(producer.id)))
            && min_age.is_none_or(is_old)
            && pattern.as_ref().is_none_or(|p| p.matches(id));
        if is_selected {
            let out = ListedTransaction::default().with_transactional_id(TransactionalId(text(id)));
            listed.push(out.with_producer_id(ProducerId(producer.id)).with_transaction_state(text(state)));
        }
    }
    Ok(listed)
}
