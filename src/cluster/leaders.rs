//! Requests to the leaders of partitions, retried if they have moved.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::Cluster;
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;
use crate::text;
use crate::wire::Api;

/// Sends a request to the leader of each partition, and retries it for the request timeout if a
/// leader has moved. `decode` returns partition, error code and result of each partition in a
/// response.
pub(super) async fn request_from_leaders<A: Api, T>(
    cluster: &Cluster,
    what: &str,
    partitions: impl IntoIterator<Item = TopicPartition>,
    request: impl Fn(&[TopicPartition]) -> A,
    decode: impl Fn(A::Response) -> Vec<(TopicPartition, i16, T)>,
) -> Result<BTreeMap<TopicPartition, T>> {
    let timeout = cluster.config().request_timeout;
    let deadline = Instant::now() + timeout;
    let mut backoff = cluster.backoff();
    let mut found = BTreeMap::new();
    let mut missing: BTreeSet<_> = partitions.into_iter().collect();
    loop {
        let mut last = None;
        for (leader, of_leader) in by_leader(cluster, &missing).await? {
            let response = match cluster.request_to(leader, request(&of_leader), timeout).await {
                Ok(response) => response,
                Err(e) if e.is_retriable() => {
                    last = Some(e);
                    continue;
                }
                Err(e) => return Err(e),
            };
            for (p, code, result) in decode(response) {
                if code == 0 {
                    missing.remove(&p);
                    found.insert(p, result);
                    continue;
                }
                let e = Error::broker(code, format_args!("{what} of {p} at broker {leader}"));
                if !e.is_retriable() && !e.is_unknown_topic() {
                    return Err(e);
                }
                last = Some(e);
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let wait = backoff.next();
        if Instant::now() + wait > deadline {
            let what = format!("{what} of {}: no leader responds", text::list(&missing));
            return Err(last.map_or_else(|| Error::new(ErrorKind::Timeout, what.clone()), |e| e.context(&what)));
        }
        tokio::time::sleep(wait).await;
        cluster.refresh().await?;
    }
}

/// Groups partitions by leader; those without a leader are skipped.
async fn by_leader(
    cluster: &Cluster,
    partitions: &BTreeSet<TopicPartition>,
) -> Result<BTreeMap<i32, Vec<TopicPartition>>> {
    let mut by_leader = BTreeMap::<i32, Vec<_>>::new();
    for p in partitions {
        let topic = cluster.topic(&p.topic, false).await?;
        let known = topic.partition(p.partition).ok_or_else(|| {
            let what = format!("partition {p} does not exist: {} has {} partitions", p.topic, topic.partitions.len());
            Error::new(ErrorKind::UnknownTopic, what)
        })?;
        if let Some(leader) = known.leader {
            by_leader.entry(leader).or_default().push(p.clone());
        }
    }
    Ok(by_leader)
}
