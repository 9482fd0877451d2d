//! The rows that a relay has: which is sent next, and which are to be removed. A core without I/O.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::super::outbox::{DeferredRow, OutboxRow};

/// Rows that are sent one after the other: those of a key in a topic. A row without a key has no
/// order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Lane {
    Key(String, Bytes),
    Row(i64),
}

impl Lane {
    fn of(row: &OutboxRow) -> Self {
        match &row.key {
            Some(key) => Self::Key(row.topic.clone(), key.clone()),
            None => Self::Row(row.id),
        }
    }
}

/// Rows from their fetch until they are removed from the outbox.
///
/// One row of each lane is ready or in flight, and the others wait for its acknowledgement: a row
/// that is sent again never comes behind one of its key that was sent once.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Lanes with a row that is ready or in flight, and the rows behind it.
    lanes: HashMap<Lane, VecDeque<OutboxRow>>,
    ready: VecDeque<OutboxRow>,
    /// Lanes and sizes of rows in flight.
    in_flight: HashMap<i64, (Lane, usize)>,
    /// Ids of all rows, also of those that are acknowledged and not yet removed.
    ids: HashSet<i64>,
    /// Size of rows that are queued, ready or in flight.
    bytes: usize,
    acknowledged: Vec<i64>,
    failed: Vec<DeferredRow>,
}

impl Window {
    /// Adds fetched rows, in the order of their ids.
    pub(super) fn on_rows(&mut self, rows: Vec<OutboxRow>) {
        for row in rows {
            if !self.ids.insert(row.id) {
                continue;
            }
            self.bytes += row.size();
            match self.lanes.entry(Lane::of(&row)) {
                std::collections::hash_map::Entry::Occupied(lane) => lane.into_mut().push_back(row),
                std::collections::hash_map::Entry::Vacant(lane) => {
                    lane.insert(VecDeque::new());
                    self.ready.push_back(row);
                }
            }
        }
    }

    /// Returns the next row to send, which is in flight from now on.
    pub(super) fn poll_send(&mut self) -> Option<OutboxRow> {
        let row = self.ready.pop_front()?;
        self.in_flight.insert(row.id, (Lane::of(&row), row.size()));
        Some(row)
    }

    /// Records that the record of a row is acknowledged; the next row of its lane is ready.
    pub(super) fn on_acknowledged(&mut self, id: i64) {
        let Some(lane) = self.end_flight(id) else { return };
        self.acknowledged.push(id);
        match self.lanes.get_mut(&lane).and_then(VecDeque::pop_front) {
            Some(next) => self.ready.push_back(next),
            None => _ = self.lanes.remove(&lane),
        }
    }

    /// Records that a row could not be sent. Rows behind it are dropped: the outbox returns them
    /// again, after this one.
    pub(super) fn on_failed(&mut self, id: i64, retry_after: Duration, error: String) {
        let Some(lane) = self.end_flight(id) else { return };
        self.failed.push(DeferredRow { id, retry_after, error });
        for row in self.lanes.remove(&lane).into_iter().flatten() {
            self.bytes -= row.size();
            self.ids.remove(&row.id);
        }
    }

    fn end_flight(&mut self, id: i64) -> Option<Lane> {
        let (lane, size) = self.in_flight.remove(&id)?;
        self.bytes -= size;
        Some(lane)
    }

    /// Drops the rows that are not in flight: another relay sends them, or the next one does.
    pub(super) fn drop_queued(&mut self) {
        let (ids, bytes) = (&mut self.ids, &mut self.bytes);
        let queued = self.lanes.values_mut().flat_map(std::mem::take);
        for row in queued.chain(self.ready.drain(..)) {
            *bytes -= row.size();
            ids.remove(&row.id);
        }
        let in_flight: HashSet<_> = self.in_flight.values().map(|(lane, _)| lane).collect();
        self.lanes.retain(|lane, _| in_flight.contains(lane));
    }

    /// Returns the acknowledged rows, to be removed from the outbox.
    pub(super) fn acknowledged(&self) -> &[i64] {
        &self.acknowledged
    }

    /// Records that the [`acknowledged`](Self::acknowledged) rows are removed.
    pub(super) fn on_removed(&mut self) {
        self.acknowledged.drain(..).for_each(|id| _ = self.ids.remove(&id));
    }

    /// Returns the rows that could not be sent, to be deferred.
    pub(super) fn failed(&self) -> &[DeferredRow] {
        &self.failed
    }

    /// Records that the [`failed`](Self::failed) rows are deferred.
    pub(super) fn on_deferred(&mut self) {
        self.failed.drain(..).for_each(|row| _ = self.ids.remove(&row.id));
    }

    /// Returns whether rows are to be removed or deferred.
    pub(super) fn has_settled(&self) -> bool {
        !self.acknowledged.is_empty() || !self.failed.is_empty()
    }

    /// Returns the ids of all rows.
    pub(super) fn ids(&self) -> Vec<i64> {
        self.ids.iter().copied().collect()
    }

    /// Returns the number of rows, and their size in bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.ids.len(), self.bytes)
    }

    /// Returns the number of rows in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn row(id: i64, key: &'static str) -> OutboxRow {
        let row = OutboxRow::new(id, id.to_string(), "t").value("v");
        if key.is_empty() { row } else { row.key(key) }
    }

    fn sent(window: &mut Window) -> Vec<i64> {
        std::iter::from_fn(|| window.poll_send()).map(|row| row.id).collect()
    }

    #[test]
    fn rows_of_a_key_are_sent_one_after_the_other() {
        let mut window = Window::default();
        window.on_rows(vec![row(1, "a"), row(2, "a"), row(3, "b"), row(4, ""), row(5, "")]);
        assert_eq!(sent(&mut window), [1, 3, 4, 5]);
        window.on_acknowledged(3);
        window.on_rows(vec![row(2, "a"), row(6, "a"), row(7, "b")]);
        assert_eq!(sent(&mut window), [7]);
        window.on_acknowledged(1);
        assert_eq!(sent(&mut window), [2]);
        window.on_acknowledged(2);
        assert_eq!(sent(&mut window), [6]);
        assert_eq!(window.acknowledged(), [3, 1, 2]);
    }

    #[test]
    fn a_failed_row_holds_back_the_rows_behind_it() {
        let mut window = Window::default();
        window.on_rows(vec![row(1, "a"), row(2, "a"), row(3, "b")]);
        assert_eq!(sent(&mut window), [1, 3]);
        window.on_failed(1, Duration::ZERO, "no".into());
        assert_eq!(sent(&mut window), [] as [i64; 0]);
        let mut ids = window.ids();
        ids.sort_unstable();
        assert_eq!(ids, [1, 3], "the row is not fetched before it is deferred, and 2 may be");
        window.on_deferred();
        window.on_rows(vec![row(1, "a"), row(2, "a")]);
        assert_eq!(sent(&mut window), [1]);
    }

    #[test]
    fn acknowledged_rows_stay_known_until_they_are_removed() {
        let mut window = Window::default();
        window.on_rows(vec![row(1, "a")]);
        assert_eq!(sent(&mut window), [1]);
        window.on_acknowledged(1);
        window.on_rows(vec![row(1, "a")]);
        assert_eq!(sent(&mut window), [] as [i64; 0], "it would be in the topic twice");
        window.on_removed();
        assert_eq!((window.size(), window.has_settled()), ((0, 0), false));
    }

    #[test]
    fn a_relay_in_standby_keeps_only_rows_in_flight() {
        let mut window = Window::default();
        window.on_rows(vec![row(1, "a"), row(2, "a"), row(3, "b")]);
        assert_eq!(window.poll_send().unwrap().id, 1);
        window.drop_queued();
        assert_eq!((sent(&mut window), window.ids()), (vec![], vec![1]));
        window.on_rows(vec![row(2, "a")]);
        assert_eq!(sent(&mut window), [] as [i64; 0], "row 1 is in flight");
        window.on_acknowledged(1);
        assert_eq!(sent(&mut window), [2]);
        window.on_acknowledged(2);
        window.on_removed();
        assert_eq!(window.size(), (0, 0));
    }
}
