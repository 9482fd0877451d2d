//! Decides whether the groups of a cluster have handled and committed everything.

use std::collections::BTreeSet;
use std::time::Duration;

use ailurus_broker::{Broker, TransactionOutcome};
use tokio::time::{Instant, sleep};

use crate::error::NotIdle;

/// Time without anything pending after which a cluster is idle: longer than a retry of the library,
/// so that a member that joins, or an event that was published in reaction to another, is seen.
const QUIET: Duration = Duration::from_secs(5);
/// First and longest interval between two looks.
const LOOK_INTERVALS: [Duration; 2] = [Duration::from_millis(1), QUIET];

/// Waits until nothing is pending for a while.
pub(crate) async fn until_idle(broker: &Broker, limit: Duration) -> Result<(), NotIdle> {
    let [mut interval, longest] = LOOK_INTERVALS;
    let started = Instant::now();
    let mut quiet_since = started;
    loop {
        // With the clock paused, this returns when nothing in the test can run any more.
        sleep(interval).await;
        interval = longest.min(interval * 2);
        let (now, pending) = (Instant::now(), pending(broker));
        if !pending.is_empty() {
            if now >= started + limit {
                return Err(NotIdle { waited: now - started, pending });
            }
            quiet_since = now;
        } else if now >= quiet_since + QUIET {
            return Ok(());
        }
    }
}

/// Returns a line for each partition with records that its group has not committed, and for each
/// group that rebalances. A group without members has nothing to do.
fn pending(broker: &Broker) -> Vec<String> {
    let mut pending = Vec::new();
    for group in broker.groups() {
        let members = broker.group_members(&group);
        let Some((state, _)) = broker.group_state(&group).filter(|(state, _)| *state != "Empty") else { continue };
        if state != "Stable" {
            pending.push(format!("group {group:?} with {} members is {state}", members.len()));
        }
        for member in members {
            for (topic, partition) in member.partitions() {
                if let Some(records) = uncommitted(broker, &group, &topic, partition) {
                    pending.push(format!(
                        "group {group:?}: {topic}/{partition}: {records}; it is {:?}'s",
                        member.client_id
                    ));
                }
            }
        }
    }
    pending
}

/// Describes the records of a partition that a group has not committed; `None` if there are none.
fn uncommitted(broker: &Broker, group: &str, topic: &str, partition: i32) -> Option<String> {
    let (start, end) = broker.log_range(topic, partition).ok()?;
    let committed = broker.committed_offset(group, topic, partition);
    let from = committed.unwrap_or(start).max(start);
    if from >= end {
        return None;
    }
    // Markers of transactions are no records, and nobody reads those that were aborted.
    let aborted: BTreeSet<i64> = broker.transactional_records(topic, partition).map_or_else(
        |_| BTreeSet::new(),
        |records| {
            let aborted = records.iter().filter(|r| r.outcome == TransactionOutcome::Aborted);
            aborted.map(|r| r.record.offset).collect()
        },
    );
    let offsets: Vec<i64> = match broker.log_records(topic, partition) {
        Ok(records) => records.iter().map(|r| r.offset).filter(|o| *o >= from && !aborted.contains(o)).collect(),
        Err(_) => (from..end).collect(), // of a codec that the broker does not decompress
    };
    let first = offsets.first()?;
    let committed = committed.map_or_else(|| "nothing".to_owned(), |offset| format!("offset {offset}"));
    Some(format!("{} records from offset {first} are not handled, {committed} is committed", offsets.len()))
}
