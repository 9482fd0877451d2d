//! Assigned partitions whose committed offsets are not known yet: the application does not see
//! their assignment before.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::requests::RequestFailure;
use super::session::COORDINATOR_MOVE_GRACE;
use crate::cluster::offset_commit::OffsetAndMetadata;
use crate::cluster::{Backoff, Cluster};
use crate::consumer::lease::{Lease, Leases};
use crate::consumer::offsets::requests::{committed_request, decode_committed};
use crate::error::{Error, ErrorKind};
use crate::failure::{Outage, is_fatal, is_fatal_code};
use crate::record::TopicPartition;
use crate::wire::Connection;

/// The response to an OffsetFetch for these partitions.
pub(super) type CommittedOffsets = (Vec<Lease>, Result<HashMap<TopicPartition, OffsetAndMetadata>, RequestFailure>);

/// Result of an OffsetFetch.
pub(super) enum StartOffsets {
    /// Committed offsets of these partitions, as far as there are any.
    Known(Vec<Lease>, HashMap<TopicPartition, OffsetAndMetadata>),
    /// It is sent again; the code may concern the membership.
    Retry(Option<i16>),
    Fatal(Error),
}

pub(super) struct AwaitingOffsets {
    group: String,
    leases: Leases,
    pub(super) in_flight: Option<BoxFuture<'static, CommittedOffsets>>,
    retry_at: Instant,
    backoff: Backoff,
    pub(super) outage: Outage,
    /// True to wait for open transactions; brokers support that from 2.5 on.
    require_stable: bool,
}

impl AwaitingOffsets {
    pub(super) fn new(group: &str, cluster: &Cluster, now: Instant) -> Self {
        Self {
            group: group.into(),
            leases: Leases::default(),
            in_flight: None,
            retry_at: now,
            backoff: cluster.backoff(),
            outage: cluster.outages().part(),
            require_stable: true,
        }
    }

    pub(super) fn insert(&mut self, now: Instant, leases: impl IntoIterator<Item = Lease>) {
        leases.into_iter().for_each(|lease| _ = self.leases.insert(lease));
        self.retry_at = now;
    }

    pub(super) fn remove(&mut self, partitions: &[TopicPartition]) {
        partitions.iter().for_each(|p| _ = self.leases.remove(p));
    }

    /// Time at which [`send_due`](Self::send_due) has something to send.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (self.in_flight.is_none() && !self.leases.is_empty()).then_some(self.retry_at)
    }

    pub(super) fn send_due(&mut self, now: Instant, connection: &Connection, timeout: Duration) {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return;
        }
        let leases: Vec<_> = self.leases.all().collect();
        let partitions: Vec<_> = leases.iter().map(|l| l.partition.clone()).collect();
        let request = committed_request(&self.group, &partitions, self.require_stable);
        let response = connection.submit(request, timeout);
        let outcome = async move {
            let response = response.await.map_err(RequestFailure::Connection);
            (leases, response.and_then(|r| decode_committed(&r).map_err(RequestFailure::Code)))
        };
        self.in_flight = Some(outcome.boxed());
    }

    pub(super) fn on_response(&mut self, now: Instant, (mut leases, committed): CommittedOffsets) -> StartOffsets {
        // 1. OffsetFetch is in flight for partition 0.
        // 2. The partition is lost and assigned again, under a new lease; meanwhile another member
        //    may have committed.
        // 3. The response arrives: it is too old for the new lease, which gets a request of its
        //    own.
        leases.retain(|lease| self.leases.holds(lease));
        let committed = match committed {
            Ok(committed) => committed,
            Err(RequestFailure::Connection(e)) if e.kind() == ErrorKind::Unsupported && self.require_stable => {
                self.require_stable = false; // an older broker
                return StartOffsets::Retry(None);
            }
            Err(failure) => return self.on_failure(now, failure),
        };
        self.outage.log_recovery(now);
        self.backoff.reset();
        leases.iter().for_each(|lease| _ = self.leases.remove(&lease.partition));
        StartOffsets::Known(leases, committed)
    }

    fn on_failure(&mut self, now: Instant, failure: RequestFailure) -> StartOffsets {
        let what = format!("fetching the committed offsets of group {:?}", self.group);
        let (e, code) = match failure {
            RequestFailure::Code(code) => (Error::broker(code, what), Some(code)),
            RequestFailure::Connection(e) => (e.context(what), None),
        };
        if is_fatal(&e) || code.is_some_and(is_fatal_code) {
            return StartOffsets::Fatal(e);
        }
        if let Some(lasted) = self.outage.record_failure_with_grace(now, &e, COORDINATOR_MOVE_GRACE) {
            let (group, error) = (&self.group, e.full());
            tracing::warn!(%group, %error, "committed offsets can't be fetched, {lasted}; retrying");
        }
        self.retry_at = now + self.backoff.next();
        StartOffsets::Retry(code)
    }
}
