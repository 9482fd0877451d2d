//! How a consumer is, for whoever asks.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ConsumerState {
    /// It looks for the coordinator, or waits for the group to share out partitions.
    #[default]
    Joining,
    /// It has its partitions, perhaps none; a consumer without a group always has.
    Member,
    /// It was closed, or ended with an error.
    Closed,
}

impl ConsumerState {
    /// `joining`, `member` or `closed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Member => "member",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for ConsumerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Shared between the tasks of a consumer and its front.
#[derive(Debug)]
pub(crate) struct Status {
    inner: Lock<Inner>,
    meter: Meter,
    began: Instant,
}

#[derive(Debug, Default)]
struct Inner {
    state: ConsumerState,
    /// When it came to be in that state; none before the first change.
    entered: Option<Instant>,
    member_id: Option<String>,
    generation: Option<i32>,
    assignment: BTreeSet<TopicPartition>,
    committed: HashMap<TopicPartition, OffsetAndMetadata>,
    /// What keeps it from its group.
    trouble: Option<OngoingOutage>,
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

    /// Nothing, once it is closed: a task that has yet to see that comes too late.
    fn open(&self) -> Option<MutexGuard<'_, Inner>> {
        Some(self.lock()).filter(|s| s.state != ConsumerState::Closed)
    }

    /// What is ours stays ours, if the group rebalances cooperatively.
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

    /// Reads without a group.
    pub(crate) fn alone(&self, partitions: &[TopicPartition]) {
        let Some(mut s) = self.open() else { return };
        s.enter(ConsumerState::Member, &self.meter);
        s.assign(partitions, &self.meter);
    }

    /// These are not ours any more, `lost` if that was none of our doing; the group shares out anew.
    pub(crate) fn gone(&self, partitions: &[TopicPartition], lost: bool) {
        let s = &mut *self.lock();
        for p in partitions {
            if s.assignment.remove(p) {
                self.meter.gone(p, lost);
            }
            s.committed.remove(p);
        }
    }

    pub(crate) fn closed(&self) {
        let mut s = self.lock();
        let id = s.member_id.take();
        s.enter(ConsumerState::Closed, &self.meter);
        s.assignment.iter().for_each(|p| self.meter.gone(p, false));
        *s = Inner { state: ConsumerState::Closed, entered: s.entered, member_id: id, ..Inner::default() };
    }

    /// Offsets that the group has, of partitions that are ours.
    pub(crate) fn committed(&self, offsets: &HashMap<TopicPartition, OffsetAndMetadata>) {
        let s = &mut *self.lock();
        let ours = offsets.iter().filter(|(p, _)| s.assignment.contains(p));
        ours.clone().for_each(|(p, at)| self.meter.committed_offset(p, at.offset));
        s.committed.extend(ours.map(|(p, offset)| (p.clone(), offset.clone())));
    }

    /// What keeps it from its group, or no longer does.
    pub(crate) fn trouble(&self, trouble: Option<OngoingOutage>) {
        self.lock().trouble = trouble;
    }

    /// What keeps it from its group, while that is so.
    pub(crate) fn current_trouble(&self) -> Option<OngoingOutage> {
        self.lock().trouble.clone()
    }

    pub(crate) fn state(&self) -> ConsumerState {
        self.lock().state
    }

    /// Returns the state, and for how long it has been that.
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
