//! Start offsets of the leader epochs of a log.

/// (Epoch, start offset), in order.
#[derive(Debug)]
pub(crate) struct LeaderEpochs(Vec<(i32, i64)>);

impl Default for LeaderEpochs {
    fn default() -> Self {
        Self(vec![(0, 0)])
    }
}

impl LeaderEpochs {
    /// Starts an epoch at the log end offset.
    pub fn begin(&mut self, epoch: i32, end: i64) {
        self.0.retain(|&(_, start)| start < end);
        self.0.push((epoch, end));
    }

    /// Drops the epochs that start at `end` or after it.
    pub fn truncate(&mut self, end: i64) {
        self.0.retain(|&(_, start)| start < end);
    }

    /// Returns the largest known epoch up to `epoch` and its end offset; -1 each if `epoch` is
    /// newer than all.
    pub fn end_of(&self, epoch: i32, log_end: i64) -> (i32, i64) {
        let is_waiting = self.0.partition_point(|&(e, _)| e <= epoch);
        match (is_waiting.checked_sub(1).and_then(|i| self.0.get(i)), self.0.get(is_waiting)) {
            (Some(&(last, _)), None) if last == epoch => (epoch, log_end),
            (_, None) => (-1, -1),
            (Some(&(floor, _)), Some(&(_, end))) => (floor, end),
            (None, Some(&(_, end))) => (epoch, end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leader_epoch_ends_where_the_next_starts() {
        let mut epochs = LeaderEpochs::default();
        epochs.begin(2, 10);
        epochs.begin(5, 30);
        assert_eq!(epochs.end_of(5, 40), (5, 40));
        assert_eq!(epochs.end_of(3, 40), (2, 30), "the largest before it");
        assert_eq!(epochs.end_of(0, 40), (0, 10));
        assert_eq!(epochs.end_of(6, 40), (-1, -1), "unknown");
        epochs.truncate(20);
        epochs.begin(6, 20);
        assert_eq!(epochs.end_of(5, 20), (2, 20), "later epochs are truncated");
    }
}
