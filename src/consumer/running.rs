//! A consumer of a group, as the health of its client sees it.

use std::sync::Arc;
use std::time::Duration;

use super::event_queue::EventQueue;
use super::outlook::Outlook;
use super::status::{ConsumerState, Status};
use crate::config::IsolationLevel;
use crate::record::TopicPartition;

/// Exists until its consumer is closed or dropped, also after an error has ended that.
#[derive(Debug)]
pub(crate) struct RunningConsumer {
    pub(crate) group: String,
    pub(crate) topics: Vec<String>,
    pub(super) isolation_level: IsolationLevel,
    pub(super) events: Arc<EventQueue>,
    pub(super) status: Arc<Status>,
    pub(crate) outlook: Outlook,
}

#[derive(Debug)]
pub(crate) struct RunningPartition {
    pub(crate) partition: TopicPartition,
    pub(crate) position: Option<i64>,
    pub(crate) committed: Option<i64>,
    pub(crate) lag: Option<i64>,
}

impl RunningConsumer {
    /// Returns the state, and the time since it was entered.
    pub(crate) fn state(&self) -> (ConsumerState, Duration) {
        self.status.state_for()
    }

    pub(crate) fn member(&self) -> (Option<String>, Option<i32>) {
        (self.status.member_id(), self.status.generation())
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
