//! How a consumer is, for whoever asks.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::offsets::OffsetAndMetadata;
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
#[derive(Debug, Default)]
pub(crate) struct Status(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: ConsumerState,
    member_id: Option<String>,
    generation: Option<i32>,
    assignment: BTreeSet<TopicPartition>,
    committed: HashMap<TopicPartition, OffsetAndMetadata>,
}

impl Status {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is ours stays ours, if the group rebalances cooperatively.
    pub(crate) fn joining(&self) {
        let mut s = self.lock();
        s.state = ConsumerState::Joining;
        s.generation = s.generation.filter(|_| !s.assignment.is_empty());
    }

    pub(crate) fn member(&self, id: &str, generation: i32, added: &[TopicPartition]) {
        let mut s = self.lock();
        s.state = ConsumerState::Member;
        s.member_id = Some(id.into());
        s.generation = Some(generation);
        s.assignment.extend(added.iter().cloned());
    }

    /// Reads without a group.
    pub(crate) fn alone(&self, partitions: &[TopicPartition]) {
        let mut s = self.lock();
        s.state = ConsumerState::Member;
        s.assignment = partitions.iter().cloned().collect();
    }

    /// These are not ours any more; the group shares out anew.
    pub(crate) fn gone(&self, partitions: &[TopicPartition]) {
        let s = &mut *self.lock();
        for p in partitions {
            s.assignment.remove(p);
            s.committed.remove(p);
        }
    }

    pub(crate) fn closed(&self) {
        let mut s = self.lock();
        let id = s.member_id.take();
        *s = Inner { state: ConsumerState::Closed, member_id: id, ..Inner::default() };
    }

    /// Offsets that the group has, of partitions that are ours.
    pub(crate) fn committed(&self, offsets: &HashMap<TopicPartition, OffsetAndMetadata>) {
        let s = &mut *self.lock();
        let ours = offsets.iter().filter(|(p, _)| s.assignment.contains(p));
        s.committed.extend(ours.map(|(p, offset)| (p.clone(), offset.clone())));
    }

    pub(crate) fn state(&self) -> ConsumerState {
        self.lock().state
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
