//! How a consumer is, for whoever asks.

use std::collections::HashMap;
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
    assignment: Vec<TopicPartition>,
    committed: HashMap<TopicPartition, OffsetAndMetadata>,
}

impl Status {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn joining(&self) {
        let mut s = self.lock();
        s.state = ConsumerState::Joining;
        s.generation = None;
        s.assignment.clear();
        s.committed.clear();
    }

    pub(crate) fn member(&self, id: &str, generation: i32, partitions: &[TopicPartition]) {
        let mut s = self.lock();
        s.state = ConsumerState::Member;
        s.member_id = Some(id.into());
        s.generation = Some(generation);
        s.assignment = partitions.to_vec();
    }

    /// Reads without a group.
    pub(crate) fn alone(&self, partitions: &[TopicPartition]) {
        let mut s = self.lock();
        s.state = ConsumerState::Member;
        s.assignment = partitions.to_vec();
    }

    pub(crate) fn closed(&self) {
        self.joining();
        self.lock().state = ConsumerState::Closed;
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
        self.lock().assignment.clone()
    }

    pub(crate) fn committed_offset(&self, p: &TopicPartition) -> Option<OffsetAndMetadata> {
        self.lock().committed.get(p).cloned()
    }
}
