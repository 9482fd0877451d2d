//! The task that passes metadata to the accumulator, starts senders and expires batches.

use std::sync::Arc;

use tokio::time::Instant;

use super::accumulator::NO_LEADER;
use super::producer_id;
use super::sender::BrokerSender;
use super::shared::ProducerShared;
use super::transaction;
use super::transaction::task::TransactionShared;
use crate::cluster::Client;
use crate::code;
use crate::config::ProducerConfig;

/// Starts the tasks of a producer.
pub(super) fn start(
    client: &Client,
    config: ProducerConfig,
    creates_topics: bool,
    transactions: Option<Arc<TransactionShared>>,
) -> Arc<ProducerShared> {
    let shared = Arc::new(ProducerShared::new(client, config, creates_topics, transactions.clone()));
    shared.tasks.spawn(supervise(Arc::clone(&shared)));
    match transactions {
        Some(transactions) => _ = shared.tasks.spawn(transaction::task::run(Arc::clone(&shared), transactions)),
        None if shared.config.idempotence => _ = shared.tasks.spawn(producer_id::run(Arc::clone(&shared))),
        None => {}
    }
    shared
}

async fn supervise(shared: Arc<ProducerShared>) {
    let mut metadata = shared.cluster().updated();
    let mut backoff = shared.cluster().backoff();
    let mut expire_at = Instant::now() + shared.config.delivery_timeout;
    // While partitions with batches have no leader, metadata is refreshed again and again.
    let mut refresh_at = None::<Instant>;
    loop {
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            () = shared.supervisor.notified() => {}
            Ok(()) = metadata.changed() => {
                update_leaders(&shared);
                expire_at = Instant::now(); // a topic that is missing has a deadline of its own
            }
            () = tokio::time::sleep_until(expire_at) => {
                let (finished, next) = shared.lock().expire(Instant::now());
                expire_at = next;
                shared.resolve_batches(finished);
            }
            () = sleep_until(refresh_at) => {
                refresh_at = None;
                shared.cluster().refresh_soon();
            }
        }
        start_senders(&shared);
        let accumulator = shared.lock();
        let is_leaderless = accumulator.has_pending(NO_LEADER);
        if accumulator.needs_producer_id() {
            shared.producer_id.notify_one();
        }
        drop(accumulator);
        if !is_leaderless {
            refresh_at = None;
            backoff.reset();
        } else if refresh_at.is_none() {
            refresh_at = Some(Instant::now() + backoff.next());
        }
    }
}

/// Sleeps until `when`; without it, forever.
pub(super) async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

fn update_leaders(shared: &ProducerShared) {
    let snapshot = shared.cluster().snapshot();
    let names = shared.lock().topic_names();
    shared.lock().touch_pending_topics();
    for name in names {
        match snapshot.topics.get(&name) {
            Some(topic) => shared.apply_metadata(topic),
            None if snapshot.failed.get(&name) == Some(&code::UNKNOWN_TOPIC_OR_PARTITION) => {
                let finished = shared.lock().update_topic(Instant::now(), &name, None, None);
                shared.resolve_batches(finished);
            }
            // Metadata has dropped it as unused, but batches from long ago may be pending.
            None if !snapshot.failed.contains_key(&name) && !shared.lock().forget_topic(&name) => {
                _ = shared.cluster().interest(&name);
                shared.cluster().refresh_soon();
            }
            None => {}
        }
    }
}

fn start_senders(shared: &Arc<ProducerShared>) {
    let mut accumulator = shared.lock();
    for broker in accumulator.leaders_with_pending() {
        if let Some(wake) = accumulator.add_sender(broker) {
            shared.tasks.spawn(BrokerSender::new(Arc::clone(shared), broker, wake).run());
        }
    }
}
