//! The task that sends a transactional producer's requests to coordinators, one at a time, over
//! connections of its own.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kafka_protocol::messages::InitProducerIdResponse;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::action::{Version, concerns_generation};
use super::core::{Begin, Core, CoreConfig, Effect, Request, RequestFailure, Response, Sends, TransactionEnd};
use super::health::{TransactionalProducerHealth, TransactionalProducerState};
use super::requests;
use crate::cluster::CoordinatorKey;
use crate::code;
use crate::error::Result;
use crate::lock::Lock;
use crate::metrics::{Observation, Reporter};
use crate::producer::partition::ProducerIdAndEpoch;
use crate::producer::shared::ProducerShared;
use crate::producer::supervisor::sleep_until;
use crate::wire::{Api, Connection, TransactionV2, api_versions_request};

/// State that a transactional producer shares with its task.
///
/// Lock order: the core before the accumulator. The task looks at the accumulator under the lock of
/// the core:
/// 1. The task finds no unfinished batch in the accumulator.
/// 2. The application sends a record and calls `commit`, which takes the lock of the core.
/// 3. The task sees a commit, and with the finding of 1 would end the transaction without the record.
///
/// With the lock of the core held from before 1 to after 3, the commit of 2 comes before or after.
#[derive(Debug)]
pub(crate) struct TransactionShared {
    pub(in crate::producer) transactional_id: Arc<str>,
    /// The transactional id without a random part: the label of metrics.
    name: String,
    /// Group of a pipeline.
    group: Option<String>,
    pub(super) core: Lock<Core>,
    /// Notifies callers that wait for a change of the core.
    pub(super) changed: Notify,
}

impl TransactionShared {
    pub(super) fn new(config: CoreConfig, name: String, group: Option<String>) -> Self {
        let transactional_id = Arc::clone(&config.transactional_id);
        Self { transactional_id, name, group, core: Lock::new(Core::new(config)), changed: Notify::new() }
    }

    pub(crate) fn health(&self) -> TransactionalProducerHealth {
        self.core.lock().health(Instant::now(), self.group.clone())
    }

    /// Begins a transaction, in the core and in the accumulator.
    pub(super) fn begin(&self, shared: &ProducerShared) -> Begin {
        let mut core = self.core.lock();
        let begin = core.on_begin(Instant::now());
        if let Begin::Open(version) = begin {
            shared.lock().begin_transaction(version == Version::V2);
        }
        begin
    }
}

/// A response, and what else a request has brought.
struct RequestOutcome {
    connections: Connections,
    /// Epoch of the finalized features and their `transaction.version`, if they were requested.
    feature: Option<(i64, i16)>,
    response: Result<Response, RequestFailure>,
}

/// The state that was reported last: gauges are reported as differences, the last one at the end of
/// the task, whether it runs to its end or is aborted.
struct Published {
    transactions: Arc<TransactionShared>,
    metrics: Reporter,
    state: Option<TransactionalProducerState>,
    open_since: Option<Instant>,
}

impl Published {
    fn publish(&mut self, state: Option<TransactionalProducerState>, open_since: Option<Instant>) {
        let transactional_id = &*self.transactions.name;
        let name = |state: Option<TransactionalProducerState>| state.map(TransactionalProducerState::as_str);
        if self.state != state {
            let (was, is) = (name(self.state), name(state));
            self.metrics.report(|| Observation::TransactionalProducer { transactional_id, was, is });
            self.state = state;
        }
        if self.open_since != open_since {
            let (was, is) = (self.open_since.map(Instant::into_std), open_since.map(Instant::into_std));
            self.metrics.report(|| Observation::TransactionOpen { transactional_id, was, is });
            self.open_since = open_since;
        }
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.publish(None, None);
    }
}

/// Runs until the producer is closed.
pub(in crate::producer) async fn run(shared: Arc<ProducerShared>, transactions: Arc<TransactionShared>) {
    let mut connections = Some(Connections::default());
    let mut in_flight = None::<BoxFuture<'static, RequestOutcome>>;
    let cancel = shared.cancel.clone();
    let mut published = Published {
        transactions: Arc::clone(&transactions),
        metrics: shared.client.config().metrics.clone(),
        state: None,
        open_since: None,
    };
    loop {
        let Step { request, wake_at, status: (state, open_since), ended } = step(&shared, &transactions);
        published.publish(Some(state), open_since);
        if let Some(ended) = ended {
            published.metrics.report(|| ended.observation(&transactions.name));
        }
        transactions.changed.notify_waiters();
        if let Some((request, broker)) = request {
            let connections = connections.take().unwrap_or_default();
            in_flight =
                Some(execute(Arc::clone(&shared), Arc::clone(&transactions), connections, request, broker).boxed());
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = shared.transaction.notified() => {}
            () = sleep_until(wake_at) => {}
            outcome = poll_optional(&mut in_flight) => {
                in_flight = None;
                let RequestOutcome { connections: idle, feature, response } = outcome;
                connections = Some(idle);
                let mut core = transactions.core.lock();
                if let Some((epoch, level)) = feature {
                    core.on_feature(epoch, level);
                }
                core.on_response(Instant::now(), response);
            }
        }
    }
}

async fn poll_optional<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Outputs of core and accumulator.
struct Step {
    /// The next request, with the broker that it goes to.
    request: Option<(Request, Option<i32>)>,
    /// Time of the next step.
    wake_at: Option<Instant>,
    /// State, and since when a transaction is open.
    status: (TransactionalProducerState, Option<Instant>),
    ended: Option<TransactionEnd>,
}

/// Brings core and accumulator up to date.
fn step(shared: &ProducerShared, transactions: &TransactionShared) -> Step {
    let now = Instant::now();
    let mut finished = Vec::new();
    let mut core = transactions.core.lock();
    core.on_timeout(now);
    let mut accumulator = shared.lock();
    loop {
        core.on_partitions_used(accumulator.take_partitions_to_add());
        if let Some(failure) = accumulator.transaction_failure() {
            core.on_send_failure(now, failure);
        }
        match core.poll_effect() {
            Some(Effect::SetProducer(producer)) => accumulator.set_producer_id(producer),
            Some(Effect::PartitionsAdded(partitions)) => accumulator.on_partitions_added(&partitions),
            Some(Effect::FailPending(error)) => finished.extend(accumulator.fail_transaction(error)),
            None => break,
        }
    }
    let sends = Sends { any: accumulator.has_used_partitions(), unfinished: accumulator.has_unfinished_batches() };
    drop(accumulator);
    let request = core.poll_request(now, sends).map(|request| {
        let broker = match &request {
            Request::CommitOffsets(_, _, offsets) => core.coordinator(Some(offsets.group.group())),
            _ => core.coordinator(None),
        };
        (request, broker)
    });
    let (wake_at, status, ended) = (core.next_timeout(), core.status(), core.poll_ended());
    drop(core);
    shared.resolve_batches(finished);
    Step { request, wake_at, status, ended }
}

/// Connections to coordinators, by broker.
#[derive(Default)]
struct Connections(HashMap<i32, Connection>);

impl Connections {
    /// Returns the connection to a broker, and whether it is new.
    async fn get(&mut self, shared: &ProducerShared, broker: i32) -> Result<(&Connection, bool)> {
        let is_new = self.0.get(&broker).is_none_or(Connection::is_closed);
        if is_new {
            self.0.insert(broker, shared.cluster().connect(broker).await?);
        }
        Ok((&self.0[&broker], is_new))
    }
}

async fn execute(
    shared: Arc<ProducerShared>,
    transactions: Arc<TransactionShared>,
    mut connections: Connections,
    request: Request,
    broker: Option<i32>,
) -> RequestOutcome {
    let mut feature = None;
    let id = &transactions.transactional_id;
    let response = send(&shared, id, &mut connections, request, broker, &mut feature).await;
    if let Err(e) = &response {
        tracing::debug!(transactional_id = %id, error = %e.error.full(), "a request of a transaction failed");
    }
    RequestOutcome { connections, feature, response }
}

fn no_response(error: crate::Error) -> RequestFailure {
    RequestFailure { code: None, error }
}

async fn send(
    shared: &ProducerShared,
    id: &str,
    connections: &mut Connections,
    request: Request,
    broker: Option<i32>,
    feature: &mut Option<(i64, i16)>,
) -> Result<Response, RequestFailure> {
    let timeout = shared.client.config().request_timeout;
    if let Request::FindCoordinator(group) = &request {
        let key = group.as_ref().map_or(CoordinatorKey::Transaction(id), |group| CoordinatorKey::Group(group));
        let found = shared.cluster().find_coordinator(key).await;
        return found.map(Response::Coordinator).map_err(|e| RequestFailure { code: e.broker_code(), error: e });
    }
    let what = format!("{} of transactional id {id:?}", request.kind().name());
    let Some(broker) = broker else {
        let error = crate::Error::new(crate::ErrorKind::Connect, format!("{what}: its coordinator is not known"));
        return Err(no_response(error));
    };
    let (connection, is_new) = connections.get(shared, broker).await.map_err(no_response)?;
    if is_new || matches!(request, Request::InitProducerId(_)) {
        let versions = connection.request(api_versions_request(), timeout).await.map_err(no_response)?;
        *feature = Some(requests::feature(&versions));
    }
    let what = format!("{what} at {}", connection.peer());
    match request {
        Request::FindCoordinator(_) => Ok(Response::Done), // above
        Request::InitProducerId(present) => {
            let request = requests::init_producer_id(id, shared.config.transaction_timeout, present);
            let response = send_to(connection, request, shared).await?;
            requests::check(response.error_code, &what)?;
            let InitProducerIdResponse { producer_id, producer_epoch: epoch, .. } = response;
            Ok(Response::Producer(ProducerIdAndEpoch { id: producer_id.0, epoch }))
        }
        Request::AddPartitions(producer, partitions) => {
            let request = requests::add_partitions(id, producer, &partitions);
            requests::check_added(&send_to(connection, request, shared).await?, &what)
        }
        Request::AddOffsets(producer, group) => {
            let response = send_to(connection, requests::add_offsets(id, producer, &group), shared).await?;
            requests::check(response.error_code, &format!("{what}, group {group:?}"))?;
            Ok(Response::Done)
        }
        Request::CommitOffsets(producer, version, offsets) => {
            let group = offsets.group.group_id();
            // The member as it is now: a rebalance in which it kept its partitions does not matter.
            let member = offsets.group.member(&mut offsets.offsets.keys());
            let member = member.map_err(|error| RequestFailure { code: Some(code::UNKNOWN_MEMBER_ID), error })?;
            let Some(member) = member else {
                let error = format!("{what}: the member is rejoining group {group:?}");
                let error = crate::Error::new(crate::ErrorKind::GroupMembership, error);
                return Err(RequestFailure { code: Some(code::ILLEGAL_GENERATION), error });
            };
            let generation = member.generation;
            let request = requests::commit_offsets(id, producer, group, member, &offsets.offsets);
            let response = match version {
                Version::V1 => send_to(connection, request, shared).await?,
                Version::V2 => send_to(connection, TransactionV2(request), shared).await?,
            };
            let checked = requests::check_offsets(&response, &format!("{what}, group {group:?}"));
            // 1. A heartbeat advances the member's epoch; its response has not arrived.
            // 2. The offsets are sent with the epoch before, and refused.
            // Kafka before 4.3 refuses them whether or not the partitions have moved. While they are
            // this member's, they are sent again in the epoch that the heartbeat's response brings.
            let is_refused = |failure: &RequestFailure| failure.code.is_some_and(concerns_generation);
            if checked.as_ref().is_err_and(is_refused) {
                offsets.group.on_refused(generation);
            }
            checked
        }
        Request::EndTxn { producer, version, commit } => {
            let request = requests::end_txn(id, producer, commit);
            let response = match version {
                Version::V1 => send_to(connection, request, shared).await?,
                Version::V2 => send_to(connection, TransactionV2(request), shared).await?,
            };
            requests::check_ended(&response, &what)
        }
    }
}

async fn send_to<A: Api>(
    connection: &Connection,
    request: A,
    shared: &ProducerShared,
) -> Result<A::Response, RequestFailure> {
    connection.request(request, shared.client.config().request_timeout).await.map_err(no_response)
}
