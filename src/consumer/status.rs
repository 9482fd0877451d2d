//! State of a consumer, for the application, health and metrics.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::metrics::Meter;
use crate::cluster::offset_commit::OffsetAndMetadata;
use crate::failure::OngoingOutage;
use crate::lock::Lock;
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

/// State shared between a consumer and its tasks.
#[derive(Debug)]
pub(crate) struct Status {
    inner: Lock<Inner>,
    meter: Meter,
    began: Instant,
}

#[derive(Debug, Default)]
struct Inner {
    state: ConsumerState,
    /// Start of the state; none before the first change.
    entered: Option<Instant>,
    member_id: Option<String>,
    generation: Option<i32>,
    assignment: BTreeSet<TopicPartition>,
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

    fn assign(&mut self, partitions: &[TopicPartition], meter: &Meter) {
        for p in partitions {
            if self.assignment.insert(p.clone()) {
                meter.assigned(p);
            }
        }
    }
}

impl Status {
    pub(crate) fn new(meter: Meter) -> Self {
        meter.state(None, Some(ConsumerState::default().as_str()));
        Self { inner: Lock::default(), meter, began: Instant::now() }
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Returns the state, unless the consumer is closed: a task may not have seen that yet.
    fn open(&self) -> Option<MutexGuard<'_, Inner>> {
        Some(self.lock()).filter(|s| s.state != ConsumerState::Closed)
    }

    /// Enters `joining`. A member that rebalances cooperatively keeps its partitions.
    pub(crate) fn joining(&self) {
        let Some(mut s) = self.open() else { return };
        s.enter(ConsumerState::Joining, &self.meter);
        s.generation = s.generation.filter(|_| !s.assignment.is_empty());
    }

    pub(crate) fn member(&self, id: &str, generation: i32, added: &[TopicPartition]) {
        let Some(mut s) = self.open() else { return };
        s.enter(ConsumerState::Member, &self.meter);
        s.member_id = Some(id.into());
        s.generation = Some(generation);
        s.assign(added, &self.meter);
    }

    /// Enters `member` without a group.
    pub(crate) fn alone(&self, partitions: &[TopicPartition]) {
        let Some(mut s) = self.open() else { return };
        s.enter(ConsumerState::Member, &self.meter);
        s.assign(partitions, &self.meter);
    }

    /// Removes partitions, `lost` if the member did not give them back.
    pub(crate) fn unassigned(&self, partitions: &[TopicPartition], lost: bool) {
        let s = &mut *self.lock();
        for p in partitions {
            if s.assignment.remove(p) {
                self.meter.unassigned(p, lost);
            }
            s.committed.remove(p);
        }
    }

    pub(crate) fn closed(&self) {
        let mut s = self.lock();
        let id = s.member_id.take();
        s.enter(ConsumerState::Closed, &self.meter);
        s.assignment.iter().for_each(|p| self.meter.unassigned(p, false));
        *s = Inner { state: ConsumerState::Closed, entered: s.entered, member_id: id, ..Inner::default() };
    }

    /// Records committed offsets of assigned partitions.
    pub(crate) fn committed(&self, offsets: &HashMap<TopicPartition, OffsetAndMetadata>) {
        let s = &mut *self.lock();
        let assigned = offsets.iter().filter(|(p, _)| s.assignment.contains(p));
        assigned.clone().for_each(|(p, at)| self.meter.committed_offset(p, at.offset));
        s.committed.extend(assigned.map(|(p, offset)| (p.clone(), offset.clone())));
    }

    /// Sets the outage of the membership.
    pub(crate) fn set_outage(&self, outage: Option<OngoingOutage>) {
        self.lock().outage = outage;
    }

    /// Returns the outage of the membership.
    pub(crate) fn outage(&self) -> Option<OngoingOutage> {
        self.lock().outage.clone()
    }

    pub(crate) fn state(&self) -> ConsumerState {
        self.lock().state
    }

    /// Returns the state, and the time since it was entered.
    pub(crate) fn state_for(&self) -> (ConsumerState, Duration) {
        let s = self.lock();
        (s.state, s.entered.unwrap_or(self.began).elapsed())
    }

    pub(crate) fn member_id(&self) -> Option<String> {
        self.lock().member_id.clone()
    }

    pub(crate) fn generation(&self) -> Option<i32> {
        self.lock().generation
    }

    pub(crate) fn assignment(&self) -> Vec<TopicPartition> {
        self.lock().assignment.iter().cloned().collect()
    }

    pub(crate) fn committed_offset(&self, p: &TopicPartition) -> Option<OffsetAndMetadata> {
        self.lock().committed.get(p).cloned()
    }
}
