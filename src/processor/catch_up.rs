//! Decides when a subscription has caught up, without I/O.

use std::collections::BTreeMap;

use crate::record::TopicPartition;

/// A partition as far as a [`CatchUp`] has seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Its end has not been listed yet.
    Unknown,
    /// It is to be handled up to this offset.
    To(i64),
    /// It was handled up to its end.
    Reached,
}

/// Compares the assigned partitions with their ends at the time when each was first seen.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    partitions: BTreeMap<TopicPartition, Progress>,
}

impl CatchUp {
    /// Handles the assigned partitions with the offsets up to which they are handled. Returns those
    /// whose end is to be listed.
    ///
    /// 1. The ends of `orders/0` and `orders/1` are listed.
    /// 2. A rebalance moves `orders/1` to another member, which has to catch up with it: it is
    ///    forgotten here.
    /// 3. It comes back: its end is listed again, since records may have been written and handled
    ///    meanwhile.
    pub(super) fn on_progress(
        &mut self,
        assigned: impl IntoIterator<Item = (TopicPartition, Option<i64>)>,
    ) -> Vec<TopicPartition> {
        let mut before = std::mem::take(&mut self.partitions);
        for (tp, position) in assigned {
            let progress = match before.remove(&tp) {
                Some(Progress::To(end)) if position >= Some(end) => Progress::Reached,
                Some(progress) => progress,
                None => Progress::Unknown,
            };
            self.partitions.insert(tp, progress);
        }
        let unknown = self.partitions.iter().filter(|(_, progress)| **progress == Progress::Unknown);
        unknown.map(|(tp, _)| tp.clone()).collect()
    }

    /// Handles listed ends.
    pub(super) fn on_ends(&mut self, ends: &BTreeMap<TopicPartition, i64>) {
        for (tp, progress) in &mut self.partitions {
            if let (Progress::Unknown, Some(end)) = (&progress, ends.get(tp)) {
                *progress = Progress::To(*end);
            }
        }
    }

    /// Returns whether each assigned partition was handled up to its end.
    pub(super) fn is_done(&self) -> bool {
        self.partitions.values().all(|progress| *progress == Progress::Reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    fn ends(all: &[(i32, i64)]) -> BTreeMap<TopicPartition, i64> {
        all.iter().map(|(partition, end)| (p(*partition), *end)).collect()
    }

    #[test]
    fn each_partition_must_reach_its_end_once() {
        let mut core = CatchUp::default();
        assert_eq!(core.on_progress([(p(0), Some(3)), (p(1), None)]), [p(0), p(1)]);
        core.on_ends(&ends(&[(0, 5), (1, 0)]));
        assert_eq!(core.on_progress([(p(0), Some(4)), (p(1), None)]), []);
        assert!(!core.is_done(), "an empty partition counts when its first fetch has found that");
        core.on_progress([(p(0), Some(5)), (p(1), None)]);
        core.on_progress([(p(0), Some(2)), (p(1), Some(0))]); // the first was moved back by a seek
        assert!(core.is_done());
    }

    #[test]
    fn records_written_later_do_not_count() {
        let mut core = CatchUp::default();
        core.on_progress([(p(0), Some(3))]);
        core.on_ends(&ends(&[(0, 5)]));
        core.on_ends(&ends(&[(0, 9)]));
        core.on_progress([(p(0), Some(5))]);
        assert!(core.is_done());
    }

    #[test]
    fn a_rebalance_removes_and_adds_partitions() {
        let mut core = CatchUp::default();
        core.on_progress([(p(0), Some(0)), (p(1), Some(0))]);
        core.on_ends(&ends(&[(0, 5), (1, 5)]));
        core.on_progress([(p(0), Some(5))]);
        assert!(core.is_done(), "the other one is another member's");
        assert_eq!(core.on_progress([(p(0), Some(5)), (p(1), Some(5))]), [p(1)], "it came back");
        assert!(!core.is_done());
        core.on_ends(&ends(&[(1, 8)]));
        core.on_progress([(p(0), Some(5)), (p(1), Some(8))]);
        assert!(core.is_done());
    }

    #[test]
    fn a_member_without_partitions_is_done() {
        let mut core = CatchUp::default();
        assert_eq!(core.on_progress([]), []);
        assert!(core.is_done());
    }
}
