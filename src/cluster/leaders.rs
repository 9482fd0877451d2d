//! Requests to the leaders of partitions, with an outcome per partition: a partition without a
//! leader, or a leader that does not respond, affects nothing but its own outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kafka_protocol::messages::MetadataResponse;
use tokio::time::{Instant, timeout};

use super::{Cluster, TopicMeta, broker_address, topic_meta};
use crate::code;
use crate::config::BrokerAddr;
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;
use crate::text;
use crate::wire::Api;

/// Outcome of each partition.
pub(crate) type Outcomes<T> = BTreeMap<TopicPartition, Result<T>>;

/// Bounds of a call to many leaders or brokers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryPolicy {
    /// Maximum time in which failed partitions are retried.
    retry: Duration,
    /// Maximum wait for a partition that has no leader: an election takes moments, a dead replica
    /// does not return by waiting.
    election: Duration,
    /// Maximum wait for one response.
    pub(crate) response: Duration,
    /// True if one fatal failure ends the call for all partitions.
    all_or_none: bool,
}

impl RetryPolicy {
    /// Waits for all partitions, for the request timeout.
    pub(crate) fn all_or_none(cluster: &Cluster) -> Self {
        let timeout = cluster.config().request_timeout;
        Self { retry: timeout, election: timeout, response: timeout, all_or_none: true }
    }

    /// Returns what is available at once: only moved leaders are retried.
    pub(crate) fn best_effort(cluster: &Cluster) -> Self {
        let response = cluster.config().request_timeout.min(Duration::from_secs(5));
        Self { retry: Duration::from_secs(1), election: Duration::ZERO, response, all_or_none: false }
    }
}

/// Reason why a partition has no outcome yet.
struct PartitionFailure {
    error: Error,
    /// Maximum time in which it is retried; `None` if a retry can't help.
    retry: Option<Duration>,
}

impl Cluster {
    /// Sends a request to the leader of each partition, to all leaders concurrently, and retries
    /// after an election. `decode` extracts partition, error code and value from a response. The
    /// topics are not kept in the metadata cache.
    ///
    /// # Errors
    /// If no broker returns metadata.
    pub(crate) async fn request_leaders<A: Api, T>(
        &self,
        what: &str,
        partitions: impl IntoIterator<Item = TopicPartition>,
        policy: RetryPolicy,
        request: impl Fn(&[TopicPartition]) -> A,
        decode: impl Fn(A::Response) -> Vec<(TopicPartition, i16, T)>,
    ) -> Result<Outcomes<T>> {
        let began = Instant::now();
        let mut backoff = self.backoff();
        let mut outcomes = BTreeMap::new();
        let mut missing: BTreeSet<_> = partitions.into_iter().collect();
        while !missing.is_empty() {
            let fails = |error: Error| {
                let retry = error.is_retriable().then_some(policy.retry);
                PartitionFailure { error, retry }
            };
            let (by_leader, mut failures) = self.group_by_leader(&missing, what, policy).await?;
            let requests = by_leader.into_iter().map(|((id, at), of_leader)| {
                let request = request(&of_leader);
                async move {
                    let response = self.request_within(policy.response, &at, request).await;
                    (id, of_leader, response)
                }
            });
            for (id, of_leader, response) in join_all(requests).await {
                let mut silent: BTreeSet<_> = of_leader.into_iter().collect();
                let response = match response {
                    Ok(response) => response,
                    Err(e) => {
                        let failure = |p: TopicPartition| {
                            let e = e.clone().context(format_args!("{what} of {p} at broker {id}"));
                            (p, fails(e))
                        };
                        failures.extend(silent.into_iter().map(failure));
                        continue;
                    }
                };
                for (p, code, found) in decode(response) {
                    if !silent.remove(&p) {
                        continue; // not requested, or twice in the response
                    }
                    if code == 0 {
                        outcomes.insert(p, Ok(found));
                        continue;
                    }
                    let mut failure = fails(Error::broker(code, format_args!("{what} of {p} at broker {id}")));
                    if failure.error.is_unknown_topic() {
                        // A broker that does not know the topic yet, or no longer, is behind: the
                        // metadata decides whether there is one.
                        failure.retry = Some(policy.retry);
                    }
                    failures.insert(p, failure);
                }
                failures.extend(silent.into_iter().map(|p| {
                    let why = format!("{what} of {p}: broker {id} responded without it");
                    (p, PartitionFailure { error: Error::new(ErrorKind::Corrupt, why), retry: None })
                }));
            }
            let wait = backoff.next();
            let elapsed = began.elapsed() + wait;
            missing.clear();
            let ends = policy.all_or_none && failures.values().any(|f| f.retry.is_none());
            for (p, PartitionFailure { error, retry }) in failures {
                if ends || retry.is_none_or(|retry| elapsed >= retry) {
                    outcomes.insert(p, Err(error));
                } else {
                    missing.insert(p);
                }
            }
            if !missing.is_empty() {
                tokio::time::sleep(wait).await;
            }
        }
        Ok(outcomes)
    }

    /// Calls a function for each broker of the cluster, concurrently: one that does not respond
    /// affects nothing but its own outcome.
    ///
    /// # Errors
    /// If no broker returns metadata.
    pub(crate) async fn for_each_broker<T, F: Future<Output = Result<T>>>(
        &self,
        call: impl Fn(i32, BrokerAddr) -> F,
    ) -> Result<BTreeMap<i32, Result<T>>> {
        let brokers = self.refresh_brokers().await?.brokers.clone();
        let calls = brokers.into_iter().map(|(id, at)| {
            let outcome = call(id, at);
            async move { (id, outcome.await) }
        });
        Ok(join_all(calls.collect::<Vec<_>>()).await.into_iter().collect())
    }

    /// Sends a request to an address, with one deadline for connecting and the response.
    pub(crate) async fn request_within<A: Api>(
        &self,
        limit: Duration,
        at: &BrokerAddr,
        request: A,
    ) -> Result<A::Response> {
        let response = timeout(limit, self.request_at(at, request, limit)).await;
        response.unwrap_or_else(|_| {
            let what = format!("{at} has not responded to {} within {limit:?}", A::NAME);
            Err(Error::new(ErrorKind::Timeout, what))
        })
    }

    /// Groups partitions by their current leader, and returns why the others have none.
    #[allow(clippy::type_complexity, reason = "two maps, named by their use")]
    async fn group_by_leader(
        &self,
        partitions: &BTreeSet<TopicPartition>,
        what: &str,
        policy: RetryPolicy,
    ) -> Result<(BTreeMap<(i32, BrokerAddr), Vec<TopicPartition>>, BTreeMap<TopicPartition, PartitionFailure>)> {
        let topics: BTreeSet<_> = partitions.iter().map(|p| Arc::clone(&p.topic)).collect();
        let topics: Vec<_> = topics.into_iter().collect();
        let response = self.metadata(Some(&topics), false).await.map_err(|e| e.context(what))?;
        let brokers: BTreeMap<_, _> =
            response.brokers.iter().map(|b| (b.node_id.0, broker_address(&b.host, b.port))).collect();
        let topics = topics_by_name(&response);
        let (mut led, mut failures) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::new());
        for p in partitions {
            match find_leader(&topics, &brokers, p, what, policy) {
                Ok(leader) => led.entry(leader).or_default().push(p.clone()),
                Err((error, retry)) => _ = failures.insert(p.clone(), PartitionFailure { error, retry }),
            }
        }
        Ok((led, failures))
    }
}

/// Returns each topic of a metadata response, or its error code.
pub(crate) fn topics_by_name(response: &MetadataResponse) -> BTreeMap<Arc<str>, Result<TopicMeta, i16>> {
    let one = |t: &kafka_protocol::messages::metadata_response::MetadataResponseTopic| {
        let name: Arc<str> = Arc::from(t.name.as_ref()?.0.as_str());
        let topic = if t.error_code == 0 { Ok(topic_meta(Arc::clone(&name), t, None)) } else { Err(t.error_code) };
        Some((name, topic))
    };
    response.topics.iter().filter_map(one).collect()
}

/// Returns a partition's leader, or why there is none and how long it is awaited.
fn find_leader(
    topics: &BTreeMap<Arc<str>, Result<TopicMeta, i16>>,
    brokers: &BTreeMap<i32, BrokerAddr>,
    p: &TopicPartition,
    what: &str,
    policy: RetryPolicy,
) -> Result<(i32, BrokerAddr), (Error, Option<Duration>)> {
    let unknown = |what: String| (Error::new(ErrorKind::UnknownTopic, what), None);
    let awaited = |what| (Error::new(ErrorKind::Broker(code::LEADER_NOT_AVAILABLE), what), Some(policy.election));
    let topic = match topics.get(&p.topic) {
        Some(Ok(topic)) => topic,
        None | Some(Err(code::UNKNOWN_TOPIC_OR_PARTITION)) => {
            return Err(unknown(format!("topic {:?} does not exist", &*p.topic)));
        }
        Some(Err(code)) => {
            let e = Error::broker(*code, format_args!("{what} of {p}"));
            let retry = e.is_retriable().then_some(policy.retry);
            return Err((e, retry));
        }
    };
    let Some(partition) = topic.partition(p.partition) else {
        let count = topic.partitions.len();
        return Err(unknown(format!("partition {p} does not exist: {} has {count} partitions", p.topic)));
    };
    let Some(id) = partition.leader else {
        let at = match partition.replicas.as_slice() {
            [] => String::new(),
            [one] => format!("; its one replica is on broker {one}: start that"),
            many => format!("; its replicas are on brokers {}: start one of those", text::list(many)),
        };
        return Err(awaited(format!("{p} has no leader{at}")));
    };
    // Between a broker's death and the election the metadata may name a leader that is gone.
    let gone = || awaited(format!("{p} has the leader {id}, which is not in the cluster's metadata: it is down"));
    brokers.get(&id).map(|at| (id, at.clone())).ok_or_else(gone)
}

/// Returns all outcomes, or one error that names the failed partitions: the first fatal one if
/// there is one.
pub(crate) fn all_or_error<T>(outcomes: Outcomes<T>) -> Result<BTreeMap<TopicPartition, T>> {
    let (mut found, mut failed) = (BTreeMap::new(), Vec::new());
    for (p, outcome) in outcomes {
        match outcome {
            Ok(value) => _ = found.insert(p, value),
            Err(e) => failed.push((p, e)),
        }
    }
    failed.sort_by_key(|(_, e)| e.is_retriable());
    match failed.as_slice() {
        [] => Ok(found),
        [(_, e)] => Err(e.clone()),
        [(_, e), rest @ ..] => {
            let others = text::list(rest.iter().map(|(p, _)| p));
            Err(Error::new(e.kind(), format!("{}; nor could this be done for {others}", e.full())))
        }
    }
}
