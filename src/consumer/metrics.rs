//! Metrics of a consumer, labelled with its group.

use std::sync::Arc;

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

    /// Reports an observation, which is made of the group's name if there is a sink.
    pub(crate) fn report<'a>(&'a self, observation: impl FnOnce(&'a str) -> Observation<'a>) {
        self.metrics.report(|| observation(&self.group));
    }

    pub(crate) fn state(&self, was: Option<&'static str>, is: Option<&'static str>) {
        if was != is {
            self.report(|group| Observation::Member { group, was, is });
        }
    }

    pub(crate) fn unassigned(&self, TopicPartition { topic, partition }: &TopicPartition, lost: bool) {
        self.metrics.report(|| Observation::Unassigned { group: &self.group, topic, partition: *partition, lost });
    }

    pub(crate) fn consumed(&self, records: &Records) {
        let Records { topic, partition, next_offset, .. } = records;
        let (group, partition, position) = (&*self.group, *partition, *next_offset);
        let records = records.records.len();
        self.metrics.report(|| Observation::Consumed { group, topic, partition, records, position });
    }
}
