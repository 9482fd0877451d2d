//! Problems of a consumer, for health and for the application.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::fetch::tasks::FetchState;
use super::status::Status;
use crate::error::Error;
use crate::failure::OngoingOutage;
use crate::record::TopicPartition;

/// Something that a consumer waits for, from [`Consumer::problems`](super::Consumer::problems). It
/// is retried until it works.
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
    /// Partition that can't be read; none if the membership in the group fails.
    pub partition: Option<TopicPartition>,
    /// Time since the first failure.
    pub lasted: Duration,
    /// The last failure.
    pub error: Error,
}

/// Handle to the problems of a consumer. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Outlook {
    status: Arc<Status>,
    /// Weak: health must not keep it alive.
    fetch_state: Weak<FetchState>,
}

impl Outlook {
    pub(super) fn new(status: &Arc<Status>, fetch_state: Option<&Arc<FetchState>>) -> Self {
        Self { status: Arc::clone(status), fetch_state: fetch_state.map(Arc::downgrade).unwrap_or_default() }
    }

    /// Creates one without problems.
    #[cfg(test)]
    pub(crate) fn clear() -> Self {
        Self::new(&Arc::new(Status::new(super::metrics::Meter::default())), None)
    }

    /// Returns the outage of the membership.
    pub(crate) fn of_group(&self) -> Option<OngoingOutage> {
        self.status.outage()
    }

    /// Returns the outages of partitions.
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
        let group = self.of_group().map(|outage| problem(None, outage));
        let partitions = self.of_partitions().into_iter().map(|(p, outage)| problem(Some(p), outage));
        group.into_iter().chain(partitions).collect()
    }
}
