//! Last stable offsets that transactions hold back, without I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::record::TopicPartition;

/// Offsets of a partition that is read with isolation level `read_committed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StableOffset {
    pub(crate) partition: TopicPartition,
    pub(crate) last_stable: i64,
    pub(crate) high_watermark: i64,
}

/// Partitions whose last stable offset is behind their high watermark, and the time since which it
/// has been the same.
#[derive(Debug, Default)]
pub(super) struct HeldOffsets(BTreeMap<TopicPartition, (i64, Instant)>);

impl HeldOffsets {
    /// Handles the offsets of all partitions that are read with this isolation level.
    pub(super) fn on_offsets(&mut self, offsets: impl IntoIterator<Item = StableOffset>, now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        for o in offsets.into_iter().filter(|o| o.last_stable < o.high_watermark) {
            let same = before.remove(&o.partition).filter(|(offset, _)| *offset == o.last_stable);
            self.0.insert(o.partition, same.unwrap_or((o.last_stable, now)));
        }
    }

    /// Returns the partitions whose offset has been held for at least `limit`, with that offset and
    /// time.
    pub(super) fn held_for(&self, limit: Duration, now: Instant) -> Vec<(TopicPartition, i64, Duration)> {
        let held = self.0.iter().map(|(p, (at, since))| (p.clone(), *at, now.saturating_duration_since(*since)));
        held.filter(|(_, _, long)| *long >= limit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn offsets(last_stable: i64, high_watermark: i64) -> Vec<StableOffset> {
        vec![StableOffset { partition: TopicPartition::new("t", 0), last_stable, high_watermark }]
    }

    /// Returns for how many seconds the partition is held after these offsets, one pair each minute.
    fn held_after(pairs: &[(i64, i64)]) -> Option<u64> {
        let (mut held, start) = (HeldOffsets::default(), Instant::now());
        let mut now = start;
        for (minute, (stable, high)) in (0..).zip(pairs) {
            now = start + LIMIT * minute;
            held.on_offsets(offsets(*stable, *high), now);
        }
        held.held_for(LIMIT, now).first().map(|(_, _, long)| long.as_secs())
    }

    #[test]
    fn an_offset_is_held_while_it_stays_behind_the_end() {
        assert_eq!(held_after(&[(5, 9)]), None, "since now");
        assert_eq!(held_after(&[(5, 9), (5, 9), (5, 12)]), Some(120));
    }

    #[test]
    fn an_offset_that_moves_is_not_held() {
        assert_eq!(held_after(&[(5, 9), (5, 9), (7, 12)]), None, "the next transaction is open");
        assert_eq!(held_after(&[(5, 9), (5, 9), (9, 9)]), None, "none is open");
        assert_eq!(held_after(&[(5, 9), (9, 9), (5, 9)]), None);
    }

    #[test]
    fn a_partition_that_is_no_longer_read_is_not_held() {
        let (mut held, now) = (HeldOffsets::default(), Instant::now());
        held.on_offsets(offsets(5, 9), now);
        held.on_offsets([], now + LIMIT);
        assert_eq!(held.held_for(Duration::ZERO, now + LIMIT), []);
    }
}
