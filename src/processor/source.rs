//! The fetched records of a partition, one by one.

use std::cmp::Ordering;
use std::sync::Arc;
use std::vec;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::dead_letter::RetryPartition;
use super::lanes::Lanes;
use super::pipeline::PartitionCollector;
use super::state::PartitionState;
use crate::consumer::{Message, Records};
use crate::record::Record;
use crate::timestamp::Timestamp;

pub(super) struct RecordSource {
    /// Unbounded, because the consumer bounds it: records count against `prefetch_bytes` until they
    /// are dropped.
    queue: mpsc::UnboundedReceiver<(u64, Records)>,
    /// Number of the last seek that was carried out.
    seek: u64,
    /// The batch of `rest`; it counts against `prefetch_bytes` until its last record is taken.
    open_batch: Option<Records>,
    rest: vec::IntoIter<Record>,
    put_back: Option<Message>,
    /// The next batch, received while waiting.
    received: Option<(u64, Records)>,
    /// Number of records that were in the queue when it was closed.
    undelivered: usize,
    /// In a pipeline, learns of the same arrivals as the lanes.
    collector: Option<Arc<PartitionCollector>>,
    /// Set for a partition of a retry topic.
    retry: Option<RetryPartition>,
    /// Time before which the next record, which is put back, is not due.
    held_until: Option<Instant>,
    /// Offset of the last record that was due.
    due_offset: Option<i64>,
}

impl RecordSource {
    pub(super) fn new(
        queue: mpsc::UnboundedReceiver<(u64, Records)>,
        collector: Option<Arc<PartitionCollector>>,
        retry: Option<RetryPartition>,
    ) -> Self {
        Self {
            queue,
            seek: 0,
            open_batch: None,
            rest: Vec::new().into_iter(),
            put_back: None,
            received: None,
            undelivered: 0,
            collector,
            retry,
            held_until: None,
            due_offset: None,
        }
    }

    /// Returns the next record that must be handled. A delayed retry is held until it is due: no
    /// record behind it is returned meanwhile.
    pub(super) fn next<R>(&mut self, lanes: &mut Lanes<R>, state: &PartitionState) -> Option<Message> {
        if self.held_until.is_some_and(|at| at > Instant::now()) {
            return None;
        }
        let has_waited = self.held_until.take().is_some();
        let message = self.next_fetched(lanes, state)?;
        // Once it is due it stays so, whatever the clock says when it was put back.
        if let Some(retry) = self.retry.filter(|_| self.due_offset != Some(message.offset)) {
            let until = retry.held_until(&message, Timestamp::now(), Instant::now());
            if let Some(until) = until.filter(|_| !has_waited) {
                self.held_until = Some(until);
                self.put_back = Some(message);
                return None;
            }
            self.due_offset = Some(message.offset);
        }
        Some(message)
    }

    /// Returns the time before which [`next`](Self::next) returns nothing.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    fn next_fetched<R>(&mut self, lanes: &mut Lanes<R>, state: &PartitionState) -> Option<Message> {
        if self.put_back.is_some() {
            return self.put_back.take();
        }
        loop {
            if let Some(batch) = &self.open_batch {
                for record in self.rest.by_ref() {
                    if let Some(collector) = &self.collector {
                        collector.lock().admit(record.offset);
                    }
                    if lanes.admit(record.offset) {
                        return Some(batch.message(record));
                    }
                }
                lanes.advance_to(batch.next_offset);
                if let Some(collector) = &self.collector {
                    collector.lock().advance_to(batch.next_offset);
                }
                self.open_batch = None;
            }
            let (seek, records) = self.received.take().or_else(|| self.queue.try_recv().ok())?;
            match seek.cmp(&self.seek) {
                Ordering::Equal => self.open(records, lanes, state),
                Ordering::Less => {} // of a position before the seek
                // The seek is not carried out yet:
                // 1. The worker looks for a seek, and finds none.
                // 2. The task moves the consumer, then receives records of the new position.
                // 3. The worker takes those. With them the lanes would take the log for truncated.
                Ordering::Greater => {
                    self.received = Some((seek, records));
                    return None;
                }
            }
        }
    }

    fn open<R>(&mut self, mut records: Records, lanes: &mut Lanes<R>, state: &PartitionState) {
        state.on_fetched_end(records.end_offset());
        let first = records.records.first().map_or(records.next_offset, |r| r.offset);
        lanes.start_from(first);
        if let Some(epoch) = records.leader_epoch {
            lanes.set_leader_epoch(epoch);
        }
        if let Some(collector) = &self.collector {
            let mut collector = collector.lock();
            collector.start_from(first);
            records.leader_epoch.into_iter().for_each(|epoch| collector.set_leader_epoch(epoch));
        }
        self.rest = std::mem::take(&mut records.records).into_iter();
        self.open_batch = Some(records);
    }

    /// Returns the number of the last seek that was carried out.
    pub(super) fn seek(&self) -> u64 {
        self.seek
    }

    /// Carries out a seek: drops the records of earlier positions.
    pub(super) fn on_seek(&mut self, seek: u64) {
        self.seek = seek;
        self.open_batch = None;
        self.rest = Vec::new().into_iter();
        self.put_back = None;
        (self.held_until, self.due_offset) = (None, None);
    }

    /// Makes a record that can't be handled yet the next one again.
    pub(super) fn put_back(&mut self, message: Message) {
        self.put_back = Some(message);
    }

    /// Returns whether the next record must be received from the queue. Does not look into the
    /// queue: a batch that arrives between the last [`next`](Self::next) and waiting resolves
    /// [`wait_ready`](Self::wait_ready) at once.
    pub(super) fn is_empty(&self) -> bool {
        self.put_back.is_none() && self.open_batch.is_none() && self.received.is_none()
    }

    /// Waits until the source, which must be [empty](Self::is_empty), is not. Cancel safe.
    pub(super) async fn wait_ready(&mut self) {
        match self.queue.recv().await {
            Some(records) => self.received = Some(records),
            None => std::future::pending().await,
        }
    }

    /// Returns the number of records that were not taken, and are not held.
    pub(super) fn remaining(&self) -> usize {
        if self.held_until.is_some() {
            return 0;
        }
        self.rest.len() + usize::from(self.put_back.is_some()) + self.undelivered
    }

    /// Closes the queue and counts the records in it.
    pub(super) fn close(&mut self) {
        self.queue.close();
        while let Some((_, records)) = self.received.take().or_else(|| self.queue.try_recv().ok()) {
            self.undelivered += records.records.len();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::FutureExt;

    use super::*;
    use crate::config::HandlerOrdering;
    use crate::processor::offset_tracker::CompletedOffsets;

    fn empty_batch_to(next_offset: i64) -> Records {
        Records {
            topic: "t".into(),
            partition: 0,
            records: Vec::new(),
            next_offset,
            leader_epoch: None,
            high_watermark: next_offset,
            last_stable_offset: None,
            read_committed: false,
            epoch: 1,
            _memory: None,
        }
    }

    #[test]
    fn a_batch_received_before_waiting_wakes() {
        let (sender, queue) = mpsc::unbounded_channel();
        let (mut source, state) = (RecordSource::new(queue, None, None), PartitionState::new());
        let mut lanes = Lanes::<()>::new(HandlerOrdering::Partition, None);
        assert!(source.next(&mut lanes, &state).is_none());
        sender.send((0, empty_batch_to(5))).unwrap();
        assert!(source.is_empty(), "the queue is not looked into");
        source.wait_ready().now_or_never().unwrap();
        assert!(!source.is_empty());
        assert!(source.next(&mut lanes, &state).is_none());
        assert!(source.is_empty() && source.wait_ready().now_or_never().is_none());
    }

    #[test]
    fn records_of_earlier_positions_are_dropped_and_of_later_ones_wait() {
        let (sender, queue) = mpsc::unbounded_channel();
        let (mut source, state) = (RecordSource::new(queue, None, None), PartitionState::new());
        let mut lanes = Lanes::<()>::new(HandlerOrdering::Partition, Some((5, CompletedOffsets::default())));
        let batch = |next| Records { high_watermark: 99, ..empty_batch_to(next) };
        [(0, 5), (0, 6), (1, 31)].into_iter().for_each(|(seek, next)| sender.send((seek, batch(next))).unwrap());
        assert!(source.next(&mut lanes, &state).is_none());
        assert_eq!(lanes.committable_offset(), Some(6), "the batch of the next seek is not opened");
        assert!(!source.is_empty(), "it was received, and nothing waits for the queue");

        sender.send((0, batch(7))).unwrap(); // out of order, for the test
        let mut lanes = Lanes::<()>::new(HandlerOrdering::Partition, Some((30, CompletedOffsets::default())));
        source.on_seek(1);
        assert!(source.next(&mut lanes, &state).is_none());
        assert_eq!(lanes.committable_offset(), Some(31));
        assert!(source.is_empty());
    }
}
