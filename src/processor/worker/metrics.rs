//! Metrics of a worker. Without a metrics sink nothing is stored.

use std::time::Duration;

use crate::error::ErrorKind;
use crate::metrics::{Histogram, Observation, Reporter};
use crate::record::TopicPartition;

/// Number of records of a partition by state; see [`Observation::Backlog`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backlog {
    pub(super) in_flight: usize,
    pub(super) waiting: usize,
    pub(super) parked: usize,
    pub(super) parked_keys: usize,
    pub(super) position: Option<i64>,
}

pub(super) struct WorkerMetrics {
    metrics: Reporter,
    partition: TopicPartition,
    /// Handler calls that finished since the last `publish`.
    calls: Option<Box<Calls>>,
    reported: Option<Backlog>,
}

#[derive(Default)]
struct Calls {
    done: Histogram,
    failed: Histogram,
}

impl WorkerMetrics {
    pub(super) fn new(metrics: &Reporter, partition: TopicPartition) -> Self {
        Self { metrics: metrics.clone(), partition, calls: metrics.is_on().then(Box::default), reported: None }
    }

    pub(super) fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    #[inline]
    pub(super) fn on_call(&mut self, took: Duration, failed: bool) {
        if let Some(calls) = &mut self.calls {
            if failed { calls.failed.add(took) } else { calls.done.add(took) }
        }
    }

    pub(super) fn on_failure(&self, group: &str, retried: bool) {
        let TopicPartition { topic, partition } = &self.partition;
        self.metrics.report(|| Observation::AttemptFailed { group, topic, partition: *partition, retried });
        self.metrics.failed("handler", ErrorKind::Handler);
    }

    pub(super) fn on_skipped(&self, group: &str) {
        let TopicPartition { topic, partition } = &self.partition;
        self.metrics.report(|| Observation::Skipped { group, topic, partition: *partition });
    }

    /// Reports the calls since the last time, and the backlog if it changed.
    pub(super) fn publish(&mut self, group: &str, now: Backlog) {
        let Some(calls) = &mut self.calls else { return };
        let TopicPartition { topic, partition } = &self.partition;
        let partition = *partition;
        if calls.done.count() + calls.failed.count() > 0 {
            let Calls { done, failed } = std::mem::take(&mut **calls);
            self.metrics.report(|| Observation::Handled { group, topic, partition, done: &done, failed: &failed });
        }
        if self.reported != Some(now) {
            self.reported = Some(now);
            let Backlog { in_flight, waiting, parked, parked_keys, position } = now;
            self.metrics.report(|| Observation::Backlog {
                group,
                topic,
                partition,
                in_flight,
                waiting,
                parked,
                parked_keys,
                position,
            });
        }
    }
}
