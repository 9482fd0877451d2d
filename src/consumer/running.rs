//! A consumer of a group, as the health of its client sees it.

use std::sync::Arc;
use std::time::Duration;

use super::Consumer;
use super::event_queue::EventQueue;
use super::outlook::Outlook;
use super::seek::lag;
use super::status::{ConsumerState, Status};
use crate::config::IsolationLevel;
use crate::record::TopicPartition;

/// Lives as long as its consumer is neither closed nor dropped, also when it has ended with an error.
#[derive(Debug)]
pub(crate) struct RunningConsumer {
    pub(crate) group: String,
    pub(crate) topics: Vec<String>,
    pub(super) isolation_level: IsolationLevel,
    pub(super) events: Arc<EventQueue>,
    pub(super) status: Arc<Status>,
    pub(crate) outlook: Outlook,
}

/// A partition of such a consumer.
#[derive(Debug)]
pub(crate) struct RunningPartition {
    pub(crate) partition: TopicPartition,
    pub(crate) position: Option<i64>,
    pub(crate) committed: Option<i64>,
    pub(crate) lag: Option<i64>,
}

impl RunningConsumer {
    pub(super) fn new(group: &str, topics: &[impl AsRef<str>], consumer: &Consumer) -> Self {
        Self {
            group: group.to_owned(),
            topics: topics.iter().map(|t| t.as_ref().to_owned()).collect(),
            isolation_level: consumer.isolation_level,
            events: Arc::clone(&consumer.events),
            status: Arc::clone(&consumer.status),
            outlook: consumer.outlook(),
        }
    }

    /// Returns its place in the group, and for how long it has been there.
    pub(crate) fn state(&self) -> (ConsumerState, Duration) {
        self.status.state_for()
    }

    pub(crate) fn member(&self) -> (Option<String>, Option<i32>) {
        (self.status.member_id(), self.status.generation())
    }

    pub(crate) fn partitions(&self) -> Vec<RunningPartition> {
        let one = |partition: TopicPartition| {
            let position = self.events.position(&partition);
            let lag = lag(self.events.watermarks(&partition), position, self.isolation_level);
            let committed = self.status.committed_offset(&partition).map(|at| at.offset);
            RunningPartition { partition, position, committed, lag }
        };
        self.status.assignment().into_iter().map(one).collect()
    }
}
