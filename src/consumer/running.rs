//! A consumer of a group, as the health of its client sees it.

use std::sync::Arc;

use super::event::Watermarks;
use super::event_queue::EventQueue;
use super::status::Status;
use crate::config::IsolationLevel;
use crate::record::TopicPartition;

/// Exists until its consumer is closed or dropped, also after an error has ended that.
#[derive(Debug)]
pub(crate) struct RunningConsumer {
    pub(crate) group: String,
    pub(crate) topics: Vec<String>,
    pub(super) isolation_level: IsolationLevel,
    pub(super) events: Arc<EventQueue>,
    pub(crate) status: Arc<Status>,
}

#[derive(Debug)]
pub(crate) struct RunningPartition {
    pub(crate) partition: TopicPartition,
    pub(crate) position: Option<i64>,
    pub(crate) committed: Option<i64>,
    pub(crate) lag: Option<i64>,
}

impl RunningConsumer {
    /// Returns the watermarks of its partitions, as of their last fetches, if it reads committed
    /// records alone.
    pub(crate) fn read_committed_watermarks(&self) -> Vec<(TopicPartition, Watermarks)> {
        if self.isolation_level != IsolationLevel::ReadCommitted {
            return Vec::new();
        }
        let watermarks = |p: TopicPartition| self.events.watermarks(&p).map(|w| (p, w));
        self.status.assignment().into_iter().filter_map(watermarks).collect()
    }

    pub(crate) fn partitions(&self) -> Vec<RunningPartition> {
        let one = |partition: TopicPartition| {
            let position = self.events.position(&partition);
            let watermarks = self.events.watermarks(&partition);
            let lag = watermarks.zip(position).map(|(w, position)| w.lag(position, self.isolation_level));
            let committed = self.status.committed_offset(&partition).map(|at| at.offset);
            RunningPartition { partition, position, committed, lag }
        };
        self.status.assignment().into_iter().map(one).collect()
    }
}
