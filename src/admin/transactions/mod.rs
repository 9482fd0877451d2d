//! Transactions: list and describe them at their coordinators, and fence their producers.

mod hanging;
mod holding;
mod producers;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use kafka_protocol::messages::describe_transactions_response::TransactionState as DescribedState;
use kafka_protocol::messages::{
    ApiKey, DescribeTransactionsRequest, InitProducerIdRequest, ListTransactionsRequest, ProducerId, TransactionalId,
};
use serde::Serialize;
use tokio::time::timeout;

pub use hanging::HangingTransaction;
pub use holding::HoldingTransaction;
pub use producers::{OpenTransaction, ProducerState};

use super::Admin;
use super::group_state::reported;
use crate::cluster::CoordinatorKey;
use crate::cluster::fields::{millis, text};
use crate::cluster::leaders::RetryPolicy;
use crate::error::{Error, Result};
use crate::timestamp;
use crate::timestamp::Timestamp;
use crate::wire::Api;

/// First version of ListTransactions that filters by duration.
const DURATION_FILTER_VERSION: i16 = 1;

reported! {
    /// State of a transactional id at its coordinator.
    ///
    /// ```
    /// use ailurus::admin::TransactionState;
    ///
    /// fn is_open(state: &TransactionState) -> bool {
    ///     matches!(state, TransactionState::Ongoing | TransactionState::PrepareAbort | TransactionState::PrepareCommit)
    /// }
    /// ```
    TransactionState {
        /// No transaction since the producer's start, or since the id was created.
        Empty "Empty",
        /// A transaction is open.
        Ongoing "Ongoing",
        /// A transaction is committed; its markers are being written.
        PrepareCommit "PrepareCommit",
        /// A transaction is aborted; its markers are being written.
        PrepareAbort "PrepareAbort",
        /// The last transaction was committed.
        CompleteCommit "CompleteCommit",
        /// The last transaction was aborted.
        CompleteAbort "CompleteAbort",
        /// An open transaction is to be aborted, because its producer was fenced.
        PrepareEpochFence "PrepareEpochFence",
        /// The id is expiring.
        Dead "Dead",
    }
}

/// Selects transactional ids: those of any given state, any given producer id, and with a
/// transaction that has been open for long. [`Default`] selects all.
///
/// ```
/// use std::time::Duration;
/// use ailurus::admin::{TransactionFilter, TransactionState};
///
/// let long = TransactionFilter::default().state(TransactionState::Ongoing).older_than(Duration::from_secs(300));
/// # let _ = long;
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TransactionFilter {
    states: Vec<TransactionState>,
    producer_ids: Vec<i64>,
    older_than: Option<Duration>,
}

impl TransactionFilter {
    /// Adds a state.
    #[must_use]
    pub fn state(mut self, state: impl Into<TransactionState>) -> Self {
        self.states.push(state.into());
        self
    }

    /// Adds a producer id.
    #[must_use]
    pub fn producer_id(mut self, producer_id: i64) -> Self {
        self.producer_ids.push(producer_id);
        self
    }

    /// Selects only transactions that are open for longer than this.
    #[must_use]
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older_than = Some(age);
        self
    }
}

/// A transactional id, as [`Admin::list_transactions`] returns it.
///
/// ```
/// use ailurus::admin::{TransactionListing, TransactionState};
///
/// fn open(all: Vec<TransactionListing>) -> Vec<String> {
///     all.into_iter().filter(|t| t.state == TransactionState::Ongoing).map(|t| t.transactional_id).collect()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TransactionListing {
    /// Transactional id.
    pub transactional_id: String,
    /// Producer id that it has now.
    pub producer_id: i64,
    /// State.
    pub state: TransactionState,
    /// Broker id of its coordinator.
    pub coordinator: i32,
}

/// A transactional id and its transaction, as [`Admin::describe_transaction`] returns it.
///
/// ```
/// use ailurus::admin::TransactionDescription;
///
/// fn show(t: &TransactionDescription) -> String {
///     format!("{} writes to {:?} since {:?}", t.transactional_id, t.partitions, t.start_time)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TransactionDescription {
    /// Transactional id.
    pub transactional_id: String,
    /// Broker id of its coordinator.
    pub coordinator: i32,
    /// Producer id.
    pub producer_id: i64,
    /// Epoch of the producer.
    pub producer_epoch: i16,
    /// State.
    pub state: TransactionState,
    /// Time after which the coordinator aborts an open transaction: the producer's
    /// `transaction.timeout.ms`. `timeoutMs` in JSON.
    #[serde(rename = "timeoutMs", with = "timestamp::millis")]
    pub timeout: Duration,
    /// Start of the open transaction; none if no transaction is open. `startTimeMs` in JSON.
    #[serde(rename = "startTimeMs", with = "timestamp::millis")]
    pub start_time: Option<Timestamp>,
    /// Partitions of the open transaction, by topic. `__consumer_offsets` is among them if offsets
    /// of a group are part of it.
    pub partitions: BTreeMap<String, Vec<i32>>,
}

impl TransactionDescription {
    /// Returns how long the transaction is open, by the clock of this machine; none if none is.
    pub fn age(&self) -> Option<Duration> {
        self.start_time.map(Timestamp::elapsed)
    }

    /// Returns whether a partition is part of the open transaction.
    fn has(&self, topic: &str, partition: i32) -> bool {
        self.partitions.get(topic).is_some_and(|p| p.contains(&partition))
    }
}

/// A transactional id whose producer was fenced by [`Admin::fence_producer`].
///
/// ```
/// # fn show(f: &ailurus::admin::FencedProducer) {
/// println!("producers of {} with an epoch below {} are fenced", f.transactional_id, f.producer_epoch);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct FencedProducer {
    /// Transactional id.
    pub transactional_id: String,
    /// Producer id that it has now.
    pub producer_id: i64,
    /// Epoch that it has now. Producers with an older one are fenced.
    pub producer_epoch: i16,
    /// Broker id of its coordinator.
    pub coordinator: i32,
}

impl Admin {
    /// Lists the transactional ids that a filter selects, of all coordinators, by id.
    ///
    /// Brokers that can't filter by age (Kafka before 3.8, Redpanda) list all ids of the filter's
    /// states, and these are described to filter them here.
    ///
    /// # Errors
    /// If a broker of the cluster fails: a list without its ids would be wrong.
    /// [`list_transactions_by_broker`](Self::list_transactions_by_broker) returns those of the
    /// others. [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) before Kafka 3.0.
    pub async fn list_transactions(&self, filter: &TransactionFilter) -> Result<Vec<TransactionListing>> {
        let limit = self.cluster().request_timeout();
        let lists = self.transactions_by_broker(filter, limit).await?.into_values().collect::<Result<Vec<_>>>()?;
        // An id whose coordinator changes meanwhile may be listed twice.
        let by_id: BTreeMap<_, _> = lists.into_iter().flatten().map(|t| (t.transactional_id.clone(), t)).collect();
        Ok(by_id.into_values().collect())
    }

    /// Lists the transactional ids that each broker coordinates, by id, or the broker's error. Waits
    /// at most 5 seconds for a broker that does not respond.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`](crate::ErrorKind::Connect) if no broker can be reached.
    pub async fn list_transactions_by_broker(
        &self,
        filter: &TransactionFilter,
    ) -> Result<BTreeMap<i32, Result<Vec<TransactionListing>>>> {
        self.transactions_by_broker(filter, RetryPolicy::best_effort(self.cluster()).response).await
    }

    /// Lists the transactional ids of each broker; waits for one that does not respond up to `limit`.
    pub(crate) async fn transactions_by_broker(
        &self,
        filter: &TransactionFilter,
        limit: Duration,
    ) -> Result<BTreeMap<i32, Result<Vec<TransactionListing>>>> {
        self.cluster()
            .for_each_broker(|broker, at| async move {
                let what = || format!("listing the transactions of broker {broker}");
                let list = async {
                    let filters_by_age = match filter.older_than {
                        // One that does not respond fails with the next request.
                        Some(_) => timeout(limit, self.filters_by_age(broker)).await.unwrap_or(Ok(true))?,
                        None => true,
                    };
                    let request = list_request(filter, filters_by_age);
                    let response = self.cluster().request_within(limit, &at, request).await?;
                    if response.error_code != 0 {
                        return Err(Error::broker(response.error_code, what()));
                    }
                    let listing = |t: kafka_protocol::messages::list_transactions_response::TransactionState| {
                        let (id, producer_id) = (t.transactional_id.to_string(), t.producer_id.0);
                        let state = TransactionState::from(&*t.transaction_state);
                        TransactionListing { transactional_id: id, producer_id, state, coordinator: broker }
                    };
                    let mut listed: Vec<_> = response.transaction_states.into_iter().map(listing).collect();
                    if let Some(limit) = filter.older_than.filter(|_| !filters_by_age) {
                        let ids: Vec<_> = listed.iter().map(|t| t.transactional_id.clone()).collect();
                        let described = self.describe_at(broker, &ids).await?;
                        let is_older = |t: &TransactionDescription| t.age().is_some_and(|age| age > limit);
                        listed.retain(|t| matches!(described.get(&t.transactional_id), Some(Ok(t)) if is_older(t)));
                    }
                    listed.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
                    Ok(listed)
                };
                list.await.map_err(|e: Error| e.context(what()))
            })
            .await
    }

    /// Returns whether a broker filters transactions by age. One that does not serve ListTransactions
    /// counts as if: its error names it.
    async fn filters_by_age(&self, broker: i32) -> Result<bool> {
        let served = self.cluster().api_versions(broker).await?.api_keys;
        let found = served.iter().find(|api| api.api_key == ApiKey::ListTransactions as i16);
        Ok(found.is_none_or(|api| api.max_version >= DURATION_FILTER_VERSION))
    }

    /// Describes a transactional id and its open transaction.
    ///
    /// # Errors
    /// The broker's code TRANSACTIONAL_ID_NOT_FOUND for an id that the coordinator does not know:
    /// never used, or expired; if the coordinator can't be reached, or responds with another error;
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) before Kafka 3.0.
    pub async fn describe_transaction(&self, transactional_id: &str) -> Result<TransactionDescription> {
        let what = format!("describing transactional id {transactional_id:?}");
        let request = describe_request([transactional_id]);
        let code = |r: &<DescribeTransactionsRequest as Api>::Response| {
            r.transaction_states.first().map_or(-1, |t| t.error_code)
        };
        let key = CoordinatorKey::Transaction(transactional_id);
        let (coordinator, response) = self.request_coordinator_of(key, request, &what, code).await?;
        let found = response.transaction_states.into_iter().next().unwrap_or_default();
        Ok(description(coordinator, found))
    }

    /// Describes transactional ids at the broker that coordinates them.
    async fn describe_at(
        &self,
        coordinator: i32,
        ids: &[String],
    ) -> Result<BTreeMap<String, Result<TransactionDescription>>> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let request = describe_request(ids.iter().map(String::as_str));
        let timeout = self.cluster().request_timeout();
        let response = self.cluster().request_to(coordinator, request, timeout).await?;
        let one = |t: DescribedState| {
            let id = t.transactional_id.to_string();
            let outcome = match t.error_code {
                0 => Ok(description(coordinator, t)),
                code => Err(Error::broker(code, format_args!("describing transactional id {id:?}"))),
            };
            (id, outcome)
        };
        Ok(response.transaction_states.into_iter().map(one).collect())
    }

    /// Describes what [`list_transactions`](Self::list_transactions) has returned, by transactional
    /// id: one request per coordinator.
    pub(crate) async fn describe_listed(
        &self,
        listed: &[TransactionListing],
    ) -> BTreeMap<String, Result<TransactionDescription>> {
        let mut by_coordinator = BTreeMap::<i32, Vec<String>>::new();
        for t in listed {
            by_coordinator.entry(t.coordinator).or_default().push(t.transactional_id.clone());
        }
        let requests = by_coordinator.into_iter().map(|(coordinator, ids)| async move {
            match self.describe_at(coordinator, &ids).await {
                Ok(described) => described,
                Err(e) => ids.into_iter().map(|id| (id, Err(e.clone()))).collect(),
            }
        });
        join_all(requests).await.into_iter().flatten().collect()
    }

    /// Fences the producers of a transactional id: raises its epoch, which aborts the open
    /// transaction, and after which they fail with every request. The next
    /// producer that starts with the id is not affected.
    ///
    /// An id that the coordinator does not know is created: use
    /// [`describe_transaction`](Self::describe_transaction) before.
    ///
    /// Sends InitProducerId without a producer id (KIP-664), and retries it for the request timeout
    /// while the coordinator aborts the transaction.
    ///
    /// # Errors
    /// If the coordinator can't be reached, or responds with an error.
    ///
    /// # Cancellation
    /// If the future is dropped, the producers may have been fenced.
    pub async fn fence_producer(&self, transactional_id: &str) -> Result<FencedProducer> {
        let id = TransactionalId(text(transactional_id));
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(id))
            .with_transaction_timeout_ms(millis(self.cluster().request_timeout()))
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let what = format!("fencing the producers of transactional id {transactional_id:?}");
        let code = |r: &<InitProducerIdRequest as Api>::Response| r.error_code;
        let key = CoordinatorKey::Transaction(transactional_id);
        let (coordinator, response) = self.request_coordinator_of(key, request, &what, code).await?;
        Ok(FencedProducer {
            transactional_id: transactional_id.to_owned(),
            producer_id: response.producer_id.0,
            producer_epoch: response.producer_epoch,
            coordinator,
        })
    }
}

fn list_request(filter: &TransactionFilter, filters_by_age: bool) -> ListTransactionsRequest {
    let older_than = filter.older_than.filter(|_| filters_by_age);
    let duration = older_than.map_or(-1, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    ListTransactionsRequest::default()
        .with_state_filters(filter.states.iter().map(|s| text(s.as_str())).collect())
        .with_producer_id_filters(filter.producer_ids.iter().map(|id| ProducerId(*id)).collect())
        .with_duration_filter(duration)
}

fn describe_request<'a>(ids: impl IntoIterator<Item = &'a str>) -> DescribeTransactionsRequest {
    let id = |id: &str| TransactionalId(text(id));
    DescribeTransactionsRequest::default().with_transactional_ids(ids.into_iter().map(id).collect())
}

fn description(coordinator: i32, t: DescribedState) -> TransactionDescription {
    let partitions = t.topics.into_iter().map(|topic| {
        let mut partitions = topic.partitions;
        partitions.sort_unstable();
        (topic.topic.to_string(), partitions)
    });
    TransactionDescription {
        transactional_id: t.transactional_id.to_string(),
        coordinator,
        producer_id: t.producer_id.0,
        producer_epoch: t.producer_epoch,
        state: TransactionState::from(&*t.transaction_state),
        timeout: Duration::from_millis(u64::try_from(t.transaction_timeout_ms).unwrap_or_default()),
        start_time: Some(Timestamp::from_millis(t.transaction_start_time_ms)).filter(|at| !at.is_none()),
        partitions: partitions.collect(),
    }
}

#[cfg(test)]
mod tests;
