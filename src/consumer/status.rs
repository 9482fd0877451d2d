//! State of a consumer, for the application, health and metrics.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::fetch::tasks::FetchState;
use super::lease::{Lease, Leases};
use super::metrics::Meter;
use crate::cluster::offset_commit::OffsetAndMetadata;
use crate::error::Error;
use crate::failure::OngoingOutage;
use crate::lock::Lock;
use crate::metrics::Observation;
use crate::record::TopicPartition;

/// A consumer's place in its group.
///
/// ```
/// use ailurus::consumer::ConsumerState;
///
/// assert_eq!(ConsumerState::Member.to_string(), "member");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ConsumerState {
    /// It looks for the coordinator, or waits for a rebalance.
    #[default]
    Joining,
    /// It has its partitions, perhaps none. A consumer without a group is always in this state.
    Member,
    /// It was closed, or ended with an error.
    Closed,
    /// Read from the JSON of a newer version, which has a state that this one does not know.
    #[serde(other)]
    Unknown,
}

impl ConsumerState {
    /// Returns `joining`, `member` or `closed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Member => "member",
            Self::Closed => "closed",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for ConsumerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

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

/// State shared between a consumer and its tasks.
#[derive(Debug)]
pub(crate) struct Status {
    inner: Lock<Inner>,
    meter: Meter,
    began: Instant,
    /// State of its fetch tasks, once they have started. Weak: health must not keep it alive.
    fetch_state: OnceLock<Weak<FetchState>>,
}

#[derive(Debug, Default)]
struct Inner {
    state: ConsumerState,
    /// Start of the state; none before the first change.
    entered: Option<Instant>,
    member_id: Option<String>,
    generation: Option<i32>,
    assignment: Leases,
    committed: HashMap<TopicPartition, OffsetAndMetadata>,
    /// Outage of the membership.
    outage: Option<OngoingOutage>,
}

impl Inner {
    fn enter(&mut self, state: ConsumerState, meter: &Meter) {
        let counted = |state| Some(state).filter(|s| *s != ConsumerState::Closed).map(ConsumerState::as_str);
        let was = std::mem::replace(&mut self.state, state);
        if was != state {
            self.entered = Some(Instant::now());
        }
        meter.state(counted(was), counted(state));
    }

    fn assign(&mut self, leases: &[Lease], meter: &Meter) {
        for lease in leases {
            if self.assignment.insert(lease.clone()) {
                let TopicPartition { topic, partition } = &lease.partition;
                meter.report(|group| Observation::Assigned { group, topic, partition: *partition });
            }
        }
    }
}

#[cfg(test)]
impl Default for Status {
    fn default() -> Self {
        Self::new(Meter::default())
    }
}

impl Status {
    pub(crate) fn new(meter: Meter) -> Self {
        meter.state(None, Some(ConsumerState::default().as_str()));
        Self { inner: Lock::default(), meter, began: Instant::now(), fetch_state: OnceLock::new() }
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Returns the state, unless the consumer is closed: a task may not have seen that yet.
    fn open(&self) -> Option<MutexGuard<'_, Inner>> {
        Some(self.inner.lock()).filter(|s| s.state != ConsumerState::Closed)
    }

    /// Enters `joining`. A member that rebalances cooperatively keeps its partitions.
    pub(crate) fn joining(&self) {
        let Some(mut s) = self.open() else { return };
        s.enter(ConsumerState::Joining, &self.meter);
        s.generation = s.generation.filter(|_| !s.assignment.is_empty());
    }

    pub(crate) fn member(&self, id: &str, generation: i32, added: &[Lease]) {
        let Some(mut s) = self.open() else { return };
        s.enter(ConsumerState::Member, &self.meter);
        s.member_id = Some(id.into());
        s.generation = Some(generation);
        s.assign(added, &self.meter);
    }

    /// Enters `member` without a group.
    pub(crate) fn alone(&self, partitions: &[Lease]) {
        let Some(mut s) = self.open() else { return };
        s.enter(ConsumerState::Member, &self.meter);
        s.assign(partitions, &self.meter);
    }

    /// Removes partitions, `lost` if the member did not give them back.
    pub(crate) fn unassigned(&self, partitions: &[TopicPartition], lost: bool) {
        let s = &mut *self.inner.lock();
        for p in partitions {
            if s.assignment.remove(p) {
                self.meter.unassigned(p, lost);
            }
            s.committed.remove(p);
        }
    }

    pub(crate) fn closed(&self) {
        let mut s = self.inner.lock();
        let id = s.member_id.take();
        s.enter(ConsumerState::Closed, &self.meter);
        s.assignment.partitions().for_each(|p| self.meter.unassigned(p, false));
        *s = Inner { state: ConsumerState::Closed, entered: s.entered, member_id: id, ..Inner::default() };
    }

    /// Records committed offsets of assigned partitions.
    pub(crate) fn committed(&self, offsets: &HashMap<TopicPartition, OffsetAndMetadata>) {
        let s = &mut *self.inner.lock();
        let assigned = offsets.iter().filter(|(p, _)| s.assignment.contains(p));
        for (TopicPartition { topic, partition }, OffsetAndMetadata { offset, .. }) in assigned.clone() {
            let (partition, offset) = (*partition, *offset);
            self.meter.report(|group| Observation::CommittedOffset { group, topic, partition, offset });
        }
        s.committed.extend(assigned.map(|(p, offset)| (p.clone(), offset.clone())));
    }

    /// Sets the outage of the membership.
    pub(crate) fn set_outage(&self, outage: Option<OngoingOutage>) {
        self.inner.lock().outage = outage;
    }

    /// Returns the outage of the membership.
    pub(crate) fn outage(&self) -> Option<OngoingOutage> {
        self.inner.lock().outage.clone()
    }

    pub(super) fn set_fetch_state(&self, fetch_state: &Arc<FetchState>) {
        _ = self.fetch_state.set(Arc::downgrade(fetch_state)); // once, when its tasks start
    }

    /// Returns the partitions that can't be read now, each with its outage.
    pub(crate) fn partition_outages(&self) -> Vec<(TopicPartition, OngoingOutage)> {
        self.fetch_state.get().and_then(Weak::upgrade).map(|fetch_state| fetch_state.outages()).unwrap_or_default()
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let now = Instant::now();
        let problem = |(partition, OngoingOutage { since, error })| Problem {
            partition,
            lasted: now.saturating_duration_since(since),
            error,
        };
        let group = self.outage().map(|outage| (None, outage));
        let partitions = self.partition_outages().into_iter().map(|(p, outage)| (Some(p), outage));
        group.into_iter().chain(partitions).map(problem).collect()
    }

    pub(crate) fn state(&self) -> ConsumerState {
        self.inner.lock().state
    }

    /// Returns the state, and the time since it was entered.
    pub(crate) fn state_for(&self) -> (ConsumerState, Duration) {
        let s = self.inner.lock();
        (s.state, s.entered.unwrap_or(self.began).elapsed())
    }

    pub(crate) fn member_id(&self) -> Option<String> {
        self.inner.lock().member_id.clone()
    }

    pub(crate) fn generation(&self) -> Option<i32> {
        self.inner.lock().generation
    }

    /// Returns member id and generation, if all of these leases are in force. A lease that ends
    /// later does so before the generation changes: a commit with this one is then refused.
    pub(crate) fn member_of<'a>(&self, mut leases: impl Iterator<Item = &'a Lease>) -> Option<(String, i32)> {
        let s = self.inner.lock();
        let is_member = leases.all(|lease| s.assignment.holds(lease));
        s.member_id.clone().zip(s.generation).filter(|_| is_member)
    }

    /// Returns whether a lease is in force.
    pub(crate) fn holds(&self, lease: &Lease) -> bool {
        self.inner.lock().assignment.holds(lease)
    }

    pub(crate) fn assignment(&self) -> Vec<TopicPartition> {
        self.inner.lock().assignment.partitions().cloned().collect()
    }

    pub(crate) fn committed_offset(&self, p: &TopicPartition) -> Option<OffsetAndMetadata> {
        self.inner.lock().committed.get(p).cloned()
    }
}
