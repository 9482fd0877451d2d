//! What a consumer waits for: for health, and for the program.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::fetch::tasks::FetchState;
use super::status::Status;
use crate::error::Error;
use crate::failure::OngoingOutage;
use crate::record::TopicPartition;

/// Something that a consumer waits for, from [`Consumer::problems`](super::Consumer::problems): it is tried again, and goes on by itself when it
/// can.
///
/// ```
/// # fn show(consumer: &ailurus::Consumer) {
/// for problem in consumer.problems() {
///     let what = problem.partition.as_ref().map_or("the group".to_owned(), ToString::to_string);
///     println!("{what} for {:?}: {:#}", problem.lasted, problem.error);
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Problem {
    /// Partition that can't be read; none if it is the membership in the group that does not work.
    pub partition: Option<TopicPartition>,
    /// Time since the first failure.
    pub lasted: Duration,
    /// The last failure.
    pub error: Error,
}

/// Tells what a consumer waits for; cheap to clone, for whoever asks.
#[derive(Debug, Clone)]
pub(crate) struct Outlook {
    status: Arc<Status>,
    /// The consumer's own: health does not keep it.
    fetch_state: Weak<FetchState>,
}

impl Outlook {
    pub(super) fn new(status: &Arc<Status>, fetch_state: Option<&Arc<FetchState>>) -> Self {
        Self { status: Arc::clone(status), fetch_state: fetch_state.map(Arc::downgrade).unwrap_or_default() }
    }

    /// Of a consumer that waits for nothing.
    #[cfg(test)]
    pub(crate) fn clear() -> Self {
        Self::new(&Arc::new(Status::new(super::metrics::Meter::default())), None)
    }

    /// What keeps it from its group.
    pub(crate) fn of_group(&self) -> Option<OngoingOutage> {
        self.status.current_trouble()
    }

    /// What keeps its partitions from being read.
    pub(crate) fn of_partitions(&self) -> Vec<(TopicPartition, OngoingOutage)> {
        self.fetch_state.upgrade().map(|fetch_state| fetch_state.outages()).unwrap_or_default()
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let now = Instant::now();
        let problem = |partition, OngoingOutage { since, error }| Problem {
            partition,
            lasted: now.saturating_duration_since(since),
            error,
        };
        let group = self.of_group().map(|trouble| problem(None, trouble));
        let partitions = self.of_partitions().into_iter().map(|(p, trouble)| problem(Some(p), trouble));
        group.into_iter().chain(partitions).collect()
    }
}
