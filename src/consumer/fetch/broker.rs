//! The fetch task of one broker: it sends the requests that the planner plans, over a connection of its own.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::planner::{FetchFrom, PartitionRequest, Plan, PositionCheck};
use super::requests::{
    decode_leader_epochs, decode_list_offsets, fetch_request, leader_epochs_request, list_offsets_request,
};
use super::source::FetchPlan;
use super::tasks::FetchState;
use crate::cluster::Backoff;
use crate::consumer::event::StartOffset;
use crate::error::{Error, ErrorKind, Result};
use crate::failure::Outage;
use crate::wire::Connection;

/// Fetches from a broker for as long as it is the source of a partition.
pub(super) async fn run(f: Arc<FetchState>, broker: i32) {
    let (backoff, outage) = (f.client.cluster().backoff(), f.client.cluster().outages().part());
    let mut fetcher = BrokerFetcher { f: Arc::clone(&f), broker, connection: None, backoff, outage, reported: false };
    let ended = f.cancel.run_until_cancelled(fetcher.run()).await;
    f.unreachable.lock().remove(&broker);
    if ended.is_some() {
        fetcher.record_recovery(); // its partitions are fetched from other brokers
    }
    if let Some(connection) = fetcher.connection {
        connection.close().await; // a long poll would keep it open
    }
}

/// A broker and the connection to it.
struct BrokerFetcher {
    f: Arc<FetchState>,
    broker: i32,
    connection: Option<Connection>,
    backoff: Backoff,
    outage: Outage,
    /// True if a response that can't be decoded was reported to the application.
    reported: bool,
}

impl BrokerFetcher {
    async fn run(&mut self) {
        loop {
            let f = Arc::clone(&self.f);
            let mut changed = pin!(f.changed.notified());
            changed.as_mut().enable(); // a change after this line is not missed
            let now = Instant::now();
            if f.planner().expire_preferred_replicas(now) {
                f.wake();
            }
            let plan = f.planner().plan(self.broker, now);
            match plan {
                Plan::Stop => return,
                Plan::Wait(None) => changed.await,
                Plan::Wait(Some(until)) => _ = tokio::time::timeout_at(until, changed).await,
                Plan::ListOffsets(requests) => {
                    let outcome = self.list_offsets(&requests).await;
                    self.on_request_done(&requests, outcome).await;
                }
                Plan::Validate(requests) => {
                    let outcome = self.validate(&requests).await;
                    self.on_request_done(&requests, outcome).await;
                }
                Plan::Fetch(plan) => {
                    let outcome = self.fetch(&plan).await;
                    self.on_request_done::<FetchFrom>(&[], outcome).await;
                }
            }
        }
    }

    /// Handles the outcome of a request. After a failure the connection is closed, and the partitions are requested again after
    /// the backoff.
    async fn on_request_done<T>(&mut self, requests: &[PartitionRequest<T>], outcome: Result<()>) {
        let Err(e) = outcome else {
            self.backoff.reset();
            self.reported = false;
            return self.record_recovery();
        };
        let f = Arc::clone(&self.f);
        if let Some(connection) = self.connection.take() {
            connection.kill("its last request failed");
        }
        {
            let mut planner = f.planner();
            planner.on_failure(self.broker);
            let current: Vec<_> =
                requests.iter().filter(|request| planner.is_current(request)).map(|a| a.lease.clone()).collect();
            let fetched = planner.clear_in_flight_of(self.broker);
            for lease in current.iter().chain(&fetched) {
                planner.drop_preferred_replica(lease, self.broker, Instant::now());
                planner.clear_in_flight([lease]);
            }
        }
        f.wake();
        self.record_failure(&e);
        f.events.meter().failed("consumer", e.kind());
        // Retries alone may not help against a corrupt response or an unsupported API: the application is notified, once.
        if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported)
            && !std::mem::replace(&mut self.reported, true)
        {
            f.events.push_error(None, e);
        }
        f.client.cluster().refresh_soon(); // another broker may be the leader by now
        tokio::time::sleep(self.backoff.next()).await;
    }

    /// Logs an outage of the broker at intervals, with the partitions that wait for it.
    fn record_failure(&mut self, e: &Error) {
        let (f, broker) = (&self.f, self.broker);
        let lasted = self.outage.record_failure(Instant::now(), e);
        if let Some(outage) = self.outage.ongoing() {
            f.unreachable.lock().insert(broker, outage);
        }
        if let Some(lasted) = lasted {
            let partitions = f.waiting_for(broker);
            let address = f.client.cluster().snapshot().brokers.get(&broker).map(ToString::to_string);
            let address = address.unwrap_or_else(|| "an unknown address".into());
            tracing::warn!(
                broker, address, partitions, error = %e.full(),
                "fetching from a broker fails, {lasted}; it is retried"
            );
        }
    }

    fn record_recovery(&mut self) {
        if self.outage.ongoing().is_some() {
            self.f.unreachable.lock().remove(&self.broker);
            self.outage.log_recovery(Instant::now());
        }
    }

    async fn connect(&mut self) -> Result<&Connection> {
        if self.connection.as_ref().is_some_and(Connection::is_closed) {
            self.connection = None;
        }
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => {
                let began = Instant::now();
                let connection = self.f.client.cluster().connect(self.broker).await?;
                // Two round trips at least: TCP's and that of ApiVersions.
                self.f.planner().on_round_trip(self.broker, began.elapsed() / 2);
                Ok(none.insert(connection))
            }
        }
    }

    /// Lists offsets at the ends of logs or at timestamps (ListOffsets).
    async fn list_offsets(&mut self, requests: &[PartitionRequest<StartOffset>]) -> Result<()> {
        let (f, broker) = (Arc::clone(&self.f), self.broker);
        let timeout = f.client.config().request_timeout;
        let request = list_offsets_request(requests, f.config.isolation_level);
        let connection = self.connect().await?;
        let began = Instant::now();
        let response = connection.request(request, timeout).await?;
        f.planner().on_round_trip(broker, began.elapsed());
        let mut offsets = decode_list_offsets(response);
        for request in requests {
            let listed = offsets.remove(&request.lease.partition);
            let must_commit = f.on_offset_listed(request, listed);
            if let (Some(offset), Some(reset_offsets)) = (must_commit, &f.reset_offsets) {
                _ = reset_offsets.send((request.lease.clone(), offset)).await; // the group's task may have ended
            }
        }
        Ok(())
    }

    /// Checks whether the logs still contain what was read before (OffsetForLeaderEpoch, KIP-320).
    async fn validate(&mut self, requests: &[PartitionRequest<PositionCheck>]) -> Result<()> {
        let (f, broker) = (Arc::clone(&self.f), self.broker);
        let timeout = f.client.config().request_timeout;
        let response = match self.connect().await?.request(leader_epochs_request(requests), timeout).await {
            Err(e) if e.kind() == ErrorKind::Unsupported => {
                tracing::debug!(broker, "the broker can't validate positions: truncation goes unnoticed");
                f.planner().skip_validation(requests.iter().map(|a| &a.lease));
                f.wake();
                return Ok(());
            }
            response => response?,
        };
        let mut ends = decode_leader_epochs(&response);
        for request in requests {
            f.on_epoch_end(request, ends.remove(&request.lease.partition));
        }
        f.wake(); // a preferred replica may be fetched from again
        Ok(())
    }

    async fn fetch(&mut self, plan: &FetchPlan) -> Result<()> {
        let (f, broker) = (Arc::clone(&self.f), self.broker);
        let timeout = plan.wait + f.client.config().request_timeout;
        let request = fetch_request(plan, &f.config);
        let connection = self.connect().await?;
        let response = connection.request(request, timeout).await?;
        connection.report_throttle("Fetch", Duration::from_millis(response.throttle_time_ms.try_into().unwrap_or(0)));
        let partitions = response.responses.iter().flat_map(|t| &t.partitions);
        let bytes = partitions.map(|p| p.records.as_ref().map_or(0, Bytes::len)).sum();
        let now = Instant::now();
        let counts = f.planner().on_response(broker, now, response.error_code, response.session_id, bytes);
        if !counts {
            tracing::debug!(broker, "the broker has dropped the fetch session: a new one is opened");
        } else if response.error_code != 0 {
            return Err(Error::broker(response.error_code, format_args!("fetching from broker {broker}")));
        } else {
            f.on_fetch_response(response, broker, bytes).await;
        }
        f.planner().clear_in_flight_of(broker);
        Ok(())
    }
}

impl FetchState {
    /// Handles the offset listed for a partition, or its error code. Returns the offset if it must be committed.
    fn on_offset_listed(
        &self,
        request: &PartitionRequest<StartOffset>,
        listed: Option<Result<(i64, Option<i32>), i16>>,
    ) -> Option<i64> {
        let p = &request.lease;
        let mut planner = self.planner();
        if !planner.is_current(request) {
            return None;
        }
        match listed {
            None => planner.clear_in_flight([p]),
            Some(Err(code)) => {
                drop(planner);
                self.on_partition_error(p, code, "finding the start offset of");
            }
            Some(Ok((offset, epoch))) => {
                let resolved = planner.on_offset_resolved(p, request.what, offset, epoch);
                if let Some(offset) = resolved.at {
                    self.events.set_position(p, offset);
                }
                drop(planner);
                if let Some(e) = resolved.report {
                    self.report_error(Some(p), e);
                }
                return resolved.at.filter(|_| resolved.must_commit);
            }
        }
        None
    }

    /// Handles the end offset of a leader epoch, or an error code: the position is moved back if the log was truncated below it.
    fn on_epoch_end(&self, request: &PartitionRequest<PositionCheck>, end: Option<Result<Option<i64>, i16>>) {
        let p = &request.lease;
        let mut planner = self.planner();
        if !planner.is_current(request) {
            return;
        }
        match end {
            None => planner.clear_in_flight([p]),
            Some(Err(code)) => {
                drop(planner);
                self.on_partition_error(p, code, "validating the position of");
            }
            Some(Ok(end)) => {
                if let Some(end) = planner.on_validated(p, request.what, end) {
                    let new = self.events.truncate(p, end);
                    tracing::warn!(
                        partition = %p, position = request.what.offset, truncated_to = end, new,
                        "the log was truncated below the position: it is read from the new position"
                    );
                    planner.seek(p, StartOffset::Offset(new));
                }
            }
        }
    }
}
