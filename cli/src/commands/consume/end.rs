//! Knows when everything that was there at the start has been read.

use std::collections::BTreeMap;

use ailurus::TopicPartition;

/// The partitions that are ours, where each is and where it ended at the start.
#[derive(Debug)]
pub struct EndOfLog {
    ends: BTreeMap<TopicPartition, i64>,
    positions: BTreeMap<TopicPartition, i64>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first assignment there is nothing to be at the end of.
    Joining,
    /// A member without partitions: others may still have to give some up, as in a cooperative rebalance.
    Waiting,
    Reading,
    /// The group has read everything, and this member had no part in it.
    Over,
}

impl EndOfLog {
    /// With the end of every partition.
    pub fn new(ends: BTreeMap<TopicPartition, i64>) -> Self {
        Self { ends, positions: BTreeMap::new(), state: State::Joining }
    }

    /// Whether the end of this partition is known.
    pub fn knows(&self, partition: &TopicPartition) -> bool {
        self.ends.contains_key(partition)
    }

    /// These partitions are ours now, each at its position.
    pub fn assigned(&mut self, positions: BTreeMap<TopicPartition, i64>) {
        self.state = State::Reading;
        self.positions.extend(positions);
    }

    /// The group has assigned nothing to this member.
    pub fn is_member(&mut self) {
        self.state = State::Waiting;
    }

    /// Returns whether it waits for partitions.
    pub fn waits(&self) -> bool {
        self.state == State::Waiting
    }

    /// Takes in where the group is in all partitions: nothing comes to a member that waits when they are at their ends.
    pub fn looked_at(&mut self, group: &BTreeMap<TopicPartition, i64>) {
        let at_end = |tp: &TopicPartition, end: &i64| group.get(tp).is_none_or(|position| position >= end);
        if self.waits() && self.ends.iter().all(|(tp, end)| at_end(tp, end)) {
            self.state = State::Over;
        }
    }

    /// This partition is no longer ours.
    pub fn revoked(&mut self, partition: &TopicPartition) {
        self.positions.remove(partition);
        if self.positions.is_empty() {
            self.state = State::Waiting;
        }
    }

    /// Everything before `next` has been read, or has no record.
    pub fn advanced(&mut self, partition: &TopicPartition, next: i64) {
        if let Some(position) = self.positions.get_mut(partition) {
            *position = next.max(*position);
        }
    }

    /// Whether each of our partitions is at its end. One that did not exist at the start had nothing then.
    pub fn is_reached(&self) -> bool {
        let end = |tp| self.ends.get(tp).copied().unwrap_or(0);
        let is_read = || self.positions.iter().all(|(tp, position)| *position >= end(tp));
        self.state == State::Over || (self.state == State::Reading && is_read())
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
    fn every_partition_must_be_read_to_its_end_also_past_offsets_without_a_record() {
        let mut end = EndOfLog::new(BTreeMap::from([(tp(0), 5), (tp(1), 3)]));
        end.assigned(BTreeMap::from([(tp(0), 0), (tp(1), 3)]));
        assert!(!end.is_reached());
        end.advanced(&tp(0), 4);
        assert!(!end.is_reached());
        end.advanced(&tp(0), 5); // a control batch at the end brings no record, only the next offset
        assert!(end.is_reached());
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
        end.is_member();
        assert!(end.waits() && !end.is_reached());
        end.looked_at(&BTreeMap::from([(tp(0), 4), (tp(1), 2)]));
        assert!(end.waits() && !end.is_reached(), "the others have not read everything");
        let mut others = EndOfLog::new(end.ends.clone());
        others.is_member();
        others.looked_at(&BTreeMap::from([(tp(0), 5)])); // partition 1 can't be asked
        assert!(others.is_reached());
        end.assigned(BTreeMap::from([(tp(1), 0)]));
        end.looked_at(&BTreeMap::from([(tp(0), 5), (tp(1), 5)]));
        assert!(!end.is_reached(), "it has something to read itself");
        end.revoked(&tp(1));
        assert!(end.waits() && !end.is_reached(), "in an eager rebalance all goes, and something comes back");
    }
}
