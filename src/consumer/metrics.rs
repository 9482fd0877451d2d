//! Metrics of a consumer, labelled with its group.

use std::sync::Arc;
use std::time::Duration;

use super::event::Records;
use crate::error::ErrorKind;
use crate::metrics::{Observation, Reporter};
use crate::record::TopicPartition;

/// Reports the metrics of a consumer; does nothing without a sink.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter {
    metrics: Reporter,
    /// Empty without a group.
    group: Arc<str>,
}

impl Meter {
    pub(crate) fn new(metrics: &Reporter, group: &str) -> Self {
        Self { metrics: metrics.clone(), group: group.into() }
    }

    pub(crate) fn failed(&self, part: &'static str, error: ErrorKind) {
        self.metrics.failed(part, error);
    }

    pub(crate) fn state(&self, was: Option<&'static str>, is: Option<&'static str>) {
        if was != is {
            self.metrics.report(|| Observation::Member { group: &self.group, was, is });
        }
    }

    pub(crate) fn assigned(&self, p: &TopicPartition) {
        let TopicPartition { topic, partition } = p;
        self.metrics.report(|| Observation::Assigned { group: &self.group, topic, partition: *partition });
    }

    pub(crate) fn unassigned(&self, p: &TopicPartition, lost: bool) {
        let TopicPartition { topic, partition } = p;
        self.metrics.report(|| Observation::Unassigned { group: &self.group, topic, partition: *partition, lost });
    }

    pub(crate) fn rebalanced(&self, took: Duration) {
        self.metrics.report(|| Observation::Rebalanced { group: &self.group, took });
    }

    pub(crate) fn committed(&self, partitions: usize, error: Option<ErrorKind>) {
        self.metrics.report(|| Observation::Committed { group: &self.group, partitions, error });
    }

    pub(crate) fn committed_offset(&self, p: &TopicPartition, offset: i64) {
        let (group, topic, partition) = (&*self.group, &*p.topic, p.partition);
        self.metrics.report(|| Observation::CommittedOffset { group, topic, partition, offset });
    }

    pub(crate) fn fetched(&self, p: &TopicPartition, fetched: FetchedStats, end: i64) {
        let FetchedStats { batches, records, bytes, uncompressed } = fetched;
        let (group, topic, partition) = (&*self.group, &*p.topic, p.partition);
        self.metrics.report(|| Observation::Fetched {
            group,
            topic,
            partition,
            batches,
            records,
            bytes,
            uncompressed,
            end,
        });
    }

    pub(crate) fn consumed(&self, records: &Records) {
        let Records { topic, partition, next_offset, .. } = records;
        let (group, partition, position) = (&*self.group, *partition, *next_offset);
        let records = records.records.len();
        self.metrics.report(|| Observation::Consumed { group, topic, partition, records, position });
    }
}

/// Sizes of what a fetch has brought of a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FetchedStats {
    pub(crate) batches: u32,
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    pub(crate) uncompressed: usize,
}
