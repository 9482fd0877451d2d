//! Transactions of the cluster, of this client or not, that are open for long and hold last stable
//! offsets back.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::probe::HeldOffset;
use crate::admin::{Admin, TransactionFilter};
use crate::cluster::Client;
use crate::error::Result;
use crate::record::TopicPartition;

/// Finds the partitions whose last stable offset has been held for the stall timeout by a transaction
/// that a coordinator has, within the health timeout. A broker that lists none in half of it, or that
/// does not serve the requests (Kafka before 3.0), costs its transactions.
pub(super) async fn find(client: &Client) -> Vec<HeldOffset> {
    let (config, admin, began) = (client.config(), Admin::new(client), Instant::now());
    let found = find_held(&admin, config.processor.stall_timeout, config.health_timeout / 2);
    match timeout_at(began + config.health_timeout, found).await {
        Ok(Ok(held)) => held,
        Ok(Err(e)) => {
            tracing::debug!(error = %e.full(), "transactions that hold last stable offsets were not found");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

async fn find_held(admin: &Admin, long: Duration, limit: Duration) -> Result<Vec<HeldOffset>> {
    let filter = TransactionFilter::default().older_than(long);
    let lists = admin.transactions_by_broker(&filter, limit).await?;
    let listed: Vec<_> = lists.into_values().flatten().flatten().collect();
    let described = timeout(limit, admin.describe_listed(&listed)).await.unwrap_or_default();
    let partitions = described.into_values().flatten().flat_map(|t| t.partitions);
    // Offsets of groups are not read up to the last stable offset.
    let partitions = partitions.filter(|(topic, _)| topic != "__consumer_offsets").flat_map(|(topic, partitions)| {
        partitions.into_iter().map(move |partition| TopicPartition::new(topic.as_str(), partition))
    });
    let partitions: Vec<_> = partitions.collect();
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let holding = admin.find_holding_transactions(&partitions).await?;
    let held = holding.into_iter().filter_map(|(partition, outcome)| {
        let by = outcome.ok().flatten()?;
        // The listed one may have ended meanwhile, and the next one is open.
        let (offset, age) = (by.transaction.start_offset, by.age());
        (age >= long).then_some(HeldOffset { partition, offset, long: age, by: Some(by) })
    });
    Ok(held.collect())
}
