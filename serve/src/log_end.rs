//! The end of reading: the offsets where the logs ended at the start.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ailurus::{Admin, Client, StartOffset, TopicPartition};
use tokio::time::Instant;

use crate::text::names;

/// Writes a note for the one who waits: a line on stderr, or of the log.
pub type Note = fn(fmt::Arguments<'_>);

/// Positions in the assigned partitions, and the ends of all partitions at the start.
#[derive(Debug)]
pub struct EndOfLog {
    ends: BTreeMap<TopicPartition, i64>,
    positions: BTreeMap<TopicPartition, i64>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first assignment.
    Joining,
    /// A member without partitions: a cooperative rebalance may still assign some.
    Waiting,
    Reading,
    /// The other members of the group have read everything.
    Done,
}

impl EndOfLog {
    /// Takes the end of each partition.
    pub fn new(ends: BTreeMap<TopicPartition, i64>) -> Self {
        Self { ends, positions: BTreeMap::new(), state: State::Joining }
    }

    /// Returns whether the end of this partition is known.
    pub fn knows(&self, partition: &TopicPartition) -> bool {
        self.ends.contains_key(partition)
    }

    /// Adds assigned partitions, each at its position.
    pub fn assigned(&mut self, positions: BTreeMap<TopicPartition, i64>) {
        self.state = State::Reading;
        self.positions.extend(positions);
    }

    /// Notes that the group has assigned nothing to this member.
    pub fn assigned_none(&mut self) {
        self.state = State::Waiting;
    }

    /// Returns whether this is a member without partitions.
    pub fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    /// Takes the group's positions in all partitions: a member that waits is done when they are at the ends.
    pub fn on_group_positions(&mut self, group: &BTreeMap<TopicPartition, i64>) {
        let at_end = |tp: &TopicPartition, end: &i64| group.get(tp).is_none_or(|position| position >= end);
        if self.is_waiting() && self.ends.iter().all(|(tp, end)| at_end(tp, end)) {
            self.state = State::Done;
        }
    }

    /// Removes a partition that is no longer assigned.
    pub fn revoked(&mut self, partition: &TopicPartition) {
        self.positions.remove(partition);
        if self.positions.is_empty() {
            self.state = State::Waiting;
        }
    }

    /// Moves the position: each offset before `next` was read, or has no record.
    pub fn advanced(&mut self, partition: &TopicPartition, next: i64) {
        if let Some(position) = self.positions.get_mut(partition) {
            *position = next.max(*position);
        }
    }

    /// Returns whether each assigned partition is at its end; a partition that is newer than the start has no records to read.
    pub fn is_reached(&self) -> bool {
        let is_read = || self.positions.iter().all(|(tp, position)| *position >= self.end(tp));
        self.state == State::Done || (self.state == State::Reading && is_read())
    }

    fn end(&self, partition: &TopicPartition) -> i64 {
        self.ends.get(partition).copied().unwrap_or(0)
    }

    /// Returns the partitions whose ends this member waits for.
    fn pending(&self) -> Vec<TopicPartition> {
        match self.state {
            State::Joining | State::Done => Vec::new(),
            State::Waiting => self.ends.keys().cloned().collect(),
            State::Reading => {
                let behind = self.positions.iter().filter(|(tp, position)| **position < self.end(tp));
                behind.map(|(tp, _)| tp.clone()).collect()
            }
        }
    }

    /// Takes an end that a leader reports now; returns the one before if that was greater.
    fn lower(&mut self, partition: &TopicPartition, now: i64) -> Option<i64> {
        let end = self.ends.get_mut(partition).filter(|end| **end > now)?;
        Some(std::mem::replace(end, now))
    }
}

/// Requests the ends again while nothing is read: a log may have been cut, or a broker may have reported a wrong end.
#[derive(Debug)]
pub struct EndCheck {
    admin: Admin,
    at: Instant,
    interval: Duration,
    note: Note,
}

impl EndCheck {
    /// Time without a record after which the ends are requested again; it doubles each time.
    const FIRST: Duration = Duration::from_secs(5);
    const MAX_INTERVAL: Duration = Duration::from_secs(60);

    /// Begins now.
    pub fn new(client: &Client, note: Note) -> Self {
        Self { admin: Admin::new(client), at: Instant::now() + Self::FIRST, interval: Self::FIRST, note }
    }

    /// Notes that something was read.
    pub fn progressed(&mut self) {
        self.interval = Self::FIRST;
        self.at = Instant::now() + self.interval;
    }

    /// Waits for the time of the next check. Cancel safe.
    pub fn due(&self) -> impl Future<Output = ()> + use<> {
        tokio::time::sleep_until(self.at)
    }

    /// Lowers ends that are lower now, and notes the partitions that are still waited for. Cancel safe.
    pub async fn check(&mut self, end: &mut EndOfLog) {
        self.interval = (self.interval * 2).min(Self::MAX_INTERVAL);
        self.at = Instant::now() + self.interval;
        let pending = end.pending();
        if pending.is_empty() {
            return;
        }
        match self.admin.list_offsets_each(&pending, StartOffset::Latest).await {
            Ok(now) => {
                for (tp, now) in now.into_iter().filter_map(|(tp, now)| Some((tp, now.ok()?))) {
                    if let Some(before) = end.lower(&tp, now) {
                        (self.note)(format_args!("{tp} ends at {now} now, not at {before}: it is read up to there"));
                    }
                }
            }
            Err(error) => tracing::debug!(error = format!("{error:#}"), "the ends are not known now"),
        }
        let left = end.pending();
        if !left.is_empty() && !end.is_waiting() {
            let at = |tp: &TopicPartition| end.positions.get(tp).copied().unwrap_or(0);
            let left = left.iter().map(|tp| format!("{tp} (at {} of {})", at(tp), end.end(tp)));
            (self.note)(format_args!("waiting for records of {}; a signal ends it", names(left)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tp(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    #[test]
    fn nothing_is_reached_before_the_first_assignment() {
        let mut end = EndOfLog::new(BTreeMap::from([(tp(0), 0)]));
        assert!(!end.is_reached());
        end.assigned(BTreeMap::from([(tp(0), 0)]));
        assert!(end.is_reached());
    }

    #[test]
    fn offsets_without_a_record_count() {
        let mut end = EndOfLog::new(BTreeMap::from([(tp(0), 5), (tp(1), 3)]));
        end.assigned(BTreeMap::from([(tp(0), 0), (tp(1), 3)]));
        assert!(!end.is_reached());
        end.advanced(&tp(0), 4);
        assert!(!end.is_reached());
        end.advanced(&tp(0), 5); // a control batch at the end brings no record, only the next offset
        assert!(end.is_reached());
    }

    #[test]
    fn an_end_that_is_lower_now_counts() {
        let mut end = EndOfLog::new(BTreeMap::from([(tp(0), 1 << 40), (tp(1), 3)]));
        end.assigned(BTreeMap::from([(tp(0), 0), (tp(1), 3)]));
        end.advanced(&tp(0), 5);
        assert_eq!(end.pending(), [tp(0)]);
        assert_eq!(end.lower(&tp(0), 5), Some(1 << 40));
        assert_eq!(end.lower(&tp(0), 9), None, "records written since the start are not waited for");
        assert!(end.is_reached() && end.pending().is_empty());
    }

    #[test]
    fn partitions_of_other_members_do_not_count() {
        let mut end = EndOfLog::new(BTreeMap::from([(tp(0), 5), (tp(1), 5)]));
        end.assigned(BTreeMap::from([(tp(0), 5), (tp(1), 0)]));
        assert!(!end.is_reached());
        end.revoked(&tp(1));
        end.advanced(&tp(1), 2);
        assert!(end.is_reached());
        end.assigned(BTreeMap::from([(tp(1), 2)]));
        assert!(!end.is_reached());
    }

    #[test]
    fn a_member_without_partitions_waits_for_some_or_for_the_others() {
        let mut end = EndOfLog::new(BTreeMap::from([(tp(0), 5), (tp(1), 2)]));
        end.assigned_none();
        assert!(end.is_waiting() && !end.is_reached());
        end.on_group_positions(&BTreeMap::from([(tp(0), 4), (tp(1), 2)]));
        assert!(end.is_waiting() && !end.is_reached(), "the others have not read everything");
        let mut others = EndOfLog::new(end.ends.clone());
        others.assigned_none();
        others.on_group_positions(&BTreeMap::from([(tp(0), 5)])); // partition 1 is not known
        assert!(others.is_reached());
        end.assigned(BTreeMap::from([(tp(1), 0)]));
        end.on_group_positions(&BTreeMap::from([(tp(0), 5), (tp(1), 5)]));
        assert!(!end.is_reached(), "it has something to read itself");
        end.revoked(&tp(1));
        assert!(end.is_waiting() && !end.is_reached(), "in an eager rebalance all goes, and something comes back");
    }
}
