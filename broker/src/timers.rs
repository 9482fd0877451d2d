//! Deadlines: of groups, of transactions, and of held requests.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api;
use crate::held::HeldRequest;
use crate::markers;
use crate::shared::Shared;

/// Handles deadlines until it is aborted.
pub(crate) async fn run(shared: Arc<Shared>) {
    tokio::join!(run_group_timers(&shared), run_transaction_timers(&shared));
}

/// Expires sessions and ends rebalances of groups at their deadlines, until it is aborted.
async fn run_group_timers(shared: &Shared) {
    let changed = shared.groups().changed();
    loop {
        let now = shared.now();
        let deadline = shared.groups().tick(now);
        tokio::select! {
            () = sleep_until(deadline, now) => {}
            () = changed.notified() => {}
        }
    }
}

/// Aborts transactions at their timeouts, and writes delayed markers and serves held requests when
/// they are due.
async fn run_transaction_timers(shared: &Arc<Shared>) {
    let changed = shared.transactions().changed();
    let mut released = JoinSet::new();
    loop {
        let now = shared.now();
        shared.transactions().tick(now);
        markers::write_markers(shared);
        for request in shared.held().take_due(now) {
            let shared = shared.clone();
            released.spawn(async move { serve(&shared, request).await });
        }
        let held = shared.held().deadline();
        let deadline = shared.transactions().deadline().into_iter().chain(held).min();
        tokio::select! {
            () = sleep_until(deadline, now) => {}
            () = changed.notified() => {}
            Some(_) = released.join_next() => {}
        }
    }
}

/// Sleeps until the deadline, but at least a moment: one that does not move must not make a loop
/// spin.
async fn sleep_until(deadline: Option<Instant>, now: Instant) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.max(now + Duration::from_millis(1))).await,
        None => std::future::pending().await,
    }
}

/// Serves all held requests and writes all held markers; returns their number.
pub(crate) async fn release_held(shared: &Shared) -> usize {
    let requests = shared.held().take_all();
    let count = requests.len();
    for request in requests {
        serve(shared, request).await;
    }
    let markers = shared.transactions().release_markers(shared.now());
    markers::write_markers(shared);
    count + markers
}

/// Serves a held request. Its connection is closed: its response is dropped.
async fn serve(shared: &Shared, request: HeldRequest) {
    let HeldRequest { api, context, body, .. } = request;
    if let Err(error) = api::dispatch(shared, api, &context, body).await {
        tracing::debug!(?api, %error, "held request failed");
    }
}
